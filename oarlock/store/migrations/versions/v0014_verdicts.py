"""The verdict on an organ, beside its scores.

And why its scores are missing.
"""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    """Add the columns; rows of earlier jobs have neither."""
    for name in ("undefined_reason", "verdict"):
        op.add_column("qa_scores", sa.Column(name, sa.Text))


def downgrade() -> None:
    """Drop the columns."""
    for name in ("undefined_reason", "verdict"):
        op.drop_column("qa_scores", name)

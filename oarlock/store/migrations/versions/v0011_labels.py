"""What senders call their jobs."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Add the column; a job without a value has no label."""
    op.add_column("jobs", sa.Column("label", sa.Text))


def downgrade() -> None:
    """Drop the column."""
    op.drop_column("jobs", "label")

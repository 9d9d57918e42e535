"""Baselines by scanner.

Those that were there do not know their scanners, and hold for all together, as before.
"""

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"


def upgrade() -> None:
    """Add the column."""
    op.add_column("baselines", sa.Column("of_scanners", sa.Text, nullable=False, server_default="{}"))


def downgrade() -> None:
    """Drop it: the version before takes all scanners together."""
    with op.batch_alter_table("baselines") as baselines:
        baselines.drop_column("of_scanners")

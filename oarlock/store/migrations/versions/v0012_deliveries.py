"""When and where results arrived.

And which job takes the place of another.
"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    """Make the table, and the column of jobs that were superseded."""
    op.add_column("jobs", sa.Column("superseded_by", sa.Text))
    op.create_table(
        "deliveries",
        sa.Column("job_id", sa.Text, primary_key=True),
        sa.Column("place", sa.Text, primary_key=True),
        sa.Column("result", sa.Text, primary_key=True),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("note", sa.Text),
        sa.Column("at", sa.BigInteger),
    )
    op.create_index("deliveries_by_state", "deliveries", ["state"])


def downgrade() -> None:
    """Drop the table and the column."""
    op.drop_table("deliveries")
    op.drop_column("jobs", "superseded_by")

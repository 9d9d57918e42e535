"""Sessions: who has signed in to the pages."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "sessions",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("sealed", sa.LargeBinary, nullable=False),
        sa.Column("ends_at", sa.BigInteger, nullable=False),
    )
    op.create_index("sessions_by_end", "sessions", ["ends_at"])


def downgrade() -> None:
    """Drop the table: everybody signs in again."""
    op.drop_table("sessions")

"""What was taken out of a series that was de-identified, sealed."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Add the column; a job without a value was not de-identified."""
    op.add_column("jobs", sa.Column("identity", sa.LargeBinary))

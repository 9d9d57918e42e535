"""How long a job's input and results are kept.

By key and by job.
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add the columns; without a value the settings count."""
    for table in ("jobs", "keys"):
        op.add_column(table, sa.Column("keep_input_s", sa.BigInteger))
        op.add_column(table, sa.Column("keep_results_s", sa.BigInteger))
    op.add_column("jobs", sa.Column("input_purged_at", sa.BigInteger))

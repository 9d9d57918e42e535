"""Callbacks: who is to be told that a job has ended."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Make the table.

    And the columns that say which jobs ask for one.
    """
    op.add_column("jobs", sa.Column("callback_url", sa.Text))
    op.add_column("jobs", sa.Column("callback_pending", sa.Boolean))
    op.create_index("jobs_by_callback", "jobs", ["callback_pending", "state"])
    op.create_table(
        "callbacks",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("job_id", sa.Text, nullable=False),
        sa.Column("url", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("job_state", sa.Text, nullable=False),
        sa.Column("error_code", sa.Text),
        sa.Column("ended_at", sa.BigInteger, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("next_at", sa.BigInteger, nullable=False),
        sa.Column("outcome", sa.Text),
    )
    op.create_index("callbacks_by_time", "callbacks", ["state", "next_at"])
    op.create_index("callbacks_by_job", "callbacks", ["job_id"])

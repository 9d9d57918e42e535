"""Gateways, and what they are asked.

A delivery says which gateway told of it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"


def upgrade() -> None:
    """Make the tables and the column."""
    op.create_table(
        "gateways",
        sa.Column("site", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("seen_at", sa.BigInteger, nullable=False),
        sa.Column("archives", sa.Text, nullable=False),
        sa.Column("series", sa.Text, nullable=False),
    )
    op.create_table(
        "gateway_requests",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("site", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("gateway", sa.Text),
        sa.Column("archive", sa.Text),
        sa.Column("wanted", sa.LargeBinary, nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("idempotency_key", sa.Text, unique=True),
        sa.Column("holder", sa.Text),
        sa.Column("lease_token", sa.Integer, nullable=False),
        sa.Column("lease_until", sa.BigInteger),
        sa.Column("job_id", sa.Text),
        sa.Column("prior_jobs", sa.Text, nullable=False),
        sa.Column("instances", sa.Integer),
        sa.Column("detail", sa.Text),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("taken_at", sa.BigInteger),
        sa.Column("ended_at", sa.BigInteger),
        sa.Column("actor_name", sa.Text, nullable=False),
    )
    op.create_index("gateway_requests_by_age", "gateway_requests", ["created_at", "id"])
    op.create_index("gateway_requests_by_state", "gateway_requests", ["state", "created_at"])
    op.create_index("gateway_requests_by_job", "gateway_requests", ["job_id"])
    op.add_column("deliveries", sa.Column("gateway", sa.Text))


def downgrade() -> None:
    """Drop the tables and the column."""
    op.drop_column("deliveries", "gateway")
    op.drop_table("gateway_requests")
    op.drop_table("gateways")

"""Sites: whose a key, a job and its scores are.

And where a job stands in the queue beside those of other sites.

What was there before belongs to no site, so operators alone see it; jobs that wait keep their places.
"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Add the column, and make a site part of scores.

    Part of what a score depends on.
    """
    for table in ("keys", "jobs"):
        op.add_column(table, sa.Column("site", sa.Text, nullable=False, server_default=""))
    op.add_column("jobs", sa.Column("rank", sa.Integer, nullable=False, server_default="0"))
    op.execute("UPDATE jobs SET rank = priority")
    op.drop_index("jobs_by_queue", "jobs")
    op.create_index("jobs_by_queue", "jobs", ["state", "rank", "queued_at", "id"])
    op.create_index("jobs_by_site", "jobs", ["site", "created_at", "id"])
    with op.batch_alter_table("qa_streams") as streams:
        streams.add_column(sa.Column("site", sa.Text, nullable=False, server_default=""))
        streams.drop_constraint("qa_streams_once", type_="unique")
        streams.create_unique_constraint("qa_streams_once", ["model", "model_version", "model_sha256", "scanner", "site"])

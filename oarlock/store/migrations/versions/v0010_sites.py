"""Sites: whose a key, a job and its scores are.

And where a job stands in the queue beside those of other sites.

What was there before belongs to no site, so operators alone see it; jobs that wait keep their places.
"""

import sqlalchemy as sa
from alembic import op

from oarlock.store.migrations.refused import RollBackRefused

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


def downgrade() -> None:
    """Drop the columns.

    :raises RollBackRefused: if a site has anything: the version before would show it to every key.
    """
    used = (
        "SELECT site FROM jobs WHERE site <> '' AND purged_at IS NULL "
        "UNION SELECT site FROM keys WHERE site <> '' AND revoked_at IS NULL UNION SELECT site FROM qa_streams WHERE site <> ''"
    )
    if (site := op.get_bind().scalar(sa.text(used))) is not None:
        raise RollBackRefused("0009", f"the site {site} has keys, jobs or scores, and the version before shows them to every key")
    with op.batch_alter_table("qa_streams") as streams:
        streams.drop_constraint("qa_streams_once", type_="unique")
        streams.create_unique_constraint("qa_streams_once", ["model", "model_version", "model_sha256", "scanner"])
        streams.drop_column("site")
    op.drop_index("jobs_by_site", "jobs")
    op.drop_index("jobs_by_queue", "jobs")
    op.create_index("jobs_by_queue", "jobs", ["state", "priority", "queued_at", "id"])
    op.drop_column("jobs", "rank")
    for table in ("keys", "jobs"):
        op.drop_column(table, "site")

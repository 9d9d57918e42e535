"""Shadow runs.

Models that draw jobs without delivering, and scores that tell theirs apart.

All scores that were there are of delivered contours.
"""

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"


def upgrade() -> None:
    """Make the table, and tell shadow scores apart.

    The way in which contours were drawn becomes a part of what a score depends on.
    """
    op.create_table(
        "shadows",
        sa.Column("job_id", sa.Text, primary_key=True),
        sa.Column("site", sa.Text, nullable=False),
        sa.Column("model_name", sa.Text, nullable=False),
        sa.Column("model_version", sa.Text, nullable=False),
        sa.Column("model_sha256", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("since", sa.BigInteger, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("token", sa.Integer, nullable=False),
        sa.Column("worker", sa.Text),
        sa.Column("note", sa.Text),
    )
    op.create_index("shadows_by_state", "shadows", ["state", "since", "job_id"])
    with op.batch_alter_table("qa_streams") as streams:
        streams.add_column(sa.Column("shadow", sa.Boolean, nullable=False, server_default=sa.false()))
        streams.drop_constraint("qa_streams_once", type_="unique")
        streams.create_unique_constraint(
            "qa_streams_once", ["model", "model_version", "model_sha256", "scanner", "site", "shadow"]
        )


def downgrade() -> None:
    """Drop table and column, and the scores of shadow runs.

    The version before would take them for those of delivered contours.
    """
    shadow = "SELECT id FROM qa_streams WHERE shadow"
    op.execute(f"DELETE FROM qa_scores WHERE case_id IN (SELECT id FROM qa_cases WHERE stream_id IN ({shadow}))")  # noqa: S608
    for table in ("qa_cases", "qa_days", "qa_histogram", "qa_findings"):
        op.execute(f"DELETE FROM {table} WHERE stream_id IN ({shadow})")  # noqa: S608 - names of this module
    op.execute("DELETE FROM qa_streams WHERE shadow")
    with op.batch_alter_table("qa_streams") as streams:
        streams.drop_constraint("qa_streams_once", type_="unique")
        streams.create_unique_constraint("qa_streams_once", ["model", "model_version", "model_sha256", "scanner", "site"])
        streams.drop_column("shadow")
    op.drop_table("shadows")

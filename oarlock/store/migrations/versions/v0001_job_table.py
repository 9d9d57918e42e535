"""The job table, workers' signs of life, histogram of stage durations."""

from typing import Final

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

STAGES: Final = ("reading", "inferring", "contouring", "comparing")
BUCKETS: Final = 11


def upgrade() -> None:
    """Make the tables.

    With a cell at zero for each stage and bucket.
    """
    _jobs()
    op.create_table(
        "workers",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("models", sa.Text, nullable=False),
        sa.Column("device", sa.Text, nullable=False),
        sa.Column("seen_at", sa.BigInteger, nullable=False),
    )
    durations = op.create_table(
        "stage_durations",
        sa.Column("stage", sa.Text, primary_key=True),
        sa.Column("bucket", sa.Integer, primary_key=True),
        sa.Column("jobs", sa.BigInteger, nullable=False),
        sa.Column("total_s", sa.Float, nullable=False),
    )
    cells = [{"stage": stage, "bucket": bucket, "jobs": 0, "total_s": 0.0} for stage in STAGES for bucket in range(BUCKETS)]
    op.bulk_insert(durations, cells)


def _jobs() -> None:
    op.create_table(
        "jobs",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("stage", sa.Text),
        sa.Column("stage_since", sa.BigInteger),
        sa.Column("progress", sa.Float, nullable=False),
        sa.Column("priority", sa.Integer, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("study_instance_uid", sa.Text, nullable=False),
        sa.Column("series_instance_uid", sa.Text, nullable=False),
        sa.Column("frame_of_reference_uid", sa.Text, nullable=False),
        sa.Column("slices", sa.Integer, nullable=False),
        sa.Column("spacing_z_mm", sa.Float, nullable=False),
        sa.Column("spacing_y_mm", sa.Float, nullable=False),
        sa.Column("spacing_x_mm", sa.Float, nullable=False),
        sa.Column("model_name", sa.Text, nullable=False),
        sa.Column("model_version", sa.Text, nullable=False),
        sa.Column("model_sha256", sa.Text, nullable=False),
        sa.Column("profile", sa.Text),
        sa.Column("idempotency_key", sa.Text, unique=True),
        sa.Column("content_sha256", sa.Text, nullable=False),
        sa.Column("intake_warnings", sa.Text, nullable=False),
        sa.Column("result_warnings", sa.Text, nullable=False),
        sa.Column("error_code", sa.Text),
        sa.Column("error_title", sa.Text),
        sa.Column("error_detail", sa.Text),
        sa.Column("cancel_requested", sa.Boolean, nullable=False),
        sa.Column("worker", sa.Text),
        sa.Column("lease_token", sa.Integer, nullable=False),
        sa.Column("lease_until", sa.BigInteger),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("queued_at", sa.BigInteger, nullable=False),
        sa.Column("sent_at", sa.BigInteger),
        sa.Column("started_at", sa.BigInteger),
        sa.Column("finished_at", sa.BigInteger),
        sa.Column("purged_at", sa.BigInteger),
    )
    op.create_index("jobs_by_age", "jobs", ["created_at", "id"])
    op.create_index("jobs_by_state", "jobs", ["state", "created_at", "id"])
    op.create_index("jobs_by_series", "jobs", ["series_instance_uid", "created_at", "id"])

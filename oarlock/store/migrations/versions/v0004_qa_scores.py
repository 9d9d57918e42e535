"""Scores of finished jobs, for dashboards."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Make the tables.

    What was scored before is in the QA reports of its jobs alone.
    """
    op.create_table(
        "qa_streams",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("model_version", sa.Text, nullable=False),
        sa.Column("model_sha256", sa.Text, nullable=False),
        sa.Column("scanner", sa.Text, nullable=False),
        sa.UniqueConstraint("model", "model_version", "model_sha256", "scanner", name="qa_streams_once"),
    )
    _cases()
    op.create_table(
        "qa_days",
        sa.Column("day", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("stream_id", sa.Integer, sa.ForeignKey("qa_streams.id"), primary_key=True),
        sa.Column("origin", sa.Text, primary_key=True),
        sa.Column("scores", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "qa_histogram",
        sa.Column("model", sa.Text, primary_key=True),
        sa.Column("oar", sa.Text, primary_key=True),
        sa.Column("bucket", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("cases", sa.BigInteger, nullable=False),
        sa.Column("total", sa.Float, nullable=False),
    )
    op.create_table(
        "qa_checks",
        sa.Column("code", sa.Text, primary_key=True),
        sa.Column("level", sa.Text, primary_key=True),
        sa.Column("findings", sa.BigInteger, nullable=False),
    )

    op.drop_index("jobs_by_state", "jobs")
    op.create_index("jobs_by_state", "jobs", ["state", "created_at", "id", "purged_at"])  # enough to count the jobs by state


def _cases() -> None:
    op.create_table(
        "qa_cases",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("job_id", sa.Text, nullable=False),
        sa.Column("origin", sa.Text, nullable=False),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("stream_id", sa.Integer, sa.ForeignKey("qa_streams.id"), nullable=False),
        sa.Column("definition", sa.Text, nullable=False),
        sa.Column("content_sha256", sa.Text),
        sa.Column("superseded", sa.Boolean, nullable=False),
    )
    op.create_index("qa_cases_by_age", "qa_cases", ["at", "id"])
    op.create_index("qa_cases_by_stream", "qa_cases", ["stream_id", "at", "id"])
    op.create_index("qa_cases_by_origin", "qa_cases", ["origin", "at", "id"])
    op.create_index("qa_cases_by_job", "qa_cases", ["job_id"])
    op.create_table(
        "qa_scores",
        sa.Column("case_id", sa.Integer, sa.ForeignKey("qa_cases.id"), primary_key=True),
        sa.Column("oar", sa.Text, primary_key=True),
        sa.Column("presence", sa.Text, nullable=False),
        sa.Column("tolerance_mm", sa.Float, nullable=False),
        sa.Column("tolerance_rounded_mm", sa.Float),
        sa.Column("surface_dsc", sa.Float),
        sa.Column("surface_dsc_unrounded", sa.Float),
        sa.Column("volumetric_dsc", sa.Float),
        sa.Column("hausdorff_95_mm", sa.Float),
        sa.Column("mean_surface_distance_mm", sa.Float),
        sa.Column("added_path_length_mm", sa.Float),
        sa.Column("predicted_volume_ml", sa.Float, nullable=False),
        sa.Column("reference_volume_ml", sa.Float, nullable=False),
        sqlite_with_rowid=False,
    )

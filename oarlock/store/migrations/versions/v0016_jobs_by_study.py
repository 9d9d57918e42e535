"""An index for what is kept of a study.

DICOMweb asks by its UID.
"""

from alembic import op

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    """Make the index."""
    op.create_index("jobs_by_study", "jobs", ["study_instance_uid", "created_at", "id"])


def downgrade() -> None:
    """Drop the index."""
    op.drop_index("jobs_by_study", "jobs")

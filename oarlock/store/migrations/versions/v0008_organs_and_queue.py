"""Ids of organs in packed scores; an index for queue places.

Until here a packed score named its organ by the place of the organ in a list of the code. These are the places of that time: what
was packed stays as it is, and means the same whatever becomes of that list.
"""

from typing import Final

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"

PLACES: Final = (
    *("Brain", "Brainstem", "Cochlea_L", "Cochlea_R", "Glnd_Lacrimal_L", "Glnd_Lacrimal_R", "Lens_L", "Lens_R"),
    *("Lung_L", "Lung_R", "Bone_Mandible", "OpticNrv_L", "OpticNrv_R", "Eye_L", "Eye_R", "Parotid_L", "Parotid_R"),
    *("SpinalCanal", "SpinalCord", "Glnd_Submand_L", "Glnd_Submand_R"),
)


def upgrade() -> None:
    """Make the table and the index."""
    table = op.create_table(
        "qa_oars",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("name", sa.Text, nullable=False, unique=True),
    )
    op.bulk_insert(table, [{"id": place, "name": name} for place, name in enumerate(PLACES)])
    op.create_index("jobs_by_queue", "jobs", ["state", "priority", "queued_at", "id"])

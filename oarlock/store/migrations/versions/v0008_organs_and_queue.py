"""Ids of organs in packed scores; an index for queue places.

Until here a packed score named its organ by the place of the organ in a list of the code. These are the places of that time: what
was packed stays as it is, and means the same whatever becomes of that list.
"""

from typing import Final

import sqlalchemy as sa
from alembic import op

from oarlock.store.migrations.refused import RollBackRefused

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


def downgrade() -> None:
    """Drop the table and the index.

    The version before reads an id as a place in its own list.

    :raises RollBackRefused: if there are organs that it has no place for.
    """
    newer = op.get_bind().scalar(sa.text(f"SELECT name FROM qa_oars WHERE id >= {len(PLACES)}"))  # noqa: S608 - a number
    if newer is not None:
        raise RollBackRefused("0007", f"there are scores of {newer}, which the version before does not know")
    op.drop_index("jobs_by_queue", "jobs")
    op.drop_table("qa_oars")

"""A made-up patient with the mean anatomy: every organ where the norms have it, whole, and green."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from oarlock.arrays import FloatArray
from oarlock.geometry.grid import Grid
from oarlock.organs.catalogue import BY_NAME, OAR, OARS
from oarlock.organs.norms import NORMS
from oarlock.qa.checks.anatomy import NORM_TABLES, Anatomy, NormTables
from oarlock.qa.checks.certainty import check_certainty
from oarlock.qa.checks.density import check_density
from oarlock.qa.checks.finding import Finding, Level
from oarlock.qa.checks.neighbours import check_inside, check_overlaps
from oarlock.qa.checks.place import check_laterality, check_lung_tops, check_mirror, check_order, check_position
from oarlock.qa.checks.presence import check_empty, check_field_of_view, check_islands
from oarlock.qa.checks.skin import check_skin
from oarlock.qa.checks.whole import check_continuity, check_flat_faces, check_halves, check_symmetry, check_volume
from oarlock.qa.organ_shape import FROM_HEAD, Shape

CHECK: dict[str, Callable[[Anatomy], Iterator[Finding]]] = {
    "organ.empty": check_empty,
    "organ.laterality": check_laterality,
    "organ.order": check_order,
    "organ.position": check_position,
    "organ.volume": check_volume,
    "organ.symmetry": check_symmetry,
    "organ.mirror": check_mirror,
    "organ.flat_face": check_flat_faces,
    "organ.half": check_halves,
    "organ.incomplete": check_continuity,
    "organ.gap": check_continuity,
    "organ.lung_tops": check_lung_tops,
    "organ.islands": check_islands,
    "organs.overlap": check_overlaps,
    "organ.not_inside": check_inside,
    "scan.cut_at_side": check_field_of_view,
    "scan.cut_at_end": check_field_of_view,
    "organ.skin": check_skin,
    "organ.density": check_density,
    "organ.certainty": check_certainty,
    "organ.delivered": check_certainty,
}
"""The check that gives each finding."""

FLOOR_MM = -300.0
STEM_FOOT_MM = -25.0
BOX = (slice(0, 1), slice(0, 1), slice(0, 1))


def grid() -> Grid:
    """200 slices of 2 mm from FLOOR_MM up; the pixels do not matter."""
    heights = FLOOR_MM + 2.0 * np.arange(200)
    origins = np.stack([0 * heights - 100, 0 * heights - 200, heights], axis=1)
    return Grid(400, 400, origins, np.array([1.0, 0, 0]), np.array([0, 1.0, 0]), 1.0, 1.0)


def shape(name: str) -> Shape:
    norm, goes_on = NORMS[name], name in FROM_HEAD
    z = norm.position_mm[2]
    head = STEM_FOOT_MM - 2 if name.startswith("Spinal") else z + 20
    return Shape(
        volume_ml=norm.volume_ml,
        spread_mm=np.ones(3),
        anchor_mm=np.array(norm.position_mm),
        foot_mm=FLOOR_MM if goes_on else STEM_FOOT_MM if name == "Brainstem" else z - 20,
        head_mm=head,
        faces=(0.1,) * 6,
        judged=(True,) * 6,
        largest_share=1.0,
        pieces=1,
        cut_foot=goes_on,
        cut_head=False,
        cut_side=False,
    )


def shapes(**changes: Mapping[str, Any] | None) -> dict[OAR, Shape]:
    """All organs, some of them changed, or (None) missing."""
    found = {}
    for oar in OARS:
        change = changes.get(oar.name, {})
        if change is not None:
            found[oar] = replace(shape(oar.name), **change)
    return found


def anatomy(*, others: Mapping[str, Any] | None = None, **changes: Mapping[str, Any] | None) -> Anatomy:
    """The whole patient.

    :param others: of :class:`Anatomy`, such as ``certainty``.
    """
    drawn = shapes(**changes)
    # Each organ has one voxel of its own, so that none overlaps another and lens and cord lie where they belong.
    own = {oar: place for place, oar in enumerate(OARS)}
    own |= {BY_NAME[inner]: own[BY_NAME[outer]] for inner, outer in INSIDE.items()}
    crops = {oar: ((slice(0, 1), slice(0, 1), slice(own[oar], own[oar] + 1)), np.ones((1, 1, 1), np.bool_)) for oar in drawn}
    return Anatomy(OARS, crops, drawn, grid(), **(others or {}))


INSIDE = {"Lens_L": "Eye_L", "Lens_R": "Eye_R", "SpinalCord": "SpinalCanal"}


def moved(name: str, **by_mm: float) -> dict[str, FloatArray]:
    """The change that moves an organ by so many millimetres along x, y or z."""
    return {"anchor_mm": np.array(NORMS[name].position_mm) + [by_mm.get(axis, 0.0) for axis in "xyz"]}


def of_any_size(*names: str) -> NormTables:
    """Limits by which these organs are never tiny, so that a block of a few voxels is judged by every check."""
    loose = {name: replace(NORMS[name], volume_spread=9.0) for name in names}
    return replace(NORM_TABLES, norms={**NORMS, **loose})


def findings(code: str, **changes: Any) -> dict[str | None, Finding]:
    """The findings of one code, by organ."""
    return {found.oar: found for found in CHECK[code](anatomy(**changes)) if found.code == code}


def level(code: str, oar: str, **changes: Any) -> Level:
    """The level of one organ by one check; green where it says nothing."""
    found = findings(code, **changes).get(oar)
    return Level.GREEN if found is None else found.level

"""Checks that need no reference.

Is this the anatomy of a human being, on the right sides, whole and inside of the scan?

Each check gives green, amber or red and a sentence for a dosimetrist. Red means that no set of the 42 expert contours that the
limits were derived from looks like this; amber means look here first. Green is not approval. The limits are in
:mod:`oarlock.organs.norms`, the table of all checks and what they cannot see in ``docs/qa.md``.

Positions are patient millimetres (x to the left, y to the back, z to the head).
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Final

import numpy as np
import numpy.typing as npt

from oarlock.geometry.grid import Grid
from oarlock.geometry.masks import OARMasks
from oarlock.geometry.skin import UNDER_SKIN, Surroundings
from oarlock.organs.catalogue import BY_NAME, OAR
from oarlock.qa.checks.anatomy import NORM_TABLES, Anatomy, NormTables
from oarlock.qa.checks.certainty import check_certainty
from oarlock.qa.checks.density import check_density
from oarlock.qa.checks.finding import Finding, Level, Slices
from oarlock.qa.checks.neighbours import check_inside, check_overlaps
from oarlock.qa.checks.place import check_laterality, check_lung_tops, check_mirror, check_order, check_position
from oarlock.qa.checks.presence import check_empty, check_field_of_view, check_islands
from oarlock.qa.checks.skin import check_skin
from oarlock.qa.checks.whole import check_continuity, check_flat_faces, check_halves, check_symmetry, check_volume
from oarlock.qa.organ_shape import shape_of
from oarlock.qa.tissue import compositions
from oarlock.segmentation.certainty import Certainty

CHECKS: Final[tuple[Callable[[Anatomy], Iterator[Finding]], ...]] = (
    check_empty,
    check_laterality,
    check_order,
    check_position,
    check_volume,
    check_symmetry,
    check_mirror,
    check_flat_faces,
    check_halves,
    check_continuity,
    check_lung_tops,
    check_islands,
    check_overlaps,
    check_inside,
    check_field_of_view,
    check_skin,
    check_density,
    check_certainty,
)


def check_masks(
    masks: OARMasks,
    grid: Grid,
    certainty: Mapping[OAR, Certainty] | None = None,
    hu: npt.NDArray[np.int16] | None = None,
    limits: NormTables = NORM_TABLES,
    *,
    around: Surroundings | None = None,
) -> tuple[Finding, ...]:
    """All findings on a set of contours, organ by organ.

    In the order of ``masks.oars``.

    :param hu: (z, y, x) Hounsfield units on the grid; without them what an organ consists of is not checked.
    :param certainty: what the model's probabilities said, where the contours are a model's own.
    :param around: the skin of ``hu`` where it was looked for before; else it is looked for now.

    A green finding is only listed for an organ as a whole (``organ.plausible``), so that the list stays as short as its news.
    """
    crops = {oar: crop for oar in masks.oars if (crop := masks.crop(oar)) is not None}
    shapes = {oar: shape_of(crop, grid, oar) for oar, crop in crops.items()}
    tissue = {} if hu is None else compositions(hu, crops, limits.tissues)
    anatomy = Anatomy(masks.oars, crops, shapes, grid, limits, certainty=certainty or {}, compositions=tissue)
    return judge(anatomy if hu is None else with_skin(anatomy, around or Surroundings(hu, grid)))


def with_skin(anatomy: Anatomy, around: Surroundings) -> Anatomy:
    """The same, with what lies outside of the patient's skin."""
    found = {
        oar: around.outside_by_slice(crop, under_skin=oar.name.startswith(UNDER_SKIN)) for oar, crop in anatomy.crops.items()
    }
    where = {oar: Slices.most(counts, anatomy.crops[oar][0][0].start) for oar, (counts, _) in found.items()}
    return replace(anatomy, outside={oar: sum(counts) / voxels for oar, (counts, voxels) in found.items()}, outside_slices=where)


def judge(anatomy: Anatomy) -> tuple[Finding, ...]:
    """The findings of :func:`check_masks` on organs that are already measured."""
    found = [_on_slices(finding, anatomy) for check in CHECKS for finding in check(anatomy)]
    for oar in anatomy.shapes:
        if not any(finding.oar == oar.name and finding.level is not Level.GREEN for finding in found):
            passed = Finding("organ.plausible", oar.name, Level.GREEN, f"{oar}: passes every check.")
            found.append(_on_slices(passed, anatomy))
    places = {oar.name: place for place, oar in enumerate(anatomy.oars)}
    return tuple(sorted(found, key=lambda finding: places.get(finding.oar or "", -1)))


def _on_slices(finding: Finding, anatomy: Anatomy) -> Finding:
    """A finding that names its slices: those of its organ, where it is about the organ as a whole."""
    if finding.slices is not None or finding.oar is None:
        return finding
    return replace(finding, slices=anatomy.slices(BY_NAME[finding.oar]))

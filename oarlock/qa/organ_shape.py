"""What the plausibility checks need to know of one organ.

Its volume, place, extent, ends and pieces, for :mod:`oarlock.qa.plausibility`.

Positions are patient millimetres (x to the left, y to the back, z to the head). Arrays inside of this module are turned so that
z runs from foot to head, y from front to back and x from the patient's right to the left, whatever the series' orientation is.
"""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from oarlock.arrays import FloatArray, Mask
from oarlock.geometry.components import to_pieces
from oarlock.geometry.grid import Grid, Orientation
from oarlock.geometry.masks import Box, Crop, volume_ml
from oarlock.organs.catalogue import OAR

ANCHOR_MM: Final = 60.0
"""Of an organ that scans cut at the lower end, the position of its uppermost part of this height is compared."""

FROM_HEAD: Final = frozenset({"SpinalCanal", "SpinalCord", "Lung_L", "Lung_R"})
"""The organs that most scans cut at the lower end."""


@dataclass(frozen=True, eq=False, slots=True)
class Shape:
    """What the checks need to know of one organ.

    :param volume_ml: volume.
    :param anchor_mm: (x, y, z) centre of mass; of the organs in ``FROM_HEAD`` that of the uppermost 60 mm.
    :param spread_mm: (x, y, z) standard deviation of its tissue along each axis: of a box, its width over √12.
    :param foot_mm, head_mm: z of the lowest and the highest slice.
    :param faces: area of the first and last plane over the largest parallel one: foot, head, front, back, right, left. A rounded
        organ has small ones, a cut has one near 1.
    :param judged: which of the faces can be judged: not cut by the scan, planes no thicker than where the limits come from.
    :param largest_share: share of the voxels that are in the largest connected piece (26 neighbours).
    :param pieces: number of connected pieces.
    :param cut_foot, cut_head, cut_side: whether the organ reaches the first or last slice, or the edge of the images.
    """

    volume_ml: float
    spread_mm: FloatArray
    anchor_mm: FloatArray
    foot_mm: float
    head_mm: float
    faces: tuple[float, ...]
    judged: tuple[bool, ...]
    largest_share: float
    pieces: int
    cut_foot: bool
    cut_head: bool
    cut_side: bool


def shape_of(crop: Crop, grid: Grid, oar: OAR) -> Shape:
    """Measure one organ.

    :param crop: its box in the grid and the mask in it, which is not empty.
    """
    box, mask = crop
    orientation = grid.orientation()
    planes, spacings = orientation.turned(mask), orientation.in_patient_order(grid.spacing_mm)
    cuts = orientation.ends([(s.start == 0, s.stop == n) for s, n in zip(box, grid.shape, strict=True)])
    areas = [np.count_nonzero(planes, axis=axes) for axes in ((1, 2), (0, 2), (0, 1))]
    pieces, count = to_pieces(mask, corners=True)
    sizes = np.bincount(pieces.ravel())[1:]
    heights = grid.to_points(_corners(box))[:, 2]
    coarse = [spacing > limit for spacing, limit in zip(spacings, (2.6, 1.3, 1.3), strict=True)]
    return Shape(
        volume_ml=volume_ml(crop, grid),
        spread_mm=_spread_mm(areas, spacings),
        anchor_mm=_anchor_mm(mask, box, grid, orientation, from_head=oar.name in FROM_HEAD),
        foot_mm=float(heights.min()),
        head_mm=float(heights.max()),
        faces=tuple(float(area[end] / area.max()) for area in areas for end in (0, -1)),
        judged=tuple(not cut and not coarse[axis] for axis, pair in enumerate(cuts) for cut in pair),
        largest_share=float(sizes.max() / sizes.sum()),
        pieces=count,
        cut_foot=cuts[0][0],
        cut_head=cuts[0][1],
        cut_side=any(cuts[1]) or any(cuts[2]),
    )


def _spread_mm(areas: list[npt.NDArray[np.intp]], spacings: tuple[float, ...]) -> FloatArray:
    """(x, y, z) from the areas of the planes along (z, y, x); a voxel's own width counts, so that one plane has a spread."""
    spreads = []
    for area, spacing in zip(areas, spacings, strict=True):
        places = np.arange(len(area))
        mean = places @ area / area.sum()
        spreads.append(spacing * math.sqrt((places - mean) ** 2 @ area / area.sum() + 1 / 12))
    return np.array(spreads[::-1])


def _corners(box: Box) -> FloatArray:
    z, y, x = box
    return np.array([[z.start, y.start, x.start], [z.stop - 1, y.start, x.start]], dtype=np.float64)


def _anchor_mm(mask: Mask, box: Box, grid: Grid, orientation: Orientation, *, from_head: bool) -> FloatArray:
    kept = mask
    if from_head:
        kept = mask.copy()
        planes = orientation.turned(kept)
        planes[: max(0, len(planes) - round(ANCHOR_MM / orientation.in_patient_order(grid.spacing_mm)[0]))] = False
    totals = [np.count_nonzero(kept, axis=axes) for axes in ((1, 2), (0, 2), (0, 1))]
    centre = [np.arange(s.start, s.stop) @ total / total.sum() for s, total in zip(box, totals, strict=True)]
    return np.asarray(grid.to_points(np.array([centre]))[0])

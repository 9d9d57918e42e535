"""Contours of one plane that cannot all be meant.

They are drawn twice, or overlap.

Even-odd filling makes two contours that enclose the same tissue cancel each other, so both have to be found before it is filled.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np

from oarlock.arrays import FloatArray, IndexArray, Mask
from oarlock.geometry.contours import box_of, to_mask
from oarlock.geometry.masks import Box, within_box
from oarlock.geometry.polygons import area

_STEP_MM: Final = 0.25
"""Distance of the points by which two boundaries are compared."""

_TO_BEGIN: Final = 200
"""What a comparison of two boundaries costs beside their points, counted in points."""


def perimeter_mm(points_mm: FloatArray) -> float:
    """Length of a closed polygon.

    :param points_mm: (n, 2) or (n, 3).
    """
    return float(np.linalg.norm(np.roll(points_mm, -1, axis=0) - points_mm, axis=1).sum())


def steps_of(points_mm: FloatArray) -> int:
    """How many points :func:`nearly_the_same` makes of a polygon: what it costs."""
    return _TO_BEGIN + len(points_mm) + int(perimeter_mm(points_mm) / _STEP_MM)


def nearly_the_same(a_mm: FloatArray, b_mm: FloatArray, *, within_mm: float) -> bool:
    """Whether two boundaries nowhere leave each other by more than a bound.

    In either direction.

    :param a_mm, b_mm: (n, 3) and (m, 3) closed polygons.
    :param within_mm: at 0.5 mm, the steps make it up to 0.02 mm less.
    """
    corners = np.stack([[a_mm.min(axis=0), a_mm.max(axis=0)], [b_mm.min(axis=0), b_mm.max(axis=0)]])
    if np.abs(corners[0] - corners[1]).max() > within_mm:
        return False
    a, b = _dense(a_mm), _dense(b_mm)
    return all(_all_near(of, to, within_mm + 1e-6) for of, to in ((a, b), (b, a)))


def _all_near(points_mm: FloatArray, others_mm: FloatArray, within_mm: float) -> bool:
    from scipy.spatial import cKDTree  # a tenth of the service's imports, and the service itself compares nothing

    tree = cKDTree(others_mm, balanced_tree=False, compact_nodes=False)  # built in a quarter of the time
    return bool(np.isfinite(tree.query(points_mm, distance_upper_bound=within_mm)[0]).all())


def _dense(points_mm: FloatArray) -> FloatArray:
    """The corners of a polygon, and points on its edges no more than ``_STEP_MM`` apart."""
    ahead = np.roll(points_mm, -1, axis=0)
    parts = 1 + np.floor(np.linalg.norm(ahead - points_mm, axis=1) / _STEP_MM).astype(np.intp)
    edge = np.repeat(np.arange(len(points_mm)), parts)
    share = (np.arange(len(edge)) - np.repeat(np.cumsum(parts) - parts, parts)) / parts[edge]
    return np.asarray(points_mm[edge] + share[:, None] * (ahead - points_mm)[edge])


def with_company(polygons: Sequence[FloatArray], shape: tuple[int, int]) -> list[int]:
    """Which polygons of a slice have a box that another's overlaps.

    Boxes of voxels; only these polygons can overlap.

    :param polygons: (n, 2) fractional row and column indices each. The cost grows with the square of their number.
    :param shape: (rows, columns).
    """
    if not polygons:
        return []
    low, high = _boxes(polygons, shape)
    meet = ((low[:, None] < high[None]) & (low[None] < high[:, None])).all(axis=2)
    return np.flatnonzero(meet.sum(axis=1) > 1).tolist()


def voxels_of(polygons: Sequence[FloatArray], shape: tuple[int, int]) -> int:
    """Voxels in the boxes of polygons: what :func:`shared_voxels` costs."""
    if not polygons:
        return 0
    low, high = _boxes(polygons, shape)
    return int((high - low).prod(axis=1).sum())


def shared_voxels(polygons: Sequence[FloatArray], shape: tuple[int, int]) -> int:
    """How many voxels of a slice are in dispute between polygons.

    Two of them share these, and neither lies within the other: each has voxels of its own, or neither has. In the latter case
    even-odd makes the two cancel each other.

    The polygons are painted over one another, large ones first, and one at a time. One that lies wholly within or wholly outside
    of all others finds a single colour where it is painted, and more of it around.

    :param polygons: (n, 2) fractional row and column indices each.
    :param shape: (rows, columns).
    """
    whole = box_of([(0, yx) for yx in polygons], (1, *shape))
    painted = np.zeros([s.stop - s.start for s in whole[1:]], dtype=np.int32)
    shared, sizes = 0, [0]
    for colour, yx in enumerate(sorted(polygons, key=lambda yx: -abs(area(yx))), start=1):
        box, mask = _filled(yx, shape)
        place = painted[within_box(box, whole)[1:]]
        found = place[mask]
        if found.size and found.min() != found.max():
            shared += int(np.count_nonzero(found != found.min()))  # what was painted first surrounds the rest
        elif found.size and found.size == sizes[found[0]]:
            shared += found.size
        sizes.append(found.size)
        place[mask] = colour
    return shared


def _filled(yx: FloatArray, shape: tuple[int, int]) -> tuple[Box, Mask]:
    box = box_of([(0, yx)], (1, *shape))
    size = (1, box[1].stop - box[1].start, box[2].stop - box[2].start)
    return box, to_mask([(0, yx - [box[1].start, box[2].start])], size)[0]


def _boxes(polygons: Sequence[FloatArray], shape: tuple[int, int]) -> tuple[IndexArray, IndexArray]:
    """(n, 2) first row and column of each polygon's box of voxels, and those behind its last ones: :func:`box_of` of each."""
    starts = np.cumsum([0, *(len(yx) for yx in polygons[:-1])])
    whole = np.concatenate(polygons)
    lowest, highest = np.minimum.reduceat(whole, starts), np.maximum.reduceat(whole, starts)
    low = np.clip(np.floor(lowest), 0, np.array(shape) - 1).astype(np.intp)
    return low, np.clip(np.ceil(highest) + 1, low + 1, shape).astype(np.intp)

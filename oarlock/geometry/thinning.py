"""Contours with few enough points for a planning system.

They stay within a stated distance of the exact line.

Only for contours that have too many: all others stay as they are. Points are left out (Douglas-Peucker), none is moved, and the
line stays within the bound, which is never so wide that a voxel's centre could change sides.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from oarlock.arrays import FloatArray
from oarlock.geometry.contours import PlanarContour
from oarlock.geometry.grid import Grid

SAFE_SHARE: Final = 0.34
"""Of the smaller pixel spacing: a voxel's centre and the exact line are at least 0.35 apart, and two strands of the line 0.7."""

_STEPS: Final = (0.25, 0.5, 0.75, 1.0)
"""Shares of the bound that are tried one after the other: a contour leaves the line no further than it must."""


@dataclass(frozen=True, slots=True)
class Thinned:
    """Contours after thinning.

    :param changed: how many of them were thinned.
    :param deviation_mm: how far the furthest of them leaves its exact line.
    :param stubborn: one that still has too many points; None where each has few enough.
    """

    contours: list[PlanarContour]
    changed: int
    deviation_mm: float
    stubborn: PlanarContour | None


def deviation_bound_mm(grid: Grid, max_deviation_mm: float) -> float:
    """How far a thinned contour may leave the exact one.

    What the profile allows, but at most a safe share of a pixel.
    """
    return min(max_deviation_mm, SAFE_SHARE * min(grid.row_spacing_mm, grid.column_spacing_mm))


def thin(contours: Sequence[PlanarContour], grid: Grid, *, max_points: int, max_deviation_mm: float) -> Thinned:
    """Bring contours down to a number of points."""
    bound_mm = deviation_bound_mm(grid, max_deviation_mm)
    found, changed, worst_mm, stubborn = [], 0, 0.0, None
    for contour in contours:
        kept, deviation_mm = contour, 0.0
        if len(contour.points_mm) > max_points:
            kept, deviation_mm = _thinned(contour, max_points, bound_mm)
            changed += 1
        worst_mm = max(worst_mm, deviation_mm)
        if len(kept.points_mm) > max_points and stubborn is None:
            stubborn = kept
        found.append(kept)
    return Thinned(found, changed, worst_mm, stubborn)


def _thinned(contour: PlanarContour, max_points: int, bound_mm: float) -> tuple[PlanarContour, float]:
    """The contour with few enough points, or with the fewest that the bound allows; and how far it leaves the line."""
    kept, deviation_mm = np.ones(len(contour.points_mm), dtype=np.bool_), 0.0
    for share in _STEPS:
        kept, deviation_mm = _simplified(contour.points_mm, share * bound_mm)
        if np.count_nonzero(kept) <= max_points:
            break
    return PlanarContour(contour.z, contour.points_mm[kept]), deviation_mm


def _simplified(points: FloatArray, tolerance_mm: float) -> tuple[npt.NDArray[np.bool_], float]:
    """Which points of a closed polygon stay so that every other one lies within a tolerance of the line (Douglas-Peucker).

    :returns: (n,) for each point whether it stays, and the largest distance of one that does not.
    """
    ring = np.concatenate([points, points[:1]])
    far = int(np.argmax(np.linalg.norm(points - points[0], axis=1)))
    kept = np.zeros(len(ring), dtype=np.bool_)
    kept[[0, far]] = True
    worst_mm, runs = 0.0, [(0, far), (far, len(points))]
    while runs:
        first, last = runs.pop()
        if last - first < 2:
            continue
        distances = _to_segment_mm(ring[first + 1 : last], ring[first], ring[last])
        furthest = int(np.argmax(distances))
        if distances[furthest] <= tolerance_mm:
            worst_mm = max(worst_mm, float(distances[furthest]))
            continue
        middle = first + 1 + furthest
        kept[middle] = True
        runs += [(first, middle), (middle, last)]
    return kept[:-1], worst_mm


def _to_segment_mm(points: FloatArray, start: FloatArray, end: FloatArray) -> FloatArray:
    """(n,) distance of points from a segment, not from its line."""
    along = end - start
    length2 = float(along @ along)
    share = np.clip((points - start) @ along / length2, 0, 1) if length2 else np.zeros(len(points))
    return np.asarray(np.linalg.norm(points - start - share[:, None] * along, axis=1))

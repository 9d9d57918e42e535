"""Planes of contours on the slices of a CT.

Which contour belongs to which slice, and which slices lie between planes.

A structure set that was drawn on the CT has a plane on every slice of an organ. One that was drawn on coarser images, or on every
other slice, has slices between its planes: these are interpolated where the planes are neighbours, and nowhere else.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

import numpy as np

from oarlock.arrays import FloatArray, IndexArray, Mask
from oarlock.geometry.grid import Grid

ONE_PLANE_MM: Final = 0.05
"""Contours nearer to each other than this lie in one plane."""

EXACT_MM: Final = 0.01
"""Contours nearer to a slice's plane than this lie in it."""

NEIGHBOURS: Final = 1.5
"""Planes up to so many usual distances apart are neighbours; what is wider is a gap that was left on purpose."""

WIDEST_MM: Final = 10.5
"""Neighbours are no further apart than this, whatever is usual in the file: CT slices for planning are up to 10 mm apart."""


@dataclass(frozen=True, slots=True, eq=False)
class Plane:
    """Contours that lie in one plane.

    :param position_mm: along the normal of the grid.
    :param contours: their indices.
    """

    position_mm: float
    contours: tuple[int, ...]


@dataclass(slots=True, eq=False)
class Layout:
    """Where the contours of one ROI come to lie.

    :param drawn: plane by slice.
    :param between: slices that are interpolated: slice, lower plane, upper plane, share of the way to the upper one.
    :param moved_mm: by how much each contour that is off its slice was moved, at its furthest point.
    :param problems: how many contours cannot be used as they stand, by the reason.
    :param lost: how many contours that may enclose tissue of the CT are not used.
    :param empty: slices between others that have no contours.
    """

    drawn: dict[int, Plane] = field(default_factory=dict)
    between: list[tuple[int, Plane, Plane, float]] = field(default_factory=list)
    extended: int = 0
    moved_mm: dict[int, float] = field(default_factory=dict)
    problems: Counter[str] = field(default_factory=Counter)
    lost: int = 0
    empty: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Heights:
    """Contours along the normal of a grid.

    :param low_mm, high_mm: (n,) lowest and highest point of each contour.
    :param planes: those that are parallel to the slices, by position.
    :param leaning: how many are not.
    """

    low_mm: FloatArray
    high_mm: FloatArray
    planes: tuple[Plane, ...]
    leaning: int

    @classmethod
    def of(cls, contours: Sequence[FloatArray], grid: Grid) -> "Heights":
        along = [points @ grid.normal for points in contours]
        low, high = np.array([a.min() for a in along]), np.array([a.max() for a in along])
        level = np.flatnonzero(high - low <= grid.spacing_mm[0] / 2)
        middle = (low + high) / 2
        order = level[np.argsort(middle[level], kind="stable")]
        groups = np.split(order, np.flatnonzero(np.diff(middle[order]) > ONE_PLANE_MM) + 1) if len(order) else []
        planes = tuple(Plane(float(middle[group].mean()), tuple(sorted(group.tolist()))) for group in groups)
        return cls(low, high, planes, len(contours) - len(level))

    @property
    def gaps_mm(self) -> FloatArray:
        """(planes - 1,) distances between neighbouring planes."""
        return np.diff([plane.position_mm for plane in self.planes])


def usual_gap_mm(rois: Sequence[Heights]) -> float:
    """The usual distance between the planes of a file's ROIs.

    Infinite where none has two.
    """
    gaps = np.concatenate([roi.gaps_mm for roi in rois] or [np.zeros(0)])
    return float(np.median(gaps)) if gaps.size else float("inf")


def lay_out(heights: Heights, grid: Grid, *, file_gap_mm: float) -> Layout:
    """The slice of each plane of one ROI.

    And the slices between its planes.

    Each plane goes to the nearest slice, at most half the distance to the next one away. Where several planes are nearest to one
    slice, the nearest of them is used. Where slices between neighbouring planes would get none, all slices between such planes
    are interpolated instead, and the first and the last plane stand for half a distance beyond.

    :param file_gap_mm: the usual distance between planes in the file; an ROI of four planes or more has its own.
    """
    layout = Layout()
    if heights.leaning:
        layout.problems["left out: not in a plane parallel to the slices"] = heights.leaning
        layout.lost = heights.leaning
    if not heights.planes:
        return layout
    gaps = heights.gaps_mm
    step = float(np.median(gaps)) if len(gaps) >= 3 else file_gap_mm
    neighbours = (gaps <= NEIGHBOURS * step) & (gaps <= WIDEST_MM)
    positions = np.array([plane.position_mm for plane in heights.planes])
    nearest = _nearest(positions, grid)
    if np.any((np.diff(nearest) > 1) & neighbours):
        _interpolate(layout, heights, neighbours, step, grid)
    else:
        _choose_nearest(layout, heights, nearest, grid)
    used = sorted({*layout.drawn, *(z for z, *_ in layout.between)})
    layout.empty = sum(b - a - 1 for a, b in pairwise(used))
    return layout


def _nearest(positions: FloatArray, grid: Grid) -> IndexArray:
    """The slice nearest to each plane. Half way goes to the lower one, whatever the rounding: all of a file move alike."""
    slices = grid.slice_positions_mm
    return np.searchsorted((slices[:-1] + slices[1:]) / 2 + EXACT_MM, positions)


def _reach_mm(grid: Grid) -> FloatArray:
    return np.asarray(grid.slice_thicknesses_mm / 2 + EXACT_MM)


def _choose_nearest(layout: Layout, heights: Heights, nearest: IndexArray, grid: Grid) -> None:
    positions = np.array([plane.position_mm for plane in heights.planes])
    offsets = np.abs(positions - grid.slice_positions_mm[nearest])
    for k, plane in enumerate(heights.planes):
        z = int(nearest[k])
        rivals = np.flatnonzero(nearest == z)
        if offsets[k] > _reach_mm(grid)[z]:
            layout.problems["left out: above or below all slices"] += len(plane.contours)
        elif k != rivals[np.argmin(offsets[rivals])]:
            layout.problems["left out: between the slices, another plane is nearer"] += len(plane.contours)
        else:
            _draw(layout, z, plane, heights, grid)


def _draw(layout: Layout, z: int, plane: Plane, heights: Heights, grid: Grid) -> None:
    layout.drawn[z] = plane
    at_mm = grid.slice_positions_mm[z]
    off_mm = {i: max(abs(heights.low_mm[i] - at_mm), abs(heights.high_mm[i] - at_mm)) for i in plane.contours}
    layout.moved_mm |= {i: float(off) for i, off in off_mm.items() if off > EXACT_MM}


def _interpolate(layout: Layout, heights: Heights, neighbours: Mask, step: float, grid: Grid) -> None:
    planes, reach_mm = heights.planes, _reach_mm(grid)
    positions = np.array([plane.position_mm for plane in planes])
    used: set[int] = set()
    for z, at_mm in enumerate(grid.slice_positions_mm):
        above = int(np.searchsorted(positions, at_mm))
        k = int(np.argmin(np.abs(positions - at_mm)))
        off_mm = abs(float(positions[k] - at_mm))
        if off_mm > ONE_PLANE_MM and 0 < above < len(planes) and neighbours[above - 1]:
            lower, upper = planes[above - 1], planes[above]
            share = float((at_mm - lower.position_mm) / (upper.position_mm - lower.position_mm))
            layout.between.append((z, lower, upper, share))
            used |= {above - 1, above}
        elif off_mm <= reach_mm[z]:
            _draw(layout, z, planes[k], heights, grid)
            used.add(k)
        elif off_mm < step / 2 - ONE_PLANE_MM:
            layout.drawn[z] = planes[k]
            layout.extended += 1
            used.add(k)
    beyond = sum(len(plane.contours) for k, plane in enumerate(planes) if k not in used)
    if beyond:
        layout.problems["left out: above or below all slices"] = beyond

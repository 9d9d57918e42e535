"""Solids given by a formula: ellipsoids, tubes and lofts.

And what is made of them with ``|``, ``&`` and ``-``.

A solid answers for any points whether they lie in it, so a mask sampled from it is exact at voxel centres, on any grid. Points
are three arrays x, y and z in mm that broadcast against one another: where z is constant in a slice it has one value per slice.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt
from scipy.interpolate import PchipInterpolator

from oarlock.arrays import FloatArray, Mask

Point = tuple[float, float, float]
Points = tuple[FloatArray, FloatArray, FloatArray]

_LOFT_STEP_MM = 0.5


@dataclass(frozen=True, eq=False)
class Solid:
    """A closed set of points.

    :param low, high: (3,) corners x, y, z of a box that holds it, in mm.
    :param contains: gives for points in that box whether they lie in the solid; may say anything outside of the box.
    """

    low: FloatArray
    high: FloatArray
    contains: Callable[[Points], Mask]

    def __or__(self, other: Self) -> "Solid":
        low, high = np.minimum(self.low, other.low), np.maximum(self.high, other.high)
        return Solid(low, high, lambda points: self.holds(points) | other.holds(points))

    def __and__(self, other: Self) -> "Solid":
        low, high = np.maximum(self.low, other.low), np.minimum(self.high, other.high)
        return Solid(low, high, lambda points: self.contains(points) & other.contains(points))

    def __sub__(self, other: Self) -> "Solid":
        return Solid(self.low, self.high, lambda points: self.contains(points) & ~other.holds(points))

    def holds(self, points: Points) -> Mask:
        """As ``contains``, for points anywhere."""
        inside = self.contains(points)
        for axis, values in enumerate(points):
            inside = inside & (values >= self.low[axis]) & (values <= self.high[axis])
        return inside


def union(solids: Sequence[Solid]) -> Solid:
    """All of them together."""
    return reduce(or_, solids)


def ellipsoid(centre: Point, radii: Point) -> Solid:
    """An ellipsoid with its axes along x, y and z.

    Its volume is 4/3 π times the product of the radii.
    """
    middle, half = np.array(centre), np.array(radii)

    def contains(points: Points) -> Mask:
        distance_squared = sum(((values - c) / r) ** 2 for values, c, r in zip(points, middle, half, strict=True))
        return np.asarray(np.less_equal(distance_squared, 1))

    return Solid(middle - half, middle + half, contains)


def tube(path: Sequence[Point], radii: float | Sequence[float], *, stretch: Point = (1, 1, 1)) -> Solid:
    """A tube with round ends about a broken line.

    :param radii: one, or one for each point of the path, linear in between.
    :param stretch: how much longer the radius is along x, y and z: (1, 1, 2) stands twice as high as it is thick.
    """
    scale = np.array(stretch)
    nodes = np.array(path, dtype=np.float64) / scale
    at_nodes = np.broadcast_to(np.asarray(radii, dtype=np.float64), len(nodes))

    def contains(points: Points) -> Mask:
        scaled = [values / s for values, s in zip(points, scale, strict=True)]
        parts = [_in_segment(scaled, nodes[i : i + 2], at_nodes[i : i + 2]) for i in range(len(nodes) - 1)]
        return np.asarray(np.logical_or.reduce(parts))

    reach = at_nodes.max()
    return Solid((nodes.min(axis=0) - reach) * scale, (nodes.max(axis=0) + reach) * scale, contains)


def _in_segment(points: Sequence[FloatArray], ends: FloatArray, radii: FloatArray) -> Mask:
    """Whether points are nearer to a segment than the radius at their foot point on it."""
    along = ends[1] - ends[0]
    offsets = [values - start for values, start in zip(points, ends[0], strict=True)]
    share = sum(offset * a for offset, a in zip(offsets, along, strict=True)) / max(float(along @ along), 1e-12)
    share = np.clip(share, 0, 1)
    distance_squared = sum((offset - share * a) ** 2 for offset, a in zip(offsets, along, strict=True))
    return np.asarray(np.less_equal(distance_squared, (radii[0] + share * (radii[1] - radii[0])) ** 2))


def bubbles(within: Solid, *, apart_mm: float, radius_mm: float) -> Solid:
    """Balls in staggered rows, cut off where the solid ends.

    :param apart_mm: from the middle of one ball to the next in its row.
    """

    def contains(points: Points) -> Mask:
        x, y, z = points
        layer = np.round(z / apart_mm)
        row = np.round(y / apart_mm)
        shift = apart_mm / 2 * np.mod(layer + row, 2)
        column = np.round((x - shift) / apart_mm)
        away = (x - shift - column * apart_mm) ** 2 + (y - row * apart_mm) ** 2 + (z - layer * apart_mm) ** 2
        return np.asarray(away <= radius_mm**2) & within.contains(points)

    return Solid(within.low, within.high, contains)


class Section(NamedTuple):
    """The outline of a loft at one height.

    Two halves of superellipses that meet where it is widest.

    ``x`` and ``y`` lie on the widest line, ``half_width`` is measured along it, ``front`` and ``back`` are the y of the two
    poles. A power of 2 is an ellipse, less is pointed, more is square.
    """

    z: float
    x: float
    y: float
    half_width: float
    front: float
    back: float
    front_power: float = 2.0
    back_power: float = 2.0


def loft(sections: Sequence[Section], *, grown_mm: float = 0.0) -> Solid:
    """A body with a given outline at some heights.

    In between it is smooth and does not overshoot.

    :param grown_mm: by how much it is larger (or smaller, below 0) on all sides.
    """
    table = np.array(sorted(sections), dtype=np.float64)
    middle, half = (table[0, 0] + table[-1, 0]) / 2, (table[-1, 0] - table[0, 0]) / 2
    table[:, 0] = middle + (table[:, 0] - middle) * (half + grown_mm) / half
    table[:, 3:6] += np.array([grown_mm, -grown_mm, grown_mm])
    heights = np.linspace(table[0, 0], table[-1, 0], int(2 * (half + grown_mm) / _LOFT_STEP_MM) + 2)
    outlines = PchipInterpolator(table[:, 0], table[:, 1:], axis=0)(heights)

    def contains(points: Points) -> Mask:
        x, y, z = points
        outline = [np.interp(z, heights, column) for column in outlines.T]
        return np.asarray(_in_outline(x, y, outline) & (z >= heights[0]) & (z <= heights[-1]))

    low = np.array([(outlines[:, 0] - outlines[:, 2]).min(), outlines[:, 3].min(), heights[0]])
    high = np.array([(outlines[:, 0] + outlines[:, 2]).max(), outlines[:, 4].max(), heights[-1]])
    return Solid(low, high, contains)


def _in_outline(x: FloatArray, y: FloatArray, outline: Sequence[FloatArray]) -> Mask:
    """Whether points lie in their section; ``outline`` holds the fields of :class:`Section` after z, each for every point."""
    centre_x, centre_y, half_width, front, back, front_power, back_power = outline
    # A section that was shrunk to nothing has a width below 0: it holds no point.
    across = np.abs(x - centre_x) / np.maximum(half_width, 1e-6)
    down = y - centre_y
    forward = down < 0
    depth = np.where(forward, np.maximum(centre_y - front, 1e-6), np.maximum(back - centre_y, 1e-6))
    power = np.where(forward, front_power, back_power)
    return np.less_equal(_power(across, power) + _power(np.abs(down) / depth, power), 1)


def _power(base: FloatArray, exponent: FloatArray) -> npt.NDArray[np.float64]:
    """``base ** exponent`` for what matters, which is below 1; exponents near 2 are by far the most frequent."""
    if np.all(exponent == 2):
        return base * base
    return np.exp2(exponent * np.log2(np.maximum(np.minimum(base, 2.0), 1e-9)))


def slab(low: Point, high: Point) -> Solid:
    """A box with its sides along x, y and z."""
    return Solid(np.array(low), np.array(high), lambda points: np.ones(np.broadcast_shapes(*(p.shape for p in points)), bool))


def reflected(solid: Solid) -> Solid:
    """The same solid beyond the plane x = 0."""
    flip = np.array([-1.0, 1.0, 1.0])
    low, high = np.minimum(solid.low * flip, solid.high * flip), np.maximum(solid.low * flip, solid.high * flip)
    return Solid(low, high, lambda points: solid.contains((-points[0], points[1], points[2])))

"""Closed polygons in a plane: their area and where they cross.

They may cross or touch themselves and each other.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from oarlock.arrays import FloatArray, IndexArray

_NOISE_MM2: Final = 1e-6
"""Twice the area of a triangle that is taken for a straight line."""

_BLOCK: Final = 1 << 21
_MOST_PAIRS: Final = 200_000_000


def area(yx: FloatArray) -> float:
    """Signed area of a polygon, in voxels.

    Outer boundaries and holes run in opposite senses.
    """
    y, x = (yx - yx[0]).T
    next_y, next_x = (np.concatenate([values[1:], values[:1]]) for values in (y, x))  # np.roll takes twenty times as long
    return float(x @ next_y - y @ next_x) / 2


def crossings(polygons: Sequence[FloatArray], groups: Sequence[int], pixel_mm2: float) -> list[int] | None:
    """Which polygons of a group cross or touch; None if undecided.

    A polygon may cross itself or another one; None if there is too much to compare.

    Edges are sorted by their lower y, and each is compared with those that start before it ends. Neighbours on a polygon share a
    point: they must not double back.

    :param polygons: (n, 2) points each; closed.
    :param groups: one number for each polygon.
    :param pixel_mm2: area of a pixel; points are in pixels.
    """
    if not polygons:
        return []
    edges = _Edges.of(polygons, groups)
    found = set(edges.owner[edges.doubles_back()].tolist())
    for pairs in _pairs(np.arange(len(edges.low)) + 1, np.searchsorted(edges.low, edges.high, side="right")):
        if pairs is None:
            return None
        first, second = pairs
        hit = edges.meet(first, second, _NOISE_MM2 / pixel_mm2)
        found.update(edges.owner[first[hit]].tolist(), edges.owner[second[hit]].tolist())
    return sorted(found)


@dataclass(frozen=True, slots=True, eq=False)
class _Edges:
    """The edges of polygons from ``here`` to ``there`` to ``beyond``, sorted by their lower y; groups lie above one another."""

    owner: IndexArray
    place: IndexArray
    after: IndexArray
    here: FloatArray
    there: FloatArray
    beyond: FloatArray
    low: FloatArray
    high: FloatArray

    @classmethod
    def of(cls, polygons: Sequence[FloatArray], groups: Sequence[int]) -> "_Edges":
        sizes = np.array([len(polygon) for polygon in polygons])
        owner = np.repeat(np.arange(len(polygons)), sizes)
        place = np.arange(len(owner))
        after = np.concatenate([np.roll(part, -1) for part in np.split(place, np.cumsum(sizes)[:-1])])
        here = np.concatenate(polygons)
        height = float(np.ptp(here[:, 0])) + 1
        level = height * np.unique(np.asarray(groups), return_inverse=True)[1][owner]
        ends = np.stack([here[:, 0], here[after, 0]]) + level
        order = np.argsort(ends.min(axis=0), kind="stable")
        there = here[after]
        return cls(
            owner=owner[order],
            place=place[order],
            after=after[order],
            here=here[order],
            there=there[order],
            beyond=there[after][order],
            low=ends.min(axis=0)[order],
            high=ends.max(axis=0)[order],
        )

    def doubles_back(self) -> npt.NDArray[np.bool_]:
        """Whether an edge is followed by one that runs back along it."""
        along, next_along = self.there - self.here, self.beyond - self.there
        straight = along[:, 0] * next_along[:, 1] == along[:, 1] * next_along[:, 0]
        return np.asarray(straight & (np.sum(along * next_along, axis=1) < 0))

    def meet(self, first: IndexArray, second: IndexArray, noise: float) -> npt.NDArray[np.bool_]:
        """Whether edges that are not neighbours have a point in common, pair by pair."""
        left, right = np.minimum(self.here[:, 1], self.there[:, 1]), np.maximum(self.here[:, 1], self.there[:, 1])
        hit = (left[first] <= right[second]) & (left[second] <= right[first])
        hit &= (self.after[first] != self.place[second]) & (self.after[second] != self.place[first])
        index = np.flatnonzero(hit)
        a, b = self.here[first[index]], self.there[first[index]]
        c, d = self.here[second[index]], self.there[second[index]]
        apart = _one_side(a, b, c, d, noise) | _one_side(c, d, a, b, noise)
        hit[index[apart]] = False
        return hit


def _one_side(a: FloatArray, b: FloatArray, p: FloatArray, q: FloatArray, noise: float) -> npt.NDArray[np.bool_]:
    """Whether p and q lie clearly on one side of the line a–b."""
    side_of_p, side_of_q = _side(a, b, p), _side(a, b, q)
    return ((side_of_p > noise) & (side_of_q > noise)) | ((side_of_p < -noise) & (side_of_q < -noise))


def _pairs(start: IndexArray, stop: IndexArray) -> Iterator[tuple[IndexArray, IndexArray] | None]:
    """All (i, j) with start[i] <= j < stop[i], in blocks; None if there are too many. A range may be empty."""
    count = stop - start
    total = np.cumsum(count)
    if total[-1] > _MOST_PAIRS:
        yield None
        return
    cuts = np.searchsorted(total, np.arange(_BLOCK, int(total[-1]), _BLOCK))
    for edges in np.split(np.arange(len(start)), cuts):
        first = np.repeat(edges, count[edges])
        begin = np.cumsum(count[edges]) - count[edges]
        yield first, np.arange(first.size) - np.repeat(begin - start[edges], count[edges])


def _side(a: FloatArray, b: FloatArray, p: FloatArray) -> FloatArray:
    """Twice the signed area of each triangle a, b, p."""
    return np.asarray((b[:, 0] - a[:, 0]) * (p[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (p[:, 0] - a[:, 0]))

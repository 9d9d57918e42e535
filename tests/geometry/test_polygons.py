from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from oarlock.geometry.polygons import crossings

Points = npt.NDArray[np.float64]


def meet_slowly(polygons: Sequence[Points]) -> list[int]:
    """Every pair of edges, in whole numbers: neighbours must not double back, others must have no point in common."""
    edges = [(i, k, len(p), p[k], p[(k + 1) % len(p)]) for i, p in enumerate(polygons) for k in range(len(p))]

    def side(a: Points, b: Points, c: Points) -> int:
        return int(np.sign((b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])))

    def boxes_overlap(a: Points, b: Points, c: Points, d: Points) -> bool:
        return all(max(min(a[n], b[n]), min(c[n], d[n])) <= min(max(a[n], b[n]), max(c[n], d[n])) for n in (0, 1))

    found = set()
    for i, k, size, a, b in edges:
        for j, m, _, c, d in edges:
            if i == j and m == (k + 1) % size:
                if side(a, b, d) == 0 and np.dot(b - a, d - c) < 0:
                    found.add(i)
            elif (i, k) != (j, m) and not (i == j and k == (m + 1) % size):
                lines_meet = side(a, b, c) * side(a, b, d) <= 0 and side(c, d, a) * side(c, d, b) <= 0
                if lines_meet and boxes_overlap(a, b, c, d):
                    found |= {i, j}
    return sorted(found)


@given(st.lists(arrays(np.int64, st.tuples(st.integers(3, 6), st.just(2)), elements=st.integers(0, 6)), min_size=1, max_size=4))
def test_crossings_are_those_of_comparing_every_pair(polygons: list[Any]) -> None:
    floats = [polygon.astype(np.float64) for polygon in polygons]
    assert crossings(floats, [5] * len(polygons)) == meet_slowly(polygons)


def test_polygons_of_different_slices_do_not_cross() -> None:
    square = np.array([(0.0, 0), (0, 2), (2, 2), (2, 0)])
    assert crossings([square, square + 1], [0, 1]) == []
    assert crossings([square, square + 1], [0, 0]) == [0, 1]


def test_touching_at_a_point_or_along_an_edge_is_found() -> None:
    square = np.array([(0.0, 0), (0, 2), (2, 2), (2, 0)])
    keyhole = np.array([(0.0, 0), (0, 9), (9, 9), (9, 0), (0, 0), (3, 3), (6, 3), (6, 6), (3, 6), (3, 3)])
    assert crossings([square, square + 2], [0, 0]) == [0, 1]
    assert crossings([square, square + np.array([2, 0])], [0, 0]) == [0, 1]
    assert crossings([keyhole], [0]) == [0]
    assert crossings([square, square + 2.1, square / 2 + 0.5], [0, 0, 0]) == []

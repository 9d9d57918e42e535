from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from oarlock.geometry import polygons as polygons_module
from oarlock.geometry.polygons import area, crossings

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
    assert crossings(floats, [5] * len(polygons), 1.0) == meet_slowly(polygons)


def test_polygons_of_different_slices_do_not_cross() -> None:
    square = np.array([(0.0, 0), (0, 2), (2, 2), (2, 0)])
    assert crossings([square, square + 1], [0, 1], 1.0) == []
    assert crossings([square, square + 1], [0, 0], 1.0) == [0, 1]


def test_touching_at_a_point_or_along_an_edge_is_found() -> None:
    square = np.array([(0.0, 0), (0, 2), (2, 2), (2, 0)])
    keyhole = np.array([(0.0, 0), (0, 9), (9, 9), (9, 0), (0, 0), (3, 3), (6, 3), (6, 6), (3, 6), (3, 3)])
    assert crossings([square, square + 2], [0, 0], 1.0) == [0, 1]
    assert crossings([square, square + np.array([2, 0])], [0, 0], 1.0) == [0, 1]
    assert crossings([keyhole], [0], 1.0) == [0]
    assert crossings([square, square + 2.1, square / 2 + 0.5], [0, 0, 0], 1.0) == []


def test_the_area_is_that_of_the_polygon_and_its_sign_that_of_its_sense() -> None:
    """A triangle of 3 by 4 and a square with a corner cut off, far from the origin: positive from x to y."""
    triangle = np.array([(0.0, 0), (0, 4), (3, 0)]) + np.array([1000, -2000])
    assert area(triangle) == 6
    assert area(triangle[::-1]) == area(triangle[:, ::-1]) == -6
    assert area(np.array([(5.0, 5), (5, 9), (8, 9), (9, 8), (9, 5)])) == 15.5
    assert area(triangle + 1e9) == 6


DIAGONAL = np.array([(0.0, 4), (4, 0), (0, 0)])


@pytest.mark.parametrize(
    ("apart", "pixel_mm2", "touches"),
    [
        (1.2e-7, 1.0, True),
        (1.3e-7, 1.0, False),
        (0.3e-7, 4.0, True),
        (0.33e-7, 4.0, False),
        (4.9e-7, 0.25, True),
        (5.1e-7, 0.25, False),
    ],
)
@pytest.mark.parametrize("turned", [1, -1])
def test_a_corner_touches_an_edge_if_they_enclose_less_than_a_millionth_of_a_square_millimetre(
    apart: float, pixel_mm2: float, touches: bool, turned: int
) -> None:
    """Beside the middle of an edge of 4 by 4 voxels, (d, d) off it: twice the area of their triangle is 8 d voxels."""
    corner = np.array([(2, 2), (2, 5), (5, 2)]) + apart
    for pair in ([DIAGONAL[::turned], corner], [corner, DIAGONAL[::turned]], [4 - DIAGONAL[::turned], 4 - corner]):
        assert crossings(pair, [0, 0], pixel_mm2) == ([0, 1] if touches else [])


@pytest.mark.parametrize(
    ("one", "other"),
    [  # whole numbers, so that twice the area of a triangle is exactly 1 pixel, on either side and at either end of an edge
        ([(5, 1), (5, 0), (4, 1)], [(0, 0), (2, 3), (4, 0)]),
        ([(1, 3), (1, 1), (0, 0)], [(1, 0), (5, 2), (3, 0)]),
        ([(1, 1), (2, 2), (0, 1)], [(2, 1), (5, 1), (5, 2)]),
        ([(3, 1), (0, 2), (1, 4)], [(2, 4), (4, 4), (1, 5)]),
    ],
)
def test_a_corner_touches_an_edge_if_they_enclose_exactly_a_millionth_of_a_square_millimetre(one: Any, other: Any) -> None:
    pair = [np.array(one, dtype=float), np.array(other, dtype=float)]
    assert crossings(pair, [0, 0], 1e-6) == [0, 1]
    assert crossings(pair, [0, 0], 1.01e-6) == []


def test_the_same_polygon_in_two_groups_does_not_cross_itself_and_groups_need_no_order() -> None:
    square = np.array([(0.0, 0), (0, 2), (2, 2), (2, 0)])
    for same in (square, square * [9, 1], square * [1, 9]):
        assert crossings([same, same], [0, 1], 1.0) == []
    assert crossings([square, square + 9, square + 1, square + 9.5], [7, 3, 7, -2], 1.0) == [0, 2]


@pytest.mark.parametrize("block", [1, 2, 3, 7])
def test_edges_are_compared_in_blocks_of_any_size(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(polygons_module, "_BLOCK", block)
    comb = [np.array([(0.0, n), (9, n + 0.5), (0, n + 1)]) for n in (0, 3, 6, 9)]
    across = np.array([(4.0, 2), (5, 7.5), (4.5, 2)])
    apart = np.array([(20.0, 0), (22, 0), (21, 5)])
    assert crossings([*comb, apart, across], [0] * 6, 1.0) == [1, 2, 5]


def test_edges_too_many_to_be_compared_are_not_decided(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a rectangle's four edges, each pair is compared but its lower and its upper one."""
    rectangle = [np.array([(0.0, 0), (0, 5), (2, 5), (2, 0)])]
    monkeypatch.setattr(polygons_module, "_MOST_PAIRS", 5)
    assert crossings(rectangle, [0], 1.0) == []
    monkeypatch.setattr(polygons_module, "_MOST_PAIRS", 4)
    assert crossings(rectangle, [0], 1.0) is None
    assert crossings([], [], 1.0) == []


def test_a_corner_on_a_straight_edge_does_not_double_back_and_a_triangle_without_area_does() -> None:
    """However short the edges are."""
    cornered = np.array([(0.0, 0), (0, 0.5), (0, 1), (0.5, 1), (1, 1), (1, 0.5), (1, 0), (0.5, 0)])
    assert crossings([cornered], [0], 1.0) == []
    assert crossings([np.array([(0.0, 0), (0, 0.2), (0, 0.1)])], [0], 1.0) == [0]
    assert crossings([np.array([(0.0, 0), (0.1, 0), (0.2, 0)])], [0], 1.0) == [0]
    assert crossings([np.zeros((3, 2))], [0], 1.0) == []  # one point


def test_a_corner_touches_an_edge_from_the_left_and_from_the_right() -> None:
    post, arrow = np.array([(0.0, 2), (10, 2), (10, 5), (0, 5)]), np.array([(5.0, 2), (6, 0), (7, 0)])
    for mirror in (1, -1):
        assert crossings([post * [1, mirror], arrow * [1, mirror]], [0, 0], 1.0) == [0, 1]
        assert crossings([post * [1, mirror], (arrow - np.array([0, 0.01])) * [1, mirror]], [0, 0], 1.0) == []

"""Contours of one plane that cannot all be meant: what is the same, what overlaps, and what asking costs."""

import numpy as np
import pytest

from oarlock.arrays import FloatArray
from oarlock.geometry.contours import box_of
from oarlock.geometry.overlaps import nearly_the_same, perimeter_mm, shared_voxels, steps_of, voxels_of, with_company

TRIANGLE = np.array([(0.0, 0, 7), (3, 0, 7), (3, 4, 7)])
SQUARE = np.array([(10.0, 20, 5), (20, 20, 5), (20, 30, 5), (10, 30, 5)])


def test_the_perimeter_is_the_length_of_all_edges() -> None:
    assert perimeter_mm(TRIANGLE) == pytest.approx(3 + 4 + 5)
    assert perimeter_mm(TRIANGLE[:, :2]) == pytest.approx(12)


@pytest.mark.parametrize(("points", "steps"), [(SQUARE, 200 + 4 + 160), (SQUARE * 1.01, 200 + 4 + 161), (TRIANGLE, 200 + 3 + 48)])
def test_a_comparison_costs_two_hundred_steps_and_one_for_each_corner_and_quarter_of_a_millimetre(
    points: FloatArray, steps: int
) -> None:
    assert steps_of(points) == steps


def notched(depth: float, *, width: float = 0.1) -> FloatArray:
    """The square with a narrow notch in its first edge: its box stays, and nothing of the square is far from it."""
    notch = [(15.0, 20, 5), (15.0, 20 + depth, 5), (15 + width, 20 + depth, 5), (15 + width, 20, 5)]
    return np.insert(SQUARE, 1, notch, axis=0)


CORNERED = np.insert(SQUARE, [1, 2, 3, 4], [(13.1, 20, 5), (20, 27.3, 5), (11.9, 30, 5), (10, 20.4, 5)], axis=0)
"""The square, with a further corner on each of its edges."""

PAIRS = [
    ("shifted by the bound", SQUARE, SQUARE + np.array([0.5, 0, 0]), 0.5, True),
    ("shifted by less", SQUARE, SQUARE + np.array([0, 0.49, 0]), 0.5, True),
    ("shifted by more", SQUARE, SQUARE + np.array([0.502, 0, 0]), 0.5, False),
    ("shifted far", SQUARE, SQUARE + np.array([40, 0, 0]), 0.5, False),
    ("shifted against the axis", SQUARE, SQUARE - np.array([0, 0.502, 0]), 0.5, False),
    ("a shallow notch", SQUARE, notched(0.48), 0.5, True),
    ("a deep notch", SQUARE, notched(0.51), 0.5, False),
    ("begun elsewhere and run the other way", SQUARE, SQUARE[[2, 1, 0, 3]], 0.1, True),
    ("further corners on its edges", SQUARE, CORNERED, 0.15, True),
    (
        "a barb whose far end begins a short edge",
        SQUARE,
        np.insert(SQUARE, 1, [(15, 20, 5), (15, 20.6, 5), (15.05, 20.42, 5), (15.1, 20, 5)], axis=0),
        0.5,
        False,
    ),
    ("an edge across", SQUARE, SQUARE[[0, 2, 1, 3]], 0.5, False),
]


@pytest.mark.parametrize(("a", "b", "within_mm", "same"), [pair[1:] for pair in PAIRS], ids=[pair[0] for pair in PAIRS])
def test_two_boundaries_are_nearly_the_same_if_neither_leaves_the_other_by_more_than_the_bound(
    a: FloatArray, b: FloatArray, within_mm: float, same: bool
) -> None:
    assert nearly_the_same(a, b, within_mm=within_mm) is same
    assert nearly_the_same(b, a, within_mm=within_mm) is same


def rectangle(top: float, left: float, rows: float, columns: float) -> FloatArray:
    """Around the centres of ``rows`` × ``columns`` voxels, the first of which is (top, left)."""
    y0, x0, y1, x1 = top - 0.5, left - 0.5, top + rows - 0.5, left + columns - 0.5
    return np.array([(y0, x0), (y0, x1), (y1, x1), (y1, x0)])


SHAPE = (20, 30)
A = rectangle(4, 5, 4, 6)
BOXES = [
    ("one alone", [A], []),
    ("one row between their boxes", [A, rectangle(10, 5, 4, 6)], []),
    ("a row that both boxes have", [A, rectangle(8, 5, 4, 6)], [0, 1]),
    ("one column between their boxes", [A, rectangle(4, 13, 4, 6)], []),
    ("a column that both boxes have", [A, rectangle(4, 11, 4, 6)], [0, 1]),
    ("beside and above", [A, rectangle(14, 20, 3, 3)], []),
    ("a third one apart", [A, rectangle(15, 20, 2, 2), rectangle(5, 6, 2, 2)], [0, 2]),
    ("nothing", [], []),
]


@pytest.mark.parametrize(("polygons", "company"), [case[1:] for case in BOXES], ids=[case[0] for case in BOXES])
def test_only_polygons_whose_boxes_overlap_can(polygons: list[FloatArray], company: list[int]) -> None:
    assert with_company(polygons, SHAPE) == company


@pytest.mark.parametrize(
    "polygon",
    [
        A,
        A + 0.5,
        A - 40,
        A + 40,
        A + np.array([40, 0]),
        A - np.array([6, 0]),
        A * [-1, 1],
        A * 9,
        A * [0.01, 1],
        A + np.array([14.0, 0]),
        A + np.array([12.4, 20.6]),
    ],
)
def test_a_polygon_costs_the_voxels_of_its_box(polygon: FloatArray) -> None:
    _, rows, columns = box_of([(0, polygon)], (1, *SHAPE))
    size = (rows.stop - rows.start) * (columns.stop - columns.start)
    assert voxels_of([polygon], SHAPE) == size
    assert voxels_of([A, polygon], SHAPE) == 6 * 8 + size  # half a voxel around the centres is one voxel more on each side
    assert voxels_of([], SHAPE) == 0


SHARED = [
    ("apart", [A, rectangle(14, 20, 3, 3)], 0),
    ("side by side", [A, rectangle(4, 11, 4, 6)], 0),
    ("one within the other", [A, rectangle(5, 6, 2, 3)], 0),
    ("two within one", [A, rectangle(5, 6, 2, 1), rectangle(5, 8, 2, 2)], 0),
    ("a hole and an island in it", [A, rectangle(5, 6, 2, 4), rectangle(5, 7, 1, 2)], 0),
    ("twice", [A, A + 0.1], 24),
    ("three times", [A, A + 0.1, A + 0.2], 48),
    ("in part", [A, rectangle(6, 9, 3, 3)], 4),
    ("in a corner", [A, rectangle(7, 10, 3, 3)], 1),
    ("across", [A, rectangle(2, 7, 8, 2)], 8),
    ("a hole that reaches out", [A, rectangle(5, 8, 2, 4)], 6),
    ("a hole drawn twice", [A, rectangle(5, 6, 2, 3), rectangle(5, 6, 2, 3)], 6),
    ("beside a hole and over its edge", [A, rectangle(5, 6, 2, 2), rectangle(5, 7, 2, 2)], 2),
    ("a single voxel apart", [A, rectangle(14, 20, 1, 1)], 0),
    ("a single voxel twice", [rectangle(14, 20, 1, 1), rectangle(14, 20, 1, 1)], 1),
    ("nothing enclosed", [A, rectangle(5.25, 5.25, 0.1, 0.1)], 0),
    ("over the edge of the slice", [A - np.array([6, 0]), rectangle(0, 9, 3, 4)], 4),
]


@pytest.mark.parametrize("step", [1, -1], ids=["in order", "turned round"])
@pytest.mark.parametrize(("polygons", "shared"), [case[1:] for case in SHARED], ids=[case[0] for case in SHARED])
def test_voxels_are_in_dispute_where_polygons_share_them_and_neither_lies_within_the_other(
    polygons: list[FloatArray], shared: int, step: int
) -> None:
    """Counted by hand, in whatever order and sense the polygons are given."""
    assert shared_voxels([polygon[::step] for polygon in polygons[::step]], SHAPE) == shared

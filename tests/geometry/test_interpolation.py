"""A slice between two planes of contours, against distances that are measured from every voxel to every other one."""

import numpy as np
import numpy.typing as npt
import pytest

from oarlock.arrays import FloatArray, Mask
from oarlock.geometry.interpolation import between

SHAPE = (20, 30)
SPACING_MM = (1.1, 0.9)


def rectangle(top: float, left: float, rows: float, columns: float) -> FloatArray:
    """Around the centres of ``rows`` × ``columns`` voxels, the first of which is (top, left)."""
    y0, x0, y1, x1 = top - 0.5, left - 0.5, top + rows - 0.5, left + columns - 0.5
    return np.array([(y0, x0), (y0, x1), (y1, x1), (y1, x0)])


def voxels(*places: tuple[int, int, int, int]) -> Mask:
    """Those of rectangles in a slice."""
    mask = np.zeros(SHAPE, dtype=np.bool_)
    for top, left, rows, columns in places:
        mask[top : top + rows, left : left + columns] = True
    return mask


def drawn(lower: list[FloatArray], upper: list[FloatArray], share: float) -> Mask:
    (_, rows, columns), mask = between(lower, upper, share, shape=SHAPE, spacing_mm=SPACING_MM)
    assert mask.shape == (1, rows.stop - rows.start, columns.stop - columns.start)
    whole = np.zeros(SHAPE, dtype=np.bool_)
    whole[rows, columns] = mask[0]
    return whole


def signed_mm(mask: Mask) -> npt.NDArray[np.float64]:
    """Distance from each centre to the nearest one on the other side, one by one; beyond the slice nothing lies inside."""
    wide = np.pad(mask, 1)
    places = np.argwhere(np.ones_like(wide)) * SPACING_MM
    apart = np.linalg.norm(places[:, None] - places[None], axis=2)
    inside = wide.reshape(-1)
    distance = np.where(inside, apart[:, ~inside].min(axis=1), -apart[:, inside].min(axis=1))
    return np.asarray(distance.reshape(wide.shape)[1:-1, 1:-1])


@pytest.mark.parametrize("share", [0.2, 0.5, 0.7])
def test_a_slice_between_two_planes_is_where_the_blend_of_their_distances_is_positive(share: float) -> None:
    """Two pieces below and one above, so that none is moved; at 0.5 some voxels are exactly as far from either."""
    below, above = [(3, 4, 6, 5), (4, 14, 3, 8)], (6, 5, 7, 14)
    blend = (1 - share) * signed_mm(voxels(*below)) + share * signed_mm(voxels(above))
    found = drawn([rectangle(*place) for place in below], [rectangle(*above)], share)
    assert found.any()
    np.testing.assert_array_equal(found, blend > 0)


@pytest.mark.parametrize(("share", "place"), [(0.0, (2, 3)), (0.25, (3, 6)), (0.5, (4, 9)), (1.0, (6, 15))])
def test_a_single_contour_on_each_plane_moves_between_their_places(share: float, place: tuple[int, int]) -> None:
    """By the share of four rows and twelve columns; the squares do not overlap."""
    found = drawn([rectangle(2, 3, 3, 3)], [rectangle(6, 15, 3, 3)], share)
    np.testing.assert_array_equal(found, voxels((*place, 3, 3)))


@pytest.mark.parametrize(("share", "moved"), [(0.25, (1, 2)), (0.5, (2, 4)), (0.75, (3, 6))])
def test_the_place_of_a_contour_is_the_centre_of_its_area(share: float, moved: tuple[int, int]) -> None:
    """An L of 12 voxels around (4.5, 2.5) and 12 around (8.5, 4.5), with further corners on an edge; a square of 4 by 4."""
    bent = np.array([(1.5, 1.5), (1.5, 2), (1.5, 3.5), (7.5, 3.5), (7.5, 7.5), (9.5, 7.5), (9.5, 5), (9.5, 1.5)])
    y, x = moved
    lower = signed_mm(voxels((2 + y, 2 + x, 6, 2), (8 + y, 2 + x, 2, 6)))
    upper = signed_mm(voxels((5 + y, 2 + x, 4, 4)))  # 4 rows and 8 columns are the whole way
    for polygon in (bent, bent[::-1], np.roll(bent, 3, axis=0)):
        found = drawn([polygon], [rectangle(9, 10, 4, 4)], share)
        np.testing.assert_array_equal(found, (1 - share) * lower + share * upper > 0)


def test_a_contour_and_the_same_one_that_runs_the_other_way_round_lie_in_one_place() -> None:
    square = rectangle(2, 3, 3, 5)
    np.testing.assert_array_equal(drawn([square], [square[::-1]], 0.5), voxels((2, 3, 3, 5)))


def test_a_contour_without_an_area_lies_in_the_middle_of_its_box() -> None:
    """The line's middle is 16 columns from the square's, so the square moves 8."""
    line = np.array([(4.0, 20.0), (4.0, 22.0), (4.0, 20.5)])
    found = drawn([line], [rectangle(3, 4, 3, 3)], 0.5)
    np.testing.assert_array_equal(found, voxels((3, 12, 3, 3)))


def test_a_thin_contour_lies_where_most_of_its_area_does() -> None:
    """A wedge of 18 columns has its centre after 12 of them, (2/3, 0.1/3) from its tip; the square goes half of the way there."""
    wedge = np.array([(4.25, 6.0), (4.25, 24.0), (4.35, 24.0)])
    found = drawn([wedge], [rectangle(3, 3, 3, 3)], 0.5)
    np.testing.assert_array_equal(found, voxels((3, 10, 3, 3)))


SPECK = rectangle(3.25, 3.25, 0.1, 0.1)
"""Between the centres of voxels: it encloses none."""


@pytest.mark.parametrize(("share", "nearer"), [(0.49, "lower"), (0.5, "upper")])
@pytest.mark.parametrize("empty", ["lower", "upper"])
def test_beside_a_plane_that_encloses_nothing_a_slice_is_that_of_the_nearer_plane(share: float, nearer: str, empty: str) -> None:
    pieces = [rectangle(6, 5, 3, 4), rectangle(12, 5, 2, 4)]
    lower, upper = ([SPECK, SPECK + 1], pieces) if empty == "lower" else (pieces, [SPECK, SPECK + 1])
    expected = voxels() if nearer == empty else voxels((6, 5, 3, 4), (12, 5, 2, 4))
    np.testing.assert_array_equal(drawn(lower, upper, share), expected)


def test_two_contours_on_each_plane_stay_where_they_are() -> None:
    """The second one is there as well, and none moves to the middle between the planes."""
    pieces = [rectangle(2, 3, 4, 4), rectangle(10, 3, 4, 4)]
    found = drawn(pieces, [piece + np.array([0, 2]) for piece in pieces], 0.5)
    np.testing.assert_array_equal(found, voxels((2, 4, 4, 4), (10, 4, 4, 4)))


@pytest.mark.parametrize("corner", [(0, 0), (16, 25)])
def test_what_lies_in_the_corner_of_a_slice_is_whole(corner: tuple[int, int]) -> None:
    (slices, *_), _ = between([rectangle(*corner, 4, 5)], [rectangle(*corner, 4, 5)], 0.3, shape=SHAPE, spacing_mm=SPACING_MM)
    assert slices == slice(0, 1)
    np.testing.assert_array_equal(drawn([rectangle(*corner, 4, 5)], [rectangle(*corner, 4, 5)], 0.3), voxels((*corner, 4, 5)))

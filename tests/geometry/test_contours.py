"""Masks to contours and back."""

from dataclasses import replace

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from oarlock.arrays import Mask
from oarlock.geometry import contours as drawing
from oarlock.geometry.contours import PlanarContour, count_crossings, decimation_mm, to_contours, to_mask
from oarlock.geometry.grid import Grid
from oarlock.geometry.masks import Box
from oarlock.geometry.polygons import crossings
from tests.fixtures.crooked import SPACING_MM, crooked_grid

GRID = crooked_grid()
CORNER = (3, 5, 7)

masks = st.tuples(st.integers(1, 3), st.integers(1, 13), st.integers(1, 11)).flatmap(lambda shape: arrays(np.bool_, shape))
blobs = arrays(np.float64, (2, 7, 6), elements=st.floats(0, 1)).map(
    lambda coarse: np.array([cv2.resize(plane, (31, 23), interpolation=cv2.INTER_CUBIC) > 0.5 for plane in coarse])
)


def box_of(mask: Mask) -> Box:
    z, y, x = (slice(start, start + size) for start, size in zip(CORNER, mask.shape, strict=True))
    return z, y, x


def drawn(mask: Mask, grid: Grid = GRID, **options: float) -> list[PlanarContour]:
    return to_contours(mask, box_of(mask), grid, **options)


def on_slices(contours: list[PlanarContour], grid: Grid = GRID) -> list[tuple[int, npt.NDArray[np.float64]]]:
    return [(contour.z, grid.to_plane(contour.z, contour.points_mm)[0]) for contour in contours]


def read_back(contours: list[PlanarContour], shape: tuple[int, int, int], grid: Grid = GRID) -> Mask:
    z, y, x = (slice(start, start + size) for start, size in zip(CORNER, shape, strict=True))
    whole = to_mask(on_slices(contours, grid), grid.shape)
    assert not whole.sum() > whole[z, y, x].sum()
    return whole[z, y, x]


def shoelace(yx: npt.NDArray[np.float64]) -> float:
    y, x = yx.T
    return float(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1))) / 2


def mask_of(*rows: str) -> Mask:
    return np.array([[[letter == "#" for letter in row] for row in rows]])


def distance_to_polygon(points: npt.NDArray[np.float64], polygon: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    a, b = polygon, np.roll(polygon, -1, axis=0)
    along = b - a
    share = np.clip(np.einsum("ijk,jk->ij", points[:, None] - a, along) / np.sum(along**2, axis=1), 0, 1)
    return np.asarray(np.linalg.norm(points[:, None] - (a + share[..., None] * along), axis=2).min(axis=1))


@given(masks)
def test_a_mask_comes_back_exactly(mask: Mask) -> None:
    assert np.array_equal(read_back(drawn(mask), mask.shape), mask)


@given(blobs)
@settings(max_examples=50)
def test_a_smooth_mask_comes_back_exactly_from_micrometres(mask: Mask) -> None:
    rounded = [PlanarContour(contour.z, np.round(contour.points_mm, 3)) for contour in drawn(mask)]
    assert np.array_equal(read_back(rounded, mask.shape), mask)


@given(masks)
def test_the_polygons_enclose_exactly_the_area_of_the_voxels(mask: Mask) -> None:
    polygons = on_slices(drawn(mask))
    for z, plane in enumerate(mask, start=CORNER[0]):
        assert abs(sum(shoelace(yx) for at, yx in polygons if at == z)) == pytest.approx(np.count_nonzero(plane), abs=1e-6)


@given(masks | blobs)
def test_no_contour_crosses_itself_or_another_one(mask: Mask) -> None:
    polygons = on_slices(drawn(mask))
    assert crossings([yx for _, yx in polygons], [z for z, _ in polygons], 1.0) == []


@given(masks)
def test_every_contour_has_at_least_four_distinct_points(mask: Mask) -> None:
    for contour in drawn(mask):
        assert len(np.unique(np.round(contour.points_mm, 3), axis=0)) == len(contour.points_mm) >= 4


@given(masks)
def test_without_decimation_every_pair_of_inside_and_outside_neighbours_is_crossed_once(mask: Mask) -> None:
    padded = np.pad(mask, ((0, 0), (1, 1), (1, 1)))
    pairs = np.count_nonzero(padded[:, 1:] != padded[:, :-1]) + np.count_nonzero(padded[:, :, 1:] != padded[:, :, :-1])
    length = sum(float(np.abs(np.diff(yx, axis=0, append=yx[:1])).max(axis=1).sum()) for _, yx in on_slices(drawn(mask)))
    # An edge between two neighbouring crossings spans half a voxel at a corner and one along a wall; collinear ones are merged.
    assert length <= pairs + 1e-9
    assert length >= pairs / 2 - 1e-9


def test_a_checkerboard_comes_back_and_does_not_cross_itself() -> None:
    mask = np.indices((1, 24, 25)).sum(axis=0) % 2 == 0
    contours = drawn(mask)
    polygons = on_slices(contours)
    assert np.array_equal(read_back(contours, mask.shape), mask)
    assert crossings([yx for _, yx in polygons], [z for z, _ in polygons], 1.0) == []


def test_one_voxel_becomes_a_diamond_of_its_area() -> None:
    (contour,) = drawn(mask_of("#"))
    (_, yx), reach = on_slices([contour])[0], np.sqrt(0.5)  # a diamond with half diagonals r has the area 2 r²
    expected = {(-reach, 0.0), (reach, 0.0), (0.0, -reach), (0.0, reach)}
    found = {(round(float(y), 9), round(float(x), 9)) for y, x in yx - np.array(CORNER[1:])}
    assert found == {(round(y, 9), round(x, 9)) for y, x in expected}


def test_voxels_that_touch_at_a_corner_are_one_contour() -> None:
    assert len(drawn(mask_of("#..", ".#.", "..#"))) == 1


def test_a_hole_is_a_contour_of_its_own_and_so_is_an_island_in_it() -> None:
    mask = mask_of("#####", "#...#", "#.#.#", "#...#", "#####")
    contours = drawn(mask)
    assert len(contours) == 3
    assert np.array_equal(read_back(contours, mask.shape), mask)


def test_an_empty_mask_has_no_contours() -> None:
    assert drawn(np.zeros((2, 3, 4), dtype=np.bool_)) == []


def test_contours_come_slice_by_slice() -> None:
    mask = np.random.default_rng(5).random((9, 20, 20)) < 0.3
    slices = [contour.z for contour in drawn(mask)]
    assert slices == sorted(slices)


@given(blobs, st.sampled_from([0.0, 0.02, 0.05, 0.1, 1.0]))
@settings(max_examples=40)
def test_decimation_stays_within_its_bound(mask: Mask, tolerance_mm: float) -> None:
    """Every crossing that was left out lies within the bound of the polygon, before the loop is moved to match its area."""
    bound = decimation_mm(GRID, tolerance_mm)
    assert bound <= min(tolerance_mm, 0.1 * SPACING_MM[2])
    everything = to_contours(mask, box_of(mask), GRID, tolerance_mm=0)
    reduced = to_contours(mask, box_of(mask), GRID, tolerance_mm=tolerance_mm)
    assert len(reduced) == len(everything)
    moved = 0.5 * max(SPACING_MM[1:])  # matching moves a loop by at most half its area's error over half its length
    for whole, less in zip(everything, reduced, strict=True):
        assert len(less.points_mm) <= len(whole.points_mm)
        length = np.linalg.norm(np.diff(whole.points_mm, axis=0, append=whole.points_mm[:1]), axis=1).sum()
        slack = moved / length * 2 + 2 * bound
        assert distance_to_polygon(whole.points_mm, less.points_mm).max() <= bound + slack


def test_points_lie_on_the_plane_of_their_own_slice() -> None:
    """Slices that drift sideways and lie unevenly: no average position is right for any of them."""
    rng = np.random.default_rng(11)
    origins = GRID.origins_mm + np.cumsum(rng.random((len(GRID.origins_mm), 3)), axis=0)
    grid = Grid(GRID.rows, GRID.columns, origins, GRID.row_direction, GRID.column_direction, 1.1, 0.9)
    mask = rng.random((20, 30, 30)) < 0.5
    contours = drawn(mask, grid)
    for contour in contours:
        z_mm = contour.points_mm[:, 2]
        assert np.abs(z_mm - origins[contour.z, 2]).max() < 1e-9
    assert np.array_equal(read_back(contours, mask.shape, grid), mask)


def square(y: float, x: float, size: float) -> npt.NDArray[np.float64]:
    return np.array([(y, x), (y, x + size), (y + size, x + size), (y + size, x)])


def test_squares_that_share_edges_on_voxel_centres_share_no_voxel_and_leave_none_out() -> None:
    shape = (1, 9, 9)
    tiles = [to_mask([(0, square(y, x, 2))], shape) for y in (1, 3, 5) for x in (1, 3, 5)]
    assert np.array_equal(np.sum(tiles, axis=0), to_mask([(0, square(1, 1, 6))], shape))
    assert np.sum(tiles) == 36


def test_a_centre_on_an_edge_belongs_to_the_side_of_growing_indices() -> None:
    assert np.argwhere(to_mask([(0, square(2, 3, 2))], (1, 9, 9)))[:, 1:].tolist() == [[2, 3], [2, 4], [3, 3], [3, 4]]


def test_a_keyhole_reads_as_the_ring_that_it_means() -> None:
    outer, inner = square(0.5, 0.5, 10), square(3.5, 3.5, 4)[::-1]
    keyhole = np.concatenate([outer, outer[:1], np.roll(inner, 1, axis=0), np.roll(inner, 1, axis=0)[:1]])
    ring = to_mask([(0, outer), (0, inner)], (1, 12, 12))
    assert np.count_nonzero(ring) == 100 - 16
    assert np.array_equal(to_mask([(0, keyhole)], (1, 12, 12)), ring)


@pytest.mark.parametrize(
    ("y", "x", "inside"),
    [(0.5, 0.5, 7 * 8), (-99.5, 0.5, 1 * 8), (0.5, -99.5, 7 * 1), (-99.5, -99.5, 1), (9.5, 0, 0), (0, -200, 0)],
)
def test_what_lies_outside_of_the_image_is_cut_at_its_edge(y: float, x: float, inside: int) -> None:
    assert to_mask([(1, square(y, x, 100))], (3, 8, 9)).sum() == inside


def test_a_polygon_around_the_whole_image_fills_it() -> None:
    assert to_mask([(1, square(-1e6, -1e6, 2e6))], (3, 8, 9)).sum() == 8 * 9


def test_the_work_of_a_polygon_can_be_known_beforehand() -> None:
    polygons = [(0, square(1.5, 1.5, 4)), (0, square(-50, -50, 1000))]
    assert count_crossings(polygons, rows=10) == 2 * 4 + 2 * 10


@given(arrays(np.float64, (5, 2), elements=st.floats(-3, 12, width=32)))
def test_even_odd_agrees_with_counting_crossings_of_a_ray(polygon: npt.NDArray[np.float64]) -> None:
    y, x = (polygon + 1e-3 * np.sqrt(2)).T  # no centre lies on an edge
    after = np.roll(y, -1), np.roll(x, -1)
    mask = to_mask([(0, np.stack([y, x], axis=1))], (1, 9, 10))[0]
    for row, column in np.ndindex(9, 10):
        hits = 0
        for y0, x0, y1, x1 in zip(y, x, *after, strict=True):
            if (y0 > row) != (y1 > row):
                hits += x0 + (row - y0) / (y1 - y0) * (x1 - x0) > column
        assert mask[row, column] == hits % 2


@pytest.mark.parametrize(("pixel_mm", "bound_mm"), [(0.9, 0.09), (1.0, 0.1), (1.5, 0.1)])
def test_a_contour_leaves_the_boundary_by_a_tenth_of_a_pixel_or_of_a_millimetre(pixel_mm: float, bound_mm: float) -> None:
    assert decimation_mm(replace(GRID, row_spacing_mm=1.7, column_spacing_mm=pixel_mm)) == pytest.approx(bound_mm)


def test_the_box_of_polygons_holds_every_centre_that_they_can_enclose() -> None:
    """A centre on an edge may belong to a polygon, so that rows 2 to 5 and columns 3 to 7 are in; beyond the image nothing is."""
    one = np.array([[2.0, 3.0], [5.0, 3.5], [4.0, 7.0]])
    beyond = np.array([[-4.0, -3.0], [60.0, 4.0], [7.0, 90.0]])
    assert drawing.box_of([(4, one)], GRID.shape) == (slice(4, 5), slice(2, 6), slice(3, 8))
    assert drawing.box_of([(4, one), (9, beyond)], GRID.shape) == (slice(4, 10), slice(0, 61), slice(0, 53))


@pytest.mark.parametrize(("away", "voxel"), [(-90.0, (0, 0)), (90.0, (60, 52))], ids=["first", "last"])
def test_the_box_of_a_polygon_beyond_the_image_is_its_nearest_voxel(away: float, voxel: tuple[int, int]) -> None:
    assert GRID.shape[1:] == (61, 53)
    y, x = (slice(index, index + 1) for index in voxel)
    assert drawing.box_of([(4, square(away, away, 5.0))], GRID.shape) == (slice(4, 5), y, x)


def test_the_lines_that_a_border_passes_are_those_it_turns_over_from_where_it_came() -> None:
    """By angles: a border that came at one angle looks from the opposite one on, counter-clockwise, up to where it goes."""
    for came, goes in np.ndindex(8, 8):
        back = 45 * came + 180
        turn = (45 * goes - back) % 360 or 360
        passed = sorted(angle for line in range(4) if 0 < (angle := (90 * line - back) % 360) < turn)
        expected = [(angle + back) % 360 // 90 for angle in passed]
        assert drawing._crossed_lines()[came, goes].tolist() == [*expected, -1, -1, -1, -1][:4]
    assert np.array_equal(drawing._crossed_lines(), drawing._CROSSED)
    assert drawing._CROSSED.shape == (8, 8, 4)


def test_no_vertex_lies_on_the_line_between_its_neighbours() -> None:
    mask = np.random.default_rng(5).random((9, 20, 20)) < 0.7
    for _, yx in on_slices(drawn(mask)):
        came, goes = yx - np.roll(yx, 1, axis=0), np.roll(yx, -1, axis=0) - yx
        assert np.abs(came[:, 0] * goes[:, 1] - came[:, 1] * goes[:, 0]).min() > 0.01


def test_crossings_come_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten edges cross three rows each; a block begins with the edge that reaches the 7th, 14th, 21st or 28th crossing."""
    monkeypatch.setattr(drawing, "_BLOCK", 7)
    zigzag = np.array([(-1.0 if x % 2 else 3.0, x) for x in range(10)])
    blocks = [len(rows) for _, rows, _ in drawing._crossings([(0, zigzag)], (1, 3, 12))]
    assert blocks == [6, 6, 6, 9, 3]


@pytest.mark.parametrize("shape", [(2, 5, 7), (5, 2, 7)])
def test_a_mask_has_the_shape_that_is_asked_for(shape: tuple[int, int, int]) -> None:
    assert to_mask([(1, square(0.5, 0.5, 1.0))], shape).shape == shape


def test_the_work_of_a_polygon_above_or_below_the_image_is_none() -> None:
    assert count_crossings([(0, square(-9.0, 0.0, 4.0)), (0, square(20.0, 0.0, 4.0))], rows=10) == 0

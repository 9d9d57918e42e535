"""Foreign structure sets on a grid: where their contours come to lie, and what is said of those that cannot be used."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence

from oarlock.arrays import Mask
from oarlock.ct.series import SeriesHeader, check_headers
from oarlock.errors import FrameOfReferenceMismatch
from oarlock.geometry.grid import Grid
from oarlock.organs.catalogue import BY_NAME, OARS
from oarlock.rtstruct.placing import Budget, PlacedROIs, rois_to_masks
from oarlock.rtstruct.reader import ROI, StructureSet, read_structure_set
from oarlock.rtstruct.writer import write_rtstruct
from tests.fixtures.foreign import contour, drawn, foreign, roi, save, square_mm
from tests.fixtures.organs import AUTHORSHIP, Series

BRAIN = BY_NAME["Brain"]
Points = npt.NDArray[np.float64]

OTHER_SERIES = (
    "The RTSTRUCT was drawn on another series in the same frame of reference: it names none of the images of the CT. "
    "Its contours are used where they lie in the patient."
)


def test_what_was_written_is_read_back_exactly(series: Series, tmp_path: Path) -> None:
    written = write_rtstruct(tmp_path / "rtstruct.dcm", series.masks, series.header, AUTHORSHIP)
    found = read_structure_set(tmp_path / "rtstruct.dcm")
    assert (found.sop_instance_uid, found.label) == (written.sop_instance_uid, written.label)
    assert found.referenced_instances == {instance.sop_instance_uid for instance in series.header.instances}
    masks, warnings, *_ = rois_to_masks(found, series.header, {BY_NAME[roi.name]: roi.number for roi in found.rois})
    assert np.array_equal(masks.bits, series.masks.bits)
    assert [(w.code, w.detail) for w in warnings] == [
        ("structure_set.roi_partly_used", "ROI number 2: 1 slice(s) between its contours have none and are left empty."),
        ("structure_set.roi_partly_used", "ROI number 5: it has no contours."),
    ]


# ── shapes ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_nested_holes_are_even_odd(header: SeriesHeader, brain: Callable[..., tuple[Mask, list[str]]]) -> None:
    rings = [contour(square_mm(header, 3, edge, edge, 30 - 2 * edge)) for edge in (0.5, 4.5, 8.5, 12.5)]
    mask, warnings = brain(*rings)
    assert mask[3].sum() == mask.sum() == 29**2 - 21**2 + 13**2 - 5**2
    assert warnings == []


def test_a_keyhole_is_the_ring_that_it_means(header: SeriesHeader, brain: Callable[..., tuple[Mask, list[str]]]) -> None:
    outer, inner = square_mm(header, 3, 0.5, 0.5, 20), square_mm(header, 3, 6.5, 6.5, 8)[::-1]
    keyhole = np.concatenate([outer, outer[:1], inner, inner[:1]])
    mask, _ = brain(contour(keyhole))
    assert mask.sum() == 400 - 64


@pytest.mark.parametrize(
    "kind",
    [
        *("CLOSED_PLANAR", "CLOSEDPLANAR_XOR", "CLOSED_PLANAR_XOR", "INTERPOLATED_PLANAR"),
        *("CLOSED PLANAR", "CLOSEDPLANAR", "closed_planar", "Closed-Planar", "CLOSED", ""),
    ],
)
def test_all_closed_types_are_areas(kind: str, header: SeriesHeader, brain: Callable[..., tuple[Mask, list[str]]]) -> None:
    mask, _ = brain(contour(square_mm(header, 3, 0.5, 0.5, 4), kind))
    assert mask.sum() == 16


def test_a_first_point_that_is_repeated_at_the_end_changes_nothing(
    header: SeriesHeader, brain: Callable[..., tuple[Mask, list[str]]]
) -> None:
    points = square_mm(header, 3, 0.5, 0.5, 4)
    mask, warnings = brain(contour(np.concatenate([points, points[:1]])))
    assert (mask.sum(), warnings) == (16, [])


def test_a_contour_drawn_twice_counts_once_and_is_told(
    header: SeriesHeader, brain: Callable[..., tuple[Mask, list[str]]]
) -> None:
    points = square_mm(header, 3, 0.5, 0.5, 4)
    mask, warnings = brain(contour(points), contour(np.roll(points[::-1], 1, axis=0)))
    assert mask.sum() == 16
    assert warnings == ["ROI number 7: 1 of 2 contour(s): left out: drawn twice."]


@pytest.mark.parametrize(
    ("second", "overlap"),
    [((4.5, 4.5, 10), True), ((4.5, 4.5, 4), False), ((20.5, 0.5, 4), False), ((0.5, 10.5, 5), False), ((-3.5, -3.5, 25), False)],
    ids=["in part", "hole", "apart", "neighbours", "around"],
)
def test_contours_that_overlap_in_part_are_told(
    second: tuple[float, float, float], overlap: bool, header: SeriesHeader, brain: Callable[..., tuple[Mask, list[str]]]
) -> None:
    """What both enclose is outside by XOR, which a system that takes their union does not mean; a hole or an island is none."""
    hole_in_first = contour(square_mm(header, 3, 1.5, 1.5, 2))
    _, warnings = brain(contour(square_mm(header, 3, 0.5, 0.5, 10)), hole_in_first, contour(square_mm(header, 3, *second)))
    told = "ROI number 7: in 1 plane(s) its contours overlap; what two of them share counts as outside (XOR)."
    assert (told in warnings) == overlap


def test_what_reaches_over_the_edge_is_cut_and_told(header: SeriesHeader, brain: Callable[..., tuple[Mask, list[str]]]) -> None:
    mask, warnings = brain(contour(square_mm(header, 3, -10.5, -10.5, 20)))
    assert mask.sum() == mask[3, :10, :10].sum() == 100
    assert warnings == ["ROI number 7: 1 contour(s) reach over the edge of the images and are cut there."]


# ── drawn twice, or around nothing ────────────────────────────────────────────────────────────────────────────────────

TWICE = ["ROI number 7: 1 of 2 contour(s): left out: drawn twice."]


def with_a_point_more(points: Points) -> Points:
    return np.insert(points, 1, (points[0] + points[1]) / 2, axis=0)


@pytest.mark.parametrize(
    "change",
    [
        lambda points: points,
        lambda points: np.roll(points[::-1], 1, axis=0),
        with_a_point_more,
        lambda points: np.add(points, [0.006, 0, 0]),
        lambda points: np.add(points, [0.3, 0, 0]),
        lambda points: np.add(points, [0, 0.45, 0]),
        lambda points: (points - points.mean(axis=0)) * 1.01 + points.mean(axis=0),
    ],
    ids=["the same", "backwards", "a point more", "0.006 mm beside", "0.3 mm beside", "0.45 mm beside", "a hundredth larger"],
)
def test_a_contour_that_is_nearly_another_one_counts_once_and_is_told(
    change: Callable[[Points], Points], header: SeriesHeader, place: Callable[..., PlacedROIs]
) -> None:
    points = square_mm(header, 3, 0.5, 0.5, 20)
    placed = place(contour(points), contour(change(points)))
    assert placed.masks.mask(BRAIN).sum() == 400
    assert [warning.detail for warning in placed.warnings] == TWICE
    assert placed.not_scored == {}


def test_three_copies_count_once_like_two(header: SeriesHeader, brain: Callable[..., tuple[Mask, list[str]]]) -> None:
    points = square_mm(header, 3, 0.5, 0.5, 20)
    mask, warnings = brain(*(contour(np.add(points, [shift_mm, 0, 0])) for shift_mm in (0, 0.1, 0.2)))
    assert mask.sum() == 400
    assert warnings == ["ROI number 7: 2 of 3 contour(s): left out: drawn twice."]


def test_a_hole_that_is_drawn_twice_is_a_hole(header: SeriesHeader, brain: Callable[..., tuple[Mask, list[str]]]) -> None:
    outer, hole = square_mm(header, 3, 0.5, 0.5, 20), square_mm(header, 3, 5.5, 5.5, 8)
    mask, _ = brain(contour(outer), contour(hole), contour(np.add(hole, [0.2, 0, 0])))
    assert mask.sum() == 400 - 64


def test_a_wall_of_one_pixel_is_a_ring_and_not_drawn_twice(
    header: SeriesHeader, brain: Callable[..., tuple[Mask, list[str]]]
) -> None:
    mask, warnings = brain(contour(square_mm(header, 3, 0.5, 0.5, 20)), contour(square_mm(header, 3, 1.5, 1.5, 18)))
    assert (mask.sum(), warnings) == (400 - 324, [])


def test_contours_further_beside_each_other_are_told_and_not_scored(
    header: SeriesHeader, place: Callable[..., PlacedROIs]
) -> None:
    points = square_mm(header, 3, 0.6, 0.6, 20)
    placed = place(contour(points), contour(np.add(points, [0.6, 0, 0])))
    assert len(placed.warnings) == 1
    assert "its contours overlap" in placed.warnings[0].detail
    assert placed.not_scored == {BRAIN: "its contours overlap, so what they enclose is not certain"}


@pytest.mark.parametrize(("columns", "scored"), [(3, True), (4, False)])
def test_contours_that_overlap_in_part_are_scored_up_to_two_percent(
    columns: int, scored: bool, header: SeriesHeader, place: Callable[..., PlacedROIs]
) -> None:
    """1600 and 100 voxels share 10 for each column: 30 of 1640 + 30 are 1.8 %, and 40 of 1620 + 40 are 2.4 %."""
    placed = place(contour(square_mm(header, 3, 0.5, 0.5, 40)), contour(square_mm(header, 3, 20.5, 40.5 - columns, 10)))
    assert placed.masks.mask(BRAIN).sum() == 1700 - 20 * columns
    assert (BRAIN not in placed.not_scored) == scored


def test_contours_that_enclose_the_same_voxels_and_cancel_each_other_are_told_and_not_scored(
    header: SeriesHeader, place: Callable[..., PlacedROIs]
) -> None:
    """0.7 mm apart, which is too far to be one drawn twice, but between the same centres of voxels; a second slice is whole."""
    one, other = square_mm(header, 3, 0.1, 0.1, 20), square_mm(header, 3, 0.1, 0.1, 20)
    other[other[:, 0] > other[:, 0].mean(), 0] += 0.7
    placed = place(contour(one), contour(other), contour(square_mm(header, 4, 0.5, 0.5, 4)))
    assert placed.masks.mask(BRAIN).sum() == 16
    assert [warning.detail[14:42] for warning in placed.warnings] == ["in 1 plane(s) its contours o"]
    assert placed.not_scored == {BRAIN: "its contours overlap, so what they enclose is not certain"}


def test_an_roi_whose_contours_enclose_nothing_says_that_it_has_contours(
    header: SeriesHeader, place: Callable[..., PlacedROIs]
) -> None:
    line = square_mm(header, 4, 0.5, 0.5, 9)[[0, 1, 1]] + [[0, 0, 0], [0, 0, 0], [1, 0, 0]]
    placed = place(contour(square_mm(header, 3, 0.2, 0.2, 0.5)), contour(line))
    assert placed.masks.mask(BRAIN).sum() == 0
    assert [warning.detail for warning in placed.warnings] == ["ROI number 7: its 2 contour(s) enclose no voxel of the CT."]
    assert placed.hollow == {BRAIN}


# ── read in part ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("item", "scored"),
    [
        (contour(np.zeros((1, 3)), "POINT"), True),
        (contour(np.eye(3)[:2]), True),
        (contour(np.eye(3), "OPEN_PLANAR"), False),
        (contour(np.eye(3), "CLOSED_SOMETHING"), False),
        (contour(np.eye(3), "POINT"), False),
        (contour(np.eye(3), ContourData=["1", "2", "3", "4"]), False),
        (contour(np.eye(3) * 100), False),
    ],
    ids=[
        "a point",
        "two points",
        "an open line",
        "an unknown type",
        "three points",
        "damaged points",
        "a leaning plane",
    ],
)
def test_an_roi_that_is_read_in_part_is_not_scored(
    item: Dataset, scored: bool, header: SeriesHeader, place: Callable[..., PlacedROIs]
) -> None:
    placed = place(contour(square_mm(header, 3, 0.5, 0.5, 4)), item)
    assert placed.masks.mask(BRAIN).sum() == 16
    assert len(placed.warnings) == 1
    assert placed.not_scored == ({} if scored else {BRAIN: "1 of its 2 contours are left out"})


# ── between planes ────────────────────────────────────────────────────────────────────────────────────────────────────


def planes(header: SeriesHeader, *squares: tuple[float, float, float]) -> list[Dataset]:
    """Squares around the middle of the images: (slice, column of the middle, size)."""
    return [contour(square_mm(header, z, 30 - size / 2, x - size / 2, size)) for z, x, size in squares]


def extents(mask: Mask) -> dict[int, tuple[int, int]]:
    """Rows and columns of each slice that is not empty."""
    return {z: (int(image.any(axis=1).sum()), int(image.any(axis=0).sum())) for z, image in enumerate(mask) if image.any()}


def test_slices_between_planes_are_interpolated_and_told(
    tall: SeriesHeader, brain: Callable[..., tuple[Mask, list[str]]]
) -> None:
    mask, warnings = brain(*planes(tall, (1, 20.5, 9), (3, 20.5, 17), (5, 20.5, 9)), on=tall)
    assert extents(mask) == {1: (9, 9), 2: (13, 13), 3: (17, 17), 4: (13, 13), 5: (9, 9)}
    told = "2 slice(s) have no contours of their own and are interpolated between its planes"
    assert warnings == [f"ROI number 7: {told}."]


def test_contours_that_overlap_in_planes_between_the_slices_are_told_too(
    tall: SeriesHeader, place: Callable[..., PlacedROIs]
) -> None:
    """The middle one of three planes has two squares that share a half; all slices around it are interpolated."""
    squares = [(z, x, 8.0) for z, x in ((3.75, 20.5), (5.75, 20.5), (5.75, 24.5), (7.75, 20.5))]
    placed = place(*planes(tall, *squares), on=tall)
    assert [warning.detail for warning in placed.warnings if "in 1 plane(s) its contours overlap" in warning.detail]
    assert placed.not_scored == {BRAIN: "its contours overlap, so what they enclose is not certain"}


def test_an_interpolated_slice_lies_as_far_from_each_plane_as_it_does(
    tall: SeriesHeader, brain: Callable[..., tuple[Mask, list[str]]]
) -> None:
    """Planes off the slices: 3.75 to 7.75, so that slice 4 is at 1/16 and slice 6 at 9/16 of the way from 8 to 40 voxels."""
    mask, _ = brain(*planes(tall, (3.75, 20.5, 8), (7.75, 20.5, 40)), on=tall)
    sizes = {z: rows for z, (rows, _) in extents(mask).items()}
    assert {z: sizes[z] for z in (4, 5, 6, 7)} == {z: pytest.approx(8 + 32 * (z - 3.75) / 4, abs=1) for z in (4, 5, 6, 7)}


def test_a_thin_organ_that_runs_obliquely_does_not_vanish_between_planes(
    tall: SeriesHeader, brain: Callable[..., tuple[Mask, list[str]]]
) -> None:
    mask, _ = brain(*planes(tall, (1, 10.5, 5), (3, 20.5, 5), (5, 30.5, 5)), on=tall)
    assert mask.any(axis=(1, 2)).nonzero()[0].tolist() == [1, 2, 3, 4, 5]
    assert np.flatnonzero(mask[2].any(axis=0)).tolist() == [13, 14, 15, 16, 17]


def test_a_hole_is_interpolated_as_a_hole(tall: SeriesHeader, brain: Callable[..., tuple[Mask, list[str]]]) -> None:
    rings = [*planes(tall, (1, 20.5, 21), (3, 20.5, 21)), *planes(tall, (1, 20.5, 7), (3, 20.5, 7))]
    mask, _ = brain(*rings, on=tall)
    assert mask[2].sum() == 21**2 - 7**2


@pytest.mark.parametrize(("slices", "filled"), [(4, True), (5, False)])
def test_planes_further_apart_than_a_planning_ct_has_them_are_not_joined(
    slices: int, filled: bool, tall: SeriesHeader, brain: Callable[..., tuple[Mask, list[str]]]
) -> None:
    """10 and 12.5 mm: the limit is 10.5."""
    mask, warnings = brain(*planes(tall, (10, 20.5, 9), (10 + slices, 20.5, 9)), on=tall)
    assert mask[10 : 11 + slices].any(axis=(1, 2)).all() == filled
    told = f"{slices - 1} slice(s) between its contours have none and are left empty"
    assert (warnings == [f"ROI number 7: {told}."]) == (not filled)


@pytest.mark.parametrize(("last", "filled"), [(10, True), (11, False)])
def test_a_gap_wider_than_the_usual_distance_by_half_is_left_empty(
    last: int, filled: bool, tall: SeriesHeader, brain: Callable[..., tuple[Mask, list[str]]]
) -> None:
    """Planes two slices apart, then three or four: 1.5 times the usual distance is still joined."""
    mask, warnings = brain(*planes(tall, *((z, 20.5, 9) for z in (1, 3, 5, 7, last))), on=tall)
    assert mask[8:last].any(axis=(1, 2)).all() == filled
    assert any("left empty" in warning for warning in warnings) == (not filled)


def test_the_outer_planes_stand_for_less_than_half_a_distance_beyond(
    tall: SeriesHeader, brain: Callable[..., tuple[Mask, list[str]]]
) -> None:
    """Planes are 10 mm apart: slices 2.5 mm beyond belong to them, those exactly half way, 5 mm beyond, do not."""
    mask, _ = brain(*planes(tall, (10, 20.5, 9), (14, 20.5, 9), (18, 20.5, 9)), on=tall)
    assert np.flatnonzero(mask.any(axis=(1, 2))).tolist() == list(range(9, 20))


def test_two_pieces_on_slices_of_their_own_stay_apart(tall: SeriesHeader, brain: Callable[..., tuple[Mask, list[str]]]) -> None:
    mask, warnings = brain(*planes(tall, *((z, 20.5, 9) for z in (1, 2, 3, 5, 6, 7))), on=tall)
    assert not mask[4].any()
    assert warnings == ["ROI number 7: 1 slice(s) between its contours have none and are left empty."]


def test_a_small_roi_takes_the_usual_distance_of_the_file(header: SeriesHeader, tmp_path: Path) -> None:
    dataset = foreign(header, *planes(header, *((z, 20.5, 9) for z in (1, 2, 3, 4, 5))))
    dataset.StructureSetROISequence.append(roi(8, "Eye_L", header.frame_of_reference_uid))
    dataset.ROIContourSequence.append(drawn(8, planes(header, (1, 20.5, 9), (3, 20.5, 9))))
    placed = rois_to_masks(read_structure_set(save(dataset, tmp_path / "foreign.dcm")), header, {BRAIN: 7, OARS[1]: 8})
    assert not placed.masks.mask(OARS[1])[2].any()


@pytest.mark.parametrize(("apart_mm", "planes_used"), [(0.04, 2), (0.06, 1)])
def test_contours_up_to_a_twentieth_of_a_millimetre_apart_lie_in_one_plane(
    apart_mm: float, planes_used: int, header: SeriesHeader, brain: Callable[..., tuple[Mask, list[str]]]
) -> None:
    second = np.add(square_mm(header, 3, 0.5, 9.5, 4), [0, 0, apart_mm])
    mask, _ = brain(contour(square_mm(header, 3, 0.5, 0.5, 4)), contour(second))
    assert mask.sum() == 16 * planes_used


@pytest.mark.parametrize(("off_mm", "told"), [(0.009, False), (0.012, True)])
def test_a_contour_within_a_hundredth_of_a_millimetre_lies_in_the_plane_of_its_slice(
    off_mm: float, told: bool, header: SeriesHeader, brain: Callable[..., tuple[Mask, list[str]]]
) -> None:
    _, warnings = brain(contour(np.add(square_mm(header, 3, 0.5, 0.5, 4), [0, 0, off_mm])))
    assert any("moved onto the nearest slice" in warning for warning in warnings) == told


@pytest.mark.parametrize(("height_mm", "used"), [(1.24, True), (1.26, False)])
def test_a_contour_may_lean_by_up_to_half_the_distance_of_the_slices(
    height_mm: float, used: bool, header: SeriesHeader, brain: Callable[..., tuple[Mask, list[str]]]
) -> None:
    lean = np.array([0, 0, height_mm, height_mm])[:, None] * [0, 0, 1.0]
    mask, _ = brain(contour(square_mm(header, 3, 0.5, 0.5, 4) + lean))
    assert mask.any() == used


# ── places ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_contour_a_little_off_its_plane_goes_to_the_nearest_slice_and_is_told(
    header: SeriesHeader, brain: Callable[..., tuple[Mask, list[str]]]
) -> None:
    mask, warnings = brain(contour(square_mm(header, 3.08, 0.5, 0.5, 4)), contour(square_mm(header, 4, 0.5, 0.5, 4)))
    assert np.flatnonzero(mask.any(axis=(1, 2))).tolist() == [3, 4]
    assert warnings == ["ROI number 7: 1 of 2 contour(s): moved onto the nearest slice, by up to 0.20 mm."]


def test_a_contour_that_leans_a_little_is_told_with_the_point_that_is_furthest_off(
    header: SeriesHeader, brain: Callable[..., tuple[Mask, list[str]]]
) -> None:
    """Half a millimetre from one side to the other, as a structure set that was turned with a registration has it."""
    points = square_mm(header, 3, 0.5, 0.5, 4) + np.array([(0, 0, -0.25), (0, 0, 0.25), (0, 0, 0.25), (0, 0, -0.25)])
    mask, warnings = brain(contour(points))
    assert mask.sum() == mask[3].sum() == 16
    assert warnings == ["ROI number 7: 1 of 1 contour(s): moved onto the nearest slice, by up to 0.25 mm."]


def test_of_several_planes_between_slices_the_nearest_one_is_used_and_the_rest_told(
    header: SeriesHeader, brain: Callable[..., tuple[Mask, list[str]]]
) -> None:
    """Contours every millimetre on slices every 2.5 mm: XOR of two planes would leave their difference alone."""
    planes = [contour(square_mm(header, k / 2.5, 0.5, 0.5, 10 + k)) for k in range(6)]
    mask, warnings = brain(*planes)
    assert np.flatnonzero(mask.any(axis=(1, 2))).tolist() == [0, 1, 2]
    assert [int(mask[z].sum()) for z in range(3)] == [10**2, 12**2, 15**2]  # planes at 0, 2 (0.5 mm off) and 5 mm
    assert warnings[0] == "ROI number 7: 3 of 6 contour(s): left out: between the slices, another plane is nearer."
    assert len(warnings) == 2


def test_planes_half_way_between_slices_all_move_the_same_way(
    header: SeriesHeader, brain: Callable[..., tuple[Mask, list[str]]]
) -> None:
    rounding = (0, 1e-4, -1e-4, 2e-4, -2e-4)
    mask, warnings = brain(*(contour(square_mm(header, z + 0.5 + rounding[z], 0.5, 0.5, 4)) for z in range(5)))
    assert np.flatnonzero(mask.any(axis=(1, 2))).tolist() == [0, 1, 2, 3, 4]
    assert warnings == ["ROI number 7: 5 of 5 contour(s): moved onto the nearest slice, by up to 1.25 mm."]


def test_contours_above_the_slices_or_across_them_are_left_out_and_told(
    header: SeriesHeader, brain: Callable[..., tuple[Mask, list[str]]]
) -> None:
    sagittal = square_mm(header, 3, 0.5, 0.5, 4)[:, [2, 1, 0]] - square_mm(header, 3, 0.5, 0.5, 4)[0, [2, 1, 0]]
    mask, warnings = brain(contour(square_mm(header, -3, 0.5, 0.5, 4)), contour(square_mm(header, 3, 0, 0, 4)[0] + sagittal))
    assert mask.sum() == 0
    assert set(warnings) == {
        "ROI number 7: 1 of 2 contour(s): left out: above or below all slices.",
        "ROI number 7: 1 of 2 contour(s): left out: not in a plane parallel to the slices.",
    }


def image(uid: str) -> DicomSequence:
    item = Dataset()
    item.ReferencedSOPInstanceUID = uid
    return DicomSequence([item])


@pytest.mark.parametrize(("named", "off_mm"), [(5, "5.00"), (4, "2.50"), (3, None)])
def test_contours_that_name_the_image_of_another_slice_are_told(
    named: int, off_mm: str | None, header: SeriesHeader, brain: Callable[..., tuple[Mask, list[str]]]
) -> None:
    """Slices lie every 2.5 mm. Where points and image disagree, the structure set was shifted, or its references are wrong."""
    uids = [instance.sop_instance_uid for instance in header.instances]
    first = contour(square_mm(header, 3, 0.5, 0.5, 4), ContourImageSequence=image(uids[3]))
    second = contour(square_mm(header, 3, 0.5, 9.5, 4), ContourImageSequence=image(uids[named]))
    mask, warnings = brain(first, second)
    assert mask[3].sum() == mask.sum() == 32
    told = f"ROI number 7: 1 of 2 contour(s): they lie up to {off_mm} mm off the image that they name; their points count."
    assert warnings == ([told] if off_mm else [])


def test_a_contour_half_way_between_two_slices_may_name_either(
    header: SeriesHeader, brain: Callable[..., tuple[Mask, list[str]]]
) -> None:
    uid = header.instances[4].sop_instance_uid
    mask, warnings = brain(contour(square_mm(header, 3.5, 0.5, 0.5, 4), ContourImageSequence=image(uid)))
    assert mask[3].sum() == 16
    assert warnings == ["ROI number 7: 1 of 1 contour(s): moved onto the nearest slice, by up to 1.25 mm."]


# ── where it belongs ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_another_frame_of_reference_is_refused(brain: Callable[..., tuple[Mask, list[str]]], header: SeriesHeader) -> None:
    with pytest.raises(FrameOfReferenceMismatch):
        brain(contour(square_mm(header, 3, 0, 0, 4)), frame="1.2.3")


def test_images_of_the_series_outweigh_another_frame_of_reference(
    brain: Callable[..., tuple[Mask, list[str]]], header: SeriesHeader
) -> None:
    image = Dataset()
    image.ReferencedSOPInstanceUID = header.instances[3].sop_instance_uid
    item = contour(square_mm(header, 3, 0.5, 0.5, 4), ContourImageSequence=DicomSequence([image]))
    mask, warnings = brain(item, frame="1.2.3")
    assert mask.sum() == 16
    assert len(warnings) == 1
    assert "another frame of reference" in warnings[0]


@pytest.mark.parametrize(("patient_id", "warned"), [("Canary", True), ("", False), (None, False)])
def test_contours_under_another_patient_id_are_used_and_the_physicist_is_told_without_the_id(
    series: Series, tmp_path: Path, patient_id: str | None, warned: bool
) -> None:
    dataset = foreign(series.header, contour(square_mm(series.header, 3, 0.5, 0.5, 4)))
    dataset.PatientID = series.header.template.PatientID if patient_id is None else patient_id
    masks, warnings, *_ = rois_to_masks(read_structure_set(save(dataset, tmp_path / "foreign.dcm")), series.header, {BRAIN: 7})
    assert masks.mask(BRAIN).sum() == 16
    assert [w.code for w in warnings] == ["structure_set.other_patient"] * warned
    assert "Canary" not in str(warnings)


def test_contours_of_another_series_in_the_same_frame_of_reference_are_used_and_told(
    brain: Callable[..., tuple[Mask, list[str]]], header: SeriesHeader
) -> None:
    image = Dataset()
    image.ReferencedSOPInstanceUID = "1.2.3.4"
    item = contour(square_mm(header, 3, 0.5, 0.5, 4), ContourImageSequence=DicomSequence([image]))
    mask, warnings = brain(item)
    assert mask.sum() == 16
    assert warnings == [OTHER_SERIES]


def test_one_roi_in_another_frame_of_reference_is_left_out_alone(header: SeriesHeader, tmp_path: Path) -> None:
    dataset = foreign(header, contour(square_mm(header, 3, 0.5, 0.5, 4)))
    dataset.StructureSetROISequence.append(roi(8, "Parotid", "1.2.3"))
    dataset.ROIContourSequence.append(drawn(8, [contour(square_mm(header, 3, 0.5, 0.5, 4))]))
    found = read_structure_set(save(dataset, tmp_path / "foreign.dcm"))
    masks, warnings, *_ = rois_to_masks(found, header, {BRAIN: 7, OARS[1]: 8})
    assert (masks.mask(BRAIN).sum(), masks.mask(OARS[1]).sum()) == (16, 0)
    assert [w.detail for w in warnings] == ["ROI number 8: it lies in another frame of reference and is left out."]


@pytest.mark.parametrize("on_it", [True, False])
def test_an_roi_with_contours_on_images_of_the_series_that_were_not_sent_is_not_scored(
    on_it: bool, header: SeriesHeader, tmp_path: Path
) -> None:
    """The last slice of what the planning system has did not come, and the organ goes on there, or does not."""
    uids = [one.sop_instance_uid for one in header.instances]
    dataset = foreign(
        header,
        contour(square_mm(header, 3, 0.5, 0.5, 4), ContourImageSequence=image(uids[3])),
        contour(
            square_mm(header, len(uids) if on_it else 4, 0.5, 0.5, 4), ContourImageSequence=image("1.2.3" if on_it else uids[4])
        ),
    )
    frame, study, listed = (Dataset() for _ in range(3))
    listed.SeriesInstanceUID, listed.ContourImageSequence = (
        header.series_instance_uid,
        [image(uid)[0] for uid in (*uids, "1.2.3")],
    )
    study.RTReferencedSeriesSequence, frame.RTReferencedStudySequence = [listed], [study]
    dataset.ReferencedFrameOfReferenceSequence = [frame]
    placed = rois_to_masks(read_structure_set(save(dataset, tmp_path / "foreign.dcm")), header, {BRAIN: 7})
    assert placed.warnings[0].code == "structure_set.images_not_sent"
    assert "lists 1 image(s) of the CT series that were not sent" in placed.warnings[0].detail
    why = "1 of its 2 contours lie on images of the series that were not sent"
    assert placed.not_scored == ({BRAIN: why} if on_it else {})


def test_a_series_that_is_named_alone_is_compared_with_that_of_the_ct(header: SeriesHeader, tmp_path: Path) -> None:
    """Some systems list the series and none of its images."""
    for uid, told in (("1.2.3", [OTHER_SERIES]), (header.series_instance_uid, [])):
        dataset = foreign(header, contour(square_mm(header, 3, 0.5, 0.5, 4)))
        levels = [Dataset() for _ in range(3)]
        levels[2].SeriesInstanceUID = uid
        levels[1].RTReferencedSeriesSequence = DicomSequence([levels[2]])
        levels[0].RTReferencedStudySequence = DicomSequence([levels[1]])
        dataset.ReferencedFrameOfReferenceSequence = DicomSequence([levels[0]])
        _, warnings, *_ = rois_to_masks(read_structure_set(save(dataset, tmp_path / "foreign.dcm")), header, {BRAIN: 7})
        assert [warning.detail for warning in warnings] == told


# ── limits ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("budget", "drawn"),
    [
        (Budget(crossings=8, contours=1, whole=2), 16),
        (Budget(crossings=7), 0),
        (Budget(contours=0), 0),
        (Budget(crossings=8, contours=1, whole=1.9), 0),
    ],
)
def test_contours_that_would_take_too_long_are_left_out_and_told(
    budget: Budget, drawn: int, header: SeriesHeader, place: Callable[..., PlacedROIs]
) -> None:
    placed = place(contour(square_mm(header, 3, 0.5, 0.5, 4)), budget=budget)  # two edges cross four rows each
    assert placed.masks.mask(BRAIN).sum() == drawn
    too_many = "its contours are too many or too long to be used"
    assert [w.detail for w in placed.warnings] == ([] if drawn else [f"ROI number 7: {too_many}."])
    assert placed.not_scored == ({} if drawn else {BRAIN: too_many})


@pytest.mark.parametrize(
    ("budget", "told"),
    [
        (Budget(company=2, voxels=72, whole=2.1), False),
        (Budget(company=1), True),
        (Budget(voxels=71), True),
    ],
)
def test_contours_too_many_to_be_compared_are_not_scored_and_told(
    budget: Budget, told: bool, header: SeriesHeader, place: Callable[..., PlacedROIs]
) -> None:
    """Their boxes of 6 × 6 voxels share two columns; the squares themselves do not overlap."""
    first, second = square_mm(header, 3, 0.5, 0.5, 4), square_mm(header, 3, 0.5, 4.4, 3.9)
    placed = place(contour(first), contour(second), budget=budget)
    too_many = "its contours are too many to tell whether any of them overlap"
    assert [w.detail for w in placed.warnings] == [f"ROI number 7: {too_many}."] * told
    assert placed.not_scored == ({BRAIN: too_many} if told else {})


def test_the_budget_is_one_for_all_rois_of_a_file(header: SeriesHeader, tmp_path: Path) -> None:
    dataset = foreign(header, contour(square_mm(header, 3, 0.5, 0.5, 4)))
    dataset.StructureSetROISequence.append(roi(8, "Eye_L", header.frame_of_reference_uid))
    dataset.ROIContourSequence.append(drawn(8, [contour(square_mm(header, 3, 0.5, 0.5, 4))]))
    found = read_structure_set(save(dataset, tmp_path / "foreign.dcm"))
    placed = rois_to_masks(found, header, {BRAIN: 7, OARS[1]: 8}, Budget(crossings=15))
    assert list(placed.not_scored) == [OARS[1]]


def _spiral(grid: Grid, turns: int, points: int) -> Points:
    """A spiral of so many turns on slice 3: it crosses itself where it closes, and each row many times."""
    angle = np.linspace(0, 2 * np.pi * turns, points)
    radius = np.linspace(2, 22, points)
    yx = np.stack([27 + radius * np.sin(angle), 26 + radius * np.cos(angle)], axis=1)
    return np.round(grid.to_patient(np.full(points, 3), yx), 3)


HOSTILE: Final = {
    "squares over one another": lambda header: [square_mm(header, 3, 5 + i % 97 / 10, 5 + i % 89 / 10, 20) for i in range(9_000)],
    "nearly the same square": lambda header: [square_mm(header, 3, 2 + i * 1e-4, 2, 45) for i in range(2_000)],
    "small squares side by side": lambda header: [
        square_mm(header, 3, i // 100 / 2 % 50, i % 100 / 2, 0.2) for i in range(9_000)
    ],
    "spirals over one another": lambda header: [_spiral(header.grid, 50 + i, 2_000) for i in range(90)],
}


@pytest.mark.slow
@pytest.mark.parametrize("shape", HOSTILE)
def test_no_shape_of_contours_takes_seconds(shape: str, header: SeriesHeader) -> None:
    """CPU time; they take up to 1.5 s, and took up to 40 s when each contour was compared with every other one."""
    uid = header.frame_of_reference_uid
    rois = (ROI(7, "Brain", (), tuple(HOSTILE[shape](header)), (), uid),)
    begun = time.process_time()
    rois_to_masks(StructureSet("1.2.3", "", uid, rois, frozenset({uid})), header, {BRAIN: 7})
    assert time.process_time() - begun < 5


# ── real files ────────────────────────────────────────────────────────────────────────────────────────────────────────


def shoelace_mm2(points: Points) -> float:
    x, y, _ = points.T
    return abs(float(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1)))) / 2


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("phantom_mim_rtutils", "rt.dcm"),
        ("phantom_mim_rtutils", "invalid_reference_rt.dcm"),
        ("neck_aria_visiblehuman", "RS_Body_SpinalCord.dcm"),
    ],
)
def test_real_structure_sets_lie_on_their_series(folder: str, name: str, shared: Path) -> None:
    files = sorted((shared / "data/dicom" / folder).glob("*.dcm"))
    header = check_headers([file for file in files if file.name not in ("rt.dcm", "invalid_reference_rt.dcm")])
    found = read_structure_set(shared / "data/dicom" / folder / name)
    masks, warnings, *_ = rois_to_masks(found, header, {OARS[i]: roi.number for i, roi in enumerate(found.rois)})
    assert warnings == ()
    area = header.grid.row_spacing_mm * header.grid.column_spacing_mm
    for i, real in enumerate(found.rois):
        drawn_mm2 = sum(shoelace_mm2(points) for points in real.contours)
        assert masks.mask(OARS[i]).sum() * area == pytest.approx(drawn_mm2, rel=0.03)

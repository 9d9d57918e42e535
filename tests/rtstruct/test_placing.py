"""Foreign structure sets on a grid: where their contours come to lie, and what is said of those that cannot be used."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence

from oarlock.arrays import Mask
from oarlock.ct.series import SeriesHeader, check_headers
from oarlock.errors import FrameOfReferenceMismatch
from oarlock.organs.catalogue import BY_NAME, OARS
from oarlock.rtstruct import placing
from oarlock.rtstruct.placing import rois_to_masks
from oarlock.rtstruct.reader import read_structure_set
from oarlock.rtstruct.writer import write_rtstruct
from tests.fixtures.foreign import contour, drawn, foreign, roi, save, square_mm
from tests.fixtures.organs import AUTHORSHIP, Series

BRAIN = BY_NAME["Brain"]
Points = npt.NDArray[np.float64]


def test_what_was_written_is_read_back_exactly(series: Series, tmp_path: Path) -> None:
    written = write_rtstruct(tmp_path / "rtstruct.dcm", series.masks, series.header, AUTHORSHIP)
    found = read_structure_set(tmp_path / "rtstruct.dcm")
    assert (found.sop_instance_uid, found.label) == (written.sop_instance_uid, written.label)
    assert found.referenced_instances == {instance.sop_instance_uid for instance in series.header.instances}
    masks, warnings = rois_to_masks(found, series.header, {BY_NAME[roi.name]: roi.number for roi in found.rois})
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


@pytest.mark.parametrize("kind", ["CLOSEDPLANAR_XOR", "CLOSED_PLANAR", ""])
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
    told = "ROI number 7: on 1 slice(s) its contours overlap in part; what two of them share counts as outside (XOR)."
    assert (told in warnings) == overlap


def test_what_reaches_over_the_edge_is_cut_and_told(header: SeriesHeader, brain: Callable[..., tuple[Mask, list[str]]]) -> None:
    mask, warnings = brain(contour(square_mm(header, 3, -10.5, -10.5, 20)))
    assert mask.sum() == mask[3, :10, :10].sum() == 100
    assert warnings == ["ROI number 7: 1 contour(s) reach over the edge of the images and are cut there."]


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


def test_contours_on_every_other_slice_leave_gaps_that_are_told(
    header: SeriesHeader, brain: Callable[..., tuple[Mask, list[str]]]
) -> None:
    mask, warnings = brain(*(contour(square_mm(header, z, 0.5, 0.5, 4)) for z in (1, 3, 5)))
    assert np.flatnonzero(mask.any(axis=(1, 2))).tolist() == [1, 3, 5]
    assert warnings == ["ROI number 7: 2 slice(s) between its contours have none and are left empty."]


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
    masks, warnings = rois_to_masks(read_structure_set(save(dataset, tmp_path / "foreign.dcm")), series.header, {BRAIN: 7})
    assert masks.mask(BRAIN).sum() == 16
    assert [w.code for w in warnings] == ["structure_set.other_patient"] * warned
    assert "Canary" not in str(warnings)


def test_dead_image_references_do_not_matter_where_the_frame_of_reference_agrees(
    brain: Callable[..., tuple[Mask, list[str]]], header: SeriesHeader
) -> None:
    image = Dataset()
    image.ReferencedSOPInstanceUID = "1.2.3.4"
    item = contour(square_mm(header, 3, 0.5, 0.5, 4), ContourImageSequence=DicomSequence([image]))
    mask, warnings = brain(item)
    assert (mask.sum(), warnings) == (16, [])


def test_one_roi_in_another_frame_of_reference_is_left_out_alone(header: SeriesHeader, tmp_path: Path) -> None:
    dataset = foreign(header, contour(square_mm(header, 3, 0.5, 0.5, 4)))
    dataset.StructureSetROISequence.append(roi(8, "Parotid", "1.2.3"))
    dataset.ROIContourSequence.append(drawn(8, [contour(square_mm(header, 3, 0.5, 0.5, 4))]))
    found = read_structure_set(save(dataset, tmp_path / "foreign.dcm"))
    masks, warnings = rois_to_masks(found, header, {BRAIN: 7, OARS[1]: 8})
    assert (masks.mask(BRAIN).sum(), masks.mask(OARS[1]).sum()) == (16, 0)
    assert [w.detail for w in warnings] == ["ROI number 8: it lies in another frame of reference and is left out."]


# ── limits ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("limit", "most"), [("MAX_CROSSINGS", 7), ("MAX_CONTOURS", 0)])
def test_contours_that_would_take_too_long_are_left_out_and_told(
    limit: str, most: int, header: SeriesHeader, brain: Callable[..., tuple[Mask, list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(placing, limit, most)
    mask, warnings = brain(contour(square_mm(header, 3, 0.5, 0.5, 4)))  # two edges cross four rows each
    assert mask.sum() == 0
    assert warnings == ["ROI number 7: its contours are too many or too long to be used."]


def test_contours_too_many_to_be_compared_are_used_and_told(
    header: SeriesHeader, brain: Callable[..., tuple[Mask, list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(placing, "MAX_COMPARED", 1)
    mask, warnings = brain(contour(square_mm(header, 3, 0.5, 0.5, 4)), contour(square_mm(header, 3, 0.5, 9.5, 4)))
    assert mask.sum() == 32
    assert warnings == ["ROI number 7: its contours are too many to tell whether any of them overlap in part."]


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
    masks, warnings = rois_to_masks(found, header, {OARS[i]: roi.number for i, roi in enumerate(found.rois)})
    assert warnings == ()
    area = header.grid.row_spacing_mm * header.grid.column_spacing_mm
    for i, real in enumerate(found.rois):
        drawn_mm2 = sum(shoelace_mm2(points) for points in real.contours)
        assert masks.mask(OARS[i]).sum() * area == pytest.approx(drawn_mm2, rel=0.03)

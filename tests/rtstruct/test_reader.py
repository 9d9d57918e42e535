"""Foreign RTSTRUCTs: every dialect is read, and what cannot be used is said."""

import struct
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ExplicitVRLittleEndian

from oarlock.arrays import Mask
from oarlock.ct.series import SeriesHeader, check_headers
from oarlock.dicom import sequences
from oarlock.errors import FrameOfReferenceMismatch, StructureSetUnreadable
from oarlock.facts import Notice
from oarlock.organs.catalogue import BY_NAME, OARS
from oarlock.rtstruct import reader as structure_set
from oarlock.rtstruct.reader import read_structure_set, to_masks
from oarlock.rtstruct.writer import write_rtstruct
from tests.fixtures.organs import AUTHORSHIP, Series, write_series

BRAIN = BY_NAME["Brain"]
Points = npt.NDArray[np.float64]


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> Series:
    return write_series(tmp_path_factory.mktemp("series"))


@pytest.fixture
def header(series: Series) -> SeriesHeader:
    return series.header


def square_mm(header: SeriesHeader, z: float, y: float, x: float, size: float) -> Points:
    """A square on the crooked grid, given in indices; z may lie between slices."""
    spacing = np.array([0.9, 1.1, 2.5])
    corners = np.array([(x, y, z), (x + size, y, z), (x + size, y + size, z), (x, y + size, z)])
    return np.asarray(header.grid.origins_mm[0] + corners * spacing)


def contour(points: Points, kind: str = "CLOSED_PLANAR", **values: Any) -> Dataset:
    item = Dataset()
    item.ContourGeometricType = kind
    item.NumberOfContourPoints = len(points)
    item.ContourData = [f"{value:.4f}" for value in np.asarray(points).reshape(-1)]
    for keyword, value in values.items():
        setattr(item, keyword, value)
    return item


def roi(number: int, name: str, frame: str) -> Dataset:
    item = Dataset()
    item.ROINumber, item.ROIName, item.ReferencedFrameOfReferenceUID = number, name, frame
    return item


def drawn(number: int, contours: Sequence[Dataset]) -> Dataset:
    item = Dataset()
    item.ReferencedROINumber = number
    if contours:
        item.ContourSequence = DicomSequence(contours)
    return item


def foreign(header: SeriesHeader, *contours: Dataset, frame: str | None = None) -> Dataset:
    """A structure set as another system would write it, with as little as it may hold: one ROI of these contours."""
    dataset = Dataset()
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.481.3"
    dataset.SOPInstanceUID = "2.25.1"
    dataset.Modality = "RTSTRUCT"
    dataset.StructureSetLabel = "APPROVED"
    dataset.StructureSetROISequence = DicomSequence([roi(7, "Brain", frame or header.frame_of_reference_uid)])
    dataset.ROIContourSequence = DicomSequence([drawn(7, contours)])
    return dataset


def save(dataset: Dataset, path: Path, syntax: str = ExplicitVRLittleEndian) -> Path:
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.UID(syntax)
    dataset.save_as(path, enforce_file_format=True)
    return path


@pytest.fixture
def brain(series: Series, tmp_path: Path) -> Callable[..., tuple[Mask, list[str]]]:
    """Lays the contours on the series: the mask, and the sentences of the warnings."""

    def lay(*contours: Dataset, **options: Any) -> tuple[Mask, list[str]]:
        path = save(foreign(series.header, *contours, **options), tmp_path / "foreign.dcm")
        masks, warnings = to_masks(read_structure_set(path), series.header, {BRAIN: 7})
        return masks.mask(BRAIN), [warning.detail for warning in warnings]

    return lay


# ── our own file ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_was_written_is_read_back_exactly(series: Series, tmp_path: Path) -> None:
    written = write_rtstruct(tmp_path / "rtstruct.dcm", series.masks, series.header, AUTHORSHIP)
    found = read_structure_set(tmp_path / "rtstruct.dcm")
    assert (found.sop_instance_uid, found.label) == (written.sop_instance_uid, written.label)
    assert found.referenced_instances == {instance.sop_instance_uid for instance in series.header.instances}
    masks, warnings = to_masks(found, series.header, {BY_NAME[roi.name]: roi.number for roi in found.rois})
    assert np.array_equal(masks.bits, series.masks.bits)
    assert [(w.code, w.detail) for w in warnings] == [
        ("structure_set.roi_partly_used", "ROI number 2: 1 slice(s) between its contours have none and are left empty."),
        ("structure_set.roi_partly_used", "ROI number 5: it has no contours."),
    ]


def test_codes_are_read_with_their_laterality(series: Series, tmp_path: Path) -> None:
    write_rtstruct(tmp_path / "rtstruct.dcm", series.masks, series.header, AUTHORSHIP)
    found = {roi.name: roi.codes for roi in read_structure_set(tmp_path / "rtstruct.dcm").rois}
    assert found["Parotid_R"] == (("45289007", "SCT", "Parotid gland"), ("24028007", "SCT", "Right"))
    assert found["Brain"] == (("12738006", "SCT", "Brain"),)


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


# ── what cannot be used ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        (contour(np.zeros((1, 3)), "POINT"), "left out: a point or an open line, which has no area"),
        (contour(np.eye(3), "OPEN_PLANAR"), "left out: a point or an open line, which has no area"),
        (contour(np.eye(3)[:2]), "left out: fewer than three points"),
        (contour(np.ones((5, 3))), "left out: fewer than three points"),
        (contour(np.eye(3), ContourData=["1", "2", "3", "4"]), "left out: its points are not triples of finite numbers"),
        (contour(np.eye(3), ContourData=["1"] * 8 + ["1e300"]), "left out: its points are not triples of finite numbers"),
    ],
)
def test_a_contour_without_an_area_is_a_finding(item: Dataset, reason: str, brain: Callable[..., tuple[Mask, list[str]]]) -> None:
    mask, warnings = brain(item)
    assert mask.sum() == 0
    assert warnings == [f"ROI number 7: 1 of 1 contour(s): {reason}."]


def test_a_misstated_number_of_points_is_told_and_the_contour_used(
    header: SeriesHeader, brain: Callable[..., tuple[Mask, list[str]]]
) -> None:
    mask, warnings = brain(contour(square_mm(header, 3, 0.5, 0.5, 4), NumberOfContourPoints=9))
    assert (mask.sum(), warnings) == (16, ["ROI number 7: 1 of 1 contour(s): its number of points is misstated."])


def test_rois_without_a_number_with_the_same_number_and_unlisted_ones_are_told(header: SeriesHeader, tmp_path: Path) -> None:
    dataset = foreign(header)
    frame = header.frame_of_reference_uid
    dataset.StructureSetROISequence.extend([roi(8, "A", frame), roi(8, "B", frame), Dataset()])
    dataset.StructureSetROISequence.extend([roi(0, "C", frame), roi(0, "D", frame)])
    dataset.ROIContourSequence.append(drawn(99, [contour(square_mm(header, 3, 0, 0, 4))]))
    found = read_structure_set(save(dataset, tmp_path / "foreign.dcm"))
    assert [roi.number for roi in found.rois] == [7]
    assert set(found.findings) == {
        "2 ROIs share the number 8 and are left out",
        "2 ROIs share the number 0 and are left out",
        "1 ROI(s) without a number are left out",
        "the contours of 1 ROI(s) that are not listed are left out",
    }
    _, warnings = to_masks(found, header, {BRAIN: 7})
    assert Notice("structure_set.partly_used", "In the RTSTRUCT, 1 ROI(s) without a number are left out.") in warnings


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
    masks, warnings = to_masks(read_structure_set(save(dataset, tmp_path / "foreign.dcm")), series.header, {BRAIN: 7})
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
    masks, warnings = to_masks(found, header, {BRAIN: 7, OARS[1]: 8})
    assert (masks.mask(BRAIN).sum(), masks.mask(OARS[1]).sum()) == (16, 0)
    assert [w.detail for w in warnings] == ["ROI number 8: it lies in another frame of reference and is left out."]


# ── encodings ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "syntax", ["1.2.840.10008.1.2", ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian]
)
@pytest.mark.parametrize("undefined_length", [False, True])
def test_every_encoding_reads_the_same(syntax: str, undefined_length: bool, header: SeriesHeader, tmp_path: Path) -> None:
    dataset = foreign(header, contour(square_mm(header, 3, 0.5, 0.5, 4)))
    for keyword in ("StructureSetROISequence", "ROIContourSequence"):
        dataset[keyword].is_undefined_length = undefined_length
        for item in dataset[keyword].value:
            item.is_undefined_length_sequence_item = undefined_length
    found = read_structure_set(save(dataset, tmp_path / "foreign.dcm", syntax))
    ((points,),) = [roi.contours for roi in found.rois]
    assert points == pytest.approx(square_mm(header, 3, 0.5, 0.5, 4), abs=1e-4)


def test_names_are_read_in_the_character_set_of_the_file(header: SeriesHeader, tmp_path: Path) -> None:
    dataset = foreign(header)
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.StructureSetROISequence[0].ROIName = "Rückenmark"
    assert read_structure_set(save(dataset, tmp_path / "foreign.dcm")).rois[0].name == "Rückenmark"


def test_an_unknown_character_set_costs_letters_and_not_the_file(header: SeriesHeader, tmp_path: Path) -> None:
    path = save(foreign(header), tmp_path / "foreign.dcm")
    path.write_bytes(path.read_bytes().replace(b"\x08\x00\x16\x00UI", b"\x08\x00\x05\x00CS\x06\x00KLINGO\x08\x00\x16\x00UI", 1))
    assert read_structure_set(path).rois[0].name == "Brain"


# ── hostile files ─────────────────────────────────────────────────────────────────────────────────────────────────────


def nested(depth: int) -> bytes:
    """Sequences in sequences, in implicit VR: (3006,0039) holding one item holding (3006,0039) …"""
    opening = struct.pack("<HHI", 0x3006, 0x0039, 0xFFFFFFFF) + struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
    return opening * depth


def bare(content: bytes, tmp_path: Path) -> Path:
    """An implicit data set without meta information that says it is a structure set, and goes on with ``content``."""
    uid = b"1.2.840.10008.5.1.4.1.1.481.3\0"
    path = tmp_path / "hostile.dcm"
    path.write_bytes(struct.pack("<HHI", 0x0008, 0x0016, len(uid)) + uid + content)
    return path


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (nested(100_000), "nested deeper"),
        (struct.pack("<HHI", 0x3006, 0x0039, 8_000_000) + struct.pack("<HHI", 0xFFFE, 0xE000, 0) * 1_000_000, "more than"),
        (struct.pack("<HHI", 0x3006, 0x0039, 500), "cut off"),
        (struct.pack("<HHI", 0x3006, 0x0039, 8) + struct.pack("<HHI", 0x3006, 0xE000, 0), "something else than items"),
        (struct.pack("<HHI", 0x3006, 0x0026, 0x7FFFFFFF), "cut off"),
        (b"\x06\x30", "cut off"),
    ],
)
def test_a_hostile_file_is_refused_with_its_reason(content: bytes, reason: str, tmp_path: Path) -> None:
    with pytest.raises(StructureSetUnreadable, match=reason):
        read_structure_set(bare(content, tmp_path))


def test_too_many_points_are_refused(header: SeriesHeader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(structure_set, "MAX_POINTS", 100)
    squares = [contour(square_mm(header, 3, 0.5, 0.5, 4)) for _ in range(26)]
    with pytest.raises(StructureSetUnreadable, match="more than 100 points"):
        read_structure_set(save(foreign(header, *squares), tmp_path / "foreign.dcm"))


@pytest.mark.parametrize(("limit", "most"), [("MAX_CROSSINGS", 7), ("MAX_CONTOURS", 0)])
def test_contours_that_would_take_too_long_are_left_out_and_told(
    limit: str, most: int, header: SeriesHeader, brain: Callable[..., tuple[Mask, list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(structure_set, limit, most)
    mask, warnings = brain(contour(square_mm(header, 3, 0.5, 0.5, 4)))  # two edges cross four rows each
    assert mask.sum() == 0
    assert warnings == ["ROI number 7: its contours are too many or too long to be used."]


def test_contours_too_many_to_be_compared_are_used_and_told(
    header: SeriesHeader, brain: Callable[..., tuple[Mask, list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(structure_set, "MAX_COMPARED", 1)
    mask, warnings = brain(contour(square_mm(header, 3, 0.5, 0.5, 4)), contour(square_mm(header, 3, 0.5, 9.5, 4)))
    assert mask.sum() == 32
    assert warnings == ["ROI number 7: its contours are too many to tell whether any of them overlap in part."]


def test_a_deflated_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, header: SeriesHeader) -> None:
    monkeypatch.setattr(sequences, "MAX_FILE_BYTES", 2**20)
    path = save(foreign(header), tmp_path / "foreign.dcm", DeflatedExplicitVRLittleEndian)
    content = path.read_bytes()
    start = 144 + struct.unpack_from("<I", content, 140)[0]
    deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    bomb = zlib.decompress(content[start:], -zlib.MAX_WBITS) + b"\x06\x30\xff\xff\x4f\x42\0\0" + bytes(2**24)
    path.write_bytes(content[:start] + deflate.compress(bomb) + deflate.flush())
    with pytest.raises(StructureSetUnreadable):
        read_structure_set(path)


def test_no_finding_or_warning_repeats_a_name(header: SeriesHeader, tmp_path: Path) -> None:
    dataset = foreign(header, contour(np.zeros((1, 3)), "POINT"))
    dataset.StructureSetROISequence[0].ROIName = "Hans Müller 1941"
    dataset.SpecificCharacterSet = "ISO_IR 192"
    found = read_structure_set(save(dataset, tmp_path / "foreign.dcm"))
    _, warnings = to_masks(found, header, {BRAIN: 7})
    assert "Müller" not in str([found.findings, [roi.findings for roi in found.rois], warnings])


# ── real files ────────────────────────────────────────────────────────────────────────────────────────────────────────

REAL = {
    "aria15_lung1-001.dcm": {2: 21, 6: 84, 7: 139, 8: 114},
    "dicompyler_rtss.dcm": {1: 141, 2: 0, 3: 2, 4: 48, 5: 33, 6: 165, 7: 4, 8: 6, 9: 18, 10: 24},
    "mim69_pancreas-ct-cb-001.dcm": {1: 98, 2: 66, 3: 58, 4: 32, 5: 42},
    "monaco_box_overlap.dcm": {1: 9, 2: 15},
    "monaco_example_structures.dcm": {18: 70, 19: 3, 20: 3, 21: 10, 22: 10},
    "pydicom_rtstruct_nometa.dcm": {1: 3, 2: 0, 3: 0},
    "raystation_template.dcm": {29: 3},
    "xio_lung1-001.dcm": {1: 134, 2: 21, 3: 31, 4: 25, 5: 170, 6: 84, 7: 117, 8: 98} | dict.fromkeys(range(9, 18), 0),
}
"""Closed contours of each ROI number, counted with pydicom."""


@pytest.mark.parametrize("name", REAL)
def test_files_of_real_planning_systems_are_read(name: str, unpacked: Callable[[str], Path]) -> None:
    path = unpacked("data/dicom/rtstruct_without_ct/files.tar.xz") / name
    found = read_structure_set(path)
    assert {roi.number: len(roi.contours) for roi in found.rois} == REAL[name]
    dataset = pydicom.dcmread(path, force=True)
    names = {item.ROINumber: item.ROIName for item in dataset.StructureSetROISequence}
    assert {roi.number: roi.name for roi in found.rois} == names
    for item in dataset.ROIContourSequence:
        (ours,) = [roi for roi in found.rois if roi.number == item.ReferencedROINumber]
        closed = [c for c in item.get("ContourSequence", []) if c.ContourGeometricType == "CLOSED_PLANAR"]
        for points, wanted in zip(ours.contours, closed, strict=True):
            theirs = np.array(wanted.ContourData, dtype=float).reshape(-1, 3)
            assert set(map(tuple, points)) == set(map(tuple, theirs))
        assert bool(ours.findings) == (not closed)


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
    masks, warnings = to_masks(found, header, {OARS[i]: roi.number for i, roi in enumerate(found.rois)})
    assert warnings == ()
    area = header.grid.row_spacing_mm * header.grid.column_spacing_mm
    for i, roi in enumerate(found.rois):
        drawn_mm2 = sum(shoelace_mm2(points) for points in roi.contours)
        assert masks.mask(OARS[i]).sum() * area == pytest.approx(drawn_mm2, rel=0.03)


def test_every_odd_file_is_refused_in_its_own_words(shared: Path) -> None:
    for path in sorted((shared / "data/dicom/odd").glob("*/*")):
        with pytest.raises(StructureSetUnreadable):
            read_structure_set(path)

"""Foreign RTSTRUCTs: every dialect is read, and what cannot be used is said."""

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pydicom
import pytest
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ExplicitVRLittleEndian

from oarlock.arrays import Mask
from oarlock.ct.series import SeriesHeader
from oarlock.dicom import sequences
from oarlock.errors import StructureSetUnreadable
from oarlock.facts import Notice
from oarlock.organs.catalogue import BY_NAME
from oarlock.rtstruct import reader as structure_set
from oarlock.rtstruct.placing import rois_to_masks
from oarlock.rtstruct.reader import read_structure_set
from oarlock.rtstruct.writer import write_rtstruct
from tests.fixtures.foreign import contour, drawn, foreign, roi, save, square_mm
from tests.fixtures.organs import AUTHORSHIP, Series

BRAIN = BY_NAME["Brain"]
Points = npt.NDArray[np.float64]


def test_codes_are_read_with_their_laterality(series: Series, tmp_path: Path) -> None:
    write_rtstruct(tmp_path / "rtstruct.dcm", series.masks, series.header, AUTHORSHIP)
    found = {roi.name: roi.codes for roi in read_structure_set(tmp_path / "rtstruct.dcm").rois}
    assert found["Parotid_R"] == (("45289007", "SCT", "Parotid gland"), ("24028007", "SCT", "Right"))
    assert found["Brain"] == (("12738006", "SCT", "Brain"),)


# ── what cannot be used ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        (contour(np.zeros((1, 3)), "POINT"), "left out: a point, which has no area"),
        (contour(np.eye(3), "OPEN_PLANAR"), "left out: an open line"),
        (contour(np.eye(3), "OPEN_NONPLANAR"), "left out: an open line"),
        (contour(np.eye(3), "CLOSED_NONPLANAR"), "left out: its geometric type is not known"),
        (contour(np.eye(3)[:2]), "left out: fewer than three points"),
        (contour(np.ones((5, 3))), "left out: fewer than three points"),
        (contour(np.eye(3), ContourData=["1", "2", "3", "4"]), "left out: its points are not triples of finite numbers"),
        (contour(np.eye(3), ContourData=["1"] * 8 + ["1000001"]), "left out: its points are not triples of finite numbers"),
        (contour(np.eye(3), ContourData=["1"] * 8 + [""]), "left out: its points are not triples of finite numbers"),
        (contour(np.eye(3), ContourData=["1"] * 8 + ["1e999"]), "left out: its points are not triples of finite numbers"),
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


@pytest.mark.parametrize(
    ("written", "read"),
    [
        *(("7.0", 7), ("7e0", 7), ("+7", 7), (" 007 ", 7), ("7.5", None), ("1_0", None), ("", None)),
        *(("4294967295", 2**32 - 1), ("4294967296", None), ("7".zfill(32), 7), ("7".zfill(33), None)),
    ],
)
def test_a_number_of_an_roi_is_read_if_it_is_a_whole_one(
    written: str, read: int | None, header: SeriesHeader, tmp_path: Path
) -> None:
    dataset = foreign(header, contour(square_mm(header, 3, 0.5, 0.5, 4)))
    for item, tag in ((dataset.StructureSetROISequence[0], 0x30060022), (dataset.ROIContourSequence[0], 0x30060084)):
        item[tag] = DataElement(tag, "LO", written)
    found = read_structure_set(save(dataset, tmp_path / "foreign.dcm"))
    assert [(one.number, len(one.contours)) for one in found.rois] == ([] if read is None else [(read, 1)])


@pytest.mark.parametrize(
    ("item", "lost", "finding"),
    [
        (contour(np.ones((1, 3)), "POINT"), 0, "left out: a point, which has no area"),
        (contour(np.ones((3, 3)), "POINT", ContourData=["1"] * 8), 0, "left out: a point, which has no area"),
        (contour(np.ones((3, 3)), "POINT"), 1, "left out: it is called a point, and has several"),
        (contour(np.ones((0, 3))), 0, "left out: fewer than three points"),
        (contour(np.eye(3)[:2]), 0, "left out: fewer than three points"),
        (contour(np.eye(3) - [0, 0, 1_000_001]), 1, "left out: its points are not triples of finite numbers"),
        (contour(np.eye(3), "OPEN_PLANAR"), 1, "left out: an open line"),
    ],
    ids=["a point", "eight numbers", "three points in one", "nothing", "two points", "too far below", "a line"],
)
def test_what_may_enclose_tissue_and_is_left_out_is_lost(
    item: Dataset, lost: int, finding: str, header: SeriesHeader, tmp_path: Path
) -> None:
    (roi,) = read_structure_set(save(foreign(header, item), tmp_path / "foreign.dcm")).rois
    assert (roi.lost, roi.contours, roi.findings) == (lost, (), (f"1 of 1 contour(s): {finding}",))


@pytest.mark.parametrize("far_mm", [1e6, -1e6])
def test_the_largest_coordinate_is_a_kilometre(far_mm: float, header: SeriesHeader, tmp_path: Path) -> None:
    points = np.array([[0, 0, 0], [1, 0, 0], [0, far_mm, 0]])
    (roi,) = read_structure_set(save(foreign(header, contour(points)), tmp_path / "foreign.dcm")).rois
    assert (len(roi.contours), roi.lost) == (1, 0)


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
    _, warnings, *_ = rois_to_masks(found, header, {BRAIN: 7})
    assert Notice("structure_set.partly_used", "In the RTSTRUCT, 1 ROI(s) without a number are left out.") in warnings


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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (nested(100_000), "nested deeper"),
        (struct.pack("<HHI", 0x3006, 0x0039, 80_000) + struct.pack("<HHI", 0xFFFE, 0xE000, 0) * 10_000, "more than 10,000"),
        (struct.pack("<HHI", 0x3006, 0x0039, 500), "cut off"),
        (struct.pack("<HHI", 0x3006, 0x0039, 8) + struct.pack("<HHI", 0x3006, 0xE000, 0), "something else than items"),
        (struct.pack("<HHI", 0x3006, 0x0026, 0x7FFFFFFF), "cut off"),
        (b"\x06\x30", "cut off"),
    ],
)
def test_a_hostile_file_is_refused_with_its_reason(
    content: bytes, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sequences, "MAX_DATASET_ELEMENTS", 10_000)
    with pytest.raises(StructureSetUnreadable, match=reason):
        read_structure_set(bare(content, tmp_path))


def test_too_many_points_are_refused(header: SeriesHeader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    squares = save(foreign(header, *[contour(square_mm(header, 3, 0.5, 0.5, 4)) for _ in range(26)]), tmp_path / "foreign.dcm")
    monkeypatch.setattr(structure_set, "MAX_POINTS", 4 * 26)
    assert len(read_structure_set(squares).rois[0].contours) == 26
    monkeypatch.setattr(structure_set, "MAX_POINTS", 4 * 26 - 1)
    with pytest.raises(StructureSetUnreadable, match="more than 103 points"):
        read_structure_set(squares)


@pytest.mark.parametrize(("limit", "reason"), [("MAX_CONTOURS", "more than 2 contours"), ("MAX_ROIS", "more than 0 ROIs")])
def test_too_many_contours_or_rois_are_refused_before_one_is_read(
    limit: str, reason: str, header: SeriesHeader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    squares = [contour(square_mm(header, 3, 0.5, 0.5, 4)) for _ in range(3)]
    path = save(foreign(header, *squares), tmp_path / "foreign.dcm")
    monkeypatch.setattr(structure_set, limit, 3 if limit == "MAX_CONTOURS" else 1)
    assert len(read_structure_set(path).rois[0].contours) == 3
    monkeypatch.setattr(structure_set, limit, 2 if limit == "MAX_CONTOURS" else 0)
    with pytest.raises(StructureSetUnreadable, match=reason):
        read_structure_set(path)


def test_contours_that_may_enclose_tissue_and_are_left_out_are_counted(header: SeriesHeader, tmp_path: Path) -> None:
    """Two open lines may; a point does not."""
    items = [contour(np.eye(3), "OPEN_PLANAR"), contour(np.zeros((1, 3)), "POINT"), contour(np.eye(3), "OPEN_NONPLANAR")]
    (roi,) = read_structure_set(save(foreign(header, *items), tmp_path / "foreign.dcm")).rois
    assert (roi.lost, len(roi.contours)) == (2, 0)


def with_uid(keyword: str, uid: str, **values: list[Dataset]) -> Dataset:
    item = Dataset()
    setattr(item, keyword, uid)
    for name, items in values.items():
        setattr(item, name, items)
    return item


def test_the_frame_of_reference_is_the_one_that_the_file_names_first(header: SeriesHeader, tmp_path: Path) -> None:
    dataset = foreign(header, frame="2.25.12")
    dataset.FrameOfReferenceUID = "2.25.10"
    dataset.ReferencedFrameOfReferenceSequence = [with_uid("FrameOfReferenceUID", "2.25.11")]
    found = read_structure_set(save(dataset, tmp_path / "foreign.dcm"))
    assert (found.frame_of_reference_uid, found.frames_of_reference) == ("2.25.10", {"2.25.10", "2.25.11", "2.25.12"})


def test_all_images_that_are_listed_of_a_series_are_read_and_those_of_contours_one_by_one(
    header: SeriesHeader, tmp_path: Path
) -> None:
    """A series may be listed twice; a contour that names two images names none of them alone."""
    named = [[with_uid("ReferencedSOPInstanceUID", uid) for uid in uids] for uids in (["1.1"], ["1.2", "1.3"], ["1.4"], ["1.5"])]
    square = square_mm(header, 3, 0.5, 0.5, 4)
    dataset = foreign(header, *(contour(square, ContourImageSequence=images) for images in named[:2]))
    series = [with_uid("SeriesInstanceUID", "1.9", ContourImageSequence=images) for images in named[1:3]]
    series.append(with_uid("SeriesInstanceUID", "", ContourImageSequence=named[3]))
    study = with_uid("ReferencedSOPInstanceUID", "1.8", RTReferencedSeriesSequence=series)
    dataset.ReferencedFrameOfReferenceSequence = [with_uid("FrameOfReferenceUID", "1.7", RTReferencedStudySequence=[study])]
    found = read_structure_set(save(dataset, tmp_path / "foreign.dcm"))
    assert found.listed == {"1.9": {"1.2", "1.3", "1.4"}}
    assert found.referenced_instances == {"1.1", "1.2", "1.3", "1.4", "1.5"}
    assert found.rois[0].images == ("1.1", "")


def test_nothing_is_said_of_a_good_contour_that_states_no_number_of_points(header: SeriesHeader, tmp_path: Path) -> None:
    item = contour(square_mm(header, 3, 0.5, 0.5, 4))
    del item.NumberOfContourPoints
    (roi,) = read_structure_set(save(foreign(header, item), tmp_path / "foreign.dcm")).rois
    assert (len(roi.contours), roi.findings) == (1, ())
    (empty,) = read_structure_set(save(foreign(header), tmp_path / "foreign.dcm")).rois
    assert empty.findings == ("it has no contours",)


def test_a_sop_class_is_enough_without_a_modality(header: SeriesHeader, tmp_path: Path) -> None:
    dataset = foreign(header)
    del dataset.Modality
    assert len(read_structure_set(save(dataset, tmp_path / "foreign.dcm")).rois) == 1


@pytest.mark.parametrize("modality", ["RTSTRUCT", "CT"])
def test_without_a_sop_class_the_modality_tells_an_rtstruct(modality: str, header: SeriesHeader, tmp_path: Path) -> None:
    dataset = foreign(header)
    dataset.Modality = modality
    save(dataset, tmp_path / "foreign.dcm")
    bare = pydicom.dcmread(tmp_path / "foreign.dcm")
    del bare.SOPClassUID, bare.file_meta.MediaStorageSOPClassUID
    bare.save_as(tmp_path / "foreign.dcm")
    if modality == "RTSTRUCT":
        assert len(read_structure_set(tmp_path / "foreign.dcm").rois) == 1
    else:
        with pytest.raises(StructureSetUnreadable, match="not an RT Structure Set"):
            read_structure_set(tmp_path / "foreign.dcm")


def deflated(path: Path, extra: bytes) -> Path:
    """A deflated file with more bytes behind its elements."""
    content = path.read_bytes()
    start = 144 + struct.unpack_from("<I", content, 140)[0]
    deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    inflated = zlib.decompress(content[start:], -zlib.MAX_WBITS)
    path.write_bytes(content[:start] + deflate.compress(inflated + extra) + deflate.flush())
    return path


@pytest.mark.parametrize(("zeros", "read"), [(900_000, True), (1_100_000, False)])
def test_a_deflated_file_may_not_be_fifty_times_its_size_beyond_a_mebibyte(
    zeros: int, read: bool, header: SeriesHeader, tmp_path: Path
) -> None:
    private = struct.pack("<HH2sHI", 0x4011, 0x1001, b"OB", 0, zeros)  # a thousand times smaller when it is deflated
    path = deflated(save(foreign(header), tmp_path / "foreign.dcm", DeflatedExplicitVRLittleEndian), private + bytes(zeros))
    if read:
        assert len(read_structure_set(path).rois) == 1
    else:
        with pytest.raises(StructureSetUnreadable, match="or 50 times its size"):
            read_structure_set(path)


def test_a_deflated_file_of_noise_may_be_large(header: SeriesHeader, tmp_path: Path) -> None:
    noise = np.random.default_rng(5).integers(0, 256, 2**21, dtype=np.uint8).tobytes()
    private = struct.pack("<HH2sHI", 0x4011, 0x1001, b"OB", 0, len(noise)) + noise
    path = deflated(save(foreign(header), tmp_path / "foreign.dcm", DeflatedExplicitVRLittleEndian), private)
    assert len(read_structure_set(path).rois) == 1


def test_no_finding_or_warning_repeats_a_name(header: SeriesHeader, tmp_path: Path) -> None:
    dataset = foreign(header, contour(np.zeros((1, 3)), "POINT"))
    dataset.StructureSetROISequence[0].ROIName = "Hans Müller 1941"
    dataset.SpecificCharacterSet = "ISO_IR 192"
    found = read_structure_set(save(dataset, tmp_path / "foreign.dcm"))
    _, warnings, *_ = rois_to_masks(found, header, {BRAIN: 7})
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


LARGE = ("dicompyler_rtss.dcm", "mim69_pancreas-ct-cb-001.dcm", "xio_lung1-001.dcm")


@pytest.mark.slow
@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.long("files")) if n in LARGE else n for n in REAL])
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


def test_every_odd_file_is_refused_in_its_own_words(shared: Path) -> None:
    for path in sorted((shared / "data/dicom/odd").glob("*/*")):
        with pytest.raises(StructureSetUnreadable):
            read_structure_set(path)

"""The check that every file passes before it is delivered: each rule is broken once, and found."""

import tracemalloc
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
import pytest
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from oarlock.ct.series import SeriesHeader
from oarlock.geometry import polygons
from oarlock.geometry.grid import Grid
from oarlock.geometry.masks import OARMasks
from oarlock.organs.catalogue import BY_NAME
from oarlock.rtstruct.profiles import GENERIC
from oarlock.rtstruct.validator import _DECIMALS, check_rtstruct
from oarlock.rtstruct.writer import write_rtstruct
from tests.fixtures.organs import AUTHORSHIP, Series, awkward_masks

Points = npt.NDArray[np.float64]


@pytest.fixture(scope="module")
def good(series: Series, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rtstruct") / "rtstruct.dcm"
    write_rtstruct(path, series.masks, series.header, AUTHORSHIP)
    return path


Findings = Callable[[Callable[[Dataset], Any]], list[str]]


@pytest.fixture
def findings(series: Series, good: Path, tmp_path: Path) -> Findings:
    """What is found when a good file has been changed."""

    def change(edit: Callable[[Dataset], Any]) -> list[str]:
        dataset = pydicom.dcmread(good)
        edit(dataset)
        dataset.save_as(tmp_path / "changed.dcm")
        return check_rtstruct(tmp_path / "changed.dcm", series.header)

    return change


def first_contour(dataset: Dataset) -> Dataset:
    contour: Dataset = dataset.ROIContourSequence[0].ContourSequence[0]
    return contour


def set_points(dataset: Dataset, points: Sequence[Sequence[float]] | Points) -> None:
    contour = first_contour(dataset)
    contour.ContourData = [f"{value:.3f}" for value in np.asarray(points).reshape(-1)]
    contour.NumberOfContourPoints = len(points)


def points_of(dataset: Dataset) -> Points:
    return np.array(first_contour(dataset).ContourData, dtype=float).reshape(-1, 3)


def test_a_good_file_has_no_findings(good: Path, series: Series) -> None:
    assert check_rtstruct(good, series.header, awkward_masks()) == []


def test_a_file_that_was_read_and_written_by_another_program_is_still_good(findings: Findings) -> None:
    assert findings(lambda _: None) == []


HEADER_RULES: list[tuple[str, Callable[[Dataset], Any]]] = [
    ("the SOP class or the modality", lambda d: setattr(d, "Modality", "CT")),
    ("the SOP Instance UID or the Series Instance UID is missing", lambda d: delattr(d, "SeriesInstanceUID")),
    ("the Study Instance UID is not that of the CT", lambda d: setattr(d, "StudyInstanceUID", "1.2.3")),
    ("the patient's name is not that of the CT", lambda d: setattr(d, "PatientName", "Phantom^Oarl?ck")),
    ("the patient's id is not that of the CT", lambda d: setattr(d, "PatientID", "PHANTOM2")),
    ("the Structure Set Label is empty or longer", lambda d: setattr(d, "StructureSetLabel", "")),
    ("the frame of reference is not that of the CT", lambda d: setattr(d, "FrameOfReferenceUID", "1.2.3")),
    (
        "the frame of reference is not that of the CT",
        lambda d: setattr(d.ReferencedFrameOfReferenceSequence[0], "FrameOfReferenceUID", "1.2.3"),
    ),
    ("two ROIs have the same number", lambda d: setattr(d.StructureSetROISequence[1], "ROINumber", 1)),
    ("two ROIs have the same name", lambda d: setattr(d.StructureSetROISequence[1], "ROIName", "Brain")),
    ("two ROIs have the same name, or one has none", lambda d: setattr(d.StructureSetROISequence[1], "ROIName", "")),
    (
        "ROI number 2 is not in the frame of reference",
        lambda d: setattr(d.StructureSetROISequence[1], "ReferencedFrameOfReferenceUID", "1.2.3"),
    ),
    ("exactly one entry for contours", lambda d: d.ROIContourSequence.pop()),
    ("exactly one entry for an observation", lambda d: d.RTROIObservationsSequence.append(d.RTROIObservationsSequence[0])),
]


@pytest.mark.parametrize(("finding", "edit"), HEADER_RULES)
def test_each_rule_of_the_header_is_held(finding: str, edit: Callable[[Dataset], Any], findings: Findings) -> None:
    (found,) = [text for text in findings(edit) if finding in text]
    assert found


def test_the_series_of_the_ct_is_not_that_of_the_structure_set(findings: Findings, series: Series) -> None:
    uid = series.header.series_instance_uid
    assert findings(lambda d: setattr(d, "SeriesInstanceUID", uid)) == ["the Series Instance UID is that of the CT series"]


FIRST_FRAME_IN_WORDS = DataElement(0x00081160, "LO", "one")


def listed(dataset: Dataset) -> Any:
    study = dataset.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence[0]
    return study.RTReferencedSeriesSequence[0].ContourImageSequence


@pytest.mark.parametrize(
    ("finding", "edit"),
    [
        ("1 of 9 images of the series are not referenced", lambda d: listed(d).pop()),
        ("1 image(s) are referenced more than once", lambda d: listed(d).append(listed(d)[0])),
        ("1 referenced image(s) do not belong to the series", lambda d: setattr(listed(d)[0], "ReferencedSOPInstanceUID", "1.2")),
        ("the frames that are referenced are not those of the series", lambda d: listed(d)[0].add(FIRST_FRAME_IN_WORDS)),
    ],
)
def test_exactly_the_images_of_the_series_are_listed(finding: str, edit: Callable[[Dataset], Any], findings: Findings) -> None:
    assert finding in findings(edit)


def lift(dataset: Dataset) -> None:
    set_points(dataset, points_of(dataset) + np.array([0, 0, 0.011]))


def swap(dataset: Dataset) -> None:
    points = points_of(dataset)
    half = len(points) // 2
    points[[0, half]] = points[[half, 0]]
    set_points(dataset, points)


def overlap(dataset: Dataset) -> None:
    """A second contour of the same slice, shifted by half of the first one's width."""
    contours = dataset.ROIContourSequence[0].ContourSequence
    other = Dataset()
    other.update(contours[0])
    shifted = points_of(dataset) + np.array([np.ptp(points_of(dataset)[:, 0]) / 2, 0, 0])
    other.ContourData = [f"{value:.3f}" for value in shifted.reshape(-1)]
    contours.append(other)


def name_a_foreign_image_too(dataset: Dataset) -> None:
    images = first_contour(dataset).ContourImageSequence
    foreign = deepcopy(images[0])
    foreign.ReferencedSOPInstanceUID = "1.2.3.4"
    images.append(foreign)


SHAPE_RULES: list[tuple[str, Callable[[Dataset], Any]]] = [
    ("it has fewer than three points", lambda d: set_points(d, points_of(d)[:2])),
    ("it lies more than 0.01 mm off the plane of its slice", lift),
    ("it crosses or touches itself or another contour of its slice", swap),
    ("it crosses or touches itself or another contour of its slice", overlap),
    ("it has no area", lambda d: set_points(d, np.linspace(points_of(d)[0], points_of(d)[1], 5))),
    ("it repeats a point", lambda d: set_points(d, np.concatenate([points_of(d), points_of(d)[:1]]))),
    ("it reaches more than half a voxel out of the image", lambda d: set_points(d, points_of(d) + 100 * np.eye(3)[0])),
    ("its number of points is misstated", lambda d: setattr(first_contour(d), "NumberOfContourPoints", 3)),
    ("its geometric type is not CLOSED_PLANAR", lambda d: setattr(first_contour(d), "ContourGeometricType", "OPEN_PLANAR")),
    ("it does not name exactly one image of the series", lambda d: delattr(first_contour(d), "ContourImageSequence")),
    ("it does not name exactly one image of the series", name_a_foreign_image_too),
]


@pytest.mark.parametrize(("rule", "edit"), SHAPE_RULES)
def test_each_rule_of_a_contour_is_held_and_names_it(rule: str, edit: Callable[[Dataset], Any], findings: Findings) -> None:
    found = findings(edit)
    assert len([text for text in found if rule in text]) == 1
    assert all(text.startswith("ROI number 1, contour 1") for text in found)


def moved(*offset_mm: float) -> Callable[[Dataset], Any]:
    return lambda dataset: set_points(dataset, points_of(dataset) + np.array(offset_mm))


def triangle(*corners_mm: tuple[float, float]) -> Callable[[Dataset], Any]:
    """In the plane of the first contour, seen from its first point."""
    return lambda dataset: set_points(dataset, points_of(dataset)[0] + np.array([(x, y, 0) for x, y in corners_mm]))


def reaching(columns: float) -> Callable[[Dataset], Any]:
    """A triangle whose leftmost corner lies so many columns from the centre of the first one."""

    def edit(dataset: Dataset) -> None:
        x0 = -31.2 + columns * 0.9  # origin and column spacing of the crooked grid
        y, z = points_of(dataset)[0, 1:]
        set_points(dataset, np.array([(x0, y, z), (x0 + 3, y, z), (x0 + 3, y + 3, z)]))

    return edit


LIMITS: list[tuple[str, Callable[[Dataset], Any], Callable[[Dataset], Any]]] = [
    ("off the plane of its slice", moved(0, 0, 0.009), moved(0, 0, 0.011)),
    ("it has no area", triangle((0, 0), (0.047, 0), (0, 0.047)), triangle((0, 0), (0.042, 0), (0, 0.042))),  # 0.0011, 0.0009 mm²
    ("it has no area", triangle((0, 0), (0.201, 0), (0, 0.01)), triangle((0, 0), (0.199, 0), (0, 0.01))),  # in mm², not pixels
    ("more than half a voxel out of the image", reaching(-0.99), reaching(-1.01)),
    ("fewer than three points", triangle((0, 0), (9, 0), (0, 9)), triangle((0, 0), (9, 0))),
    ("the Structure Set Label is empty or longer", lambda d: label(d, "x" * 16), lambda d: label(d, "x" * 17)),
    ("the Structure Set Label is empty or longer", lambda d: label(d, "x"), lambda d: label(d, "")),
]


def label(dataset: Dataset, text: str) -> None:
    dataset[0x30060002] = DataElement(0x30060002, "LO", text)


@pytest.mark.parametrize(("rule", "inside", "outside"), LIMITS)
def test_each_limit_holds_where_it_is_stated(
    rule: str, inside: Callable[[Dataset], Any], outside: Callable[[Dataset], Any], findings: Findings
) -> None:
    assert [rule in finding for finding in findings(inside)] in ([], [False])
    assert any(rule in finding for finding in findings(outside))


@pytest.mark.parametrize(("factor", "found"), [(0.953, False), (0.947, True), (1.047, False), (1.053, True)])
def test_the_volume_between_contours_may_differ_by_a_twentieth(
    factor: float, found: bool, good: Path, series: Series, tmp_path: Path
) -> None:
    """Every contour of the brain is made narrower or wider, which changes the volume by the same factor."""
    dataset = pydicom.dcmread(good)
    for contour in dataset.ROIContourSequence[0].ContourSequence:
        points = np.array(contour.ContourData, dtype=float).reshape(-1, 3)
        points[:, 0] = -8.7 + factor * (points[:, 0] + 8.7)  # about the middle of the ball
        contour.ContourData = [f"{value:.3f}" for value in points.reshape(-1)]
    dataset.save_as(tmp_path / "changed.dcm")
    told = "Brain: the volume between its contours is "
    assert (
        any(finding.startswith(told) for finding in check_rtstruct(tmp_path / "changed.dcm", series.header, awkward_masks()))
        == found
    )


def test_a_contour_on_another_slice_than_it_names_is_off_its_plane(findings: Findings, series: Series) -> None:
    def rename(dataset: Dataset) -> None:
        image = first_contour(dataset).ContourImageSequence[0]
        at = [instance.sop_instance_uid for instance in series.header.instances].index(image.ReferencedSOPInstanceUID)
        image.ReferencedSOPInstanceUID = series.header.instances[at + 1].sop_instance_uid

    (found,) = findings(rename)
    assert found.endswith("it lies more than 0.01 mm off the plane of its slice")


Rewritten = Callable[[str], list[str]]


@pytest.fixture
def rewritten(good: Path, series: Series, tmp_path: Path) -> Rewritten:
    """What is found when the first numbers of a contour are written so; the others, as many characters in all, stay numbers."""
    raw = pydicom.dcmread(good).ROIContourSequence[0].ContourSequence[0].get_item("ContourData").value
    numbers = raw.decode("ascii").split("\\")

    def change(text: str) -> list[str]:
        room = len("\\".join(numbers[:6])) - len(f"{text}\\1\\1\\")
        changed = "\\".join([text, "1", "1", "1".rjust(room), *numbers[6:]]).encode("ascii")
        assert len(changed) == len(raw)
        (tmp_path / "changed.dcm").write_bytes(good.read_bytes().replace(raw, changed, 1))
        return check_rtstruct(tmp_path / "changed.dcm", series.header)

    return change


@pytest.mark.parametrize(
    "number", ["+12.5", "-12.5", "12", "12.", ".5", "-.5", "125e-1", "1.25E1", "+1.E+1", " 12.5 ", "  7", "7  "]
)
def test_a_number_may_have_a_sign_a_fraction_an_exponent_and_blanks_around(number: str, rewritten: Rewritten) -> None:
    """As PS3.5 §6.2 has it of decimal strings; two blanks on a side do no harm."""
    assert not any("decimal" in finding for finding in rewritten(number))


OTHER_WRITING = ["nan", "inf", "1_0", "0x1", "1,5", "--1", "+-1", "- 1", "1 2", "1 e1"]
CUT_SHORT = ["", " ", ".", "-", "e1", "1e", "1e+", "1e.5", "1.2.3"]


@pytest.mark.parametrize("text", [*OTHER_WRITING, *CUT_SHORT])
def test_what_is_not_a_number_is_found(text: str, rewritten: Rewritten) -> None:
    assert any("not decimal" in finding for finding in rewritten(text))


@pytest.mark.parametrize("text", ["1\\\\1", "1\n", "\t1", "1\0"])
def test_numbers_have_one_separator_and_no_blanks_but_spaces(text: str, rewritten: Rewritten) -> None:
    assert any("not decimal" in finding for finding in rewritten(text))


def test_the_last_number_is_read_too(good: Path, series: Series, tmp_path: Path) -> None:
    raw = pydicom.dcmread(good).ROIContourSequence[0].ContourSequence[0].get_item("ContourData").value.rstrip()
    (tmp_path / "changed.dcm").write_bytes(good.read_bytes().replace(raw, raw[:-1] + b"x", 1))
    assert any("not decimal" in finding for finding in check_rtstruct(tmp_path / "changed.dcm", series.header))


def test_a_number_of_seventeen_characters_is_found(rewritten: Rewritten) -> None:
    assert any("a number of more than 16" in finding for finding in rewritten("1.000000000000000"))


def test_a_number_may_have_sixteen_characters(findings: Findings) -> None:
    def long_numbers(dataset: Dataset) -> None:
        contour = first_contour(dataset)
        contour.ContourData = [f"{float(value):.14f}"[:16] for value in contour.ContourData]

    assert findings(long_numbers) == []


@pytest.mark.parametrize(("broken", "named"), [(5, "1, 2, 3, 4, 5"), (6, "1, 2, 3, 4, 5 and 1 more")])
def test_more_than_five_findings_of_one_kind_are_counted(broken: int, named: str, findings: Findings) -> None:
    def lines(dataset: Dataset) -> None:
        for contour in dataset.ROIContourSequence[0].ContourSequence[:broken]:
            contour.ContourGeometricType = "OPEN_PLANAR"

    assert findings(lines) == [f"ROI number 1, contour {named}: its geometric type is not CLOSED_PLANAR"]


@pytest.mark.parametrize(("written", "shown"), [("123456789012", "123456789012"), ("1234567890123", "?"), ("7a", "?"), ("", "?")])
def test_a_finding_shows_the_number_of_an_roi_if_it_is_one(written: str, shown: str, findings: Findings) -> None:
    def rename(dataset: Dataset) -> None:
        roi = dataset.StructureSetROISequence[1]
        roi[0x30060022], roi.ReferencedFrameOfReferenceUID = DataElement(0x30060022, "LO", written), "1.2.3"

    assert f"ROI number {shown} is not in the frame of reference of the CT series" in findings(rename)


def test_a_patient_without_a_name_is_no_other_patient(findings: Findings) -> None:
    assert findings(lambda dataset: setattr(dataset, "PatientName", "")) == []


# ── limits met exactly ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def exact(series: Series) -> SeriesHeader:
    """The same images, as if their voxels were 1 mm wide and the slices 2 mm apart, the middle one at 0: no number is rounded."""
    return replace(series.header, grid=Grid(61, 53, np.outer(range(-8, 9, 2), [0, 0, 1.0]), np.eye(3)[0], np.eye(3)[1], 1.0, 1.0))


@pytest.fixture(scope="module")
def on_exact(exact: SeriesHeader, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("exact") / "rtstruct.dcm"
    write_rtstruct(path, parotid(), exact, AUTHORSHIP)
    return path


def parotid() -> OARMasks:
    every = awkward_masks()
    masks = OARMasks.empty([BY_NAME["Parotid_R"]], every.shape)
    masks.bits[every.mask(BY_NAME["Parotid_R"])] = 1
    return masks


def with_triangle(path: Path, header: SeriesHeader, z: int, corners: Sequence[Sequence[float]]) -> list[str]:
    """What is found when the right parotid has one contour more."""
    dataset = pydicom.dcmread(path)
    contours = dataset.ROIContourSequence[0].ContourSequence
    contour = Dataset()
    contour.update(contours[0])
    image = Dataset()
    image.ReferencedSOPClassUID = contour.ContourImageSequence[0].ReferencedSOPClassUID
    image.ReferencedSOPInstanceUID = header.instances[z].sop_instance_uid
    contour.ContourImageSequence = [image]
    contour.ContourData = [f"{value:.3f}" for value in np.asarray(corners).reshape(-1)]
    contour.NumberOfContourPoints = len(corners)
    contours.append(contour)
    dataset.save_as(path.with_name("changed.dcm"))
    return check_rtstruct(path.with_name("changed.dcm"), header, parotid())


@pytest.mark.parametrize(
    ("x", "y", "z_mm", "found"),
    [
        (-0.999, 30, 0, None),
        (-1, 30, 0, "it reaches more than half a voxel out of the image"),
        (52.999, 30, 0, None),
        (53, 30, 0, "it reaches more than half a voxel out of the image"),
        (50, -0.999, 0, None),
        (50, -1, 0, "it reaches more than half a voxel out of the image"),
        (50, 60.999, 0, None),
        (50, 61, 0, "it reaches more than half a voxel out of the image"),
        (50, 30, 0.01, None),
        (50, 30, 0.011, "it lies more than 0.01 mm off the plane of its slice"),
    ],
)
def test_a_contour_may_reach_each_edge_and_no_further(
    x: float, y: float, z_mm: float, found: str | None, on_exact: Path, exact: SeriesHeader
) -> None:
    """On the slice at 0, a triangle with one corner at the edge."""
    inwards = -1 if x > 26 else 1, -1 if y > 30 else 1
    triangle = [(x, y, z_mm), (x + inwards[0], y, z_mm), (x, y + inwards[1], z_mm)]
    told = [text for text in with_triangle(on_exact, exact, 4, triangle) if text.startswith("ROI number 1")]
    assert told == ([f"ROI number 1, contour 8: {found}"] if found else [])


@pytest.mark.parametrize(
    ("z", "y", "x", "found"),
    [
        *((0, 6.4, 6.4, True), (1, 6.4, 6.4, False), (7, 6.4, 6.4, False), (8, 6.4, 6.4, True)),
        *((1, 3, 6.4, True), (1, 3.001, 6.4, False), (1, 10, 6.4, True), (1, 9.999, 6.4, False)),
        *((1, 6.4, 1, True), (1, 6.4, 1.001, False), (1, 6.4, 45, True), (1, 6.4, 44.999, False)),
    ],
)
def test_an_organ_has_contours_no_further_than_a_voxel_beyond_its_mask(
    z: int, y: float, x: float, found: bool, on_exact: Path, exact: SeriesHeader
) -> None:
    """The right parotid lies on slices 2 to 6, rows 5 to 8 and columns 3 to 43; the triangle holds no voxel's centre."""
    inwards = (0.2 if y < 7 else -0.2), (0.2 if x < 20 else -0.2)
    z_mm = 2 * (z - 4)
    triangle = [(x, y, z_mm), (x + inwards[1], y, z_mm), (x, y + inwards[0], z_mm)]
    told = "Parotid_R: it has contours where the model drew nothing"
    assert with_triangle(on_exact, exact, z, triangle) == ([told] if found else [])


def test_what_is_no_structure_set_is_found(series: Series, tmp_path: Path) -> None:
    assert check_rtstruct(series.files[0], series.header) == ["the file is not an RT Structure Set"]
    (tmp_path / "text.dcm").write_text("not DICOM at all")
    assert check_rtstruct(tmp_path / "text.dcm", series.header) == ["the file is not an RT Structure Set"]


def test_a_file_that_is_cut_off_is_found(good: Path, series: Series, tmp_path: Path) -> None:
    (tmp_path / "cut.dcm").write_bytes(good.read_bytes()[:-1000])
    assert check_rtstruct(tmp_path / "cut.dcm", series.header) == ["the file cannot be read: it is cut off"]


# ── against the masks ─────────────────────────────────────────────────────────────────────────────────────────────────


def with_brain(change: Callable[[Any], Any]) -> OARMasks:
    masks = awkward_masks()
    box, mask = masks.crop(BY_NAME["Brain"]) or pytest.fail("the brain is empty")
    masks.put(BY_NAME["Brain"], box, change(mask))
    return masks


def test_one_voxel_too_many_is_found(good: Path, series: Series) -> None:
    def without_one(mask: Any) -> Any:
        z, y, x = np.argwhere(mask)[0]
        mask[z, y, x] = False
        return mask

    assert check_rtstruct(good, series.header, with_brain(without_one)) == ["Brain: 1 voxel(s) are not what the model drew"]


def test_another_volume_is_found(good: Path, series: Series) -> None:
    def half(mask: Any) -> Any:
        mask[len(mask) // 2 :] = False
        return mask

    found = check_rtstruct(good, series.header, with_brain(half))
    assert "Brain: it has contours where the model drew nothing" in found
    assert any(finding.startswith("Brain: the volume between its contours is ") for finding in found)


def test_the_half_voxel_shrink_of_other_writers_is_found(good: Path, series: Series, tmp_path: Path) -> None:
    """Contours through the centres of border voxels: every reader that fills them and their border sees the right mask."""
    dataset = pydicom.dcmread(good)
    contours = dataset.ROIContourSequence[2].ContourSequence
    for contour in contours:
        points = np.array(contour.ContourData, dtype=float).reshape(-1, 3)
        middle = (points.min(axis=0) + points.max(axis=0)) / 2
        shrunk = points - np.sign(np.round(points - middle, 6)) * [0.45, 0.55, 0]
        contour.ContourData = [f"{value:.3f}" for value in shrunk.reshape(-1)]
    dataset.save_as(tmp_path / "shrunk.dcm")
    found = check_rtstruct(tmp_path / "shrunk.dcm", series.header, awkward_masks())
    assert any(finding.startswith("Parotid_R: the volume between its contours is 0.") for finding in found)


def test_missing_and_empty_organs_are_found(good: Path, series: Series) -> None:
    masks = OARMasks.empty([BY_NAME["Brain"], BY_NAME["Lens_R"], BY_NAME["SpinalCord"]], series.masks.shape)
    assert check_rtstruct(good, series.header, masks) == [
        "Brain is empty and has contours",
        "SpinalCord is not among the ROIs",
    ]


def test_an_organ_that_was_drawn_is_among_the_rois_even_where_a_profile_leaves_empty_ones_out(good: Path, series: Series) -> None:
    masks = OARMasks.empty([*series.masks.oars, BY_NAME["SpinalCord"]], series.masks.shape)
    masks.bits[:] = series.masks.bits
    profile = replace(GENERIC, keep_empty=False)
    assert check_rtstruct(good, series.header, masks, profile) == []
    masks.bits[4, 29, 25] |= masks.bit(BY_NAME["SpinalCord"])
    masks.forget_boxes()
    assert check_rtstruct(good, series.header, masks, profile) == ["SpinalCord is not among the ROIs"]


def test_what_is_too_complex_to_be_checked_is_a_finding(good: Path, series: Series, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(polygons, "_MOST_PAIRS", 10)
    assert any(finding.endswith("too complex to be checked") for finding in check_rtstruct(good, series.header))


def test_a_contour_of_many_numbers_costs_no_memory_for_its_pattern() -> None:
    numbers = b"\\".join([b"-123.456"] * 200_000)
    more = numbers + b"x"
    tracemalloc.start()
    try:
        assert _DECIMALS.fullmatch(numbers)
        assert not _DECIMALS.fullmatch(more)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()

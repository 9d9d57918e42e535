"""The gatekeeper: what is let through, what is corrected with a warning, and what is refused with which facts."""

import random
import re
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import CTImageStorage

from oarlock import errors
from oarlock.ct.series import SeriesHeader, check_headers, read_ct_series
from oarlock.ct.writer import write_ct_series
from oarlock.geometry.grid import Grid
from tests.fixtures.crooked import crooked_grid, crooked_hu

SLICES = 7


def small_grid() -> Grid:
    whole = crooked_grid()
    return with_origins(whole, whole.origins_mm[:SLICES])


def with_origins(grid: Grid, origins: npt.NDArray[np.float64]) -> Grid:
    return Grid(
        grid.rows,
        grid.columns,
        origins,
        grid.row_direction,
        grid.column_direction,
        grid.row_spacing_mm,
        grid.column_spacing_mm,
    )


def write(folder: Path, **options: Any) -> list[Path]:
    return write_ct_series(folder, crooked_hu()[:SLICES], small_grid(), **options)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Seven slices of the crooked phantom; the path at index z is slice z."""
    return write(tmp_path)


def edit(path: Path, **values: Any) -> None:
    dataset = pydicom.dcmread(path)
    for keyword, value in values.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    dataset.save_as(path)


def codes(header: SeriesHeader) -> list[str]:
    return [warning.code for warning in header.warnings]


# ── an ordinary series ────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_grid_and_the_hounsfield_units_come_out_as_they_were_written(files: list[Path]) -> None:
    header = check_headers(files)
    series = read_ct_series(header)
    expected = small_grid()
    assert header.grid.shape == expected.shape
    np.testing.assert_allclose(header.grid.origins_mm, expected.origins_mm, atol=1e-9)
    np.testing.assert_array_equal(header.grid.row_direction, [1, 0, 0])
    np.testing.assert_array_equal(header.grid.column_direction, [0, 1, 0])
    assert (header.grid.row_spacing_mm, header.grid.column_spacing_mm) == (1.1, 0.9)
    np.testing.assert_array_equal(series.hu, crooked_hu()[:SLICES])
    assert series.hu.dtype == np.int16
    assert not series.hu.flags.writeable
    assert codes(header) == []


def test_the_uids_are_those_of_the_files(files: list[Path]) -> None:
    header = check_headers(files)
    for z, path in enumerate(files):
        dataset = pydicom.dcmread(path, stop_before_pixels=True)
        instance = header.instances[z]
        assert (instance.path, instance.sop_instance_uid) == (path, dataset.SOPInstanceUID)
        assert instance.sop_class_uid == "1.2.840.10008.5.1.4.1.1.2"
        assert instance.position == z + 1
        assert header.study_instance_uid == dataset.StudyInstanceUID
        assert header.series_instance_uid == dataset.SeriesInstanceUID
        assert header.frame_of_reference_uid == dataset.FrameOfReferenceUID
    assert header.facts().slices == SLICES
    assert header.facts().spacing_mm == pytest.approx((2.5, 1.1, 0.9))


def test_the_order_of_the_upload_changes_nothing_but_positions(files: list[Path]) -> None:
    expected = check_headers(files)
    shuffled = list(files)
    random.Random(5).shuffle(shuffled)
    found = check_headers(shuffled)
    assert [i.sop_instance_uid for i in found.instances] == [i.sop_instance_uid for i in expected.instances]
    assert [i.position for i in found.instances] == [shuffled.index(path) + 1 for path in files]
    np.testing.assert_array_equal(found.grid.origins_mm, expected.grid.origins_mm)
    assert found.template == expected.template
    assert found.warnings == expected.warnings


def test_slices_that_fall_along_the_normal_are_sorted_by_it(tmp_path: Path) -> None:
    """Feet first supine: the normal points to the feet, so slice 0 is the one nearest to the head."""
    grid = small_grid()
    flipped = Grid(61, 53, grid.origins_mm[::-1], np.array([-1.0, 0, 0]), grid.column_direction, 1.1, 0.9)
    files = write_ct_series(tmp_path, crooked_hu()[:SLICES], flipped)
    header = check_headers(files)
    assert np.all(np.diff(header.grid.origins_mm[:, 2]) == -2.5)
    np.testing.assert_array_equal(read_ct_series(header).hu, crooked_hu()[:SLICES])


def test_structure_sets_are_handed_on(files: list[Path], tmp_path: Path) -> None:
    structure_set = other_object(tmp_path / "rs.dcm", "1.2.840.10008.5.1.4.1.1.481.3", "RTSTRUCT")
    header = check_headers([files[0], structure_set, *files[1:]])
    assert header.structure_sets == (structure_set,)
    assert codes(header) == []


def test_a_structure_set_that_was_sent_twice_counts_once(files: list[Path], tmp_path: Path) -> None:
    first = other_object(tmp_path / "rs.dcm", "1.2.840.10008.5.1.4.1.1.481.3", "RTSTRUCT")
    second = shutil.copy(first, tmp_path / "copy.dcm")
    header = check_headers([*files, first, second])
    assert header.structure_sets == (first,)
    assert codes(header) == ["series.duplicate_ignored"]


# ── set aside ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def other_object(path: Path, sop_class: str, modality: str) -> Path:
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID, dataset.Modality = sop_class, "2.25.77", modality
    dataset.ensure_file_meta()
    dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2"
    dataset.save_as(path, enforce_file_format=True)
    return path


def test_a_localizer_inside_the_folder_is_set_aside(files: list[Path], tmp_path: Path) -> None:
    scout = tmp_path / "scout.dcm"
    shutil.copy(files[0], scout)
    edit(
        scout,
        ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"],
        ImageOrientationPatient=[1, 0, 0, 0, 0, -1],
        SOPInstanceUID="2.25.99",
    )
    header = check_headers([scout, *files])
    assert codes(header) == ["series.localizer_set_aside"]
    assert len(header.instances) == SLICES


@pytest.mark.parametrize(
    ("sop_class", "modality", "code"),
    [
        ("1.2.840.10008.5.1.4.1.1.7", "CT", "series.secondary_capture_set_aside"),
        ("1.2.840.10008.5.1.4.1.1.4", "MR", "series.other_object_set_aside"),
        ("1.2.840.10008.5.1.4.1.1.481.2", "RTDOSE", "series.other_object_set_aside"),
    ],
)
def test_other_objects_inside_the_folder_are_set_aside(
    files: list[Path], tmp_path: Path, sop_class: str, modality: str, code: str
) -> None:
    header = check_headers([*files, other_object(tmp_path / "other.dcm", sop_class, modality)])
    assert codes(header) == [code]


def test_files_that_are_not_dicom_are_set_aside(files: list[Path], tmp_path: Path) -> None:
    junk = [tmp_path / name for name in ("Thumbs.db", "empty", "README.txt")]
    for path, content in zip(junk, (b"\xd0\xcf\x11\xe0" * 200, b"", b"Export of the treatment planning system"), strict=True):
        path.write_bytes(content)
    header = check_headers([*junk, *files])
    assert [(w.code, w.detail) for w in header.warnings] == [
        ("series.not_dicom_set_aside", "3 file(s) are not DICOM and were ignored.")
    ]


def test_the_same_bytes_twice_count_once(files: list[Path], tmp_path: Path) -> None:
    copy = tmp_path / "copy.dcm"
    shutil.copy(files[2], copy)
    header = check_headers([*files, copy])
    assert codes(header) == ["series.duplicate_ignored"]
    assert len(header.instances) == SLICES


# ── refused ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_upload_without_dicom_is_refused(tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("not DICOM")
    with pytest.raises(errors.NotDicom):
        check_headers([tmp_path / "note.txt"])


def test_an_upload_without_ct_says_what_it_holds(tmp_path: Path) -> None:
    files = [
        other_object(tmp_path / "mr.dcm", "1.2.840.10008.5.1.4.1.1.4", "MR"),
        other_object(tmp_path / "rs.dcm", "1.2.840.10008.5.1.4.1.1.481.3", "RTSTRUCT"),
    ]
    with pytest.raises(errors.NoCTImages, match=r"MR Image, RT structure set"):
        check_headers(files)


@pytest.mark.parametrize("sop_class", ["1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2"])
def test_enhanced_ct_is_refused_as_such(tmp_path: Path, sop_class: str) -> None:
    with pytest.raises(errors.MultiFrameCT):
        check_headers([other_object(tmp_path / "e.dcm", sop_class, "CT")])


def test_two_series_are_counted(files: list[Path], tmp_path: Path) -> None:
    other = write_ct_series(
        tmp_path / "other", crooked_hu()[:4], with_origins(small_grid(), small_grid().origins_mm[:4]), seed="2"
    )
    with pytest.raises(errors.MixedSeries, match=r"2 different series \(of 7 and 4 images\)"):
        check_headers([*files, *other])


def test_two_patients_in_one_series_are_refused(files: list[Path]) -> None:
    edit(files[3], PatientID="ANOTHER")
    with pytest.raises(errors.MixedPatients) as caught:
        check_headers(files)
    assert "ANOTHER" not in str(caught.value)


def test_two_frames_of_reference_are_refused(files: list[Path]) -> None:
    edit(files[3], FrameOfReferenceUID="2.25.5")
    with pytest.raises(errors.MixedFrameOfReference):
        check_headers(files)


@pytest.mark.parametrize("removed", [1, 3, SLICES - 2])
def test_a_missing_slice_is_named_with_its_gap(files: list[Path], removed: int) -> None:
    """Slices lie at -402.5 + 2.5 z mm; without slice ``removed``, its neighbours are 5 mm apart."""
    with pytest.raises(errors.MissingSlices) as caught:
        check_headers([path for z, path in enumerate(files) if z != removed])
    below, above = -402.5 + 2.5 * (removed - 1), -402.5 + 2.5 * (removed + 1)
    message = str(caught.value)
    assert f"Between slices {removed} and {removed + 1} " in message
    assert f"z = {below:.2f} mm and z = {above:.2f} mm" in message
    assert "5.000 mm where 2.500 mm is expected: about 1 slice(s) missing" in message


def test_the_same_uid_with_other_bytes_is_refused(files: list[Path], tmp_path: Path) -> None:
    other = tmp_path / "other.dcm"
    shutil.copy(files[2], other)
    edit(other, WindowCenter=77)
    with pytest.raises(errors.DuplicateInstance, match="Files 3 and 8 "):
        check_headers([*files, other])


def test_the_same_position_twice_is_refused(files: list[Path], tmp_path: Path) -> None:
    """Two phases of a 4D CT in one series."""
    other = tmp_path / "other.dcm"
    shutil.copy(files[2], other)
    edit(other, SOPInstanceUID="2.25.8")
    with pytest.raises(errors.DuplicatePosition, match=r"2 slices lie at the same position \(z = -397.50 mm\)"):
        check_headers([*files, other])


def test_too_few_slices_are_refused(files: list[Path]) -> None:
    with pytest.raises(errors.TooFewSlices):
        check_headers(files[:2])


def test_too_many_slices_are_refused(files: list[Path]) -> None:
    with pytest.raises(errors.TooManySlices):
        check_headers(files, max_slices=6)


@pytest.mark.parametrize("keyword", ["ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "FrameOfReferenceUID"])
def test_a_slice_that_does_not_say_where_it_lies_is_refused(files: list[Path], keyword: str) -> None:
    edit(files[4], **{keyword: None})
    with pytest.raises(errors.GeometryMissing, match=f"^File 5 of the upload has no valid {keyword}"):
        check_headers(files)


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("ImageOrientationPatient", [1, 0, 0, 1, 0, 0]),
        ("ImageOrientationPatient", [0, 0, 0, 0, 0, 0]),
        ("PixelSpacing", [0, 0.9]),
        ("PixelSpacing", [-1, 0.9]),
        ("PixelSpacing", [1.1]),
        ("ImagePositionPatient", [1, 2]),
        ("ImagePositionPatient", [0, 0, 1e30]),
    ],
)
def test_numbers_that_describe_no_plane_are_refused(files: list[Path], keyword: str, value: list[float]) -> None:
    edit(files[0], **{keyword: value})
    with pytest.raises(errors.GeometryMissing, match=keyword):
        check_headers(files)


@pytest.mark.parametrize("text", [b"nan\\0\\0 ", b"inf\\0\\0 ", b"1,5\\0\\0 ", b"0x10\\0\\0", b"1_0\\0\\0 "])
def test_what_only_python_takes_for_a_number_is_refused(files: list[Path], text: bytes) -> None:
    dataset = pydicom.dcmread(files[0])
    tag = Tag("ImagePositionPatient")
    dataset[tag] = RawDataElement(tag, "DS", len(text), text, 0, False, True)
    dataset.save_as(files[0])
    assert text in files[0].read_bytes()
    with pytest.raises(errors.GeometryMissing, match="ImagePositionPatient"):
        check_headers(files)


@pytest.mark.parametrize(
    ("values", "keyword"),
    [
        ({"PixelSpacing": [1.1, 0.8]}, "PixelSpacing"),
        ({"ImageOrientationPatient": [0.998, 0.06321392251711643, 0, -0.06321392251711643, 0.998, 0]}, "ImageOrientationPatient"),
    ],
)
def test_a_slice_of_another_reconstruction_is_refused(files: list[Path], values: dict[str, Any], keyword: str) -> None:
    edit(files[4], **values)
    with pytest.raises(errors.InconsistentGeometry, match=keyword):
        check_headers(files)


def test_a_slice_of_another_size_is_refused(files: list[Path]) -> None:
    edit(files[4], Rows=60, PixelData=b"\0" * 60 * 53 * 2)
    with pytest.raises(errors.InconsistentGeometry, match="60 × 53, 61 × 53"):
        check_headers(files)


def test_more_voxels_than_fit_the_memory_are_refused(files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("oarlock.ct.series.MAX_VOXELS", 7 * 61 * 53 - 1)
    with pytest.raises(errors.SeriesTooLarge, match=r"claims 7 slices of 61 × 53 voxels; .* at most 22,630 voxels"):
        check_headers(files)


def test_headers_that_hold_too_much_together_are_refused(files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("oarlock.ct.sorting.MAX_UPLOAD_ELEMENTS", 100)
    with pytest.raises(errors.InstanceUnreadable, match="the headers up to it hold more than 100 elements"):
        check_headers(files)


@given(at=st.integers(128, 1700), junk=st.binary(min_size=1, max_size=6))
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_no_flipped_bytes_make_it_fail_otherwise(files: list[Path], at: int, junk: bytes) -> None:
    """A series error, or a series: nothing else comes out of a damaged header."""
    content = files[3].read_bytes()
    assert len(content) - 61 * 53 * 2 < 1700
    broken = files[3].with_suffix(".broken")
    broken.write_bytes(content[:at] + junk + content[at + len(junk) :])
    with suppress(errors.SeriesError):
        read_ct_series(check_headers([*files[:3], broken, *files[4:]]))


def test_a_damaged_file_is_named(files: list[Path]) -> None:
    files[2].write_bytes(files[2].read_bytes()[:700])
    with pytest.raises(errors.InstanceUnreadable, match=r"^File 3 of the upload cannot be read: it is cut off"):
        check_headers(files)


def test_a_file_that_is_cut_off_in_its_first_elements_is_never_taken_for_another_object(files: list[Path]) -> None:
    content = files[3].read_bytes()
    for kept in range(134, 900, 2):
        files[3].write_bytes(content[:kept])
        with pytest.raises(errors.SeriesError, match=r"[Ff]ile 4 of the upload"):
            check_headers(files[:4])


@pytest.mark.parametrize("keyword", ["SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"])
def test_a_file_without_identity_is_refused(files: list[Path], keyword: str) -> None:
    edit(files[1], **{keyword: ""})
    with pytest.raises(errors.InstanceUnreadable, match=r"^File 2 .*no valid"):
        check_headers(files)


def test_a_slice_that_names_its_class_in_the_file_meta_information_alone_is_referenced_as_a_ct_image(files: list[Path]) -> None:
    edit(files[1], SOPClassUID=None)
    assert {instance.sop_class_uid for instance in check_headers(files).instances} == {CTImageStorage}


# ── warnings ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("part", "warned"),
    [
        ("PELVIS", True),
        ("HEART", True),
        ("CARDIAC", True),
        ("CSPINE", False),
        ("HEADNECK", False),
        ("HEAD AND NECK", False),
        ("", False),
    ],
)
def test_another_body_part_warns(tmp_path: Path, part: str, warned: bool) -> None:
    header = check_headers(write(tmp_path, overrides={"BodyPartExamined": part}))
    assert ("series.other_body_part" in codes(header)) == warned


def test_a_tilt_that_the_orientation_does_not_show_warns(tmp_path: Path) -> None:
    header = check_headers(write(tmp_path, overrides={"GantryDetectorTilt": -6.2}))
    assert codes(header) == ["series.tilt_contradicted"]
    assert "6.2°" in header.warnings[0].detail


def test_no_message_holds_what_the_sender_wrote(tmp_path: Path) -> None:
    """Neither a warning nor an error repeats a value of a header: it could be a patient's name."""
    secret = "SECRET"
    files = write(
        tmp_path, patient_name=secret, overrides={"BodyPartExamined": secret, "PatientID": secret, "PatientSex": "SECRET"}
    )
    header = check_headers(files)
    assert {"series.other_body_part", "series.invalid_attributes"} <= set(codes(header))
    assert not re.search(secret, " ".join(warning.detail for warning in header.warnings))


def test_the_scanner_is_named_in_plain_letters(tmp_path: Path) -> None:
    named = {"Manufacturer": "SIEMENS, Ltd.", "ManufacturerModelName": "Sensation=64 \n", "StationName": "CT^1"}
    files = write(tmp_path / "named", overrides=named)
    assert check_headers(files).scanner == "SIEMENS Ltd. Sensation 64 CT 1"
    silent = {"Manufacturer": "", "ManufacturerModelName": "", "StationName": ""}
    files = write(tmp_path / "silent", overrides=silent)
    assert check_headers(files).scanner == ""

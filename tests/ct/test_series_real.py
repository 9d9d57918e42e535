"""Real series and odd files: the same values as independent readers, or a clear refusal in bounded time and memory."""

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813  (its own convention)

from oarlock import errors
from oarlock.ct.pixel_header import check_pixels, warnings_for
from oarlock.ct.pixel_reader import read_volume
from oarlock.ct.series import WANTED, check_headers, read_ct_series
from oarlock.dicom.elements import read_elements
from tests.fixtures.real_data import Unpacked

pytestmark = pytest.mark.slow

ODD = "data/dicom/odd"


def dicom_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix not in {".txt", ".xz"})


def read_slice(path: Path) -> npt.NDArray[np.int16]:
    """Hounsfield units of one file, whether or not a series is complete with it."""
    header = read_elements(path, WANTED, keep=lambda _: True)
    assert header is not None
    stored = check_pixels(header, 1)
    return read_volume([(path, 1, stored)])[0]


def warnings_of(path: Path) -> list[str]:
    header = read_elements(path, WANTED, keep=lambda _: True)
    assert header is not None
    return list(warnings_for(header, check_pixels(header, 1)))


# ── whole series ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_real_planning_ct_reads_as_in_simpleitk(siemens_series: Path) -> None:
    files = sorted(siemens_series.glob("CT_*.dcm"))
    random.Random(3).shuffle(files)
    header = check_headers(files)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(siemens_series)))
    image = reader.Execute()
    np.testing.assert_array_equal(read_ct_series(header).hu, sitk.GetArrayViewFromImage(image))
    assert header.grid.shape == image.GetSize()[::-1] == (186, 512, 512)
    for index in ((0, 0, 0), (511, 0, 0), (17, 400, 99), (511, 511, 185)):
        x, y, z = index
        ours = header.grid.to_patient(z, np.array([[y, x]], dtype=float))[0]
        np.testing.assert_allclose(ours, image.TransformIndexToPhysicalPoint(index), atol=1e-6)


def test_the_invalid_attributes_of_a_real_planning_ct_are_left_empty(siemens_series: Path) -> None:
    header = check_headers(sorted(siemens_series.glob("CT_*.dcm"))[:9])
    assert [warning.code for warning in header.warnings] == ["series.invalid_attributes"]
    assert "StudyDate, PatientBirthDate, PatientSex" in header.warnings[0].detail
    one = pydicom.dcmread(header.instances[0].path, stop_before_pixels=True)
    assert header.template.PatientName == one.PatientName
    assert header.template.PatientID == one.PatientID
    assert header.template.PatientBirthDate == ""


def test_a_neck_series_of_a_treatment_planning_system_is_read_with_its_structure_set(shared: Path) -> None:
    files = [path for path in dicom_files(shared / "data/dicom/neck_aria_visiblehuman") if path.suffix == ".dcm"]
    header = check_headers(files)
    assert header.grid.shape == (4, 512, 512)
    assert header.grid.origins_mm[:, 2].tolist() == [1000, 1001, 1002, 1003]
    assert [path.name for path in header.structure_sets] == ["RS_Body_SpinalCord.dcm"]
    for z, hu in enumerate(read_ct_series(header).hu):
        image = sitk.ReadImage(str(header.instances[z].path))
        np.testing.assert_array_equal(hu, sitk.GetArrayViewFromImage(image)[0])


def test_structure_sets_of_every_planning_system_are_recognised(unpacked: Unpacked, shared: Path) -> None:
    """Two of them have no transfer syntax or no file meta information at all."""
    structure_sets = [p for p in dicom_files(unpacked("data/dicom/rtstruct_without_ct/files.tar.xz")) if "_ct." not in p.name]
    structure_sets = [path for path in structure_sets if path.suffix == ".dcm"]
    series = sorted((shared / "data/dicom/neck_aria_visiblehuman").glob("CT_*.dcm"))
    header = check_headers([*structure_sets, *series])
    assert len(structure_sets) == 8
    assert header.structure_sets == tuple(structure_sets)
    assert header.warnings == ()


FAULTS = {
    "sliceincrement/001": (errors.MissingSlices, "slices 3 and 4 .*10.000 mm where 5.000 mm"),
    "sliceincrement/002": (errors.MissingSlices, "slices 3 and 4 .*1.499 mm where 0.750 mm"),
    "notavolume/001": (errors.DuplicatePosition, "4 slices"),
    "gantrytilting/001": (errors.GeometryMissing, "FrameOfReferenceUID"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_real_faulty_series_is_refused_for_its_fault(unpacked: Unpacked, fault: str) -> None:
    """The tilted series would be accepted but for its frame of reference, which its owners removed."""
    folder = unpacked("data/dicom/series_faults_dicom2nifti/files.tar.xz")
    (files,) = [dicom_files(path) for path in folder.rglob(fault)]
    error, message = FAULTS[fault]
    with pytest.raises(error, match=message):
        check_headers(files)


def test_a_real_tilted_gantry_keeps_every_origin(unpacked: Unpacked, tmp_path: Path) -> None:
    """14.0°: the scanner's own tilt, with a frame of reference put back. The couch moves 5 mm along z between slices."""
    folder = unpacked("data/dicom/series_faults_dicom2nifti/files.tar.xz")
    files = []
    for path in dicom_files(next(folder.rglob("gantrytilting/001"))):
        dataset = pydicom.dcmread(path)
        dataset.FrameOfReferenceUID = "2.25.4"
        files.append(tmp_path / path.name)
        dataset.save_as(files[-1])
    header = check_headers(files)
    np.testing.assert_allclose(np.diff(header.grid.origins_mm, axis=0), [[0, 0, 5]] * 3, atol=1e-9)
    np.testing.assert_allclose(header.grid.slice_spacings_mm, 5 * 0.970295726276, rtol=1e-6)
    assert [warning.code for warning in header.warnings][:2] == ["series.tilted", "series.sheared"]


def test_a_mixed_study_is_sorted_out_series_by_series(unpacked: Unpacked) -> None:
    folder = unpacked("data/dicom/mixed_study_tiny_pydicom/files.tar.xz")
    with pytest.raises(errors.MixedSeries, match=r"2 different series \(of 5 and 4 images\)"):
        check_headers(dicom_files(folder))
    (ct,) = folder.rglob("CT5N")
    others = [path for path in dicom_files(folder) if "CT2" not in path.parts and ct not in path.parents]
    header = check_headers([*others, *dicom_files(ct)])
    assert header.grid.shape == (5, 16, 16)
    assert {warning.code for warning in header.warnings} == {"series.localizer_set_aside", "series.other_object_set_aside"}


def test_a_real_multi_frame_ct_is_read_frame_by_frame(shared: Path) -> None:
    """Legacy converted: three frames of a phantom, the first in the file the lowest."""
    path = shared / ODD / "multiframe/mf.dcm"
    header, source = check_headers([path]), pydicom.dcmread(path)
    assert [instance.frame for instance in header.instances] == [1, 2, 3]
    np.testing.assert_array_equal(read_ct_series(header).hu, source.pixel_array)
    planes = [groups.PlanePositionSequence[0].ImagePositionPatient for groups in source.PerFrameFunctionalGroupsSequence]
    np.testing.assert_array_equal(header.grid.origins_mm, np.array(planes, dtype=float))
    assert header.grid.spacing_mm == (2.5, 0.7, 0.7)


# ── encodings ─────────────────────────────────────────────────────────────────────────────────────────────────────────

SAME_PIXELS = (
    "CT1_UNC",
    "CT1_UNC.explicit_big_endian.dcm",
    "CT1_UNC.fragmented_no_bot_jpeg_ls.80.dcm",
    "CT1_J2KR",
    "CT1_JLSL",
    "CT1_JPLL",
    "CT1_RLE",
    "D_CLUNIE_CT1_RLE_FRAGS.dcm",
)


@pytest.mark.long("files")
def test_eight_encodings_of_one_image_give_the_same_pixels(shared: Path) -> None:
    expected = read_slice(shared / ODD / "ts/CT1_UNC")
    for name in SAME_PIXELS:
        np.testing.assert_array_equal(read_slice(shared / ODD / "ts" / name), expected, err_msg=name)


@pytest.mark.parametrize(("name", "most_hu"), [("CT1_JLSN", 10), ("CT1_J2KI", 30)])
def test_an_encoding_with_loss_is_close_to_the_image_and_warns(shared: Path, name: str, most_hu: int) -> None:
    """Near-lossless JPEG-LS holds its stated bound; irreversible JPEG 2000, 37 to 1, is near in the mean."""
    difference = read_slice(shared / ODD / "ts" / name).astype(int) - read_slice(shared / ODD / "ts/CT1_UNC")
    assert 0 < np.abs(difference).mean() < most_hu
    assert warnings_of(shared / ODD / "ts" / name) == ["series.lossy_compression"]


def test_of_the_real_encodings_those_with_loss_warn_and_no_other(shared: Path) -> None:
    warned = {path.name for path in dicom_files(shared / ODD / "ts") if "JPEGProcess1T" not in path.name and warnings_of(path)}
    assert warned == {
        "CT1_J2KI",
        "CT1_JLSN",
        "CTImage.dcm_JPEGProcess2_4TransferSyntax_1.2.840.10008.1.2.4.51.dcm",
    }


def test_eight_bit_lossy_jpeg_of_a_ct_is_refused(shared: Path) -> None:
    path = next((shared / ODD / "ts").glob("*JPEGProcess1T*"))
    with pytest.raises(errors.UnsupportedPixelData, match="8 bits"):
        read_slice(path)


def test_two_encodings_of_another_image_give_the_same_pixels(shared: Path) -> None:
    deflated, jpeg = (next((shared / ODD / "ts").glob(f"CTImage.dcm_{kind}*")) for kind in ("Deflated", "JPEGProcess14"))
    np.testing.assert_array_equal(read_slice(deflated), read_slice(jpeg))


@pytest.mark.parametrize(
    "name",
    ["ts/CT2_JPLL", "ts/IM-0001-0001-0001.dcm", "ts/J2K_pixelrep_mismatch.dcm", "geometry/CT_small.dcm", "geometry/ct.dcm"],
)
def test_other_real_images_read_as_in_simpleitk(shared: Path, name: str) -> None:
    image = sitk.ReadImage(str(shared / ODD / name))
    np.testing.assert_array_equal(read_slice(shared / ODD / name), sitk.GetArrayViewFromImage(image)[0])


def test_padding_is_all_that_differs_from_simpleitk(shared: Path) -> None:
    """The circle around the scanner's field of view: stored -2000, -3024 HU, air in ours."""
    ours = read_slice(shared / ODD / "ts/CT1_UNC")
    theirs = sitk.GetArrayFromImage(sitk.ReadImage(str(shared / ODD / "ts/CT1_UNC")))[0]
    assert set(theirs[ours != theirs]) == {-3024}
    assert set(ours[ours != theirs]) == {-1024}


# ── odd files ─────────────────────────────────────────────────────────────────────────────────────────────────────────

PROBE = """
import json, re, resource, sys, time
from pathlib import Path
from oarlock.ct.pixel_header import check_pixels
from oarlock.ct.pixel_reader import read_volume
from oarlock.dicom.elements import read_elements
from oarlock.dicom.unusable import Unusable
from oarlock.errors import NotDicom, SeriesError
from oarlock.ct.series import WANTED, check_headers, read_ct_series
def series(path):
    read_ct_series(check_headers([path]))
def slice_alone(path):
    header = read_elements(path, WANTED, keep=lambda _: True)
    if header is None:
        raise NotDicom(files=1)
    read_volume([(path, 1, check_pixels(header, 1))])
def peak():
    own = int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
    return max(own, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
def spent():
    return time.process_time() + sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
for name in sys.stdin.read().splitlines():
    answers = []
    before = spent()
    for read in (series, slice_alone):
        try:
            read(Path(name))
            answers.append("accepted")
        except SeriesError as error:
            answers.append(error.code)
        except Unusable:
            answers.append("damaged")
    print(json.dumps([name, *answers, spent() - before, peak()]))
"""

EXPECTED_CODES = {
    "broken/2026-05-06-Deeply-Nested-Sequence.dcm": "series.instance_unreadable",
    "broken/20-wrong-transfer-syntax.dcm": "series.unsupported_pixel_data",
    "broken/2020-09-12-ELSCINT1-PMSCT_RLE1.dcm": "series.unsupported_pixel_data",
    "broken/2026-05-26-oob-monochrome-65535.dcm": "series.no_ct_images",
    "geometry/2024-05-30-GuillemVela.dcm": "series.orientation_unsupported",
    "geometry/jpeg_lossless_sel1.dcm": "series.no_ct_images",
    "geometry/ctbrain1.dcm": "series.no_ct_images",
    "multiframe/mf.dcm": "accepted",
    "multiframe/eCT_Supplemental.dcm": "series.multi_frame_ct",
    "multiframe/CT0012.fragmented_no_bot_jpeg_ls.80.dcm": "series.multi_frame_ct",
    "othermodality/MR_small.dcm": "series.no_ct_images",
    "othermodality/rtdose.dcm": "series.no_ct_images",
    "ts/693_J2KR.dcm": "series.too_few_slices",
    "ts/CT1_UNC": "series.too_few_slices",
}


READABLE_ALONE = {
    *(f"ts/{name}" for name in (*SAME_PIXELS, "CT1_J2KI", "CT1_JLSN", "693_J2KR.dcm", "CT2_JPLL", "J2K_pixelrep_mismatch.dcm")),
    "ts/CTImage.dcm_JPEGProcess2_4TransferSyntax_1.2.840.10008.1.2.4.51.dcm",
    "geometry/2024-05-30-GuillemVela.dcm",
    "geometry/CT_small.dcm",
    "broken/explicit_VR-UN.dcm",
}
"""Some of the files whose pixels are read where nothing is asked of the series around them."""


def probed(files: list[Path]) -> Iterator[tuple[Path, str, str, float, int]]:
    """Of every file, posted alone and read without a series: both codes, CPU seconds and peak memory (kB), children included."""
    names = "\n".join(map(str, files))
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(__file__).parents[2])}
    result = subprocess.run(
        [sys.executable, "-c", PROBE], input=names, capture_output=True, check=True, text=True, env=environment
    )
    for line in result.stdout.splitlines():
        name, *answers = json.loads(line)
        yield Path(name), *answers


@pytest.mark.long("files")
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from Linux's /proc")
def test_every_odd_file_ends_in_a_right_reading_or_a_clear_code_within_its_bounds(shared: Path) -> None:
    """5 s and 500 MB for each; any other exception fails the probe itself."""
    files = dicom_files(shared / ODD)
    answers = {str(path.relative_to(shared / ODD)): found for path, *found in probed(files)}
    assert len(answers) == len(files)
    assert max(seconds for *_, seconds, _ in answers.values()) < 5
    assert max(peak for *_, peak in answers.values()) < 500_000
    assert {name: answers[name][0] for name in EXPECTED_CODES} == EXPECTED_CODES
    alone = {name: code for name, (_, code, *_) in answers.items()}
    assert {name: alone[name] for name in READABLE_ALONE} == dict.fromkeys(READABLE_ALONE, "accepted")
    assert set(alone.values()) == {"accepted", "damaged", "series.not_dicom", "series.unsupported_pixel_data"}

"""Enhanced multi-frame CT: the same slices as from single files, each frame in its own plane, or a clear refusal."""

import random
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from oarlock import errors
from oarlock.ct import sorting
from oarlock.ct.series import SeriesHeader, check_headers, read_ct_series
from oarlock.dicom.elements import read_elements
from oarlock.organs.catalogue import OAR
from oarlock.rtstruct.placing import rois_to_masks
from oarlock.rtstruct.reader import read_structure_set
from oarlock.rtstruct.validator import check_rtstruct
from oarlock.rtstruct.writer import write_rtstruct
from tests.fixtures import judges
from tests.fixtures.multiframe import SOP_CLASSES, Edit, write_multi_frame
from tests.fixtures.organs import AUTHORSHIP, Series, awkward_masks, write_series


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> Series:
    return write_series(tmp_path_factory.mktemp("series"))


@pytest.fixture(scope="module")
def shuffled(series: Series) -> list[Path]:
    """Frames follow nothing: their order in the file is not that of the slices."""
    return random.Random(7).sample(series.files, len(series.files))


def assert_the_same_series(found: SeriesHeader, series: Series) -> None:
    wanted = series.header
    np.testing.assert_array_equal(found.grid.origins_mm, wanted.grid.origins_mm)
    np.testing.assert_array_equal(found.grid.row_direction, wanted.grid.row_direction)
    np.testing.assert_array_equal(found.grid.column_direction, wanted.grid.column_direction)
    assert found.grid.spacing_mm == wanted.grid.spacing_mm
    assert found.frame_of_reference_uid == wanted.frame_of_reference_uid
    assert found.template == wanted.template
    np.testing.assert_array_equal(read_ct_series(found).hu, read_ct_series(wanted).hu)


# ── read ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("sop_class", SOP_CLASSES)
def test_the_frames_are_the_slices_wherever_they_stand_in_the_file(
    sop_class: str, shuffled: list[Path], series: Series, tmp_path: Path
) -> None:
    header = check_headers([write_multi_frame(tmp_path / "a.dcm", shuffled, sop_class=sop_class)])
    assert header.warnings == ()
    assert_the_same_series(header, series)
    assert [shuffled[instance.frame - 1] for instance in header.instances if instance.frame] == series.files
    assert {(i.sop_instance_uid, i.sop_class_uid, i.frames) for i in header.instances} == {("2.25.77", SOP_CLASSES[sop_class], 9)}


def encoded_as(syntax: UID) -> Edit:
    def edit(dataset: Dataset) -> None:
        dataset.file_meta.TransferSyntaxUID = syntax
        if syntax == ExplicitVRBigEndian:
            dataset.PixelData = np.frombuffer(dataset.PixelData, "<u2").astype(">u2").tobytes()

    return edit


@pytest.mark.parametrize("undefined", [False, True], ids=["defined lengths", "undefined lengths"])
@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_every_encoding_of_the_data_set_is_read(
    syntax: UID, undefined: bool, shuffled: list[Path], series: Series, tmp_path: Path
) -> None:
    def lengths(dataset: Dataset) -> None:
        for element in dataset.iterall():
            if element.VR == "SQ":
                element.is_undefined_length = undefined
                for item in element.value:
                    item.is_undefined_length_sequence_item = undefined

    path = write_multi_frame(tmp_path / "a.dcm", shuffled, lengths)
    dataset = pydicom.dcmread(path)
    encoded_as(syntax)(dataset)
    little = syntax != ExplicitVRBigEndian
    pydicom.dcmwrite(path, dataset, implicit_vr=syntax == ImplicitVRLittleEndian, little_endian=little)
    assert_the_same_series(check_headers([path]), series)


def fragmented(pieces: int, *, table: bool) -> Edit:
    def edit(dataset: Dataset) -> None:
        frames = list(generate_frames(dataset.PixelData, number_of_frames=dataset.NumberOfFrames))
        dataset.PixelData = encapsulate(frames, fragments_per_frame=pieces, has_bot=table)

    return edit


@pytest.mark.slow
@pytest.mark.parametrize("table", [True, False], ids=["offset table", "none"])
@pytest.mark.parametrize(
    ("syntax", "pieces"), [(JPEGLSLossless, 1), (JPEGLSLossless, 3), (JPEG2000Lossless, 4), (RLELossless, 1)]
)
def test_every_frame_is_decoded_from_its_own_fragments(
    syntax: UID, pieces: int, table: bool, shuffled: list[Path], series: Series, tmp_path: Path
) -> None:
    def compressed(dataset: Dataset) -> None:
        dataset.compress(syntax, generate_instance_uid=False)

    header = check_headers([write_multi_frame(tmp_path / "a.dcm", shuffled, compressed, fragmented(pieces, table=table))])
    assert_the_same_series(header, series)


def test_each_frame_may_have_a_rescale_and_a_plane_of_its_own(series: Series, tmp_path: Path) -> None:
    """Groups that stand with each frame instead of with all, and a rescale that differs from frame to frame."""

    def own(dataset: Dataset) -> None:
        (shared,) = dataset.SharedFunctionalGroupsSequence
        for i, groups in enumerate(dataset.PerFrameFunctionalGroupsSequence):
            groups.PlaneOrientationSequence, groups.PixelMeasuresSequence = (
                shared.PlaneOrientationSequence,
                shared.PixelMeasuresSequence,
            )
            rescale = Dataset()
            rescale.RescaleIntercept, rescale.RescaleSlope, rescale.RescaleType = -1024 + 10 * i, 1, "HU"
            groups.PixelValueTransformationSequence = [rescale]
        for keyword in ("PlaneOrientationSequence", "PixelMeasuresSequence", "PixelValueTransformationSequence"):
            delattr(shared, keyword)

    header = check_headers([write_multi_frame(tmp_path / "a.dcm", series.files, own)])
    shift = 10 * np.arange(9)[:, None, None]
    np.testing.assert_array_equal(read_ct_series(header).hu, read_ct_series(series.header).hu + shift)


def test_one_series_may_come_in_several_objects(series: Series, tmp_path: Path) -> None:
    """A concatenation (PS3.3 C.7.6.16.2.2.4), or a series whose last slices came alone."""
    first = write_multi_frame(tmp_path / "a.dcm", series.files[5:], uid="2.25.1")
    second = write_multi_frame(tmp_path / "b.dcm", series.files[:3], uid="2.25.2")
    header = check_headers([first, *series.files[3:5], second])
    assert_the_same_series(header, series)
    assert [(i.sop_instance_uid, i.frame, i.frames) for i in header.instances][::4] == [
        ("2.25.2", 1, 3),
        (header.instances[4].sop_instance_uid, None, 1),
        ("2.25.1", 4, 4),
    ]


def test_the_same_object_twice_counts_once(series: Series, tmp_path: Path) -> None:
    first = write_multi_frame(tmp_path / "a.dcm", series.files)
    (tmp_path / "b.dcm").write_bytes(first.read_bytes())
    header = check_headers([first, tmp_path / "b.dcm"])
    assert [warning.code for warning in header.warnings] == ["series.duplicate_ignored"]
    assert_the_same_series(header, series)


def test_what_a_frame_does_not_say_is_not_taken_from_the_top_level(series: Series, tmp_path: Path) -> None:
    def misplaced(dataset: Dataset) -> None:
        del dataset.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence
        dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]

    with pytest.raises(errors.GeometryMissing, match="ImageOrientationPatient"):
        check_headers([write_multi_frame(tmp_path / "a.dcm", series.files, misplaced)])


def test_another_region_of_the_body_warns(series: Series, tmp_path: Path) -> None:
    def pelvis(dataset: Dataset) -> None:
        region = dataset.SharedFunctionalGroupsSequence[0].FrameAnatomySequence[0].AnatomicRegionSequence[0]
        region.CodeMeaning = "Pelvis"

    header = check_headers([write_multi_frame(tmp_path / "a.dcm", series.files, pelvis)])
    assert [warning.code for warning in header.warnings] == ["series.other_body_part"]


# ── written ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def with_a_scout(dataset: Dataset) -> None:
    """A tenth frame, in front of the others, that is a localizer of another orientation."""
    scout, frame_type, plane = Dataset(), Dataset(), Dataset()
    frame_type.FrameType = ["ORIGINAL", "PRIMARY", "LOCALIZER", "NONE"]
    plane.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]
    scout.CTImageFrameTypeSequence, scout.PlaneOrientationSequence = [frame_type], [plane]
    scout.PlanePositionSequence = dataset.PerFrameFunctionalGroupsSequence[0].PlanePositionSequence
    dataset.PerFrameFunctionalGroupsSequence.insert(0, scout)
    dataset.NumberOfFrames += 1
    dataset.PixelData = b"\0" * (len(dataset.PixelData) // 9) + dataset.PixelData


def listed_images(dataset: Dataset) -> Any:
    (study,) = dataset.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence
    return study.RTReferencedSeriesSequence[0].ContourImageSequence


def contours(dataset: Dataset) -> list[Dataset]:
    return [contour for roi in dataset.ROIContourSequence for contour in roi.get("ContourSequence", [])]


@pytest.mark.parametrize("scout", [False, True], ids=["slices alone", "with a localizer frame"])
def test_contours_name_their_frame_and_the_masks_come_back(
    scout: bool, series: Series, shuffled: list[Path], tmp_path: Path
) -> None:
    ct = write_multi_frame(tmp_path / "ct.dcm", shuffled, *([with_a_scout] if scout else []), sop_class="legacy converted")
    header, path, masks = check_headers([ct]), tmp_path / "rtstruct.dcm", awkward_masks()
    one = ("series.localizer_set_aside", "1 file(s) are not axial CT images (CT localizer) and were ignored.")
    assert [(warning.code, warning.detail) for warning in header.warnings] == ([one] if scout else [])
    write_rtstruct(path, masks, header, AUTHORSHIP)
    assert check_rtstruct(path, header, masks) == []
    dataset, source = pydicom.dcmread(path), pydicom.dcmread(ct)
    (image,) = listed_images(dataset)
    assert (image.ReferencedSOPClassUID, image.ReferencedSOPInstanceUID) == (source.SOPClassUID, source.SOPInstanceUID)
    assert image.get("ReferencedFrameNumber") == (list(range(2, 11)) if scout else None)
    for contour in contours(dataset):
        (reference,) = contour.ContourImageSequence
        groups = source.PerFrameFunctionalGroupsSequence[reference.ReferencedFrameNumber - 1]
        z = {float(value) for value in contour.ContourData[2::3]}
        assert z == {float(groups.PlanePositionSequence[0].ImagePositionPatient[2])}
    assert_reads_back(path, header, masks.oars)
    assert judges.dciodvfy(path) == []
    assert judges.drtdump(path) == []
    assert judges.dcentvfy([ct, path]) == ""


def assert_reads_back(path: Path, header: SeriesHeader, oars: tuple[OAR, ...]) -> None:
    found = read_structure_set(path)
    masks, _, *_ = rois_to_masks(found, header, {oar: roi.number for oar, roi in zip(oars, found.rois, strict=True)})
    for oar in oars:
        np.testing.assert_array_equal(masks.mask(oar), awkward_masks().mask(oar))


WRONG_REFERENCES: dict[str, tuple[Edit, str]] = {
    "the next frame": (
        lambda d: setattr(contours(d)[0].ContourImageSequence[0], "ReferencedFrameNumber", 9),
        "off the plane of its slice",
    ),
    "no frame": (
        lambda d: delattr(contours(d)[0].ContourImageSequence[0], "ReferencedFrameNumber"),
        "does not name exactly one image",
    ),
    "a frame that there is not": (
        lambda d: setattr(contours(d)[0].ContourImageSequence[0], "ReferencedFrameNumber", 10),
        "does not name exactly one image",
    ),
    "some frames": (
        lambda d: setattr(listed_images(d)[0], "ReferencedFrameNumber", [1, 2, 3]),
        "the frames that are referenced are not those of the series",
    ),
}


@pytest.mark.parametrize("wrong", WRONG_REFERENCES)
def test_the_check_finds_a_wrong_frame(wrong: str, series: Series, tmp_path: Path) -> None:
    header = check_headers([write_multi_frame(tmp_path / "ct.dcm", series.files)])
    path = tmp_path / "rtstruct.dcm"
    write_rtstruct(path, awkward_masks(), header, AUTHORSHIP)
    dataset = pydicom.dcmread(path)
    edit, finding = WRONG_REFERENCES[wrong]
    edit(dataset)
    dataset.save_as(path)
    assert any(finding in found for found in check_rtstruct(path, header))


# ── refused ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def shared(dataset: Dataset) -> Dataset:
    item: Dataset = dataset.SharedFunctionalGroupsSequence[0]
    return item


def set_frame_type(keyword: str, value: str) -> Edit:
    return lambda d: setattr(shared(d).CTImageFrameTypeSequence[0], keyword, value)


REFUSED: dict[str, tuple[Edit, type[errors.SeriesError], str]] = {
    "a plane is missing": (
        lambda d: delattr(d.PerFrameFunctionalGroupsSequence[4], "PlanePositionSequence"),
        errors.GeometryMissing,
        "ImagePositionPatient",
    ),
    "no pixel measures": (lambda d: delattr(shared(d), "PixelMeasuresSequence"), errors.GeometryMissing, "PixelSpacing"),
    "no rescale": (
        lambda d: delattr(shared(d), "PixelValueTransformationSequence"),
        errors.UnsupportedPixelData,
        "no valid Rescale",
    ),
    "a frame is missing": (
        lambda d: d.PerFrameFunctionalGroupsSequence.pop(),
        errors.MultiFrameCT,
        "claims 9 frames and has functional groups for 8",
    ),
    "no functional groups": (lambda d: delattr(d, "PerFrameFunctionalGroupsSequence"), errors.MultiFrameCT, "groups for 0"),
    "too many frames": (lambda d: setattr(d, "NumberOfFrames", 999_999_999), errors.MultiFrameCT, "claims 999999999 frames"),
    "no frames": (lambda d: setattr(d, "NumberOfFrames", 0), errors.MultiFrameCT, "claims 0 frames"),
    "pixels are missing": (
        lambda d: setattr(d, "PixelData", d.PixelData[:-2]),
        errors.MultiFrameCT,
        "9 frames of 61 × 53 pixels need 58194 bytes and 58192 are there",
    ),
    "no pixels": (lambda d: delattr(d, "PixelData"), errors.MultiFrameCT, "no pixel data"),
    "colour": (set_frame_type("PixelPresentation", "COLOR"), errors.MultiFrameCT, "shown in colour"),
    "projections": (set_frame_type("VolumeBasedCalculationTechnique", "MAX_IP"), errors.MultiFrameCT, "projections"),
    "distorted": (set_frame_type("VolumetricProperties", "DISTORTED"), errors.MultiFrameCT, "not a plain volume"),
    "palette": (
        lambda d: setattr(d, "PhotometricInterpretation", "PALETTE COLOR"),
        errors.UnsupportedPixelData,
        "not a grey image",
    ),
    "two phases": (
        lambda d: setattr(
            d.PerFrameFunctionalGroupsSequence[4],
            "PlanePositionSequence",
            d.PerFrameFunctionalGroupsSequence[3].PlanePositionSequence,
        ),
        errors.DuplicatePosition,
        "2 slices lie at the same position",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_no_complete_stack_is_refused_for_its_fault(what: str, series: Series, tmp_path: Path) -> None:
    edit, error, message = REFUSED[what]
    path = write_multi_frame(tmp_path / "a.dcm", series.files, edit)
    with pytest.raises(error, match=message) as caught:
        check_headers([path])
    assert "Phantom" not in str(caught.value)


def test_a_gap_between_frames_is_named(series: Series, tmp_path: Path) -> None:
    with pytest.raises(errors.MissingSlices, match=r"slices 4 and 5 .* 5\.000 mm where 2\.500 mm"):
        check_headers([write_multi_frame(tmp_path / "a.dcm", series.files[:4] + series.files[5:])])


def test_every_second_frame_alone_is_refused_by_the_numbers_in_the_stack(series: Series, tmp_path: Path) -> None:
    def thinned(dataset: Dataset) -> None:
        size = dataset.Rows * dataset.Columns * 2
        kept = [dataset.PixelData[place : place + size] for place in range(0, len(dataset.PixelData), 2 * size)]
        dataset.PixelData, dataset.NumberOfFrames = b"".join(kept), len(kept)
        dataset.PerFrameFunctionalGroupsSequence = dataset.PerFrameFunctionalGroupsSequence[::2]
        del shared(dataset).PixelMeasuresSequence[0].SliceThickness

    with pytest.raises(errors.MissingSlices, match="numbers go up in steps of 2"):
        check_headers([write_multi_frame(tmp_path / "half", [one.path for one in series.header.instances], thinned)])


def test_a_part_of_a_concatenation_that_has_not_come_is_told(series: Series, tmp_path: Path) -> None:
    def part(number: int) -> Edit:
        def edit(dataset: Dataset) -> None:
            dataset.ConcatenationUID, dataset.InConcatenationTotalNumber = "2.25.5", 2
            dataset.InConcatenationNumber = number

        return edit

    files = [instance.path for instance in series.header.instances]
    first, second = (
        write_multi_frame(tmp_path / str(number), files[chosen], part(number), uid=f"2.25.{number}")
        for number, chosen in ((1, slice(4)), (2, slice(4, None)))
    )
    assert "series.maybe_incomplete" not in [warning.code for warning in check_headers([first, second]).warnings]
    (warning,) = (w for w in check_headers([first]).warnings if w.code == "series.maybe_incomplete")
    assert "in 2 parts by its own count (a concatenation), and 1 have come" in warning.detail


def test_frames_count_as_slices(series: Series, tmp_path: Path) -> None:
    path = write_multi_frame(tmp_path / "a.dcm", series.files)
    with pytest.raises(errors.TooManySlices, match="9 slices; this server takes at most 8"):
        check_headers([path], max_slices=8)


def test_what_several_files_hold_counts_together(series: Series, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames, and elements in sequences of defined length, which the first look at a file passes over unread."""
    files = [write_multi_frame(tmp_path / f"{i}.dcm", series.files[3 * i : 3 * i + 3], uid=f"2.25.{i + 1}") for i in range(3)]
    assert sorting.MAX_UPLOAD_FRAMES == 16_384
    monkeypatch.setattr(sorting, "MAX_UPLOAD_FRAMES", 9)
    check_headers(files)
    monkeypatch.setattr(sorting, "MAX_UPLOAD_FRAMES", 8)
    with pytest.raises(errors.MultiFrameCT, match=r"File 3 .* claims 3 frames, and an upload may hold 8"):
        check_headers(files)
    monkeypatch.undo()
    seen_at_first = sum(header.visited for path in files if (header := read_elements(path, (), keep=lambda _: True)))
    monkeypatch.setattr("oarlock.ct.sorting.MAX_UPLOAD_ELEMENTS", seen_at_first + 50)
    with pytest.raises(errors.InstanceUnreadable, match=r"the headers up to it hold more than \d+ elements"):
        check_headers(files)


def test_several_frames_in_the_class_for_one_are_refused(series: Series, tmp_path: Path) -> None:
    def single(dataset: Dataset) -> None:
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"

    with pytest.raises(errors.MultiFrameCT, match="class for single frames"):
        check_headers([write_multi_frame(tmp_path / "a.dcm", series.files, single)])


def test_a_deflated_multi_frame_image_is_refused(series: Series, tmp_path: Path) -> None:
    def deflated(dataset: Dataset) -> None:
        dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian

    with pytest.raises(errors.MultiFrameCT, match="not read deflated"):
        check_headers([write_multi_frame(tmp_path / "a.dcm", series.files, deflated)])


@pytest.mark.parametrize("damage", ["frame", "tail", "delimiter"])
def test_compressed_frames_that_are_not_all_there_are_refused(damage: str, series: Series, tmp_path: Path) -> None:
    def compressed(dataset: Dataset) -> None:
        dataset.compress(JPEGLSLossless, generate_instance_uid=False)
        frames = list(generate_frames(dataset.PixelData, number_of_frames=9))
        if damage == "frame":
            frames = frames[:-1]
        if damage == "tail":
            frames[4] = frames[4][: len(frames[4]) // 4 * 2]
        dataset.PixelData = encapsulate(frames, fragments_per_frame=2, has_bot=False)

    path = write_multi_frame(tmp_path / "a.dcm", series.files, compressed)
    if damage == "delimiter":
        path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(errors.MultiFrameCT, match=r"frames and its compressed data hold 8|cut off or not in fragments"):
        check_headers([path])


@given(data=st.data())
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_no_flipped_bytes_make_it_fail_otherwise(data: Any, series: Series, tmp_path: Path) -> None:
    path = tmp_path / "a.dcm"
    if not path.exists():
        write_multi_frame(path, series.files[:3])
    content = bytearray(path.read_bytes())
    at = data.draw(st.integers(132, len(content) - 20_000))
    content[at : at + 4] = data.draw(st.binary(min_size=1, max_size=4))
    changed = tmp_path / "changed.dcm"
    changed.write_bytes(content)
    with suppress(errors.SeriesError):
        read_ct_series(check_headers([changed]))

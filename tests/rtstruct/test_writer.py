"""The RTSTRUCT that planning systems import."""

from copy import deepcopy
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pydicom
import pytest
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.uid import ImplicitVRLittleEndian

from oarlock import __version__
from oarlock.facts import ModelFacts
from oarlock.geometry.contours import PlanarContour
from oarlock.geometry.masks import OARMasks
from oarlock.organs.catalogue import BY_NAME, OARS
from oarlock.rtstruct import writer as rtstruct
from oarlock.rtstruct.profiles import GENERIC
from oarlock.rtstruct.writer import write_rtstruct
from tests.fixtures import judges
from tests.fixtures.organs import AUTHORSHIP, Series, awkward_masks


@pytest.fixture(scope="module")
def path(series: Series, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rtstruct") / "rtstruct.dcm"
    write_rtstruct(path, series.masks, series.header, AUTHORSHIP)
    return path


@pytest.fixture(scope="module")
def dataset(path: Path) -> Dataset:
    return pydicom.dcmread(path)


def contours_of(dataset: Dataset) -> list[Dataset]:
    return [contour for roi in dataset.ROIContourSequence for contour in roi.get("ContourSequence", [])]


def test_the_validators_have_nothing_to_say(path: Path, series: Series) -> None:
    assert judges.dciodvfy(path) == []
    assert judges.drtdump(path) == []
    assert judges.dcentvfy([*series.files, path]) == ""


def test_the_same_input_gives_the_same_bytes(path: Path, series: Series, tmp_path: Path) -> None:
    write_rtstruct(tmp_path / "again.dcm", awkward_masks(), series.header, AUTHORSHIP)
    assert (tmp_path / "again.dcm").read_bytes() == path.read_bytes()


def test_another_job_has_other_uids(dataset: Dataset, series: Series, tmp_path: Path) -> None:
    other = rtstruct.Authorship("another job", AUTHORSHIP.created_at, AUTHORSHIP.model)
    written = write_rtstruct(tmp_path / "other.dcm", series.masks, series.header, other)
    found = pydicom.dcmread(tmp_path / "other.dcm")
    assert written.sop_instance_uid == found.SOPInstanceUID != dataset.SOPInstanceUID
    assert found.SeriesInstanceUID != dataset.SeriesInstanceUID


def test_all_uids_of_our_own_are_under_2_25_and_no_series_is_that_of_the_ct(dataset: Dataset, series: Series) -> None:
    own = {dataset.SOPInstanceUID, dataset.SeriesInstanceUID, dataset.file_meta.ImplementationClassUID}
    assert len(own) == 3
    assert all(uid.startswith("2.25.") and len(uid) <= 64 and uid.is_valid for uid in own)
    assert dataset.SeriesInstanceUID != series.header.series_instance_uid


TYPE_2 = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID", "AccessionNumber"),
    *("ReferringPhysicianName", "OperatorsName", "SeriesNumber", "Manufacturer", "StructureSetDate", "StructureSetTime"),
    "PositionReferenceIndicator",
)


def test_type_2_attributes_are_present_even_where_the_ct_has_none(series: Series, tmp_path: Path) -> None:
    write_rtstruct(tmp_path / "rtstruct.dcm", series.masks, replace(series.header, template=Dataset()), AUTHORSHIP)
    assert [keyword for keyword in TYPE_2 if keyword not in pydicom.dcmread(tmp_path / "rtstruct.dcm")] == []


def test_it_is_unapproved_and_says_who_drew_it(dataset: Dataset) -> None:
    assert dataset.ApprovalStatus == "UNAPPROVED"
    assert dataset.SeriesDescription == "Oarlock contours (UNAPPROVED)"
    named = [str(dataset.ManufacturerModelName), "\n".join(dataset.SoftwareVersions)]
    assert all("oarlock-hn" in text for text in named)
    for fact in ("Oarlock", __version__, "oarlock-hn 1.2.3", "0123456789ab"):
        assert fact in "\n".join(dataset.SoftwareVersions)
        for roi in dataset.StructureSetROISequence:
            assert fact in roi.ROIGenerationDescription


def test_series_and_instance_have_the_numbers_of_the_conformance_page(dataset: Dataset) -> None:
    assert (dataset.SeriesNumber, dataset.InstanceNumber) == (9021, 1)


def test_times_are_those_of_the_job(dataset: Dataset) -> None:
    assert (dataset.StructureSetDate, dataset.StructureSetTime) == ("20261123", "101112")
    assert (dataset.InstanceCreationDate, dataset.InstanceCreationTime) == ("20261123", "101112")


def stating(series: Series, offset: str) -> Series:
    """The series, as if its images stated an offset from UTC."""
    template = deepcopy(series.header.template)
    template.add(DataElement(0x00080201, "SH", offset))
    return replace(series, header=replace(series.header, template=template))


def test_times_are_in_the_timezone_that_the_ct_states(series: Series, tmp_path: Path) -> None:
    found = made(stating(series, "+1345"), tmp_path, AUTHORSHIP.created_at)
    assert (found.TimezoneOffsetFromUTC, found.StructureSetDate, found.StructureSetTime) == ("+1345", "20261123", "235612")


CHICAGO = ZoneInfo("America/Chicago")


def made(series: Series, folder: Path, moment: datetime) -> Dataset:
    write_rtstruct(folder / "rtstruct.dcm", series.masks, series.header, replace(AUTHORSHIP, created_at=moment))
    return pydicom.dcmread(folder / "rtstruct.dcm")


@pytest.mark.parametrize(
    ("moment", "offset", "date", "time", "label"),
    [
        # 19:30 in Chicago on 5 March is 01:30 UTC on the 6th, in winter six hours behind, and on 5 June five.
        (datetime(2026, 3, 6, 1, 30, tzinfo=UTC), "-0600", "20260305", "193000", "OARLOCK 260305"),
        (datetime(2026, 6, 6, 0, 30, tzinfo=UTC), "-0500", "20260605", "193000", "OARLOCK 260605"),
    ],
    ids=["winter", "summer"],
)
def test_dates_times_and_label_are_those_of_the_site(
    moment: datetime, offset: str, date: str, time: str, label: str, series: Series, tmp_path: Path
) -> None:
    found = made(series, tmp_path, moment.astimezone(CHICAGO))
    assert found.TimezoneOffsetFromUTC == offset
    for kind in ("StructureSet", "InstanceCreation", "Series"):
        assert (found[f"{kind}Date"].value, found[f"{kind}Time"].value) == (date, time)
    assert found.StructureSetLabel == label
    assert judges.dciodvfy(tmp_path / "rtstruct.dcm") == []


def test_the_offset_is_written_where_the_site_keeps_utc(dataset: Dataset) -> None:
    assert dataset.TimezoneOffsetFromUTC == "+0000"


@pytest.mark.parametrize(
    ("stated", "written", "time"),
    [("+1400", "+1400", "001112"), ("-1200", "-1200", "221112"), ("+1560", "-0600", "041112"), ("UTC", "-0600", "041112")],
)
def test_the_offset_of_the_ct_outweighs_the_sites_unless_it_is_none(
    stated: str, written: str, time: str, series: Series, tmp_path: Path
) -> None:
    found = made(stating(series, stated), tmp_path, AUTHORSHIP.created_at.astimezone(CHICAGO))
    assert (found.TimezoneOffsetFromUTC, found.StructureSetTime) == (written, time)


def test_short_strings_are_short(dataset: Dataset) -> None:
    assert len(dataset.StructureSetLabel) <= 16
    assert all(len(observation.ROIObservationLabel) <= 16 for observation in dataset.RTROIObservationsSequence)


def test_long_names_of_models_are_cut_to_fit(series: Series, tmp_path: Path) -> None:
    model = ModelFacts("modèle\\" * 30, "1.0-rc.1+build.4711", "f" * 64)
    authorship = rtstruct.Authorship("job", AUTHORSHIP.created_at, model)
    write_rtstruct(tmp_path / "rtstruct.dcm", series.masks, series.header, authorship)
    assert judges.dciodvfy(tmp_path / "rtstruct.dcm") == []
    assert len(authorship.identity) == 64
    assert authorship.identity.endswith(f" (ffffffffffff), Oarlock {__version__}")
    found = pydicom.dcmread(tmp_path / "rtstruct.dcm", stop_before_pixels=True)
    assert len(found.StructureSetName) == len(found.ManufacturerModelName) == 64
    assert [len(text) for text in found.SoftwareVersions] == [len(f"Oarlock {__version__}"), 64, len("sha256 ") + 48]


@pytest.mark.parametrize("field", ["model", "version"])
def test_a_label_has_room_for_sixteen_characters_of_a_model_or_its_version(field: str, series: Series, tmp_path: Path) -> None:
    model = ModelFacts("neck-2026-edited", "10.200.300-rc.45", "f" * 64)
    authorship = replace(AUTHORSHIP, model=model)
    profile = replace(GENERIC, label=f"{{{field}}}")
    write_rtstruct(tmp_path / "rtstruct.dcm", OARMasks.empty(OARS, series.masks.shape), series.header, authorship, profile)
    found = pydicom.dcmread(tmp_path / "rtstruct.dcm").StructureSetLabel
    assert found == {"model": model.name, "version": model.version}[field]


def test_a_version_too_long_for_a_long_string_is_cut_and_leaves_no_room_for_the_name() -> None:
    long = replace(AUTHORSHIP, model=replace(AUTHORSHIP.model, version="v" * 70))
    assert long.identity == " " + "v" * 63


def test_the_version_of_the_implementation_is_cut_to_the_sixteen_characters_of_a_short_string(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rtstruct, "__version__", "10.20.30.dev40")
    assert rtstruct.file_meta(dataset, ImplicitVRLittleEndian).ImplementationVersionName == "OARLOCK_10.20.30"


def test_an_organ_of_a_part_names_the_part_and_the_first_twelve_figures_of_its_digest() -> None:
    parts = {"Brain": ("box", "0123456789abcdef" * 4), "Brainstem": ("a-part-with-a-long-name" * 3, "f" * 64)}
    authorship = replace(AUTHORSHIP, parts=parts)
    assert authorship.drawn_by(BY_NAME["Brain"]) == "oarlock-hn 1.2.3, part box (0123456789ab)"
    assert authorship.drawn_by(BY_NAME["Brainstem"]) == " 1.2.3, part " + ("a-part-with-a-long-name" * 3)[:51]
    assert authorship.drawn_by(BY_NAME["SpinalCord"]) == authorship.identity
    long = replace(authorship, model=replace(AUTHORSHIP.model, name="m" * 70))
    assert long.drawn_by(BY_NAME["Brain"]) == "m" * 33 + " 1.2.3, part box (0123456789ab)"


def test_each_roi_is_an_organ_drawn_automatically_with_its_code_and_colour(dataset: Dataset, series: Series) -> None:
    for i, oar in enumerate(series.masks.oars):
        roi, drawn, observed = (
            sequence[i]
            for sequence in (dataset.StructureSetROISequence, dataset.ROIContourSequence, dataset.RTROIObservationsSequence)
        )
        assert roi.ROINumber == drawn.ReferencedROINumber == observed.ReferencedROINumber == i + 1
        assert (roi.ROIName, roi.ROIGenerationAlgorithm, observed.RTROIInterpretedType) == (oar.name, "AUTOMATIC", "ORGAN")
        assert roi.ReferencedFrameOfReferenceUID == series.header.frame_of_reference_uid
        assert tuple(drawn.ROIDisplayColor) == oar.colour
        (code,) = observed.RTROIIdentificationCodeSequence
        assert (code.CodeValue, code.CodingSchemeDesignator) == (oar.snomed_code, "SCT")
        modifiers = [modifier.CodeMeaning for modifier in code.get("SegmentedPropertyTypeModifierCodeSequence", [])]
        assert modifiers == ({"L": ["Left"], "R": ["Right"]}[oar.name[-1]] if oar.laterality else [])


def test_an_empty_roi_is_listed_without_contours_and_warned_about(dataset: Dataset, series: Series, tmp_path: Path) -> None:
    written = write_rtstruct(tmp_path / "rtstruct.dcm", series.masks, series.header, AUTHORSHIP)
    assert [(warning.code, "Lens_R" in warning.detail) for warning in written.warnings] == [("rtstruct.empty_roi", True)]
    assert written.contours["Lens_R"] == []
    assert "ContourSequence" not in dataset.ROIContourSequence[4]
    assert len(dataset.StructureSetROISequence) == len(dataset.RTROIObservationsSequence) == 5


@pytest.mark.parametrize(("kept", "roi"), [(True, "its ROI has no contours"), (False, "the profile leaves its ROI out")])
def test_a_warning_says_whether_an_empty_roi_is_listed(kept: bool, roi: str, series: Series, tmp_path: Path) -> None:
    profile = replace(GENERIC, keep_empty=kept)
    written = write_rtstruct(tmp_path / "rtstruct.dcm", series.masks, series.header, AUTHORSHIP, profile)
    assert [warning.detail for warning in written.warnings] == [f"Lens_R is empty: the model drew nothing, and {roi}."]


def test_it_references_exactly_the_instances_received(dataset: Dataset, series: Series) -> None:
    (frame,) = dataset.ReferencedFrameOfReferenceSequence
    (study,) = frame.RTReferencedStudySequence
    (referenced,) = study.RTReferencedSeriesSequence
    assert frame.FrameOfReferenceUID == dataset.FrameOfReferenceUID == series.header.frame_of_reference_uid
    assert study.ReferencedSOPInstanceUID == dataset.StudyInstanceUID == series.header.study_instance_uid
    assert referenced.SeriesInstanceUID == series.header.series_instance_uid
    listed = [image.ReferencedSOPInstanceUID for image in referenced.ContourImageSequence]
    assert listed == [pydicom.dcmread(file).SOPInstanceUID for file in series.files]


def test_frames_are_numbered_where_not_all_of_an_image_are_meant(series: Series, tmp_path: Path) -> None:
    """Nine slices of two images: all six frames of one, and three of four frames of the other, in an order of their own."""
    frames = [*(("1.1", frame, 6) for frame in (1, 2, 3, 4, 5, 6)), *(("1.2", frame, 4) for frame in (4, 1, 2))]
    instances = tuple(
        replace(instance, sop_instance_uid=uid, frame=frame, frames=of)
        for instance, (uid, frame, of) in zip(series.header.instances, frames, strict=True)
    )
    write_rtstruct(tmp_path / "rtstruct.dcm", series.masks, replace(series.header, instances=instances), AUTHORSHIP)
    found = pydicom.dcmread(tmp_path / "rtstruct.dcm")
    study = found.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence[0]
    images = study.RTReferencedSeriesSequence[0].ContourImageSequence
    assert [(image.ReferencedSOPInstanceUID, image.get("ReferencedFrameNumber")) for image in images] == [
        ("1.1", None),
        ("1.2", [1, 2, 4]),
    ]
    named = {
        round((float(contour.ContourData[2]) + 402.5) / 2.5): contour.ContourImageSequence[0] for contour in contours_of(found)
    }
    assert {z: (image.ReferencedSOPInstanceUID, image.ReferencedFrameNumber, frames[z][2]) for z, image in named.items()} == {
        z: frames[z] for z in range(9)
    }


def test_every_contour_names_its_own_slice_and_lies_in_its_plane(dataset: Dataset, series: Series) -> None:
    images = {image.SOPInstanceUID: image for image in map(pydicom.dcmread, series.files)}
    for contour in contours_of(dataset):
        (reference,) = contour.ContourImageSequence
        image = images[reference.ReferencedSOPInstanceUID]
        assert reference.ReferencedSOPClassUID == image.SOPClassUID
        points = np.array(contour.ContourData, dtype=float).reshape(-1, 3)
        assert np.abs(points[:, 2] - float(image.ImagePositionPatient[2])).max() <= 0.001  # axial: the plane is one z


def test_contours_are_closed_planar_of_at_least_three_distinct_points(dataset: Dataset) -> None:
    found = contours_of(dataset)
    assert found
    assert [contour.ContourNumber for contour in dataset.ROIContourSequence[2].ContourSequence] == [*range(1, 8)]
    for contour in found:
        points = np.array(contour.ContourData, dtype=float).reshape(-1, 3)
        assert contour.ContourGeometricType == "CLOSED_PLANAR"
        assert contour.NumberOfContourPoints == len(points) == len(np.unique(points, axis=0)) >= 3


def test_numbers_have_at_most_three_decimals_and_sixteen_characters(dataset: Dataset) -> None:
    for contour in contours_of(dataset):
        strings = [number.original_string for number in contour.ContourData]
        assert max(map(len, strings)) <= 16
        assert all(len(string.partition(".")[2]) <= 3 and "e" not in string for string in strings)


def test_numbers_are_written_as_decimal_strings_wherever_the_patient_lies() -> None:
    points = np.array([[-0.0001, 0.0004, -0.0], [123456.78949, -98765.4321, 1e-7], [1.0, -2.5, 0.001]])
    (text,) = rtstruct._decimal_strings([PlanarContour(0, points)])
    assert text == rb"0.0\0.0\0.0\123456.789\-98765.432\0.0\1.0\-2.5\0.001"


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    path: Path, series: Series, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    target = tmp_path / "rtstruct.dcm"
    target.write_bytes(b"the old file")
    monkeypatch.setattr("oarlock.rtstruct.writer.os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_rtstruct(target, series.masks, series.header, AUTHORSHIP)
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("rtstruct.dcm", b"the old file")]


def test_who_stops_in_the_instant_after_the_file_took_its_place_finds_it_whole(
    series: Series, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    take = Path.replace

    def stopped(self: Path, target: Path) -> None:
        take(self, target)
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", stopped)
    with pytest.raises(KeyboardInterrupt):
        write_rtstruct(tmp_path / "rtstruct.dcm", series.masks, series.header, AUTHORSHIP)
    assert [file.name for file in tmp_path.iterdir()] == ["rtstruct.dcm"]
    assert pydicom.dcmread(tmp_path / "rtstruct.dcm").ApprovalStatus == "UNAPPROVED"


def test_masks_on_another_grid_are_a_mistake(series: Series, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="shape"):
        write_rtstruct(tmp_path / "rtstruct.dcm", OARMasks.empty(OARS, (3, 4, 5)), series.header, AUTHORSHIP)

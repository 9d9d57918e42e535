"""The RTSTRUCT that planning systems import."""

import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pydicom
import pytest
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import ImplicitVRLittleEndian

from oarlock import __version__
from oarlock.ct.series import check_headers
from oarlock.ct.writer import write_ct_series
from oarlock.facts import ModelFacts
from oarlock.geometry.contours import PlanarContour
from oarlock.geometry.grid import Grid
from oarlock.geometry.masks import OARMasks
from oarlock.organs.catalogue import BY_NAME, OARS
from oarlock.rtstruct import writer as rtstruct
from oarlock.rtstruct.validator import check_rtstruct
from oarlock.rtstruct.writer import write_rtstruct
from tests.fixtures import judges
from tests.fixtures.organs import AUTHORSHIP, Series, awkward_masks, write_series


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


OF_PATIENT_AND_STUDY = {
    "PatientBirthTime": "101010",
    "TypeOfPatientID": "TEXT",
    "QualityControlSubject": "NO",
    "OtherPatientNames": ["Doe^Janet", "Roe^J"],
    "EthnicGroup": "unknown",
    "PatientComments": "two\r\nlines",
    "PhysiciansOfRecord": ["House^G", "Wilson^J"],
    "NameOfPhysiciansReadingStudy": "Cuddy^L",
    "ConsultingPhysicianName": "Foreman^E",
    "AdmittingDiagnosesDescription": ["C10", "C77"],
    "PatientAge": "050Y",
    "PatientSize": "1.80",
    "PatientBodyMassIndex": "24.7",
    "PatientWeight": "080",
    "MedicalAlerts": "pacemaker",
    "Allergies": ["iodine", "latex"],
    "Occupation": "baker",
    "SmokingStatus": "NO",
    "AdditionalPatientHistory": "none",
    "PregnancyStatus": 4,
    "LastMenstrualDate": "20200101",
    "ReasonForVisit": "planning",
    "AdmissionID": "123",
    "ServiceEpisodeID": "1",
    "ServiceEpisodeDescription": "radiotherapy",
    "PatientState": "stable",
    "ClinicalTrialSponsorName": "a",
    "ClinicalTrialProtocolID": "b",
    "ClinicalTrialProtocolName": "c",
    "ClinicalTrialSiteID": "d",
    "ClinicalTrialSiteName": "e",
    "ClinicalTrialSubjectID": "f",
    "ClinicalTrialTimePointID": "g",
    "ClinicalTrialTimePointDescription": "h",
}
"""What dicom3tools compares of a patient and of a study, animals left out."""

ALSO_TAKEN_OVER = {
    "IssuerOfPatientID": "hospital",
    "PatientIdentityRemoved": "YES",
    "DeidentificationMethod": "phantom",
    "TimezoneOffsetFromUTC": "+0100",
    "ClinicalTrialSubjectReadingID": "i",
    "PositionReferenceIndicator": "SN",
}


def test_all_that_a_scanner_says_of_patient_and_study_is_said_of_the_structure_set_too(tmp_path: Path) -> None:
    """Age and weight are in nearly every CT: two objects of one study must agree on them (PS3.3 A.1.2)."""
    files = write_series(tmp_path / "ct", overrides=OF_PATIENT_AND_STUDY).files
    header = check_headers(files)
    assert header.warnings == ()
    path = tmp_path / "rtstruct.dcm"
    write_rtstruct(path, awkward_masks(), header, AUTHORSHIP)
    dataset = pydicom.dcmread(path)
    assert {keyword: str(dataset[keyword].value) for keyword in OF_PATIENT_AND_STUDY} == {
        keyword: str(pydicom.dcmread(files[0])[keyword].value) for keyword in OF_PATIENT_AND_STUDY
    }
    assert judges.dciodvfy(path) == []
    assert judges.dcentvfy([*files, path]) == ""


def test_every_tag_of_a_file_is_on_the_conformance_page_and_no_other(tmp_path: Path) -> None:
    """Of the file's own part and of what it takes over from a CT that says all that a CT can say."""
    series = write_series(tmp_path / "ct", overrides={**OF_PATIENT_AND_STUDY, **ALSO_TAKEN_OVER})
    write_rtstruct(tmp_path / "rtstruct.dcm", series.masks, series.header, AUTHORSHIP)
    dataset = pydicom.dcmread(tmp_path / "rtstruct.dcm")
    found = {element.tag for element in [*dataset.file_meta, *dataset.iterall()]}
    page = (Path(__file__).parents[2] / "docs/dicom.md").read_text(encoding="utf-8")
    parts = (("### Whose it is", "### Bounds on hostile files"), ("### Attributes", "## The segmentation"))
    part = "".join(page[page.index(begin) : page.index(end)] for begin, end in parts)
    listed = {Tag(f"0x{group}{element}") for group, element in re.findall(r"\(([0-9A-F]{4}),([0-9A-F]{4})\)", part)}
    assert listed - {Tag("ReferencedFrameNumber")} == found


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


@pytest.mark.parametrize(
    "keyword",
    [
        *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID", "AccessionNumber"),
        *("ReferringPhysicianName", "OperatorsName", "SeriesNumber", "Manufacturer", "StructureSetDate", "StructureSetTime"),
        "PositionReferenceIndicator",
    ],
)
def test_type_2_attributes_are_present_even_where_the_ct_has_none(keyword: str, tmp_path: Path) -> None:
    blank = dict.fromkeys(("StudyID", "AccessionNumber", "ReferringPhysicianName", "PatientBirthDate", "PatientSex"), None)
    series = write_series(tmp_path, overrides=blank)
    write_rtstruct(tmp_path / "rtstruct.dcm", series.masks, series.header, AUTHORSHIP)
    assert keyword in pydicom.dcmread(tmp_path / "rtstruct.dcm")


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


def test_times_are_in_the_timezone_that_the_ct_states(tmp_path: Path) -> None:
    series = write_series(tmp_path, overrides={"TimezoneOffsetFromUTC": "+1345"})
    write_rtstruct(tmp_path / "rtstruct.dcm", series.masks, series.header, AUTHORSHIP)
    found = pydicom.dcmread(tmp_path / "rtstruct.dcm")
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
def test_the_offset_of_the_ct_outweighs_the_sites_unless_it_is_none(stated: str, written: str, time: str, tmp_path: Path) -> None:
    series = write_series(tmp_path, overrides={"TimezoneOffsetFromUTC": stated})
    found = made(series, tmp_path, AUTHORSHIP.created_at.astimezone(CHICAGO))
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


@pytest.mark.slow
def test_a_contour_longer_than_explicit_vr_can_hold_is_whole(tmp_path: Path) -> None:
    origins = np.array([[-49.5, -49.5, 3.0 * z] for z in range(3)])
    grid = Grid(119, 119, origins, np.array([1.0, 0, 0]), np.array([0, 1.0, 0]), 1.0, 1.0)
    files = write_ct_series(tmp_path, np.zeros(grid.shape, dtype=np.int16), grid)
    masks = OARMasks.empty([BY_NAME["Brain"]], grid.shape)
    y, x = np.indices((119, 119))
    saw = (x % 4 == 0) | ((x % 4 != 2) & (y % 2 == 0)) | (y == 118)  # a comb whose teeth have teeth: one outline around all
    masks.bits[1] = saw.astype(np.uint32)
    written = write_rtstruct(tmp_path / "rtstruct.dcm", masks, check_headers(files), AUTHORSHIP)
    (outline,) = written.contours["Brain"]
    (contour,) = contours_of(pydicom.dcmread(tmp_path / "rtstruct.dcm"))
    assert len(contour.get_item("ContourData").value) > 65_534
    assert len(contour.ContourData) == 3 * len(outline.points_mm)
    assert judges.dciodvfy(tmp_path / "rtstruct.dcm") == []


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


def test_masks_on_another_grid_are_a_mistake(series: Series, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="shape"):
        write_rtstruct(tmp_path / "rtstruct.dcm", OARMasks.empty(OARS, (3, 4, 5)), series.header, AUTHORSHIP)


NAMES = {
    "ISO_IR 100": "Müller^Jürg",
    "ISO_IR 101": "Łukasz^Żółć",
    "ISO_IR 192": "王^小东=王^小東",
    "ISO_IR 13": "ﾔﾏﾀﾞ^ﾀﾛｳ=ﾔﾏﾀﾞ^ﾀﾛｳ",
    "GB18030": "Wang^XiaoDong=王^小东",
    "ISO_IR 144": "Люк^ceмбypг",
    "ISO_IR 127": "قباني^لنزار",
    "ISO_IR 126": "Διονυσιος^Α",
    "ISO_IR 138": "שרון^דבורה",
}


@pytest.mark.parametrize("character_set", NAMES)
def test_a_name_comes_out_in_the_character_set_and_bytes_it_went_in(character_set: str, tmp_path: Path) -> None:
    name = NAMES[character_set]
    series = write_series(tmp_path, patient_name=name, specific_character_set=character_set)
    write_rtstruct(tmp_path / "rtstruct.dcm", series.masks, series.header, AUTHORSHIP)
    ct, found = pydicom.dcmread(series.files[0]), pydicom.dcmread(tmp_path / "rtstruct.dcm")
    assert found.SpecificCharacterSet == character_set
    assert raw_name(found) == raw_name(ct) != b""
    assert str(found.PatientName) == name
    assert set(judges.dciodvfy(tmp_path / "rtstruct.dcm")) <= set(judges.dciodvfy(series.files[0]))


def raw_name(dataset: Dataset) -> bytes:
    element: Any = dataset.get_item("PatientName")
    return bytes(element.value).rstrip(b" ")


CHARSETS = ("SCSX1", "chrArab.dcm", "chrFrenMulti.dcm", "chrH31.dcm", "chrI2.dcm", "chrRuss.dcm", "chrX2.dcm")


@pytest.mark.parametrize("file", CHARSETS)
def test_real_names_of_all_sorts_come_out_as_they_went_in(file: str, shared: Path, tmp_path: Path) -> None:
    source = pydicom.dcmread(shared / "data/dicom/odd/charset" / file)
    wanted = raw_name(source)
    files = write_series(tmp_path, overrides={"SpecificCharacterSet": source.SpecificCharacterSet}).files
    for path in files:
        ct = pydicom.dcmread(path)
        ct[0x00100010] = RawDataElement(Tag(0x00100010), "PN", len(wanted), wanted, 0, False, True)
        ct.save_as(path)
    write_rtstruct(tmp_path / "rtstruct.dcm", awkward_masks(), check_headers(files), AUTHORSHIP)
    assert raw_name(pydicom.dcmread(tmp_path / "rtstruct.dcm")) == wanted
    assert check_rtstruct(tmp_path / "rtstruct.dcm", check_headers(files), awkward_masks()) == []

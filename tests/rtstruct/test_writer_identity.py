"""RTSTRUCTs of series of their own: what is taken over from the CT, and contours longer than usual."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from oarlock.ct.series import check_headers
from oarlock.ct.writer import write_ct_series
from oarlock.geometry.grid import Grid
from oarlock.geometry.masks import OARMasks
from oarlock.organs.catalogue import BY_NAME
from oarlock.rtstruct.validator import check_rtstruct
from oarlock.rtstruct.writer import write_rtstruct
from tests.fixtures import judges
from tests.fixtures.organs import AUTHORSHIP, awkward_masks, write_series

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
    (contour,) = pydicom.dcmread(tmp_path / "rtstruct.dcm").ROIContourSequence[0].ContourSequence
    assert len(contour.get_item("ContourData").value) > 65_534
    assert len(contour.ContourData) == 3 * len(outline.points_mm)
    assert judges.dciodvfy(tmp_path / "rtstruct.dcm") == []


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

"""A series without its patient holds nothing of him, reads as the same numbers, and its RTSTRUCT gets him back byte for byte."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from oarlock.ct.deidentify import Original, write_deidentified
from oarlock.ct.series import check_headers, read_ct_series
from oarlock.errors import NotDeidentifiable
from oarlock.rtstruct.reidentify import reidentified
from oarlock.rtstruct.writer import write_rtstruct
from tests.fixtures import canaries
from tests.fixtures.multiframe import write_multi_frame
from tests.fixtures.organs import AUTHORSHIP, awkward_masks, write_series


def pseudonym(uid: str) -> str:
    return f"2.25.{int(hashlib.sha256(uid.encode()).hexdigest()[:32], 16)}"


class Folder:
    def __init__(self, path: Path) -> None:
        path.mkdir()
        self.path, self.files = path, list[Path]()

    def next_file(self) -> Path:
        self.files.append(self.path / f"{len(self.files):04d}")
        return self.files[-1]


SERIES: Mapping[str, dict[str, Any]] = {
    "plain": {},
    "every attribute": {"overrides": dict(canaries.OVERRIDES) | {"BodyPartExamined": "HEAD"}},
    "other letters": {"patient_name": "Müller^Jörg", "specific_character_set": "ISO_IR 100"},
    "code extensions": {"patient_name": "Yamada^Tarou=山田^太郎", "specific_character_set": ["", "ISO 2022 IR 87"]},
    "a time zone": {"overrides": {"TimezoneOffsetFromUTC": "+0930", "StudyDescription": "odd"}},
    "nothing": {"overrides": {"PatientID": None, "StudyDate": None, "SliceThickness": None, "StudyID": None}},
    "long numbers": {"overrides": {"PixelSpacing": ["1.10000000000001", "0.9000000000001"]}},
    "odd lengths": {"overrides": {"PatientID": "123", "StudyDescription": "12345", "AccessionNumber": "1"}},
}


@pytest.mark.parametrize("kind", SERIES)
def test_the_rtstruct_is_that_of_the_true_series_byte_for_byte(kind: str, tmp_path: Path) -> None:
    made = write_series(tmp_path / "true", **SERIES[kind])
    true, folder = read_ct_series(made.header), Folder(tmp_path / "anew")
    original = Original.of_bytes(write_deidentified(true, folder.next_file, pseudonym).to_bytes())
    anew = read_ct_series(check_headers(folder.files))
    np.testing.assert_array_equal(anew.hu, true.hu)
    np.testing.assert_array_equal(anew.header.grid.origins_mm, true.header.grid.origins_mm)
    masks = awkward_masks()
    for name, header in (("true.dcm", true.header), ("anew.dcm", anew.header)):
        write_rtstruct(tmp_path / name, masks, header, AUTHORSHIP)
    without = (tmp_path / "anew.dcm").read_bytes()
    assert without != (tmp_path / "true.dcm").read_bytes()
    assert reidentified(without, original) == (tmp_path / "true.dcm").read_bytes()


def test_nothing_of_the_patient_is_in_the_files(tmp_path: Path) -> None:
    files = canaries.write_series(tmp_path / "true")
    folder = Folder(tmp_path / "anew")
    original = write_deidentified(read_ct_series(check_headers(files)), folder.next_file, pseudonym)
    uids = list(original.uids.values())
    assert len(uids) == 3 + len(files)
    written = b"".join(path.read_bytes() for path in folder.files).lower()
    assert [string for string in (*canaries.STRINGS, *uids) if string.encode() in written] == []
    first = pydicom.dcmread(folder.files[0])
    assert not [
        element
        for element in first
        if element.VR in {"PN", "DA", "TM", "DT", "SH", "ST", "LT", "UT", "UN"} - {"SH"} and element.value
    ]
    assert first.PatientIdentityRemoved == "YES"


def test_the_make_of_the_scanner_stays_and_its_station_does_not(tmp_path: Path) -> None:
    named = {"Manufacturer": "Makers & Sons\u00fc", "ManufacturerModelName": "Model 7", "StationName": "CANARY"}
    made = write_series(tmp_path / "true", overrides=named)
    folder = Folder(tmp_path / "anew")
    write_deidentified(read_ct_series(made.header), folder.next_file, pseudonym)
    assert made.header.scanner.endswith(" Model 7 CANARY")
    assert check_headers(folder.files).scanner == made.header.scanner.removesuffix(" CANARY")


def test_what_cannot_be_written_anew_is_refused(tmp_path: Path) -> None:
    made = write_series(tmp_path / "ct")
    folder = Folder(tmp_path / "anew")
    write_rtstruct(tmp_path / "rtstruct.dcm", awkward_masks(), made.header, AUTHORSHIP)
    header = check_headers([*made.files, tmp_path / "rtstruct.dcm"])
    with pytest.raises(NotDeidentifiable, match="RTSTRUCT"):
        write_deidentified(read_ct_series(header), folder.next_file, pseudonym)
    frames = check_headers([write_multi_frame(tmp_path / "frames.dcm", made.files)])
    with pytest.raises(NotDeidentifiable, match="multi-frame"):
        write_deidentified(read_ct_series(frames), folder.next_file, pseudonym)
    assert folder.files == []

"""What the standard allows is accepted, what nobody needs is skipped, and a true difference is still refused."""

import struct
from pathlib import Path

import numpy as np
import pydicom
import pytest

from oarlock.ct.series import SeriesHeader, check_headers, read_ct_series
from oarlock.ct.writer import write_ct_series
from oarlock.dicom.elements import read_elements
from oarlock.dicom.sequences import read_sequences, read_sequences_before_pixels
from oarlock.dicom.tags import Tag
from oarlock.dicom.unusable import Unusable
from oarlock.errors import InstanceUnreadable, MixedPatients, UnsupportedPixelData
from oarlock.geometry.grid import Grid
from oarlock.rtstruct.writer import write_rtstruct
from tests.fixtures.organs import AUTHORSHIP, awkward_masks, write_series

HU = np.arange(4 * 6 * 5, dtype=np.int16).reshape(4, 6, 5)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    origins = np.array([[0.0, 0.0, 2.0 * z] for z in range(4)])
    return write_ct_series(tmp_path, HU, Grid(6, 5, origins, np.array([1.0, 0, 0]), np.array([0, 1.0, 0]), 1.0, 1.0))


def codes(header: SeriesHeader) -> list[str]:
    return [warning.code for warning in header.warnings]


# ── excess pixel data ─────────────────────────────────────────────────────────────────────────────────────────────────


def pad(path: Path, padding: bytes) -> None:
    dataset = pydicom.dcmread(path)
    dataset.PixelData = dataset.PixelData + padding
    dataset.save_as(path)


@pytest.mark.parametrize("padding", [b"\0" * 2, b"\xff" * 4, b"\0" * 58])
def test_padding_behind_the_last_pixel_is_ignored_with_a_warning(padding: bytes, files: list[Path]) -> None:
    """58 bytes are one less than another image of 6 × 5 pixels would need."""
    pad(files[1], padding)
    header = check_headers(files)
    assert codes(header) == ["series.excess_pixel_data"]
    np.testing.assert_array_equal(read_ct_series(header).hu, HU)


@pytest.mark.parametrize("padding", [b"\0" * 60, b"\1\2"])
def test_another_image_or_other_bytes_behind_the_last_pixel_are_refused(padding: bytes, files: list[Path]) -> None:
    pad(files[1], padding)
    with pytest.raises(UnsupportedPixelData, match="need 60 bytes"):
        check_headers(files)


def test_pixel_data_that_are_too_short_are_refused(files: list[Path]) -> None:
    dataset = pydicom.dcmread(files[1])
    dataset.PixelData = dataset.PixelData[:-2]
    dataset.save_as(files[1])
    with pytest.raises(UnsupportedPixelData, match="need 60 bytes and 58 are there"):
        check_headers(files)


# ── value representations ─────────────────────────────────────────────────────────────────────────────────────────────

CREATOR = struct.pack("<HH2sH", 0x0009, 0x0010, b"LO", 4) + b"ACME"


def insert(path: Path, element: bytes, *, before: bytes = b"\x10\x00\x10\x00") -> None:
    """In front of Patient's Name, behind the elements of group 0008."""
    content = path.read_bytes()
    at = content.index(before)
    path.write_bytes(content[:at] + element + content[at:])


ODD = {
    "two zero bytes": struct.pack("<HH2sH", 9, 0x1001, b"\0\0", 4) + b"ABCD",
    "two blanks": struct.pack("<HH2sH", 9, 0x1001, b"  ", 4) + b"ABCD",
    "two question marks": struct.pack("<HH2sH", 9, 0x1001, b"??", 4) + b"ABCD",
    "lower case": struct.pack("<HH2sH", 9, 0x1001, b"lo", 4) + b"ABCD",
    "letters of no VR": struct.pack("<HH2sH", 9, 0x1001, b"OX", 4) + b"ABCD",
    "letters of no VR, long": struct.pack("<HH2s2xI", 9, 0x1001, b"OX", 4) + b"ABCD",
    "implicit VR": struct.pack("<HHI", 9, 0x1001, 6) + b"ABCDEF",
    "nothing in it": struct.pack("<HH2sH", 9, 0x1001, b"??", 0),
    "two in a row": (struct.pack("<HH2sH", 9, 0x1001, b"??", 4) + b"ABCD")
    + (struct.pack("<HH2sH", 9, 0x1002, b"??", 4) + b"ABCD"),
}


@pytest.mark.parametrize("what", ODD)
def test_a_private_element_with_an_odd_vr_is_skipped_with_a_warning(what: str, files: list[Path]) -> None:
    for path in files[:2]:
        insert(path, CREATOR + ODD[what])
    header = check_headers(files)
    assert codes(header) == ["series.elements_skipped"]
    assert header.warnings[0].detail.startswith("2 file(s) hold elements without a valid value representation")
    assert "(0009,1001)" in header.warnings[0].detail
    np.testing.assert_array_equal(read_ct_series(header).hu, HU)


def test_it_is_skipped_within_a_sequence_of_undefined_length_too(files: list[Path]) -> None:
    item = struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF) + ODD["two question marks"] + struct.pack("<HHI", 0xFFFE, 0xE00D, 0)
    sequence = struct.pack("<HH2s2xI", 9, 0x1003, b"SQ", 0xFFFFFFFF) + item + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    insert(files[0], CREATOR + sequence)
    assert codes(check_headers(files)) == ["series.elements_skipped"]


def test_a_private_sequence_of_unknown_vr_may_be_encoded_as_the_data_set_around_it(files: list[Path]) -> None:
    """Implicit VR is what the standard asks for there (PS3.5 6.2.2); some systems pass on what they got in explicit VR."""
    inner = struct.pack("<HH2sH", 0x0020, 0x000E, b"UI", 4) + b"1.2\0"
    item = struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF) + inner + struct.pack("<HHI", 0xFFFE, 0xE00D, 0)
    sequence = struct.pack("<HH2s2xI", 9, 0x1002, b"UN", 0xFFFFFFFF) + item + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    insert(files[0], CREATOR + sequence)
    header = check_headers(files)
    assert codes(header) == []
    root, _ = read_sequences_before_pixels(read_elements(files[0], (), keep=lambda _: True) or pytest.fail("not DICOM"))
    assert root.text(Tag.SERIES_INSTANCE_UID) == header.series_instance_uid


def test_an_element_that_is_needed_or_leads_nowhere_is_refused_by_name(files: list[Path]) -> None:
    whole = files[0].read_bytes()
    files[0].write_bytes(whole.replace(b"\x28\x00\x30\x00DS", b"\x28\x00\x30\x00??"))
    with pytest.raises(InstanceUnreadable, match=r"\(0028,0030\) has no valid value representation"):
        check_headers(files)
    files[0].write_bytes(whole)
    insert(files[0], CREATOR + struct.pack("<HH2sH", 9, 0x1001, b"??", 3) + b"ABCD")
    with pytest.raises(InstanceUnreadable, match=r"\(0009,1001\) has no valid value representation"):
        check_headers(files)


# ── names ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def name(path: Path, value: str, character_set: str = "ISO_IR 192", **others: str) -> None:
    dataset = pydicom.dcmread(path)
    dataset.SpecificCharacterSet, dataset.PatientName = character_set, value
    for keyword, other in others.items():
        setattr(dataset, keyword, other)
    dataset.save_as(path)


@pytest.mark.parametrize("other", ["Phantom^Oarlock^", "Phantom^Oarlock^^^", "Phantom^Oarlock=", "Phantom^Oarlock=="])
def test_empty_components_at_the_end_of_a_name_do_not_make_another_patient(other: str, files: list[Path]) -> None:
    name(files[2], other)
    assert codes(check_headers(files)) == []


def test_one_name_in_two_character_sets_is_one_patient(files: list[Path]) -> None:
    for path in files[:2]:
        name(path, "Müller^Jörg")
    for path in files[2:]:
        name(path, "Müller^Jörg", "ISO_IR 100")
    assert codes(check_headers(files)) == []


@pytest.mark.parametrize("other", ["PHANTOM^OARLOCK", "Phantom Oarlock", "Phantom^^Oarlock", "", "Phantom"])
def test_another_name_is_another_patient(other: str, files: list[Path]) -> None:
    name(files[2], other)
    with pytest.raises(MixedPatients):
        check_headers(files)


def test_blanks_around_an_id_do_not_count_and_another_id_does(files: list[Path]) -> None:
    name(files[2], "Phantom^Oarlock", PatientID=" PHANTOM ")
    assert codes(check_headers(files)) == []
    name(files[2], "Phantom^Oarlock", PatientID="PHANTOM2")
    with pytest.raises(MixedPatients):
        check_headers(files)


# ── behind the last element of an RTSTRUCT ────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("tail", [b"\0", b"\0\0", b"\r\n", b"\0" * 511, b"\x1a"])
def test_padding_behind_an_rtstruct_is_ignored_and_a_cut_is_not(tail: bytes, tmp_path: Path) -> None:
    made = write_series(tmp_path / "ct")
    path = tmp_path / "rtstruct.dcm"
    write_rtstruct(path, awkward_masks(), made.header, AUTHORSHIP)
    content = path.read_bytes()
    whole = read_sequences(path, sop_class="1.2.840.10008.5.1.4.1.1.481.3")
    path.write_bytes(content + tail)
    padded = read_sequences(path, sop_class="1.2.840.10008.5.1.4.1.1.481.3")
    assert whole is not None
    assert whole == padded
    assert whole.items(Tag.ROI_CONTOUR_SEQUENCE)
    path.write_bytes(content + b"\x0e\x30\x03")
    with pytest.raises(Unusable, match="cut off"):
        read_sequences(path, sop_class="1.2.840.10008.5.1.4.1.1.481.3")

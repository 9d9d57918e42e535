"""The walk over top-level elements: right on every encoding, bounded on every file."""

import struct
import time
from contextlib import suppress
from pathlib import Path

import pydicom
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from oarlock.dicom.elements import MAX_HEADER_ELEMENTS, Header, read_elements
from oarlock.dicom.tags import Tag
from oarlock.dicom.unusable import Unusable

MODALITY, ROWS, NAME, POSITION = 0x00080060, 0x00280010, 0x00100010, 0x00200032
WANTED = {MODALITY, ROWS, NAME, POSITION}

UNDEFINED = b"\xff\xff\xff\xff"
ITEM, ITEM_END, SEQUENCE_END = b"\xfe\xff\x00\xe0", b"\xfe\xff\x0d\xe0" + b"\0" * 4, b"\xfe\xff\xdd\xe0" + b"\0" * 4


def read(path: Path) -> Header | None:
    return read_elements(path, WANTED, keep=lambda _: True)


def dataset() -> Dataset:
    """An image with sequences of every kind before what is wanted."""
    result = Dataset()
    result.SOPClassUID, result.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", "2.25.1"
    result.Modality = "CT"
    inner = Dataset()
    inner.Rows = 99
    inner.ReferencedImageSequence = Sequence([Dataset(), Dataset()])
    outer = Dataset()
    outer.Modality = "XX"
    outer.RequestAttributesSequence = Sequence([inner])
    result.ReferencedImageSequence = Sequence([outer, inner])
    result.PatientName = "A^B"
    result.ImagePositionPatient = [1, 2, 3]
    result.Rows = 4
    result.PixelData = b"\1\2" * 8
    result["PixelData"].VR = "OW"
    return result


@pytest.mark.parametrize("undefined", [False, True], ids=["defined lengths", "undefined lengths"])
@pytest.mark.parametrize("part_10", [True, False], ids=["part 10", "bare"])
@pytest.mark.parametrize(
    ("syntax", "implicit", "little"),
    [("1.2.840.10008.1.2", True, True), ("1.2.840.10008.1.2.1", False, True), ("1.2.840.10008.1.2.2", False, False)],
)
def test_every_encoding_gives_the_same_values(
    tmp_path: Path, syntax: str, implicit: bool, little: bool, part_10: bool, undefined: bool
) -> None:
    source = dataset()
    for element in source.iterall():
        if element.VR == "SQ":
            element.is_undefined_length = undefined
            for item in element.value:
                item.is_undefined_length_sequence_item = undefined
    path = tmp_path / "a.dcm"
    if part_10:
        source.ensure_file_meta()
        source.file_meta.TransferSyntaxUID = syntax
        source.save_as(path, enforce_file_format=True)
    else:
        pydicom.dcmwrite(path, source, implicit_vr=implicit, little_endian=little)
    header = read(path)
    assert header is not None
    assert header.transfer_syntax == (syntax if part_10 else "")
    assert (header.text(MODALITY), header.unsigned(ROWS), header.text(NAME)) == ("CT", 4, "A^B")
    assert header.text(POSITION) in ("1\\2\\3", "1.0\\2.0\\3.0")
    assert header.pixel_data is not None
    assert (header.pixel_data.offset, header.pixel_data.length) == (path.stat().st_size - 16, 16)


def test_the_walk_ends_at_an_object_that_is_not_wanted(tmp_path: Path) -> None:
    """A structure set has 100,000 elements behind its SOP class, and here the next one is damaged."""
    path = tmp_path / "a.dcm"
    sop_class = b"1.2.840.10008.5.1.4.1.1.481.3\0"
    path.write_bytes(element(0x0008, 0x0016, b"UI", sop_class) + b"\x08\x00\x18\x00??")
    header = read_elements(path, WANTED, keep=lambda uid: uid != "1.2.840.10008.5.1.4.1.1.481.3")
    assert header is not None
    assert header.values == {0x00080016: sop_class}
    with pytest.raises(Unusable):
        read(path)


def test_a_directory_is_not_walked(tmp_path: Path) -> None:
    """A DICOMDIR of a whole archive has millions of elements, all of group 0004."""
    path = tmp_path / "DICOMDIR"
    directory = element(2, 2, b"UI", b"1.2.840.10008.1.3.10") + element(4, 0x1130, b"CS", b"") + b"anything" * 9
    path.write_bytes(b"\0" * 128 + b"DICM" + directory)
    header = read(path)
    assert header is not None
    assert header.text(Tag.MEDIA_STORAGE_SOP_CLASS_UID) == "1.2.840.10008.1.3.10"


# ── hostile files ─────────────────────────────────────────────────────────────────────────────────────────────────────


def element(group: int, number: int, vr: bytes, value: bytes) -> bytes:
    return struct.pack("<HH2sH", group, number, vr, len(value)) + value


START = element(0x0008, 0x0005, b"CS", b"ISO_IR 100")
SEQUENCE = struct.pack("<HH2sHI", 0x0008, 0x1140, b"SQ", 0, 0xFFFFFFFF)


def nested(levels: int) -> bytes:
    return (SEQUENCE + ITEM + UNDEFINED) * levels + (ITEM_END + SEQUENCE_END) * levels


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (START + nested(100_000), "nested deeper"),
        (START + (SEQUENCE + ITEM + UNDEFINED) * 20, "cut off"),
        (
            START + SEQUENCE + ITEM + UNDEFINED + element(8, 1, b"CS", b"") * (MAX_HEADER_ELEMENTS + 1),
            "more than 300,000 elements",
        ),
        (START + element(8, 8, b"CS", b"") * (MAX_HEADER_ELEMENTS + 1), "more than 300,000 elements"),
        (START + struct.pack("<HH2sHI", 8, 9, b"UT", 0, 0x7FFFFFF0), "cut off"),
        (START + SEQUENCE + element(8, 8, b"CS", b"AB"), "something else than items"),
        (START + struct.pack("<HH2sH", 8, 9, b"zz", 4), "no valid value representation"),
        (START + struct.pack("<HH2sHI", 8, 0x60, b"UT", 0, 70_000) + b"A" * 70_000, "longer than its kind"),
        (b"\0" * 128 + b"DICM" + element(2, 0x12, b"UI", b"1.2 ") * 100, "meta information does not end"),
    ],
)
def test_a_hostile_file_is_refused_at_once(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "a.dcm"
    path.write_bytes(content)
    began = time.process_time()
    with pytest.raises(Unusable, match=reason):
        read(path)
    assert time.process_time() - began < 2.0


def test_sequences_as_deep_as_scanners_write_them_are_walked(tmp_path: Path) -> None:
    path = tmp_path / "a.dcm"
    path.write_bytes(START + nested(30) + element(0x0028, 0x0010, b"US", b"\7\0"))
    header = read(path)
    assert header is not None
    assert header.unsigned(ROWS) == 7


@pytest.mark.parametrize("content", [b"", b"\0", b"DICM", b"\0" * 500, b"%PDF-1.7" * 50, b"\x08\x00", b"\xff" * 300])
def test_what_is_not_dicom_is_told_apart(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a"
    path.write_bytes(content)
    assert read(path) is None


@pytest.mark.slow
@given(content=st.binary(max_size=400), part_10=st.booleans())
@example(content=START, part_10=True)
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_no_bytes_make_it_fail_otherwise(tmp_path: Path, content: bytes, part_10: bool) -> None:
    path = tmp_path / "a.dcm"
    path.write_bytes((b"\0" * 128 + b"DICM" if part_10 else START) + content)
    with suppress(Unusable):
        read(path)


@given(at=st.integers(0, 600), junk=st.binary(min_size=1, max_size=8))
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_no_flipped_bytes_make_it_fail_otherwise(tmp_path: Path, at: int, junk: bytes) -> None:
    path = tmp_path / "whole.dcm"
    if not path.exists():
        source = dataset()
        source.ensure_file_meta()
        source.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
        source.save_as(path, enforce_file_format=True)
    content = bytearray(path.read_bytes())
    content[at : at + len(junk)] = junk
    broken = tmp_path / "broken.dcm"
    broken.write_bytes(content)
    with suppress(Unusable):
        read(broken)

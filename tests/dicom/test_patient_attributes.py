"""Whose series it is: the same bytes out as in, or nothing and a warning."""

from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from oarlock.dicom import patient_attributes as identity
from oarlock.dicom.elements import read_elements
from oarlock.rtstruct.writer import write_rtstruct
from tests.fixtures.organs import AUTHORSHIP, write_series

CHARSET, NAME, ID, BIRTH, SEX = 0x00080005, 0x00100010, 0x00100020, 0x00100030, 0x00100040
STUDY_DATE, STUDY_TIME, ACCESSION, DESCRIPTION, ZONE = 0x00080020, 0x00080030, 0x00080050, 0x00081030, 0x00080201


def written(template: Dataset, folder: Path) -> dict[int, bytes]:
    """Raw values after the template's elements went through another data set into a file, as an RTSTRUCT writer does it."""
    dataset = Dataset()
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.481.3"
    for element in template:
        dataset.add(element)
    buffer = BytesIO()
    pydicom.dcmwrite(buffer, dataset, implicit_vr=True, little_endian=True)
    path = folder / "written.dcm"
    path.write_bytes(b"\0" * 128 + b"DICM" + buffer.getvalue())
    header = read_elements(path, identity.WANTED, keep=lambda _: True)
    assert header is not None
    return header.values


def in_and_out(values: dict[int, bytes], folder: Path) -> dict[int, bytes]:
    template, warnings = identity.to_template(values)
    assert warnings == []
    return {tag: value.rstrip(b" \0") for tag, value in written(template, folder).items() if tag in values}


NAMES = {
    "": ("", "Doe^Jane"),
    "ISO_IR 100": ("latin-1", "Müller^Jérôme^^Dr."),
    "ISO_IR 101": ("iso8859_2", "Łukasz^Żółć"),
    "ISO_IR 144": ("iso8859_5", "Люксембург^Роза"),
    "ISO_IR 192": ("utf-8", "Wang^XiaoDong=王^小東=왕^소동"),
    "GB18030": ("gb18030", "Wang^XiaoDong=王^小东="),
    "GBK": ("gbk", "Wang^XiaoDong=王^小东"),
}


@pytest.mark.parametrize("charset", NAMES)
def test_names_come_out_as_they_went_in(charset: str, tmp_path: Path) -> None:
    encoding, name = NAMES[charset]
    values = {CHARSET: charset.encode(), NAME: name.encode(encoding or "ascii"), ID: b"PAT-7"}
    expected = {tag: value for tag, value in values.items() if value}
    assert in_and_out(expected, tmp_path) == expected


ISO_2022 = {
    "korean": (
        b"\\ISO 2022 IR 149",
        b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7=\x1b$)C\xc8\xab^\x1b$)C\xb1\xe6\xb5\xbf",
    ),
    "japanese": (b"\\ISO 2022 IR 87", b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B"),
    "katakana": (b"ISO 2022 IR 13\\ISO 2022 IR 87", b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3=\x1b$B;3ED\x1b(J^\x1b$BB@O:\x1b(J"),
}
"""PS3.5 H.3, I.2 and H.3.2: the standard's own examples."""


@pytest.mark.parametrize("example", ISO_2022)
def test_the_standards_own_examples_come_out_as_they_went_in(example: str, tmp_path: Path) -> None:
    charset, name = ISO_2022[example]
    values = {CHARSET: charset, NAME: name, DESCRIPTION: name.split(b"=")[1].replace(b"^", b" ")}
    assert in_and_out(values, tmp_path) == values


LETTERS = st.characters(codec="utf-8", exclude_categories=("C", "Z"), exclude_characters="\\=^\ufffd")
"""Without the delimiters, and without the sign that stands for what could not be decoded."""


@pytest.mark.slow
@given(text=st.text(LETTERS, min_size=1, max_size=64))
def test_any_text_survives_utf_8(text: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    values = {CHARSET: b"ISO_IR 192", NAME: text.encode(), ID: text.encode()}
    assert in_and_out(values, tmp_path_factory.getbasetemp()) == values


def test_what_an_rtstruct_must_have_is_there_though_empty() -> None:
    template, warnings = identity.to_template({})
    assert [element.keyword for element in template] == [
        "StudyDate",
        "StudyTime",
        "AccessionNumber",
        "ReferringPhysicianName",
        "PatientName",
        "PatientID",
        "PatientBirthDate",
        "PatientSex",
        "StudyID",
        "PositionReferenceIndicator",
    ]
    assert all(element.value in ("", None) for element in template)
    assert warnings == []


@pytest.mark.parametrize(
    ("tag", "value"),
    [
        (BIRTH, b"46e04faf-4826-32e0-9f21-ca000464ec92"),
        (BIRTH, b"19700230"),
        (BIRTH, b"1970.01.01"),
        (STUDY_DATE, b"20261301"),
        (STUDY_DATE, b"20260101\\20260102"),
        (STUDY_TIME, b"250000"),
        (STUDY_TIME, b"10:30:00"),
        (SEX, b"W"),
        (SEX, b"7cff2f01-7c53-3fa2-9f20-17d5732eb892"),
        (ACCESSION, b"A number over 16 characters"),
        (ID, b"two\\patients"),
        (ID, b"line\nbreak"),
        (NAME, b"A" * 65),
        (NAME, b"a=b=c=d"),
        (ZONE, b"+25:00"),
    ],
)
def test_what_is_not_valid_is_left_empty_and_named(tag: int, value: bytes) -> None:
    template, warnings = identity.to_template({tag: value, ID: b"7"} if tag != ID else {tag: value})
    keyword = pydicom.datadict.keyword_for_tag(tag)
    assert str(template[tag].value or "") == ""
    assert [(warning.code, keyword in warning.detail) for warning in warnings] == [("series.invalid_attributes", True)]


@pytest.mark.parametrize("value", [b"", b"07", b"0730", b"073059", b"073059.5", b"073059.123456"])
def test_every_form_of_a_time_is_kept(value: bytes, tmp_path: Path) -> None:
    template, warnings = identity.to_template({STUDY_TIME: value})
    assert warnings == []
    assert written(template, tmp_path)[STUDY_TIME].rstrip() == value


AGE, WEIGHT, COMMENTS, PREGNANT, READERS = 0x00101010, 0x00101030, 0x00104000, 0x001021C0, 0x00081060


def test_text_of_several_lines_and_names_of_several_people_are_kept(tmp_path: Path) -> None:
    """The second byte of a sign may be that of a backslash: in GB18030 it is part of the letter."""
    values = {CHARSET: b"GB18030", COMMENTS: "一\r\n二".encode("gb18030"), READERS: "Wang^乗=\\Li^Si".encode("gb18030")}
    assert in_and_out(values, tmp_path) == values


@pytest.mark.parametrize("value", [b"080", b"+80.5", b"8.05E1"])
def test_numbers_keep_their_spelling(value: bytes, tmp_path: Path) -> None:
    assert in_and_out({WEIGHT: value}, tmp_path) == {WEIGHT: value}


@pytest.mark.parametrize(
    ("tag", "value"), [(AGE, b"50"), (AGE, b"050y"), (WEIGHT, b"80,5"), (WEIGHT, b"80 kg"), (COMMENTS, b"\7")]
)
def test_what_is_not_valid_of_the_patient_is_left_empty_and_named(tag: int, value: bytes) -> None:
    template, warnings = identity.to_template({tag: value})
    assert str(template[tag].value or "") == ""
    assert [warning.code for warning in warnings] == ["series.invalid_attributes"]


@pytest.mark.parametrize(("value", "big_endian"), [(b"\4\0", False), (b"\0\4", True)])
def test_binary_numbers_are_read_in_the_order_of_the_ct(value: bytes, big_endian: bool) -> None:
    template, _ = identity.to_template({PREGNANT: value}, big_endian=big_endian)
    assert template.PregnancyStatus == 4


@pytest.mark.parametrize("charset", [b"ISO_IR 999", b"UTF-8 ", b"ISO_IR 192\\ISO_IR 100"])
def test_an_unknown_character_set_keeps_only_what_is_ascii(charset: bytes) -> None:
    template, warnings = identity.to_template({CHARSET: charset, NAME: "Müller".encode(), ID: b"PAT-7"})
    assert "SpecificCharacterSet" not in template
    assert str(template.PatientName) == ""
    assert template.PatientID == "PAT-7"
    assert "SpecificCharacterSet, PatientName" in warnings[0].detail


def test_letters_without_a_character_set_are_kept_as_they_are_with_a_warning(tmp_path: Path) -> None:
    """Only ASCII is valid there (PS3.5 6.1.2.1), but a name that differs from the CT's by one byte is another patient's."""
    values = {NAME: b"M\xfcller^J\xf6rg", DESCRIPTION: b"caf\xe9"}
    template, warnings = identity.to_template(values)
    assert {tag: value.rstrip() for tag, value in written(template, tmp_path).items() if tag in values} == values
    assert [warning.code for warning in warnings] == ["series.undeclared_character_set"]


def test_bytes_that_the_character_set_does_not_know_are_not_guessed() -> None:
    template, warnings = identity.to_template({CHARSET: b"ISO_IR 192", NAME: b"M\xfcller"})
    assert str(template.PatientName) == ""
    assert "PatientName" in warnings[0].detail


def test_all_character_sets_of_the_shared_files_survive_into_the_rtstruct(shared: Path, tmp_path: Path) -> None:
    """Through the writer itself: name, ID and character set of every file come out byte for byte."""
    series = write_series(tmp_path / "ct")
    names = set()
    for path in sorted((shared / "data/dicom/odd/charset").iterdir()):
        header = read_elements(path, identity.WANTED, keep=lambda _: True)
        assert header is not None
        values = {tag: value.rstrip(b" \0") for tag, value in header.values.items() if tag in {CHARSET, NAME, ID}}
        template, _ = identity.to_template(values)
        write_rtstruct(tmp_path / path.name, series.masks, replace(series.header, template=template), AUTHORSHIP)
        out = read_elements(tmp_path / path.name, identity.WANTED, keep=lambda _: True)
        assert out is not None
        assert {tag: out.values[tag].rstrip(b" \0") for tag in values if values[tag]} == {t: v for t, v in values.items() if v}
        names.add(values.get(NAME))
    assert len(names - {None}) == 7

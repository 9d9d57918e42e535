"""The patient and study attributes that an RTSTRUCT takes over.

They are as they stand in its CT, or empty.

A planning system files an RTSTRUCT by these bytes: one changed character in a name makes another patient. They are carried over
in the CT's own character set. What is not valid there (de-identified files hold UUIDs in dates) is left empty and reported, as a
copy would make the RTSTRUCT invalid too. Sources: PS3.3 C.7.1.1 (patient), C.7.2.1 (general study), C.7.4.1 (frame of reference),
C.12.1.1.2 (character sets), PS3.5 6.2 (value representations).
"""

import re
import warnings
from collections.abc import Callable, Mapping
from datetime import date
from typing import Final

from pydicom.charset import convert_encodings, decode_bytes, encode_string, python_encoding
from pydicom.config import IGNORE
from pydicom.datadict import dictionary_VR, keyword_for_tag
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag
from pydicom.valuerep import PN_DELIMS, TEXT_VR_DELIMS, PersonName

from oarlock.dicom.decimals import LONGEST_STANDARD, is_decimal
from oarlock.dicom.tags import Tag
from oarlock.facts import Notice

TYPE_2: Final = (
    Tag.STUDY_DATE,
    Tag.STUDY_TIME,
    Tag.ACCESSION_NUMBER,
    Tag.REFERRING_PHYSICIAN_NAME,
    Tag.PATIENT_NAME,
    Tag.PATIENT_ID,
    Tag.PATIENT_BIRTH_DATE,
    Tag.PATIENT_SEX,
    Tag.STUDY_ID,
    Tag.POSITION_REFERENCE_INDICATOR,
)
"""Present in the template even if empty, as an RTSTRUCT must have them."""

SEVERAL: Final = frozenset(
    {
        Tag.PHYSICIANS_OF_RECORD,
        Tag.NAME_OF_PHYSICIANS_READING_STUDY,
        Tag.ADMITTING_DIAGNOSES_DESCRIPTION,
        Tag.CONSULTING_PHYSICIAN_NAME,
        Tag.OTHER_PATIENT_NAMES,
        Tag.MEDICAL_ALERTS,
        Tag.ALLERGIES,
    }
)
"""Attributes that may have several values."""

TYPE_3: Final = SEVERAL | frozenset(
    {
        Tag.TIMEZONE_OFFSET_FROM_UTC,
        Tag.STUDY_DESCRIPTION,
        Tag.ISSUER_OF_PATIENT_ID,
        Tag.TYPE_OF_PATIENT_ID,
        Tag.PATIENT_BIRTH_TIME,
        Tag.QUALITY_CONTROL_SUBJECT,
        Tag.PATIENT_AGE,
        Tag.PATIENT_SIZE,
        Tag.PATIENT_BODY_MASS_INDEX,
        Tag.PATIENT_WEIGHT,
        Tag.ETHNIC_GROUP,
        Tag.OCCUPATION,
        Tag.SMOKING_STATUS,
        Tag.ADDITIONAL_PATIENT_HISTORY,
        Tag.PREGNANCY_STATUS,
        Tag.LAST_MENSTRUAL_DATE,
        Tag.PATIENT_COMMENTS,
        Tag.CLINICAL_TRIAL_SPONSOR_NAME,
        Tag.CLINICAL_TRIAL_PROTOCOL_ID,
        Tag.CLINICAL_TRIAL_PROTOCOL_NAME,
        Tag.CLINICAL_TRIAL_SITE_ID,
        Tag.CLINICAL_TRIAL_SITE_NAME,
        Tag.CLINICAL_TRIAL_SUBJECT_ID,
        Tag.CLINICAL_TRIAL_SUBJECT_READING_ID,
        Tag.CLINICAL_TRIAL_TIME_POINT_ID,
        Tag.CLINICAL_TRIAL_TIME_POINT_DESCRIPTION,
        Tag.PATIENT_IDENTITY_REMOVED,
        Tag.DEIDENTIFICATION_METHOD,
        Tag.REASON_FOR_VISIT,
        Tag.ADMISSION_ID,
        Tag.SERVICE_EPISODE_ID,
        Tag.SERVICE_EPISODE_DESCRIPTION,
        Tag.PATIENT_STATE,
    }
)
"""Written if the CT has them: all images of a patient, and of a study, agree on what they say of it (PS3.3 A.1.2)."""

WANTED: Final = frozenset({Tag.SPECIFIC_CHARACTER_SET, *TYPE_2, *TYPE_3})

_ASCII: Final = frozenset({"DA", "TM", "CS", "AS", "DS"})
_LONGEST: Final = {"SH": 16, "LO": 64, "CS": 16, "PN": 64, "ST": 1_024, "LT": 10_240, "UT": 65_536}
_AGE: Final = re.compile(r"\d{3}[DWMY]")
_LINES: Final = frozenset("\t\n\f\r")
"""What a text of several lines may have beside letters."""

_TEXTS: Final = frozenset({"ST", "LT", "UT"})

_TIME: Final = re.compile(r"([01]\d|2[0-3])([0-5]\d(([0-5]\d|60)(\.\d{1,6})?)?)?")
_ZONE: Final = re.compile(r"[+-](0\d|1[0-4])[0-5]\d")
_CODES: Final[Mapping[int, frozenset[str]]] = {
    Tag.PATIENT_SEX: frozenset({"M", "F", "O"}),
    Tag.PATIENT_IDENTITY_REMOVED: frozenset({"YES", "NO"}),
}
_BACKSLASH_ALLOWED: Final = SEVERAL | {Tag.DEIDENTIFICATION_METHOD}


def to_template(values: Mapping[int, bytes], *, big_endian: bool = False) -> tuple[Dataset, list[Notice]]:
    """The attributes as a data set, with their character set.

    :param values: raw bytes of :data:`WANTED` elements by tag, of one instance.
    :param big_endian: how the instance stores binary numbers.
    :returns: the data set, and a warning that names (by keyword, never by value) what was left empty.
    """
    template, empty, undeclared = Dataset(), [], []
    terms, encodings = _character_set(values.get(Tag.SPECIFIC_CHARACTER_SET, b""))
    if encodings is None:
        empty.append("SpecificCharacterSet")
    elif terms:
        template.add(DataElement(BaseTag(Tag.SPECIFIC_CHARACTER_SET), "CS", terms if len(terms) > 1 else terms[0]))
    for tag in sorted({*TYPE_2, *(values.keys() & TYPE_3)}):
        if dictionary_VR(tag) == "US":
            number = int.from_bytes(values[tag], "big" if big_endian else "little") if len(values[tag]) == 2 else None
            template.add(DataElement(BaseTag(tag), "US", number))
            continue
        raw = values.get(tag, b"").rstrip(b" \0")
        value = _value(tag, raw, encodings)
        if value is None:
            empty.append(keyword_for_tag(tag))
        elif not terms and not raw.isascii():
            undeclared.append(keyword_for_tag(tag))
        template.add(DataElement(BaseTag(tag), dictionary_VR(tag), value or "", validation_mode=IGNORE))  # validated above
    return template, [*_left_empty(empty), *_undeclared(undeclared)]


def same_text(first: Mapping[int, bytes], second: Mapping[int, bytes], tag: int) -> bool:
    """Whether two instances say the same in an element of text.

    Blanks around a value do not count, nor do empty components at the end of a name (PS3.5 6.2, 6.2.1.1), and each value is
    read in the character set of its own instance.
    """
    if first.get(tag, b"").strip(b" \0") == second.get(tag, b"").strip(b" \0"):
        return True
    texts = [_comparable(values, tag) for values in (first, second)]
    return texts[0] is not None and texts[0] == texts[1]


def _comparable(values: Mapping[int, bytes], tag: int) -> str | None:
    """A text without what does not count; None where it cannot be decoded."""
    raw, vr = values.get(tag, b"").strip(b" \0"), dictionary_VR(tag)
    _, encodings = _character_set(values.get(Tag.SPECIFIC_CHARACTER_SET, b""))
    text = raw.decode("ascii") if raw.isascii() and b"\x1b" not in raw else _text(vr, raw, encodings) if encodings else None
    if text is None or vr != "PN":
        return text
    groups = ["^".join(part.strip() for part in group.split("^")).rstrip("^") for group in text.split("=")]
    return "=".join(groups).rstrip("=")


def encoded(text: str, template: Dataset) -> bytes | None:
    """Text of our own in the template's character set.

    None if the set does not have all of its letters.

    Plain ASCII is the same in every set that a CT may have (PS3.3 C.12.1.1.2), and all that there is without one.
    """
    if text.isascii():
        return text.encode("ascii")
    terms = template.get("SpecificCharacterSet")
    if not terms:
        return None
    encodings = convert_encodings(terms)
    if not (terms if isinstance(terms, str) else terms[0]) and any("\x80" <= letter <= "\xff" for letter in text):
        return None  # pydicom takes the default repertoire, which is ASCII, for Latin-1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what cannot be encoded is told by the way back
        raw = encode_string(text, encodings)
        return raw if decode_bytes(raw, encodings, TEXT_VR_DELIMS) == text else None


def _left_empty(keywords: list[str]) -> list[Notice]:
    detail = f"The CT holds values in {', '.join(keywords)} that are not valid there; the RTSTRUCT has them empty."
    return [Notice("series.invalid_attributes", detail)] if keywords else []


def _undeclared(keywords: list[str]) -> list[Notice]:
    """Kept, as the planning system reads the CT's name by the same default; an empty name would make another patient."""
    detail = f"The CT declares no character set for its {', '.join(keywords)}; the RTSTRUCT has the same bytes, undeclared too."
    return [Notice("series.undeclared_character_set", detail)] if keywords else []


def _character_set(raw: bytes) -> tuple[list[str], list[str] | None]:
    """Defined terms of Specific Character Set and Python's names for them; None where a term is unknown.

    Several terms go with code extensions only (PS3.3 C.12.1.1.2).
    """
    terms = [term.strip(" \0") for term in raw.decode("ascii", "replace").split("\\")]
    known = all(term in python_encoding for term in terms)
    extended = len(terms) == 1 or all(not term or term.startswith("ISO 2022") for term in terms)
    if not (known and extended):
        return [], None
    return ([] if terms == [""] else terms), convert_encodings(terms)


def _value(tag: int, raw: bytes, encodings: list[str] | None) -> str | bytes | PersonName | None:
    """The value such that it is written with the bytes that it was read from; None where it is not valid for its VR.

    A PersonName made of bytes keeps them ("Wang^XiaoDong=王^小東=" would lose its last sign otherwise, which names the same
    person but is not the same value); other text stays as bytes where decoding and encoding do not give the same bytes again.
    """
    vr = dictionary_VR(tag)
    text = _text(vr, raw, encodings)
    if text is None or (text and not _is_valid(tag, vr, text)):
        return None
    if not text or not encodings or vr in _ASCII:
        return text
    if vr == "PN":
        return PersonName(raw, encodings, validation_mode=IGNORE)  # pydicom counts bytes where the standard counts characters
    return text if encode_string(text, encodings) == raw else raw


def _text(vr: str, raw: bytes, encodings: list[str] | None) -> str | None:
    if vr in _ASCII or not encodings:
        return raw.decode("ascii") if raw.isascii() else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what cannot be decoded is told by its replacement characters
        text = decode_bytes(raw, encodings, PN_DELIMS if vr == "PN" else TEXT_VR_DELIMS)
    return None if "\ufffd" in text else text


def _is_valid(tag: int, vr: str, text: str) -> bool:
    if vr in _FORMS:
        return bool(_FORMS[vr](text))
    if tag in _CODES:
        return text in _CODES[tag]
    if tag == Tag.TIMEZONE_OFFSET_FROM_UTC:
        return _ZONE.fullmatch(text) is not None
    controls = {letter for letter in text if ord(letter) < 32} - {"\x1b"}
    if vr in _TEXTS:
        return controls <= _LINES and len(text) <= _LONGEST[vr]
    if controls or ("\\" in text and tag not in _BACKSLASH_ALLOWED):
        return False
    return all(_fits(vr, value) for value in text.split("\\"))


def _fits(vr: str, value: str) -> bool:
    """Whether one value is short enough; of a name each of at most three groups."""
    groups = value.split("=") if vr == "PN" else [value]
    return all(len(group) <= _LONGEST[vr] for group in groups) and len(groups) <= 3


def _is_date(text: str) -> bool:
    if re.fullmatch(r"\d{8}", text) is None:
        return False
    try:
        date(int(text[:4]), int(text[4:6]), int(text[6:]))
    except ValueError:
        return False
    return True


def _is_decimal_string(text: str) -> bool:
    return len(text) <= LONGEST_STANDARD and is_decimal(text)


_FORMS: Final[Mapping[str, Callable[[str], object]]] = {
    "DA": _is_date,
    "TM": _TIME.fullmatch,
    "AS": _AGE.fullmatch,
    "DS": _is_decimal_string,
}

"""What one received file is.

Its identity, the series that it belongs to, and the texts that rules ask for.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

from pydicom.charset import convert_encodings, decode_bytes
from pydicom.valuerep import TEXT_VR_DELIMS

from oarlock.ct.listed_images import listed_images
from oarlock.ct.series import check_headers
from oarlock.ct.sorting import CT_IMAGE, MULTI_FRAME_CT, RT_STRUCTURE_SET
from oarlock.dicom.elements import DEFLATED, Header, read_elements
from oarlock.dicom.fragments import find_fragments
from oarlock.dicom.sequences import Item, read_sequences_until
from oarlock.dicom.tags import Tag
from oarlock.dicom.unusable import Unusable
from oarlock.errors import SeriesError

CT_CLASSES: Final = frozenset({CT_IMAGE, *MULTI_FRAME_CT})

_UIDS: Final = (Tag.SOP_INSTANCE_UID, Tag.STUDY_INSTANCE_UID, Tag.SERIES_INSTANCE_UID)
_IDENTITY: Final = frozenset({Tag.SOP_CLASS_UID, *_UIDS, Tag.NUMBER_OF_SERIES_RELATED_INSTANCES})
_TEXTS: Final[Mapping[str, Tag]] = {
    "study_description": Tag.STUDY_DESCRIPTION,
    "series_description": Tag.SERIES_DESCRIPTION,
    "protocol_name": Tag.PROTOCOL_NAME,
    "body_part": Tag.BODY_PART_EXAMINED,
    "manufacturer": Tag.MANUFACTURER,
}
_ROUTED_BY: Final = frozenset(
    {Tag.SPECIFIC_CHARACTER_SET, Tag.IMAGE_TYPE, Tag.SLICE_THICKNESS, Tag.MANUFACTURER_MODEL_NAME, *_TEXTS.values()}
)
_UID: Final = re.compile(r"[0-9]+(\.[0-9]+)*")


@dataclass(frozen=True, slots=True)
class Identity:
    """What a file says that it is.

    :ivar announced: Number of Series Related Instances, which some senders write into their images; None where absent.
    :ivar names: Series Instance UIDs that an RTSTRUCT names.
    """

    sop_class: str
    sop_instance_uid: str
    study_uid: str
    series_uid: str
    announced: int | None = None
    names: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Texts:
    """What rules ask of a series; empty where absent.

    :ivar image_types: values of Image Type, in capitals.
    :ivar device: manufacturer and model.
    :ivar thickness_mm: None where absent.
    """

    study_description: str = ""
    series_description: str = ""
    protocol_name: str = ""
    body_part: str = ""
    manufacturer: str = ""
    device: str = ""
    image_types: tuple[str, ...] = ()
    thickness_mm: float | None = None


def identify(path: Path) -> Identity:
    """Who a file says that it is.

    :raises Unusable: it is not a CT image or an RTSTRUCT with valid UIDs, or it is damaged; no byte of it is repeated.
    """
    header = read_elements(path, _IDENTITY, keep=lambda sop_class: sop_class in CT_CLASSES)
    if header is None:
        raise Unusable("it is not DICOM")
    sop_class = header.text(Tag.SOP_CLASS_UID) or header.text(Tag.MEDIA_STORAGE_SOP_CLASS_UID)
    if sop_class == RT_STRUCTURE_SET:
        return _identify_structure_set(path)
    if sop_class not in CT_CLASSES:
        raise Unusable("it is neither a CT image nor an RT Structure Set")
    count = header.text(Tag.NUMBER_OF_SERIES_RELATED_INSTANCES)
    announced = int(count) if count.isdigit() and len(count) <= 6 else None
    return Identity(sop_class, *_uids(header), announced=announced)


def _identify_structure_set(path: Path) -> Identity:
    """By the part in front of its contours: there are 100,000 elements behind that."""
    root = read_sequences_until(path, Tag.STRUCTURE_SET_ROI_SEQUENCE, sop_class=RT_STRUCTURE_SET) or Item()
    return Identity(RT_STRUCTURE_SET, *_uids(root), names=_names(root))


def _names(root: Item) -> frozenset[str]:
    """Items of RT Referenced Series Sequence (PS3.3 C.8.8.5): the series that the contours were drawn on.

    What is not a UID is left out: folders are named by these.
    """
    frames = root.items(Tag.REFERENCED_FRAME_OF_REFERENCE_SEQUENCE)
    studies = [study for frame in frames for study in frame.items(Tag.RT_REFERENCED_STUDY_SEQUENCE)]
    series = [one.text(Tag.SERIES_INSTANCE_UID) for study in studies for one in study.items(Tag.RT_REFERENCED_SERIES_SEQUENCE)]
    return frozenset(filter(_is_uid, series))


def _uids(header: Header | Item) -> tuple[str, str, str]:
    instance, study, series = (_uid(header, tag) for tag in _UIDS)
    return instance, study, series


def _uid(header: Header | Item, tag: Tag) -> str:
    text = header.text(tag)
    if not _is_uid(text):
        raise Unusable(f"it has no valid {tag.name.replace('_', ' ').title().replace('Uid', 'UID')}")
    return text


def _is_uid(text: str) -> bool:
    return len(text) <= 64 and _UID.fullmatch(text) is not None


def check_end(path: Path) -> None:
    """Check that the pixel data of a file have their end.

    Half of an image has a whole header.

    :raises Unusable: the file is cut off.
    """
    header = read_elements(path, _IDENTITY, keep=lambda _: True)
    pixels = None if header is None else header.pixel_data
    if header is None or pixels is None or header.transfer_syntax == DEFLATED:
        return
    if pixels.length is None:
        find_fragments(path, pixels.offset)
    elif pixels.offset + pixels.length > header.size:
        raise Unusable("it is cut off")


def read_texts(path: Path) -> Texts:
    """What rules ask of a file of a series.

    Empty texts where it cannot be read.
    """
    try:
        header = read_elements(path, _ROUTED_BY, keep=lambda _: True)
    except Unusable:
        header = None
    if header is None:
        return Texts()
    texts = {name: _text(header, tag) for name, tag in _TEXTS.items()}
    thickness = header.numbers(Tag.SLICE_THICKNESS)
    return Texts(
        **texts,
        device=f"{texts['manufacturer']} {_text(header, Tag.MANUFACTURER_MODEL_NAME)}".strip(),
        image_types=tuple(value.strip() for value in header.text(Tag.IMAGE_TYPE).upper().split("\\") if value.strip()),
        thickness_mm=thickness[0] if thickness else None,
    )


def _text(header: Header, tag: Tag) -> str:
    """A text in the character set that the file declares (PS3.3 C.12.1.1.2); what cannot be decoded is replaced."""
    value = header.values.get(tag, b"")
    try:
        encodings = convert_encodings(header.text(Tag.SPECIFIC_CHARACTER_SET).split("\\"))
        return decode_bytes(value, encodings, TEXT_VR_DELIMS).strip(" \0")
    except (LookupError, ValueError):
        return value.decode("latin-1").strip(" \0")


def is_gapless(files: Sequence[Path]) -> bool:
    """Whether files are one complete stack of slices.

    By the same judge that the service asks.
    """
    try:
        check_headers(files, max_slices=len(files) + 16_384)
    except SeriesError:
        return False
    return True


@lru_cache(256)
def listed_by(path: Path, series_uid: str) -> frozenset[str]:
    """SOP Instance UIDs that an RTSTRUCT lists for a series.

    A file in the inbox never changes, so it is read once.
    """
    return frozenset(listed_images(path, series_uid)) - {""}


@lru_cache(256)
def is_approved(path: Path) -> bool:
    """Whether an RTSTRUCT says that it was approved (PS3.3 C.8.8.16)."""
    try:
        header = read_elements(path, {Tag.APPROVAL_STATUS}, keep=lambda _: True)
    except Unusable:
        return False
    return header is not None and header.text(Tag.APPROVAL_STATUS) == "APPROVED"


def digest_of(text: str) -> str:
    """A short name of a UID that says nothing of it.

    For folders, logs and idempotency keys.
    """
    return hashlib.sha256(text.encode()).hexdigest()[:20]

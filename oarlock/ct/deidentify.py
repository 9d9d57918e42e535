"""De-identification: a series without its patient, and the RTSTRUCT of it with the patient again (ADR 15).

Nothing is struck out of the files: new ones are written that hold Hounsfield units, the numbers of the geometry, and UIDs that
stand for the true ones. What else the files held cannot be in them. What an RTSTRUCT takes over from its CT comes back in the
end, byte for byte: the true UIDs in place of the others, and the attributes of :mod:`oarlock.dicom.patient_attributes`.
"""

import json
import struct
import zlib
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from pydicom.datadict import dictionary_VR
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ImplicitVRLittleEndian

from oarlock.ct.series import MANUFACTURER, MODEL_NAME, CTSeries, Instance, SeriesHeader
from oarlock.dicom import patient_attributes as identity
from oarlock.errors import NotDeidentifiable

Pseudonym = Callable[[str], str]
"""Gives the UID that stands for a UID, always the same one."""

_KEPT: Final = ("SpecificCharacterSet", "TimezoneOffsetFromUTC")
"""Of the template: without them names and times of ours would be written in another way."""

_META_LENGTH_END: Final = 144


@dataclass(frozen=True, slots=True)
class Original:
    """What was taken away: UIDs by those that stand for them, and the patient and study attributes of the RTSTRUCT as encoded."""

    uids: Mapping[str, str]
    attributes: bytes

    def to_bytes(self) -> bytes:
        """All of it, to be sealed."""
        document = {"uids": dict(self.uids), "attributes": b64encode(self.attributes).decode()}
        return zlib.compress(json.dumps(document).encode())

    @classmethod
    def of_bytes(cls, content: bytes) -> "Original":
        document = json.loads(zlib.decompress(content))
        return cls(document["uids"], b64decode(document["attributes"]))


# ── away ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def check_deidentifiable(header: SeriesHeader) -> None:
    """See that a series is one that can be written anew.

    :raises NotDeidentifiable: it comes with RTSTRUCTs, which are free text, or in multi-frame images.
    """
    if header.structure_sets:
        raise NotDeidentifiable(reason="it comes with RTSTRUCTs; post it without them, and compare with POST /v1/comparisons")
    if any(instance.frame is not None for instance in header.instances):
        raise NotDeidentifiable(reason="it comes as multi-frame images; post it as single-frame CT images")


def write_deidentified(series: CTSeries, next_file: Callable[[], Path], pseudonym: Pseudonym) -> Original:
    """Write a series anew, slice by slice.

    :param next_file: gives the path of the next file.
    :raises NotDeidentifiable: see :func:`check_deidentifiable`.
    """
    header = series.header
    check_deidentifiable(header)
    for instance, hu in zip(header.instances, series.hu, strict=True):
        next_file().write_bytes(_slice(header, instance, hu, pseudonym))
    uids = [header.study_instance_uid, header.series_instance_uid, header.frame_of_reference_uid]
    uids += [instance.sop_instance_uid for instance in header.instances]
    return Original({pseudonym(uid): uid for uid in uids}, _encoded(header.template))


def _slice(header: SeriesHeader, instance: Instance, hu: npt.NDArray[np.int16], pseudonym: Pseudonym) -> bytes:
    """A CT image of nothing but what the worker reads. The numbers of its plane have all their digits, so that they come back."""
    plane = instance.plane
    assert plane is not None  # the header was made by check_headers
    texts: dict[int, str] = {
        0x00080008: "ORIGINAL\\PRIMARY\\AXIAL",
        0x00080016: CTImageStorage,
        0x00080018: pseudonym(instance.sop_instance_uid),
        0x00080060: "CT",
        0x00120062: "YES",
        0x00120063: "Oarlock: written anew",
        0x0020000D: pseudonym(header.study_instance_uid),
        0x0020000E: pseudonym(header.series_instance_uid),
        0x00200032: _decimals(plane.origin_mm),
        0x00200037: _decimals(plane.cosines),
        0x00200052: pseudonym(header.frame_of_reference_uid),
        0x00280004: "MONOCHROME2",
        0x00280030: _decimals(plane.pixel_spacing_mm),
        0x00281052: "0",
        0x00281053: "1",
        0x00281054: "HU",
    }
    # Of the Basic Profile (PS3.15 Annex E) both may stay, and Station Name may not: charts tell makes of scanners apart.
    texts |= {tag: text for tag, text in zip((MANUFACTURER, MODEL_NAME), header.device, strict=True) if text}
    if plane.thickness_mm is not None:
        texts[0x00180050] = _decimals((plane.thickness_mm,))
    numbers = {0x00280002: 1, 0x00280010: plane.rows, 0x00280011: plane.columns}
    numbers |= {0x00280100: 16, 0x00280101: 16, 0x00280102: 15, 0x00280103: 1}
    elements = {tag: text.encode("ascii") for tag, text in texts.items()}
    elements |= {tag: struct.pack("<H", number) for tag, number in numbers.items()}
    elements[0x7FE00010] = hu.astype("<i2").tobytes()
    kept = Dataset()
    for keyword in _KEPT:
        if keyword in header.template:
            kept.add(header.template[keyword])
    elements |= dict(_elements(_encoded(kept)))
    return _preamble(pseudonym(instance.sop_instance_uid)) + _joined(elements)


def _decimals(values: tuple[float, ...]) -> str:
    return "\\".join(repr(float(value)) for value in values)


def _preamble(sop_instance_uid: str) -> bytes:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, UID(sop_instance_uid)
    meta.TransferSyntaxUID = ImplicitVRLittleEndian
    nothing, buffer = Dataset(), BytesIO()
    nothing.file_meta = meta
    nothing.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _encoded(dataset: Dataset) -> bytes:
    """A data set in Implicit VR Little Endian."""
    buffer = BytesIO()
    dataset.save_as(buffer, implicit_vr=True, little_endian=True)
    return buffer.getvalue()


# ── and back ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def reidentified(rtstruct: bytes, original: Original) -> bytes:
    """An RTSTRUCT of ours with the true UIDs and the patient's attributes: what would have been written of the true series."""
    end = _META_LENGTH_END + struct.unpack_from("<I", rtstruct, _META_LENGTH_END - 4)[0]
    uids = {true.encode(): stands.encode() for true, stands in original.uids.items()}
    elements = {tag: _with_uids(tag, value, uids) for tag, value in _elements(rtstruct[end:]) if tag not in identity.WANTED}
    return rtstruct[:end] + _joined(elements | dict(_elements(original.attributes)))


def _with_uids(tag: int, value: bytes, uids: Mapping[bytes, bytes]) -> bytes:
    """The value of an element with other UIDs, however deep."""
    vr = _vr(tag)
    if vr == "UI":
        return uids.get(value.rstrip(b"\0"), value)
    if vr != "SQ":
        return value
    items = []
    for _, item in _elements(value):
        content = _joined({inner: _with_uids(inner, found, uids) for inner, found in _elements(item)})
        items.append(struct.pack("<HHI", 0xFFFE, 0xE000, len(content)) + content)
    return b"".join(items)


@cache
def _vr(tag: int) -> str:
    return dictionary_VR(tag)


def _elements(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Elements, or items, of explicit length in Implicit VR Little Endian (PS3.5 7.1.3, 7.5): our own writing."""
    offset = 0
    while offset < len(content):
        group, element, length = struct.unpack_from("<HHI", content, offset)
        yield group << 16 | element, content[offset + 8 : offset + 8 + length]
        offset += 8 + length


def _joined(elements: Mapping[int, bytes]) -> bytes:
    """Elements in the order of their tags, each of an even length."""
    parts = []
    for tag, value in sorted(elements.items()):
        padding = b"" if len(value) % 2 == 0 else b"\0" if _vr(tag) in {"UI", "OW"} else b" "
        parts += [struct.pack("<HHI", tag >> 16, tag & 0xFFFF, len(value) + len(padding)), value, padding]
    return b"".join(parts)

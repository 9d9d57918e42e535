"""De-identification: a series is written anew without its patient (ADR 15).

Nothing is removed from the files: new ones are written that hold Hounsfield units, the numbers of the geometry, and pseudonyms
in place of the UIDs. What else the files held cannot be in them. :mod:`oarlock.rtstruct.reidentify` puts the patient into the
RTSTRUCT again.
"""

import json
import struct
import zlib
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Final

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ImplicitVRLittleEndian

from oarlock.arrays import Int16Array
from oarlock.ct.series import CTSeries, Instance, SeriesHeader
from oarlock.dicom.encoding import encode_dataset, split_elements
from oarlock.dicom.tags import Tag
from oarlock.errors import NotDeidentifiable

Pseudonym = Callable[[str], str]
"""Gives the UID that stands for a UID, always the same one."""

_KEPT: Final = ("SpecificCharacterSet", "TimezoneOffsetFromUTC")
"""Of the template: without them our own names and times would be written differently."""


@dataclass(frozen=True, slots=True)
class Original:
    """What was taken away from a series.

    UIDs by their pseudonyms, and the encoded patient and study attributes of the RTSTRUCT.
    """

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


def check_deidentifiable(header: SeriesHeader) -> None:
    """Check that a series can be written anew.

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


def _slice(header: SeriesHeader, instance: Instance, hu: Int16Array, pseudonym: Pseudonym) -> bytes:
    """A CT image of nothing but what the worker reads."""
    elements = {tag: text.encode("ascii") for tag, text in _texts(header, instance, pseudonym).items()}
    elements |= {tag: struct.pack("<H", number) for tag, number in _numbers(hu).items()}
    elements[Tag.PIXEL_DATA] = hu.astype("<i2").tobytes()
    kept = Dataset()
    for keyword in _KEPT:
        if keyword in header.template:
            kept.add(header.template[keyword])
    elements |= dict(split_elements(_encoded(kept)))
    return preamble(pseudonym(instance.sop_instance_uid)) + encode_dataset(elements)


def _texts(header: SeriesHeader, instance: Instance, pseudonym: Pseudonym) -> dict[int, str]:
    """Elements of text. The numbers of the plane have all their digits, so that they are read back exactly."""
    plane = instance.plane
    assert plane is not None  # the header was made by check_headers
    texts: dict[int, str] = {
        Tag.IMAGE_TYPE: "ORIGINAL\\PRIMARY\\AXIAL",
        Tag.SOP_CLASS_UID: CTImageStorage,
        Tag.SOP_INSTANCE_UID: pseudonym(instance.sop_instance_uid),
        Tag.MODALITY: "CT",
        Tag.PATIENT_IDENTITY_REMOVED: "YES",
        Tag.DEIDENTIFICATION_METHOD: "Oarlock: written anew",
        Tag.STUDY_INSTANCE_UID: pseudonym(header.study_instance_uid),
        Tag.SERIES_INSTANCE_UID: pseudonym(header.series_instance_uid),
        Tag.IMAGE_POSITION_PATIENT: _decimals(plane.origin_mm),
        Tag.IMAGE_ORIENTATION_PATIENT: _decimals(plane.cosines),
        Tag.FRAME_OF_REFERENCE_UID: pseudonym(header.frame_of_reference_uid),
        Tag.PHOTOMETRIC_INTERPRETATION: "MONOCHROME2",
        Tag.PIXEL_SPACING: _decimals(plane.pixel_spacing_mm),
        Tag.RESCALE_INTERCEPT: "0",
        Tag.RESCALE_SLOPE: "1",
        Tag.RESCALE_TYPE: "HU",
    }
    # Of the Basic Profile (PS3.15 Annex E) both may stay, and Station Name may not: charts tell makes of scanners apart.
    device = zip((Tag.MANUFACTURER, Tag.MANUFACTURER_MODEL_NAME), header.device, strict=True)
    texts |= {tag: text for tag, text in device if text}
    if plane.thickness_mm is not None:
        texts[Tag.SLICE_THICKNESS] = _decimals((plane.thickness_mm,))
    return texts


def _numbers(hu: Int16Array) -> dict[int, int]:
    rows, columns = hu.shape
    return {
        Tag.SAMPLES_PER_PIXEL: 1,
        Tag.ROWS: rows,
        Tag.COLUMNS: columns,
        Tag.BITS_ALLOCATED: 16,
        Tag.BITS_STORED: 16,
        Tag.HIGH_BIT: 15,
        Tag.PIXEL_REPRESENTATION: 1,
    }


def _decimals(values: tuple[float, ...]) -> str:
    return "\\".join(repr(float(value)) for value in values)


def preamble(sop_instance_uid: str) -> bytes:
    """Preamble and file meta information."""
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

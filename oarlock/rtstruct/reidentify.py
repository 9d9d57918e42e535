"""Re-identification of an RTSTRUCT of a de-identified series (ADR 15).

The patient and the true UIDs are put into it.

What an RTSTRUCT takes over from its CT comes back byte for byte: the true UIDs in place of their pseudonyms, and the attributes
of :mod:`oarlock.dicom.patient_attributes`.
"""

from collections.abc import Mapping
from typing import Final

from oarlock.ct.deidentify import Original, preamble
from oarlock.dicom.encoding import dataset_start, encode_dataset, encode_items, split_elements, vr_of
from oarlock.dicom.patient_attributes import WANTED
from oarlock.dicom.tags import Tag

_OFFSET: Final = int(Tag.TIMEZONE_OFFSET_FROM_UTC)


def reidentified(rtstruct: bytes, original: Original) -> bytes:
    """The RTSTRUCT as it would have been written for the true series.

    :param rtstruct: a file of our own, written for the series that :func:`oarlock.ct.deidentify.write_deidentified` made.
    """
    end = dataset_start(rtstruct)
    uids = {true.encode(): stands.encode() for true, stands in original.uids.items()}
    # The offset of the file's own times stays where the CT states none.
    kept = [(tag, value) for tag, value in split_elements(rtstruct[end:]) if tag not in WANTED or tag == _OFFSET]
    elements = {tag: _with_uids(tag, value, uids) for tag, value in kept}
    return rtstruct[:end] + encode_dataset(elements | dict(split_elements(original.attributes)))


def reidentified_image(image: bytes, original: Original) -> bytes:
    """A de-identified CT image with its patient and true UIDs.

    Of the rest it has what was kept.
    """
    dataset = reidentified(image, original)[dataset_start(image) :]
    uid = dict(split_elements(dataset))[Tag.SOP_INSTANCE_UID]
    return preamble(uid.rstrip(b"\0").decode("ascii")) + dataset


def _with_uids(tag: int, value: bytes, uids: Mapping[bytes, bytes]) -> bytes:
    """The value of an element with other UIDs, however deep."""
    vr = vr_of(tag)
    if vr == "UI":
        return uids.get(value.rstrip(b"\0"), value)
    if vr != "SQ":
        return value
    return encode_items(
        encode_dataset({inner: _with_uids(inner, found, uids) for inner, found in split_elements(item)})
        for _, item in split_elements(value)
    )

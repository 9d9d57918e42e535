"""Data elements in Implicit VR Little Endian, with explicit lengths.

Oarlock writes them so, and reads them back (PS3.5 7.1.3, 7.5).
"""

import struct
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Final

from pydicom.datadict import dictionary_VR

from oarlock.dicom.tags import ITEM

_HEAD: Final = struct.Struct("<HHI")
_META_LENGTH_END: Final = 144
"""Offset behind File Meta Information Group Length: a preamble of 128 bytes, DICM, and an element of 12."""


def encode_element(tag: int, value: bytes) -> bytes:
    """One element, padded to an even length (PS3.5 6.2).

    Its VR says with what.
    """
    if len(value) % 2:
        value += b"\0" if vr_of(tag) in {"UI", "OB", "OW", "OB or OW"} else b" "
    return _HEAD.pack(tag >> 16, tag & 0xFFFF, len(value)) + value


def encode_sequence(tag: int, items: Iterable[bytes]) -> bytes:
    """A sequence; each item is a data set that is encoded already."""
    return encode_element(tag, encode_items(items))


def encode_items(items: Iterable[bytes]) -> bytes:
    """The value of a sequence."""
    return b"".join(_HEAD.pack(ITEM >> 16, ITEM & 0xFFFF, len(item)) + item for item in items)


def encode_dataset(elements: Mapping[int, bytes]) -> bytes:
    """Elements in the order of their tags."""
    return b"".join(encode_element(tag, value) for tag, value in sorted(elements.items()))


def split_elements(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Tag and value of each element, or item.

    Only for what was encoded here, never for a file from outside.
    """
    offset = 0
    while offset < len(content):
        group, element, length = _HEAD.unpack_from(content, offset)
        yield group << 16 | element, content[offset + 8 : offset + 8 + length]
        offset += 8 + length


def dataset_start(part_10: bytes) -> int:
    """Where the data set of a Part 10 file begins.

    Its meta information must begin with its own length (PS3.10 7.1).
    """
    return _META_LENGTH_END + int(struct.unpack_from("<I", part_10, _META_LENGTH_END - 4)[0])


@cache
def vr_of(tag: int) -> str:
    """The VR of a standard element."""
    return dictionary_VR(tag)

"""Encapsulated pixel data: where its fragments lie (PS3.5 A.4)."""

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from oarlock.dicom.unusable import Unusable

MAX_FRAGMENTS: Final = 200_000
"""Most fragments of one file that are looked at (0.3 s)."""

_ITEM, _SEQUENCE_END = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"


def find_fragments(path: Path, offset: int) -> list[tuple[int, int]]:
    """Offset and length of each fragment, without the offset table.

    Decoders make something up for what is missing, so the fragments must be whole and end with their delimiter.

    :param offset: of the value of Pixel Data in the file.
    :raises Unusable: they are cut off, or are not fragments.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return list(_walk(descriptor, offset))[1:]
    finally:
        os.close(descriptor)


def _walk(descriptor: int, offset: int) -> Iterator[tuple[int, int]]:
    size = os.fstat(descriptor).st_size
    for _ in range(MAX_FRAGMENTS):
        head = os.pread(descriptor, 8, offset)
        tag, length = struct.unpack("<4sI", head) if len(head) == 8 else (b"", 0)
        if tag == _SEQUENCE_END:
            return
        if tag != _ITEM or offset + 8 + length > size:
            break
        yield offset + 8, length
        offset += 8 + length
    raise Unusable("its compressed data are cut off or not in fragments")

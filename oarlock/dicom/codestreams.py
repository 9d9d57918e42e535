"""Checks of a compressed frame before it is decoded.

It must be one whole grey image of the stated size.

A decoder allocates what the codestream claims, and makes up what is missing. So the frame header is read here, and what must
be there is looked for: every tile of a JPEG 2000 image, and the one scan of a JPEG image. Nothing is decoded, and the work is
bounded by the length of the frame.

Sources: ISO/IEC 15444-1 Annex A (JPEG 2000 codestream) and I (file format), ISO/IEC 10918-1 Annex B (JPEG), ISO/IEC 14495-1
Annex C (JPEG-LS), PS3.5 A.4.
"""

import re
import struct
from typing import Final

from oarlock.dicom.unusable import Unusable

_J2K_START: Final = b"\xff\x4f\xff\x51"
"""Start of codestream, and the marker of its sizes, which must follow at once."""

_FIRST_BOXES: Final = b"\x00\x00\x00\x0cjP  \r\n\x87\n"
_START, _END = b"\xff\xd8", b"\xff\xd9"
_SOT: Final = 0xFF90
_MOST_BOXES: Final = 64
_MOST_MARKERS: Final = 1_024
_MOST_TILES: Final = 4_096
"""Encoders write one tile, or a few hundred for an image of the largest matrix; every one costs a decoder 10 kB."""

_FRAME_HEADERS: Final = (frozenset(range(0xFFC0, 0xFFD0)) - {0xFFC4, 0xFFC8, 0xFFCC}) | {0xFFF7}
_HIERARCHICAL: Final = 0xFFDE
_SCAN: Final = 0xFFDA
_PRESETS: Final = 0xFFF8
_OVERSIZE: Final = 4
"""Of the JPEG-LS preset parameters: the sizes of an image too large for its frame header."""

_MARKER: Final = re.compile(rb"\xff[\x80-\xcf\xd8-\xfe]")
"""A marker among coded data: not one of the restarts, which belong to them, nor a stuffed byte."""


def whole_codestream(frame: bytes, rows: int, columns: int) -> bytes:
    """The codestream of one grey image, without a file format around it.

    :param frame: the compressed form of one frame, as JPEG, JPEG-LS or JPEG 2000.
    :raises Unusable: it is not whole, is of another size, or holds more than one image.
    """
    frame = _without_file_format(frame).rstrip(b"\0\xff")  # padded to an even length with either
    if not frame.endswith(_END):
        raise Unusable("its compressed data are cut off")
    in_tiles = frame.startswith(_J2K_START)
    if (_jpeg_2000_size(frame) if in_tiles else _jpeg_size(frame)) != (rows, columns):
        raise Unusable("its compressed data claim another size than the header")
    if in_tiles:
        _check_tiles(frame)
    return frame


# ── JPEG 2000 ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _without_file_format(frame: bytes) -> bytes:
    """What the box of the codestream holds, where there are boxes (which DICOM does not allow, and some write)."""
    if not frame.startswith(_FIRST_BOXES):
        return frame
    offset = 0
    for _ in range(_MOST_BOXES):
        if offset + 8 > len(frame):
            break
        length, kind = struct.unpack_from(">I4s", frame, offset)
        if kind == b"jp2c":
            return frame[offset + 8 : offset + length if length else None]
        if length < 8:
            break
        offset += length
    raise Unusable("its compressed data have no frame header")


def _jpeg_2000_size(frame: bytes) -> tuple[int, int]:
    """Rows and columns; of one component."""
    if len(frame) < 42:
        raise Unusable("its compressed data have no frame header")
    width, height, left, top, components = struct.unpack_from(">4I16xH", frame, 8)
    if components != 1:
        raise Unusable("its compressed data have more than one component")
    return height - top, width - left


def _check_tiles(frame: bytes) -> None:
    """Every tile is there: decoders leave a missing one black."""
    right, bottom, width, height, left, top = struct.unpack_from(">2I8x4I", frame, 8)
    if not (width and height):
        raise Unusable("its compressed data have tiles of no size")
    tiles = -((left - right) // width) * -((top - bottom) // height)
    if not 1 <= tiles <= _MOST_TILES or _tiles_there(frame) != set(range(tiles)):
        raise Unusable(f"its compressed data claim {tiles:,} tiles, which are too many or not all there")


def _tiles_there(frame: bytes) -> set[int]:
    """Indices of the tiles that have a part in the codestream."""
    offset, found = _first_tile_part(frame), set()
    while frame[offset : offset + 2] == b"\xff\x90" and offset + 12 <= len(frame):
        index, length = struct.unpack_from(">HI", frame, offset + 4)
        found.add(index)
        end = offset + length if length else len(frame) - 2
        if end > len(frame) - 2 or 0 < length < 14:
            raise Unusable("its compressed data are cut off")
        offset = end
    return found


def _first_tile_part(frame: bytes) -> int:
    """Offset of the first tile-part: the end of the main header."""
    offset = 2
    for _ in range(_MOST_MARKERS):
        if offset + 4 > len(frame):
            break
        marker, length = struct.unpack_from(">HH", frame, offset)
        if marker == _SOT:
            return offset
        offset += 2 + length
    raise Unusable("its compressed data are cut off")


# ── JPEG and JPEG-LS ──────────────────────────────────────────────────────────────────────────────────────────────────


def _jpeg_size(frame: bytes) -> tuple[int, int]:
    """Rows and columns; one component, coded in one scan that ends with the image."""
    if not frame.startswith(_START):
        raise Unusable("its compressed data have no frame header")
    size, offset = None, 2
    for _ in range(_MOST_MARKERS):
        if offset + 4 > len(frame):
            break
        marker, length = struct.unpack_from(">HH", frame, offset)
        if marker == _SCAN and size is not None:
            _check_scan(frame, offset + 2 + length)
            return size
        if marker in _FRAME_HEADERS:
            size = _frame_header(frame[offset : offset + 2 + length], size)
        _check_marker(marker, frame[offset + 4 : offset + 5])
        offset += 1 if marker == 0xFFFF else 2 + length
    raise Unusable("its compressed data have no frame header" if size is None else "its compressed data have no scan")


def jpeg_precision(frame: bytes) -> int:
    """Bits of a sample, 9 to 16, from a JPEG's frame header.

    :raises Unusable: there is no frame header, or its samples have other sizes.
    """
    offset = 2
    for _ in range(_MOST_MARKERS):
        if offset + 5 > len(frame):
            break
        marker, length = struct.unpack_from(">HH", frame, offset)
        if marker in _FRAME_HEADERS:
            bits = frame[offset + 4]
            if not 9 <= bits <= 16:
                raise Unusable(f"its compressed data have samples of {bits} bits")
            return bits
        offset += 1 if marker == 0xFFFF else 2 + length
    raise Unusable("its compressed data have no frame header")


def _frame_header(segment: bytes, seen: tuple[int, int] | None) -> tuple[int, int]:
    if seen is not None:
        raise Unusable("its compressed data have more than one frame header")
    if len(segment) < 10:
        raise Unusable("its compressed data have no frame header")
    rows, columns, components = struct.unpack_from(">HHB", segment, 5)
    if components != 1:
        raise Unusable("its compressed data have more than one component")
    return rows, columns


def _check_marker(marker: int, kind: bytes) -> None:
    """A size that another marker gives would be believed by decoders."""
    if marker == _HIERARCHICAL:
        raise Unusable("its compressed data are a hierarchical image")
    if marker == _PRESETS and kind == bytes([_OVERSIZE]):
        raise Unusable("its compressed data claim another size than the header")


def _check_scan(frame: bytes, offset: int) -> None:
    found = _MARKER.search(frame, offset)
    if found is None or found.end() != len(frame):
        raise Unusable("its compressed data have more than one scan")

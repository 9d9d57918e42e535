"""Pixel data of CT slices: whether they can be used, and their way to Hounsfield units.

Uncompressed slices are read straight from their place in the file into the volume; compressed ones are decoded in
a process of their own (:mod:`oarlock.dicom.decoding`).
Sources: PS3.3 C.8.2.1 (CT image: grey, 16 bits allocated, 12 to 16 stored, rescale to HU), C.7.6.3 (pixel), C.7.5.1.1.2
(padding), PS3.5 8 and A (encodings).
"""

import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from oarlock.dicom.codestreams import Faulty, whole_codestream
from oarlock.dicom.decoding import Decoder, Frame, NotDecoded
from oarlock.dicom.elements import BIG_ENDIAN, DEFLATED, Header
from oarlock.errors import UnsupportedPixelData

GREY: Final = frozenset({"MONOCHROME1", "MONOCHROME2"})
"""The two differ in how they are displayed; the rescaled values are Hounsfield units in both (PS3.3 C.8.2.1.1.3)."""

AIR_HU: Final = -1024
TISSUE_HU: Final = (-1024, 3071)
"""Range of a 12-bit CT scale; padding inside it cannot be told from tissue."""

MAX_MATRIX: Final = 4_096
"""Most rows or columns: twice the largest matrix that scanners reconstruct."""

SAMPLES, PHOTOMETRIC, FRAMES, ROWS, COLUMNS = 0x00280002, 0x00280004, 0x00280008, 0x00280010, 0x00280011
ALLOCATED, STORED, HIGH_BIT, REPRESENTATION = 0x00280100, 0x00280101, 0x00280102, 0x00280103
PADDING, PADDING_LIMIT, INTERCEPT, SLOPE, RESCALE_TYPE = 0x00280120, 0x00280121, 0x00281052, 0x00281053, 0x00281054
LOSSY = 0x00282110
WANTED: Final = frozenset(
    {SAMPLES, PHOTOMETRIC, FRAMES, ROWS, COLUMNS, ALLOCATED, STORED, HIGH_BIT, REPRESENTATION}
    | {PADDING, PADDING_LIMIT, INTERCEPT, SLOPE, RESCALE_TYPE, LOSSY}
)

NATIVE: Final = frozenset({"", "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", BIG_ENDIAN, DEFLATED})
_JPEG: Final = "1.2.840.10008.1.2.4."
MAYBE_LOSSY: Final = frozenset(_JPEG + end for end in ("50", "51", "81", "91", "203"))
RLE: Final = "1.2.840.10008.1.2.5"
ENCAPSULATED: Final = MAYBE_LOSSY | {RLE} | {_JPEG + end for end in ("57", "70", "80", "90", "201", "202")}


@dataclass(frozen=True, slots=True)
class StoredPixels:
    """How the pixels of one slice are stored, checked.

    ``offset``, ``length`` and ``fragments`` as in :class:`oarlock.dicom.elements.PixelData`; ``padding`` the inclusive range
    of stored values that stand for nothing; HU = ``slope`` * stored + ``intercept``.
    """

    transfer_syntax: str
    big_endian: bool
    dataset_offset: int
    offset: int
    length: int | None
    rows: int
    columns: int
    bits_stored: int
    signed: bool
    slope: float
    intercept: float
    padding: tuple[int, int] | None
    fragments: tuple[tuple[int, int], ...] = ()


def check_pixels(header: Header, position: int) -> StoredPixels:
    """The storage of a slice's pixels, from its header alone.

    :param position: of the file in the upload, for the message.
    :raises UnsupportedPixelData: not one grey CT image in Hounsfield units, or its claims contradict the file.
    """
    try:
        _check_kind(header)
        pixels = _stored(header)
        _check_room(header, pixels)
    except _Unusable as reason:
        raise UnsupportedPixelData(position=position, reason=str(reason)) from None
    return pixels


class _Unusable(Exception):
    """Why the pixel data cannot be used."""


def _check_kind(header: Header) -> None:
    if header.unsigned(SAMPLES) != 1 or header.text(PHOTOMETRIC) not in GREY:
        raise _Unusable("it is not a grey image (one sample per pixel, MONOCHROME1 or MONOCHROME2)")
    if header.unsigned(ALLOCATED) != 16:
        raise _Unusable(f"{header.unsigned(ALLOCATED)} bits are allocated where CT has 16")
    stored = header.unsigned(STORED)
    if stored is None or not 12 <= stored <= 16:
        raise _Unusable(f"{stored} bits are stored where CT has 12 to 16")
    if header.unsigned(HIGH_BIT) != stored - 1:
        raise _Unusable("the high bit is not the highest of the stored bits")
    if header.unsigned(REPRESENTATION) not in (0, 1):
        raise _Unusable("it does not say whether its values are signed")
    if header.text(RESCALE_TYPE) not in ("", "HU", "US", "HU_MOD"):
        raise _Unusable("its values are not Hounsfield units (Rescale Type)")


def _stored(header: Header) -> StoredPixels:
    if header.pixel_data is None:
        raise _Unusable("there is none")
    rows, columns = header.unsigned(ROWS) or 0, header.unsigned(COLUMNS) or 0
    if not (2 <= rows <= MAX_MATRIX and 2 <= columns <= MAX_MATRIX):
        raise _Unusable(f"it claims {rows} × {columns} pixels; 2 to {MAX_MATRIX} rows and columns are accepted")
    signed = header.unsigned(REPRESENTATION) == 1
    return StoredPixels(
        transfer_syntax=header.transfer_syntax,
        big_endian=header.big_endian,
        dataset_offset=header.dataset_offset,
        offset=header.pixel_data.offset,
        length=header.pixel_data.length,
        rows=rows,
        columns=columns,
        bits_stored=header.unsigned(STORED) or 16,
        signed=signed,
        slope=_rescale(header, SLOPE),
        intercept=_rescale(header, INTERCEPT),
        padding=_padding(header, signed=signed),
        fragments=header.pixel_data.fragments,
    )


def _rescale(header: Header, tag: int) -> float:
    """Rescale Slope and Intercept are Type 1 in a CT image: without them the values mean nothing, and nothing is assumed."""
    name = "Rescale Slope" if tag == SLOPE else "Rescale Intercept"
    values = header.numbers(tag)
    if len(values) != 1:
        raise _Unusable(f"it has no valid {name}, so its values cannot be turned into Hounsfield units")
    if tag == SLOPE and values[0] == 0:
        raise _Unusable(f"its {name} is not usable")
    return values[0]


def _padding(header: Header, *, signed: bool) -> tuple[int, int] | None:
    """Pixel Padding Value to its Range Limit, in stored values.

    Both have the sign of the pixels, whatever VR they were written with (PS3.3 C.7.5.1.1.2), so the bits count, not the VR.
    """
    low = header.unsigned(PADDING)
    if low is None:
        return None
    high = header.unsigned(PADDING_LIMIT)
    ends = [end - 65_536 if signed and end > 32_767 else end for end in (low, low if high is None else high)]
    return min(ends), max(ends)


def _check_room(header: Header, pixels: StoredPixels) -> None:
    """What is claimed can be there: nothing is allocated on the word of a header."""
    needed = pixels.rows * pixels.columns * 2
    if pixels.transfer_syntax in NATIVE:
        if pixels.length != needed:
            raise _Unusable(f"{pixels.rows} × {pixels.columns} pixels need {needed} bytes and {pixels.length or 0} are there")
        if pixels.transfer_syntax != DEFLATED and pixels.offset + needed > header.size:
            raise _Unusable("it is cut off: the file ends before its last pixel")
    elif pixels.transfer_syntax not in ENCAPSULATED:
        raise _Unusable("its transfer syntax is not supported; export it uncompressed (Explicit VR Little Endian)")
    elif pixels.length is not None:
        raise _Unusable("the file says that it is compressed, but it is not encapsulated (wrong transfer syntax)")
    elif _compressed_bytes(header, pixels) > 2 * needed + 1_048_576:
        raise _Unusable("its compressed form is larger than the image itself can be")


def _compressed_bytes(header: Header, pixels: StoredPixels) -> int:
    """What the compressed form of a slice takes at most: its fragments, or the rest of its file."""
    return sum(length for _, length in pixels.fragments) or header.size - pixels.offset


def warnings_for(header: Header, pixels: StoredPixels) -> Iterator[str]:
    """Codes of what the physicist should know about a slice that is accepted; :data:`WARNINGS` has their sentences."""
    if pixels.transfer_syntax in MAYBE_LOSSY or header.text(LOSSY) == "01":
        yield "series.lossy_compression"
    if header.text(RESCALE_TYPE) in ("US", "HU_MOD"):
        yield "series.rescale_type"
    if _is_tissue(pixels):
        yield "series.padding_ambiguous"


WARNINGS: Final = {
    "series.lossy_compression": "{} slice(s) are or were compressed with loss; fine structures may be blurred.",
    "series.rescale_type": "{} slice(s) do not state plain Hounsfield units as their Rescale Type; they are taken as such.",
    "series.padding_ambiguous": "{} slice(s) declare a padding value that is also a value of tissue; it is left as it is.",
}


def _is_tissue(pixels: StoredPixels) -> bool:
    """Whether padding lies above air and within the CT scale, where replacing it could replace tissue."""
    if pixels.padding is None:
        return False
    ends = [end * pixels.slope + pixels.intercept for end in pixels.padding]
    return max(ends) > -900 and min(ends) <= TISSUE_HU[1]


def read_volume(slices: list[tuple[Path, int, StoredPixels]]) -> npt.NDArray[np.int16]:
    """Hounsfield units of all slices.

    :param slices: file, position in the upload and storage of every slice, in the order of the grid; all of one size.
    :returns: (z, y, x) int16, rounded to the nearest integer where the rescale is fractional and clipped to the type's range.
    :raises UnsupportedPixelData: a slice cannot be decoded.
    """
    first = slices[0][2]
    volume = np.empty((len(slices), first.rows, first.columns), dtype=np.int16)
    with Decoder() as decoder:
        for z, (path, position, pixels) in enumerate(slices):
            try:
                _read_slice(path, pixels, decoder, volume[z])
            except _Unusable as reason:
                raise UnsupportedPixelData(position=position, reason=str(reason)) from None
            except OSError:
                raise UnsupportedPixelData(position=position, reason="the file cannot be opened") from None
    return volume


def _read_slice(path: Path, pixels: StoredPixels, decoder: Decoder, out: npt.NDArray[np.int16]) -> None:
    """Write the Hounsfield units of one slice into ``out`` (y, x)."""
    stored = _read_native(path, pixels) if pixels.transfer_syntax in NATIVE else _decode(path, pixels, decoder)
    _to_hu(_sign_extended(stored, pixels), pixels, out)


def _read_native(path: Path, pixels: StoredPixels) -> npt.NDArray[Any]:
    dtype = np.dtype("i2" if pixels.signed else "u2").newbyteorder(">" if pixels.big_endian else "<")
    needed = pixels.rows * pixels.columns * 2
    data = _inflated(path, pixels, needed) if pixels.transfer_syntax == DEFLATED else _bytes_at(path, pixels.offset, needed)
    if len(data) < needed:
        raise _Unusable("it is cut off: the file ends before its last pixel")
    return np.frombuffer(data, dtype).reshape(pixels.rows, pixels.columns).astype(dtype.newbyteorder("="), copy=False)


def _bytes_at(path: Path, offset: int, length: int) -> bytes:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return os.pread(descriptor, length, offset)
    finally:
        os.close(descriptor)


def _inflated(path: Path, pixels: StoredPixels, needed: int) -> bytes:
    """The pixels of a deflated data set. Deflating adds a few bytes in a thousand at most, so twice the content is never needed:
    what a sender put behind it is not read into memory.
    """
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    with path.open("rb") as file:
        file.seek(pixels.dataset_offset)
        try:
            data = inflater.decompress(file.read(2 * (pixels.offset + needed)), pixels.offset + needed)
        except zlib.error:
            raise _Unusable("its deflated data cannot be inflated") from None
    return data[pixels.offset :]


def _decode(path: Path, pixels: StoredPixels, decoder: Decoder) -> npt.NDArray[Any]:
    content = b"".join(_bytes_at(path, offset, length) for offset, length in pixels.fragments)
    content = content or _frame(_bytes_at(path, pixels.offset, path.stat().st_size - pixels.offset))
    frame = Frame(pixels.transfer_syntax, pixels.rows, pixels.columns, pixels.bits_stored, pixels.signed)
    try:
        whole = content if pixels.transfer_syntax == RLE else whole_codestream(content, pixels.rows, pixels.columns)
        return decoder.decode(whole, frame)
    except (Faulty, NotDecoded) as reason:
        raise _Unusable(str(reason)) from None


def _frame(encapsulated: bytes) -> bytes:
    """The one frame of an image: all fragments after the offset table (PS3.5 A.4).

    Decoders make something up for what is missing, so the fragments must be there whole and end with their delimiter.
    """
    fragments: list[bytes] = []
    offset = 0
    while offset + 8 <= len(encapsulated):
        tag, length = struct.unpack_from("<4sI", encapsulated, offset)
        offset += 8
        if tag == b"\xfe\xff\xdd\xe0":
            return b"".join(fragments[1:])
        if tag != b"\xfe\xff\x00\xe0":
            break
        fragments.append(encapsulated[offset : offset + length])
        offset += length
    raise _Unusable("its compressed data are cut off or not in fragments")


def _sign_extended(stored: npt.NDArray[Any], pixels: StoredPixels) -> npt.NDArray[Any]:
    """Stored values without what old files keep in the unused high bits (PS3.5 8.1.1): masked, or sign-extended if signed."""
    spare = 16 - pixels.bits_stored
    if spare == 0:
        return stored
    if pixels.signed:
        return np.asarray((stored.astype(np.int16, copy=False) << spare) >> spare)
    return np.asarray(stored & np.uint16((1 << pixels.bits_stored) - 1))


def _to_hu(stored: npt.NDArray[Any], pixels: StoredPixels, out: npt.NDArray[np.int16]) -> None:
    slope, intercept = pixels.slope, pixels.intercept
    low, high = int(stored.min()), int(stored.max())
    ends = (low * slope + intercept, high * slope + intercept)
    if slope == 1 and intercept == int(intercept) and min(ends) >= -32_768 and max(ends) <= 32_767 and abs(intercept) < 32_768:
        np.add(stored.view(np.int16), np.int16(intercept), out=out)
    else:
        np.copyto(out, np.clip(np.rint(stored * np.float64(slope) + intercept), -32_768, 32_767), casting="unsafe")
    _pad_with_air(stored, pixels, (low, high), out)


def _pad_with_air(stored: npt.NDArray[Any], pixels: StoredPixels, found: tuple[int, int], out: npt.NDArray[np.int16]) -> None:
    """Air where the scanner padded, so that a value far off the scale does not reach the network.

    Compression with loss leaves values near the padding, and between it and the image, instead of its very value.
    """
    if pixels.padding is None or _is_tissue(pixels):
        return
    low, high = pixels.padding
    if low <= found[1] and high >= found[0]:
        out[(stored >= low) & (stored <= high)] = AIR_HU
    if pixels.transfer_syntax in MAYBE_LOSSY and max(end * pixels.slope + pixels.intercept for end in pixels.padding) < AIR_HU:
        np.maximum(out, AIR_HU, out=out)

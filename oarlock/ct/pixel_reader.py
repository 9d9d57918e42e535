"""From the stored pixels of CT slices to Hounsfield units.

Uncompressed slices are read straight from their place in the file into the volume; compressed ones are decoded in a process of
their own (:mod:`oarlock.dicom.decoding`).
Sources: PS3.3 C.7.6.3 (pixel), C.11.1 (modality LUT), C.7.5.1.1.2 (padding), PS3.5 8 and A (encodings).
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from oarlock.arrays import Int16Array
from oarlock.ct.pixel_header import MAYBE_LOSSY, NATIVE, RLE, StoredPixels, is_tissue_padding
from oarlock.dicom.codestreams import whole_codestream
from oarlock.dicom.decoding import Decoder, FrameSpec
from oarlock.dicom.elements import DEFLATED
from oarlock.dicom.fragments import find_fragments
from oarlock.dicom.inflate import inflate
from oarlock.dicom.unusable import Unusable
from oarlock.errors import UnsupportedPixelData

AIR_HU: Final = -1024
"""What padding becomes."""


def read_volume(slices: Sequence[tuple[Path, int, StoredPixels]]) -> Int16Array:
    """Hounsfield units of all slices.

    :param slices: file, position in the upload and storage of every slice, in the order of the grid; all of one size.
    :returns: (z, y, x) int16, rounded to the nearest integer where the rescale is fractional and clipped to the type's range.
    :raises UnsupportedPixelData: a slice cannot be decoded.
    """
    first = slices[0][2]
    volume = np.empty((len(slices), first.rows, first.columns), dtype=np.int16)
    with Decoder() as decoder:
        for (path, position, pixels), out in zip(slices, volume, strict=True):
            _read_into(path, position, pixels, decoder, out)
    return volume


def read_thinned(slices: Sequence[tuple[Path, int, StoredPixels]], step: int) -> Int16Array:
    """Every ``step``-th row and column of some slices.

    As :func:`read_volume` reads them; one whole slice is in memory.

    :raises UnsupportedPixelData: a slice cannot be decoded.
    """
    first = slices[0][2]
    whole = np.empty((first.rows, first.columns), dtype=np.int16)
    thinned = []
    with Decoder() as decoder:
        for path, position, pixels in slices:
            _read_into(path, position, pixels, decoder, whole)
            thinned.append(whole[::step, ::step].copy())
    return np.stack(thinned)


def _read_into(path: Path, position: int, pixels: StoredPixels, decoder: Decoder, out: Int16Array) -> None:
    try:
        _read_slice(path, pixels, decoder, out)
    except Unusable as reason:
        raise UnsupportedPixelData(position=position, reason=str(reason)) from None
    except OSError:
        raise UnsupportedPixelData(position=position, reason="the file cannot be opened") from None


def _read_slice(path: Path, pixels: StoredPixels, decoder: Decoder, out: Int16Array) -> None:
    """Write the Hounsfield units of one slice into ``out`` (y, x)."""
    stored = _read_native(path, pixels) if pixels.transfer_syntax in NATIVE else _decode(path, pixels, decoder)
    _to_hu(_sign_extended(stored, pixels), pixels, out)


def _read_native(path: Path, pixels: StoredPixels) -> npt.NDArray[Any]:
    dtype = np.dtype("i2" if pixels.signed else "u2").newbyteorder(">" if pixels.big_endian else "<")
    needed = pixels.rows * pixels.columns * 2
    data = _inflated(path, pixels, needed) if pixels.transfer_syntax == DEFLATED else _bytes_at(path, pixels.offset, needed)
    if len(data) < needed:
        raise Unusable("it is cut off: the file ends before its last pixel")
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
    end = pixels.offset + needed
    content, _ = inflate(_bytes_at(path, pixels.dataset_offset, 2 * end), end)
    return content[pixels.offset :]


def _decode(path: Path, pixels: StoredPixels, decoder: Decoder) -> npt.NDArray[Any]:
    fragments = pixels.fragments or find_fragments(path, pixels.offset)
    content = b"".join(_bytes_at(path, offset, length) for offset, length in fragments)
    frame = FrameSpec(pixels.transfer_syntax, pixels.rows, pixels.columns, pixels.bits_stored, pixels.signed)
    whole = content if pixels.transfer_syntax == RLE else whole_codestream(content, pixels.rows, pixels.columns)
    return decoder.decode(whole, frame)


def _sign_extended(stored: npt.NDArray[Any], pixels: StoredPixels) -> npt.NDArray[Any]:
    """Stored values without what old files keep in the unused high bits (PS3.5 8.1.1): masked, or sign-extended if signed."""
    spare = 16 - pixels.bits_stored
    if spare == 0:
        return stored
    if pixels.signed:
        return np.asarray((stored.astype(np.int16, copy=False) << spare) >> spare)
    return np.asarray(stored & np.uint16((1 << pixels.bits_stored) - 1))


def _to_hu(stored: npt.NDArray[Any], pixels: StoredPixels, out: Int16Array) -> None:
    slope, intercept = pixels.slope, pixels.intercept
    low, high = int(stored.min()), int(stored.max())
    fits = low + intercept >= -32_768 and high + intercept <= 32_767 and abs(intercept) < 32_768
    if slope == 1 and intercept == int(intercept) and fits:
        np.add(stored.view(np.int16), np.int16(intercept), out=out)
    else:
        np.copyto(out, np.clip(np.rint(stored * np.float64(slope) + intercept), -32_768, 32_767), casting="unsafe")
    _pad_with_air(stored, pixels, (low, high), out)


def _pad_with_air(stored: npt.NDArray[Any], pixels: StoredPixels, found: tuple[int, int], out: Int16Array) -> None:
    """Air where the scanner padded, so that a value far off the scale does not reach the network.

    Compression with loss leaves values near the padding, and between it and the image, instead of its very value.
    """
    if pixels.padding is None or is_tissue_padding(pixels):
        return
    low, high = pixels.padding
    if low <= found[1] and high >= found[0]:
        out[(stored >= low) & (stored <= high)] = AIR_HU
    if pixels.transfer_syntax in MAYBE_LOSSY and max(end * pixels.slope + pixels.intercept for end in pixels.padding) < AIR_HU:
        np.maximum(out, AIR_HU, out=out)

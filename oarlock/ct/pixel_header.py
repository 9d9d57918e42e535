"""Whether the pixel data of a CT slice can be used.

Judged by its header, before anything is read.

Sources: PS3.3 C.8.2.1 (CT image: grey, 16 bits allocated, 12 to 16 stored, rescale to HU), C.7.6.3 (pixel), C.7.5.1.1.2
(padding), PS3.5 8 and A (encodings).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from oarlock.dicom.elements import BIG_ENDIAN, DEFLATED, Header
from oarlock.dicom.tags import Tag
from oarlock.dicom.unusable import Unusable
from oarlock.errors import UnsupportedPixelData

GREY: Final = frozenset({"MONOCHROME1", "MONOCHROME2"})
"""The two differ in how they are displayed; the rescaled values are Hounsfield units in both (PS3.3 C.8.2.1.1.3)."""

TISSUE_HU: Final = (-900, 3071)
"""From above air to the end of a 12-bit CT scale: padding in there cannot be told from tissue."""

PLAIN_TYPES: Final = frozenset({"", "HU", "HOUNSFIELD", "HOUNSFIELD UNIT", "HOUNSFIELD UNITS"})
UNPLAIN_TYPES: Final = frozenset({"US", "HU_MOD"})
"""Rescale Types that are read, in capitals (PS3.3 C.11.1.1.2); those of the second kind are told."""

MAX_MATRIX: Final = 4_096
"""Most rows or columns: twice the largest matrix that scanners reconstruct."""

WANTED: Final = frozenset(
    {
        Tag.SAMPLES_PER_PIXEL,
        Tag.PHOTOMETRIC_INTERPRETATION,
        Tag.NUMBER_OF_FRAMES,
        Tag.ROWS,
        Tag.COLUMNS,
        Tag.BITS_ALLOCATED,
        Tag.BITS_STORED,
        Tag.HIGH_BIT,
        Tag.PIXEL_REPRESENTATION,
    }
    | {
        Tag.PIXEL_PADDING_VALUE,
        Tag.PIXEL_PADDING_RANGE_LIMIT,
        Tag.RESCALE_INTERCEPT,
        Tag.RESCALE_SLOPE,
        Tag.RESCALE_TYPE,
        Tag.LOSSY_IMAGE_COMPRESSION,
    }
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

    @property
    def highest_hu(self) -> float:
        """The highest HU that the bits, sign and rescale allow."""
        low = -(1 << self.bits_stored - 1) if self.signed else 0
        return max(end * self.slope + self.intercept for end in (low, low + (1 << self.bits_stored) - 1))


def check_pixels(header: Header, position: int) -> StoredPixels:
    """The storage of a slice's pixels, from its header alone.

    :param position: of the file in the upload, for the message.
    :raises UnsupportedPixelData: not one grey CT image in Hounsfield units, or its claims contradict the file.
    """
    try:
        _check_kind(header)
        pixels = _stored(header)
        _check_room(header, pixels)
    except Unusable as reason:
        raise UnsupportedPixelData(position=position, reason=str(reason)) from None
    return pixels


def _check_kind(header: Header) -> None:
    if header.unsigned(Tag.SAMPLES_PER_PIXEL) != 1 or header.text(Tag.PHOTOMETRIC_INTERPRETATION) not in GREY:
        raise Unusable("it is not a grey image (one sample per pixel, MONOCHROME1 or MONOCHROME2)")
    if header.unsigned(Tag.BITS_ALLOCATED) != 16:
        raise Unusable(f"{header.unsigned(Tag.BITS_ALLOCATED)} bits are allocated where CT has 16")
    stored = header.unsigned(Tag.BITS_STORED)
    if stored is None or not 12 <= stored <= 16:
        raise Unusable(f"{stored} bits are stored where CT has 12 to 16")
    if header.unsigned(Tag.HIGH_BIT) != stored - 1:
        raise Unusable("the high bit is not the highest of the stored bits")
    if header.unsigned(Tag.PIXEL_REPRESENTATION) not in (0, 1):
        raise Unusable("it does not say whether its values are signed")
    if _rescale_type(header) not in PLAIN_TYPES | UNPLAIN_TYPES:
        raise Unusable("its values are not Hounsfield units (Rescale Type)")


def _rescale_type(header: Header) -> str:
    return header.text(Tag.RESCALE_TYPE).upper()


def _stored(header: Header) -> StoredPixels:
    if header.pixel_data is None:
        raise Unusable("there are no pixel data")
    rows, columns = header.unsigned(Tag.ROWS) or 0, header.unsigned(Tag.COLUMNS) or 0
    if not (2 <= rows <= MAX_MATRIX and 2 <= columns <= MAX_MATRIX):
        raise Unusable(f"it claims {rows} × {columns} pixels; 2 to {MAX_MATRIX} rows and columns are accepted")
    signed = header.unsigned(Tag.PIXEL_REPRESENTATION) == 1
    return StoredPixels(
        transfer_syntax=header.transfer_syntax,
        big_endian=header.big_endian,
        dataset_offset=header.dataset_offset,
        offset=header.pixel_data.offset,
        length=header.pixel_data.length,
        rows=rows,
        columns=columns,
        bits_stored=header.unsigned(Tag.BITS_STORED) or 16,
        signed=signed,
        slope=_rescale(header, Tag.RESCALE_SLOPE),
        intercept=_rescale(header, Tag.RESCALE_INTERCEPT),
        padding=_padding(header, signed=signed),
        fragments=header.pixel_data.fragments,
    )


def _rescale(header: Header, tag: int) -> float:
    """Rescale Slope and Intercept are Type 1 in a CT image: without them the values mean nothing, and nothing is assumed."""
    name = "Rescale Slope" if tag == Tag.RESCALE_SLOPE else "Rescale Intercept"
    values = header.numbers(tag)
    if len(values) != 1:
        raise Unusable(f"it has no valid {name}, so its values cannot be turned into Hounsfield units")
    if tag == Tag.RESCALE_SLOPE and values[0] == 0:
        raise Unusable(f"its {name} is not usable")
    return values[0]


def _padding(header: Header, *, signed: bool) -> tuple[int, int] | None:
    """Pixel Padding Value to its Range Limit, in stored values.

    Both have the sign of the pixels, whatever VR they were written with (PS3.3 C.7.5.1.1.2), so the bits count, not the VR.
    """
    low = header.unsigned(Tag.PIXEL_PADDING_VALUE)
    if low is None:
        return None
    high = header.unsigned(Tag.PIXEL_PADDING_RANGE_LIMIT)
    ends = [end - 65_536 if signed and end > 32_767 else end for end in (low, low if high is None else high)]
    return min(ends), max(ends)


def _check_room(header: Header, pixels: StoredPixels) -> None:
    """What is claimed can be there: nothing is allocated on the word of a header."""
    needed = pixels.rows * pixels.columns * 2
    if pixels.transfer_syntax in NATIVE:
        _check_native_room(header, pixels, needed)
    elif pixels.transfer_syntax not in ENCAPSULATED:
        raise Unusable("its transfer syntax is not supported; export it uncompressed (Explicit VR Little Endian)")
    elif pixels.length is not None:
        raise Unusable("the file says that it is compressed, but it is not encapsulated (wrong transfer syntax)")
    elif _compressed_bytes(header, pixels) > 2 * needed + 1_048_576:
        raise Unusable("its compressed form is larger than the image itself can be")


def _check_native_room(header: Header, pixels: StoredPixels, needed: int) -> None:
    """Excess padding behind the last pixel is allowed (PS3.5 8.1.1, Note); a larger image than the header says is not."""
    there = pixels.length or 0
    if not needed <= there < 2 * needed:
        raise Unusable(f"{pixels.rows} × {pixels.columns} pixels need {needed} bytes and {there} are there")
    if pixels.transfer_syntax == DEFLATED:
        return
    if pixels.offset + needed > header.size:
        raise Unusable("it is cut off: the file ends before its last pixel")
    if not is_padding(header, pixels.offset + needed, there - needed):
        reason = f"{pixels.rows} × {pixels.columns} pixels need {needed} bytes and {there} are there"
        raise Unusable(f"{reason}; the excess is not padding")


def is_padding(header: Header, offset: int, length: int) -> bool:
    """Whether bytes of a file are one byte repeated.

    Also where the file ends before them.
    """
    if length == 0:
        return True
    with header.path.open("rb") as file:
        file.seek(offset)
        return len(set(file.read(length))) <= 1


def _compressed_bytes(header: Header, pixels: StoredPixels) -> int:
    """What the compressed form of a slice takes at most: its fragments, or the rest of its file."""
    return sum(length for _, length in pixels.fragments) or header.size - pixels.offset


def warnings_for(header: Header, pixels: StoredPixels) -> Iterator[str]:
    """Codes of what the physicist should know about a slice.

    The slice is accepted; :data:`WARNINGS` has their sentences.
    """
    if pixels.transfer_syntax in MAYBE_LOSSY or header.text(Tag.LOSSY_IMAGE_COMPRESSION) == "01":
        yield "series.lossy_compression"
    if _rescale_type(header) in UNPLAIN_TYPES:
        yield "series.rescale_type"
    if pixels.length is not None and pixels.length > pixels.rows * pixels.columns * 2:
        yield "series.excess_pixel_data"
    if is_tissue_padding(pixels):
        yield "series.padding_ambiguous"


WARNINGS: Final = {
    "series.excess_pixel_data": "{} slice(s) hold padding behind their last pixel; it is ignored. Check the images.",
    "series.lossy_compression": "{} slice(s) are or were compressed with loss; fine structures may be blurred.",
    "series.rescale_type": "{} slice(s) do not state plain Hounsfield units as their Rescale Type; they are read as such.",
    "series.padding_ambiguous": "{} slice(s) declare a padding value that is also a value of tissue; it is left as it is.",
}


def is_tissue_padding(pixels: StoredPixels) -> bool:
    """Whether a slice's padding is a value of tissue too.

    Tissue is :data:`TISSUE_HU`; to replace such padding could replace tissue.
    """
    if pixels.padding is None:
        return False
    ends = [end * pixels.slope + pixels.intercept for end in pixels.padding]
    return max(ends) > TISSUE_HU[0] and min(ends) <= TISSUE_HU[1]

"""A DICOM data set with chosen sequences.

It is read in bounded time and memory whatever the file holds.

The companion of :mod:`oarlock.dicom.elements` for RT Structure Sets and for the functional groups of multi-frame images,
where all that is of interest lies in nested sequences. A general reader builds every item of every sequence as an object of a
kilobyte, recursively; this one descends into the wanted sequences alone, counts what it visits, and stops at a limit.

Sources: PS3.5 section 7 (data elements), 7.5 (nesting), 6.2.2 (UN), A.5 (deflate).
"""

from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from oarlock.dicom.elements import DEFLATED, Header, read_elements
from oarlock.dicom.heads import UNDEFINED, HeadReader, InvalidVR
from oarlock.dicom.inflate import inflate
from oarlock.dicom.tags import ITEM, ITEM_END, SEQUENCE_END, Tag
from oarlock.dicom.unusable import Unusable

MAX_DATASET_BYTES: Final = 256 * 2**20
"""Largest file, inflated, that is read; the largest of a clinic are a tenth of it."""

MAX_RATIO: Final = 50
"""Most bytes that a deflated byte may stand for; contours of a clinic have 3 to 8, those of the densest text 30."""

ALWAYS_INFLATED_BYTES: Final = 2**20
"""Inflated whatever the ratio: small files of templates repeat themselves."""

MAX_BYTES_BEFORE_PIXELS: Final = 64 * 2**20
"""Most bytes in front of the pixel data of a multi-frame image; those of a thousand frames are a few."""

MAX_BYTES_UNTIL: Final = 8 * 2**20
"""Most bytes that are read to reach a tag; the list of 10,000 images takes a megabyte."""

MAX_ELEMENTS_UNTIL: Final = 100_000
"""Most elements and items that are visited to reach a tag (0.3 s, 20 MB), which the service does in its own process; a list of
16,384 images has 65,536."""

MAX_DATASET_ELEMENTS: Final = 1_000_000
"""Most elements and items that are visited (2 s); the largest of a clinic have a tenth of them."""

MAX_DATASET_DEPTH: Final = 16
"""Deepest nesting that is followed; a structure set has five levels."""

_SEQUENCES: Final = frozenset(tag for tag in Tag if tag.name.endswith("_SEQUENCE"))
"""The sequences that are descended into."""

_VALUES: Final = frozenset(
    {Tag.SPECIFIC_CHARACTER_SET, Tag.SOP_CLASS_UID, Tag.SOP_INSTANCE_UID, Tag.MODALITY, Tag.PATIENT_NAME, Tag.PATIENT_ID}
    | {Tag.CODE_VALUE, Tag.CODING_SCHEME_DESIGNATOR, Tag.CODE_MEANING}
    | {Tag.REFERENCED_SOP_INSTANCE_UID, Tag.REFERENCED_FRAME_NUMBER}
    | {Tag.FRAME_TYPE, Tag.PIXEL_PRESENTATION, Tag.VOLUMETRIC_PROPERTIES, Tag.VOLUME_BASED_CALCULATION_TECHNIQUE}
    | {Tag.SLICE_THICKNESS, Tag.SPACING_BETWEEN_SLICES, Tag.GANTRY_DETECTOR_TILT, Tag.PIXEL_SPACING}
    | {Tag.IMAGE_POSITION_PATIENT, Tag.IMAGE_ORIENTATION_PATIENT, Tag.IN_STACK_POSITION_NUMBER}
    | {Tag.STUDY_INSTANCE_UID, Tag.SERIES_INSTANCE_UID, Tag.FRAME_OF_REFERENCE_UID}
    | {Tag.RESCALE_INTERCEPT, Tag.RESCALE_SLOPE, Tag.RESCALE_TYPE}
    | {Tag.STRUCTURE_SET_LABEL, Tag.ROI_NUMBER, Tag.REFERENCED_FRAME_OF_REFERENCE_UID, Tag.ROI_NAME}
    | {Tag.CONTOUR_GEOMETRIC_TYPE, Tag.NUMBER_OF_CONTOUR_POINTS, Tag.CONTOUR_DATA}
    | {Tag.REFERENCED_ROI_NUMBER}
)
"""The elements that are kept wherever they stand."""


_PADDING: Final = b"\0\r\n \x1a\xff"


@dataclass(slots=True)
class Item:
    """One data set: its values, and the items of wanted sequences.

    Values are as they stand in the file; both are by tag.

    ``skipped`` counts the elements in it, and of a whole data set those in all of its items, whose value representation is not
    valid and that are not wanted; ``visited``, of a whole data set, all that were looked at.
    """

    values: dict[int, bytes] = field(default_factory=dict)
    sequences: dict[int, list["Item"]] = field(default_factory=dict)
    skipped: int = 0
    visited: int = 0

    def text(self, tag: int) -> str:
        """An ASCII element without its padding; empty where absent.

        Its VR is CS, DS, IS or UI.
        """
        return self.values.get(tag, b"").decode("ascii", "replace").strip(" \0")

    def items(self, tag: int) -> list["Item"]:
        """The items of a wanted sequence; empty where it is absent."""
        return self.sequences.get(tag, [])


def read_sequences(path: Path, *, sop_class: str) -> Item | None:
    """Read a file's data set, or None.

    None where it is not DICOM or says that it is of another SOP class.

    :raises Unusable: with the reason, which holds no byte of the file.
    """
    if path.stat().st_size > MAX_DATASET_BYTES:
        raise Unusable(f"it is larger than {MAX_DATASET_BYTES >> 20} MiB")
    header = read_elements(path, (Tag.SOP_CLASS_UID,), keep=lambda _: False)
    if header is None or header.text(Tag.SOP_CLASS_UID) not in ("", sop_class):
        return None
    content, start = path.read_bytes(), header.dataset_offset
    if header.transfer_syntax == DEFLATED:
        content, start = _inflated(content[start:]), 0
    parser = _Parser(content, ">" if header.big_endian else "<")
    return parser.dataset(start)


def read_sequences_before_pixels(header: Header) -> tuple[Item, int]:
    """The data set of an image up to its pixel data.

    A data set that is deflated is not read.

    :returns: the data set, and how many elements and items were visited.
    :raises Unusable: with the reason, which holds no byte of the file.
    """
    start, end = header.dataset_offset, header.pixel_data.element_offset if header.pixel_data else header.size
    if end - start > MAX_BYTES_BEFORE_PIXELS:
        raise Unusable(f"its header is longer than {MAX_BYTES_BEFORE_PIXELS >> 20} MiB")
    with header.path.open("rb") as file:
        file.seek(start)
        content = file.read(end - start)
    parser = _Parser(content, ">" if header.big_endian else "<")
    return parser.dataset(0), parser.visited


def read_sequences_until(path: Path, tag: int, *, sop_class: str) -> Item | None:
    """A file's data set up to a tag of its top level.

    None where the file is not DICOM, or of another SOP class.

    :raises Unusable: with the reason; also where the tag is not reached within :data:`MAX_BYTES_UNTIL`.
    """
    header = read_elements(path, (Tag.SOP_CLASS_UID,), keep=lambda _: False)
    if header is None or header.text(Tag.SOP_CLASS_UID) not in ("", sop_class):
        return None
    with path.open("rb") as file:
        file.seek(header.dataset_offset)
        content = file.read(MAX_BYTES_UNTIL)
    if header.transfer_syntax == DEFLATED:
        content, _ = inflate(content, MAX_BYTES_UNTIL)
    return _Parser(content, ">" if header.big_endian else "<", until=tag, most=MAX_ELEMENTS_UNTIL).dataset(0)


def _inflated(deflated: bytes) -> bytes:
    limit = min(MAX_DATASET_BYTES, max(ALWAYS_INFLATED_BYTES, MAX_RATIO * len(deflated)))
    content, complete = inflate(deflated, limit)
    if len(content) == limit and not complete:
        raise Unusable(f"it inflates to more than {MAX_DATASET_BYTES >> 20} MiB or {MAX_RATIO} times its size")
    return content


class _Parser:
    """One pass over a data set in memory."""

    def __init__(self, content: bytes, order: str, *, until: int = 1 << 32, most: int | None = None) -> None:
        self._content, self._until, self._most = content, until, MAX_DATASET_ELEMENTS if most is None else most
        self._heads = HeadReader(order)
        self._skipped = 0
        self.visited = 0

    def dataset(self, start: int) -> Item:
        """The whole data set. Its encoding is seen, not believed: some files are encoded otherwise than they say."""
        implicit = not self._content[start + 4 : start + 6].isalpha()
        item, _ = self._item(start, len(self._content), implicit=implicit, depth=0)
        item.skipped, item.visited = self._skipped, self.visited
        return item

    def _item(self, offset: int, end: int, *, implicit: bool, depth: int) -> tuple[Item, int]:
        """The elements up to ``end``, or to an item delimiter."""
        if depth > MAX_DATASET_DEPTH:
            raise Unusable(f"its sequences are nested deeper than {MAX_DATASET_DEPTH} levels")
        item = Item()
        while offset < end:
            if depth == 0 and self._only_padding_follows(offset):
                break
            try:
                tag, vr, length, offset = self._head(offset, implicit=implicit)
            except InvalidVR:
                offset = self._behind_invalid(offset, end)
                continue
            if tag == ITEM_END or (depth == 0 and tag >= self._until):
                break
            if tag in _SEQUENCES or length == UNDEFINED:
                stop = end if length == UNDEFINED else offset + length
                items, offset = self._sequence(vr, offset, stop, implicit=implicit, depth=depth)
                if tag in _SEQUENCES:
                    item.sequences[tag] = items
                continue
            if offset + length > end:
                raise Unusable("it is cut off")
            if tag in _VALUES:
                item.values[tag] = self._content[offset : offset + length]
            offset += length
        return item, offset

    def _sequence(self, vr: bytes, offset: int, end: int, *, implicit: bool, depth: int) -> tuple[list[Item], int]:
        """The items of a sequence; one of VR UN is implicit (PS3.5 6.2.2), and else encoded as what stands around it."""
        if vr == b"UN":
            with suppress(Unusable):
                return self._items(offset, end, implicit=True, depth=depth)
        return self._items(offset, end, implicit=implicit, depth=depth)

    def _only_padding_follows(self, offset: int) -> bool:
        """Whether what stands behind the last element is no element: old programs leave zeros or an end of line there."""
        start = self._content[offset : offset + 8]
        return not start.strip(_PADDING) and not self._content[offset:].strip(_PADDING)

    def _items(self, offset: int, end: int, *, implicit: bool, depth: int) -> tuple[list[Item], int]:
        """The items of a sequence up to ``end``, or to its delimiter."""
        if end > len(self._content):
            raise Unusable("it is cut off")
        items = []
        while offset < end:
            tag, _, length, offset = self._head(offset, implicit=True)
            if tag == SEQUENCE_END:
                break
            if tag != ITEM:
                raise Unusable("a sequence holds something else than items")
            stop = end if length == UNDEFINED else offset + length
            if stop > end:
                raise Unusable("it is cut off")
            item, offset = self._item(offset, stop, implicit=implicit, depth=depth + 1)
            items.append(item)
        return items, offset

    def _head(self, offset: int, *, implicit: bool) -> tuple[int, bytes, int, int]:
        """Tag, VR (empty if implicit), value length and value offset of the element or item at ``offset``."""
        self.visited += 1
        if self.visited > self._most:
            raise Unusable(f"it holds more than {self._most:,} elements")
        tag, vr, length, size = self._heads.read(self._content, offset, implicit=implicit)
        return tag, vr, length, offset + size

    def _behind_invalid(self, offset: int, end: int) -> int:
        """Offset behind an unwanted element with an invalid VR.

        :raises InvalidVR: it is wanted, or it is not known where it ends.
        """
        tag, behind = self._heads.skip(lambda at, length: self._content[at : at + length], offset, end)
        if tag in _VALUES or tag in _SEQUENCES:
            raise InvalidVR(f"the element ({tag >> 16:04X},{tag & 0xFFFF:04X}) has no valid value representation")
        self._skipped += 1
        return behind

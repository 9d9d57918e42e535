"""A DICOM data set with chosen sequences, read in bounded time and memory whatever the file holds.

The companion of :mod:`oarlock.dicom.elements` for RT Structure Sets and for the functional groups of multi-frame images,
where all that
is of interest lies in nested sequences. A general reader builds every item of every sequence as an object of a kilobyte,
recursively; this one descends into the wanted sequences alone, counts what it visits, and stops at a limit.

Sources: PS3.5 section 7 (data elements), 7.5 (nesting), 6.2.2 (UN), A.5 (deflate).
"""

import struct
import zlib
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Final

from oarlock.dicom.elements import (
    DEFLATED,
    ITEM,
    ITEM_END,
    LONG_VRS,
    SEQUENCE_END,
    SOP_CLASS,
    UNDEFINED,
    Damaged,
    Header,
    read_header,
)

MAX_FILE_BYTES: Final = 256 * 2**20
"""Largest file, inflated, that is read; the largest of a clinic are a tenth of it."""

MAX_HEADER_BYTES: Final = 64 * 2**20
"""Most bytes in front of the pixel data of a multi-frame image; those of a thousand frames are a few."""

MAX_ELEMENTS: Final = 1_000_000
"""Most elements and items that are visited (2 s); the largest of a clinic have a tenth of them."""

MAX_DEPTH: Final = 16
"""Deepest nesting that is followed; a structure set has five levels."""


class Tag(IntEnum):
    """The elements that are kept wherever they stand, and the sequences that are descended into."""

    SPECIFIC_CHARACTER_SET = 0x00080005
    SOP_CLASS_UID = 0x00080016
    SOP_INSTANCE_UID = 0x00080018
    MODALITY = 0x00080060
    CODE_VALUE = 0x00080100
    CODING_SCHEME_DESIGNATOR = 0x00080102
    CODE_MEANING = 0x00080104
    REFERENCED_SOP_INSTANCE_UID = 0x00081155
    REFERENCED_FRAME_NUMBER = 0x00081160
    FRAME_TYPE = 0x00089007
    PIXEL_PRESENTATION = 0x00089205
    VOLUMETRIC_PROPERTIES = 0x00089206
    VOLUME_BASED_CALCULATION_TECHNIQUE = 0x00089207
    PATIENT_NAME = 0x00100010
    PATIENT_ID = 0x00100020
    SLICE_THICKNESS = 0x00180050
    GANTRY_DETECTOR_TILT = 0x00181120
    STUDY_INSTANCE_UID = 0x0020000D
    SERIES_INSTANCE_UID = 0x0020000E
    IMAGE_POSITION_PATIENT = 0x00200032
    IMAGE_ORIENTATION_PATIENT = 0x00200037
    FRAME_OF_REFERENCE_UID = 0x00200052
    PIXEL_SPACING = 0x00280030
    RESCALE_INTERCEPT = 0x00281052
    RESCALE_SLOPE = 0x00281053
    RESCALE_TYPE = 0x00281054
    STRUCTURE_SET_LABEL = 0x30060002
    ROI_NUMBER = 0x30060022
    REFERENCED_FRAME_OF_REFERENCE_UID = 0x30060024
    ROI_NAME = 0x30060026
    CONTOUR_GEOMETRIC_TYPE = 0x30060042
    NUMBER_OF_CONTOUR_POINTS = 0x30060046
    CONTOUR_DATA = 0x30060050
    REFERENCED_ROI_NUMBER = 0x30060084

    REFERENCED_FRAME_OF_REFERENCE_SEQUENCE = 0x30060010
    RT_REFERENCED_STUDY_SEQUENCE = 0x30060012
    RT_REFERENCED_SERIES_SEQUENCE = 0x30060014
    CONTOUR_IMAGE_SEQUENCE = 0x30060016
    STRUCTURE_SET_ROI_SEQUENCE = 0x30060020
    ROI_CONTOUR_SEQUENCE = 0x30060039
    CONTOUR_SEQUENCE = 0x30060040
    RT_ROI_OBSERVATIONS_SEQUENCE = 0x30060080
    RT_ROI_IDENTIFICATION_CODE_SEQUENCE = 0x30060086
    SEGMENTED_PROPERTY_TYPE_MODIFIER_CODE_SEQUENCE = 0x00620011

    ANATOMIC_REGION_SEQUENCE = 0x00082218
    CT_ACQUISITION_DETAILS_SEQUENCE = 0x00189304
    CT_IMAGE_FRAME_TYPE_SEQUENCE = 0x00189329
    FRAME_ANATOMY_SEQUENCE = 0x00209071
    PLANE_POSITION_SEQUENCE = 0x00209113
    PLANE_ORIENTATION_SEQUENCE = 0x00209116
    PIXEL_MEASURES_SEQUENCE = 0x00289110
    PIXEL_VALUE_TRANSFORMATION_SEQUENCE = 0x00289145
    SHARED_FUNCTIONAL_GROUPS_SEQUENCE = 0x52009229
    PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE = 0x52009230


_SEQUENCES: Final = frozenset(tag for tag in Tag if tag.name.endswith("_SEQUENCE"))
_VALUES: Final = frozenset(Tag) - _SEQUENCES


@dataclass(slots=True)
class Item:
    """One data set: values as they stand in the file, and the items of its wanted sequences, by tag."""

    values: dict[int, bytes] = field(default_factory=dict)
    sequences: dict[int, list["Item"]] = field(default_factory=dict)

    def text(self, tag: int) -> str:
        """An element of ASCII text (CS, DS, IS, UI) without its padding; empty where absent."""
        return self.values.get(tag, b"").decode("ascii", "replace").strip(" \0")

    def items(self, tag: int) -> list["Item"]:
        """The items of a wanted sequence; none where it is absent or empty."""
        return self.sequences.get(tag, [])


def read_sequences(path: Path, *, sop_class: str) -> Item | None:
    """Read a file's data set; None where it is not DICOM or says that it is of another SOP class.

    :raises Damaged: with the reason, which holds no byte of the file.
    """
    if path.stat().st_size > MAX_FILE_BYTES:
        raise Damaged(f"it is larger than {MAX_FILE_BYTES >> 20} MiB")
    header = read_header(path, (SOP_CLASS,), keep=lambda _: False)
    if header is None or header.text(SOP_CLASS) not in ("", sop_class):
        return None
    content, start = (_inflate(path), 0) if header.transfer_syntax == DEFLATED else (path.read_bytes(), header.dataset_offset)
    parser = _Parser(content, ">" if header.big_endian else "<")
    return parser.dataset(start)


def read_sequences_before_pixels(header: Header) -> tuple[Item, int]:
    """Read the data set of an image up to its pixel data; not of one that is deflated.

    :returns: the data set, and how many elements and items were visited.
    :raises Damaged: with the reason, which holds no byte of the file.
    """
    start, end = header.dataset_offset, header.pixel_data.element_offset if header.pixel_data else header.size
    if end - start > MAX_HEADER_BYTES:
        raise Damaged(f"its header is longer than {MAX_HEADER_BYTES >> 20} MiB")
    with header.path.open("rb") as file:
        file.seek(start)
        content = file.read(end - start)
    parser = _Parser(content, ">" if header.big_endian else "<")
    return parser.dataset(0), parser.visited


def _inflate(path: Path) -> bytes:
    """The data set of the deflated transfer syntax, behind its file meta information (PS3.5 A.5: raw deflate)."""
    content = path.read_bytes()
    if content[132:140] != b"\x02\x00\x00\x00UL\x04\x00":
        raise Damaged("its file meta information does not state its length")
    offset = 144 + int(struct.unpack_from("<I", content, 140)[0])
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        inflated = inflater.decompress(content[offset:], MAX_FILE_BYTES)
    except zlib.error as error:
        raise Damaged("its deflated data set cannot be inflated") from error
    if inflater.unconsumed_tail:
        raise Damaged(f"it inflates to more than {MAX_FILE_BYTES >> 20} MiB")
    return inflated


class _Parser:
    """One pass over a data set in memory."""

    def __init__(self, content: bytes, order: str) -> None:
        self._content = content
        self._implicit_head = struct.Struct(f"{order}HHI")
        self._short, self._long = struct.Struct(f"{order}H"), struct.Struct(f"{order}I")
        self.visited = 0

    def dataset(self, start: int) -> Item:
        """The whole data set. Its encoding is seen, not believed: some files are encoded otherwise than they say."""
        implicit = not self._content[start + 4 : start + 6].isalpha()
        item, _ = self._item(start, len(self._content), implicit=implicit, depth=0)
        return item

    def _item(self, offset: int, end: int, *, implicit: bool, depth: int) -> tuple[Item, int]:
        """The elements up to ``end``, or to an item delimiter."""
        if depth > MAX_DEPTH:
            raise Damaged(f"its sequences are nested deeper than {MAX_DEPTH} levels")
        item = Item()
        while offset < end:
            tag, vr, length, offset = self._head(offset, implicit=implicit)
            if tag == ITEM_END:
                break
            nested_implicit = implicit or vr == b"UN"
            if tag in _SEQUENCES or length == UNDEFINED:
                stop = end if length == UNDEFINED else offset + length
                items, offset = self._items(offset, stop, implicit=nested_implicit, depth=depth)
                if tag in _SEQUENCES:
                    item.sequences[tag] = items
                continue
            if offset + length > end:
                raise Damaged("it is cut off")
            if tag in _VALUES:
                item.values[tag] = self._content[offset : offset + length]
            offset += length
        return item, offset

    def _items(self, offset: int, end: int, *, implicit: bool, depth: int) -> tuple[list[Item], int]:
        """The items of a sequence up to ``end``, or to its delimiter."""
        if end > len(self._content):
            raise Damaged("it is cut off")
        items = []
        while offset < end:
            tag, _, length, offset = self._head(offset, implicit=True)
            if tag == SEQUENCE_END:
                break
            if tag != ITEM:
                raise Damaged("a sequence holds something else than items")
            stop = end if length == UNDEFINED else offset + length
            if stop > end:
                raise Damaged("it is cut off")
            item, offset = self._item(offset, stop, implicit=implicit, depth=depth + 1)
            items.append(item)
        return items, offset

    def _head(self, offset: int, *, implicit: bool) -> tuple[int, bytes, int, int]:
        """Tag, VR (empty if implicit), value length and value offset of the element or item at ``offset``."""
        self.visited += 1
        if self.visited > MAX_ELEMENTS:
            raise Damaged(f"it holds more than {MAX_ELEMENTS:,} elements")
        if offset + 8 > len(self._content):
            raise Damaged("it is cut off")
        group, element, length = self._implicit_head.unpack_from(self._content, offset)
        tag = group << 16 | element
        if implicit or group == 0xFFFE:
            return tag, b"", length, offset + 8
        vr = self._content[offset + 4 : offset + 6]
        if not vr.isalpha():
            raise Damaged(f"the element ({group:04X},{element:04X}) has no valid value representation")
        if vr not in LONG_VRS:
            return tag, vr, self._short.unpack_from(self._content, offset + 6)[0], offset + 8
        if offset + 12 > len(self._content):
            raise Damaged("it is cut off")
        return tag, vr, self._long.unpack_from(self._content, offset + 8)[0], offset + 12

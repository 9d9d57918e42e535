"""Enhanced multi-frame CT: frames of one file as slices.

What a single-frame image says at its top level, a multi-frame one says in functional groups, once for all frames (shared) or for
each of them. Here a file is taken apart into its frames; each becomes what a single-frame file would have been, with the part of
the pixel data that is its own, and goes on through the same checks. Nothing is taken from the top level that belongs to a frame.

Sources: PS3.3 C.7.6.16 (multi-frame functional groups), C.8.15.3 (CT functional groups), A.38 (enhanced CT), A.70 (legacy
converted enhanced CT), PS3.5 A.4 (encapsulation).
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from oarlock.ct.pixel_header import is_padding
from oarlock.dicom.elements import DEFLATED, Header, PixelData
from oarlock.dicom.fragments import find_fragments
from oarlock.dicom.sequences import Item, read_sequences_before_pixels
from oarlock.dicom.tags import Tag
from oarlock.dicom.unusable import Unusable

_GROUPS: Final[Mapping[Tag, Mapping[int, Tag]]] = {
    Tag.CT_IMAGE_FRAME_TYPE_SEQUENCE: {Tag.IMAGE_TYPE: Tag.FRAME_TYPE},
    Tag.CT_ACQUISITION_DETAILS_SEQUENCE: {Tag.GANTRY_DETECTOR_TILT: Tag.GANTRY_DETECTOR_TILT},
    Tag.PLANE_POSITION_SEQUENCE: {Tag.IMAGE_POSITION_PATIENT: Tag.IMAGE_POSITION_PATIENT},
    Tag.PLANE_ORIENTATION_SEQUENCE: {Tag.IMAGE_ORIENTATION_PATIENT: Tag.IMAGE_ORIENTATION_PATIENT},
    Tag.PIXEL_MEASURES_SEQUENCE: {
        Tag.SLICE_THICKNESS: Tag.SLICE_THICKNESS,
        Tag.SPACING_BETWEEN_SLICES: Tag.SPACING_BETWEEN_SLICES,
        Tag.PIXEL_SPACING: Tag.PIXEL_SPACING,
    },
    Tag.PIXEL_VALUE_TRANSFORMATION_SEQUENCE: {
        Tag.RESCALE_INTERCEPT: Tag.RESCALE_INTERCEPT,
        Tag.RESCALE_SLOPE: Tag.RESCALE_SLOPE,
        Tag.RESCALE_TYPE: Tag.RESCALE_TYPE,
    },
}
"""For each functional group the elements of a single-frame image that it holds, and their names in it."""

_OF_A_FRAME: Final = frozenset(tag for group in _GROUPS.values() for tag in group) | {Tag.BODY_PART_EXAMINED, Tag.INSTANCE_NUMBER}
_END_OF_IMAGE: Final = b"\xff\xd9"


def to_frames(header: Header, frames: int) -> list[Header]:
    """One header for each frame, in the file's order.

    As if the frame were a file of its own.

    :param frames: how many the file claims.
    :returns: the headers; ``visited`` of each counts all elements, items and fragments of the file that were looked at here.
    :raises Unusable: the file cannot be taken apart.
    """
    if header.transfer_syntax == DEFLATED:
        raise Unusable("multi-frame images are not read deflated; export it uncompressed (Explicit VR Little Endian)")
    if header.pixel_data is None:
        raise Unusable("it has no pixel data")
    root, visited = read_sequences_before_pixels(header)
    groups = root.items(Tag.PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE)
    if len(groups) != frames or frames < 1:
        raise Unusable(f"it claims {frames} frames and has functional groups for {len(groups)}")
    parts = _pixel_data_of_frames(header, header.pixel_data, frames)
    visited += sum(len(part.fragments) for part in parts)
    common = {tag: value for tag, value in header.values.items() if tag not in _OF_A_FRAME}
    for item in root.items(Tag.SHARED_FUNCTIONAL_GROUPS_SEQUENCE):
        common |= _values(item, big_endian=header.big_endian)
    return [
        replace(header, values=common | _values(group, big_endian=header.big_endian), pixel_data=part, visited=visited)
        for group, part in zip(groups, parts, strict=True)
    ]


def _values(groups: Item, *, big_endian: bool) -> dict[int, bytes]:
    """What functional groups say, by the tags of a single-frame image."""
    found: dict[int, bytes] = {}
    for sequence, elements in _GROUPS.items():
        for item in groups.items(sequence):
            found |= {tag: item.values[name] for tag, name in elements.items() if name in item.values}
            _check_plain(item)
    for anatomy in groups.items(Tag.FRAME_ANATOMY_SEQUENCE):
        for region in anatomy.items(Tag.ANATOMIC_REGION_SEQUENCE):
            found[Tag.BODY_PART_EXAMINED] = region.values.get(Tag.CODE_MEANING, b"")
    for content in groups.items(Tag.FRAME_CONTENT_SEQUENCE):
        number = content.values.get(Tag.IN_STACK_POSITION_NUMBER, b"")
        if len(number) == 4:  # it counts as Instance Number does
            found[Tag.INSTANCE_NUMBER] = str(int.from_bytes(number, "big" if big_endian else "little")).encode()
    return found


def _check_plain(frame_type: Item) -> None:
    """Frames that are cuts through a volume, and neither maps in colour nor projections or distorted ones (PS3.3 C.8.16.2)."""
    if frame_type.text(Tag.PIXEL_PRESENTATION) not in ("", "MONOCHROME"):
        raise Unusable("its frames are shown in colour, so they are maps, not a plain CT")
    if frame_type.text(Tag.VOLUMETRIC_PROPERTIES) not in ("", "VOLUME"):
        raise Unusable("its frames are not a plain volume (Volumetric Properties)")
    if frame_type.text(Tag.VOLUME_BASED_CALCULATION_TECHNIQUE) not in ("", "NONE", "MULTIPLANAR_RESAMP", "ADVANCED_RESAMP"):
        raise Unusable("its frames are projections of a volume (Volume Based Calculation Technique)")


# ── pixel data ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _pixel_data_of_frames(header: Header, whole: PixelData, frames: int) -> list[PixelData]:
    if whole.length is None:
        return _compressed(header.path, whole, frames)
    rows, columns = header.unsigned(Tag.ROWS) or 0, header.unsigned(Tag.COLUMNS) or 0
    size = rows * columns * 2
    if size == 0 or not frames * size <= whole.length < frames * size + size:
        raise Unusable(f"{frames} frames of {rows} × {columns} pixels need {frames * size} bytes and {whole.length} are there")
    if not is_padding(header, whole.offset + frames * size, whole.length - frames * size):
        raise Unusable("its pixel data go on behind the last frame, with other bytes than padding")
    return [PixelData(whole.offset + i * size, size, whole.element_offset) for i in range(frames)]


def _compressed(path: Path, whole: PixelData, frames: int) -> list[PixelData]:
    """The fragments of each frame.

    With as many fragments as frames each has one. Otherwise a frame ends with the fragment that ends with the marker "end of
    image", which cannot occur within the data of JPEG, JPEG-LS or JPEG 2000; offset tables are not needed and not believed.
    """
    fragments = find_fragments(path, whole.offset)
    one_each = len(fragments) == frames
    grouped = [[fragment] for fragment in fragments] if one_each else list(_grouped(path, fragments))
    if len(grouped) != frames:
        raise Unusable(f"it claims {frames} frames and its compressed data hold {len(grouped)}")
    return [PixelData(group[0][0], None, whole.element_offset, tuple(group)) for group in grouped]


def _grouped(path: Path, fragments: list[tuple[int, int]]) -> Iterator[list[tuple[int, int]]]:
    """Fragments frame by frame; what follows the last end of image is a frame too, which makes one too many."""
    descriptor = os.open(path, os.O_RDONLY)
    group: list[tuple[int, int]] = []
    try:
        for offset, length in fragments:
            group.append((offset, length))
            tail = os.pread(descriptor, min(4, length), offset + max(0, length - 4))
            if tail.rstrip(b"\0\xff").endswith(_END_OF_IMAGE):
                yield group
                group = []
    finally:
        os.close(descriptor)
    if group:
        yield group

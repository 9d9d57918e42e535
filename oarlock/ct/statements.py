"""What the slices of a series say of each other.

Read from their headers for :mod:`oarlock.ct.completeness`.
"""

import re
from collections import defaultdict
from collections.abc import Sequence
from statistics import median
from typing import Final

from oarlock.ct.completeness import Stated
from oarlock.ct.sorting import DicomFile
from oarlock.dicom.tags import Tag

WANTED: Final = frozenset(
    {Tag.SLICE_THICKNESS, Tag.SPACING_BETWEEN_SLICES, Tag.INSTANCE_NUMBER, Tag.IMAGES_IN_ACQUISITION, Tag.ACQUISITION_NUMBER}
    | {Tag.CONCATENATION_UID, Tag.IN_CONCATENATION_NUMBER, Tag.IN_CONCATENATION_TOTAL_NUMBER}
)

_WHOLE_NUMBER: Final = re.compile(r"[+-]?[0-9]{1,9}")


def stated(slices: Sequence[DicomFile]) -> Stated:
    """What the slices say of each other.

    They come in the order of the axis.
    """
    return Stated(
        thickness_mm=_common(slices, Tag.SLICE_THICKNESS),
        spacing_mm=_common(slices, Tag.SPACING_BETWEEN_SLICES),
        numbers=[_whole(file, Tag.INSTANCE_NUMBER) for file in slices],
        images=_images(slices),
        parts=_parts(slices),
    )


def _common(slices: Sequence[DicomFile], tag: int) -> float | None:
    """The size of a length that most slices state alike, to a hundredth of it: one that lost it must not silence all others."""
    values = [abs(value) for file in slices for value in file.header.numbers(tag)[:1] if value != 0]
    usual = median(values) if values else 0.0
    alike = [value for value in values if abs(value - usual) <= 0.01 * usual]
    return max(alike) if 2 * len(alike) > len(slices) else None


def _whole(file: DicomFile, tag: int) -> int | None:
    text = file.header.text(tag)
    return int(text) if _WHOLE_NUMBER.fullmatch(text) else None


def _images(slices: Sequence[DicomFile]) -> int | None:
    """Images in Acquisition, summed over the acquisitions that the slices belong to; None if no slice of one of them says it.

    None too where each acquisition is of one image, as step-and-shoot scans may number them: their sum is what was sent, whatever
    was lost.
    """
    by_acquisition: dict[str, int] = defaultdict(int)
    for file in slices:
        acquisition = file.header.text(Tag.ACQUISITION_NUMBER)
        by_acquisition[acquisition] = max(by_acquisition[acquisition], _whole(file, Tag.IMAGES_IN_ACQUISITION) or 0)
    counts = by_acquisition.values()
    return sum(counts) if min(counts) > 0 and max(counts) > 1 else None


def _parts(slices: Sequence[DicomFile]) -> tuple[int, int] | None:
    """Of an image that was sent in parts (PS3.3 C.7.6.16.2.2.4), how many have come and how many there are; None of any other."""
    came: dict[str, set[str]] = defaultdict(set)
    parts: dict[str, int] = {}
    for file in slices:
        image, number = file.header.text(Tag.CONCATENATION_UID), file.header.values.get(Tag.IN_CONCATENATION_NUMBER)
        if image and number is not None:
            came[image].add(number.hex())
            parts[image] = max(parts.get(image, 0), file.header.unsigned(Tag.IN_CONCATENATION_TOTAL_NUMBER) or 0)
    here, there = sum(map(len, came.values())), sum(parts.values())
    return (here, there) if here < there else None

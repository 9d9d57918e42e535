"""What the slices of a series say of each other.

Read from their headers for :mod:`oarlock.ct.completeness`.
"""

import re
from collections.abc import Sequence
from typing import Final

from oarlock.ct.completeness import Stated
from oarlock.ct.sorting import DicomFile
from oarlock.dicom.tags import Tag

WANTED: Final = frozenset(
    {Tag.SLICE_THICKNESS, Tag.SPACING_BETWEEN_SLICES, Tag.INSTANCE_NUMBER, Tag.IMAGES_IN_ACQUISITION, Tag.ACQUISITION_NUMBER}
)

_WHOLE_NUMBER: Final = re.compile(r"[+-]?[0-9]{1,9}")


def stated(slices: Sequence[DicomFile]) -> Stated:
    """What the slices say of each other.

    They come in the order of the axis.
    """
    numbers = [_whole(file, Tag.INSTANCE_NUMBER) for file in slices]
    known = [number for number in numbers if number is not None]
    distinct = len(set(known)) == len(slices)
    return Stated(
        thickness_mm=_common(slices, Tag.SLICE_THICKNESS),
        spacing_mm=_common(slices, Tag.SPACING_BETWEEN_SLICES),
        numbers=known if distinct else None,
        images=_images(slices),
    )


def _common(slices: Sequence[DicomFile], tag: int) -> float | None:
    """The size of a length that all slices state alike, to a hundredth of it."""
    values = [abs(value) for file in slices for value in file.header.numbers(tag)[:1]]
    if len(values) < len(slices) or min(values) <= 0 or max(values) - min(values) > 0.01 * max(values):
        return None
    return max(values)


def _whole(file: DicomFile, tag: int) -> int | None:
    text = file.header.text(tag)
    return int(text) if _WHOLE_NUMBER.fullmatch(text) else None


def _images(slices: Sequence[DicomFile]) -> int | None:
    """Images in Acquisition, summed over the acquisitions that the slices belong to; None if one of them does not say.

    None too where each acquisition is of one image, as step-and-shoot scans may number them: their sum is what was sent, whatever
    was lost.
    """
    by_acquisition: dict[str, int] = {}
    for file in slices:
        count = _whole(file, Tag.IMAGES_IN_ACQUISITION)
        if count is None or count < 1:
            return None
        acquisition = file.header.text(Tag.ACQUISITION_NUMBER)
        by_acquisition[acquisition] = max(count, by_acquisition.get(acquisition, 0))
    return sum(by_acquisition.values()) if max(by_acquisition.values()) > 1 else None

"""The images that a supplied RTSTRUCT lists, series by series.

The planning system had all of them when the RTSTRUCT was made.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from oarlock.dicom.sequences import MAX_ELEMENTS_UNTIL, Item, read_sequences_until
from oarlock.dicom.tags import Tag
from oarlock.dicom.unusable import Unusable

RT_STRUCTURE_SET: Final = "1.2.840.10008.5.1.4.1.1.481.3"


@dataclass(frozen=True, slots=True)
class Listing:
    """What an RTSTRUCT lists.

    :param images: SOP Instance UIDs, by Series Instance UID.
    :param visited: how many elements were looked at for it.
    :param complete: whether the list could be read to its end.
    """

    images: Mapping[str, frozenset[str]] = field(default_factory=dict)
    visited: int = 0
    complete: bool = True


UNREAD: Final = Listing(complete=False)


def read_listing(path: Path) -> Listing:
    """The images that an RTSTRUCT lists.

    It is empty and not complete where the list cannot be read.
    """
    try:
        root = read_sequences_until(path, Tag.STRUCTURE_SET_ROI_SEQUENCE, sop_class=RT_STRUCTURE_SET) or Item()
    except Unusable:
        return replace(UNREAD, visited=MAX_ELEMENTS_UNTIL)
    found: defaultdict[str, set[str]] = defaultdict(set)
    for frame in root.items(Tag.REFERENCED_FRAME_OF_REFERENCE_SEQUENCE):
        for study in frame.items(Tag.RT_REFERENCED_STUDY_SEQUENCE):
            for series in study.items(Tag.RT_REFERENCED_SERIES_SEQUENCE):
                images = {one.text(Tag.REFERENCED_SOP_INSTANCE_UID) for one in series.items(Tag.CONTOUR_IMAGE_SEQUENCE)}
                found[series.text(Tag.SERIES_INSTANCE_UID)] |= images
    return Listing({uid: frozenset(images) for uid, images in found.items()}, root.visited)


def listed_images(path: Path, series_instance_uid: str) -> frozenset[str]:
    """SOP Instance UIDs that an RTSTRUCT lists for a series."""
    return read_listing(path).images.get(series_instance_uid, frozenset())

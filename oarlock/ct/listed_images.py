"""The images of a series that a supplied RTSTRUCT lists.

The planning system had all of them when the RTSTRUCT was made.
"""

from pathlib import Path
from typing import Final

from oarlock.dicom.sequences import Item, read_sequences_until
from oarlock.dicom.tags import Tag
from oarlock.dicom.unusable import Unusable

RT_STRUCTURE_SET: Final = "1.2.840.10008.5.1.4.1.1.481.3"


def listed_images(path: Path, series_instance_uid: str) -> set[str]:
    """SOP Instance UIDs that an RTSTRUCT lists for a series.

    Empty where the file cannot be read, which the job reports.
    """
    try:
        root = read_sequences_until(path, Tag.STRUCTURE_SET_ROI_SEQUENCE, sop_class=RT_STRUCTURE_SET)
    except Unusable:
        return set()
    return {
        image.text(Tag.REFERENCED_SOP_INSTANCE_UID)
        for series in _series(root or Item())
        if series.text(Tag.SERIES_INSTANCE_UID) == series_instance_uid
        for image in series.items(Tag.CONTOUR_IMAGE_SEQUENCE)
    }


def listed_series(path: Path) -> list[str]:
    """Series of which an RTSTRUCT lists images.

    Series Instance UIDs; none where the file cannot be read.
    """
    try:
        root = read_sequences_until(path, Tag.STRUCTURE_SET_ROI_SEQUENCE, sop_class=RT_STRUCTURE_SET)
    except Unusable:
        return []
    return sorted({uid for series in _series(root or Item()) if (uid := series.text(Tag.SERIES_INSTANCE_UID))})


def _series(root: Item) -> list[Item]:
    """Items of RT Referenced Series Sequence (PS3.3 C.8.8.5)."""
    return [
        series
        for frame in root.items(Tag.REFERENCED_FRAME_OF_REFERENCE_SEQUENCE)
        for study in frame.items(Tag.RT_REFERENCED_STUDY_SEQUENCE)
        for series in study.items(Tag.RT_REFERENCED_SERIES_SEQUENCE)
    ]

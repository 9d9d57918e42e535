"""Whether a stack that has no gap is all of the series.

It is judged by what its slices say of their neighbours.

Every second slice lost leaves an even stack. On the full series of the planning system each organ then has every second contour.
Positions alone cannot show that, so they are held against Slice Thickness, Spacing Between Slices, the instance numbers and
Images in Acquisition. ``docs/dicom.md`` has the table of what they decide together.

Sources: PS3.3 C.7.6.2 (image plane), C.8.2.1 (CT image), C.7.3.1 (series).
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np

from oarlock.arrays import FloatArray
from oarlock.ct.slice_spacing import slack_mm
from oarlock.errors import MissingSlices
from oarlock.facts import Notice

LOST_SHARE: Final = 1.5
"""A lost slice doubles the distance to the next one; half a slice more than expected lies between the two."""

MOST: Final = 0.75
"""Share of neighbours whose instance numbers must be the same step apart: a few renumbered ones do not hide it."""

THICK_MM: Final = 5.0
"""Slices further apart than this show a lens or a cochlea once or not at all; planning scans have 1 to 3 mm."""


@dataclass(frozen=True, slots=True)
class Stated:
    """What the slices say about each other.

    None where they say nothing or contradict one another.

    ``thickness_mm`` is Slice Thickness, ``spacing_mm`` the size of Spacing Between Slices, ``numbers`` Instance Number of each
    slice along the axis, ``images`` Images in Acquisition, summed over the acquisitions; ``parts`` how many parts of an image
    that was sent in parts have come, and how many there are.
    """

    thickness_mm: float | None = None
    spacing_mm: float | None = None
    numbers: Sequence[int | None] = ()
    images: int | None = None
    parts: tuple[int, int] | None = None


def check_complete(distances_mm: FloatArray, stated: Stated, *, refuse_gaps: bool = True) -> list[Notice]:
    """Warnings about what may be missing from a stack.

    :param distances_mm: (n - 1,) between neighbouring slices.
    :param refuse_gaps: whether slices that must be missing are refused; else they become a warning.
    :raises MissingSlices: what the slices say of each other cannot all be true unless some are missing.
    """
    distance = float(np.median(distances_mm))
    even = bool(np.ptp(distances_mm) <= 2 * slack_mm(distance))
    lost = _lost(distance, stated, len(distances_mm) + 1) if even else None
    if lost is not None and refuse_gaps:
        raise lost
    gaps = [Notice("series.gapped", lost.detail)] if lost is not None else _gapped(distance, stated) if even else []
    return [*gaps, *_not_all(stated, len(distances_mm) + 1), *_thick(distance)]


def _lost(distance: float, stated: Stated, slices: int) -> MissingSlices | None:
    """The refusal, if the slices are further apart than they say that they are, and nothing says that this is meant."""
    step, spacing, thickness = _step(stated.numbers), stated.spacing_mm, stated.thickness_mm
    all_there, touching = stated.images == slices, thickness is not None and not _apart(distance, thickness)
    meant = spacing is not None and abs(distance - spacing) <= slack_mm(spacing)
    if spacing is not None and distance >= LOST_SHARE * spacing:
        return _missing(spacing, distance, f"Spacing Between Slices says {spacing:.3f} mm")
    if step > 1 and not all_there and not (meant and touching):
        return _missing(distance / step, distance, f"the instance numbers go up in steps of {step}")
    if thickness is not None and distance >= LOST_SHARE * thickness and not meant and not all_there:
        return _missing(thickness, distance, f"they are {thickness:.3f} mm thick, and nothing says that the gaps are meant")
    return None


def _missing(expected_mm: float, found_mm: float, because: str) -> MissingSlices:
    return MissingSlices(expected_mm=expected_mm, found_mm=found_mm, throughout=because)


def _apart(distance: float, thickness: float) -> bool:
    return distance > thickness + float(slack_mm(thickness))


def _step(numbers: Sequence[int | None]) -> int:
    """By how much the instance numbers go up from nearly each slice to the next, or down; 0 or 1 where they say nothing."""
    known = [(place, number) for place, number in enumerate(numbers) if number is not None]
    steps = Counter((after[1] - before[1]) / (after[0] - before[0]) for before, after in pairwise(known))
    step, count = steps.most_common(1)[0] if steps else (0.0, 0)
    return abs(int(step)) if step.is_integer() and count >= MOST * (len(numbers) - 1) else 1


def _gapped(distance: float, stated: Stated) -> list[Notice]:
    thickness = stated.thickness_mm
    if thickness is None or not _apart(distance, thickness):
        return []
    return [
        Notice(
            "series.gapped",
            f"The slices are {thickness:.2f} mm thick and {distance:.2f} mm apart, so the tissue between them was not imaged. "
            "Check that no slice is missing.",
        )
    ]


def _not_all(stated: Stated, slices: int) -> list[Notice]:
    """One acquisition may be reconstructed twice, or cut to size on purpose, so a count warns and does not refuse."""
    found = []
    if stated.images is not None and stated.images > slices:
        found.append(
            f"The acquisition has {stated.images} images by its own count (Images in Acquisition), and {slices} slices were sent."
        )
    if stated.parts is not None:
        came, there_are = stated.parts
        found.append(f"An image was sent in {there_are} parts by its own count (a concatenation), and {came} have come.")
    return [
        Notice("series.maybe_incomplete", f"{detail} Organs at the missing slices get no contours there.") for detail in found
    ]


def _thick(distance: float) -> list[Notice]:
    if distance <= THICK_MM + 1e-6:
        return []
    detail = f"The slices are {distance:.1f} mm apart. Organs of a few millimetres (lens, cochlea, optic nerve) cannot be drawn"
    return [Notice("series.thick_slices", detail + "; planning scans have slices of 1 to 3 mm.")]

"""The brain where it is plain to see.

In the slices above the orbits, where it is all that the skull encloses.

Three training scans show the whole brain under an expert's contour, and none of OpenKBP's own labels says what the top of a head
is. Where a closed ring of bone and what is in it make up the head, the soft tissue within becomes a label of a training scan in
those slices; below them the brain stays unlabelled. How well the rule draws what the experts drew is in docs/model.md; no tuning
scan gets labels from it.
"""

from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from model_export.datasets.training_file import CHANNEL, Case
from oarlock.geometry.body import BODY_HU
from oarlock.geometry.components import largest_piece

BONE_HU: Final = 200.0
BRAIN_HU: Final = (-20.0, 110.0)
SINUS_HU: Final = -40.0  # and below: the air of a frontal sinus, and what it makes of its neighbours
SMALLEST_CM2: Final = 10.0
LEAST_SHARE_OF_HEAD: Final = 0.75
LEAST_BRAIN_TISSUE: Final = 0.85
LEAST_HEIGHT_MM: Final = 15.0
CROSS: Final = ndimage.generate_binary_structure(2, 1)

Mask = npt.NDArray[np.bool_]


def with_plain_brain(case: Case) -> Case:
    """The case with the upper brain labelled.

    Where the rule finds it, else the case as it is.
    """
    found = None if CHANNEL["Brain"] in case.channels else plain_brain(case)
    return case.with_label("Brain", *found) if found else case


def plain_brain(case: Case) -> tuple[Mask, tuple[int, int]] | None:
    """The brain on the CT's grid (z, y, x), where plain.

    With the first and last slice where it is; None if they are too few.
    """
    hu = case.hu()
    brain = np.zeros(hu.shape, np.bool_)
    plain: list[int] = []
    for z in reversed(range(len(hu))):
        inside = brain_of_slice(hu[z], case.known[z], case.spacing_mm[1] * case.spacing_mm[2] / 100.0)
        if inside is not None:
            brain[z] = inside
            plain.append(z)
        elif plain:
            break
    if len(plain) * case.spacing_mm[0] < LEAST_HEIGHT_MM:
        return None
    return brain, (plain[-1], plain[0])


def brain_of_slice(hu: npt.NDArray[np.float32], known: Mask, voxel_cm2: float) -> Mask | None:
    """What the skull encloses in one slice (y, x).

    None where that is small, not the whole head, or not brain.
    """
    head = ndimage.binary_fill_holes(largest_piece((hu > BODY_HU) & known))
    ring = ndimage.binary_closing(np.pad(hu > BONE_HU, 1), CROSS)[1:-1, 1:-1]
    skull = ndimage.binary_fill_holes(ring)
    inside = largest_piece(ndimage.binary_opening(skull & ~ring & (hu > SINUS_HU), CROSS))
    if inside.sum() * voxel_cm2 < SMALLEST_CM2 or (skull & head).sum() < LEAST_SHARE_OF_HEAD * head.sum():
        return None
    inside = ndimage.binary_fill_holes(inside)
    tissue = (hu > BRAIN_HU[0]) & (hu < BRAIN_HU[1])
    return inside if tissue[inside].mean() >= LEAST_BRAIN_TISSUE else None

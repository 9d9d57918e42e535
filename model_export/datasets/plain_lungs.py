"""Lungs where they are plain to see.

Two bodies of aerated tissue, one on each side, that run out of the scan at its foot end.

OpenKBP did not draw lungs, and five scans are too few to learn them from. Where a threshold finds two such bodies and nothing
doubtful they become labels of a training scan; everywhere else lungs stay unlabelled. How well the rule draws what the experts
drew is measured on the matched scans (docs/model.md); no tuning scan gets labels from it.
"""

from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from model_export.datasets.training_file import CHANNEL, Case

AERATED_HU: Final = (-960.0, -400.0)
TISSUE_HU: Final = -400.0
SMALLEST_CM3: Final = 40.0
LEAST_SYMMETRY: Final = 0.4
ON_ONE_SIDE: Final = 0.97
VESSEL_MM: Final = 9.0

Mask = npt.NDArray[np.bool_]


def with_plain_lungs(case: Case) -> Case:
    """The case with both lungs labelled.

    Where the rule finds them, else the case as it is.
    """
    lungs = None if CHANNEL["Lung_L"] in case.channels else plain_lungs(case)
    return case.with_label("Lung_L", lungs[0]).with_label("Lung_R", lungs[1]) if lungs else case


def plain_lungs(case: Case) -> tuple[Mask, Mask] | None:
    """Left and right lung on the CT's grid (z, y, x).

    None where anything is doubtful.
    """
    hu = case.hu()
    aerated = (hu > AERATED_HU[0]) & (hu < AERATED_HU[1]) & case.known
    opened = ndimage.binary_opening(aerated, np.ones((1, 3, 3), np.bool_))  # cuts off the trachea's wall and the skin's edge
    parts, count = ndimage.label(opened)
    voxel_cm3 = float(np.prod(case.spacing_mm)) / 1000.0
    volumes = np.bincount(parts.ravel(), minlength=count + 1)[1:] * voxel_cm3
    large = np.flatnonzero(volumes >= SMALLEST_CM3) + 1
    if len(large) != 2 or volumes[large - 1].min() < LEAST_SYMMETRY * volumes[large - 1].max():
        return None
    masks = [parts == number for number in large]
    left, right = sorted(masks, key=lambda mask: float(np.flatnonzero(mask.any(axis=(0, 1))).mean()), reverse=True)
    if not (left[0].any() and right[0].any()) or not _on_its_side(left, right, case):
        return None
    return _with_vessels(left, aerated, right, case), _with_vessels(right, aerated, left, case)


def _on_its_side(left: Mask, right: Mask, case: Case) -> bool:
    """Whether hardly any of either lies beyond the middle of the body; x runs to the patient's left."""
    middle = round(case.body_centre_mm[1] / case.spacing_mm[2])
    return bool(left[:, :, middle:].sum() >= ON_ONE_SIDE * left.sum() and right[:, :, :middle].sum() >= ON_ONE_SIDE * right.sum())


def _with_vessels(lung: Mask, aerated: Mask, other: Mask, case: Case) -> Mask:
    """What the opening took from the rim, and the vessels within, slice by slice."""
    whole = ndimage.binary_dilation(lung, np.ones((1, 3, 3), np.bool_)) & (aerated | lung) & ~other
    reach = max(1, round(VESSEL_MM / case.spacing_mm[2]))
    padded = [np.pad(mask, reach) for mask in whole]
    filled = np.stack([ndimage.binary_fill_holes(ndimage.binary_closing(mask, iterations=reach)) for mask in padded])
    filled = filled[:, reach:-reach, reach:-reach]
    return np.asarray(filled & case.known & ~other, np.bool_)

"""Glands close under the skin end at the skin.

What a network drew of them in a pad or in air is taken off.

Pads, bolus and hands are as dense as a gland and are in hardly any training scan; :mod:`oarlock.geometry.skin` tells them from
the patient.
"""

from typing import Final

import numpy as np
from scipy import ndimage

from oarlock.arrays import Mask
from oarlock.facts import Notice
from oarlock.geometry.grid import Grid
from oarlock.geometry.masks import OARMasks
from oarlock.geometry.skin import Surroundings

ENDING_AT_SKIN: Final = ("Parotid", "Glnd_Submand")
"""Glands, without their side, that lie under cheek and jaw, where pads and bolus are laid."""

SHARES: Final = (0.01, 0.6)
"""Of an organ's voxels outside of the patient: fewer are the skin's own uncertainty, of more too little would be left."""

_SMOOTH_MM: Final = 6.0


def within_skin(masks: OARMasks, around: Surroundings) -> list[Notice]:
    """Cut glands off at the skin, in place.

    :param around: the CT that the masks lie on.
    :returns: a warning for each organ that was cut, with the volume in ml.
    """
    grid, notices = around.grid, []
    for oar in masks.oars:
        if not oar.name.startswith(ENDING_AT_SKIN) or (crop := masks.crop(oar)) is None:
            continue
        box, mask = crop
        outside = around.outside(box, under_skin=True)
        if SHARES[0] < np.count_nonzero(mask & outside) / np.count_nonzero(mask) <= SHARES[1]:
            off = mask & (outside | _majority(outside, grid))
            masks.put_inside(oar, box, mask & ~off)
            ml = float(np.count_nonzero(off, axis=(1, 2)) @ grid.voxel_volumes_mm3[box[0]]) / 1000
            where = "in air, or in a pad, bolus, mask, tube or hand on the skin"
            notices.append(Notice("contours.cut_at_skin", f"{oar}: {ml:.2f} ml that the model drew {where} were taken off."))
    return notices


def _majority(outside: Mask, grid: Grid) -> Mask:
    """What most voxels within a few millimetres say, so that the cut has no teeth."""
    size = [max(1, round(_SMOOTH_MM / spacing)) | 1 for spacing in grid.spacing_mm]
    return np.asarray(ndimage.uniform_filter(outside.astype(np.float32), size) > 0.5)

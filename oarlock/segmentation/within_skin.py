"""Glands close under the skin end at the skin.

What a network drew of them in a pad or in air is taken off.

Pads, bolus and hands are as dense as a gland and are in hardly any training scan; :mod:`oarlock.geometry.skin` tells them from
the patient.
"""

from contextlib import closing
from functools import partial
from typing import Final

import numpy as np
from scipy import ndimage

from oarlock.ahead import ahead
from oarlock.arrays import Mask
from oarlock.facts import Notice
from oarlock.geometry.grid import Grid
from oarlock.geometry.masks import Crop, OARMasks
from oarlock.geometry.skin import Surroundings

ENDING_AT_SKIN: Final = ("Parotid", "Glnd_Submand")
"""Glands, without their side, that lie under cheek and jaw, where pads and bolus are laid."""

SHARES: Final = (0.01, 0.6)
"""Of an organ's voxels outside of the patient: fewer are the skin's own uncertainty, of more too little would be left."""

_SMOOTH_MM: Final = 6.0


def within_skin(masks: OARMasks, around: Surroundings, *, at_once: int = 1) -> list[Notice]:
    """Cut glands off at the skin, in place.

    :param around: the CT that the masks lie on.
    :param at_once: glands that are looked at side by side, in threads.
    :returns: a warning for each organ that was cut, with the volume in ml.
    """
    notices = []
    glands = [oar for oar in masks.oars if oar.name.startswith(ENDING_AT_SKIN)]
    crops = [(oar, crop) for oar in glands if (crop := masks.crop(oar)) is not None]
    if at_once > 1 and crops:
        around.prepare()
    with closing(ahead((partial(_off, crop, around) for _, crop in crops), at_once)) as cuts:
        for (oar, (box, mask)), off in zip(crops, cuts, strict=True):
            if off is None:
                continue
            masks.put_inside(oar, box, mask & ~off)
            ml = float(np.count_nonzero(off, axis=(1, 2)) @ around.grid.voxel_volumes_mm3[box[0]]) / 1000
            where = "in air, or in a pad, bolus, mask, tube or hand on the skin"
            notices.append(Notice("contours.cut_at_skin", f"{oar}: {ml:.2f} ml that the model drew {where} were taken off."))
    return notices


def _off(crop: Crop, around: Surroundings) -> Mask | None:
    """What of an organ's box is taken off; None where its share is too small or too large."""
    box, mask = crop
    outside = around.outside(box, under_skin=True)
    if SHARES[0] < np.count_nonzero(mask & outside) / np.count_nonzero(mask) <= SHARES[1]:
        return np.asarray(mask & (outside | _majority(outside, around.grid)))
    return None


def _majority(outside: Mask, grid: Grid) -> Mask:
    """What most voxels within a few millimetres say, so that the cut has no teeth."""
    size = [round(_SMOOTH_MM / spacing) | 1 for spacing in grid.spacing_mm]
    return np.asarray(ndimage.uniform_filter(outside.astype(np.float32), size) > 0.5)

"""Clean-up of organs on the CT grid: pieces, specks, holes."""

from collections.abc import Iterator
from contextlib import closing
from functools import partial
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from oarlock.ahead import ahead
from oarlock.arrays import FloatArray, Mask
from oarlock.facts import Notice
from oarlock.geometry.components import to_pieces
from oarlock.geometry.grid import Grid
from oarlock.geometry.masks import Crop, OARMasks
from oarlock.organs.catalogue import OAR
from oarlock.organs.norms import NORMS
from oarlock.segmentation.rivals import rivals

ISLAND_ML: Final = 0.05
"""Pieces below this volume are dropped from an organ that may have several pieces."""

BROKEN_SHARE: Final = 0.25
"""A further piece of an unpaired organ is kept from this share of the largest piece's volume."""

SPECK_SHARE: Final = 0.002
"""An organ below this share of the smallest that experts drew is dropped, unless an end of the scan may cut it."""

CUT_SPECK_SHARE: Final = 0.001
"""The same where the organ reaches an end of the scan: so little of it is of no use, and mostly invented."""

UNFILLED: Final = frozenset({"Lung_L", "Lung_R"})
"""Organs whose holes stay: a hole in a lung is a vessel, a bronchus or a tumour."""


def clean_up(masks: OARMasks, grid: Grid, *, at_once: int = 1) -> list[Notice]:
    """Drop stray pieces and fill holes, in place.

    Warnings say what was dropped.

    An organ that is one piece keeps its largest piece (by volume; voxels that touch at a corner are connected). One that crosses
    the midline also keeps every piece of at least ``BROKEN_SHARE`` of the largest: half a mandible, or a cord below a gap, is the
    organ, while a second piece of a paired organ mostly lies on the other side. Of an organ of several pieces, those below
    ``ISLAND_ML`` are dropped. Of an organ that amounts to less than ``SPECK_SHARE`` nothing is kept; where it reaches the first
    or the last slice and the scan may end within it, of less than ``CUT_SPECK_SHARE``. Then holes are filled, slice by slice as
    they would be drawn: in what is solid, a hole within a slice is a mistake, unless a rival lies in it: the stem in the brain.
    Lungs keep theirs (``UNFILLED``).

    :param at_once: organs that are looked at side by side, in threads.
    :returns: warnings for each organ that lost something, with the volume in ml, and for each that is broken.
    """
    warnings: list[Notice] = []
    crops = [(oar, crop) for oar in masks.oars if (crop := masks.crop(oar)) is not None]
    with closing(ahead((partial(_whole, oar, crop, grid) for oar, crop in crops), at_once)) as wholes:
        for (oar, (box, _)), (kept, holes, pieces_ml, keep) in zip(crops, wholes, strict=True):
            theirs = sum((masks.bit(rival) for rival in rivals(oar) if rival in masks.oars), np.uint32(0))
            masks.put_inside(oar, box, kept | (holes & (masks.bits[box] & theirs == 0)))
            warnings += _notes(oar, pieces_ml, keep)
    return warnings


def _whole(oar: OAR, crop: Crop, grid: Grid) -> tuple[Mask, Mask, FloatArray, Mask]:
    """What is kept of an organ and the holes in that, in its box; the volume of each piece, and whether it is kept."""
    box, mask = crop
    labels, pieces_ml = _pieces(mask, grid.voxel_volumes_mm3[box[0]] / 1000)
    cut = box[0].start == 0 or box[0].stop == grid.shape[0]
    keep = _is_kept(pieces_ml, oar)
    least = CUT_SPECK_SHARE if cut else SPECK_SHARE
    keep &= pieces_ml[keep].sum() >= least * NORMS[oar.name].volume_range_ml[0]
    kept = mask if keep.all() else np.concatenate([[False], keep])[labels]
    holes = np.zeros_like(kept) if oar.name in UNFILLED else _without_holes(kept) & ~kept
    return kept, holes, pieces_ml, keep


def _pieces(mask: Mask, volumes_ml: FloatArray) -> tuple[npt.NDArray[np.int32], FloatArray]:
    """The connected pieces of a mask, numbered from 1, and the volume of each.

    :param volumes_ml: (z,) volume of one voxel of each slice.
    """
    labels, count = to_pieces(mask, corners=True)
    per_slice = np.stack([np.bincount(plane.ravel(), minlength=count + 1) for plane in labels])
    return labels, np.asarray(volumes_ml @ per_slice)[1:]


def _is_kept(pieces_ml: FloatArray, oar: OAR) -> Mask:
    """For each piece, whether it is kept."""
    if not oar.single:
        return np.asarray(pieces_ml >= ISLAND_ML)
    keep = np.asarray(pieces_ml >= BROKEN_SHARE * pieces_ml.max()) & (oar.laterality is None)
    keep[int(np.argmax(pieces_ml))] = True
    return keep


def _notes(oar: OAR, pieces_ml: FloatArray, keep: Mask) -> Iterator[Notice]:
    if not keep.all():
        dropped_ml = float(pieces_ml[~keep].sum())
        pieces = _counted(int((~keep).sum()))
        rest = "apart from the largest" if oar.single else f"smaller than {ISLAND_ML} ml"
        rest = rest if keep.any() else "too small for the organ"
        volume = f"{dropped_ml:.2f} ml" if dropped_ml >= 0.005 else "less than 0.01 ml"
        yield Notice("contours.pieces_dropped", f"{oar}: {pieces} {rest} dropped, {volume} in all.")
    if oar.single and keep.sum() > 1:
        yield Notice("contours.broken", f"{oar}: drawn in {_counted(int(keep.sum()))}, where it should be one.")


def _counted(pieces: int) -> str:
    return "1 piece" if pieces == 1 else f"{pieces} pieces"


def _without_holes(mask: Mask) -> Mask:
    """The mask with each slice filled: holes are background that does not reach the border of the box."""
    padded = np.pad(~mask, [(0, 0), (1, 1), (1, 1)], constant_values=True)
    in_plane = ndimage.generate_binary_structure(2, 1)[None] & np.array([False, True, False])[:, None, None]
    labels, count = ndimage.label(padded, in_plane)
    outside = np.zeros(count + 1, dtype=np.bool_)
    outside[labels[:, 0, 0]] = True
    return ~outside[labels[:, 1:-1, 1:-1]]

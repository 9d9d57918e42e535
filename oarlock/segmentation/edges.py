"""Edges that tissue draws: contours move to them on the CT.

A network of 4 mm cannot lie within 1 mm of bone or of air. Where an organ ends at a tissue of other density, a model's manifest
may say so (``[edges]``, docs/models.md): within a band of a few millimetres about the drawn edge, voxels that are not the organ's
tissue are taken off, and tissue of its own is added. Beyond the band nothing moves, and nothing enters another organ.
"""

from collections.abc import Mapping, Sequence
from contextlib import closing
from functools import lru_cache, partial
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

from oarlock.ahead import ahead
from oarlock.arrays import FloatArray, Mask
from oarlock.geometry.grid import Grid
from oarlock.geometry.masks import Box, Crop, OARMasks, grow, within_box
from oarlock.organs.catalogue import OAR
from oarlock.segmentation.manifest import Edge

_MAJORITY_MM: Final = 5.0

_ROUNDING_MM: Final = 1e-6
"""Slices that are 3 mm apart lie within 3 mm, wherever the first one is."""


def move_edges(masks: OARMasks, hu: npt.NDArray[np.int16], grid: Grid, edges: Mapping[OAR, Edge], *, at_once: int = 1) -> None:
    """Move the organs' edges to those of their tissue, in place.

    The order of organs decides nothing: a voxel that two of them could gain goes to neither.

    :param hu: (z, y, x) Hounsfield units on ``grid``.
    :param edges: of the organs whose edges move.
    :param at_once: organs that are looked at side by side, in threads.
    """
    if not edges:
        return
    masks.boxes()  # found once, before several threads ask for them
    with closing(ahead((partial(_moved, masks, hu, grid, oar, edge) for oar, edge in edges.items()), at_once)) as looks:
        moved = [found for found in looks if found is not None]
    gains = [(box, gained) for _, box, _, gained in moved]
    won = [_uncontested(crop, [other for other in gains if other is not crop]) for crop in gains]
    for (oar, box, kept, _), gained in zip(moved, won, strict=True):
        masks.put_inside(oar, box, kept | gained)


def _moved(masks: OARMasks, hu: npt.NDArray[np.int16], grid: Grid, oar: OAR, edge: Edge) -> tuple[OAR, Box, Mask, Mask] | None:
    """What an organ keeps and what it could gain, in a box around both; None if it is empty."""
    crop = masks.crop(oar)
    if crop is None:
        return None
    pixel_mm = grid.row_spacing_mm, grid.column_spacing_mm
    finest_mm = min(*pixel_mm, grid.slice_spacings_mm.min(initial=np.inf))
    box = grow(crop[0], 1 + int((edge.outwards_mm + _MAJORITY_MM) / finest_mm), masks.shape)
    words = masks.bits[box]
    mask = np.not_equal(words & masks.bit(oar), 0)
    positions_mm = grid.slice_positions_mm[box[0]] if grid.along_patient_axes() is not None else None
    tissue = _tissue(hu[box], edge.hu, pixel_mm)
    lost = mask & ~tissue
    lost &= within(~mask, edge.inwards_mm, pixel_mm, positions_mm)
    gained = tissue & (words == 0)
    gained &= within(mask, edge.outwards_mm, pixel_mm, positions_mm)
    return oar, box, mask & ~lost, gained


def _tissue(hu: npt.NDArray[np.int16], within_hu: tuple[float, float], pixel_mm: tuple[float, float]) -> Mask:
    """What is tissue of an organ in the eyes of most pixels about it, so that a vessel at its edge makes no notch."""
    size = [round(_MAJORITY_MM / step) | 1 for step in pixel_mm]
    found = np.empty(hu.shape, np.bool_)
    for plane, out in zip(hu, found, strict=True):
        inside = ((plane >= within_hu[0]) & (plane <= within_hu[1])).astype(np.float32)
        np.greater(cv2.blur(inside, (size[1], size[0]), borderType=cv2.BORDER_REPLICATE), 0.5, out=out)
    return found


def _uncontested(gain: Crop, others: Sequence[Crop]) -> Mask:
    """What one organ could gain and none of the others could."""
    box, won = gain[0], gain[1].copy()
    for other, theirs in others:
        z, y, x = (slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(box, other, strict=True))
        if all(span.start < span.stop for span in (z, y, x)):
            won[within_box((z, y, x), box)] &= ~theirs[within_box((z, y, x), other)]
    return won


def within(mask: Mask, mm: float, pixel_mm: tuple[float, float], positions_mm: FloatArray | None) -> Mask:
    """The voxels within a distance of a mask, from centre to centre.

    :param mask: (z, y, x).
    :param pixel_mm: distances of rows and of columns.
    :param positions_mm: (z,) of slices that lie straight above each other; None if they do not: then each stands alone.
    """
    out = np.zeros_like(mask)
    places = np.arange(len(mask)) * (mm + 1.0) if positions_mm is None else positions_mm
    for z in np.flatnonzero(mask.any(axis=(1, 2)) if mm > 0 else ()):
        plane, away = mask[z], np.abs(places - places[z])
        for other in np.flatnonzero(away <= mm + _ROUNDING_MM):
            disc = _disc(round(float(np.sqrt(max(mm**2 - away[other] ** 2, 0.0))), 6), pixel_mm)
            out[other] |= cv2.dilate(plane.view(np.uint8), disc).view(np.bool_)
    return out


@lru_cache(maxsize=64)
def _disc(mm: float, pixel_mm: tuple[float, float]) -> npt.NDArray[Any]:
    """The pixels whose centres lie within a distance of the middle one's."""
    mm += _ROUNDING_MM
    y, x = (np.arange(-int(mm / step), int(mm / step) + 1) * step for step in pixel_mm)
    return (y[:, None] ** 2 + x[None] ** 2 <= mm**2).astype(np.uint8)

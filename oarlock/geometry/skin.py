"""Skin: which voxels of an organ lie outside of the patient.

They lie in air, or in what is laid on or held beside the body.

A planning CT shows more than a patient: bolus, gel pads, masks, tubes, a hand beside the face. All of them are as dense as tissue
and may touch the skin, so a threshold takes them for body (:mod:`oarlock.geometry.body`). Three things give them away:

1. **Air.** The air around the patient is what is lighter than ``AIR_HU`` and reaches the edge of its slice. Skin is more than a
   millimetre thick: an organ that reaches the outermost voxel, or ``RIND_MM``, under the air lies in skin, or in a mask on it.
2. **A neck.** What hangs on the body by less than twice ``CORE_MM`` (a hand, a finger, a tube) is not connected with the body's
   core, which is all that lies deeper than ``CORE_MM`` under the air.
3. **Sameness.** Skin is a thin line, lighter outside and followed by fat or muscle within 3 mm. Where values hardly change from
   2.5 to 7 mm under the air over a patch of at least ``LEAST_ML``, and are neither those of fat nor of muscle (``LAID_HU``), a
   material lies on the skin. It goes on inwards for as long as its values do, but not through a gap narrower than twice
   ``LEAK_MM`` or, in whole slices, lower than about twice ``LEAK_HEIGHT_MM``: a gland may be as dense, and a material is a slab
   under the air. Slices thicker than ``LEAK_HEIGHT_MM`` and the ends of the scan show no height; a lower strip between tissue
   above and below is taken for the patient's. Where its values fade towards a gap of air on the skin, it ends at the gap.

A bolus that is as dense as fat or muscle is not told by the third sign, nor is a hand that lies flat on the cheek by the second.

Arrays are (z, y, x); the slices are about axial.
"""

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from oarlock.arrays import FloatArray, Mask
from oarlock.geometry.components import largest_piece, to_pieces
from oarlock.geometry.grid import Grid
from oarlock.geometry.masks import Box, Crop, grow, voxels_per_slice, within_box
from oarlock.geometry.morphology import depth_mm, dilated_in_plane, opened_along_z, opened_by_neighbours, opened_in_plane

AIR_HU: Final = -300
RIND_MM: Final = 1.5
CORE_MM: Final = 8.0
BESIDE_MM: Final = 5.0
"""What lies further than this outside of where the core, grown by ``CORE_MM``, ends is beside the body."""

UNDER_SKIN: Final = ("Parotid", "Glnd_Submand", "Glnd_Lacrimal", "Bone_Mandible")
"""Organs, without their side, that lie close under the skin. Eyes and lenses reach the air; all others lie deep."""

LAID_HU: Final = (-75.0, 25.0)
"""Between fat and muscle: pads and boli of gel and water."""

LEAK_MM: Final = 5.0
LEAK_HEIGHT_MM: Final = 7.0

GAP_HU: Final = -200
"""Air between a material and the skin, also where it fills a voxel only in part; fat is denser."""

BESIDE_GAP_MM: Final = 6.0
"""A material whose values fade towards such a gap ends at the gap, if it was found so near to it."""

LEAST_ML: Final = 3.0
"""Of the band from 2.5 to 7 mm under the air; a patch of about 7 cm²."""

_COARSE_MM: Final = 4.0
_BAND_MM: Final = (2.5, 7.0)
_STEEP_HU_PER_MM: Final = 12.0
_SHARE: Final = 0.7
_WINDOW_MM: Final = 12.0
_ALIKE_HU: Final = 20.0
_THICKEST_MM: Final = 20.0
_CONTEXT_MM: Final = (12.0, 25.0, 25.0)
_NOISE_MM: Final = 0.8
_LARGE_VOXELS: Final = 2_000_000

_IN_PLANE: Final = ndimage.generate_binary_structure(2, 1)[None]
_EACH_SLICE: Final = np.stack([np.zeros((3, 3), np.bool_), ndimage.generate_binary_structure(2, 1), np.zeros((3, 3), np.bool_)])

Volume = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Surroundings:
    """A patient and what lies around them.

    :param hu: (z, y, x) Hounsfield units on ``grid``.
    """

    hu: Volume
    grid: Grid
    _told: dict[tuple[tuple[int, int], ...], Mask] = field(default_factory=dict, init=False, repr=False)
    """What was told of boxes close under the skin: the checks ask again about each organ, and the cut only made it smaller.

    What is laid on the skin is told from a box's neighbourhood, so an answer may depend on which larger box was asked for before.
    """

    def prepare(self) -> None:
        """Look at the whole scan now, before several threads ask for it."""
        _ = self._beside

    def outside_by_slice(self, crop: Crop, *, under_skin: bool) -> tuple[list[int], int]:
        """Voxels outside of the patient by slice, and the organ's voxels.

        Of a large organ that lies deep, every few rows and columns are counted.

        :param crop: the organ's box and mask, which is not empty.
        :param under_skin: whether the organ lies close under the skin: then the rind under the air and what is laid on the skin
            count as outside too.
        """
        box, mask = crop
        if not self._reaches_surface(box):
            return [0] * len(mask), int(np.count_nonzero(mask))
        if mask.size > _LARGE_VOXELS:
            return self._coarse_outside_by_slice(crop)
        told = self._told_around(box) if under_skin else None
        outside = self.outside(box, under_skin=under_skin) if told is None else told
        return voxels_per_slice(outside & mask).tolist(), int(np.count_nonzero(mask))

    def outside(self, box: Box, *, under_skin: bool) -> Mask:
        """Which voxels of a box lie outside of the patient.

        The answer may be read-only.
        """
        if not self._reaches_surface(box):
            return np.zeros([span.stop - span.start for span in box], np.bool_)
        if not under_skin:
            return self._outside(box)
        key = tuple((span.start, span.stop) for span in box)
        if key not in self._told:
            near = grow_mm(box, _CONTEXT_MM, self.grid)
            told = self._told[key] = self._not_patient(near)[within_box(box, near)].copy()
            told.setflags(write=False)
        return self._told[key]

    def _told_around(self, box: Box) -> Mask | None:
        """The same of a box within one that was asked for, the smallest of them; None where there is none."""
        spans = [(span.start, span.stop) for span in box]
        holding = [
            key
            for key in list(self._told)
            if all(first <= start and stop <= end for (first, end), (start, stop) in zip(key, spans, strict=True))
        ]
        if not holding:
            return None
        smallest = min(holding, key=lambda key: (math.prod(end - first for first, end in key), key))
        z, y, x = (slice(*span) for span in smallest)
        return self._told[smallest][within_box(box, (z, y, x))]

    def _coarse_outside_by_slice(self, crop: Crop) -> tuple[list[int], int]:
        box, mask = crop
        y, x = ((-s.start) % step for s, step in zip(box[1:], self._step, strict=True))
        some = mask[:, y :: self._step[0], x :: self._step[1]]
        z = np.arange(box[0].start, box[0].stop)
        rows, columns = (
            np.arange(first + s.start, s.stop, step) // step for first, s, step in zip((y, x), box[1:], self._step, strict=True)
        )
        place = np.ix_(z, rows, columns)
        outside = self._coarse_air[place] | self._beside[place]
        return voxels_per_slice(outside & some).tolist(), max(1, int(np.count_nonzero(some)))

    def _reaches_surface(self, box: Box) -> bool:
        """Whether any of a box lies less than the thickest pad under the air; told on the coarse picture."""
        coarse = self._coarse_depth_mm[self._coarsely(box)]
        return bool(coarse.size == 0 or coarse.min() < _THICKEST_MM)

    def _outside(self, box: Box) -> Mask:
        """(z, y, x) of a box: air around the patient, and what is held beside the body."""
        return np.asarray(self._air(box) | self._beside[self._finely(box)])

    def _not_patient(self, box: Box) -> Mask:
        """(z, y, x) of a box: what is outside, the rind under the air, and what is laid on the skin."""
        air = self._air(box)
        if not air.any():
            return np.asarray(self._beside[self._finely(box)])
        deep_mm = depth_mm(~air, self.grid.spacing_mm, _THICKEST_MM).astype(np.float32)
        laid = laid_on(self.hu[box], air, deep_mm, self.grid.spacing_mm)
        rind_mm = max(RIND_MM, *self.grid.spacing_mm[1:])
        return np.asarray(air | self._beside[self._finely(box)] | (deep_mm <= rind_mm) | laid)

    def _air(self, box: Box) -> Mask:
        """(z, y, x) of a box: the air that is connected, within its slice, with the air at the edge of the image."""
        air = self.hu[box] <= AIR_HU
        pieces, count = ndimage.label(air, _EACH_SLICE)
        around = np.zeros(count + 1, np.bool_)
        around[np.unique(pieces[self._coarse_air[self._finely(box)] & air])] = True
        around[0] = False
        return np.asarray(around[pieces])

    # ── the whole scan, coarsely ──────────────────────────────────────────────────────────────────────────────────────

    @cached_property
    def _step(self) -> tuple[int, int]:
        """Every how many rows and columns are looked at."""
        _, row_mm, column_mm = self.grid.spacing_mm
        return max(1, round(_COARSE_MM / row_mm)), max(1, round(_COARSE_MM / column_mm))

    @cached_property
    def _coarse_air(self) -> Mask:
        y, x = self._step
        air = self.hu[:, ::y, ::x] <= AIR_HU
        pieces, count = ndimage.label(air, _EACH_SLICE)
        edges = np.concatenate([pieces[:, [0, -1]].ravel(), pieces[:, :, [0, -1]].ravel()])
        around = np.zeros(count + 1, np.bool_)
        around[np.unique(edges)] = True
        around[0] = False
        return np.asarray(around[pieces])

    @cached_property
    def _coarse_spacing_mm(self) -> tuple[float, float, float]:
        z, y, x = self.grid.spacing_mm
        return z, y * self._step[0], x * self._step[1]

    @cached_property
    def _coarse_depth_mm(self) -> FloatArray:
        return self._distance_mm(~self._coarse_air)

    @cached_property
    def _beside(self) -> Mask:
        """What of the coarse picture lies beside the body: far from its core; nothing where there is not a core."""
        core = largest_piece(self._coarse_depth_mm >= CORE_MM)
        return np.asarray(self._distance_mm(~core) > CORE_MM + BESIDE_MM) if core.any() else core

    def _distance_mm(self, mask: Mask) -> FloatArray:
        """How far each voxel of a mask on the coarse picture is from what is not of it, up to the thickest pad; thin slices are
        taken every few.
        """
        z_mm, y_mm, x_mm = self._coarse_spacing_mm
        every = max(1, round(_COARSE_MM / z_mm))
        far_mm = depth_mm(mask[::every], (z_mm * every, y_mm, x_mm), _THICKEST_MM)
        return np.repeat(far_mm, every, axis=0)[: len(mask)]

    def _coarsely(self, box: Box) -> Box:
        """The part of the coarse picture that a box covers."""
        y, x = self._step
        return box[0], slice(box[1].start // y, box[1].stop // y + 1), slice(box[2].start // x, box[2].stop // x + 1)

    def _finely(self, box: Box) -> tuple[npt.NDArray[np.intp], ...]:
        """For each voxel of a box, its place in the coarse picture."""
        z, y, x = (np.arange(s.start, s.stop) // step for s, step in zip(box, (1, *self._step), strict=True))
        return np.ix_(z, y, x)


def grow_mm(box: Box, margins_mm: tuple[float, float, float], grid: Grid) -> Box:
    """A box grown by (z, y, x) mm each way.

    It is kept inside the grid.
    """
    margins = [round(margin / spacing) for margin, spacing in zip(margins_mm, grid.spacing_mm, strict=True)]
    z, y, x = (grow(box, margin, grid.shape)[axis] for axis, margin in enumerate(margins))
    return z, y, x


def laid_on(hu: Volume, air: Mask, deep_mm: Volume, spacing_mm: tuple[float, float, float]) -> Mask:
    """Material on the skin, by its sameness.

    :param hu: (z, y, x) Hounsfield units.
    :param air: what of it is air around the patient.
    :param deep_mm: the distance of each voxel from that air.
    """
    values = _smoothed(hu, air, spacing_mm)
    steep = np.hypot(np.gradient(values, spacing_mm[1], axis=1), np.gradient(values, spacing_mm[2], axis=2))
    band = (deep_mm >= _BAND_MM[0]) & (deep_mm <= _BAND_MM[1])
    same = band & (steep < _STEEP_HU_PER_MM) & (values > LAID_HU[0]) & (values < LAID_HU[1])
    size = [max(1, round(_WINDOW_MM / spacing)) | 1 for spacing in spacing_mm]
    of_band, of_same = (ndimage.uniform_filter(mask.astype(np.float32), size) for mask in (band, same))
    core = _large(band & (of_same > _SHARE * np.maximum(of_band, 0.01)), spacing_mm)
    if not core.any():
        return core
    usual = ndimage.uniform_filter(np.where(same, values, 0).astype(np.float32), size) / np.maximum(of_same, 1e-4)
    alike = (np.abs(values - usual) < _ALIKE_HU) & (steep < 1.5 * _STEEP_HU_PER_MM) & (deep_mm < _THICKEST_MM) & ~air
    # An opening keeps it from leaking along the skin where that is one voxel thin.
    alike = opened_by_neighbours(alike & (of_same > 1e-4)) | core
    inwards = ndimage.binary_dilation(ndimage.binary_propagation(core, mask=alike), _IN_PLANE)
    reach = max(1, round(_BAND_MM[0] / spacing_mm[1]))
    outwards = ndimage.binary_dilation(core, _IN_PLANE, iterations=reach) & (deep_mm <= _BAND_MM[0])
    laid = _without_leaks((inwards | outwards) & ~air, air, spacing_mm)
    return _up_to_gaps(laid, (hu < GAP_HU) & ~air & (deep_mm < _THICKEST_MM), spacing_mm) & ~air


def _up_to_gaps(laid: Mask, light: Mask, spacing_mm: tuple[float, float, float]) -> Mask:
    """A material, with the gaps of air beside it and what lies between it and them; slice by slice."""
    disk = _disk(BESIDE_GAP_MM, spacing_mm)
    near = dilated_in_plane(laid, disk)
    gaps = light & near
    if not gaps.any():
        return laid
    both = laid | gaps
    return np.asarray(laid | (~opened_in_plane(~both, disk) & dilated_in_plane(gaps, disk) & near))


def _without_leaks(laid: Mask, air: Mask, spacing_mm: tuple[float, float, float]) -> Mask:
    """What of a material a disk reaches, slice by slice, and then a column, each of which moves within it and the air."""
    wide = opened_in_plane(laid | air, _disk(LEAK_MM, spacing_mm)) & laid
    return opened_along_z(wide | air, int(LEAK_HEIGHT_MM / spacing_mm[0])) & wide


def _disk(radius_mm: float, spacing_mm: tuple[float, float, float]) -> Mask:
    y, x = (np.arange(-int(radius_mm / step), int(radius_mm / step) + 1) * step for step in spacing_mm[1:])
    return np.asarray(np.hypot(y[:, None], x) <= radius_mm)


def _smoothed(hu: Volume, air: Mask, spacing_mm: tuple[float, float, float]) -> Volume:
    """Values without their noise; the air around does not count."""
    sigma = [_NOISE_MM / spacing for spacing in spacing_mm]
    weight = ndimage.gaussian_filter((~air).astype(np.float32), sigma)
    value = ndimage.gaussian_filter(np.where(air, 0, np.clip(hu, -300, 300)).astype(np.float32), sigma)
    return np.asarray(value / np.maximum(weight, 1e-3))


def _large(mask: Mask, spacing_mm: tuple[float, float, float]) -> Mask:
    """The pieces that are not small."""
    pieces, count = to_pieces(mask)
    ml = np.bincount(pieces.ravel(), minlength=count + 1) * float(np.prod(spacing_mm)) / 1000
    ml[0] = 0
    return np.asarray((ml >= LEAST_ML)[pieces])

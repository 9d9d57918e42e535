"""From probabilities on the model's grid to one bit per organ and voxel on the CT's grid, and what is cleaned up there.

Linear interpolation reaches a threshold only next to a voxel that reaches it. So each organ is interpolated inside the box of
its own voxels, grown by one, and nowhere else: the result is that of whole volumes, at a hundredth of their cost.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage, sparse

from oarlock.arrays import FloatArray, Mask
from oarlock.facts import Notice
from oarlock.geometry.components import to_pieces
from oarlock.geometry.grid import Grid
from oarlock.geometry.masks import Box, OARMasks, bounding_box, grow
from oarlock.organs.catalogue import BY_NAME, OAR, other_side
from oarlock.organs.norms import NORMS
from oarlock.segmentation.resampling import linear_weights, median_step_mm

Probabilities = npt.NDArray[np.float32]

ISLAND_ML: Final = 0.05
"""Pieces below this volume are dropped from an organ that may have several pieces."""

BROKEN_SHARE: Final = 0.25
"""Of the largest piece: what a broken piece of an organ without a side must have to be kept."""

SPECK_SHARE: Final = 0.002
"""Of the smallest whole organ that experts drew: what is less, and cut by no end of the scan, is a slip and no organ."""

UNFILLED: Final = frozenset({"Lung_L", "Lung_R"})
"""Organs whose holes stay: what the model leaves out inside a lung is a vessel, a bronchus or a tumour."""

BRAIN_AND_STEM: Final = (BY_NAME["Brain"], BY_NAME["Brainstem"])

_REACH: Final = 0.75
"""How far, in model voxels, a CT voxel may lie beyond the last model centre and still take its value: half a voxel, and the
quarter by which a whole number of voxels may be shorter than the scan at each end."""


def to_masks(
    slabs: Iterable[tuple[int, Probabilities]], model_grid: Grid, grid: Grid, oars: Sequence[OAR], thresholds: Sequence[float]
) -> OARMasks:
    """Bring probabilities to the voxel centres of the CT, one slab at a time.

    A voxel that two rivals claim (:func:`rivals`) goes to the one whose probability is the larger part of its threshold.

    :param slabs: (first slice, (OARs, n, y · upscale, x · upscale)) in ascending order without gaps, as
        :func:`oarlock.segmentation.slabs.predict` gives them; each is let go of before the next is asked for, but for its
        last slice.
    :param model_grid: canonical grid of the network's *input* (:class:`oarlock.segmentation.resampling.ModelInput`).
    :param grid: the CT's grid, any orientation.
    :param thresholds: for each OAR the probability from which a voxel belongs to it.
    :returns: masks on ``grid``.
    """
    target = _Target(model_grid, OARMasks.empty(oars, grid.shape), grid, thresholds)
    last: Probabilities | None = None
    for first, slab in slabs:
        target.add(slab, last, first)
        last = slab[:, -1:].copy()
    return target.masks


def rivals(oar: OAR) -> tuple[OAR, ...]:
    """The organs that cannot share tissue with this one although a network may confuse them: its other side; brain and stem."""
    opposite = (other_side(oar),) if oar.laterality else ()
    return opposite + tuple(other for other in BRAIN_AND_STEM if oar in BRAIN_AND_STEM and other != oar)


def rival_channels(oars: Sequence[OAR]) -> list[list[int]]:
    """For each channel the channels of its rivals."""
    return [[oars.index(rival) for rival in rivals(oar) if rival in oars] for oar in oars]


def undisputed(
    channel: int, claim: Callable[[int], Probabilities], rivals: Sequence[int], thresholds: Sequence[float]
) -> Probabilities:
    """Probabilities of one organ, 0 where a rival's claim is stronger (a tie goes to the first of the two).

    :param claim: gives the probabilities of a channel, all of one shape.
    """
    ours = claim(channel)
    for rival in rivals:
        theirs = claim(rival)
        if theirs.max(initial=0.0) < thresholds[rival]:
            continue
        stronger = np.greater if channel < rival else np.greater_equal
        lost = stronger(theirs / np.float32(thresholds[rival]), ours / np.float32(thresholds[channel]))
        ours = np.asarray(np.where(lost, np.float32(0), ours), dtype=np.float32)
    return ours


class _Target:
    """The masks while they fill up."""

    def __init__(self, model_grid: Grid, masks: OARMasks, grid: Grid, thresholds: Sequence[float]) -> None:
        axes = model_grid.along_patient_axes()
        assert axes is not None  # a model's grid is canonical
        self.model_grid, self.grid, self.masks, self.thresholds = model_grid, grid, masks, thresholds
        self.rivals = rival_channels(masks.oars)
        self.model_mm = tuple(axis.positions_mm for axis in axes)
        self.axes = grid.along_patient_axes()

    def add(self, slab: Probabilities, last: Probabilities | None, first: int) -> None:
        """Set the bits from the last slice of the slab before to the last of this one; at an end of the volume a little beyond.

        :param slab: (OARs, n, y, x), its first slice being slice ``first`` of the model.
        :param last: (OARs, 1, y, x), the slice before it.
        """
        start = first if last is None else first - 1
        for index, threshold in enumerate(self.thresholds):
            probabilities = undisputed(index, lambda i: _joined(i, slab, last), self.rivals[index], self.thresholds)
            box = bounding_box(probabilities >= threshold)
            if box is None:
                continue
            part = _Part.cut(probabilities, grow(box, 1, probabilities.shape), start, self.model_grid.shape)
            place = self._place_axial if self.axes is not None else self._place_tilted
            place(part, threshold, np.uint32(1 << index))

    def _place_axial(self, part: "_Part", threshold: float, bit: np.uint32) -> None:
        assert self.axes is not None  # add() asked
        along_z, along_y, along_x = (
            linear_weights(axis.positions_mm, part.nodes(i, model_mm), reach=part.reach(i, model_mm))
            for i, (axis, model_mm) in enumerate(zip(self.axes, self.model_mm, strict=True))
        )
        slices, y, x = (_filled_rows(matrix) for matrix in (along_z, along_y, along_x))
        along_y, along_x, swapped = along_y[y], along_x[x], self.axes[1].axis == 2
        planes = (along_z[slices] @ part.values.reshape(len(part.values), -1)).reshape(-1, *part.values.shape[1:])
        words = self.masks.bits[slices, *((x, y) if swapped else (y, x))]
        for z, plane in enumerate(planes):
            inside = along_x @ (along_y @ plane).T >= threshold  # (x, y)
            words[z] |= np.where(inside if swapped else inside.T, bit, np.uint32(0))

    def _place_tilted(self, part: "_Part", threshold: float, bit: np.uint32) -> None:
        slices, rows, columns = self._ct_box(part)
        y, x = np.meshgrid(np.arange(rows.start, rows.stop), np.arange(columns.start, columns.stop), indexing="ij")
        pixels = np.stack([y.ravel(), x.ravel()], axis=1).astype(np.float64)
        for z in range(slices.start, slices.stop):
            points = self.grid.to_patient(z, pixels)
            indices = part.from_model(self.model_grid.to_indices(points))
            inside = np.flatnonzero(part.holds(indices))
            values = ndimage.map_coordinates(part.values, indices[inside].T, order=1, mode="nearest")
            words = np.zeros(len(points), np.uint32)
            words[inside[values >= threshold]] = bit
            self.masks.bits[z, rows, columns] |= words.reshape(y.shape)

    def _ct_box(self, part: "_Part") -> Box:
        """The CT voxels that may lie in a part."""
        corners = np.array([(i, j, k) for i in part.span(0) for j in part.span(1) for k in part.span(2)])
        indices = self.grid.to_indices(self.model_grid.to_points(part.to_model(corners)))
        low = np.clip(np.floor(indices.min(axis=0)).astype(int), 0, self.grid.shape)
        high = np.clip(np.ceil(indices.max(axis=0)).astype(int) + 1, 0, self.grid.shape)
        return slice(low[0], high[0]), slice(low[1], high[1]), slice(low[2], high[2])


def _joined(index: int, slab: Probabilities, last: Probabilities | None) -> Probabilities:
    return slab[index] if last is None else np.concatenate([last[index], slab[index]])


@dataclass(frozen=True, eq=False)
class _Part:
    """The box of one organ, cut out of a slab.

    :param values: (z, y, x) probabilities, contiguous.
    :param first: index of the first one in the model's output, z counted from the volume's first slice.
    :param refine: output voxels for each input voxel of the model, (z, y, x).
    :param at_end: for each axis, whether the part touches the lower and the upper end of the volume.
    """

    values: Probabilities
    first: FloatArray
    refine: FloatArray
    at_end: tuple[tuple[bool, bool], ...]

    @classmethod
    def cut(cls, probabilities: Probabilities, box: Box, start: int, model_shape: tuple[int, int, int]) -> "_Part":
        upscale = probabilities.shape[1] // model_shape[1]
        sizes = (model_shape[0], model_shape[1] * upscale, model_shape[2] * upscale)
        first = [box[0].start + start, box[1].start, box[2].start]
        last = [box[0].stop + start, box[1].stop, box[2].stop]
        at_end = tuple((low == 0, high == n) for low, high, n in zip(first, last, sizes, strict=True))
        refine = np.array([1.0, upscale, upscale])
        return cls(np.ascontiguousarray(probabilities[box]), np.array(first, dtype=np.float64), refine, at_end)

    def to_model(self, indices: FloatArray) -> FloatArray:
        """Indices in this part to indices of the model's input; voxel centres, not edges, are whole numbers in both."""
        return np.asarray((indices + self.first + 0.5) / self.refine - 0.5)

    def from_model(self, indices: FloatArray) -> FloatArray:
        return np.asarray((indices + 0.5) * self.refine - 0.5 - self.first)

    def span(self, axis: int) -> tuple[float, float]:
        """The lowest and highest index along one axis that has a value here: up to ``_REACH`` more at the ends of the volume."""
        low, high = self.at_end[axis]
        return -_REACH * low, self.values.shape[axis] - 1 + _REACH * high

    def holds(self, indices: FloatArray) -> Mask:
        """Which of (n, 3) indices have a value here."""
        low, high = np.array([self.span(axis) for axis in range(3)]).T
        return np.asarray(np.all((indices >= low - 1e-6) & (indices <= high + 1e-6), axis=1))

    def nodes(self, axis: int, model_mm: FloatArray) -> FloatArray:
        """Positions of the voxel centres along a patient axis, given those of the model's input."""
        indices = np.arange(self.values.shape[axis]) + self.first[axis]
        if self.refine[axis] == 1.0:
            return np.asarray(model_mm[indices.astype(int)])
        return np.asarray(model_mm[0] + ((indices + 0.5) / self.refine[axis] - 0.5) * median_step_mm(model_mm))

    def reach(self, axis: int, model_mm: FloatArray) -> tuple[float, float]:
        """:meth:`span` in mm beyond the first and the last node."""
        low, high = self.at_end[axis]
        step = _REACH * median_step_mm(model_mm) / float(self.refine[axis])
        return step * low, step * high


def _filled_rows(matrix: "sparse.csr_array[Any]") -> slice:
    """The range of rows in which a matrix has entries."""
    rows = np.flatnonzero(np.diff(matrix.indptr))
    return slice(int(rows[0]), int(rows[-1]) + 1) if rows.size else slice(0, 0)


# ── cleaning up ───────────────────────────────────────────────────────────────────────────────────────────────────────


def clean_up(masks: OARMasks, grid: Grid) -> list[Notice]:
    """Make every organ what an organ is, in place, and say what was dropped.

    An organ that is one piece keeps its largest piece (by volume; voxels that touch at a corner are connected). One that crosses
    the midline also keeps every piece of at least ``BROKEN_SHARE`` of the largest: half a mandible, or a cord below a gap, is the
    organ, while a second piece of a paired organ mostly lies on the other side. Of an organ of several pieces, those below
    ``ISLAND_ML`` are dropped. Of an organ that amounts to less than ``SPECK_SHARE`` nothing is kept, unless it reaches the first
    or the last slice, where the scan may end within it. Then holes are filled, slice by slice as they would be drawn: in what is
    solid, a hole within a slice is a mistake, unless a rival lies in it: the stem in the brain. Lungs keep theirs (``UNFILLED``).

    :returns: warnings for each organ that lost something, with the volume in ml, and for each that is broken.
    """
    warnings: list[Notice] = []
    for oar, box in zip(masks.oars, masks.boxes().values(), strict=True):
        if box is None:
            continue
        mask = np.not_equal(masks.bits[box] & masks.bit(oar), 0)
        volumes_ml = grid.voxel_volumes_mm3[box[0]] / 1000
        labels, pieces_ml = _pieces(mask, volumes_ml)
        cut = box[0].start == 0 or box[0].stop == grid.shape[0]
        keep = _is_kept(pieces_ml, oar)
        keep &= cut or pieces_ml[keep].sum() >= SPECK_SHARE * NORMS[oar.name].volume_range_ml[0]
        kept = mask if keep.all() else np.concatenate([[False], keep])[labels]
        if oar.name not in UNFILLED:
            theirs = sum((masks.bit(rival) for rival in rivals(oar) if rival in masks.oars), np.uint32(0))
            kept = kept | (_without_holes(kept) & (masks.bits[box] & theirs == 0))
        masks.put_inside(oar, box, kept)
        warnings += _notes(oar, pieces_ml, keep)
    return warnings


def _pieces(mask: Mask, volumes_ml: FloatArray) -> tuple[npt.NDArray[np.int32], FloatArray]:
    """The connected pieces of a mask, numbered from 1, and the volume of each.

    :param volumes_ml: (z,) volume of one voxel of each slice.
    """
    labels, count = to_pieces(mask, corners=True)
    per_slice = np.stack([np.bincount(plane.ravel(), minlength=count + 1) for plane in labels])
    return labels, np.asarray(volumes_ml @ per_slice)[1:]


def _is_kept(pieces_ml: FloatArray, oar: OAR) -> Mask:
    """Which pieces of an organ are it."""
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
    """A mask in which every slice is filled: whatever its background cannot reach from the border of the box."""
    padded = np.pad(~mask, [(0, 0), (1, 1), (1, 1)], constant_values=True)
    in_plane = ndimage.generate_binary_structure(2, 1)[None] & np.array([False, True, False])[:, None, None]
    labels, count = ndimage.label(padded, in_plane)
    outside = np.zeros(count + 1, dtype=np.bool_)
    outside[labels[:, 0, 0]] = True
    return ~outside[labels[:, 1:-1, 1:-1]]

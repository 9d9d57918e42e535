"""From probabilities on the model's grid to the CT's masks.

One bit per organ and voxel.

Linear interpolation reaches a threshold only next to a voxel that reaches it. So each organ is interpolated only inside the box
of its own voxels, grown by one: the result is that of whole volumes, at a hundredth of their cost.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from scipy import ndimage, sparse

from oarlock.arrays import FloatArray, Mask
from oarlock.geometry.grid import Grid
from oarlock.geometry.masks import Box, OARMasks, bounding_box, grow
from oarlock.organs.catalogue import OAR
from oarlock.segmentation.resampling import linear_weights, median_step_mm
from oarlock.segmentation.rivals import Probabilities, rival_channels, undisputed

_REACH: Final = 0.75
"""How far beyond the last model centre, in model voxels, a CT voxel still takes its value.

Half a voxel, and the quarter by which a whole number of voxels may be shorter than the scan at each end.
"""


def probabilities_to_masks(
    masks: OARMasks,
    slabs: Iterable[tuple[int, Probabilities]],
    model_grid: Grid,
    grid: Grid,
    *,
    channels: Sequence[OAR],
    thresholds: Sequence[float],
    owned: Collection[OAR] | None = None,
) -> None:
    """Set the bits of CT voxels that reach their organ's threshold.

    By their probability, one slab at a time.

    Where two rivals (:func:`oarlock.segmentation.rivals.rivals`) claim a voxel, it goes to the one whose probability is
    the larger multiple of its threshold.

    :param masks: on ``grid``; changed in place, so that several parts of a model can draw into the same.
    :param slabs: (first slice, (OARs, n, y · upscale, x · upscale)) in ascending order, as
        :func:`oarlock.segmentation.slabs.predict_in_slabs` gives them. Each slab is released before the next is requested; only
        its last slice is kept.
    :param model_grid: canonical grid of the network's *input* (:class:`oarlock.segmentation.resampling.ModelInput`).
    :param grid: the CT's grid, any orientation.
    :param channels: the organ of each channel.
    :param thresholds: for each channel the probability from which a voxel belongs to its organ.
    :param owned: the organs that are drawn; None for all. The others only contest voxels with their rivals.
    """
    owned = channels if owned is None else owned
    target = _Target(model_grid, masks, grid, channels=channels, thresholds=thresholds, owned=owned)
    last: Probabilities | None = None
    for first, slab in slabs:
        target.add(slab, last, first)
        last = slab[:, -1:].copy()
        del slab
    masks.forget_boxes()


class _Target:
    """The masks while they fill up."""

    def __init__(
        self,
        model_grid: Grid,
        masks: OARMasks,
        grid: Grid,
        *,
        channels: Sequence[OAR],
        thresholds: Sequence[float],
        owned: Collection[OAR],
    ) -> None:
        axes = model_grid.along_patient_axes()
        assert axes is not None  # a model's grid is canonical
        self.model_grid, self.grid, self.masks, self.thresholds = model_grid, grid, masks, thresholds
        self.rivals = rival_channels(channels)
        self.bits = [masks.bit(oar) if oar in owned else None for oar in channels]
        self.model_mm = tuple(axis.positions_mm for axis in axes)
        self.axes = grid.along_patient_axes()

    def add(self, slab: Probabilities, last: Probabilities | None, first: int) -> None:
        """Set bits between the previous slab's last slice and this slab's last; at the ends of the volume ``_REACH`` further.

        :param slab: (OARs, n, y, x), its first slice being slice ``first`` of the model.
        :param last: (OARs, 1, y, x), the slice before it.
        """
        start = first if last is None else first - 1
        for index, (threshold, bit) in enumerate(zip(self.thresholds, self.bits, strict=True)):
            if bit is None:
                continue
            probabilities = undisputed(index, lambda i: _joined(i, slab, last), self.rivals[index], self.thresholds)
            box = bounding_box(probabilities >= threshold)
            if box is None:
                continue
            part = _Part.cut(probabilities, grow(box, 1, probabilities.shape), start, self.model_grid.shape)
            place = self._place_axial if self.axes is not None else self._place_tilted
            place(part, threshold, bit)

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
            words[z] |= (inside if swapped else inside.T) * bit  # np.where takes twice as long

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

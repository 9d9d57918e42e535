"""Grid: between voxel indices and patient millimetres.

Indices are (z, y, x), positions (x, y, z).

The order of axes turns in this module and nowhere else. Patient coordinates are DICOM's LPS (PS3.3 C.7.6.2.1.1): +x to the
patient's left, +y to the back, +z to the head. Each slice has its own plane, its own Image Position (Patient) and no average:
a gantry tilt and an uneven spacing are part of the grid, not errors of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import permutations
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from oarlock.arrays import FloatArray, IndexArray

_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class Orientation:
    """The quarter turn from a grid's axes nearest to the patient's.

    :param axes: for the patient axes z, y and x, the index axis that runs along each: 0, 1 or 2.
    :param flipped: for the same patient axes, whether the index grows against them: from head to foot, from back to front, from
        left to right.
    """

    axes: tuple[int, int, int]
    flipped: tuple[bool, bool, bool]

    def turned(self, volume: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """A view of a (z, y, x) volume along the patient's axes.

        It runs from foot to head, from front to back and from right to left of the patient.
        """
        return volume.transpose(self.axes)[tuple(slice(None, None, -1 if flip else 1) for flip in self.flipped)]

    def in_patient_order(self, values: Sequence[_Value]) -> tuple[_Value, _Value, _Value]:
        """One value for each patient axis, in order (z, y, x).

        They come as one value for each index axis.
        """
        z, y, x = self.axes
        return values[z], values[y], values[x]

    def ends(self, pairs: Sequence[tuple[_Value, _Value]]) -> tuple[tuple[_Value, _Value], ...]:
        """One (lower, upper) pair for each patient axis (z, y, x).

        They come as one (first, last) pair for each index axis.
        """
        turned = self.in_patient_order(pairs)
        return tuple((last, first) if flip else (first, last) for (first, last), flip in zip(turned, self.flipped, strict=True))


@dataclass(frozen=True, eq=False)
class IndexAxis:
    """One axis of a grid that runs along one patient axis.

    :param axis: which of the indices (z, y, x): 0, 1 or 2.
    :param positions_mm: (n,) coordinate of every index on the patient axis, ascending or descending.
    """

    axis: int
    positions_mm: FloatArray


@dataclass(frozen=True, eq=False)
class Grid:
    """The voxel centres of a stack of parallel slices.

    Slices are sorted by their position along ``normal`` (ascending). Index z counts slices, y rows (down the image), x columns
    (along a row).

    :param rows, columns: size of every slice.
    :param origins_mm: (slices, 3) patient position of the centre of each slice's first voxel, Image Position (Patient).
    :param row_direction: unit vector along a row, the way x grows: Image Orientation (Patient) values 1 to 3.
    :param column_direction: unit vector down a column, the way y grows: values 4 to 6.
    :param row_spacing_mm: distance between rows, Pixel Spacing value 1.
    :param column_spacing_mm: distance between columns, Pixel Spacing value 2.
    """

    rows: int
    columns: int
    origins_mm: FloatArray
    row_direction: FloatArray
    column_direction: FloatArray
    row_spacing_mm: float
    column_spacing_mm: float

    def __post_init__(self) -> None:
        for name, shape in (("origins_mm", (len(self.origins_mm), 3)), ("row_direction", (3,)), ("column_direction", (3,))):
            array = np.array(getattr(self, name), dtype=np.float64)
            if array.shape != shape or not np.isfinite(array).all():
                raise ValueError(f"{name} must be finite and of shape {shape}")
            array.setflags(write=False)
            object.__setattr__(self, name, array)
        if len(self.origins_mm) == 0 or self.rows < 1 or self.columns < 1:
            raise ValueError("a grid has at least one voxel")
        if self.row_spacing_mm <= 0 or self.column_spacing_mm <= 0:
            raise ValueError("spacing must be positive")
        if np.any(np.diff(self.slice_positions_mm) <= 0):
            raise ValueError("slices must be sorted along the normal and lie at different positions")

    @property
    def shape(self) -> tuple[int, int, int]:
        """(slices, rows, columns)."""
        return len(self.origins_mm), self.rows, self.columns

    @cached_property
    def normal(self) -> FloatArray:
        """Unit vector along which slices are sorted: row_direction × column_direction."""
        return np.cross(self.row_direction, self.column_direction)

    @cached_property
    def slice_positions_mm(self) -> FloatArray:
        """(slices,) position of every slice along ``normal``."""
        return np.asarray(self.origins_mm @ self.normal, dtype=np.float64)

    @cached_property
    def slice_spacings_mm(self) -> FloatArray:
        """(slices - 1,) distance between neighbouring slices along ``normal``."""
        return np.diff(self.slice_positions_mm)

    @cached_property
    def slice_thicknesses_mm(self) -> FloatArray:
        """(slices,) extent that each slice stands for, in mm.

        Half way to each neighbour; at the two ends the whole distance inwards.
        """
        gaps = self.slice_spacings_mm
        if gaps.size == 0:
            return np.ones(1)
        padded = np.concatenate([gaps[:1], gaps, gaps[-1:]])
        return np.asarray((padded[:-1] + padded[1:]) / 2)

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """(z, y, x) voxel size in mm.

        z is the median distance between slices (1.0 for a single slice).
        """
        z = float(np.median(self.slice_spacings_mm)) if len(self.origins_mm) > 1 else 1.0
        return z, self.row_spacing_mm, self.column_spacing_mm

    @property
    def voxel_volumes_mm3(self) -> FloatArray:
        """(slices,) volume of one voxel of each slice."""
        return self.slice_thicknesses_mm * self.row_spacing_mm * self.column_spacing_mm

    def volumes_ml(self, voxels: npt.NDArray[Any]) -> FloatArray:
        """(…,) volumes in ml of (…, slices) voxels on each slice."""
        return np.asarray(voxels @ self.voxel_volumes_mm3 / 1000)

    def to_patient(self, z: int | IndexArray, yx: FloatArray) -> FloatArray:
        """Patient positions of points on one slice, or each on its own.

        :param z: slice index, or (n,) one for each point.
        :param yx: (n, 2) row and column indices, fractional; (0, 0) is the centre of the first voxel.
        :returns: (n, 3) positions (x, y, z) in mm (PS3.3 Equation C.7.6.2.1-1).
        """
        down = yx[:, :1] * (self.row_spacing_mm * self.column_direction)
        along = yx[:, 1:] * (self.column_spacing_mm * self.row_direction)
        return np.asarray(self.origins_mm[z] + down + along)

    def to_plane(self, z: int, points_mm: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Indices of patient positions on the plane of one slice.

        And how far off that plane they lie.

        :param points_mm: (n, 3) positions (x, y, z).
        :returns: (n, 2) fractional row and column indices of the foot points, and (n,) signed distances along ``normal`` in mm.
        """
        offset = points_mm - self.origins_mm[z]
        y = offset @ self.column_direction / self.row_spacing_mm
        x = offset @ self.row_direction / self.column_spacing_mm
        return np.stack([y, x], axis=1), np.asarray(offset @ self.normal)

    def to_points(self, indices: FloatArray) -> FloatArray:
        """Patient positions of fractional voxel indices.

        Between two slices they lie on the line that joins them, also beyond the ends.

        :param indices: (n, 3) indices (z, y, x).
        :returns: (n, 3) positions (x, y, z) in mm.
        """
        nodes = self._nodes_mm
        left, share = _between(indices[:, 0], np.arange(len(nodes)))
        origins = np.stack([_blended(axis, left, share) for axis in nodes.T], axis=1)
        down = indices[:, 1:2] * (self.row_spacing_mm * self.column_direction)
        along = indices[:, 2:] * (self.column_spacing_mm * self.row_direction)
        return np.asarray(origins + down + along)

    def to_indices(self, points_mm: FloatArray) -> FloatArray:
        """Fractional voxel indices of patient positions: the inverse of :meth:`to_points`.

        :param points_mm: (n, 3) positions (x, y, z).
        :returns: (n, 3) indices (z, y, x).
        """
        nodes = self._nodes_mm
        left, share = _between(points_mm @ self.normal, nodes @ self.normal)
        down, along = nodes @ self.column_direction, nodes @ self.row_direction
        y = (points_mm @ self.column_direction - _blended(down, left, share)) / self.row_spacing_mm
        x = (points_mm @ self.row_direction - _blended(along, left, share)) / self.column_spacing_mm
        return np.stack([left + share, y, x], axis=1)

    def orientation(self) -> Orientation:
        """Which index axis runs along which patient axis, and which way.

        The nearest quarter turn.
        """
        directions = np.stack([self.normal, self.column_direction, self.row_direction])
        along = np.abs(directions[:, ::-1])  # index axis × patient axis (z, y, x)
        z, y, x = max(permutations(range(3)), key=lambda axes: sum(along[axis, i] for i, axis in enumerate(axes)))
        return Orientation((z, y, x), (bool(directions[z, 2] < 0), bool(directions[y, 1] < 0), bool(directions[x, 0] < 0)))

    def along_patient_axes(self, *, within_mm: float = 0.05) -> "tuple[IndexAxis, IndexAxis, IndexAxis] | None":
        """The index axis that runs along each patient axis (z, y, x).

        For slices that are axial.

        Any flip, and rows and columns exchanged (a patient on the side, a rotated matrix), are still axial.

        :param within_mm: how far a voxel centre may lie off the separable description.
        :returns: None for a tilted grid, or one whose slices drift sideways.
        """
        z, y, x = self.orientation().axes
        if z != 0:
            return None
        corners = np.array([(i, j, k) for i in range(self.shape[0]) for j in (0, self.rows - 1) for k in (0, self.columns - 1)])
        points = self.to_points(corners.astype(np.float64))
        axes = []
        for along, across in ((2, 0), (1, y), (0, x)):
            n = self.shape[across]
            positions = (
                self.origins_mm[:, 2] if across == 0 else self.origins_mm[0, along] + np.arange(n) * self._step(across)[along]
            )
            if np.abs(positions[corners[:, across]] - points[:, along]).max() > within_mm:
                return None
            axes.append(IndexAxis(across, positions))
        return axes[0], axes[1], axes[2]

    @cached_property
    def _nodes_mm(self) -> FloatArray:
        """The origins, and for a single slice one more at a distance of 1 mm, so that there is a line to follow."""
        return self.origins_mm if len(self.origins_mm) > 1 else np.stack([self.origins_mm[0], self.origins_mm[0] + self.normal])

    def _step(self, axis: int) -> FloatArray:
        down, along = self.row_spacing_mm * self.column_direction, self.column_spacing_mm * self.row_direction
        return np.asarray(down if axis == 1 else along)


def _between(x: FloatArray, nodes: npt.NDArray[Any]) -> tuple[IndexArray, FloatArray]:
    """Which pair of ascending nodes each x lies between, and how far along; below 0 and above 1 beyond the ends."""
    left = np.clip(np.searchsorted(nodes, x, side="right") - 1, 0, len(nodes) - 2)
    return left, (x - nodes[left]) / (nodes[left + 1] - nodes[left])


def _blended(values: FloatArray, left: IndexArray, share: FloatArray) -> FloatArray:
    """Linear interpolation between the values of two neighbouring nodes."""
    return np.asarray(values[left] + share * np.diff(values)[left])

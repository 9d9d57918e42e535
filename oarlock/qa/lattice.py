"""Lattice: where the voxels of a stack of slices lie.

And which distances two of them can have.

Vectors are (z, y, x): millimetres along the slices' normal, down a column and along a row.
"""

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final

import numpy as np

from oarlock.arrays import FloatArray
from oarlock.geometry.grid import Grid

ZYX = tuple[float, float, float]

UNIFORM_WITHIN: Final = 0.01
"""Slice steps that differ by less than this share of a step count as equal: positions in DICOM files are rounded decimals."""


@dataclass(frozen=True, eq=False)
class Lattice:
    """Where the voxels of a stack of slices lie.

    Seen from the first voxel of the whole series.

    :param slice_offsets_mm: (slices, 3) position (z, y, x) of each slice's first voxel: (0, 0, 0), (step, 0, 0), … for an upright
        stack; y and x are not zero under a gantry tilt. z grows.
    :param thicknesses_mm: (slices,) extent along z that each slice stands for.
    :param step_mm: (3,) from each slice's first voxel to the next one's, or None where the slices are not evenly spaced.
    :param row_spacing_mm, column_spacing_mm: distance between rows (y) and between columns (x).
    """

    slice_offsets_mm: FloatArray
    thicknesses_mm: FloatArray
    step_mm: FloatArray | None
    row_spacing_mm: float
    column_spacing_mm: float

    @classmethod
    def upright(cls, slices: int, spacing_mm: ZYX) -> "Lattice":
        """Slices exactly above each other at equal distances.

        This is what a mask with three spacings means.
        """
        step = np.array([spacing_mm[0], 0.0, 0.0])
        offsets, thicknesses = np.arange(slices)[:, None] * step, np.full(slices, spacing_mm[0])
        return cls(offsets, thicknesses, step, spacing_mm[1], spacing_mm[2])

    @classmethod
    def of(cls, grid: Grid) -> "Lattice":
        """The lattice of a series' voxels.

        Steps that are equal to 1 % count as equal.
        """
        axes = np.stack([grid.normal, grid.column_direction, grid.row_direction], axis=1)
        # A millionth of a micrometre: what is left of a step like 2.5 mm after two positions are subtracted is made 2.5 again.
        offsets = np.round((grid.origins_mm - grid.origins_mm[0]) @ axes, 9)
        steps = np.diff(offsets, axis=0)
        step = np.round(np.median(steps, axis=0), 9) if len(steps) else np.array([grid.spacing_mm[0], 0.0, 0.0])
        even = bool(np.all(np.abs(steps - step) <= UNIFORM_WITHIN * float(np.linalg.norm(step))))
        thicknesses = np.full(len(offsets), step[0]) if even else grid.slice_thicknesses_mm
        return cls(offsets, thicknesses, step if even else None, grid.row_spacing_mm, grid.column_spacing_mm)

    @property
    def slices(self) -> int:
        """How many slices there are."""
        return len(self.slice_offsets_mm)

    def between(self, start: int, stop: int) -> "Lattice":
        """The part of it from one slice up to, not including, another."""
        part = slice(start, stop)
        return replace(self, slice_offsets_mm=self.slice_offsets_mm[part], thicknesses_mm=self.thicknesses_mm[part])

    @cached_property
    def voxel_volumes_mm3(self) -> FloatArray:
        """(slices,) volume of one voxel of each slice."""
        return self.thicknesses_mm * (self.row_spacing_mm * self.column_spacing_mm)

    @cached_property
    def gaps_mm(self) -> FloatArray:
        """(slices + 1, 3) the step over each layer of surface elements.

        Below the first slice, between slices, above the last.
        """
        if self.step_mm is not None:
            return np.broadcast_to(self.step_mm, (len(self.slice_offsets_mm) + 1, 3))
        steps = np.diff(self.slice_offsets_mm, axis=0)
        below, above = (steps[:1], steps[-1:]) if len(steps) else 2 * (self.thicknesses_mm[:, None] * np.array([[1.0, 0, 0]]),)
        return np.concatenate([below, steps, above])

    @cached_property
    def layers_mm(self) -> FloatArray:
        """(slices + 1, 3) the positions of the layers of surface elements.

        Half way between the slices.
        """
        below = self.slice_offsets_mm[:1] - self.gaps_mm[:1]
        return np.concatenate([below, self.slice_offsets_mm]) + self.gaps_mm / 2

    @cached_property
    def in_plane_mm(self) -> FloatArray:
        """(2, 3) steps in mm: from row to row, column to column."""
        return np.array([[0.0, self.row_spacing_mm, 0.0], [0.0, 0.0, self.column_spacing_mm]])


def rounded_tolerance_mm(tolerance_mm: float, lattice: Lattice) -> float | None:
    """The tolerance rounded to the nearest distance between two voxels.

    Of those that two voxels of this lattice can have.

    D = {√((n₁d₁)² + (n₂d₂)² + (n₃d₃)²) | n ∈ ℕ} (Nikolov et al. 2021, Methods: "we also rounded the tolerance to the nearest
    neighbor in set D for each image"). Of two equally near values the smaller is taken.

    :returns: None where slices are not evenly spaced: there the set depends on the place.
    """
    if lattice.step_mm is None:
        return None
    steps = math.ceil(tolerance_mm / lattice.step_mm[0]) + 1
    reaches = [
        math.ceil((tolerance_mm + steps * abs(shift)) / spacing) + 1
        for shift, spacing in zip(lattice.step_mm[1:], (lattice.row_spacing_mm, lattice.column_spacing_mm), strict=True)
    ]
    counts = np.arange(steps + 1), *(np.arange(-reach, reach + 1) for reach in reaches)
    points = np.stack(np.meshgrid(*counts, indexing="ij"), axis=-1).reshape(-1, 3)
    distances = np.unique(lengths(points @ np.vstack([lattice.step_mm, lattice.in_plane_mm])))
    return float(distances[np.argmin(np.abs(distances - tolerance_mm))])


def lengths(vectors: FloatArray) -> FloatArray:
    """(n,) lengths of (n, 3) vectors."""
    return np.sqrt(vectors[:, 0] ** 2 + vectors[:, 1] ** 2 + vectors[:, 2] ** 2)

"""Cuts through a series as a person looks at them.

Axial, coronal and sagittal, in mm, the patient's right on the left, head up.

The picture does not depend on how the slices were stored: rows and columns are turned and flipped by the grid's own directions,
and uneven slices and a gantry tilt are drawn where they lie.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from oarlock.arrays import FloatArray
from oarlock.geometry.grid import Grid, Orientation
from oarlock.geometry.masks import OARMasks
from oarlock.organs.catalogue import OAR

Image = npt.NDArray[Any]


class Letters(NamedTuple):
    """Where the edges of a cut lie in the patient.

    R, L, A, P, H (head), F (feet).
    """

    left: str
    right: str
    top: str
    bottom: str


@dataclass(frozen=True, eq=False)
class Cut:
    """One plane through a series.

    :param image: (rows, columns) int16 HU, or uint8 grey that is windowed already.
    :param bits: (rows, columns) the words of the masks.
    :param down_mm, across_mm: positions of rows and columns, ascending, as seen.
    :param shift_mm: (rows,) by how much each row lies further across.
    """

    image: Image
    bits: npt.NDArray[np.uint32]
    down_mm: FloatArray
    across_mm: FloatArray
    shift_mm: FloatArray
    letters: Letters


@dataclass(frozen=True, eq=False)
class Axes:
    """How a grid's arrays are turned to be looked at.

    z from the feet to the head, y to the back, x to the patient's left.

    :param orientation: which way the arrays run.
    :param z_mm, y_mm, x_mm: positions of the turned indices along their axes, ascending.
    :param drift_mm: (slices, 2) by how much each slice lies further along y and x.
    """

    orientation: Orientation
    z_mm: FloatArray
    y_mm: FloatArray
    x_mm: FloatArray
    drift_mm: FloatArray

    def turned(self, volume: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """(z, y, x) view of a volume of the grid, turned."""
        return self.orientation.turned(volume)

    def turned_slice(self, image: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """(y, x) view of one slice of the grid, turned."""
        return np.asarray(self.orientation.turned(image[None])[0])

    def slice_index(self, z: int) -> int:
        """The turned index of a slice, and the other way round."""
        return len(self.z_mm) - 1 - z if self.orientation.flipped[0] else z


def to_axes(grid: Grid) -> Axes:
    """The way to look at a grid whose slices are axial.

    About axial: :func:`oarlock.ct.series.check_headers` lets no others in.
    """
    orientation = grid.orientation()
    _, (y_unit, y_step, rows), (x_unit, x_step, columns) = orientation.in_patient_order(
        [
            (grid.normal, grid.spacing_mm[0], len(grid.origins_mm)),
            (grid.column_direction, grid.row_spacing_mm, grid.rows),
            (grid.row_direction, grid.column_spacing_mm, grid.columns),
        ]
    )
    z_flipped, y_flipped, x_flipped = orientation.flipped
    z_mm = -grid.slice_positions_mm[::-1] if z_flipped else grid.slice_positions_mm
    origins = grid.origins_mm[::-1] if z_flipped else grid.origins_mm
    units = -y_unit if y_flipped else y_unit, -x_unit if x_flipped else x_unit
    drift = np.stack([(origins - origins[0]) @ unit for unit in units], axis=1)
    y_mm, x_mm = (step * np.arange(count, dtype=np.float64) for step, count in ((y_step, rows), (x_step, columns)))
    return Axes(orientation, z_mm, y_mm, x_mm, drift)


@dataclass(frozen=True, eq=False)
class Scene:
    """A series with its masks, ready to be cut.

    ``image`` and ``bits`` are turned views: nothing is copied.
    """

    image: Image
    bits: npt.NDArray[np.uint32]
    axes: Axes

    @classmethod
    def of(cls, hu: Image, bits: npt.NDArray[np.uint32], grid: Grid) -> "Scene":
        axes = to_axes(grid)
        return cls(axes.turned(hu), axes.turned(bits), axes)

    def axial(self, z: int) -> Cut:
        """Seen from the feet; ``z`` is a turned index."""
        return axial_cut(self.image[z], self.bits[z], self.axes)

    def coronal(self, y: int) -> Cut:
        """The cut seen from the front.

        ``y`` is a turned index of the middle slice.
        """
        axes = self.axes
        slices, rows = self._plane(y, axes.drift_mm[:, 0], axes.y_mm)
        image, bits = self.image[slices, rows], self.bits[slices, rows]
        return Cut(image, bits, -axes.z_mm[::-1], axes.x_mm, axes.drift_mm[::-1, 1], Letters("R", "L", "H", "F"))

    def sagittal(self, x: int) -> Cut:
        """The cut seen from the patient's left.

        ``x`` is a turned index of the middle slice.
        """
        axes = self.axes
        slices, columns = self._plane(x, axes.drift_mm[:, 1], axes.x_mm)
        image, bits = self.image[slices, :, columns], self.bits[slices, :, columns]
        return Cut(image, bits, -axes.z_mm[::-1], axes.y_mm, axes.drift_mm[::-1, 0], Letters("A", "P", "H", "F"))

    def _plane(
        self, index: int, drift_mm: FloatArray, positions_mm: FloatArray
    ) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
        """The slices from head to foot, and in each the index that is nearest to one plane: where slices drift, not the same."""
        slices = np.arange(len(drift_mm))[::-1]
        offsets = drift_mm[slices] - drift_mm[len(drift_mm) // 2]
        wanted = positions_mm[index] - offsets
        step = positions_mm[1] - positions_mm[0] if len(positions_mm) > 1 else 1.0
        nearest = np.rint((wanted - positions_mm[0]) / step).astype(np.intp)
        return slices, np.clip(nearest, 0, len(positions_mm) - 1)


def axial_cut(image: Image, bits: npt.NDArray[np.uint32], axes: Axes) -> Cut:
    """One turned slice as a cut."""
    return Cut(image, bits, axes.y_mm, axes.x_mm, np.zeros(len(axes.y_mm)), Letters("R", "L", "A", "P"))


class Profiles(NamedTuple):
    """(OARs, n) voxels of every OAR along each turned axis.

    In each turned slice, row and column.
    """

    z: npt.NDArray[np.int64]
    y: npt.NDArray[np.int64]
    x: npt.NDArray[np.int64]


def to_profiles(bits: npt.NDArray[np.uint32], oars: Sequence[OAR]) -> Profiles:
    """Count the voxels of every OAR along all three axes."""
    masks = OARMasks(tuple(oars), bits)
    counts = [np.zeros((len(oars), n), dtype=np.int64) for n in bits.shape]
    for i, oar in enumerate(oars):
        cropped = masks.crop(oar)
        if cropped is None:
            continue
        box, mask = cropped
        on_slices = mask.sum(axis=1, dtype=np.int64)
        counts[0][i, box[0]], counts[2][i, box[2]] = on_slices.sum(axis=1), on_slices.sum(axis=0)
        counts[1][i, box[1]] = mask.sum(axis=(0, 2))
    return Profiles(*counts)

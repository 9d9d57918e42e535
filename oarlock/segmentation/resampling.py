"""From the CT's own grid to the model's, and back.

By geometry alone: training, evaluation and serving share it.

The model's grid is a :class:`Grid` like any other, but canonical: z grows from foot to head, y from front to back, x from the
patient's right to left, whatever way the patient lay and the scanner counted. So the way back needs no bookkeeping: a voxel of
the one grid is found in the other through its place in the patient.

A voxel of the model is the mean of the CT, interpolated linearly, over the voxel's own extent where that is larger than a CT
voxel's (no aliasing), and the interpolated value where it is smaller. Both reproduce a linear ramp exactly.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage, sparse

from oarlock.arrays import FloatArray
from oarlock.geometry.body import body_core
from oarlock.geometry.grid import Grid, IndexAxis
from oarlock.segmentation.manifest import InputSpec

Volume = npt.NDArray[np.float32]
Axes = tuple[IndexAxis, IndexAxis, IndexAxis]

_COARSE_MM: Final = (5.0, 4.0, 4.0)
_MARGIN_MM: Final = 10.0
_EVEN_MM: Final = 0.01
"""Slices are evenly spaced if their distances differ by no more than this: what DICOM's decimal strings round away."""


@dataclass(frozen=True, eq=False)
class ModelInput:
    """What the network is fed, and where it lies.

    :param volume: (z, y, x) float32 Hounsfield units in canonical axes.
    :param grid: its canonical grid in patient space; together with the CT's grid it is the exact way back.
    """

    volume: Volume
    grid: Grid


@dataclass(frozen=True, eq=False)
class Region:
    """A box in the patient. Points are (x, y, z) in mm.

    :param centre_mm: where a lattice of a fixed size is centred.
    :param low_mm, high_mm: what a lattice of any size covers.
    """

    centre_mm: FloatArray
    low_mm: FloatArray
    high_mm: FloatArray


def to_model_grid(hu: npt.NDArray[np.int16], grid: Grid, spec: InputSpec, region: Region | None = None) -> ModelInput:
    """The CT on the grid that a network was trained on.

    Without a region the whole scan is covered along z. In plane the field of view is ``spec.size_yx``, centred on the middle of
    the body's bounding box (:func:`body_box_mm`), or the whole scan where the network takes any size. Where ``spec.spacing_mm``
    is None the voxels stay the CT's own.

    With a region the lattice has the fixed size of the network, centred on the region's centre; along an axis without a fixed
    size it covers the region. Along z the slices of context lie beyond that.

    :param hu: (z, y, x) Hounsfield units on ``grid``; any orientation, tilt or uneven spacing.
    :returns: the volume; outside of the scan it holds ``spec.padding_hu``.
    """
    axes = grid.along_patient_axes()
    target = _model_grid(hu, grid, axes, spec) if region is None else _box_grid(region, spec, grid.spacing_mm)
    if axes is not None:
        return ModelInput(_resample_separably(hu, axes, target, spec.padding_hu), target)
    return ModelInput(_resample_obliquely(hu, grid, target, spec.padding_hu), target)


def to_own_grid(hu: npt.NDArray[np.int16], grid: Grid, padding_hu: float, region: Region | None = None) -> ModelInput:
    """The CT on its own voxels in canonical axes.

    No value is changed; it is cut to those that a region touches.

    Where slices are tilted or uneven there are no such voxels: then it is resampled evenly to the CT's spacing.
    """
    axes = grid.along_patient_axes()
    gaps = grid.slice_spacings_mm
    if axes is None or (gaps.size and np.ptp(gaps) > _EVEN_MM):
        spec = InputSpec("", grid.spacing_mm, None, 1, padding_hu)
        return to_model_grid(hu, grid, spec, region)
    positions = [np.sort(axis.positions_mm) for axis in axes]
    box = [slice(None)] * 3
    if region is not None:
        ends = zip(
            positions,
            grid.orientation().in_patient_order(grid.spacing_mm),
            region.low_mm[::-1],
            region.high_mm[::-1],
            strict=True,
        )
        box = [_touched(at, step, low, high) for at, step, low, high in ends]
    z, y, x = (at[side] for at, side in zip(positions, box, strict=True))
    turned = grid.orientation().turned(hu)
    return ModelInput(turned[*box].astype(np.float32), _canonical(z, y, x))


def _touched(positions_mm: FloatArray, step_mm: float, low_mm: float, high_mm: float) -> slice:
    """The voxels that a range touches, one at least."""
    first, last = np.searchsorted(positions_mm, [low_mm - step_mm / 2, high_mm + step_mm / 2])
    first = min(first, len(positions_mm) - 1)
    return slice(int(first), int(max(last, first + 1)))


def body_box_mm(hu: npt.NDArray[np.int16], grid: Grid) -> tuple[FloatArray, FloatArray] | None:
    """Lowest and highest patient coordinates of the body, or None.

    (x, y, z) in mm; None where there is nothing but air.

    The body is its core (:func:`oarlock.geometry.body.body_core`) on a coarse picture of about 4 mm in plane. The picture of
    a mirrored scan is the mirrored picture, so that both are cut alike.
    """
    sizes = zip(_COARSE_MM, grid.spacing_mm, grid.shape, strict=True)
    step = [min(max(1, round(coarse / spacing)), count) for coarse, spacing, count in sizes]
    picture: npt.NDArray[Any] = hu[:: step[0]]
    first = [0.0]
    for axis in (1, 2):
        picture, start = _thinned(picture, axis, step[axis])
        first.append(start)
    body = body_core(picture)
    if not body.any():
        return None
    points = grid.to_points(np.argwhere(body).astype(np.float64) * np.array(step) + np.array(first))
    return points.min(axis=0), points.max(axis=0)


def _thinned(volume: npt.NDArray[Any], axis: int, step: int) -> tuple[Volume, float]:
    """Every `step`-th value along an axis, evenly about its middle, and the index of the first.

    Where the indices lie between two voxels, the values are the mean of the two.
    """
    count = volume.shape[axis] // step
    first = (volume.shape[axis] - 1 - (count - 1) * step) / 2
    low, high = (np.s_[int(start) : int(start) + (count - 1) * step + 1 : step] for start in (np.floor(first), np.ceil(first)))
    before = (np.s_[:],) * axis
    return np.add(volume[*before, low], volume[*before, high], dtype=np.float32) / 2, first


# ── the grid ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _model_grid(hu: npt.NDArray[np.int16], grid: Grid, axes: Axes | None, spec: InputSpec) -> Grid:
    body = body_box_mm(hu, grid)
    low, high = _scan_box_mm(grid)
    if axes is None and body is not None:  # the corners of a tilted stack reach far beyond the patient
        low[2], high[2] = max(low[2], body[0][2] - _MARGIN_MM), min(high[2], body[1][2] + _MARGIN_MM)
    centre = (low + high) / 2 if body is None else (body[0] + body[1]) / 2
    if spec.spacing_mm is None and axes is not None:
        z, y, x = (np.sort(axis.positions_mm) for axis in axes)
        if spec.size_yx is not None:
            y, x = _cut(y, centre[1], spec.size_yx[0]), _cut(x, centre[0], spec.size_yx[1])
        return _canonical(z, y, x)
    spacing = spec.spacing_mm or grid.spacing_mm
    z = _centred((low[2] + high[2]) / 2, spacing[0], max(1, round((high[2] - low[2]) / spacing[0])))
    if spec.size_yx is None:
        sizes, centre = [max(1, round((high[i] - low[i]) / spacing[2 - i])) for i in (1, 0)], (low + high) / 2
    else:
        sizes = list(spec.size_yx)
    return _canonical(z, _centred(centre[1], spacing[1], sizes[0]), _centred(centre[0], spacing[2], sizes[1]))


def body_region(hu: npt.NDArray[np.int16], grid: Grid) -> Region | None:
    """The body's bounding box and a margin, or None.

    ``_MARGIN_MM`` around it; None where there is nothing but air.
    """
    body = body_box_mm(hu, grid)
    return None if body is None else Region((body[0] + body[1]) / 2, body[0] - _MARGIN_MM, body[1] + _MARGIN_MM)


def _box_grid(region: Region, spec: InputSpec, own_spacing_mm: tuple[float, float, float]) -> Grid:
    """The lattice of a box; where the network has no spacing of its own, at the CT's spacing."""
    spacing = spec.spacing_mm or own_spacing_mm
    fixed = (spec.slices, *(spec.size_yx or (None, None)))
    axes = []
    for size, step, low, high, centre in zip(
        fixed, spacing, region.low_mm[::-1], region.high_mm[::-1], region.centre_mm[::-1], strict=True
    ):
        middle = centre if size is not None else (low + high) / 2
        axes.append(_centred(middle, step, size or max(1, int(np.ceil((high - low) / step)))))
    context = spec.context_slices - 1
    z = _centred((axes[0][0] + axes[0][-1]) / 2, spacing[0], len(axes[0]) + context)
    return _canonical(z, axes[1], axes[2])


def refine(grid: Grid, shape: tuple[int, int, int]) -> Grid:
    """A canonical grid of another shape with the same outer edges.

    The shape is (z, y, x); a canonical ``grid`` of even spacing is divided.
    """
    axes = grid.along_patient_axes()
    assert axes is not None  # a canonical grid
    z, y, x = (_divided(axis.positions_mm, n) for axis, n in zip(axes, shape, strict=True))
    return _canonical(z, y, x)


def cut_in_plane(grid: Grid, window: tuple[slice, slice]) -> Grid:
    """Some rows and columns of a canonical grid.

    :param window: (y, x).
    """
    axes = grid.along_patient_axes()
    assert axes is not None  # a canonical grid
    y, x = (axis.positions_mm[side] for axis, side in zip(axes[1:], window, strict=True))
    origins_mm = np.column_stack([np.full_like(grid.origins_mm[:, :2], (x[0], y[0])), grid.origins_mm[:, 2]])
    return replace(grid, rows=len(y), columns=len(x), origins_mm=origins_mm)


def extended(grid: Grid, before: Sequence[int], after: Sequence[int]) -> Grid:
    """A canonical even grid with more voxels at its ends.

    :param before, after: (z, y, x) numbers of voxels below the first and above the last.
    """
    axes = grid.along_patient_axes()
    assert axes is not None  # a canonical grid
    z, y, x = (
        axis.positions_mm[0] + np.arange(-below, len(axis.positions_mm) + above) * median_step_mm(axis.positions_mm)
        for axis, below, above in zip(axes, before, after, strict=True)
    )
    return _canonical(z, y, x)


def _divided(positions_mm: FloatArray, n: int) -> FloatArray:
    if n == len(positions_mm):
        return positions_mm
    extent = median_step_mm(positions_mm) * len(positions_mm)
    return _centred((positions_mm[0] + positions_mm[-1]) / 2, extent / n, n)


def _scan_box_mm(grid: Grid) -> tuple[FloatArray, FloatArray]:
    """Lowest and highest patient coordinates (x, y, z) of the scan, to the outer edges of its voxels."""
    ends = [(-0.5, n - 0.5) for n in grid.shape]
    points = grid.to_points(np.array([(z, y, x) for z in ends[0] for y in ends[1] for x in ends[2]]))
    return points.min(axis=0), points.max(axis=0)


def _centred(middle_mm: float, spacing_mm: float, n: int) -> FloatArray:
    return np.asarray(middle_mm + (np.arange(n) - (n - 1) / 2) * spacing_mm)


def _cut(positions_mm: FloatArray, middle_mm: float, n: int) -> FloatArray:
    """The positions nearest to ``middle_mm`` on the same even lattice, n of them; it is extended past its ends."""
    spacing = positions_mm[1] - positions_mm[0] if len(positions_mm) > 1 else 1.0
    first = round((middle_mm - positions_mm[0]) / spacing - (n - 1) / 2)
    return np.asarray(positions_mm[0] + (first + np.arange(n)) * spacing)


def _canonical(z_mm: FloatArray, y_mm: FloatArray, x_mm: FloatArray) -> Grid:
    """The grid whose rows and columns run along the patient's y and x."""
    return Grid(
        rows=len(y_mm),
        columns=len(x_mm),
        origins_mm=np.stack([np.full(len(z_mm), x_mm[0]), np.full(len(z_mm), y_mm[0]), z_mm], axis=1),
        row_direction=np.array([1.0, 0.0, 0.0]),
        column_direction=np.array([0.0, 1.0, 0.0]),
        row_spacing_mm=float(y_mm[1] - y_mm[0]) if len(y_mm) > 1 else 1.0,
        column_spacing_mm=float(x_mm[1] - x_mm[0]) if len(x_mm) > 1 else 1.0,
    )


# ── axial slices: one axis at a time ──────────────────────────────────────────────────────────────────────────────────


def _resample_separably(hu: npt.NDArray[np.int16], axes: Axes, target: Grid, padding_hu: float) -> Volume:
    ours = target.along_patient_axes()
    assert ours is not None  # a canonical grid
    weights = [_window_weights(to.positions_mm, of.positions_mm) for to, of in zip(ours, axes, strict=True)]
    pieces = [_used(matrix) for matrix in weights]
    along_z, along_y, along_x = (matrix[:, used] for matrix, used in zip(weights, pieces, strict=True))
    swapped = axes[1].axis == 2
    rows, columns = (pieces[2], pieces[1]) if swapped else (pieces[1], pieces[2])
    planes = np.empty((pieces[0].stop - pieces[0].start, target.rows, target.columns), dtype=np.float32)
    for plane, source in zip(planes, hu[pieces[0], rows, columns], strict=True):
        above = source.astype(np.float32) - np.float32(padding_hu)
        plane[:] = (along_x @ (along_y @ (above.T if swapped else above)).T).T
    volume = np.asarray(along_z @ planes.reshape(len(planes), -1), dtype=np.float32)
    volume += np.float32(padding_hu)
    return volume.reshape(target.shape)


def _used(matrix: "sparse.csr_array[Any]") -> slice:
    """The range of columns in which a matrix has entries; one column at least, so that an empty overlap stays an array."""
    columns = matrix.indices
    return slice(int(columns.min()), int(columns.max()) + 1) if columns.size else slice(0, 1)


def _window_weights(to_mm: FloatArray, of_mm: FloatArray) -> "sparse.csr_array[Any]":
    """(m, n) matrix that takes samples at ``of_mm`` (in either direction) to means over the extents of samples at ``to_mm``.

    A row is empty where less than half of its extent lies within the scan; the others have the sum 1.
    """
    ascending = np.sort(of_mm)
    gap, step = median_step_mm(ascending), median_step_mm(to_mm)
    width = window_mm(step, gap)
    if width == 0.0:
        matrix = linear_weights(to_mm, ascending, reach=(gap / 2, gap / 2))
    else:
        nodes = np.concatenate([ascending[:1] - gap / 2, ascending, ascending[-1:] + gap / 2])
        means = np.diff(_tent_integrals(np.stack([to_mm - width / 2, to_mm + width / 2]), nodes), axis=0)[0] / width
        means[:, 1] += means[:, 0]  # the outer half of the first and the last voxel has that voxel's value
        means[:, -2] += means[:, -1]
        means = means[:, 1:-1]
        covered = means.sum(axis=1, keepdims=True)
        inside = covered >= 0.5 - 1e-9
        matrix = sparse.csr_array(np.where(inside, means / np.where(inside, covered, 1.0), 0.0).astype(np.float32))
    return matrix if of_mm[0] <= of_mm[-1] else sparse.csr_array(matrix[:, ::-1])


def window_mm(step_mm: float, gap_mm: float) -> float:
    """Width in mm over which the CT is averaged.

    The interpolated CT, for a voxel of ``step_mm``.

    Linear interpolation between samples ``gap_mm`` apart is itself a blur, of variance gap² / 6; a window of width w has w² / 12.
    Together they get the variance of the voxel's own extent, step² / 12: nothing is blurred twice, and nothing is left to
    average where the voxels do not shrink.
    """
    return float(np.sqrt(max(0.0, step_mm**2 - 2 * gap_mm**2)))


def median_step_mm(positions_mm: FloatArray) -> float:
    """Median distance between neighbouring positions; 1.0 where there is only one."""
    return float(np.median(np.diff(positions_mm))) if len(positions_mm) > 1 else 1.0


def _tent_integrals(t: FloatArray, nodes: FloatArray) -> FloatArray:
    """(…, n) integrals up to each t of the n tent functions that linear interpolation between ``nodes`` is made of."""
    left = np.diff(nodes, prepend=nodes[0] - 1e-9)
    right = np.diff(nodes, append=nodes[-1] + 1e-9)
    before = np.clip(t[..., None] - (nodes - left), 0, left)
    after = np.clip(t[..., None] - nodes, 0, right)
    return np.asarray(before**2 / (2 * left) + after - after**2 / (2 * right))


def linear_weights(to: FloatArray, nodes: FloatArray, *, reach: tuple[float, float]) -> "sparse.csr_array[Any]":
    """(m, n) matrix of linear interpolation between ascending ``nodes``.

    As far as ``reach`` says below the first and above the last node their values hold; further out a row is empty.
    """
    last = len(nodes) - 1
    inside = (to >= nodes[0] - reach[0] - 1e-6) & (to <= nodes[-1] + reach[1] + 1e-6)
    place = np.interp(to, nodes, np.arange(len(nodes)))
    lower = np.minimum(np.floor(place + 1e-9).astype(np.intp), last)
    share = np.clip(place - lower, 0.0, 1.0)
    rows = np.arange(len(to))
    values = np.concatenate([np.where(inside, 1 - share, 0.0), np.where(inside, share, 0.0)]).astype(np.float32)
    where = (np.concatenate([rows, rows]), np.concatenate([lower, np.minimum(lower + 1, last)]))
    matrix = sparse.csr_array((values, where), shape=(len(to), len(nodes)))
    matrix.eliminate_zeros()
    return matrix


# ── tilted slices ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _resample_obliquely(hu: npt.NDArray[np.int16], grid: Grid, target: Grid, padding_hu: float) -> Volume:
    """Every voxel is the mean of linear samples spread evenly over its extent; one slice at a time."""
    shares = [_spread(step, gap) for step, gap in zip(target.spacing_mm, grid.spacing_mm, strict=True)]
    volume = np.empty(target.shape, dtype=np.float32)
    for z in range(len(volume)):
        total, inside = np.zeros(volume.shape[1:]), np.zeros(volume.shape[1:])
        for dz in shares[0]:
            values, known = _sample_slice(hu, grid, target, z + dz, offsets=(shares[1], shares[2]))
            total += values
            inside += known
        samples = len(shares[0]) * len(shares[1]) * len(shares[2])
        volume[z] = np.where(inside >= samples / 2, total / np.maximum(inside, 1), padding_hu)
    return volume


def _spread(step_mm: float, gap_mm: float) -> FloatArray:
    """Offsets, in voxels, of the samples along one axis."""
    n = max(1, round(window_mm(step_mm, gap_mm) / gap_mm))
    return np.asarray((np.arange(n) - (n - 1) / 2) / n)


def _sample_slice(
    hu: npt.NDArray[np.int16], grid: Grid, target: Grid, z: float, *, offsets: tuple[FloatArray, FloatArray]
) -> tuple[FloatArray, FloatArray]:
    """Sums (y, x) of the linear samples of each voxel that lie within the scan, and how many do."""
    along_y, along_x = offsets
    y = (np.arange(target.rows)[:, None] + along_y).reshape(-1, 1) * target.row_spacing_mm * target.column_direction
    x = (np.arange(target.columns)[:, None] + along_x).reshape(-1, 1) * target.column_spacing_mm * target.row_direction
    points = (target.to_points(np.array([[z, 0.0, 0.0]])) + y)[:, None] + x
    indices = grid.to_indices(points.reshape(-1, 3))
    known = np.ones(len(indices), dtype=np.bool_)
    for along, n in zip(indices.T, grid.shape, strict=True):
        known &= (along >= -0.5) & (along <= n - 0.5)
    values = np.zeros(len(indices))
    values[known] = ndimage.map_coordinates(hu, indices[known].T, output=np.float64, order=1, mode="nearest")
    blocks = (target.rows, len(along_y), target.columns, len(along_x))
    return values.reshape(blocks).sum(axis=(1, 3)), known.reshape(blocks).sum(axis=(1, 3), dtype=np.float64)

"""A volume on other voxels between the same outer edges.

As nnU-Net resamples, as one small matrix an axis.

nnU-Net calls ``skimage.transform.resize(mode="edge", anti_aliasing=False)``, which is ``scipy.ndimage.zoom`` in its grid mode. A
spline of several dimensions is the product of one-dimensional ones, so what ``zoom`` does to an axis is a matrix: what it does to
the columns of the identity. Three sparse products take less time and memory, and differ by float32 rounding.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage, sparse

from oarlock.segmentation.manifest import Resampling

Volume = npt.NDArray[np.float32]
Matrix = Any  # a scipy.sparse.csr_array, float32
Steps = tuple[Matrix, Matrix, Matrix]
"""One matrix for each axis (z, y, x)."""

ANISOTROPY: Final = 3.0
"""Where the largest spacing is more than this many times the smallest, nnU-Net resamples that axis by itself."""

_NEGLIGIBLE: Final = 1e-8


def lone_axis(resampling: Resampling, of_mm: Sequence[float], to_mm: Sequence[float]) -> int | None:
    """The axis that is resampled by itself, or None.

    The one of the largest spacing, if there is one.

    :param of_mm, to_mm: spacing before and after, in one order of axes.
    """
    if resampling.separate == "never":
        return None
    asked = [of_mm] if resampling.separate == "always" else [s for s in (of_mm, to_mm) if max(s) / min(s) > ANISOTROPY]
    largest = [axis for axis, step in enumerate(asked[0]) if step == max(asked[0])] if asked else []
    return largest[0] if len(largest) == 1 else None


def matrices(resampling: Resampling, of: Sequence[int], to: Sequence[int], lone: int | None) -> Steps:
    """(to, of) matrix of each axis."""
    z, y, x = (
        _nearest(n, m)
        if axis == lone and resampling.order_z == 0
        else zoom_matrix(n, m, resampling.order_z if axis == lone else resampling.order)
        for axis, (n, m) in enumerate(zip(of, to, strict=True))
    )
    return z, y, x


def zoom_matrix(of: int, to: int, order: int) -> Matrix:
    """(to, of) matrix of :func:`scipy.ndimage.zoom` along one axis.

    A spline of this order, the edges held.
    """
    if of == to:
        return sparse.eye_array(of, dtype=np.float32, format="csr")
    dense = ndimage.zoom(np.eye(of), (to / of, 1.0), order=order, mode="nearest", grid_mode=True)  # type: ignore[call-overload]
    dense[np.abs(dense) < _NEGLIGIBLE] = 0.0
    return sparse.csr_array(dense.astype(np.float32))


def _nearest(of: int, to: int) -> Matrix:
    """(to, of) matrix of the nearest voxel; half way it is the further one."""
    places = np.floor(of / to * (np.arange(to) + 0.5) - 0.5 + 0.5).astype(np.intp).clip(0, of - 1)
    return sparse.csr_array((np.ones(to, np.float32), (np.arange(to), places)), shape=(to, of))


def along(matrix: Matrix, volume: Volume, axis: int) -> Volume:
    """A matrix applied along one axis of an array."""
    if matrix.shape[0] == matrix.shape[1]:
        return volume  # as many voxels between the same edges are the same voxels
    moved = np.moveaxis(volume, axis, 0)
    product = np.asarray(matrix @ moved.reshape(len(moved), -1), dtype=np.float32)
    return np.moveaxis(product.reshape(-1, *moved.shape[1:]), 0, axis)


def resample(volume: Volume, steps: Steps, resampling: Resampling, lone: int | None) -> Volume:
    """A (z, y, x) volume on other voxels.

    What a spline of more than first order adds beyond the values' range is cut off.

    The range is that of the volume, or of each slice where an axis is resampled by itself.
    """
    if all(matrix.shape[0] == matrix.shape[1] for matrix in steps):
        return volume
    in_plane = tuple(axis for axis in range(3) if axis != lone)
    low, high = volume.min(axis=in_plane, keepdims=True), volume.max(axis=in_plane, keepdims=True)
    for axis in in_plane:
        volume = along(steps[axis], volume, axis)
    if resampling.order > 1:
        volume = np.clip(volume, low, high)
    return volume if lone is None else along(steps[lone], volume, lone)

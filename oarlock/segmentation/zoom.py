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


def matrices_of_centres(of: Sequence[int], to: Sequence[int], of_mm: Sequence[float], to_mm: Sequence[float]) -> Steps:
    """(to, of) matrix of each axis, where the first voxels' centres coincide."""
    z, y, x = (centred_matrix(*axis) for axis in zip(of, to, of_mm, to_mm, strict=True))
    return z, y, x


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


def centred_matrix(of: int, to: int, of_mm: float, to_mm: float) -> Matrix:
    """(to, of) matrix of linear interpolation as in MONAI.

    The first voxels' centres coincide; the edges are held.
    """
    places = np.clip(np.arange(to) * (to_mm / of_mm), 0, of - 1)
    lower = np.minimum(np.floor(places).astype(np.intp), max(of - 2, 0))
    share = (places - lower).astype(np.float32)
    rows = np.concatenate([np.arange(to)] * 2)
    values, columns = np.concatenate([1 - share, share]), np.concatenate([lower, np.minimum(lower + 1, of - 1)])
    matrix = sparse.csr_array((values, (rows, columns)), shape=(to, of))
    matrix.eliminate_zeros()
    return matrix


def along(matrix: Matrix, volume: Volume, axis: int) -> Volume:
    """A matrix applied along one axis of an array."""
    if _changes_nothing(matrix):
        return volume
    moved = np.moveaxis(volume, axis, 0)
    product = np.asarray(matrix @ moved.reshape(len(moved), -1), dtype=np.float32)
    return np.moveaxis(product.reshape(-1, *moved.shape[1:]), 0, axis)


def _changes_nothing(matrix: Matrix) -> bool:
    n, m = matrix.shape
    return bool(n == m == matrix.nnz and (matrix.data == 1).all() and (matrix.indices == np.arange(n)).all())


def resample(volume: Volume, steps: Steps, resampling: Resampling, lone: int | None) -> Volume:
    """A (z, y, x) volume on other voxels.

    What a spline of more than first order adds beyond the values' range is cut off.

    The range is that of the volume, or of each slice where an axis is resampled by itself.
    """
    if all(map(_changes_nothing, steps)):
        return volume
    in_plane = tuple(axis for axis in range(3) if axis != lone)
    low, high = volume.min(axis=in_plane, keepdims=True), volume.max(axis=in_plane, keepdims=True)
    for axis in in_plane:
        volume = along(steps[axis], volume, axis)
    if resampling.order > 1:
        volume = np.clip(volume, low, high)
    return volume if lone is None else along(steps[lone], volume, lone)

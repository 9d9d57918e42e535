"""A slice between two planes of contours.

It is interpolated by the distance from the boundary, as planning systems do.
"""

from collections.abc import Sequence

import numpy as np

from oarlock.arrays import FloatArray, Mask
from oarlock.geometry.contours import box_of, to_mask
from oarlock.geometry.masks import Box

Polygons = Sequence[FloatArray]
"""(n, 2) fractional row and column indices each; read as even-odd."""


def between(
    lower: Polygons, upper: Polygons, share: float, *, shape: tuple[int, int], spacing_mm: tuple[float, float]
) -> tuple[Box, Mask]:
    """What lies between two planes (Herman et al. 1992).

    It is where the blend of their signed distances is positive.

    Where each plane holds a single contour, both are moved to the place between their centres first, so that a thin organ that
    runs obliquely does not vanish between planes on which it does not overlap itself.

    :param share: of the way from the lower plane to the upper one, in [0, 1].
    :param shape: (rows, columns) of the slice.
    :param spacing_mm: (row, column) spacing.
    :returns: a box of one slice, from slice 0, and the (1, y, x) mask in it.
    """
    if len(lower) == len(upper) == 1:
        shift = _centre(upper[0]) - _centre(lower[0])
        lower, upper = [lower[0] + share * shift], [upper[0] - (1 - share) * shift]
    box = box_of([(0, yx) for yx in (*lower, *upper)], (1, *shape))
    below, above = _mask(lower, box), _mask(upper, box)
    if not below.any() or not above.any():
        return box, below if share < 0.5 else above
    blend = (1 - share) * _signed_mm(below, spacing_mm) + share * _signed_mm(above, spacing_mm)
    return box, blend > 0


def _mask(polygons: Polygons, box: Box) -> Mask:
    corner = np.array([box[1].start, box[2].start])
    return to_mask([(0, yx - corner) for yx in polygons], (1, box[1].stop - box[1].start, box[2].stop - box[2].start))


def _signed_mm(mask: Mask, spacing_mm: tuple[float, float]) -> FloatArray:
    """(1, y, x) distance to the other side of the boundary, from voxel centre to voxel centre: positive inside."""
    from scipy import ndimage  # late, as in components.py

    padded = np.pad(mask[0], 1)  # the distance to nothing is not defined
    inside = ndimage.distance_transform_edt(padded, sampling=spacing_mm)
    outside = ndimage.distance_transform_edt(~padded, sampling=spacing_mm)
    return np.asarray((inside - outside)[None, 1:-1, 1:-1])


def _centre(yx: FloatArray) -> FloatArray:
    """Centre of the area of a polygon; of its box, where it has no area."""
    y, x = (yx - yx[0]).T
    cross = x * np.roll(y, -1) - np.roll(x, -1) * y
    area = cross.sum() / 2
    if abs(area) < 1e-9:
        return np.asarray((yx.min(axis=0) + yx.max(axis=0)) / 2)
    centre = np.array([((y + np.roll(y, -1)) * cross).sum(), ((x + np.roll(x, -1)) * cross).sum()]) / (6 * area)
    return np.asarray(yx[0] + centre)

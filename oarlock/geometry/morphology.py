"""Openings and distances of masks, most of them slice by slice.

SciPy gives the same for elements and spacings of any kind, at three to twenty times the cost, but for the ends of what is opened
along z.
"""

import cv2
import numpy as np
import numpy.typing as npt

from oarlock.arrays import FloatArray, Mask


def opened_in_plane(mask: Mask, element: Mask) -> Mask:
    """What of each slice an element covers as it moves inside.

    What lies beyond the edge of a slice is not of the mask.

    :param mask: (z, y, x).
    :param element: (rows, columns), odd numbers of both; the same upside down and left to right.
    """
    reach, out = element.astype(np.uint8), np.empty(mask.shape, np.uint8)
    for plane, opened in zip(np.ascontiguousarray(mask).view(np.uint8), out, strict=True):
        cv2.dilate(cv2.erode(plane, reach, borderType=cv2.BORDER_CONSTANT, borderValue=0), reach, dst=opened)
    return out.view(np.bool_)


def dilated_in_plane(mask: Mask, element: Mask) -> Mask:
    """The voxels of each slice that an element reaches from a mask.

    :param mask: (z, y, x).
    :param element: (rows, columns), odd numbers of both; the same upside down and left to right.
    """
    reach, out = element.astype(np.uint8), np.empty(mask.shape, np.uint8)
    for plane, wider in zip(np.ascontiguousarray(mask).view(np.uint8), out, strict=True):
        cv2.dilate(plane, reach, dst=wider, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return out.view(np.bool_)


def opened_along_z(mask: Mask, reach: int) -> Mask:
    """What of a mask a column covers as it moves inside.

    The column is ``2 · reach + 1`` slices high. The volume goes on beyond its first and its last slice as these are.

    :param mask: (z, y, x).
    """
    from scipy import ndimage  # late, as in components.py

    column, beyond = 2 * reach + 1, 2 * reach
    longer = np.pad(mask, ((beyond, beyond), (0, 0), (0, 0)), mode="edge").view(np.uint8)
    kept = ndimage.maximum_filter1d(ndimage.minimum_filter1d(longer, column, axis=0), column, axis=0)
    return np.asarray(kept[beyond : beyond + len(mask)]).view(np.bool_)


def opened_by_neighbours(mask: Mask) -> Mask:
    """What a voxel and its six neighbours cover as they move inside.

    What lies beyond the edge of the volume is not of the mask.

    :param mask: (z, y, x).
    """
    kept = mask.copy()
    for axis in range(3):
        along, within = np.moveaxis(kept, axis, 0), np.moveaxis(mask, axis, 0)
        along[1:] &= within[:-1]
        along[:-1] &= within[1:]
        along[0], along[-1] = False, False
    opened = kept.copy()
    for axis in range(3):
        along, within = np.moveaxis(opened, axis, 0), np.moveaxis(kept, axis, 0)
        along[1:] |= within[:-1]
        along[:-1] |= within[1:]
    return opened


def depth_mm(mask: Mask, spacing_mm: tuple[float, float, float], reach_mm: float) -> FloatArray:
    """How far each voxel of a mask is from one outside.

    From centre to centre; 0 outside of the mask. Where it is more than ``reach_mm``, some number above that.

    :param mask: (z, y, x).
    :param spacing_mm: (z, y, x).
    """
    from scipy import ndimage  # late, as in components.py

    z_mm, y_mm, x_mm = spacing_mm
    if mask.all():
        return np.full(mask.shape, np.inf)
    if y_mm != x_mm:
        return np.asarray(ndimage.distance_transform_edt(mask, sampling=spacing_mm), np.float64)
    in_plane = [_squared_mm2(plane, y_mm) for plane in np.ascontiguousarray(mask).view(np.uint8)]
    out = np.stack(in_plane)
    for z, nearest in enumerate(out):
        for other in range(max(0, z - int(reach_mm / z_mm)), min(len(out), z + int(reach_mm / z_mm) + 1)):
            if other != z:
                np.minimum(nearest, in_plane[other] + ((z - other) * z_mm) ** 2, out=nearest)
    return np.asarray(np.sqrt(out, out=out))


def _squared_mm2(plane: npt.NDArray[np.uint8], pixel_mm: float) -> FloatArray:
    """Squared distances within a slice; OpenCV's are roots of whole numbers of pixels."""
    if plane.all():
        return np.full(plane.shape, np.inf)
    pixels = cv2.distanceTransform(plane, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.asarray(np.rint(np.square(pixels)), np.float64) * pixel_mm**2

"""Connected pieces of a mask."""

import numpy as np
import numpy.typing as npt

from oarlock.arrays import Mask


def to_pieces(mask: Mask, *, corners: bool = False) -> tuple[npt.NDArray[np.int32], int]:
    """Number the connected pieces of a mask.

    :param mask: of any number of axes.
    :param corners: whether voxels that touch at an edge or a corner are connected too, and not only those that share a face.
    :returns: an array of the same shape, 0 outside of the mask and from 1 in its pieces; and how many pieces there are.
    """
    from scipy import ndimage  # a tenth of the service's imports, which it needs for pictures alone

    neighbours = ndimage.generate_binary_structure(mask.ndim, mask.ndim if corners else 1)
    labels, count = ndimage.label(mask, neighbours)
    return np.asarray(labels, dtype=np.int32), int(count)


def largest_piece(mask: Mask) -> Mask:
    """The piece with the most voxels, the first of equals.

    Voxels that share a face are connected.

    :param mask: of any number of axes.
    :returns: a mask of the same shape; all False if the mask is.
    """
    labels, count = to_pieces(mask)
    if count == 0:
        return np.zeros_like(mask)
    return np.asarray(labels == int(np.argmax(np.bincount(labels.ravel())[1:])) + 1, np.bool_)

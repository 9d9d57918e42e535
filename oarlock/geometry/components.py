"""Pieces: the connected parts of a mask."""

import numpy as np
from scipy import ndimage

from oarlock.geometry.masks import Mask


def largest_piece(mask: Mask) -> Mask:
    """The piece with the most voxels, of those alike the first; voxels that share a face (an edge, in a plane) are connected.

    :param mask: of any number of axes.
    :returns: a mask of the same shape; all False if the mask is.
    """
    labels, count = ndimage.label(mask)
    if count == 0:
        return np.zeros_like(mask)
    return np.asarray(labels == int(np.argmax(np.bincount(labels.ravel())[1:])) + 1, np.bool_)

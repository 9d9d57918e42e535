"""What is compared of two masks without a surface.

Volumes, slices, centres and paths, on one lattice.
"""

import numpy as np

from oarlock.arrays import FloatArray, IndexArray, Mask
from oarlock.geometry.masks import voxels_per_slice
from oarlock.qa.lattice import Lattice


def volumetric_dsc(predicted: Mask, reference: Mask, *, lattice: Lattice) -> float:
    """Volumetric DSC, in [0, 1] (Nikolov et al. 2021, Methods).

    It is 2 |P ∩ R| / (|P| + |R|) by volume.

    :raises ValueError: if both masks are empty.
    """
    voxel_mm3 = lattice.voxel_volumes_mm3
    both = float(voxels_per_slice(predicted & reference) @ voxel_mm3)
    either = float((voxels_per_slice(predicted) + voxels_per_slice(reference)) @ voxel_mm3)
    if either == 0:
        raise ValueError("two empty masks have no overlap")
    return 2 * both / either


def volume_ml(voxels: IndexArray, *, lattice: Lattice) -> float:
    """Volume of (slices,) voxel counts, each slice with its own thickness."""
    return float(voxels @ lattice.voxel_volumes_mm3) / 1000


def one_sided_slice_share(predicted: IndexArray, reference: IndexArray) -> float:
    """Share of drawn slices that one side alone drew, in [0, 1].

    :param predicted, reference: (slices,) voxel counts, not all zero.
    """
    drawn, expected = predicted > 0, reference > 0
    return float(np.count_nonzero(drawn ^ expected) / np.count_nonzero(drawn | expected))


def centre_mm(mask: Mask, *, lattice: Lattice) -> FloatArray:
    """(3,) centre of mass (z, y, x) in mm.

    Seen from the lattice's first voxel.

    :raises ValueError: if the mask is empty.
    """
    weights = voxels_per_slice(mask) * lattice.thicknesses_mm
    if not weights.any():
        raise ValueError("an empty mask has no centre")
    rows, columns = mask.sum(axis=2, dtype=np.float64), mask.sum(axis=1, dtype=np.float64)
    y = lattice.thicknesses_mm @ (rows @ np.arange(mask.shape[1]))
    x = lattice.thicknesses_mm @ (columns @ np.arange(mask.shape[2]))
    in_plane = np.array([0.0, y * lattice.row_spacing_mm, x * lattice.column_spacing_mm])
    return np.asarray((weights @ lattice.slice_offsets_mm + in_plane) / weights.sum())


def added_path_length_mm(predicted: Mask, reference: Mask, *, lattice: Lattice) -> float:
    """Length of the reference's contours that the predicted ones lack, in mm.

    Of the pieces together.

    On each axial slice, the pixels of the reference's contour (in the mask, one of the four neighbours outside) that are not
    pixels of the predicted contour, counted, times the pixel's size (the mean of the two in-plane spacings). With a reference
    that was made by correcting the prediction it is the length that was drawn anew (Vaassen et al. 2020, doi
    10.1016/j.phro.2019.12.001, with no tolerance). It is not symmetric: what had only to be deleted does not count.
    """
    added = np.count_nonzero(contour_pixels(reference) & ~contour_pixels(predicted))
    return float(added * (lattice.row_spacing_mm + lattice.column_spacing_mm) / 2)


def contour_pixels(mask: Mask) -> Mask:
    """(z, y, x) the pixels of a mask on its edge.

    They have an outside neighbour above, below, left or right on their slice.
    """
    inner = np.zeros_like(mask)
    inside = inner[:, 1:-1, 1:-1]
    np.logical_and(mask[:, :-2, 1:-1], mask[:, 2:, 1:-1], out=inside)
    inside &= mask[:, 1:-1, :-2]
    inside &= mask[:, 1:-1, 2:]
    return mask & ~inner

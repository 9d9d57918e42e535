"""What an organ consists of on the CT.

The share of its voxels whose Hounsfield units are those of its tissue.

Contours are compared with each other by :mod:`oarlock.qa.organ_shape`; only the CT tells when all of them are misplaced together.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from oarlock.arrays import Mask
from oarlock.geometry.masks import Crop, voxels_per_slice
from oarlock.organs.catalogue import OAR
from oarlock.organs.norms import TissueNorm, TissueRange


@dataclass(frozen=True, slots=True)
class Composition:
    """Shares of an organ's voxels, in [0, 1].

    Of its tissue, and below and above that tissue's Hounsfield units.

    :param voxels: how many were measured.
    :param off_by_slice: of each slice of the organ's box, how many are not of its tissue.
    """

    voxels: int
    share: float
    lighter: float
    denser: float
    off_by_slice: tuple[int, ...] = ()


def composition_of(values: npt.NDArray[np.int16], tissue: TissueRange) -> Composition:
    """The composition of an organ's voxels by Hounsfield units.

    There must be at least one voxel.
    """
    lighter, denser = int(np.count_nonzero(values < tissue.low_hu)), int(np.count_nonzero(values > tissue.high_hu))
    return Composition(values.size, (values.size - lighter - denser) / values.size, lighter / values.size, denser / values.size)


def compositions(hu: npt.NDArray[np.int16], crops: Mapping[OAR, Crop], norms: Mapping[str, TissueNorm]) -> dict[OAR, Composition]:
    """The composition of each organ.

    :param hu: (z, y, x) Hounsfield units of the grid that the crops lie in.
    """
    return {oar: _by_slice(hu[box], mask, norms[oar.name].tissue) for oar, (box, mask) in crops.items()}


def _by_slice(hu: npt.NDArray[np.int16], mask: Mask, tissue: TissueRange) -> Composition:
    off = mask & ((hu < tissue.low_hu) | (hu > tissue.high_hu))
    return replace(composition_of(hu[mask], tissue), off_by_slice=tuple(voxels_per_slice(off).tolist()))

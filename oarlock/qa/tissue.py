"""What an organ consists of on the CT.

The share of its voxels whose Hounsfield units are those of its tissue.

Contours are compared with each other by :mod:`oarlock.qa.organ_shape`; only the CT tells when all of them are misplaced together.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from oarlock.geometry.masks import Crop
from oarlock.organs.catalogue import OAR
from oarlock.organs.norms import TissueNorm, TissueRange


@dataclass(frozen=True, slots=True)
class Composition:
    """Shares of an organ's voxels, in [0, 1].

    Of its tissue, and below and above that tissue's Hounsfield units.

    :param voxels: how many were measured.
    """

    voxels: int
    share: float
    lighter: float
    denser: float


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
    return {oar: composition_of(hu[box][mask], norms[oar.name].tissue) for oar, (box, mask) in crops.items()}

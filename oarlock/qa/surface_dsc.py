"""Surface DSC, and every other distance of two surfaces.

How far apart the surfaces of two masks lie.

An element's distance to the other surface is that to the nearest of its elements. All numbers agree with
google-deepmind/surface-distance 0.1 to 1e-6 (a test says so). Predicted is what was drawn by the machine, reference what it is
measured against. Nothing here is NaN or infinite: where a number is not defined (a mask is empty) the function raises
``ValueError``, and :mod:`oarlock.qa.report` asks first and gives the reason.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np

from oarlock.arrays import FloatArray, IndexArray, Mask
from oarlock.qa.lattice import Lattice
from oarlock.qa.surface import SurfaceElements

ALLOWANCE_MM: Final = 1e-6
"""Added to a rounded tolerance when distances are compared with it: both are sums of the same spacings, so the last digit must
not decide."""

_SHARE_ALLOWANCE: Final = 1e-9


@dataclass(frozen=True, eq=False)
class OneWay:
    """How far each element of one surface is from the other.

    And its area.

    Elements that both surfaces share are only counted by their area.

    :param distances_mm: (n,) float64 of the elements that are not shared, in no order; each is positive.
    :param areas_mm2: (n,) of the same elements.
    :param raster: (n, 3) where the same elements lie: raster point (z, y, x) is the corner that voxel (z, y, x) shares with
        voxel (z - 1, y - 1, x - 1).
    :param shared_mm2: area of the elements whose distance is zero.
    """

    distances_mm: FloatArray
    areas_mm2: FloatArray
    raster: IndexArray
    shared_mm2: float

    @cached_property
    def area_mm2(self) -> float:
        """Area of the whole surface."""
        return self.shared_mm2 + float(self.areas_mm2.sum())

    def within_mm2(self, tolerance_mm: float) -> float:
        """Area of the elements within a tolerance of the other surface.

        The tolerance is inclusive.
        """
        if tolerance_mm < 0:
            return 0.0
        return self.shared_mm2 + float(self.areas_mm2[self.distances_mm <= tolerance_mm].sum())

    def mean_mm(self) -> float:
        """Mean distance, weighted by area."""
        return float(self.distances_mm @ self.areas_mm2) / self.area_mm2

    def percentile_mm(self, percent: float) -> float:
        """The distance that ``percent`` of the surface does not exceed.

        The smallest one that at least so much of the surface does not; ``percent`` is at most 100.
        """
        wanted = (percent / 100 - _SHARE_ALLOWANCE) * self.area_mm2 - self.shared_mm2
        if wanted <= 0:
            return 0.0
        order = np.argsort(self.distances_mm)
        place = int(np.searchsorted(np.cumsum(self.areas_mm2[order]), wanted))
        return float(self.distances_mm[order[min(place, order.size - 1)]])  # a rounded sum may end below what is wanted


@dataclass(frozen=True, eq=False)
class SurfaceDistances:
    """The distances between the surfaces of two masks, both ways.

    All surface metrics follow from them.
    """

    predicted: OneWay
    reference: OneWay

    def surface_dsc(self, tolerance_mm: float) -> float:
        """Share of the two surfaces within a tolerance, in [0, 1].

        Of each other.

        (|S_p ∩ B_r| + |S_r ∩ B_p|) / (|S_p| + |S_r|), where B is the border region of the other surface at this tolerance
        (Nikolov et al. 2021, Methods, "Performance Metrics"). The tolerance is used as it is, inclusive.
        """
        within = self.predicted.within_mm2(tolerance_mm) + self.reference.within_mm2(tolerance_mm)
        return within / (self.predicted.area_mm2 + self.reference.area_mm2)

    def hausdorff_mm(self, percent: float) -> float:
        """Robust Hausdorff distance in mm.

        The larger of the two directions' percentiles, by area; 100 gives the maximum.
        """
        return max(self.predicted.percentile_mm(percent), self.reference.percentile_mm(percent))

    def mean_mm(self) -> float:
        """Mean distance of the two surfaces in mm.

        The mean of the two directed means, each weighted by the area of its own surface.
        """
        return (self.predicted.mean_mm() + self.reference.mean_mm()) / 2


def surface_distances(predicted: Mask, reference: Mask, *, lattice: Lattice) -> SurfaceDistances:
    """Distances between the surfaces of two masks, exact to float64.

    What lies outside of the arrays is background, so a mask that touches their edge is closed there. With equal steps between
    slices the distances are computed from whole numbers of voxels, as an exact distance transform does; with unequal ones from
    the slices' true positions.

    :param predicted, reference: (z, y, x) masks of one shape, neither of them empty; best cropped to their common box.
    :param lattice: of the arrays' slices.
    :raises ValueError: if the shapes differ or a mask is empty.
    """
    if predicted.shape != reference.shape or len(lattice.slice_offsets_mm) != predicted.shape[0]:
        raise ValueError("the two masks and the lattice must have one shape")
    ours, theirs = SurfaceElements.of(predicted, lattice), SurfaceElements.of(reference, lattice)
    if ours.places.size == 0 or theirs.places.size == 0:
        raise ValueError("an empty mask has no surface")
    return SurfaceDistances(_one_way(ours, theirs), _one_way(theirs, ours))


def _one_way(own: SurfaceElements, other: SurfaceElements) -> OneWay:
    codes_there = other.codes.ravel()[own.places]
    shared = (codes_there - np.uint8(1)) < 254
    apart = own.places[~shared]
    shared_mm2 = float(own.areas_mm2(own.places[shared]).sum())
    raster = own.indices(apart)
    return OneWay(_nearest_mm(raster, other), own.areas_mm2(apart), raster, shared_mm2)


def _nearest_mm(indices: IndexArray, other: SurfaceElements) -> FloatArray:
    """(n,) distances to the nearest element of the other surface."""
    if len(indices) == 0:
        return np.empty(0)
    elements = other.indices(other.places)
    from scipy.spatial import cKDTree  # a tenth of the service's imports, and the service itself compares nothing

    tree = cKDTree(other.positions_mm(elements), balanced_tree=False, compact_nodes=False)
    _, nearest = tree.query(other.positions_mm(indices))
    # Once more from the whole numbers between the two points: the tree's own distance is a difference of large positions,
    # and its last digit may fall on the wrong side of a tolerance that equals a spacing.
    return other.distances_mm(indices, elements[nearest])

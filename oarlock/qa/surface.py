"""The surface of a mask as elements with place and area.

The surface lies between the voxels. As in Nikolov et al. 2021 (Methods, "Implementation of Surface DSC") it is cut into elements,
one for each point of the raster that is shifted by half a voxel along each axis: such a point has eight voxels around it, and
where they are not all equal, marching cubes draws a few triangles between them. Their area is the element's area.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from oarlock.arrays import FloatArray, IndexArray, Mask
from oarlock.qa.lattice import Lattice, lengths
from oarlock.qa.marching_cubes import triangles


def element_areas_mm2(cell_mm: FloatArray) -> FloatArray:
    """(256,) area of a surface element for each constellation, in mm².

    Of the eight voxels around its raster point.

    :param cell_mm: (3, 3) rows: the steps to the next slice, row and column, each (z, y, x) in mm.
    :returns: (256,) mm²; the index has the voxel (0, 0, 0) as its highest bit and (1, 1, 1) as its lowest.
    """
    return _element_areas(tuple(float(value) for value in cell_mm.ravel()))


@lru_cache(maxsize=512)
def _element_areas(cell: tuple[float, ...]) -> FloatArray:
    cell_mm = np.array(cell).reshape(3, 3)
    areas = np.array([_area(corners @ cell_mm) for corners in triangles()])
    areas.setflags(write=False)
    return areas


def _area(corners: FloatArray) -> float:
    sides = corners[:, 1:] - corners[:, :1]
    return float(np.linalg.norm(np.cross(sides[:, 0], sides[:, 1]), axis=1).sum()) / 2


@dataclass(frozen=True, eq=False)
class SurfaceElements:
    """The surface elements of one mask on its raster.

    The raster has one more point than the mask along each axis.

    :param codes: (z + 1, y + 1, x + 1) constellation of the eight voxels around each raster point.
    :param places: flat indices of the raster points that are elements.
    """

    codes: npt.NDArray[np.uint8]
    places: IndexArray
    lattice: Lattice

    @classmethod
    def of(cls, mask: Mask, lattice: Lattice) -> "SurfaceElements":
        """The elements of a (z, y, x) mask.

        What lies outside of the array is background.
        """
        codes = _codes(mask)
        places = np.flatnonzero((codes - np.uint8(1)) < 254)
        return cls(codes, places, lattice)

    def indices(self, places: IndexArray) -> IndexArray:
        """(n, 3) raster indices."""
        return np.stack(np.unravel_index(places, self.codes.shape), axis=1)

    def positions_mm(self, indices: IndexArray) -> FloatArray:
        """(n, 3) positions of raster points."""
        return np.asarray(self.lattice.layers_mm[indices[:, 0]] + indices[:, 1:] @ self.lattice.in_plane_mm)

    def distances_mm(self, indices: IndexArray, others: IndexArray) -> FloatArray:
        """(n,) distances from raster points to others."""
        if self.lattice.step_mm is None:
            return lengths(self.positions_mm(indices) - self.positions_mm(others))
        cell = np.vstack([self.lattice.step_mm, self.lattice.in_plane_mm])
        return lengths(np.asarray((indices - others) @ cell, dtype=np.float64))

    def areas_mm2(self, places: IndexArray) -> FloatArray:
        """(n,) areas of the elements at these places."""
        gaps, layer = np.unique(self.lattice.gaps_mm, axis=0, return_inverse=True)
        tables = np.stack([element_areas_mm2(np.vstack([gap, self.lattice.in_plane_mm])) for gap in gaps])
        codes = self.codes.ravel()[places]
        if len(gaps) == 1:
            return np.asarray(tables[0, codes])
        return np.asarray(tables[layer[places // self.codes[0].size], codes])


def _codes(mask: Mask) -> npt.NDArray[np.uint8]:
    """The 256 constellations, one for each point of the raster: (z + 1, y + 1, x + 1), 0 and 255 inside and outside."""
    voxels = np.zeros(tuple(n + 2 for n in mask.shape), dtype=np.uint8)
    voxels[1:-1, 1:-1, 1:-1] = mask
    along_x = voxels[:, :, :-1] << 1 | voxels[:, :, 1:]
    along_y = along_x[:, :-1] << 2 | along_x[:, 1:]
    return np.asarray(along_y[:-1] << 4 | along_y[1:])

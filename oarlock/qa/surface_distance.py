"""Surface elements of two masks, the distances between them, and every number that compares one mask with another.

The surface of a mask lies between its voxels. As in Nikolov et al. 2021 (Methods, "Implementation of Surface DSC") it is cut into
elements, one for each point of the raster that is shifted by half a voxel along each axis: such a point has eight voxels around
it, and where they are not all equal, marching cubes (Lorensen and Cline 1987) draws a few triangles between them. Their area is
the element's area, and the distance of one surface's element to the other surface is the distance to the nearest point of the
raster that is an element of it. All numbers agree with google-deepmind/surface-distance 0.1 to 1e-6 (a test says so).

Arrays are (z, y, x) and so are vectors: millimetres along the slices' normal, down a column and along a row. Predicted is what
was drawn by the machine, reference what it is measured against. Nothing here is NaN or infinite: where a number is not defined
(a mask is empty) the function raises ``ValueError``, and :mod:`oarlock.qa.report` asks first and gives the reason.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import product
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from oarlock.arrays import FloatArray, Mask
from oarlock.geometry.grid import Grid

ZYX = tuple[float, float, float]
Corner = tuple[int, int, int]

ALLOWANCE_MM: Final = 1e-6
"""Added to a rounded tolerance when distances are compared with it: both are sums of the same spacings, so the last digit must
not decide."""

UNIFORM_WITHIN: Final = 0.01
"""Slice steps that differ by less than this share of a step count as equal: positions in DICOM files are rounded decimals."""

_SHARE_ALLOWANCE: Final = 1e-9


# ── where the voxels lie ──────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, eq=False)
class Lattice:
    """Where the voxels of a stack of slices lie, seen from the first voxel of the whole series.

    :param slice_offsets_mm: (slices, 3) position (z, y, x) of each slice's first voxel: (0, 0, 0), (step, 0, 0), … for an upright
        stack; y and x are not zero under a gantry tilt. z grows.
    :param thicknesses_mm: (slices,) extent along z that each slice stands for.
    :param step_mm: (3,) from each slice's first voxel to the next one's, or None where the slices are not evenly spaced.
    :param row_spacing_mm, column_spacing_mm: distance between rows (y) and between columns (x).
    """

    slice_offsets_mm: FloatArray
    thicknesses_mm: FloatArray
    step_mm: FloatArray | None
    row_spacing_mm: float
    column_spacing_mm: float

    @classmethod
    def upright(cls, slices: int, spacing_mm: ZYX) -> "Lattice":
        """Slices exactly above each other at equal distances: what a mask with three spacings means."""
        step = np.array([spacing_mm[0], 0.0, 0.0])
        offsets, thicknesses = np.arange(slices)[:, None] * step, np.full(slices, spacing_mm[0])
        return cls(offsets, thicknesses, step, spacing_mm[1], spacing_mm[2])

    @classmethod
    def of(cls, grid: Grid) -> "Lattice":
        """The voxels of a series. Steps that are equal to 1 % count as equal."""
        axes = np.stack([grid.normal, grid.column_direction, grid.row_direction], axis=1)
        # A millionth of a micrometre: what is left of a step like 2.5 mm after two positions are subtracted is made 2.5 again.
        offsets = np.round((grid.origins_mm - grid.origins_mm[0]) @ axes, 9)
        steps = np.diff(offsets, axis=0)
        step = np.round(np.median(steps, axis=0), 9) if len(steps) else np.array([grid.spacing_mm[0], 0.0, 0.0])
        even = bool(np.all(np.abs(steps - step) <= UNIFORM_WITHIN * float(np.linalg.norm(step))))
        thicknesses = np.full(len(offsets), step[0]) if even else grid.slice_thicknesses_mm
        return cls(offsets, thicknesses, step if even else None, grid.row_spacing_mm, grid.column_spacing_mm)

    @property
    def slices(self) -> int:
        """How many slices there are."""
        return len(self.slice_offsets_mm)

    def between(self, start: int, stop: int) -> "Lattice":
        """The part of it from one slice up to, not including, another."""
        part = slice(start, stop)
        return replace(self, slice_offsets_mm=self.slice_offsets_mm[part], thicknesses_mm=self.thicknesses_mm[part])

    @cached_property
    def voxel_volumes_mm3(self) -> FloatArray:
        """(slices,) volume of one voxel of each slice."""
        return self.thicknesses_mm * (self.row_spacing_mm * self.column_spacing_mm)

    @cached_property
    def gaps_mm(self) -> FloatArray:
        """(slices + 1, 3) the step over each layer of surface elements: below the first slice, between slices, above the last."""
        if self.step_mm is not None:
            return np.broadcast_to(self.step_mm, (len(self.slice_offsets_mm) + 1, 3))
        steps = np.diff(self.slice_offsets_mm, axis=0)
        below, above = (steps[:1], steps[-1:]) if len(steps) else 2 * (self.thicknesses_mm[:, None] * np.array([[1.0, 0, 0]]),)
        return np.concatenate([below, steps, above])

    @cached_property
    def layers_mm(self) -> FloatArray:
        """(slices + 1, 3) the positions of the layers of surface elements, half way between the slices."""
        below = self.slice_offsets_mm[:1] - self.gaps_mm[:1]
        return np.concatenate([below, self.slice_offsets_mm]) + self.gaps_mm / 2

    @cached_property
    def in_plane_mm(self) -> FloatArray:
        """(2, 3) rows: the step from row to row, and from column to column."""
        return np.array([[0.0, self.row_spacing_mm, 0.0], [0.0, 0.0, self.column_spacing_mm]])


# ── the area of a surface element ─────────────────────────────────────────────────────────────────────────────────────

_CORNERS: Final[tuple[Corner, ...]] = tuple((z, y, x) for z, y, x in product((0, 1), repeat=3))
"""The eight voxels around a raster point; the first one is the highest bit of its code, the last one the lowest."""


@lru_cache(maxsize=1)
def _triangles() -> tuple[FloatArray, ...]:
    """For each of the 256 codes the marching-cubes triangles, (n, 3, 3) corner points on the unit cube.

    The rules, which give the classic table (Lorensen and Cline 1987, Figure 3, with its complementary cases):

    1. A cube with more than four voxels inside is drawn like its complement.
    2. The surface crosses each edge between inside and outside at its middle. On each face of the cube, each run of inside
       corners is cut off by one straight line; on a face with two opposite inside corners each is cut off by itself.
    3. These lines close to polygons. Each is cut into triangles that share one of its points: the point for which their
       area on the unit cube is largest (the triangle of three parallel edges of case 5, the inner diagonals of case 11).
    """
    return tuple(_triangulate(_inside(code)) for code in range(256))


def _inside(code: int) -> frozenset[Corner]:
    inside = frozenset(corner for bit, corner in enumerate(_CORNERS) if code & (128 >> bit))
    return inside if len(inside) <= 4 else frozenset(_CORNERS) - inside


def _triangulate(inside: frozenset[Corner]) -> FloatArray:
    fans = [max(_fans(polygon), key=lambda fan: round(_area(fan), 9)) for polygon in _polygons(inside)]
    return np.concatenate([*fans, np.empty((0, 3, 3))])


def _faces() -> Iterable[list[Corner]]:
    """The four corners of each face, in a circle."""
    for axis, side in product(range(3), (0, 1)):
        circle = np.insert([(0, 0), (0, 1), (1, 1), (1, 0)], axis, side, axis=1)
        yield [(int(z), int(y), int(x)) for z, y, x in circle]


def _polygons(inside: frozenset[Corner]) -> list[FloatArray]:
    """The closed polygons that cut the inside corners off, (n, 3) points each."""
    neighbours: dict[tuple[float, ...], list[tuple[float, ...]]] = {}
    for face in _faces():
        for first in range(4):
            if face[first] in inside and face[first - 1] not in inside:
                last = first
                while face[(last + 1) % 4] in inside:
                    last += 1
                ends = _middle(face[first - 1], face[first]), _middle(face[last % 4], face[(last + 1) % 4])
                neighbours.setdefault(ends[0], []).append(ends[1])
                neighbours.setdefault(ends[1], []).append(ends[0])
    polygons = []
    while neighbours:
        polygon = [next(iter(neighbours))]
        while onward := [point for point in neighbours.pop(polygon[-1]) if point in neighbours]:
            polygon.append(onward[0])
        polygons.append(np.array(polygon))
    return polygons


def _middle(a: Corner, b: Corner) -> tuple[float, ...]:
    return tuple((p + q) / 2 for p, q in zip(a, b, strict=True))


def _fans(polygon: FloatArray) -> list[FloatArray]:
    """The ways to cut a polygon into triangles around one of its points, (n - 2, 3, 3) each."""
    turns = [np.roll(polygon, -start, axis=0) for start in range(len(polygon))]
    return [np.stack([np.broadcast_to(p[0], p[1:-1].shape), p[1:-1], p[2:]], axis=1) for p in turns]


def _area(triangles: FloatArray) -> float:
    sides = triangles[:, 1:] - triangles[:, :1]
    return float(np.linalg.norm(np.cross(sides[:, 0], sides[:, 1]), axis=1).sum()) / 2


def element_areas_mm2(cell_mm: FloatArray) -> FloatArray:
    """The area of a surface element for each of the 256 constellations of the eight voxels around its raster point.

    :param cell_mm: (3, 3) rows: the steps to the next slice, row and column, each (z, y, x) in mm.
    :returns: (256,) mm²; the index has the voxel (0, 0, 0) as its highest bit and (1, 1, 1) as its lowest.
    """
    return _element_areas(tuple(float(value) for value in cell_mm.ravel()))


@lru_cache(maxsize=512)
def _element_areas(cell: tuple[float, ...]) -> FloatArray:
    cell_mm = np.array(cell).reshape(3, 3)
    areas = np.array([_area(triangles @ cell_mm) for triangles in _triangles()])
    areas.setflags(write=False)
    return areas


# ── distances between two surfaces ────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, eq=False)
class OneWay:
    """All elements of one surface: how far each is from the other surface, and its area.

    Elements that both surfaces share are only counted by their area.

    :param distances_mm: (n,) float64 of the elements that are not shared, in no order; each is positive.
    :param areas_mm2: (n,) of the same elements.
    :param shared_mm2: area of the elements whose distance is zero.
    """

    distances_mm: FloatArray
    areas_mm2: FloatArray
    shared_mm2: float

    @cached_property
    def area_mm2(self) -> float:
        """Area of the whole surface."""
        return self.shared_mm2 + float(self.areas_mm2.sum())

    def within_mm2(self, tolerance_mm: float) -> float:
        """Area of the elements that lie within a tolerance (inclusive) of the other surface."""
        if tolerance_mm < 0:
            return 0.0
        return self.shared_mm2 + float(self.areas_mm2[self.distances_mm <= tolerance_mm].sum())

    def mean_mm(self) -> float:
        """Mean distance, weighted by area."""
        return float(self.distances_mm @ self.areas_mm2) / self.area_mm2

    def percentile_mm(self, percent: float) -> float:
        """The smallest distance that at least ``percent`` of the surface does not exceed."""
        wanted = (percent / 100 - _SHARE_ALLOWANCE) * self.area_mm2 - self.shared_mm2
        if wanted <= 0 or self.distances_mm.size == 0:
            return 0.0
        order = np.argsort(self.distances_mm)
        place = int(np.searchsorted(np.cumsum(self.areas_mm2[order]), wanted))
        return float(self.distances_mm[order[min(place, order.size - 1)]])


@dataclass(frozen=True, eq=False)
class SurfaceDistances:
    """The distances between the surfaces of two masks, both ways: the one thing from which all surface metrics follow."""

    predicted: OneWay
    reference: OneWay

    def surface_dsc(self, tolerance_mm: float) -> float:
        """Share of the two surfaces that lie within a tolerance of each other, in [0, 1].

        (|S_p ∩ B_r| + |S_r ∩ B_p|) / (|S_p| + |S_r|), where B is the border region of the other surface at this tolerance
        (Nikolov et al. 2021, Methods, "Performance Metrics"). The tolerance is used as it is, inclusive.
        """
        within = self.predicted.within_mm2(tolerance_mm) + self.reference.within_mm2(tolerance_mm)
        return within / (self.predicted.area_mm2 + self.reference.area_mm2)

    def hausdorff_mm(self, percent: float = 95.0) -> float:
        """Robust Hausdorff distance: the larger of the two directions' percentiles, by area; 100 gives the maximum."""
        return max(self.predicted.percentile_mm(percent), self.reference.percentile_mm(percent))

    def mean_mm(self) -> float:
        """Mean of the two directed mean distances, each weighted by the area of its own surface."""
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
    ours, theirs = _Elements.of(predicted, lattice), _Elements.of(reference, lattice)
    if ours.places.size == 0 or theirs.places.size == 0:
        raise ValueError("an empty mask has no surface")
    return SurfaceDistances(_one_way(ours, theirs), _one_way(theirs, ours))


@dataclass(frozen=True, eq=False)
class _Elements:
    """The surface elements of one mask on the raster that has one more point than the mask along each axis."""

    codes: npt.NDArray[np.uint8]
    places: npt.NDArray[np.intp]
    lattice: Lattice

    @classmethod
    def of(cls, mask: Mask, lattice: Lattice) -> "_Elements":
        codes = _codes(mask)
        places = np.flatnonzero((codes - np.uint8(1)) < 254)
        return cls(codes, places, lattice)

    def indices(self, places: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
        """(n, 3) raster indices."""
        return np.stack(np.unravel_index(places, self.codes.shape), axis=1)

    def positions_mm(self, indices: npt.NDArray[np.intp]) -> FloatArray:
        """(n, 3) positions of raster points."""
        return np.asarray(self.lattice.layers_mm[indices[:, 0]] + indices[:, 1:] @ self.lattice.in_plane_mm)

    def distances_mm(self, indices: npt.NDArray[np.intp], others: npt.NDArray[np.intp]) -> FloatArray:
        """(n,) distances from raster points to others."""
        if self.lattice.step_mm is None:
            return _lengths(self.positions_mm(indices) - self.positions_mm(others))
        cell = np.vstack([self.lattice.step_mm, self.lattice.in_plane_mm])
        return _lengths(np.asarray((indices - others) @ cell, dtype=np.float64))

    def areas_mm2(self, places: npt.NDArray[np.intp]) -> FloatArray:
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


def _one_way(own: _Elements, other: _Elements) -> OneWay:
    codes_there = other.codes.ravel()[own.places]
    shared = (codes_there - np.uint8(1)) < 254
    apart = own.places[~shared]
    shared_mm2 = float(own.areas_mm2(own.places[shared]).sum())
    return OneWay(_nearest_mm(own.indices(apart), other), own.areas_mm2(apart), shared_mm2)


def _nearest_mm(indices: npt.NDArray[np.intp], other: _Elements) -> FloatArray:
    """(n,) distances to the nearest element of the other surface."""
    if len(indices) == 0:
        return np.empty(0)
    elements = other.indices(other.places)
    tree = cKDTree(other.positions_mm(elements), balanced_tree=False, compact_nodes=False)
    _, nearest = tree.query(other.positions_mm(indices))
    # Once more from the whole numbers between the two points: the tree's own distance is a difference of large positions,
    # and its last digit may fall on the wrong side of a tolerance that equals a spacing.
    return other.distances_mm(indices, elements[nearest])


def _lengths(vectors: FloatArray) -> FloatArray:
    return np.sqrt(vectors[:, 0] ** 2 + vectors[:, 1] ** 2 + vectors[:, 2] ** 2)


# ── the tolerance ─────────────────────────────────────────────────────────────────────────────────────────────────────


def rounded_tolerance_mm(tolerance_mm: float, lattice: Lattice) -> float | None:
    """The tolerance rounded to the nearest distance that two voxels of this lattice can have.

    D = {√((n₁d₁)² + (n₂d₂)² + (n₃d₃)²) | n ∈ ℕ} (Nikolov et al. 2021, Methods: "we also rounded the tolerance to the nearest
    neighbor in set D for each image"). Of two equally near values the smaller is taken.

    :returns: None where slices are not evenly spaced: there the set depends on the place.
    """
    if lattice.step_mm is None:
        return None
    steps = math.ceil(tolerance_mm / lattice.step_mm[0]) + 1
    reaches = [
        math.ceil((tolerance_mm + steps * abs(shift)) / spacing) + 1
        for shift, spacing in zip(lattice.step_mm[1:], (lattice.row_spacing_mm, lattice.column_spacing_mm), strict=True)
    ]
    counts = np.arange(steps + 1), *(np.arange(-reach, reach + 1) for reach in reaches)
    points = np.stack(np.meshgrid(*counts, indexing="ij"), axis=-1).reshape(-1, 3)
    distances = np.unique(_lengths(points @ np.vstack([lattice.step_mm, lattice.in_plane_mm])))
    return float(distances[np.argmin(np.abs(distances - tolerance_mm))])


# ── volumes, slices, paths ────────────────────────────────────────────────────────────────────────────────────────────


def volumetric_dsc(predicted: Mask, reference: Mask, *, lattice: Lattice) -> float:
    """2 |P ∩ R| / (|P| + |R|) by volume, in [0, 1] (Nikolov et al. 2021, Methods).

    :raises ValueError: if both masks are empty.
    """
    return sparse_volumetric_dsc([(predicted, reference, np.ones(len(predicted), dtype=np.bool_), lattice)])


def sparse_volumetric_dsc(cases: Iterable[tuple[Mask, Mask, npt.NDArray[np.bool_], Lattice]]) -> float:
    """The paper's estimate where only some slices are labelled: 2 Σ|P ∩ R ∩ L| / Σ(|R ∩ L| + |P ∩ L|), in [0, 1].

    :param cases: one (predicted, reference, labelled, lattice) a patient; ``labelled`` (slices,) says which slices the reference
        was drawn on. The sums run over the patients before the division (Nikolov et al. 2021, Methods): a mean of the
        patients' own coefficients would weigh a patient with one labelled slice like one with a hundred.
    :raises ValueError: if nothing is drawn on any labelled slice.
    """
    both = either = 0.0
    for predicted, reference, labelled, lattice in cases:
        voxel_mm3 = lattice.voxel_volumes_mm3 * labelled
        both += float(voxels_per_slice(predicted & reference) @ voxel_mm3)
        either += float((voxels_per_slice(predicted) + voxels_per_slice(reference)) @ voxel_mm3)
    if either == 0:
        raise ValueError("two empty masks have no overlap")
    return 2 * both / either


def voxels_per_slice(mask: Mask) -> npt.NDArray[np.intp]:
    """(slices,) number of voxels of each slice."""
    return np.array([np.count_nonzero(image) for image in mask], dtype=np.intp)


def volume_ml(voxels: npt.NDArray[np.intp], *, lattice: Lattice) -> float:
    """Volume of (slices,) voxel counts, each slice with its own thickness."""
    return float(voxels @ lattice.voxel_volumes_mm3) / 1000


def one_sided_slice_share(predicted: npt.NDArray[np.intp], reference: npt.NDArray[np.intp]) -> float:
    """Share of the slices with anything drawn on which only one side drew, in [0, 1].

    :param predicted, reference: (slices,) voxel counts, not all zero.
    """
    drawn, expected = predicted > 0, reference > 0
    return float(np.count_nonzero(drawn ^ expected) / np.count_nonzero(drawn | expected))


def centre_mm(mask: Mask, *, lattice: Lattice) -> FloatArray:
    """(3,) centre of mass (z, y, x), seen from the lattice's first voxel.

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
    """How long the pieces of the reference's contours are that the predicted contours lack.

    On each axial slice, the pixels of the reference's contour (in the mask, one of the four neighbours outside) that are not
    pixels of the predicted contour, counted, times the pixel's size (the mean of the two in-plane spacings). With a reference
    that was made by correcting the prediction it is the length that was drawn anew (Vaassen et al. 2020, doi
    10.1016/j.phro.2019.12.001, with no tolerance). It is not symmetric: what had only to be deleted does not count.
    """
    added = np.count_nonzero(contour_pixels(reference) & ~contour_pixels(predicted))
    return float(added * (lattice.row_spacing_mm + lattice.column_spacing_mm) / 2)


def contour_pixels(mask: Mask) -> Mask:
    """(z, y, x) the pixels of a mask that have an outside neighbour above, below, left or right on their slice."""
    inner = np.zeros_like(mask)
    inside = inner[:, 1:-1, 1:-1]
    np.logical_and(mask[:, :-2, 1:-1], mask[:, 2:, 1:-1], out=inside)
    inside &= mask[:, 1:-1, :-2]
    inside &= mask[:, 1:-1, 2:]
    return mask & ~inner

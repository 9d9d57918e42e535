"""Every number that compares two masks of one organ.

Or that says of one side that it lacks the organ.

The definitions are those of :mod:`oarlock.qa.surface_dsc`, :mod:`oarlock.qa.volumes` and ``docs/qa.md``. A number that is not
defined is None here: never NaN, infinite, or a default.
"""

from dataclasses import dataclass, replace

import numpy as np

from oarlock.arrays import FloatArray, IndexArray, Mask
from oarlock.geometry.masks import Box, Crop, voxels_per_slice, within_box
from oarlock.qa.lattice import Lattice, rounded_tolerance_mm
from oarlock.qa.surface_dsc import ALLOWANCE_MM, OneWay, SurfaceDistances, surface_distances
from oarlock.qa.volumes import added_path_length_mm, centre_mm, one_sided_slice_share, volume_ml, volumetric_dsc


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What one mask is against another.

    Every field is a finite number, or None where it is not defined.

    Lengths are in mm, volumes in ml, shares and coefficients in [0, 1].
    """

    tolerance_rounded_mm: float | None = None
    surface_dsc: float | None = None
    surface_dsc_unrounded: float | None = None
    volumetric_dsc: float | None = None
    hausdorff_95_mm: float | None = None
    hausdorff_mm: float | None = None
    mean_surface_distance_mm: float | None = None
    mean_distance_predicted_to_reference_mm: float | None = None
    mean_distance_reference_to_predicted_mm: float | None = None
    added_path_length_mm: float | None = None
    predicted_volume_ml: float = 0.0
    reference_volume_ml: float = 0.0
    volume_ratio: float | None = None
    centre_distance_mm: float | None = None
    predicted_slices: int = 0
    reference_slices: int = 0
    one_sided_slice_share: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class FarSurface:
    """The elements of one surface beyond a tolerance.

    The tolerance is from the other surface.

    :param raster: (n, 3) raster points (z, y, x), as :class:`oarlock.qa.surface_dsc.OneWay` has them.
    :param distances_mm: (n,) from the other surface.
    """

    raster: IndexArray
    distances_mm: FloatArray

    @classmethod
    def of(cls, surface: OneWay, limit_mm: float, *, behind: tuple[int, int, int] = (0, 0, 0)) -> "FarSurface":
        """The part of a surface that lies further away than a limit.

        :param behind: where the arrays begin in those whose raster is wanted.
        """
        far = surface.distances_mm > limit_mm
        return cls(surface.raster[far] + np.array(behind), surface.distances_mm[far])


@dataclass(frozen=True, slots=True, eq=False)
class Beyond:
    """Where each of two surfaces lies beyond the tolerance.

    The one that ``surface_dsc`` was computed with.
    """

    predicted: FarSurface
    reference: FarSurface


def measure(predicted: Mask, reference: Mask, *, lattice: Lattice, tolerance_mm: float) -> Measured:
    """Every number for two masks of one organ.

    Only volumes and slices where one of them is empty.

    :param lattice: of the arrays' slices.
    """
    return _measure(predicted, reference, lattice=lattice, tolerance_mm=tolerance_mm)[0]


def _measure(
    predicted: Mask, reference: Mask, *, lattice: Lattice, tolerance_mm: float
) -> tuple[Measured, SurfaceDistances | None]:
    """The numbers, and the distances that they follow from where both masks have a surface."""
    drawn, expected = voxels_per_slice(predicted), voxels_per_slice(reference)
    amounts = Measured(
        predicted_volume_ml=volume_ml(drawn, lattice=lattice),
        reference_volume_ml=volume_ml(expected, lattice=lattice),
        predicted_slices=int(np.count_nonzero(drawn)),
        reference_slices=int(np.count_nonzero(expected)),
    )
    if not drawn.any() or not expected.any():
        return amounts, None
    distances = surface_distances(predicted, reference, lattice=lattice)
    rounded_mm = rounded_tolerance_mm(tolerance_mm, lattice)
    apart_mm = centre_mm(predicted, lattice=lattice) - centre_mm(reference, lattice=lattice)
    measured = replace(
        amounts,
        tolerance_rounded_mm=rounded_mm,
        surface_dsc=None if rounded_mm is None else distances.surface_dsc(rounded_mm + ALLOWANCE_MM),
        surface_dsc_unrounded=distances.surface_dsc(tolerance_mm),
        volumetric_dsc=volumetric_dsc(predicted, reference, lattice=lattice),
        hausdorff_95_mm=distances.hausdorff_mm(95),
        hausdorff_mm=distances.hausdorff_mm(100),
        mean_surface_distance_mm=distances.mean_mm(),
        mean_distance_predicted_to_reference_mm=distances.predicted.mean_mm(),
        mean_distance_reference_to_predicted_mm=distances.reference.mean_mm(),
        added_path_length_mm=added_path_length_mm(predicted, reference, lattice=lattice),
        volume_ratio=amounts.predicted_volume_ml / amounts.reference_volume_ml,
        centre_distance_mm=float(np.linalg.norm(apart_mm)),
        one_sided_slice_share=one_sided_slice_share(drawn, expected),
    )
    return measured, distances


def measure_crops(predicted: Crop | None, reference: Crop | None, *, lattice: Lattice, tolerance_mm: float) -> Measured:
    """Every number for one organ, each side in its own box.

    Cut out of the series; None for a side that is empty.

    :param lattice: of all slices of the series.
    """
    return compare_crops(predicted, reference, lattice=lattice, tolerance_mm=tolerance_mm)[0]


def compare_crops(
    predicted: Crop | None, reference: Crop | None, *, lattice: Lattice, tolerance_mm: float
) -> tuple[Measured, Beyond | None]:
    """:func:`measure_crops`, and where the surfaces are too far apart.

    None unless both sides have one.
    """
    boxes = [crop[0] for crop in (predicted, reference) if crop is not None]
    if not boxes:
        return Measured(), None
    union = _union(boxes[0], boxes[-1])
    # One slice more at each end: where the spacing is uneven, the gap to the next slice belongs to the surface.
    box = (slice(max(0, union[0].start - 1), min(lattice.slices, union[0].stop + 1)), union[1], union[2])
    part = lattice.between(box[0].start, box[0].stop)
    measured, distances = _measure(_pasted(predicted, box), _pasted(reference, box), lattice=part, tolerance_mm=tolerance_mm)
    if distances is None:
        return measured, None
    rounded_mm = measured.tolerance_rounded_mm
    limit_mm = tolerance_mm if rounded_mm is None else rounded_mm + ALLOWANCE_MM
    behind = (box[0].start, box[1].start, box[2].start)
    sides = (FarSurface.of(side, limit_mm, behind=behind) for side in (distances.predicted, distances.reference))
    return measured, Beyond(*sides)


def amounts_of(predicted: Crop | None, reference: Crop | None, *, lattice: Lattice) -> Measured:
    """Volumes and slices of each side alone, and nothing that compares them.

    :param lattice: of all slices of the series.
    """
    ours = measure_crops(predicted, None, lattice=lattice, tolerance_mm=0)
    theirs = measure_crops(None, reference, lattice=lattice, tolerance_mm=0)
    return replace(ours, reference_volume_ml=theirs.reference_volume_ml, reference_slices=theirs.reference_slices)


def _pasted(crop: Crop | None, box: Box) -> Mask:
    """An organ's mask in a box that its own box lies in."""
    mask = np.zeros([s.stop - s.start for s in box], dtype=np.bool_)
    if crop is not None:
        own, inside = crop
        mask[within_box(own, box)] = inside
    return mask


def _union(a: Box, b: Box) -> Box:
    z, y, x = (slice(min(p.start, q.start), max(p.stop, q.stop)) for p, q in zip(a, b, strict=True))
    return z, y, x

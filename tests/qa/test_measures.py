"""The numbers of one organ: of whole masks, of masks that were cut out of a series, and of one that is not there."""

from dataclasses import asdict

import numpy as np
import pytest

from oarlock.arrays import Mask
from oarlock.geometry.grid import Grid
from oarlock.geometry.masks import Box, Crop
from oarlock.qa.lattice import Lattice
from oarlock.qa.measures import FarSurface, Measured, compare_crops, measure, measure_crops
from oarlock.qa.surface_dsc import OneWay, surface_distances

HEIGHTS_MM = np.array([0, 2, 4, 7, 9, 12, 13, 17.0])
"""Unevenly spaced, so that a slice more or less is seen in areas and volumes."""

SHAPE = (8, 20, 21)

UNEVEN = Lattice.of(
    Grid(20, 21, HEIGHTS_MM[:, None] * np.array([0, 0, 1.0]), np.array([1.0, 0, 0]), np.array([0, 1.0, 0]), 1.1, 0.9)
)


def mask_of(box: Box) -> Mask:
    mask = np.zeros(SHAPE, dtype=np.bool_)
    mask[box] = True
    return mask


def crop_of(box: Box | None) -> Crop | None:
    return None if box is None else (box, np.ones([s.stop - s.start for s in box], dtype=np.bool_))


def close(a: Measured, b: Measured) -> bool:
    pairs = list(zip(asdict(a).values(), asdict(b).values(), strict=True))
    return all(x == y if x is None or y is None else x == pytest.approx(y, rel=1e-12) for x, y in pairs)


@pytest.mark.parametrize(
    ("predicted", "reference"),
    [
        (np.s_[3:5, 5:9, 4:11], np.s_[4:6, 3:8, 6:12]),
        (np.s_[4:6, 3:8, 6:12], np.s_[3:5, 5:9, 4:11]),
        (np.s_[0:2, 5:9, 4:11], np.s_[1:3, 5:9, 4:11]),
        (np.s_[6:8, 5:9, 4:11], np.s_[5:8, 5:9, 4:11]),
        (np.s_[1:2, 0:4, 0:3], np.s_[5:7, 16:20, 17:21]),
        (np.s_[2:3, 5:9, 4:11], np.s_[2:3, 5:9, 4:11]),
        (np.s_[5:7, 1:3, 0:2], np.s_[6:8, 1:4, 1:3]),
    ],
    ids=["above", "below", "on the first slice", "on the last slice", "far apart", "the same", "in a corner"],
)
def test_masks_that_were_cut_out_measure_as_in_the_whole_series(predicted: Box, reference: Box) -> None:
    cut = measure_crops(crop_of(predicted), crop_of(reference), lattice=UNEVEN, tolerance_mm=2.0)
    whole = measure(mask_of(predicted), mask_of(reference), lattice=UNEVEN, tolerance_mm=2.0)
    assert close(cut, whole)


def test_what_lies_beyond_the_tolerance_of_cut_out_masks_lies_where_it_does_in_the_whole_series() -> None:
    predicted, reference = np.s_[3:5, 5:9, 12:19], np.s_[4:6, 8:14, 6:13]
    _, beyond = compare_crops(crop_of(predicted), crop_of(reference), lattice=UNEVEN, tolerance_mm=2.0)
    assert beyond is not None
    whole = surface_distances(mask_of(predicted), mask_of(reference), lattice=UNEVEN)
    for found, surface in ((beyond.predicted, whole.predicted), (beyond.reference, whole.reference)):
        limit_mm = found.distances_mm.min() - 1e-6
        assert limit_mm > 1.8
        far = surface.distances_mm > limit_mm
        assert set(map(tuple, found.raster)) == set(map(tuple, surface.raster[far]))
        np.testing.assert_array_equal(FarSurface.of(surface, limit_mm).raster, surface.raster[far])


def test_of_a_side_that_is_not_there_the_other_ones_amounts_are_left() -> None:
    """Slices 3 to 4 of 4 × 7 voxels stand for 2.5 mm each: half of 3 and 2, and half of 2 and 3."""
    box = np.s_[3:5, 5:9, 4:11]
    volume_ml = 5.0 * 28 * 1.1 * 0.9 / 1000
    drawn = measure_crops(crop_of(box), None, lattice=UNEVEN, tolerance_mm=2.0)
    missed = measure_crops(None, crop_of(box), lattice=UNEVEN, tolerance_mm=2.0)
    assert close(drawn, Measured(predicted_volume_ml=volume_ml, predicted_slices=2))
    assert close(missed, Measured(reference_volume_ml=volume_ml, reference_slices=2))
    assert set(asdict(measure_crops(None, None, lattice=UNEVEN, tolerance_mm=2.0)).values()) == {None, 0}


def test_a_block_beside_a_block_of_half_its_size() -> None:
    """Spacing 2 × 1 × 1 mm. The reference is the first four of the predicted block's eight rows.

    So the centres are 2 rows apart, and the predicted block's far face is 4 rows away from the reference's.
    """
    lattice = Lattice.upright(10, (2.0, 1.0, 1.0))
    predicted, reference = (np.zeros((10, 20, 20), dtype=np.bool_) for _ in range(2))
    predicted[3:7, 4:12, 5:13], reference[3:7, 4:8, 5:13] = True, True
    found = measure(predicted, reference, lattice=lattice, tolerance_mm=1.0)
    assert (found.predicted_volume_ml, found.reference_volume_ml) == (pytest.approx(0.512), pytest.approx(0.256))
    assert found.volume_ratio == pytest.approx(2.0)
    assert found.volumetric_dsc == pytest.approx(2 / 3)
    assert found.centre_distance_mm == pytest.approx(2.0)
    assert found.hausdorff_mm == pytest.approx(4.0)
    assert (found.predicted_slices, found.reference_slices, found.one_sided_slice_share) == (4, 4, 0.0)
    assert found.mean_distance_predicted_to_reference_mm is not None
    assert found.mean_distance_reference_to_predicted_mm is not None
    assert found.mean_distance_predicted_to_reference_mm > found.mean_distance_reference_to_predicted_mm > 0


def test_the_95th_percentile_is_below_the_largest_distance() -> None:
    """One voxel 6 mm away from a block is less than a twentieth of the surface."""
    lattice = Lattice.upright(20, (1.0, 1.0, 1.0))
    block = np.zeros((20, 30, 30), dtype=np.bool_)
    block[5:15, 5:15, 5:15] = True
    spiked = block.copy()
    spiked[10, 10, 21] = True
    found = measure(spiked, block, lattice=lattice, tolerance_mm=1.0)
    assert found.hausdorff_95_mm == pytest.approx(0.0)
    assert found.hausdorff_mm is not None
    assert found.hausdorff_mm >= 6.0


def test_a_surface_at_the_rounded_tolerance_is_not_beyond_it() -> None:
    """Blocks one voxel of 0.7 mm apart, whose distance is a sum of spacings in binary numbers."""
    lattice = Lattice.upright(10, (2.0, 0.7, 0.7))
    one, other = crop_of(np.s_[3:6, 103:107, 5:9]), crop_of(np.s_[3:6, 104:108, 5:9])
    for tolerance_mm, is_beyond in ((0.7, False), (0.1, True)):  # which is rounded to 0
        measured, beyond = compare_crops(one, other, lattice=lattice, tolerance_mm=tolerance_mm)
        assert beyond is not None
        assert (len(beyond.predicted.raster) > 0) is (len(beyond.reference.raster) > 0) is is_beyond
        assert measured.surface_dsc is not None
        assert (measured.surface_dsc < 1) is is_beyond


def test_what_lies_at_a_limit_is_not_far() -> None:
    surface = OneWay(np.array([1.0, 2.0, 3.0]), np.ones(3), np.arange(9).reshape(3, 3), 0.0)
    far = FarSurface.of(surface, 2.0)
    assert (far.raster.tolist(), far.distances_mm.tolist()) == ([[6, 7, 8]], [3.0])


def test_the_percentile_of_the_hausdorff_distance_is_the_95th() -> None:
    one, other = np.random.default_rng(0).random((2, 9, 10, 11)) < 0.03
    lattice = Lattice.upright(9, (1.37, 0.71, 0.93))
    surfaces = surface_distances(one, other, lattice=lattice)
    percentiles = [surfaces.hausdorff_mm(percent) for percent in (94, 95, 96)]
    assert percentiles[0] < percentiles[1] < percentiles[2]
    assert measure(one, other, lattice=lattice, tolerance_mm=1.0).hausdorff_95_mm == percentiles[1]

"""Openings and distances of masks against SciPy's, which are for elements and spacings of any kind."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from oarlock.arrays import Mask
from oarlock.geometry.morphology import depth_mm, dilated_in_plane, opened_along_z, opened_by_neighbours, opened_in_plane

SHAPES = st.tuples(st.integers(1, 6), st.integers(1, 17), st.integers(1, 17))
DISK = np.hypot(*np.ogrid[-3:4, -2:3]) <= 3.0


def blobs(shape: tuple[int, ...], seed: int) -> Mask:
    return np.asarray(np.random.default_rng(seed).random(shape) < 0.8)


@given(shape=SHAPES, seed=st.integers(0, 2**31))
def test_an_opening_in_plane_is_scipys_up_to_the_edge_of_the_slice(shape: tuple[int, ...], seed: int) -> None:
    mask = blobs(shape, seed)
    assert np.array_equal(opened_in_plane(mask, DISK), ndimage.binary_opening(mask, DISK[None]))
    turned = mask.transpose(0, 2, 1)  # a view whose rows are not contiguous
    assert np.array_equal(opened_in_plane(turned, DISK), ndimage.binary_opening(turned, DISK[None]))


@given(shape=SHAPES, seed=st.integers(0, 2**31))
def test_a_dilation_in_plane_is_scipys(shape: tuple[int, ...], seed: int) -> None:
    mask = ~blobs(shape, seed)
    assert np.array_equal(dilated_in_plane(mask, DISK), ndimage.binary_dilation(mask, DISK[None]))


@given(shape=SHAPES, seed=st.integers(0, 2**31), reach=st.integers(0, 3))
def test_an_opening_along_z_is_scipys_of_a_volume_that_goes_on(shape: tuple[int, ...], seed: int, reach: int) -> None:
    mask = blobs(shape, seed)
    longer = np.pad(mask, ((3 * reach, 3 * reach), (0, 0), (0, 0)), mode="edge")
    expected = ndimage.binary_opening(longer, np.ones((2 * reach + 1, 1, 1)))[3 * reach : 3 * reach + len(mask)]
    assert np.array_equal(opened_along_z(mask, reach), expected)


@given(shape=SHAPES, seed=st.integers(0, 2**31))
def test_an_opening_by_the_six_neighbours_is_scipys_and_leaves_the_mask_as_it_was(shape: tuple[int, ...], seed: int) -> None:
    mask = blobs(shape, seed)
    before = mask.copy()
    assert np.array_equal(opened_by_neighbours(mask), ndimage.binary_opening(mask, ndimage.generate_binary_structure(3, 1)))
    assert np.array_equal(mask, before)


@given(
    shape=SHAPES,
    seed=st.integers(0, 2**31),
    spacing_mm=st.sampled_from([(2.5, 0.9765625, 0.9765625), (3.0, 1.1719, 1.1719), (0.7, 1.0, 1.0), (2.0, 0.9, 1.1)]),
    reach_mm=st.sampled_from([0.5, 4.0, 7.0]),
)
def test_a_depth_is_the_distance_to_the_next_voxel_outside_and_beyond_its_reach_only_more(
    shape: tuple[int, ...], seed: int, spacing_mm: tuple[float, float, float], reach_mm: float
) -> None:
    mask = ndimage.binary_dilation(blobs(shape, seed))
    mask[-1, -1, -1] = False
    expected, found = ndimage.distance_transform_edt(mask, sampling=spacing_mm), depth_mm(mask, spacing_mm, reach_mm)
    near = expected <= reach_mm
    assert found[near] == pytest.approx(expected[near], rel=1e-12)
    assert (found[~near] > reach_mm).all()


def test_the_depth_under_the_next_voxel_is_the_very_spacing() -> None:
    """A limit may be a spacing itself, as the rind of a skin is."""
    mask = np.ones((3, 3, 3), np.bool_)
    mask[1, 1, 1] = False
    for mm in (1.1719, 0.976562, 0.683594, 1.367):
        assert depth_mm(mask, (2.5, mm, mm), 9.0)[1, 1].tolist() == [mm, 0.0, mm]
        assert depth_mm(mask, (2.5, mm, mm), 9.0)[:, 1, 1].tolist() == [2.5, 0.0, 2.5]


def test_where_all_is_inside_nothing_is_near_the_outside() -> None:
    assert (depth_mm(np.ones((2, 4, 4), np.bool_), (1.0, 1.0, 1.0), 20.0) > 20.0).all()


@pytest.mark.parametrize("spacing_mm", [(2.0, 0.9, 1.1), (2.0, 1.0, 1.0), (0.5, 1.0, 1.0)])
@pytest.mark.parametrize("z", [0, 3, 6])
def test_a_depth_in_what_has_one_voxel_outside_is_that_of_pythagoras(z: int, spacing_mm: tuple[float, float, float]) -> None:
    mask = np.ones((7, 4, 5), np.bool_)
    mask[z, 1, 2] = False
    steps = np.indices(mask.shape) - np.array([z, 1, 2]).reshape(3, 1, 1, 1)
    away = np.sqrt(np.einsum("i...,i->...", steps.astype(float) ** 2, np.square(spacing_mm)))
    found, near = depth_mm(mask, spacing_mm, 4.0), away <= 4.0
    assert found[near] == pytest.approx(away[near], rel=1e-12)
    assert (found[~near] > 4.0).all()

"""Where the voxels of a series lie, in numbers that are worked out by hand; and which distances two of them can have."""

from dataclasses import replace

import numpy as np
import pytest

from oarlock.geometry.grid import Grid
from oarlock.qa.lattice import Lattice, rounded_tolerance_mm


def grid(*heights_mm: float) -> Grid:
    """Slices of 20 × 21 voxels of 1.1 × 0.9 mm at these heights."""
    origins = np.array([-31.2, 17.8, -402.5]) + np.array(heights_mm)[:, None] * np.array([0, 0, 1.0])
    return Grid(20, 21, origins, np.array([1.0, 0, 0]), np.array([0, 1.0, 0]), 1.1, 0.9)


@pytest.mark.parametrize(("odd_step_mm", "is_even"), [(2.5249, True), (2.5251, False), (2.4751, True), (2.4749, False)])
def test_steps_that_are_equal_to_one_percent_are_even(odd_step_mm: float, *, is_even: bool) -> None:
    lattice = Lattice.of(grid(*np.cumsum([0, 2.5, 2.5, odd_step_mm, 2.5])))
    assert (lattice.step_mm is not None) is is_even
    assert (lattice.thicknesses_mm.tolist() == [2.5] * 5) is is_even


def test_one_percent_itself_is_even() -> None:
    assert Lattice.of(grid(0, 100, 200, 301)).step_mm is not None


def test_of_a_single_slice_the_step_is_its_own_thickness() -> None:
    one = replace(grid(0, 2.5, 5), origins_mm=grid(0).origins_mm)
    lattice = Lattice.of(one)
    assert lattice.step_mm is not None
    assert lattice.step_mm.tolist() == [one.spacing_mm[0], 0, 0]
    assert lattice.thicknesses_mm.tolist() == [one.spacing_mm[0]]


def test_a_series_that_lies_obliquely_has_its_slices_above_each_other() -> None:
    turn = np.linalg.qr(np.array([[1.0, 2, 3], [0, 1, -2], [2, 0, 1]]))[0]
    normal = np.cross(turn[0], turn[1])
    oblique = Grid(20, 21, np.arange(4)[:, None] * 2.5 * normal, turn[0], turn[1], 1.1, 0.9)
    np.testing.assert_allclose(Lattice.of(oblique).slice_offsets_mm, np.arange(4)[:, None] * [2.5, 0, 0], atol=1e-9)


def test_layers_of_the_surface_lie_half_way_between_uneven_slices() -> None:
    lattice = Lattice.of(grid(0, 2, 4, 8, 10))
    assert lattice.gaps_mm.tolist() == [[step, 0, 0] for step in (2, 2, 2, 4, 2, 2)]
    assert lattice.layers_mm.tolist() == [[z, 0, 0] for z in (-1, 1, 3, 6, 9, 11)]


def test_a_single_one_of_uneven_slices_has_its_thickness_below_and_above() -> None:
    lattice = Lattice.of(grid(0, 2, 4, 8, 10)).between(2, 3)
    assert lattice.gaps_mm.tolist() == [[3, 0, 0], [3, 0, 0]]  # half of 2 mm and of 4 mm


@pytest.mark.parametrize("seed", range(5))
def test_the_rounded_tolerance_is_the_nearest_of_many_more_distances(seed: int) -> None:
    """Of slices that drift, too: up to 18 steps each way."""
    generator = np.random.default_rng(seed)
    z, y, x = generator.uniform(0.7, 3.0, 3)
    drift = z * np.array([0, *generator.uniform(-0.4, 0.4, 2)]) * (seed % 3 > 0)
    upright = Lattice.upright(4, (z, y, x))
    lattice = replace(upright, step_mm=np.array([z, 0, 0]) + drift)
    counts = np.stack(np.meshgrid(*[np.arange(-18, 19)] * 3), axis=-1).reshape(-1, 3)
    assert lattice.step_mm is not None
    distances = np.linalg.norm(counts @ np.array([lattice.step_mm, [0, y, 0], [0, 0, x]]), axis=1)
    for tolerance_mm in (0.5, 1.0, 2.5, 4.0):
        rounded_mm = rounded_tolerance_mm(tolerance_mm, lattice)
        assert rounded_mm is not None
        assert abs(rounded_mm - tolerance_mm) == pytest.approx(np.abs(distances - tolerance_mm).min(), abs=1e-9)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_tolerance_is_rounded_to_many_short_steps_along_one_axis(axis: int) -> None:
    spacing = [90.0, 80.0, 70.0]
    spacing[axis] = 0.4
    lattice = Lattice.upright(4, (spacing[0], spacing[1], spacing[2]))
    assert rounded_tolerance_mm(2.35, lattice) == pytest.approx(2.4)  # six steps


def test_a_tolerance_of_a_row_is_found_where_thick_slices_drift() -> None:
    lattice = replace(Lattice.upright(4, (3.0, 1.0, 0.9)), step_mm=np.array([3.0, 1.7, 0.0]))
    assert rounded_tolerance_mm(1.02, lattice) == pytest.approx(1.0)

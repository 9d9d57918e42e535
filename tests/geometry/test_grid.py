import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oarlock.geometry.grid import Grid
from tests.fixtures import orientations

NAMES = st.sampled_from(list(orientations.ALL))
POINTS = st.lists(st.tuples(*[st.floats(-10, 70, allow_nan=False)] * 3), min_size=1, max_size=20)


@given(name=NAMES, indices=POINTS)
def test_every_place_has_one_index_also_beyond_the_scan(name: str, indices: list[tuple[float, float, float]]) -> None:
    grid = orientations.ALL[name]
    there = grid.to_points(np.array(indices))
    assert np.allclose(grid.to_indices(there), indices, atol=1e-6)


@pytest.mark.parametrize("name", orientations.ALL)
def test_whole_indices_are_the_voxel_centres_of_the_standard(name: str) -> None:
    grid = orientations.ALL[name]
    z, y, x = (a.ravel() for a in np.indices(grid.shape))
    places = grid.to_points(np.stack([z, y, x], axis=1).astype(np.float64))
    assert np.allclose(places, orientations.voxel_centres_mm(grid).reshape(-1, 3), atol=1e-9)


def test_half_way_between_two_slices_is_half_an_index_whatever_their_distance() -> None:
    grid = orientations.uneven()
    between = (grid.origins_mm[:-1] + grid.origins_mm[1:]) / 2
    assert np.allclose(grid.to_indices(between)[:, 0], np.arange(36) + 0.5)


@pytest.mark.parametrize("name", [*orientations.PATIENT_POSITIONS, "uneven"])
def test_an_axial_grid_says_which_index_runs_along_which_axis_of_the_patient(name: str) -> None:
    grid = orientations.ALL[name]
    axes = grid.along_patient_axes()
    assert axes is not None
    centres = orientations.voxel_centres_mm(grid)
    for axis, patient in zip(axes, (2, 1, 0), strict=True):
        along = np.moveaxis(centres[..., patient], axis.axis, 0)
        assert np.allclose(along, axis.positions_mm[:, None, None], atol=1e-9)


@pytest.mark.parametrize("name", ["oblique 30°", "gantry tilt 20°", "gantry tilt -20°"])
def test_a_tilted_grid_has_no_such_axes(name: str) -> None:
    assert orientations.ALL[name].along_patient_axes() is None


def test_slices_that_drift_sideways_are_not_taken_for_a_straight_stack() -> None:
    origins = np.array([[0.1 * z, 0.0, 2.0 * z] for z in range(9)])
    drifting = Grid(5, 5, origins, np.array([1.0, 0, 0]), np.array([0, 1.0, 0]), 1.0, 1.0)
    assert drifting.along_patient_axes() is None
    assert drifting.along_patient_axes(within_mm=1.0) is not None


def test_a_single_slice_is_taken_to_be_a_millimetre_thick() -> None:
    grid = Grid(5, 5, np.array([[1.0, 2.0, 3.0]]), np.array([1.0, 0, 0]), np.array([0, 1.0, 0]), 1.0, 1.0)
    assert np.allclose(grid.to_indices(np.array([[1.0, 2.0, 4.0]])), [[1, 0, 0]])

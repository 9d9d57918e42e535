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


@pytest.mark.parametrize("name", orientations.ALL)
def test_a_turned_volume_runs_from_foot_to_head_from_front_to_back_and_from_right_to_left(name: str) -> None:
    grid = orientations.ALL[name]
    centres = orientations.voxel_centres_mm(grid)
    for along, patient in enumerate((2, 1, 0)):
        turned = grid.orientation().turned(centres[..., patient])
        assert (np.diff(turned, axis=along) > 0).all()


def test_sagittal_slices_are_turned_too() -> None:
    """Rows run to the back and columns to the feet; slices are sorted along their product, (-1, 0, 0)."""
    grid = Grid(7, 5, np.array([[-x, 0.0, 0] for x in range(3)]), np.array([0, 1.0, 0]), np.array([0, 0, -1.0]), 1.0, 1.0)
    orientation = grid.orientation()
    assert orientation.axes == (1, 2, 0)
    assert orientation.flipped == (True, False, True)
    assert orientation.turned(np.zeros(grid.shape)).shape == (7, 5, 3)
    assert grid.along_patient_axes() is None


def test_values_and_ends_follow_the_axes_of_the_patient() -> None:
    orientation = orientations.ALL["HFDL"].orientation()  # rows run along (0, -1, 0), columns along (1, 0, 0)
    assert orientation.in_patient_order(["slices", "down", "along"]) == ("slices", "along", "down")
    pairs = [("z0", "z1"), ("top", "bottom"), ("left", "right")]
    assert orientation.ends(pairs) == (("z0", "z1"), ("right", "left"), ("top", "bottom"))


def test_an_uneven_stack_has_the_volume_of_what_its_slices_stand_for() -> None:
    origins = np.array([[0.0, 0, z] for z in (0, 1, 3)])  # stand for 1, 1.5 and 2 mm
    grid = Grid(5, 5, origins, np.array([1.0, 0, 0]), np.array([0, 1.0, 0]), 2.0, 0.5)
    assert np.allclose(grid.volumes_ml(np.array([[1000, 0, 0], [0, 1000, 0], [1000, 1000, 1000]])), [1.0, 1.5, 4.5])

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oarlock.arrays import FloatArray
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
    assert np.allclose(grid.to_indices(places[::97]), np.stack([z, y, x], axis=1)[::97], atol=1e-6)


def test_half_way_between_two_slices_is_half_an_index_whatever_their_distance() -> None:
    grid = orientations.uneven()
    between = (grid.origins_mm[:-1] + grid.origins_mm[1:]) / 2
    assert np.allclose(grid.to_indices(between)[:, 0], np.arange(36) + 0.5)
    below = (3 * grid.origins_mm[:1] - grid.origins_mm[1:2]) / 2
    assert np.allclose(grid.to_indices(below)[:, 0], -0.5)


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


def test_two_slices_lie_as_far_apart_as_their_origins() -> None:
    grid = Grid(5, 5, np.array([[1.0, 2.0, 3.0], [1.0, 2.0, 8.5]]), np.array([1.0, 0, 0]), np.array([0, 1.0, 0]), 1.0, 1.0)
    assert np.allclose(grid.to_indices(np.array([[1.0, 2.0, 8.5], [1.0, 2.0, 5.75]])), [[1, 0, 0], [0.5, 0, 0]])


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


def grid_of(zs: Sequence[float], *, drift: float = 0.0, spacing_mm: tuple[float, float] = (1.1, 0.9)) -> Grid:
    """Axial slices at these positions; each lies ``drift`` mm further to the left than the one below."""
    origins = np.array([[-31.2 + drift * i, 17.8, z] for i, z in enumerate(zs)])
    return Grid(5, 7, origins, np.array([1.0, 0, 0]), np.array([0, 1.0, 0]), *spacing_mm)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rows": 0}, "at least one voxel"),
        ({"columns": 0}, "at least one voxel"),
        ({"origins_mm": np.zeros((0, 3))}, "at least one voxel"),
        ({"row_spacing_mm": 0.0}, "spacing must be positive"),
        ({"column_spacing_mm": 0.0}, "spacing must be positive"),
        ({"column_spacing_mm": -0.9}, "spacing must be positive"),
        ({"origins_mm": np.array([[0, 0, 1.0], [0, 0, 1.0]])}, "sorted along the normal"),
        ({"origins_mm": np.array([[0, 0, 2.0], [0, 0, 1.0]])}, "sorted along the normal"),
        ({"origins_mm": np.array([[0, 0, np.nan]])}, "origins_mm must be finite"),
        ({"row_direction": np.array([1.0, 0])}, r"row_direction must be finite and of shape \(3,\)"),
        ({"column_direction": np.array([0, np.inf, 0])}, "column_direction must be finite"),
    ],
)
def test_what_is_not_a_grid_is_refused_with_its_reason(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        replace(grid_of([1.0, 3.5]), **change)


def test_one_voxel_is_a_grid() -> None:
    origin, row, column = np.array([[1.0, 2.0, 3.0]]), np.array([1.0, 0, 0]), np.array([0, 1.0, 0])
    assert Grid(1, 1, origin, row, column, 1e-3, 1e-3).shape == (1, 1, 1)


def test_the_size_of_a_voxel_is_the_median_distance_of_slices_then_of_rows_then_of_columns() -> None:
    assert grid_of([0, 1, 3, 9]).spacing_mm == (2.0, 1.1, 0.9)
    assert grid_of([0, 4.5]).spacing_mm == (4.5, 1.1, 0.9)
    assert grid_of([7]).spacing_mm == (1.0, 1.1, 0.9)


def test_a_slice_stands_for_half_the_way_to_each_neighbour_and_at_an_end_for_the_whole_distance_inwards() -> None:
    assert grid_of([0, 2, 6, 7]).slice_thicknesses_mm.tolist() == [2.0, 3.0, 2.5, 1.0]
    assert grid_of([7]).slice_thicknesses_mm.tolist() == [1.0]
    np.testing.assert_allclose(grid_of([0, 2]).voxel_volumes_mm3, [2 * 1.1 * 0.9] * 2)


@pytest.mark.parametrize("name", orientations.ALL)
def test_a_point_above_a_slice_has_its_indices_and_its_distance_along_the_normal(name: str) -> None:
    """PS3.3 Equation C.7.6.2.1-1 written out: a step of 0.7 mm towards the next slice from row 2.5, column 3.25 of slice 4."""
    grid = orientations.ALL[name]
    foot = (
        grid.origins_mm[4]
        + 2.5 * grid.row_spacing_mm * grid.column_direction
        + 3.25 * grid.column_spacing_mm * grid.row_direction
    )
    indices, distances = grid.to_plane(4, np.array([foot + 0.7 * grid.normal, foot - 0.2 * grid.normal]))
    np.testing.assert_allclose(indices, [[2.5, 3.25]] * 2, atol=1e-9)
    np.testing.assert_allclose(distances, [0.7, -0.2], atol=1e-9)
    np.testing.assert_allclose(grid.to_patient(4, np.array([[2.5, 3.25]])), [foot], atol=1e-9)
    np.testing.assert_allclose(grid.to_patient(np.array([4, 5]), np.zeros((2, 2))), grid.origins_mm[4:6])


def test_a_voxel_may_lie_a_twentieth_of_a_millimetre_off_the_straight_stack() -> None:
    """The last of five slices has drifted by four steps."""
    assert grid_of(range(5), drift=0.0499 / 4).along_patient_axes() is not None
    assert grid_of(range(5), drift=0.0501 / 4).along_patient_axes() is None


def test_a_voxel_as_far_off_the_straight_stack_as_is_allowed_is_allowed() -> None:
    """All numbers are sums of powers of two, so that the last slice is exactly 1/16 mm off."""
    exact = replace(grid_of([0, 1], spacing_mm=(1.0, 1.0)), origins_mm=np.array([[0, 0, 0], [0.0625, 0, 1]]))
    assert exact.along_patient_axes(within_mm=0.0625) is not None
    assert exact.along_patient_axes(within_mm=0.0624) is None


def test_slices_are_held_against_the_first_one() -> None:
    """The second and the third lie on either side of it, 0.06 mm apart."""
    origins = np.array([[0, 0, 0], [0.04, 0, 2], [-0.02, 0, 4]])
    assert replace(grid_of([0, 2, 4]), origins_mm=origins).along_patient_axes() is not None


def turned_in_plane(angle: float, *, rows: int = 5, columns: int = 7) -> Grid:
    """Slices whose rows are turned towards the back."""
    row = np.array([np.cos(angle), np.sin(angle), 0])
    column = np.array([-np.sin(angle), np.cos(angle), 0])
    return replace(grid_of([0, 2, 4]), rows=rows, columns=columns, row_direction=row, column_direction=column)


@pytest.mark.parametrize(("size", "far_mm"), [({"columns": 7}, 6 * 0.9), ({"rows": 9}, 8 * 1.1)])
def test_the_far_corner_may_lie_a_twentieth_of_a_millimetre_off(size: dict[str, int], far_mm: float) -> None:
    """A row or a column leaves its axis by its length times the sine of the angle."""
    assert turned_in_plane(float(np.arcsin(0.0499 / far_mm)), **size).along_patient_axes() is not None
    assert turned_in_plane(float(np.arcsin(0.0501 / far_mm)), **size).along_patient_axes() is None


@pytest.mark.parametrize(
    ("size", "spacing_mm", "drift"), [({"rows": 11}, 1.1, np.array([1.0, 0, 0])), ({"columns": 11}, 0.9, np.array([0, -1.0, 0]))]
)
def test_the_near_corner_may_lie_as_far_off_as_the_far_one(size: dict[str, int], spacing_mm: float, drift: FloatArray) -> None:
    """Each voxel from the near corner to the far one takes back 0.00499 mm of what the last slice has drifted."""
    grid = turned_in_plane(float(np.arcsin(0.00499 / spacing_mm)), **{"rows": 2, "columns": 2, **size})
    for drift_mm, axial in ((0.0499, True), (0.052, False)):
        origins = grid.origins_mm + np.outer([0, 0, drift_mm], drift)
        assert (replace(grid, origins_mm=origins).along_patient_axes() is not None) == axial


def test_the_nearest_quarter_turn_of_rows_that_are_turned_by_a_little_is_none() -> None:
    orientation = turned_in_plane(0.3).orientation()
    assert (orientation.axes, orientation.flipped) == ((0, 1, 2), (False, False, False))


def test_what_a_grid_is_made_of_cannot_be_changed() -> None:
    grid = grid_of([1.0, 3.5])
    for array in (grid.origins_mm, grid.row_direction, grid.column_direction):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 7

import numpy as np
import numpy.typing as npt
import pytest

from oarlock.geometry.grid import Grid
from oarlock.segmentation.manifest import InputSpec
from oarlock.segmentation.resampling import ModelInput, body_box_mm, cut_in_plane, to_model_grid
from tests.fixtures import orientations
from tests.fixtures.orientations import MIDDLE_MM, voxel_centres_mm

AIR_HU = -1000
DENSE_MM = MIDDLE_MM + np.array([8, -5, 6])


def spec(
    spacing_mm: tuple[float, float, float] | None = (2.5, 2.0, 2.0), size_yx: tuple[int, int] | None = (48, 48)
) -> InputSpec:
    return InputSpec(name="ct", spacing_mm=spacing_mm, size_yx=size_yx, context_slices=1, padding_hu=AIR_HU)


def ball(grid: Grid, centre_mm: npt.ArrayLike, radius_mm: float) -> npt.NDArray[np.bool_]:
    return np.asarray(np.linalg.norm(voxel_centres_mm(grid) - np.asarray(centre_mm), axis=-1) <= radius_mm)


def picture(grid: Grid) -> npt.NDArray[np.int16]:
    """A body with a denser thing off its middle."""
    hu = np.full(grid.shape, AIR_HU, np.int16)
    hu[ball(grid, MIDDLE_MM, 23)] = 40
    hu[ball(grid, DENSE_MM, 7)] = 900
    return hu


def centre_of_mass(model: ModelInput) -> npt.NDArray[np.float64]:
    weight = np.clip(model.volume.astype(np.float64) - 40, 0, None)
    return np.asarray((voxel_centres_mm(model.grid) * weight[..., None]).sum(axis=(0, 1, 2)) / weight.sum())


@pytest.mark.parametrize("name", orientations.ALL)
def test_a_ball_stays_where_it_is_in_the_patient_however_he_lies(name: str) -> None:
    grid = orientations.ALL[name]
    weights = grid.slice_thicknesses_mm[:, None, None] * ball(grid, DENSE_MM, 7)
    before = (voxel_centres_mm(grid) * weights[..., None]).sum(axis=(0, 1, 2)) / weights.sum()
    after = centre_of_mass(to_model_grid(picture(grid), grid, spec()))
    assert np.abs((after - before) / [0.9, 1.1, 2.5]).max() < 0.2


@pytest.mark.parametrize("name", orientations.ALL)
def test_the_models_axes_run_to_the_head_to_the_back_and_to_the_left(name: str) -> None:
    grid = orientations.ALL[name]
    model = to_model_grid(picture(grid), grid, spec())
    assert np.allclose([model.grid.normal, model.grid.column_direction, model.grid.row_direction], np.eye(3)[::-1])
    z, y, x = np.argwhere(model.volume > 450).mean(axis=0)
    middle = (np.array(model.volume.shape) - 1) / 2
    assert z > middle[0]  # the dense thing lies 6 mm to the head,
    assert y < middle[1]  # 5 mm to the front
    assert x > middle[2]  # and 8 mm to the left


def test_a_canonical_grid_cut_in_plane_has_the_same_points(crooked_grid: Grid) -> None:
    whole = to_model_grid(picture(crooked_grid), crooked_grid, spec()).grid
    cut = cut_in_plane(whole, (slice(3, 40), slice(11, 29)))
    assert cut.shape == (whole.shape[0], 37, 18)
    assert np.abs(voxel_centres_mm(cut) - voxel_centres_mm(whole)[:, 3:40, 11:29]).max() < 1e-9


@pytest.mark.parametrize("name", orientations.ALL)
@pytest.mark.parametrize("spacing_mm", [(2.5, 4.0, 4.0), (6.0, 2.3, 3.1), (2.1, 0.8, 0.7)])
def test_a_linear_ramp_is_reproduced_exactly_inside(name: str, spacing_mm: tuple[float, float, float]) -> None:
    grid = orientations.ALL[name]
    slope = np.array([3.0, -2.0, 1.5])
    ramp = ((voxel_centres_mm(grid) - MIDDLE_MM) @ slope).astype(np.float32)
    model = to_model_grid(ramp, grid, spec(spacing_mm, None))  # type: ignore[arg-type]  # whole numbers are no ramp
    expected = (voxel_centres_mm(model.grid) - MIDDLE_MM) @ slope
    indices = grid.to_indices(voxel_centres_mm(model.grid).reshape(-1, 3)).reshape(*model.volume.shape, 3)
    margin = 1 + np.max([np.array(spacing_mm) / grid.spacing_mm, np.array(spacing_mm)[[0, 2, 1]] / grid.spacing_mm], axis=0) / 2
    inside = np.all((indices > margin) & (indices < np.array(grid.shape) - 1 - margin), axis=-1)
    assert inside.any()
    assert np.abs(model.volume - expected)[inside].max() < 0.01


def test_a_voxel_that_covers_whole_ct_voxels_is_close_to_their_mean(crooked_grid: Grid) -> None:
    noise = np.random.default_rng(1).integers(-200, 200, crooked_grid.shape).astype(np.int16)
    model = to_model_grid(noise, crooked_grid, spec((2.5, 8.8, 7.2), None))
    blocks = noise[:, :56, :48].reshape(37, 7, 8, 6, 8).mean(axis=(2, 4))
    shrunk = model.volume.std() / noise.std()
    assert shrunk == pytest.approx(blocks.std() / noise.std(), rel=0.15)  # anti-aliased: 64 voxels averaged, not one picked


@pytest.mark.parametrize("name", [*orientations.PATIENT_POSITIONS, "uneven"])
def test_the_native_grid_has_the_ct_voxels_themselves(name: str) -> None:
    grid = orientations.ALL[name]
    hu = picture(grid)
    model = to_model_grid(hu, grid, spec(None, None))
    indices = np.rint(grid.to_indices(voxel_centres_mm(model.grid).reshape(-1, 3))).astype(int)
    assert np.array_equal(model.volume.ravel(), hu[tuple(indices.T)])


def test_a_native_crop_keeps_to_the_ct_voxels_and_is_padded_with_air(crooked_grid: Grid) -> None:
    hu = np.full(crooked_grid.shape, 50, np.int16)
    model = to_model_grid(hu, crooked_grid, spec(None, (71, 41)))
    assert model.volume.shape == (37, 71, 41)
    assert np.array_equal(model.volume[0, :, 20], np.repeat([AIR_HU, 50, AIR_HU], [5, 61, 5]))
    assert np.allclose(crooked_grid.to_indices(model.grid.origins_mm)[:, 1:], [-5, 6], atol=1e-9)


def test_outside_of_the_scan_there_is_air(crooked_grid: Grid) -> None:
    model = to_model_grid(np.zeros(crooked_grid.shape, np.int16), crooked_grid, spec((2.5, 4.0, 4.0), (64, 64)))
    assert set(np.unique(np.rint(model.volume))) == {AIR_HU, 0.0}
    per_slice = np.count_nonzero(model.volume > -1) / len(model.volume)
    assert per_slice * 16 == pytest.approx(61 * 1.1 * 53 * 0.9, rel=0.1)  # area of the scan in mm²


def test_the_field_of_view_is_centred_on_the_body_and_not_on_the_table() -> None:
    shape, spacing = (20, 200, 200), 2.0
    grid = Grid(200, 200, np.array([[0.0, 0.0, 3.0 * z] for z in range(20)]), [1, 0, 0], [0, 1, 0], spacing, spacing)  # type: ignore[arg-type]
    hu = np.full(shape, AIR_HU, np.int16)
    y, x = np.mgrid[:200, :200]
    body = ((y - 70) / 45) ** 2 + ((x - 90) / 60) ** 2 <= 1
    hu[:, body] = 30
    hu[:, 114:117, 10:190] = 200  # a shell 6 mm thick that touches the body
    hu[:, 117:150, 10:190] = -900  # foam
    hu[:, 150:156, 10:190] = 200
    box = body_box_mm(hu, grid)
    assert box is not None
    middle = (box[0] + box[1]) / 2
    assert middle[0] == pytest.approx(90 * spacing, abs=4)
    assert middle[1] == pytest.approx(70 * spacing, abs=4)


def test_a_scan_of_nothing_but_air_is_centred_on_itself(crooked_grid: Grid) -> None:
    model = to_model_grid(np.full(crooked_grid.shape, AIR_HU, np.int16), crooked_grid, spec())
    middle = (model.grid.to_patient(0, np.array([[23.5, 23.5]]))[0])[:2]
    assert np.allclose(middle, crooked_grid.to_patient(0, np.array([[30.0, 26.0]]))[0][:2])
    assert (model.volume == AIR_HU).all()


@pytest.mark.parametrize("columns", [60, 61, 62, 63])
def test_a_mirrored_scan_is_cut_as_the_mirror_image_of_the_scan(columns: int) -> None:
    """Whatever the number of columns: else a model that treats both sides alike would not see them alike."""
    origins = np.stack([np.zeros(12), np.zeros(12), np.arange(12) * 2.5], axis=1)
    grid = Grid(64, columns, origins, np.array([1.0, 0, 0]), np.array([0, 1.0, 0]), 1.3, 1.3)
    hu = np.full(grid.shape, AIR_HU, np.int16)
    hu[2:10, 9:50, 7:41] = 30
    hu[4:6, 20:30, 12:20] = 700
    straight, turned = to_model_grid(hu, grid, spec()), to_model_grid(hu[:, :, ::-1], grid, spec())
    assert np.allclose(turned.volume[:, :, ::-1], straight.volume, atol=0.01)

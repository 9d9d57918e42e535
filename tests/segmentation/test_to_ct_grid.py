from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from scipy.interpolate import RegularGridInterpolator

from oarlock.geometry.grid import Grid
from oarlock.geometry.masks import OARMasks
from oarlock.organs.catalogue import BY_NAME, OAR
from oarlock.segmentation.manifest import InputSpec
from oarlock.segmentation.resampling import ModelInput, to_model_grid
from oarlock.segmentation.slabs import predict_in_slabs
from oarlock.segmentation.to_ct_grid import probabilities_to_masks
from tests.fixtures import orientations
from tests.fixtures.orientations import voxel_centres_mm
from tests.segmentation.test_resampling import DENSE_MM, ball, picture

CORD, EYE, LUNG = BY_NAME["SpinalCord"], BY_NAME["Eye_L"], BY_NAME["Lung_L"]


SPEC = InputSpec("ct", (2.5, 2.0, 2.0), (40, 40), context_slices=1, padding_hu=-1000.0)


def masks_of(
    found: Iterable[tuple[int, npt.NDArray[np.float32]]], model_grid: Grid, grid: Grid, oars: list[OAR], thresholds: list[float]
) -> OARMasks:
    masks = OARMasks.empty(oars, grid.shape)
    probabilities_to_masks(masks, found, model_grid, grid, channels=oars, thresholds=thresholds)
    return masks


def model_of(grid: Grid) -> ModelInput:
    return to_model_grid(picture(grid), grid, SPEC)


def slabs(probabilities: npt.NDArray[np.float32], n: int) -> list[tuple[int, npt.NDArray[np.float32]]]:
    return [(start, probabilities[:, start : start + n]) for start in range(0, probabilities.shape[1], n)]


@pytest.mark.parametrize("name", orientations.ALL)
@pytest.mark.parametrize("upscale", [1, 2])
def test_what_was_predicted_in_the_models_grid_ends_at_the_right_place_of_the_patient(name: str, upscale: int) -> None:
    grid = orientations.ALL[name]
    model = model_of(grid)

    def dense(hu: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        share = np.clip((hu - 40) / 860, 0, 1)
        return share.repeat(upscale, axis=3).repeat(upscale, axis=4)

    found = predict_in_slabs(model.volume, dense, SPEC, slab=7)
    masks = masks_of(found, model.grid, grid, [CORD], [0.5])
    truth = ball(grid, DENSE_MM, 7)
    weights = grid.slice_thicknesses_mm[:, None, None]
    centres = [
        (voxel_centres_mm(grid) * (weights * mask)[..., None]).sum(axis=(0, 1, 2)) / (weights * mask).sum()
        for mask in (masks.mask(CORD), truth)
    ]
    assert np.abs((centres[0] - centres[1]) / [0.9, 1.1, 2.5]).max() < 0.2
    assert (masks.mask(CORD) * weights).sum() == pytest.approx((truth * weights).sum(), rel=0.2)


@pytest.mark.parametrize("name", orientations.ALL)
@pytest.mark.parametrize("upscale", [1, 2])
def test_masks_are_the_linear_interpolation_of_scipy_at_every_ct_voxel(name: str, upscale: int) -> None:
    grid = orientations.ALL[name]
    model = model_of(grid)
    z, y, x = model.volume.shape
    rng = np.random.default_rng(3)
    coarse = rng.random((2, z // 4 + 2, 12, 12)).astype(np.float32)
    fine = coarse.repeat(4, axis=1)[:, :z].repeat(10 * upscale, axis=2)[:, :, : y * upscale].repeat(10 * upscale, axis=3)
    probabilities = np.ascontiguousarray(fine[:, :, :, : x * upscale]) * rng.uniform(0.9, 1.0, (2, z, y * upscale, x * upscale))
    probabilities = probabilities.astype(np.float32)
    masks = masks_of(slabs(probabilities, 5), model.grid, grid, [CORD, EYE], [0.5, 0.7])

    corner = model.grid.origins_mm[0]
    axes = [
        model.grid.origins_mm[:, 2],
        corner[1] + ((np.arange(y * upscale) + 0.5) / upscale - 0.5) * 2.0,
        corner[0] + ((np.arange(x * upscale) + 0.5) / upscale - 0.5) * 2.0,
    ]
    points = voxel_centres_mm(grid)[..., ::-1]
    for index, (oar, threshold) in enumerate([(CORD, 0.5), (EYE, 0.7)]):
        peer = RegularGridInterpolator(axes, probabilities[index].astype(np.float64), bounds_error=False, fill_value=np.nan)(
            points
        )
        decided = np.abs(peer - threshold) > 1e-5  # nan (outside of the model's centres) is not decided either
        assert decided.mean() > 0.3
        assert np.array_equal(masks.mask(oar)[decided], (peer >= threshold)[decided])


@pytest.mark.slow
@pytest.mark.parametrize("n", [1, 2, 5, 64])
@pytest.mark.parametrize("name", ["FFDL", "uneven", "gantry tilt 20°"])
def test_slabs_leave_no_seam(name: str, n: int) -> None:
    grid = orientations.ALL[name]
    model = model_of(grid)
    probabilities = np.random.default_rng(5).random((2, *model.volume.shape), np.float32)
    whole = masks_of([(0, probabilities)], model.grid, grid, [CORD, EYE], [0.5, 0.5])
    assert np.array_equal(whole.bits, masks_of(slabs(probabilities, n), model.grid, grid, [CORD, EYE], [0.5, 0.5]).bits)


@pytest.mark.parametrize("name", [*orientations.PATIENT_POSITIONS, "uneven"])
def test_the_whole_scan_has_an_answer_where_the_model_saw_the_whole_scan(name: str) -> None:
    grid = orientations.ALL[name]
    model = to_model_grid(picture(grid), grid, InputSpec("ct", (3.7, 2.3, 2.9), None, 1, -1000.0))
    masks = masks_of([(0, np.ones((1, *model.volume.shape), np.float32))], model.grid, grid, [CORD], [0.5])
    assert masks.mask(CORD)[:, 1:-1, 1:-1].all()


@pytest.mark.parametrize(("beyond", "is_drawn"), [(0.74, True), (0.76, False)])
def test_at_its_ends_a_value_holds_for_three_quarters_of_a_voxel(beyond: float, is_drawn: bool) -> None:
    """Half of it is the voxel's own extent, a quarter what a whole number of voxels may be shorter than the scan."""
    grid = orientations.ALL["HFS"]
    origin, steps_mm = grid.origins_mm[0], np.array([0.9, 1.1, 2.5])
    model = replace(
        grid,
        rows=5,
        columns=5,
        origins_mm=origin + (10 + beyond * 2) * steps_mm + np.arange(5)[:, None] * np.array([0, 0, 5.0]),
        row_spacing_mm=2.2,
        column_spacing_mm=1.8,
    )
    masks = masks_of([(0, np.ones((1, 5, 5, 5), np.float32))], model, grid, [CORD], [0.5])
    drawn = np.argwhere(masks.mask(CORD)).min(axis=0)
    assert drawn.tolist() == ([10, 10, 10] if is_drawn else [11, 11, 11])


def test_nothing_is_drawn_outside_of_the_models_field_of_view(crooked_grid: Grid) -> None:
    model = to_model_grid(np.zeros(crooked_grid.shape, np.int16), crooked_grid, InputSpec("ct", None, (21, 11), 1, -1000.0))
    masks = masks_of([(0, np.ones((1, *model.volume.shape), np.float32))], model.grid, crooked_grid, [CORD], [0.5])
    assert masks.mask(CORD).sum() == 37 * 21 * 11


def claims(model: ModelInput, left: float, right: float) -> npt.NDArray[np.float32]:
    return np.stack([np.full(model.volume.shape, value, np.float32) for value in (left, right)])


def test_a_voxel_that_both_sides_of_an_organ_claim_goes_to_the_stronger_claim() -> None:
    grid = orientations.ALL["HFS"]
    model = model_of(grid)
    lungs = [LUNG, BY_NAME["Lung_R"]]
    probabilities = claims(model, 0.6, 0.7)
    probabilities[:, :, :, 20:] = [[[[0.8]]], [[[0.7]]]]
    masks = masks_of(slabs(probabilities, 5), model.grid, grid, lungs, [0.5, 0.5])
    left, right = (masks.mask(lung) for lung in lungs)
    assert left.any()
    assert right.any()
    assert not (left & right).any()


def test_a_claim_is_measured_by_its_own_threshold_and_a_tie_goes_to_the_first() -> None:
    grid = orientations.ALL["HFS"]
    model = model_of(grid)
    for left, right, thresholds, wins in [(0.6, 0.5, [0.5, 0.3], 1), (0.6, 0.6, [0.5, 0.5], 0)]:
        lungs = [LUNG, BY_NAME["Lung_R"]]
        masks = masks_of(slabs(claims(model, left, right), 5), model.grid, grid, lungs, thresholds)
        drawn = [bool(masks.mask(lung).any()) for lung in lungs]
        assert drawn == [wins == 0, wins == 1]


def test_organs_that_lie_in_one_another_share_their_voxels() -> None:
    grid = orientations.ALL["HFS"]
    model = model_of(grid)
    masks = masks_of(slabs(claims(model, 0.9, 0.6), 5), model.grid, grid, [BY_NAME["SpinalCanal"], CORD], [0.5, 0.5])
    assert (masks.mask(CORD) & masks.mask(BY_NAME["SpinalCanal"])).any()

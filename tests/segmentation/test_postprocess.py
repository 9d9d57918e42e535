import numpy as np
import numpy.typing as npt
import pytest
from scipy.interpolate import RegularGridInterpolator

from oarlock.geometry.grid import Grid
from oarlock.geometry.masks import OARMasks
from oarlock.organs.catalogue import BY_NAME, OAR
from oarlock.segmentation.manifest import InputSpec
from oarlock.segmentation.postprocess import clean_up, to_masks
from oarlock.segmentation.resampling import ModelInput, to_model_grid
from oarlock.segmentation.slabs import predict
from tests.fixtures import orientations
from tests.fixtures.orientations import voxel_centres_mm
from tests.segmentation.test_resampling import DENSE_MM, ball, picture

CORD, EYE, LUNG = BY_NAME["SpinalCord"], BY_NAME["Eye_L"], BY_NAME["Lung_L"]


SPEC = InputSpec("ct", (2.5, 2.0, 2.0), (40, 40), context_slices=1, padding_hu=-1000.0)


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

    found = predict(model.volume, dense, SPEC, slab=7)
    masks = to_masks(found, model.grid, grid, [CORD], [0.5])
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
    masks = to_masks(slabs(probabilities, 5), model.grid, grid, [CORD, EYE], [0.5, 0.7])

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


@pytest.mark.parametrize("n", [1, 2, 5, 64])
@pytest.mark.parametrize("name", ["FFDL", "uneven", "gantry tilt 20°"])
def test_slabs_leave_no_seam(name: str, n: int) -> None:
    grid = orientations.ALL[name]
    model = model_of(grid)
    probabilities = np.random.default_rng(5).random((2, *model.volume.shape), np.float32)
    whole = to_masks([(0, probabilities)], model.grid, grid, [CORD, EYE], [0.5, 0.5])
    assert np.array_equal(whole.bits, to_masks(slabs(probabilities, n), model.grid, grid, [CORD, EYE], [0.5, 0.5]).bits)


@pytest.mark.parametrize("name", [*orientations.PATIENT_POSITIONS, "uneven"])
def test_the_whole_scan_has_an_answer_where_the_model_saw_the_whole_scan(name: str) -> None:
    grid = orientations.ALL[name]
    model = to_model_grid(picture(grid), grid, InputSpec("ct", (3.7, 2.3, 2.9), None, 1, -1000.0))
    masks = to_masks([(0, np.ones((1, *model.volume.shape), np.float32))], model.grid, grid, [CORD], [0.5])
    assert masks.mask(CORD)[:, 1:-1, 1:-1].all()


def test_nothing_is_drawn_outside_of_the_models_field_of_view(crooked_grid: Grid) -> None:
    model = to_model_grid(np.zeros(crooked_grid.shape, np.int16), crooked_grid, InputSpec("ct", None, (21, 11), 1, -1000.0))
    masks = to_masks([(0, np.ones((1, *model.volume.shape), np.float32))], model.grid, crooked_grid, [CORD], [0.5])
    assert masks.mask(CORD).sum() == 37 * 21 * 11


# ── cleaning up ───────────────────────────────────────────────────────────────────────────────────────────────────────


def masks_of(grid: Grid, **organs: npt.NDArray[np.bool_]) -> OARMasks:
    masks = OARMasks.empty([BY_NAME[name] for name in organs], grid.shape)
    for name, mask in organs.items():
        masks.put(BY_NAME[name], (slice(None), slice(None), slice(None)), mask)
    return masks


def test_an_organ_that_is_one_piece_keeps_its_largest_and_the_rest_is_said(crooked_grid: Grid) -> None:
    mask = np.zeros(crooked_grid.shape, np.bool_)
    mask[3:30, 20:30, 20:30] = True
    mask[33:35, 50:55, 5:9] = True  # 40 voxels of 2.5 × 1.1 × 0.9 mm³: 0.099 ml
    masks = masks_of(crooked_grid, SpinalCord=mask, Eye_L=mask & False)
    (warning,) = clean_up(masks, crooked_grid)
    mask[33:35] = False
    assert np.array_equal(masks.mask(CORD), mask)
    assert warning.code == "contours.pieces_dropped"
    assert warning.detail == "SpinalCord: 1 piece apart from the largest dropped, 0.10 ml in all."


def test_the_largest_piece_is_the_one_with_the_most_volume_and_not_the_most_voxels() -> None:
    grid = orientations.uneven()
    mask = np.zeros(grid.shape, np.bool_)
    thin, thick = 9, 10  # 1.5 mm and 2 mm to the neighbours of the one, 2 mm and 2.5 mm to those of the other
    assert grid.slice_thicknesses_mm[[thin, thick]] == pytest.approx([1.75, 2.25])
    mask[thin, 5:15, 5:15] = True  # 100 voxels
    mask[thick, 5:15, 30:39] = True  # 90 thicker ones
    masks = masks_of(grid, Eye_L=mask)
    clean_up(masks, grid)
    assert masks.mask(EYE).sum() == 90


def test_half_a_mandible_stays_and_half_a_parotid_goes(crooked_grid: Grid) -> None:
    mask = np.zeros(crooked_grid.shape, np.bool_)
    mask[10:20, 10:20, 5:15] = True
    mask[10:20, 10:20, 35:41] = True  # 60 % of the other half
    masks = masks_of(crooked_grid, Bone_Mandible=mask, Parotid_L=mask)
    broken, dropped = clean_up(masks, crooked_grid)
    assert masks.mask(BY_NAME["Bone_Mandible"]).sum() == 1600
    assert masks.mask(BY_NAME["Parotid_L"]).sum() == 1000
    assert (broken.code, broken.detail) == ("contours.broken", "Bone_Mandible: drawn in 2 pieces, where it should be one.")
    assert (dropped.code, dropped.detail.split(":")[0]) == ("contours.pieces_dropped", "Parotid_L")


def test_pieces_that_touch_at_a_corner_are_one(crooked_grid: Grid) -> None:
    mask = np.zeros(crooked_grid.shape, np.bool_)
    mask[10, 10:20, 10:20] = True
    mask[11, 20:30, 20:30] = True
    masks = masks_of(crooked_grid, SpinalCord=mask)
    assert clean_up(masks, crooked_grid) == []
    assert np.array_equal(masks.mask(CORD), mask)


def test_a_hole_in_a_slice_is_filled_but_not_in_a_lung(crooked_grid: Grid) -> None:
    mask = np.zeros(crooked_grid.shape, np.bool_)
    mask[5:9, 10:30, 10:30] = True
    mask[5:9, 15:20, 15:20] = False  # a channel, open at both ends of z
    masks = masks_of(crooked_grid, SpinalCord=mask, Lung_L=mask)
    assert clean_up(masks, crooked_grid) == []
    assert masks.mask(CORD)[5:9, 10:30, 10:30].all()
    assert masks.mask(CORD).sum() == 4 * 400
    assert np.array_equal(masks.mask(LUNG), mask)


@pytest.mark.parametrize(("first", "left"), [(5, 0), (0, 192)])
def test_a_speck_is_no_organ_but_where_the_scan_ends_within_one(first: int, left: int, crooked_grid: Grid) -> None:
    mask = np.zeros(crooked_grid.shape, np.bool_)
    mask[first : first + 3, 30:38, 30:38] = True  # 0.5 ml of a lung, the smallest of which has 900
    masks = masks_of(crooked_grid, Lung_L=mask)
    warnings = clean_up(masks, crooked_grid)
    assert masks.mask(LUNG).sum() == left
    assert [warning.detail for warning in warnings] == (
        [] if left else ["Lung_L: 1 piece too small for the organ dropped, 0.48 ml in all."]
    )


def test_the_stem_is_no_hole_in_the_brain(crooked_grid: Grid) -> None:
    brain = np.zeros(crooked_grid.shape, np.bool_)
    brain[3:30, 5:55, 5:45] = True
    stem = np.zeros(crooked_grid.shape, np.bool_)
    stem[5:12, 20:30, 20:30] = True
    hole = np.zeros(crooked_grid.shape, np.bool_)
    hole[20, 10:12, 10:12] = True
    masks = masks_of(crooked_grid, Brain=brain & ~stem & ~hole, Brainstem=stem)
    clean_up(masks, crooked_grid)
    assert np.array_equal(masks.mask(BY_NAME["Brain"]), brain & ~stem)
    assert np.array_equal(masks.mask(BY_NAME["Brainstem"]), stem)


def test_an_organ_of_several_pieces_loses_only_its_islands(crooked_grid: Grid) -> None:
    several = OAR("Eye_L", "", (0, 0, 0), 1.0, "", "", "", None, single=False)
    mask = np.zeros(crooked_grid.shape, np.bool_)
    mask[3:9, 5:15, 5:15] = True
    mask[20:26, 5:15, 5:15] = True
    mask[30, 40:44, 40:44] = True  # 16 voxels: 0.0396 ml
    masks = OARMasks.empty([several], crooked_grid.shape)
    masks.put(several, (slice(None), slice(None), slice(None)), mask)
    (warning,) = clean_up(masks, crooked_grid)
    assert masks.mask(several).sum() == 1200
    assert warning.detail == "Eye_L: 1 piece smaller than 0.05 ml dropped, 0.04 ml in all."


def claims(model: ModelInput, left: float, right: float) -> npt.NDArray[np.float32]:
    return np.stack([np.full(model.volume.shape, value, np.float32) for value in (left, right)])


def test_a_voxel_that_both_sides_of_an_organ_claim_goes_to_the_stronger_claim() -> None:
    grid = orientations.ALL["HFS"]
    model = model_of(grid)
    lungs = [LUNG, BY_NAME["Lung_R"]]
    probabilities = claims(model, 0.6, 0.7)
    probabilities[:, :, :, 20:] = [[[[0.8]]], [[[0.7]]]]
    masks = to_masks(slabs(probabilities, 5), model.grid, grid, lungs, [0.5, 0.5])
    left, right = (masks.mask(lung) for lung in lungs)
    assert left.any()
    assert right.any()
    assert not (left & right).any()


def test_a_claim_is_measured_by_its_own_threshold_and_a_tie_goes_to_the_first() -> None:
    grid = orientations.ALL["HFS"]
    model = model_of(grid)
    for left, right, thresholds, wins in [(0.6, 0.5, [0.5, 0.3], 1), (0.6, 0.6, [0.5, 0.5], 0)]:
        lungs = [LUNG, BY_NAME["Lung_R"]]
        masks = to_masks(slabs(claims(model, left, right), 5), model.grid, grid, lungs, thresholds)
        drawn = [bool(masks.mask(lung).any()) for lung in lungs]
        assert drawn == [wins == 0, wins == 1]


def test_organs_that_lie_in_one_another_share_their_voxels() -> None:
    grid = orientations.ALL["HFS"]
    model = model_of(grid)
    masks = to_masks(slabs(claims(model, 0.9, 0.6), 5), model.grid, grid, [BY_NAME["SpinalCanal"], CORD], [0.5, 0.5])
    assert (masks.mask(CORD) & masks.mask(BY_NAME["SpinalCanal"])).any()

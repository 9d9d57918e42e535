"""How firmly probabilities stand behind a mask: measured in passing, judged beside the anatomy."""

import math

import numpy as np
import pytest

from oarlock.geometry.grid import Grid
from oarlock.geometry.masks import OARMasks
from oarlock.organs.catalogue import BY_NAME
from oarlock.qa.checks.finding import Finding, Level
from oarlock.qa.plausibility import check_masks
from oarlock.segmentation.certainty import Certainty, CertaintyMeter, of_odds
from oarlock.segmentation.manifest import InputSpec
from oarlock.segmentation.resampling import to_model_grid
from tests.fixtures.crooked import SHAPE, SPACING_MM
from tests.segmentation.test_resampling import picture

CORD, EYE = BY_NAME["SpinalCord"], BY_NAME["Eye_L"]
BLOCK = np.s_[5:20, 10:40, 10:30]
BLOCK_ML = 15 * 30 * 20 * math.prod(SPACING_MM) / 1000


def test_odds_that_are_e_times_higher_are_one_more_on_the_logit_scale() -> None:
    for probability in (0.1, 0.5, 0.9):
        logit = math.log(probability / (1 - probability))
        assert of_odds(probability, math.e) == pytest.approx(1 / (1 + math.exp(-(logit + 1))))
        assert of_odds(of_odds(probability, math.e), 1 / math.e) == pytest.approx(probability)


@pytest.mark.parametrize("slab", [1, 5, 64])
@pytest.mark.parametrize("upscale", [1, 2])
def test_volumes_are_summed_over_slabs_at_three_thresholds_and_the_slabs_go_by_untouched(
    slab: int, upscale: int, crooked_grid: Grid
) -> None:
    model = to_model_grid(picture(crooked_grid), crooked_grid, InputSpec("ct", (2.5, 2.0, 2.0), (40, 40), 1, -1000.0))
    z, y, x = model.volume.shape
    p = np.random.default_rng(7).random((2, z, y * upscale, x * upscale)).astype(np.float32)
    watch = CertaintyMeter(model.grid, [CORD, EYE], [0.5, 0.2])
    passed = list(watch.over((first, p[:, first : first + slab]) for first in range(0, z, slab)))
    assert np.array_equal(np.concatenate([values for _, values in passed], axis=1), p)
    voxel_ml = 2.5 * 2.0 * 2.0 / upscale**2 / 1000
    for channel, (oar, threshold) in enumerate([(CORD, 0.5), (EYE, 0.2)]):
        found = watch.found()[oar]
        logits = np.log(p[channel].astype(np.float64) / (1 - p[channel])) - math.log(threshold / (1 - threshold))
        volumes = [found.drawn_ml, found.strict_ml, found.loose_ml]
        assert volumes == pytest.approx([voxel_ml * np.count_nonzero(logits >= step) for step in (0, 1, -1)], rel=1e-4)


def test_only_wanted_organs_are_measured_and_as_if_all_were(crooked_grid: Grid) -> None:
    model = to_model_grid(picture(crooked_grid), crooked_grid, InputSpec("ct", (2.5, 2.0, 2.0), (40, 40), 1, -1000.0))
    p = np.random.default_rng(8).random((2, *model.volume.shape)).astype(np.float32)
    p[0, 0, 0, 0] = np.nan  # says nothing of the others
    found = []
    for wanted in (None, {CORD}):
        meter = CertaintyMeter(model.grid, [CORD, EYE], [0.5, 0.2], wanted=wanted)
        list(meter.over([(0, p)]))
        found.append(meter.found())
    assert found[1] == {CORD: found[0][CORD]}
    assert found[1][CORD].drawn_ml > 0


def test_of_an_organ_that_was_not_seen_there_is_no_share() -> None:
    assert Certainty(0.0, 0.0, 0.0).share is None
    assert Certainty(1.0, 0.5, 2.0).share == 0.25


def levels(seen: Certainty, grid: Grid) -> dict[str, Finding]:
    masks = OARMasks.empty([CORD], SHAPE)
    masks.put(CORD, BLOCK, np.ones((15, 30, 20), dtype=np.bool_))
    return {check.code: check for check in check_masks(masks, grid, {CORD: seen})}


@pytest.mark.parametrize(("share", "level"), [(0.2, Level.RED), (0.4, Level.AMBER), (0.6, None)])
def test_a_contour_that_hangs_on_the_threshold_is_told(share: float, level: Level | None, crooked_grid: Grid) -> None:
    found = levels(Certainty(BLOCK_ML, share * 2, 2.0), crooked_grid).get("organ.certainty")
    assert (found and found.level) == level
    if found:
        assert found.value == pytest.approx(share)
        assert found.reason.startswith("SpinalCord: low confidence. ")
        assert f"; {share * 2:.2f} ml at a stricter threshold, 2.00 ml at a looser one." in found.reason


@pytest.mark.parametrize(
    ("ratio", "level"), [(0.4, Level.RED), (0.6, Level.AMBER), (1.0, None), (1.5, Level.AMBER), (3.0, Level.RED)]
)
def test_a_contour_that_is_not_what_the_model_saw_is_told(ratio: float, level: Level | None, crooked_grid: Grid) -> None:
    found = levels(Certainty(BLOCK_ML / ratio, 1.0, 1.0), crooked_grid).get("organ.delivered")
    assert (found and found.level) == level
    if found:
        assert found.value == pytest.approx(ratio)


def test_without_a_model_nothing_is_said_of_its_certainty(crooked_grid: Grid) -> None:
    masks = OARMasks.empty([CORD], SHAPE)
    masks.put(CORD, BLOCK, np.ones((15, 30, 20), dtype=np.bool_))
    assert not {check.code for check in check_masks(masks, crooked_grid)} & {"organ.certainty", "organ.delivered"}

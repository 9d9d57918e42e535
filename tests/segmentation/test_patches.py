"""Networks that are slid in patches: nnU-Net's steps, in the patient's axes, without holding everything at once."""

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from oarlock.segmentation.manifest import Resampling
from oarlock.segmentation.patches import (
    _back_along_z,
    head_probabilities,
    logits_in_patches,
    normalised,
    organ_probabilities,
    painted,
    predict_in_patches,
    starts_of,
)
from oarlock.segmentation.zoom import zoom_matrix
from tests.fixtures.patches_by_hand import CT, Case, by_hand, network, part_of

SHAPE, SPACING = (29, 43, 37), (2.5, 1.1, 0.9)
CASES = {
    "straight, all mirror images": (SHAPE, SPACING, Case("RAS", (0, 1, 2), (3.0, 2.0, 2.0), (8, 16, 12), (0, 1, 2))),
    "the scan's own voxels": (SHAPE, SPACING, Case("LPS", (0, 1, 2), SPACING, (12, 21, 15))),
    "transposed and upside down": (SHAPE, SPACING, Case("RAI", (2, 0, 1), (1.3, 2.0, 1.7), (17, 16, 13), (0, 2))),
    "thick slices by themselves": ((13, 43, 37), (5.0, 1.1, 0.9), Case("RPI", (0, 1, 2), (6.0, 1.4, 1.3), (5, 33, 20), (1,))),
    "a thick axis that is not z": ((27, 22, 38), (1.2, 5.0, 1.3), Case("RPI", (1, 2, 0), (4.6, 1.7, 1.4), (33, 16, 13))),
    "patches larger than the scan": ((27, 22, 38), (1.2, 5.0, 1.3), Case("LAI", (1, 2, 0), (2.6, 1.7, 1.4), (56, 37, 30))),
    "files that are not axial": ((37, 29, 23), (0.9, 1.1, 2.5), Case("SLA", (1, 0, 2), (1.5, 1.3, 3.0), (20, 25, 10), (2,))),
}


def scan(shape: tuple[int, int, int]) -> np.ndarray:
    """Smooth noise with edges of exactly 0, as nnU-Net crops them."""
    values = ndimage.gaussian_filter(np.random.default_rng(7).normal(0, 1, shape), 2) * 800
    values[:3], values[:, :, -4:] = 0, 0
    return np.round(values).astype(np.float32)


def drawn(case: Case, hu: np.ndarray, spacing: Any, **options: Any) -> tuple[np.ndarray, np.ndarray]:
    """(heads, z, y, x) logits and (z, y, x) labels in canonical axes."""
    part = part_of(case)
    assert part.patches is not None
    logits, labels = np.zeros((4, *hu.shape)), np.zeros(hu.shape, int)
    for z, box, slice_ in logits_in_patches(hu, spacing, network, part, **options):
        logits[:, z, *box], labels[z, *box] = slice_, painted(slice_, part.patches)
    return logits, labels


@pytest.mark.parametrize("name", CASES)
def test_logits_and_labels_are_those_of_nnunets_steps_over_whole_arrays(name: str) -> None:
    shape, spacing, case = CASES[name]
    volume = scan(shape)
    logits, labels = by_hand(volume, spacing, case, network)
    found, chosen = drawn(case, case.to_canonical(volume), case.canonical(spacing))
    assert np.abs(found - np.stack([case.to_canonical(head) for head in logits])).max() < 2e-5
    assert np.count_nonzero(chosen != case.to_canonical(labels)) <= 1  # where two logits are equal to five digits


def test_the_wrong_orientation_gives_another_answer() -> None:
    """What the comparison above could not see if the network or the scan were symmetric."""
    shape, spacing, case = CASES["the scan's own voxels"]
    hu = case.to_canonical(scan(shape))
    _, right = drawn(case, hu, spacing)
    for wrong in ("RPS", "LAS", "LPI"):
        assert np.mean(drawn(replace(case, orientation=wrong), hu, spacing)[1] != right) > 0.1


def test_sums_of_16_bits_are_as_rough_as_nnunets_own() -> None:
    shape, spacing, case = CASES["straight, all mirror images"]
    hu = case.to_canonical(scan(shape))
    exact, half = (drawn(case, hu, case.canonical(spacing), half=half)[0] for half in (False, True))
    apart = np.abs(exact - half)
    assert 1e-4 < np.quantile(apart, 0.99) < 0.02
    assert apart.max() > 0.1  # in the corners, where 16 bits hold no digits of the smallest weights


@pytest.mark.parametrize(
    ("of", "to", "order"), [(17, 29, 3), (29, 17, 3), (40, 13, 1), (13, 40, 1), (23, 9, 0), (5, 5, 3), (7, 19, 2)]
)
def test_the_matrix_of_an_axis_does_what_zoom_does(of: int, to: int, order: int) -> None:
    values = np.random.default_rng(1).normal(0, 1, of)
    expected = ndimage.zoom(values, to / of, order=order, mode="nearest", grid_mode=True)
    assert np.abs(zoom_matrix(of, to, order) @ values - expected).max() < 1e-6


@pytest.mark.parametrize(("of", "to", "order"), [(43, 51, 4), (45, 54, 5)])
def test_slices_stay_until_no_later_one_is_made_of_them(of: int, to: int, order: int) -> None:
    """Splines of these orders have rows that reach further back than the row before them."""
    matrix, values = zoom_matrix(of, to, order), np.random.default_rng(1).normal(0, 1, of).astype(np.float32)
    given = [float(slice_[0]) for _, slice_ in _back_along_z(((z, values[[z]]) for z in range(of)), matrix)]
    assert given == pytest.approx(matrix @ values, abs=1e-5)


def test_patches_are_spread_evenly_and_no_further_apart_than_a_step() -> None:
    assert starts_of(110, 64, 0.5) == [0, 23, 46]  # the example in nnU-Net's source
    assert starts_of(64, 64, 0.5) == [0]
    assert starts_of(65, 64, 1.0) == [0, 1]


def test_normalisation_changes_nothing_outside_of_its_copy() -> None:
    hu = np.array([-1000.0, 20.0, 900.0], np.float32)
    assert normalised(hu, CT).tolist() == pytest.approx([(-900 - 20) / 150, 0.0, (600 - 20) / 150])
    assert hu.tolist() == [-1000.0, 20.0, 900.0]
    scored = normalised(hu, replace(CT, scheme="z-score"))
    assert (scored.mean(), scored.std()) == pytest.approx((0.0, 1.0), abs=1e-6)
    assert normalised(hu, replace(CT, scheme="range")).tolist() == pytest.approx([0.0, 1020 / 1900, 1.0])
    assert normalised(hu, replace(CT, scheme="none")).tolist() == hu.tolist()


@pytest.mark.parametrize("regions", [False, True])
def test_an_organ_reaches_one_half_exactly_where_its_labels_are_painted(regions: bool) -> None:
    """Over all combinations of logits, equal ones among them; 1e-9 is lost where a logistic function is rounded."""
    levels = (-2.0, 0.0, 1e-9, 1.0)
    logits = np.array(list(itertools.product(levels, repeat=4)), np.float32).T.reshape(4, 16, 16)
    spec = part_of(CASES["the scan's own voxels"][2], regions=regions, values=(1, 2, 3, 4) if regions else (0, 1, 2, 3)).patches
    assert spec is not None
    labels = painted(logits, spec)
    if regions:  # the last that is positive
        expected = np.array([max((i + 1 for i in range(4) if row[i] > 0), default=0) for row in logits.reshape(4, -1).T])
        assert np.array_equal(labels.ravel(), expected)
    else:
        assert np.array_equal(labels, logits.argmax(axis=0))
    organs = organ_probabilities(logits, spec)
    assert np.array_equal(organs[0] >= 0.5, labels == 1)
    assert np.array_equal(organs[1] >= 0.5, np.isin(labels, (2, 3)))


def test_the_probability_of_an_organ_is_the_logistic_function_of_its_margin() -> None:
    spec = part_of(CASES["the scan's own voxels"][2]).patches
    assert spec is not None
    logits = np.array([1.0, 3.0, -1.0, 2.0], np.float32).reshape(4, 1, 1)
    found = organ_probabilities(logits, spec).ravel()
    assert found.tolist() == pytest.approx([1 / (1 + np.exp(-1.0)), 1 / (1 + np.exp(1.0))])


def test_heads_compete_as_labels_and_stand_alone_as_regions() -> None:
    spec = part_of(CASES["the scan's own voxels"][2]).patches
    assert spec is not None
    logits = np.zeros((1, 4, 1, 1, 1), np.float32)
    assert head_probabilities(logits, spec).ravel().tolist() == [0.25] * 4
    assert head_probabilities(logits, replace(spec, regions=True)).ravel().tolist() == [0.5] * 4


def test_patches_without_anything_needed_are_left_out_and_change_nothing_where_it_is_needed() -> None:
    shape, spacing, case = CASES["the scan's own voxels"]
    hu, part = case.to_canonical(scan(shape)), part_of(case)
    needed = np.zeros(hu.shape, bool)
    needed[4:7, 3:9, 5:9] = True
    runs: list[int] = []

    def counted(patch: np.ndarray) -> np.ndarray:
        runs.append(1)
        return network(patch)

    whole, cut = np.zeros((2, *hu.shape)), np.zeros((2, *hu.shape))
    for target, mask in ((whole, None), (cut, needed)):
        runs.append(0)
        for z, slab in predict_in_patches(hu, spacing, counted, part, needed=mask):
            target[:, z : z + slab.shape[1]] = slab
    second = runs.index(0, 1)
    assert np.array_equal(whole[:, needed], cut[:, needed])
    assert sum(runs[second:]) < 0.5 * sum(runs[:second])


def test_progress_is_the_share_of_passes_and_stops_within_one() -> None:
    shape, spacing, case = CASES["straight, all mirror images"]
    hu, said, runs = case.to_canonical(scan(shape)), [], []

    def stop_soon(share: float) -> None:
        said.append(share)
        if len(said) == 6:
            raise KeyboardInterrupt

    def counted(patch: np.ndarray) -> np.ndarray:
        runs.append(1)
        return network(patch)

    with pytest.raises(KeyboardInterrupt):
        list(predict_in_patches(hu, case.canonical(spacing), counted, part_of(case), progress=stop_soon))
    assert len(runs) == 5  # the first share is said before the first pass
    assert said[0] == 0.0
    assert np.allclose(np.diff(said), said[1])  # eight mirror images of a patch are eight equal shares


def test_sums_that_would_not_fit_are_rounded_to_16_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    shape, spacing, case = CASES["the scan's own voxels"]
    hu = case.to_canonical(scan(shape))
    half, whole = (drawn(case, hu, spacing, half=half)[0] for half in (True, None))
    monkeypatch.setattr("oarlock.segmentation.patches._RING_BYTES", 1000)
    assert np.array_equal(drawn(case, hu, spacing)[0], half)
    assert not np.array_equal(whole, half)


def test_another_kind_of_resampling_is_another_answer() -> None:
    shape, spacing, case = CASES["straight, all mirror images"]
    hu, part = case.to_canonical(scan(shape)), part_of(case)
    assert part.patches is not None
    linear = replace(part, patches=replace(part.patches, resampling=Resampling(1, separate="never")))
    one, other = (
        np.concatenate([slab for _, slab in predict_in_patches(hu, case.canonical(spacing), network, which)], axis=1)
        for which in (part, linear)
    )
    assert np.abs(one - other).max() > 0.01

"""What a training step sees: geometry, mirror images, and where the loss counts."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from model_export.augment import AugmentConfig, blur, draw_cut, draw_deformation, spline_basis
from model_export.datasets.training_file import CHANNEL
from model_export.sampling import (
    MIRRORED,
    draw_sample,
    mirror_image,
    more_at_high_x,
    no_deformation,
    sample_slab,
    to_fraction,
)
from tests.model_export.conftest import made_case

pytestmark = pytest.mark.slow

if TYPE_CHECKING:
    from model_export.config import Config
    from model_export.sampling import Sample

RIGHT, LEFT = CHANNEL["Parotid_R"], CHANNEL["Parotid_L"]


def sample(config: Config, *, mirror: bool = False, augment: AugmentConfig | None = None, middle_mm: float = 28.0) -> Sample:
    case = made_case(channels=(RIGHT, LEFT, CHANNEL["SpinalCord"]))
    deformation = dataclasses.replace(no_deformation(), mirror=mirror)
    rng = np.random.default_rng(4)
    return sample_slab(
        case, config.grid, slices=5, middle_mm=middle_mm, deformation=deformation, augment=augment or AugmentConfig(), rng=rng
    )


def test_labels_lie_on_the_tissue_that_they_name(tiny: Config) -> None:
    slab = sample(tiny)
    fine = slab.ct_hu[10:-10].repeat_interleave(2, dim=1).repeat_interleave(2, dim=2)
    rows, columns = (slice(2 * span.start, 2 * span.stop) for span in slab.window)
    for index, expected_hu in enumerate((300.0, 500.0, 700.0)):
        inside = slab.target[index] > 0.99
        assert inside.any()
        assert fine[:, rows, columns][inside].median().item() == pytest.approx(expected_hu, abs=30)


def test_an_organ_keeps_its_volume(tiny: Config) -> None:
    slab = sample(tiny)
    voxels = slab.target.sum(dim=(1, 2, 3)) / 5  # per slice
    area_mm2 = 5 * 8.3 * 6 * 7.9
    assert voxels.numpy() * 25 == pytest.approx(area_mm2, rel=0.02)


def test_mirroring_swaps_left_and_right(tiny: Config) -> None:
    plain, mirrored = sample(tiny), sample(tiny, mirror=True)
    assert mirrored.channels == (LEFT, RIGHT, CHANNEL["SpinalCord"])
    assert np.allclose(mirrored.ct_hu.numpy(), plain.ct_hu.numpy()[:, :, ::-1], atol=0.5)
    for slab in (plain, mirrored):  # the right parotid is at small x in both, though it is another one
        middles = dict(zip(slab.channels, (column_of(slab, index) for index in range(3)), strict=True))
        assert middles[RIGHT] < middles[CHANNEL["SpinalCord"]] < middles[LEFT]


@pytest.mark.parametrize("mirror", [False, True])
def test_a_network_that_is_served_one_view_learns_from_that_view(tiny: Config, mirror: bool) -> None:
    """The same patient and their mirror image are shown with more on the left of the picture, their organs named as they lie."""
    case = made_case()
    case = dataclasses.replace(case, ct=case.ct[..., ::-1].copy(), labels=case.labels[..., ::-1].copy()) if mirror else case
    rngs = (np.random.default_rng(seed) for seed in range(4))
    shown = [draw_sample(case, tiny.grid, 3, AugmentConfig(), rng, same_way_round=True) for rng in rngs]
    assert not any(more_at_high_x(slab.ct_hu[None, None])[0] for slab in shown)
    plain = draw_sample(case, tiny.grid, 3, AugmentConfig(), np.random.default_rng(0))
    turned = bool(more_at_high_x(plain.ct_hu[None, None])[0])
    assert turned is not mirror
    expected = mirror_image(plain) if turned else plain
    assert torch.equal(shown[0].ct_hu, expected.ct_hu)
    assert shown[0].channels == expected.channels
    assert torch.equal(shown[0].target, expected.target)


def test_which_side_holds_more_is_the_opposite_in_the_mirror_image_and_neither_where_both_are_alike() -> None:
    slabs = torch.full((3, 1, 4, 6, 8), -1000.0)
    slabs[0, ..., 5] = 40.0
    slabs[1, ..., 0] = slabs[1, ..., 7] = 40.0
    slabs[2, ..., 7], slabs[2, ..., 1] = 500.0, 9000.0  # 7 x 1500 against 5 x 2000: more than 1000 counts as 1000
    assert more_at_high_x(slabs).tolist() == [True, False, True]
    assert more_at_high_x(slabs.flip(-1)).tolist() == [False, False, False]
    assert more_at_high_x(slabs.half()).tolist() == [True, False, True]


def test_the_mirror_image_of_a_slab_is_that_of_the_mirrored_patient(tiny: Config) -> None:
    straight, mirrored = sample(tiny), sample(tiny, mirror=True)
    turned = mirror_image(straight)
    assert turned.channels == mirrored.channels
    assert turned.window == mirrored.window
    assert torch.allclose(turned.ct_hu, mirrored.ct_hu, atol=1e-3)
    assert torch.allclose(turned.target.float(), mirrored.target.float(), atol=1e-3)
    assert torch.equal(turned.counts, mirrored.counts)


def test_within_a_window_only_what_both_windows_hold_counts(tiny: Config) -> None:
    slab = sample(tiny)
    rows, columns = slab.window
    inner = slab.within(slice(rows.start + 2, rows.stop + 5), slice(columns.start - 3, columns.stop - 1))
    assert inner.window == (slice(rows.start + 2, rows.stop), slice(columns.start, columns.stop - 1))
    assert torch.equal(inner.counts, slab.counts[..., 2:, :-1])
    upscale = tiny.grid.upscale
    assert torch.equal(inner.target, slab.target[..., 2 * upscale :, :-upscale])
    assert slab.within(slice(0, tiny.grid.size), slice(0, tiny.grid.size)).window == slab.window


def column_of(slab: Sample, index: int) -> float:
    columns = slab.target[index].sum(dim=(0, 1)).numpy()
    return float((columns * np.arange(len(columns))).sum() / columns.sum())


def test_label_bytes_mean_the_same_on_every_device() -> None:
    case = dataclasses.replace(made_case(), label_full=3)
    codes = np.arange(256, dtype=np.uint8)
    assert to_fraction(torch.from_numpy(codes), 3).numpy() == pytest.approx(case.fraction_of_label()[codes])


def test_every_paired_channel_has_its_mirror_image() -> None:
    assert all(MIRRORED[MIRRORED[channel]] == channel for channel in range(21))
    assert MIRRORED[CHANNEL["Lens_L"]] == CHANNEL["Lens_R"]
    assert MIRRORED[CHANNEL["Brain"]] == CHANNEL["Brain"]


def test_unknown_ct_is_air_and_counts_only_far_from_the_known(tiny: Config) -> None:
    from model_export.sampling import FAR_VOXELS

    slab = sample(tiny)
    known = slab.ct_hu[10:-10, *slab.window] > -999
    counts = slab.counts.all(dim=0)
    distance = np.abs(np.argwhere(~known.numpy())[:, None] - np.argwhere(known.numpy())[None])
    same_slice = distance[..., 0] == 0
    nearest = np.where(same_slice, distance[..., 1:].max(axis=-1), 99).min(axis=1)
    found = counts.numpy()[~known.numpy()]
    assert not found[nearest <= FAR_VOXELS - 1].any()
    assert found[nearest > FAR_VOXELS + 1].all()


def test_below_its_lowest_drawn_slice_a_cord_does_not_count(tiny: Config) -> None:
    case = made_case()
    ranges = ((0, 30), (0, 30), (12, 30))
    case = dataclasses.replace(case, labelled_slices=ranges)
    rng = np.random.default_rng(1)
    slab = sample_slab(
        case, tiny.grid, slices=5, middle_mm=12.5 * 2.3, deformation=no_deformation(), augment=AugmentConfig(), rng=rng
    )
    rows, columns = slab.counts.shape[2:]
    in_the_middle = slab.counts[:, :, rows // 2, columns // 2]
    assert in_the_middle[2].tolist() == [False, False, True, True, True]
    assert in_the_middle[0].all()


def test_beyond_the_scan_there_is_air(tiny: Config) -> None:
    slab = sample(tiny, middle_mm=31 * 2.3)
    assert (slab.ct_hu[-12:] == -1000).all()
    assert slab.target[:, -2:].sum() == 0


def test_augmented_slabs_are_finite_and_repeatable(tiny: Config) -> None:
    first, second = (draw_sample(made_case(), tiny.grid, 4, tiny.augment, np.random.default_rng(9)) for _ in range(2))
    assert first.ct_hu.equal(second.ct_hu)
    assert first.target.equal(second.target)
    assert first.ct_hu.isfinite().all()
    assert 0 <= first.target.min() <= first.target.max() <= 1.00001


def test_elastic_displacements_have_the_spread_of_a_spline(tiny: Config) -> None:
    config = AugmentConfig(elastic_sd_mm=5.0)
    rng = np.random.default_rng(2)
    z, y, x = tiny.grid.positions(9)
    fields = [draw_deformation(config, rng, extent_mm=(22.5, 320, 320)).in_plane(z, y, x) for _ in range(40)]
    moved = torch.stack(fields) - no_deformation().in_plane(z, y, x)
    # the variance of Σ b c is 25 Σ b², and the mean over a cell of (Σ b²) in one dimension is 151/315
    assert float(moved.std()) == pytest.approx(5 * (151 / 315) ** 1.5, rel=0.15)


def test_spline_weights_sum_to_one() -> None:
    basis = spline_basis(np.linspace(-1.9, 1.9, 31, dtype=np.float32), 8)
    assert basis.sum(axis=1) == pytest.approx(np.ones(31), abs=1e-5)


def test_a_cut_takes_whole_half_spaces() -> None:
    kept = draw_cut((10, 20, 30), AugmentConfig(cut_probability=1.0), np.random.default_rng(0))
    assert kept is not None
    low, high = np.argwhere(kept).min(axis=0), np.argwhere(kept).max(axis=0) + 1
    assert kept.sum() == np.prod(high - low)
    assert 0 < kept.sum() < kept.size
    assert draw_cut((10, 20, 30), AugmentConfig(), np.random.default_rng(0)) is None


def test_blur_keeps_the_mean_and_smooths() -> None:
    point = torch.zeros((1, 9, 9))
    point[0, 4, 4] = 100
    smooth = blur(point, 0.7)
    assert float(smooth.sum()) == pytest.approx(100, rel=1e-5)
    assert smooth.max() < 100

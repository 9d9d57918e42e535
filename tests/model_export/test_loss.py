"""The loss, by numbers worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from model_export.loss import LossConfig, fast_loss_of_sample, loss_of_sample, soft_dice_loss, top_k_cross_entropy

pytestmark = pytest.mark.slow


def test_the_hardest_half_of_four_voxels_counts() -> None:
    # logits 0, ln 3, 0, -ln 3 give p = 1/2, 3/4, 1/2, 1/4; against 0, 0, 1, 0 the cross-entropies are ln 2, ln 4, ln 2, ln 4/3
    logits = torch.tensor([[0.0, math.log(3), 0.0, -math.log(3)]])
    target = torch.tensor([[0.0, 0.0, 1.0, 0.0]])
    counts = torch.ones(1, 4, dtype=torch.bool)
    quarter = top_k_cross_entropy(logits, target, counts, LossConfig(top_k_percent=25))
    assert quarter.item() == pytest.approx(math.log(4))
    all_four = top_k_cross_entropy(logits, target, counts, LossConfig(top_k_percent=100))
    assert all_four.item() == pytest.approx((math.log(2) + math.log(4) + math.log(2) + math.log(4 / 3)) / 4)


def test_each_channel_selects_its_own_voxels() -> None:
    logits = torch.tensor([[5.0, -5.0], [0.0, 0.0]])
    target = torch.tensor([[0.0, 0.0], [0.0, 0.0]])
    found = top_k_cross_entropy(logits, target, torch.ones(2, 2, dtype=torch.bool), LossConfig(top_k_percent=50))
    assert found.tolist() == pytest.approx([math.log1p(math.exp(5)), math.log(2)])


def test_the_percentage_is_of_the_voxels_that_count() -> None:
    logits = torch.tensor([[3.0, 9.0, 0.0, 0.0, -1.0]])  # one of the four counts, and not the masked 9
    counts = torch.tensor([[True, False, True, True, True]])
    found = top_k_cross_entropy(
        logits, torch.zeros(1, 5), counts, LossConfig(top_k_percent=25)
    )  # one of four, and not the masked 9
    assert found.item() == pytest.approx(math.log1p(math.exp(3)))


@pytest.mark.parametrize("loss", [loss_of_sample, fast_loss_of_sample])
def test_no_gradient_reaches_an_unlabelled_voxel(loss: Callable[..., torch.Tensor]) -> None:
    logits = torch.randn(2, 60, requires_grad=True)
    counts = torch.rand(2, 60) < 0.5
    config = LossConfig(top_k_percent=100.0, dice=1.0)
    loss(logits, torch.rand(2, 60), counts, config).backward()
    assert logits.grad is not None
    assert logits.grad[~counts].abs().max() < 1e-10
    assert bool((logits.grad[counts] != 0).any())


def test_soft_dice_by_hand() -> None:
    # p = 1/2 everywhere, t = 1, 0: 1 - (2 * 1/2 + 1) / (1/4 + 1/4 + 1 + 1) = 1 - 2 / 2.5
    logits, target = torch.zeros(1, 2), torch.tensor([[1.0, 0.0]])
    found = soft_dice_loss(logits, target, torch.ones(1, 2, dtype=torch.bool), smoothing=1.0)
    assert found.item() == pytest.approx(0.2)


def test_soft_dice_is_smallest_at_the_soft_label() -> None:
    target = torch.tensor([[0.25, 0.5, 0.75]])
    counts = torch.ones(1, 3, dtype=torch.bool)
    at_label = soft_dice_loss(torch.logit(target), target, counts, smoothing=0.0)
    rounded = soft_dice_loss(torch.logit(torch.tensor([[0.01, 0.99, 0.99]])), target, counts, smoothing=0.0)
    assert at_label.item() == pytest.approx(0.0, abs=1e-6)
    assert rounded > at_label


def test_k_can_be_a_multiple_of_the_organs_volume() -> None:
    target = torch.zeros(1, 1000)
    target[0, :7] = 1
    logits = torch.linspace(-1.0, -3.0, 1000)[None]  # the organ's own voxels are the hardest, then those next to it
    config = LossConfig(top_k_percent=0.1, top_k_volumes=2.0)
    found = top_k_cross_entropy(logits, target, torch.ones(1, 1000, dtype=torch.bool), config)
    values = [-1.0 - 2.0 * n / 999 for n in range(14)]
    expected = [math.log1p(math.exp(-z if n < 7 else z)) for n, z in enumerate(values)]
    assert found.item() == pytest.approx(sum(expected) / 14, rel=1e-4)


def test_a_slab_without_the_organ_has_its_own_k() -> None:
    logits = torch.linspace(-1.0, -3.0, 1000)[None]
    config = LossConfig(top_k_percent=0.1, absent_percent=100.0)
    found = top_k_cross_entropy(logits, torch.zeros(1, 1000), torch.ones(1, 1000, dtype=torch.bool), config)
    assert found.item() == pytest.approx(torch.nn.functional.softplus(logits).mean().item())


def test_a_unit_of_channels_makes_a_full_scan_weigh_more() -> None:
    torch.manual_seed(4)
    logits, target, counts = torch.randn(6, 30), torch.rand(6, 30), torch.ones(6, 30, dtype=torch.bool)
    mean, unit = (LossConfig(top_k_percent=50.0, dice=1.0, channels_per_unit=n) for n in (0.0, 2.0))
    ratio = loss_of_sample(logits, target, counts, unit) / loss_of_sample(logits, target, counts, mean)
    assert ratio.item() == pytest.approx(3.0)


def test_an_organ_outside_the_slab_has_no_dice() -> None:
    assert soft_dice_loss(torch.ones(1, 4), torch.zeros(1, 4), torch.ones(1, 4, dtype=torch.bool), smoothing=1.0) == 0


def test_a_coarse_threshold_is_near_the_exact_one() -> None:
    torch.manual_seed(1)
    logits, target = torch.randn(3, 100_003), torch.zeros(3, 100_003)
    counts = torch.ones(3, 100_003, dtype=torch.bool)
    exact = top_k_cross_entropy(logits, target, counts, LossConfig(top_k_percent=10))
    coarse = top_k_cross_entropy(logits, target, counts, LossConfig(top_k_percent=10, threshold_stride=17))
    torch.testing.assert_close(coarse, exact, rtol=0.02, atol=0.0)


@pytest.mark.parametrize("percent", [5.0, 100.0])
def test_the_fast_loss_is_the_loss_with_its_gradient(percent: float) -> None:
    torch.manual_seed(2)
    target, counts = torch.rand(3, 2, 50), torch.rand(3, 1, 50) < 0.7
    target[1] = 0  # an organ that is not in the slab
    config = LossConfig(
        top_k_percent=percent, top_k_volumes=0.3, absent_percent=40.0, dice=0.7, dice_smoothing_voxels=3.0, channels_per_unit=2
    )
    slow, fast = (torch.randn(3, 2, 50, generator=torch.Generator().manual_seed(1)).requires_grad_() for _ in range(2))
    expected = loss_of_sample(slow.flatten(1), target.flatten(1), counts.expand(3, 2, 50).flatten(1), config)
    found = fast_loss_of_sample(fast, target, counts, config)
    (2 * expected).backward()
    (2 * found).backward()
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    torch.testing.assert_close(fast.grad, slow.grad, rtol=1e-4, atol=1e-7)

"""What the network is trained to make small.

The paper's loss is the top-k-percent pixel-wise binary cross-entropy: in each channel only the k % of voxels with the largest
cross-entropy count (Nikolov et al. 2021, Methods). The shipped model adds a soft Dice: with a few thousand steps instead of
120,000 a lens of thirty voxels needs a term that does not shrink with its size. It is the squared form, whose minimum for soft
labels is the label itself, not its rounding. Both look only at voxels that are labelled.
"""

# mypy: allow-subclassing-any
# (torch is not there where the types are checked without it)

from dataclasses import dataclass
from typing import Any, Final, cast

import torch
from torch import Tensor
from torch.nn import functional

_NEVER: Final = -30.0  # a logit whose probability, loss and gradient are nothing


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """How many voxels of a channel count.

    `top_k_percent` of them, or `top_k_volumes` times the organ's own volume where that is more.

    `absent_percent` counts where the organ is not in the slab, if it is not 0: fewer would let each voxel of a slab without a
    lung weigh more than a voxel of a lung does. `dice` weighs the Dice term, 0 leaves it out. A sample's loss is the mean over
    its labelled channels, or their sum over `channels_per_unit`: then a scan with 21 OARs weighs four times one with five.
    `threshold_stride` finds the k-th largest loss among every n-th voxel only: 1 is exact, more is faster.
    """

    top_k_percent: float
    top_k_volumes: float = 0.0
    absent_percent: float = 0.0
    channels_per_unit: float = 0.0
    dice: float = 0.0
    threshold_stride: int = 1
    dice_smoothing_voxels: float = 20.0


def loss_of_sample(logits: Tensor, target: Tensor, counts: Tensor, config: LossConfig) -> Tensor:
    """All (channels, voxels), `counts` says which voxels matter. The definition, slow."""
    loss = top_k_cross_entropy(logits, target, counts, config).sum()
    if config.dice:
        loss = loss + config.dice * soft_dice_loss(logits, target, counts, smoothing=config.dice_smoothing_voxels).sum()
    return loss / (config.channels_per_unit or len(logits))


def fast_loss_of_sample(logits: Tensor, target: Tensor, counts: Tensor, config: LossConfig) -> Tensor:
    """The same number and gradient, one channel at a time.

    Without a graph: a third of the training step's time less.

    `target` and `counts` need only broadcast to the shape of `logits`, (channels, …).
    """
    return cast("Tensor", cast("Any", _FastLoss).apply(logits, target, counts, config))


class _FastLoss(torch.autograd.Function):
    """Loss and gradient in one go; the gradient is written down by hand, and a test holds it against `loss_of_sample`."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor, counts: Tensor, config: LossConfig) -> Tensor:
        channels = logits.shape[0]
        gradient = torch.empty_like(logits)
        unit = config.channels_per_unit or channels
        total = 0.0
        for index in range(channels):
            mask = counts[index].expand(logits.shape[1:])
            # Never in place: in float32 these are the network's own logits.
            one = logits[index].float().masked_fill(~mask, _NEVER)
            label = target[index].float() * mask
            loss, slope = _hardest(one, label, mask, config)
            total += loss / unit
            slope.mul_(1.0 / unit)
            if config.dice and bool(label.any()):
                loss, dice_slope = _dice(torch.sigmoid(one), label, config.dice_smoothing_voxels)
                total += config.dice * loss / unit
                slope.add_(dice_slope, alpha=config.dice / unit)
            gradient[index] = slope
        ctx.save_for_backward(gradient)
        return torch.tensor(total, device=logits.device)

    @staticmethod
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * outer, None, None, None


def _hardest(logits: Tensor, target: Tensor, mask: Tensor, config: LossConfig) -> tuple[float, Tensor]:
    """Top-k cross-entropy of one channel and its slope: (p - t) / k on the voxels that were selected."""
    losses = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    flat = losses.flatten()[:: config.threshold_stride]
    share = hardest_share(target, mask, config)
    threshold = _threshold(flat, mask.flatten()[:: config.threshold_stride], share)
    selected = (losses >= threshold) & mask
    number = max(int(selected.count_nonzero()), 1)
    weight = selected.float().div_(number)
    return float((losses * weight).sum()), (torch.sigmoid(logits) - target).mul_(weight)


def _dice(probability: Tensor, target: Tensor, smoothing: float) -> tuple[float, Tensor]:
    """1 - N / D of one channel and its slope, p (1 - p) (2 p N - 2 t D) / D²."""
    numerator = 2.0 * float(torch.dot(probability.flatten(), target.flatten())) + smoothing
    squares = torch.dot(probability.flatten(), probability.flatten()) + torch.dot(target.flatten(), target.flatten())
    denominator = float(squares) + smoothing
    slope = (probability * (2.0 * numerator / denominator**2)).sub_(target, alpha=2.0 / denominator)
    return 1.0 - numerator / denominator, slope.mul_(probability).mul_(1.0 - probability)


def top_k_cross_entropy(logits: Tensor, target: Tensor, counts: Tensor, config: LossConfig) -> Tensor:
    """Mean cross-entropy of the hardest voxels that count, per channel.

    Of (channels, voxels).
    """
    losses = functional.binary_cross_entropy_with_logits(logits, target, reduction="none") * counts
    stride = config.threshold_stride
    threshold = torch.stack(
        [
            _threshold(row[::stride], mask[::stride], hardest_share(label * mask, mask, config))
            for row, label, mask in zip(losses.detach(), target, counts, strict=True)
        ]
    )
    hardest = (losses.detach() >= threshold[:, None]) & counts
    return (losses * hardest).sum(dim=1) / hardest.sum(dim=1).clamp(min=1)


def hardest_share(target: Tensor, counts: Tensor, config: LossConfig) -> float:
    """Which share of the voxels of one channel counts.

    The k % or the organ's volumes, whichever is more.
    """
    share, volume = config.top_k_percent / 100.0, float(target.sum())
    if config.absent_percent and not volume:
        share = config.absent_percent / 100.0
    if config.top_k_volumes:
        share = max(share, config.top_k_volumes * volume / max(float(counts.sum()), 1.0))
    return min(share, 1.0)


def _threshold(losses: Tensor, counts: Tensor, share: float) -> Tensor:
    """The smallest loss among the hardest share of one channel; voxels that do not count have loss 0."""
    number = max(1, round(float(counts.sum()) * share))
    return torch.kthvalue(losses, losses.numel() + 1 - number).values


def soft_dice_loss(logits: Tensor, target: Tensor, counts: Tensor, *, smoothing: float) -> Tensor:
    """One minus the soft Dice of each channel.

    The soft Dice is 2 Σpt / (Σp² + Σt²); 0 where the organ is not in the slab.
    """
    probability, target = torch.sigmoid(logits) * counts, target * counts
    overlap = 2.0 * (probability * target).sum(dim=1) + smoothing
    total = (probability * probability).sum(dim=1) + (target * target).sum(dim=1) + smoothing
    return (1.0 - overlap / total) * (target.sum(dim=1) > 0)

"""What the network is trained to make small.

The paper's loss is the top-k-percent pixel-wise binary cross-entropy: in each channel only the k % of voxels with the largest
cross-entropy count (Nikolov et al. 2021, Methods). The shipped model adds a soft Dice: with a few thousand steps instead of
120,000 a lens of thirty voxels needs a term that does not shrink with its size. It is the squared form, whose minimum for soft
labels is the label itself, not its rounding. Both look only at voxels that are labelled.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """`top_k_percent` of the voxels of a channel count; `dice` weighs the Dice term, 0 leaves it out.

    `threshold_stride` finds the k-th largest loss among every n-th voxel only: 1 is exact, more is faster.
    """

    top_k_percent: float
    dice: float = 0.0
    threshold_stride: int = 1
    dice_smoothing_voxels: float = 20.0


def loss_of_sample(logits: Tensor, target: Tensor, counts: Tensor, config: LossConfig) -> Tensor:
    """Mean over the channels; logits and target (channels, Z, Y, X), counts of the same shape: which voxels matter."""
    logits, target, counts = logits.flatten(1), target.flatten(1), counts.flatten(1)
    loss = top_k_cross_entropy(logits, target, counts, percent=config.top_k_percent, stride=config.threshold_stride).mean()
    if config.dice:
        loss = loss + config.dice * soft_dice_loss(logits, target, counts, smoothing=config.dice_smoothing_voxels)
    return loss


def top_k_cross_entropy(logits: Tensor, target: Tensor, counts: Tensor, *, percent: float, stride: int = 1) -> Tensor:
    """(channels, voxels) to the mean cross-entropy of the hardest `percent` of the voxels that count, per channel."""
    losses = functional.binary_cross_entropy_with_logits(logits, target, reduction="none") * counts
    threshold = torch.stack(
        [_threshold(row[::stride], mask[::stride], percent) for row, mask in zip(losses.detach(), counts, strict=True)]
    )
    hardest = (losses.detach() >= threshold[:, None]) & counts
    return (losses * hardest).sum(dim=1) / hardest.sum(dim=1).clamp(min=1)


def _threshold(losses: Tensor, counts: Tensor, percent: float) -> Tensor:
    """The smallest loss among the hardest `percent` of one channel; voxels that do not count have loss 0."""
    number = max(1, round(float(counts.sum()) * percent / 100.0))
    return torch.kthvalue(losses, losses.numel() + 1 - number).values


def soft_dice_loss(logits: Tensor, target: Tensor, counts: Tensor, *, smoothing: float) -> Tensor:
    """One minus the soft Dice, 2 Σpt / (Σp² + Σt²), mean over the channels whose organ is in the slab; 0 if none is."""
    probability, target = torch.sigmoid(logits) * counts, target * counts
    volume = target.sum(dim=1)
    present = volume > 0
    if not bool(present.any()):
        return logits.sum() * 0.0
    overlap = 2.0 * (probability * target).sum(dim=1) + smoothing
    total = (probability * probability).sum(dim=1) + (target * target).sum(dim=1) + smoothing
    return (1.0 - overlap / total)[present].mean()

"""A residual 3D U-Net of three levels for a box.

It reads from top to bottom.

As in the whole-scan network (`model_export.network`) the slices of all boxes are one batch of pictures, (Z · N, C, Y, X), for
which runtimes have far better kernels than for volumes; a 3x3x3 convolution is a 3x3 one over three neighbouring slices laid over
each other. A box has a fixed size, so here convolutions are padded along z too. Level one halves y and x, level two z as well.
"""

# mypy: allow-subclassing-any
# (torch is not there where the types are checked without it)

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from model_export.network import Head, HUWindows, Norm, three_slices

POOLED: tuple[tuple[int, int, int], ...] = ((1, 2, 2), (2, 2, 2))
"""What lies between the levels: by how much z, y and x shrink."""


@dataclass(frozen=True, kw_only=True)
class BoxNetworkConfig:
    """What fixes the network's shape, but the size of its box."""

    channels: tuple[int, int, int]
    blocks: tuple[int, int, int]  # residual blocks at each level on the way down
    outputs: int
    upscale: int
    hu_windows: tuple[tuple[float, float], ...]
    norm_momentum: float = 0.02


class BoxConv(nn.Module):
    """Pre-activation convolution, padded with zeros: 1x3x3 or, with context, 3x3x3."""

    def __init__(self, inputs: int, outputs: int, *, context: bool, momentum: float) -> None:
        super().__init__()
        self.context = context
        self.norm = Norm(inputs, momentum=momentum)
        self.conv = nn.Conv2d(3 * inputs if context else inputs, outputs, 3, padding=1, bias=False)

    def forward(self, features: Tensor, boxes: int) -> Tensor:
        features = torch.relu(self.norm(features))
        if self.context:
            none = torch.zeros_like(features[:boxes])
            features = three_slices(torch.cat([none, features, none]), boxes)
        return cast("Tensor", self.conv(features))


class BoxBlock(nn.Module):
    """Two convolutions, and what goes past them.

    The first is over three slices; a 1x1 projection where the width changes.
    """

    def __init__(self, inputs: int, outputs: int, *, momentum: float) -> None:
        super().__init__()
        self.identity = nn.Conv2d(inputs, outputs, 1, bias=False) if inputs != outputs else nn.Identity()
        self.first = BoxConv(inputs, outputs, context=True, momentum=momentum)
        self.second = BoxConv(outputs, outputs, context=False, momentum=momentum)

    def forward(self, features: Tensor, boxes: int) -> Tensor:
        return cast("Tensor", self.identity(features) + self.second(self.first(features, boxes), boxes))


class BoxLevel(nn.Module):
    """Some residual blocks, one after the other."""

    def __init__(self, inputs: int, outputs: int, *, blocks: int, momentum: float) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            BoxBlock(inputs if index == 0 else outputs, outputs, momentum=momentum) for index in range(blocks)
        )

    def forward(self, features: Tensor, boxes: int) -> Tensor:
        for block in self.blocks:
            features = block(features, boxes)
        return features


class BoxNetwork(nn.Module):
    """CT in HU to logits.

    (N, 1, Z, Y, X) to (N, organs, Z, Y · upscale, X · upscale). Z must be even, Y and X divisible by 4.
    """

    def __init__(self, config: BoxNetworkConfig) -> None:
        super().__init__()
        self.config = config
        one, two, three = config.channels
        momentum, windows = config.norm_momentum, len(config.hu_windows)
        self.hu_windows = HUWindows(config.hu_windows)
        self.stem = nn.Conv2d(windows, one, 3, padding=1)
        self.down1 = BoxLevel(one, one, blocks=config.blocks[0], momentum=momentum)
        self.down2 = BoxLevel(one, two, blocks=config.blocks[1], momentum=momentum)
        self.bottom = BoxLevel(two, three, blocks=config.blocks[2], momentum=momentum)
        self.reduce2 = nn.Conv2d(three, two, 1, bias=False)
        self.up2 = BoxLevel(2 * two, two, blocks=1, momentum=momentum)
        self.reduce1 = nn.Conv2d(two, one, 1, bias=False)
        self.up1 = BoxLevel(2 * one, one, blocks=1, momentum=momentum)
        self.head = Head(one, config.outputs, upscale=config.upscale, momentum=momentum)

    def forward(self, ct_hu: Tensor) -> Tensor:
        boxes = ct_hu.shape[0]
        pictures = ct_hu.permute(2, 0, 1, 3, 4).flatten(0, 1)  # (Z · N, 1, Y, X)
        fine = self.down1(self.stem(self.hu_windows(pictures)), boxes)
        middle = self.down2(pool(fine, POOLED[0], boxes), boxes)
        features = self.bottom(pool(middle, POOLED[1], boxes), boxes)
        features = self.up2(torch.cat([unpool(self.reduce2(features), POOLED[1], boxes), middle], dim=1), boxes)
        features = self.up1(torch.cat([unpool(self.reduce1(features), POOLED[0], boxes), fine], dim=1), boxes)
        logits = cast("Tensor", self.head(features))  # (Z · N, organs, Y · upscale, X · upscale)
        return logits.reshape(-1, boxes, *logits.shape[1:]).permute(1, 2, 0, 3, 4)

    def set_norm_limit(self, limit: float) -> None:
        """How far a training step may correct towards the running statistics.

        1 is plain batch norm.
        """
        for module in self.modules():
            if isinstance(module, Norm):
                module.limit = limit


def pool(features: Tensor, factors: tuple[int, int, int], boxes: int) -> Tensor:
    """The largest of each (z, y, x) block.

    (Z · N, C, Y, X) to (Z / z · N, C, Y / y, X / x).
    """
    features = functional.max_pool2d(features, factors[1:])
    if factors[0] == 1:
        return features
    slices = features.reshape(-1, factors[0], boxes, *features.shape[1:])
    return slices.amax(dim=1).flatten(0, 1)


def unpool(features: Tensor, factors: tuple[int, int, int], boxes: int) -> Tensor:
    """Each voxel repeated, back to the size before `pool`."""
    features = functional.interpolate(features, scale_factor=(float(factors[1]), float(factors[2])), mode="nearest")
    if factors[0] == 1:
        return features
    slices = features.reshape(-1, 1, boxes, *features.shape[1:])
    return slices.expand(-1, factors[0], *slices.shape[2:]).flatten(0, 2)

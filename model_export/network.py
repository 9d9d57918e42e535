"""The residual 3D U-Net of Nikolov et al. 2021.

Methods, "Model Architecture", and Figure 4; it reads from top to bottom.

Seven residual blocks down, a residual fully connected block that sees the whole field of view of one
slice, seven residual blocks up, a 1x1x1 convolution to one logit per OAR. Pooling is in plane only.

The 21 slices of context are ten VALID 3x3x3 convolutions on the way down: each consumes one slice on
either side, so a slab of N + 20 slices gives N predicted slices, every one with exactly 21 slices of
context, and two slabs that overlap by 20 slices join without a seam. Nothing may therefore depend on the
slab as a whole: normalisation uses running statistics, never those of the slab at hand. (Of a served network two
things do: with `body_only` the window that is computed, with `same_way_round` which way round a slab is shown, docs/model.md.)

Between input and output the slices of all slabs are one batch of pictures, (Z · N, C, Y, X) with the slabs side by side at each
slice, and a 3x3x3 convolution is a 3x3 one over three neighbouring slices laid over each other. The numbers are the same; for
pictures runtimes have far better kernels than for volumes (docs/performance.md).
"""

# mypy: allow-subclassing-any
# (torch is not there where the types are checked without it)

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """Everything that fixes the shape of the network."""

    size: int  # rows and columns of the input
    channels: tuple[int, ...]  # one width per down block
    pool_after: tuple[int, ...]  # numbers, from 1, of the down blocks that are followed by in-plane pooling
    convs: tuple[int, ...]  # convolutions in each down block
    context_convs: tuple[int, ...]  # how many of them are 3x3x3 (the others are 1x3x3)
    bottom_width: int  # units of the fully connected block
    bottom_layers: int  # residual layers between them
    outputs: int  # OARs
    upscale: int = 1  # output voxels per input voxel along a row and along a column
    hu_windows: tuple[tuple[float, float], ...] = ((-1000.0, 2000.0),)  # one input feature each
    norm_momentum: float = 0.02
    stem: bool = False  # a plain convolution first: the norm of a block would cut off what is darker than a slab's mean
    same_way_round: bool = False  # when it is served: it is shown a patient and their mirror image alike
    body_only: bool = False  # when it is served: what lies beside the body is not computed, it counts as air

    def __post_init__(self) -> None:
        """Refuse a shape that cannot be built."""
        blocks = len(self.channels)
        if not len(self.convs) == len(self.context_convs) == blocks:
            raise ValueError("channels, convs and context_convs need one entry for each down block")
        if any(not 1 <= number <= blocks for number in self.pool_after):
            raise ValueError(f"pool_after counts the down blocks from 1 to {blocks}")
        if self.size % (1 << len(self.pool_after)):
            raise ValueError(f"{len(self.pool_after)} poolings do not divide {self.size} rows")

    @property
    def context_slices(self) -> int:
        """Input slices that one predicted slice depends on."""
        return 1 + 2 * sum(self.context_convs)

    @property
    def bottom_size(self) -> int:
        """Rows and columns at the bottom."""
        return self.size >> len(self.pool_after)


class HUWindows(nn.Module):
    """Hounsfield units to one feature in [-1, 1] per window.

    The network takes HU and normalises them itself.
    """

    low: Tensor
    high: Tensor

    def __init__(self, windows: Sequence[tuple[float, float]]) -> None:
        super().__init__()
        shape = (1, len(windows), 1, 1)
        self.register_buffer("low", torch.tensor([low for low, _ in windows]).view(shape))
        self.register_buffer("high", torch.tensor([high for _, high in windows]).view(shape))

    def forward(self, hu: Tensor) -> Tensor:
        share = (hu - self.low) / (self.high - self.low)  # (…, 1, Y, X) to (…, W, Y, X)
        return share.clamp(0.0, 1.0) * 2.0 - 1.0


class Norm(nn.Module):
    """Batch renormalisation (Ioffe 2017).

    Batch norm whose training output agrees with its running statistics.

    One step holds one slab, and the share of air in a slab differs much between scans. Plain batch norm
    would train on statistics that inference never sees. Once `limit` has been raised above 1, a training
    step normalises as inference does, up to a clipped factor, and still sends its gradient through the
    statistics of the batch. In evaluation it is batch norm, and is folded into the convolutions on export.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, *, momentum: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self.momentum = momentum
        self.limit = 1.0  # 1: plain batch norm
        self.eps = 1e-4

    def forward(self, features: Tensor) -> Tensor:
        if not self.training:
            return functional.batch_norm(
                features, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
            )
        ratio, shift = self.correction(features)
        return functional.batch_norm(
            features,
            self.running_mean,
            self.running_var,
            self.weight * ratio,
            self.bias + self.weight * shift,
            True,
            self.momentum,
            self.eps,
        )

    def correction(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Factor and shift per channel from batch to running statistics.

        Clipped; 1 and 0 at first.

        They are constants to the gradient, so a regular sample of the voxels is enough to estimate them.
        """
        if self.limit <= 1.0:
            return torch.ones_like(self.running_mean), torch.zeros_like(self.running_mean)
        features = features.detach()
        step = 4 if features.shape[-1] >= 48 else 2 if features.shape[-1] >= 12 else 1
        var, mean = torch.var_mean(features[:, :, ::step, :: 2 * step].float(), (0, 2, 3), unbiased=False)
        deviation, running = (var + self.eps).sqrt(), (self.running_var + self.eps).sqrt()
        ratio = (deviation / running).clamp(1.0 / self.limit, self.limit)
        return ratio, ((mean - self.running_mean) / running).clamp(1.0 - self.limit, self.limit - 1.0)


class NormReLUConv(nn.Module):
    """Pre-activation convolution, padded in plane.

    1x3x3 or, with context, 3x3x3 and one slice less at both ends.
    """

    def __init__(self, inputs: int, outputs: int, *, context: bool, momentum: float) -> None:
        super().__init__()
        self.context = context
        self.norm = Norm(inputs, momentum=momentum)
        self.conv = nn.Conv2d(3 * inputs if context else inputs, outputs, 3, padding=1, bias=False)

    def forward(self, features: Tensor, slabs: int) -> Tensor:
        features = torch.relu(self.norm(features))
        if self.context:
            features = three_slices(features, slabs)
        return cast("Tensor", self.conv(features))


class ResidualBlock(nn.Module):
    """Pre-activation residual block.

    With a 1x1 projection on the identity path where the width changes.
    """

    def __init__(self, inputs: int, outputs: int, *, convs: int, context_convs: int, momentum: float) -> None:
        super().__init__()
        self.crop = context_convs
        self.identity = nn.Conv2d(inputs, outputs, 1, bias=False) if inputs != outputs else nn.Identity()
        self.convs = nn.ModuleList(
            NormReLUConv(inputs if index == 0 else outputs, outputs, context=index < context_convs, momentum=momentum)
            for index in range(convs)
        )

    def forward(self, features: Tensor, slabs: int) -> Tensor:
        identity = self.identity(crop_slices(features, self.crop, slabs))
        for conv in self.convs:
            features = conv(features, slabs)
        return cast("Tensor", identity + features)


class FullyConnectedBlock(nn.Module):
    """The residual fully connected block at the bottom.

    Each slice alone, its whole field of view at once.
    """

    def __init__(self, channels: int, *, size: int, width: int, layers: int, momentum: float) -> None:
        super().__init__()
        self.shape = (channels, size, size)
        self.norm = Norm(channels, momentum=momentum)
        self.down = nn.Linear(channels * size * size, width)
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))
        self.up = nn.Linear(width, channels * size * size)

    def forward(self, features: Tensor, window: "Window | None" = None) -> Tensor:
        seen = torch.relu(self.norm(features))
        if window is not None:
            seen = window.in_air(seen)
        code = self.down(seen.flatten(1))  # (Z · N, width)
        for layer in self.layers:
            code = code + layer(torch.relu(code))
        added = self.up(torch.relu(code)).reshape(-1, *self.shape)  # (Z · N, C, Y, X)
        return features + (added if window is None else window.of(added))


@dataclass(frozen=True, eq=False)
class Window:
    """The cells of the field that are computed.

    Numbers may be tensors, so that an exported graph finds them for each slab anew.

    :param top, height, left, width: in cells, each of which is one row and one column at the bottom.
    :param size: cells of the field in a row and in a column.
    :param air: (1, C, size, size) what the fully connected block reads where the whole field shows air.
    """

    top: Any
    height: Any
    left: Any
    width: Any
    size: int
    air: Tensor

    def of(self, field: Tensor, cell: int = 1) -> Tensor:
        """The window out of a field.

        (..., Y, X), of ``cell`` rows and columns to a cell.
        """
        rows, columns = self.top * cell, self.left * cell
        return field[..., rows : rows + self.height * cell, columns : columns + self.width * cell]

    def in_field(self, part: Tensor, cell: int = 1) -> Tensor:
        """The window in its field again, 0 around it.

        (..., Y, X).
        """
        right, below = self.size - self.left - self.width, self.size - self.top - self.height
        return functional.pad(part, [self.left * cell, right * cell, self.top * cell, below * cell])

    def in_numbers(self) -> "Window":
        """The same window, its place and size as whole numbers."""
        top, height, left, width = (int(number) for number in (self.top, self.height, self.left, self.width))
        return Window(top, height, left, width, self.size, self.air)

    def rows(self, cell: int) -> slice:
        """Its rows in a field of ``cell`` rows to a cell."""
        return slice(self.top * cell, (self.top + self.height) * cell)

    def columns(self, cell: int) -> slice:
        """Its columns in a field of ``cell`` columns to a cell."""
        return slice(self.left * cell, (self.left + self.width) * cell)

    def in_air(self, seen: Tensor) -> Tensor:
        """The window's own cells, and air around them.

        What the fully connected block reads.
        """
        return self.in_field(seen - self.of(self.air)) + self.air


class UpBlock(nn.Module):
    """Join the coarser features with the skip of their level.

    Then one residual block in plane.
    """

    def __init__(self, below: int, outputs: int, *, convs: int, pooled: bool, momentum: float) -> None:
        super().__init__()
        self.pooled = pooled
        self.reduce = nn.Conv2d(below, outputs, 1, bias=False)
        self.block = ResidualBlock(2 * outputs, outputs, convs=convs, context_convs=0, momentum=momentum)

    def forward(self, features: Tensor, skip: Tensor, slabs: int) -> Tensor:
        features = self.reduce(features)
        if self.pooled:
            features = functional.interpolate(features, scale_factor=2.0, mode="nearest")
        return cast("Tensor", self.block(torch.cat([features, skip], dim=1), slabs))


class Head(nn.Module):
    """One logit per OAR and output voxel.

    A 1x1 convolution, then a pixel shuffle in plane (Shi et al. 2016).
    """

    def __init__(self, inputs: int, outputs: int, *, upscale: int, momentum: float) -> None:
        super().__init__()
        self.upscale = upscale
        self.norm = Norm(inputs, momentum=momentum)
        self.conv = nn.Conv2d(inputs, outputs * upscale * upscale, 1)
        nn.init.constant_(cast("Tensor", self.conv.bias), -2.0)  # organs are rare: start from "none"

    def forward(self, features: Tensor) -> Tensor:
        """Features to logits.

        (Z · N, C, Y, X) to (Z · N, OARs, Y · upscale, X · upscale).
        """
        logits = self.conv(torch.relu(self.norm(features)))
        return functional.pixel_shuffle(logits, self.upscale) if self.upscale > 1 else cast("Tensor", logits)

    def subpixels(self, features: Tensor, oars: Sequence[int]) -> Tensor:
        """The same logits before the shuffle, for some OARs only.

        (Z, C, Y, X) to (oars, u, u, Z, Y, X).

        A partly labelled scan needs only its own channels in training, and a loss does not care where a voxel lies.
        """
        u = self.upscale
        rows = [oar * u * u + k for oar in oars for k in range(u * u)]
        weight, bias = self.conv.weight[rows], cast("Tensor", self.conv.bias)[rows]
        pixels = torch.relu(self.norm(features)).permute(0, 2, 3, 1)  # (Z, Y, X, C)
        logits = functional.linear(pixels, weight.flatten(1), bias)  # a convolution would prepare for each new window
        return logits.reshape(*pixels.shape[:3], len(oars), u, u).permute(3, 4, 5, 0, 1, 2).contiguous()


class Network(nn.Module):
    """CT in HU to logits.

    (N, 1, Z, Y, X) to (N, OARs, Z - 20, Y * upscale, X * upscale).
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        widths, momentum = config.channels, config.norm_momentum
        windows = len(config.hu_windows)
        self.hu_windows = HUWindows(config.hu_windows)
        self.stem = nn.Conv2d(windows, widths[0], 3, padding=1) if config.stem else nn.Identity()
        inputs = (widths[0] if config.stem else windows, *widths)
        self.down = nn.ModuleList(
            ResidualBlock(inputs[i], inputs[i + 1], convs=convs, context_convs=context, momentum=momentum)
            for i, (convs, context) in enumerate(zip(config.convs, config.context_convs, strict=True))
        )
        self.bottom = FullyConnectedBlock(
            widths[-1],
            size=config.bottom_size,
            width=config.bottom_width,
            layers=config.bottom_layers,
            momentum=momentum,
        )
        below = (*widths[1:], widths[-1])
        self.up = nn.ModuleList(
            UpBlock(below[i], widths[i], convs=convs, pooled=i + 1 in config.pool_after, momentum=momentum)
            for i, convs in enumerate(config.convs)
        )
        self.head = Head(widths[0], config.outputs, upscale=config.upscale, momentum=momentum)

    def features(self, ct_hu: Tensor, window: Window | None = None) -> Tensor:
        """Everything but the head.

        (N, 1, Z, Y, X) in HU to ((Z - 20) · N, C, Y, X), slice by slice.

        :param window: which part of the field Y and X are; None for all of it.
        """
        slabs = ct_hu.shape[0]
        features, skips = self.downwards(ct_hu)
        features = self.bottom(features, window)  # ((Z - 20) · N, C, Y / 2^poolings, X / 2^poolings)
        crop = 0
        for number in reversed(range(len(self.up))):
            features = self.up[number](features, crop_slices(skips[number], crop, slabs), slabs)
            crop += self.config.context_convs[number]  # slices that the skip above has more at each end
        return cast("Tensor", features)

    def downwards(self, ct_hu: Tensor) -> tuple[Tensor, list[Tensor]]:
        """What comes to the bottom, and what is skipped.

        One skip for each block of the way up.
        """
        slabs = ct_hu.shape[0]
        pictures = ct_hu.permute(2, 0, 1, 3, 4).flatten(0, 1)  # (Z · N, 1, Y, X)
        features, skips = self.stem(self.hu_windows(pictures)), []
        for number, block in enumerate(self.down, start=1):
            features = block(features, slabs)
            skips.append(features)
            if number in self.config.pool_after:
                features = functional.max_pool2d(features, 2)
        return features, skips

    def forward(self, ct_hu: Tensor, window: Window | None = None) -> Tensor:
        logits = cast("Tensor", self.head(self.features(ct_hu, window)))  # ((Z - 20) · N, OARs, Y · upscale, X · upscale)
        return logits.reshape(-1, ct_hu.shape[0], *logits.shape[1:]).permute(1, 2, 0, 3, 4)

    def set_norm_limit(self, limit: float) -> None:
        """How far a training step may correct towards the running statistics.

        1 is plain batch norm.
        """
        for module in self.modules():
            if isinstance(module, Norm):
                module.limit = limit


def three_slices(features: Tensor, slabs: int) -> Tensor:
    """Each slice over the one below it and under the one above.

    As channels: (Z · N, C, Y, X) to ((Z - 2) · N, 3 · C, Y, X).
    """
    if torch.onnx.is_in_onnx_export():  # one copy in place of two; torch's own gradient of it is the slower one
        lowest = torch.arange(features.shape[0] - 2 * slabs, device=features.device)[:, None]
        return features[lowest + slabs * torch.arange(3, device=features.device)].flatten(1, 2)
    below, above = features[: -2 * slabs], features[2 * slabs :]
    return torch.cat([below, crop_slices(features, 1, slabs), above], dim=1)


def crop_slices(features: Tensor, count: int, slabs: int) -> Tensor:
    """Drop `count` slices at both ends of z.

    From (Z · N, …).
    """
    return features[count * slabs : -count * slabs] if count else features

"""What trained box networks become when they are served.

One box in, the organs of both sides out.
"""

# mypy: allow-subclassing-any
# (torch is not there where the types are checked without it)

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from model_export.boxes.config import BoxConfig
from model_export.boxes.network import BoxNetwork


class ServedBox(nn.Module):
    """HU to probabilities, in the order of ``BoxConfig.drawn_organs``.

    (1, 1, Z, Y, X) to (1, organs, Z, Y · upscale, X · upscale).

    A network draws the left organs on the box and the right ones on its mirror image, so that a mirrored patient gets the
    mirrored contours. An unpaired organ is the mean of both where both are shown it, else what the one says. Several networks
    that were trained for the same box, whatever their widths, answer with the mean of their probabilities.
    """

    views: Tensor
    down: Tensor
    across: Tensor

    def __init__(self, networks: Sequence[BoxNetwork], box: BoxConfig) -> None:
        """:raises ValueError: if no network is given, or one has other channels than the box."""
        super().__init__()
        if {(network.config.outputs, network.config.upscale) for network in networks} != {(len(box.organs), box.upscale)}:
            msg = f"a network of another box than {box.name}"
            raise ValueError(msg)
        self.networks = nn.ModuleList(networks)
        self.box = box
        shown = torch.arange(box.size[2] * box.upscale) >= box.hidden_columns * box.upscale
        self.register_buffer("views", (shown.float() + shown.flip(0).float()).clamp(min=1.0))
        if box.smoothing_sd_voxels:
            rows, columns = (count * box.upscale for count in box.size[1:])
            self.register_buffer("down", blur_matrix(rows, box.smoothing_sd_voxels))
            self.register_buffer("across", blur_matrix(columns, box.smoothing_sd_voxels).t().contiguous())

    def forward(self, hu: Tensor) -> Tensor:
        box = self.box
        both = torch.cat([hu, hu.flip(-1)])[..., box.hidden_columns :]
        answers = [torch.sigmoid(network(both).float()) for network in self.networks]
        mean = torch.stack(answers).mean(dim=0) if len(answers) > 1 else answers[0]
        left, right = mean.unbind(0)  # (outputs, Z, Y · upscale, shown · upscale) each
        hidden = box.hidden_columns * box.upscale
        if hidden:
            left, right = functional.pad(left, (hidden, 0)), functional.pad(right, (hidden, 0))
        right = right.flip(-1)
        found = {}
        for index, (name, other) in enumerate(zip(box.organs, box.mirrored_organs, strict=True)):
            if name == other:
                found[name] = (left[index] + right[index]) / self.views
            else:
                found[name], found[other] = left[index], right[index]
        return self.smoothed(torch.stack([found[name] for name in box.drawn_organs]))[None]

    def smoothed(self, probabilities: Tensor) -> Tensor:
        """In plane, with what lies at the edge going on beyond it.

        A sub-pixel head gives each of the voxels in a voxel of its input a channel of its own; where a probability lies near the
        threshold these differ from each other like the teeth of a comb.
        """
        if not self.box.smoothing_sd_voxels:
            return probabilities
        return self.down @ probabilities @ self.across


def blur_matrix(size: int, sd: float) -> Tensor:
    """A Gaussian along an axis of so many voxels, (to, from).

    Out to three standard deviations. Each row sums to 1; beyond the ends the first and the last voxel are repeated. Runtimes are
    faster with this product than with a convolution of one channel.
    """
    reach = math.ceil(3 * sd)
    places = torch.arange(-reach, reach + 1)
    weights = torch.exp(-0.5 * (places / sd) ** 2)
    matrix = torch.zeros(size, size)
    for to in range(size):
        matrix[to].index_add_(0, (to + places).clamp(0, size - 1), weights / weights.sum())
    return matrix

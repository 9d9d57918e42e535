"""What a trained network becomes when it is served.

HU in, probabilities out, a patient and their mirror image treated alike, and nothing computed beside the body.
"""

# mypy: allow-subclassing-any
# (torch is not there where the types are checked without it)

from typing import Any, Final, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from model_export.datasets.training_file import AIR_HU
from model_export.network import Network, Window
from model_export.sampling import MIRRORED
from oarlock.geometry.body import BODY_HU

AIR: Final = "air"
"""The name in an exported file of what the fully connected block reads of air: made of weights, not a weight."""

AROUND: Final = 1
"""Voxels around the body that are still shown."""


class Served(nn.Module):
    """HU to probabilities.

    (N, 1, Z, Y, X) to (N, OARs, Z - 20, Y · upscale, X · upscale).

    Where the config says ``same_way_round``, a slab that has more at high x is mirrored before the network is shown it, and the
    answer is turned back, left and right exchanged. A mirrored patient then gets the mirrored contours.

    Where it says ``body_only``, the convolutions see the smallest window of whole cells of the bottom, as wide to the left as to
    the right, that holds the body in all slices of the slab; the fully connected block reads air around it, and the answer
    there is 0.
    """

    air: Tensor

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network
        self.same_way_round = network.config.same_way_round
        self.body_only = network.config.body_only
        if self.body_only:
            self.register_buffer(AIR, read_of_air(network), persistent=False)

    def forward(self, ct_hu: Tensor) -> Tensor:
        if not self.body_only:
            return self.answer(ct_hu, None)
        window = body_window(ct_hu, self.air)
        cell = ct_hu.shape[-1] // window.size
        return window.in_field(self.answer(window.of(ct_hu, cell), window), cell * self.network.head.upscale)

    def answer(self, ct_hu: Tensor, window: Window | None) -> Tensor:
        """The probabilities of what is shown."""
        if not self.same_way_round:
            return torch.sigmoid(cast("Tensor", self.network(ct_hu, window)).float())
        slabs, head, turned = ct_hu.shape[0], self.network.head, more_at_high_x(ct_hu)
        shown = torch.where(turned.view(-1, 1, 1, 1, 1), ct_hu.flip(-1), ct_hu)
        features = torch.relu(head.norm(self.network.features(shown, window)))  # ((Z - 20) · N, C, Y, X)
        features = features.reshape(-1, slabs, *features.shape[1:])
        turned = turned.view(1, -1, 1, 1, 1)
        # turned back before the shuffle: a fifth of the voxels to move
        back = torch.where(turned, features.flip(-1), features).flatten(0, 1)
        rows, bias = mirrored_subpixels(head.upscale), cast("Tensor", head.conv.bias)
        straight, mirrored = head.conv(back), functional.conv2d(back, head.conv.weight[rows], bias[rows])
        logits = torch.where(turned, *(each.reshape(-1, slabs, *each.shape[1:]) for each in (mirrored, straight)))
        found = functional.pixel_shuffle(torch.sigmoid(logits.flatten(0, 1).float()), head.upscale)
        return found.reshape(-1, slabs, *found.shape[1:]).permute(1, 2, 0, 3, 4)


def more_at_high_x(ct_hu: Tensor) -> Tensor:
    """Whether the right half of the picture holds more than the left one, by Hounsfield units and the distance to the middle.

    (N, 1, Z, Y, X) to (N,). In whole numbers, so that the mirror image's answer is the opposite.
    """
    columns = ct_hu.shape[-1]
    aside = 2 * torch.arange(columns, device=ct_hu.device) - (columns - 1)
    held = (ct_hu.clamp(AIR_HU, -AIR_HU) - AIR_HU).round().sum((1, 2, 3))  # (N, X)
    return (held.long() * aside).sum(-1) > 0


def read_of_air(network: Network) -> Tensor:
    """What the fully connected block reads of air.

    (1, C, Y, X), of one slice.
    """
    config = network.config
    device = network.head.conv.weight.device
    slab = torch.full((1, 1, config.context_slices, config.size, config.size), AIR_HU, device=device)
    was_training = network.training
    network.eval()
    with torch.no_grad():
        features, _ = network.downwards(slab)
        read = torch.relu(network.bottom.norm(features))
    network.train(was_training)
    return read


def body_window(ct_hu: Tensor, air: Tensor) -> Window:
    """The window that holds the body in all slices.

    Of slabs (N, 1, Z, Y, X) in HU.
    The body is what is denser than ``BODY_HU`` and, in a slice, at least three voxels thick: no shell of a table is. Where
    there is none the window is the whole field.
    """
    size = air.shape[-1]
    cell = ct_hu.shape[-1] // size
    dense = (ct_hu > BODY_HU).float().transpose(1, 2).flatten(0, 1)  # (N · Z, 1, Y, X)
    thick = -functional.max_pool2d(-dense, 3, stride=1, padding=1)
    body = thick.amax(0, keepdim=True)  # (1, 1, Y, X)
    reach = 1 + AROUND
    body = functional.max_pool2d(body, 2 * reach + 1, stride=1, padding=reach)
    cells = functional.max_pool2d(body, cell)[0, 0]
    rows, columns = cells.amax(1), cells.amax(0)
    columns = torch.maximum(columns, columns.flip(0))
    top, height = _span(rows)
    left, width = _span(columns)
    return Window(top, height, left, width, size, air)


def _span(held: Tensor) -> tuple[Any, Any]:
    """The first cell that holds something, and how many from it to the last; all where none does."""
    size = held.shape[0]
    order = torch.arange(size, 0, -1, dtype=held.dtype, device=held.device)
    first, after = (held * size + order).argmax(), (held.flip(0) * size + order).argmax()
    return first, size - after - first


def mirrored_subpixels(upscale: int) -> list[int]:
    """For each output of the head, that of the mirror image.

    An output is (OAR, row, column) of the pixel shuffle.
    """
    places = [(oar, y, upscale - 1 - x) for oar in MIRRORED for y in range(upscale) for x in range(upscale)]
    return [(oar * upscale + y) * upscale + x for oar, y, x in places]

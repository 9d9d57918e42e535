"""What a trained network becomes when it is served.

HU in, probabilities out, the two sides of the body treated alike, and nothing computed beside the body.
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

    Where the config says ``both_sides``, they are the mean of what the network says of a scan and of its mirror image (left and
    right exchanged back). A mirrored patient then gets the mirrored contours, and the errors of the two views average out.

    Where it says ``body_only``, the convolutions see the smallest window of whole cells of the bottom, as wide to the left as to
    the right, that holds the body in all slices of the slab; the fully connected block reads air around it, and the answer
    there is 0.
    """

    air: Tensor

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network
        self.both_sides = network.config.both_sides
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
        if not self.both_sides:
            return torch.sigmoid(cast("Tensor", self.network(ct_hu, window)).float())
        head = self.network.head
        # one pass over both: the file then holds the weights once
        both = torch.stack([ct_hu, ct_hu.flip(-1)], dim=1).flatten(0, 1)  # (2 N, 1, Z, Y, X)
        features = torch.relu(head.norm(self.network.features(both, window)))  # ((Z - 20) · 2 N, C, Y, X)
        # the mirror image is turned back before the head, and the mean taken before the shuffle: a fifth of the voxels to move
        rows = mirrored_subpixels(head.upscale)
        straight = head.conv(features[0::2])
        turned = functional.conv2d(features[1::2].flip(-1), head.conv.weight[rows], cast("Tensor", head.conv.bias)[rows])
        found = (torch.sigmoid(straight.float()) + torch.sigmoid(turned.float())) / 2
        found = functional.pixel_shuffle(found, head.upscale)  # ((Z - 20) · N, OARs, Y · upscale, X · upscale)
        return found.reshape(-1, ct_hu.shape[0], *found.shape[1:]).permute(1, 2, 0, 3, 4)


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

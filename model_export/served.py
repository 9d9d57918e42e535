"""What a trained network becomes when it is served.

HU in, probabilities out, a patient and their mirror image treated alike, and nothing computed beside the body.
"""

# mypy: allow-subclassing-any
# (torch is not there where the types are checked without it)

from collections.abc import Sequence
from typing import Any, Final, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from model_export.datasets.training_file import AIR_HU
from model_export.network import Network, Window
from model_export.sampling import MIRRORED, more_at_high_x
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

    :param organs: the channels of the answer, in this order; None for all. The file keeps the weights of the others.
    """

    air: Tensor

    def __init__(self, network: Network, organs: Sequence[int] | None = None) -> None:
        super().__init__()
        self.network = network
        self.same_way_round = network.config.same_way_round
        self.body_only = network.config.body_only
        organs, upscale = range(network.config.outputs) if organs is None else organs, network.head.upscale
        self.channels = len(organs)
        self.rows, self.mirrored_rows = subpixels(organs, upscale), subpixels(organs, upscale, mirrored=True)
        if self.body_only:
            self.register_buffer(AIR, read_of_air(network), persistent=False)

    def forward(self, ct_hu: Tensor) -> Tensor:
        turned = more_at_high_x(ct_hu) if self.same_way_round else None  # of the whole field, as in training
        if not self.body_only:
            return self.answer(ct_hu, None, turned)
        window = body_window(ct_hu, self.air)
        cell = ct_hu.shape[-1] // window.size
        found = self.answer(window.of(ct_hu, cell), window, turned)
        return window.in_field(found, cell * self.network.head.upscale)

    def answer(self, ct_hu: Tensor, window: Window | None, turned: Tensor | None) -> Tensor:
        """The probabilities of what is shown.

        :param turned: (N,) which slabs are mirrored before; None for none.
        """
        if turned is None:
            return self._probabilities(self._features(ct_hu, window), torch.tensor(self.rows, device=ct_hu.device))
        features = self._features(_turned_where(turned.view(-1, 1, 1, 1, 1), ct_hu), window)
        own, mirrored = (torch.tensor(rows, device=ct_hu.device) for rows in (self.rows, self.mirrored_rows))
        rows = torch.where(turned[:, None], mirrored, own)  # (N, OARs · u · u)
        # turned back before the head: a fifth of the voxels to move
        return self._probabilities(_turned_where(turned.view(1, -1, 1, 1, 1), features), rows)

    def _features(self, ct_hu: Tensor, window: Window | None) -> Tensor:
        """(Z, N, C, Y, X), ready for the head's convolution."""
        features = torch.relu(self.network.head.norm(self.network.features(ct_hu, window)))  # (Z · N, C, Y, X)
        return features.reshape(-1, ct_hu.shape[0], *features.shape[1:])

    def _probabilities(self, features: Tensor, rows: Tensor) -> Tensor:
        """What some rows of the head's weights make of features.

        A product of matrices: a convolution cannot choose its weights, and would lay out its channels anew before and after.
        """
        head, (height, width) = self.network.head, features.shape[-2:]
        weight, bias = head.conv.weight.flatten(1)[rows], cast("Tensor", head.conv.bias)[rows]
        found = torch.sigmoid((weight @ features.flatten(3) + bias[..., None]).float())  # (Z, N, OARs · u · u, Y · X)
        found = functional.pixel_shuffle(found.reshape(*found.shape[:3], height, width).flatten(0, 1), head.upscale)
        return found.reshape(-1, features.shape[1], *found.shape[1:]).permute(1, 2, 0, 3, 4)


def _turned_where(turned: Tensor, pictures: Tensor) -> Tensor:
    return torch.where(turned, pictures.flip(-1), pictures)


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


def subpixels(organs: Sequence[int], upscale: int, *, mirrored: bool = False) -> list[int]:
    """The rows of the head's weights that make some organs.

    A row is (OAR, row, column) of the pixel shuffle.

    :param mirrored: those that make them of the mirror image's features, turned back.
    """
    oars = [MIRRORED[organ] for organ in organs] if mirrored else organs
    columns = range(upscale)[::-1] if mirrored else range(upscale)
    return [(oar * upscale + y) * upscale + x for oar in oars for y in range(upscale) for x in columns]

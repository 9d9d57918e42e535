"""What a trained network becomes when it is served: HU in, probabilities out, and the two sides of the body treated alike."""

# mypy: allow-subclassing-any
# (torch is not there where the types are checked without it)

from typing import cast

import torch
from torch import Tensor, nn

from model_export.network import Network
from model_export.sampling import MIRRORED


class Served(nn.Module):
    """(N, 1, Z, Y, X) HU to (N, OARs, Z - 20, Y · upscale, X · upscale) probabilities.

    Where the config says ``both_sides``, they are the mean of what the network says of a scan and of its mirror image (left and
    right exchanged back). A mirrored patient then gets the mirrored contours, and the errors of the two views average out.
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network
        self.both_sides = network.config.both_sides

    def forward(self, ct_hu: Tensor) -> Tensor:
        if not self.both_sides:
            return torch.sigmoid(cast("Tensor", self.network(ct_hu)).float())
        # one pass over both: the file then holds the weights once
        both = torch.stack([ct_hu, ct_hu.flip(-1)], dim=1).flatten(0, 1)  # (2 N, 1, Z, Y, X)
        found = torch.sigmoid(cast("Tensor", self.network(both)).float())
        views = found.reshape(-1, 2, *found.shape[1:])  # (N, 2, OARs, Z - 20, Y · upscale, X · upscale)
        return (views[:, 0] + views[:, 1].flip(-1)[:, list(MIRRORED)]) / 2

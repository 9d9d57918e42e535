"""What a trained network becomes when it is served.

HU in, probabilities out, and the two sides of the body treated alike.
"""

# mypy: allow-subclassing-any
# (torch is not there where the types are checked without it)

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from model_export.network import Network
from model_export.sampling import MIRRORED


class Served(nn.Module):
    """HU to probabilities.

    (N, 1, Z, Y, X) to (N, OARs, Z - 20, Y · upscale, X · upscale).

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
        head = self.network.head
        features = torch.relu(head.norm(self.network.features(both)))  # ((Z - 20) · 2 N, C, Y, X)
        # the mirror image is turned back before the head, and the mean taken before the shuffle: a fifth of the voxels to move
        rows = mirrored_subpixels(head.upscale)
        straight = head.conv(features[0::2])
        turned = functional.conv2d(features[1::2].flip(-1), head.conv.weight[rows], cast("Tensor", head.conv.bias)[rows])
        found = (torch.sigmoid(straight.float()) + torch.sigmoid(turned.float())) / 2
        found = functional.pixel_shuffle(found, head.upscale)  # ((Z - 20) · N, OARs, Y · upscale, X · upscale)
        return found.reshape(-1, ct_hu.shape[0], *found.shape[1:]).permute(1, 2, 0, 3, 4)


def mirrored_subpixels(upscale: int) -> list[int]:
    """For each output of the head, that of the mirror image.

    An output is (OAR, row, column) of the pixel shuffle.
    """
    places = [(oar, y, upscale - 1 - x) for oar in MIRRORED for y in range(upscale) for x in range(upscale)]
    return [(oar * upscale + y) * upscale + x for oar, y, x in places]

"""Where a part found an organ, for another part's box.

The organ's largest piece on the grid of the part's own output.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from oarlock.arrays import FloatArray
from oarlock.geometry.components import largest_piece
from oarlock.geometry.grid import Grid
from oarlock.geometry.masks import Box, bounding_box
from oarlock.organs.catalogue import OAR
from oarlock.organs.norms import NORMS
from oarlock.segmentation.manifest import ZYX
from oarlock.segmentation.resampling import Region
from oarlock.segmentation.rivals import Probabilities, rival_channels, undisputed

Pieces = list[tuple[Box, npt.NDArray[Any]]]
"""Parts of one (z, y, x) array, each with the place in it where it lies; 0 elsewhere."""

FOUND_SHARE: Final = 0.25
"""An organ is found if its largest piece has this share of the smallest volume that experts drew."""


AGREE_MM: Final = 20.0
"""Two organs contradict each other if they say middles of the box that lie further apart.

Between the centres of two eyes lie 55 to 75 mm in adults; 20 mm allow 44 to 84, and tell a left eye that is the right one.
"""


@dataclass(frozen=True, eq=False)
class Anchor:
    """A found organ. Points are (x, y, z) in mm.

    :param share: its volume over the smallest that experts drew.
    :param centre_mm: mean of its voxel centres.
    :param low_mm, high_mm: lowest and highest coordinates of its voxel centres.
    """

    share: float
    centre_mm: FloatArray
    low_mm: FloatArray
    high_mm: FloatArray


class AnchorFinder:
    """Keeps the voxels of some organs while slabs pass.

    They pass through :meth:`over`; each organ is kept in the boxes that it lies in.
    """

    def __init__(self, wanted: Iterable[OAR], channels: Sequence[OAR], thresholds: Sequence[float]) -> None:
        self._rivals, self._thresholds = rival_channels(channels), thresholds
        self._pieces: dict[OAR, Pieces] = {oar: [] for oar in wanted}
        self._channel = {oar: channels.index(oar) for oar in self._pieces}

    def over(self, slabs: Iterable[tuple[int, Probabilities]]) -> Iterator[tuple[int, Probabilities]]:
        """Pass the slabs on unchanged."""
        for first, slab in slabs:
            self._look(first, slab)
            yield first, slab
            del slab  # or it would be kept while the next one is waited for

    def _look(self, first: int, slab: Probabilities) -> None:
        for oar, channel in self._channel.items():
            claim = undisputed(channel, slab.__getitem__, self._rivals[channel], self._thresholds)
            mask = np.asarray(claim >= self._thresholds[channel])
            if (box := bounding_box(mask)) is not None:
                z = slice(box[0].start + first, box[0].stop + first)
                self._pieces[oar].append(((z, box[1], box[2]), mask[box]))

    def found(self, oar: OAR, lattice: Grid) -> Anchor | None:
        """Where an organ lies; None if it was not found.

        :param lattice: canonical grid of the voxels that passed.
        """
        if not self._pieces[oar]:
            return None
        corner, mask = joined(self._pieces[oar])
        piece = largest_piece(mask)
        volume_ml = np.count_nonzero(piece) * float(np.prod(lattice.spacing_mm)) / 1000
        share = volume_ml / NORMS[oar.name].volume_range_ml[0]
        if share < FOUND_SHARE:
            return None
        points = lattice.to_points(np.argwhere(piece).astype(np.float64) + corner)
        return Anchor(share, points.mean(axis=0), points.min(axis=0), points.max(axis=0))


def joined(pieces: Pieces) -> tuple[FloatArray, npt.NDArray[Any]]:
    """The box that holds all pieces, and where it begins.

    The indices (z, y, x) of its first voxel, then its values; 0 between the pieces.

    :param pieces: at least one, of one type.
    """
    edges = np.array([[(side.start, side.stop) for side in box] for box, _ in pieces])  # (pieces, 3, 2)
    low, high = edges[:, :, 0].min(axis=0), edges[:, :, 1].max(axis=0)
    whole = np.zeros(high - low, pieces[0][1].dtype)
    for (start, stop), (_, piece) in zip(edges.transpose(0, 2, 1), pieces, strict=True):
        z, y, x = (slice(a - first, b - first) for a, b, first in zip(start, stop, low, strict=True))
        whole[z, y, x] = piece
    return low.astype(np.float64), whole


def box_at(anchors: Sequence[tuple[Anchor, ZYX]]) -> tuple[Region, bool]:
    """Where a box of fixed size lies.

    Its middle is the mean of what the found organs say.

    If two of them say middles more than ``AGREE_MM`` apart, one is not where it seems. Then those count that lie about the
    median, if they are at least two of three; else the one that is largest for its kind decides alone.

    :param anchors: at least one found organ, each with the way (z, y, x) in mm from its middle to that of the box.
    :returns: the box, and whether the organs agreed.
    """
    middles = np.array([anchor.centre_mm + np.array(offset[::-1]) for anchor, offset in anchors])
    agreed = bool(np.linalg.norm(middles[:, None] - middles[None], axis=-1).max() <= AGREE_MM)
    if agreed:
        middle = middles.mean(axis=0)
    else:
        near = np.linalg.norm(middles - np.median(middles, axis=0), axis=-1) <= AGREE_MM
        largest = int(np.argmax([anchor.share for anchor, _ in anchors]))
        middle = middles[near].mean(axis=0) if len(middles) > 2 and near.sum() > 1 else middles[largest]
    return Region(middle, middle, middle), agreed


def box_around(anchors: Sequence[Anchor], margin_mm: ZYX) -> Region:
    """The box around some organs.

    :param margin_mm: (z, y, x) beyond the organs' outermost voxel centres.
    """
    margin = np.array(margin_mm[::-1])
    low = np.min([anchor.low_mm for anchor in anchors], axis=0) - margin
    high = np.max([anchor.high_mm for anchor in anchors], axis=0) + margin
    return Region((low + high) / 2, low, high)

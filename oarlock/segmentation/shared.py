"""Organs that two parts draw together.

In the box of the one the mean of both parts' probabilities counts, beyond it the finder's alone.

The finder goes first, so what it says of such an organ is kept: the voxels around the organ alone. The box's lattice is then
continued as far as the organ reaches. On that one lattice the finder's probabilities are interpolated, and within the box moved
towards the box's own by its share, which fades to nothing at the box's faces: there is no seam, wherever the box ends.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from oarlock.arrays import FloatArray
from oarlock.geometry.grid import Grid
from oarlock.geometry.masks import bounding_box, grow
from oarlock.organs.catalogue import OAR
from oarlock.segmentation.anchors import Pieces, joined
from oarlock.segmentation.resampling import extended, linear_weights, median_step_mm
from oarlock.segmentation.slabs import Volume
from oarlock.segmentation.zoom import along

FADE_MM: Final = 10.0
"""From a face of the box inwards the box's share grows from nothing to the whole."""

FAINT: Final = 1e-3
"""Of the finder, lower probabilities count as 0, so that the voxels around an organ are all that is kept."""

_SLAB_SLICES: Final = 32
_HELD: Final = (np.inf, np.inf)


@dataclass(frozen=True, eq=False)
class Claim:
    """What a finder says of one organ.

    :param positions_mm: of the voxel centres along z, y and x, ascending.
    :param values: (z, y, x) probabilities. Beyond the first and the last voxel theirs hold: 0, or that at the scan's end.
    """

    positions_mm: tuple[FloatArray, FloatArray, FloatArray]
    values: Volume

    def on(self, positions_mm: Sequence[FloatArray]) -> Volume:
        """Linearly interpolated to a lattice, (z, y, x)."""
        volume = self.values
        for axis, (to, of) in enumerate(zip(positions_mm, self.positions_mm, strict=True)):
            volume = along(linear_weights(to, of, reach=_HELD), volume, axis)
        return volume

    def reach_mm(self, threshold: float) -> tuple[FloatArray, FloatArray] | None:
        """Lowest and highest place (z, y, x) of what reaches a threshold.

        In mm, one voxel further out than the outermost centres that reach it; None if none does.
        """
        box = bounding_box(np.asarray(self.values >= threshold))
        if box is None:
            return None
        ends = [(at[side.start], at[side.stop - 1]) for at, side in zip(self.positions_mm, box, strict=True)]
        low, high = np.array(ends).T
        step = np.array([median_step_mm(at) for at in self.positions_mm])
        return low - step, high + step


class ClaimKeeper:
    """Keeps what a finder says of some organs while slabs pass.

    They pass through :meth:`over`.
    """

    def __init__(self, wanted: Iterable[OAR], channels: Sequence[OAR]) -> None:
        self._pieces: dict[OAR, Pieces] = {oar: [] for oar in wanted}
        self._channel = {oar: channels.index(oar) for oar in self._pieces}

    def over(self, slabs: Iterable[tuple[int, Volume]]) -> Iterator[tuple[int, Volume]]:
        """Pass the slabs on unchanged."""
        for first, slab in slabs:
            for oar, channel in self._channel.items():
                seen = slab[channel] >= FAINT
                if (box := bounding_box(seen)) is not None:
                    z = slice(box[0].start + first, box[0].stop + first)
                    self._pieces[oar].append(((z, box[1], box[2]), np.where(seen[box], slab[channel][box], np.float32(0))))
            yield first, slab
            del slab  # or it would be kept while the next one is waited for

    def kept(self, lattice: Grid) -> dict[OAR, Claim]:
        """What was said of each organ, where anything was.

        :param lattice: canonical grid of the voxels that passed.
        """
        return {oar: _claim(pieces, lattice) for oar, pieces in self._pieces.items() if pieces}


def _claim(pieces: Pieces, lattice: Grid) -> Claim:
    """Around the organ lies one layer of 0, but for the ends of the lattice."""
    axes = lattice.along_patient_axes()
    assert axes is not None  # a canonical grid
    corner, values = joined(pieces)
    inner = [slice(int(first), int(first) + n) for first, n in zip(corner, values.shape, strict=True)]
    outer = grow((inner[0], inner[1], inner[2]), 1, lattice.shape)
    padding = [(i.start - o.start, o.stop - i.stop) for i, o in zip(inner, outer, strict=True)]
    z, y, x = (axis.positions_mm[side] for axis, side in zip(axes, outer, strict=True))
    return Claim((z, y, x), np.pad(values, padding))


def share_slabs(
    claims: Mapping[OAR, Claim],
    answer: Mapping[OAR, Volume],
    lattice: Grid,
    shares: Mapping[OAR, float],
    thresholds: Sequence[float],
) -> tuple[Grid, Iterator[tuple[int, Volume]]]:
    """A grid, and the probabilities of shared organs on it.

    Slab by slab, from foot to head.

    :param claims: what the finder says, as :meth:`ClaimKeeper.kept` gives it.
    :param answer: for each organ the (z, y, x) probabilities of the box; empty where no box was laid.
    :param lattice: canonical even grid of ``answer``; without one, the finder's.
    :param shares: for each organ the box's share of the mean, in (0, 1], in the order of the channels.
    :param thresholds: of each organ: as far out as the finder reaches it the lattice is continued.
    :returns: the grid, and (first slice, (organs, n, y, x)) as :func:`oarlock.segmentation.slabs.predict_in_slabs` gives them.
    """
    asked = zip(shares, thresholds, strict=True)
    grid, first = _continued(lattice, [claims[oar].reach_mm(threshold) for oar, threshold in asked if oar in claims])
    return grid, _slabs(claims, answer, grid, first, shares)


def _slabs(
    claims: Mapping[OAR, Claim], answer: Mapping[OAR, Volume], grid: Grid, first: Sequence[int], shares: Mapping[OAR, float]
) -> Iterator[tuple[int, Volume]]:
    axes = grid.along_patient_axes()
    assert axes is not None  # a canonical grid
    z, y, x = (axis.positions_mm for axis in axes)
    fade = next((_faded(volume.shape, grid) for volume in answer.values()), None)
    for start in range(0, len(z), _SLAB_SLICES):
        stop = min(start + _SLAB_SLICES, len(z))
        slab = np.zeros((len(shares), stop - start, len(y), len(x)), np.float32)
        for channel, (oar, share) in zip(slab, shares.items(), strict=True):
            if oar in claims:
                channel[:] = claims[oar].on((z[start:stop], y, x))
            if fade is not None:
                _move(channel, answer[oar], (first[0] - start, first[1], first[2]), np.float32(share) * fade)
        yield start, slab


def _move(channel: Volume, answer: Volume, first: Sequence[int], weight: Volume) -> None:
    """Move a slab's probabilities towards the box's, in place, where the two overlap."""
    z = slice(max(first[0], 0), min(first[0] + len(answer), len(channel)))
    if z.stop <= z.start:
        return
    here = (z, *(slice(at, at + n) for at, n in zip(first[1:], answer.shape[1:], strict=True)))
    theirs = slice(z.start - first[0], z.stop - first[0])
    channel[here] += weight[theirs] * (answer[theirs] - channel[here])


def _faded(shape: tuple[int, ...], grid: Grid) -> Volume:
    """Weights of a box's voxels: 1, and over ``FADE_MM`` down to 0 at each face."""
    within = [(np.arange(n) + 0.5) * step for n, step in zip(shape, grid.spacing_mm, strict=True)]
    return faded([np.minimum(mm, mm[::-1]) for mm in within])


def faded(depths_mm: Sequence[FloatArray]) -> Volume:
    """(z, y, x) weights in [0, 1], falling towards the faces.

    The product over the axes of how far a voxel is on its way from the face to ``FADE_MM``.

    :param depths_mm: for each axis how far within the nearer face of the box the voxels lie.
    """
    z, y, x = (np.clip(depth / FADE_MM, 0.0, 1.0).astype(np.float32) for depth in depths_mm)
    return np.asarray(z[:, None, None] * y[:, None] * x, np.float32)


def _continued(lattice: Grid, reaches: Iterable[tuple[FloatArray, FloatArray] | None]) -> tuple[Grid, tuple[int, int, int]]:
    """A lattice continued as far as organs reach, and the index in it of the old one's first voxel."""
    axes = lattice.along_patient_axes()
    assert axes is not None  # a canonical grid
    found = [reach for reach in reaches if reach is not None]
    before, after = [], []
    for axis, at in enumerate(axes):
        step = median_step_mm(at.positions_mm)
        low = min((reach[0][axis] for reach in found), default=np.inf)
        high = max((reach[1][axis] for reach in found), default=-np.inf)
        before.append(max(0, int(np.ceil((at.positions_mm[0] - low) / step))) if found else 0)
        after.append(max(0, int(np.ceil((high - at.positions_mm[-1]) / step))) if found else 0)
    return extended(lattice, before, after), (before[0], before[1], before[2])

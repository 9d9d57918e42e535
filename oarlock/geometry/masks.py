"""OARMasks: all organs of a series, a bit per organ.

One word per voxel.

The 21 OARs overlap (cord in canal, lens in eye), so there is no label map; 21 boolean volumes of a 512 × 512 × 186 series are
1 GB, and one 32-bit word a voxel is 0.2 GB (ADR 0002).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from oarlock.arrays import IndexArray, Mask
from oarlock.geometry.grid import Grid
from oarlock.organs.catalogue import OAR

Box = tuple[slice, slice, slice]
Crop = tuple[Box, Mask]
"""One organ: the box that it lies in, and the mask in that box."""

MAX_OARS = 32


@dataclass(eq=False)
class OARMasks:
    """Masks of several OARs on one grid.

    :param oars: the organs; the position in this sequence is the bit.
    :param bits: (z, y, x) uint32; bit i of a voxel says whether it belongs to ``oars[i]``.
    """

    oars: tuple[OAR, ...]
    bits: npt.NDArray[np.uint32]
    _boxes: dict[str, Box | None] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if len(self.oars) > MAX_OARS:
            raise ValueError(f"at most {MAX_OARS} OARs fit one word")
        if self.bits.dtype != np.uint32 or self.bits.ndim != 3:
            raise ValueError("bits must be a three-dimensional uint32 array")

    @classmethod
    def empty(cls, oars: Sequence[OAR], shape: tuple[int, int, int]) -> "OARMasks":
        """Masks in which no organ has a voxel."""
        return cls(tuple(oars), np.zeros(shape, dtype=np.uint32))

    @property
    def shape(self) -> tuple[int, int, int]:
        """(z, y, x)."""
        z, y, x = self.bits.shape
        return z, y, x

    def bit(self, oar: OAR) -> np.uint32:
        """The word in which only this organ's bit is set."""
        return np.uint32(1 << self.oars.index(oar))

    def mask(self, oar: OAR) -> Mask:
        """(z, y, x) whole boolean volume of one organ.

        Prefer :meth:`crop` where the box is enough.
        """
        return np.asarray(self.bits & self.bit(oar) != 0)

    def crop(self, oar: OAR, margin: int = 0) -> Crop | None:
        """The organ's bounding box and the mask in it; None if empty.

        The box is grown by ``margin`` voxels but not over the edge.
        """
        box = self.boxes()[oar.name]
        if box is None:
            return None
        grown = grow(box, margin, self.shape)
        return grown, np.not_equal(self.bits[grown] & self.bit(oar), 0)

    def volume_ml(self, oar: OAR, grid: Grid) -> float:
        """Volume of one organ in ml; 0 if it is empty.

        Each slice counts with its own thickness.
        """
        cropped = self.crop(oar)
        return 0.0 if cropped is None else volume_ml(cropped, grid)

    def put(self, oar: OAR, box: Box, mask: Mask) -> None:
        """Replace one organ by ``mask`` inside ``box`` and nothing outside of it."""
        bit = self.bit(oar)
        self.bits &= ~bit
        self.bits[box] |= mask * bit
        self._boxes = None

    def put_inside(self, oar: OAR, box: Box, mask: Mask) -> None:
        """Replace one organ by what ``mask`` says inside ``box``.

        What it has outside of the box stays.
        """
        bit = self.bit(oar)
        words = self.bits[box]
        words &= ~bit
        words |= mask * bit
        if self._boxes is not None:
            before = self._boxes[oar.name]
            known = before is None or is_within(before, box)
            self._boxes = {**self._boxes, oar.name: _placed(bounding_box(mask), box)} if known else None

    def forget_boxes(self) -> None:
        """Must be called after ``bits`` were changed from outside."""
        self._boxes = None

    def select(self, oars: Sequence[OAR]) -> "OARMasks":
        """Some of the organs, in the order given.

        A word of the new masks holds nothing of the others.
        """
        if tuple(oars) == self.oars:
            return self
        chosen = OARMasks.empty(oars, self.shape)
        for oar in chosen.oars:
            if (cropped := self.crop(oar)) is not None:
                chosen.put_inside(oar, *cropped)
        return chosen

    def boxes(self) -> dict[str, Box | None]:
        """Bounding box of every organ by name; None where it is empty.

        All are found in one pass over the words.
        """
        if self._boxes is None:
            self._boxes = _bounding_boxes(self.oars, self.bits)
        return self._boxes


def grow(box: Box, margin: int, shape: tuple[int, int, int]) -> Box:
    """A box grown by ``margin`` voxels each way and kept inside ``shape``."""
    z, y, x = (slice(max(0, s.start - margin), min(n, s.stop + margin)) for s, n in zip(box, shape, strict=True))
    return z, y, x


def is_within(inner: Box, outer: Box) -> bool:
    """Whether a box lies within another one."""
    return all(o.start <= i.start and i.stop <= o.stop for i, o in zip(inner, outer, strict=True))


def within_box(box: Box, around: Box) -> Box:
    """Where a box lies in one that holds it."""
    z, y, x = (slice(own.start - all_.start, own.stop - all_.start) for own, all_ in zip(box, around, strict=True))
    return z, y, x


def _placed(box: Box | None, within: Box) -> Box | None:
    """A box of indices in another box, as one of the volume's."""
    if box is None:
        return None
    z, y, x = (slice(own.start + outer.start, own.stop + outer.start) for own, outer in zip(box, within, strict=True))
    return z, y, x


def bounding_box(mask: Mask) -> Box | None:
    """The smallest box around a mask.

    The mask is (z, y, x); None for an empty one.
    """
    slices = np.flatnonzero(mask.any(axis=(1, 2)))
    if slices.size == 0:
        return None
    shadow = np.logical_or.reduce(mask[slices[0] : slices[-1] + 1], axis=0)
    return _between_ends([slices, *(np.flatnonzero(shadow.any(axis=axis)) for axis in (1, 0))])


def voxels_per_slice(mask: Mask) -> IndexArray:
    """(slices,) number of voxels of each slice."""
    return np.array([np.count_nonzero(image) for image in mask], dtype=np.intp)


def volume_ml(crop: Crop, grid: Grid) -> float:
    """Volume of one organ in ml, each slice with its own thickness."""
    box, mask = crop
    return float(voxels_per_slice(mask) @ grid.voxel_volumes_mm3[box[0]]) / 1000


def _between_ends(hits: Sequence[IndexArray]) -> Box | None:
    """The box from the first to the last hit along each axis."""
    if any(hit.size == 0 for hit in hits):
        return None
    z, y, x = (slice(int(hit[0]), int(hit[-1]) + 1) for hit in hits)
    return z, y, x


def _bounding_boxes(oars: tuple[OAR, ...], bits: npt.NDArray[np.uint32]) -> dict[str, Box | None]:
    along_x = np.bitwise_or.reduce(bits, axis=2)
    profiles = (
        np.bitwise_or.reduce(along_x, axis=1),
        np.bitwise_or.reduce(along_x, axis=0),
        np.bitwise_or.reduce(np.bitwise_or.reduce(bits, axis=0), axis=0),
    )
    named = [(oar.name, np.uint32(1 << i)) for i, oar in enumerate(oars)]
    return {name: _between_ends([np.flatnonzero(profile & bit) for profile in profiles]) for name, bit in named}

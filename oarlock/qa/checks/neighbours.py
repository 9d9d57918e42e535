"""Does each organ keep out of the others?

And inside of the one that holds it?
"""

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Final

import numpy as np

from oarlock.arrays import Mask
from oarlock.geometry.masks import Crop
from oarlock.organs.catalogue import BY_NAME
from oarlock.qa.checks.anatomy import Anatomy
from oarlock.qa.checks.finding import Finding, Level

_INSIDE: Final = (("Lens_L", "Eye_L"), ("Lens_R", "Eye_R"), ("SpinalCord", "SpinalCanal"))


def check_overlaps(anatomy: Anatomy) -> Iterator[Finding]:
    """Do two organs claim the same tissue?"""
    for a, b in combinations(anatomy.sound(), 2):
        if {a.name, b.name} in [set(pair) for pair in _INSIDE]:
            continue
        share = _shared(anatomy.crops[a], anatomy.crops[b])
        if share > 0.05:
            level = Level.AMBER if share <= 0.2 else Level.RED
            reason = f"{a}: overlaps {b}. They share {share:.0%} of the smaller one; the same tissue cannot be both."
            yield Finding("organs.overlap", a.name, level, reason, share, 0.0, 0.05, "share of the smaller")


def check_inside(anatomy: Anatomy) -> Iterator[Finding]:
    """Is the lens in the eye, and the cord in the canal?"""
    sound = anatomy.sound()
    for name, around in _INSIDE:
        inner, outer = BY_NAME[name], BY_NAME[around]
        if inner in sound and outer in sound:
            share = _covered(anatomy.crops[inner], anatomy.crops[outer])
            if share < 0.95:
                level = Level.AMBER if share >= 0.8 else Level.RED
                reason = f"{inner}: not inside {outer}. Only {share:.0%} of it lies there."
                yield Finding("organ.not_inside", inner.name, level, reason, share, 0.95, 1.0, "share inside")


def _shared(a: Crop, b: Crop) -> float:
    """Volume of the overlap over that of the smaller organ, by voxels."""
    both = _in_both(a, b)
    return both / int(min(np.count_nonzero(a[1]), np.count_nonzero(b[1]))) if both else 0.0


def _covered(inner: Crop, outer: Crop) -> float:
    """Which share of an organ lies in another one, by voxels."""
    return _in_both(inner, outer) / int(np.count_nonzero(inner[1]))


def _in_both(a: Crop, b: Crop) -> int:
    common = [slice(max(p.start, q.start), min(p.stop, q.stop)) for p, q in zip(a[0], b[0], strict=True)]
    if any(s.start >= s.stop for s in common):
        return 0
    return int(np.count_nonzero(_part(a, common) & _part(b, common)))


def _part(crop: Crop, box: Sequence[slice]) -> Mask:
    """What an organ has in a box that lies in its own."""
    own, mask = crop
    return mask[tuple(slice(p.start - q.start, p.stop - q.start) for p, q in zip(box, own, strict=True))]

"""Does each organ keep out of the others?

And inside of the one that holds it?
"""

from collections.abc import Iterator
from itertools import combinations
from typing import Final

import numpy as np

from oarlock.arrays import Mask
from oarlock.geometry.masks import Box, Crop, voxels_per_slice, within_box
from oarlock.organs.catalogue import BY_NAME
from oarlock.qa.checks.anatomy import Anatomy
from oarlock.qa.checks.finding import Finding, Level, Slices

_INSIDE: Final = (("Lens_L", "Eye_L"), ("Lens_R", "Eye_R"), ("SpinalCord", "SpinalCanal"))


def check_overlaps(anatomy: Anatomy) -> Iterator[Finding]:
    """Do two organs claim the same tissue?"""
    for a, b in combinations(anatomy.sound(), 2):
        if {a.name, b.name} in [set(pair) for pair in _INSIDE]:
            continue
        box, both = _in_both(anatomy.crops[a], anatomy.crops[b])
        share = int(np.count_nonzero(both)) / int(min(np.count_nonzero(anatomy.crops[one][1]) for one in (a, b)))
        if share > 0.05:
            level = Level.AMBER if share <= 0.2 else Level.RED
            reason = f"{a}: overlaps {b}. They share {share:.0%} of the smaller one; the same tissue cannot be both."
            slices = Slices.most(voxels_per_slice(both).tolist(), box[0].start)
            yield Finding("organs.overlap", a.name, level, reason, share, 0.0, 0.05, "share of the smaller", slices)


def check_inside(anatomy: Anatomy) -> Iterator[Finding]:
    """Is the lens in the eye, and the cord in the canal?"""
    sound = anatomy.sound()
    for name, around in _INSIDE:
        inner, outer = BY_NAME[name], BY_NAME[around]
        if inner in sound and outer in sound:
            own, mask = anatomy.crops[inner]
            box, both = _in_both(anatomy.crops[inner], anatomy.crops[outer])
            share = int(np.count_nonzero(both)) / int(np.count_nonzero(mask))
            if share < 0.95:
                level = Level.AMBER if share >= 0.8 else Level.RED
                reason = f"{inner}: not inside {outer}. Only {share:.0%} of it lies there."
                beside = mask.copy()
                _part((own, beside), box)[both] = False
                slices = anatomy.slices(inner, beside)
                yield Finding("organ.not_inside", inner.name, level, reason, share, 0.95, 1.0, "share inside", slices)


def _in_both(a: Crop, b: Crop) -> Crop:
    """The box that two boxes share, which may be empty, and what of it both organs have."""
    z, y, x = (_shared(p, q) for p, q in zip(a[0], b[0], strict=True))
    return (z, y, x), _part(a, (z, y, x)) & _part(b, (z, y, x))


def _shared(p: slice, q: slice) -> slice:
    start = max(p.start, q.start)
    return slice(start, max(start, min(p.stop, q.stop)))


def _part(crop: Crop, box: Box) -> Mask:
    """What an organ has in a box that lies in its own; a view."""
    own, mask = crop
    return mask[within_box(box, own)]

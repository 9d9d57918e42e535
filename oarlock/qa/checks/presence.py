"""Is each organ drawn, in one piece, and inside of the images?"""

from collections.abc import Iterator
from typing import Final

import numpy as np

from oarlock.arrays import Mask
from oarlock.geometry.components import to_pieces
from oarlock.organs.catalogue import OAR
from oarlock.qa.checks.anatomy import Anatomy
from oarlock.qa.checks.finding import Finding, Level, Slices
from oarlock.qa.checks.place import expected_mm
from oarlock.qa.organ_shape import FROM_HEAD

NEVER_MISSING: Final = frozenset({"Brain", "Brainstem", "Bone_Mandible", "SpinalCanal", "SpinalCord"})
"""Organs that everybody has, and that a head and neck scan holds."""


def check_empty(anatomy: Anatomy) -> Iterator[Finding]:
    """Is it drawn?"""
    for oar in anatomy.oars:
        if oar not in anatomy.shapes:
            level = Level.RED if oar.name in NEVER_MISSING else Level.AMBER
            reason = f"{oar}: not drawn. Check that it is in the scan and was not removed by surgery."
            place = expected_mm(oar, anatomy.sound(), anatomy.limits.norms)
            yield Finding("organ.empty", oar.name, level, reason, slices=None if place is None else anatomy.slices_at(place))


def check_field_of_view(anatomy: Anatomy) -> Iterator[Finding]:
    """Does it reach the edge of the images?

    Or an end of the scan.
    """
    for oar, shape in anatomy.shapes.items():
        if shape.cut_side:
            reason = f"{oar}: reaches the edge of the images. Part of it is outside, or what was drawn there is not the organ."
            yield Finding("scan.cut_at_side", oar.name, Level.RED, reason, slices=_at_side(anatomy, oar))
        for cut, end in ((shape.cut_foot, "lower"), (shape.cut_head, "upper")):
            if not cut:
                continue
            usual = oar.name in FROM_HEAD and end == "lower"
            level = Level.GREEN if usual else Level.AMBER
            reason = f"{oar}: cut by the {end} end of the scan. Its volume and dose are those of a part."
            edge = anatomy.end(oar, at_head=end == "upper")
            yield Finding("scan.cut_at_end", oar.name, level, reason, slices=Slices(edge, edge, edge))


def check_islands(anatomy: Anatomy) -> Iterator[Finding]:
    """Is it one piece?"""
    for oar, shape in anatomy.sound().items():
        if oar.single and shape.largest_share < 0.95:
            level = Level.AMBER if shape.largest_share >= 0.6 else Level.RED
            reason = f"{oar}: {shape.pieces} pieces. The largest has {shape.largest_share:.0%} of it."
            unit, others = "share in the largest piece", anatomy.slices(oar, _without_largest_piece(anatomy.crops[oar][1]))
            yield Finding("organ.islands", oar.name, level, reason, shape.largest_share, 0.95, 1.0, unit, others)


def _without_largest_piece(mask: Mask) -> Mask:
    pieces, _ = to_pieces(mask, corners=True)
    return np.asarray(mask & (pieces != np.argmax(np.bincount(pieces.ravel())[1:]) + 1))


def _at_side(anatomy: Anatomy, oar: OAR) -> Slices | None:
    """The slices on which an organ reaches the edge of the images."""
    (_, rows, columns), mask = anatomy.crops[oar]
    at_edge = np.zeros_like(mask)
    for axis, (own, size) in enumerate(((rows, anatomy.grid.rows), (columns, anatomy.grid.columns)), start=1):
        for reached, plane in ((own.start == 0, 0), (own.stop == size, -1)):
            if reached:
                at_edge.swapaxes(0, axis)[plane] |= mask.swapaxes(0, axis)[plane]
    return anatomy.slices(oar, at_edge)

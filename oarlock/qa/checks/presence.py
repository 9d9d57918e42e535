"""Is each organ drawn, in one piece, and inside of the images?"""

from collections.abc import Iterator
from typing import Final

from oarlock.qa.checks.anatomy import Anatomy
from oarlock.qa.checks.finding import Finding, Level
from oarlock.qa.organ_shape import FROM_HEAD

NEVER_MISSING: Final = frozenset({"Brain", "Brainstem", "Bone_Mandible", "SpinalCanal", "SpinalCord"})
"""Organs that everybody has, and that a head and neck scan holds."""


def check_empty(anatomy: Anatomy) -> Iterator[Finding]:
    """Is it drawn?"""
    for oar in anatomy.oars:
        if oar not in anatomy.shapes:
            level = Level.RED if oar.name in NEVER_MISSING else Level.AMBER
            reason = f"{oar}: not drawn. Check that it is in the scan and was not removed by surgery."
            yield Finding("organ.empty", oar.name, level, reason)


def check_field_of_view(anatomy: Anatomy) -> Iterator[Finding]:
    """Does it reach the edge of the images?

    Or an end of the scan.
    """
    for oar, shape in anatomy.shapes.items():
        if shape.cut_side:
            reason = f"{oar}: reaches the edge of the images. Part of it is outside, or what was drawn there is not the organ."
            yield Finding("scan.cut_at_side", oar.name, Level.RED, reason)
        for cut, end in ((shape.cut_foot, "lower"), (shape.cut_head, "upper")):
            if not cut:
                continue
            usual = oar.name in FROM_HEAD and end == "lower"
            level = Level.GREEN if usual else Level.AMBER
            reason = f"{oar}: cut by the {end} end of the scan. Its volume and dose are those of a part."
            yield Finding("scan.cut_at_end", oar.name, level, reason)


def check_islands(anatomy: Anatomy) -> Iterator[Finding]:
    """Is it one piece?"""
    for oar, shape in anatomy.sound().items():
        if oar.single and shape.largest_share < 0.95:
            level = Level.AMBER if shape.largest_share >= 0.6 else Level.RED
            reason = f"{oar}: {shape.pieces} pieces. The largest has {shape.largest_share:.0%} of it."
            yield Finding("organ.islands", oar.name, level, reason, shape.largest_share, 0.95, 1.0, "share in the largest piece")

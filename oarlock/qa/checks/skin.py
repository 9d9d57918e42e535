"""Does each organ stay within the patient's skin?"""

from collections.abc import Iterator
from typing import Final

from oarlock.qa.checks.anatomy import Anatomy
from oarlock.qa.checks.finding import Finding, Level, level_of

OUTSIDE_LIMITS: Final = (0.01, 0.05)
"""Of an organ's voxels outside of the patient: amber and red above."""


def check_skin(anatomy: Anatomy) -> Iterator[Finding]:
    """Is it drawn into the air, or beside the body?

    Into what lies on the skin or is held beside it.
    """
    for oar, share in anatomy.outside.items():
        level = level_of(share, 0.0, 0.0, *OUTSIDE_LIMITS)
        if level is not Level.GREEN:
            where = "in air, or in a pad, bolus, mask, tube or hand on the skin"
            reason = f"{oar}: leaves the patient. {share:.0%} of it lies {where}."
            unit, slices = "share outside of the patient", anatomy.outside_slices.get(oar)
            yield Finding("organ.skin", oar.name, level, reason, share, 0.0, OUTSIDE_LIMITS[0], unit, slices)

"""Does the CT show an organ's own tissue where it is drawn?"""

from collections.abc import Iterator
from typing import Final

from oarlock.qa.checks.anatomy import Anatomy
from oarlock.qa.checks.finding import Finding, Level, Slices, level_of

FEW_VOXELS: Final = 50
"""Of fewer voxels (a cochlea, a lens on thick slices) those at its edge are too large a share for a red."""


def check_density(anatomy: Anatomy) -> Iterator[Finding]:
    """Does it lie on its own tissue?

    The one check that sees a whole set of contours misplaced together.
    """
    sound = anatomy.sound()
    for oar, found in anatomy.compositions.items():
        if oar not in sound:
            continue
        norm = anatomy.limits.tissues[oar.name]
        level = level_of(found.share, norm.implausible, norm.usual, 1.0, 1.0)
        if level is Level.RED and found.voxels < FEW_VOXELS:
            level = Level.AMBER
        if level is not Level.GREEN:
            rest = "lighter" if found.lighter > found.denser else "denser"
            reason = (
                f"{oar}: wrong tissue. Only {found.share:.0%} of it is {norm.tissue.said} on the CT; {norm.usual:.0%} or more is "
                f"usual. The rest is mostly {rest}. Check that the contour lies on the organ, and the CT for artefacts."
            )
            unit = f"share that is {norm.tissue.name}"
            slices = Slices.most(found.off_by_slice, anatomy.crops[oar][0][0].start)
            yield Finding("organ.density", oar.name, level, reason, found.share, norm.usual, 1.0, unit, slices)

"""Do the CT and the model stand behind each organ?

Of the model, its own probability.
"""

from collections.abc import Iterator
from typing import Final

from oarlock.qa.checks.anatomy import Anatomy
from oarlock.qa.checks.finding import Finding, Level, Slices, level_of, ml

FEW_VOXELS: Final = 50
"""Of fewer voxels (a cochlea, a lens on thick slices) those at its edge are too large a share for a red."""

CERTAINTY_LIMITS: Final = (0.25, 0.5)
"""Of the strict volume over the loose one (:class:`oarlock.segmentation.certainty.Certainty`): red and amber below."""

DELIVERED_LIMITS: Final = (0.5, 0.7, 1.4, 2.0)
"""Of the delivered volume over the one that the model saw: red below, amber below, amber above, red above."""


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


def check_certainty(anatomy: Anatomy) -> Iterator[Finding]:
    """Does the model's probability stand behind the line?

    And is what it drew in the contour?
    """
    for oar, seen in anatomy.certainty.items():
        shape = anatomy.shapes.get(oar)
        if shape is None or seen.share is None or seen.drawn_ml == 0:
            continue
        drawn = f"{ml(shape.volume_ml)} drawn"
        level = Level.GREEN if anatomy.is_tiny(oar) else level_of(seen.share, *CERTAINTY_LIMITS, 1.0, 1.0)
        if level is not Level.GREEN:
            others = f"{ml(seen.strict_ml)} at a stricter threshold, {ml(seen.loose_ml)} at a looser one"
            reason = f"{oar}: low confidence. {drawn}; {others}."
            unit = "strict / loose volume"
            yield Finding("organ.certainty", oar.name, level, reason, seen.share, CERTAINTY_LIMITS[1], 1.0, unit)
        ratio = shape.volume_ml / seen.drawn_ml
        level = level_of(ratio, *DELIVERED_LIMITS)
        if level is not Level.GREEN:
            what = "parts were dropped or lost" if ratio < 1 else "more was drawn than the model found"
            reason = f"{oar}: {what}. {drawn}; the model found {ml(seen.drawn_ml)}."
            yield Finding("organ.delivered", oar.name, level, reason, ratio, *DELIVERED_LIMITS[1:3], "drawn / seen volume")

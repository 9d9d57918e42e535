"""How sure was the model, and is all of it drawn?"""

from collections.abc import Iterator
from typing import Final

from oarlock.qa.checks.anatomy import Anatomy
from oarlock.qa.checks.finding import Finding, Level, level_of, ml

CERTAINTY_LIMITS: Final = (0.25, 0.5)
"""Of the strict volume over the loose one (:class:`oarlock.segmentation.certainty.Certainty`): red and amber below."""

DELIVERED_LIMITS: Final = (0.5, 0.7, 1.4, 2.0)
"""Of the delivered volume over the one that the model saw: red below, amber below, amber above, red above."""


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

"""Action levels: scores that call for a second look.

A site has said that it will look at a drawing with such scores before it is used.

They are a site's own, made from its commissioning (``docs/commissioning.md``); without them nothing passes and nothing fails.
"""

from collections.abc import Iterable, Mapping
from typing import Final

from oarlock.qa.rounding import rounded

LEAST: Final = ("surface_dsc", "volumetric_dsc")
"""Numbers that pass at their level or above it."""

MOST: Final = ("hausdorff_95_mm", "mean_surface_distance_mm", "added_path_length_mm")
"""Numbers that pass at their level or below it."""

ActionLevels = Mapping[str, float]
"""From the name of a number to its level."""


def failures(levels: ActionLevels, numbers: Mapping[str, float | None], *, missed: bool) -> tuple[str, ...] | None:
    """The names of numbers that fail; None if nothing is judged.

    :param numbers: as a report prints them: what is read decides.
    :param missed: whether the reference alone drew the organ: then every level fails.
    """
    if missed:
        return tuple(levels) or None
    judged = {name: found for name in levels if (found := rounded(numbers.get(name))) is not None}
    if not judged:
        return None
    return tuple(name for name, found in judged.items() if (found < levels[name] if name in LEAST else found > levels[name]))


def all_pass(judged: Iterable[bool | None]) -> bool | None:
    """Whether all that was judged passes; None if nothing was judged."""
    known = [one for one in judged if one is not None]
    return all(known) if known else None

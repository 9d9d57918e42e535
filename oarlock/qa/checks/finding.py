"""Finding: what a check says of an organ.

How serious it is, and the words and numbers for it.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Self

from oarlock.qa.rounding import rounded


class Level(StrEnum):
    """How serious a finding is."""

    GREEN = "green"
    AMBER = "amber"
    RED = "red"


@dataclass(frozen=True, slots=True)
class Slices:
    """On which slices a finding shows, as indices from 0.

    :ivar best: the one on which it shows best.
    """

    best: int
    first: int
    last: int

    @classmethod
    def most(cls, counts: Sequence[int], begin: int) -> Self | None:
        """Where there is most of something, and where any; None of nothing.

        :param counts: how much of it each slice has.
        :param begin: index of the first of these slices.
        """
        there = [index for index, count in enumerate(counts, start=begin) if count > 0]
        return cls(begin + max(range(len(counts)), key=counts.__getitem__), there[0], there[-1]) if there else None

    @classmethod
    def between(cls, best: int, other: int) -> Self:
        """From one slice to another."""
        return cls(best, min(best, other), max(best, other))

    def to_json(self) -> dict[str, int]:
        """As numbers of slices, from 1."""
        return {name: index + 1 for name, index in asdict(self).items()}


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check says.

    :param code: stable name of the check, listed in ``docs/qa.md``.
    :param oar: name of the organ, None for a finding on the whole set.
    :param value, low, high: what was measured and the limits of green, in ``unit``; None where there is not a number.
    :param slices: where it shows; None where nowhere, or where nothing is known but the organ's own slices.
    """

    code: str
    oar: str | None
    level: Level
    reason: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    unit: str | None = None
    slices: Slices | None = None

    def to_json(self) -> dict[str, Any]:
        """One entry of ``checks``."""
        slices = None if self.slices is None else self.slices.to_json()
        return rounded(asdict(self)) | {"level": self.level.value, "slices": slices}


def level_of(
    value: float, red_below: float, amber_below: float, amber_above: float, red_above: float, *, no_lower: bool = False
) -> Level:
    """The level of a value between four limits.

    Each of them is still inside.

    :param no_lower: the two lower limits do not count.
    """
    low = math.inf if no_lower else value
    if low < red_below or value > red_above:
        return Level.RED
    return Level.AMBER if low < amber_below or value > amber_above else Level.GREEN


def ml(volume_ml: float) -> str:
    """A volume in ml as a person writes it.

    0.24 ml, 37.0 ml, 138 ml, 1140 ml; under 0.01 ml with three decimals.
    """
    if volume_ml >= 1000:
        return f"{round(volume_ml, -1):.0f} ml"
    decimals = 0 if volume_ml >= 100 else 1 if volume_ml >= 10 else 2 if volume_ml >= 0.01 else 3
    return f"{volume_ml:.{decimals}f} ml" if volume_ml > 0 else "0 ml"

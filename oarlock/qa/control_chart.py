"""Control charts of individual scores.

Has what a model draws drifted away from how it used to be judged?

A score is a share of a surface, so it is charted as arcsin √score, on which scale shares of different height vary alike
(Bartlett 1947) and limits never leave [0, 1]. The first scores are the baseline: their mean is the centre, and their mean moving
range over 1.128 the standard deviation (Shewhart's individuals chart; Montgomery, Introduction to Statistical Quality Control).
Each later score is judged by three rules of Western Electric (1956) and Nelson (1984).

Their textbook factors (3 and 2 standard deviations, nine in a row) hold where centre and deviation are known. Estimated from 30
scores they would alarm almost three times as often. The factors here are those at which each rule alarms a stable process no more
often than the textbook says (Hillier 1969 for the idea; ``docs/qa.md`` for the numbers; the tests derive them).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

BASELINE: Final = 30
"""How many scores the limits are made of."""

LIMIT: Final = 3.54
"""Deviations from the centre to a limit, in place of 3."""

WARNING: Final = 2.35
"""Deviations from the centre of which two scores of three may not lie beyond, in place of 2."""

RUN: Final = 11
"""Scores in a row on one side of the centre, in place of nine."""

LOOK_BACK: Final = RUN - 1
"""How many scores before one decide, with it, whether it alarms."""

FEWEST: Final = 5
"""Past patients below which no limits are made of them: they would be so wide that nothing lies beyond."""

BEYOND: Final = (0.00135, 0.02275)
"""Shares of a stable process below the textbook's limit and its warning line, 3 and 2 standard deviations from the centre."""

_D2: Final = 2 / math.sqrt(math.pi)
"""Expected range of two normal values, in standard deviations: 1.128."""


class Rule(StrEnum):
    """What makes an alarm."""

    BEYOND_LIMIT = "beyond_limit"
    TWO_OF_THREE = "two_of_three"
    RUN = "run"


MEANING: Final = {
    Rule.BEYOND_LIMIT: f"One score lies beyond a limit, {LIMIT} standard deviations from the centre.",
    Rule.TWO_OF_THREE: f"Of three scores in a row, this one and another lie beyond {WARNING} standard deviations on one side.",
    Rule.RUN: f"{RUN} scores in a row lie on one side of the centre.",
}


@dataclass(frozen=True, slots=True)
class Alarm:
    """A score at which a rule fires.

    :ivar index: of the score that completes the pattern.
    """

    index: int
    rule: Rule
    side: Literal["lower", "higher"]


@dataclass(frozen=True, slots=True)
class ControlLimits:
    """Centre and standard deviation of a baseline.

    On the scale of the chart.

    :ivar limit, warning: deviations from the centre to a limit, and to where two of three may not lie beyond.
    :ivar lower_only: whether only low scores alarm, see :meth:`of_past_patients`.
    """

    centre: float
    deviation: float
    limit: float = LIMIT
    warning: float = WARNING
    lower_only: bool = False

    @classmethod
    def of(cls, scores: Sequence[float]) -> "ControlLimits | None":
        """The limits of the first :data:`BASELINE` scores, or None.

        Scores are in [0, 1]; None where there are fewer, or where they do not vary.
        """
        if len(scores) < BASELINE:
            return None
        charted = _to_chart(scores[:BASELINE])
        deviation = float(np.abs(np.diff(charted)).mean()) / _D2
        return cls(float(charted.mean()), deviation) if deviation > 1e-9 else None

    @classmethod
    def of_past_patients(cls, scores: Sequence[float]) -> "ControlLimits | None":
        """The limits before there is a baseline, or None.

        They are for what comes back.

        They are made of scores against contours that were drawn without ours. What people correct of ours agrees with it better,
        so only low scores alarm. The patients came in no order: the deviation is that of the sample, and the factors are those of
        a prediction interval for one more normal value, t · √(1 + 1/n), which holds for any number of patients.

        :param scores: of past patients, in [0, 1]; None where there are fewer than :data:`FEWEST`, or where they do not vary.
        """
        from scipy.special import stdtrit  # not of scipy.stats, which takes a second

        n = len(scores)
        if n < FEWEST:
            return None
        charted = _to_chart(scores)
        deviation = float(charted.std(ddof=1))
        limit, warning = (float(stdtrit(n - 1, 1 - share)) * math.sqrt(1 + 1 / n) for share in BEYOND)
        return cls(float(charted.mean()), deviation, limit, warning, lower_only=True) if deviation > 1e-9 else None

    def score_at(self, deviations: float) -> float:
        """The score so many deviations from the centre, in [0, 1]."""
        return math.sin(min(max(self.centre + deviations * self.deviation, 0.0), math.pi / 2)) ** 2

    def alarms(self, scores: Sequence[float]) -> list[Alarm]:
        """Where the rules fire among scores outside of the baseline.

        In their order.
        """
        distances = (_to_chart(scores) - self.centre) / self.deviation
        found = []
        for side, turned in (("lower", -distances), *(() if self.lower_only else (("higher", distances),))):
            for rule, fires in self._fires(turned).items():
                found += [Alarm(int(i), rule, side) for i in np.flatnonzero(fires)]
        return sorted(found, key=lambda alarm: alarm.index)

    def _fires(self, distances: FloatArray) -> dict[Rule, npt.NDArray[np.bool_]]:
        """Each rule on the side where distances from the centre, in deviations, are above 0."""
        far = distances > self.warning
        rules = {Rule.BEYOND_LIMIT: distances > self.limit, Rule.TWO_OF_THREE: far & (_sum_of_last(far, 3) >= 2)}
        return rules if self.lower_only else rules | {Rule.RUN: _sum_of_last(distances > 0, RUN) == RUN}


def _to_chart(scores: Sequence[float]) -> FloatArray:
    return np.arcsin(np.sqrt(np.clip(np.asarray(scores, dtype=np.float64), 0.0, 1.0)))


def _sum_of_last(flags: npt.NDArray[np.bool_], n: int) -> npt.NDArray[np.int64]:
    """At each place, how many of the last n flags, this one included, are set."""
    total = np.concatenate([np.zeros(n, dtype=np.int64), np.cumsum(flags)])
    return np.asarray(total[n:] - total[:-n])

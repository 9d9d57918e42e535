"""What scores on past patients say of the next one.

A tolerance limit is what 95 % of all patients like these reach, with 95 % confidence: of normally distributed scores, from mean
and standard deviation by the factor k of a one-sided tolerance interval (non-central t; NIST/SEMATECH e-Handbook, 7.2.6.3).
Coefficients are taken as arcsin √s, and lengths as logarithms, so that limits stay where scores can be.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

COVERED: Final = 0.95
CONFIDENCE: Final = 0.95
FEWEST: Final = 5
"""Scores below which no limit is given: the factor is over 5 there, and one patient decides."""


@dataclass(frozen=True, slots=True)
class Statistics:
    """Some scores of one organ.

    :ivar n: how many, at least 1.
    :ivar sd: sample standard deviation; None of a single score, as the interval is.
    :ivar mean_low, mean_high: 95 % confidence interval of the mean (Student's t).
    :ivar limit: tolerance limit on the bad side; None of fewer than :data:`FEWEST` scores.
    """

    n: int
    mean: float
    sd: float | None
    lowest: float
    highest: float
    mean_low: float | None
    mean_high: float | None
    limit: float | None


def statistics_of(scores: Sequence[float], *, is_share: bool) -> Statistics | None:
    """The statistics of some scores; None if there are none.

    :param is_share: whether they are shares in [0, 1], of which more is better; otherwise lengths, of which less is.
    """
    if not scores:
        return None
    from scipy.special import stdtrit  # late, and not of scipy.stats, which takes a second

    n, values = len(scores), np.asarray(scores, dtype=np.float64)
    mean = float(values.mean())
    sd = float(values.std(ddof=1)) if n > 1 else None
    half = None if sd is None else float(stdtrit(n - 1, (1 + CONFIDENCE) / 2)) * sd / math.sqrt(n)
    low, high = (None, None) if half is None else (mean - half, mean + half)
    return Statistics(n, mean, sd, float(values.min()), float(values.max()), low, high, _limit(scores, is_share=is_share))


def tolerance_factor(n: int) -> float:
    """K of a one-sided tolerance interval of n scores.

    So many standard deviations from the mean lies the limit.
    """
    from scipy.special import nctdtrit, ndtri

    z = float(ndtri(COVERED))
    return float(nctdtrit(n - 1, z * math.sqrt(n), CONFIDENCE)) / math.sqrt(n)


def _limit(scores: Sequence[float], *, is_share: bool) -> float | None:
    if len(scores) < FEWEST:
        return None
    values = np.asarray(scores, dtype=np.float64)
    scaled = np.arcsin(np.sqrt(np.clip(values, 0, 1))) if is_share else np.log(np.maximum(values, _SHORTEST_MM))
    away = tolerance_factor(len(scores)) * float(scaled.std(ddof=1))
    if is_share:
        return math.sin(max(float(scaled.mean()) - away, 0.0)) ** 2
    return math.exp(float(scaled.mean()) + away)


_SHORTEST_MM: Final = 0.1
"""Distances of 0 have no logarithm."""


def paired(ours: Sequence[float], theirs: Sequence[float]) -> Statistics | None:
    """The differences of two models on the same patients.

    Ours less theirs; no limit is given of them.
    """
    found = statistics_of([a - b for a, b in zip(ours, theirs, strict=True)], is_share=True)
    if found is None:
        return None
    return Statistics(found.n, found.mean, found.sd, found.lowest, found.highest, found.mean_low, found.mean_high, None)

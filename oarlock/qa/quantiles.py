"""What many scores say together: mean, median, quartiles, and how many are low; for many groups at once."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

_APART: Final = 4.0
"""From one group to the next on the line on which all scores are sorted; scores lie in [0, 1]."""


@dataclass(frozen=True, slots=True)
class Distribution:
    """Some scores.

    Quartiles lie between the sorted scores where they fall between two (Hyndman and Fan 1996, definition 7: what NumPy and
    spreadsheets take).

    :ivar n: how many scores there are, at least 1.
    :ivar below_alert: share of them that lie under the alert level, in [0, 1].
    """

    n: int
    mean: float
    lower_quartile: float
    median: float
    upper_quartile: float
    below_alert: float


def distributions(scores: FloatArray, groups: IntArray, count: int, alert_level: float) -> list[Distribution | None]:
    """The distribution of each group of scores; None where no score of it is a number.

    All groups are sorted at once, each moved to a place of its own, which costs the last digits: numbers are right to 10⁻¹¹.

    :param scores: (n,) in [0, 1], or NaN where a score is not defined.
    :param groups: (n,) to which group each belongs, from 0 to ``count`` - 1; at most some thousand.
    """
    defined = ~np.isnan(scores)
    if not defined.all():
        scores, groups = scores[defined], groups[defined]
    place = np.arange(count) * _APART
    ordered = np.sort(scores + place[groups])
    ends = np.searchsorted(ordered, place + _APART)
    start = np.append(0, ends[:-1])
    n, low = ends - start, np.bincount(groups[scores < alert_level], minlength=count)
    total = np.bincount(groups, scores, minlength=count)
    quartiles = [_quantiles(ordered, start, n, share) - place for share in (0.25, 0.5, 0.75)]
    some = np.maximum(n, 1)
    columns = [column.tolist() for column in (n, total / some, *quartiles, low / some)]
    return [Distribution(*row) if row[0] else None for row in zip(*columns, strict=True)]


def _quantiles(ordered: FloatArray, start: IntArray, n: IntArray, share: float) -> FloatArray:
    """One quantile of each group, on the line; anything where a group has no score."""
    if ordered.size == 0:
        return np.zeros(len(start))
    at = share * np.maximum(n - 1, 0)
    left = at.astype(np.int64)
    last = np.minimum(start + np.maximum(n - 1, 0), ordered.size - 1)
    here, after = (ordered[np.minimum(start + step, last)] for step in (left, left + 1))
    return np.asarray(here + (at - left) * (after - here))

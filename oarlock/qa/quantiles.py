"""What many scores say together, for many groups at once.

Mean, median, quartiles, and how many are low.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from oarlock.arrays import FloatArray

IntArray = npt.NDArray[np.int64]


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
    """The distribution of each group of scores, or None.

    None where none of its scores is a number.

    :param scores: (n,) in [0, 1], or NaN where a score is not defined.
    :param groups: (n,) to which group each belongs, from 0 to ``count`` - 1.
    """
    defined = ~np.isnan(scores)
    scores, groups = scores[defined], groups[defined]
    ordered = scores[np.lexsort((scores, groups))]
    n = np.bincount(groups, minlength=count)
    start = np.cumsum(n) - n
    quartiles = [_quantiles(ordered, start, n, share) for share in (0.25, 0.5, 0.75)]
    some = np.maximum(n, 1)
    mean = np.bincount(groups, scores, minlength=count) / some
    low = np.bincount(groups[scores < alert_level], minlength=count) / some
    columns = [column.tolist() for column in (n, mean, *quartiles, low)]
    return [Distribution(*row) if row[0] else None for row in zip(*columns, strict=True)]


def _quantiles(ordered: FloatArray, start: IntArray, n: IntArray, share: float) -> FloatArray:
    """One quantile of each group of sorted scores; anything where a group has none.

    :param ordered: the scores of the first group, of the second, and so on, each group ascending.
    :param start, n: where each group begins, and how many scores it has.
    """
    if ordered.size == 0:
        return np.zeros(len(start))
    last = np.maximum(n - 1, 0)
    place = share * last
    left = place.astype(np.int64)
    here, after = (ordered[np.minimum(start + np.minimum(step, last), ordered.size - 1)] for step in (left, left + 1))
    return np.asarray(here + (place - left) * (after - here))

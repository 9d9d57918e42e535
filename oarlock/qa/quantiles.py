"""What many scores say together, for many groups at once.

Mean, deviation, range, quartiles, and how many are low.
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
    :ivar sd: sample standard deviation; None of a single score.
    :ivar below_alert: share of them that lie under the alert level, in [0, 1].
    """

    n: int
    mean: float
    sd: float | None
    lowest: float
    lower_quartile: float
    median: float
    upper_quartile: float
    highest: float
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
    apart = np.bincount(groups, (scores - mean[groups]) ** 2, minlength=count)
    sd = np.sqrt(apart / np.maximum(n - 1, 1)).tolist()
    ends = [_quantiles(ordered, start, n, share) for share in (0.0, 1.0)]
    low = np.bincount(groups[scores < alert_level], minlength=count) / some
    columns = [column.tolist() for column in (n, mean, ends[0], *quartiles, ends[1], low)]
    return [
        Distribution(k, average, deviation if k > 1 else None, *rest) if k else None
        for (k, average, *rest), deviation in zip(zip(*columns, strict=True), sd, strict=True)
    ]


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

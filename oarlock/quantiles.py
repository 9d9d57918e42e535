"""What many scores say together: mean, median, quartiles, and how many are low."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


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

    @classmethod
    def of(cls, scores: FloatArray, alert_level: float) -> "Distribution | None":
        """Of the scores that are a number; None if none is.

        :param scores: (n,), NaN where a score is not defined.
        """
        ordered = np.sort(scores)  # NaN goes to the end
        n = int(np.searchsorted(ordered, np.inf, side="right"))
        if n == 0:
            return None
        defined = ordered[:n]
        low = int(np.searchsorted(defined, alert_level, side="left"))
        return cls(
            n=n,
            mean=float(defined.sum()) / n,
            lower_quartile=_quantile(defined, 0.25),
            median=_quantile(defined, 0.5),
            upper_quartile=_quantile(defined, 0.75),
            below_alert=low / n,
        )


def _quantile(ordered: FloatArray, share: float) -> float:
    place = share * (len(ordered) - 1)
    left = int(place)
    here, after = float(ordered[left]), float(ordered[min(left + 1, len(ordered) - 1)])
    return here + (place - left) * (after - here)

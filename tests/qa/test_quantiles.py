import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oarlock.qa.quantiles import distributions

SCORES = st.lists(st.floats(0, 1) | st.just(float("nan")), max_size=40)


def test_quartiles_by_hand() -> None:
    """Sorted 0.1 0.2 0.4 0.8: the quartiles lie at places 0.75, 1.5 and 2.25 of 0 to 3."""
    (found,) = distributions(np.array([0.8, 0.2, np.nan, 0.4, 0.1]), np.zeros(5, dtype=np.int64), 1, 0.4)
    assert found is not None
    assert (found.n, found.below_alert) == (4, 0.5)
    assert (found.mean, found.lower_quartile) == (pytest.approx(0.375), pytest.approx(0.175))
    assert (found.median, found.upper_quartile) == (pytest.approx(0.3), pytest.approx(0.5))


@given(st.lists(SCORES, max_size=6), st.floats(0, 1), st.randoms())
def test_those_of_each_group_are_numpys(groups: list[list[float]], alert: float, order: random.Random) -> None:
    pairs = [(number, score) for number, group in enumerate(groups) for score in group]
    order.shuffle(pairs)
    numbers = np.array([number for number, _ in pairs], dtype=np.int64)
    found = distributions(np.array([score for _, score in pairs]), numbers, len(groups), alert)
    assert len(found) == len(groups)
    for one, group in zip(found, groups, strict=True):
        defined = np.array([score for score in group if not math.isnan(score)])
        if defined.size == 0:
            assert one is None
            continue
        assert one is not None
        quartiles = (one.lower_quartile, one.median, one.upper_quartile)
        assert quartiles == pytest.approx(tuple(np.quantile(defined, [0.25, 0.5, 0.75])), abs=1e-11)
        assert one.mean == pytest.approx(defined.mean(), abs=1e-12)
        assert one.below_alert == np.mean(defined < alert)

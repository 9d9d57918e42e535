import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oarlock.quantiles import Distribution

SCORES = st.lists(st.floats(0, 1) | st.just(float("nan")), max_size=40)


def test_quartiles_by_hand() -> None:
    """Sorted 0.1 0.2 0.4 0.8: the quartiles lie at places 0.75, 1.5 and 2.25 of 0 to 3."""
    found = Distribution.of(np.array([0.8, 0.2, np.nan, 0.4, 0.1]), 0.4)
    assert found is not None
    assert (found.n, found.below_alert) == (4, 0.5)
    assert (found.mean, found.lower_quartile) == (pytest.approx(0.375), pytest.approx(0.175))
    assert (found.median, found.upper_quartile) == (pytest.approx(0.3), pytest.approx(0.5))


@given(SCORES, st.floats(0, 1))
def test_they_are_those_of_numpy(scores: list[float], alert: float) -> None:
    values = np.array(scores, dtype=np.float64)
    defined = values[~np.isnan(values)]
    found = Distribution.of(values, alert)
    if defined.size == 0:
        assert found is None
        return
    assert found is not None
    quartiles = (found.lower_quartile, found.median, found.upper_quartile)
    assert quartiles == pytest.approx(tuple(np.quantile(defined, [0.25, 0.5, 0.75])), abs=1e-12)
    assert found.mean == pytest.approx(defined.mean(), abs=1e-12)
    assert found.below_alert == np.mean(defined < alert)

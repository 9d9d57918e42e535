"""When a series counts as whole, as a table: what is known, and after how many seconds of silence it is posted."""

import pytest

from gateway.completeness import Because, SeriesFacts, Waits, due

pytestmark = pytest.mark.slow

WAITS = Waits(settled_s=2, quiet_s=60)


@pytest.mark.parametrize(
    ("facts", "after_s", "because"),
    [
        ({}, 60, Because.QUIET),
        ({"one_association": True}, 2, Because.RELEASED),
        ({"one_association": True, "gapless": True}, 2, Because.RELEASED),
        ({"one_association": True, "gapless": False}, 60, Because.QUIET),
        ({"gapless": True}, 60, Because.QUIET),
        ({"announced": 9, "gapless": True}, 2, Because.COUNTED),
        ({"announced": 8, "gapless": True}, 2, Because.COUNTED),
        ({"announced": 10, "gapless": True, "one_association": True}, 60, Because.QUIET),
        ({"announced": 9, "gapless": False}, 60, Because.QUIET),
        ({"listed": True, "gapless": True}, 2, Because.COUNTED),
        ({"listed": True, "listed_missing": 1, "gapless": True, "one_association": True}, 60, Because.QUIET),
        ({"announced": 10, "gapless": False, "forced": True}, 0, Because.FORCED),
    ],
)
def test_a_series_counts_as_whole_after_a_time_that_follows_from_what_is_known(
    facts: dict[str, object], after_s: float, because: Because
) -> None:
    known = SeriesFacts(last_at=100.0, images=9, **facts)  # type: ignore[arg-type]
    assert due(known, WAITS) == (100.0 + after_s, because)


def test_a_quiet_time_below_the_settled_time_holds_for_all() -> None:
    known = SeriesFacts(last_at=100.0, images=9, one_association=True, gapless=True)
    assert due(known, Waits(settled_s=5, quiet_s=1))[0] == 101.0

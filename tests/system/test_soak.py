from pathlib import Path

import pytest

from tests.system.soak import soak


@pytest.mark.long("soak")
def test_a_short_soak_loses_nothing(tmp_path: Path) -> None:
    tally = soak(tmp_path, jobs=6, seconds=20, kills=5, seed=20)
    assert (tally.accepted, tally.lost, tally.wrong) == (6, 0, [])
    assert sum(tally.killed.values()) == 5
    assert sum(tally.with_jobs_running.values()) > 0

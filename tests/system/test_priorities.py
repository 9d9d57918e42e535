"""Priorities hold under load: whoever is urgent comes next, however many wait and whenever he came."""

import pytest

from oarlock.store.jobs import JobState
from tests.system.department import SLOW, Department

pytestmark = pytest.mark.slow


@pytest.mark.long("matrix")
def test_an_urgent_job_that_comes_last_is_the_next_one(department: Department, series: bytes) -> None:
    running = department.post(series, model=SLOW)
    waiting = [department.post(series, priority="low") for _ in range(4)]
    department.caught(running)
    urgent = department.post(series, priority="urgent")
    assert department.store.get(running).state is JobState.RUNNING
    department.ended([running])
    jobs = department.check_all_succeed(urgent, *waiting)
    started = {job.id: job.started_at for job in jobs}
    assert sorted(started, key=lambda job_id: str(started[job_id])) == [urgent, *waiting]

"""The crash matrix: whatever is killed, every accepted job ends once, with the same bytes, and nothing lies about."""

import os
import shutil
import signal
from contextlib import suppress
from threading import Event

import pytest

from oarlock.settings import Settings
from oarlock.store.jobs import JobState, Stage
from service.broker import Broker
from tests.system.department import Department, wait_until

pytestmark = pytest.mark.slow


def test_the_process_that_runs_a_job_is_killed(department: Department, series: bytes) -> None:
    job_id = department.post(series)
    os.kill(department.caught(job_id), signal.SIGKILL)
    (job,) = department.check_all_succeed(job_id)
    assert job.attempts > 1


@pytest.mark.long("matrix")
def test_the_whole_worker_is_killed(department: Department, series: bytes) -> None:
    job_id = department.post(series)
    department.caught(job_id)
    department.worker.kill()
    department.start_worker()
    (job,) = department.check_all_succeed(job_id)
    assert job.attempts > 1


@pytest.mark.long("matrix")
def test_the_service_is_killed_after_it_accepted(department: Department, series: bytes) -> None:
    job_ids = [department.post(series) for _ in range(3)]
    department.service.kill()
    department.start_service()
    department.check_all_succeed(*job_ids)


@pytest.mark.long("matrix")
def test_service_and_worker_are_killed_together(department: Department, series: bytes) -> None:
    job_ids = [department.post(series) for _ in range(2)]
    department.caught(job_ids[0])
    department.worker.kill()
    department.service.kill()
    department.start()
    department.check_all_succeed(*job_ids)


@pytest.mark.parametrize("with_its_files", [True, pytest.param(False, marks=pytest.mark.long("matrix"))])
def test_redis_is_killed_with_jobs_queued(department: Department, series: bytes, with_its_files: bool) -> None:
    job_ids = [department.post(series) for _ in range(3)]
    department.kill_redis()
    if with_its_files:
        shutil.rmtree(department.folder / "redis")
    department.start_redis()
    department.check_all_succeed(*job_ids)


@pytest.mark.long("matrix")
def test_redis_is_away_when_a_job_ends(department: Department, series: bytes) -> None:
    job_id = department.post(series)
    department.caught(job_id)
    department.kill_redis()
    department.ended([job_id])
    wait_until(lambda: "Couldn't ack" in department.worker.log.read_text())
    department.start_redis()
    department.check_all_succeed(job_id, department.post(series))


@pytest.mark.long("matrix")
def test_two_workers_take_the_same_message(department: Department, series: bytes) -> None:
    other = department.program("worker", name="other")
    department.start_worker(other)
    broker = Broker(Settings(redis_url=department.redis.url))  # type: ignore[call-arg]
    try:
        job_ids = [department.post(series) for _ in range(4)]
        for job_id in job_ids * 2:
            broker.enqueue(department.store.get(job_id))
        jobs = department.check_all_succeed(*job_ids)
        assert [job.attempts for job in jobs] == [1] * 4
    finally:
        broker.close()
        assert other.end() == 0


@pytest.mark.long("matrix")
def test_a_worker_that_is_asked_to_end_hands_its_job_back_and_ends_in_order(department: Department, series: bytes) -> None:
    job_id = department.post(series)
    department.caught(job_id)
    assert department.worker.end() == 0
    job = department.store.get(job_id)
    assert (job.state, job.attempts) in {(JobState.QUEUED, 0), (JobState.SUCCEEDED, 1)}
    department.start_worker()
    department.check_all_succeed(job_id)


@pytest.mark.long("matrix")
def test_a_service_that_is_asked_to_end_ends_in_order_and_its_jobs_go_on(department: Department, series: bytes) -> None:
    job_id = department.post(series)
    assert department.service.end() == 0
    department.start_service()
    department.check_all_succeed(job_id)


@pytest.mark.long("matrix")
def test_a_series_that_kills_its_worker_each_time_is_given_up_and_the_next_one_is_not(
    department: Department, series: bytes
) -> None:
    deadly, next_one = department.post(series), department.post(series)
    while not department.store.get(deadly).state.ended:
        if department.store.get(deadly).stage is Stage.INFERRING:
            with suppress(ProcessLookupError):  # killed a moment ago, and not taken back yet
                os.kill(department.runner(deadly), signal.SIGKILL)
        Event().wait(0.05)
    job = department.store.get(deadly)
    assert (job.state, job.attempts) == (JobState.FAILED, 3)
    assert job.error is not None
    assert job.error.code == "job.attempts_exhausted"
    department.check_all_succeed(next_one)

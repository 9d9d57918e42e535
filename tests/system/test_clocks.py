"""Clocks that are wrong or set while jobs run: no job waits for a clock to catch up, none is taken from a worker that lives."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.department import Department

pytestmark = pytest.mark.slow

HOURS = 3_600


def libfaketime() -> Path:
    """The library that gives a process another wall clock."""
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    if not found:
        pytest.skip("libfaketime is not installed (apt-get install faketime)")
    return found[0]


class Clock:
    """The wall clock of some processes: off by what stands in a file, which they look at with every question."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.step_to(0)
        self.environment = {"LD_PRELOAD": str(libfaketime()), "FAKETIME_TIMESTAMP_FILE": str(file), "FAKETIME_NO_CACHE": "1"}
        self.environment |= {"FAKETIME_DONT_FAKE_MONOTONIC": "1"}

    def step_to(self, offset_s: int) -> None:
        beside = self._file.with_suffix(".new")
        beside.write_text(f"{offset_s:+d}")
        beside.rename(self._file)


@pytest.fixture(scope="module")
def clock(tmp_path_factory: pytest.TempPathFactory) -> Clock:
    return Clock(tmp_path_factory.mktemp("clock") / "offset")


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory, clock: Clock) -> Iterator[Department]:
    """One whose service and worker go by the clock; the test itself does not."""
    made = Department(tmp_path_factory.mktemp("department"), **clock.environment)
    yield made
    made.close()


@pytest.mark.parametrize("offset_s", [-2 * HOURS, pytest.param(2 * HOURS, marks=pytest.mark.long("matrix"))])
def test_a_step_of_the_clock_neither_holds_up_the_job_of_a_dead_worker_nor_takes_that_of_a_living_one(
    department: Department, clock: Clock, series: bytes, offset_s: int
) -> None:
    lives = department.post(series)
    department.caught(lives)
    clock.step_to(offset_s)
    dies, waits = department.post(series), department.post(series)
    os.kill(department.caught(dies), signal.SIGKILL)
    clock.step_to(0)
    living, dying, _ = department.check_all_succeed(lives, dies, waits)
    assert living.attempts == 1
    assert dying.attempts > 1


@pytest.mark.long("matrix")
def test_a_worker_whose_clock_is_wrong_works_like_any_other(department: Department, clock: Clock, series: bytes) -> None:
    department.worker.kill()
    late = department.program("worker", name="late", FAKETIME_TIMESTAMP_FILE="", FAKETIME=f"-{HOURS}")
    department.start_worker(late)
    jobs = department.check_all_succeed(*(department.post(series) for _ in range(2)))
    assert [job.attempts for job in jobs] == [1, 1]
    late.kill()

"""A real worker process on a real Redis and a real job table: what is cancelled or stopped (tests/reliability kills it)."""

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic, sleep, time

import pytest

from oarlock.settings import Settings
from oarlock.store.database import utc_now
from oarlock.store.jobs import ENDED, JobId, JobState
from service.background.sweeper import Sweeper
from service.broker import Broker
from tests.worker.conftest import House
from tests.worker.tiny_model import write_tiny_model

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
LEASE_S = 2.0
PATIENCE_S = 60.0


def wait_until(holds: Callable[[], bool], *, meanwhile: Callable[[], object] = lambda: None) -> None:
    """Return as soon as something holds; what it waits for happens in other processes, which have no event to offer."""
    deadline = monotonic() + PATIENCE_S
    while not holds():
        assert monotonic() < deadline, "nothing happened"
        meanwhile()
        sleep(0.01)


class Ward(House):
    """A house whose clock is the real one, with a queue, a sweeper, and a worker process when a test asks for it."""

    def __init__(self, data: Path, models: Path, redis_url: str) -> None:
        data.mkdir()
        super().__init__(data, write_tiny_model(models / "tiny", linger=2000))
        self.store._clock = utc_now
        self.environment = {"REDIS_URL": redis_url, "OARLOCK_DATA": str(data), "OARLOCK_MODELS": str(models)}
        self.environment |= {"OARLOCK_MODEL": "tiny", "OARLOCK_LEASE_S": str(LEASE_S), "OARLOCK_DEVICE": "cpu"}
        self.environment |= {"OARLOCK_ALIVE_FILE": str(data / "alive")}
        settings = Settings(data=data, redis_url=redis_url, lease_s=LEASE_S)  # type: ignore[call-arg]
        self.broker = Broker(settings)
        self.sweeper = Sweeper(settings, self.store, self.storage, self.broker)
        self.log = data / "worker.log"
        self.process: subprocess.Popen[bytes] | None = None

    def worker(self) -> "subprocess.Popen[bytes]":
        """A worker that is ready; the one of the test before, if it is still there."""
        if self.process is None or self.process.poll() is not None:
            with self.log.open("ab") as log:
                command = [sys.executable, "-m", "worker"]
                self.process = subprocess.Popen(command, cwd=ROOT, env=os.environ | self.environment, stdout=log, stderr=log)
        process = self.process
        wait_until(lambda: bool(self.store.workers.live(within_s=LEASE_S)) or process.poll() is not None)
        assert process.poll() is None, self.log.read_text()
        return process

    def busy_process(self, job_id: JobId) -> int:
        """The process that runs a job: a worker's name is its host and the number of its process."""
        with sqlite3.connect(self.data / "oarlock.sqlite") as connection:
            (name,) = connection.execute("SELECT worker FROM jobs WHERE id = ?", [job_id]).fetchone()
        connection.close()
        return int(name.rsplit("-", 1)[1])

    def state_is(self, job_id: JobId, *states: JobState) -> Callable[[], bool]:
        return lambda: self.store.get(job_id).state in states

    def send(self, job_id: JobId) -> None:
        self.broker.enqueue(self.store.get(job_id))
        self.store.marked_sent(job_id)

    def close(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait()
        self.broker.close()
        self.database.close()


@pytest.fixture(scope="module")
def ward(tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> Iterator[Ward]:
    folder = tmp_path_factory.mktemp("ward")
    made = Ward(folder / "data", folder / "models", redis_url)
    yield made
    made.close()


def test_a_ready_worker_writes_until_when_it_counts_as_alive(ward: Ward) -> None:
    before = time()
    ward.worker()
    wait_until(lambda: (ward.data / "alive").exists() and bool((ward.data / "alive").read_text()))
    assert before + LEASE_S < float((ward.data / "alive").read_text()) < time() + 3 * LEASE_S


def test_a_job_from_the_queue_is_done_once_though_it_was_sent_twice(ward: Ward, series: Path) -> None:
    ward.worker()
    job_id, behind = ward.post(series, job_id="twice"), ward.post(series, job_id="behind")
    for each in (job_id, job_id, behind):
        ward.send(each)
    wait_until(ward.state_is(job_id, *ENDED))
    finished = ward.store.get(job_id)
    assert (finished.state, finished.attempts) == (JobState.SUCCEEDED, 1)
    wait_until(ward.state_is(behind, JobState.SUCCEEDED))
    assert ward.store.get(job_id) == finished


def test_a_running_job_can_be_cancelled(ward: Ward, series: Path) -> None:
    ward.worker()
    job_id = ward.post(series, job_id="cancelled")
    ward.send(job_id)
    wait_until(ward.state_is(job_id, JobState.RUNNING))
    ward.store.request_cancel(job_id)
    wait_until(ward.state_is(job_id, *ENDED))
    assert ward.store.get(job_id).state is JobState.CANCELLED


def test_a_worker_that_is_asked_to_end_hands_its_job_back_and_ends_in_order(ward: Ward, series: Path) -> None:
    process = ward.worker()
    job_id = ward.post(series, job_id="handed-back")
    ward.send(job_id)
    wait_until(ward.state_is(job_id, JobState.RUNNING))
    process.terminate()
    assert process.wait(timeout=PATIENCE_S) == 0
    job = ward.store.get(job_id)
    assert (job.state, job.attempts) == (JobState.QUEUED, 0)
    lines = [json.loads(line) for line in ward.log.read_text().splitlines() if line.startswith("{")]
    assert {"ready", "job started", "job handed back"} <= {line["event"] for line in lines}
    assert "Canary" not in ward.log.read_text()
    ward.store.request_cancel(job_id)

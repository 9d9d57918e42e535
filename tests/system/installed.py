"""A service with all that belongs to it, as processes of their own on a private Redis, and everything that they write."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from oarlock.store.database import Database
from oarlock.store.job_store import JobStore
from oarlock.store.jobs import ENDED, JobId, JobState
from tests.fixtures.processes import eventually
from tests.worker.tiny_model import write_tiny_model

ROOT = Path(__file__).parents[2]
PATIENCE_S = 240.0
LEASE_S = 3.0


@dataclass
class Installed:
    """A service that answers at ``url``; what it and its children print goes to ``log``."""

    data: Path
    log: Path
    process: "subprocess.Popen[bytes]"
    environment: dict[str, str]
    url: str
    database: Database
    answers: list[bytes] = field(default_factory=list)

    @property
    def store(self) -> JobStore:
        return JobStore(self.database)

    def state(self, job_id: str) -> JobState:
        return self.store.get(JobId(job_id)).state

    def wait(self, job_id: str, *states: JobState) -> JobState:
        """Until a job is in one of these states; in any that is an end if none is named."""
        wanted = states or tuple(ENDED)
        assert eventually(lambda: self.state(job_id) in wanted, within_s=PATIENCE_S), self.log.read_text()
        return self.state(job_id)

    def busy_process(self, job_id: str) -> int:
        """The process that runs a job: a worker's name is its host and the number of its process."""
        with self.database.reading() as connection:
            name = connection.exec_driver_sql(f"SELECT worker FROM jobs WHERE id = '{job_id}'").scalar_one()
        return int(name.rsplit("-", 1)[1])

    def oarlock(self, *arguments: str) -> str:
        """What a command of ``oarlock`` prints."""
        command = [sys.executable, "-m", "oarlock.cli", *arguments]
        done = subprocess.run(command, check=True, cwd=ROOT, env=self.environment, capture_output=True, text=True)
        return done.stdout

    def stop(self) -> None:
        self.process.terminate()
        assert self.process.wait(timeout=PATIENCE_S) == 0, self.log.read_text()


@contextmanager
def installed(
    folder: Path, *, linger: int = 0, ready: Callable[[httpx.Response], bool] = lambda a: a.is_success, **settings: str
) -> Iterator[Installed]:
    """Start everything on a folder, with a model that lingers as long as a test needs, and stop it in the end.

    :param settings: environment variables.
    """
    if not (folder / "models").exists():
        write_tiny_model(folder / "models" / "tiny", linger=linger)
    data, log = folder / "data", folder / "service.log"
    environment = {name: value for name, value in os.environ.items() if name not in {"REDIS_URL", "DATABASE_URL"}}
    environment |= {"OARLOCK_DATA": str(data), "OARLOCK_MODELS": str(folder / "models"), "OARLOCK_MODEL": "tiny"}
    environment |= {"OARLOCK_PORT": "0", "OARLOCK_LEASE_S": str(LEASE_S), "OARLOCK_DEVICE": "cpu", "OARLOCK_MIN_FREE_BYTES": "0"}
    environment |= settings
    with log.open("ab") as output:
        process = subprocess.Popen([sys.executable, "-m", "service"], cwd=ROOT, env=environment, stdout=output, stderr=output)
    url = ""
    try:
        assert eventually(lambda: _url(log) is not None or process.poll() is not None, within_s=PATIENCE_S), log.read_text()
        url = _url(log) or ""
        assert url, log.read_text()
        assert eventually(lambda: ready(httpx.get(f"{url}/readyz")), within_s=PATIENCE_S), log.read_text()
        database = Database(settings.get("DATABASE_URL", f"sqlite:///{data / 'oarlock.sqlite'}"))
        try:
            yield Installed(data, log, process, environment, url, database)
        finally:
            database.close()
    finally:
        process.terminate()
        process.wait()


def _url(log: Path) -> str | None:
    found = re.findall(r"Oarlock listens on (\S+)", log.read_text())
    return found[-1] if found else None

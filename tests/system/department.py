"""A whole Oarlock of real processes, each of which can be killed and started again by itself."""

import json
import os
import signal
import subprocess
import sys
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Final

import httpx
from sqlalchemy import select

from oarlock.inference.models import load
from oarlock.store import audit
from oarlock.store.audit import Action
from oarlock.store.database import Database
from oarlock.store.files import PREVIEW, QA_REPORT, RTSTRUCT, Storage
from oarlock.store.job_store import JobStore, NewJob
from oarlock.store.jobs import ENDED, Job, JobId, JobState, Stage
from oarlock.store.schema import JOBS
from service.embedded.process import die_with_parent
from service.embedded.redis_server import PrivateRedis
from tests.fixtures.processes import eventually, marked
from tests.worker.conftest import House
from tests.worker.tiny_model import write_tiny_model
from worker.jobs import contour

ROOT: Final = Path(__file__).parents[2]
LEASE_S: Final = 3.0
PATIENCE_S: Final = 180.0
"""Only a test that fails waits so long; the machine may be busy with much else."""

LINGER: Final = 2000
STUCK: Final = "stuck"
"""Name of a model that is never done."""

SLOW: Final = "slow"
"""Name of a model that takes some seconds."""
ENDS: Final = (Action.JOB_SUCCEEDED, Action.JOB_FAILED, Action.JOB_CANCELLED)


@dataclass
class Program:
    """A component: its command, and the process that runs it now. ``mark`` is in the environment of all of its processes."""

    command: list[str]
    environment: dict[str, str]
    log: Path
    mark: str = field(default_factory=lambda: f"oarlock-test-{uuid.uuid4()}")
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def start(self) -> None:
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                self.command,
                cwd=ROOT,
                env=os.environ | self.environment | {"OARLOCK_TEST_MARK": self.mark},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=die_with_parent,  # noqa: PLW1509 - as in service.embedded.redis_server
            )

    def kill(self) -> None:
        """``kill -9``, all of its processes at once."""
        for pid in marked(self.mark):
            os.kill(pid, signal.SIGKILL)
        if self.process is not None:
            self.process.wait()
        wait_until(lambda: not marked(self.mark))

    def end(self) -> int:
        """Ask it to end in order, and give its exit status."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(timeout=PATIENCE_S)


class Department:
    """Redis, a service, workers and a job table on a folder of their own.

    :param linger: how long the model takes (see :func:`tests.worker.tiny_model.write_tiny_model`).
    :param data: the data folder, where it is to lie elsewhere.
    :param settings: environment variables of the service and the workers.
    """

    def __init__(self, folder: Path, *, linger: int = LINGER, data: Path | None = None, **settings: str) -> None:
        self.folder, self.data = folder, data or folder / "data"
        folder.mkdir(exist_ok=True)
        self.manifest = write_tiny_model(folder / "models" / "tiny", linger=linger)
        write_tiny_model(folder / "models" / STUCK, name=STUCK, linger=100 * LINGER)
        write_tiny_model(folder / "models" / SLOW, name=SLOW, linger=2 * LINGER)
        self._quick = write_tiny_model(folder / "quick" / "tiny")
        self.redis = PrivateRedis(folder / "redis")
        database_url = settings.get("DATABASE_URL", f"sqlite:///{self.data / 'oarlock.sqlite'}")
        self.environment = {
            "REDIS_URL": self.redis.url,
            "DATABASE_URL": database_url,
            "OARLOCK_DATA": str(self.data),
            "OARLOCK_MODELS": str(folder / "models"),
            "OARLOCK_MODEL": "tiny",
            "OARLOCK_LEASE_S": str(LEASE_S),
            "OARLOCK_DEVICE": "cpu",
            "OARLOCK_THREADS": "1",
            "OARLOCK_EMBEDDED_WORKER": "false",
            "OARLOCK_PORT": "0",
            "OARLOCK_MIN_FREE_BYTES": "0",
            **settings,
        }
        self.service = self.program("service")
        self.worker = self.program("worker")
        self.redis_process: subprocess.Popen[bytes] | None = None
        self.storage = Storage(self.data)
        self.database = Database(database_url)
        self.store = JobStore(self.database)
        self._programs = [self.service, self.worker]

    def program(self, module: str, *, name: str | None = None, arguments: Sequence[str] = (), **environment: str) -> Program:
        """One more component."""
        log = self.folder / f"{name or module}.log"
        program = Program([sys.executable, "-m", module, *arguments], self.environment | environment, log)
        if hasattr(self, "_programs"):
            self._programs.append(program)
        return program

    # ── starting and ending ───────────────────────────────────────────────────────────────────────────────────────────

    def start(self) -> None:
        """Start whatever does not run, and wait until all of it is ready."""
        if self.redis_process is None or self.redis_process.poll() is not None:
            self.start_redis()
        if not self.service.alive:
            self.start_service()
        if not self.worker.alive:
            self.start_worker()

    def start_redis(self) -> None:
        self.redis_process = self.redis.start()
        self.redis.wait_until_ready()

    def start_service(self, service: Program | None = None) -> None:
        """Start the service, and wait until it answers."""
        program = service or self.service
        program.start()
        wait_until(lambda: self._said(program) is not None or not program.alive)
        assert program.alive, program.log.read_text()
        self.url = self._said(program) or ""
        wait_until(lambda: program.alive and httpx.get(f"{self.url}/livez", timeout=30).is_success)

    def start_worker(self, worker: Program | None = None) -> None:
        """Start a worker, and wait until its model is loaded."""
        program = worker or self.worker
        program.start()
        wait_until(lambda: '"event": "ready"' in program.log.read_text() or not program.alive)
        assert program.alive, program.log.read_text()

    def kill_redis(self) -> None:
        assert self.redis_process is not None
        self.redis_process.kill()
        self.redis_process.wait()

    def close(self) -> None:
        """End everything."""
        self.database.close()
        if "_calm" in self.__dict__:
            self._calm.database.close()
        for program in self._programs:
            if program.alive:
                program.kill()
        if self.redis_process is not None:
            self.kill_redis()

    @staticmethod
    def _said(program: Program) -> str | None:
        """The address in the service's first line."""
        text = program.log.read_text()
        return "http://" + text.split("http://")[1].split()[0] if "http://" in text else None

    # ── jobs ──────────────────────────────────────────────────────────────────────────────────────────────────────────

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=PATIENCE_S)

    def post(self, series: bytes, *, key: str | None = None, **fields: str) -> JobId:
        """Post a zip archive, and see that it is accepted."""
        headers = {"Idempotency-Key": key or str(uuid.uuid4())}
        with self.client() as client:
            answer = client.post("/v1/jobs", files=[("files", ("series.zip", series))], data=fields, headers=headers)
        assert answer.status_code == 202, answer.text
        return JobId(answer.json()["id"])

    def is_in(self, job_id: JobId, *states: JobState) -> Callable[[], bool]:
        return lambda: self.store.get(job_id).state in states

    def caught(self, job_id: JobId) -> int:
        """The process that runs a job, in the middle of it."""
        wait_until(lambda: self.store.get(job_id).stage is Stage.INFERRING or self.store.get(job_id).state.ended)
        assert not self.store.get(job_id).state.ended, "it ended before it was caught"
        return self.runner(job_id)

    def runner(self, job_id: JobId) -> int:
        """The process that has a job: a worker's name is its host and the number of its process.

        :raises ProcessLookupError: if none has it.
        """
        with self.database.reading() as connection:
            name = connection.scalar(select(JOBS.c.worker).where(JOBS.c.id == job_id))
        if name is None:
            raise ProcessLookupError
        return int(name.rsplit("-", 1)[1])

    def ended(self, job_ids: Iterable[JobId]) -> list[Job]:
        """The jobs, when all of them have ended."""
        wanted = list(job_ids)
        wait_until(lambda: all(self.store.get(job_id).state in ENDED for job_id in wanted))
        return [self.store.get(job_id) for job_id in wanted]

    # ── what must hold afterwards ─────────────────────────────────────────────────────────────────────────────────────

    def check_all_succeed(self, *job_ids: JobId) -> list[Job]:
        """Every job succeeds, once, with the bytes of an undisturbed run; nothing lies about."""
        jobs = self.ended(job_ids)
        assert [job.state for job in jobs] == [JobState.SUCCEEDED] * len(jobs), [job.error for job in jobs]
        for job in jobs:
            self.check_result(job)
        self.check_nothing_is_left()
        self.check_each_ended_once()
        return jobs

    def check_result(self, job: Job) -> None:
        """The delivered files are whole, and the RTSTRUCT is the one of an undisturbed run, byte for byte."""
        assert self.storage.result(job.id, RTSTRUCT).read_bytes() == self.undisturbed(job)
        assert self.storage.result(job.id, PREVIEW).read_bytes().endswith(b"IEND\xaeB`\x82")
        assert json.loads(self.storage.result(job.id, QA_REPORT).read_bytes())["comparisons"] == []

    def check_nothing_is_left(self) -> None:
        """Of a job there is its upload and one result, and of anything else there is nothing."""
        assert eventually(lambda: self.leftovers() == [], within_s=PATIENCE_S), self.leftovers()

    def check_each_ended_once(self) -> None:
        """The audit log, which is written in the transaction that ends a job, has one end for each, and its chain is whole."""
        entries = list(audit.read_entries(self.database))
        assert audit.verify(entries, [audit.read_head(self.database)]).findings == ()
        ends = Counter(entry.job_id for entry in entries if entry.action in ENDS)
        ends.subtract(entry.job_id for entry in entries if entry.action == Action.JOB_RETRIED)
        assert {job_id: n for job_id, n in ends.items() if n} == {
            job_id: 1 for job_id, state in self.store.states().items() if state in ENDED
        }

    def leftovers(self) -> list[str]:
        """What lies below the data folder and belongs to no job that there is."""
        known = self.store.states()
        found = [path for name in ("incoming", "trash") for path in (self.data / name).iterdir()]
        for job in (self.data / "jobs").iterdir():
            if JobId(job.name) not in known:
                found.append(job)
                continue
            results = sorted(job.glob("results-*"))
            found += [path for path in job.iterdir() if path.name not in {"input", "lock"} and path not in results[-1:]]
        return [str(path.relative_to(self.data)) for path in found]

    def undisturbed(self, job: Job) -> bytes:
        """The RTSTRUCT of the same job, run in one go in this process; by the same network without its lingering."""
        calm = self._calm
        if job.id not in calm.store.states():
            calm.clock.now = job.created_at
            calm.store.create(NewJob(id=job.id, series=job.series, model=job.model, content_sha256="0" * 64))
            with calm.storage.incoming() as incoming:
                for path in self.storage.input_files(job.id):
                    incoming.next_file().write_bytes(path.read_bytes())
                calm.storage.adopt(incoming, job.id)
            contour(job.id, store=calm.store, storage=calm.storage, models=calm.model, worker="calm", lease_s=600)
        return calm.storage.result(job.id, RTSTRUCT).read_bytes()

    @cached_property
    def _calm(self) -> House:
        """Where nothing is killed."""
        return House(self.folder / "calm", self.manifest, predict=load(self._quick, device="cpu").predictors["model"])


def wait_until(holds: Callable[[], bool], *, within_s: float = PATIENCE_S) -> None:
    """Return as soon as something holds; what it waits for happens in other processes, which have no event to offer."""
    assert eventually(holds, within_s=within_s), "nothing happened"

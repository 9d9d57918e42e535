"""Where the ceiling is: jobs per hour, and callers' waits.

Against the number of workers.

python -m benchmarks.scale [--database URL] [--workers 1 4 16 64] [--seconds 0.5 2 10] [--calls]

One service, a Redis, a queue that is kept at 10,000 jobs, and workers that sleep as long as a GPU would work: threads of one
process beside the service, each with a connection of its own to the queue and to the database. They do what a worker does: take a
message, claim the job, renew its lease, report its stages, write results, count the findings of 21 organs, end the job. With
``--calls`` each call is timed while the workers work, 200 streams of events are open and 20 series are uploaded at once.

What is measured is the service's own limit. On a machine with few cores that is the machine's: the table says what share of the
workers' time was work, and how many milliseconds of CPU a job cost the service, the workers and the whole machine, with database
and queue. Two cores have 2,000 of them a second.
"""

import argparse
import multiprocessing
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.synchronize import Event as ProcessEvent
from pathlib import Path
from typing import Final
from uuid import uuid4

import httpx
from kombu import Connection
from sqlalchemy import func, insert, select

from benchmarks.followers import ROOT, Server, cpu_of, following, p95, serving, small_series
from oarlock.errors import DatabaseUnavailable
from oarlock.organs.catalogue import OARS
from oarlock.settings import Settings
from oarlock.store.database import Database, utc_now
from oarlock.store.files import RTSTRUCT, Storage
from oarlock.store.job_store import JobStore
from oarlock.store.jobs import QUEUE, JobId, JobState, Stage
from oarlock.store.leases import LeaseLost
from oarlock.store.schema import JOBS
from oarlock.store.scores.write import Scored
from service.broker import Broker
from service.embedded.redis_server import PrivateRedis
from worker.lease_keeper import LeaseKeeper

QUEUED: Final = 10_000
FOLLOWERS: Final = 200
UPLOADS: Final = 20
LEASE_S: Final = 15.0
LEAST_S: Final = 15.0
"""A row of the table is of at least so long, and of at least two jobs of each worker."""

REPORTS: Final = 8
"""How often a worker says how far a job is."""

RESULT: Final = os.urandom(200_000)
CHECKS: Final = ("volume", "place", "pieces", "mirror", "end_faces", "half")
FINDINGS: Final = Scored(
    "SIEMENS SOMATOM CT1",
    checks=[(f"organ.{check}", oar.name, "green") for oar in OARS for check in CHECKS],
    verdicts=[(oar.name, "green") for oar in OARS],
    verdict="green",
)


@dataclass(frozen=True)
class Reached:
    """Where a worker finds what it needs."""

    database: str
    redis: str
    data: Path

    @property
    def settings(self) -> Settings:
        return Settings(data=self.data, redis_url=self.redis, database_url=self.database)  # type: ignore[call-arg]


# ── the workers ──────────────────────────────────────────────────────────────────────────────────────────────────────


def work(reached: Reached, workers: int, seconds: float, stop: ProcessEvent, ends: "multiprocessing.Queue[float]") -> None:
    """Run workers as threads until told to stop.

    It tells when each job ended.
    """
    threads = [threading.Thread(target=_worker, args=(reached, f"scale-{n}", seconds, stop, ends)) for n in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _worker(reached: Reached, name: str, seconds: float, stop: ProcessEvent, ends: "multiprocessing.Queue[float]") -> None:
    settings, storage = reached.settings, Storage(reached.data, create=False)
    with (
        closing(Database(reached.database, create=False, connections=1)) as database,
        Connection(settings.broker_url, transport_options=settings.broker_transport_options()) as connection,
    ):
        store, queue = JobStore(database), connection.SimpleQueue(QUEUE)
        queue.consumer.qos(prefetch_count=1)
        beats = 0.0
        while not stop.is_set():
            if time.monotonic() - beats > LEASE_S / 3:
                beats = time.monotonic()
                with suppress(DatabaseUnavailable):
                    store.workers.heartbeat(name, {"oarlock-hn": "0" * 64}, "cpu")
            try:
                message = queue.get(timeout=1)
            except queue.Empty:
                continue
            if _do(JobId(message.payload[0][0]), name, seconds, store, storage):
                ends.put(time.time())
            message.ack()


def _do(job_id: JobId, name: str, seconds: float, store: JobStore, storage: Storage) -> bool:
    """One job, as :func:`worker.jobs.contour` does it, asleep where that computes."""
    try:
        lease = store.leases.claim(job_id, worker=name, lease_s=LEASE_S)
        if lease is None:
            return False
        with LeaseKeeper(store.leases, lease, lease_s=LEASE_S) as keeper:
            with storage.results_writer(job_id, lease.token) as folder:
                for step in range(REPORTS):
                    keeper.report(list(Stage)[step * len(Stage) // REPORTS], step / REPORTS)
                    time.sleep(seconds / REPORTS)
                (folder / RTSTRUCT).write_bytes(RESULT)
            store.leases.succeed(lease, scored=FINDINGS, result=f"{RTSTRUCT} sha256:{'0' * 64}")
    except (LeaseLost, DatabaseUnavailable):  # as a worker: the sweeper sends it again
        return False
    return True


# ── the queue ────────────────────────────────────────────────────────────────────────────────────────────────────────


class Hall:
    """A service, its queue, and the means to keep that long."""

    def __init__(self, server: Server, reached: Reached, jobs: int) -> None:
        self.server, self.reached, self.jobs = server, reached, jobs
        self.parts = small_series(reached.data.parent / "series")
        self._database = Database(reached.database)
        self._storage, self._broker = Storage(reached.data), Broker(reached.settings)

    def close(self) -> None:
        """Close what was opened."""
        self._broker.close()
        self._database.close()

    def fill(self) -> list[str]:
        """Have that many jobs wait; gives the newest of them."""
        first = httpx.post(f"{self.server.url}/v1/jobs", files=self.parts, timeout=120).raise_for_status().json()["id"]
        with self._database.reading() as connection:
            waiting = connection.scalar(select(func.count()).where(JOBS.c.state == JobState.QUEUED)) or 0
            row = dict(connection.execute(select(JOBS).where(JOBS.c.id == first)).mappings().one())
        now, rows = utc_now(), []
        for n in range(self.jobs - waiting):
            at = now + timedelta(microseconds=n)
            rows.append(row | {"id": str(uuid4()), "created_at": at, "queued_at": at, "sent_at": at, "state": "queued"})
        store = JobStore(self._database)
        for batch in (rows[i : i + 1_000] for i in range(0, len(rows), 1_000)):
            with self._database.writing() as connection:
                connection.execute(insert(JOBS), batch)
            jobs = store.several([one["id"] for one in batch])
            for one in batch:
                (self.reached.data / "jobs" / one["id"] / "input").mkdir(parents=True)
                self._broker.enqueue(jobs[one["id"]])
        return [one["id"] for one in rows[-FOLLOWERS:]]


@contextmanager
def hall(scratch: Path, database: str | None, checkout: Path, jobs: int) -> Iterator[Hall]:
    """The service, with a Redis of its own."""
    data = scratch / "data"
    url = database or f"sqlite:///{data / 'oarlock.sqlite'}"
    with PrivateRedis(scratch / "redis").running() as redis:
        beside = {"REDIS_URL": redis, "DATABASE_URL": url, "OARLOCK_RATE_PER_MINUTE": "0"}
        with serving(checkout, data, **beside) as server, closing(Hall(server, Reached(url, redis, data), jobs)) as made:
            yield made


@dataclass(frozen=True)
class Workers:
    """Workers at work; ``ends`` has the times at which jobs ended."""

    ends: "multiprocessing.Queue[float]"
    pid: int

    def taken(self) -> list[float]:
        """The times that came since this was asked."""
        found = []
        while not self.ends.empty():
            found.append(self.ends.get())
        return found


@contextmanager
def working(reached: Reached, workers: int, seconds: float) -> Iterator[Workers]:
    """Workers at work, in a process beside the service."""
    context = multiprocessing.get_context("spawn")
    stop, ends = context.Event(), context.Queue()
    process = context.Process(target=work, args=(reached, workers, seconds, stop, ends))
    process.start()
    try:
        yield Workers(ends, process.pid or 0)
    finally:
        stop.set()
        process.join()


def _machine_cpu_s() -> float:
    """CPU time of the whole machine until now, in seconds, without what was idle."""
    user, nice, system, _, _, irq, softirq, *_ = (
        int(field) for field in Path("/proc/stat").read_text().split("\n")[0].split()[1:]
    )
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def throughput(made: Hall, workers: int, seconds: float) -> tuple[float, list[float]]:
    """Jobs an hour, and the CPU time of each in ms.

    What it cost the service, the workers and the machine.
    """
    lasts_s = max(LEAST_S, 2.5 * seconds)
    with working(made.reached, workers, seconds) as at_work:
        at_work.ends.get(timeout=600)  # from the first end on
        time.sleep(seconds)
        at_work.taken()

        def cpu_s() -> list[float]:
            return [made.server.cpu_s(), cpu_of(at_work.pid), _machine_cpu_s()]

        began, before = time.time(), cpu_s()
        time.sleep(lasts_s)
        used, jobs = [now - then for now, then in zip(cpu_s(), before, strict=True)], len(at_work.taken())
        return 3600 * jobs / (time.time() - began), [1e3 * spent / max(jobs, 1) for spent in used]


# ── the callers ──────────────────────────────────────────────────────────────────────────────────────────────────────


def time_calls(made: Hall, rounds: int) -> dict[str, list[float]]:
    """How long each call took, in ms, sorted.

    The calls come one after the other, round and round.
    """
    with httpx.Client(base_url=made.server.url, timeout=120) as client:
        job_id = client.get("/v1/jobs?state=succeeded&limit=1").raise_for_status().json()["jobs"][0]["id"]
        calls: dict[str, Callable[[], httpx.Response]] = {
            "GET /v1/jobs": lambda: client.get("/v1/jobs"),
            "GET /v1/jobs/{id}": lambda: client.get(f"/v1/jobs/{job_id}"),
            "GET /v1/jobs/{id}/rtstruct": lambda: client.get(f"/v1/jobs/{job_id}/rtstruct"),
            "POST /v1/jobs (4 slices)": lambda: client.post("/v1/jobs", files=made.parts),
            "GET /v1/qa/checks": lambda: client.get("/v1/qa/checks"),
            "GET /metrics": lambda: client.get("/metrics"),
            "GET /readyz": lambda: client.get("/readyz"),
            "GET /livez": lambda: client.get("/livez"),
        }
        found: dict[str, list[float]] = {name: [] for name in calls}
        for _ in range(rounds):
            for name, call in calls.items():
                began, answer = time.perf_counter(), call()
                while answer.status_code == 429:  # a caller has eight uploads at once, and others send theirs
                    time.sleep(0.1)
                    began, answer = time.perf_counter(), call()
                found[name].append(1e3 * (time.perf_counter() - began))
                assert answer.status_code < 300 or name == "GET /readyz", (name, answer.text)
    return {name: sorted(times) for name, times in found.items()}


def upload_at_once(made: Hall) -> float:
    """Seconds until the last of 20 posts is answered.

    Series of 60 slices, posted at the same moment.
    """
    parts = [("files", (f"{n}.dcm", content)) for n, content in enumerate(_slices(made.reached.data.parent / "large", 60))]

    def post(_: int) -> None:
        while (answer := httpx.post(f"{made.server.url}/v1/jobs", files=parts, timeout=300)).status_code == 429:
            time.sleep(float(answer.headers["Retry-After"]))  # a caller has eight at once
        answer.raise_for_status()

    began = time.perf_counter()
    with ThreadPoolExecutor(UPLOADS) as pool:
        list(pool.map(post, range(UPLOADS)))
    return time.perf_counter() - began


def _slices(folder: Path, count: int) -> list[bytes]:
    from oarlock.ct.writer import write_ct_series
    from oarlock.phantom.patient import head_and_neck

    if not folder.exists():
        phantom = head_and_neck(shape=(count, 128, 128), spacing_mm=(3.0, 2.0, 2.0))
        write_ct_series(folder, phantom.hu, phantom.grid)
    return [path.read_bytes() for path in sorted(folder.iterdir())]


def print_calls(made: Hall, workers: int, seconds: float, newest: Sequence[str], rounds: int) -> None:
    """The table of calls, at rest and with everything at once."""
    columns = {}
    with working(made.reached, workers, seconds) as at_work:
        at_work.ends.get(timeout=600)
        columns[f"{workers} workers"] = time_calls(made, rounds)
        with following(made.server, list(newest)):
            columns[f"and {FOLLOWERS} followers"] = time_calls(made, rounds)
            uploads: list[float] = []
            sender = threading.Thread(target=lambda: uploads.append(upload_at_once(made)))
            sender.start()
            columns[f"and {UPLOADS} uploads at once"] = time_calls(made, max(rounds // 4, 3))
            sender.join()
    print(f"\n{workers} workers at {seconds:g} s, {made.jobs:,} jobs wait; median and 95th percentile in ms.\n")
    print("| call | " + " | ".join(columns) + " |\n| --- |" + " ---: |" * len(columns))
    for name in next(iter(columns.values())):
        cells = (f"{statistics.median(found[name]):,.0f}; {p95(found[name]):,.0f}" for found in columns.values())
        print(f"| `{name}` | " + " | ".join(cells) + " |", flush=True)
    print(f"\nThe {UPLOADS} uploads of 60 slices took {uploads[0]:.1f} s together.")


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--database", metavar="URL", help="an empty PostgreSQL database, in place of SQLite")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--seconds", type=float, nargs="+", default=[0.5, 2.0, 10.0])
    parser.add_argument("--calls", action="store_true", help="time the calls too, with the most workers and 2 s")
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--jobs", type=int, default=QUEUED, help="how many wait")
    parser.add_argument("--checkout", type=Path, default=ROOT, help="whose service is measured")
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as scratch, hall(Path(scratch), chosen.database, chosen.checkout, chosen.jobs) as made:
        print("| s a job | workers | jobs an hour | of the possible | ms of CPU a job: service | workers | machine |")
        print("| ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
        newest = made.fill()
        for seconds in chosen.seconds:
            for workers in chosen.workers:
                newest = made.fill() or newest
                jobs, costs = throughput(made, workers, seconds)
                cells = [f"{seconds:g}", str(workers), f"{jobs:,.0f}", f"{jobs * seconds / (3600 * workers):.0%}"]
                print("| " + " | ".join(cells + [f"{cost:.0f}" for cost in costs]) + " |", flush=True)
        if chosen.calls:
            newest = made.fill() or newest
            print_calls(made, max(chosen.workers), 2.0, newest, chosen.rounds)


if __name__ == "__main__":
    main(sys.argv[1:])

"""What dashboards wait for: ``python -m benchmarks.dashboards``.

Pages and summaries over 100,000 stored jobs, over HTTP.

A SQLite file is filled with finished jobs over three years, of two models and four scanners; one RTSTRUCT was supplied with each,
and approved ones came back for a fourth of them. Then a real service on that file is asked, each call a few times. Of the fastest
answer there is the time from the first byte sent to the last received, which counts whatever else the machine does, and the CPU
time of service and client together: what a caller waits for on a machine that does nothing else. No page may cost 200 ms of it.

    python -m benchmarks.dashboards [--jobs 100000] [--database URL]

``--database`` names an empty PostgreSQL database instead.
"""

import argparse
import logging
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from itertools import product
from pathlib import Path
from threading import Thread
from typing import Any, Final
from uuid import uuid4

import httpx
import numpy as np
import uvicorn
from sqlalchemy import Connection, insert, literal, select, union_all

from oarlock.organs.catalogue import OARS
from oarlock.qa.report import DEFINITION
from oarlock.settings import Settings
from oarlock.store.cursors import to_cursor
from oarlock.store.database import Database
from oarlock.store.jobs import JobState
from oarlock.store.schema import JOBS, QA_CASES, QA_DAYS, QA_HISTOGRAM, QA_SCORES, QA_STREAMS
from oarlock.store.scores.summaries import RECORD
from oarlock.store.scores.write import BUCKETS, day_of, oar_ids
from service.app import create_app
from service.embedded.redis_server import PrivateRedis

LIMIT_MS: Final = 200.0
ROUNDS: Final = 7
BATCH: Final = 2_000
NOW: Final = datetime.now(UTC).replace(microsecond=0)
SPAN: Final = timedelta(days=3 * 365)
RARE: Final = "RARE CT9"
SCANNERS: Final = ("SIEMENS SOMATOM CT1", "SIEMENS SOMATOM CT2", "GE Revolution CT3", "TOSHIBA Aquilion CT4")
UIDS: Final = ("study_instance_uid", "series_instance_uid", "frame_of_reference_uid")
JOB: Final[dict[str, Any]] = {
    "progress": 1.0,
    "priority": 4,
    "attempts": 1,
    "slices": 156,
    "spacing_z_mm": 2.5,
    "spacing_y_mm": 0.977,
    "spacing_x_mm": 0.977,
    "model_name": "oarlock-hn",
    "model_sha256": "ab" * 32,
    "content_sha256": "cd" * 32,
    "intake_warnings": "[]",
    "result_warnings": "[]",
    "cancel_requested": False,
    "lease_token": 1,
    "sent_at": NOW,
}
CASE: Final[dict[str, Any]] = {"position": 1, "definition": DEFINITION, "content_sha256": None, "superseded": False}
SCORE: Final[dict[str, Any]] = {
    "presence": "both",
    "tolerance_mm": 2.5,
    "tolerance_rounded_mm": 2.5,
    "surface_dsc_unrounded": 0.9,
    "hausdorff_95_mm": 3.3,
    "mean_surface_distance_mm": 0.8,
    "added_path_length_mm": 120.0,
    "predicted_volume_ml": 30.1,
    "reference_volume_ml": 29.4,
}


# ── filling ───────────────────────────────────────────────────────────────────────────────────────────────────────────


class Filler:
    """Writes what so many jobs leave, in bulk.

    Scores are spread over 0.75 to 1 without chance.
    """

    def __init__(self, connection: Connection, jobs: int) -> None:
        self._connection, self._jobs = connection, jobs
        self._days: Counter[tuple[int, int, str]] = Counter()
        self._cases = 0

    def fill(self) -> None:
        streams = [(version, scanner) for version in ("1.0.0", "1.1.0") for scanner in (*SCANNERS, RARE)]
        rows = [
            {"id": i, "model": "oarlock-hn", "model_version": version, "model_sha256": "ab" * 32, "scanner": scanner}
            for i, (version, scanner) in enumerate(streams, start=1)
        ]
        self._connection.execute(insert(QA_STREAMS), rows)
        for first in range(0, self._jobs, BATCH):
            self._batch(range(first, min(first + BATCH, self._jobs)), streams)
        self._scores()
        self._counters()

    def _batch(self, numbers: range, streams: list[tuple[str, str]]) -> None:
        jobs, cases = [], []
        for number in numbers:
            at = NOW - SPAN * (1 - (number + 1) / self._jobs)
            job_id = str(uuid4())
            version = "1.0.0" if number < self._jobs * 0.6 else "1.1.0"
            scanner = RARE if number % 5_000 == 0 else SCANNERS[number % len(SCANNERS)]
            stream = streams.index((version, scanner)) + 1
            jobs.append(self._job(job_id, number, at, version))
            for origin in ("supplied", "approved") if number // 4 % 4 == 0 else ("supplied",):
                self._cases += 1
                cases.append({"id": self._cases, "job_id": job_id, "at": at, "origin": origin, "stream_id": stream} | CASE)
                self._days[day_of(at), stream, origin] += 1
        for table, rows in ((JOBS, jobs), (QA_CASES, cases)):
            self._connection.execute(insert(table), rows)

    def _job(self, job_id: str, number: int, at: datetime, version: str) -> dict[str, Any]:
        state = JobState.FAILED if number % 50 == 1 else JobState.QUEUED if number >= self._jobs - 20 else JobState.SUCCEEDED
        asked, begun = at - timedelta(seconds=40), None if state is JobState.QUEUED else at
        uids = {name: f"2.25.{number}{i}" for i, name in enumerate(UIDS, start=1)}
        times = {"created_at": asked, "queued_at": asked, "started_at": begun, "finished_at": begun}
        return JOB | uids | times | {"id": job_id, "state": state, "model_version": version}

    def _scores(self) -> None:
        """A row for every organ of every case, made in the database."""
        place = union_all(*(select(literal(i).label("place"), literal(oar.name).label("oar")) for i, oar in enumerate(OARS)))
        oars = place.subquery()
        score = 0.75 + (QA_CASES.c.id * 7919 + oars.c.place * 104_729) % 1000 / 4000.0
        columns = {"case_id": QA_CASES.c.id, "oar": oars.c.oar, "surface_dsc": score, "volumetric_dsc": score - 0.1}
        columns |= {name: literal(value) for name, value in SCORE.items()}
        made = select(*columns.values()).select_from(QA_CASES).join(oars, literal(value=True))
        self._connection.execute(insert(QA_SCORES).from_select(list(columns), made))

    def _counters(self) -> None:
        rng = np.random.default_rng(20260305)
        ids = oar_ids(self._connection, [oar.name for oar in OARS])
        days = []
        for (day, stream, origin), cases in self._days.items():
            records = np.empty(cases * len(OARS), RECORD)
            records["oar"], records["both"] = np.tile([ids[oar.name] for oar in OARS], cases), 1
            records["surface_dsc"], records["volumetric_dsc"] = rng.beta(18, 2, len(records)), rng.beta(16, 3, len(records))
            days.append({"day": day, "stream_id": stream, "origin": origin, "scores": records.tobytes()})
        histogram = [
            {"model": "oarlock-hn", "oar": oar.name, "bucket": bucket, "cases": 100, "total": 90.0}
            for oar, bucket in product(OARS, range(len(BUCKETS)))
        ]
        self._connection.execute(insert(QA_DAYS), days)
        self._connection.execute(insert(QA_HISTOGRAM), histogram)


# ── asking ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def serving(settings: Settings) -> Iterator[httpx.Client]:
    """A client of a service on these settings."""
    server = uvicorn.Server(uvicorn.Config(create_app(settings), port=0, log_config=None, access_log=False))
    thread = Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join()


def calls() -> dict[str, str]:
    """What is asked, by what it shows."""
    year = f"{NOW - timedelta(days=365):%Y-%m-%d}"
    deep = to_cursor(NOW - SPAN / 2, "0"), to_cursor(NOW - SPAN / 2, "1.Brain")
    old = f"{NOW - timedelta(days=900):%Y-%m-%d}"
    return {
        "jobs, newest": "/v1/jobs?limit=50",
        "jobs, failed": "/v1/jobs?state=failed&limit=50",
        "jobs, of a series": "/v1/jobs?series_instance_uid=2.25.4002&limit=50",
        "jobs, from the middle": f"/v1/jobs?limit=50&cursor={deep[0]}",
        "jobs, succeeded, from the middle": f"/v1/jobs?state=succeeded&limit=50&cursor={deep[0]}",
        "scores, newest": "/v1/qa/scores?limit=500",
        "scores, an organ": "/v1/qa/scores?oar=Parotid_L&limit=500",
        "scores, an organ, approved": "/v1/qa/scores?oar=Parotid_L&origin=approved&limit=500",
        "scores, a model": "/v1/qa/scores?model=oarlock-hn&model_version=1.0.0&limit=500",
        "scores, a rare scanner, an organ": f"/v1/qa/scores?scanner={RARE}&oar=Parotid_L&limit=500",
        "scores, a month long ago": f"/v1/qa/scores?from={old}&to={NOW - timedelta(days=870):%Y-%m-%d}&oar=Brain&limit=500",
        "scores, from the middle": f"/v1/qa/scores?limit=500&cursor={deep[1]}",
        "scores, an organ, from the middle": f"/v1/qa/scores?oar=Brain&limit=500&cursor={deep[1]}",
        "summary, 90 days by day": "/v1/qa/summary",
        "summary, a year by week": f"/v1/qa/summary?from={year}&bucket=week",
        "summary, an organ, a year by day": f"/v1/qa/summary?from={year}&oar=Parotid_L",
        "summary, an organ, everything by month": "/v1/qa/summary?from=2000-01-01&bucket=month&oar=Parotid_L",
        "drift, an organ": "/v1/qa/drift?oar=Parotid_L",
        "drift, a scanner": f"/v1/qa/drift?scanner={SCANNERS[0]}&model_version=1.1.0",
        "metrics": "/metrics",
    }


def time_ms(client: httpx.Client, path: str) -> tuple[float, float, int]:
    """The fastest of some answers.

    With the CPU time of that call in service and client, and the bytes of an answer.
    """
    took = []
    for _ in range(ROUNDS):
        began, cpu_began = time.perf_counter(), time.process_time()
        answer = client.get(path)
        took.append((time.perf_counter() - began, time.process_time() - cpu_began))
        answer.raise_for_status()
    wall, cpu = min(took)
    return 1000 * wall, 1000 * cpu, len(answer.content)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dashboards", description=__doc__)
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--database", help="URL of an empty PostgreSQL database")
    chosen = parser.parse_args()
    logging.basicConfig(level=logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(data=Path(folder), database_url=chosen.database, min_free_bytes=0)
        began = time.perf_counter()
        with closing(Database(settings.database)) as database, database.writing() as connection:
            Filler(connection, chosen.jobs).fill()
        print(f"{chosen.jobs:,} jobs written in {time.perf_counter() - began:.0f} s")
        with (
            PrivateRedis(Path(folder) / "redis").running() as url,
            serving(settings.model_copy(update={"redis_url": url})) as client,
        ):
            return report(client)


def report(client: httpx.Client) -> int:
    """Print the table; exit status 1 if an answer cost too much."""
    late = []
    print(f"\n{'call':<42}{'ms':>7}{'CPU ms':>8}{'kB':>7}")
    for name, path in calls().items():
        ms, cpu_ms, size = time_ms(client, path)
        print(f"{name:<42}{ms:>7.0f}{cpu_ms:>8.0f}{size / 1000:>7.0f}", flush=True)
        late += [name] if cpu_ms > LIMIT_MS else []
    print(f"\nover {LIMIT_MS:.0f} ms of CPU time: {', '.join(late) or 'none'}")
    return int(bool(late))


if __name__ == "__main__":
    sys.exit(main())

"""What followers cost the others.

2,000 queued jobs, and 0, 100 and 200 streams of events.

python -m benchmarks.followers [FOLDER]     a checkout whose service is measured; this one without it

No worker runs, so the queue stands still. Each figure is of calls that come one after the other.
"""

import asyncio
import json
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from typing import Any, Final
from uuid import uuid4

import httpx

from oarlock.ct.writer import write_ct_series
from oarlock.phantom.patient import head_and_neck

QUEUED: Final = 2_000
FOLLOWERS: Final = (0, 100, 200)
CALLS: Final = 40
ROOT: Final = Path(__file__).parents[1]


def cpu_of(pid: int) -> float:
    """CPU time of a process until now, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@dataclass
class Server:
    """A service in a process of its own."""

    url: str
    process: "subprocess.Popen[str]"
    data: Path

    @property
    def port(self) -> int:
        return int(self.url.rsplit(":", 1)[1])

    def cpu_s(self) -> float:
        """CPU time until now, in seconds."""
        return cpu_of(self.process.pid)


@contextmanager
def serving(checkout: Path, data: Path, **settings: str) -> Iterator[Server]:
    """``python -m service`` of a checkout, without a worker.

    With other settings where they are given.
    """
    changes = {"OARLOCK_DATA": str(data), "OARLOCK_PORT": "0", "OARLOCK_EMBEDDED_WORKER": "false", "PYTHONPATH": str(checkout)}
    changes |= {"OARLOCK_MIN_FREE_BYTES": "0", "OARLOCK_MODELS": str(checkout / "models")}
    process = subprocess.Popen(
        [sys.executable, "-m", "service"],
        cwd=checkout,
        env=os.environ | changes | settings,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        address = next(word for word in line.split() if word.startswith("http://"))
        yield Server(address, process, data)
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


def small_series(folder: Path) -> list[tuple[str, tuple[str, bytes]]]:
    """The parts of a post: four slices."""
    phantom = head_and_neck(shape=(4, 24, 24), spacing_mm=(3.0, 9.0, 9.0))
    paths = write_ct_series(folder, phantom.hu, phantom.grid)
    return [("files", (path.name, path.read_bytes())) for path in paths]


def fill(server: Server, parts: Any) -> list[str]:
    """Fill the queue; the ids of its jobs in order.

    One job is posted, and its row copied.
    """
    first: str = httpx.post(f"{server.url}/v1/jobs", files=parts, timeout=60).raise_for_status().json()["id"]
    with sqlite3.connect(server.data / "oarlock.sqlite", timeout=20) as table:
        columns = [row[1] for row in table.execute("PRAGMA table_info(jobs)")]
        row = dict(zip(columns, table.execute("SELECT * FROM jobs").fetchone(), strict=True))
        ids = [first]
        for i in range(1, QUEUED):
            ids.append(str(uuid4()))
            row |= {"id": ids[-1], "created_at": row["created_at"] + 1_000 * i, "queued_at": row["queued_at"] + 1_000 * i}
            row["sent_at"], row["idempotency_key"] = row["created_at"], None
            table.execute(f"INSERT INTO jobs VALUES ({','.join('?' * len(columns))})", [row[name] for name in columns])  # noqa: S608
    return ids


@contextmanager
def following(server: Server, ids: list[str]) -> Iterator[None]:
    """A stream of events for each of these jobs.

    Read as fast as it comes.
    """
    stop, begun = Event(), Event()

    async def follow(job_id: str) -> bool:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(f"GET /v1/jobs/{job_id}/events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        answered = (await reader.read(65_536)).startswith(b"HTTP/1.1 200")
        while not stop.is_set():
            try:
                await asyncio.wait_for(reader.read(65_536), 0.5)
            except TimeoutError:
                continue
        writer.close()
        return answered

    async def follow_all() -> None:
        tasks = [asyncio.create_task(follow(job_id)) for job_id in ids]
        await asyncio.sleep(8)  # until each was told once
        begun.set()
        assert all(await asyncio.gather(*tasks))

    thread = Thread(target=lambda: asyncio.run(follow_all()))
    thread.start()
    begun.wait()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def times_ms(call: Callable[[], object], calls: int) -> list[float]:
    """How long each of some calls took, sorted."""
    found = []
    for _ in range(calls):
        began = time.perf_counter()
        call()
        found.append(1e3 * (time.perf_counter() - began))
    return sorted(found)


def p95(values: list[float]) -> float:
    """The 95th percentile of sorted values."""
    return values[min(len(values) - 1, round(0.95 * len(values)))]


def main(checkout: Path) -> None:
    """Print the table."""
    print(f"{QUEUED:,} queued jobs; milliseconds.\n")
    print("| followers | GET /v1/jobs, median | p95 | GET /livez, p95 | a post, median | CPU |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory() as scratch, serving(checkout, Path(scratch) / "data") as server:
        parts = small_series(Path(scratch) / "series")
        ids = fill(server, parts)
        with httpx.Client(base_url=server.url, timeout=120) as client:
            for number in FOLLOWERS:
                with following(server, ids[-number:] if number else []):
                    cpu, began = server.cpu_s(), time.perf_counter()
                    time.sleep(4)
                    share = (server.cpu_s() - cpu) / (time.perf_counter() - began)
                    jobs = times_ms(lambda: json.loads(client.get("/v1/jobs").raise_for_status().content), CALLS)
                    live = times_ms(lambda: client.get("/livez").raise_for_status(), CALLS)
                    posts = times_ms(lambda: client.post("/v1/jobs", files=parts).raise_for_status(), 3)
                figures = (statistics.median(jobs), p95(jobs), p95(live), statistics.median(posts))
                print(f"| {number} | " + " | ".join(f"{value:,.0f}" for value in figures) + f" | {share:.0%} |", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else ROOT)

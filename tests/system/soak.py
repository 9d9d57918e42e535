"""Soak: many jobs for long while components are killed at random; ``make soak`` writes what came of it into docs/reliability.md.

The sender does what a good sender does: he posts with an ``Idempotency-Key``, and again with the same one until he has an answer.
"""

import argparse
import os
import random
import signal
import sys
import tempfile
import uuid
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from time import monotonic
from typing import Final

import httpx

from oarlock.ct.writer import write_ct_series
from oarlock.store.jobs import ENDED, JobId, JobState
from tests.fixtures import postgresql
from tests.fixtures.crooked import crooked_grid
from tests.fixtures.processes import alive, eventually, free_port, marked
from tests.service.running import zipped
from tests.system.department import PATIENCE_S, Department, Program, wait_until
from tests.worker.conftest import head

PAGE: Final = Path(__file__).parents[2] / "docs" / "reliability.md"
BEGIN, END = "<!-- soak: written by make soak -->\n", "<!-- soak: end -->\n"
DOWN_S: Final = 3.0
"""A component is away for up to so long."""

AIM_S: Final = 8.0
"""How long an aimed kill waits for a job that runs."""

INTO_JOB_S: Final = 0.5
"""An aimed kill comes up to so long after a job was seen running; a job takes 0.7 s or more."""


@dataclass(frozen=True)
class Kill:
    """One kill that is to come.

    :ivar at_s: when, since the beginning; an aimed one waits from then on until a job runs, and for ``into_job_s`` more.
    :ivar down_s: how long the component stays away.
    """

    at_s: float
    component: str
    aimed: bool
    into_job_s: float
    down_s: float


@dataclass
class Tally:
    """What was killed, and what became of the jobs."""

    seed: int
    seconds: float = 0.0
    killed: Counter[str] = field(default_factory=Counter)
    with_jobs_running: Counter[str] = field(default_factory=Counter)
    accepted: int = 0
    ended: Counter[str] = field(default_factory=Counter)
    attempts: Counter[int] = field(default_factory=Counter)
    lost: int = 0
    wrong: list[str] = field(default_factory=list)

    def markdown(self) -> str:
        """The tables of the page."""
        kills = sum(self.killed.values())
        repeated = sum(n for attempts, n in self.attempts.items() if attempts > 1)
        lines = [
            f"{self.accepted} jobs and {kills} kills in {self.seconds / 60:.0f} minutes (`make soak`, seed {self.seed}):",
            "",
            "| killed with `kill -9` | times | while a job ran |",
            "| --- | --- | --- |",
            *(f"| {name} | {n} | {self.with_jobs_running[name]} |" for name, n in sorted(self.killed.items())),
            "",
            "| jobs | |",
            "| --- | --- |",
            f"| accepted | {self.accepted} |",
            *(f"| {state} | {n} |" for state, n in sorted(self.ended.items())),
            f"| run more than once | {repeated} |",
            f"| **lost** | **{self.lost}** |",
            f"| ended twice, other bytes than undisturbed, files left over | {len(self.wrong)} |",
            "",
        ]
        return "\n".join(lines)


class Soak:
    """One run.

    :param department: one that listens on a fixed port, so that a sender finds it again.
    :param server: the PostgreSQL below it.
    """

    def __init__(self, department: Department, server: postgresql.Server | None, *, seed: int) -> None:
        self._department, self._server = department, server
        self._random, self.tally = random.Random(seed), Tally(seed)
        self._over, self._down = Event(), set[str]()
        self._programs: dict[str, Program] = {"worker": department.worker, "service": department.service}
        self._kills: dict[str, Callable[[], Callable[[], None]]] = {
            "process that runs jobs": self._kill_child,
            "worker": lambda: self._kill("worker"),
            "service": lambda: self._kill("service"),
            "Redis": self._kill_redis,
        }
        if server is not None:
            self._kills["PostgreSQL"] = self._kill_database

    def run(self, series: bytes, *, jobs: int, seconds: float, kills: int) -> Tally:
        """Post and kill, then let everything end, and look."""
        schedule = self._schedule(seconds, kills)
        priorities = self._random.choices(["urgent", "normal", "low"], k=jobs)
        began = monotonic()
        with ThreadPoolExecutor(1) as keeper, ThreadPoolExecutor(4) as senders, ExitStack() as stack:
            keeper.submit(self._keep_running)
            stack.callback(self._over.set)
            moments = [began + i * seconds / jobs for i in range(jobs)]
            posts = [senders.submit(self._post, series, *post) for post in zip(moments, priorities, strict=True)]
            for kill in schedule:
                _sleep_until(began + kill.at_s)
                self._kill_and_start_again(kill)
            _sleep_until(began + seconds)
            accepted = [post.result() for post in posts]
            self.tally.seconds = monotonic() - began
            self._judge(accepted)
        return self.tally

    def _schedule(self, seconds: float, kills: int) -> list[Kill]:
        """Each component as often as the others, and every second time aimed, in an order and at moments that the seed says."""
        names = list(self._kills)
        which = [(names[i % len(names)], i // len(names) % 2 == 0) for i in range(kills)]
        self._random.shuffle(which)
        moments = sorted(self._random.uniform(0, seconds) for _ in range(kills))
        draw = self._random.uniform
        return [
            Kill(at_s, component, aimed, draw(0, INTO_JOB_S), draw(0, DOWN_S))
            for at_s, (component, aimed) in zip(moments, which, strict=True)
        ]

    def _keep_running(self) -> None:
        """What whoever runs Oarlock does: a component that ends by itself, because it found no database, is started again."""
        while not self._over.wait(0.5):
            for name, program in self._programs.items():
                if name not in self._down and not program.alive:
                    program.start()

    def _post(self, series: bytes, at: float, priority: str) -> JobId:
        key, parts = str(uuid.uuid4()), [("files", ("series.zip", series))]
        _sleep_until(at)
        while True:
            with suppress(httpx.TransportError):
                answer = httpx.post(
                    f"{self._department.url}/v1/jobs",
                    files=parts,
                    data={"priority": priority},
                    headers={"Idempotency-Key": key},
                    timeout=PATIENCE_S,
                )
                if answer.status_code == 202:
                    return JobId(answer.json()["id"])
                assert answer.status_code == 503, answer.text
            Event().wait(0.5)

    # ── killing ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def _kill_and_start_again(self, kill: Kill) -> None:
        if kill.aimed and eventually(self._a_job_runs, within_s=AIM_S):
            Event().wait(kill.into_job_s)
        running = self._a_job_runs()
        start_again = self._kills[kill.component]()
        self.tally.killed[kill.component] += 1
        self.tally.with_jobs_running[kill.component] += running
        Event().wait(kill.down_s)
        start_again()

    def _a_job_runs(self) -> bool:
        """Whether a process is at work on a job; one whose process was killed counts as running in the table for a while."""
        for job_id in self._department.store.leases.signs_of_life():
            with suppress(ProcessLookupError):  # it ended in between
                if alive(self._department.runner(job_id)):
                    return True
        return False

    def _kill(self, name: str) -> Callable[[], None]:
        self._down.add(name)
        self._programs[name].kill()
        return lambda: self._down.remove(name)

    def _kill_child(self) -> Callable[[], None]:
        wait_until(lambda: bool(self._children()))
        for pid in self._children():
            os.kill(pid, signal.SIGKILL)
        return lambda: None

    def _children(self) -> set[int]:
        """The processes that run jobs: a worker's name ends with the number of its process."""
        heard = {int(worker.name.rsplit("-", 1)[1]) for worker in self._department.store.workers.live(within_s=PATIENCE_S)}
        return heard.intersection(marked(self._department.worker.mark))

    def _kill_redis(self) -> Callable[[], None]:
        self._department.kill_redis()
        return self._department.start_redis

    def _kill_database(self) -> Callable[[], None]:
        assert self._server is not None
        self._server.kill()
        return self._server.start

    # ── looking ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def _judge(self, accepted: list[JobId]) -> None:
        department, tally = self._department, self.tally
        wanted = set(accepted)
        with suppress(AssertionError):
            wait_until(lambda: all(department.store.states().get(job_id) in ENDED for job_id in wanted), within_s=20 * PATIENCE_S)
        tally.accepted = len(wanted)
        states = department.store.states()
        tally.lost = sum(states.get(job_id) not in ENDED for job_id in wanted)
        tally.ended.update(str(states[job_id]) for job_id in wanted if states.get(job_id) in ENDED)
        for job in map(department.store.get, wanted & set(states)):
            tally.attempts[job.attempts] += 1
            if job.state is JobState.SUCCEEDED:
                self._look(lambda job=job: department.check_result(job))  # type: ignore[misc]
        self._look(department.check_nothing_is_left)
        self._look(department.check_each_ended_once)

    def _look(self, check: Callable[[], None]) -> None:
        try:
            check()
        except (AssertionError, OSError, ValueError, httpx.HTTPError) as error:
            self.tally.wrong.append(repr(error))


def soak(folder: Path, *, jobs: int, seconds: float, kills: int, seed: int) -> Tally:
    """Run one soak in a folder of its own, on PostgreSQL where its programs are installed, else on SQLite."""
    files = write_ct_series(folder / "series", head(crooked_grid()), crooked_grid())
    with ExitStack() as stack:
        settings = {"OARLOCK_PORT": str(free_port())}
        server = None
        if programs := postgresql.find_programs():
            server = stack.enter_context(postgresql.running(programs))
            settings["DATABASE_URL"] = stack.enter_context(server.database())
        department = Department(folder / "department", linger=0, **settings)
        stack.callback(department.close)
        department.start()
        return Soak(department, server, seed=seed).run(zipped(files), jobs=jobs, seconds=seconds, kills=kills)


def _sleep_until(moment: float) -> None:
    Event().wait(max(0.0, moment - monotonic()))


def main() -> int:
    """Soak for long, print the tables, and write them into the page; 1 if anything was lost or wrong."""
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__)
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=20260305)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="oarlock-soak-", ignore_cleanup_errors=True) as folder:
        tally = soak(Path(folder), jobs=chosen.jobs, seconds=60 * chosen.minutes, kills=chosen.kills, seed=chosen.seed)
    sys.stdout.write(tally.markdown() + "".join(f"{line}\n" for line in tally.wrong))
    text = PAGE.read_text()
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    PAGE.write_text(f"{before}{BEGIN}\n{tally.markdown()}\n{END}{after}")
    return 1 if tally.lost or tally.wrong else 0


if __name__ == "__main__":
    sys.exit(main())

"""Followers of jobs: one poll of the job table for all.

However many there are.
"""

import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic
from typing import Final

import anyio
import anyio.to_thread
from anyio import CapacityLimiter

from oarlock.errors import TransientError
from oarlock.store.job_store import JobStore
from oarlock.store.jobs import Job, JobId, JobState
from service.errors import TooManyFollowers

log = logging.getLogger(__name__)

POLL_S: Final = 0.25

FAILED_S: Final = 5.0
"""How long the table rests after a poll that failed for a reason nobody foresaw."""

REST: Final = 9.0
"""After a poll the table rests for this many times as long as the poll took: followers cost a tenth of one core at most."""

FOLLOWERS_OF_ONE: Final = 256
"""How many jobs one caller may follow at once."""

Standing = tuple[Job, int | None]
"""A job, and its place in the queue."""


@dataclass(eq=False, slots=True)
class Follower:
    """One stream: what it got last, and a bell.

    The bell rings for something new.
    """

    job_id: JobId
    news: Standing | None = None
    rung: anyio.Event = field(default_factory=anyio.Event)

    def tell(self, standing: Standing) -> None:
        """Ring if the job stands otherwise than before."""
        if standing != self.news:
            self.news = standing
            self.rung.set()
            self.rung = anyio.Event()


class Followers:
    """Everybody who follows a job in this process.

    Used in one event loop.
    """

    def __init__(self, store: JobStore, *, of_one: int = FOLLOWERS_OF_ONE) -> None:
        self._store, self._of_one = store, of_one
        self._followers: set[Follower] = set()
        self._of: Counter[str] = Counter()
        self._somebody = anyio.Event()
        self._known: dict[JobId, tuple[tuple[object, ...], Job]] = {}

    def __len__(self) -> int:
        return len(self._followers)

    def check_room(self, caller_id: str) -> None:
        """Check that somebody may follow one job more.

        :raises TooManyFollowers: if not.
        """
        if self._of[caller_id] >= self._of_one:
            raise TooManyFollowers(limit=self._of_one)

    @contextmanager
    def following(self, job: Job, caller_id: str) -> Iterator[Follower]:
        """A follower of a job for as long as the block."""
        follower = Follower(job.id, None if job.state is JobState.QUEUED else (job, None))  # a place has to be looked up
        self._of[caller_id] += 1
        self._followers.add(follower)
        self._somebody.set()
        try:
            yield follower
        finally:
            self._followers.discard(follower)
            self._of[caller_id] -= 1
            if not self._of[caller_id]:
                del self._of[caller_id]

    async def run(self) -> None:
        """Poll for as long as anybody follows, until cancelled."""
        limiter = CapacityLimiter(1)  # not of the threads that calls share
        while True:
            if not self._followers:
                self._somebody = anyio.Event()
                await self._somebody.wait()
            began = monotonic()
            try:
                found = await anyio.to_thread.run_sync(self._read, {one.job_id for one in self._followers}, limiter=limiter)
            except TransientError:  # followers would only ask again
                found = {}
            except Exception:  # let out, it would end the sweeper and all else that the service does between calls
                log.exception("failed", extra={"step": "Followers.run"})
                await anyio.sleep(FAILED_S)
                continue
            for follower in [one for one in self._followers if one.job_id in found]:
                follower.tell(found[follower.job_id])
            await anyio.sleep(max(POLL_S, REST * (monotonic() - began)))

    def _read(self, job_ids: set[JobId]) -> dict[JobId, Standing]:
        """How these jobs stand; only those that changed are read as a whole."""
        marks = self._store.marks(job_ids)
        changed = [job_id for job_id, mark in marks.items() if self._known.get(job_id, (None, None))[0] != mark]
        jobs = self._store.several(changed) if changed else {}
        self._known = {
            job_id: (mark, jobs[job_id]) if job_id in jobs else self._known[job_id]
            for job_id, mark in marks.items()
            if job_id in jobs or job_id in self._known
        }
        found = {job_id: job for job_id, (_, job) in self._known.items()}
        places = self._store.queue_positions([job_id for job_id, job in found.items() if job.state is JobState.QUEUED])
        return {job_id: (job, places.get(job_id)) for job_id, job in found.items()}

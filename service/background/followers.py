"""Followers of jobs and of lists: one poll for all.

However many there are.
"""

import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from time import monotonic
from typing import Final, Generic, TypeVar

import anyio
import anyio.to_thread
from anyio import CapacityLimiter

from oarlock.errors import TransientError
from oarlock.store.job_store import JobStore
from oarlock.store.jobs import Job, JobId, JobState, Stage
from service.errors import TooManyFollowers

log = logging.getLogger(__name__)

POLL_S: Final = 0.25

FAILED_S: Final = 5.0
"""How long the table rests after a poll that failed for a reason nobody foresaw."""

REST: Final = 9.0
"""After a poll the table rests for this many times as long as the faster one of the last two took.

So followers cost a tenth of one core while polls take alike, and one poll that had to wait does not silence them.
"""

MOST_S: Final = 5.0
"""The longest rest, however slow polls are."""

FOLLOWERS_OF_ONE: Final = 256
"""How many jobs and lists one caller may follow at once."""

Standing = tuple[Job, int | None]
"""A job, and its place in the queue."""


@dataclass(frozen=True, slots=True)
class Listing:
    """How a list of jobs stands.

    :ivar changes: grows when a job comes, begins, ends, goes, or something is noted of one.
    :ivar running: id, stage and progress of each job that runs.
    """

    changes: int
    running: tuple[tuple[JobId, Stage | None, float], ...]


News = TypeVar("News")


@dataclass(eq=False, slots=True)
class Follower(Generic[News]):
    """One stream: what it got last, and a bell.

    The bell rings for something new.

    :ivar of: the job's id, or the site whose list it is; empty for that of all sites.
    :ivar over: whether the service stops.
    """

    of: str
    news: News | None = None
    rung: anyio.Event = field(default_factory=anyio.Event)
    over: bool = False

    def tell(self, news: News) -> None:
        """Ring if it stands otherwise than before."""
        if news != self.news:
            self.news = news
            self._ring()

    def end(self) -> None:
        """Ring for the last time."""
        self.over = True
        self._ring()

    def _ring(self) -> None:
        self.rung.set()
        self.rung = anyio.Event()


class Followers:
    """Everybody who follows a job or a list in this process.

    Used in one event loop.
    """

    def __init__(self, store: JobStore, *, of_one: int = FOLLOWERS_OF_ONE) -> None:
        self._store, self._of_one = store, of_one
        self._followers: set[Follower[Standing]] = set()
        self._watchers: set[Follower[Listing]] = set()
        self._of: Counter[str] = Counter()
        self._somebody = anyio.Event()
        self._known: dict[JobId, tuple[tuple[object, ...], Job]] = {}
        self._listings: dict[str, Listing] = {}
        self._seen: int | None = None
        self._over = False

    def __len__(self) -> int:
        return len(self._followers) + len(self._watchers)

    def following(self, job: Job, caller_id: str) -> AbstractContextManager[Follower[Standing]]:
        """A follower of a job for as long as the block.

        :raises TooManyFollowers: if the caller follows as many as one may; so in the other call.
        """
        news = None if job.state is JobState.QUEUED else (job, None)  # a place has to be looked up
        return self._among(self._followers, Follower(job.id, news), caller_id)

    def watching(self, site: str, caller_id: str) -> AbstractContextManager[Follower[Listing]]:
        """A follower of a site's list for as long as the block.

        :param site: empty for the list of all sites.
        """
        return self._among(self._watchers, Follower(site), caller_id)

    @contextmanager
    def _among(self, others: set[Follower[News]], follower: Follower[News], caller_id: str) -> Iterator[Follower[News]]:
        if self._of[caller_id] >= self._of_one:
            raise TooManyFollowers(limit=self._of_one)
        self._of[caller_id] += 1
        others.add(follower)
        follower.over = self._over
        self._somebody.set()
        try:
            yield follower
        finally:
            others.discard(follower)
            self._of[caller_id] -= 1
            if not self._of[caller_id]:
                del self._of[caller_id]

    def close(self) -> None:
        """End every stream, and those that still begin.

        The service stops, and would wait for them.
        """
        self._over = True
        for follower in self._followers:
            follower.end()
        for watcher in self._watchers:
            watcher.end()

    async def run(self) -> None:
        """Poll for as long as anybody follows, until cancelled."""
        limiter = CapacityLimiter(1)  # not of the threads that calls share
        before_s = 0.0
        while True:
            if not len(self):
                self._seen = None
                self._somebody = anyio.Event()
                await self._somebody.wait()
            began = monotonic()
            try:
                found, listings = await anyio.to_thread.run_sync(
                    self._read, {JobId(one.of) for one in self._followers}, {one.of for one in self._watchers}, limiter=limiter
                )
            except TransientError:  # followers would only ask again
                found, listings = {}, {}
            except Exception:  # let out, it would end the sweeper and all else that the service does between calls
                log.exception("failed", extra={"step": "Followers.run"})
                await anyio.sleep(FAILED_S)
                continue
            for follower in [one for one in self._followers if one.of in found]:
                follower.tell(found[JobId(follower.of)])
            for watcher in [one for one in self._watchers if one.of in listings]:
                watcher.tell(listings[watcher.of])
            took_s = monotonic() - began
            await anyio.sleep(max(POLL_S, min(MOST_S, REST * min(before_s, took_s))))
            before_s = took_s

    def _read(self, job_ids: set[JobId], sites: set[str]) -> tuple[dict[JobId, Standing], dict[str, Listing]]:
        """How these jobs and the lists of these sites stand."""
        return self._jobs(job_ids) if job_ids else {}, self._lists(sites)

    def _lists(self, sites: set[str]) -> dict[str, Listing]:
        if not sites:
            self._seen = None  # what moves meanwhile is not worth reading
            return {}
        moved = self._store.movements(self._seen)
        self._seen = moved.until
        for site in sites:
            own = moved.running.values() if not site else [moved.running.get(site, ())]
            running = tuple(job for jobs in own for job in jobs)
            before = self._listings.get(site, Listing(0, ()))
            noted = moved.changed is None or bool(moved.changed if not site else site in moved.changed)
            others = {job[0] for job in running} != {job[0] for job in before.running}
            self._listings[site] = replace(before, changes=before.changes + (noted or others), running=running)
        return {site: self._listings[site] for site in sites}

    def _jobs(self, job_ids: set[JobId]) -> dict[JobId, Standing]:
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

"""Sweeper: finds what a crash left behind and puts it right.

Several services may sweep at once: taking a job back is one conditional UPDATE, a second message does no harm, and deleting what
is gone is not an error.

Lateness is judged by repeated looks instead of a clock: clocks differ between machines and are adjusted, and nobody could report
while the database was away.
"""

import logging
from collections.abc import Mapping
from math import ceil
from time import monotonic
from typing import Final, Generic, TypeVar

from oarlock.settings import Settings
from oarlock.store.files import Storage
from oarlock.store.job_store import JobStore, Queued
from oarlock.store.jobs import JobId
from oarlock.store.leases import SignOfLife
from oarlock.store.shadows import ShadowState
from service.background.periodic import attempt, every
from service.broker import Broker
from service.monitoring.health import SILENT_LEASES

log = logging.getLogger(__name__)

MESSAGE_LATE_S: Final = 10.0
CLEAN_EVERY_S: Final = 600.0
FORGET_WORKERS_S: Final = 86_400.0

T = TypeVar("T")


class UnchangedFor(Generic[T]):
    """Finds values that stayed the same over some looks.

    In a row.
    """

    def __init__(self, looks: int) -> None:
        self._looks = looks
        self._seen: dict[JobId, tuple[T, int]] = {}

    def of(self, now: Mapping[JobId, T]) -> dict[JobId, T]:
        """Look once more; the values that did not change."""
        before = self._seen
        self._seen = {}
        for job_id, value in now.items():
            known, looks = before.get(job_id, (value, 0))
            self._seen[job_id] = (value, looks + 1 if known == value else 1)
        return {job_id: value for job_id, (value, looks) in self._seen.items() if looks >= self._looks}


class Sweeper:
    """Puts lost jobs back on the queue.

    And deletes bytes that belong to no job.
    """

    def __init__(self, settings: Settings, store: JobStore, storage: Storage, broker: Broker) -> None:
        self._retention, self._callbacks = settings.retention, bool(settings.callback_hosts)
        self._period_s, self._silence_s = min(5.0, settings.lease_s / 3), SILENT_LEASES * settings.lease_s
        self._store, self._storage, self._broker = store, storage, broker
        self._silent = UnchangedFor[SignOfLife](self.looks_in(settings.lease_s))
        self._late = UnchangedFor[Queued](self.looks_in(MESSAGE_LATE_S))
        self._cleaned_at = float("-inf")

    def looks_in(self, seconds: float) -> int:
        """How many looks it takes until this time has passed.

        At least this much, since the first one.
        """
        return ceil(seconds / self._period_s) + 1

    async def run(self) -> None:
        """Sweep until cancelled."""
        await every(self._period_s, self.sweep)

    def sweep(self) -> None:
        """Sweep once. Each part runs even if another fails."""
        attempt(self.requeue)
        attempt(self.offer_shadows)
        attempt(self.retire)
        attempt(self._store.count_findings)
        if monotonic() - self._cleaned_at > CLEAN_EVERY_S:
            self._cleaned_at = monotonic()
            attempt(self.clean)

    def requeue(self) -> None:
        """Send the jobs whose worker or message is lost.

        A worker is lost when it falls silent.
        """
        if silent := self._silent.of(self._store.leases.signs_of_life()):
            self._cleaned_at = float("-inf")  # a worker that was killed while it wrote left files
            for job_id in self._store.leases.take_back(silent):
                log.warning("job taken back from a silent worker", extra={"job_id": job_id})
                self._send(job_id)
        for job_id in self._lost():
            log.warning("job sent again", extra={"job_id": job_id})
            self._send(job_id)

    def _lost(self) -> list[JobId]:
        """Jobs that have waited long and have no message: never sent, or fewer messages are on the queue than jobs.

        With as many messages as jobs the queue is just long: sending again would make it longer with every sweep, and reading ten
        thousand rows each time would keep calls waiting.
        """
        all_have_one = self._broker.depth() >= self._store.waiting()
        return list(self._late.of(self._store.queued(unsent=all_have_one)))

    def _send(self, job_id: JobId) -> None:
        self._broker.enqueue(self._store.get(job_id))
        self._store.marked_sent(job_id)

    def offer_shadows(self) -> None:
        """Offer a shadow run to each worker that is idle.

        Only while the queue is empty: no job ever waits for one that could have waited.
        """
        live = {worker.name for worker in self._store.workers.live(self._silence_s)}
        for job_id in self._store.shadows.take_back(live):
            log.warning("shadow run taken back from a silent worker", extra={"job_id": job_id})
        busy = len(self._store.leases.signs_of_life()) + self._store.shadows.counts()[ShadowState.RUNNING]
        due = self._store.shadows.due(len(live) - busy) if len(live) > busy else []
        if due and self._broker.depth() == 0:
            for job_id in due:
                self._broker.offer_shadow(job_id)

    def retire(self) -> None:
        """Purge the jobs and inputs whose time is over.

        First the row: a job that is being retried must not lose its input.
        """
        purged = self._store.retirement.purge_due(self._retention, callbacks=self._callbacks)
        inputs = self._store.retirement.purge_inputs_due(self._retention)
        for job_id in purged:
            self._storage.purge(job_id)
            log.info("a job's time is over", extra={"job_id": job_id})
        for job_id in inputs:
            self._storage.drop_input(job_id)
            log.info("an input's time is over", extra={"job_id": job_id})
        if purged or inputs:
            self._store.checkpoint()

    def clean(self) -> None:
        """Delete unfinished uploads and results.

        And bytes whose job was purged or never created.
        """
        swept = self._storage.sweep()
        found, writing = self._storage.job_ids(), self._storage.unfinished()
        states = self._store.states()  # asked second: a job whose folder was seen has its row by now,
        running = self._store.leases.signs_of_life()  # and a worker whose folder was seen its lease
        orphans = [job_id for job_id in found if job_id not in states]
        for job_id in orphans:
            self._storage.purge(job_id)
        given_up = [(job_id, token) for job_id, token in writing if job_id not in running or running[job_id].token != token]
        for job_id, token in given_up:
            self._storage.drop_unfinished(job_id, token)
        for job_id in self._store.retirement.without_input().intersection(found):
            self._storage.drop_input(job_id)
        self._store.workers.forget(FORGET_WORKERS_S)
        self._store.checkpoint()
        if swept or orphans or given_up:
            log.info("leftovers deleted", extra={"folders": swept + len(given_up), "orphans": len(orphans)})

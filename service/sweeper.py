"""Sweeper: finds what a crash left behind and puts it right.

Several services may sweep at once: taking a job back is one conditional UPDATE, a message too many is harmless, and deleting what
is gone is no error.
"""

import logging
from time import monotonic
from typing import Final

from oarlock.job_store import JobStore
from oarlock.jobs import Job, JobState
from oarlock.settings import Settings
from oarlock.storage import Storage
from service.broker import Broker
from service.periodic import attempt, every

log = logging.getLogger(__name__)

MESSAGE_LATE_S: Final = 10.0
STALE_S: Final = 3_600.0
ORPHAN_S: Final = 60.0
CLEAN_EVERY_S: Final = 600.0


class Sweeper:
    """Puts lost jobs back on the queue, and deletes bytes that belong to no job."""

    def __init__(self, settings: Settings, store: JobStore, storage: Storage, broker: Broker) -> None:
        self._retention = settings.retention
        self._period_s = min(5.0, settings.lease_s / 3)
        self._store, self._storage, self._broker = store, storage, broker
        self._cleaned_at = float("-inf")

    async def run(self) -> None:
        """Sweep until cancelled."""
        await every(self._period_s, self.sweep)

    def sweep(self) -> None:
        """Once; while the queue is away, what lies about is deleted all the same."""
        attempt(self.requeue)
        attempt(self.retire)
        if monotonic() - self._cleaned_at > CLEAN_EVERY_S:
            self._cleaned_at = monotonic()
            attempt(self.clean)

    def requeue(self) -> None:
        """Send the jobs whose worker fell silent, and those whose message is lost."""
        for job_id in self._store.take_back_expired():
            log.warning("job taken back from a silent worker", extra={"job_id": job_id})
            self._send(self._store.get(job_id))
        for job in self._lost():
            log.warning("job sent again", extra={"job_id": job.id})
            self._send(job)

    def _lost(self) -> list[Job]:
        """Jobs that wait for long without a message: never sent, or there are fewer messages on the queue than jobs.

        With as many messages as jobs the queue is only long, and sending again would make it longer with every sweep.
        """
        late = self._store.unsent(MESSAGE_LATE_S)
        if not late or self._broker.depth() < self._store.counts()[JobState.QUEUED]:
            return late
        return self._store.unsent(MESSAGE_LATE_S, never=True)

    def _send(self, job: Job) -> None:
        self._broker.enqueue(job)
        self._store.marked_sent(job.id)

    def retire(self) -> None:
        """Purge the jobs and the inputs whose time is over. First the row: what is being retried must not lose its input."""
        purged, inputs = self._store.purge_due(self._retention), self._store.purge_inputs_due(self._retention)
        for job_id in purged:
            self._storage.purge(job_id)
        for job_id in inputs:
            self._storage.drop_input(job_id)
        if purged or inputs:
            self._store.fold()
            log.info("time is over", extra={"jobs": len(purged), "inputs": len(inputs)})

    def clean(self) -> None:
        """Delete what nobody finished, and what a crash left: bytes whose job was purged or never came to be."""
        swept = self._storage.sweep(STALE_S)
        found = self._storage.job_ids(ORPHAN_S)
        states = self._store.states()  # asked second: a job whose folder was seen has its row by now
        orphans = [job_id for job_id in found if job_id not in states]
        for job_id in orphans:
            self._storage.purge(job_id)
        for job_id in self._store.without_input().intersection(found):
            self._storage.drop_input(job_id)
        self._store.fold()
        if swept or orphans:
            log.info("leftovers deleted", extra={"folders": swept, "orphans": len(orphans)})

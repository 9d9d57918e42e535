"""The lease of a running job.

It is renewed, progress goes out, cancellation and loss come in.
"""

import logging
import signal
from collections.abc import Callable
from threading import Event, Lock, Thread
from time import monotonic
from types import TracebackType
from typing import Final

from oarlock.errors import DatabaseUnavailable
from oarlock.store.jobs import Stage
from oarlock.store.leases import Lease, LeaseLost, Leases

log = logging.getLogger(__name__)

SHARES: Final[dict[Stage, tuple[float, float]]] = {
    Stage.READING: (0.0, 0.10),
    Stage.INFERRING: (0.10, 0.80),
    Stage.CONTOURING: (0.80, 0.90),
    Stage.COMPARING: (0.90, 1.0),
}
"""The progress of a job at the start and at the end of each stage."""

HAND_BACK: Final = signal.SIGUSR2
"""What the parent process sends to a busy process when the worker is to end."""

LEAST_S: Final = 0.5
"""Progress within a stage is written so often at most: with many workers each write makes others wait."""

RENEWALS: Final = 3
"""Renewals of a lease within its own length, so that two may be lost."""


class CancelRequested(Exception):
    """A caller asked for this job to be cancelled."""


class WorkerStopping(Exception):
    """This worker was asked to end; another worker gets the job."""


class LeaseKeeper:
    """Renews a lease in the background while it is entered.

    So a long native call does not lose the job.

    :param stopping: set when the worker is asked to end.
    """

    def __init__(self, leases: Leases, lease: Lease, *, lease_s: float, stopping: Callable[[], bool] = lambda: False) -> None:
        self._leases, self._lease, self._lease_s, self._stopping = leases, lease, lease_s, stopping
        self._stage, self._progress = Stage.READING, 0.0
        self._lock, self._done = Lock(), Event()
        self._cancelled = self._lost = False
        self._written_at = float("-inf")
        self._thread = Thread(target=self._beat, name="lease", daemon=True)

    def __enter__(self) -> "LeaseKeeper":
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._done.set()
        self._thread.join()

    def report(self, stage: Stage, share: float = 0.0) -> None:
        """Store how far the job is; raises if it must stop.

        :param share: of this stage, from 0 to 1.
        :raises LeaseLost: the job is no longer ours; write nothing.
        :raises CancelRequested: mark the job as cancelled.
        :raises WorkerStopping: hand the job back.
        """
        start, end = SHARES[stage]
        is_due = stage is not self._stage or monotonic() - self._written_at >= LEAST_S
        self._stage, self._progress = stage, start + share * (end - start)
        if is_due:
            self._written_at = monotonic()
            self._renew()
        if self._lost:
            raise LeaseLost
        if self._cancelled:
            raise CancelRequested
        if self._stopping():
            raise WorkerStopping

    def _beat(self) -> None:
        while not self._done.wait(self._lease_s / RENEWALS):
            try:
                self._renew()
            except Exception:  # if this thread ended, a job that runs well would lose its lease
                log.exception("the lease could not be renewed", extra={"job_id": self._lease.job_id})

    def _renew(self) -> None:
        """Report once; a database that is away for a moment does not stop the job, as its result is fenced anyway."""
        with self._lock:
            try:
                self._cancelled |= self._leases.progress(
                    self._lease, stage=self._stage, progress=self._progress, lease_s=self._lease_s
                )
            except LeaseLost:
                self._lost = True
            except DatabaseUnavailable:
                log.warning("the progress could not be reported", extra={"job_id": self._lease.job_id})

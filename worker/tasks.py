"""The one task on the queue. No work in it: it translates a message into a call."""

from typing import Final

from celery import signals

from oarlock.jobs import CONTOUR_SERIES, JobId
from oarlock.settings import Settings
from worker.app import app
from worker.runtime import Runtime

_SETTINGS: Final = Settings()
_runtime: list[Runtime] = []


@signals.worker_process_init.connect
def _start(**_: object) -> None:
    """In the process that runs jobs, never in its parent."""
    _runtime[:] = [Runtime(_SETTINGS)]
    _runtime[0].start()


@signals.worker_process_shutdown.connect
def _stop(**_: object) -> None:
    for runtime in _runtime:
        runtime.stop()


@app.task(name=CONTOUR_SERIES, max_retries=2, default_retry_delay=int(_SETTINGS.lease_s) + 1)
def contour_series(job_id: str) -> None:
    """Contour one series. Safe to run twice: a finished job is left alone.

    If the process is killed, Celery sends the message again when the lease has run out; so does the service's sweeper.
    """
    _runtime[0].run(JobId(job_id))

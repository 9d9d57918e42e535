"""The one task on the queue. No work in it: it translates a message into a call."""

import logging
from time import sleep
from typing import Final

from celery import signals

from oarlock.errors import TransientError
from oarlock.settings import Settings
from oarlock.store.jobs import CONTOUR_SERIES, JobId
from worker.app import app
from worker.runtime import Runtime

_SETTINGS: Final = Settings()
_held: list[Runtime] = []
_log = logging.getLogger(__name__)

START_LIMIT_S: Final = 45
"""How long a new process waits for the database before it takes jobs all the same, and tries again with each of them."""


def _runtime() -> Runtime:
    """What this process holds, made when it is first needed."""
    if not _held:
        runtime = Runtime(_SETTINGS)
        runtime.start()
        _held.append(runtime)
    return _held[0]


@signals.worker_process_init.connect
def _start(**_: object) -> None:
    """In the process that runs jobs, never in its parent."""
    for _second in range(START_LIMIT_S):
        try:
            _runtime()
        except TransientError as error:
            _log.warning("waiting", extra={"reason": error.detail})
            sleep(1)
        else:
            return


@signals.worker_process_shutdown.connect
def _stop(**_: object) -> None:
    for runtime in _held:
        runtime.stop()


@app.task(name=CONTOUR_SERIES, max_retries=2, default_retry_delay=int(_SETTINGS.lease_s) + 1)
def contour_series(job_id: str) -> None:
    """Contour one series. Safe to run twice: a finished job is left alone.

    If the process is killed, Celery sends the message again when the lease has run out; so does the service's sweeper.
    """
    _runtime().run(JobId(job_id))

"""The two tasks: a message becomes a call."""

import logging
from time import sleep
from typing import TYPE_CHECKING, Final

from celery import signals

from oarlock.errors import TransientError
from oarlock.store.database import DatabaseMissing
from oarlock.store.jobs import CONTOUR_SERIES, DRAW_SHADOW, JobId
from oarlock.store.migrations import DatabaseOlder
from worker.app import app
from worker.settings import settings

if TYPE_CHECKING:
    from worker.runtime import Runtime

_held: "list[Runtime]" = []
_log = logging.getLogger(__name__)

START_LIMIT_S: Final = 45
"""How long a new process waits for the database before it takes jobs all the same, and tries again with each of them."""


def _runtime() -> "Runtime":
    """What this process holds, made when it is first needed.

    The parent process imports this module too and runs no job: ONNX Runtime and all that draws are imported here.
    """
    from worker.runtime import Runtime

    if not _held:
        runtime = Runtime(settings())
        runtime.start()
        _held.append(runtime)
    return _held[0]


@signals.worker_process_init.connect
def _start(**_: object) -> None:
    """In the process that runs jobs, never in its parent."""
    for _second in range(START_LIMIT_S):
        try:
            _runtime()
        except (TransientError, DatabaseMissing, DatabaseOlder) as error:
            _log.warning("waiting", extra={"reason": error.detail if isinstance(error, TransientError) else str(error)})
            sleep(1)
        else:
            return


@signals.worker_process_shutdown.connect
def _stop(**_: object) -> None:
    for runtime in _held:
        runtime.stop()


@app.task(name=CONTOUR_SERIES)  # retries: `task_annotations` in worker/app.py
def contour_series(job_id: str) -> None:
    """Contour one series.

    Safe to run twice: a finished job is left alone.

    If the process is killed, Celery sends the message again when the lease has run out; so does the service's sweeper.
    """
    _runtime().run(JobId(job_id))


@app.task(name=DRAW_SHADOW)
def draw_shadow(job_id: str) -> None:
    """Let a second model draw a finished job in its turn.

    Safe to run twice, and to be killed: the service's sweeper offers the run again.
    """
    _runtime().draw_shadow(JobId(job_id))

"""Room: a worker takes jobs off the queue only while the disk has room for their results.

What it does not take stays where it is: in its place in the queue, free for every other worker, and nothing has to be given back
when this one ends or a job is cancelled.
"""

import logging
from typing import Any, Final

from celery import bootsteps

from oarlock.jobs import QUEUE
from oarlock.settings import Settings
from oarlock.storage import Storage

log = logging.getLogger(__name__)

LOOK_EVERY_S: Final = 2.0


class Room:
    """Says whether there is room for the results of a job."""

    def __init__(self, settings: Settings, storage: Storage) -> None:
        self._least, self._storage = settings.reserve_bytes, storage

    def is_left(self) -> bool:
        """Whether enough of the disk is free; a data folder that does not answer has none."""
        try:
            return self._storage.free_bytes() >= self._least
        except OSError:
            return False


class Gate(bootsteps.StartStopStep):
    """Stops the worker's taking from the queue while there is no room. A part of Celery's consumer, in the parent process."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, parent: Any, **options: Any) -> None:
        super().__init__(parent, **options)
        settings = Settings()
        self._room, self._waits = Room(settings, Storage(settings.data)), False

    def start(self, parent: Any) -> None:
        """With each connection to the queue."""
        self._look(parent)
        self._timer = parent.timer.call_repeatedly(LOOK_EVERY_S, self._look, (parent,))

    def stop(self, parent: Any) -> None:  # noqa: ARG002 - Celery's signature
        self._timer.cancel()

    def _look(self, consumer: Any) -> None:
        if self._room.is_left() != self._waits:
            return
        if self._waits:
            consumer.add_task_queue(QUEUE)
            log.warning("there is room on the disk again: jobs are taken")
        else:
            consumer.cancel_task_queue(QUEUE)
            log.warning("there is no room on the disk for results: jobs wait in the queue")
        self._waits = not self._waits

"""Consumer: what the worker's parent process watches while it takes jobs off the queue, as parts of Celery's consumer."""

import logging
from abc import abstractmethod
from typing import Any, Final

from celery import bootsteps
from celery.worker import state

from oarlock.settings import Settings
from oarlock.store.files import Storage
from oarlock.store.jobs import QUEUE
from worker.room import Room

log = logging.getLogger(__name__)

LOOK_EVERY_S: Final = 2.0


class Watch(bootsteps.StartStopStep):
    """Looks again and again while there is a connection to the queue, in the thread of the connection."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def start(self, parent: Any) -> None:
        """With each connection to the queue."""
        self.look(parent)
        self._timer = parent.timer.call_repeatedly(LOOK_EVERY_S, self.look, (parent,))

    def stop(self, parent: Any) -> None:  # noqa: ARG002 - Celery's signature
        self._timer.cancel()

    @abstractmethod
    def look(self, consumer: Any) -> None:
        """Once."""


class Gate(Watch):
    """Takes jobs off the queue only while their results have a place to go.

    What is not taken stays where it is: in its place in the queue, free for every other worker, and nothing has to be given back
    when this one ends or a job is cancelled.
    """

    def __init__(self, parent: Any, **options: Any) -> None:
        super().__init__(parent, **options)
        settings = Settings()
        self._room, self._waits = Room(settings, Storage(settings.data, create=False)), False

    def look(self, consumer: Any) -> None:
        want = self._room.want()
        if want and not self._waits:
            consumer.cancel_task_queue(QUEUE)
            log.warning("%s: jobs wait in the queue", want)
        elif self._waits and not want:
            consumer.add_task_queue(QUEUE)
            log.warning("there is a place for results again: jobs are taken")
        self._waits = bool(want)


class Acknowledgements(Watch):
    """Connects to the queue again when a message could not be acknowledged.

    Kombu counts such a message as still being worked on. As one at a time is taken, a worker lived on and took none ever again if
    Redis was away in the moment in which its job ended.
    """

    def look(self, consumer: Any) -> None:
        """A broken connection is what Celery connects again after; the message comes again then, and its job has ended.

        :raises ConnectionResetError: if nothing is being worked on, and no message is taken all the same.
        """
        if not state.reserved_requests and not consumer.task_consumer.channel.qos.can_consume():
            raise ConnectionResetError("a message could not be acknowledged")

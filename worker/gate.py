"""What the worker's parent process checks.

While it takes jobs off the queue, as steps of Celery's consumer.
"""

import logging
from abc import abstractmethod
from threading import Thread
from time import sleep
from typing import Any, Final

from celery import bootsteps
from celery.worker import state

from oarlock.errors import DatabaseUnavailable
from oarlock.settings import Settings
from oarlock.store.database import Database, DatabaseMissing
from oarlock.store.files import Storage
from oarlock.store.jobs import QUEUE
from oarlock.store.migrations import DatabaseNewer, DatabaseOlder
from worker.settings import settings

log = logging.getLogger(__name__)

EVERY_S: Final = 2.0
SCHEMA_EVERY_S: Final = 15.0


class ResultSpace:
    """The data folder and the disk that it lies on."""

    def __init__(self, settings: Settings, storage: Storage) -> None:
        self._least_bytes, self._storage = settings.reserve_bytes, storage

    def is_left(self) -> bool:
        """True if results can be written."""
        return self.problem() is None

    def problem(self) -> str | None:
        """Why results cannot be written, or None."""
        try:
            room_bytes = self._storage.room_bytes(keep_bytes=self._least_bytes)
        except OSError:
            return "the data folder of the service is missing (is it mounted?)"
        return None if room_bytes >= 0 else "the disk has too little room for results"


class SchemaWatch:
    """Whether the database has the schema of this version.

    Looked at in a thread of its own: a database that does not answer must not stop the queue's connection.

    :ivar problem: why no job can be taken, or None.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self.problem: str | None = None

    def start(self) -> None:
        """Look now, and every few seconds from now on."""
        self.look()
        Thread(target=self._watch, name="schema", daemon=True).start()

    def look(self) -> None:
        """Look once; a database that is away changes nothing."""
        try:
            Database(self._url, create=False).close()  # a connection that stayed would be one more of every worker
        except DatabaseUnavailable:
            return
        except (DatabaseMissing, DatabaseNewer, DatabaseOlder) as error:
            self.problem = str(error)
        else:
            self.problem = None

    def _watch(self) -> None:
        while True:
            sleep(SCHEMA_EVERY_S)
            try:
                self.look()
            except Exception:  # if this thread ended, the worker would never take a job again, or take those of another schema
                log.exception("the schema could not be looked at")


class PeriodicStep(bootsteps.StartStopStep):
    """Runs :meth:`check` every two seconds.

    In the connection's thread, for as long as the queue is connected.
    """

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def start(self, parent: Any) -> None:
        """Called with each connection to the queue."""
        self.check(parent)
        self._timer = parent.timer.call_repeatedly(EVERY_S, self.check, (parent,))

    def stop(self, parent: Any) -> None:  # noqa: ARG002 - Celery's signature
        self._timer.cancel()

    @abstractmethod
    def check(self, consumer: Any) -> None:
        """Run once."""


class Gate(PeriodicStep):
    """Takes jobs off the queue only while they can be done.

    Their results can be written, and the database has the schema of this version.

    Jobs that are not taken keep their place in the queue and are free for every other worker, so nothing has to be given back
    when this worker ends or a job is cancelled.
    """

    def __init__(self, parent: Any, **options: Any) -> None:
        super().__init__(parent, **options)
        self._space, self._waits = ResultSpace(settings(), Storage(settings().data, create=False)), False
        self._schema = SchemaWatch(settings().database)
        self._schema.start()

    def check(self, consumer: Any) -> None:
        problem = self._space.problem() or self._schema.problem
        if problem and not self._waits:
            consumer.cancel_task_queue(QUEUE)
            log.warning("%s: jobs wait in the queue", problem)
        elif self._waits and not problem:
            consumer.add_task_queue(QUEUE)
            log.warning("jobs are taken again")
        self._waits = bool(problem)


class Acknowledgements(PeriodicStep):
    """Connects to the queue again when a message could not be acknowledged.

    Kombu counts such a message as being worked on for ever. As one message at a time is taken, a worker then took no more jobs if
    Redis was away in the moment in which its job ended.
    """

    def check(self, consumer: Any) -> None:
        """Check that messages can be taken where nothing runs.

        Celery reconnects after a broken connection and the message is redelivered; its job has ended by then.

        :raises ConnectionResetError: if nothing is being worked on, yet no message can be taken.
        """
        if not state.reserved_requests and not consumer.task_consumer.channel.qos.can_consume():
            raise ConnectionResetError("a message could not be acknowledged")

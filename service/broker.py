"""The queue: job ids travel through it, never bytes or states."""

import contextlib
from collections.abc import Iterator
from typing import Any, Final

from celery import Celery
from celery.exceptions import CeleryError
from kombu.exceptions import KombuError
from redis.exceptions import RedisError

from oarlock.settings import Settings
from oarlock.store.fairness import LAST_STEP
from oarlock.store.jobs import CONTOUR_SERIES, DRAW_SHADOW, QUEUE, Job, JobId
from service.errors import BrokerUnavailable

CONNECT_LIMIT_S: Final = 2
"""How long a caller waits for a Redis that does not answer."""


class Broker:
    """The sending end of the queue."""

    def __init__(self, settings: Settings) -> None:
        self._app = Celery("oarlock-service", broker=settings.broker_url, set_as_current=False)
        self._app.conf.update(
            task_ignore_result=True,
            broker_pool_acquire_timeout=CONNECT_LIMIT_S,
            broker_connection_timeout=CONNECT_LIMIT_S,
            broker_transport_options=settings.broker_transport_options()
            | {"socket_connect_timeout": CONNECT_LIMIT_S, "socket_timeout": CONNECT_LIMIT_S, "retry_on_timeout": False},
        )

    def enqueue(self, job: Job) -> None:
        """Send the message that makes a worker look at a job.

        A second message does no harm.

        A stale connection (Redis was restarted) is tried a second time.

        :raises BrokerUnavailable: if it is not certain that the message is on the queue.
        """
        self._send(CONTOUR_SERIES, job.id, job.rank)

    def offer_shadow(self, job_id: JobId) -> None:
        """Send the message that makes a worker do a shadow run.

        It stands behind every job.

        :raises BrokerUnavailable: if it is not certain that the message is on the queue.
        """
        self._send(DRAW_SHADOW, job_id, LAST_STEP)

    def _send(self, task: str, job_id: JobId, step: int) -> None:
        with _translated():
            self._app.send_task(
                task,
                args=[job_id],
                queue=QUEUE,
                priority=step,
                ignore_result=True,
                retry=True,
                retry_policy={"max_retries": 1, "interval_start": 0, "interval_step": 0, "interval_max": 0},
            )

    def depth(self) -> int:
        """How many messages wait for a worker.

        :raises BrokerUnavailable: if Redis does not answer.
        """
        with _translated(), self._app.connection_or_acquire() as connection:
            connection.ensure_connection(max_retries=1, interval_start=0, timeout=CONNECT_LIMIT_S)

            def counted() -> int:
                channel: Any = connection.default_channel
                return int(channel.queue_declare(queue=QUEUE).message_count)

            # A connection of the pool may be from before a restart of Redis.
            return int(connection.ensure(connection, counted, max_retries=1, interval_start=0)())

    def close(self) -> None:
        """Let go of the connections.

        Those that are idle are closed with the process.
        """
        self._app.close()


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (KombuError, CeleryError, RedisError, OSError) as error:
        raise BrokerUnavailable from error

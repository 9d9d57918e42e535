"""Callbacks: the outbox of job-end callbacks (ADR 14).

Durable, and delivered at least once.

The job table marks the ended jobs that still need a callback. Each becomes one row here, in the transaction that clears the mark.
The service that delivers a row claims it for a while, so several services share the work, and a delivery is repeated when its
service is killed: a receiver may hear of a job twice, with the same id.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final
from uuid import uuid4

from sqlalchemy import RowMapping, func, insert, or_, select, update

from oarlock.errors import InvalidParameter
from oarlock.store import audit
from oarlock.store.audit import SYSTEM, Action, Actor, Event
from oarlock.store.database import Database, utc_now
from oarlock.store.jobs import ENDED, JobId, JobState
from oarlock.store.schema import CALLBACKS, JOBS

WAITS_S: Final = (10, 60, 300, 1_800, 7_200, 21_600, 43_200)
"""Seconds from each failed attempt to the next; after the last one the callback is given up."""

CLAIM_S: Final = 60.0
"""Seconds for which a claimed callback belongs to its service; a delivery takes less."""

_BATCH: Final = 16


class CallbackState(StrEnum):
    """Where a callback stands; ``dead`` is one that was given up."""

    WAITING = "waiting"
    DELIVERED = "delivered"
    DEAD = "dead"


@dataclass(frozen=True, slots=True)
class Callback:
    """The callback of one job's end.

    :ivar outcome: result of the last attempt, in Oarlock's words: ``http 503``, ``timeout``, ``address refused``.
    """

    id: str
    job_id: JobId
    url: str
    state: CallbackState
    job_state: JobState
    error_code: str | None
    ended_at: datetime
    attempts: int
    next_at: datetime
    outcome: str | None


class CallbackStore:
    """All callbacks of jobs that were not purged.

    :param clock: gives the present as an aware time.
    """

    def __init__(self, database: Database, *, clock: Callable[[], datetime] = utc_now) -> None:
        self._database, self._clock = database, clock

    def collect(self) -> int:
        """Make callbacks of jobs that have ended and ask for one.

        :returns: how many were made.
        """
        due = JOBS.c.callback_pending & JOBS.c.state.in_([state.value for state in ENDED])
        with self._database.reading() as connection:
            if connection.scalar(select(JOBS.c.id).where(due).limit(1)) is None:
                return 0
        with self._database.writing() as connection:
            taken = update(JOBS).where(due).values(callback_pending=None)
            rows = connection.execute(
                taken.returning(JOBS.c.id, JOBS.c.callback_url, JOBS.c.state, JOBS.c.error_code, JOBS.c.finished_at)
            ).all()
            for row in rows:
                values = {"job_id": row.id, "url": row.callback_url, "job_state": row.state, "error_code": row.error_code}
                values |= {"ended_at": row.finished_at, "id": str(uuid4()), "state": CallbackState.WAITING, "attempts": 0}
                connection.execute(insert(CALLBACKS).values(values | {"next_at": self._clock()}))
        return len(rows)

    def claim(self) -> list[Callback]:
        """Claim the callbacks that are due.

        No other service gets them within :data:`CLAIM_S`.
        """
        now = self._clock()
        is_due = (CALLBACKS.c.state == CallbackState.WAITING) & (CALLBACKS.c.next_at <= now)
        with self._database.reading() as connection:
            ids = connection.scalars(select(CALLBACKS.c.id).where(is_due).order_by(CALLBACKS.c.next_at).limit(_BATCH)).all()
        if not ids:
            return []
        later = now + timedelta(seconds=CLAIM_S)
        with self._database.writing() as connection:
            taken = update(CALLBACKS).where(CALLBACKS.c.id.in_(ids), is_due).values(next_at=later).returning(CALLBACKS)
            return [_callback(row) for row in connection.execute(taken).mappings()]

    def settle(self, callback: Callback, *, delivered: bool, outcome: str) -> CallbackState:
        """Record an attempt's result: delivered, to be tried again, or given up."""
        attempts = callback.attempts + 1
        state = CallbackState.WAITING if attempts <= len(WAITS_S) else CallbackState.DEAD
        state = CallbackState.DELIVERED if delivered else state
        wait = timedelta(seconds=WAITS_S[min(callback.attempts, len(WAITS_S) - 1)])
        values = {"state": state, "attempts": attempts, "outcome": outcome, "next_at": self._clock() + wait}
        with self._database.writing() as connection:
            connection.execute(update(CALLBACKS).where(CALLBACKS.c.id == callback.id).values(values))
        return state

    def all(self, state: CallbackState | None = None) -> list[Callback]:
        """Callbacks, the oldest first.

        Those in one state alone if it is named.
        """
        wanted = [] if state is None else [CALLBACKS.c.state == state]
        query = select(CALLBACKS).where(*wanted).order_by(CALLBACKS.c.ended_at, CALLBACKS.c.id)
        with self._database.reading() as connection:
            return [_callback(row) for row in connection.execute(query).mappings()]

    def resend(self, callback_id: str, *, by: Actor = SYSTEM) -> Callback:
        """Queue a callback again from its first attempt, whatever its state.

        :raises InvalidParameter: if neither a callback nor a job with one has this id.
        """
        now = self._clock()
        which = or_(CALLBACKS.c.id == callback_id, CALLBACKS.c.job_id == callback_id)
        fresh = {"state": CallbackState.WAITING, "attempts": 0, "next_at": now}
        with self._database.writing() as connection:
            rows = connection.execute(update(CALLBACKS).where(which).values(fresh).returning(CALLBACKS)).mappings().all()
            audit.append(connection, now, *(Event(Action.CALLBACK_RESENT, by, row["job_id"]) for row in rows))
        if not rows:
            raise InvalidParameter(name="ID", reason="is neither the id of a callback nor of a job that has one")
        return _callback(rows[-1])

    def counts(self) -> dict[CallbackState, int]:
        """How many callbacks stand in each state."""
        query = select(CALLBACKS.c.state, func.count()).group_by(CALLBACKS.c.state)
        with self._database.reading() as connection:
            found = {CallbackState(row[0]): int(row[1]) for row in connection.execute(query)}
        return {state: found.get(state, 0) for state in CallbackState}


def _callback(row: RowMapping) -> Callback:
    return Callback(
        id=row["id"],
        job_id=JobId(row["job_id"]),
        url=row["url"],
        state=CallbackState(row["state"]),
        job_state=JobState(row["job_state"]),
        error_code=row["error_code"],
        ended_at=row["ended_at"],
        attempts=row["attempts"],
        next_at=row["next_at"],
        outcome=row["outcome"],
    )

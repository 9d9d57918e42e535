"""Retirement: jobs and inputs whose time is over.

The caller deletes their files after the rows say so.
"""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, delete, exists, func, literal, select, type_coerce, update

from oarlock.store import audit
from oarlock.store.audit import SYSTEM, Action, Event
from oarlock.store.callbacks import CallbackState
from oarlock.store.database import Database
from oarlock.store.job_rows import TOMBSTONE
from oarlock.store.jobs import ENDED, JobId
from oarlock.store.retention import Retention
from oarlock.store.reviews import forget_comments
from oarlock.store.schema import CALLBACKS, EPOCH, JOBS, OF_A_JOB


class Retirement:
    """Which jobs are due to be purged.

    By their own times or the settings'.

    :param clock: gives the present as an aware time.
    """

    def __init__(self, database: Database, clock: Callable[[], datetime]) -> None:
        self._database, self._clock = database, clock

    def purge_due(self, retention: Retention, *, callbacks: bool = True) -> list[JobId]:
        """Purge the jobs whose time is over.

        As a purge on request does.

        :param retention: what counts for jobs that have no times of their own.
        :param callbacks: whether a service delivers them: then a job stays until its callback is delivered or given up.
        :returns: the purged jobs; the caller then deletes their files.
        """
        now = self._clock()
        due = _is_over(JOBS.c.keep_results_s, retention.results_s, now) & JOBS.c.purged_at.is_(None)
        if callbacks:
            due &= _is_told()
        return self._retire(due, Action.JOB_PURGED, TOMBSTONE | {"purged_at": now}, now)

    def purge_inputs_due(self, retention: Retention) -> list[JobId]:
        """Mark the jobs whose input's time is over.

        They cannot be retried.

        :returns: these jobs; the caller then deletes their input.
        """
        now = self._clock()
        due = _is_over(JOBS.c.keep_input_s, retention.input_s, now)
        due &= JOBS.c.purged_at.is_(None) & JOBS.c.input_purged_at.is_(None)
        return self._retire(due, Action.INPUT_PURGED, {"input_purged_at": now}, now)

    def without_input(self) -> set[JobId]:
        """Jobs whose input was purged and whose results stay."""
        query = select(JOBS.c.id).where(JOBS.c.purged_at.is_(None), JOBS.c.input_purged_at.is_not(None))
        with self._database.reading() as connection:
            return {JobId(job_id) for job_id in connection.scalars(query)}

    def _retire(self, due: ColumnElement[bool], action: Action, values: Mapping[str, Any], now: datetime) -> list[JobId]:
        with self._database.reading() as connection:  # nearly always there is none, and writers need not wait for this look
            if connection.scalar(select(JOBS.c.id).where(due).limit(1)) is None:
                return []
        with self._database.writing() as connection:
            rows = connection.execute(update(JOBS).where(due).values(**values).returning(JOBS.c.id)).all()
            if action is Action.JOB_PURGED:
                for table in OF_A_JOB:
                    connection.execute(delete(table).where(table.c.job_id.in_([row.id for row in rows])))
                forget_comments(connection, [row.id for row in rows])
            audit.append(connection, now, *(Event(action, SYSTEM, row.id) for row in rows))
        return [JobId(row.id) for row in rows]


def _is_over(column: ColumnElement[int], otherwise_s: int | None, now: datetime) -> ColumnElement[bool]:
    """Whether a job ended so long ago; never where neither the row nor the settings say how long."""
    keep_s = func.coalesce(column, literal(otherwise_s, BigInteger()))
    finished = type_coerce(JOBS.c.finished_at, BigInteger())
    over = finished <= literal((now - EPOCH) // timedelta(microseconds=1), BigInteger()) - keep_s * 1_000_000
    return JOBS.c.state.in_([state.value for state in ENDED]) & over


def _is_told() -> ColumnElement[bool]:
    """Whether no receiver still waits for the callback of a job."""
    waits = (CALLBACKS.c.job_id == JOBS.c.id) & (CALLBACKS.c.state == CallbackState.WAITING)
    return JOBS.c.callback_pending.is_(None) & ~exists().where(waits)

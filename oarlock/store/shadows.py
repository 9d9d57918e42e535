"""Shadow runs.

A second model draws a finished job, and its scores are all that is told of it.

A run waits for its turn behind every job. It holds no lease: its worker is known by its heartbeat, and what it writes counts only
while its token is the newest. A run that cannot be done is dropped with the reason, and the job stays as it is.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, exists, func, insert, select, update

from oarlock.facts import ModelFacts
from oarlock.store.database import Database
from oarlock.store.job_rows import model_columns, model_of
from oarlock.store.jobs import JobId, JobState
from oarlock.store.schema import JOBS, SHADOWS
from oarlock.store.scores.write import ShadowScored, last_approved
from oarlock.store.scores.write import append_shadow as append_scores

MAX_ATTEMPTS: Final = 3
"""How often a run is started before it is dropped."""

EXHAUSTED: Final = "job.attempts_exhausted"
"""Why it is dropped then."""


class ShadowState(StrEnum):
    """Where a shadow run stands; the last two are ends."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    DROPPED = "dropped"


class ShadowLost(Exception):
    """The run is no longer this worker's.

    Its job was purged, or another worker has it.
    """


@dataclass(frozen=True, slots=True)
class Shadow:
    """A worker's run. ``token`` grows with each one of a job."""

    job_id: JobId
    site: str
    model: ModelFacts
    token: int


def put(connection: Connection, now: datetime, job_id: JobId, site: str, model: ModelFacts) -> None:
    """Let a model draw a job that ends well.

    In the transaction that ends it.
    """
    values = {"job_id": job_id, "site": site, "state": ShadowState.WAITING, "since": now, "attempts": 0, "token": 0}
    connection.execute(insert(SHADOWS).values(values | model_columns(model)))


class ShadowStore:
    """The shadow runs of all jobs.

    :param clock: gives the present as an aware time.
    """

    def __init__(self, database: Database, clock: Callable[[], datetime]) -> None:
        self._database, self._clock = database, clock

    def due(self, limit: int) -> list[JobId]:
        """The jobs whose runs have waited longest.

        None while a job is queued.
        """
        waiting = select(SHADOWS.c.job_id).where(SHADOWS.c.state == ShadowState.WAITING, ~_jobs_wait())
        with self._database.reading() as connection:
            return [JobId(row) for row in connection.scalars(waiting.order_by(SHADOWS.c.since, SHADOWS.c.job_id).limit(limit))]

    def claim(self, job_id: JobId, *, worker: str) -> Shadow | None:
        """Begin a run.

        :returns: None if there is nothing to do, or a job is queued, which goes first.
        """
        waits = (SHADOWS.c.job_id == job_id) & (SHADOWS.c.state == ShadowState.WAITING)
        exhausted = {"state": ShadowState.DROPPED, "note": EXHAUSTED, "since": self._clock()}
        begun: dict[str, Any] = {"state": ShadowState.RUNNING, "worker": worker, "since": self._clock()}
        begun |= {"attempts": SHADOWS.c.attempts + 1, "token": SHADOWS.c.token + 1}
        with self._database.writing() as connection:
            connection.execute(update(SHADOWS).where(waits, SHADOWS.c.attempts >= MAX_ATTEMPTS).values(exhausted))
            row = (
                connection.execute(update(SHADOWS).where(waits, ~_jobs_wait()).values(begun).returning(SHADOWS))
                .mappings()
                .first()
            )
        return None if row is None else Shadow(job_id, row["site"], model_of(row), row["token"])

    def must_yield(self, shadow: Shadow) -> bool:
        """Whether a job waits for a worker.

        :raises ShadowLost: if the run is no longer this worker's.
        """
        with self._database.reading() as connection:
            if connection.scalar(select(SHADOWS.c.job_id).where(_is_held(shadow))) is None:
                raise ShadowLost
            return bool(connection.scalar(select(_jobs_wait())))

    def hand_back(self, shadow: Shadow, *, attempt_counts: bool) -> None:
        """Let a run wait again.

        :param attempt_counts: False if it made room for a job, or its worker stops.
        :raises ShadowLost: if the run is no longer this worker's.
        """
        attempts = SHADOWS.c.attempts - (0 if attempt_counts else 1)
        self._change(shadow, {"state": ShadowState.WAITING, "worker": None, "attempts": attempts})

    def drop(self, shadow: Shadow, note: str) -> None:
        """End a run that cannot be done.

        :param note: the code of the error.
        :raises ShadowLost: if the run is no longer this worker's.
        """
        self._change(shadow, {"state": ShadowState.DROPPED, "worker": None, "note": note})

    def finish(self, shadow: Shadow, scored: ShadowScored, *, approved: str | None = None) -> bool:
        """End a run and write its scores.

        What is approved after it is compared by whoever takes it in, so nothing may be approved unseen before.

        :param approved: digest of the last RTSTRUCT that was approved for the job, as far as the run has seen.
        :returns: False if another one was approved since; then nothing is written.
        :raises ShadowLost: if the run is no longer this worker's, or the job was purged; then nothing is written.
        """
        now = self._clock()
        with self._database.writing() as connection:
            if last_approved(connection, shadow.job_id) != approved:
                return False
            self._change_in(connection, shadow, {"state": ShadowState.DONE, "worker": None})
            append_scores(connection, now, shadow.job_id, shadow.model, scored, site=shadow.site)
        return True

    def take_back(self, live: Collection[str]) -> list[JobId]:
        """Let the runs of workers that are gone wait again.

        :param live: the names of the workers that are not.
        """
        lost = (SHADOWS.c.state == ShadowState.RUNNING) & SHADOWS.c.worker.not_in(live)
        again = {"state": ShadowState.WAITING, "worker": None, "token": SHADOWS.c.token + 1}
        with self._database.writing() as connection:
            return [
                JobId(row) for row in connection.scalars(update(SHADOWS).where(lost).values(again).returning(SHADOWS.c.job_id))
            ]

    def of(self, job_id: JobId) -> tuple[ModelFacts, ShadowState] | None:
        """The model that draws a job in the shadow, if any.

        And where its run stands.
        """
        with self._database.reading() as connection:
            row = connection.execute(select(SHADOWS).where(SHADOWS.c.job_id == job_id)).mappings().first()
        return None if row is None else (model_of(row), ShadowState(row["state"]))

    def counts(self) -> Mapping[ShadowState, int]:
        """How many runs stand in each state."""
        with self._database.reading() as connection:
            rows = connection.execute(select(SHADOWS.c.state, func.count()).group_by(SHADOWS.c.state))
            found = {ShadowState(row[0]): int(row[1]) for row in rows}
        return {state: found.get(state, 0) for state in ShadowState}

    def _change(self, shadow: Shadow, values: Mapping[str, Any]) -> None:
        with self._database.writing() as connection:
            self._change_in(connection, shadow, values)

    def _change_in(self, connection: Connection, shadow: Shadow, values: Mapping[str, Any]) -> None:
        changed = connection.execute(update(SHADOWS).where(_is_held(shadow)).values(**values, since=self._clock()))
        if changed.rowcount != 1:
            raise ShadowLost


def _is_held(shadow: Shadow) -> ColumnElement[bool]:
    mine = (SHADOWS.c.job_id == shadow.job_id) & (SHADOWS.c.token == shadow.token)
    return mine & (SHADOWS.c.state == ShadowState.RUNNING)


def _jobs_wait() -> ColumnElement[bool]:
    return exists().where(JOBS.c.state == JobState.QUEUED)

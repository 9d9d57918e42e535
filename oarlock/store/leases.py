"""Leases: how a worker owns a job.

How it reports on it and ends it; and how a silent worker loses it.

The lease carries a fencing token that grows with every claim; whatever a worker reports is written only while its token is the
newest and the job still runs, so a worker that was thought dead changes nothing when it wakes up. Whether a lease ran out is not
read off a clock: clocks differ between machines, and are set. A lease is over when the sweeper, which looks again and again, has
seen no report under it for long enough, and takes the job back.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, RowMapping, and_, bindparam, case, false, func, or_, select, update

from oarlock.errors import AttemptsExhausted, JobError, OarlockError
from oarlock.facts import ModelFacts, Notice
from oarlock.store import audit, migrations, shadows
from oarlock.store.audit import SYSTEM, Action, Actor, Event
from oarlock.store.database import Database
from oarlock.store.job_rows import AGAIN, IDLE, change, dump, error_columns, event, model_of
from oarlock.store.jobs import MAX_ATTEMPTS, JobId, JobState, Stage
from oarlock.store.schema import JOBS, Time
from oarlock.store.scores.write import Scored
from oarlock.store.scores.write import append as append_scores
from oarlock.store.stage_times import count_stages

# What each job does several times, of many workers at once, is one statement that is built once.

_NOW: Final = bindparam("now", type_=Time())

_HELD: Final = and_(
    JOBS.c.id == bindparam("of_job"), JOBS.c.state == JobState.RUNNING, JOBS.c.lease_token == bindparam("of_token")
)

_CLAIM: Final = (
    update(JOBS)
    .where(JOBS.c.id == bindparam("of_job"), JOBS.c.state == JobState.QUEUED, migrations.is_current())
    .values(
        state=JobState.RUNNING,
        stage=Stage.READING,
        stage_since=_NOW,
        worker=bindparam("by"),
        attempts=JOBS.c.attempts + 1,
        lease_token=JOBS.c.lease_token + 1,
        lease_until=bindparam("until", type_=Time()),
        started_at=func.coalesce(JOBS.c.started_at, _NOW),
    )
    .returning(JOBS.c.lease_token, JOBS.c.attempts)
)

_PROGRESS: Final = (
    update(JOBS)
    .where(_HELD)
    .values(
        progress=case((JOBS.c.progress < bindparam("share"), bindparam("share")), else_=JOBS.c.progress),
        stage=bindparam("new_stage"),
        stage_since=case((JOBS.c.stage == bindparam("new_stage"), JOBS.c.stage_since), else_=_NOW),
        lease_until=bindparam("until", type_=Time()),
    )
    .returning(JOBS.c.cancel_requested)
)

_END: Final = (
    update(JOBS).where(_HELD).returning(JOBS.c.id, JOBS.c.site, JOBS.c.model_name, JOBS.c.model_version, JOBS.c.model_sha256)
)
"""Sets what it is given values for."""


class LeaseLost(JobError):
    """This worker's report was not written.

    The job was given to another worker, ended or purged.

    It has no code: it never leaves the worker.
    """

    def __init__(self) -> None:
        super().__init__("The lease of this worker on the job is over.")


@dataclass(frozen=True, slots=True)
class Lease:
    """A worker's claim on a job.

    ``token`` grows with each claim of the job; ``attempt`` counts from 1.

    :ivar stages: what its worker reported, and since when: they are counted when the job ends, in one go.
    """

    job_id: JobId
    token: int
    worker: str
    attempt: int
    stages: list[tuple[Stage, datetime]] = field(default_factory=list, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class SignOfLife:
    """The last report on a running job.

    ``lease_until`` changes with each report and is not compared with a clock.
    """

    token: int
    lease_until: datetime


class Leases:
    """Which worker owns which job.

    :param clock: gives the present as an aware time.
    """

    def __init__(self, database: Database, clock: Callable[[], datetime]) -> None:
        self._database, self._clock = database, clock

    def claim(self, job_id: JobId, *, worker: str, lease_s: float) -> Lease | None:
        """Take a queued job.

        :returns: None if there is nothing to do: no such job, it ended, or it runs.
        :raises DatabaseNewer: or DatabaseOlder, if the schema is not that of this version.
        """
        now = self._clock()
        values = {"of_job": job_id, "now": now, "by": worker, "until": now + timedelta(seconds=lease_s)}
        with self._database.writing() as connection:
            row = connection.execute(_CLAIM, values).first()
            if row is None:
                migrations.check(connection)
                return None
        return Lease(job_id, token=row[0], worker=worker, attempt=row[1], stages=[(Stage.READING, now)])

    def progress(self, lease: Lease, *, stage: Stage, progress: float, lease_s: float) -> bool:
        """Report how far a job is, and renew the lease.

        :param progress: from 0 to 1; a smaller value than the one reported before is ignored.
        :returns: whether the job should stop because its cancellation was asked for.
        :raises LeaseLost: if the job is no longer this worker's.
        """
        now = self._clock()
        values = {"share": min(progress, 1.0), "new_stage": stage, "now": now, "until": now + timedelta(seconds=lease_s)}
        with self._database.noting() as connection:
            cancel_requested = connection.execute(_PROGRESS, _of(lease) | values).scalar()
        if cancel_requested is None:
            raise LeaseLost
        if not lease.stages or lease.stages[-1][0] is not stage:
            lease.stages.append((stage, now))
        return bool(cancel_requested)

    def succeed(
        self,
        lease: Lease,
        *,
        warnings: Sequence[Notice] = (),
        result: str | None = None,
        scored: Scored | None = None,
        shadow: ModelFacts | None = None,
    ) -> None:
        """End a job whose results are in the storage.

        :param result: the RTSTRUCT's name and SHA-256, for the audit log.
        :param scored: what goes into the table of scores.
        :param shadow: the model that draws the series too, without delivering it.
        :raises LeaseLost: if the job is no longer this worker's.
        """
        values = {"state": JobState.SUCCEEDED, "progress": 1.0, "result_warnings": dump(warnings)}
        self._end(lease, Action.JOB_SUCCEEDED, values, result=result, scored=scored, shadow=shadow)

    def fail(self, lease: Lease, error: OarlockError) -> None:
        """End a job that cannot be done.

        :raises LeaseLost: if the job is no longer this worker's.
        """
        self._end(lease, Action.JOB_FAILED, {"state": JobState.FAILED} | error_columns(error), result=error.code)

    def cancelled(self, lease: Lease) -> None:
        """End a job that its worker stopped because its cancellation was requested.

        :raises LeaseLost: if the job is no longer this worker's.
        """
        self._end(lease, Action.JOB_CANCELLED, {"state": JobState.CANCELLED})

    def hand_back(self, lease: Lease, *, attempt_counts: bool = False) -> None:
        """Put the job back into the queue.

        The sweeper sends it. If its cancellation was requested, it is cancelled.

        :param attempt_counts: False if the worker stops for a reason that has nothing to do with the series.
        :raises LeaseLost: if the job is no longer this worker's.
        """
        now = self._clock()
        with self._database.writing() as connection:
            before = _held(connection, lease)
            back = AGAIN | {"attempts": before["attempts"] - (0 if attempt_counts else 1)}
            stopped = IDLE | {"state": JobState.CANCELLED, "finished_at": now}
            change(connection, lease.job_id, _is_held(lease), stopped if before["cancel_requested"] else back)
            if before["cancel_requested"]:
                audit.append(connection, now, event(Action.JOB_CANCELLED, _actor_of(lease), before))

    def _end(
        self,
        lease: Lease,
        action: Action,
        values: dict[str, Any],
        *,
        result: str | None = None,
        scored: Scored | None = None,
        shadow: ModelFacts | None = None,
    ) -> None:
        now = self._clock()
        with self._database.writing() as connection:
            before = connection.execute(_END, _of(lease) | IDLE | {"finished_at": now} | values).mappings().first()
            if before is None:
                raise LeaseLost
            count_stages(connection, tuple(lease.stages), now)  # the thread that renews the lease may add one meanwhile
            if scored is not None:
                append_scores(connection, now, lease.job_id, model_of(before), scored, site=before["site"])
            if shadow is not None:
                shadows.put(connection, now, lease.job_id, before["site"], shadow)
            audit.append(connection, now, event(action, _actor_of(lease), before, result))

    # ── what the sweeper asks ─────────────────────────────────────────────────────────────────────────────────────────

    def signs_of_life(self) -> dict[JobId, SignOfLife]:
        """The last report on every running job."""
        query = select(JOBS.c.id, JOBS.c.lease_token, JOBS.c.lease_until).where(JOBS.c.state == JobState.RUNNING)
        with self._database.reading() as connection:
            return {JobId(row.id): SignOfLife(row.lease_token, row.lease_until) for row in connection.execute(query)}

    def take_back(self, silent: Mapping[JobId, SignOfLife]) -> list[JobId]:
        """Queue the jobs of silent workers again.

        Those whose attempts are used up fail.

        :param silent: the last report under each of their leases; a job with a newer report is left alone.
        :returns: the jobs to send again, in the order of the queue.
        """
        now = self._clock()
        unheard = or_(*(_is_last(job_id, sign) for job_id, sign in silent.items()), false())
        with self._database.writing() as connection:
            hopeless = _end_hopeless(connection, now, unheard)
            back = update(JOBS).where(unheard).values(AGAIN).returning(JOBS.c.id, JOBS.c.rank, JOBS.c.queued_at)
            rows = sorted(connection.execute(back), key=lambda row: (row.rank, row.queued_at, row.id))
            audit.append(connection, now, *hopeless)
        return [JobId(row.id) for row in rows]


def _is_last(job_id: JobId, sign: SignOfLife) -> ColumnElement[bool]:
    reported = (JOBS.c.lease_token == sign.token) & (JOBS.c.lease_until == sign.lease_until)
    return and_(JOBS.c.id == job_id, JOBS.c.state == JobState.RUNNING, reported)


def _is_held(lease: Lease) -> ColumnElement[bool]:
    return and_(JOBS.c.state == JobState.RUNNING, JOBS.c.lease_token == lease.token)


def _of(lease: Lease) -> dict[str, Any]:
    return {"of_job": lease.job_id, "of_token": lease.token}


def _held(connection: Connection, lease: Lease) -> RowMapping:
    """The row under a lease, locked until the transaction ends."""
    query = select(JOBS).where(JOBS.c.id == lease.job_id, _is_held(lease)).with_for_update()
    row = connection.execute(query).mappings().first()
    if row is None:
        raise LeaseLost
    return row


def _end_hopeless(connection: Connection, now: datetime, *which: ColumnElement[bool]) -> list[Event]:
    """Of jobs that no worker holds, cancel those that were asked to, and fail those without an attempt left."""
    ended = IDLE | {"finished_at": now}
    exhausted = ended | error_columns(AttemptsExhausted(attempts=MAX_ATTEMPTS)) | {"state": JobState.FAILED}
    cancel = update(JOBS).where(*which, JOBS.c.cancel_requested).values(ended | {"state": JobState.CANCELLED})
    fail = update(JOBS).where(*which, JOBS.c.attempts >= MAX_ATTEMPTS).values(exhausted)
    cancelled = connection.execute(cancel.returning(JOBS)).mappings().all()
    failed = connection.execute(fail.returning(JOBS)).mappings().all()
    return [event(Action.JOB_CANCELLED, SYSTEM, row) for row in cancelled] + [
        event(Action.JOB_FAILED, SYSTEM, row, AttemptsExhausted.code) for row in failed
    ]


def _actor_of(lease: Lease) -> Actor:
    return Actor(f"worker:{lease.worker}", lease.worker)

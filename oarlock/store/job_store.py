"""JobStore: the job table, which is the truth about every job (ADR 0004).

The same SQL runs on SQLite (write-ahead log, several processes) and on PostgreSQL. Each method is one short transaction, and each
change of state is one conditional UPDATE: of two processes that try the same step, the database lets one through.

A worker owns a job by a lease. The lease carries a fencing token that grows with every claim; whatever a worker reports is
written only while its token is the newest and the job still runs, so a worker that was thought dead changes nothing when it
wakes up. Whether a lease ran out is not read off a clock: clocks differ between machines, and are set. A lease is over when
somebody who looks again and again (the sweeper) has seen no report under it for long enough, and takes the job back.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    RowMapping,
    and_,
    case,
    delete,
    exists,
    false,
    func,
    insert,
    literal,
    or_,
    select,
    type_coerce,
    update,
)
from sqlalchemy.exc import IntegrityError

from oarlock.errors import (
    AttemptsExhausted,
    IdempotencyConflict,
    JobAlreadyEnded,
    JobError,
    JobExpired,
    JobNotFound,
    JobNotRetryable,
    OarlockError,
)
from oarlock.facts import ModelFacts, Notice, SeriesFacts
from oarlock.store import audit
from oarlock.store import score_store as qa_store
from oarlock.store.audit import SYSTEM, Action, Actor, Event
from oarlock.store.callbacks import CallbackState
from oarlock.store.cursors import of_cursor, to_cursor
from oarlock.store.database import Database, utc_now
from oarlock.store.jobs import ENDED, MAX_ATTEMPTS, Job, JobFailure, JobId, JobState, Priority, Stage
from oarlock.store.retention import UNSAID, Retention
from oarlock.store.schema import CALLBACKS, EPOCH, JOBS, STAGES, WORKERS, DatabaseNow, Time
from oarlock.store.score_store import Scored

log = logging.getLogger(__name__)

STAGE_BUCKETS_S: Final = (0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, float("inf"))
"""Upper bounds of the histogram of stage durations."""

PURGED_SERIES: Final = SeriesFacts("", "", "", 0, (0.0, 0.0, 0.0))
PURGED_MODEL: Final = ModelFacts("", "", "")
"""What a purged job still says of its series and its model: nothing."""


class LeaseLost(JobError):
    """The job was given to another worker, ended or purged; this worker's report of it was not written.

    It has no code: it never leaves the worker.
    """

    def __init__(self) -> None:
        super().__init__("The lease of this worker on the job is over.")


@dataclass(frozen=True, slots=True)
class Lease:
    """A worker's claim on a job. ``token`` grows with each claim of the job; ``attempt`` counts from 1."""

    job_id: JobId
    token: int
    worker: str
    attempt: int


@dataclass(frozen=True, slots=True)
class SignOfLife:
    """What a running job's row says of its worker; ``lease_until`` is another one after each report, and no more than that."""

    token: int
    lease_until: datetime


@dataclass(frozen=True, slots=True)
class Queued:
    """What a queued job's row says of its message; ``sent_at`` is None if it was not sent since it was queued."""

    queued_at: datetime
    sent_at: datetime | None


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker that was heard of: its models as name to sha256."""

    name: str
    models: Mapping[str, str]
    device: str
    seen_at: datetime


@dataclass(frozen=True, slots=True)
class StageDurations:
    """How long a stage took, over all jobs ever.

    ``counts[i]`` of them took at most ``STAGE_BUCKETS_S[i]`` and longer than the bound before it.
    """

    stage: Stage
    counts: tuple[int, ...]
    total_s: float


class JobStore:
    """All jobs, in one database that several processes share.

    :param clock: gives the present as an aware time.
    """

    def __init__(self, database: Database, *, clock: Callable[[], datetime] = utc_now) -> None:
        self._database = database
        self._clock = clock

    def check(self) -> None:
        """Ask the database something.

        :raises DatabaseUnavailable: if there is no answer.
        """
        self._database.check()

    def fold(self) -> None:
        """Take what was purged out of the database's files, as far as that can be done now; otherwise the next time."""
        if not self._database.fold():
            log.warning("the database's log could not be emptied; it is tried again")

    # ── jobs, as the service sees them ────────────────────────────────────────────────────────────────────────────────

    def create(
        self,
        *,
        job_id: JobId,
        series: SeriesFacts,
        model: ModelFacts,
        profile: str | None = None,
        retention: Retention = UNSAID,
        callback_url: str | None = None,
        identity: bytes | None = None,
        priority: Priority = Priority.NORMAL,
        warnings: Sequence[Notice] = (),
        idempotency_key: str | None = None,
        content_sha256: str,
        by: Actor = SYSTEM,
    ) -> Job:
        """Put a new job into the queue, or find the job that the same post made before.

        :param by: who posts it, for the audit log; so in the other calls.
        :param retention: how long its bytes stay, where that is not for the settings to say.
        :param callback_url: where its end is told.
        :param identity: what was taken out of its series, sealed.
        :param content_sha256: digest of what was posted; the same key with another digest is a conflict.
        :returns: the new job; or, where the key is known, the job that has it (told by its id).
        :raises IdempotencyConflict: if the key belongs to another content.
        """
        now = self._clock()
        values = _series_columns(series) | _model_columns(model) | _FRESH
        values |= {"id": job_id, "profile": profile, "priority": int(priority), "intake_warnings": _dump(warnings)}
        values |= {
            "idempotency_key": _sealed(idempotency_key),
            "content_sha256": content_sha256,
            "created_at": now,
            "queued_at": now,
            "keep_input_s": retention.input_s,
            "keep_results_s": retention.results_s,
            "callback_url": callback_url,
            "callback_pending": None if callback_url is None else True,
            "identity": identity,
        }
        try:
            with self._database.writing() as connection:
                connection.execute(insert(JOBS).values(values))
                audit.append(connection, now, _event(Action.JOB_POSTED, by, values))
        except IntegrityError:
            return self._same_post(idempotency_key, content_sha256)
        return self.get(job_id)

    def find_post(self, idempotency_key: str, content_sha256: str) -> Job | None:
        """The job that an earlier post with this key made; None if the key is new.

        :raises IdempotencyConflict: if the key belongs to another content.
        """
        with self._database.reading() as connection:
            row = connection.execute(select(JOBS).where(JOBS.c.idempotency_key == _sealed(idempotency_key))).mappings().first()
        if row is not None and row["content_sha256"] != content_sha256:
            raise IdempotencyConflict
        return None if row is None else _job(row)

    def _same_post(self, idempotency_key: str | None, content_sha256: str) -> Job:
        job = None if idempotency_key is None else self.find_post(idempotency_key, content_sha256)
        if job is None:
            raise IdempotencyConflict  # the id itself was taken, or the key was freed by a purge in this very moment
        return job

    def discard(self, job_id: JobId, *, by: Actor = SYSTEM) -> bool:
        """Remove a job that was created but could not be sent, as if it had never been posted.

        :returns: False if it was sent or claimed in the meantime (by the sweeper, or by a second post with the same key): it
            lives, and must be answered for.
        """
        never_sent = (JOBS.c.state == JobState.QUEUED) & (JOBS.c.lease_token == 0) & JOBS.c.sent_at.is_(None)
        with self._database.writing() as connection:
            gone = connection.execute(delete(JOBS).where(JOBS.c.id == job_id, never_sent)).rowcount == 1
            if gone:
                audit.append(connection, self._clock(), Event(Action.JOB_WITHDRAWN, by, job_id))
            return gone

    def get(self, job_id: JobId) -> Job:
        """One job. Of a purged job only id, state and times are left, and ``purged_at`` is set.

        :raises JobNotFound: if there never was one.
        """
        with self._database.reading() as connection:
            row = connection.execute(select(JOBS).where(JOBS.c.id == job_id)).mappings().first()
        if row is None:
            raise JobNotFound
        return _job(row)

    def exists(self, job_id: JobId) -> bool:
        """Whether there is such a job that was not purged."""
        with self._database.reading() as connection:
            found = connection.scalar(select(JOBS.c.id).where(JOBS.c.id == job_id, JOBS.c.purged_at.is_(None)))
        return found is not None

    def page(
        self,
        *,
        state: JobState | None = None,
        series_instance_uid: str | None = None,
        stands_in: str | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> tuple[list[Job], str | None]:
        """A page of jobs, newest first, without the purged ones, and the cursor of the next page (None at the end).

        :param stands_in: the UID that the series has where it was de-identified.
        :raises InvalidParameter: if the cursor is not one that this method gave.
        """
        wanted: list[ColumnElement[bool]] = [JOBS.c.purged_at.is_(None)]
        if state is not None:
            wanted.append(JOBS.c.state == state)
        if series_instance_uid is not None:
            wanted.append(JOBS.c.series_instance_uid.in_([series_instance_uid, stands_in or series_instance_uid]))
        if cursor is not None:
            wanted.append(_older_than(cursor))
        query = select(JOBS).where(*wanted).order_by(JOBS.c.created_at.desc(), JOBS.c.id.desc()).limit(limit + 1)
        with self._database.reading() as connection:
            jobs = [_job(row) for row in connection.execute(query).mappings()]
        following = to_cursor(jobs[limit - 1].created_at, jobs[limit - 1].id) if len(jobs) > limit else None
        return jobs[:limit], following

    def queue_position(self, job_id: JobId) -> int | None:
        """Which place a queued job has, from 1; None if it is not queued."""
        return self.queue_positions().get(job_id)

    def queue_positions(self) -> dict[JobId, int]:
        """The place of every queued job, from 1: by priority, then by how long it waits."""
        order = (JOBS.c.priority, JOBS.c.queued_at, JOBS.c.id)
        with self._database.reading() as connection:
            ids = connection.scalars(select(JOBS.c.id).where(JOBS.c.state == JobState.QUEUED).order_by(*order))
            return {JobId(job_id): place for place, job_id in enumerate(ids, start=1)}

    def request_cancel(self, job_id: JobId, *, by: Actor = SYSTEM) -> Job:
        """Cancel a queued job at once, or ask the worker of a running one to stop at its next step.

        :raises JobAlreadyEnded: if there is nothing to cancel.
        """
        now = self._clock()
        ended = {"state": JobState.CANCELLED, "finished_at": now, "cancel_requested": True}
        with self._database.writing() as connection:
            at_once = _change(connection, job_id, JOBS.c.state == JobState.QUEUED, ended)
            changed = at_once or _change(connection, job_id, JOBS.c.state == JobState.RUNNING, {"cancel_requested": True})
            if changed:
                audit.append(connection, now, Event(Action.JOB_CANCELLED if at_once else Action.JOB_CANCEL_REQUESTED, by, job_id))
        job = self.get(job_id)
        if not changed:
            raise JobAlreadyEnded(state=job.state)
        return job

    def retry(self, job_id: JobId, *, by: Actor = SYSTEM) -> Job:
        """Queue a failed or cancelled job again, with all its attempts before it. Its progress stays: it never falls.

        :raises JobNotRetryable: if the job is in another state, or purged.
        :raises JobExpired: if its input was purged.
        """
        now = self._clock()
        pending = case((JOBS.c.callback_url.is_not(None), True), else_=None)
        again = _AGAIN | {
            "callback_pending": pending,
            "attempts": 0,
            "started_at": None,
            "queued_at": now,
            "cancel_requested": False,
        }
        with self._database.writing() as connection:
            ended = JOBS.c.state.in_([JobState.FAILED, JobState.CANCELLED])
            kept = JOBS.c.purged_at.is_(None) & JOBS.c.input_purged_at.is_(None)
            changed = _change(connection, job_id, ended & kept, again)
            if changed:
                audit.append(connection, now, Event(Action.JOB_RETRIED, by, job_id))
        job = self.get(job_id)
        if not changed and job.input_purged_at is not None and job.state is not JobState.SUCCEEDED:
            raise JobExpired
        if not changed:
            raise JobNotRetryable(state=job.state)
        return job

    def purge(self, job_id: JobId, *, by: Actor = SYSTEM) -> None:
        """Forget everything of a job but its id, its state and its times. A job that has not ended is cancelled.

        A worker that still runs it loses its lease with this. Purging twice is no error.

        :raises JobNotFound: if there never was one.
        """
        now = self._clock()
        unfinished = JOBS.c.state.in_([JobState.QUEUED, JobState.RUNNING])
        with self._database.writing() as connection:
            _change(connection, job_id, unfinished, {"state": JobState.CANCELLED, "finished_at": now, "cancel_requested": True})
            connection.execute(delete(CALLBACKS).where(CALLBACKS.c.job_id == job_id))
            if _change(connection, job_id, JOBS.c.purged_at.is_(None), _TOMBSTONE | {"purged_at": now}):
                audit.append(connection, now, Event(Action.JOB_PURGED, by, job_id))
        self.get(job_id)

    def purge_due(self, retention: Retention, *, callbacks: bool = True) -> list[JobId]:
        """Forget the jobs whose time is over, as a purge on request does; their bytes are to be deleted behind this.

        :param retention: what counts for jobs that have no times of their own.
        :param callbacks: whether somebody delivers them: a job whose callback waits then stays until it is delivered or given up.
        """
        now = self._clock()
        due = _is_over(JOBS.c.keep_results_s, retention.results_s, now) & JOBS.c.purged_at.is_(None)
        if callbacks:
            due &= _is_told()
        return self._retire(due, Action.JOB_PURGED, _TOMBSTONE | {"purged_at": now}, now)

    def purge_inputs_due(self, retention: Retention) -> list[JobId]:
        """Note whose input's time is over: none of these jobs is retried, and their input is to be deleted behind this."""
        now = self._clock()
        due = _is_over(JOBS.c.keep_input_s, retention.input_s, now)
        due &= JOBS.c.purged_at.is_(None) & JOBS.c.input_purged_at.is_(None)
        return self._retire(due, Action.INPUT_PURGED, {"input_purged_at": now}, now)

    def _retire(self, due: ColumnElement[bool], action: Action, values: Mapping[str, Any], now: datetime) -> list[JobId]:
        with self._database.writing() as connection:
            rows = connection.execute(update(JOBS).where(due).values(**values).returning(JOBS.c.id)).all()
            if action is Action.JOB_PURGED:
                connection.execute(delete(CALLBACKS).where(CALLBACKS.c.job_id.in_([row.id for row in rows])))
            audit.append(connection, now, *(Event(action, SYSTEM, row.id) for row in rows))
        return [JobId(row.id) for row in rows]

    def without_input(self) -> set[JobId]:
        """Jobs whose input was purged and whose results stay."""
        query = select(JOBS.c.id).where(JOBS.c.purged_at.is_(None), JOBS.c.input_purged_at.is_not(None))
        with self._database.reading() as connection:
            return {JobId(job_id) for job_id in connection.scalars(query)}

    # ── jobs, as a worker sees them ───────────────────────────────────────────────────────────────────────────────────

    def claim(self, job_id: JobId, *, worker: str, lease_s: float) -> Lease | None:
        """Take a queued job.

        :returns: None if there is nothing to do: no such job, it ended, or it runs.
        """
        now = self._clock()
        with self._database.writing() as connection:
            taken = (
                update(JOBS)
                .where(JOBS.c.id == job_id, JOBS.c.state == JobState.QUEUED)
                .values(
                    state=JobState.RUNNING,
                    stage=Stage.READING,
                    stage_since=now,
                    worker=worker,
                    attempts=JOBS.c.attempts + 1,
                    lease_token=JOBS.c.lease_token + 1,
                    lease_until=now + timedelta(seconds=lease_s),
                    started_at=func.coalesce(JOBS.c.started_at, literal(now, Time())),
                )
                .returning(JOBS.c.lease_token, JOBS.c.attempts)
            )
            row = connection.execute(taken).first()
        return None if row is None else Lease(job_id, token=row[0], worker=worker, attempt=row[1])

    def progress(self, lease: Lease, *, stage: Stage, progress: float, lease_s: float) -> bool:
        """Report how far a job is, and renew the lease.

        :param progress: from 0 to 1; a smaller value than the one reported before is ignored.
        :returns: whether the job should stop because its cancellation was asked for.
        :raises LeaseLost: if the job is no longer this worker's.
        """
        now = self._clock()
        higher = case((JOBS.c.progress < progress, min(progress, 1.0)), else_=JOBS.c.progress)
        renewed = {"progress": higher, "lease_until": now + timedelta(seconds=lease_s)}
        with self._database.writing() as connection:
            before = _held(connection, lease)
            if before["stage"] != stage:
                _count_stage(connection, before, now)
                renewed |= {"stage": stage, "stage_since": now}
            _change(connection, lease.job_id, _is_held(lease), renewed)
            return bool(before["cancel_requested"])

    def succeed(
        self,
        lease: Lease,
        *,
        warnings: Sequence[Notice] = (),
        result: str | None = None,
        scored: Scored | None = None,
    ) -> None:
        """The job's results are in the storage.

        :param result: the RTSTRUCT's name and SHA-256, for the audit log.
        :param scored: what goes into the table of scores.
        :raises LeaseLost: if the job is no longer this worker's.
        """
        values = {"state": JobState.SUCCEEDED, "progress": 1.0, "result_warnings": _dump(warnings)}
        self._end(lease, Action.JOB_SUCCEEDED, values, result=result, scored=scored)

    def fail(self, lease: Lease, error: OarlockError) -> None:
        """The job cannot be done.

        :raises LeaseLost: if the job is no longer this worker's.
        """
        self._end(lease, Action.JOB_FAILED, {"state": JobState.FAILED} | _error_columns(error), result=error.code)

    def cancelled(self, lease: Lease) -> None:
        """The worker stopped because it was asked to.

        :raises LeaseLost: if the job is no longer this worker's.
        """
        self._end(lease, Action.JOB_CANCELLED, {"state": JobState.CANCELLED})

    def hand_back(self, lease: Lease, *, attempt_counts: bool = False) -> None:
        """Put the job back into the queue, unsent: the sweeper sends it. If its cancellation was asked for, it is cancelled.

        :param attempt_counts: False if the worker stops for a reason of its own, which is not to be held against the series.
        :raises LeaseLost: if the job is no longer this worker's.
        """
        now = self._clock()
        with self._database.writing() as connection:
            before = _held(connection, lease)
            back = _AGAIN | {"attempts": before["attempts"] - (0 if attempt_counts else 1)}
            stopped = _IDLE | {"state": JobState.CANCELLED, "finished_at": now}
            _change(connection, lease.job_id, _is_held(lease), stopped if before["cancel_requested"] else back)
            if before["cancel_requested"]:
                audit.append(connection, now, _event(Action.JOB_CANCELLED, _actor_of(lease), before))

    def _end(
        self,
        lease: Lease,
        action: Action,
        values: dict[str, Any],
        *,
        result: str | None = None,
        scored: Scored | None = None,
    ) -> None:
        now = self._clock()
        with self._database.writing() as connection:
            before = _held(connection, lease)
            _count_stage(connection, before, now)
            _change(connection, lease.job_id, _is_held(lease), _IDLE | {"finished_at": now} | values)
            if scored is not None:
                qa_store.append(connection, now, lease.job_id, _model(before), scored)
            audit.append(connection, now, _event(action, _actor_of(lease), before, result))

    # ── what the sweeper asks ─────────────────────────────────────────────────────────────────────────────────────────

    def signs_of_life(self) -> dict[JobId, SignOfLife]:
        """Of every running job, its last report."""
        query = select(JOBS.c.id, JOBS.c.lease_token, JOBS.c.lease_until).where(JOBS.c.state == JobState.RUNNING)
        with self._database.reading() as connection:
            return {JobId(row.id): SignOfLife(row.lease_token, row.lease_until) for row in connection.execute(query)}

    def take_back(self, silent: Mapping[JobId, SignOfLife]) -> list[JobId]:
        """Queue again what silent workers hold, in the order of the queue; end it if that was its last attempt.

        :param silent: the last report under each of their leases; where there has been another one, the job is left alone.
        :returns: the jobs to be sent again.
        """
        now = self._clock()
        unheard = or_(*(_is_last(job_id, sign) for job_id, sign in silent.items()), false())
        with self._database.writing() as connection:
            hopeless = _end_hopeless(connection, now, unheard)
            back = update(JOBS).where(unheard).values(_AGAIN).returning(JOBS.c.id, JOBS.c.priority, JOBS.c.queued_at)
            rows = sorted(connection.execute(back), key=lambda row: (row.priority, row.queued_at, row.id))
            audit.append(connection, now, *hopeless)
        return [JobId(row.id) for row in rows]

    def queued(self) -> dict[JobId, Queued]:
        """Every queued job, in the order of the queue: when it was queued, and when it was sent."""
        order = (JOBS.c.priority, JOBS.c.queued_at, JOBS.c.id)
        query = select(JOBS.c.id, JOBS.c.queued_at, JOBS.c.sent_at).where(JOBS.c.state == JobState.QUEUED).order_by(*order)
        with self._database.reading() as connection:
            return {JobId(row.id): Queued(row.queued_at, row.sent_at) for row in connection.execute(query)}

    def states(self) -> dict[JobId, JobState]:
        """The state of every job that was not purged."""
        with self._database.reading() as connection:
            rows = connection.execute(select(JOBS.c.id, JOBS.c.state).where(JOBS.c.purged_at.is_(None)))
            return {JobId(row.id): JobState(row.state) for row in rows}

    def marked_sent(self, job_id: JobId) -> bool:
        """Note that a message with this id is on the queue; False if the job is gone."""
        with self._database.writing() as connection:
            return _change(connection, job_id, JOBS.c.purged_at.is_(None), {"sent_at": self._clock()})

    # ── what operators ask ────────────────────────────────────────────────────────────────────────────────────────────

    def counts(self) -> Mapping[JobState, int]:
        """How many jobs stand in each state, without the purged ones."""
        query = select(JOBS.c.state, func.count()).where(JOBS.c.purged_at.is_(None)).group_by(JOBS.c.state)
        with self._database.reading() as connection:
            found = {JobState(row[0]): int(row[1]) for row in connection.execute(query)}
        return {state: found.get(state, 0) for state in JobState}

    def stage_durations(self) -> list[StageDurations]:
        """How long the stages of all jobs took."""
        with self._database.reading() as connection:
            rows = connection.execute(select(STAGES).order_by(STAGES.c.stage, STAGES.c.bucket)).all()
        return [
            StageDurations(
                stage,
                counts=tuple(row.jobs for row in rows if row.stage == stage),
                total_s=sum(row.total_s for row in rows if row.stage == stage),
            )
            for stage in Stage
        ]

    def heartbeat(self, worker: str, models: Mapping[str, str], device: str) -> None:
        """A worker says that it lives.

        :param models: name to sha256 of the models that it has loaded or can load.
        """
        values = {"models": json.dumps(dict(models)), "device": device, "seen_at": DatabaseNow()}
        with self._database.writing() as connection:
            if not connection.execute(update(WORKERS).where(WORKERS.c.name == worker).values(values)).rowcount:
                connection.execute(insert(WORKERS).values(values | {"name": worker}))

    def farewell(self, worker: str) -> None:
        """A worker says that it stops."""
        with self._database.writing() as connection:
            connection.execute(delete(WORKERS).where(WORKERS.c.name == worker))

    def live_workers(self, within_s: float) -> list[Worker]:
        """Workers that were heard of in the last seconds, by name. The database's clock says when, in both places."""
        with self._database.reading() as connection:
            rows = connection.execute(select(WORKERS).where(_was_heard_of(within_s)).order_by(WORKERS.c.name)).all()
        return [Worker(row.name, json.loads(row.models), row.device, row.seen_at) for row in rows]

    def forget_workers(self, silent_s: float) -> None:
        """Delete the rows of workers that were silent for so long: who was killed said no farewell, and no other has his name."""
        with self._database.writing() as connection:
            connection.execute(delete(WORKERS).where(~_was_heard_of(silent_s)))


# ── conditions and changes ────────────────────────────────────────────────────────────────────────────────────────────

_IDLE: Final[dict[str, Any]] = {"stage": None, "stage_since": None, "worker": None, "lease_until": None}
_AGAIN: Final[dict[str, Any]] = _IDLE | {
    "state": JobState.QUEUED,
    "sent_at": None,
    "finished_at": None,
    "error_code": None,
    "error_title": None,
    "error_detail": None,
}
_FRESH: Final[dict[str, Any]] = _AGAIN | {
    "progress": 0.0,
    "attempts": 0,
    "lease_token": 0,
    "cancel_requested": False,
    "result_warnings": "[]",
}


def _change(connection: Connection, job_id: JobId, condition: ColumnElement[bool], values: Mapping[str, Any]) -> bool:
    """The one conditional UPDATE behind every change of a job; whether the condition held."""
    return connection.execute(update(JOBS).where(JOBS.c.id == job_id, condition).values(**values)).rowcount == 1


def _is_last(job_id: JobId, sign: SignOfLife) -> ColumnElement[bool]:
    reported = (JOBS.c.lease_token == sign.token) & (JOBS.c.lease_until == sign.lease_until)
    return and_(JOBS.c.id == job_id, JOBS.c.state == JobState.RUNNING, reported)


def _was_heard_of(within_s: float) -> ColumnElement[bool]:
    silent_us = DatabaseNow() - type_coerce(WORKERS.c.seen_at, BigInteger())
    return silent_us <= literal(int(within_s * 1_000_000), BigInteger())


def _is_over(column: ColumnElement[int], otherwise_s: int | None, now: datetime) -> ColumnElement[bool]:
    """Whether a job ended so long ago; never where neither the row nor the settings say how long."""
    keep_s = func.coalesce(column, literal(otherwise_s, BigInteger()))
    finished = type_coerce(JOBS.c.finished_at, BigInteger())
    over = finished <= literal((now - EPOCH) // timedelta(microseconds=1), BigInteger()) - keep_s * 1_000_000
    return JOBS.c.state.in_([state.value for state in ENDED]) & over


def _is_told() -> ColumnElement[bool]:
    """Whether nobody waits to hear of the end of a job."""
    waits = (CALLBACKS.c.job_id == JOBS.c.id) & (CALLBACKS.c.state == CallbackState.WAITING)
    return JOBS.c.callback_pending.is_(None) & ~exists().where(waits)


def _is_held(lease: Lease) -> ColumnElement[bool]:
    return and_(JOBS.c.state == JobState.RUNNING, JOBS.c.lease_token == lease.token)


def _held(connection: Connection, lease: Lease) -> RowMapping:
    """The row under a lease, locked until the transaction ends."""
    query = select(JOBS).where(JOBS.c.id == lease.job_id, _is_held(lease)).with_for_update()
    row = connection.execute(query).mappings().first()
    if row is None:
        raise LeaseLost
    return row


def _end_hopeless(connection: Connection, now: datetime, *which: ColumnElement[bool]) -> list[Event]:
    """Of jobs that no worker holds, cancel those that were asked to, and fail those without an attempt left."""
    ended = _IDLE | {"finished_at": now}
    exhausted = ended | _error_columns(AttemptsExhausted(attempts=MAX_ATTEMPTS)) | {"state": JobState.FAILED}
    cancel = update(JOBS).where(*which, JOBS.c.cancel_requested).values(ended | {"state": JobState.CANCELLED})
    fail = update(JOBS).where(*which, JOBS.c.attempts >= MAX_ATTEMPTS).values(exhausted)
    cancelled = connection.execute(cancel.returning(JOBS)).mappings().all()
    failed = connection.execute(fail.returning(JOBS)).mappings().all()
    return [_event(Action.JOB_CANCELLED, SYSTEM, row) for row in cancelled] + [
        _event(Action.JOB_FAILED, SYSTEM, row, AttemptsExhausted.code) for row in failed
    ]


def _event(action: Action, actor: Actor, row: Mapping[str, Any] | RowMapping, result: str | None = None) -> Event:
    return Event(action, actor, row["id"], audit.to_text(_model(row)), result)


def _actor_of(lease: Lease) -> Actor:
    return Actor(f"worker:{lease.worker}", lease.worker)


def _count_stage(connection: Connection, before: RowMapping, now: datetime) -> None:
    if before["stage"] is None:
        return
    seconds = max(0.0, (now - before["stage_since"]).total_seconds())
    bucket = next(i for i, bound in enumerate(STAGE_BUCKETS_S) if seconds <= bound)
    cell = (STAGES.c.stage == before["stage"]) & (STAGES.c.bucket == bucket)
    connection.execute(update(STAGES).where(cell).values(jobs=STAGES.c.jobs + 1, total_s=STAGES.c.total_s + seconds))


# ── pages ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _older_than(cursor: str) -> ColumnElement[bool]:
    created_at, job_id = of_cursor(cursor)
    before = or_(JOBS.c.created_at < created_at, JOBS.c.id < job_id)
    return and_(JOBS.c.created_at <= created_at, before)  # the first alone already says where in the index to begin


# ── between rows and values ───────────────────────────────────────────────────────────────────────────────────────────


def _sealed(idempotency_key: str | None) -> str | None:
    """What is stored of a key: a sender may build it from a patient's number."""
    return None if idempotency_key is None else hashlib.sha256(idempotency_key.encode()).hexdigest()


def _dump(warnings: Sequence[Notice]) -> str:
    return json.dumps([asdict(warning) for warning in warnings])


def _series_columns(series: SeriesFacts) -> dict[str, Any]:
    z, y, x = series.spacing_mm
    return {
        "study_instance_uid": series.study_instance_uid,
        "series_instance_uid": series.series_instance_uid,
        "frame_of_reference_uid": series.frame_of_reference_uid,
        "slices": series.slices,
        "spacing_z_mm": z,
        "spacing_y_mm": y,
        "spacing_x_mm": x,
    }


def _model_columns(model: ModelFacts) -> dict[str, Any]:
    return {"model_name": model.name, "model_version": model.version, "model_sha256": model.sha256}


def _error_columns(error: OarlockError) -> dict[str, Any]:
    return {"error_code": error.code, "error_title": error.title, "error_detail": error.detail}


_TOMBSTONE: Final[dict[str, Any]] = {
    **_series_columns(PURGED_SERIES),
    **_model_columns(PURGED_MODEL),
    **_IDLE,
    "profile": None,
    "idempotency_key": None,
    "content_sha256": "",
    "callback_url": None,
    "callback_pending": None,
    "identity": None,
    "intake_warnings": "[]",
    "result_warnings": "[]",
    "error_code": None,
    "error_title": None,
    "error_detail": None,
}


def _job(row: RowMapping) -> Job:
    warnings = json.loads(row["intake_warnings"]) + json.loads(row["result_warnings"])
    return Job(
        id=JobId(row["id"]),
        state=JobState(row["state"]),
        stage=None if row["stage"] is None else Stage(row["stage"]),
        progress=row["progress"],
        priority=Priority(row["priority"]),
        attempts=row["attempts"],
        series=SeriesFacts(
            row["study_instance_uid"],
            row["series_instance_uid"],
            row["frame_of_reference_uid"],
            row["slices"],
            (row["spacing_z_mm"], row["spacing_y_mm"], row["spacing_x_mm"]),
        ),
        model=_model(row),
        profile=row["profile"],
        created_at=row["created_at"],
        started_at=row["started_at"],
        finished_at=row["finished_at"],
        purged_at=row["purged_at"],
        input_purged_at=row["input_purged_at"],
        cancel_requested=row["cancel_requested"],
        warnings=tuple(Notice(**warning) for warning in warnings),
        error=_failure(row),
        identity=row["identity"],
    )


def _model(row: Mapping[str, Any] | RowMapping) -> ModelFacts:
    return ModelFacts(row["model_name"], row["model_version"], row["model_sha256"])


def _failure(row: RowMapping) -> JobFailure | None:
    return None if row["error_code"] is None else JobFailure(row["error_code"], row["error_title"], row["error_detail"])

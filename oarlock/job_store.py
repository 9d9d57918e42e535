"""JobStore: the job table, which is the truth about every job (ADR 0004).

The same SQL runs on SQLite (write-ahead log, several processes) and on PostgreSQL. Each method is one short transaction, and each
change of state is one conditional UPDATE: of two processes that try the same step, the database lets one through.

A worker owns a job by a lease. The lease carries a fencing token that grows with every claim; whatever a worker reports is
written only while its token is the newest and the job still runs, so a worker that was thought dead changes nothing when it
wakes up.
"""

import base64
import binascii
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    Connection,
    Engine,
    Float,
    Index,
    Integer,
    MetaData,
    RowMapping,
    Table,
    Text,
    and_,
    case,
    create_engine,
    delete,
    event,
    func,
    insert,
    literal,
    make_url,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.engine import URL, Dialect
from sqlalchemy.exc import IntegrityError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as NoConnectionFree
from sqlalchemy.types import TypeDecorator

from oarlock.errors import (
    AttemptsExhausted,
    DatabaseUnavailable,
    IdempotencyConflict,
    InvalidParameter,
    JobAlreadyEnded,
    JobError,
    JobNotFound,
    JobNotRetryable,
    OarlockError,
)
from oarlock.jobs import (
    MAX_ATTEMPTS,
    Job,
    JobFailure,
    JobId,
    JobState,
    JobWarning,
    ModelFacts,
    Priority,
    SeriesFacts,
    Stage,
)

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


def utc_now() -> datetime:
    """The present, aware, in UTC."""
    return datetime.now(UTC)


class _Time(TypeDecorator[datetime]):
    """An aware UTC time, as whole microseconds since 1970: exact, and sorted alike in every database."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:
        del dialect
        return None if value is None else (value - _EPOCH) // timedelta(microseconds=1)

    def process_result_value(self, value: int | None, dialect: Dialect) -> datetime | None:
        del dialect
        return None if value is None else _EPOCH + timedelta(microseconds=value)


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_METADATA = MetaData()

_VERSION = Table("schema_version", _METADATA, Column("version", Integer, nullable=False))

_JOBS = Table(
    "jobs",
    _METADATA,
    Column("id", Text, primary_key=True),
    Column("state", Text, nullable=False),
    Column("stage", Text),
    Column("stage_since", _Time),
    Column("progress", Float, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("study_instance_uid", Text, nullable=False),
    Column("series_instance_uid", Text, nullable=False),
    Column("frame_of_reference_uid", Text, nullable=False),
    Column("slices", Integer, nullable=False),
    Column("spacing_z_mm", Float, nullable=False),
    Column("spacing_y_mm", Float, nullable=False),
    Column("spacing_x_mm", Float, nullable=False),
    Column("model_name", Text, nullable=False),
    Column("model_version", Text, nullable=False),
    Column("model_sha256", Text, nullable=False),
    Column("profile", Text),
    Column("idempotency_key", Text, unique=True),
    Column("content_sha256", Text, nullable=False),
    Column("intake_warnings", Text, nullable=False),
    Column("result_warnings", Text, nullable=False),
    Column("error_code", Text),
    Column("error_title", Text),
    Column("error_detail", Text),
    Column("cancel_requested", Boolean, nullable=False),
    Column("worker", Text),
    Column("lease_token", Integer, nullable=False),
    Column("lease_until", _Time),
    Column("created_at", _Time, nullable=False),
    Column("queued_at", _Time, nullable=False),
    Column("sent_at", _Time),
    Column("started_at", _Time),
    Column("finished_at", _Time),
    Column("purged_at", _Time),
    Index("jobs_by_age", "created_at", "id"),
    Index("jobs_by_state", "state", "created_at", "id"),
    Index("jobs_by_series", "series_instance_uid", "created_at", "id"),
)

_WORKERS = Table(
    "workers",
    _METADATA,
    Column("name", Text, primary_key=True),
    Column("models", Text, nullable=False),
    Column("device", Text, nullable=False),
    Column("seen_at", _Time, nullable=False),
)

_STAGES = Table(
    "stage_durations",
    _METADATA,
    Column("stage", Text, primary_key=True),
    Column("bucket", Integer, primary_key=True),
    Column("jobs", BigInteger, nullable=False),
    Column("total_s", Float, nullable=False),
)


def _create_schema(connection: Connection) -> None:
    for table in (_JOBS, _WORKERS, _STAGES):
        table.create(connection)
    cells = [{"stage": stage, "bucket": i, "jobs": 0, "total_s": 0.0} for stage in Stage for i in range(len(STAGE_BUCKETS_S))]
    connection.execute(insert(_STAGES), cells)


_MIGRATIONS: tuple[Callable[[Connection], None], ...] = (_create_schema,)
"""Step i brings a database from version i to i + 1. A step that was released is never changed; what is new is a new step."""


class JobStore:
    """All jobs, in one database that several processes share.

    :param url: SQLAlchemy URL of a SQLite file or a PostgreSQL database.
    :param clock: gives the present as an aware time.
    """

    def __init__(self, url: str, *, clock: Callable[[], datetime] = utc_now) -> None:
        self._engine = _engine(make_url(url))
        self._clock = clock
        self._migrate()

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    def check(self) -> None:
        """Ask the database something.

        :raises DatabaseUnavailable: if there is no answer.
        """
        with self._reading() as connection:
            connection.execute(select(_VERSION.c.version))

    # ── jobs, as the service sees them ────────────────────────────────────────────────────────────────────────────────

    def create(
        self,
        *,
        job_id: JobId,
        series: SeriesFacts,
        model: ModelFacts,
        profile: str | None = None,
        priority: Priority = Priority.NORMAL,
        warnings: Sequence[JobWarning] = (),
        idempotency_key: str | None = None,
        content_sha256: str,
    ) -> Job:
        """Put a new job into the queue, or find the job that the same post made before.

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
        }
        try:
            with self._writing() as connection:
                connection.execute(insert(_JOBS).values(values))
        except IntegrityError:
            return self._same_post(idempotency_key, content_sha256)
        return self.get(job_id)

    def find_post(self, idempotency_key: str, content_sha256: str) -> Job | None:
        """The job that an earlier post with this key made; None if the key is new.

        :raises IdempotencyConflict: if the key belongs to another content.
        """
        with self._reading() as connection:
            row = connection.execute(select(_JOBS).where(_JOBS.c.idempotency_key == _sealed(idempotency_key))).mappings().first()
        if row is not None and row["content_sha256"] != content_sha256:
            raise IdempotencyConflict
        return None if row is None else _job(row)

    def _same_post(self, idempotency_key: str | None, content_sha256: str) -> Job:
        job = None if idempotency_key is None else self.find_post(idempotency_key, content_sha256)
        if job is None:
            raise IdempotencyConflict  # the id itself was taken, or the key was freed by a purge in this very moment
        return job

    def discard(self, job_id: JobId) -> bool:
        """Remove a job that was created but could not be sent, as if it had never been posted.

        :returns: False if it was sent or claimed in the meantime (by the sweeper, or by a second post with the same key): it
            lives, and must be answered for.
        """
        never_sent = (_JOBS.c.state == JobState.QUEUED) & (_JOBS.c.lease_token == 0) & _JOBS.c.sent_at.is_(None)
        with self._writing() as connection:
            return connection.execute(delete(_JOBS).where(_JOBS.c.id == job_id, never_sent)).rowcount == 1

    def get(self, job_id: JobId) -> Job:
        """One job. Of a purged job only id, state and times are left, and ``purged_at`` is set.

        :raises JobNotFound: if there never was one.
        """
        with self._reading() as connection:
            row = connection.execute(select(_JOBS).where(_JOBS.c.id == job_id)).mappings().first()
        if row is None:
            raise JobNotFound
        return _job(row)

    def exists(self, job_id: JobId) -> bool:
        """Whether there is such a job that was not purged."""
        with self._reading() as connection:
            found = connection.scalar(select(_JOBS.c.id).where(_JOBS.c.id == job_id, _JOBS.c.purged_at.is_(None)))
        return found is not None

    def page(
        self,
        *,
        state: JobState | None = None,
        series_instance_uid: str | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> tuple[list[Job], str | None]:
        """A page of jobs, newest first, without the purged ones, and the cursor of the next page (None at the end).

        :raises InvalidParameter: if the cursor is not one that this method gave.
        """
        wanted: list[ColumnElement[bool]] = [_JOBS.c.purged_at.is_(None)]
        if state is not None:
            wanted.append(_JOBS.c.state == state)
        if series_instance_uid is not None:
            wanted.append(_JOBS.c.series_instance_uid == series_instance_uid)
        if cursor is not None:
            wanted.append(_older_than(cursor))
        query = select(_JOBS).where(*wanted).order_by(_JOBS.c.created_at.desc(), _JOBS.c.id.desc()).limit(limit + 1)
        with self._reading() as connection:
            jobs = [_job(row) for row in connection.execute(query).mappings()]
        return jobs[:limit], _cursor(jobs[limit - 1]) if len(jobs) > limit else None

    def queue_position(self, job_id: JobId) -> int | None:
        """Which place a queued job has, from 1; None if it is not queued."""
        return self.queue_positions().get(job_id)

    def queue_positions(self) -> dict[JobId, int]:
        """The place of every queued job, from 1: by priority, then by how long it waits."""
        order = (_JOBS.c.priority, _JOBS.c.queued_at, _JOBS.c.id)
        with self._reading() as connection:
            ids = connection.scalars(select(_JOBS.c.id).where(_JOBS.c.state == JobState.QUEUED).order_by(*order))
            return {JobId(job_id): place for place, job_id in enumerate(ids, start=1)}

    def request_cancel(self, job_id: JobId) -> Job:
        """Cancel a queued job at once, or ask the worker of a running one to stop at its next step.

        :raises JobAlreadyEnded: if there is nothing to cancel.
        """
        ended = {"state": JobState.CANCELLED, "finished_at": self._clock(), "cancel_requested": True}
        with self._writing() as connection:
            changed = _change(connection, job_id, _JOBS.c.state == JobState.QUEUED, ended)
            changed |= _change(connection, job_id, _JOBS.c.state == JobState.RUNNING, {"cancel_requested": True})
        job = self.get(job_id)
        if not changed:
            raise JobAlreadyEnded(state=job.state)
        return job

    def retry(self, job_id: JobId) -> Job:
        """Queue a failed or cancelled job again, with all its attempts before it. Its progress stays: it never falls.

        :raises JobNotRetryable: if the job is in another state, or purged.
        """
        again = _AGAIN | {"attempts": 0, "started_at": None, "queued_at": self._clock(), "cancel_requested": False}
        with self._writing() as connection:
            ended = _JOBS.c.state.in_([JobState.FAILED, JobState.CANCELLED])
            changed = _change(connection, job_id, ended & _JOBS.c.purged_at.is_(None), again)
        job = self.get(job_id)
        if not changed:
            raise JobNotRetryable(state=job.state)
        return job

    def purge(self, job_id: JobId) -> None:
        """Forget everything of a job but its id, its state and its times. A job that has not ended is cancelled.

        A worker that still runs it loses its lease with this. Purging twice is no error.

        :raises JobNotFound: if there never was one.
        """
        now = self._clock()
        unfinished = _JOBS.c.state.in_([JobState.QUEUED, JobState.RUNNING])
        with self._writing() as connection:
            _change(connection, job_id, unfinished, {"state": JobState.CANCELLED, "finished_at": now, "cancel_requested": True})
            _change(connection, job_id, _JOBS.c.purged_at.is_(None), _TOMBSTONE | {"purged_at": now})
        self.get(job_id)

    # ── jobs, as a worker sees them ───────────────────────────────────────────────────────────────────────────────────

    def claim(self, job_id: JobId, *, worker: str, lease_s: float) -> Lease | None:
        """Take a job that is free: queued, or running under a lease that ran out.

        A free job whose attempts are used up becomes failed, and one whose cancellation was asked for becomes cancelled.

        :returns: None if there is nothing to do: no such job, it ended, or another worker's lease is alive.
        """
        now = self._clock()
        with self._writing() as connection:
            self._end_hopeless(connection, now, _JOBS.c.id == job_id, _is_free(now))
            taken = (
                update(_JOBS)
                .where(_JOBS.c.id == job_id, _is_free(now))
                .values(
                    state=JobState.RUNNING,
                    stage=Stage.READING,
                    stage_since=now,
                    worker=worker,
                    attempts=_JOBS.c.attempts + 1,
                    lease_token=_JOBS.c.lease_token + 1,
                    lease_until=now + timedelta(seconds=lease_s),
                    started_at=func.coalesce(_JOBS.c.started_at, literal(now, _Time())),
                )
                .returning(_JOBS.c.lease_token, _JOBS.c.attempts)
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
        higher = case((_JOBS.c.progress < progress, min(progress, 1.0)), else_=_JOBS.c.progress)
        renewed = {"progress": higher, "lease_until": now + timedelta(seconds=lease_s)}
        with self._writing() as connection:
            before = _held(connection, lease)
            if before["stage"] != stage:
                _count_stage(connection, before, now)
                renewed |= {"stage": stage, "stage_since": now}
            _change(connection, lease.job_id, _is_held(lease), renewed)
            return bool(before["cancel_requested"])

    def succeed(self, lease: Lease, *, warnings: Sequence[JobWarning] = ()) -> None:
        """The job's results are in the storage.

        :raises LeaseLost: if the job is no longer this worker's.
        """
        self._end(lease, state=JobState.SUCCEEDED, progress=1.0, result_warnings=_dump(warnings))

    def fail(self, lease: Lease, error: OarlockError) -> None:
        """The job cannot be done.

        :raises LeaseLost: if the job is no longer this worker's.
        """
        self._end(lease, state=JobState.FAILED, **_error_columns(error))

    def cancelled(self, lease: Lease) -> None:
        """The worker stopped because it was asked to.

        :raises LeaseLost: if the job is no longer this worker's.
        """
        self._end(lease, state=JobState.CANCELLED)

    def hand_back(self, lease: Lease, *, attempt_counts: bool = False) -> None:
        """Put the job back into the queue, unsent: the sweeper sends it. If its cancellation was asked for, it is cancelled.

        :param attempt_counts: False if the worker stops for a reason of its own, which is not to be held against the series.
        :raises LeaseLost: if the job is no longer this worker's.
        """
        with self._writing() as connection:
            before = _held(connection, lease)
            back = _AGAIN | {"attempts": before["attempts"] - (0 if attempt_counts else 1)}
            stopped = _IDLE | {"state": JobState.CANCELLED, "finished_at": self._clock()}
            _change(connection, lease.job_id, _is_held(lease), stopped if before["cancel_requested"] else back)

    def _end(self, lease: Lease, **values: Any) -> None:
        now = self._clock()
        with self._writing() as connection:
            _count_stage(connection, _held(connection, lease), now)
            _change(connection, lease.job_id, _is_held(lease), _IDLE | {"finished_at": now} | values)

    # ── what the sweeper asks ─────────────────────────────────────────────────────────────────────────────────────────

    def take_back_expired(self) -> list[JobId]:
        """Queue again what a silent worker held, in the order of the queue; end it if that was its last attempt.

        :returns: the jobs to be sent again.
        """
        now = self._clock()
        expired = (_JOBS.c.state == JobState.RUNNING) & (_JOBS.c.lease_until < now)
        with self._writing() as connection:
            self._end_hopeless(connection, now, expired)
            back = update(_JOBS).where(expired).values(_AGAIN).returning(_JOBS.c.id, _JOBS.c.priority, _JOBS.c.queued_at)
            rows = sorted(connection.execute(back), key=lambda row: (row.priority, row.queued_at, row.id))
        return [JobId(row.id) for row in rows]

    def unsent(self, older_than_s: float, *, never: bool = False) -> list[Job]:
        """Queued jobs whose message was not sent, or was sent so long ago that it may be lost, in the order of the queue.

        :param never: only those that were not sent since they were queued.
        """
        limit = self._clock() - timedelta(seconds=older_than_s)
        late = _JOBS.c.sent_at.is_(None) if never else or_(_JOBS.c.sent_at.is_(None), _JOBS.c.sent_at <= limit)
        query = select(_JOBS).where(_JOBS.c.state == JobState.QUEUED, _JOBS.c.queued_at <= limit, late)
        with self._reading() as connection:
            rows = connection.execute(query.order_by(_JOBS.c.priority, _JOBS.c.queued_at, _JOBS.c.id))
            return [_job(row) for row in rows.mappings()]

    def states(self) -> dict[JobId, JobState]:
        """The state of every job that was not purged."""
        with self._reading() as connection:
            rows = connection.execute(select(_JOBS.c.id, _JOBS.c.state).where(_JOBS.c.purged_at.is_(None)))
            return {JobId(row.id): JobState(row.state) for row in rows}

    def marked_sent(self, job_id: JobId) -> bool:
        """Note that a message with this id is on the queue; False if the job is gone."""
        with self._writing() as connection:
            return _change(connection, job_id, _JOBS.c.purged_at.is_(None), {"sent_at": self._clock()})

    def _end_hopeless(self, connection: Connection, now: datetime, *which: ColumnElement[bool]) -> None:
        """Of jobs that no worker holds, cancel those that were asked to, and fail those without an attempt left."""
        ended = _IDLE | {"finished_at": now}
        connection.execute(update(_JOBS).where(*which, _JOBS.c.cancel_requested).values(ended | {"state": JobState.CANCELLED}))
        exhausted = ended | _error_columns(AttemptsExhausted(attempts=MAX_ATTEMPTS)) | {"state": JobState.FAILED}
        connection.execute(update(_JOBS).where(*which, _JOBS.c.attempts >= MAX_ATTEMPTS).values(exhausted))

    # ── what operators ask ────────────────────────────────────────────────────────────────────────────────────────────

    def counts(self) -> Mapping[JobState, int]:
        """How many jobs stand in each state, without the purged ones."""
        query = select(_JOBS.c.state, func.count()).where(_JOBS.c.purged_at.is_(None)).group_by(_JOBS.c.state)
        with self._reading() as connection:
            found = {JobState(row[0]): int(row[1]) for row in connection.execute(query)}
        return {state: found.get(state, 0) for state in JobState}

    def stage_durations(self) -> list[StageDurations]:
        """How long the stages of all jobs took."""
        with self._reading() as connection:
            rows = connection.execute(select(_STAGES).order_by(_STAGES.c.stage, _STAGES.c.bucket)).all()
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
        values = {"models": json.dumps(dict(models)), "device": device, "seen_at": self._clock()}
        with self._writing() as connection:
            if not connection.execute(update(_WORKERS).where(_WORKERS.c.name == worker).values(values)).rowcount:
                connection.execute(insert(_WORKERS).values(values | {"name": worker}))

    def farewell(self, worker: str) -> None:
        """A worker says that it stops."""
        with self._writing() as connection:
            connection.execute(delete(_WORKERS).where(_WORKERS.c.name == worker))

    def live_workers(self, within_s: float) -> list[Worker]:
        """Workers that were heard of in the last seconds, by name."""
        recent = _WORKERS.c.seen_at >= self._clock() - timedelta(seconds=within_s)
        with self._reading() as connection:
            rows = connection.execute(select(_WORKERS).where(recent).order_by(_WORKERS.c.name)).all()
        return [Worker(row.name, json.loads(row.models), row.device, row.seen_at) for row in rows]

    # ── transactions ──────────────────────────────────────────────────────────────────────────────────────────────────

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        with _translated(), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with _translated(), self._engine.connect().execution_options(oarlock_reads=True) as connection:
            yield connection

    def _migrate(self) -> None:
        with self._writing() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(7226519)"))  # several processes start at once
            _VERSION.create(connection, checkfirst=True)
            version = connection.scalar(select(_VERSION.c.version))
            for step in _MIGRATIONS[version or 0 :]:
                step(connection)
            if version is None:
                connection.execute(insert(_VERSION).values(version=len(_MIGRATIONS)))
            elif version < len(_MIGRATIONS):
                connection.execute(update(_VERSION).values(version=len(_MIGRATIONS)))


# ── the database ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _engine(url: URL) -> Engine:
    if url.get_backend_name() in {"postgresql", "postgres"}:
        return create_engine(url.set(drivername="postgresql+psycopg"), pool_pre_ping=True)
    engine = create_engine(url)
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: Any, record: object) -> None:
    """Several processes share the file: readers do not wait for a writer, writers wait for each other."""
    del record
    connection.isolation_level = None  # the driver must not begin transactions by its own rules
    for pragma in ("busy_timeout = 15000", "journal_mode = WAL", "synchronous = FULL", "secure_delete = ON"):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin_sqlite(connection: Connection) -> None:
    """A transaction that will write takes the write lock at once: upgrading a read lock can fail where waiting cannot."""
    reads = connection.get_execution_options().get("oarlock_reads", False)
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (OperationalError, InterfaceError, NoConnectionFree) as error:
        raise DatabaseUnavailable from error


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
    return connection.execute(update(_JOBS).where(_JOBS.c.id == job_id, condition).values(**values)).rowcount == 1


def _is_free(now: datetime) -> ColumnElement[bool]:
    expired = and_(_JOBS.c.state == JobState.RUNNING, _JOBS.c.lease_until < now)
    return or_(_JOBS.c.state == JobState.QUEUED, expired)


def _is_held(lease: Lease) -> ColumnElement[bool]:
    return and_(_JOBS.c.state == JobState.RUNNING, _JOBS.c.lease_token == lease.token)


def _held(connection: Connection, lease: Lease) -> RowMapping:
    """The row under a lease, locked until the transaction ends."""
    query = select(_JOBS).where(_JOBS.c.id == lease.job_id, _is_held(lease)).with_for_update()
    row = connection.execute(query).mappings().first()
    if row is None:
        raise LeaseLost
    return row


def _count_stage(connection: Connection, before: RowMapping, now: datetime) -> None:
    if before["stage"] is None:
        return
    seconds = max(0.0, (now - before["stage_since"]).total_seconds())
    bucket = next(i for i, bound in enumerate(STAGE_BUCKETS_S) if seconds <= bound)
    cell = (_STAGES.c.stage == before["stage"]) & (_STAGES.c.bucket == bucket)
    connection.execute(update(_STAGES).where(cell).values(jobs=_STAGES.c.jobs + 1, total_s=_STAGES.c.total_s + seconds))


# ── pages ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _cursor(job: Job) -> str:
    microseconds = (job.created_at - _EPOCH) // timedelta(microseconds=1)
    return base64.urlsafe_b64encode(f"{microseconds}.{job.id}".encode()).decode().rstrip("=")


def _older_than(cursor: str) -> ColumnElement[bool]:
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        microseconds, job_id = base64.b64decode(padded, altchars=b"-_", validate=True).decode("ascii").split(".", 1)
        created_at = _EPOCH + timedelta(microseconds=int(microseconds))
    except (ValueError, OverflowError, binascii.Error) as error:
        raise InvalidParameter(name="cursor", reason="is not a cursor that this server gave") from error
    return or_(_JOBS.c.created_at < created_at, and_(_JOBS.c.created_at == created_at, _JOBS.c.id < job_id))


# ── between rows and values ───────────────────────────────────────────────────────────────────────────────────────────


def _sealed(idempotency_key: str | None) -> str | None:
    """What is stored of a key: a sender may build it from a patient's number."""
    return None if idempotency_key is None else hashlib.sha256(idempotency_key.encode()).hexdigest()


def _dump(warnings: Sequence[JobWarning]) -> str:
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
        model=ModelFacts(row["model_name"], row["model_version"], row["model_sha256"]),
        profile=row["profile"],
        created_at=row["created_at"],
        started_at=row["started_at"],
        finished_at=row["finished_at"],
        purged_at=row["purged_at"],
        cancel_requested=row["cancel_requested"],
        warnings=tuple(JobWarning(**warning) for warning in warnings),
        error=_failure(row),
    )


def _failure(row: RowMapping) -> JobFailure | None:
    return None if row["error_code"] is None else JobFailure(row["error_code"], row["error_title"], row["error_detail"])

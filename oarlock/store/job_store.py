"""JobStore: the job table, the truth about every job (ADR 0004).

The same SQL runs on SQLite (write-ahead log, several processes) and on PostgreSQL. Each method is one short transaction, and each
change of state is one conditional UPDATE: of two processes that try the same step, the database lets one through.

What workers do to a job is in ``leases``, what time does to it in ``retirement``.
"""

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    RowMapping,
    Tuple,
    and_,
    case,
    delete,
    func,
    insert,
    literal,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.exc import IntegrityError

from oarlock.errors import IdempotencyConflict, JobAlreadyEnded, JobExpired, JobNotFound, JobNotRetryable
from oarlock.facts import ModelFacts, Notice, SeriesFacts
from oarlock.store import audit
from oarlock.store.audit import SYSTEM, Action, Actor, Event
from oarlock.store.cursors import of_cursor, to_cursor
from oarlock.store.database import Database, utc_now
from oarlock.store.fairness import STEPS, rank_of, steps_of
from oarlock.store.job_rows import (
    AGAIN,
    FRESH,
    TOMBSTONE,
    change,
    dump,
    event,
    job_of,
    model_columns,
    sealed,
    series_columns,
    with_notice,
)
from oarlock.store.jobs import Job, JobId, JobState, Priority, Stage
from oarlock.store.leases import Leases
from oarlock.store.retention import NO_OVERRIDE, Retention
from oarlock.store.retirement import Retirement
from oarlock.store.reviews import forget_comments
from oarlock.store.schema import AUDIT, AUDIT_HEAD, JOBS, OF_A_JOB, QA_CASES
from oarlock.store.scores.write import Origin, count_findings
from oarlock.store.shadows import ShadowStore
from oarlock.store.stage_times import StageTimes
from oarlock.store.workers import WorkerRegistry

log = logging.getLogger(__name__)

QUEUE_ORDER: Final = (JOBS.c.rank, JOBS.c.queued_at, JOBS.c.id)
"""By rank, then by how long a job waits."""

_OPEN: Final = JOBS.c.state.in_([JobState.QUEUED, JobState.RUNNING])


@dataclass(frozen=True, slots=True, kw_only=True)
class NewJob:
    """A job that is about to be queued.

    :ivar content_sha256: digest of what was posted; the same idempotency key with another digest is a conflict.
    :ivar retention: how long its bytes stay, where it overrides the settings.
    :ivar callback_url: where its end is told.
    :ivar identity: what was taken out of its series, sealed.
    :ivar supersedes: the job of the same series that it takes the place of.
    :ivar site: whose it is; empty for an operator's.
    :ivar label: what the sender calls it.
    """

    id: JobId
    series: SeriesFacts
    model: ModelFacts
    content_sha256: str
    profile: str | None = None
    priority: Priority = Priority.NORMAL
    warnings: tuple[Notice, ...] = ()
    idempotency_key: str | None = None
    retention: Retention = NO_OVERRIDE
    callback_url: str | None = None
    identity: bytes | None = None
    supersedes: JobId | None = None
    site: str = ""
    label: str | None = None


@dataclass(frozen=True, slots=True)
class Movements:
    """What moved in the lists of jobs, by site.

    :ivar until: how far the audit log was looked through.
    :ivar changed: the sites of whose jobs something was noted; None if nobody asked what was before.
    :ivar running: of each site id, stage and progress of the jobs that run, in the order of their ids.
    """

    until: int
    changed: frozenset[str] | None
    running: Mapping[str, tuple[tuple[JobId, Stage | None, float], ...]]


@dataclass(frozen=True, slots=True)
class Labelled:
    """The jobs of one site and one model that have one label.

    :ivar site: empty for an operator's.
    :ivar jobs, waiting: how many there are, and have not ended.
    :ivar first_at, last_at: when the first and the last of them came.
    """

    label: str
    site: str
    model: ModelFacts
    jobs: int
    waiting: int
    first_at: datetime
    last_at: datetime


@dataclass(frozen=True, slots=True)
class Queued:
    """What a queued job's row says of its message.

    ``sent_at`` is None if it was not sent since it was queued.
    """

    queued_at: datetime
    sent_at: datetime | None


class JobStore:
    """All jobs, in one database that several processes share.

    :param clock: gives the present as an aware time.
    :param shares: of the queue, of sites that have more than one (:mod:`oarlock.store.fairness`).
    :ivar leases: which worker owns which job.
    :ivar retirement: which jobs are due to be purged.
    :ivar workers: which workers live.
    :ivar stage_times: how long the stages of all jobs took.
    :ivar shadows: what models draw that deliver nothing.
    """

    def __init__(
        self, database: Database, *, clock: Callable[[], datetime] = utc_now, shares: Mapping[str, int] = MappingProxyType({})
    ) -> None:
        self._database, self._clock, self._shares = database, clock, shares
        self.leases, self.retirement = Leases(database, clock), Retirement(database, clock)
        self.workers, self.stage_times = WorkerRegistry(database), StageTimes(database)
        self.shadows = ShadowStore(database, clock)

    def check(self) -> None:
        """See that the database answers, by the schema of this version.

        :raises DatabaseUnavailable: if there is no answer.
        :raises DatabaseNewer: or DatabaseOlder, if it has another schema.
        """
        self._database.check()

    def count_findings(self) -> None:
        """Count what jobs left to be counted (:func:`oarlock.store.scores.write.count_findings`)."""
        count_findings(self._database)

    def checkpoint(self) -> None:
        """Remove purged rows from the database's files.

        What cannot be removed now is removed the next time.
        """
        if not self._database.checkpoint():
            log.warning("the database's write-ahead log could not be emptied; it is tried again")

    def create(self, job: NewJob, *, by: Actor = SYSTEM) -> Job:
        """Queue a new job, or find the same post's earlier one.

        Put a new job into the queue, or find the job that the same post made before.

        :param by: who posts it, for the audit log; so in the other calls.
        :returns: the new job; or, where the idempotency key is known, the job that has it (told by its id).
        :raises IdempotencyConflict: if the key belongs to another content.
        """
        now = self._clock()
        values = _columns(job, now)
        try:
            with self._database.writing() as connection:
                rank = self._next_rank(connection, job.site, job.priority)
                connection.execute(insert(JOBS).values(values | {"rank": rank}))
                if job.supersedes is not None:
                    same = (JOBS.c.series_instance_uid == job.series.series_instance_uid) & (JOBS.c.site == job.site)
                    change(connection, job.supersedes, same, {"superseded_by": job.id})
                audit.append(connection, now, event(Action.JOB_POSTED, by, values))
        except IntegrityError:
            return self._same_post(job)
        return self.get(job.id)

    def find_post(self, idempotency_key: str, content_sha256: str, site: str) -> Job | None:
        """The job that an earlier post with this key made.

        Of this site; None if the key is new.

        :raises IdempotencyConflict: if the key belongs to another content.
        """
        with self._database.reading() as connection:
            same = (JOBS.c.idempotency_key == sealed(idempotency_key, site)) & (JOBS.c.site == site)
            row = connection.execute(select(JOBS).where(same)).mappings().first()
        if row is not None and row["content_sha256"] != content_sha256:
            raise IdempotencyConflict
        return None if row is None else job_of(row)

    def _same_post(self, new: NewJob) -> Job:
        key = new.idempotency_key
        job = None if key is None else self.find_post(key, new.content_sha256, new.site)
        if job is None:
            raise IdempotencyConflict  # the id itself was taken, or the key was freed by a purge in this very moment
        return job

    def discard(self, job_id: JobId, *, by: Actor = SYSTEM) -> bool:
        """Remove a job that could not be sent.

        As if it had never been posted.

        :returns: False if it was sent or claimed in the meantime (by the sweeper, or by a second post with the same key): it
            exists, and the post is answered with it.
        """
        never_sent = (JOBS.c.state == JobState.QUEUED) & (JOBS.c.lease_token == 0) & JOBS.c.sent_at.is_(None)
        with self._database.writing() as connection:
            gone = connection.execute(delete(JOBS).where(JOBS.c.id == job_id, never_sent)).rowcount == 1
            if gone:
                connection.execute(update(JOBS).where(JOBS.c.superseded_by == job_id).values(superseded_by=None))
                audit.append(connection, self._clock(), Event(Action.JOB_WITHDRAWN, by, job_id))
            return gone

    def get(self, job_id: JobId) -> Job:
        """One job.

        Of a purged job only id, state and times are left, and ``purged_at`` is set.

        :raises JobNotFound: if there never was one.
        """
        with self._database.reading() as connection:
            row = connection.execute(select(JOBS).where(JOBS.c.id == job_id)).mappings().first()
        if row is None:
            raise JobNotFound
        return job_of(row)

    def marks(self, job_ids: Collection[JobId]) -> dict[JobId, tuple[object, ...]]:
        """What shows whether each of these jobs changed.

        Of those that exist: far less to read than the jobs.
        """
        columns = (JOBS.c.state, JOBS.c.stage, JOBS.c.progress, JOBS.c.attempts, JOBS.c.finished_at, JOBS.c.purged_at)
        with self._database.reading() as connection:
            rows = connection.execute(select(JOBS.c.id, *columns).where(JOBS.c.id.in_(job_ids))).all()
        return {JobId(row[0]): tuple(row[1:]) for row in rows}

    def movements(self, since: int | None) -> Movements:
        """What moved in the lists of jobs.

        What is done to a job is in the audit log, whose head is one row; which jobs run, and how far, is in the job table.

        :param since: ``until`` of an earlier call; None to begin with.
        """
        running: dict[str, tuple[tuple[JobId, Stage | None, float], ...]] = {}
        columns = (JOBS.c.site, JOBS.c.id, JOBS.c.stage, JOBS.c.progress)
        noted = select(JOBS.c.site).distinct().join(AUDIT, AUDIT.c.job_id == JOBS.c.id)
        with self._database.reading() as connection:
            until = connection.scalar(select(AUDIT_HEAD.c.seq)) or 0
            changed = None
            if since is not None:
                looked_at = (AUDIT.c.seq > since) & (AUDIT.c.action != Action.RESULT_READ)
                changed = frozenset(connection.scalars(noted.where(looked_at)) if until > since else ())
            for site, job_id, stage, progress in connection.execute(
                select(*columns).where(JOBS.c.state == JobState.RUNNING).order_by(JOBS.c.id)
            ):
                running[site] = (*running.get(site, ()), (JobId(job_id), stage and Stage(stage), progress))
        return Movements(until, changed, running)

    def several(self, job_ids: Collection[JobId]) -> dict[JobId, Job]:
        """Those of these jobs that exist; purged ones as :meth:`get` gives them."""
        query = select(JOBS).where(JOBS.c.id.in_(job_ids))
        with self._database.reading() as connection:
            jobs = [job_of(row) for row in connection.execute(query).mappings()]
        return {job.id: job for job in jobs}

    def exists(self, job_id: JobId) -> bool:
        """Whether there is such a job that was not purged."""
        with self._database.reading() as connection:
            found = connection.scalar(select(JOBS.c.id).where(JOBS.c.id == job_id, JOBS.c.purged_at.is_(None)))
        return found is not None

    def page(
        self,
        *,
        site: str,
        state: JobState | None = None,
        series_instance_uid: str | None = None,
        stands_in: str | None = None,
        label: str | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> tuple[list[Job], str | None]:
        """A page of jobs, newest first, and the next page's cursor.

        Without the purged ones; the cursor is None at the end.

        :param site: whose jobs; empty for those of all sites.
        :param stands_in: the UID that the series has where it was de-identified.
        :param label: text that the label contains, in small or capital letters.
        :raises InvalidParameter: if the cursor is not one that this method gave.
        """
        wanted: list[ColumnElement[bool]] = [JOBS.c.purged_at.is_(None)]
        if site:
            wanted.append(JOBS.c.site == site)
        if state is not None:
            wanted.append(JOBS.c.state == state)
        if series_instance_uid is not None:
            wanted.append(JOBS.c.series_instance_uid.in_([series_instance_uid, stands_in or series_instance_uid]))
        if label is not None:
            wanted.append(JOBS.c.label.icontains(label, autoescape=True))
        if cursor is not None:
            wanted.append(_older_than(cursor))
        query = select(JOBS).where(*wanted).order_by(JOBS.c.created_at.desc(), JOBS.c.id.desc()).limit(limit + 1)
        with self._database.reading() as connection:
            jobs = [job_of(row) for row in connection.execute(query).mappings()]
        following = to_cursor(jobs[limit - 1].created_at, jobs[limit - 1].id) if len(jobs) > limit else None
        return jobs[:limit], following

    def labelled(self, *, site: str, limit: int) -> list[Labelled]:
        """Groups of jobs that share label, site and model, the newest first.

        Those of several series, some of which came with an RTSTRUCT.

        :param site: whose jobs; empty for those of all sites.
        """
        group = (JOBS.c.label, JOBS.c.site, JOBS.c.model_name, JOBS.c.model_version, JOBS.c.model_sha256)
        waiting = func.sum(case((_OPEN, 1), else_=0))
        last = func.max(JOBS.c.created_at)
        wanted = [JOBS.c.label.is_not(None), JOBS.c.purged_at.is_(None), *([JOBS.c.site == site] if site else [])]
        compared = select(QA_CASES.c.job_id).where(QA_CASES.c.origin == Origin.SUPPLIED)
        some = (func.count(JOBS.c.series_instance_uid.distinct()) > 1, func.sum(case((JOBS.c.id.in_(compared), 1), else_=0)) > 0)
        query = select(*group, func.count(), waiting, func.min(JOBS.c.created_at), last).where(*wanted).group_by(*group)
        with self._database.reading() as connection:
            rows = connection.execute(
                query.having(and_(*some)).order_by(last.desc(), JOBS.c.label, JOBS.c.site).limit(limit)
            ).all()
        return [Labelled(row[0], row[1], ModelFacts(*row[2:5]), *row[5:]) for row in rows]

    def of_label(self, label: str, model_sha256: str, *, sites: Collection[str], limit: int) -> list[JobId]:
        """The ids of a model's jobs with this very label.

        The newest first.

        :param sites: each of which must be that of the jobs; empty for those of all sites.
        """
        same = [JOBS.c.label == label, JOBS.c.model_sha256 == model_sha256, JOBS.c.purged_at.is_(None)]
        same += [JOBS.c.site == site for site in sites]
        query = select(JOBS.c.id).where(*same).order_by(JOBS.c.created_at.desc(), JOBS.c.id.desc()).limit(limit)
        with self._database.reading() as connection:
            return [JobId(row) for row in connection.scalars(query)]

    def of_study(self, study_instance_uids: Collection[str], *, site: str) -> list[Job]:
        """The jobs that succeeded on a study, newest first.

        On series of it; those that were purged are left out.

        :param site: whose jobs; empty for those of all sites.
        :param study_instance_uids: the study's own, and the one that it has where it was de-identified.
        """
        wanted: list[ColumnElement[bool]] = [JOBS.c.study_instance_uid.in_(study_instance_uids), JOBS.c.purged_at.is_(None)]
        if site:
            wanted.append(JOBS.c.site == site)
        query = (
            select(JOBS).where(JOBS.c.state == JobState.SUCCEEDED, *wanted).order_by(JOBS.c.created_at.desc(), JOBS.c.id.desc())
        )
        with self._database.reading() as connection:
            return [job_of(row) for row in connection.execute(query).mappings()]

    def queue_position(self, job_id: JobId) -> int | None:
        """A queued job's place, from 1; None if not queued.

        Among those of its site.
        """
        return self.queue_positions([job_id]).get(job_id)

    def queue_positions(self, job_ids: Collection[JobId]) -> dict[JobId, int]:
        """The place, from 1, of each job that is queued.

        Among those of its site. What stands before the first of them is counted in an index; only from there to the last are the
        jobs read.
        """
        if not job_ids:
            return {}
        queued = JOBS.c.state == JobState.QUEUED
        places: dict[JobId, int] = {}
        with self._database.reading() as connection:
            asked: dict[str, list[tuple[object, ...]]] = {}
            for site, *place in connection.execute(select(JOBS.c.site, *QUEUE_ORDER).where(JOBS.c.id.in_(job_ids), queued)):
                asked.setdefault(site, []).append(tuple(place))
            for site, found in asked.items():
                first, last, of_site = _bound(min(found)), _bound(max(found)), queued & (JOBS.c.site == site)
                before = connection.scalar(select(func.count()).where(of_site, tuple_(*QUEUE_ORDER) < first)) or 0
                between = select(JOBS.c.id).where(of_site, tuple_(*QUEUE_ORDER) >= first, tuple_(*QUEUE_ORDER) <= last)
                jobs = connection.scalars(between.order_by(*QUEUE_ORDER))
                places |= {JobId(job_id): before + n for n, job_id in enumerate(jobs, 1)}
        return {job_id: places[job_id] for job_id in job_ids if job_id in places}

    def request_cancel(self, job_id: JobId, *, by: Actor = SYSTEM) -> Job:
        """Cancel a queued job, or ask a running one to stop.

        A queued one ends at once; the worker of a running one stops at its next step.

        :raises JobAlreadyEnded: if there is nothing to cancel.
        """
        now = self._clock()
        ended = {"state": JobState.CANCELLED, "finished_at": now, "cancel_requested": True}
        with self._database.writing() as connection:
            at_once = change(connection, job_id, JOBS.c.state == JobState.QUEUED, ended)
            changed = at_once or change(connection, job_id, JOBS.c.state == JobState.RUNNING, {"cancel_requested": True})
            if changed:
                audit.append(connection, now, Event(Action.JOB_CANCELLED if at_once else Action.JOB_CANCEL_REQUESTED, by, job_id))
        job = self.get(job_id)
        if not changed:
            raise JobAlreadyEnded(state=job.state)
        return job

    def retry(self, job_id: JobId, *, by: Actor = SYSTEM) -> Job:
        """Queue a failed or cancelled job again, with all attempts.

        Its progress stays: it never falls.

        :raises JobNotRetryable: if the job is in another state, or purged.
        :raises JobExpired: if its input was purged.
        """
        now = self._clock()
        pending = case((JOBS.c.callback_url.is_not(None), True), else_=None)
        again = AGAIN | {
            "callback_pending": pending,
            "attempts": 0,
            "started_at": None,
            "queued_at": now,
            "cancel_requested": False,
        }
        before = self.get(job_id)
        with self._database.writing() as connection:
            again["rank"] = self._next_rank(connection, before.site, before.priority)
            ended = JOBS.c.state.in_([JobState.FAILED, JobState.CANCELLED])
            kept = JOBS.c.purged_at.is_(None) & JOBS.c.input_purged_at.is_(None)
            changed = change(connection, job_id, ended & kept, again)
            if changed:
                audit.append(connection, now, Event(Action.JOB_RETRIED, by, job_id))
        job = self.get(job_id)
        if not changed and job.input_purged_at is not None and job.state is not JobState.SUCCEEDED:
            raise JobExpired
        if not changed:
            raise JobNotRetryable(state=job.state)
        return job

    def give_to(self, models: Mapping[str, ModelFacts], *, but: Collection[str] = (), by: Actor = SYSTEM) -> int:
        """Give jobs that wait for a model's other file to this one.

        As after an upgrade, whose workers have no other. A warning tells each sender, and the audit log has it.

        To be called while no worker lives: a job that is running then was left by one that was killed, and will wait again.

        :param models: those that there are, by name.
        :param but: hashes of retired models that still draw the jobs which have them.
        :returns: how many were given.
        """
        given = []
        with self._database.writing() as connection:
            for name, model in models.items():
                other = _OPEN & (JOBS.c.model_name == name) & (JOBS.c.model_sha256 != model.sha256)
                other &= JOBS.c.model_sha256.not_in(but)
                for row in connection.execute(select(JOBS).where(other)).mappings().all():
                    values = model_columns(model) | {
                        "intake_warnings": with_notice(row["intake_warnings"], _replaced(row, model))
                    }
                    if change(connection, JobId(row["id"]), other, values):
                        given.append(event(Action.JOB_GIVEN, by, {**row, **values}))
            audit.append(connection, self._clock(), *given)
        return len(given)

    def purge(self, job_id: JobId, *, by: Actor = SYSTEM) -> None:
        """Delete a job's data but its id, state and times.

        A job that has not ended is cancelled.

        A worker that still runs it loses its lease. A second purge changes nothing.

        :raises JobNotFound: if there never was one.
        """
        now = self._clock()
        with self._database.writing() as connection:
            change(connection, job_id, _OPEN, {"state": JobState.CANCELLED, "finished_at": now, "cancel_requested": True})
            for table in OF_A_JOB:
                connection.execute(delete(table).where(table.c.job_id == job_id))
            if change(connection, job_id, JOBS.c.purged_at.is_(None), TOMBSTONE | {"purged_at": now}):
                forget_comments(connection, [job_id])
                audit.append(connection, now, Event(Action.JOB_PURGED, by, job_id))
        self.get(job_id)

    # ── what the sweeper asks ─────────────────────────────────────────────────────────────────────────────────────────

    def queued(self, *, unsent: bool = False) -> dict[JobId, Queued]:
        """Every queued job, in the order of the queue.

        When it was queued, and when it was sent.

        :param unsent: whether to leave out those that were sent.
        """
        query = select(JOBS.c.id, JOBS.c.queued_at, JOBS.c.sent_at).where(JOBS.c.state == JobState.QUEUED).order_by(*QUEUE_ORDER)
        if unsent:
            query = query.where(JOBS.c.sent_at.is_(None))
        with self._database.reading() as connection:
            return {JobId(row.id): Queued(row.queued_at, row.sent_at) for row in connection.execute(query)}

    def states(self) -> dict[JobId, JobState]:
        """The state of every job that was not purged."""
        with self._database.reading() as connection:
            rows = connection.execute(select(JOBS.c.id, JOBS.c.state).where(JOBS.c.purged_at.is_(None)))
            return {JobId(row.id): JobState(row.state) for row in rows}

    def marked_sent(self, job_id: JobId) -> bool:
        """Note that a job's message is on the queue.

        The message's id is this one; False if the job is gone. Where a loss of power undoes it, the message is sent again.
        """
        with self._database.noting() as connection:
            return change(connection, job_id, JOBS.c.purged_at.is_(None), {"sent_at": self._clock()})

    def counts(self) -> Mapping[JobState, int]:
        """How many jobs stand in each state, without the purged ones."""
        query = select(JOBS.c.state, func.count()).where(JOBS.c.purged_at.is_(None)).group_by(JOBS.c.state)
        with self._database.reading() as connection:
            found = {JobState(row[0]): int(row[1]) for row in connection.execute(query)}
        return {state: found.get(state, 0) for state in JobState}

    def open_by_site(self) -> dict[tuple[str, JobState], int]:
        """How many jobs of each site wait, and how many run.

        Read off an index, however many have ended.
        """
        query = select(JOBS.c.site, JOBS.c.state, func.count()).where(_OPEN).group_by(JOBS.c.state, JOBS.c.site)
        with self._database.reading() as connection:
            return {(site, JobState(state)): int(count) for site, state, count in connection.execute(query)}

    def waiting(self) -> int:
        """How many jobs wait for a worker."""
        return sum(count for (_, state), count in self.open_by_site().items() if state is JobState.QUEUED)

    def _next_rank(self, connection: Connection, site: str, priority: Priority) -> int:
        """Where a job that is queued now stands; of a long queue no more is looked at than its step depends on."""
        share, steps = self._shares.get(site, 1), steps_of(priority)
        waiting = (JOBS.c.state == JobState.QUEUED, JOBS.c.site == site, JOBS.c.rank.between(steps[0], steps[-1]))
        enough = select(JOBS.c.id).where(*waiting).limit(share * STEPS[-1]).subquery()
        count = connection.scalar(select(func.count()).select_from(enough)) or 0
        furthest = connection.scalar(select(func.max(JOBS.c.rank)).where(*waiting)) or 0
        return rank_of(priority, count, furthest, share)


def _bound(place: tuple[object, ...]) -> Tuple:
    return tuple_(*(literal(value, column.type) for value, column in zip(place, QUEUE_ORDER, strict=True)))


def _replaced(row: Mapping[str, Any] | RowMapping, model: ModelFacts) -> Notice:
    before, now = row["model_version"], model.version
    detail = f"It was posted for {model.name} {before}, which was replaced by {now} before it was drawn: {now} draws it."
    return Notice("job.model_replaced", detail)


def _columns(job: NewJob, now: datetime) -> dict[str, Any]:
    """The row of a new job."""
    values = series_columns(job.series) | model_columns(job.model) | FRESH
    values |= {"id": job.id, "profile": job.profile, "priority": int(job.priority), "intake_warnings": dump(job.warnings)}
    return values | {
        "idempotency_key": sealed(job.idempotency_key, job.site),
        "content_sha256": job.content_sha256,
        "created_at": now,
        "queued_at": now,
        "keep_input_s": job.retention.input_s,
        "keep_results_s": job.retention.results_s,
        "callback_url": job.callback_url,
        "callback_pending": None if job.callback_url is None else True,
        "identity": job.identity,
        "site": job.site,
        "label": job.label,
    }


def _older_than(cursor: str) -> ColumnElement[bool]:
    created_at, job_id = of_cursor(cursor)
    before = or_(JOBS.c.created_at < created_at, JOBS.c.id < job_id)
    return and_(JOBS.c.created_at <= created_at, before)  # the first alone already says where in the index to begin

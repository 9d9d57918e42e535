"""Reviews: what a person says of a job's organs.

Usable, to be edited, or unusable.

Nothing is ever changed: whoever thinks again adds a review, and the newest one of an organ counts. A comment may hold anything,
also who the patient is. It is for those who may see the job, and is deleted with it; the rest stays, as scores do.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal

from sqlalchemy import Connection, RowMapping, func, insert, select, update

from oarlock.store import audit
from oarlock.store.audit import Action, Actor, Event
from oarlock.store.database import Database, utc_now
from oarlock.store.job_rows import check_alive
from oarlock.store.jobs import Job, JobId
from oarlock.store.schema import REVIEWS

Opinion = Literal["usable", "needs_edits", "unusable"]
"""What is said of an organ."""

_AT_ONCE: Final = 10_000
"""Jobs that one statement asks for: PostgreSQL takes 65,535 parameters, SQLite often 32,766, and charts may show more jobs."""


@dataclass(frozen=True, slots=True)
class Review:
    """What somebody said of one organ of a job.

    :ivar by: their name, as their key or token has it.
    :ivar comment: None if they wrote none, or the job was purged.
    """

    id: int
    job_id: JobId
    model: str
    model_version: str
    oar: str
    verdict: Opinion
    comment: str | None
    by: str
    at: datetime


class ReviewStore:
    """All reviews of all jobs.

    :param clock: gives the present as an aware time.
    """

    def __init__(self, database: Database, *, clock: Callable[[], datetime] = utc_now) -> None:
        self._database, self._clock = database, clock

    def add(self, job: Job, said: Sequence[tuple[str, Opinion, str | None]], *, by: Actor) -> None:
        """Write down what somebody says of some organs: name, opinion, comment.

        :raises JobExpired: if the job was purged in the meantime.
        """
        now = self._clock()
        known: dict[str, Any] = {"job_id": job.id, "site": job.site, "model": job.model.name, "model_version": job.model.version}
        known |= {"at": now, "actor": by.id, "actor_name": by.name}
        rows = [known | {"oar": oar, "verdict": verdict, "comment": comment} for oar, verdict, comment in said]
        events = [
            Event(Action.JOB_REVIEWED, by, job.id, audit.to_text(job.model), f"{oar} {verdict}") for oar, verdict, _ in said
        ]
        with self._database.writing() as connection:
            check_alive(connection, job.id)
            connection.execute(insert(REVIEWS), rows)
            audit.append(connection, now, *events)

    def latest(self, job_ids: Collection[JobId]) -> dict[JobId, list[Review]]:
        """The newest review of each organ of these jobs.

        A job without any is left out.
        """
        asked, found = list(job_ids), dict[JobId, list[Review]]()
        with self._database.reading() as connection:
            for first in range(0, len(asked), _AT_ONCE):
                mine = REVIEWS.c.job_id.in_(asked[first : first + _AT_ONCE])
                newest = select(func.max(REVIEWS.c.id)).where(mine).group_by(REVIEWS.c.job_id, REVIEWS.c.oar)
                query = select(REVIEWS).where(REVIEWS.c.id.in_(newest)).order_by(REVIEWS.c.id)
                for row in connection.execute(query).mappings():
                    found.setdefault(JobId(row["job_id"]), []).append(_review(row))
        return found

    def opinions(self, job_ids: Collection[JobId]) -> dict[tuple[str, str], Opinion]:
        """The newest verdict on each organ of these jobs.

        By the job's id and the organ.
        """
        return {(job_id, one.oar): one.verdict for job_id, said in self.latest(job_ids).items() for one in said}

    def page(self, *, site: str, oar: str | None = None, before: int | None = None, limit: int = 500) -> list[Review]:
        """Reviews, newest first.

        :param site: whose jobs; empty for those of all sites.
        :param before: only those that are older than the one with this id.
        """
        wanted = [REVIEWS.c.site == site] if site else []
        wanted += [REVIEWS.c.oar == oar] if oar is not None else []
        wanted += [REVIEWS.c.id < before] if before is not None else []
        query = select(REVIEWS).where(*wanted).order_by(REVIEWS.c.id.desc()).limit(limit)
        with self._database.reading() as connection:
            return [_review(row) for row in connection.execute(query).mappings()]

    def counts(self) -> list[tuple[str, str, int]]:
        """Organ, verdict, and how often it was said, over all jobs ever."""
        query = select(REVIEWS.c.oar, REVIEWS.c.verdict, func.count()).group_by(REVIEWS.c.oar, REVIEWS.c.verdict)
        with self._database.reading() as connection:
            return [(oar, verdict, count) for oar, verdict, count in connection.execute(query)]


def forget_comments(connection: Connection, job_ids: Collection[str]) -> None:
    """Delete the comments on jobs, in the transaction that purges them."""
    connection.execute(update(REVIEWS).where(REVIEWS.c.job_id.in_(job_ids)).values(comment=None))


def _review(row: RowMapping) -> Review:
    return Review(
        id=row["id"],
        job_id=JobId(row["job_id"]),
        model=row["model"],
        model_version=row["model_version"],
        oar=row["oar"],
        verdict=row["verdict"],
        comment=row["comment"],
        by=row["actor_name"],
        at=row["at"],
    )

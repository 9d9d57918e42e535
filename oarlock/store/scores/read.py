"""Reading scores: pages of rows, histograms and counts.

Summaries and charts are in their own modules.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import accumulate
from typing import Any, Final

from sqlalchemy import Row, exists, func, or_, select

from oarlock.facts import ComparisonRows, ModelFacts
from oarlock.organs.catalogue import BY_NAME
from oarlock.qa.quantiles import Distribution
from oarlock.store.audit import Actor
from oarlock.store.cursors import invalid_cursor, of_cursor, to_cursor
from oarlock.store.database import Database, utc_now
from oarlock.store.jobs import Job
from oarlock.store.schema import QA_CASES, QA_HISTOGRAM, QA_SCORES, QA_STREAMS
from oarlock.store.scores.baselines import Baseline, KeptBaseline, keep, newest
from oarlock.store.scores.charts import Chart, read_charts
from oarlock.store.scores.filters import Filters, of_cases, read_streams
from oarlock.store.scores.findings import Findings, read_checks, read_findings
from oarlock.store.scores.summaries import OARSummary, read_turnaround_s, summarise
from oarlock.store.scores.write import BUCKETS, NUMBERS, SAID, Origin, approve, is_shadow


@dataclass(frozen=True, slots=True)
class Histogram:
    """Surface DSC of all cases ever.

    ``counts[i]`` of them are at most ``BUCKETS[i]``; ``total`` is their sum. ``site`` is empty for an operator's jobs.
    """

    model: str
    model_version: str
    scanner: str
    site: str
    origin: str
    oar: str
    counts: tuple[int, ...]
    total: float


@dataclass(frozen=True, slots=True)
class Return:
    """An RTSTRUCT that was approved for a job.

    :ivar position: among those of the job, from 1; a later one ``superseded`` it.
    :ivar content_sha256: of the file.
    """

    at: datetime
    position: int
    content_sha256: str
    superseded: bool


_STREAM: Final = (QA_STREAMS.c.model, QA_STREAMS.c.model_version, QA_STREAMS.c.scanner, QA_STREAMS.c.site)


class ScoreStore:
    """What dashboards and Prometheus ask, and where approved contours are written down.

    :param clock: gives the present as an aware time.
    """

    def __init__(self, database: Database, *, clock: Callable[[], datetime] = utc_now) -> None:
        self._database, self._clock = database, clock

    def scores(self, filters: Filters, *, limit: int, cursor: str | None = None) -> tuple[list[dict[str, Any]], str | None]:
        """A page of rows and the cursor of the next page.

        Newest case first and by organ within a case; the cursor is None at the end.

        :raises InvalidParameter: if the cursor is not one that this method gave.
        """
        with self._database.reading() as connection:
            streams = read_streams(connection, filters)
            if not streams:
                return [], None
            found = connection.execute(_page(filters, streams, limit + 1, cursor)).mappings().all()
        rows = [_row(one, streams[one["stream_id"]]) for one in found[:limit]]
        if len(found) <= limit:
            return rows, None
        last = found[limit - 1]
        return rows, to_cursor(last["at"], f"{last['id']}.{last['oar']}")

    def summary(self, filters: Filters, *, alert_level: float, part_of: Callable[[int], int] | None) -> list[OARSummary]:
        """What the scores of each organ say together, see :func:`oarlock.store.scores.summaries.summarise`."""
        with self._database.reading() as connection:
            return summarise(connection, filters, alert_level, part_of)

    def turnaround_s(self, filters: Filters) -> Distribution | None:
        """How long jobs took, see :func:`oarlock.store.scores.summaries.read_turnaround_s`."""
        with self._database.reading() as connection:
            return read_turnaround_s(connection, filters)

    def approve(
        self,
        job: Job,
        scanner: str,
        comparison: ComparisonRows,
        content_sha256: str,
        *,
        by: Actor,
        shadow: ModelFacts | None = None,
    ) -> bool:
        """Write the comparison with an approved RTSTRUCT, see :func:`oarlock.store.scores.write.approve`."""
        with self._database.writing() as connection:
            return approve(
                connection,
                self._clock(),
                job,
                comparison,
                scanner=scanner,
                content_sha256=content_sha256,
                by=by,
                shadow=shadow,
            )

    def returns(self, job_id: str) -> list[Return]:
        """What was approved for a job, in order of arrival."""
        columns = (QA_CASES.c.at, QA_CASES.c.position, QA_CASES.c.content_sha256, QA_CASES.c.superseded)
        mine = (QA_CASES.c.job_id == job_id) & (QA_CASES.c.origin == Origin.APPROVED)
        mine &= is_shadow(QA_CASES.c.stream_id, wanted=False)
        with self._database.reading() as connection:
            return [Return(*row) for row in connection.execute(select(*columns).where(mine).order_by(QA_CASES.c.position))]

    def keep_baseline(self, baseline: Baseline, *, by: Actor) -> None:
        """Write down what a model scored on past patients, see :func:`oarlock.store.scores.baselines.keep`."""
        with self._database.writing() as connection:
            keep(connection, self._clock(), baseline, by=by)

    def baselines(self, site: str) -> list[KeptBaseline]:
        """The newest baseline of each model and site, the newest first.

        :param site: whose are asked for, beside those that hold for all; empty for those of every site.
        """
        with self._database.reading() as connection:
            return sorted(newest(connection, site).values(), key=lambda one: one.at, reverse=True)

    def charts(self, filters: Filters, *, points: int) -> list[Chart]:
        """The control charts of what was approved, see :func:`oarlock.store.scores.charts.read_charts`."""
        with self._database.reading() as connection:
            return read_charts(connection, filters, points)

    def histograms(self, *, shadow: bool = False) -> list[Histogram]:
        """Surface DSC by model, version, scanner, site, origin and organ.

        :param shadow: whether of shadow runs, or of what was delivered.
        """
        key = (*_STREAM, QA_HISTOGRAM.c.origin, QA_HISTOGRAM.c.oar)
        sums = (QA_HISTOGRAM.c.bucket, func.sum(QA_HISTOGRAM.c.cases), func.sum(QA_HISTOGRAM.c.total))
        query = select(*key, *sums).join(QA_STREAMS, QA_STREAMS.c.id == QA_HISTOGRAM.c.stream_id)
        query = query.where(QA_STREAMS.c.shadow == shadow)
        with self._database.reading() as connection:
            rows = connection.execute(query.group_by(*key, QA_HISTOGRAM.c.bucket).order_by(*key)).all()
        cells: dict[tuple[str, ...], dict[int, tuple[int, float]]] = {}
        for *labels, bucket, cases, total in rows:
            cells.setdefault(tuple(labels), {})[bucket] = (int(cases), total)
        return [_histogram(labels, by_bucket) for labels, by_bucket in cells.items()]

    def known_streams(self) -> list[tuple[str, str, str, str]]:
        """Model, version, scanner and site of everything that was ever delivered."""
        with self._database.reading() as connection:
            return [
                (row[0], row[1], row[2], row[3])
                for row in connection.execute(select(*_STREAM).where(~QA_STREAMS.c.shadow).distinct())
            ]

    def check_counts(self) -> list[tuple[str, str, str, int]]:
        """How often each check was given at each level.

        Organ (empty for a whole set); code of a check, ``VERDICT`` or ``ACTION_LEVELS``; level; count.
        """
        with self._database.snapshot() as connection:
            return read_checks(connection)

    def findings(self, filters: Filters, *, part_of: Callable[[int], int] | None) -> list[Findings]:
        """What the checks said, see :func:`oarlock.store.scores.findings.read_findings`."""
        with self._database.snapshot() as connection:
            return read_findings(connection, filters, part_of)


def _page(filters: Filters, streams: Mapping[int, object], rows: int, cursor: str | None) -> Any:
    """The rows behind a cursor. First the cases are chosen, no more than there are rows: what is sorted stays small."""
    wanted, behind = of_cases(filters, streams), []
    if cursor is not None:
        at, case_id, oar = _place_of(cursor)
        wanted += [QA_CASES.c.at <= at, or_(QA_CASES.c.at < at, QA_CASES.c.id <= case_id)]
        behind = [or_(QA_SCORES.c.case_id != case_id, QA_SCORES.c.oar > oar)]
    same = QA_SCORES.c.case_id == QA_CASES.c.id
    if filters.oar is not None:
        behind.append(QA_SCORES.c.oar == filters.oar)
    has_rows = exists().where(same, *behind)
    order = (QA_CASES.c.at.desc(), QA_CASES.c.id.desc())
    cases = select(QA_CASES).where(*wanted, has_rows).order_by(*order).limit(rows).subquery()
    found = select(cases, QA_SCORES).join(QA_SCORES, QA_SCORES.c.case_id == cases.c.id).where(*behind)
    return found.order_by(cases.c.at.desc(), cases.c.id.desc(), QA_SCORES.c.oar).limit(rows)


def _place_of(cursor: str) -> tuple[datetime, int, str]:
    at, key = of_cursor(cursor)
    case_id, _, oar = key.partition(".")
    if not case_id.isdecimal() or oar not in BY_NAME or len(case_id) > 9:
        raise invalid_cursor()
    return at, int(case_id), oar


def _row(found: Mapping[Any, Any], stream: Row[Any]) -> dict[str, Any]:
    origin = {name: found[name] for name in ("at", "job_id", "origin", "position")}
    source = {name: getattr(stream, name) for name in ("model", "model_version", "model_sha256", "scanner", "site", "shadow")}
    numbers = {name: found[name] for name in ("oar", "presence", "definition", "tolerance_mm", *NUMBERS, *SAID)}
    return origin | source | numbers


def _histogram(labels: tuple[str, ...], cells: Mapping[int, tuple[int, float]]) -> Histogram:
    counts = (cells[i][0] if i in cells else 0 for i in range(len(BUCKETS)))
    model, version, scanner, site, origin, oar = labels
    total = sum(total for _, total in cells.values())
    return Histogram(model, version, scanner, site, origin, oar, tuple(accumulate(counts)), total)

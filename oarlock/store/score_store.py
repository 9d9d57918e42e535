"""QAStore: the scores of every finished job, for dashboards; rows without patient data that may outlive their job.

A case is one comparison of a job's contours with one RTSTRUCT. Its rows are written in the transaction that ends the job, so
that there is neither without the other, and never twice. What dashboards and Prometheus ask again and again is counted in the
same transaction: by day for summaries, as a histogram for metrics.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import accumulate
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from sqlalchemy import (
    ColumnElement,
    Connection,
    LargeBinary,
    Row,
    Table,
    and_,
    cast,
    exists,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from oarlock.errors import JobExpired
from oarlock.facts import ModelFacts
from oarlock.organs.catalogue import BY_NAME, OARS
from oarlock.qa.control_chart import BASELINE, LOOK_BACK, Alarm, ControlLimits
from oarlock.qa.plausibility import Finding
from oarlock.qa.quantiles import Distribution, IntArray, distributions
from oarlock.qa.report import DEFINITION, OARScore, Presence, QAReport
from oarlock.store import audit
from oarlock.store.audit import Action, Actor, Event
from oarlock.store.cursors import invalid_cursor, of_cursor, to_cursor
from oarlock.store.database import Database, utc_now
from oarlock.store.jobs import Job
from oarlock.store.schema import EPOCH, JOBS, QA_CASES, QA_CHECKS, QA_DAYS, QA_HISTOGRAM, QA_SCORES, QA_STREAMS

Records = npt.NDArray[np.void]
Columns = Mapping[str, npt.NDArray[Any]]

BUCKETS: Final = (0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.925, 0.95, 0.975, 0.99, 1.0)
"""Upper bounds of the histogram of surface DSC."""

_NUMBERS: Final = (
    "surface_dsc",
    "surface_dsc_unrounded",
    "volumetric_dsc",
    "hausdorff_95_mm",
    "mean_surface_distance_mm",
    "added_path_length_mm",
    "predicted_volume_ml",
    "reference_volume_ml",
    "tolerance_rounded_mm",
)
PACKED: Final = np.dtype([("oar", "u1"), ("both", "u1"), ("surface_dsc", "<f8"), ("volumetric_dsc", "<f8")])
"""An organ of a case as summaries read it: its place in :data:`OARS`, whether both sides drew it, and its scores or NaN."""

_PLACES: Final = {oar.name: place for place, oar in enumerate(OARS)}


class Origin(StrEnum):
    """Where the RTSTRUCT of a case came from."""

    SUPPLIED = "supplied"
    APPROVED = "approved"


@dataclass(frozen=True, slots=True)
class Case:
    """What was compared.

    :ivar scanner: what the CT came from (:attr:`oarlock.ct.series.SeriesHeader.scanner`).
    :ivar position: of the RTSTRUCT among those of its origin for the job, from 1.
    :ivar content_sha256: of an approved RTSTRUCT.
    """

    job_id: str
    model: ModelFacts
    scanner: str
    origin: Origin
    position: int
    content_sha256: str | None = None


@dataclass(frozen=True, slots=True)
class Scored:
    """What a finished job leaves here.

    :ivar scanner: what the CT came from.
    :ivar reports: a comparison with each supplied RTSTRUCT.
    :ivar checks: what the checks without a reference found.
    """

    scanner: str
    reports: Sequence[QAReport] = ()
    checks: Sequence[Finding] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """Which cases are wanted; None for all. ``since`` is the first moment, ``until`` the first one after."""

    since: datetime | None = None
    until: datetime | None = None
    model: str | None = None
    model_version: str | None = None
    scanner: str | None = None
    origin: Origin | None = None
    oar: str | None = None


@dataclass(frozen=True, slots=True)
class Summary:
    """The scores of one organ over some time.

    :ivar n: cases that both sides drew; ``one_sided``, those that one side alone drew.
    """

    n: int
    one_sided: int
    surface_dsc: Distribution | None
    volumetric_dsc: Distribution | None


@dataclass(frozen=True, slots=True)
class OARSummary:
    """One organ: over the whole time, and over each part of it that has a case, by its first day."""

    oar: str
    whole: Summary
    parts: Mapping[int, Summary]


@dataclass(frozen=True, slots=True)
class Point:
    """One approved case on a chart; ``alarms`` are those that it completes."""

    at: datetime
    job_id: str
    score: float
    alarms: tuple[Alarm, ...] = ()


@dataclass(frozen=True, slots=True)
class Chart:
    """How the surface DSC of one organ, model and scanner went.

    :ivar baseline: what the limits are made of; as many as there are, until there are enough.
    :ivar limits: None until then, and where the baseline does not vary.
    :ivar points: the newest ones behind the baseline, in their order.
    """

    oar: str
    model: ModelFacts
    scanner: str
    baseline: Sequence[Point]
    limits: ControlLimits | None
    points: Sequence[Point]


@dataclass(frozen=True, slots=True)
class Histogram:
    """Surface DSC of all cases ever: ``counts[i]`` of them are at most ``BUCKETS[i]``; ``total`` is their sum."""

    model: str
    oar: str
    counts: tuple[int, ...]
    total: float


# ── writing ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def append(connection: Connection, now: datetime, job_id: str, model: ModelFacts, scored: Scored) -> None:
    """Write what a job leaves, in the transaction that ends it."""
    for position, report in enumerate(scored.reports, start=1):
        add_case(connection, now, Case(job_id, model, scored.scanner, Origin.SUPPLIED, position), report)
    counts: dict[tuple[str, str], int] = {}
    for check in scored.checks:
        counts[check.code, check.level] = counts.get((check.code, check.level), 0) + 1
    rows = [{"code": code, "level": level, "findings": n} for (code, level), n in sorted(counts.items())]
    _count(connection, QA_CHECKS, rows, "findings")


def add_case(connection: Connection, now: datetime, case: Case, report: QAReport) -> None:
    """Write one comparison and count it."""
    scores = sorted(
        (score for score in report.scores if score.presence is not Presence.NEITHER), key=lambda score: score.oar.name
    )
    stream_id = _stream(connection, case.model, case.scanner)
    values = {
        "at": now,
        "job_id": case.job_id,
        "origin": case.origin,
        "position": case.position,
        "stream_id": stream_id,
        "definition": DEFINITION,
        "content_sha256": case.content_sha256,
        "superseded": False,
    }
    case_id = connection.execute(insert(QA_CASES).values(values).returning(QA_CASES.c.id)).scalar_one()
    if not scores:
        return
    connection.execute(insert(QA_SCORES), [{"case_id": case_id, **_numbers(score)} for score in scores])
    packed = np.array([_packed(score) for score in scores], PACKED).tobytes()
    _add_to_day(connection, {"day": day_of(now), "stream_id": stream_id, "origin": case.origin, "scores": packed})
    histogram = [_cell(case.model.name, score.oar.name, value) for score in scores if (value := score.surface_dsc) is not None]
    _count(connection, QA_HISTOGRAM, histogram, "cases", "total")


def _numbers(score: OARScore) -> dict[str, Any]:
    """A row of ``qa_scores``. The name of the reference's ROI is left out: its sender chose it."""
    known = {name: getattr(score.measured, name) for name in _NUMBERS}
    return known | {"oar": score.oar.name, "presence": score.presence.value, "tolerance_mm": score.tolerance_mm}


def _packed(score: OARScore) -> tuple[int, bool, float, float]:
    scores = (score.measured.surface_dsc, score.measured.volumetric_dsc)
    surface, volumetric = (math.nan if value is None else value for value in scores)
    return _PLACES[score.oar.name], score.presence is Presence.BOTH, surface, volumetric


def _cell(model: str, oar: str, value: float) -> dict[str, Any]:
    bucket = next((i for i, bound in enumerate(BUCKETS) if value <= bound), len(BUCKETS) - 1)
    return {"model": model, "oar": oar, "bucket": bucket, "cases": 1, "total": value}


def _stream(connection: Connection, model: ModelFacts, scanner: str) -> int:
    key = {"model": model.name, "model_version": model.version, "model_sha256": model.sha256, "scanner": scanner}
    connection.execute(_insert(connection)(QA_STREAMS).values(key).on_conflict_do_nothing())
    same = and_(*(QA_STREAMS.c[name] == value for name, value in key.items()))
    return int(connection.execute(select(QA_STREAMS.c.id).where(same)).scalar_one())


def _count(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]], *counters: str) -> None:
    """Add rows, in the order of their keys, to the counters of those that have the same key.

    With one order for all, no two transactions wait for each other.
    """
    if rows:
        new = _insert(connection)(table)
        grown = {name: table.c[name] + new.excluded[name] for name in counters}
        connection.execute(new.on_conflict_do_update(index_elements=list(table.primary_key), set_=grown), rows)


def _add_to_day(connection: Connection, row: Mapping[str, Any]) -> None:
    new = _insert(connection)(QA_DAYS).values(row)
    longer = cast(QA_DAYS.c.scores.op("||")(new.excluded.scores), LargeBinary)  # SQLite takes what is joined for text
    connection.execute(new.on_conflict_do_update(index_elements=list(QA_DAYS.primary_key), set_={"scores": longer}))


def _insert(connection: Connection) -> Any:
    """The INSERT that can meet a row which is there already; both databases spell it alike."""
    return postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert


def day_of(moment: datetime) -> int:
    """The day of a moment, counted from 1970-01-01, UTC."""
    return (moment - EPOCH) // timedelta(days=1)


# ── reading ───────────────────────────────────────────────────────────────────────────────────────────────────────────


class QAStore:
    """What dashboards and Prometheus ask, and where approved contours are written down."""

    def __init__(self, database: Database, *, clock: Callable[[], datetime] = utc_now) -> None:
        self._database = database
        self._clock = clock

    def scores(self, filters: Filters, *, limit: int, cursor: str | None = None) -> tuple[list[dict[str, Any]], str | None]:
        """A page of rows, newest case first and by organ within a case, and the cursor of the next page (None at the end).

        :raises InvalidParameter: if the cursor is not one that this method gave.
        """
        with self._database.reading() as connection:
            streams = _streams(connection, filters)
            if not streams:
                return [], None
            found = connection.execute(_page(filters, streams, limit + 1, cursor)).mappings().all()
        rows = [_row(one, streams[one["stream_id"]]) for one in found[:limit]]
        if len(found) <= limit:
            return rows, None
        last = found[limit - 1]
        return rows, to_cursor(last["at"], f"{last['id']}.{last['oar']}")

    def summary(self, filters: Filters, *, alert_level: float, part_of: Callable[[int], int] | None) -> list[OARSummary]:
        """What the scores of each organ say together, in the house's order; organs without a case are left out.

        :param filters: its moments are taken for the whole days that they lie in; ``until`` is not among them.
        :param part_of: from a day, counted from 1970, to the first day of the part of time that it belongs to; None for no parts.
        """
        with self._database.reading() as connection:
            streams = _streams(connection, filters)
            rows = connection.execute(_days(filters, streams)).all() if streams else []
        part = [part_of(row.day) if part_of else 0 for row in rows]
        parts = sorted(set(part)) if part_of else []
        numbers = np.searchsorted(parts, part) if part_of else np.zeros(len(rows), np.int64)
        groups = np.repeat(numbers, [len(row.scores) // PACKED.itemsize for row in rows])
        table = np.frombuffer(b"".join(row.scores for row in rows), PACKED)
        return [_oar_summary(oar, *columns, parts, alert_level) for oar, columns in _by_oar(table, groups, filters.oar)]

    def approve(self, job: Job, scanner: str, report: QAReport, content_sha256: str, *, by: Actor) -> bool:
        """Write the comparison with the RTSTRUCT that was approved for a job; it takes the place of an earlier one on the charts.

        :returns: False if this very RTSTRUCT is the last one that was approved for the job: then there is nothing to write.
        :raises JobExpired: if the job was purged in the meantime.
        """
        now = self._clock()
        with self._database.writing() as connection:
            _check_alive(connection, job)
            mine = and_(QA_CASES.c.job_id == job.id, QA_CASES.c.origin == Origin.APPROVED)
            earlier = connection.execute(select(QA_CASES).where(mine).order_by(QA_CASES.c.id)).all()
            if earlier and earlier[-1].content_sha256 == content_sha256:
                return False
            connection.execute(update(QA_CASES).where(mine).values(superseded=True))
            case = Case(job.id, job.model, scanner, Origin.APPROVED, len(earlier) + 1, content_sha256)
            add_case(connection, now, case, report)
            result = f"approved {case.position} sha256:{content_sha256}"
            audit.append(connection, now, Event(Action.REFERENCE_RETURNED, by, job.id, audit.to_text(job.model), result))
        return True

    def charts(self, filters: Filters, *, points: int) -> list[Chart]:
        """The control charts of what was approved, by model and scanner and in the house's order of organs.

        :param filters: ``since`` is where the baseline begins.
        :param points: most points of a chart behind its baseline, the newest ones.
        """
        approved = replace(filters, origin=Origin.APPROVED)
        with self._database.reading() as connection:
            streams = sorted(_streams(connection, filters).values(), key=lambda row: (row.model, row.scanner, row.id))
            return [chart for stream in streams for chart in _charts(connection, stream, approved, points)]

    def histograms(self) -> list[Histogram]:
        """Surface DSC by model and organ."""
        with self._database.reading() as connection:
            rows = connection.execute(select(QA_HISTOGRAM).order_by(QA_HISTOGRAM.c.model, QA_HISTOGRAM.c.oar)).all()
        cells: dict[tuple[str, str], dict[int, Row[Any]]] = {}
        for row in rows:
            cells.setdefault((row.model, row.oar), {})[row.bucket] = row
        return [_histogram(model, oar, by_bucket) for (model, oar), by_bucket in cells.items()]

    def check_counts(self) -> list[tuple[str, str, int]]:
        """Code of a check, level, and how often it was given."""
        with self._database.reading() as connection:
            rows = connection.execute(select(QA_CHECKS).order_by(QA_CHECKS.c.code, QA_CHECKS.c.level)).all()
        return [(row.code, row.level, row.findings) for row in rows]


def _streams(connection: Connection, filters: Filters) -> dict[int, Row[Any]]:
    """The models and scanners that are wanted: a handful, so the large tables are asked by number."""
    asked = {"model": filters.model, "model_version": filters.model_version, "scanner": filters.scanner}
    same = [QA_STREAMS.c[name] == value for name, value in asked.items() if value is not None]
    return {row.id: row for row in connection.execute(select(QA_STREAMS).where(*same))}


def _of_streams(column: ColumnElement[int], filters: Filters, streams: Mapping[int, object]) -> list[ColumnElement[bool]]:
    if filters.model is filters.model_version is filters.scanner is None:
        return []
    return [column == next(iter(streams))] if len(streams) == 1 else [column.in_(streams)]


def _wanted(filters: Filters, streams: Mapping[int, object]) -> list[ColumnElement[bool]]:
    wanted = _of_streams(QA_CASES.c.stream_id, filters, streams)
    if filters.since is not None:
        wanted.append(QA_CASES.c.at >= filters.since)
    if filters.until is not None:
        wanted.append(QA_CASES.c.at < filters.until)
    if filters.origin is not None:
        wanted.append(QA_CASES.c.origin == filters.origin)
    return wanted


def _page(filters: Filters, streams: Mapping[int, object], rows: int, cursor: str | None) -> Any:
    """The rows behind a cursor. First the cases are chosen, no more than there are rows: what is sorted stays small."""
    wanted, behind = _wanted(filters, streams), []
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
    source = {name: getattr(stream, name) for name in ("model", "model_version", "model_sha256", "scanner")}
    numbers = {name: found[name] for name in ("oar", "presence", "definition", "tolerance_mm", *_NUMBERS)}
    return origin | source | numbers


def _days(filters: Filters, streams: Mapping[int, object]) -> Any:
    wanted = _of_streams(QA_DAYS.c.stream_id, filters, streams)
    if filters.since is not None:
        wanted.append(QA_DAYS.c.day >= day_of(filters.since))
    if filters.until is not None:
        wanted.append(QA_DAYS.c.day <= day_of(filters.until - timedelta(microseconds=1)))
    if filters.origin is not None:
        wanted.append(QA_DAYS.c.origin == filters.origin)
    return select(QA_DAYS.c.day, QA_DAYS.c.scores).where(*wanted)


def _by_oar(table: Records, groups: IntArray, oar: str | None) -> Iterator[tuple[str, tuple[Columns, IntArray]]]:
    """The columns of each organ that has a record, or of one organ, in the house's order.

    They are taken apart once, each in one piece: asking packed records again for every organ is most of the work otherwise.
    """
    places = np.ascontiguousarray(table["oar"])
    order = np.flatnonzero(places == _PLACES[oar]) if oar else np.argsort(places, kind="stable")
    columns = {name: np.ascontiguousarray(table[name])[order] for name in ("both", "surface_dsc", "volumetric_dsc")}
    groups, counts = groups[order], np.bincount(places[order], minlength=len(OARS))
    ends = np.cumsum(counts)
    for place in np.flatnonzero(counts):
        mine = slice(ends[place] - counts[place], ends[place])
        yield OARS[place].name, ({name: column[mine] for name, column in columns.items()}, groups[mine])


def _oar_summary(oar: str, columns: Columns, groups: IntArray, parts: Sequence[int], alert_level: float) -> OARSummary:
    """One organ.

    :param columns, groups: of its records, and the place of each one's part among ``parts``.
    """
    (whole,) = _summaries(columns, np.zeros(len(groups), np.int64), 1, alert_level)
    by_part = zip(parts, _summaries(columns, groups, len(parts), alert_level), strict=True) if parts else ()
    return OARSummary(oar, whole, {part: found for part, found in by_part if found.n or found.one_sided})


def _summaries(columns: Columns, groups: IntArray, count: int, alert_level: float) -> list[Summary]:
    both = columns["both"] == 1
    one_sided = np.bincount(groups[~both], minlength=count).tolist()
    if any(one_sided):
        columns, groups = {name: column[both] for name, column in columns.items()}, groups[both]
    n = np.bincount(groups, minlength=count).tolist()
    scores = [distributions(columns[name], groups, count, alert_level) for name in ("surface_dsc", "volumetric_dsc")]
    return [Summary(*row) for row in zip(n, one_sided, *scores, strict=True)]


def _histogram(model: str, oar: str, cells: Mapping[int, Row[Any]]) -> Histogram:
    counts = (cells[i].cases if i in cells else 0 for i in range(len(BUCKETS)))
    return Histogram(model, oar, tuple(accumulate(counts)), sum(cell.total for cell in cells.values()))


# ── charts ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _check_alive(connection: Connection, job: Job) -> None:
    """See that a job was not purged; it stays so until the transaction ends."""
    alive = select(JOBS.c.id).where(JOBS.c.id == job.id, JOBS.c.purged_at.is_(None)).with_for_update()
    if connection.scalar(alive) is None:
        raise JobExpired


def _charts(connection: Connection, stream: Row[Any], filters: Filters, points: int) -> Iterator[Chart]:
    first = _read_points(connection, stream, filters, BASELINE)
    newest = _read_points(connection, stream, filters, points + LOOK_BACK, newest=True)
    for oar in OARS:
        if filters.oar not in {None, oar.name}:
            continue
        alone = replace(filters, oar=oar.name)
        baseline = first.of(oar.name) or _read_points(connection, stream, alone, BASELINE).by_oar.get(oar.name, [])
        later = newest.of(oar.name)
        if later is None and baseline:
            later = _read_points(connection, stream, alone, points + LOOK_BACK, newest=True).by_oar.get(oar.name, [])
        if baseline:
            yield _chart(oar.name, stream, baseline, later or [], points)


def _chart(oar: str, stream: Row[Any], baseline: Sequence["_Place"], newest: Sequence["_Place"], points: int) -> Chart:
    limits = ControlLimits.of([place.point.score for place in baseline])
    after = [place.point for place in newest if place.order > baseline[-1].order]
    if limits is not None:
        by_index: dict[int, list[Alarm]] = {}
        for alarm in limits.alarms([point.score for point in after]):
            by_index.setdefault(alarm.index, []).append(alarm)
        after = [replace(point, alarms=tuple(by_index.get(i, ()))) for i, point in enumerate(after)]
    model = ModelFacts(stream.model, stream.model_version, stream.model_sha256)
    return Chart(oar, model, stream.scanner, [place.point for place in baseline], limits, after[-points:])


@dataclass(frozen=True, slots=True)
class _Place:
    """A point, and its place in the order of all."""

    order: tuple[datetime, int]
    point: Point


@dataclass(frozen=True, slots=True)
class _Found:
    """Points by organ, of some cases in a row; ``complete`` if there are no other cases."""

    by_oar: Mapping[str, list[_Place]]
    cases: int
    complete: bool

    def of(self, oar: str) -> list[_Place] | None:
        """All that is wanted of an organ; None if cases that were not read may hold more."""
        found = self.by_oar.get(oar, [])
        return found if self.complete or len(found) == self.cases else None


def _read_points(connection: Connection, stream: Row[Any], filters: Filters, cases: int, *, newest: bool = False) -> _Found:
    """The first or the newest cases of a stream, in their order; of one organ, those in which it has a score."""
    when = Filters(since=filters.since, until=filters.until, origin=filters.origin)
    wanted = [*_wanted(when, {}), QA_CASES.c.stream_id == stream.id, ~QA_CASES.c.superseded]
    order = [QA_CASES.c.at, QA_CASES.c.id]
    chosen = select(QA_CASES.c.id, QA_CASES.c.at, QA_CASES.c.job_id).where(*wanted)
    if filters.oar is not None:
        scored = and_(QA_SCORES.c.oar == filters.oar, QA_SCORES.c.surface_dsc.is_not(None))
        chosen = chosen.join(QA_SCORES, QA_SCORES.c.case_id == QA_CASES.c.id).where(scored)
    limited = chosen.order_by(*(column.desc() if newest else column for column in order)).limit(cases).subquery()
    same = [QA_SCORES.c.case_id == limited.c.id, *([] if filters.oar is None else [QA_SCORES.c.oar == filters.oar])]
    columns = (limited.c.id, limited.c.at, limited.c.job_id, QA_SCORES.c.oar, QA_SCORES.c.surface_dsc)
    query = select(*columns).join(QA_SCORES, and_(*same), isouter=True).order_by(limited.c.at, limited.c.id)
    rows = connection.execute(query).all()
    by_oar: dict[str, list[_Place]] = {}
    for case_id, at, job_id, oar, score in rows:
        if score is not None:
            by_oar.setdefault(oar, []).append(_Place((at, case_id), Point(at, job_id, score)))
    found = len({row[0] for row in rows})
    return _Found(by_oar, found, complete=found < cases)

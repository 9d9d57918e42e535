"""QAStore: the scores of every finished job, for dashboards; rows without patient data that may outlive their job.

A case is one comparison of a job's contours with one RTSTRUCT. Its rows are written in the transaction that ends the job, so
that there is neither without the other, and never twice. What dashboards and Prometheus ask again and again is counted in the
same transaction: by day for summaries, as a histogram for metrics.
"""

import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import accumulate
from typing import Any, Final

import numpy as np
from sqlalchemy import (
    ColumnElement,
    Connection,
    LargeBinary,
    Row,
    Table,
    and_,
    cast,
    insert,
    or_,
    select,
)
from sqlalchemy.dialects import postgresql, sqlite

from oarlock.database import Database
from oarlock.jobs import ModelFacts
from oarlock.oars import BY_NAME, OARS
from oarlock.paging import invalid_cursor, of_cursor, to_cursor
from oarlock.plausibility import Check
from oarlock.qa import DEFINITION, OARScore, Presence, QAReport
from oarlock.quantiles import Distribution, FloatArray
from oarlock.schema import EPOCH, QA_CASES, QA_CHECKS, QA_DAYS, QA_HISTOGRAM, QA_SCORES, QA_STREAMS

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
_NAN: Final = float("nan")
_PAIR: Final = struct.Struct("<dd")


class Origin(StrEnum):
    """Where the RTSTRUCT of a case came from."""

    SUPPLIED = "supplied"
    APPROVED = "approved"


@dataclass(frozen=True, slots=True)
class Case:
    """What was compared.

    :ivar scanner: what the CT came from (:attr:`oarlock.series.SeriesHeader.scanner`).
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
    checks: Sequence[Check] = ()


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
    key = {"day": day_of(now), "stream_id": stream_id, "origin": case.origin}
    _count_day(connection, [key | _packed(score) for score in scores])
    histogram = [_cell(case.model.name, score.oar.name, value) for score in scores if (value := score.surface_dsc) is not None]
    _count(connection, QA_HISTOGRAM, histogram, "cases", "total")


def _numbers(score: OARScore) -> dict[str, Any]:
    """A row of ``qa_scores``. The name of the reference's ROI is left out: its sender chose it."""
    known = {name: getattr(score.measured, name) for name in _NUMBERS}
    return known | {"oar": score.oar.name, "presence": score.presence.value, "tolerance_mm": score.tolerance_mm}


def _packed(score: OARScore) -> dict[str, Any]:
    pair = (_NAN if value is None else value for value in (score.measured.surface_dsc, score.measured.volumetric_dsc))
    both = score.presence is Presence.BOTH
    return {"oar": score.oar.name, "one_sided": int(not both), "scores": _PAIR.pack(*pair) if both else b""}


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


def _count_day(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    new = _insert(connection)(QA_DAYS)
    longer = cast(QA_DAYS.c.scores.op("||")(new.excluded.scores), LargeBinary)  # SQLite takes what is joined for text
    grown = {"one_sided": QA_DAYS.c.one_sided + new.excluded.one_sided, "scores": longer}
    connection.execute(new.on_conflict_do_update(index_elements=list(QA_DAYS.primary_key), set_=grown), rows)


def _insert(connection: Connection) -> Any:
    """The INSERT that can meet a row which is there already; both databases spell it alike."""
    return postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert


def day_of(moment: datetime) -> int:
    """The day of a moment, counted from 1970-01-01, UTC."""
    return (moment - EPOCH) // timedelta(days=1)


# ── reading ───────────────────────────────────────────────────────────────────────────────────────────────────────────


class QAStore:
    """What dashboards and Prometheus ask."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def scores(self, filters: Filters, *, limit: int, cursor: str | None = None) -> tuple[list[dict[str, Any]], str | None]:
        """A page of rows, newest case first and by organ within a case, and the cursor of the next page (None at the end).

        :raises InvalidParameter: if the cursor is not one that this method gave.
        """
        with self._database.reading() as connection:
            streams = _streams(connection, filters)
            if not streams:
                return [], None
            wanted = [*_wanted(filters, streams), *([] if cursor is None else [_behind(cursor)])]
            query = select(QA_CASES, QA_SCORES).join(QA_SCORES, QA_SCORES.c.case_id == QA_CASES.c.id).where(*wanted)
            order = (QA_CASES.c.at.desc(), QA_CASES.c.id.desc(), QA_SCORES.c.oar)
            found = connection.execute(query.order_by(*order).limit(limit + 1)).mappings().all()
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
            found = connection.execute(_days(filters, streams)).all() if streams else []
        by_oar: dict[str, list[Row[Any]]] = {}
        for row in found:
            by_oar.setdefault(row.oar, []).append(row)
        return [_oar_summary(oar.name, by_oar[oar.name], alert_level, part_of) for oar in OARS if oar.name in by_oar]

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
    if filters.oar is not None:
        wanted.append(QA_SCORES.c.oar == filters.oar)
    return wanted


def _behind(cursor: str) -> ColumnElement[bool]:
    at, key = of_cursor(cursor)
    case_id, _, oar = key.partition(".")
    if not case_id.isdecimal() or oar not in BY_NAME or len(case_id) > 18:
        raise invalid_cursor()
    same_moment = or_(QA_CASES.c.id < int(case_id), and_(QA_CASES.c.id == int(case_id), QA_SCORES.c.oar > oar))
    return and_(QA_CASES.c.at <= at, or_(QA_CASES.c.at < at, same_moment))


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
    if filters.oar is not None:
        wanted.append(QA_DAYS.c.oar == filters.oar)
    return select(QA_DAYS.c.day, QA_DAYS.c.oar, QA_DAYS.c.one_sided, QA_DAYS.c.scores).where(*wanted)


def _oar_summary(oar: str, rows: Sequence[Row[Any]], alert_level: float, part_of: Callable[[int], int] | None) -> OARSummary:
    parts: dict[int, list[Row[Any]]] = {}
    if part_of is not None:
        for row in rows:
            parts.setdefault(part_of(row.day), []).append(row)
    return OARSummary(oar, _summary(rows, alert_level), {day: _summary(parts[day], alert_level) for day in sorted(parts)})


def _summary(rows: Iterable[Row[Any]], alert_level: float) -> Summary:
    scores: FloatArray = np.frombuffer(b"".join(row.scores for row in rows), "<f8").reshape(-1, 2)
    of = (Distribution.of(scores[:, column], alert_level) for column in (0, 1))
    return Summary(len(scores), sum(row.one_sided for row in rows), *of)


def _histogram(model: str, oar: str, cells: Mapping[int, Row[Any]]) -> Histogram:
    counts = (cells[i].cases if i in cells else 0 for i in range(len(BUCKETS)))
    return Histogram(model, oar, tuple(accumulate(counts)), sum(cell.total for cell in cells.values()))

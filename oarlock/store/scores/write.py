"""Writing scores: what a finished job leaves for dashboards.

In the transaction that ends it.

A case is one comparison of a job's contours with one RTSTRUCT. What dashboards and Prometheus ask again and again is counted in
the same transaction: by day for summaries, as a histogram for metrics. Needs no NumPy: workers and the job table load this.
"""

import json
import math
import struct
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    LargeBinary,
    Table,
    Text,
    and_,
    bindparam,
    cast,
    delete,
    func,
    insert,
    literal,
    literal_column,
    select,
    true,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from oarlock.facts import ComparisonRows, ModelFacts
from oarlock.store import audit
from oarlock.store.audit import Action, Actor, Event
from oarlock.store.database import Database
from oarlock.store.job_rows import check_alive
from oarlock.store.jobs import Job
from oarlock.store.schema import (
    EPOCH,
    JOBS,
    QA_CASES,
    QA_CHECKS,
    QA_DAYS,
    QA_FINDINGS,
    QA_HISTOGRAM,
    QA_OARS,
    QA_SCORES,
    QA_STREAMS,
    QA_UNCOUNTED,
)

BUCKETS: Final = (0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.925, 0.95, 0.975, 0.99, 1.0)
"""Upper bounds of the histogram of surface DSC."""

PACKED: Final = struct.Struct("<BBdd")
"""An organ of a case in ``qa_days``: its id in ``qa_oars``, who drew it, surface and volumetric DSC or NaN."""

_LEAVE: Final = insert(QA_UNCOUNTED)
_TAKE: Final = (
    delete(QA_UNCOUNTED)
    .where(QA_UNCOUNTED.c.id <= bindparam("last"))
    .returning(QA_UNCOUNTED.c.day, QA_UNCOUNTED.c.stream_id, QA_UNCOUNTED.c.shadow, QA_UNCOUNTED.c.findings)
)
_NEWEST: Final = select(func.max(QA_UNCOUNTED.c.id))
_THOUSANDTH: Final = select(func.max(select(QA_UNCOUNTED.c.id).order_by(QA_UNCOUNTED.c.id).limit(1_000).subquery().c.id))
_STREAM_KEY: Final = ("model", "model_version", "model_sha256", "scanner", "site", "shadow")
_STREAM_OF: Final = select(QA_STREAMS.c.id).where(*(QA_STREAMS.c[name] == bindparam(f"of_{name}") for name in _STREAM_KEY))

WHO: Final = {"both": 1, "reference_only": 2, "predicted_only": 3}
"""Who drew an organ, in packed scores; 0 stands for one side in those of versions that did not tell which."""

NUMBERS: Final = (
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
"""The measured columns of a row of ``qa_scores``."""

VERDICT: Final = "verdict"
"""The code under which verdicts on organs are counted beside the findings of the checks; without an organ, that on the set."""

ACTION_LEVELS: Final = "action_levels"
"""The same for what passed and what failed the site's action levels."""

SAID: Final = ("undefined_reason", "verdict")
"""Of a row of ``qa_scores``: why numbers are missing, and the checks' verdict on what was drawn."""

_COLUMNS: Final = ("oar", "presence", "tolerance_mm", *NUMBERS, *SAID)


class Origin(StrEnum):
    """Where the RTSTRUCT of a case came from.

    Only shadow runs are compared with what was delivered.
    """

    SUPPLIED = "supplied"
    APPROVED = "approved"
    DELIVERED = "delivered"


@dataclass(frozen=True, slots=True)
class Case:
    """What was compared.

    :ivar scanner: what the CT came from (:attr:`oarlock.ct.series.SeriesHeader.scanner`).
    :ivar position: of the RTSTRUCT among those of its origin for the job, from 1.
    :ivar content_sha256: of an approved RTSTRUCT.
    :ivar site: whose job it is; empty for an operator's.
    :ivar shadow: whether the model drew without delivering.
    """

    job_id: str
    model: ModelFacts
    scanner: str
    origin: Origin
    position: int
    content_sha256: str | None = None
    site: str = ""
    shadow: bool = False


@dataclass(frozen=True, slots=True)
class Scored:
    """What a finished job leaves here.

    :ivar scanner: what the CT came from.
    :ivar comparisons: one with each supplied RTSTRUCT (:meth:`oarlock.qa.report.QAReport.to_rows`).
    :ivar checks: code, organ (empty for the whole set) and level of each finding of the checks without a reference.
    :ivar verdicts: name and level of each organ.
    :ivar verdict: that of the whole set; empty where there is none.
    """

    scanner: str
    comparisons: Sequence[ComparisonRows] = ()
    checks: Sequence[tuple[str, str, str]] = ()
    verdicts: Sequence[tuple[str, str]] = ()
    verdict: str = ""


@dataclass(frozen=True, slots=True)
class ShadowScored:
    """What a shadow run leaves here.

    :ivar comparisons: each with where the other side came from, and the digest of an approved one.
    :ivar checks, verdicts, verdict: as in :class:`Scored`.
    """

    scanner: str
    comparisons: Sequence[tuple[Origin, ComparisonRows, str | None]]
    checks: Sequence[tuple[str, str, str]] = ()
    verdicts: Sequence[tuple[str, str]] = ()
    verdict: str = ""


def append(connection: Connection, now: datetime, job_id: str, model: ModelFacts, scored: Scored, *, site: str = "") -> None:
    """Write what a job leaves, in the transaction that ends it."""
    for comparison in scored.comparisons:
        case = Case(job_id, model, scored.scanner, Origin.SUPPLIED, comparison.position, site=site)
        add_case(connection, now, case, comparison)
    _count_findings(connection, now, Case(job_id, model, scored.scanner, Origin.SUPPLIED, 0, site=site), _found(scored))


def append_shadow(
    connection: Connection, now: datetime, job_id: str, model: ModelFacts, scored: ShadowScored, *, site: str
) -> None:
    """Write what a shadow run leaves, in the transaction that ends it."""
    for origin, comparison, content_sha256 in scored.comparisons:
        case = Case(job_id, model, scored.scanner, origin, comparison.position, content_sha256, site, shadow=True)
        add_case(connection, now, case, comparison)
    of_all = Case(job_id, model, scored.scanner, Origin.DELIVERED, 0, site=site, shadow=True)
    _count_findings(connection, now, of_all, _found(scored))


def _found(scored: Scored | ShadowScored) -> list[tuple[str, str, str]]:
    """Code, organ and level of each finding and verdict."""
    of_set = [("", scored.verdict)] if scored.verdict else []
    return [*scored.checks, *((VERDICT, oar, level) for oar, level in (*of_set, *scored.verdicts))]


def _count_findings(connection: Connection, now: datetime, case: Case, found: Sequence[tuple[str, str, str]]) -> None:
    """Leave findings to be counted: of 150 counters for each job, every other job that ends would wait for the locks."""
    stream_id = _stream(connection, case)
    if found:
        rows = [(oar, code, level) for code, oar, level in found]
        values = {"day": day_of(now), "stream_id": stream_id, "shadow": case.shadow, "findings": json.dumps(rows)}
        connection.execute(_LEAVE, values)


def count_findings(database: Database) -> None:
    """Count what jobs have left until now.

    A thousand jobs at a time.

    In the sums over all models there is only what was delivered.

    Each row is deleted by one transaction, which counts it. The sweeper does this; who reads adds what is not counted yet
    (:func:`oarlock.store.scores.findings.uncounted`).

    :raises DatabaseUnavailable: if the database does not answer.
    """
    with database.reading() as connection:
        newest = connection.scalar(_NEWEST)
    while newest is not None:
        with database.reading() as connection:
            last = connection.scalar(_THOUSANDTH)
        if last is None:
            return
        with database.writing() as connection:
            _count_up_to(connection, last)
        if last >= newest:  # what came meanwhile is the next one's
            return


def _count_up_to(connection: Connection, last: int) -> None:
    found: defaultdict[tuple[int, int, bool], Counter[tuple[str, ...]]] = defaultdict(Counter)
    for row in connection.execute(_TAKE, {"last": last}):
        found[row.day, row.stream_id, row.shadow].update(map(tuple, json.loads(row.findings)))
    in_all = sum((counted for (*_, shadow), counted in found.items() if not shadow), Counter[tuple[str, ...]]())
    by_day: list[tuple[str | int, ...]] = [
        (day, stream_id, *one, n) for (day, stream_id, _), counted in found.items() for one, n in counted.items()
    ]
    names = ("oar", "code", "level", "findings")
    if in_all:
        _count_at_once(connection, QA_CHECKS, names, sorted((*one, n) for one, n in in_all.items()))
    if by_day:
        _count_at_once(connection, QA_FINDINGS, ("day", "stream_id", *names), sorted(by_day))


def _count_at_once(connection: Connection, table: Table, names: Sequence[str], rows: Sequence[tuple[str | int, ...]]) -> None:
    """Add the last of each row's values to the counter of the row that has the others.

    In one statement, whose rows come as JSON, in the order of their keys: no two transactions wait for each other.
    """
    of_postgresql = connection.dialect.name == "postgresql"
    given = literal(json.dumps(rows), Text)
    each = func.json_array_elements(cast(given, postgresql.JSON)) if of_postgresql else func.json_each(given)
    value = each.table_valued("value").c.value
    columns = [
        cast(value.op("->>")(literal_column(str(place))), table.c[name].type)
        if of_postgresql
        else func.json_extract(value, literal_column(f"'$[{place}]'"))
        for place, name in enumerate(names)
    ]
    new = insert_of(connection)(table).from_select(names, select(*columns).where(true()))
    grown = {names[-1]: table.c[names[-1]] + new.excluded[names[-1]]}
    connection.execute(new.on_conflict_do_update(index_elements=list(table.primary_key), set_=grown))


def add_case(connection: Connection, now: datetime, case: Case, comparison: ComparisonRows) -> None:
    """Write one comparison and count it.

    Organs that neither side drew leave no row.
    """
    rows = sorted((row for row in comparison.oars if row["presence"] != "neither"), key=lambda row: row["oar"])
    stream_id = _stream(connection, case)
    values = {
        "at": now,
        "job_id": case.job_id,
        "origin": case.origin,
        "position": case.position,
        "stream_id": stream_id,
        "definition": comparison.definition,
        "content_sha256": case.content_sha256,
        "superseded": False,
    }
    case_id = connection.execute(insert(QA_CASES).values(values).returning(QA_CASES.c.id)).scalar_one()
    if not rows:
        return
    # The name of the reference's ROI is left out: its sender chose it.
    connection.execute(insert(QA_SCORES), [{"case_id": case_id} | {name: row[name] for name in _COLUMNS} for row in rows])
    whole = [row for row in rows if row["presence"] != "read_in_part"]  # the rest says nothing of a model
    ids = oar_ids(connection, {row["oar"] for row in whole})
    packed = b"".join(_packed(ids[row["oar"]], row) for row in whole)
    _add_to_day(connection, {"day": day_of(now), "stream_id": stream_id, "origin": case.origin, "scores": packed})
    key = {"stream_id": stream_id, "origin": case.origin}
    histogram = [key | _cell(row["oar"], value) for row in rows if (value := row["surface_dsc"]) is not None]
    _count(connection, QA_HISTOGRAM, histogram, "cases", "total")
    judged = [(ACTION_LEVELS, row["oar"], "pass" if row["passed"] else "fail") for row in rows if row.get("passed") is not None]
    if judged:
        _count_findings(connection, now, case, judged)


def approve(
    connection: Connection,
    now: datetime,
    job: Job,
    comparison: ComparisonRows,
    *,
    scanner: str,
    content_sha256: str,
    by: Actor,
    shadow: ModelFacts | None = None,
) -> bool:
    """Write the comparison with the RTSTRUCT approved for a job.

    On the charts it replaces an earlier one.

    :param shadow: the model whose contours were compared, where they are not those that were delivered.
    :returns: False if this very RTSTRUCT is the last one that was approved for the job: then there is nothing to write.
    :raises JobExpired: if the job was purged in the meantime.
    """
    check_alive(connection, job.id)
    mine = and_(
        QA_CASES.c.job_id == job.id,
        QA_CASES.c.origin == Origin.APPROVED,
        is_shadow(QA_CASES.c.stream_id, wanted=shadow is not None),
    )
    earlier = connection.execute(select(QA_CASES).where(mine).order_by(QA_CASES.c.id)).all()
    if earlier and earlier[-1].content_sha256 == content_sha256:
        return False
    connection.execute(update(QA_CASES).where(mine).values(superseded=True))
    model, of_shadow = shadow or job.model, shadow is not None
    case = Case(job.id, model, scanner, Origin.APPROVED, len(earlier) + 1, content_sha256, job.site, of_shadow)
    add_case(connection, now, case, comparison)
    if of_shadow:
        return True
    result = f"approved {case.position} sha256:{content_sha256}"
    audit.append(connection, now, Event(Action.REFERENCE_RETURNED, by, job.id, audit.to_text(job.model), result))
    return True


def last_approved(connection: Connection, job_id: str) -> str | None:
    """The digest of a job's last approved RTSTRUCT, if any.

    No other one is approved until the transaction ends.
    """
    connection.execute(select(JOBS.c.id).where(JOBS.c.id == job_id).with_for_update())
    mine = (QA_CASES.c.job_id == job_id) & (QA_CASES.c.origin == Origin.APPROVED) & is_shadow(QA_CASES.c.stream_id, wanted=False)
    return connection.scalar(select(QA_CASES.c.content_sha256).where(mine).order_by(QA_CASES.c.id.desc()).limit(1))


def is_shadow(column: ColumnElement[int], *, wanted: bool) -> ColumnElement[bool]:
    """The condition that a stream is of shadow runs, or not.

    Else it is of delivered contours.
    """
    shadows = select(QA_STREAMS.c.id).where(QA_STREAMS.c.shadow)
    return column.in_(shadows) if wanted else column.not_in(shadows)


def oar_ids(connection: Connection, names: Collection[str]) -> dict[str, int]:
    """The id of each organ in packed scores.

    It never changes; an organ that is new here gets the next one.
    """
    known = {row.name: row.id for row in connection.execute(select(QA_OARS))}
    while missing := sorted(set(names) - known.keys()):
        following = select(func.max(QA_OARS.c.id) + 1, literal(missing[0])).where(QA_OARS.c.id >= 0)  # SQLite wants a WHERE
        new = insert_of(connection)(QA_OARS).from_select(["id", "name"], following).on_conflict_do_nothing()
        connection.execute(new)  # a worker that was faster may have taken the id, or have written this very organ
        known = {row.name: row.id for row in connection.execute(select(QA_OARS))}
    return known


def day_of(moment: datetime) -> int:
    """The day of a moment, counted from 1970-01-01, UTC."""
    return (moment - EPOCH) // timedelta(days=1)


def insert_of(connection: Connection) -> Any:
    """The INSERT that may meet an existing row.

    Both databases spell it alike.
    """
    return postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert


def _packed(oar_id: int, row: Mapping[str, Any]) -> bytes:
    scores = (math.nan if row[name] is None else row[name] for name in ("surface_dsc", "volumetric_dsc"))
    return PACKED.pack(oar_id, WHO.get(row["presence"], 0), *scores)


def _cell(oar: str, value: float) -> dict[str, Any]:
    bucket = next((i for i, bound in enumerate(BUCKETS) if value <= bound), len(BUCKETS) - 1)
    return {"oar": oar, "bucket": bucket, "cases": 1, "total": value}


def _stream(connection: Connection, case: Case) -> int:
    model = case.model
    key: dict[str, Any] = {"model": model.name, "model_version": model.version, "model_sha256": model.sha256}
    key |= {"scanner": case.scanner, "site": case.site, "shadow": case.shadow}
    while (found := connection.execute(_STREAM_OF, {f"of_{name}": value for name, value in key.items()}).scalar()) is None:
        connection.execute(insert_of(connection)(QA_STREAMS).values(key).on_conflict_do_nothing())
    return int(found)


def _count(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]], *counters: str) -> None:
    """Add rows, in the order of their keys, to the counters of those that have the same key.

    With one order for all, no two transactions wait for each other.
    """
    if rows:
        new = insert_of(connection)(table)
        grown = {name: table.c[name] + new.excluded[name] for name in counters}
        connection.execute(new.on_conflict_do_update(index_elements=list(table.primary_key), set_=grown), rows)


def _add_to_day(connection: Connection, row: Mapping[str, Any]) -> None:
    new = insert_of(connection)(QA_DAYS).values(row)
    longer = cast(QA_DAYS.c.scores.op("||")(new.excluded.scores), LargeBinary)  # SQLite takes what is joined for text
    connection.execute(new.on_conflict_do_update(index_elements=list(QA_DAYS.primary_key), set_={"scores": longer}))

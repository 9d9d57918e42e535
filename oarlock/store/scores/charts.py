"""Control charts of what was approved.

The first scores of each organ, model and scanner as baseline, the newest behind it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, and_, select

from oarlock.facts import ModelFacts
from oarlock.organs.catalogue import OARS
from oarlock.qa.control_chart import BASELINE, LOOK_BACK, Alarm, ControlLimits
from oarlock.store.schema import QA_CASES, QA_SCORES
from oarlock.store.scores.baselines import KeptBaseline, newest
from oarlock.store.scores.filters import Filters, of_cases, read_streams
from oarlock.store.scores.write import Origin


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

    :ivar shadow: whether the model delivered nothing of it.
    :ivar baseline: what the limits are made of; as many as there are, until there are enough.
    :ivar limits: None until then, and where the baseline does not vary; those of past patients, where there were some.
    :ivar points: the newest ones behind the baseline, in their order. While the limits are those of past patients, those of the
        baseline are judged too, and are among them.
    :ivar commissioned: what was scored on past patients, while the limits are made of it.
    :ivar site: whose jobs they were; empty for an operator's.
    """

    oar: str
    model: ModelFacts
    scanner: str
    shadow: bool
    baseline: Sequence[Point]
    limits: ControlLimits | None
    points: Sequence[Point]
    commissioned: KeptBaseline | None = None
    site: str = ""


def read_charts(connection: Connection, filters: Filters, points: int) -> list[Chart]:
    """The charts by model and scanner.

    Within them, in the catalogue's order of organs.

    :param filters: ``since`` is where the baseline begins.
    :param points: most points of a chart behind its baseline, the newest ones.
    """
    approved = replace(filters, origin=Origin.APPROVED)
    streams = sorted(read_streams(connection, filters).values(), key=lambda row: (row.model, row.scanner, row.id))
    kept = newest(connection, filters.site)
    past = {row.id: kept.get((row.site, row.model_sha256)) or kept.get(("", row.model_sha256)) for row in streams}
    return [
        _begun(chart, past[stream.id], points) for stream in streams for chart in _charts(connection, stream, approved, points)
    ]


def _charts(connection: Connection, stream: Row[Any], filters: Filters, points: int) -> Iterator[Chart]:
    first = _read_points(connection, stream, filters, BASELINE)
    last = _read_points(connection, stream, filters, points + LOOK_BACK, newest=True)
    for oar in OARS:
        if filters.oar not in {None, oar.name}:
            continue
        alone = replace(filters, oar=oar.name)
        baseline = first.of(oar.name) or _read_points(connection, stream, alone, BASELINE).by_oar.get(oar.name, [])
        later = last.of(oar.name)
        if later is None and baseline:
            later = _read_points(connection, stream, alone, points + LOOK_BACK, newest=True).by_oar.get(oar.name, [])
        if baseline:
            yield _chart(oar.name, stream, baseline, later or [], points)


def _chart(oar: str, stream: Row[Any], baseline: Sequence["_DatedPoint"], latest: Sequence["_DatedPoint"], points: int) -> Chart:
    limits = ControlLimits.of([place.point.score for place in baseline])
    after = _judged([place.point for place in latest if place.order > baseline[-1].order], limits)
    model = ModelFacts(stream.model, stream.model_version, stream.model_sha256)
    base = [place.point for place in baseline]
    return Chart(oar, model, stream.scanner, stream.shadow, base, limits, after[-points:], site=stream.site)


def _begun(chart: Chart, past: KeptBaseline | None, points: int) -> Chart:
    """The chart; as long as its baseline is not whole, with the limits of past patients, by which all points are judged."""
    if past is None or len(chart.baseline) >= BASELINE:
        return chart
    limits = ControlLimits.of_past_patients(past.baseline.scores_on(chart.scanner, chart.oar)[0])
    if limits is None:
        return chart
    return replace(chart, limits=limits, points=_judged(chart.baseline, limits)[-points:], commissioned=past)


def _judged(points: Sequence[Point], limits: ControlLimits | None) -> list[Point]:
    """Points with the alarms that they complete."""
    by_index: dict[int, list[Alarm]] = {}
    for alarm in limits.alarms([point.score for point in points]) if limits else ():
        by_index.setdefault(alarm.index, []).append(alarm)
    return [replace(point, alarms=tuple(by_index.get(i, ()))) for i, point in enumerate(points)]


@dataclass(frozen=True, slots=True)
class _DatedPoint:
    """A point, and its place in the order of all."""

    order: tuple[datetime, int]
    point: Point


@dataclass(frozen=True, slots=True)
class _Cases:
    """Points by organ, of successive cases; ``complete`` if there are no other cases."""

    by_oar: Mapping[str, list[_DatedPoint]]
    cases: int
    complete: bool

    def of(self, oar: str) -> list[_DatedPoint] | None:
        """All points of an organ; None if cases that were not read may hold more."""
        found = self.by_oar.get(oar, [])
        return found if self.complete or len(found) == self.cases else None


def _read_points(connection: Connection, stream: Row[Any], filters: Filters, cases: int, *, newest: bool = False) -> _Cases:
    """The first or the newest cases of a stream, in their order; of one organ, those in which it has a score."""
    when = Filters(site="", since=filters.since, until=filters.until, origin=filters.origin, model=stream.model)
    wanted = [*of_cases(when, {stream.id: stream}), ~QA_CASES.c.superseded]
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
    by_oar: dict[str, list[_DatedPoint]] = {}
    for case_id, at, job_id, oar, score in rows:
        if score is not None:
            by_oar.setdefault(oar, []).append(_DatedPoint((at, case_id), Point(at, job_id, score)))
    found = len({row[0] for row in rows})
    return _Cases(by_oar, found, complete=found < cases)

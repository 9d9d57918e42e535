"""The questions about the table of scores, and their answers.

Those that callers may ask.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, replace
from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, TypeAdapter, ValidationError

from oarlock.errors import InvalidParameter
from oarlock.organs.catalogue import BY_NAME
from oarlock.qa.control_chart import BASELINE, MEANING
from oarlock.qa.quantiles import Distribution
from oarlock.store.reviews import Opinion
from oarlock.store.schema import EPOCH
from oarlock.store.scores.baselines import KeptBaseline
from oarlock.store.scores.charts import Chart
from oarlock.store.scores.filters import Filters
from oarlock.store.scores.findings import Findings
from oarlock.store.scores.summaries import AMOUNTS, OARSummary, Summary
from oarlock.store.scores.write import Origin
from service.api.schemas.qa import (
    BucketName,
    Drift,
    DriftAlarm,
    DriftBaseline,
    DriftBasePoint,
    DriftChart,
    DriftCommissioned,
    DriftLimits,
    DriftModel,
    DriftPoint,
    DriftRule,
)

DEFAULT_DAYS: Final = 90
"""How many days a summary covers if no beginning is given."""

MOST_BUCKETS: Final = 400
DAYS_IN: Final[Mapping[str, int]] = {"day": 1, "week": 7, "month": 28, "all": 1_000_000}


def _written_out(text: str) -> str:
    """The text, if it begins like a date: pydantic takes a bare number, 20260305 too, for seconds since 1970."""
    if not re.match(_BEGINS, text):
        raise ValueError(text)
    return text


_BEGINS: Final = r"^\d{4}-\d{2}-\d{2}([Tt ]|$)"
_MOMENT: Final[TypeAdapter[date | datetime]] = TypeAdapter(Annotated[date | datetime, BeforeValidator(_written_out)])
_AS_A_TIME: Final[dict[str, JsonValue]] = {"pattern": _BEGINS}
_Word = Annotated[str | None, Field(max_length=200)]


class Asked(BaseModel):
    """The filters that every call about scores takes."""

    model_config = ConfigDict(extra="ignore", populate_by_name=True, protected_namespaces=())

    since: _Word = Field(
        None, alias="from", description="first moment: an RFC 3339 time, or a day (UTC)", json_schema_extra=_AS_A_TIME
    )
    to: _Word = Field(
        None, description="first moment that is too late: an RFC 3339 time; or the last day (UTC)", json_schema_extra=_AS_A_TIME
    )
    model: _Word = Field(None, description="name of a model")
    model_version: _Word = Field(None, description="version of a model")
    scanner: _Word = Field(None, description="name of a scanner, as the rows have it")
    oar: _Word = Field(None, description="TG-263 name", json_schema_extra={"enum": list(BY_NAME)})
    site: _Word = Field(None, description="an operator's: only of this site; a site's key is shown its own without it")
    shadow: bool | None = Field(
        None,
        description="true: of shadow runs; false: of what was delivered; without it that, and all of a model that is named",
    )

    def filters(self, site: str) -> Filters:
        """The filters as values.

        :param site: whose scores the caller sees; empty for those of all sites.
        :raises InvalidParameter: if one of them is not valid.
        """
        if site and self.site not in {None, site}:
            raise InvalidParameter(name="site", reason="must be the key's own site, or left out")
        if self.oar is not None and self.oar not in BY_NAME:
            raise InvalidParameter(
                name="oar", reason="must be the TG-263 name of an organ that this server knows (GET /v1/models)"
            )
        since, until = _moment("from", self.since, last=False), _moment("to", self.to, last=True)
        if since is not None and until is not None and since >= until:
            raise InvalidParameter(name="to", reason="must be later than 'from'")
        return Filters(
            site=site or self.site or "",
            since=since,
            until=until,
            model=self.model,
            model_version=self.model_version,
            scanner=self.scanner,
            oar=self.oar,
            shadow=self.shadow,
        )


class AskedByOrigin(Asked):
    """Filters of calls that know supplied and approved contours."""

    origin: Origin | None = Field(
        None, description="supplied: the RTSTRUCT came with the series; approved: afterwards; delivered: to the job (shadow runs)"
    )

    def filters(self, site: str) -> Filters:
        return replace(super().filters(site), origin=self.origin)


class AskedRows(AskedByOrigin):
    """Parameters of the rows."""

    limit: int = Field(500, ge=1, le=5_000, description="most rows of a page")
    cursor: str | None = Field(None, max_length=200, description="`next` of the page before")
    format: Literal["json", "csv"] | None = Field(None, description="of the answer; without it the header Accept decides")


_Format = Literal["json", "csv"] | None
_FORMAT: Final = Field(None, description="of the answer; without it the header Accept decides")


class AskedSummary(Asked):
    """Parameters of the summary: whole days, of one origin."""

    origin: Origin = Field(
        Origin.SUPPLIED,
        description="supplied: the RTSTRUCT came with the series; approved: afterwards; delivered: to the job (shadow runs)",
    )
    format: _Format = _FORMAT
    bucket: BucketName = Field("day", description="parts of time: `all` for none; weeks begin on Monday")
    alert_level: float = Field(0.8, ge=0, le=1, description="of both coefficients; a number of the site's own choice")

    def filters(self, site: str) -> Filters:
        return replace(super().filters(site), origin=self.origin)


class AskedChecks(Asked):
    """Parameters of the checks over time, which count whole days."""

    bucket: BucketName = Field("day", description="parts of time: `all` for none; weeks begin on Monday")
    format: _Format = _FORMAT


class AskedCharts(Asked):
    """Parameters of the control charts.

    They show approved contours alone; a baseline begins at ``from``.
    """

    points: int = Field(50, ge=1, le=1_000, description="most points of a chart after its baseline; the newest are shown")


def _moment(name: str, text: str | None, *, last: bool) -> datetime | None:
    """A moment; a day stands for its first moment, or for the first one after it."""
    if text is None:
        return None
    try:
        found = _MOMENT.validate_strings(text)
        if isinstance(found, datetime):
            return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
        return datetime.combine(found, time(), UTC) + timedelta(days=int(last))
    except (ValidationError, OverflowError) as error:
        reason = "must be a day (2026-03-05) or an RFC 3339 time (2026-03-05T12:00:00Z)"
        raise InvalidParameter(name=name, reason=reason) from error


# ── summary ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def window(filters: Filters, today: date, bucket: BucketName) -> tuple[date, date]:
    """The first and the last day of a summary.

    :raises InvalidParameter: if it would have too many parts.
    """
    to = today if filters.until is None else (filters.until - timedelta(microseconds=1)).date()
    since = filters.since.date() if filters.since else max(to - timedelta(days=DEFAULT_DAYS - 1), EPOCH.date())
    if (to - since).days // DAYS_IN[bucket] >= MOST_BUCKETS:
        raise InvalidParameter(
            name="bucket", reason=f"divides that time into more than {MOST_BUCKETS} parts; choose a longer one"
        )
    return since, to


def between(filters: Filters, since: date, to: date) -> Filters:
    """The same filters for whole days."""
    first, after = (datetime.combine(day, time(), UTC) for day in (since, to + timedelta(days=1)))
    return replace(filters, since=first, until=after)


def part_of(bucket: BucketName) -> Callable[[int], int] | None:
    """The function from a day to its part's first day.

    Days are counted from 1970; the first day is itself, its Monday, or the first of its month.
    """
    functions: dict[str, Callable[[int], int] | None] = {"day": lambda day: day, "week": _monday, "month": _first, "all": None}
    return functions[bucket]


def _monday(day: int) -> int:
    return day - (day + 3) % 7  # 1970 began on a Thursday


def _first(day: int) -> int:
    return day - (EPOCH + timedelta(days=day)).day + 1


def to_summary(
    found: Iterable[OARSummary], asked: AskedSummary, window: tuple[date, date], turnaround_s: Distribution | None
) -> dict[str, Any]:
    """The answer of ``GET /v1/qa/summary``, as :class:`service.api.schemas.qa.QASummary` describes it.

    A plain dict: with thousands of small numbers, models would take longer than the statistics.
    """
    oars = [
        {"oar": entry.oar}
        | _members(entry.whole)
        | {name: entry.amounts.get(name) for name in AMOUNTS}
        | {"over_time": [{"start": (EPOCH + timedelta(days=day)).date()} | _members(part) for day, part in entry.parts.items()]}
        for entry in found
    ]
    took = turnaround_s and {name: getattr(turnaround_s, name) for name in _TURNAROUND}
    known = {"from": window[0], "to": window[1], "bucket": asked.bucket, "origin": asked.origin}
    return known | {"alert_level": asked.alert_level, "turnaround_s": took, "oars": oars}


_TURNAROUND: Final = ("n", "mean", "lower_quartile", "median", "upper_quartile", "highest")
_COUNTS: Final = ("n", "one_sided", "missed", "extra", "changed")
_DISTRIBUTED: Final = ("n", "mean", "sd", "lowest", "lower_quartile", "median", "upper_quartile", "highest", "below_alert")

SUMMARY_COLUMNS: Final = (
    *("oar", "start", *_COUNTS),
    *(f"{metric}_{name}" for metric in ("surface_dsc", "volumetric_dsc") for name in _DISTRIBUTED),
    *(f"{metric}_{name}" for metric in AMOUNTS for name in ("mean", "lowest", "highest")),
)


def summary_rows(found: Iterable[OARSummary]) -> Iterator[dict[str, Any]]:
    """The summary for a spreadsheet, by organ and part of time.

    The line of the whole time comes first.
    """
    for entry in found:
        amounts = {
            f"{metric}_{name}": value for metric, amount in entry.amounts.items() for name, value in asdict(amount).items()
        }
        yield {"oar": entry.oar, "start": ""} | _flat(entry.whole) | amounts
        for day, part in entry.parts.items():
            yield {"oar": entry.oar, "start": (EPOCH + timedelta(days=day)).date().isoformat()} | _flat(part)


def _flat(summary: Summary) -> dict[str, Any]:
    scores = {"surface_dsc": summary.surface_dsc, "volumetric_dsc": summary.volumetric_dsc}
    numbers = {f"{metric}_{name}": value for metric, one in scores.items() if one for name, value in asdict(one).items()}
    return {name: getattr(summary, name) for name in _COUNTS} | numbers


# ── checks ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def to_checks(found: Iterable[Findings], asked: AskedChecks, window: tuple[date, date]) -> dict[str, Any]:
    """The answer of ``GET /v1/qa/checks``, as :class:`service.api.schemas.qa.QAChecks` describes it."""
    entries = [
        {
            "oar": one.oar or None,
            "check": one.code,
            "level": one.level,
            "n": one.n,
            "over_time": [{"start": (EPOCH + timedelta(days=day)).date(), "n": n} for day, n in one.parts.items()],
        }
        for one in found
    ]
    return {"from": window[0], "to": window[1], "bucket": asked.bucket, "checks": entries}


CHECK_COLUMNS: Final = ("oar", "check", "level", "start", "n")


def check_rows(found: Iterable[Findings]) -> Iterator[dict[str, Any]]:
    """The checks for a spreadsheet."""
    for one in found:
        known = {"oar": one.oar, "check": one.code, "level": one.level}
        yield known | {"start": "", "n": one.n}
        for day, n in one.parts.items():
            yield known | {"start": (EPOCH + timedelta(days=day)).date().isoformat(), "n": n}


def _members(summary: Summary) -> dict[str, Any]:
    scores = {"surface_dsc": summary.surface_dsc, "volumetric_dsc": summary.volumetric_dsc}
    return {name: getattr(summary, name) for name in _COUNTS} | scores


# ── drift ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def to_drift(charts: Iterable[Chart], said: Mapping[tuple[str, str], Opinion]) -> Drift:
    """The answer of ``GET /v1/qa/drift``.

    :param said: the newest verdict on an organ of a job, by the job's id and the organ.
    """
    rules = [DriftRule(rule=rule, meaning=meaning) for rule, meaning in MEANING.items()]
    return Drift(rules=rules, charts=[_of_chart(chart, {} if chart.shadow else said) for chart in charts])


def _of_chart(chart: Chart, said: Mapping[tuple[str, str], Opinion]) -> DriftChart:
    first, last, limits = chart.baseline[0], chart.baseline[-1], chart.limits
    base = [
        DriftBasePoint(at=point.at, job_id=point.job_id, value=point.score, review=said.get((point.job_id, chart.oar)))
        for point in chart.baseline
    ]
    between = limits and DriftLimits(
        lower=limits.score_at(-limits.limit), upper=None if limits.lower_only else limits.score_at(limits.limit)
    )
    past = chart.commissioned
    return DriftChart(
        oar=chart.oar,
        model=DriftModel.model_validate(chart.model, from_attributes=True),
        scanner=chart.scanner,
        site=chart.site,
        shadow=chart.shadow,
        metric="surface_dsc",
        baseline=DriftBaseline(n=len(chart.baseline), needed=BASELINE, since=first.at, to=last.at, points=base),
        centre=limits and limits.score_at(0),
        limits=between,
        commissioned=past and _commissioned(past, chart),
        reason=None if limits else _no_limits(len(chart.baseline)),
        points=[
            DriftPoint(
                at=point.at,
                job_id=point.job_id,
                value=point.score,
                review=said.get((point.job_id, chart.oar)),
                alarms=[alarm.rule for alarm in point.alarms],
            )
            for point in chart.points
        ],
        alarms=[
            DriftAlarm(at=point.at, job_id=point.job_id, rule=alarm.rule, side=alarm.side)
            for point in chart.points
            for alarm in point.alarms
        ],
    )


def _commissioned(past: KeptBaseline, chart: Chart) -> DriftCommissioned:
    scores, own = past.baseline.scores_on(chart.scanner, chart.oar)
    return DriftCommissioned(at=past.at, patients=past.baseline.patients, n=len(scores), own_scanner=own)


def _no_limits(n: int) -> str:
    if n < BASELINE:
        return f"The baseline has {n} of the {BASELINE} approved cases that it needs."
    return "The scores of the baseline do not vary, so no limits can be derived from them."

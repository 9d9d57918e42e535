"""Routes of QA: comparisons on demand, approved contours, and what dashboards plot."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any, Final

import anyio.to_thread
import orjson
from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from oarlock import errors
from oarlock.pipeline.csv_text import to_csv
from oarlock.qa.control_chart import MEANING
from oarlock.scopes import Scope
from oarlock.store.jobs import JobId
from oarlock.store.scores.summaries import AMOUNTS
from service import errors as refusals
from service.api import scores
from service.api.comparisons import compare_approved, compare_upload
from service.api.csv import prefers_csv
from service.api.dependencies import PRIVATE, By, Caller, Here, TheJob, check_finished, needs
from service.api.examples import COMPARISON as COMPARISON_EXAMPLE
from service.api.jobs import REFUSALS
from service.api.openapi import BINARY, JOB_ID, NO_RESULT, Call, file_of, files_of, form, json_answer, problems, with_csv
from service.api.routing import reads
from service.api.schemas.qa import Drift, QAChecks, QASummary, ScorePage, ScoreRow
from service.api.schemas.qa_report import Comparison
from service.facts import facts_of
from service.intake import multipart
from service.intake.forms import COMPARISON, REFERENCE

comparisons = APIRouter(prefix="/v1/comparisons", tags=["qa"])
references = APIRouter(prefix="/v1/jobs", tags=["qa"])
qa = APIRouter(prefix="/v1/qa", tags=["qa"], dependencies=[needs(Scope.QA_READ)])

_ONE_RTSTRUCT: Final = file_of("one RTSTRUCT")

# ── comparing ─────────────────────────────────────────────────────────────────────────────────────────────────────────

_COMPARED: Final = (
    refusals.PartMissing(name="reference"),
    errors.StructureSetUnreadable(reason="it is not an RT Structure Set"),
    errors.FrameOfReferenceMismatch(),
)
_COMPARISON: Final[Call] = {
    "responses": {
        200: json_answer("The comparison", COMPARISON_EXAMPLE, "Comparison"),
        **problems(*REFUSALS, refusals.UnsupportedMediaType(accepted=COMPARISON.accepted), *_COMPARED),
    },
    "openapi_extra": {
        "requestBody": {
            "required": True,
            "content": {
                "multipart/form-data": {
                    "schema": form(
                        ["files", "predicted", "reference"],
                        {
                            "files": files_of("DICOM Part 10 files and zip archives of them, in any order: one CT series"),
                            "predicted": _ONE_RTSTRUCT,
                            "reference": _ONE_RTSTRUCT,
                        },
                    )
                }
            },
        }
    },
}


@comparisons.post(
    "",
    summary="Compare two RTSTRUCTs",
    dependencies=[needs(Scope.JOBS_WRITE, Scope.QA_READ)],
    response_model=Comparison,
    **_COMPARISON,
)
async def post_comparison(request: Request, service: Here, caller: Caller) -> Response:
    """Score one RTSTRUCT against another on a CT series.

    Nothing of it is kept.
    """
    facts, places = facts_of(request), service.places
    places.check_space(multipart.announced_bytes(request))
    async with places.folder(caller.id) as incoming:
        upload = await multipart.receive(request, incoming, service.settings, places.threads, COMPARISON, has_body=facts.unread)
        report = await anyio.to_thread.run_sync(
            compare_upload, upload, service.settings, caller.site, limiter=service.comparison_threads
        )
    return Response(orjson.dumps(report.to_json()), media_type="application/json", headers=PRIVATE)


_REFERENCE: Final[Call] = {
    "responses": {
        200: json_answer("The comparison", COMPARISON_EXAMPLE, "Comparison"),
        **problems(
            *NO_RESULT,
            refusals.UploadMalformed(reason="its closing boundary is missing, so it was cut off"),
            refusals.UploadTooLarge(limit=4_000_000_000, unit="bytes"),
            refusals.UnsupportedMediaType(accepted=REFERENCE.accepted),
            refusals.TooManyUploads(limit=8),
            *_COMPARED,
            errors.StorageFull(),
        ),
    },
    "openapi_extra": {
        "requestBody": {
            "required": True,
            "content": {
                "application/dicom": BINARY,
                "multipart/form-data": {"schema": form(["reference"], {"reference": _ONE_RTSTRUCT})},
            },
        }
    },
}


@references.post(
    "/{job_id}/reference",
    summary="Return approved contours",
    dependencies=[needs(Scope.JOBS_WRITE)],
    response_model=Comparison,
    **_REFERENCE,
)
async def post_reference(request: Request, service: Here, job: TheJob, caller: Caller, by: By) -> Response:
    """Send the RTSTRUCT that a clinician approved.

    For a finished job. It is compared, and its scores go to the control charts.
    """
    check_finished(job)
    facts, places = facts_of(request), service.places
    places.check_space(multipart.announced_bytes(request))
    async with places.folder(caller.id) as incoming:
        upload = await multipart.receive(request, incoming, service.settings, places.threads, REFERENCE, has_body=facts.unread)
        compare = partial(
            compare_approved,
            job,
            upload,
            vault=service.vault,
            settings=service.settings,
            storage=service.storage,
            scores=service.qa_store,
            shadows=service.store.shadows,
            by=by,
        )
        returned = await anyio.to_thread.run_sync(compare, limiter=service.comparison_threads)
    for oar, alarm in returned.alarms:
        service.metrics.drift_alarms.labels(job.model.name, oar, alarm.rule, alarm.side).inc()
    return Response(orjson.dumps(returned.report.to_json()), media_type="application/json", headers=PRIVATE)


# ── scores over time ──────────────────────────────────────────────────────────────────────────────────────────────────

_BAD_FILTERS: Final = (
    errors.InvalidParameter(name="from", reason="must be a day (2026-03-05) or an RFC 3339 time (2026-03-05T12:00:00Z)"),
)
_SCORE: Final[dict[str, Any]] = {
    "at": "2026-03-05T12:00:31.000Z",
    "job_id": JOB_ID,
    "origin": "supplied",
    "position": 1,
    "model": "oarlock-hn",
    "model_version": "1.0.0",
    "model_sha256": "9f" * 32,
    "scanner": "SIEMENS SOMATOM Confidence CT1",
    "site": "",
    "oar": "Parotid_L",
    "presence": "both",
    "definition": "surface-dsc/1",
    "tolerance_mm": 2.85,
    "surface_dsc": 0.94,
    "surface_dsc_unrounded": 0.94,
    "volumetric_dsc": 0.87,
    "hausdorff_95_mm": 3.3,
    "mean_surface_distance_mm": 0.8,
    "added_path_length_mm": 120.0,
    "predicted_volume_ml": 30.1,
    "reference_volume_ml": 29.4,
    "tolerance_rounded_mm": 2.856,
    "undefined_reason": None,
    "verdict": "green",
    "shadow": False,
    "review": "usable",
}
_DISTRIBUTION: Final = {
    "n": 2,
    "mean": 0.92,
    "sd": 0.0141,
    "lowest": 0.91,
    "lower_quartile": 0.915,
    "median": 0.92,
    "upper_quartile": 0.925,
    "highest": 0.93,
    "below_alert": 0.0,
}
_AMOUNT: Final = {"n": 2, "mean": 3.3, "lowest": 3.1, "highest": 3.5}
_OAR_SUMMARY: Final = {
    "n": 2,
    "one_sided": 0,
    "missed": 0,
    "extra": 0,
    "changed": 2,
    "surface_dsc": _DISTRIBUTION,
    "volumetric_dsc": _DISTRIBUTION,
}


def _scores_answer(row: Mapping[str, Any]) -> dict[str, Any]:
    """A page of scores, as JSON or as CSV."""
    values = ("" if value is None else str(value) for value in row.values())
    headers = {"Link": "the next page, where there is one"}
    answer = json_answer("A page of rows", {"scores": [row], "next": None}, "ScorePage", headers)
    return with_csv(answer, f"{','.join(row)}\r\n{','.join(values)}\r\n")


_SCORES: Final[Call] = {
    "responses": {
        200: _scores_answer(_SCORE),
        **problems(*_BAD_FILTERS, errors.InvalidParameter(name="cursor", reason="is not a cursor that this server gave")),
    }
}


@reads(qa, "/scores", summary="List scores", response_model=ScorePage, **_SCORES)
def list_scores(request: Request, service: Here, caller: Caller, asked: Annotated[scores.AskedRows, Query()]) -> Response:
    """Scores of finished jobs, newest first.

    One row for each organ of each comparison. ``format=csv`` gives CSV.
    """
    found, following = service.qa_store.scores(asked.filters(caller.site), limit=asked.limit, cursor=asked.cursor)
    said = service.reviews.opinions({row["job_id"] for row in found})
    rows = [row | {"review": None if row["shadow"] else said.get((row["job_id"], row["oar"]))} for row in found]
    page = ScorePage(scores=[ScoreRow.model_validate(row) for row in rows], next=following)
    headers = PRIVATE | {"Vary": "Accept"}
    if following is not None:
        url = request.url.include_query_params(cursor=following)
        headers |= {"Link": f'<{url.path}?{url.query}>; rel="next"'}
    if _wants_csv(request, asked.format):
        return _csv(list(ScoreRow.model_fields), [row.model_dump(mode="json") for row in page.scores], headers)
    return Response(page.model_dump_json(), media_type="application/json", headers=headers)


_SUMMARY: Final[Call] = {
    "responses": {
        200: json_answer(
            "The summary",
            {
                "from": "2026-03-01",
                "to": "2026-03-31",
                "bucket": "day",
                "origin": "supplied",
                "alert_level": 0.8,
                "turnaround_s": {
                    "n": 14,
                    "mean": 41.2,
                    "lower_quartile": 35.0,
                    "median": 40.1,
                    "upper_quartile": 44.0,
                    "highest": 71.3,
                },
                "oars": [
                    {"oar": "Parotid_L"}
                    | _OAR_SUMMARY
                    | dict.fromkeys(AMOUNTS, _AMOUNT)
                    | {"over_time": [{"start": "2026-03-05"} | _OAR_SUMMARY]},
                ],
            },
            "QASummary",
        ),
        **problems(*_BAD_FILTERS),
    }
}


@reads(qa, "/summary", summary="Summarise scores", response_model=QASummary, **_SUMMARY)
def get_summary(request: Request, service: Here, caller: Caller, asked: Annotated[scores.AskedSummary, Query()]) -> Response:
    """The distribution of scores against contours of one origin, by organ.

    Over the whole time and by day, week or month.
    """
    filters = asked.filters(caller.site)
    window = scores.window(filters, datetime.now(UTC).date(), asked.bucket)
    within = scores.between(filters, *window)
    found = service.qa_store.summary(within, alert_level=asked.alert_level, part_of=scores.part_of(asked.bucket))
    if _wants_csv(request, asked.format):
        return _csv(scores.SUMMARY_COLUMNS, scores.summary_rows(found))
    summary = scores.to_summary(found, asked, window, service.qa_store.turnaround_s(within))
    return Response(orjson.dumps(summary), media_type="application/json", headers=PRIVATE | {"Vary": "Accept"})


_CHECKS: Final[Call] = {
    "responses": {
        200: json_answer(
            "What the checks said",
            {
                "from": "2026-03-01",
                "to": "2026-03-31",
                "bucket": "month",
                "checks": [
                    {
                        "oar": "Brain",
                        "check": "organ.volume",
                        "level": "red",
                        "n": 3,
                        "over_time": [{"start": "2026-03-01", "n": 3}],
                    }
                ],
            },
            "QAChecks",
        ),
        **problems(*_BAD_FILTERS),
    }
}


for _call, _head in ((_SUMMARY, "oar,start,metric"), (_CHECKS, "oar,check,level,start,n")):
    with_csv(_call["responses"][200], f"{_head}\r\n")


@reads(qa, "/checks", summary="Checks over time", response_model=QAChecks, **_CHECKS)
def get_checks(request: Request, service: Here, caller: Caller, asked: Annotated[scores.AskedChecks, Query()]) -> Response:
    """How often each check gave each level for each organ.

    With what the verdicts and action levels came to.
    """
    filters = asked.filters(caller.site)
    window = scores.window(filters, datetime.now(UTC).date(), asked.bucket)
    found = service.qa_store.findings(scores.between(filters, *window), part_of=scores.part_of(asked.bucket))
    if _wants_csv(request, asked.format):
        return _csv(scores.CHECK_COLUMNS, scores.check_rows(found))
    checks = scores.to_checks(found, asked, window)
    return Response(orjson.dumps(checks), media_type="application/json", headers=PRIVATE | {"Vary": "Accept"})


def _wants_csv(request: Request, wanted: str | None) -> bool:
    return (wanted or ("csv" if prefers_csv(request.headers.get("accept", "")) else "json")) == "csv"


def _csv(columns: Sequence[str], rows: Iterable[Mapping[str, object]], headers: Mapping[str, str] | None = None) -> Response:
    more = PRIVATE | {"Vary": "Accept"} | dict(headers or {})
    return Response(to_csv(columns, rows), media_type="text/csv; header=present", headers=more)


_DRIFT: Final[dict[str, Any]] = {
    "rules": [{"rule": rule.value, "meaning": meaning} for rule, meaning in MEANING.items()],
    "charts": [
        {
            "oar": "Parotid_L",
            "model": {"name": "oarlock-hn", "version": "1.0.0", "sha256": "9f" * 32},
            "scanner": "SIEMENS SOMATOM Confidence CT1",
            "site": "",
            "shadow": False,
            "metric": "surface_dsc",
            "baseline": {
                "n": 30,
                "needed": 30,
                "from": "2026-01-07T09:12:00.000Z",
                "to": "2026-03-04T16:40:00.000Z",
                "points": [{"at": "2026-01-07T09:12:00.000Z", "job_id": JOB_ID, "value": 0.958, "review": None}],
            },
            "centre": 0.962,
            "limits": {"lower": 0.871, "upper": 0.999},
            "commissioned": None,
            "reason": None,
            "points": [
                {
                    "at": "2026-03-05T12:00:31.000Z",
                    "job_id": JOB_ID,
                    "value": 0.84,
                    "review": None,
                    "alarms": ["beyond_limit"],
                }
            ],
            "alarms": [{"at": "2026-03-05T12:00:31.000Z", "job_id": JOB_ID, "rule": "beyond_limit", "side": "lower"}],
        }
    ],
}
_DRIFT_CALL: Final[Call] = {"responses": {200: json_answer("The charts", _DRIFT, "Drift"), **problems(*_BAD_FILTERS)}}


@reads(qa, "/drift", summary="Control charts", response_model=Drift, **_DRIFT_CALL)
def get_drift(service: Here, caller: Caller, asked: Annotated[scores.AskedCharts, Query()]) -> Response:
    """Control charts of surface DSC against approved contours.

    One chart for each organ, model and scanner, with limits and alarms.
    """
    charts = service.qa_store.charts(asked.filters(caller.site), points=asked.points)
    said = service.reviews.opinions({JobId(point.job_id) for chart in charts for point in (*chart.baseline, *chart.points)})
    drift = scores.to_drift(charts, said)
    return Response(drift.model_dump_json(by_alias=True), media_type="application/json", headers=PRIVATE)

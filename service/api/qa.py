"""Routes of QA: comparisons on demand, contours that come back, and what dashboards plot."""

from datetime import UTC, datetime
from functools import partial
from typing import Final

import anyio.to_thread
import orjson
from fastapi import APIRouter, Request
from starlette.responses import Response

from oarlock.scopes import Scope
from service.access.dependencies import By, needs
from service.api import dashboards
from service.api import openapi as contract
from service.api.comparisons import compare_approved, compare_upload
from service.api.routes import PRIVATE, TheJob, check_finished, check_space, incoming_folder
from service.api.schemas import Drift, QASummary, ScorePage, ScoreRow
from service.container import Here
from service.intake import multipart as uploads

comparisons = APIRouter(prefix="/v1/comparisons", tags=["qa"])
references = APIRouter(prefix="/v1/jobs", tags=["qa"])
qa = APIRouter(prefix="/v1/qa", tags=["qa"], dependencies=[needs(Scope.QA_READ)])
ROUTERS: Final = (references, comparisons, qa)


@comparisons.post(
    "", summary="Compare two RTSTRUCTs", dependencies=[needs(Scope.JOBS_WRITE, Scope.QA_READ)], **contract.COMPARISON
)
async def post_comparison(request: Request, service: Here) -> Response:
    """Score one RTSTRUCT against another on a CT series. Nothing of it is kept."""
    check_space(request, service)
    async with incoming_folder(service) as incoming:
        upload = await uploads.receive(request, incoming, service.settings, service.upload_threads, uploads.COMPARISON)
        report = await anyio.to_thread.run_sync(compare_upload, upload, service.settings, limiter=service.comparison_threads)
    return Response(orjson.dumps(report.to_json()), media_type="application/json", headers=PRIVATE)


@references.post(
    "/{job_id}/reference", summary="Return approved contours", dependencies=[needs(Scope.JOBS_WRITE)], **contract.REFERENCE
)
async def post_reference(request: Request, service: Here, job: TheJob, by: By) -> Response:
    """Send the RTSTRUCT that a clinician approved for a finished job. It is compared, and its scores go to the control charts."""
    check_finished(job)
    check_space(request, service)
    async with incoming_folder(service) as incoming:
        upload = await uploads.receive(request, incoming, service.settings, service.upload_threads, uploads.REFERENCE)
        compare = partial(
            compare_approved,
            job,
            upload,
            uids=service.vault.uids(job),
            settings=service.settings,
            storage=service.storage,
            scores=service.qa_store,
            by=by,
        )
        returned = await anyio.to_thread.run_sync(compare, limiter=service.comparison_threads)
    for oar, alarm in returned.alarms:
        service.metrics.drift_alarms.labels(job.model.name, oar, alarm.rule, alarm.side).inc()
    return Response(orjson.dumps(returned.report.to_json()), media_type="application/json", headers=PRIVATE)


@qa.get("/scores", summary="List scores", response_model=ScorePage, **contract.SCORES)
def list_scores(request: Request, service: Here, asked: dashboards.Rows) -> Response:
    """One row for each organ of each comparison of a finished job, newest first. ``Accept: text/csv`` gives CSV."""
    found, following = service.qa_store.scores(asked.filters(), limit=asked.limit, cursor=asked.cursor)
    page = ScorePage(scores=[ScoreRow.model_validate(row) for row in found], next=following)
    headers = PRIVATE | {"Vary": "Accept"}
    if following is not None:
        url = request.url.include_query_params(cursor=following)
        headers |= {"Link": f'<{url.path}?{url.query}>; rel="next"'}
    if dashboards.prefers_csv(request.headers.get("accept", "")):
        return Response(dashboards.to_csv(page.scores), media_type="text/csv; header=present", headers=headers)
    return Response(page.model_dump_json(), media_type="application/json", headers=headers)


@qa.get("/summary", summary="Summarise scores", response_model=QASummary, **contract.SUMMARY)
def get_summary(service: Here, asked: dashboards.Parts) -> Response:
    """For each organ how surface and volumetric DSC are distributed, over the whole time and by day, week or month."""
    filters = asked.filters()
    since, to = dashboards.window(filters, datetime.now(UTC).date(), asked.bucket)
    found = service.qa_store.summary(
        dashboards.between(filters, since, to), alert_level=asked.alert_level, part_of=dashboards.part_of(asked.bucket)
    )
    summary = dashboards.to_summary(found, since, to, asked.bucket, asked.alert_level)
    return Response(orjson.dumps(summary), media_type="application/json", headers=PRIVATE)


@qa.get("/drift", summary="Control charts", response_model=Drift, **contract.DRIFT)
def get_drift(service: Here, asked: dashboards.Charts) -> Response:
    """Surface DSC against approved contours, one chart for each organ, model and scanner, with limits and alarms."""
    drift = dashboards.to_drift(service.qa_store.charts(asked.filters(), points=asked.points))
    return Response(drift.model_dump_json(by_alias=True), media_type="application/json", headers=PRIVATE)

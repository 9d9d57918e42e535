"""Routes: thin translations between HTTP and plain functions.

Who may call is decided here and nowhere below: each router takes the dependency that asks for a scope. What each call answers,
with an example, is in :mod:`service.api.openapi`.
"""

import hashlib
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Final

import anyio
import anyio.to_thread
from fastapi import APIRouter, Depends, Header, Query, Request
from starlette.responses import HTMLResponse, Response, StreamingResponse

from oarlock.ct.series import check_headers
from oarlock.errors import InvalidParameter, JobExpired, JobNotFinished, JobNotFound, ResultNotFound
from oarlock.organs.catalogue import BY_NAME, OAR
from oarlock.pictures.slice_archive import load_rendering
from oarlock.scopes import Scope
from oarlock.store import audit
from oarlock.store.audit import Action, Actor, Event
from oarlock.store.files import PREVIEW, QA_REPORT, RENDERING, RTSTRUCT, Incoming
from oarlock.store.jobs import Job, JobId, JobState
from service.access.auth import Caller
from service.access.dependencies import By, needs
from service.api import docs_page as reference
from service.api import events
from service.api import openapi as contract
from service.api.problems import problem
from service.api.schemas import (
    JobDocument,
    JobPage,
    Liveness,
    ModelDocument,
    ModelList,
    ProfileDocument,
    ProfileList,
    Readiness,
)
from service.container import Here, Service
from service.errors import NotReady, ServiceBusy
from service.intake import multipart as uploads
from service.intake.submission import Offer, check_choices, check_idempotency_key, check_writable
from service.monitoring import metrics

POLL_AFTER_S: Final = 2
_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
PRIVATE: Final = {"Cache-Control": "no-store"}

_READ: Final = [needs(Scope.JOBS_READ)]
_WRITE: Final = [needs(Scope.JOBS_WRITE)]

jobs = APIRouter(prefix="/v1/jobs", tags=["jobs"])
models = APIRouter(prefix="/v1/models", tags=["models"])
profiles = APIRouter(prefix="/v1/profiles", tags=["profiles"])
operations = APIRouter(tags=["operations"])


def _row_of(job_id: str, request: Request, service: Here) -> Job:
    """The job that the address names, or what is left of it.

    :raises JobNotFound: if there is none.
    """
    if not _ID.fullmatch(job_id):
        raise JobNotFound
    request.state.job_id = job_id
    return service.store.get(JobId(job_id))


AnyJob = Annotated[Job, Depends(_row_of)]


def _job_of(job: AnyJob) -> Job:
    """The job that the address names.

    :raises JobExpired: if it was purged.
    """
    if job.purged_at is not None:
        raise JobExpired
    return job


TheJob = Annotated[Job, Depends(_job_of)]
Uid = Annotated[str | None, Query(pattern=r"^[0-9.]{1,64}$")]


def _document(service: Service, job: Job) -> JobDocument:
    place = service.store.queue_position(job.id) if job.state is JobState.QUEUED else None
    return JobDocument.of(service.vault.reveal(job), place)


def _accepted(service: Service, job: Job) -> Response:
    document = _document(service, job)
    headers = PRIVATE | {"Location": document.links.self, "Retry-After": str(POLL_AFTER_S)}
    return Response(document.model_dump_json(), status_code=202, media_type="application/json", headers=headers)


def _offer(service: Service, profile: str | None) -> Offer:
    """What a caller can choose from; his key may name a profile of his own."""
    settings = service.settings
    return Offer(service.manifests, settings.model, service.profiles, profile or settings.profile, service.callback_rules)


def check_space(request: Request, service: Service) -> None:
    """See that the disk has room for what a request announces.

    :raises StorageFull: if not.
    """
    announced = int(request.headers.get("content-length", 0))
    more_bytes = min(announced, service.settings.max_upload_bytes)
    service.storage.check_room(keep_bytes=service.settings.min_free_bytes, more_bytes=more_bytes)


@asynccontextmanager
async def incoming_folder(service: Service) -> AsyncIterator[Incoming]:
    """A folder for an upload. Deleting a refused one may take long: in a thread, and not cut short when the sender leaves.

    :raises ServiceBusy: if as many uploads are under way as may be.
    :raises StorageFull: if the disk has no room for the folder, or for what is done in it.
    """
    place, folder = object(), service.storage.incoming()
    try:
        service.uploads.acquire_on_behalf_of_nowait(place)
    except anyio.WouldBlock:
        raise ServiceBusy from None
    try:
        with uploads.disk():
            yield folder.__enter__()
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(folder.__exit__, None, None, None, limiter=service.upload_threads)
        service.uploads.release_on_behalf_of(place)


# ── jobs ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


@jobs.post("", status_code=202, summary="Post a CT series", dependencies=_WRITE, **contract.POST_JOB)
async def post_job(request: Request, service: Here, by: By, idempotency_key: Annotated[str | None, Header()] = None) -> Response:
    """Send one CT series to be contoured. The answer comes when everything has arrived and was checked."""
    key = check_idempotency_key(idempotency_key)
    check_space(request, service)
    async with incoming_folder(service) as incoming:
        upload = await uploads.receive(request, incoming, service.settings, service.upload_threads)

        def accept() -> Response:
            caller: Caller = request.state.caller
            choices = check_choices(upload.fields, _offer(service, caller.profile), caller.retention)
            header = check_headers(upload.files, max_slices=service.settings.max_slices)
            check_writable(choices.profile, header)
            header, identity = service.vault.lock_away(incoming, header)
            job = service.desk.submit(incoming, header, choices, key=key, digest=upload.digest, by=by, identity=identity)
            request.state.job_id = job.id
            return _accepted(service, job)

        return await anyio.to_thread.run_sync(accept, limiter=service.upload_threads)


@jobs.get("", summary="List jobs", dependencies=_READ, **contract.LIST_JOBS)
def list_jobs(
    service: Here,
    state: JobState | None = None,
    series_instance_uid: Uid = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    cursor: Annotated[str | None, Query(max_length=200)] = None,
) -> JobPage:
    """Jobs that were not purged, newest first. ``next`` is the ``cursor`` of the page after this one."""
    stands_in = None if series_instance_uid is None else service.vault.pseudonym(series_instance_uid)
    found, following = service.store.page(
        state=state, series_instance_uid=series_instance_uid, stands_in=stands_in, limit=limit, cursor=cursor
    )
    places = service.store.queue_positions([job.id for job in found if job.state is JobState.QUEUED])
    return JobPage(jobs=[JobDocument.of(service.vault.reveal(job), places.get(job.id)) for job in found], next=following)


@jobs.get("/{job_id}", summary="Look at a job", dependencies=_READ, **contract.GET_JOB)
def get_job(service: Here, job: TheJob, response: Response) -> JobDocument:
    """How a job stands."""
    response.headers.update(PRIVATE if job.state.ended else PRIVATE | {"Retry-After": str(POLL_AFTER_S)})
    return _document(service, job)


@jobs.get("/{job_id}/events", summary="Follow a job", dependencies=_READ, **contract.EVENTS)
def get_events(service: Here, job: TheJob, last_event_id: Annotated[str | None, Header()] = None) -> Response:
    """The job as server-sent events, one for each change, until it ends."""
    if last_event_id == events.END and job.state.ended:
        return Response(status_code=204)
    stream = events.progress(lambda: _document(service, service.store.get(job.id)))
    return StreamingResponse(
        stream, media_type="text/event-stream", headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    )


@jobs.post("/{job_id}/cancel", status_code=202, summary="Cancel a job", dependencies=_WRITE, **contract.CANCEL)
def cancel_job(service: Here, job: TheJob, by: By) -> Response:
    """Cancel a queued job at once, a running one at its next step."""
    return _accepted(service, service.store.request_cancel(job.id, by=by))


@jobs.post("/{job_id}/retry", status_code=202, summary="Try a job again", dependencies=_WRITE, **contract.RETRY)
def retry_job(service: Here, job: TheJob, by: By) -> Response:
    """Queue a failed or cancelled job again, with the series that was sent."""
    return _accepted(service, service.desk.retry(job.id, by=by))


@jobs.delete("/{job_id}", status_code=204, summary="Purge a job", dependencies=_WRITE, **contract.PURGE)
def delete_job(service: Here, job: AnyJob, by: By) -> Response:
    """Delete every byte of the series and of its results. A job that runs is stopped."""
    service.desk.purge(job.id, by=by)  # again, too, where it was purged before: a crash may have left files
    _job_of(job)
    return Response(status_code=204)


# ── results ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@jobs.get("/{job_id}/rtstruct", summary="Fetch the RTSTRUCT", dependencies=_READ, **contract.RTSTRUCT)
def get_rtstruct(request: Request, service: Here, job: TheJob, by: By) -> Response:
    """The structure set as a DICOM file."""
    content = service.vault.rtstruct(job, _read(service, job, RTSTRUCT))
    _note_read(service, job, by, RTSTRUCT, content)
    return _result(request, content, "application/dicom", file_name=RTSTRUCT)


@jobs.get("/{job_id}/qa", summary="Fetch the QA report", dependencies=[needs(Scope.JOBS_READ, Scope.QA_READ)], **contract.QA)
def get_qa(request: Request, service: Here, job: TheJob, by: By) -> Response:
    """Scores against the supplied structure sets, and the checks that need none."""
    content = service.vault.report(job, _read(service, job, QA_REPORT))
    _note_read(service, job, by, QA_REPORT, content)
    return _result(request, content, "application/json")


@jobs.get("/{job_id}/preview.png", summary="Fetch a picture", dependencies=_READ, **contract.PREVIEW)
def get_preview(
    request: Request,
    service: Here,
    job: TheJob,
    by: By,
    *,
    oar: Annotated[str | None, Query(json_schema_extra={"enum": list(BY_NAME)})] = None,
    slice_number: Annotated[int | None, Query(alias="slice", ge=1)] = None,
) -> Response:
    """A contact sheet; with ``oar`` or ``slice`` one picture of that organ or of that slice (from 1, along the slice axis)."""
    if oar is None and slice_number is None:
        sheet = _read(service, job, PREVIEW)
        _note_read(service, job, by, PREVIEW, sheet)
        return _result(request, sheet, "image/png")
    if slice_number is not None and slice_number > job.series.slices:
        raise InvalidParameter(name="slice", reason=f"is beyond the last slice of the series, which is {job.series.slices}")
    chosen = _oar(oar)
    check_finished(job)
    z = None if slice_number is None else slice_number - 1
    picture = load_rendering(service.storage.result(job.id, RENDERING)).single(oar=chosen, z=z)
    _note_read(service, job, by, PREVIEW, picture)
    return _result(request, picture, "image/png")


def _oar(name: str | None) -> OAR | None:
    if name is not None and name not in BY_NAME:
        raise InvalidParameter(name="oar", reason="is no TG-263 name of an organ that this server draws (GET /v1/models)")
    return None if name is None else BY_NAME[name]


def check_finished(job: Job) -> None:
    """See that a job has results.

    :raises JobNotFinished: if not.
    """
    if job.state is not JobState.SUCCEEDED:
        raise JobNotFinished(state=job.state)


def _read(service: Service, job: Job, name: str) -> bytes:
    check_finished(job)
    try:
        return service.storage.result(job.id, name).read_bytes()
    except FileNotFoundError as error:  # purged in this very moment
        raise ResultNotFound(what=name) from error


def _note_read(service: Service, job: Job, by: Actor, name: str, content: bytes) -> None:
    """Write into the audit log who is given what, before it is given."""
    result = f"{name} sha256:{hashlib.sha256(content).hexdigest()}"
    audit.record(service.database, Event(Action.RESULT_READ, by, job.id, audit.to_text(job.model), result))


def _result(request: Request, content: bytes, media_type: str, file_name: str | None = None) -> Response:
    """A result with a tag of its content, or 304 for a caller who has it already."""
    tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    headers = {"ETag": tag, "Cache-Control": "private, no-cache"}
    if tag in [given.strip().removeprefix("W/") for given in request.headers.get("if-none-match", "").split(",")]:
        return Response(status_code=304, headers=headers)
    if file_name is not None:
        headers["Content-Disposition"] = f'attachment; filename="{file_name}"'
    return Response(content, media_type=media_type, headers=headers)


# ── models and operations ─────────────────────────────────────────────────────────────────────────────────────────────


@models.get("", summary="List models", dependencies=[needs()], **contract.MODELS)
def list_models(service: Here) -> ModelList:
    """The models that a job can be given to: their organs, where they were trained, what was measured, what they are not for."""
    default = service.settings.model
    return ModelList(models=[ModelDocument.of(found, default=found.name == default) for found in service.manifests.values()])


@profiles.get("", summary="List site profiles", dependencies=[needs()], **contract.PROFILES)
def list_profiles(service: Here) -> ProfileList:
    """How an RTSTRUCT can be written: names, order, colours, labels, and what planning systems are known to accept."""
    default = service.settings.profile
    return ProfileList(profiles=[ProfileDocument.of(found, default=found.name == default) for found in service.profiles.values()])


@operations.get("/livez", summary="Is the process up?", **contract.LIVEZ)
async def livez() -> Liveness:
    """Answers as long as the process does."""
    return Liveness(status="alive")


@operations.get("/readyz", summary="Can series be processed?", response_model=Readiness, **contract.READYZ)
def readyz(request: Request, service: Here) -> Response:
    """Each thing that a job needs, by name."""
    found = service.health.readiness()
    if found.ready:
        return Response(found.model_dump_json(), media_type="application/json", headers=PRIVATE)
    return problem(request, NotReady(reasons=found.reasons()), members=found.model_dump())


@operations.get("/metrics", summary="Numbers for Prometheus", dependencies=[needs(Scope.METRICS_READ)], **contract.METRICS)
def get_metrics(service: Here) -> Response:
    """Jobs, queue, stage durations, scores, checks, refusals, models and workers, in the Prometheus text format."""
    return Response(service.metrics.exposition(), headers={"Content-Type": metrics.MEDIA_TYPE})


@operations.get("/docs", include_in_schema=False)
async def docs(request: Request) -> HTMLResponse:
    """The contract for people."""
    return HTMLResponse(reference.page(request.app.openapi()), headers=reference.HEADERS)

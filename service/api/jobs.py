"""Routes of jobs: post, list, look at, follow, cancel, retry, purge."""

import json
from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any, Final

import anyio.to_thread
from fastapi import APIRouter, Header, Query, Request
from starlette.responses import Response

from oarlock import errors
from oarlock.ct.intake import take_in
from oarlock.scopes import Scope
from oarlock.store.jobs import Job, JobState
from service import errors as refusals
from service.api import events
from service.api.dependencies import PRIVATE, AnyJob, By, Caller, Here, StillAllowed, TheJob, check_present, needs
from service.api.examples import CANCELLED, QUEUED, RUNNING, SUCCEEDED
from service.api.openapi import BINARY, NOT_FOUND, Call, files_of, form, json_answer, problems
from service.api.routing import reads
from service.api.schemas.jobs import JobDocument, JobPage, JobsDocument
from service.container import Service
from service.facts import facts_of
from service.intake import multipart
from service.intake.forms import JOB
from service.intake.submission import LABEL_LIMIT, Post, check_choices, check_idempotency_key, check_model, check_writable

POLL_AFTER_S: Final = 2

_READ: Final = [needs(Scope.JOBS_READ)]
_WRITE: Final = [needs(Scope.JOBS_WRITE)]

jobs = APIRouter(prefix="/v1/jobs", tags=["jobs"])
list_events = APIRouter(prefix="/v1/events", tags=["jobs"])
"""Not below the jobs: there it would be the address of a job with that id."""

_UID: Final = Query(pattern=r"^[0-9.]{1,64}$", description="only jobs of this series")
_LABEL: Final = Query(min_length=1, max_length=LABEL_LIMIT, description="only jobs whose label contains it, in any case")


def _document(service: Service, job: Job) -> JobDocument:
    place = service.store.queue_position(job.id) if job.state is JobState.QUEUED else None
    return _document_of(service, job, place)


def _document_of(service: Service, job: Job, place: int | None) -> JobDocument:
    if job.state is not JobState.SUCCEEDED:
        return JobDocument.of(service.vault.reveal(job), place)
    deliveries, reviews = service.deliveries.of([job.id]), service.reviews.latest([job.id])
    return JobDocument.of(service.vault.reveal(job), place, deliveries.get(job.id, ()), reviews.get(job.id, ()))


def _accepted(service: Service, job: Job) -> Response:
    document = _document(service, job)
    headers = PRIVATE | {"Location": document.links.self, "Retry-After": str(POLL_AFTER_S)}
    return Response(document.model_dump_json(), status_code=202, media_type="application/json", headers=headers)


def _accepted_answer(description: str, example: Mapping[str, object]) -> dict[str, object]:
    headers = {"Location": "address of the job", "Retry-After": "seconds after which to look at it"}
    return json_answer(description, example, "JobDocument", headers)


# ── posting ───────────────────────────────────────────────────────────────────────────────────────────────────────────

REFUSALS: Final = (
    refusals.UploadMalformed(reason="its closing boundary is missing, so it was cut off"),
    refusals.UploadTooLarge(limit=4_000_000_000, unit="bytes"),
    refusals.UploadEmpty(),
    refusals.ArchiveInvalid(reason="a member's name leads out of the archive"),
    errors.NotDicom(files=1),
    errors.InstanceUnreadable(position=7, reason="it ends in the middle of an element"),
    errors.NoCTImages(found=["MR Image Storage"]),
    errors.MixedSeries(images=[120, 36]),
    errors.TooFewSlices(found=1, needed=3),
    errors.MissingSlices(expected_mm=2.5, found_mm=5.0, at_slice=37),
    refusals.UploadStalled(received=262_144),
    refusals.TooManyUploads(limit=8),
    refusals.ServiceBusy(),
    errors.StorageFull(),
)
"""Why the files of a series are refused, in any call that takes them."""

_POST: Final[Call] = {
    "responses": {
        202: _accepted_answer("The series was accepted and will be contoured", QUEUED),
        **problems(
            *REFUSALS,
            errors.IdempotencyConflict(),
            refusals.UnsupportedMediaType(accepted=JOB.accepted),
            errors.InvalidParameter(name="priority", reason="must be one of urgent, normal, low"),
            errors.UnknownModel(available=["oarlock-hn"]),
            errors.UnknownProfile(available=["eclipse", "generic"]),
            errors.ProfileNotWritable(profile="site", oar="Parotid_L"),
            refusals.BrokerUnavailable(),
        ),
    },
    "openapi_extra": {
        "requestBody": {
            "required": True,
            "content": {
                "multipart/form-data": {
                    "schema": form(
                        ["files"],
                        {
                            "files": files_of(
                                "DICOM Part 10 files and zip archives of them, in any order: one CT series, and RTSTRUCTs to "
                                "compare with"
                            ),
                            "model": {"type": "string", "description": "name of a model (GET /v1/models)"},
                            "profile": {"type": "string", "description": "name of a site profile (GET /v1/profiles)"},
                            "priority": {"type": "string", "enum": ["urgent", "normal", "low"], "default": "normal"},
                            "label": {"type": "string", "maxLength": LABEL_LIMIT, "description": "what the sender calls the job"},
                            "supersedes": {
                                "type": "string",
                                "description": "id of the job of this series that it replaces",
                            },
                            "callback_url": {"type": "string", "description": "refused unless the operator allows its host"},
                        },
                    )
                },
                "application/zip": BINARY,
            },
        }
    },
}


@jobs.post("", status_code=202, summary="Post a CT series", dependencies=_WRITE, **_POST)
async def post_job(
    request: Request,
    service: Here,
    caller: Caller,
    by: By,
    idempotency_key: Annotated[str | None, Header(description="makes the post safe to repeat: 1 to 255 printable ASCII")] = None,
) -> Response:
    """Send one CT series to be contoured.

    The answer comes when everything has arrived and was checked.
    """
    key = check_idempotency_key(idempotency_key)
    facts, places = facts_of(request), service.places
    places.check_space(multipart.announced_bytes(request))
    async with places.folder(caller.id) as incoming:
        upload = await multipart.receive(request, incoming, service.settings, places.threads, has_body=facts.unread)

        def accept() -> Response:
            choices = check_choices(upload.fields, service.available(caller.profile), caller.retention)
            header = take_in(upload.files, service.settings.intake_rules)
            check_writable(choices.profile, header)
            header, identity = service.vault.lock_away(incoming, header)
            post = Post(incoming, header, choices, key=key, digest=upload.digest, by=by, identity=identity, site=caller.site)
            job = service.intake.submit(post)
            facts.job_id = job.id
            return _accepted(service, job)

        return await anyio.to_thread.run_sync(accept, limiter=places.threads)


# ── looking ───────────────────────────────────────────────────────────────────────────────────────────────────────────

_LIST: Final[Call] = {
    "responses": {
        200: json_answer("A page of jobs", {"jobs": [SUCCEEDED], "next": None}, "JobPage"),
        **problems(errors.InvalidParameter(name="cursor", reason="is not a cursor that this server gave")),
    }
}


@reads(jobs, "", summary="List jobs", response_model=JobPage, dependencies=_READ, **_LIST)
def list_jobs(
    service: Here,
    caller: Caller,
    *,
    state: Annotated[JobState | None, Query(description="only jobs in this state")] = None,
    series_instance_uid: Annotated[str | None, _UID] = None,
    label: Annotated[str | None, _LABEL] = None,
    limit: Annotated[int, Query(ge=1, le=500, description="most jobs of a page")] = 50,
    cursor: Annotated[str | None, Query(max_length=200, description="`next` of the page before")] = None,
) -> Response:
    """Jobs, newest first, without the purged ones."""
    stands_in = None if series_instance_uid is None else service.vault.pseudonym(series_instance_uid)
    with service.database.together():
        found, following = service.store.page(
            site=caller.site,
            state=state,
            series_instance_uid=series_instance_uid,
            stands_in=stands_in,
            label=label,
            limit=limit,
            cursor=cursor,
        )
        ids = [job.id for job in found]
        places = service.store.queue_positions([job.id for job in found if job.state is JobState.QUEUED])
        delivered, reviewed = service.deliveries.of(ids), service.reviews.latest(ids)
    documents = [
        JobDocument.of(service.vault.reveal(job), places.get(job.id), delivered.get(job.id, ()), reviewed.get(job.id, ()))
        for job in found
    ]
    page = JobPage(jobs=documents, next=following)
    return Response(page.model_dump_json(), media_type="application/json", headers=PRIVATE)  # FastAPI would check it anew


def _events_answer(
    description: str, kinds: list[str], id_: dict[str, str], document: str, example: dict[str, str]
) -> dict[str, Any]:
    """How OpenAPI describes a stream of events whose data are documents."""
    data = {
        "type": "string",
        "contentMediaType": "application/json",
        "contentSchema": {"$ref": f"#/components/schemas/{document}"},
    }
    properties = {"event": {"type": "string", "enum": kinds}, "id": {"type": "string"} | id_, "data": data}
    schema = {"type": "object", "required": ["event", "id", "data"], "properties": properties}
    return {"description": description, "content": {"text/event-stream": {"schema": schema, "example": example}}}


_LIST_EVENTS: Final[Call] = {
    "responses": {
        200: _events_answer(
            "Events for as long as the caller listens, each of which this schema describes",
            ["jobs"],
            {},
            "JobsDocument",
            {"event": "jobs", "id": "1", "data": json.dumps({"changes": 7, "running": []})},
        ),
        **problems(refusals.TooManyFollowers(limit=256)),
    }
}


@reads(list_events, "", summary="Follow the list of jobs", response_model=JobsDocument, dependencies=_READ, **_LIST_EVENTS)
async def get_list_events(request: Request, service: Here, caller: Caller, *, still_allowed: StillAllowed) -> Response:
    """What moves in the list of jobs, as server-sent events.

    At most one a second. Each tells how far the running jobs are, and whether the list has changed since the one before.
    """
    if request.method == "HEAD":
        return Response(media_type=events.MEDIA_TYPE, headers=events.HEADERS)
    watching = service.followers.watching(caller.site, caller.id)
    return events.EventStream(events.listing(watching, still_allowed=partial(still_allowed, Scope.JOBS_READ)))


_GET: Final[Call] = {"responses": {200: json_answer("The job", RUNNING, "JobDocument"), **problems(*NOT_FOUND)}}


@reads(jobs, "/{job_id}", summary="Look at a job", response_model=JobDocument, dependencies=_READ, **_GET)
def get_job(service: Here, job: TheJob, response: Response) -> JobDocument:
    """The state of a job."""
    response.headers.update(PRIVATE if job.state.ended else PRIVATE | {"Retry-After": str(POLL_AFTER_S)})
    return _document(service, job)


_EVENTS: Final[Call] = {
    "responses": {
        200: _events_answer(
            "Events until the job ends, each of which this schema describes",
            ["progress", "end"],
            {"description": "to be sent as Last-Event-ID"},
            "JobDocument",
            {"event": "progress", "id": "1", "data": json.dumps(RUNNING, separators=(",", ":"))},
        ),
        204: {"description": "The job has ended, and the caller knows (Last-Event-ID: end)"},
        **problems(*NOT_FOUND, refusals.TooManyFollowers(limit=256)),
    }
}


@reads(jobs, "/{job_id}/events", summary="Follow a job", dependencies=_READ, **_EVENTS)
async def get_events(
    request: Request,
    service: Here,
    job: TheJob,
    caller: Caller,
    *,
    still_allowed: StillAllowed,
    last_event_id: Annotated[str | None, Header(description="`id` of the last event that was received")] = None,
) -> Response:
    """The job as server-sent events, one for each change, until it ends."""
    if last_event_id == events.END and job.state.ended:
        return Response(status_code=204)
    if request.method == "HEAD":
        return Response(media_type=events.MEDIA_TYPE, headers=events.HEADERS)
    following = service.followers.following(job, caller.id)
    to_document = partial(_document_of, service)
    return events.EventStream(events.progress(following, to_document, still_allowed=partial(still_allowed, Scope.JOBS_READ)))


# ── changing ──────────────────────────────────────────────────────────────────────────────────────────────────────────

_CANCEL: Final[Call] = {
    "responses": {
        202: _accepted_answer("The job is cancelled, or will be at its next step", CANCELLED),
        **problems(*NOT_FOUND, errors.JobAlreadyEnded(state="succeeded")),
    }
}
_RETRY: Final[Call] = {
    "responses": {
        202: _accepted_answer("The job is queued again", QUEUED),
        **problems(
            *NOT_FOUND,
            errors.JobNotRetryable(state="succeeded"),
            errors.ModelGone(model="oarlock-hn 1.0.0", available=["oarlock-hn"]),
        ),
    }
}
_PURGE: Final[Call] = {"responses": {204: {"description": "Nothing of the series is left"}, **problems(*NOT_FOUND)}}


@jobs.post("/{job_id}/cancel", status_code=202, summary="Cancel a job", dependencies=_WRITE, **_CANCEL)
def cancel_job(service: Here, job: TheJob, by: By) -> Response:
    """Cancel a job.

    A queued job ends at once, a running one at its next step.
    """
    return _accepted(service, service.store.request_cancel(job.id, by=by))


@jobs.post("/{job_id}/retry", status_code=202, summary="Try a job again", dependencies=_WRITE, **_RETRY)
def retry_job(service: Here, job: TheJob, by: By) -> Response:
    """Queue a failed or cancelled job again.

    With the series that was sent, and the model that it was sent for.
    """
    check_model(job, service.models)
    return _accepted(service, service.intake.retry(job.id, by=by))


@jobs.delete("/{job_id}", status_code=204, summary="Purge a job", dependencies=_WRITE, **_PURGE)
def delete_job(service: Here, job: AnyJob, by: By) -> Response:
    """Delete every byte of the series and its results.

    A running job is stopped.
    """
    service.intake.purge(job.id, by=by)  # also if it was purged before: a crash may have left files
    check_present(job)
    return Response(status_code=204)

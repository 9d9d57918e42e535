"""Routes of gateways: what they are asked, have, and have done.

The service never calls a gateway. What is asked of one waits until it reports, and is done then.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

from fastapi import APIRouter, Header, Path, Query
from starlette.responses import Response

from oarlock import errors
from oarlock.scopes import Scope
from oarlock.store.audit import Actor
from oarlock.store.cursors import invalid_cursor
from oarlock.store.gateways import Gateway, Request, RequestKind, Wish
from oarlock.store.jobs import JobId
from service.access.auth import Principal
from service.api.dependencies import PRIVATE, By, Caller, Here, TheJob, needs
from service.api.openapi import JOB_ID, NOT_FOUND, Call, json_answer, problems
from service.api.routing import reads
from service.api.schemas.gateways import (
    SERIES_ID,
    GatewayDocument,
    GatewayList,
    GatewayReport,
    GatewayRequest,
    GatewayTask,
    GatewayTasks,
    RequestOutcome,
    RetrievalPage,
    RetrievalPost,
)
from service.container import Service
from service.intake.submission import check_idempotency_key

POLL_AFTER_S: Final = 5
SHOWN: Final = 50
"""How many requests stand in the list of gateways."""

_READ: Final = [needs(Scope.JOBS_READ)]
_WRITE: Final = [needs(Scope.JOBS_WRITE)]

retrievals = APIRouter(prefix="/v1/retrievals", tags=["gateways"])
gateways = APIRouter(prefix="/v1/gateways", tags=["gateways"])
resending = APIRouter(prefix="/v1/jobs/{job_id}/resend", tags=["gateways"])

Name = Annotated[str, Path(pattern=r"^[A-Za-z0-9][A-Za-z0-9._ -]{0,62}$", description="name of the gateway")]
TheSeries = Annotated[str, Path(pattern=SERIES_ID, description="the series' `id` in the list of gateways")]
RequestId = Annotated[str, Path(max_length=64, description="the request's `id`")]
IdempotencyKey = Annotated[str | None, Header(description="makes the call safe to repeat: 1 to 255 printable ASCII")]


# ── asking ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _ask(
    service: Service,
    kind: RequestKind,
    wanted: Mapping[str, Any],
    *,
    site: str,
    by: Actor,
    gateway: str | None = None,
    job_id: str | None = None,
    key: str | None = None,
) -> Request:
    text = json.dumps(wanted, sort_keys=True)
    words = service.vault.pseudonym(f"{kind} {gateway} {job_id} {text}")  # a plain digest of UIDs could be guessed
    digest = hashlib.sha256(words.encode()).hexdigest()
    wish = Wish(site, kind, gateway, wanted.get("archive"), job_id, service.vault.seal_words(text.encode()), digest)
    return service.gateways.ask(wish, key=check_idempotency_key(key), by=by)


def _document(service: Service, request: Request) -> GatewayRequest:
    return GatewayRequest.of(request, service.vault.unseal_words(request.wanted))


def _accepted(service: Service, request: Request) -> Response:
    headers = PRIVATE | {"Retry-After": str(POLL_AFTER_S)}
    if request.kind is RequestKind.RETRIEVE:
        headers["Location"] = f"{retrievals.prefix}/{request.id}"
    content = _document(service, request).model_dump_json()
    return Response(content, status_code=202, media_type="application/json", headers=headers)


_REQUEST: Final[dict[str, Any]] = {
    "id": "5f1d9a52-2b0e-4d57-9a39-3f4f7a0b9a11",
    "kind": "retrieve",
    "state": "waiting",
    "gateway": None,
    "archive": "pacs",
    "series_instance_uid": "2.25.1002",
    "study_instance_uid": None,
    "called": None,
    "structure_sets": False,
    "priors": 0,
    "series": None,
    "place": None,
    "job_id": None,
    "prior_jobs": [],
    "instances": None,
    "detail": None,
    "by": "planning",
    "created_at": "2026-03-05T12:00:00.000Z",
    "taken_at": None,
    "ended_at": None,
}
_DONE: Final = _REQUEST | {
    "state": "succeeded",
    "gateway": "radiotherapy",
    "job_id": JOB_ID,
    "instances": 186,
    "taken_at": "2026-03-05T12:00:04.000Z",
    "ended_at": "2026-03-05T12:00:41.000Z",
}
_RESENT: Final = _REQUEST | {"kind": "resend", "archive": None, "series_instance_uid": None, "gateway": "radiotherapy"}
_RETRY_AFTER: Final = {"Retry-After": "seconds after which to look at it"}


def _asked(description: str, example: Mapping[str, object], *found: errors.OarlockError) -> Call:
    answer = json_answer(description, example, "GatewayRequest", _RETRY_AFTER)
    return {"responses": {202: answer, **problems(*found)}}


_RETRIEVE: Final = _asked(
    "A gateway fetches the series when it next reports",
    _REQUEST,
    errors.UnknownArchive(known=["pacs (gateway radiotherapy)"]),
    errors.InvalidParameter(name="archive", reason="is known at several sites: use a key of the site that is meant"),
    errors.IdempotencyConflict(),
)
_RETRIEVE["responses"][202]["headers"]["Location"] = {"description": "address of the retrieval", "schema": {"type": "string"}}


@retrievals.post("", status_code=202, summary="Fetch a series from an archive", dependencies=_WRITE, **_RETRIEVE)
def post_retrieval(
    service: Here, caller: Caller, by: By, wanted: RetrievalPost, idempotency_key: IdempotencyKey = None
) -> Response:
    """Have a gateway fetch a series from an archive and contour it.

    It is done when a gateway that knows the archive next reports. What becomes of the series follows from the gateway's rules.
    """
    site = _site_of_archive(service.gateways.gateways(site=caller.site), wanted)
    asked = wanted.model_dump(exclude={"gateway"})
    found = _ask(service, RequestKind.RETRIEVE, asked, site=site, by=by, gateway=wanted.gateway, key=idempotency_key)
    return _accepted(service, found)


def _site_of_archive(known: Sequence[Gateway], wanted: RetrievalPost) -> str:
    """The site whose gateway is asked.

    :raises UnknownArchive: if no gateway knows the archive.
    :raises InvalidParameter: if gateways of several sites do.
    """
    able = [one for one in known if wanted.archive in one.archives and wanted.gateway in (None, one.name)]
    if not able:
        named = sorted(f"{archive} (gateway {one.name})" for one in known for archive in one.archives)
        raise errors.UnknownArchive(known=named)
    if len({one.site for one in able}) > 1:
        reason = "is known at several sites: use a key of the site that is meant"
        raise errors.InvalidParameter(name="archive", reason=reason)
    return able[0].site


_RESEND: Final = _asked("The gateway sends them when it next reports", _RESENT, *NOT_FOUND, errors.NotDelivered())


@resending.post("", status_code=202, summary="Send results again", dependencies=_WRITE, **_RESEND)
def resend_results(
    service: Here,
    job: TheJob,
    by: By,
    *,
    place: Annotated[str | None, Query(max_length=63, description="to this place alone")] = None,
) -> Response:
    """Have the gateway bring a job's results home once more.

    To all places, or to one: a dead letter gets its attempts anew.
    """
    told = [one for one in service.deliveries.of([job.id]).get(job.id, ()) if place in (None, one.place)]
    carriers = sorted({one.gateway for one in told if one.gateway is not None})
    if not carriers:
        raise errors.NotDelivered
    asked = [
        _ask(service, RequestKind.RESEND, {"place": place}, site=job.site, by=by, gateway=carrier, job_id=job.id)
        for carrier in carriers
    ]
    return _accepted(service, asked[0])


_COMPLETE: Final = _asked(
    "The gateway counts it as whole when it next reports",
    _RESENT | {"kind": "complete", "series": "3f2a9c0d1e4b5a6f7c8d"},
    errors.UnknownGateway(),
)


@gateways.post(
    "/{gateway}/series/{series}/complete", status_code=202, summary="Count a series as whole", dependencies=_WRITE, **_COMPLETE
)
def complete_series(service: Here, caller: Caller, by: By, gateway: Name, series: TheSeries) -> Response:
    """Count a series as whole.

    A gateway has it, and waits no longer for more of its images.
    """
    for one in service.gateways.gateways(site=caller.site):
        if one.name == gateway and any(waits["id"] == series for waits in one.series):
            wanted = {"series": series}
            return _accepted(service, _ask(service, RequestKind.COMPLETE, wanted, site=one.site, by=by, gateway=gateway))
    raise errors.UnknownGateway


# ── looking ───────────────────────────────────────────────────────────────────────────────────────────────────────────

_PAGE: Final[Call] = {
    "responses": {
        200: json_answer("A page of retrievals", {"retrievals": [_DONE], "next": None}, "RetrievalPage"),
        **problems(errors.IdentityLocked(), invalid_cursor()),
    }
}


@reads(retrievals, "", summary="List retrievals", response_model=RetrievalPage, dependencies=_READ, **_PAGE)
def list_retrievals(
    service: Here,
    caller: Caller,
    response: Response,
    *,
    limit: Annotated[int, Query(ge=1, le=500, description="most retrievals of a page")] = 50,
    cursor: Annotated[str | None, Query(max_length=200, description="`next` of the page before")] = None,
) -> RetrievalPage:
    """Retrievals, newest first."""
    response.headers.update(PRIVATE)
    found, following = service.gateways.page(site=caller.site, kind=RequestKind.RETRIEVE, limit=limit, cursor=cursor)
    return RetrievalPage(retrievals=[_document(service, one) for one in found], next=following)


_GET: Final[Call] = {
    "responses": {
        200: json_answer("The retrieval", _DONE, "GatewayRequest"),
        **problems(errors.RequestNotFound(), errors.IdentityLocked()),
    }
}


def _retrieval(service: Service, request_id: str, caller: Principal) -> Request:
    found = service.gateways.get(request_id, site=caller.site)
    if found.kind is not RequestKind.RETRIEVE:
        raise errors.RequestNotFound
    return found


@reads(retrievals, "/{request_id}", summary="Look at a retrieval", response_model=GatewayRequest, dependencies=_READ, **_GET)
def get_retrieval(service: Here, caller: Caller, request_id: RequestId, response: Response) -> GatewayRequest:
    """How a retrieval stands; once it has succeeded, its job."""
    found = _retrieval(service, request_id, caller)
    response.headers.update(PRIVATE if found.ended_at else PRIVATE | {"Retry-After": str(POLL_AFTER_S)})
    return _document(service, found)


_CANCEL: Final = _asked("It is cancelled", _REQUEST | {"state": "cancelled"}, errors.RequestNotFound(), errors.RequestTaken())


@retrievals.post("/{request_id}/cancel", status_code=202, summary="Cancel a retrieval", dependencies=_WRITE, **_CANCEL)
def cancel_retrieval(service: Here, caller: Caller, by: By, request_id: RequestId) -> Response:
    """Take back a retrieval that no gateway has begun."""
    _retrieval(service, request_id, caller)
    return _accepted(service, service.gateways.cancel(request_id, site=caller.site, by=by))


_SERIES: Final = {
    "id": "3f2a9c0d1e4b5a6f7c8d",
    "state": "coming_in",
    "calling": "CT1",
    "called": "OARLOCK",
    "images": 91,
    "first_at": "2026-03-05T11:59:40.000Z",
    "last_at": "2026-03-05T12:00:00.000Z",
    "note": "",
}
_GATEWAY: Final = {
    "name": "radiotherapy",
    "site": "",
    "seen_at": "2026-03-05T12:00:03.000Z",
    "archives": ["pacs"],
    "series": [_SERIES],
}
_LIST: Final[Call] = {
    "responses": {
        200: json_answer("The gateways", {"gateways": [_GATEWAY], "requests": [_DONE]}, "GatewayList"),
        **problems(errors.IdentityLocked()),
    }
}


@reads(gateways, "", summary="List gateways", response_model=GatewayList, dependencies=_READ, **_LIST)
def list_gateways(service: Here, caller: Caller, response: Response) -> GatewayList:
    """The gateways, what they have, and what they were asked.

    Series that are not a job, and the newest requests.
    """
    response.headers.update(PRIVATE)
    asked, _ = service.gateways.page(site=caller.site, limit=SHOWN)
    return GatewayList(
        gateways=[GatewayDocument.of(one) for one in service.gateways.gateways(site=caller.site)],
        requests=[_document(service, one) for one in asked],
    )


# ── what gateways call ────────────────────────────────────────────────────────────────────────────────────────────────

_REPORT: Final[Call] = {
    "responses": {
        200: json_answer("What it has to do", {"tasks": [{"token": 1, "request": _DONE | {"state": "running"}}]}, "GatewayTasks"),
        **problems(errors.IdentityLocked(), errors.InvalidParameter(name="archives", reason="must be a list")),
    }
}


@gateways.post("/{gateway}", summary="Report as a gateway", response_model=GatewayTasks, dependencies=_WRITE, **_REPORT)
def post_report(service: Here, caller: Caller, gateway: Name, report: GatewayReport, response: Response) -> GatewayTasks:
    """Say what a gateway has, and get what it has to do.

    It reports every few seconds: after a minute of silence another gateway takes what it held.
    """
    response.headers.update(PRIVATE)
    series = [one.model_dump(mode="json") for one in report.series]
    read = service.vault.unseal_words
    held = service.gateways.report(caller.site, gateway, report.archives, series, read=read)
    return GatewayTasks(tasks=[GatewayTask(token=one.token, request=_document(service, one)) for one in held])


_TELL: Final[Call] = {
    "responses": {
        204: {"description": "It was noted"},
        **problems(
            errors.RequestNotFound(),
            errors.RequestNotHeld(),
            errors.InvalidParameter(name="job_id", reason="must be a job of this site"),
        ),
    }
}


@gateways.post(
    "/{gateway}/requests/{request_id}", status_code=204, summary="Tell how a request stands", dependencies=_WRITE, **_TELL
)
def post_outcome(
    service: Here, caller: Caller, by: By, *, gateway: Name, request_id: RequestId, told: RequestOutcome
) -> Response:
    """Tell how a request of the gateway stands, or how it ended."""
    for job_id in filter(None, (told.job_id, *told.prior_jobs)):
        _check_job(service, JobId(job_id), caller)
    outcome = told.to_outcome()
    service.gateways.tell(request_id, outcome, site=caller.site, gateway=gateway, token=told.token, by=by)
    return Response(status_code=204)


def _check_job(service: Service, job_id: JobId, caller: Principal) -> None:
    try:
        seen = service.store.get(job_id).is_seen_by(caller.site)
    except errors.JobNotFound:
        seen = False
    if not seen:
        raise errors.InvalidParameter(name="job_id", reason="must be a job of this site")

"""Routes of STOW-RS.

And of what was received and is not a job yet.
"""

from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal, Self

import anyio.to_thread
import orjson
from fastapi import APIRouter, Path, Request
from pydantic import Field
from pydicom.dataset import Dataset
from starlette.responses import Response

from oarlock import errors
from oarlock.scopes import Scope
from oarlock.store.audit import Actor
from oarlock.store.received import Collected, Sender
from service import errors as refusals
from service.access.auth import Principal
from service.api.dependencies import PRIVATE, By, Caller, Here, needs
from service.api.openapi import Call, json_answer, problems
from service.api.routing import reads
from service.api.schemas.base import Schema, Time
from service.container import Service
from service.dicomweb.documents import JSON, XML, to_json, to_xml
from service.dicomweb.query_routes import PREFIX, Study, base_of
from service.dicomweb.retrieve import covers, to_accepted
from service.dicomweb.store import answer, look_at_all, take
from service.facts import facts_of
from service.intake import multipart
from service.intake.forms import STOW, Upload
from service.monitoring.metrics import STORED

stow = APIRouter(prefix=PREFIX, tags=["dicomweb"])
received = APIRouter(prefix="/v1/received", tags=["dicomweb"])

_STORED_EXAMPLE: Final = {
    "00081190": {"vr": "UR", "Value": ["http://127.0.0.1:8000/dicom-web/studies/2.25.1001"]},
    "00081199": {
        "vr": "SQ",
        "Value": [
            {
                "00081150": {"vr": "UI", "Value": ["1.2.840.10008.5.1.4.1.1.2"]},
                "00081155": {"vr": "UI", "Value": ["2.25.1004"]},
                "00081190": {
                    "vr": "UR",
                    "Value": ["http://127.0.0.1:8000/dicom-web/studies/2.25.1001/series/2.25.1002/instances/2.25.1004"],
                },
            }
        ],
    },
}


def _stored(description: str) -> dict[str, Any]:
    document = {"schema": {"type": "object"}, "example": _STORED_EXAMPLE}
    return {"description": description, "content": {JSON: document, XML: {"schema": {"type": "string"}, "example": ""}}}


_STOW: Final[Call] = {
    "responses": {
        **problems(
            refusals.UploadMalformed(reason="its closing boundary is missing, so it was cut off"),
            refusals.UploadTooLarge(limit=4_000_000_000, unit="bytes"),
            refusals.UploadEmpty(),
            refusals.UnsupportedMediaType(accepted=STOW.accepted),
            refusals.NotAcceptable(offered=[JSON, XML]),
            refusals.UploadStalled(received=262_144),
            refusals.TooManyUploads(limit=8),
            refusals.ServiceBusy(),
            errors.StorageFull(),
        ),
        200: _stored("All instances are stored; a job is made when no more of their series come"),
        202: _stored("Some instances are stored, and Failed SOP Sequence names the others"),
        409: _stored("No instance is stored; Failed SOP Sequence says why"),
    },
    "openapi_extra": {
        "requestBody": {
            "required": True,
            "content": {'multipart/related; type="application/dicom"': {"schema": {"type": "string", "format": "binary"}}},
        }
    },
}


@stow.post("/studies", summary="Store instances", dependencies=[needs(Scope.JOBS_WRITE)], **_STOW)
async def store_instances(request: Request, service: Here, caller: Caller, by: By) -> Response:
    """Store CT images, and RTSTRUCTs to compare with (STOW-RS).

    Of each CT series a job is made when no more of it come.
    """
    return await _store(request, service, _sender(caller, by))


@stow.post("/studies/{study}", summary="Store instances of a study", dependencies=[needs(Scope.JOBS_WRITE)], **_STOW)
async def store_instances_of_study(request: Request, service: Here, caller: Caller, by: By, study: Study) -> Response:
    """The same for instances of one study.

    Those of another are not taken.
    """
    return await _store(request, service, _sender(caller, by), study)


async def _store(request: Request, service: Service, sender: Sender, study_uid: str | None = None) -> Response:
    kind = _answer_type(request)
    facts, places = facts_of(request), service.places
    places.check_space(multipart.announced_bytes(request))
    async with places.folder(sender.id) as incoming:
        upload = await multipart.receive(request, incoming, service.settings, places.threads, STOW, has_body=facts.unread)

        def accept() -> Response:
            status, dataset = _take(service, upload, sender, base_of(request), study_uid)
            content = to_xml(dataset) if kind == XML else orjson.dumps(to_json(dataset))
            return Response(content, status_code=status, media_type=kind, headers=PRIVATE)

        return await anyio.to_thread.run_sync(accept, limiter=places.threads)


def _take(service: Service, upload: Upload, sender: Sender, base: str, study_uid: str | None) -> tuple[int, Dataset]:
    sealed = service.settings.deidentify_key is not None
    files = zip(upload.files, (digest.hex() for digest in upload.file_digests), strict=True)
    instances = look_at_all(files, study_uid=study_uid, structure_sets=not sealed)
    instances = take(instances, service.received, sender, most=service.settings.max_upload_files)
    for one in instances:
        service.metrics.stored.labels(STORED[one.failure]).inc()
    return answer(instances, base)


def _sender(caller: Principal, by: Actor) -> Sender:
    keep = caller.retention
    return Sender(by.id, by.name, by.address, caller.profile, keep.input_s, keep.results_s, caller.site)


def _answer_type(request: Request) -> str:
    """JSON, unless a caller takes XML alone or names it first.

    :raises NotAcceptable: if they take neither.
    """
    for one in to_accepted(request.headers.get("accept")):
        for kind in (JSON, XML):
            if covers(one.media_type, kind):
                return kind
        if one.media_type in {"application/json", "text/xml", "application/xml"}:
            return XML if "xml" in one.media_type else JSON
    raise refusals.NotAcceptable(offered=[JSON, XML])


# ── what is not a job yet ─────────────────────────────────────────────────────────────────────────────────────────────


class ReceivedRefusal(Schema):
    """Why no job was made."""

    code: str
    title: str
    detail: str


class ReceivedSeries(Schema):
    """Instances of one series that are not a job yet."""

    id: str
    state: Literal["waiting", "refused"]
    study_instance_uid: str
    series_instance_uid: str
    instances: int
    changed_at: Time = Field(description="when the newest instance came")
    error: ReceivedRefusal | None

    @classmethod
    def of(cls, collected: Collected) -> Self:
        refusal = collected.refusal
        if refusal is not None and collected.changed_at > refusal.at:
            refusal = None
        return cls(
            id=collected.key,
            state="waiting" if refusal is None else "refused",
            study_instance_uid=collected.about.study_instance_uid,
            series_instance_uid=collected.about.series_instance_uid,
            instances=len(collected.files),
            changed_at=datetime.fromtimestamp(collected.changed_at, UTC),
            error=None if refusal is None else ReceivedRefusal(code=refusal.code, title=refusal.title, detail=refusal.detail),
        )


class ReceivedList(Schema):
    """All that is not a job yet, what has waited longest first."""

    received: list[ReceivedSeries]


_EXAMPLE: Final = {
    "id": "8f14e45fceea167a5a36dedd4bea2543",
    "state": "refused",
    "study_instance_uid": "2.25.1001",
    "series_instance_uid": "2.25.1002",
    "instances": 91,
    "changed_at": "2026-03-05T12:00:00.000Z",
    "error": {
        "code": "series.missing_slices",
        "title": errors.MissingSlices.title,
        "detail": errors.MissingSlices(expected_mm=2.5, found_mm=5.0, at_slice=37).detail,
    },
}
_LIST: Final[Call] = {
    "responses": {200: json_answer("What is not a job yet", {"received": [_EXAMPLE]}, "ReceivedList"), **problems()}
}
_DELETE: Final[Call] = {
    "responses": {204: {"description": "The instances are deleted"}, **problems(refusals.NotKept(what="received series"))}
}


@reads(
    received,
    "",
    summary="List received instances",
    response_model=ReceivedList,
    dependencies=[needs(Scope.JOBS_READ)],
    **_LIST,
)
def list_received(service: Here, caller: Caller, response: Response) -> ReceivedList:
    """Series that came by STOW-RS and are not a job.

    They wait for more of their images, or were refused, and why.
    """
    response.headers.update(PRIVATE)
    return ReceivedList(received=[ReceivedSeries.of(one) for one in service.received.all(caller.site)])


@received.delete(
    "/{received_id}", status_code=204, summary="Delete received instances", dependencies=[needs(Scope.JOBS_WRITE)], **_DELETE
)
def delete_received(service: Here, caller: Caller, received_id: Annotated[str, Path(description="the entry's `id`")]) -> Response:
    """Delete the instances of a series that is not a job."""
    if not service.received.delete(received_id, caller.site):
        raise refusals.NotKept(what="received series")
    return Response(status_code=204)

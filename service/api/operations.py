"""Routes of operations: health, metrics, the documentation."""

from typing import Final

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse, Response

from oarlock.scopes import Scope
from service.api import docs_page
from service.api.dependencies import PRIVATE, Caller, Here, needs
from service.api.openapi import Call, bytes_answer, json_answer, problems, to_problem
from service.api.problems import MEDIA_TYPE, problem
from service.api.routing import reads
from service.api.schemas.health import CallerDocument, Liveness, Readiness
from service.errors import NotReady
from service.monitoring import metrics

operations = APIRouter(tags=["operations"])

_LIVEZ: Final[Call] = {"responses": {200: json_answer("The process is up", {"status": "alive"}, "Liveness")}}


@reads(operations, "/livez", summary="Is the process up?", response_model=Liveness, **_LIVEZ)
async def livez() -> Liveness:
    """Answers as long as the process does."""
    return Liveness(status="alive")


_READY: Final = {"ready": True, "detail": None}
_NO_WORKER: Final = "no worker reported in the last 30 s, and 3 job(s) wait"
_DEPENDENCIES: Final = dict.fromkeys(("database", "broker", "storage", "workers", "model"), _READY)
_READYZ: Final[Call] = {
    "responses": {
        200: json_answer("Everything is ready", {"ready": True, "warnings": []} | _DEPENDENCIES, "Readiness"),
        503: {
            "description": "Something is not ready: a problem document that also has the members of the other answer",
            "content": {
                MEDIA_TYPE: {
                    "schema": {"allOf": [{"$ref": f"#/components/schemas/{name}"} for name in ("Problem", "Readiness")]},
                    "example": to_problem(NotReady(reasons={"workers": _NO_WORKER}))
                    | {"ready": False, "warnings": []}
                    | _DEPENDENCIES
                    | {"workers": {"ready": False, "detail": _NO_WORKER}},
                }
            },
        },
    }
}


@reads(operations, "/readyz", summary="Can series be processed?", response_model=Readiness, **_READYZ)
def readyz(request: Request, service: Here) -> Response:
    """Each thing that a job needs, by name."""
    found = service.health.readiness()
    document = Readiness.of(found, service.health.warnings())
    if document.ready:
        return Response(document.model_dump_json(), media_type="application/json", headers=PRIVATE)
    missing = {name: reason for name, reason in found.items() if reason is not None}
    return problem(request, NotReady(reasons=missing), members=document.model_dump())


_CALLER: Final[Call] = {
    "responses": {
        200: json_answer(
            "The caller",
            {"id": "key:0123456789ab", "name": "planning", "site": None, "scopes": ["jobs:read", "qa:read"], "open": False},
            "CallerDocument",
        ),
        **problems(),
    }
}


@reads(operations, "/v1/caller", summary="Who am I?", response_model=CallerDocument, dependencies=[needs()], **_CALLER)
def get_caller(service: Here, caller: Caller) -> CallerDocument:
    """Whom the key or token names, and what they may do."""
    is_open = service.doorkeeper.is_open()
    return CallerDocument(id=caller.id, name=caller.name, site=caller.site or None, scopes=sorted(caller.scopes), open=is_open)


_METRICS: Final[Call] = {
    "responses": {200: bytes_answer("Prometheus text format", "text/plain", 'oarlock_jobs{state="queued"} 3.0\n'), **problems()}
}


@reads(operations, "/metrics", summary="Numbers for Prometheus", dependencies=[needs(Scope.METRICS_READ)], **_METRICS)
def get_metrics(service: Here) -> Response:
    """Numbers of this server in the Prometheus text format.

    Jobs, queue, stage durations, scores, checks, refusals, models and workers.
    """
    return Response(service.metrics.exposition(), headers={"Content-Type": metrics.MEDIA_TYPE})


@reads(operations, "/docs", include_in_schema=False)
async def get_docs(request: Request) -> HTMLResponse:
    """The contract for people."""
    return HTMLResponse(docs_page.page(request.app.openapi()), headers=docs_page.HEADERS)

"""One log line a request, and an answer where nothing else gave one. Never a path or a parameter that a sender chose."""

import logging
from time import monotonic
from typing import Any, Final
from uuid import uuid4

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from oarlock.errors import InternalError
from service.api.problems import problem
from service.errors import NotReady

log = logging.getLogger(__name__)

_PROBES: Final = frozenset({"/livez", "/readyz", "/metrics"})
"""Asked every few seconds: an answer as it should be is no event."""

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class RequestLog:
    """Gives each request an id, writes its line, counts it, and answers 500 where nothing else did."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive)
        request.state.request_id = str(uuid4())
        request.state.error_code = None
        answer = _Answer(send, request.state.request_id)
        began = monotonic()
        try:
            await self._app(scope, _watched(request, receive), answer)
        except Exception:  # the last place where an unforeseen error can become an answer
            log.exception("unforeseen error", extra=_about(request))
            if answer.status is not None:
                raise
            await problem(request, InternalError(reference=request.state.request_id))(scope, receive, answer)
        finally:
            _note(request, answer.status, monotonic() - began)


def _about(request: Request) -> dict[str, Any]:
    job_id = getattr(request.state, "job_id", None)
    return {"request_id": request.state.request_id, "route": _route(request.scope), "job_id": job_id}


def _watched(request: Request, receive: Receive) -> Receive:
    """Keeps ``state.unread`` true as long as the sender has more of the body to send."""
    request.state.unread = "transfer-encoding" in request.headers or request.headers.get("content-length", "0") != "0"

    async def watched() -> Message:
        message = await receive()
        request.state.unread = message["type"] == "http.request" and message.get("more_body", False)
        return message

    return watched


class _Answer:
    """Passes an answer on, with the request's id in its headers, and remembers its status."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send, self._request_id = send, request_id
        self.status: int | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message.get("headers", []), (b"x-request-id", self._request_id.encode())]
        await self._send(message)


def _note(request: Request, status: int | None, seconds: float) -> None:
    state, route = request.state, _route(request.scope)
    method = request.method if request.method in _METHODS else "other"
    metrics = request.app.state.service.metrics
    metrics.requests.labels(route, method, status or "none").observe(seconds)
    if state.error_code not in {None, NotReady.code}:  # a probe that says "not yet" refuses nobody
        metrics.refusals.labels(state.error_code).inc()
    known = {"request_id": state.request_id, "route": route, "method": method, "status": status}
    known |= {"caller": state.caller.id if hasattr(state, "caller") else None, "address": request.client and request.client.host}
    job_id = getattr(state, "job_id", None)
    level = logging.DEBUG if route in _PROBES and status == 200 else logging.INFO
    log.log(level, "request", extra=known | {"code": state.error_code, "job_id": job_id, "seconds": round(seconds, 4)})


def _route(scope: Scope) -> str:
    """The pattern of the address, never the address itself."""
    return getattr(scope.get("route"), "path", "unknown")

"""One log line for each request.

And an answer where nothing else gave one.

A line never holds a path or a parameter that a sender chose.
"""

import logging
from collections.abc import Callable
from time import monotonic
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from oarlock.errors import InternalError, OarlockError
from service.errors import NotReady
from service.facts import RequestFacts, facts_of

log = logging.getLogger(__name__)

_PROBES: Final = frozenset({"/livez", "/readyz", "/metrics"})
"""Asked every few seconds: a normal answer is not worth a line."""

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


_SAFE: Final = ((b"x-content-type-options", b"nosniff"),)
_NOT_KEPT: Final = (b"cache-control", b"no-store")


class RequestLog:
    """Writes the line of each request and counts it.

    And answers 500 where nothing else did.

    :param to_answer: turns an error into the answer of a request.
    """

    def __init__(self, app: ASGIApp, to_answer: Callable[[Request, OarlockError], Response]) -> None:
        self._app, self._to_answer = app, to_answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        facts, request = RequestFacts.begin(scope), Request(scope, receive)
        answer = _Answer(send, facts.id)
        began = monotonic()
        try:
            await self._app(scope, _watched(request, receive), answer)
        except Exception:  # the last place where an unexpected error can become an answer
            log.exception("unexpected error", extra=_about(request))
            if answer.status is not None:
                raise
            await self._to_answer(request, InternalError(reference=facts.id))(scope, receive, answer)
        finally:
            _note(request, answer.status, monotonic() - began)


def _about(request: Request) -> dict[str, Any]:
    facts = facts_of(request)
    return {"request_id": facts.id, "route": _route(request.scope), "job_id": facts.job_id}


def _watched(request: Request, receive: Receive) -> Receive:
    """``receive``, which notes in ``facts.unread`` whether more of the body comes."""
    facts = facts_of(request)
    facts.unread = "transfer-encoding" in request.headers or request.headers.get("content-length", "0") != "0"

    async def watched() -> Message:
        message = await receive()
        facts.unread = message["type"] == "http.request" and message.get("more_body", False)
        return message

    return watched


class _Answer:
    """Passes an answer on, adds the request's id and safe headers, remembers the status."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send, self._request_id = send, request_id
        self.status: int | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = [*message.get("headers", []), (b"x-request-id", self._request_id.encode())]
            given = {name for name, _ in headers}
            message["headers"] = headers + [header for header in (*_SAFE, _NOT_KEPT) if header[0] not in given]
        await self._send(message)


def _note(request: Request, status: int | None, seconds: float) -> None:
    facts, route = facts_of(request), _route(request.scope)
    method = request.method if request.method in _METHODS else "other"
    metrics = request.app.state.service.metrics
    metrics.requests.labels(route, method, status or "none").observe(seconds)
    if facts.error_code not in {None, NotReady.code}:  # a probe that says "not yet" refuses nobody
        metrics.refusals.labels(facts.error_code).inc()
    known = {"request_id": facts.id, "route": route, "method": method, "status": status}
    known |= {"site": (facts.caller.site or None) if facts.caller else None}
    known |= {"caller": facts.caller.id if facts.caller else None, "address": request.client and request.client.host}
    level = logging.DEBUG if route in _PROBES and status == 200 else logging.INFO
    log.log(level, "request", extra=known | {"code": facts.error_code, "job_id": facts.job_id, "seconds": round(seconds, 4)})


def _route(scope: Scope) -> str:
    """The pattern of the address, never the address itself."""
    return getattr(scope.get("route"), "path", "unknown")

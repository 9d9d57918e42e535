"""Problem documents (RFC 9457) for every 4xx and 5xx.

The one table from errors to HTTP statuses is here. The text of each stands with its error: in ``service/errors.py``, or in
``oarlock/errors.py`` where the core raises it.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from http import HTTPStatus
from math import ceil
from typing import Any, Final

import anyio
import orjson
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from oarlock import errors
from oarlock.errors import OarlockError, leaves
from service import errors as refusals
from service.facts import facts_of

MEDIA_TYPE: Final = "application/problem+json"
RETRY_AFTER_S: Final = 5
LINGER_S: Final = 10.0
_CHALLENGE: Final = 'Bearer realm="oarlock"'

STATUS: Final[Mapping[type[OarlockError], int]] = {
    errors.InputError: 422,
    refusals.RouteNotFound: 404,
    refusals.NotKept: 404,
    refusals.MethodNotAllowed: 405,
    refusals.NotAcceptable: 406,
    refusals.BodyStalled: 408,
    refusals.BodyTooLarge: 413,
    refusals.AccessError: 401,
    refusals.HostNotAllowed: 403,
    refusals.CrossSite: 403,
    refusals.Forbidden: 403,
    refusals.RateLimited: 429,
    refusals.TooManyFollowers: 429,
    refusals.TooManyUploads: 429,
    refusals.UploadMalformed: 400,
    refusals.UploadStalled: 408,
    refusals.UploadTooLarge: 413,
    refusals.UnsupportedMediaType: 415,
    errors.JobError: 409,
    errors.JobNotFound: 404,
    errors.ResultNotFound: 404,
    errors.UnknownGateway: 404,
    errors.RequestNotFound: 404,
    errors.JobExpired: 410,
    errors.AttemptsExhausted: 500,
    errors.OperatorError: 500,
    errors.TransientError: 503,
    errors.StorageFull: 507,
}
"""A leaf has its own status or that of the nearest branch above it."""


def status_of(error: type[OarlockError]) -> int:
    """The HTTP status of an error."""
    return next(STATUS[branch] for branch in error.__mro__ if branch in STATUS)


STATUS_BY_CODE: Final[Mapping[str, int]] = {leaf.code: status_of(leaf) for leaf in leaves()}


def describe(code: str, title: str, detail: str) -> dict[str, Any]:
    """The members of a problem document that suit every request.

    They do not depend on the request. ``type`` is the error's entry in ``/docs``.
    """
    status = STATUS_BY_CODE.get(code, 500)
    return {"type": f"/docs#{code}", "title": title, "status": status, "code": code, "detail": detail}


def problem(
    request: Request,
    error: OarlockError,
    *,
    headers: Mapping[str, str] | None = None,
    members: Mapping[str, object] | None = None,
) -> Response:
    """The answer that says what went wrong.

    The rest of an upload that is still being sent is thrown away behind it.

    :param members: extension members of the document.
    """
    facts = facts_of(request)
    document = describe(error.code, error.title, error.detail) | {"instance": f"urn:uuid:{facts.id}"}
    document |= members or {}
    facts.error_code = error.code
    answer = _Lingering if facts.unread else Response
    all_headers = {**(headers or {}), **_headers_of(error, document["status"])}
    return answer(orjson.dumps(document), status_code=document["status"], media_type=MEDIA_TYPE, headers=all_headers)


def _headers_of(error: OarlockError, status: int) -> Mapping[str, str]:
    """Headers for a caller's program: when to try again (RFC 9110, 10.2.3), or how to authenticate (RFC 6750, 3)."""
    match error:
        case refusals.RateLimited():
            return {"Retry-After": str(ceil(error.retry_after_s))}
        case refusals.InvalidToken():
            return {"WWW-Authenticate": f'{_CHALLENGE}, error="invalid_token"'}
        case refusals.Forbidden():
            wanted = " ".join(error.scopes)
            return {"WWW-Authenticate": f'{_CHALLENGE}, error="insufficient_scope", scope="{wanted}"'}
        case refusals.Unauthenticated():
            return {"WWW-Authenticate": _CHALLENGE}
    return {"Retry-After": str(RETRY_AFTER_S)} if status in {429, 503, 507} else {}


class _Lingering(Response):
    """An answer to a request whose body is not read to its end.

    The whole answer goes out at once. Then whatever the sender still sends is thrown away for a while: closing a connection with
    unread bytes resets it, and the reset can overtake the answer, so that the sender would not learn why they were refused.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        del scope
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": True})
        with suppress(TimeoutError), anyio.fail_after(LINGER_S):
            async for _ in _rest(receive):
                pass
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _rest(receive: Receive) -> AsyncIterator[None]:
    while (message := await receive())["type"] == "http.request" and message.get("more_body", False):
        yield


# ── what FastAPI and Starlette raise ──────────────────────────────────────────────────────────────────────────────────


def install(app: FastAPI) -> None:
    """Send every error of the application as a problem document."""
    app.add_exception_handler(OarlockError, _ours)
    app.add_exception_handler(RequestValidationError, _validation)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(ClientDisconnect, _gone)


async def _ours(request: Request, error: Exception) -> Response:
    assert isinstance(error, OarlockError)
    return problem(request, error)


async def _validation(request: Request, error: Exception) -> Response:
    """A parameter that does not fit its type. What was sent is not repeated: it may be anything."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    return problem(request, errors.InvalidParameter(name=str(first["loc"][-1]), reason=f"is not valid: {_reason(first)}"))


def _reason(found: Mapping[str, Any]) -> str:
    message = str(found["msg"])
    return message[0].lower() + message[1:]


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    known = {HTTPStatus.NOT_FOUND: refusals.RouteNotFound, HTTPStatus.METHOD_NOT_ALLOWED: refusals.MethodNotAllowed}
    ours = known.get(HTTPStatus(error.status_code))
    if isinstance(error.__cause__, UnicodeDecodeError) and request.headers.get("content-type", "").startswith("application/json"):
        return problem(request, errors.InvalidParameter(name="body", reason="is not valid: it is not UTF-8"))
    if ours is None:
        return problem(request, refusals.UploadMalformed(reason="the server's parser refused it"))
    return problem(request, ours(), headers=_allowed(request) if ours is refusals.MethodNotAllowed else None)


def _allowed(request: Request) -> Mapping[str, str]:
    """All methods of an address; Starlette names those of its first route alone."""
    methods = {
        method for route in request.app.state.routes if route.path_regex.match(request.url.path) for method in route.methods
    }
    return {"Allow": ", ".join(sorted(methods or {"GET", "HEAD"}))}  # what FastAPI itself serves, /openapi.json


async def _gone(request: Request, error: Exception) -> Response:
    """The sender left in the middle of an upload; nobody reads this answer."""
    del error
    return problem(request, refusals.UploadMalformed(reason="the connection ended before it did"))

"""Bodies of calls that are not uploads.

Read within a size and a time, before anything else.

FastAPI reads the body of a call as a whole before it asks who calls. Without a limit a stranger could fill the memory with one
call that is refused in the end, or hold a connection with a body that never ends. Uploads have limits of their own
(:mod:`service.intake.multipart`).
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from oarlock.errors import OarlockError
from service.errors import BodyStalled, BodyTooLarge

LARGEST_BYTES: Final = 1_048_576
"""The longest body that any call needs is a gateway's report on 200 series: some hundred kilobytes."""

LONGEST_S: Final = 20.0


class BodyGuard:
    """Reads the bodies of calls that are not uploads.

    It refuses what is too long or too slow.

    :param routes: those whose bodies are read here.
    :param to_answer: turns an error into the answer of a request.
    """

    def __init__(self, app: ASGIApp, routes: Sequence[APIRoute], to_answer: Callable[[Request, OarlockError], Response]) -> None:
        self._app, self._routes, self._to_answer = app, routes, to_answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST" or not self._takes_body(scope["path"]):
            await self._app(scope, receive, send)
            return
        try:
            async with asyncio.timeout(LONGEST_S):
                message = await _read(scope, receive)
        except TimeoutError:
            await self._refuse(BodyStalled(seconds=LONGEST_S), scope, receive, send)
        except BodyTooLarge as error:
            await self._refuse(error, scope, receive, send)
        else:
            read = [message]

            async def replay() -> Message:
                return read.pop() if read else await receive()

            await self._app(scope, replay, send)

    def _takes_body(self, path: str) -> bool:
        return any(route.path_regex.match(path) for route in self._routes)

    async def _refuse(self, error: OarlockError, scope: Scope, receive: Receive, send: Send) -> None:
        await self._to_answer(Request(scope, receive), error)(scope, receive, send)


async def _read(scope: Scope, receive: Receive) -> Message:
    """The body in one message, or that the caller has gone.

    :raises BodyTooLarge: it is, or says that it will be.
    """
    announced = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
    if announced.isdigit() and int(announced) > LARGEST_BYTES:
        raise BodyTooLarge(limit=LARGEST_BYTES)
    pieces: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return message
        pieces.append(message.get("body", b""))
        size += len(pieces[-1])
        if size > LARGEST_BYTES:
            raise BodyTooLarge(limit=LARGEST_BYTES)
        if not message.get("more_body", False):
            return {"type": "http.request", "body": b"".join(pieces), "more_body": False}

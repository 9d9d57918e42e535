"""The application: routes, errors, logs and what it holds while it runs."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import partial
from typing import Any, Final

import anyio
from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from oarlock import __version__, logs
from oarlock.settings import Settings
from oarlock.store import audit
from service.api import openapi as contract
from service.api import problems, routes
from service.api import qa as qa_routes
from service.background import webhooks
from service.background.periodic import every
from service.background.sweeper import Sweeper
from service.background.webhooks import Caller, Messenger
from service.container import running
from service.monitoring import request_log

WITNESS_EVERY_S: Final = 600.0
"""How often the last entry of the audit log is told to the service's own log, which is kept elsewhere."""


def create_app(settings: Settings) -> FastAPI:
    """The HTTP face of Oarlock on these settings. Nothing is opened before it starts."""
    app = FastAPI(
        title="Oarlock",
        version=__version__,
        description="Draws 21 organs at risk on a head and neck planning CT. Every answer with a status of 400 or more is an "
        "RFC 9457 problem document. For research; not a medical device.",
        lifespan=_lifespan(settings),
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    problems.install(app)
    routers = (
        routes.jobs,
        *qa_routes.ROUTERS,
        routes.models,
        routes.profiles,
        routes.operations,
    )
    for router in routers:
        app.include_router(router)
    app.state.routes = [route for router in routers for route in router.routes if isinstance(route, APIRoute)]
    contract.install(app, app.state.routes)
    app.add_middleware(HeadAsGet)
    app.add_middleware(request_log.RequestLog)  # the last one added sees a request first
    return app


def _lifespan(settings: Settings) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        logs.set_up()
        with running(settings) as service:
            app.state.service = service
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(Sweeper(settings, service.store, service.storage, service.broker).run)
                tasks.start_soon(every, WITNESS_EVERY_S, partial(audit.tell_head, service.database))
                if service.callback_rules.hosts:
                    messenger = Messenger(service.callbacks, Caller(service.callback_rules))
                    tasks.start_soon(every, webhooks.PERIOD_S, messenger.deliver)
                yield
                tasks.cancel_scope.cancel()

    return lifespan


class _Enough(Exception):
    """The headers of an answer were sent, and nothing else was asked for."""


class HeadAsGet:
    """Answers HEAD wherever GET is answered: the same headers, no body (RFC 9110, 9.3.2)."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return

        async def headers_only(message: Message) -> None:
            if message["type"] == "http.response.start":
                await send(message)
                await send({"type": "http.response.body", "body": b""})
                raise _Enough

        inner: dict[str, Any] = dict(scope, method="GET")
        with suppress(_Enough):
            await self._app(inner, receive, headers_only)
        scope["route"] = inner.get("route")

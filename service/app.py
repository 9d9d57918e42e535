"""The application: routes, errors, logs and what it holds while it runs."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Any, Final

import anyio
import anyio.to_thread
from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.middleware.cors import CORSMiddleware

from oarlock import __version__, logs
from oarlock.confinement import tell_what_is_lacking
from oarlock.pipeline import apart
from oarlock.settings import Settings
from oarlock.store import audit
from service.access import oidc
from service.access.bodies import BodyGuard
from service.access.hosts import AddressGuard
from service.api import (
    baselines,
    catalogue,
    commissionings,
    deliveries,
    gateways,
    jobs,
    openapi,
    operations,
    problems,
    qa,
    results,
    reviews,
)
from service.background.periodic import attempt, every
from service.background.sweeper import Sweeper
from service.background.webhooks import delivery
from service.background.webhooks.client import WebhookClient
from service.background.webhooks.delivery import Messenger
from service.container import Service, running
from service.dicomweb import collector, query_routes, stow_routes
from service.dicomweb.collector import Collector
from service.monitoring.request_log import RequestLog
from service.web import pages, sign_in

WITNESS_EVERY_S: Final = 600.0
"""How often the last entry of the audit log is written into the service's own log, which is kept elsewhere."""

EXPIRY_EVERY_S: Final = 60.0
"""How often requests that no gateway takes are looked for."""

CORS: Final[dict[str, Any]] = {
    "allow_credentials": False,  # the cookie of the pages is for the pages
    "allow_methods": ["GET", "HEAD", "POST", "DELETE"],
    "allow_headers": ["Authorization", "Content-Type", "Idempotency-Key", "If-None-Match", "Last-Event-ID", "Range"],
    "expose_headers": ["ETag", "Location", "Retry-After", "Content-Disposition", "Link"],
    "max_age": 600,
}
"""What the pages of other origins may send and read, where the settings name any."""

ROUTERS: Final = (
    jobs.jobs,
    jobs.list_events,
    deliveries.deliveries,
    gateways.retrievals,
    gateways.resending,
    gateways.gateways,
    results.results,
    qa.references,
    qa.comparisons,
    reviews.reviews,
    baselines.baselines,
    commissionings.commissionings,
    qa.qa,
    catalogue.models,
    catalogue.profiles,
    operations.operations,
    pages.pages,
    sign_in.sign_in,
    stow_routes.stow,
    query_routes.dicomweb,
    stow_routes.received,
)


def create_app(settings: Settings, *, worker_problem: Callable[[], str | None] = lambda: None) -> FastAPI:
    """The HTTP face of Oarlock on these settings.

    Nothing is opened before it starts.

    :param worker_problem: why the embedded worker does not run; None if it does, or if there is none.
    """
    app = FastAPI(
        title="Oarlock",
        version=__version__,
        description="Draws 21 organs at risk on a head and neck planning CT. Every answer with a status of 400 or more is an "
        "RFC 9457 problem document. For research; not a medical device.",
        lifespan=_lifespan(settings, worker_problem),
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=_operation_id,
    )
    problems.install(app)
    for router in ROUTERS:
        app.include_router(router)
    app.state.routes = [route for router in ROUTERS for route in router.routes if isinstance(route, APIRoute)]
    openapi.install(app, app.state.routes)
    small = [route for route in app.state.routes if route.body_field is not None or route.name == sign_in.post_sign_in.__name__]
    app.add_middleware(BodyGuard, routes=small, to_answer=problems.problem)
    if settings.cors_origins:
        app.add_middleware(CORSMiddleware, allow_origins=settings.cors_origins, **CORS)
    app.add_middleware(AddressGuard, allowed=settings.allowed_hosts, to_answer=problems.problem)
    app.add_middleware(RequestLog, to_answer=problems.problem)  # the last one added sees a request first
    return app


def _operation_id(route: APIRoute) -> str:
    """The name of the function: what a generated client calls the operation."""
    return route.name


def _lifespan(
    settings: Settings, worker_problem: Callable[[], str | None]
) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        logs.set_up()
        tell_what_is_lacking()
        with running(settings, embedded=worker_problem) as service:
            app.state.service = service
            async with anyio.create_task_group() as tasks:
                await _start(service, tasks.start_soon)
                yield
                apart.end_all()  # the threads that wait for a comparison would keep the process for minutes
                tasks.cancel_scope.cancel()

    return lifespan


async def _start(service: Service, start_soon: Callable[..., object]) -> None:
    """Start what the service does between calls."""
    start_soon(Sweeper(service.settings, service.store, service.storage, service.broker).run)
    start_soon(service.followers.run)
    start_soon(every, collector.PERIOD_S, Collector(service).collect)
    start_soon(every, EXPIRY_EVERY_S, service.gateways.expire)
    start_soon(every, WITNESS_EVERY_S, partial(audit.tell_head, service.database))
    if service.callback_rules.hosts:
        messenger = Messenger(service.callbacks, WebhookClient(service.callback_rules))
        start_soon(every, delivery.PERIOD_S, messenger.deliver)
    if service.oidc is not None:
        refresh = service.oidc.keys.refresh_if_wanted
        await anyio.to_thread.run_sync(attempt, refresh)  # the first callers should not be told to wait
        start_soon(every, oidc.PERIOD_S, refresh)

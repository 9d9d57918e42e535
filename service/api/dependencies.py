"""Dependencies of routes: service, caller and job.

The caller with the scopes that a call needs, and the job in the address.
"""

import re
from collections.abc import Callable
from typing import Annotated, Any, Final

from fastapi import Depends, Path, Request, Security
from fastapi.routing import APIRoute
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer, SecurityScopes

from oarlock.errors import JobExpired, JobNotFinished, JobNotFound, TransientError
from oarlock.scopes import Scope
from oarlock.store.audit import Actor
from oarlock.store.jobs import Job, JobId, JobState
from service.access.auth import Principal, check_scopes
from service.access.hosts import Origin
from service.access.sessions import cookie_of
from service.container import Service
from service.errors import AccessError, UnknownParameter
from service.facts import facts_of

SCHEME: Final = "bearer"
PRIVATE: Final = {"Cache-Control": "no-store"}
_BEARER: Final = HTTPBearer(
    auto_error=False,
    scheme_name=SCHEME,
    description="A key of this server (`oarlock keys create`), or a token of the identity provider that it trusts. "
    "A server on loopback without any key is open.",
)
_ID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_Credentials = Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)]


async def _service(request: Request) -> Service:  # a plain function would take a turn in a thread
    service = request.app.state.service
    assert isinstance(service, Service)
    return service


Here = Annotated[Service, Depends(_service)]
"""The service, as a parameter of a route."""


def _identify(request: Request, service: Service, credentials: HTTPAuthorizationCredentials | None) -> Principal:
    cookie = cookie_of(request) if credentials is None else None
    token = credentials.credentials if credentials else service.sessions.find(cookie) if cookie else None
    return service.doorkeeper.identify(token, Origin.of(request), request.client.host if request.client else None)


def admit(request: Request, service: Here, wanted: SecurityScopes, credentials: _Credentials) -> Principal:
    """The caller, who may make this call.

    :raises AccessError: if they may not.
    :raises UnknownParameter: if they may, and the address has a parameter that the call does not take.
    """
    principal = _identify(request, service, credentials)
    facts_of(request).caller = principal  # before they may be refused: the log names whoever is known
    service.doorkeeper.authorise(principal, [Scope(scope) for scope in wanted.scopes])
    _check_parameters(request)
    return principal


async def _still(request: Request, service: Here, credentials: _Credentials) -> Callable[[Scope], bool]:
    def still(scope: Scope) -> bool:
        try:
            check_scopes(_identify(request, service, credentials), [scope])
        except TransientError:
            return True
        except AccessError:
            return False
        return True

    return still


StillAllowed = Annotated[Callable[[Scope], bool], Depends(_still)]
"""Whether the caller's key is still valid and has a scope, for a call that goes on for long; not counted as a call."""


def _check_parameters(request: Request) -> None:
    """Check that the contract knows every query parameter: a misspelt one should not be ignored.

    :raises UnknownParameter: if not.
    """
    route = request.scope.get("route")
    if not request.query_params or not isinstance(route, APIRoute):
        return
    operation = request.app.openapi()["paths"].get(route.path_format, {}).get(request.method.lower().replace("head", "get"), {})
    known = [parameter["name"] for parameter in operation.get("parameters", ()) if parameter["in"] == "query"]
    if not set(request.query_params) <= set(known):
        raise UnknownParameter(known=known)


def needs(*scopes: Scope) -> Any:
    """A dependency of a route: the caller needs a scope.

    One of these, or any valid key where none is named.
    """
    return Security(admit, scopes=list(scopes))


def _principal(request: Request) -> Principal:
    caller = facts_of(request).caller
    assert caller is not None  # admit() ran before
    return caller


async def _caller(request: Request) -> Principal:
    return _principal(request)


def actor_of(request: Request, caller: Principal) -> Actor:
    """How the audit log names a caller.

    With their site before their name.
    """
    name = f"{caller.site}/{caller.name}" if caller.site else caller.name
    return Actor(caller.id, name, request.client.host if request.client else None)


async def _actor(request: Request) -> Actor:
    return actor_of(request, _principal(request))


Caller = Annotated[Principal, Depends(_caller)]
"""Who calls, in a route with :func:`needs`."""

By = Annotated[Actor, Depends(_actor)]
"""The same as the audit log names them."""


def _row_of(
    job_id: Annotated[str, Path(description="the job's `id`")],
    request: Request,
    service: Here,
) -> Job:
    """The job in the address, or what is left of it.

    :raises JobNotFound: if there is no such job, or it is another site's.
    """
    if not _ID.fullmatch(job_id):
        raise JobNotFound
    facts_of(request).job_id = job_id
    job = service.store.get(JobId(job_id))
    if not job.is_seen_by(_principal(request).site):
        raise JobNotFound
    return job


AnyJob = Annotated[Job, Depends(_row_of)]
"""The job in the address, purged or not."""


async def _present(job: AnyJob) -> Job:
    return check_present(job)


def check_present(job: Job) -> Job:
    """The job in the address.

    :raises JobExpired: if it was purged.
    """
    if job.purged_at is not None:
        raise JobExpired
    return job


TheJob = Annotated[Job, Depends(_present)]
"""The job in the address, which was not purged."""


def check_finished(job: Job) -> None:
    """Check that a job has results.

    :raises JobNotFinished: if not.
    """
    if job.state is not JobState.SUCCEEDED:
        raise JobNotFinished(state=job.state)

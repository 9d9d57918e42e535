"""Access: what a route says about who may call it."""

from typing import Annotated, Any, Final

from fastapi import Depends, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer, SecurityScopes

from oarlock.scopes import Scope
from oarlock.store.audit import Actor
from service.access.auth import Caller
from service.container import Here

SCHEME: Final = "bearer"
_BEARER: Final = HTTPBearer(
    auto_error=False,
    scheme_name=SCHEME,
    description="A key of this server (`oarlock keys create`), or a token of the identity provider that it trusts. "
    "A server on loopback without any key is open.",
)
_Credentials = Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)]


def admit(request: Request, service: Here, wanted: SecurityScopes, credentials: _Credentials) -> Caller:
    """The caller, who may make this call; also the parameter of a route that asks who it is.

    :raises AccessError: if he may not.
    """
    token = credentials.credentials if credentials else None
    caller = service.doorkeeper.admit(token, [Scope(scope) for scope in wanted.scopes])
    request.state.caller = caller
    return caller


def _actor(request: Request) -> Actor:
    """Who calls, as the audit log has it; :func:`admit` has let him in before."""
    caller: Caller = request.state.caller
    return Actor(caller.id, caller.name, request.client.host if request.client else None)


By = Annotated[Actor, Depends(_actor)]
"""Who calls, as a parameter of a route that does something for him."""


def needs(*scopes: Scope) -> Any:
    """A dependency of a route: its caller must have one of these scopes, or, where none is named, be anyone who is known."""
    return Security(admit, scopes=list(scopes))

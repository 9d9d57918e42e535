"""Facts of one request, kept in its ASGI scope.

From the first byte to the log line.
"""

from dataclasses import dataclass, field
from typing import Any, Final
from uuid import uuid4

from starlette.requests import Request
from starlette.types import Scope

from service.access.auth import Principal

_KEY: Final = "oarlock.facts"


@dataclass(slots=True)
class RequestFacts:
    """What is known of one request.

    By the log, the problem documents and the routes.

    :ivar id: name of the request in the log, in ``X-Request-ID`` and in problem documents.
    :ivar unread: whether the sender has more of the body to send.
    :ivar caller: who calls; None until a key or token is recognised.
    :ivar job_id: the job that the request is about.
    :ivar error_code: code of the error that was answered.
    """

    id: str = field(default_factory=lambda: str(uuid4()))
    unread: bool = False
    caller: Principal | None = None
    job_id: str | None = None
    error_code: str | None = None

    @classmethod
    def begin(cls, scope: Scope) -> "RequestFacts":
        """New facts, put into the scope of a request."""
        facts = cls()
        scope[_KEY] = facts
        return facts


def facts_of(request: Request) -> RequestFacts:
    """The facts of a request that the request log has seen."""
    found: Any = request.scope[_KEY]
    assert isinstance(found, RequestFacts)
    return found

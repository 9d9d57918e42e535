"""Hosts and origins: was a request meant for this server?

And did it come from another web page?

A browser sends requests on behalf of any page. A page can make its own name lead to 127.0.0.1 (DNS rebinding), and can post
forms across origins; ``Host``, ``Origin`` and ``Sec-Fetch-Site`` are what it cannot forge.
"""

import ipaddress
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from oarlock.errors import OarlockError
from service.errors import CrossSite, HostNotAllowed, RouteNotFound

_HOST: Final = re.compile(r"(?P<name>[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_OWN_SITES: Final = frozenset({None, "same-origin", "none"})


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a request says that it goes and comes from.

    None for a header that is not there.
    """

    host: str | None = None
    origin: str | None = None
    fetch_site: str | None = None

    @classmethod
    def of(cls, request: Request) -> "Origin":
        headers = request.headers
        return cls(headers.get("host"), headers.get("origin"), headers.get("sec-fetch-site"))

    def check_local(self) -> None:
        """Check that a request comes from this machine.

        And from no page of another origin.

        :raises HostNotAllowed: if it names another host.
        :raises CrossSite: if a browser sent it for another page.
        """
        if not is_loopback(host_name(self.host) or ""):
            raise HostNotAllowed
        foreign = self.origin is not None and _authority(self.origin) != (self.host or "").lower()
        if foreign or self.fetch_site not in _OWN_SITES:
            raise CrossSite

    def check_own_page(self, *, safe: bool) -> None:
        """Check that a browser's request comes from this server's page.

        Its cookie alone does not tell.

        :param safe: whether the request changes nothing: then an address that was typed in will do.
        :raises CrossSite: if not.
        """
        own = self.origin is not None and _authority(self.origin) == (self.host or "").lower()
        if self.fetch_site not in _OWN_SITES or not (own or (safe and self.origin is None)):
            raise CrossSite


def _authority(origin: str) -> str | None:
    """Host and port of an ``Origin``, in lower case; None if it is malformed: browsers send none such."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return None


def host_name(header: str | None) -> str | None:
    """The name in a ``Host`` header, or None.

    In lower case and without its port; None if it is malformed or missing.
    """
    found = _HOST.fullmatch(header or "")
    return found["name"].strip("[]").lower().rstrip(".") if found else None


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class AddressGuard:
    """Refuses requests for other hosts before any route sees them.

    And addresses with control characters.

    :param allowed: names that the server is known by, in lower case; empty for any well-formed name. This machine's own names are
        always allowed.
    :param to_answer: turns an error into the answer of a request.
    """

    def __init__(self, app: ASGIApp, allowed: Collection[str], to_answer: Callable[[Request, OarlockError], Response]) -> None:
        self._app, self._allowed, self._to_answer = app, frozenset(allowed), to_answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (error := self._objection(scope)):
            await self._to_answer(Request(scope, receive), error)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _objection(self, scope: Scope) -> OarlockError | None:
        hosts = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
        name = host_name(hosts[0]) if len(hosts) == 1 else None
        if name is None or (self._allowed and name not in self._allowed and not is_loopback(name)):
            return HostNotAllowed()
        return RouteNotFound() if _CONTROL.search(scope["path"]) else None

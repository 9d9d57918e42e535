"""Authentication and authorisation: who calls, what they may do, and how often."""

from collections import OrderedDict
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Final, Protocol

from oarlock.scopes import Scope
from oarlock.settings import Settings
from oarlock.store.keys import KeyStore
from oarlock.store.retention import NO_OVERRIDE, Retention
from service.access.hosts import Origin, is_loopback
from service.access.rate_limit import RateLimit
from service.errors import Forbidden, InvalidToken, RateLimited, Unauthenticated

WRONG_PER_MINUTE: Final = 60
"""How many wrong tokens a minute one address may send."""

_REMEMBERED: Final = 10_000


@dataclass(frozen=True, slots=True)
class Principal:
    """Somebody who may call.

    :ivar id: their name in logs: a key's id, never its secret.
    :ivar name: display name.
    :ivar profile: how their RTSTRUCTs are written unless a job says otherwise; None for the server's default.
    :ivar retention: how long their jobs stay; overrides the settings.
    :ivar site: whose jobs and scores they see; empty for an operator, who sees those of all sites.
    """

    id: str
    name: str
    scopes: frozenset[Scope]
    profile: str | None = None
    retention: Retention = NO_OVERRIDE
    site: str = ""


ANYONE: Final = Principal("anyone", "anyone", frozenset({Scope.ADMIN}))
"""Every caller of a service that is open."""


class Recogniser(Protocol):
    """Tells from a token who calls."""

    def recognise(self, token: str) -> Principal:
        """The bearer of a token.

        :raises InvalidToken: if the token is not valid.
        """
        ...


class Doorkeeper:
    """Admits callers.

    On loopback the service is open until the first key is made, to programs of this machine alone (ADR 18). It stays closed when
    that key expires.

    :param tokens: recognises bearer tokens that are not Oarlock's keys; None if only keys are accepted.
    """

    def __init__(self, settings: Settings, keys: KeyStore, tokens: Recogniser | None = None) -> None:
        self._keys, self._tokens = keys, tokens
        self._closed = not is_loopback(settings.host) or tokens is not None
        self._rate = RateLimit(settings.rate_per_minute)
        self._rules = settings.rules
        rates = {site: one.rate_per_minute for site, one in self._rules.items()}
        self._rates = {site: RateLimit(per_minute) for site, per_minute in rates.items() if per_minute is not None}
        self._wrong = WrongTokens()

    def identify(self, token: str | None, origin: Origin, address: str | None) -> Principal:
        """Who calls.

        :param token: what was sent as ``Authorization: Bearer``.
        :param origin: where the call says that it comes from.
        :param address: of the caller.
        :raises HostNotAllowed: if the service is open, and the call is for another host.
        :raises CrossSite: if the service is open, and the call comes from another web page.
        :raises Unauthenticated: if nothing was sent.
        :raises InvalidToken: if the token is not valid.
        :raises RateLimited: if too many wrong tokens came from the address.
        """
        if self.is_open():
            origin.check_local()
            return ANYONE
        if token is None:
            raise Unauthenticated
        with self._wrong.counted(token, address or "unknown"):
            return self._with_rules(self._recognise(token))

    def _with_rules(self, principal: Principal) -> Principal:
        """With what their site sets where their key says nothing."""
        rules = self._rules.get(principal.site)
        if rules is None:
            return principal
        keep, site = principal.retention, rules.retention
        retention = Retention(
            site.input_s if keep.input_s is None else keep.input_s, site.results_s if keep.results_s is None else keep.results_s
        )
        return replace(principal, profile=principal.profile or rules.profile, retention=retention)

    def authorise(self, principal: Principal, wanted: Collection[Scope]) -> None:
        """Check that somebody may make this call now.

        :param wanted: scopes, one of which is needed; none if any valid key will do.
        :raises RateLimited: if they called too often.
        :raises Forbidden: if their scopes do not allow the call.
        """
        rate = self._rates.get(principal.site, self._rate)
        if principal is not ANYONE and (wait_s := rate.wait_s(f"site:{principal.site}" if principal.site else principal.id)):
            raise RateLimited(retry_after_s=wait_s)
        check_scopes(principal, wanted)

    def _recognise(self, token: str) -> Principal:
        if self._tokens is not None and token.count(".") == 2:  # a signed JWT; Oarlock's keys have no dots
            return self._tokens.recognise(token)
        key = self._keys.find(token)
        if key is None:
            raise InvalidToken
        return Principal(f"key:{key.id}", key.name, key.scopes, key.profile, key.retention, key.site)

    def is_open(self) -> bool:
        """Whether programs of this machine need no key."""
        self._closed = self._closed or self._keys.were_made()
        return not self._closed


class WrongTokens:
    """Counts wrong tokens by address: each costs a look into the database.

    Tokens that were valid lately are let through, so that one wrong program does not shut out the others behind its address.
    """

    def __init__(self) -> None:
        self._rate = RateLimit(WRONG_PER_MINUTE)
        self._valid: OrderedDict[bytes, None] = OrderedDict()

    @contextmanager
    def counted(self, token: str, address: str) -> Iterator[None]:
        """Count the block if it raises :class:`InvalidToken`.

        :raises RateLimited: if the address has had too many, and the token was not valid lately.
        """
        digest = sha256(token.encode()).digest()
        if digest not in self._valid and (wait_s := self._rate.wait_s(address, count=False)):
            raise RateLimited(retry_after_s=wait_s)
        try:
            yield
        except InvalidToken:
            self._valid.pop(digest, None)
            self._rate.wait_s(address)
            raise
        self._valid[digest] = None
        if len(self._valid) > _REMEMBERED:
            self._valid.popitem(last=False)


def check_scopes(principal: Principal, wanted: Collection[Scope]) -> None:
    """Check that somebody has one of the scopes, or ``admin``.

    :raises Forbidden: if not.
    """
    if wanted and not principal.scopes & {*wanted, Scope.ADMIN}:
        raise Forbidden(scopes=list(wanted))

"""Auth: who calls, whether he may, and whether he calls too often."""

import ipaddress
from collections.abc import Callable, Collection
from dataclasses import dataclass
from threading import Lock
from time import monotonic
from typing import Final, Protocol

from oarlock.scopes import Scope
from oarlock.settings import Settings
from oarlock.store.keys import KeyStore
from oarlock.store.retention import NO_OVERRIDE, Retention
from service.errors import Forbidden, InvalidToken, RateLimited, Unauthenticated

_MANY: Final = 1_000
_WINDOW_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody who may call.

    :ivar id: what logs call him: a key's id, never its secret.
    :ivar name: what people call him.
    :ivar profile: how RTSTRUCTs are written for him unless a job says otherwise; None for the server's default.
    :ivar retention: how long his jobs stay, where that is not for the settings to say.
    """

    id: str
    name: str
    scopes: frozenset[Scope]
    profile: str | None = None
    retention: Retention = NO_OVERRIDE


ANYONE: Final = Caller("anyone", "anyone", frozenset({Scope.ADMIN}))
"""Whoever calls a service that is open."""


class Recogniser(Protocol):
    """Whatever can tell from a token who calls."""

    def recognise(self, token: str) -> Caller:
        """Who a token speaks of.

        :raises InvalidToken: if it speaks of nobody.
        """
        ...


class Doorkeeper:
    """Lets callers in.

    On loopback the service is open as long as no key was ever made. One key closes it, and it stays closed when that key expires.

    :param tokens: recognises bearer tokens that are not keys of ours; without it there are none.
    """

    def __init__(self, settings: Settings, keys: KeyStore, tokens: Recogniser | None = None) -> None:
        self._keys, self._tokens = keys, tokens
        self._closed = not is_loopback(settings.host) or tokens is not None
        self._rate = RateLimit(settings.rate_per_minute)

    def admit(self, token: str | None, wanted: Collection[Scope]) -> Caller:
        """Who calls.

        :param token: what he sent as ``Authorization: Bearer``.
        :param wanted: scopes, one of which he must have; none if it is enough that he is known.
        :raises Unauthenticated: if he sent nothing.
        :raises InvalidToken: if what he sent opens nothing.
        :raises Forbidden: if his scopes do not allow the call.
        :raises RateLimited: if he called too often.
        """
        if self._is_open():
            return ANYONE
        if token is None:
            raise Unauthenticated
        caller = self._recognise(token)
        if wait_s := self._rate.wait_s(caller.id):
            raise RateLimited(retry_after_s=wait_s)
        if wanted and not caller.scopes & {*wanted, Scope.ADMIN}:
            raise Forbidden(scopes=list(wanted))
        return caller

    def _recognise(self, token: str) -> Caller:
        if self._tokens is not None and token.count(".") == 2:  # a signed JWT; a key of ours has no dots
            return self._tokens.recognise(token)
        key = self._keys.find(token)
        if key is None:
            raise InvalidToken
        return Caller(f"key:{key.id}", key.name, key.scopes, key.profile, key.retention)

    def _is_open(self) -> bool:
        self._closed = self._closed or self._keys.were_made()
        return not self._closed


class RateLimit:
    """So many calls a minute from each caller, in bursts as they come; counted in this process.

    The generic cell rate algorithm: of each caller one time is kept, at which all calls until now would have been due at an
    even pace.

    :param per_minute: 0 for no limit.
    """

    def __init__(self, per_minute: int, *, clock: Callable[[], float] = monotonic) -> None:
        self._interval_s = _WINDOW_S / per_minute if per_minute else 0.0
        self._clock = clock
        self._due: dict[str, float] = {}
        self._lock = Lock()

    def wait_s(self, caller: str) -> float:
        """Count a call; if it is one too many, how long until the next one is not, and then it does not count."""
        with self._lock:
            now = self._clock()
            due = max(self._due.get(caller, now), now)
            wait_s = due - now - (_WINDOW_S - self._interval_s)
            if wait_s > 0:
                return wait_s
            self._due[caller] = due + self._interval_s
            if len(self._due) > _MANY:
                self._due = {name: at for name, at in self._due.items() if at > now}
            return 0.0


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"

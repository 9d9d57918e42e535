"""OpenID Connect: tokens of a hospital's own identity provider.

OpenID Connect, RFC 7519, RFC 9068.

A token is recognised by its signature, issuer, audience and times. The issuer's public keys come from its discovery document, and
are fetched in the background alone: strangers choose the key ids of their tokens, and no call waits for the issuer.
"""

import json
import logging
import socket
import ssl
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from threading import Lock, Timer
from time import monotonic
from typing import Any, Final
from urllib.error import URLError
from urllib.parse import urlsplit
from urllib.request import HTTPHandler, HTTPRedirectHandler, HTTPSHandler, Request, build_opener

import jwt

from oarlock.errors import InvalidParameter
from oarlock.scopes import Scope
from oarlock.settings import Settings
from oarlock.store.keys import check_site
from service.access.auth import Principal
from service.access.hosts import is_loopback
from service.errors import InvalidToken, IssuerUnavailable

log = logging.getLogger(__name__)

ALGORITHMS: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Signatures that only the issuer can make. With ``none`` or an HMAC anybody could who knows a public key."""

FRESH_S: Final = 600.0
"""Keys older than this are fetched again."""

STALE_S: Final = 3_600.0
"""Keys older than this are not used any more."""

PAUSE_S: Final = 30.0
"""Least time between two fetches."""

PERIOD_S: Final = 1.0
"""How often the background looks whether keys are wanted."""

DEADLINE_S: Final = 10.0
"""Longest time of a fetch, as a whole."""

_LONGEST: Final = 255
_TIMEOUT_S: Final = 5.0
_LARGEST_BYTES: Final = 1_000_000
_PIECE_BYTES: Final = 65_536
_LEEWAY_S: Final = 30
_NAMES: Final = ("preferred_username", "client_id", "azp", "sub")

Fetch = Callable[[str], Any]


class IssuerKeys:
    """The public keys of an issuer, kept fresh by :meth:`refresh_if_wanted`.

    :param fetch: gives the JSON document at a URL; raises OSError or ValueError if there is none.
    :ivar about: the issuer's discovery document; empty until it was fetched.
    """

    def __init__(self, issuer: str, *, fetch: Fetch, clock: Callable[[], float] = monotonic) -> None:
        self._issuer, self._fetch, self._clock = issuer, fetch, clock
        self._keys: Mapping[str, jwt.PyJWK] = {}
        self.about: Mapping[str, Any] = {}
        self._fetched_at = self._tried_at = float("-inf")
        self._wanted = True
        self._lock = Lock()

    def find(self, key_id: str) -> jwt.PyJWK | None:
        """The key with this id; None if it is not known.

        Then it is looked for in the background.

        :raises IssuerUnavailable: if the keys are not known at all, or too old.
        """
        with self._lock:
            age_s = self._clock() - self._fetched_at
            self._wanted |= key_id not in self._keys or age_s > FRESH_S
            if age_s > STALE_S:
                raise IssuerUnavailable
            return self._keys.get(key_id)

    def refresh_if_wanted(self) -> None:
        """Fetch the keys if somebody needs them.

        But not more often than every 30 s.
        """
        with self._lock:
            if not self._wanted or self._clock() - self._tried_at < PAUSE_S:
                return
            self._tried_at, self._wanted = self._clock(), False
        found = self._read()
        with self._lock:
            if found is None:
                self._wanted = True
            else:
                self._keys, self._fetched_at = found, self._clock()

    def _read(self) -> Mapping[str, jwt.PyJWK] | None:
        """What the issuer publishes; None if it cannot be had."""
        try:
            about = self._fetch(f"{self._issuer.rstrip('/')}/.well-known/openid-configuration")
            if about["issuer"] != self._issuer:
                log.error("the issuer's name in its discovery document differs from that in the settings")
                return None
            documents = self._fetch(about["jwks_uri"])["keys"]
            self.about = about
        except (OSError, HTTPException, ValueError, KeyError, TypeError) as error:
            log.warning("the issuer's keys could not be fetched", extra={"error": type(error).__name__})
            return None
        found = map(_key, documents) if isinstance(documents, list) else ()
        return {key.key_id: key for key in found if key is not None and key.key_id}


def _key(document: Any) -> jwt.PyJWK | None:
    """A key that verifies signatures; None for a key of another use or kind, and for what is not a key with an id."""
    if not isinstance(document, dict) or not isinstance(document.get("kid"), str) or document.get("use", "sig") != "sig":
        return None
    try:
        return jwt.PyJWK(document)
    except jwt.PyJWTError:
        return None


class _NoRedirects(HTTPRedirectHandler):
    """Makes a redirection an error: it would lead to an address that nobody has checked."""

    def redirect_request(self, *_: object, **__: object) -> None:
        return None


class _Plain(HTTPHandler):
    def __init__(self, opened: list[HTTPConnection]) -> None:
        super().__init__()
        self._opened = opened

    def http_open(self, req: Request) -> Any:
        return self.do_open(self._connect, req)

    def _connect(self, host: str, **options: Any) -> HTTPConnection:
        self._opened.append(HTTPConnection(host, **options))
        return self._opened[-1]


class _Tls(HTTPSHandler):
    def __init__(self, opened: list[HTTPConnection]) -> None:
        super().__init__()
        self._opened = opened

    def https_open(self, req: Request) -> Any:
        return self.do_open(self._connect, req)

    def _connect(self, host: str, **options: Any) -> HTTPConnection:
        self._opened.append(HTTPSConnection(host, context=ssl.create_default_context(), **options))
        return self._opened[-1]


def fetch_json(url: str, *, deadline_s: float = DEADLINE_S) -> Any:
    """The JSON document at a URL, over TLS.

    Without TLS from this machine only.

    :raises OSError: if nothing answers, or only too slowly or with too much.
    :raises ValueError: if the address is not allowed, or its content is not JSON.
    """
    check_url(url)
    request = Request(url, headers={"Accept": "application/json"})  # noqa: S310 - checked above
    opened: list[HTTPConnection] = []
    until = monotonic() + deadline_s
    watchdog = Timer(deadline_s, _give_up, [opened])  # a socket's own timeout starts anew with every byte
    watchdog.start()
    try:
        with build_opener(_NoRedirects, _Plain(opened), _Tls(opened)).open(request, timeout=_TIMEOUT_S) as answer:
            content = b""
            while piece := answer.read1(_PIECE_BYTES):
                content += piece
                if len(content) > _LARGEST_BYTES or monotonic() > until:
                    raise URLError("the document is too large, or comes too slowly")
    finally:
        watchdog.cancel()
    return json.loads(content)


def _give_up(opened: list[HTTPConnection]) -> None:
    for connection in opened:
        if connection.sock is not None:
            with suppress(OSError):
                connection.sock.shutdown(socket.SHUT_RDWR)


def check_url(url: str) -> str:
    """A URL whose content cannot be changed on the way.

    :raises ValueError: if it is neither https nor on this machine.
    """
    parts = urlsplit(url)
    if parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname or "")):
        return url
    msg = "an OpenID Connect issuer is reached by https (by http only on this machine)"
    raise ValueError(msg)


class OIDC:
    """Recognises the tokens of one issuer for one audience.

    :param scope_claim: claim, or path of claims with dots, that says what the bearer may do.
    :param scope_map: meanings of its values; a value that is not in it counts if it is itself a scope.
    :param site_claim: likewise, the claim that names the bearer's site; None where every bearer sees all sites.
    """

    def __init__(
        self,
        keys: IssuerKeys,
        *,
        issuer: str,
        audience: str,
        scope_claim: str,
        scope_map: Mapping[str, Sequence[Scope]],
        site_claim: str | None = None,
    ) -> None:
        self.keys, self._issuer, self._audience = keys, issuer, audience
        self._scope_claim, self._map, self._site_claim = scope_claim, scope_map, site_claim

    @classmethod
    def of(cls, settings: Settings) -> "OIDC | None":
        """The issuer of the settings; None if they name none."""
        if settings.oidc_issuer is None or settings.oidc_audience is None:
            return None
        return cls(
            IssuerKeys(check_url(settings.oidc_issuer), fetch=fetch_json),
            issuer=settings.oidc_issuer,
            audience=settings.oidc_audience,
            scope_claim=settings.oidc_scope_claim,
            scope_map=settings.oidc_scope_map,
            site_claim=settings.oidc_site_claim,
        )

    def recognise(self, token: str) -> Principal:
        """The bearer of a token.

        :raises InvalidToken: if it is not a valid token of this issuer for this audience.
        :raises IssuerUnavailable: if that cannot be checked now.
        """
        try:
            key_id = jwt.get_unverified_header(token).get("kid")
            key = self.keys.find(key_id) if isinstance(key_id, str) else None
            if key is None:
                raise InvalidToken
            claims = jwt.decode(
                token,
                key,
                algorithms=ALGORITHMS,
                issuer=self._issuer,
                audience=self._audience,
                leeway=_LEEWAY_S,
                options={"require": ["exp", "iss", "aud", "sub"], "enforce_minimum_key_length": True},  # RSA of 2,048 bits
            )
        except jwt.PyJWTError as error:
            raise InvalidToken from error
        if not claims["sub"]:
            raise InvalidToken
        name = next(str(claims[claim]) for claim in _NAMES if claims.get(claim))
        scopes = self._scopes(claims)
        return Principal(f"oidc:{claims['sub'][:_LONGEST]}", name[:_LONGEST], scopes, site=self._site(claims, scopes))

    def _site(self, claims: Mapping[str, Any], scopes: frozenset[Scope]) -> str:
        """The bearer's site; empty for an operator.

        :raises InvalidToken: if the token should name one that keys can have, and does not.
        """
        if self._site_claim is None or Scope.ADMIN in scopes:
            return ""
        site = _at(claims, self._site_claim)
        try:
            check_site(site if isinstance(site, str) else "", scopes)
        except InvalidParameter as error:
            raise InvalidToken from error
        if not isinstance(site, str) or not site:
            raise InvalidToken
        return site

    def _scopes(self, claims: Mapping[str, Any]) -> frozenset[Scope]:
        found = _at(claims, self._scope_claim)
        values = found.split() if isinstance(found, str) else found if isinstance(found, list) else []
        known = set(Scope)
        meant = [self._map.get(value, [value]) for value in values if isinstance(value, str)]
        return frozenset(Scope(scope) for scopes in meant for scope in scopes if scope in known)


def _at(claims: Mapping[str, Any], path: str) -> Any:
    """The value at a path with dots; None if there is none."""
    found: Any = claims
    for step in path.split("."):
        found = found.get(step) if isinstance(found, Mapping) else None
    return found

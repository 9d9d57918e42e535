"""OIDC: people and programs that a hospital's own identity provider vouches for (OpenID Connect, RFC 7519, RFC 9068).

A token is recognised by its signature, issuer, audience and times. The issuer's public keys come from its discovery document;
they are kept, and fetched again when they grow old or when a token names one that is not among them.
"""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from threading import Lock
from time import monotonic
from typing import Any, Final
from urllib.error import URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

import jwt

from oarlock.scopes import Scope
from oarlock.settings import Settings
from service.access.auth import Caller, is_loopback
from service.errors import InvalidToken, IssuerUnavailable

log = logging.getLogger(__name__)

ALGORITHMS: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Only signatures that the issuer alone can make. With ``none`` or an HMAC anybody could who knows a public key."""

FRESH_S: Final = 600.0
STALE_S: Final = 3_600.0
PAUSE_S: Final = 30.0
"""Keys are fetched again when they are this old; used up to that age while the issuer is away; and never fetched more often."""

_LONGEST: Final = 255
_TIMEOUT_S: Final = 5.0
_LARGEST_BYTES: Final = 1_000_000
_LEEWAY_S: Final = 30
_NAMES: Final = ("preferred_username", "client_id", "azp", "sub")


class _NoRedirects(HTTPRedirectHandler):
    """A redirection would lead to an address that nobody has checked; it becomes an error."""

    def redirect_request(self, *_: object, **__: object) -> None:
        return None


_OPENER: Final = build_opener(_NoRedirects)

Fetch = Callable[[str], Any]


class IssuerKeys:
    """The public keys of an issuer.

    :param fetch: gives the JSON document at a URL; raises OSError or ValueError if there is none.
    """

    def __init__(self, issuer: str, *, fetch: Fetch, clock: Callable[[], float] = monotonic) -> None:
        self._issuer, self._fetch, self._clock = issuer, fetch, clock
        self._keys: Mapping[str, jwt.PyJWK] = {}
        self._fetched_at = self._tried_at = float("-inf")
        self._lock = Lock()

    def find(self, key_id: str) -> jwt.PyJWK | None:
        """The key with this id; None if the issuer has no such key.

        :raises IssuerUnavailable: if the issuer does not answer and its keys are not known, or too old.
        """
        with self._lock:
            if key_id not in self._keys or self._clock() - self._fetched_at > FRESH_S:
                self._refresh()
            if self._clock() - self._fetched_at > STALE_S:
                raise IssuerUnavailable
            return self._keys.get(key_id)

    def _refresh(self) -> None:
        """Fetch the keys, unless that was tried a moment ago: strangers choose the key ids of their tokens."""
        if self._clock() - self._tried_at < PAUSE_S:
            return
        self._tried_at = self._clock()
        try:
            about = self._fetch(f"{self._issuer.rstrip('/')}/.well-known/openid-configuration")
            if about["issuer"] != self._issuer:
                log.error("the issuer calls itself by another name than the settings do")
                return
            documents = self._fetch(about["jwks_uri"])["keys"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("the issuer's keys could not be fetched", extra={"error": type(error).__name__})
            return
        self._keys = {key.key_id: key for key in map(_key, documents) if key is not None and key.key_id}
        self._fetched_at = self._clock()


def _key(document: dict[str, Any]) -> jwt.PyJWK | None:
    """A key that verifies signatures; None for one that is for something else, or of a kind that is not known here."""
    if document.get("use", "sig") != "sig":
        return None
    try:
        return jwt.PyJWK(document)
    except jwt.PyJWTError:
        return None


def fetch_json(url: str) -> Any:
    """The JSON document at a URL, over TLS; without TLS from this machine only.

    :raises OSError: if nothing answers, too slowly, or with too much.
    :raises ValueError: if the address is not allowed, or what is there is not JSON.
    """
    check_url(url)
    request = Request(url, headers={"Accept": "application/json"})  # noqa: S310 - checked above
    with _OPENER.open(request, timeout=_TIMEOUT_S) as answer:
        content = answer.read(_LARGEST_BYTES + 1)
    if len(content) > _LARGEST_BYTES:
        raise URLError("the document is too large")
    return json.loads(content)


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

    :param scope_claim: where a token holds what its bearer may do: a claim, or a path of claims with dots in between.
    :param scope_map: what the values there mean; a value that is not in it counts if it is itself a scope.
    """

    def __init__(
        self, keys: IssuerKeys, *, issuer: str, audience: str, scope_claim: str, scope_map: Mapping[str, Sequence[Scope]]
    ) -> None:
        self._keys, self._issuer, self._audience = keys, issuer, audience
        self._path, self._map = scope_claim.split("."), scope_map

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
        )

    def recognise(self, token: str) -> Caller:
        """Who a token speaks of.

        :raises InvalidToken: if it is not a valid token of this issuer for this audience.
        :raises IssuerUnavailable: if that cannot be found out now.
        """
        try:
            key_id = jwt.get_unverified_header(token).get("kid")
            key = self._keys.find(key_id) if isinstance(key_id, str) else None
            if key is None:
                raise InvalidToken
            claims = jwt.decode(
                token,
                key,
                algorithms=ALGORITHMS,
                issuer=self._issuer,
                audience=self._audience,
                leeway=_LEEWAY_S,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
        except jwt.PyJWTError as error:
            raise InvalidToken from error
        name = next(str(claims[claim]) for claim in _NAMES if claims.get(claim))
        return Caller(f"oidc:{claims['sub'][:_LONGEST]}", name[:_LONGEST], self._scopes(claims))

    def _scopes(self, claims: Mapping[str, Any]) -> frozenset[Scope]:
        found: Any = claims
        for step in self._path:
            found = found.get(step) if isinstance(found, Mapping) else None
        values = found.split() if isinstance(found, str) else found if isinstance(found, list) else []
        known = set(Scope)
        meant = [self._map.get(value, [value]) for value in values if isinstance(value, str)]
        return frozenset(Scope(scope) for scopes in meant for scope in scopes if scope in known)

"""Webhooks: telling somebody else's server that a job has ended, and no server that was not meant (ADR 14).

A request goes to the hosts of the settings alone. Their names are resolved here, every address is judged, and the connection is
made to a judged address, so that a name which changes its address in between leads nowhere. No redirect is followed, and no proxy
of the environment is used.

Signed as Standard Webhooks 1.0.0 has it (https://www.standardwebhooks.com).
"""

import base64
import binascii
import hashlib
import hmac
import ipaddress
import logging
import socket
import ssl
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from threading import Timer
from time import time
from typing import Final
from urllib.parse import SplitResult, urlsplit

import orjson

from oarlock import __version__
from oarlock.errors import InvalidParameter
from oarlock.settings import Settings
from oarlock.store.callbacks import Callback, CallbackState, CallbackStore
from service.api.schemas import rfc3339

log = logging.getLogger(__name__)

PERIOD_S: Final = 1.0
TIMEOUT_S: Final = 10.0
DEADLINE_S: Final = 20.0
AT_ONCE: Final = 4
URL_LIMIT: Final = 2_000
SECRET_PREFIX: Final = "whsec_"  # noqa: S105 - how a secret begins
_PORTS: Final = {"https": 443, "http": 80}
_SHORTEST_SECRET: Final = 24

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str, int], Sequence[str]]

_EMBEDDING: Final = tuple(ipaddress.ip_network(net) for net in ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32"))
"""IPv6 addresses that lead to an IPv4 address inside them (RFC 6052, 3056, 4380)."""


class AddressRefused(Exception):
    """A host's name leads to an address that callbacks do not go to."""


@dataclass(frozen=True, slots=True)
class Rules:
    """Where callbacks may go, and what they are signed with.

    :ivar hosts: ``name`` or ``name:port``, in lower case.
    :ivar networks: networks that are not public and are meant; into these plain http is allowed too.
    :ivar secrets: of each there is one signature.
    """

    hosts: frozenset[str]
    networks: tuple[Network, ...]
    secrets: tuple[bytes, ...]

    @classmethod
    def of(cls, settings: Settings) -> "Rules":
        return cls(
            frozenset(host.lower() for host in settings.callback_hosts),
            tuple(ipaddress.ip_network(network) for network in settings.callback_networks),
            tuple(to_secret(text) for text in settings.callback_secrets),
        )

    def check_url(self, url: str) -> str:
        """A URL that a sender may name.

        :raises InvalidParameter: why not; the URL is not repeated.
        """
        if not self.hosts:
            raise InvalidParameter(name="callback_url", reason="is refused: no host may be called back from this server")
        if reason := self._objection(url):
            raise InvalidParameter(name="callback_url", reason=reason)
        return url

    def _objection(self, url: str) -> str | None:
        if len(url) > URL_LIMIT or not (url.isascii() and url.isprintable()) or " " in url:
            return f"must be at most {URL_LIMIT} printable ASCII characters"
        try:
            parts = urlsplit(url)
            usual = _PORTS[parts.scheme]
            port = parts.port or usual
        except (ValueError, KeyError):
            return "is no URL that begins with https://"
        if not parts.hostname or "@" in parts.netloc or parts.fragment:
            return "must name a host, and hold no user, password or fragment"
        if parts.scheme == "http" and not self.networks:
            return "must begin with https://"
        host = parts.hostname.rstrip(".")
        names = {f"{host}:{port}"} | ({host} if port == usual else set())
        return "names a host that this server may not call" if self.hosts.isdisjoint(names) else None

    def check_address(self, text: str, *, scheme: str) -> str:
        """An address that may be connected to.

        :raises AddressRefused: it is not public, and in none of the networks that are meant; or it is public and the way is open.
        """
        address = _plain(ipaddress.ip_address(text.split("%", 1)[0]))
        if any(address in network for network in self.networks):
            return text
        public = address.is_global and not address.is_multicast and not any(address in network for network in _EMBEDDING)
        if not public or scheme != "https":
            raise AddressRefused
        return text


def _plain(address: Address) -> Address:
    """The IPv4 address that an IPv6 one stands for, where it does (RFC 4291, 2.5.5.2)."""
    return getattr(address, "ipv4_mapped", None) or address


def to_secret(text: str) -> bytes:
    """The bytes of a secret as it is written: ``whsec_`` and base64.

    :raises ValueError: if it is not, or is too short to be one.
    """
    try:
        secret = base64.b64decode(text.removeprefix(SECRET_PREFIX), validate=True)
    except binascii.Error:
        secret = b""
    if not text.startswith(SECRET_PREFIX) or len(secret) < _SHORTEST_SECRET:
        msg = f"is no secret: write {SECRET_PREFIX} and at least {_SHORTEST_SECRET} random bytes in base64"
        raise ValueError(msg)
    return secret


def sign(secret: bytes, message_id: str, timestamp: int, body: bytes) -> str:
    """Base64 of the HMAC-SHA-256 over ``id.timestamp.body``."""
    return base64.b64encode(hmac.digest(secret, f"{message_id}.{timestamp}.".encode() + body, hashlib.sha256)).decode()


def to_body(callback: Callback) -> bytes:
    """What a receiver is told: which job ended how, and where to look. Nothing of the series."""
    here = f"/v1/jobs/{callback.job_id}"
    job = {"id": callback.job_id, "state": callback.job_state, "error_code": callback.error_code, "links": {"self": here}}
    document = {"type": f"job.{callback.job_state}", "timestamp": rfc3339(callback.ended_at), "data": {"job": job}}
    return orjson.dumps(document)


def resolve(host: str, port: int) -> Sequence[str]:
    """All addresses of a host.

    :raises OSError: if it has none.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class Caller:
    """Makes one request at a time, by the rules.

    :param tls: how receivers prove who they are; without it by the system's authorities.
    """

    def __init__(self, rules: Rules, *, resolve: Resolve = resolve, tls: ssl.SSLContext | None = None) -> None:
        self._rules, self._resolve = rules, resolve
        self._tls = tls or ssl.create_default_context()

    def call(self, callback: Callback, *, now: int | None = None) -> int:
        """Send a callback; its HTTP status.

        :raises AddressRefused: the host's name leads where no callback goes.
        :raises OSError: it is not reached, does not answer in time, or does not prove who it is.
        :raises HTTPException: its answer is no HTTP.
        """
        self._rules.check_url(callback.url)  # the rules may have changed since the post
        parts = urlsplit(callback.url)
        host, port = parts.hostname or "", parts.port or _PORTS[parts.scheme]
        addresses = [self._rules.check_address(address, scheme=parts.scheme) for address in self._resolve(host, port)]
        body, timestamp = to_body(callback), int(time()) if now is None else now
        signatures = [f"v1,{sign(secret, callback.id, timestamp, body)}" for secret in self._rules.secrets]
        headers = {"Content-Type": "application/json", "User-Agent": f"Oarlock/{__version__}", "webhook-id": callback.id}
        headers |= {"webhook-timestamp": str(timestamp), "webhook-signature": " ".join(signatures)}
        with closing(self._connection(parts, host, port, addresses)) as connection:
            watchdog = Timer(DEADLINE_S, connection.give_up)
            watchdog.start()
            try:
                connection.request("POST", _target(parts), body, headers)
                return connection.getresponse().status
            finally:
                watchdog.cancel()

    def _connection(self, parts: SplitResult, host: str, port: int, addresses: Sequence[str]) -> "_Pinned":
        return _Pinned(host, port, addresses, self._tls if parts.scheme == "https" else None)


def _target(parts: SplitResult) -> str:
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


class _Pinned(HTTPConnection):
    """A connection to one of the judged addresses of a host, under the host's name."""

    def __init__(self, host: str, port: int, addresses: Sequence[str], tls: ssl.SSLContext | None) -> None:
        super().__init__(host, port, timeout=TIMEOUT_S)
        self.default_port = HTTPSConnection.default_port if tls else HTTPConnection.default_port
        self._addresses, self._context = addresses, tls

    def connect(self) -> None:
        self.sock = _connect(self._addresses, self.port)
        if self._context is not None:
            self.sock = self._context.wrap_socket(self.sock, server_hostname=self.host)

    def give_up(self) -> None:
        """End a conversation that takes too long, one byte at a time or not at all."""
        if self.sock is not None:
            self.sock.shutdown(socket.SHUT_RDWR)


def _connect(addresses: Sequence[str], port: int) -> socket.socket:
    failure = OSError("the host has no address")
    for address in addresses:
        try:
            return socket.create_connection((address, port), timeout=TIMEOUT_S)
        except OSError as error:
            failure = error
    raise failure


class Messenger:
    """Delivers what is due, several at once, so that one slow receiver keeps few waiting."""

    def __init__(self, store: CallbackStore, caller: Caller) -> None:
        self._store, self._caller = store, caller

    def deliver(self) -> None:
        """Once: make callbacks of the jobs that have ended, and send those that are due."""
        self._store.collect()
        if due := self._store.claim():
            with ThreadPoolExecutor(AT_ONCE, "callback") as threads:
                list(threads.map(self._deliver, due))

    def _deliver(self, callback: Callback) -> None:
        delivered, outcome = self._attempt(callback)
        state = self._store.settle(callback, delivered=delivered, outcome=outcome)
        about = {"job_id": callback.job_id, "callback_id": callback.id, "attempt": callback.attempts + 1, "outcome": outcome}
        level = {CallbackState.DELIVERED: logging.INFO, CallbackState.WAITING: logging.WARNING, CallbackState.DEAD: logging.ERROR}
        log.log(level[state], "callback %s", state, extra=about)

    def _attempt(self, callback: Callback) -> tuple[bool, str]:
        try:
            status = self._caller.call(callback)
        except AddressRefused:
            return False, "address refused"
        except InvalidParameter:
            return False, "host refused"
        except TimeoutError:
            return False, "timeout"
        except ssl.SSLCertVerificationError:
            return False, "certificate refused"
        except (OSError, HTTPException) as error:
            return False, f"not reached ({type(error).__name__})"
        return 200 <= status < 300, f"http {status}"

"""The client that sends callbacks, to checked addresses alone (ADR 14).

A host's name is resolved here, every address is checked, and the connection is made to a checked address: a name that changes its
address in between leads nowhere. Redirects are not followed, and proxies of the environment are not used.
"""

import socket
import ssl
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import UTC, datetime
from http.client import HTTPConnection, HTTPSConnection
from threading import Timer
from typing import Final
from urllib.parse import SplitResult, urlsplit

import orjson

from oarlock import __version__
from oarlock.store.callbacks import Callback
from service.background.webhooks.rules import PORTS, Rules
from service.background.webhooks.signing import to_headers
from service.times import rfc3339

TIMEOUT_S: Final = 10.0
DEADLINE_S: Final = 20.0

Resolve = Callable[[str, int], Sequence[str]]


def to_body(callback: Callback) -> bytes:
    """The body of a callback.

    Which job ended how, and its address. Nothing of the series.
    """
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


class WebhookClient:
    """Sends callbacks, one request at a time, by the rules.

    :param tls: how receivers prove who they are; None for the system's authorities.
    """

    def __init__(self, rules: Rules, *, resolve: Resolve = resolve, tls: ssl.SSLContext | None = None) -> None:
        self._rules, self._resolve = rules, resolve
        self._tls = tls or ssl.create_default_context()

    def call(self, callback: Callback, *, now: datetime | None = None) -> int:
        """Send a callback; its HTTP status.

        :raises AddressRefused: if the host's name leads to an address that may not be called.
        :raises OSError: if it is not reached, does not answer in time, or does not prove who it is.
        :raises HTTPException: if its answer is not HTTP.
        """
        self._rules.check_url(callback.url)  # the rules may have changed since the post
        parts = urlsplit(callback.url)
        host, port = parts.hostname or "", parts.port or PORTS[parts.scheme]
        addresses = [self._rules.check_address(address, scheme=parts.scheme) for address in self._resolve(host, port)]
        body = to_body(callback)
        headers = {"Content-Type": "application/json", "User-Agent": f"Oarlock/{__version__}"}
        headers |= to_headers(self._rules.signers, callback.id, now or datetime.now(UTC), body)
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
    """A connection to one of the checked addresses of a host, under the host's name."""

    def __init__(self, host: str, port: int, addresses: Sequence[str], tls: ssl.SSLContext | None) -> None:
        super().__init__(host, port, timeout=TIMEOUT_S)
        self.default_port = HTTPSConnection.default_port if tls else HTTPConnection.default_port
        self._addresses, self._context = addresses, tls

    def connect(self) -> None:
        self.sock = _connect(self._addresses, self.port)
        if self._context is not None:
            self.sock = self._context.wrap_socket(self.sock, server_hostname=self.host)

    def give_up(self) -> None:
        """End a conversation that takes too long."""
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

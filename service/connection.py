"""Connections: limits that hold before a caller is known.

Uvicorn does not set them.

A head (request line and headers) has a size and a time, what comes between the bytes of a body has a size, and an address has a
number of connections. Without them one connection could fill the memory, and a thousand silent ones shut everybody out.
"""

import asyncio
from collections import Counter
from collections.abc import Collection
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any, ClassVar, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_BYTES: Final = 65_536
"""Most bytes of a head; and of what comes without a byte of a body, as extensions of chunks and trailers do."""

HEAD_S: Final = 10.0
"""Longest time for a head, from the connection or from the end of the request before."""

_PIECE_BYTES: Final = 32_768
"""A socket gives up to 256 KiB at once, which can be 40,000 lines of a head."""

_STATUS: Final = {408: b"408 Request Timeout", 431: b"431 Request Header Fields Too Large"}


class LimitedProtocol(HttpToolsProtocol):
    """Uvicorn's protocol for one connection, with limits.

    :cvar per_address: most connections of one address; 0 for no limit.
    :cvar exempt: networks without that limit: stated proxies, which speak for many.
    """

    per_address: ClassVar[int] = 0
    exempt: ClassVar[tuple[IPv4Network | IPv6Network, ...]] = ()
    _count: ClassVar[Counter[str]]

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._silent_bytes, self._head_bytes = 0, 0
        self._timer: asyncio.TimerHandle | None = None
        self._counted: str | None = None
        self._refused, self._awaits_head = False, True

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        super().connection_made(transport)
        address = self.client[0] if self.client else ""
        self._counted = address
        self._count[address] += 1
        if self.per_address and self._count[address] > self.per_address and not self._is_exempt(address):
            self._refused = True
            transport.abort()
            return
        self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        if self._counted is not None:
            self._count[self._counted] -= 1
            if not self._count[self._counted]:
                del self._count[self._counted]
            self._counted = None
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        if self._timer is None and self._awaits_head:
            self._start_timer()
        for start in range(0, len(data), _PIECE_BYTES):
            piece = data[start : start + _PIECE_BYTES]
            self._silent_bytes += len(piece)
            super().data_received(piece)
            if self._silent_bytes > HEAD_BYTES:
                self._refuse(431)
            if self._refused or self.transport.is_closing():
                return

    def on_message_begin(self) -> None:
        self._head_bytes = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        self._head_bytes += len(url)
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_bytes += len(name) + len(value) + 4
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._stop_timer()
        self._silent_bytes, self._awaits_head = 0, False
        if self._head_bytes > HEAD_BYTES:
            self._refuse(431)
        if not self._refused:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._silent_bytes = 0
        if not self._refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._silent_bytes, self._awaits_head = 0, True
        if not self._refused:
            super().on_message_complete()

    def _is_exempt(self, address: str) -> bool:
        try:
            found = ip_address(address)
        except ValueError:
            return True  # a unix socket has no address
        if found.version == 6 and found.ipv4_mapped is not None:
            found = found.ipv4_mapped  # a socket for both kinds gives IPv4 addresses so
        return any(found in network for network in self.exempt)

    def _start_timer(self) -> None:
        self._timer = self.loop.call_later(HEAD_S, self._give_up)

    def _give_up(self) -> None:
        """End the wait for a head; not while an answer is on its way: some clients send an empty line behind a body."""
        if self.cycle is not None and not self.cycle.response_complete:
            self._start_timer()
        else:
            self._refuse(408)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _refuse(self, status: int) -> None:
        """Answer as far as that is possible, and close."""
        self._stop_timer()
        if self._refused or self.transport.is_closing():
            return
        self._refused = True
        if self.cycle is None or self.cycle.response_complete:
            self.transport.write(b"HTTP/1.1 " + _STATUS[status] + b"\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        self.transport.close()


def limited(per_address: int, exempt: Collection[str]) -> type[LimitedProtocol]:
    """The protocol with these limits.

    And a count of connections of its own.

    :param exempt: addresses or networks that have no limit.
    """
    networks = tuple(ip_network(entry) for entry in exempt)
    return type("LimitedProtocol", (LimitedProtocol,), {"per_address": per_address, "exempt": networks, "_count": Counter()})

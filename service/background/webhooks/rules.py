"""Where callbacks may go (ADR 14).

To hosts of the settings, and addresses that those names may lead to.
"""

import ipaddress
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from standardwebhooks import Webhook

from oarlock.errors import InvalidParameter
from oarlock.settings import Settings
from service.background.webhooks.signing import to_signer

URL_LIMIT: Final = 2_000
PORTS: Final = {"https": 443, "http": 80}

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_PUBLIC_V6: Final = ipaddress.ip_network("2000::/3")
"""Global unicast, the only part of IPv6 that is public (RFC 4291, 2.4). Python's ``is_global`` knows more, by version."""

_EMBEDDING: Final = tuple(ipaddress.ip_network(net) for net in ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32"))
"""IPv6 addresses that lead to an IPv4 address inside them (RFC 6052, 3056, 4380)."""

_NOT_PUBLIC: Final = tuple(ipaddress.ip_network(net) for net in ("192.88.99.0/24", "3fff::/20", "5f00::/16"))
"""Special-purpose networks that older Pythons take for public (RFC 7526, 9637, 9602)."""


class AddressRefused(Exception):
    """A host's name leads to an address that may not be called."""


@dataclass(frozen=True, slots=True)
class Rules:
    """Which URLs and addresses callbacks may go to, and what signs them.

    :ivar hosts: ``name`` or ``name:port``, in lower case.
    :ivar networks: networks that are allowed though they are not public; into these plain http is allowed too.
    :ivar signers: each makes one signature.
    """

    hosts: frozenset[str]
    networks: tuple[Network, ...]
    signers: tuple[Webhook, ...]

    @classmethod
    def of(cls, settings: Settings) -> "Rules":
        return cls(
            frozenset(host.lower() for host in settings.callback_hosts),
            tuple(ipaddress.ip_network(network) for network in settings.callback_networks),
            tuple(to_signer(text) for text in settings.callback_secrets),
        )

    def check_url(self, url: str) -> str:
        """A URL that a sender may name.

        :raises InvalidParameter: if they may not; its sentence does not repeat the URL.
        """
        if not self.hosts:
            raise InvalidParameter(name="callback_url", reason="is refused: this server does not call back any host")
        if reason := self._objection(url):
            raise InvalidParameter(name="callback_url", reason=reason)
        return url

    def _objection(self, url: str) -> str | None:
        if len(url) > URL_LIMIT or not (url.isascii() and url.isprintable()) or " " in url:
            return f"must be at most {URL_LIMIT} printable ASCII characters"
        try:
            parts = urlsplit(url)
            usual = PORTS[parts.scheme]
            port = parts.port or usual
        except (ValueError, KeyError):
            return "must be a URL that begins with https://"
        if not parts.hostname or "@" in parts.netloc or parts.fragment:
            return "must name a host, and hold no user, password or fragment"
        if parts.scheme == "http" and not self.networks:
            return "must begin with https://"
        host = parts.hostname.rstrip(".")
        names = {f"{host}:{port}"} | ({host} if port == usual else set())
        return "names a host that this server may not call" if self.hosts.isdisjoint(names) else None

    def check_address(self, text: str, *, scheme: str) -> str:
        """An address that may be connected to.

        :raises AddressRefused: if it is neither public nor in an allowed network, or is public and would be called without TLS.
        """
        address = _plain(ipaddress.ip_address(text.split("%", 1)[0]))
        if any(address in network for network in self.networks):
            return text
        if scheme != "https" or not _is_public(address):
            raise AddressRefused
        return text


def _is_public(address: Address) -> bool:
    if address.version == 6 and address not in _PUBLIC_V6:
        return False
    special = (*_EMBEDDING, *_NOT_PUBLIC)
    return address.is_global and not address.is_multicast and not any(address in network for network in special)


def _plain(address: Address) -> Address:
    """The IPv4 address that an IPv6 one stands for, where it does (RFC 4291, 2.5.5.2)."""
    return getattr(address, "ipv4_mapped", None) or address

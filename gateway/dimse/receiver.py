"""The receiver: associations that others open.

It answers C-ECHO, and C-STORE of CT images and RTSTRUCTs.

The bytes of a data set are written as they came; nothing is decoded. "Success" is answered when they are on the disk.
"""

import logging
from collections.abc import Callable
from ipaddress import ip_address, ip_network
from ssl import SSLContext
from threading import Lock
from typing import Final

from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.events import Event

from gateway.configuration import Configuration, Peer
from gateway.dimse import contexts
from gateway.inbox import DiskLow, Inbox
from gateway.metrics import RECEIVED, REFUSED_ASSOCIATIONS
from gateway.rules import Sent
from gateway.settings import GatewaySettings
from gateway.store import Store
from oarlock.dicom.unusable import Unusable

log = logging.getLogger(__name__)

MAX_PDU: Final = 131_072
"""With PDUs of 128 KiB a series comes a third faster than with the usual 16 KiB."""

SUCCESS: Final = 0x0000
OUT_OF_RESOURCES: Final = 0xA700
CANNOT_UNDERSTAND: Final = 0xC000

_REJECTED: Final = 0x01
_BY_USER: Final = 0x01
_CALLING_UNKNOWN: Final = 0x03
_CALLED_UNKNOWN: Final = 0x07


class Receiver:
    """Accepts associations, with TLS, without it, or both.

    There is one port for each.
    """

    def __init__(
        self, settings: GatewaySettings, configuration: Configuration, store: Store, inbox: Inbox, clock: Callable[[], float]
    ) -> None:
        self._settings, self._configuration = settings, configuration
        self._store, self._inbox, self._clock = store, inbox, clock
        self._numbers: dict[Association, int] = {}
        self._lock = Lock()
        self._ae = AE(ae_title=configuration.titles[0])
        self._ae.supported_contexts = contexts.accepted()
        self._ae.maximum_pdu_size = MAX_PDU
        self._ae.maximum_associations = settings.max_associations
        self._ae.network_timeout = settings.idle_s
        self.ports: list[int] = []

    def start(self) -> None:
        """Listen; what comes is handled in threads of its own.

        :raises OSError: a port cannot be listened on.
        """
        tls = self._settings.tls()
        ways: list[tuple[int, SSLContext | None]] = [(self._settings.port, None)] if self._settings.plain else []
        ways += [(self._settings.tls_port, tls)] if tls is not None else []
        for port, context in ways:
            server = self._ae.start_server(
                (self._settings.host, port), block=False, ssl_context=context, evt_handlers=self._handlers()
            )
            assert server is not None
            self.ports.append(server.server_address[1])

    def stop(self) -> None:
        """End all associations and listen no more."""
        self._ae.shutdown()

    def _handlers(self) -> list[evt.EventHandlerType]:
        return [
            (evt.EVT_REQUESTED, self._requested),
            (evt.EVT_ACCEPTED, self._accepted),
            (evt.EVT_C_STORE, self._stored),
            (evt.EVT_RELEASED, self._released),
            (evt.EVT_ABORTED, self._broken_off),
            (evt.EVT_CONN_CLOSE, self._broken_off),
        ]

    def _requested(self, event: Event) -> None:
        """Turn away who called another title, or is not allowed to send from there."""
        association, sent = event.assoc, _sent(event)
        diagnosis = None
        if sent.called not in self._configuration.titles:
            diagnosis = _CALLED_UNKNOWN
        elif not may_send(self._configuration, sent.calling, association.requestor.address):
            diagnosis = _CALLING_UNKNOWN
        if diagnosis is not None:
            reason = "called" if diagnosis == _CALLED_UNKNOWN else "calling"
            REFUSED_ASSOCIATIONS.labels(reason).inc()
            found = {"reason": f"{reason} title or address", "address": association.requestor.address}
            log.warning("association refused", extra=found)
            association.acse.send_reject(_REJECTED, _BY_USER, diagnosis)
            association.kill()

    def _accepted(self, event: Event) -> None:
        number = self._store.begin(_sent(event), self._clock())
        with self._lock:
            self._numbers[event.assoc] = number

    def _stored(self, event: Event) -> int:
        number = self._numbers.get(event.assoc)
        try:
            taken = self._inbox.take(event.encoded_dataset(), _sent(event), association=number)
        except (DiskLow, OSError) as error:
            log.warning("out of resources", extra={"reason": type(error).__name__})
            RECEIVED.labels("out of resources").inc()
            return OUT_OF_RESOURCES
        except Unusable as reason:
            log.warning("file not understood", extra={"reason": str(reason)})
            RECEIVED.labels("not understood").inc()
            return CANNOT_UNDERSTAND
        RECEIVED.labels(taken).inc()
        return SUCCESS

    def _released(self, event: Event) -> None:
        self._ended(event.assoc, released=True)

    def _broken_off(self, event: Event) -> None:
        self._ended(event.assoc, released=False)

    def _ended(self, association: Association, *, released: bool) -> None:
        with self._lock:
            number = self._numbers.pop(association, None)
        if number is not None:
            self._store.end(number, self._clock(), released=released)


def _sent(event: Event) -> Sent:
    request = event.assoc.requestor.primitive
    assert request is not None
    return Sent(request.calling_ae_title, request.called_ae_title)


def may_send(configuration: Configuration, title: str, address: str) -> bool:
    """Whether an AE title may send from an address.

    A peer without addresses sends from its host, where that is an address; one whose host is a name, or that has none, from
    anywhere. Strangers may send where the file says so; where it names no peer at all, programs of this machine may.
    """
    known = [peer for peer in configuration.peer if peer.title == title]
    if not known:
        here = not configuration.peer and ip_address(address.removeprefix("::ffff:")).is_loopback
        return configuration.accept_unknown or here
    return any(peer.sends and _from_there(peer, address) for peer in known)


def _from_there(peer: Peer, address: str) -> bool:
    networks = list(peer.addresses)
    if not networks and peer.host is not None:
        try:
            networks = [str(ip_network(peer.host))]
        except ValueError:
            return True
    found = ip_address(address.removeprefix("::ffff:"))
    return not networks or any(found in ip_network(network) for network in networks)

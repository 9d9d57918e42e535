"""Associations that we open to a peer.

They ask whether it is there, and send results to it.
"""

import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from typing import Final

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext, build_context
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from gateway.configuration import Peer
from gateway.dimse import contexts
from gateway.errors import PeerFailed

CONNECT_S: Final = 10.0
ANSWER_S: Final = 60.0
"""How long a peer may take to answer a message: archives file an image before they do."""

_FINAL: Final = frozenset({0x0122, *range(0xA900, 0xAA00), *range(0xC000, 0xD000)})
"""Of C-STORE (PS3.4 B.2.3): the SOP class is not supported, the data set does not match it, or cannot be understood."""


def asked(sop_classes: Sequence[UID]) -> list[PresentationContext]:
    """A context for each SOP class and transfer syntax.

    So a peer can take a file as it is.
    """
    return [build_context(uid, syntax) for uid in sop_classes for syntax in contexts.PLAIN]


@contextmanager
def associated(peer: Peer, title: str, asked_for: Sequence[PresentationContext], **options: object) -> Iterator[Association]:
    """An association with a peer, released at the end of the block.

    :param title: our AE title.
    :raises PeerFailed: with what stood in the way.
    """
    if peer.host is None or peer.port is None:
        raise PeerFailed(f"{peer.name} has no host and port", final=True)
    ae = AE(ae_title=title)
    ae.connection_timeout, ae.acse_timeout, ae.dimse_timeout, ae.network_timeout = CONNECT_S, CONNECT_S, ANSWER_S, ANSWER_S
    tls = (_tls(peer), peer.host) if peer.tls else None
    association = ae.associate(
        peer.host,
        peer.port,
        list(asked_for),
        ae_title=peer.title,
        max_pdu=131_072,
        tls_args=tls,
        **options,  # type: ignore[arg-type]
    )
    if not association.is_established:
        raise PeerFailed(_why_not(association))
    try:
        yield association
    finally:
        if association.is_established:
            association.release()


def _tls(peer: Peer) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=peer.tls_ca)
    except (OSError, ssl.SSLError):
        raise PeerFailed(f"tls_ca of {peer.name} cannot be read") from None


def _why_not(association: Association) -> str:
    if association.is_rejected:
        answer = association.acceptor.primitive
        reason = getattr(answer, "reason_str", "") or "no reason given"
        return f"it refuses the association ({reason})"
    if association.acceptor.primitive is not None and not association.accepted_contexts:
        return "it accepts none of the SOP classes"
    return "it does not answer"


def echo(peer: Peer, title: str) -> None:
    """Ask a peer whether it is there (C-ECHO).

    :raises PeerFailed: it is not, or does not say so.
    """
    with associated(peer, title, [build_context(Verification)]) as association:
        if association.send_c_echo().get("Status") != 0:
            raise PeerFailed("it does not answer C-ECHO")


def check_takes(peer: Peer, title: str, sop_class: UID) -> None:
    """Check that a peer takes a SOP class, without sending anything.

    :raises PeerFailed: it is away, or does not.
    """
    with associated(peer, title, asked([sop_class])) as association:
        if not association.accepted_contexts:
            raise PeerFailed("it does not take this SOP class")


def store(peer: Peer, title: str, content: bytes) -> None:
    """Send one DICOM file (C-STORE).

    :raises PeerFailed: the peer is away, does not take its SOP class, or refuses it.
    """
    dataset = pydicom.dcmread(BytesIO(content))
    with associated(peer, title, asked([dataset.SOPClassUID])) as association:
        if not association.accepted_contexts:
            raise PeerFailed("it does not take this SOP class")
        try:
            answer = association.send_c_store(dataset)
        except ValueError:
            raise PeerFailed("it takes none of the transfer syntaxes that we send") from None
    check_stored(answer)


def check_stored(answer: Dataset) -> None:
    """Check what came back for a C-STORE; warnings (``Bxxx``) count as stored.

    :raises PeerFailed: it was not stored; also where the answer is empty because the connection was lost.
    """
    if "Status" not in answer:
        raise PeerFailed("the connection was lost before it answered")
    status = int(answer.Status)
    if status and not 0xB000 <= status < 0xC000:
        raise PeerFailed(f"it answers C-STORE with status {status:04X}", final=status in _FINAL)

"""Is everything there that the configuration names?

Each peer is asked what it takes, each place is tried; the answers are in words.
"""

import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx

from gateway.configuration import Configuration, Peer
from gateway.dimse import contexts, peers
from gateway.errors import PeerFailed, ServiceAway, ServiceRefused
from gateway.places import look_at
from gateway.service_client import ServiceClient


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of one question."""

    subject: str
    question: str
    fine: bool
    detail: str

    def __str__(self) -> str:
        return f"{'ok  ' if self.fine else 'FAIL'}  {self.subject}: {self.question}{': ' if self.detail else ''}{self.detail}"


def check(configuration: Configuration, service: ServiceClient, stored: Path | None) -> Iterator[Answer]:
    """Ask the service, every peer, every server and every folder.

    :param stored: a file that is stored at every place that takes results; without it nothing is stored.
    """
    title = configuration.titles[0]
    yield _asked("service", "answers and knows our key", lambda: _service(service))
    for peer in configuration.peer:
        yield from _peer(peer, title, stored)
    for web in configuration.web:
        yield _asked(web.name, "answers a search (QIDO-RS)", partial(look_at, web))
    for folder in configuration.folder:
        yield _asked(folder.name, "can be written into", partial(_try_folder, folder.path))
    for watch in configuration.watch:
        yield _asked(watch.name, "is there and can be written into", partial(_try_folder, watch.path))


def _asked(subject: str, question: str, ask: Callable[[], str | None]) -> Answer:
    try:
        detail = ask()
    except (PeerFailed, ServiceAway, ServiceRefused, OSError, httpx.HTTPError) as reason:
        return Answer(subject, question, fine=False, detail=str(reason) or type(reason).__name__)
    return Answer(subject, question, fine=True, detail=detail or "")


def _service(service: ServiceClient) -> str:
    return f"models {', '.join(service.models())}"


def _peer(peer: Peer, title: str, stored: Path | None) -> Iterator[Answer]:
    if not peer.listens:
        yield Answer(peer.name, "only sends to us", fine=True, detail="")
        return
    yield _asked(peer.name, "echo (C-ECHO)", lambda: peers.echo(peer, title))
    yield _asked(peer.name, "takes RTSTRUCTs (C-STORE)", lambda: peers.check_takes(peer, title, contexts.SENT[0]))
    if stored is not None:
        yield _asked(peer.name, f"stores {stored.name}", lambda: peers.store(peer, title, stored.read_bytes()))
    if peer.archive:
        yield _asked(peer.name, "answers queries (C-FIND)", lambda: peers.check_takes(peer, title, contexts.FIND))
        way = contexts.GET if peer.retrieve == "get" else contexts.MOVE
        yield _asked(peer.name, f"gives series away (C-{peer.retrieve.upper()})", lambda: peers.check_takes(peer, title, way))


def _try_folder(folder: Path) -> None:
    path = folder / f".oarlock-{secrets.token_hex(4)}"
    path.write_bytes(b"")
    path.unlink()

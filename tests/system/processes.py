"""Watching processes from the outside."""

import socket
from collections.abc import Callable
from pathlib import Path
from threading import Event
from time import monotonic


def eventually(claim: Callable[[], bool], *, within_s: float) -> bool:
    """Whether a claim comes true within a time."""
    deadline = monotonic() + within_s
    pause = Event()
    while not claim():
        if monotonic() > deadline:
            return False
        pause.wait(0.05)
    return True


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def listens(port: int) -> bool:
    """Whether somebody takes connections on a port of this machine."""
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def marked(mark: str) -> list[int]:
    """Living processes (zombies are not) that inherited an environment variable with this value."""
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            if mark.encode() in (folder / "environ").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False

"""Functions that judge a stranger's file, in a process apart.

It has a limit of memory and of CPU time.

A structure set of a few hundred kilobytes can ask for gigabytes or for minutes. Every way that is known is refused early; for the
ways that are not, the work runs in a child that may die: that costs the file, and not the service with all its uploads.

A Python process needs seconds to import what a comparison needs. So a fork server imports it once and waits. For each call it
forks, which takes milliseconds, and the fork ends with the call. It has a single thread (to fork a process with threads is not
safe) and none of the service's secrets: its environment is made anew. The fork may open the files that it is given and no
others, and speaks to nobody (:mod:`oarlock.confinement`).
"""

import atexit
import codecs
import importlib
import os
import pickle
import resource
import signal
import struct
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, ParamSpec, TypeVar

from pydicom.charset import python_encoding

from oarlock.confinement import bare_environment, confine
from oarlock.errors import OarlockError, StructureSetTooCostly

P = ParamSpec("P")
T = TypeVar("T")

PRELOADED: Final = ("oarlock.pipeline.comparison", "scipy.ndimage", "scipy.spatial")
"""What a fork server imports before it is asked for anything: a fork can open no module, not even one that is imported late."""

_LENGTH: Final = struct.Struct(">Q")
_OPEN_FILES: Final = 64


@dataclass(frozen=True, slots=True)
class Limits:
    """What one call may take.

    :param memory_bytes: of address space, beyond what the process has before it begins.
    :param cpu_s: of CPU time; it may last four times as long, as it shares the machine.
    :param files: that it may read, or folders of such; it may open no others.
    :param prepared_by: a module that is imported before files are taken away.
    """

    memory_bytes: int
    cpu_s: int
    files: tuple[Path, ...] = ()
    prepared_by: str = ""


class Failed(Exception):
    """The function raised something unforeseen.

    The type and the places are told, and no message, as it may quote what was sent.
    """


def run_apart(limits: Limits, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function in a process of its own.

    :param function: of a module; it, its arguments and its result are pickled.
    :raises StructureSetTooCostly: it took more than the limits, or died.
    :raises OarlockError: what the function raised.
    :raises Failed: it raised something else.
    """
    content = pickle.dumps((function.__module__, function.__qualname__, args, kwargs, limits))
    kind, value = pickle.loads(_SERVERS.ask(content))  # noqa: S301 - written by this module's own child
    if kind == "value":
        return value  # type: ignore[no-any-return]
    if kind == "error":
        raise value
    if kind == "failed":
        raise Failed(value)
    raise StructureSetTooCostly


class _ForkServers:
    """Fork servers that wait for a call: one for each call at the same time, started when none is free."""

    def __init__(self) -> None:
        self._idle: list[subprocess.Popen[bytes]] = []
        self._busy: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self._of = os.getpid()

    def ask(self, content: bytes) -> bytes:
        for _ in range(2):  # one that waited may have been killed meanwhile
            server = self._take()
            try:
                answer = _exchange(server, content)
            except (BrokenPipeError, EOFError):
                with self._lock:
                    closed = server not in self._busy
                    self._busy.discard(server)
                _end(server)
                if closed:
                    break
                continue
            with self._lock:
                if server in self._busy:
                    self._busy.remove(server)
                    self._idle.append(server)
            return answer
        return pickle.dumps(("died", None))

    def _take(self) -> "subprocess.Popen[bytes]":
        with self._lock:
            if self._of != os.getpid():  # a worker that was forked must not share its parent's
                self._idle, self._busy, self._of = [], set(), os.getpid()
            server = self._idle.pop() if self._idle else None
            if server is not None:
                self._busy.add(server)
                return server
        server = _start()
        with self._lock:
            self._busy.add(server)
        return server

    def close(self) -> None:
        """End those that wait, and kill those that work, with what they forked."""
        with self._lock:
            ours = self._of == os.getpid()
            for server in self._busy if ours else ():
                os.killpg(server.pid, signal.SIGKILL)  # the leader of its own session; reaped by the call that waits for it
            for server in self._idle if ours else ():
                _end(server)
            self._busy.clear()
            self._idle.clear()


_SERVERS: Final = _ForkServers()
atexit.register(_SERVERS.close)


def end_all() -> None:
    """End every call that is under way.

    As if it had taken too much: a process that stops must not wait minutes for one.
    """
    _SERVERS.close()


def _start() -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-m", __name__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # a traceback may quote what was sent
        env=bare_environment(),
        start_new_session=True,  # a Ctrl-C at the terminal is for the service, which ends it
    )


def _exchange(server: "subprocess.Popen[bytes]", content: bytes) -> bytes:
    assert server.stdin is not None
    assert server.stdout is not None
    server.stdin.write(_LENGTH.pack(len(content)) + content)
    server.stdin.flush()
    answer = _receive(server.stdout)
    if answer is None:
        raise EOFError
    return answer


def _end(server: "subprocess.Popen[bytes]") -> None:
    for pipe in (server.stdin, server.stdout):
        if pipe is not None:
            with suppress(BrokenPipeError):
                pipe.close()
    server.wait()


def _receive(pipe: IO[bytes]) -> bytes | None:
    """The next message; None at the end, or where it is cut off."""
    head = pipe.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        return None
    (length,) = _LENGTH.unpack(head)
    content = pipe.read(length)
    return content if len(content) == length else None


# ── the fork server ───────────────────────────────────────────────────────────────────────────────────────────────────


def main() -> None:
    """Fork for each message, and pass the child's answer on.

    Until there are no more messages.
    """
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not be taken for an answer
    for module in PRELOADED:
        importlib.import_module(module)
    for codec in python_encoding.values():  # a fork cannot load the character set of the file that it reads
        codecs.lookup(codec)
    while (content := _receive(sys.stdin.buffer)) is not None:
        answer = _of_child(content)
        answers.write(_LENGTH.pack(len(answer)) + answer)
        answers.flush()


def _of_child(content: bytes) -> bytes:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(_answer(content))
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        answer = pipe.read()
    _, status = os.waitpid(child, 0)
    return answer if status == 0 and answer else pickle.dumps(("died", None))


def _answer(content: bytes) -> bytes:
    """What comes of one call, pickled."""
    module, name, args, kwargs, limits = pickle.loads(content)  # noqa: S301 - written by the process that started this one
    function = getattr(importlib.import_module(module), name)
    try:
        if limits.prepared_by:
            importlib.import_module(limits.prepared_by)
    except Exception as error:
        return pickle.dumps(("failed", f"{type(error).__name__} in {limits.prepared_by}"))
    _limit(limits)
    try:
        confine(limits.files)
        return pickle.dumps(("value", function(*args, **kwargs)))
    except OarlockError as error:
        return pickle.dumps(("error", error))
    except MemoryError:
        return pickle.dumps(("died", None))
    except Exception as error:
        walk = traceback.walk_tb(error.__traceback__)
        frames = traceback.StackSummary.extract(walk, lookup_lines=False)  # it can no longer open the source
        places = [f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in frames]
        return pickle.dumps(("failed", f"{type(error).__name__} at {', '.join(places[-6:])}"))


def _limit(limits: Limits) -> None:
    """Memory is counted from what the process has now, where the system says how much that is."""
    statistics = Path("/proc/self/statm")
    if statistics.exists():
        held = int(statistics.read_text().split()[0]) * resource.getpagesize()
        _lower(resource.RLIMIT_AS, held + limits.memory_bytes)
    _lower(resource.RLIMIT_CPU, limits.cpu_s)
    _lower(resource.RLIMIT_NOFILE, _OPEN_FILES)
    _lower(resource.RLIMIT_FSIZE, 0)
    _lower(resource.RLIMIT_CORE, 0)
    _lower(resource.RLIMIT_NPROC, 0)
    signal.setitimer(signal.ITIMER_REAL, 4.0 * limits.cpu_s)  # its signal ends the process


def _lower(what: int, limit: int) -> None:
    _, hard = resource.getrlimit(what)
    lowered = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
    resource.setrlimit(what, (lowered, lowered))


if __name__ == "__main__":
    main()

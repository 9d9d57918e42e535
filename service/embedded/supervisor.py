"""The embedded default: a private Redis and a worker process, supervised by the service (ADR 0005).

With ``REDIS_URL`` unset the service starts a real Redis of its own; with ``OARLOCK_EMBEDDED_WORKER`` unset or true it starts a
real Celery worker. It is the same code path as in production: only who starts the processes differs. A process that dies is
started again; none outlives the service.
"""

import fcntl
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import IO, Final

from oarlock.settings import Settings
from service.embedded.process import die_with_parent
from service.embedded.redis_server import PrivateRedis

log = logging.getLogger(__name__)

_SECRETS: Final = frozenset({"OARLOCK_DEIDENTIFY_KEY", "OARLOCK_CALLBACK_SECRETS"})
"""What a worker has no need to know."""

GRACE_S: Final = 30.0
RESTART_S: Final = 1.0


class DataFolderInUse(RuntimeError):
    """Another service works on the same data folder."""


@contextmanager
def exclusive(data: Path) -> Iterator[None]:
    """Hold the data folder: two services with a private Redis each would not see one another's queue.

    :raises DataFolderInUse: if another process holds it.
    """
    data.mkdir(parents=True, exist_ok=True)
    with (data / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            msg = f"another Oarlock works in {data}; stop it, or choose another folder with OARLOCK_DATA"
            raise DataFolderInUse(msg) from None
        yield


@contextmanager
def companions(settings: Settings) -> Iterator[Settings]:
    """Run what the settings leave to the service, and give the settings that reach it.

    :raises DataFolderInUse: another service with a private Redis works on the data folder.
    """
    with exclusive(settings.data) if settings.redis_url is None else nullcontext():
        redis = None if settings.redis_url else PrivateRedis(settings.data / "redis")
        reached = settings if redis is None else settings.model_copy(update={"redis_url": redis.url})
        supervisor = Supervisor()
        if redis is not None:
            supervisor.add("redis", redis.start, ready=redis.wait_until_ready)
        if settings.embedded_worker:
            supervisor.add("worker", lambda: start_worker(reached))
        supervisor.start()
        try:
            yield reached
        finally:
            supervisor.stop()


def start_worker(settings: Settings) -> "subprocess.Popen[bytes]":
    """Start ``python -m worker`` on the same data, models and Redis, its log in the data folder."""
    environment = {name: value for name, value in os.environ.items() if name not in _SECRETS} | {
        "REDIS_URL": settings.redis_url or "",
        "OARLOCK_DATA": str(settings.data.resolve()),
        "OARLOCK_MODELS": str(settings.models.resolve()),
    }
    with _log_file(settings.data / "logs" / "worker.log") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "worker"],
            cwd=Path(__file__).parents[2],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a Ctrl-C in the terminal reaches the service, which then stops the worker in order
            preexec_fn=die_with_parent,  # noqa: PLW1509 - one async-signal-safe prctl call between fork and exec
        )


@contextmanager
def _log_file(path: Path) -> Iterator[IO[bytes]]:
    """A file, never a pipe: an unread pipe fills up and stops the process that writes to it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        yield file


class Supervisor:
    """Keeps child processes alive, in the order in which they were added, and stops them in the opposite order.

    One thread does all of the starting: the kernel ends a child (``PR_SET_PDEATHSIG``) with the *thread* that started it.
    """

    def __init__(self) -> None:
        self._programs: list[tuple[str, Callable[[], subprocess.Popen[bytes]], Callable[[], None]]] = []
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._stopping = threading.Event()
        self._started = threading.Event()
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._supervise, name="supervisor", daemon=True)

    def add(self, name: str, start: Callable[[], "subprocess.Popen[bytes]"], *, ready: Callable[[], None] = lambda: None) -> None:
        """Name a program; ``ready`` waits until the next one may start."""
        self._programs.append((name, start, ready))

    def start(self) -> None:
        """Start everything once; what fails at once is raised here."""
        self._thread.start()
        self._started.wait()
        if self._failure is not None:
            self._thread.join()
            raise self._failure

    def stop(self) -> None:
        """Ask every child to end, the last started first; after a grace, make it."""
        self._stopping.set()
        self._thread.join()

    def _supervise(self) -> None:
        try:
            for program in self._programs:
                self._launch(*program)
        except Exception as error:  # handed to the thread that called start()
            self._failure = error
            self._stopping.set()
        self._started.set()
        while not self._stopping.wait(RESTART_S):
            for name, start, ready in self._programs:
                if self._running[name].poll() is not None:
                    log.warning("child process ended; starting it again", extra={"child": name})
                    self._launch_again(name, start, ready)
        for name, _, _ in reversed(self._programs):
            if name in self._running:
                _end(self._running[name])

    def _launch_again(self, name: str, start: Callable[[], "subprocess.Popen[bytes]"], ready: Callable[[], None]) -> None:
        """Tried again in the next round if it fails: were this thread to end, the kernel would end every child with it."""
        try:
            self._launch(name, start, ready)
        except Exception:  # whatever keeps a child from starting may pass
            log.exception("child process did not start", extra={"child": name})

    def _launch(self, name: str, start: Callable[[], "subprocess.Popen[bytes]"], ready: Callable[[], None]) -> None:
        self._running[name] = start()
        ready()


def _end(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is not None:
        return
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(timeout=GRACE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()

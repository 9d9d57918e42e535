"""The composition on a real container engine, with a name, a port and volumes of its own."""

import json
import os
import shutil
import subprocess
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from oarlock.store.jobs import ENDED
from tests.fixtures.processes import eventually, free_port

ROOT = Path(__file__).parents[2]
PATIENCE_S = 1200.0


def run(*command: str | Path, folder: Path = ROOT, environment: dict[str, str] | None = None) -> str:
    """What a program says; with its complaint if it fails."""
    done = subprocess.run(
        command, cwd=folder, env=os.environ | (environment or {}), check=False, capture_output=True, text=True, timeout=3000
    )
    assert done.returncode == 0, f"{command}: {done.stderr[-4000:]}"
    return done.stdout


def compose_command() -> list[str]:
    """How this machine spells it; an engine that has only another Redis 7 takes it for that of the composition.

    Skips the test where there is no engine.
    """
    if shutil.which("docker") is None:
        pytest.skip("no container engine: there is no docker on the PATH")
    if subprocess.run(["docker", "info"], check=False, capture_output=True).returncode:
        pytest.skip("no container engine: `docker info` finds none")
    if not _has_image("redis:7.2-bookworm") and _has_image("redis:7-bookworm"):
        subprocess.run(["docker", "tag", "redis:7-bookworm", "redis:7.2-bookworm"], check=True)
    if subprocess.run(["docker", "compose", "version"], check=False, capture_output=True).returncode == 0:
        return ["docker", "compose"]
    if shutil.which("docker-compose"):
        return ["docker-compose"]
    pytest.skip("the container engine has no compose: neither `docker compose` nor `docker-compose`")


def _has_image(name: str) -> bool:
    return subprocess.run(["docker", "image", "inspect", name], check=False, capture_output=True).returncode == 0


class Composition:
    """Redis, PostgreSQL, the service and a worker, in containers.

    :param folder: where the composition's file lies.
    """

    def __init__(self, command: list[str], folder: Path = ROOT) -> None:
        self._command, self._folder = command, folder
        port = free_port()
        self._environment = {"COMPOSE_PROJECT_NAME": f"oarlock-e2e-{uuid.uuid4().hex[:8]}", "OARLOCK_PORT": str(port)}
        self._url, self._key = f"http://127.0.0.1:{port}", ""

    def compose(self, *arguments: str) -> str:
        return run(*self._command, *arguments, folder=self._folder, environment=self._environment)

    def up(self) -> None:
        """Start everything that is not up, and wait until the service is ready."""
        self.compose("up", "-d", "--no-build")
        self._key = self._key or self.inside("service", "oarlock", "keys", "create", "e2e", "--scope", "admin")
        assert eventually(self._is_ready, within_s=PATIENCE_S), self.compose("logs", "--tail=20")

    def down(self, *options: str) -> None:
        self.compose("--profile", "monitoring", "down", *options)

    def inside(self, service: str, *command: str) -> str:
        """What a command says that runs in a service's container."""
        return self.compose("exec", "-T", service, *command).strip()

    def container(self, service: str) -> str:
        return self.compose("--profile", "monitoring", "ps", "-q", service).strip()

    def inspect(self, service: str) -> dict[str, Any]:
        (found,) = json.loads(run("docker", "inspect", self.container(service)))
        return dict(found)

    def health(self, service: str) -> str:
        return str(self.inspect(service)["State"]["Health"]["Status"])

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self._url, headers={"Authorization": f"Bearer {self._key}"}, timeout=120)

    def post(self, series: list[Path]) -> str:
        """Send a series; gives the job's id."""
        with self.client() as client:
            answer = client.post("/v1/jobs", files=[("files", (path.name, path.read_bytes())) for path in series])
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def job(self, job_id: str) -> dict[str, Any]:
        with self.client() as client:
            return dict(client.get(f"/v1/jobs/{job_id}").raise_for_status().json())

    def wait(self, job_id: str, until: Callable[[dict[str, Any]], bool] = lambda job: job["state"] in ENDED) -> dict[str, Any]:
        """The job, as soon as something holds of it."""
        assert eventually(lambda: until(self.job(job_id)), within_s=PATIENCE_S), self.job(job_id)
        return self.job(job_id)

    def rtstruct(self, job_id: str) -> bytes:
        with self.client() as client:
            return client.get(f"/v1/jobs/{job_id}/rtstruct").raise_for_status().content

    def _is_ready(self) -> bool:
        try:
            return httpx.get(f"{self._url}/readyz", timeout=10).status_code == 200
        except httpx.HTTPError:
            return False


@contextmanager
def brought_up() -> Iterator[Composition]:
    """The composition from images of this tree; takes everything but the images down again."""
    made = Composition(compose_command())
    run("make", "images")
    try:
        made.up()
        yield made
    finally:
        made.down("--volumes", "--timeout", "5")

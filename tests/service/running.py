"""A real service over real HTTP: uvicorn in a thread of the test's own process, so that a test can look into the job table."""

import os
import socket
import ssl
import threading
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any
from unittest.mock import patch

import httpx
from fastapi import FastAPI

from oarlock.organs.catalogue import OARS
from oarlock.pipeline import apart
from oarlock.settings import Settings
from oarlock.store.job_store import JobStore
from oarlock.store.jobs import JobId
from oarlock.store.leases import Lease
from service.app import create_app
from service.container import Service
from service.server import Server, configuration, scheme
from tests.fixtures.migrated import write_migrated

Parts = list[tuple[str, tuple[str, bytes, str]]]


@dataclass
class Running:
    """A service that answers at ``url``."""

    url: str
    app: FastAPI
    settings: Settings

    @property
    def service(self) -> Service:
        service = self.app.state.service
        assert isinstance(service, Service)
        return service

    @property
    def store(self) -> JobStore:
        return self.service.store

    def files(self) -> list[str]:
        """Every file and folder of every upload and job on the disk; what is being deleted may be among them or not."""
        return sorted(
            f"{folder}/{entry}"
            for name in ("incoming", "jobs", "trash")
            for folder, folders, files in os.walk(self.settings.data / name)
            for entry in (*folders, *files)
        )

    def claim(self, job: dict[str, Any]) -> Lease:
        lease = self.store.leases.claim(JobId(job["id"]), worker="test", lease_s=60)
        assert lease is not None
        return lease

    def finish(self, job: dict[str, Any], results: dict[str, bytes]) -> None:
        """Do what a worker does, in short."""
        lease = self.claim(job)
        with self.service.storage.results_writer(lease.job_id, lease.token) as folder:
            for name, content in results.items():
                (folder / name).write_bytes(content)
        self.store.leases.succeed(lease)


@contextmanager
def serve(
    settings: Settings, *, tls: ssl.SSLContext | None = None, worker_problem: Callable[[], str | None] = lambda: None
) -> Iterator[Running]:
    """Run the service on these settings until the block ends.

    :param tls: what a client needs to be let in, where the settings ask for TLS.
    """
    if settings.database_url is None:
        write_migrated(settings.data / "oarlock.sqlite")
    app = create_app(settings, worker_problem=worker_problem)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = configuration(app, settings)
        config.timeout_graceful_shutdown = 2
        server = Server(app, config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            url = f"{scheme(settings)}://127.0.0.1:{listener.getsockname()[1]}"
            httpx.get(f"{url}/livez", timeout=30, verify=tls or True).raise_for_status()
            yield Running(url, app, settings)
        finally:
            # A fork server needs a second of CPU to start: the next service of this process takes over the one that waits.
            with patch.object(apart, "end_all"):
                server.should_exit = True
                thread.join()


def write_model(models: Path, name: str = "oarlock-hn", sha256: str = "ab" * 32) -> None:
    """A model that can be chosen; nobody runs it here."""
    folder = models / name
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(b"not run here")
    oars = "\n".join(f'[[oar]]\nname = "{oar.name}"' for oar in OARS)
    (folder / "manifest.toml").write_text(
        f"""
[model]
name = "{name}"
version = "1.2.3"
file = "model.onnx"
sha256 = "{sha256}"
licence = "Apache-2.0"
description = "for tests"
[input]
name = "hu"
spacing_mm = [2.5, 2.0, 2.0]
context_slices = 21
padding_hu = -1000
[output]
name = "probabilities"
upscale = 1
[self_check]
slices = 21
size_yx = [64, 64]
expected_means = {[0.5] * len(OARS)}
tolerance = 0.01
[training]
data = "phantoms"
[limits]
not_for = ["patients"]
{oars}
"""
    )


def parts(files: Sequence[bytes | Path], name: str = "files") -> Parts:
    """Parts of a multipart body, with names that a sender might choose."""
    contents = [content.read_bytes() if isinstance(content, Path) else content for content in files]
    return [(name, (f"../../IM{i}.dcm", content, "application/dicom")) for i, content in enumerate(contents)]


def zipped(files: Sequence[bytes | Path], *, method: int = zipfile.ZIP_DEFLATED, folder: str = "DICOM/") -> bytes:
    """A zip archive of files in a folder."""
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for i, content in enumerate(files):
            archive.writestr(f"{folder}IM{i}", content.read_bytes() if isinstance(content, Path) else content)
    return buffer.getvalue()

"""What an upload costs the service: ``python -m benchmarks.upload``.

Beside the floor and beside FastAPI's UploadFile.

Each way runs in a uvicorn process of its own. One series of 150 slices of 512 × 512 (79 MB) is posted over loopback, first alone
and then eight times at once. CPU is the server's user and system time for one upload; memory is how far the process' peak
resident size rises over its resident size before (VmHWM after a reset over VmRSS, Linux).
"""

import io
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Annotated, Any, Final
from uuid import uuid4

import numpy as np
from fastapi import FastAPI, File, Request, UploadFile

from oarlock.ct.writer import write_ct_series
from oarlock.geometry.grid import Grid
from oarlock.settings import Settings
from service.app import create_app
from service.embedded.redis_server import PrivateRedis

SLICES: Final = 150
AT_ONCE: Final = 8


# ── the ways ──────────────────────────────────────────────────────────────────────────────────────────────────────────

WAYS: Final = {
    "floor: stream discarded": "floor",
    "FastAPI UploadFile": "upload_file",
    "Oarlock: on the disk, checked, queued": "oarlock",
    "Oarlock, with the parts in a zip": "oarlock",
}


def floor() -> FastAPI:
    """Reads and forgets."""
    app = FastAPI()

    @app.post("/v1/jobs", status_code=202)
    async def post(request: Request) -> int:
        return sum([len(chunk) async for chunk in _stream(request)])

    return app


async def _stream(request: Request) -> AsyncIterator[bytes]:
    async for chunk in request.stream():
        yield chunk


def upload_file() -> FastAPI:
    """The way of the tutorial."""
    app = FastAPI()

    @app.post("/v1/jobs", status_code=202)
    async def post(files: Annotated[list[UploadFile], File()]) -> int:
        return sum([len(await file.read()) for file in files])

    return app


def oarlock() -> FastAPI:
    """The real service, with what the environment says."""
    return create_app(Settings())


# ── measuring ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Server:
    """One uvicorn process."""

    process: "subprocess.Popen[bytes]"
    port: int

    def status(self, key: str) -> float:
        """A memory value of the process in MB."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(key)) * 1024 / 1e6

    def reset_peak(self) -> None:
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5", encoding="ascii")

    def cpu_s(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def serving(way: str, environment: dict[str, str]) -> Iterator[Server]:
    """The way's application in a process of its own, when it answers."""
    with tempfile.TemporaryFile() as log:
        command = [sys.executable, "-m", "uvicorn", f"benchmarks.upload:{way}", "--factory", "--port", "0", "--no-access-log"]
        process = subprocess.Popen(command, env=os.environ | environment, stdout=log, stderr=log)
        try:
            yield Server(process, _port(process.pid))
        finally:
            process.terminate()
            process.wait()


def _port(pid: int) -> int:
    """The port that a process listens on, from the kernel's tables."""
    while True:
        sockets = {str(path.readlink()) for path in Path(f"/proc/{pid}/fd").iterdir() if path.is_symlink()}
        for line in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets:
                return int(fields[1].split(":")[1], 16)
        time.sleep(0.05)


@dataclass(frozen=True)
class Body:
    """A body that is sent again and again."""

    content: bytes
    media_type: str

    @classmethod
    def of(cls, files: Sequence[tuple[str, bytes]]) -> "Body":
        boundary = uuid4().hex
        head = '--{}\r\nContent-Disposition: form-data; name="files"; filename="{}"\r\n\r\n'
        parts = [head.format(boundary, name).encode() + content + b"\r\n" for name, content in files]
        return cls(b"".join([*parts, f"--{boundary}--\r\n".encode()]), f"multipart/form-data; boundary={boundary}")

    def post(self, port: int) -> None:
        """Send it, and see that it was taken."""
        connection = HTTPConnection("127.0.0.1", port, timeout=300)
        connection.request("POST", "/v1/jobs", body=self.content, headers={"Content-Type": self.media_type})
        answer = connection.getresponse()
        text = answer.read()
        connection.close()
        if answer.status != 202:
            raise RuntimeError(f"{answer.status} {text[:300]!r}")


def measure(server: Server, body: Body) -> tuple[float, float, float, float, float]:
    """What one upload costs, then eight at once.

    CPU s, wall s and MB of one, wall s and MB of eight.
    """
    body.post(server.port)  # imports, pools and caches are not the upload's
    cpu_s = server.cpu_s()
    one_s, one_mb = _peak(server, body, 1)
    cpu_s = server.cpu_s() - cpu_s
    many_s, many_mb = _peak(server, body, AT_ONCE)
    return cpu_s, one_s, one_mb, many_s, many_mb


def _peak(server: Server, body: Body, count: int) -> tuple[float, float]:
    before = server.status("VmRSS")
    server.reset_peak()
    failures: list[Exception] = []

    def send() -> None:
        try:
            body.post(server.port)
        except (OSError, RuntimeError) as error:
            failures.append(error)

    threads = [threading.Thread(target=send) for _ in range(count)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = time.perf_counter() - began
    if failures:
        raise failures[0]
    return took, server.status("VmHWM") - before


def series_files(folder: Path) -> list[tuple[str, bytes]]:
    """Names and contents of a series that no packing makes smaller.

    Noise: air around a patient of tissue and some bone.
    """
    rng = np.random.default_rng(0)
    hu = rng.integers(-1020, -980, (SLICES, 512, 512), dtype=np.int16)
    hu[:, 128:384, 128:384] = rng.integers(-150, 150, (SLICES, 256, 256), dtype=np.int16)
    hu[:, 240:272, 240:272] = rng.integers(400, 1200, (SLICES, 32, 32), dtype=np.int16)
    origins = np.stack([np.zeros(SLICES), np.zeros(SLICES), 2.5 * np.arange(SLICES)], axis=1)
    grid = Grid(512, 512, origins, np.array([1.0, 0, 0]), np.array([0, 1.0, 0]), 0.977, 0.977)
    return [(path.name, path.read_bytes()) for path in write_ct_series(folder, hu, grid)]


def _zip(files: Sequence[tuple[str, bytes]]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in files:
            archive.writestr(name, content)
    return buffer.getvalue()


def main(models: Path) -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        files = series_files(folder / "series")
        megabytes = sum(len(content) for _, content in files) / 1e6
        print(f"One upload of {megabytes:.0f} MB in {len(files)} files, and {AT_ONCE} of them at once.\n")
        print(f"| way | CPU s | s | MB | {AT_ONCE}: s | {AT_ONCE}: MB |\n| --- | --- | --- | --- | --- | --- |")
        with PrivateRedis(folder / "redis").running() as url:
            environment: dict[str, Any] = {"OARLOCK_MODELS": str(models), "REDIS_URL": url}
            for name, way in WAYS.items():
                body = Body.of([("series.zip", _zip(files))] if "zip" in name else files)
                with serving(way, environment | {"OARLOCK_DATA": str(folder / name)}) as server:
                    values = measure(server, body)
                print("| {} | {:.2f} | {:.2f} | {:.0f} | {:.2f} | {:.0f} |".format(name, *values), flush=True)
    print(f"\nPeak of this sender: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000:.0f} MB")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Settings().models)

"""What receiving a series by C-STORE costs.

Ours, dcmtk's storescp and Orthanc, one after the other; dcmtk's storescu sends.

python -m benchmarks.gateway SERIES [--repeats 3]      folder of a CT series
python -m benchmarks.gateway SERIES --memory 100       the memory of ours over as many small series

Everything runs in a network of its own (it takes root), because storescp and Orthanc listen on all addresses. Ours writes each
file through to the disk before it answers; the others leave that to the system.
"""

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from oarlock.ct.writer import write_ct_series
from tests.fixtures.crooked import crooked_grid, crooked_hu

SENDER: Final = ("storescu", "--max-pdu", "131072", "--scan-directories", "-aec", "OARLOCK")
_INSIDE: Final = "OARLOCK_TEST_MARK"
"""Set in the process that is in the private network."""


@dataclass(frozen=True)
class Receiver:
    """A program that is sent a series, its process and its port."""

    name: str
    process: "subprocess.Popen[bytes]"
    port: int

    def cpu_s(self) -> float:
        """CPU time until now, in seconds."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def peak_mb(self) -> float:
        """Largest resident memory until now."""
        return self._mb("VmHWM")

    def now_mb(self) -> float:
        """Resident memory."""
        return self._mb("VmRSS")

    def _mb(self, what: str) -> float:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split(f"{what}:")[1].split()[0]) / 1024


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextmanager
def started(name: str, command: Sequence[str], port: int, environment: dict[str, str]) -> Iterator[Receiver]:
    """A receiver that answers C-ECHO, until the block ends."""
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(command, env=os.environ | environment, stdout=quiet, stderr=quiet)
    echo = ["echoscu", "-aec", "OARLOCK", "127.0.0.1", str(port)]
    try:
        while subprocess.run(echo, check=False, stdout=quiet, stderr=quiet).returncode:
            time.sleep(0.2)
        yield Receiver(name, process, port)
    finally:
        process.terminate()
        process.wait()


def ours(folder: Path, port: int) -> tuple[list[str], dict[str, str]]:
    settings = {
        "DATA": str(folder),
        "PORT": str(port),
        "SERVICE": "http://127.0.0.1:1",
        "MIN_FREE_BYTES": "0",
        "METRICS_PORT": "0",
    }
    return [sys.executable, "-m", "gateway"], {f"OARLOCK_GATEWAY_{name}": value for name, value in settings.items()}


def storescp(folder: Path, port: int) -> tuple[list[str], dict[str, str]]:
    return ["storescp", "+B", "-od", str(folder), "-aet", "OARLOCK", str(port)], {"TCP_NODELAY": "1"}


def orthanc(folder: Path, port: int) -> tuple[list[str], dict[str, str]]:
    settings = {
        "StorageDirectory": str(folder),
        "IndexDirectory": str(folder),
        "HttpPort": free_port(),
        "DicomPort": port,
        "DicomAet": "OARLOCK",
        "DicomAlwaysAllowStore": True,
    }
    (folder / "orthanc.json").write_text(json.dumps(settings), encoding="utf-8")
    return [shutil.which("Orthanc", path=f"{os.environ['PATH']}:/usr/sbin") or "Orthanc", str(folder / "orthanc.json")], {}


RECEIVERS: Final[dict[str, Callable[[Path, int], tuple[list[str], dict[str, str]]]]] = {
    "ours": ours,
    "storescp (TCP_NODELAY=1)": storescp,
    "Orthanc": orthanc,
}


def measure(name: str, series: Path, repeats: int) -> str:
    """A row of the table: the median of some runs.

    Each is into an empty receiver.
    """
    size = sum(path.stat().st_size for path in series.iterdir())
    seconds, cpu, peak = [], [], 0.0
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as folder:
            port = free_port()
            command, environment = RECEIVERS[name](Path(folder), port)
            with started(name, command, port, environment) as receiver:
                before, began = receiver.cpu_s(), time.perf_counter()
                subprocess.run([*SENDER, "127.0.0.1", str(port), series], check=True)
                seconds.append(time.perf_counter() - began)
                cpu.append(receiver.cpu_s() - before)
                peak = max(peak, receiver.peak_mb())
    wall = statistics.median(seconds)
    return f"| {name} | {wall:.2f} | {size / 1e6 / wall:.0f} | {statistics.median(cpu):.2f} | {peak:.0f} |"


def memory(series: int) -> str:
    """The memory of ours after each tenth of some series.

    Each series has 37 slices and an association of its own.
    """
    seen = []
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        command, environment = ours(Path(folder, "gateway"), port)
        with started("ours", command, port, environment) as receiver:
            for number in range(1, series + 1):
                one = Path(folder, "ct")
                write_ct_series(one, crooked_hu(), crooked_grid(), seed=f"memory {number}")
                subprocess.run([*SENDER, "127.0.0.1", str(port), one], check=True)
                shutil.rmtree(one)
                if number % max(1, series // 10) == 0:
                    seen.append(f"{receiver.now_mb():.0f}")
    return f"MB after each tenth of {series} series: {', '.join(seen)}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gateway", description=__doc__)
    parser.add_argument("series", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--memory", type=int, metavar="SERIES")
    options = parser.parse_args()
    if os.environ.get(_INSIDE) != "gateway":
        inside = [
            "unshare",
            "--net",
            "sh",
            "-ec",
            'ip link set lo up; exec "$@"',
            "sh",
            sys.executable,
            "-m",
            "benchmarks.gateway",
        ]
        command = [*inside, *sys.argv[1:]]
        return subprocess.run(command, env=os.environ | {_INSIDE: "gateway"}, check=False).returncode
    if options.memory:
        print(memory(options.memory), flush=True)
        return 0
    images = sum(1 for _ in options.series.iterdir())
    size = sum(path.stat().st_size for path in options.series.iterdir())
    print(f"{images} files, {size / 1e6:.1f} MB, load {os.getloadavg()[0]:.1f}")
    print("| receiver | s | MB/s | CPU s | peak MB |\n| --- | --- | --- | --- | --- |")
    for name in RECEIVERS:
        print(measure(name, options.series, options.repeats), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

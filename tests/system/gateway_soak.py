"""Soak of the whole way: many series by C-STORE while gateway, service, worker and Redis are killed at random.

python -m tests.system.gateway_soak [--series 200] [--kills 24] [--seed 1]

Each sender repeats until it is told that all is stored, as senders do. In the end every series has one job that counts, of all
its slices, and its RTSTRUCT lies in the folder that a rule names.
"""

import argparse
import random
import subprocess
import sys
import tempfile
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from threading import Event
from time import monotonic
from typing import Final

import httpx
import pydicom

from gateway.store import Store
from oarlock.ct.writer import write_ct_series
from tests.fixtures.crooked import crooked_grid
from tests.fixtures.processes import eventually, free_port, listens
from tests.system.department import Department, Program
from tests.worker.conftest import head

SENDERS: Final = 4
DOWN_S: Final = 3.0
PATIENCE_S: Final = 1_800.0


class Soak:
    """A department with a gateway in front of it.

    :param folder: of everything.
    """

    def __init__(self, folder: Path, department: Department) -> None:
        self.folder, self.department = folder, department
        self.port, self.out = free_port(), folder / "out"
        self.out.mkdir()
        rule = '[[folder]]\nname = "out"\npath = "{}"\n[[rule]]\nname = "all"\nsend = ["out"]\n'
        (folder / "gateway.toml").write_text(rule.format(self.out), encoding="utf-8")
        service = f"http://127.0.0.1:{department.environment['OARLOCK_PORT']}"
        settings = {
            "DATA": str(folder / "gateway"),
            "PORT": str(self.port),
            "SERVICE": service,
            "METRICS_PORT": "0",
            "MIN_FREE_BYTES": "0",
        }
        settings |= {"SETTLED_S": "1", "QUIET_S": "8", "CONFIGURATION": str(folder / "gateway.toml")}
        self.gateway = department.program("gateway", **{f"OARLOCK_GATEWAY_{name}": value for name, value in settings.items()})

    def start(self, component: str) -> None:
        """Start a component and wait until it answers."""
        if component == "gateway":
            self.gateway.start()
            assert eventually(lambda: listens(self.port), within_s=120), self.gateway.log.read_text()[-2000:]
        else:
            getattr(self.department, f"start_{component}")()

    def kill(self, component: str) -> None:
        programs: dict[str, Program] = {name: getattr(self.department, name) for name in ("service", "worker")}
        programs["gateway"] = self.gateway
        if component == "redis":
            self.department.kill_redis()
        else:
            programs[component].kill()

    def send(self, series: Path) -> bool:
        """Send until it is told that all is stored."""
        command = ["storescu", "-aec", "OARLOCK", "--scan-directories", "127.0.0.1", str(self.port), str(series)]
        quiet = subprocess.DEVNULL
        return eventually(lambda: subprocess.run(command, check=False, stdout=quiet, stderr=quiet).returncode == 0, within_s=600)

    def memory_mb(self) -> float:
        """Resident memory of the gateway."""
        assert self.gateway.process is not None
        status = Path(f"/proc/{self.gateway.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) / 1024

    def jobs(self) -> list[dict[str, object]]:
        """All jobs of the service."""
        found, cursor = [], None
        while True:
            params = {"limit": 500} | ({"cursor": cursor} if cursor else {})
            page = httpx.get(f"{self.department.url}/v1/jobs", params=params, timeout=60).raise_for_status().json()
            found += page["jobs"]
            cursor = page["next"]
            if cursor is None:
                return found

    def home(self) -> Counter[str]:
        """How many RTSTRUCTs lie in the folder, by the series that they were drawn on."""
        found: Counter[str] = Counter()
        for path in self.out.glob("RS.*.dcm"):
            frame = pydicom.dcmread(path).ReferencedFrameOfReferenceSequence[0]
            found[str(frame.RTReferencedStudySequence[0].RTReferencedSeriesSequence[0].SeriesInstanceUID)] += 1
        return found


def run(soak: Soak, series: list[Path], kills: int, rng: random.Random) -> Counter[str]:
    """Send everything and kill meanwhile; how often each component was killed."""
    killed: Counter[str] = Counter()
    with ThreadPoolExecutor(SENDERS) as pool:
        sent: list[Future[bool]] = [pool.submit(soak.send, one) for one in series]
        for number in range(kills):
            share = (number + rng.random()) / kills * len(series)
            eventually(lambda share=share: sum(one.done() for one in sent) >= share, within_s=PATIENCE_S)  # type: ignore[misc]
            component = rng.choice(["gateway", "gateway", "service", "worker", "redis"])
            soak.kill(component)
            Event().wait(rng.random() * DOWN_S)
            soak.start(component)
            killed[component] += 1
        assert all(one.result() for one in sent), "a sender was never told that all is stored"
    return killed


def judge(soak: Soak, uids: dict[str, int]) -> list[str]:
    """What is wrong in the end, in words; nothing if all is well."""

    def settled() -> bool:
        jobs = soak.jobs()
        counted = {str(job["series"]["series_instance_uid"]) for job in jobs if job["state"] == "succeeded"}  # type: ignore[index]
        ended = all(job["state"] in ("succeeded", "failed", "cancelled") for job in jobs)
        return counted == set(uids) and ended and set(soak.home()) == set(uids)

    eventually(settled, within_s=PATIENCE_S)
    wrong, home = [], soak.home()
    for uid, slices in uids.items():
        jobs = [job for job in soak.jobs() if job["series"]["series_instance_uid"] == uid]  # type: ignore[index]
        count = [job for job in jobs if job["superseded_by"] is None and job["state"] == "succeeded"]
        if [job["series"]["slices"] for job in count] != [slices]:  # type: ignore[index]
            wrong.append(f"a series has jobs {[(job['state'], job['superseded_by'] is not None) for job in jobs]}")
        told = [one["state"] for job in count for one in job["deliveries"]]  # type: ignore[attr-defined]
        if told != ["delivered"] or not home[uid]:
            wrong.append(f"the deliveries of a series are {told}, and {home[uid]} RTSTRUCT(s) lie there")
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.system.gateway_soak", description=__doc__)
    parser.add_argument("--series", type=int, default=200)
    parser.add_argument("--kills", type=int, default=24)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    rng, began = random.Random(options.seed), monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        settings = {"OARLOCK_PORT": str(free_port())}
        with closing(Department(folder / "department", linger=1, **settings)) as department:
            soak = Soak(folder, department)
            uids: dict[str, int] = {}
            series = [folder / "ct" / str(number) for number in range(options.series)]
            for one in series:
                files = write_ct_series(one, head(crooked_grid()), crooked_grid(), seed=f"soak {one.name}")
                uids[str(pydicom.dcmread(files[0], stop_before_pixels=True).SeriesInstanceUID)] = len(files)
            department.start()
            soak.start("gateway")
            killed = run(soak, series, options.kills, rng)
            wrong = judge(soak, uids)
            with closing(Store(folder / "gateway")) as store:
                counts = store.counts()
            print(f"{len(uids)} series, killed {dict(killed)}, {monotonic() - began:.0f} s, gateway {soak.memory_mb():.0f} MB")
            print(f"posts and deliveries: {dict(counts)}; lost or doubled: {len(wrong)}")
            print("\n".join(wrong))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

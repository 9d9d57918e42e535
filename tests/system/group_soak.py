"""Soak of a group: several services behind a proxy, workers, a gateway and sites, while all of them are killed at random.

python -m tests.system.group_soak [--jobs 200] [--kills 50] [--minutes 20] [--seed 1] [--write]

Three sites post through the proxy with keys of their own, each a patient of its own, and a fourth sends by C-STORE through a
gateway. Beside what :mod:`tests.system.soak` looks at: no job, no file and no name of one site is seen by another's key.
"""

import argparse
import io
import sys
import tempfile
import uuid
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from threading import Event
from typing import Final

import httpx
import pydicom

from oarlock.ct.writer import write_ct_series
from oarlock.store.jobs import ENDED, JobId, JobState
from tests.fixtures import postgresql
from tests.fixtures.crooked import crooked_grid
from tests.service.running import zipped
from tests.system import gateway_soak
from tests.system.department import PATIENCE_S, wait_until
from tests.system.group import Group
from tests.system.soak import PAGE, Soak, Tally, _sleep_until
from tests.worker.conftest import head

SITES: Final = ("north", "south", "east")
BY_GATEWAY: Final = "west"
BEGIN, END = "<!-- group soak: written by python -m tests.system.group_soak -->\n", "<!-- group soak: end -->\n"


class Sender(gateway_soak.Soak):
    """The gateway of a site, which reaches the services through the proxy with the site's key."""

    def __init__(self, folder: Path, group: Group, key: str) -> None:
        super().__init__(folder, group)
        self._group, self._key = group, key
        (folder / "gateway.key").write_text(key)
        (folder / "gateway.key").chmod(0o600)
        reached = {
            "SERVICE": group.proxy.url,
            "SERVICE_CA": str(group.authority.certificate),
            "KEY_FILE": str(folder / "gateway.key"),
        }
        self.gateway.environment |= {f"OARLOCK_GATEWAY_{name}": value for name, value in reached.items()}

    def jobs(self) -> list[dict[str, object]]:
        """All jobs of the site."""
        with self._group.client(self._key) as client:
            return list(client.get("/v1/jobs", params={"limit": 500}).raise_for_status().json()["jobs"])


class GroupSoak(Soak):
    """One run.

    :param series: of each site, as a zip archive.
    """

    def __init__(
        self, group: Group, server: postgresql.Server | None, folder: Path, series: dict[str, bytes], *, seed: int
    ) -> None:
        super().__init__(group, server, seed=seed)
        self._group, self._series = group, series
        self._keys = {site: group.key_of(site) for site in (*SITES, BY_GATEWAY)}
        self._owner: dict[JobId, str] = {}
        self._second = group.program("worker", name="worker-2")
        self._sender = Sender(folder, group, self._keys[BY_GATEWAY])
        self._all_sent: Future[None] | None = None
        self._sent: dict[str, int] = {}
        self._programs = {"worker": group.worker, "worker 2": self._second, "gateway": self._sender.gateway}
        self._programs |= {f"service {number}": one for number, one in enumerate(group.services, start=1)}
        self._kills |= {name: lambda name=name: self._kill(name) for name in self._programs}  # type: ignore[misc]
        self._kills["proxy"] = self._kill_proxy
        self._kills.pop("service")

    @property
    def of_site(self) -> Counter[str]:
        """How many jobs each site posted."""
        return Counter(self._owner.values())

    def begin(self) -> None:
        """Start what the group does not start itself."""
        self._group.start_worker(self._second)
        self._sender.start("gateway")

    def run_with(self, stored: dict[str, list[Path]], *, jobs: int, seconds: float, kills: int) -> Tally:
        """As :meth:`run`, while series go to the gateway by C-STORE, each until its sender is told that all is stored.

        :param stored: the files of each series, by SeriesInstanceUID.
        """
        self._sent = {uid: len(slices) for uid, slices in stored.items()}

        def send() -> None:
            for one in [slices[0].parent for slices in stored.values()]:
                assert self._sender.send(one), "a sender was never told that all is stored"

        with ThreadPoolExecutor(1) as pool:
            self._all_sent = pool.submit(send)
            return self.run(b"", jobs=jobs, seconds=seconds, kills=kills)

    def _judge(self, accepted: list[JobId]) -> None:
        assert self._all_sent is not None
        self._all_sent.result()
        with suppress(AssertionError):  # then the tally says what is lost
            wait_until(lambda: set(self._group.store.states().values()) <= ENDED, within_s=20 * PATIENCE_S)
        super()._judge(accepted)
        self._judge_sites()  # while whatever ended is still started again

    def _post(self, series: bytes, at: float, priority: str) -> JobId:
        del series
        _sleep_until(at)
        site = SITES[len(self._owner) % len(SITES)]
        key = str(uuid.uuid4())
        while True:
            with suppress(httpx.TransportError), self._group.client(self._keys[site]) as client:
                parts = [("files", ("series.zip", self._series[site]))]
                answer = client.post("/v1/jobs", files=parts, data={"priority": priority}, headers={"Idempotency-Key": key})
                if answer.status_code == 202:
                    job_id = JobId(answer.json()["id"])
                    self._owner[job_id] = site
                    return job_id
                assert answer.status_code in {502, 503, 504}, answer.text
            Event().wait(0.5)

    def _kill_proxy(self) -> Callable[[], None]:
        self._group.proxy.kill()
        return self._group.proxy.start

    def _judge_sites(self) -> None:
        """What each site sees is its own and nothing else, and what came by the gateway went home."""
        for job_id, site in self._owner.items():
            self._look(lambda job_id=job_id, site=site: self._check_job(job_id, site))  # type: ignore[misc]
        for site in SITES:
            self._look(lambda site=site: self._check_list(site))  # type: ignore[misc]
        self._look(lambda: self.tally.wrong.extend(gateway_soak.judge(self._sender, self._sent)))

    def _check_job(self, job_id: JobId, site: str) -> None:
        assert self._group.store.get(job_id).site == site, "a job belongs to another site"
        if self._group.store.get(job_id).state is not JobState.SUCCEEDED:
            return
        with self._group.client(self._keys[site]) as own:
            content = own.get(f"/v1/jobs/{job_id}/rtstruct").raise_for_status().content
        assert str(pydicom.dcmread(io.BytesIO(content)).PatientName) == f"Canary^{site}", "the contours of another site's patient"
        other = SITES[(SITES.index(site) + 1) % len(SITES)]
        with self._group.client(self._keys[other]) as stranger:
            assert stranger.get(f"/v1/jobs/{job_id}").status_code == 404, "a site sees another's job"

    def _check_list(self, site: str) -> None:
        with self._group.client(self._keys[site]) as client:
            page = client.get("/v1/jobs", params={"limit": 500}).raise_for_status().json()
        mine = {job_id for job_id, owner in self._owner.items() if owner == site}
        assert {job["id"] for job in page["jobs"]} == mine, "a list shows another site's jobs, or misses one"


def soak(folder: Path, *, jobs: int, seconds: float, kills: int, seed: int) -> tuple[Tally, Counter[str], int]:
    """Run one soak; what was tallied, how many jobs each site has, and how many series came by the gateway."""
    grid = crooked_grid()
    files = {site: write_ct_series(folder / site, head(grid), grid, patient_name=f"Canary^{site}", seed=site) for site in SITES}
    stored: dict[str, list[Path]] = {}
    for number in range(jobs // 5):
        one = folder / BY_GATEWAY / str(number)
        slices = write_ct_series(one, head(grid), grid, patient_name=f"Canary^{BY_GATEWAY}", seed=f"{BY_GATEWAY} {number}")
        stored[str(pydicom.dcmread(slices[0], stop_before_pixels=True).SeriesInstanceUID)] = slices
    with ExitStack() as stack:
        settings, server = {}, None
        if programs := postgresql.find_programs():
            server = stack.enter_context(postgresql.running(programs))
            settings["DATABASE_URL"] = stack.enter_context(server.database())
        group = Group(folder / "group", linger=0, **settings)
        stack.callback(group.close)
        (folder / "gateway-soak").mkdir()
        run = GroupSoak(group, server, folder / "gateway-soak", {site: zipped(found) for site, found in files.items()}, seed=seed)
        group.begin()
        run.begin()
        tally = run.run_with(stored, jobs=jobs - len(stored), seconds=seconds, kills=kills)
        return tally, run.of_site, len(stored)


def main() -> int:
    """Soak, print the tables, and write them into the page where that is asked for; 1 if anything was lost, wrong or crossed."""
    parser = argparse.ArgumentParser(prog="python -m tests.system.group_soak", description=__doc__)
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--write", action="store_true", help="write the tables into docs/reliability.md")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="oarlock-group-", ignore_cleanup_errors=True) as folder:
        tally, of_site, by_gateway = soak(
            Path(folder), jobs=chosen.jobs, seconds=60 * chosen.minutes, kills=chosen.kills, seed=chosen.seed
        )
    sites = ", ".join(f"{site} {n}" for site, n in sorted(of_site.items()))
    said = tally.markdown().replace("`make soak`", "`python -m tests.system.group_soak`")
    said += f"\nOf these {sites}; by C-STORE through the gateway {by_gateway} series more. Crossed: {len(tally.wrong)}.\n"
    sys.stdout.write(said + "".join(f"{line}\n" for line in tally.wrong))
    if chosen.write:
        text = PAGE.read_text()
        PAGE.write_text(f"{text.split(BEGIN)[0]}{BEGIN}\n{said}\n{END}{text.split(END)[1]}")
    return 1 if tally.lost or tally.wrong else 0


if __name__ == "__main__":
    sys.exit(main())

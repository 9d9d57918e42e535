"""The OpenAPI document held against a real service: schemathesis calls every operation with what the document allows, and with
what it forbids, and checks that the answers are what the document says.

A call may be refused that keeps to the document, as a file may be any bytes there (positive_data_acceptance is off). Storing is
left out: schemathesis cannot write multipart/related. Everything else is checked: no 5xx but the stated one, statuses, media
types, headers and bodies as stated, what is forbidden is refused, a call without a key is, a method that is not there is
answered with 405, what was deleted is gone.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from oarlock.ct.series import check_headers, read_ct_series
from oarlock.ct.series_geometry import write_series_geometry
from oarlock.errors import InferenceFailed
from oarlock.pictures.contact_sheet import contact_sheet
from oarlock.pictures.slice_archive import save_rendering
from oarlock.qa.report import job_report
from oarlock.scopes import Scope
from oarlock.store.files import GEOMETRY, PREVIEW, QA_REPORT, RENDERING, RTSTRUCT
from oarlock.store.keys import KeyStore
from tests.fuzz import seeds
from tests.service.conftest import make_settings
from tests.service.running import Running, parts, serve, write_model

_SETTINGS = """
continue-on-failure = true
max-stream-events = 1
request-timeout = 20
headers = {{ Authorization = "Bearer {token}" }}

[dictionaries]
jobs.values = {jobs}
doomed.values = {doomed}

[parameters]
"path.job_id" = {{ dictionary = "jobs", probability = 0.8 }}

[checks.positive_data_acceptance]
enabled = false

[checks.negative_data_rejection]
expected-statuses = ["4xx"]

[[operations]]
include-method = "DELETE"
parameters = {{ "path.job_id" = {{ dictionary = "doomed", probability = 0.8 }} }}

[[operations]]
include-name = ["POST /dicom-web/studies", "POST /dicom-web/studies/{{study}}"]
enabled = false

[[operations]]
include-path = "/readyz"
checks.not_a_server_error.expected-statuses = ["2xx", "4xx", 503]
"""


@dataclass(frozen=True)
class Called:
    """A service, an admin's key for it, and jobs of every state; ``doomed`` are those that may be deleted."""

    running: Running
    token: str
    jobs: list[str]
    doomed: list[str]


@contextmanager
def service(folder: Path, redis_url: str) -> Iterator[Called]:
    """A service that asks for a key and has no worker."""
    write_model(folder / "models")
    files = seeds.write_series(folder / "series")
    results = _results(files, folder / "results")
    with serve(make_settings(folder, redis_url, rate_per_minute=0)) as running:
        token = KeyStore(running.service.database).create("fuzzer", [Scope.ADMIN])[1]
        with httpx.Client(base_url=running.url, timeout=60, headers={"Authorization": f"Bearer {token}"}) as client:
            posted = [client.post("/v1/jobs", files=parts(files)).json() for _ in range(8)]
            finished, again, failed, cancelled, purged, started, *doomed = posted
            running.finish(finished, results)
            running.finish(again, results)
            running.store.leases.fail(running.claim(failed), InferenceFailed(reason="of a test"))
            client.post(cancelled["links"]["cancel"]).raise_for_status()
            client.delete(purged["links"]["self"]).raise_for_status()
            running.claim(started)
            client.get("/openapi.json").raise_for_status()  # it is made once; schemathesis would wait 10 s for it, busy or not
        yield Called(running, token, [job["id"] for job in posted[:6]], [job["id"] for job in doomed])


def _results(files: list[Path], folder: Path) -> dict[str, bytes]:
    """What a worker would have written, with contours of three organs."""
    folder.mkdir()
    series = read_ct_series(check_headers(files))
    masks = seeds.write_structure_set(folder / RTSTRUCT, files)
    (folder / PREVIEW).write_bytes(contact_sheet(series.hu, series.header.grid, masks, model="tests"))
    save_rendering(folder / RENDERING, series.hu, series.header.grid, masks, model="tests")
    write_series_geometry(folder / GEOMETRY, series.header)
    report = job_report(series.header.series_instance_uid, [], [], (), [])
    (folder / QA_REPORT).write_text(json.dumps(report))
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def hold(called: Called, folder: Path, *options: str) -> "subprocess.CompletedProcess[str]":
    """Run schemathesis.

    :param options: of its command ``run``.
    """
    settings = folder / "schemathesis.toml"
    jobs, doomed = json.dumps(called.jobs), json.dumps(called.doomed)
    settings.write_text(_SETTINGS.format(token=called.token, jobs=jobs, doomed=doomed))
    command = [sys.executable, "-m", "schemathesis.cli", "--no-color", "--config-file", str(settings), "run", *options]
    return subprocess.run(
        [*command, f"{called.running.url}/openapi.json"], cwd=folder, capture_output=True, text=True, check=False
    )

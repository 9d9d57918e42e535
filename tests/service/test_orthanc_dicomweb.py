"""Orthanc, a PACS, pushes a series to us over DICOMweb, and finds and fetches what came of it."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pydicom
import pytest

from oarlock.ct.writer import write_ct_series
from oarlock.store.jobs import JobId
from tests.fixtures import orthanc as archive
from tests.fixtures.crooked import crooked_grid, crooked_hu
from tests.service.conftest import make_settings
from tests.service.running import Running, serve, write_model
from tests.service.test_stow import FAR, collect, jobs_of

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("ours")
    write_model(folder / "models")
    with serve(make_settings(folder, redis_url, stow_quiet_s=FAR)) as running:
        yield running


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory, ours: Running) -> Iterator[httpx.Client]:
    url = f"{ours.url}/dicom-web/"
    servers = {name: {"Url": url, "ChunkedTransfers": name == "chunked"} for name in ("chunked", "whole")}
    with archive.running(tmp_path_factory.mktemp("orthanc"), servers) as client:
        yield client


@pytest.mark.parametrize("server", ["chunked", "whole"])
def test_a_series_that_orthanc_pushes_becomes_a_job(ours: Running, theirs: httpx.Client, server: str, tmp_path: Path) -> None:
    files = write_ct_series(tmp_path, crooked_hu(), crooked_grid(), seed=server)
    for file in files:
        theirs.post("/instances", content=file.read_bytes()).raise_for_status()
    uid = pydicom.dcmread(files[0]).SeriesInstanceUID
    (found,) = theirs.post("/tools/lookup", content=uid).json()
    pushed = theirs.post(f"/dicom-web/servers/{server}/stow", json={"Resources": [found["ID"]], "Synchronous": True})
    assert pushed.status_code == 200, pushed.text  # Orthanc read our answer, and found every instance in it
    collect(ours)
    (job,) = jobs_of(ours, files)
    assert job["series"]["slices"] == len(files)
    kept = [pydicom.dcmread(path).SOPInstanceUID for path in ours.service.storage.input_files(JobId(job["id"]))]
    assert sorted(kept) == sorted(pydicom.dcmread(file).SOPInstanceUID for file in files)

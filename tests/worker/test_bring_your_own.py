"""A hospital's own model: dropped into the folder, listed, chosen by its name, run at the scan's own resolution."""

import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from oarlock.inference.models import Models
from oarlock.rtstruct.reader import read_structure_set
from oarlock.segmentation.manifest import MANIFEST_NAME
from oarlock.segmentation.model_folder import ModelFolder
from oarlock.store.jobs import JobId
from tests.service.conftest import make_settings
from tests.service.running import parts, serve, write_model
from tests.worker.tiny_model import LIMITS_HU, write_tiny_model
from worker.jobs import contour

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


def write_native_model(folder: Path) -> None:
    """Two of the 21 OARs on the CT's own grid, whatever its size."""
    write_tiny_model(folder, name=folder.name)
    path = folder / MANIFEST_NAME
    native = (
        path.read_text().replace("spacing_mm = [2.5, 2.0, 2.0]", 'spacing_mm = "native"').replace("size_yx = [64, 64]\n", "", 1)
    )
    path.write_text(native)


def test_it_is_listed_chosen_and_its_name_is_in_the_result(series: Path, redis_url: str, tmp_path: Path) -> None:
    settings = make_settings(tmp_path, redis_url)
    write_model(tmp_path / "models")
    write_native_model(tmp_path / "models" / "hospital-ct")
    with serve(settings) as running, httpx.Client(base_url=running.url, timeout=30) as client:
        listed = {model["name"]: model for model in client.get("/v1/models").json()["models"]}
        assert listed["hospital-ct"]["oars"] == list(LIMITS_HU)
        assert listed["hospital-ct"]["spacing_mm"] is None  # the scan's own
        assert not listed["hospital-ct"]["default"]

        files = parts(sorted(series.iterdir()))
        refused = client.post("/v1/jobs", files=files, data={"model": "hospital-mr"})
        assert refused.status_code == 422
        assert "hospital-ct" in refused.text
        job = client.post("/v1/jobs", files=files, data={"model": "hospital-ct"}).json()
        assert job["model"]["name"] == "hospital-ct"

        models = Models(ModelFolder(settings.models, settings.model).now, device="cpu")
        service = running.service
        contour(JobId(job["id"]), store=service.store, storage=service.storage, models=models, worker="test", lease_s=60)
        done = client.get(f"/v1/jobs/{job['id']}").json()
        assert done["state"] == "succeeded", done
        path = tmp_path / "rtstruct.dcm"
        path.write_bytes(client.get(f"/v1/jobs/{job['id']}/rtstruct").content)
    written = read_structure_set(path)
    assert [roi.name for roi in written.rois] == list(LIMITS_HU)
    assert b"hospital-ct" in path.read_bytes()


@pytest.mark.parametrize(
    ("line", "instead", "reason"),
    [('name = "Brain"', 'name = "Gehirn"', "Gehirn"), ("context_slices = 3", "context_slices = 2", "odd")],
)
def test_a_wrong_manifest_is_refused_at_start_with_the_reason(tmp_path: Path, line: str, instead: str, reason: str) -> None:
    write_tiny_model(tmp_path / "models" / "tiny")
    path = tmp_path / "models" / "tiny" / MANIFEST_NAME
    path.write_text(path.read_text().replace(line, instead, 1))
    environment = {
        **os.environ,
        "OARLOCK_MODELS": str(tmp_path / "models"),
        "OARLOCK_DATA": str(tmp_path),
        "OARLOCK_MODEL": "tiny",
        "REDIS_URL": "redis://127.0.0.1:1/0",
    }
    done = subprocess.run(
        [sys.executable, "-m", "worker"], cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 1
    assert "cannot start" in done.stderr
    assert reason in done.stderr

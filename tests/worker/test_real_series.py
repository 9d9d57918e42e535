"""The shipped model on a real planning CT, in a process of its own, so that its memory can be read."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from oarlock.organs.catalogue import OARS
from oarlock.rtstruct.reader import read_structure_set
from oarlock.segmentation.manifest import read_manifest
from oarlock.store.files import QA_REPORT, RTSTRUCT
from oarlock.store.jobs import JobId, JobState
from tests.worker.conftest import House

pytestmark = pytest.mark.long("shipped")

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "models" / "oarlock-hn"
GIB = 2**30

RUN = """
import re, sys
from pathlib import Path
from oarlock.store.database import Database
from oarlock.store.job_store import JobStore
from oarlock.segmentation.model_folder import ModelFolder
from oarlock.store.files import Storage
from oarlock.inference.models import Models
from worker.jobs import contour

data, models = Path(sys.argv[1]), Models(ModelFolder(Path(sys.argv[2]), "oarlock-hn").now, device="cpu")
store = JobStore(Database(f"sqlite:///{data / 'oarlock.sqlite'}"))
contour("real", store=store, storage=Storage(data), models=models, worker="test", lease_s=600)
# ru_maxrss would hold the peak of the process that started this one too: it is carried over exec.
print(1024 * int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]))
"""


@pytest.mark.skipif(not (SHIPPED / "model.onnx").is_file(), reason="models/oarlock-hn is not here")
def test_a_real_series_is_contoured_within_three_gibibytes(siemens_series: Path, tmp_path: Path) -> None:
    house = House(tmp_path / "data", read_manifest(SHIPPED))
    images = tmp_path / "images"
    images.mkdir()
    for path in siemens_series.rglob("CT_*.dcm"):
        (images / path.name).symlink_to(path)
    job_id = house.post(images, job_id="real")
    ran = subprocess.run(
        [sys.executable, "-c", RUN, house.data, SHIPPED.parent], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert int(ran.stdout) < 3 * GIB
    job = house.store.get(JobId(job_id))
    assert (job.state, job.error) == (JobState.SUCCEEDED, None)
    written = read_structure_set(house.storage.result(job_id, RTSTRUCT))
    assert [roi.name for roi in written.rois] == [oar.name for oar in OARS]
    report = json.loads(house.storage.result(job_id, QA_REPORT).read_text())
    assert {check["oar"] for check in report["checks"]} >= {"Brain", "SpinalCord"}
    house.database.close()

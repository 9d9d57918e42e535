"""A client that is generated from the contract has a class for every document, and works; so do the samples."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from oarlock.store.files import QA_REPORT
from service.api.examples import QA_REPORT as EXAMPLE
from tests.service.running import Running, parts

CLIENTS = Path(__file__).parents[2] / "clients"

USED = """
import sys
from made import Client
from made.api.jobs import get_job, get_qa, list_jobs
from made.models import JobPage, QAReportDocument

client = Client(base_url=sys.argv[1])
page = list_jobs.sync(client=client, label="generated")
assert isinstance(page, JobPage) and len(page.jobs) == 1
job = get_job.sync(job_id=page.jobs[0].id, client=client)
report = get_qa.sync(job_id=job.id, client=client)
assert isinstance(report, QAReportDocument)
print(job.state, report.organs[0].verdict, report.comparisons[0].oars[0].surface_dsc)
"""


@pytest.mark.slow
def test_a_generated_client_has_a_class_for_every_document_and_reads_a_report(
    client: httpx.Client, running: Running, series: list[Path], tmp_path: Path
) -> None:
    document = client.get("/openapi.json").json()
    (tmp_path / "openapi.json").write_text(json.dumps(document))
    command = [sys.executable, "-m", "openapi_python_client", "generate", "--path", "openapi.json", "--meta", "none"]
    done = subprocess.run([*command, "--output-path", "made"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    models = (tmp_path / "made" / "models" / "__init__.py").read_text()
    made = {name.lower() for name in re.findall(r"import (\w+)", models)}
    assert {name.lower() for name in document["components"]["schemas"]} <= made
    job = client.post("/v1/jobs", files=parts(series[:5]), data={"label": "generated"}).json()
    running.finish(job, {QA_REPORT: json.dumps(EXAMPLE).encode()})
    told = subprocess.run([sys.executable, "-c", USED, running.url], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert told.stdout.split() == ["succeeded", "red", "0.94"], told.stderr


def test_the_shell_sample_says_what_is_wrong_with_what_it_was_given(running: Running, tmp_path: Path) -> None:
    (tmp_path / "no").mkdir()
    (tmp_path / "no" / "file").write_text("not DICOM")
    command = [str(CLIENTS / "shell.sh"), str(tmp_path / "no"), str(tmp_path / "out")]
    done = subprocess.run(command, env=os.environ | {"OARLOCK_URL": running.url}, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "series.not_dicom" in done.stdout + done.stderr


def test_the_samples_in_python_can_be_compiled() -> None:
    for path in CLIENTS.glob("*.py"):
        compile(path.read_text(encoding="utf-8"), path.name, "exec")

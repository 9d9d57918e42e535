"""``make demo``, as a new user starts it."""

import json
import os
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from oarlock.organs.catalogue import OARS
from tests.fixtures.processes import eventually, marked
from tests.worker.tiny_model import write_tiny_model

ROOT = Path(__file__).parent.parent.parent
PNG = b"\x89PNG\r\n\x1a\n"

pytestmark = pytest.mark.slow


def demo(out: Path, *arguments: str, **environment: str) -> "tuple[subprocess.CompletedProcess[str], str]":
    mark = f"oarlock-test-{uuid.uuid4()}"
    result = subprocess.run(
        [sys.executable, "-m", "service.demo", "--out", str(out), *arguments],
        check=False,
        cwd=ROOT,
        env=os.environ | {"OARLOCK_TEST_MARK": mark} | environment,
        capture_output=True,
        text=True,
        timeout=400,
    )
    return result, mark


@pytest.mark.long("shipped")
def test_the_demo_takes_a_phantom_through_the_whole_service_and_stops_everything(tmp_path: Path) -> None:
    result, mark = demo(tmp_path)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "rtstruct.dcm").read_bytes()[128:132] == b"DICM"
    assert (tmp_path / "preview.png").read_bytes().startswith(PNG)
    report = json.loads((tmp_path / "qa.json").read_text())
    assert len(report["comparisons"]) == 1
    assert [row["oar"] for row in report["comparisons"][0]["oars"]] == [oar.name for oar in OARS]
    assert all(f"\n{oar.name} " in result.stdout for oar in OARS)
    assert eventually(lambda: not marked(mark), within_s=10)


def test_the_demo_says_what_is_wrong_with_a_series_that_is_refused(tmp_path: Path) -> None:
    series = tmp_path / "series"
    series.mkdir()
    (series / "notes.txt").write_text("not a CT")
    write_tiny_model(tmp_path / "models" / "tiny")  # a quarter of the shipped model's time to start
    models = {"OARLOCK_MODELS": str(tmp_path / "models"), "OARLOCK_MODEL": "tiny"}
    result, mark = demo(tmp_path / "out", "--series", str(series), **models)
    assert result.returncode == 1
    assert "series.not_dicom" in result.stderr
    assert eventually(lambda: not marked(mark), within_s=10)

"""The containers on a real engine: what they hold, what they draw, and what outlives them. ``make e2e`` runs this."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest

from oarlock import __version__
from oarlock.phantom.patient import write_phantom
from tests.fixtures.processes import eventually
from tests.system.composition import ROOT, Composition, brought_up, run

pytestmark = [pytest.mark.delivered, pytest.mark.slow]

FACES = ("service", "worker")

OF_THE_JOB = (
    "SOPInstanceUID",
    "SeriesInstanceUID",
    "InstanceCreationDate",
    "InstanceCreationTime",
    "SeriesDate",
    "SeriesTime",
    "StructureSetLabel",
    "StructureSetDate",
    "StructureSetTime",
)
"""Attributes that tell one job from another: its identity, and when it was posted (the label says it too)."""


@pytest.fixture(scope="module")
def composition() -> Iterator[Composition]:
    with brought_up() as made:
        yield made


@pytest.fixture(scope="module")
def series(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The real head and neck series where there is one, else the phantom."""
    if os.environ.get("OARLOCK_SHARED"):
        return sorted(path for path in request.getfixturevalue("siemens_series").rglob("*") if path.is_file())
    images, _ = write_phantom(tmp_path_factory.mktemp("phantom"))
    return images


@pytest.fixture(scope="module")
def drawn(composition: Composition, series: list[Path]) -> tuple[str, bytes]:
    """A job that nobody disturbed, and its RTSTRUCT."""
    job_id = composition.post(series)
    assert composition.wait(job_id)["state"] == "succeeded"
    return job_id, composition.rtstruct(job_id)


def without_the_job(rtstruct: bytes) -> bytes:
    """The file with the attributes that tell one job from another emptied; every other element keeps its bytes."""
    dataset = pydicom.dcmread(io.BytesIO(rtstruct))
    for keyword in OF_THE_JOB:
        if keyword in dataset:
            dataset[keyword].value = ""
    dataset.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.UID("2.25.1")
    written = io.BytesIO()
    dataset.save_as(written)
    return written.getvalue()


# ── what they hold ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("face", FACES)
def test_a_container_is_healthy_by_its_own_check(composition: Composition, face: str) -> None:
    assert eventually(lambda: composition.health(face) == "healthy", within_s=120), composition.health(face)


@pytest.mark.parametrize("face", FACES)
def test_a_container_says_what_it_is(composition: Composition, face: str) -> None:
    labels = composition.inspect(face)["Config"]["Labels"]
    assert labels["org.opencontainers.image.version"] == __version__
    assert labels["org.opencontainers.image.revision"] == run("git", "rev-parse", "HEAD").strip()


@pytest.mark.parametrize("face", FACES)
def test_a_container_runs_as_nobody_in_particular_and_can_write_to_its_volumes_alone(composition: Composition, face: str) -> None:
    program = """
import os, pathlib
assert (os.getuid(), os.getgid()) == (10001, 10001)
assert "CapEff:\\t0000000000000000" in pathlib.Path("/proc/self/status").read_text()
for folder in ("/", "/app", "/venv", "/usr/local", "/etc", "/var/tmp", "/data", "/tmp"):
    try:
        pathlib.Path(folder, "probe").touch()
        pathlib.Path(folder, "probe").unlink()
        print(folder)
    except OSError:
        pass
"""
    assert composition.inside(face, "python", "-c", program).split() == ["/data", "/tmp"]


@pytest.mark.parametrize("face", FACES)
def test_a_container_holds_neither_tools_nor_the_other_face(composition: Composition, face: str) -> None:
    names = ["gcc", "cc", "c++", "make", "ld", "git", "curl", "cmake", "cargo", "uv"]
    modules = ["pip", "setuptools", "torch", "nvidia", "model_export", "tests", "pytest"]
    modules += ["onnxruntime", "worker"] if face == "service" else ["fastapi", "uvicorn", "service"]
    program = f"""
import importlib.util, shutil
print([name for name in {names} if shutil.which(name)] + [name for name in {modules} if importlib.util.find_spec(name)])
"""
    assert composition.inside(face, "python", "-c", program) == "[]"


def test_a_worker_on_the_cpu_holds_no_cuda(composition: Composition) -> None:
    program = "import pathlib; print([str(path) for path in pathlib.Path('/venv').rglob('*.so*') if 'cuda' in path.name])"
    assert composition.inside("worker", "python", "-c", program) == "[]"


def test_workers_reach_nobody_outside(composition: Composition) -> None:
    (network,) = composition.inspect("worker")["NetworkSettings"]["Networks"]
    assert run("docker", "network", "inspect", "-f", "{{.Internal}}", network).strip() == "true"


def test_nobody_gets_in_without_a_key(composition: Composition) -> None:
    with composition.client() as client:
        assert client.get("/v1/jobs").status_code == 200
        del client.headers["Authorization"]
        assert client.get("/v1/jobs").status_code == client.get("/metrics").status_code == 401


def test_prometheus_reads_the_metrics_with_the_key_that_was_made_for_it(composition: Composition) -> None:
    composition.compose("--profile", "monitoring", "up", "-d", "--no-build", "prometheus")
    question = "http://127.0.0.1:9090/api/v1/query?query=up"

    def is_up() -> bool:
        said = composition.compose("--profile", "monitoring", "exec", "-T", "prometheus", "wget", "-qO-", question)
        return [found["value"][1] for found in json.loads(said)["data"]["result"]] == ["1"]

    assert eventually(lambda: composition.health("prometheus") == "healthy", within_s=120)
    assert eventually(is_up, within_s=120), composition.compose("logs", "--tail=20")


# ── what they draw ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_rtstruct_is_that_of_make_demo(drawn: tuple[str, bytes], series: list[Path], tmp_path: Path) -> None:
    folder = tmp_path / "series"
    folder.mkdir()
    for path in series:
        (folder / path.name).symlink_to(path)
    command = [sys.executable, "-m", "service.demo", "--series", str(folder), "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (ours, theirs) = (without_the_job(found) for found in (drawn[1], (tmp_path / "rtstruct.dcm").read_bytes()))
    assert len(pydicom.dcmread(io.BytesIO(ours)).ROIContourSequence) == 21
    assert ours == theirs


# ── what outlives them ───────────────────────────────────────────────────────────────────────────────────────────────


def test_a_job_outlives_the_container_that_ran_it(composition: Composition, drawn: tuple[str, bytes], series: list[Path]) -> None:
    job_id = composition.post(series)
    composition.wait(job_id, until=lambda job: job["state"] == "running" and job["progress"] > 0.1)
    run("docker", "kill", composition.container("worker"))
    assert composition.job(job_id)["state"] == "running"
    composition.up()
    finished = composition.wait(job_id)
    assert (finished["state"], finished["attempts"]) == ("succeeded", 2)
    assert without_the_job(composition.rtstruct(job_id)) == without_the_job(drawn[1])


def test_jobs_and_results_outlive_the_composition(composition: Composition, drawn: tuple[str, bytes], series: list[Path]) -> None:
    job_id = composition.post(series)
    composition.down()
    composition.up()
    assert composition.wait(job_id)["state"] == "succeeded"
    assert without_the_job(composition.rtstruct(job_id)) == without_the_job(drawn[1])
    assert composition.rtstruct(drawn[0]) == drawn[1]

"""The air-gapped bundles, installed by the steps of the handbook where there is no network. ``make e2e`` runs this."""

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest

from oarlock.phantom.patient import write_phantom
from oarlock.store.jobs import ENDED
from tests.fixtures.processes import eventually
from tests.system.composition import PATIENCE_S, ROOT, compose_command, run
from tests.system.secluded import secluded_engine
from tools.bundle.__main__ import LOCK, make_bundle
from tools.bundle.contents import images_of

pytestmark = [pytest.mark.delivered, pytest.mark.slow]


def steps(kind: str, block: int = 0) -> list[str]:
    """The commands of the handbook that install a bundle; in its second block those that try it."""
    section = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8").partition(f"\n**From {kind}**")[2]
    return re.findall(r"```sh\n(.*?)```", section, flags=re.DOTALL)[block].splitlines()


@pytest.fixture(scope="module")
def bundle_of_images() -> Iterator[Path]:
    """The archive; its folder goes with the tests, as it is large."""
    compose_command()
    run("make", "images")
    with tempfile.TemporaryDirectory() as folder:
        yield make_bundle("images", profiles=[], lock=LOCK, out=Path(folder))


def alone() -> list[str]:
    """How a command is run with a loopback interface and no other network."""
    command = ["unshare", "--map-root-user", "--net", "--", "sh", "-ec", 'ip link set lo up; exec "$@"', "sh"]
    if shutil.which("unshare") is None or subprocess.run([*command, "true"], check=False, capture_output=True).returncode:
        pytest.skip("this machine lets nobody make a network namespace")
    return command


def test_a_bundle_of_wheels_installs_and_draws_without_a_network(tmp_path: Path) -> None:
    without_network = alone()
    make_bundle("wheels", profiles=[], lock=LOCK, out=tmp_path)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "UV_", "PYTHON"))}
    done = subprocess.run(
        [*without_network, "sh", "-exc", "\n".join(steps("wheels"))],
        cwd=tmp_path,
        env=clean | {"PATH": path},
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    (rtstruct,) = tmp_path.glob("*/demo/rtstruct.dcm")  # one of pydicom's own examples has that name too
    assert rtstruct.read_bytes()[128:132] == b"DICM"


def test_a_bundle_of_images_comes_up_and_draws_on_an_engine_that_has_neither_images_nor_a_network(bundle_of_images: Path) -> None:
    folder, spelt = bundle_of_images.parent, " ".join(compose_command())
    installing, trying = ([line.replace("docker compose", spelt) for line in steps("images", block)] for block in (0, 1))
    with tempfile.TemporaryDirectory() as scratch, secluded_engine(Path(scratch)) as engine:
        assert engine.run("docker", "image", "ls", "-q", folder=folder) == ""
        assert engine.run("ip", "route", "show", "default", folder=folder) == ""
        said = engine.run("sh", "-ec", "\n".join(installing), folder=folder, COMPOSE=spelt)
        assert set(re.findall(r"^Loaded image: (\S+)$", said, flags=re.MULTILINE)) == set(images_of([]))
        known = {"KEY": re.findall(r"^ *KEY=(\S+)$", said, flags=re.MULTILINE)[0]}
        write_phantom(folder / "phantom")
        shutil.make_archive(str(folder / "series"), "zip", folder / "phantom")
        ready, post, ask, fetch = trying
        engine.run("sh", "-ec", ready, folder=folder)
        known["JOB"] = json.loads(engine.run("sh", "-ec", post, folder=folder, **known))["id"]

        def state() -> str:
            return str(json.loads(engine.run("sh", "-ec", ask, folder=folder, **known))["state"])

        assert eventually(lambda: state() in ENDED, within_s=PATIENCE_S)
        assert state() == "succeeded"
        engine.run("sh", "-ec", fetch, folder=folder, **known)
    rtstruct, sent = pydicom.dcmread(folder / "rtstruct"), pydicom.dcmread(next((folder / "phantom").glob("*.dcm")))
    assert len(rtstruct.ROIContourSequence) == 21
    assert rtstruct.PatientID == sent.PatientID
    assert rtstruct.StudyInstanceUID == sent.StudyInstanceUID


def test_a_bundle_of_images_says_what_is_in_them(bundle_of_images: Path) -> None:
    images = images_of([])
    name = f"{bundle_of_images.name.partition('-images')[0]}/sbom.cdx.json"
    with tarfile.open(bundle_of_images) as archive, archive.extractfile(name) as file:  # type: ignore[union-attr]
        bill = {part["name"]: part for part in json.load(file)["components"]}
    assert {image.partition(":")[0] for image in images} <= bill.keys()
    held = {image: {part["name"] for part in bill[image.partition(":")[0]]["components"]} for image in images}
    assert all("libc6" in parts for parts in held.values())
    service, worker = ({part for image in images if face in image for part in held[image]} for face in ("service", "worker"))
    assert {"fastapi", "cpython"} <= service
    assert {"onnxruntime-gpu", "cpython"} <= worker
    assert "onnxruntime-gpu" not in service

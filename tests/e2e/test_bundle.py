"""The air-gapped bundles, installed by the steps of the handbook where there is no network. ``make e2e`` runs this."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bundle.__main__ import LOCK, make_bundle
from bundle.contents import images_of
from tests.e2e.composition import ROOT, Composition, compose_command, run
from tests.e2e.processes import eventually

pytestmark = [pytest.mark.delivered, pytest.mark.slow]


def steps(kind: str) -> list[str]:
    """The commands of the handbook that install a bundle."""
    section = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8").partition(f"\n**From {kind}**")[2]
    block = re.search(r"```sh\n(.*?)```", section, flags=re.DOTALL)
    assert block
    return block[1].splitlines()


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


def test_a_bundle_of_images_holds_all_that_comes_up(tmp_path: Path) -> None:
    command = compose_command()
    run("make", "images")
    archive = make_bundle("images", profiles=[], lock=LOCK, out=tmp_path)
    *unpack, load, up, _ = steps("images")
    assert up == "docker compose up -d --no-build"
    loaded = subprocess.run(["sh", "-exc", "\n".join([*unpack, load])], cwd=tmp_path, check=True, capture_output=True, text=True)
    folder = tmp_path / archive.name.partition("-images")[0]
    images = images_of([])
    assert set(re.findall(r"^Loaded image: (\S+)$", loaded.stdout, flags=re.MULTILINE)) == set(images)
    composition = Composition(command, folder)
    try:
        composition.up()
        assert eventually(lambda: composition.health("worker") == composition.health("service") == "healthy", within_s=120)
    finally:
        composition.down("--volumes", "--timeout", "5")
    bill = {part["name"]: part for part in json.loads((folder / "sbom.cdx.json").read_text())["components"]}
    assert {image.partition(":")[0] for image in images} <= bill.keys()
    held = {face: {part["name"] for part in bill[f"oarlock-{face}"]["components"]} for face in ("service", "worker")}
    assert {"fastapi", "libc6"} <= held["service"]
    assert {"onnxruntime-gpu", "libc6"} <= held["worker"]
    assert "onnxruntime-gpu" not in held["service"]

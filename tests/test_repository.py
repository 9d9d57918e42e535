"""What is committed, what ships, and what `make check` finds in seconds."""

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent


def tracked(*patterns: str) -> list[Path]:
    listing = subprocess.run(["git", "ls-files", "-z", "--", *patterns], cwd=ROOT, capture_output=True, check=True, text=True)
    return [ROOT / name for name in listing.stdout.split("\0") if name]


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [[BIN / "lint-imports", "--no-cache", "--no-logo"], [BIN / "deptry", "."], [sys.executable, "-m", "tools.dead_names"]],
    ids=["imports point one way", "imports are declared", "no name is dead"],
)
def test_the_quick_checks_pass(command: list[str]) -> None:
    """What they hold and what they except is in pyproject.toml and tools/dead_names.py."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_committed_file_names_an_index_or_a_path_of_somebodys_machine() -> None:
    suspicious = re.compile(
        r"(--(extra-)?index-url|--find-links)[ =]\S|https?://[^/\s]*(pypi|pythonhosted|npmjs|debian)\.|/(root|home)/\w+"
    )
    found = []
    for path in tracked():
        if path.suffix in {".onnx", ".png", ".pt"} or path == Path(__file__):
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        found += [f"{path.relative_to(ROOT)}: {match.group()}" for match in suspicious.finditer(text)]
    assert not found


def test_no_patient_file_is_committed() -> None:
    assert not tracked("*.dcm", "*.nrrd", "*.npz", "*.nii", "*.nii.gz")


@pytest.mark.slow
def test_the_wheel_holds_the_core_alone(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    names = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {name for name in names if not name.endswith(".dist-info")} == {"oarlock"}

"""The rules of the house, held by walking the tree."""

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from oarlock import errors
from oarlock.organs.catalogue import OARS
from oarlock.settings import Settings

ROOT = Path(__file__).parent.parent


def tracked(*patterns: str) -> list[Path]:
    listing = subprocess.run(["git", "ls-files", "-z", "--", *patterns], cwd=ROOT, capture_output=True, check=True, text=True)
    return [ROOT / name for name in listing.stdout.split("\0") if name]


BIN = Path(sys.executable).parent


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


def test_every_error_code_is_unique_and_belongs_to_its_branch() -> None:
    codes = [leaf.code for leaf in errors.leaves()]
    assert len(codes) == len(set(codes))
    assert all(re.fullmatch(r"[a-z_]+\.[a-z_]+", code) for code in codes)
    assert all(leaf.title for leaf in errors.leaves())


def documented_settings() -> dict[str, str]:
    """What the table of the handbook says is the default of each variable."""
    handbook = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8").split("\n## Settings\n")[1]
    found = {}
    for line in handbook.splitlines():
        if line.startswith("| `"):
            variables, defaults, _ = line.strip("| ").split(" | ", 2)
            names = re.findall(r"`([A-Z_]+)`", variables)
            values = [value.strip(" `") for value in (defaults.split(", ") if len(names) > 1 else [defaults])]
            found |= dict(zip(names, values * (len(names) if len(values) == 1 else 1), strict=True))
    return found


def as_documented(default: object) -> str:
    if default is None or default == []:
        return "unset"
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, int | float):
        return f"{default:,.0f}"
    return str(default)


def test_the_table_of_settings_has_every_setting_with_its_default_and_no_other() -> None:
    expected = {}
    for name, field in Settings.model_fields.items():
        alias = field.validation_alias
        variable = str(alias.choices[0]) if hasattr(alias, "choices") else f"OARLOCK_{name.upper()}"
        expected[variable] = as_documented(field.default)
    expected |= {"OARLOCK_PORT": "8000"}  # a port has no thousands
    documented = {name: value.replace("{}", "{}") for name, value in documented_settings().items()}
    assert documented == expected


def test_every_control_of_the_safety_file_is_a_test_that_exists() -> None:
    safety = (ROOT / "docs" / "safety.md").read_text(encoding="utf-8")
    rows = [line for line in safety.splitlines() if re.match(r"\| H\d", line)]
    tests = "".join(path.read_text(encoding="utf-8") for path in tracked("tests/**.py", "tests/**/*.py"))
    assert rows
    assert [row for row in rows if "`test_" not in row] == []
    assert [name for name in re.findall(r"`(test_\w+)`", safety) if f"def {name}(" not in tests] == []


def test_the_oars_fit_what_planning_systems_accept() -> None:
    assert len(OARS) == 21
    assert len({oar.name for oar in OARS}) == len({oar.colour for oar in OARS}) == 21
    assert all(len(oar.name) <= 16 and oar.name.isascii() for oar in OARS)


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

"""The rules of the house, held by walking the tree."""

import ast
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from oarlock import errors
from oarlock.organs.catalogue import OARS
from oarlock.settings import Settings

ROOT = Path(__file__).parent.parent

PURE = (
    "errors",
    "oars",
    "geometry",
    "masks",
    "pieces",
    "preprocess",
    "body",
    "windows",
    "postprocess",
    "contours",
    "surface_distance",
    "measures",
    "observers",
    "qa",
    "quantiles",
    "names",
    "solids",
    "phantom_anatomy",
    "codestreams",
    "cuts",
    "canvas",
    "control_chart",
    "layout",
    "anatomy",
    "plausibility",
    "shapes",
    "certainty",
    "density",
    "stack",
    "thinning",
)

CONTRACTS = ("jobs", "manifest")
"""Values that both halves share; what reads a manifest's file stands beside them."""

IMPURE = (
    "administration",
    "audit",
    "callbacks",
    "check",
    "cli",
    "comparison",
    "database",
    "decoding",
    "deidentify",
    "elements",
    "header_file",
    "identity",
    "job_store",
    "keys",
    "phantom",
    "pixels",
    "preview",
    "paging",
    "profiles",
    "retention",
    "qa_store",
    "rendering",
    "rtstruct",
    "schema",
    "sequences",
    "series",
    "logs",
    "multiframe",
    "settings",
    "site",
    "sorting",
    "storage",
    "structure_set",
)

FORBIDDEN = {
    "oarlock": {"service", "worker", "model_export", "fastapi", "starlette", "celery", "redis", "onnxruntime", "torch"},
    "service": {"worker", "model_export", "onnxruntime", "torch"},
    "worker": {"service", "model_export", "fastapi", "starlette", "uvicorn", "torch"},
    "model_export": {"service", "worker", "fastapi", "celery", "redis"},
}
FORBIDDEN_IN_PURE = {
    "pydicom",
    "logging",
    "os",
    "pathlib",
    "alembic",
    "sqlalchemy",
    "time",
    "datetime",
    "random",
    "oarlock.store.migrations",
    *(f"oarlock.{name}" for name in IMPURE),
}


def tracked(*patterns: str) -> list[Path]:
    listing = subprocess.run(["git", "ls-files", "-z", "--", *patterns], cwd=ROOT, capture_output=True, check=True, text=True)
    return [ROOT / name for name in listing.stdout.split("\0") if name]


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def breaks(module: str, rules: set[str]) -> bool:
    return any(module == rule or module.startswith(rule + ".") for rule in rules)


@pytest.mark.parametrize("package", FORBIDDEN)
def test_a_package_imports_nothing_that_it_must_not_know(package: str) -> None:
    found = {
        (path.name, module)
        for path in (ROOT / package).rglob("*.py")
        for module in imports(path)
        if breaks(module, FORBIDDEN[package])
    }
    assert not found


@pytest.mark.parametrize("name", PURE)
def test_the_lower_half_of_the_core_is_pure(name: str) -> None:
    assert not [module for module in imports(ROOT / "oarlock" / f"{name}.py") if breaks(module, FORBIDDEN_IN_PURE)]


def test_every_module_of_the_core_is_on_one_side() -> None:
    modules = sorted(path.stem for path in tracked(":(glob)oarlock/*.py") if path.stem != "__init__")
    assert modules == sorted([*PURE, *CONTRACTS, *IMPURE])


def test_torch_lives_in_model_export_alone() -> None:
    found = [
        path.relative_to(ROOT) for path in tracked("*.py") if any(module.split(".")[0] == "torch" for module in imports(path))
    ]
    assert {path.parts[0] for path in found} <= {"model_export", "tests", "benchmarks"}


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
    handbook = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8").split("## Network")[0]
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
    named = re.findall(r"\[`(test_\w+)`\]\(\.\./(tests/[\w/]+\.py)\)", safety)
    rows = [line for line in safety.splitlines() if re.match(r"\| H\d", line)]
    assert rows
    assert [row for row in rows if "(../tests/" not in row] == []
    missing = [(name, path) for name, path in named if f"def {name}(" not in (ROOT / path).read_text(encoding="utf-8")]
    assert missing == []


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

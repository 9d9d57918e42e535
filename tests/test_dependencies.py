"""Every library that a face imports comes with its extras, not by way of another library or another face."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
OURS = {"oarlock", "service", "worker", "gateway", "model_export", "tools", "benchmarks", "tests"}
EXTRAS = {
    "oarlock": [
        "worker",
        "report",
    ],  # for oarlock.inference and oarlock.reporting, which say so in a sentence where it is missing
    "service": ["service", "embedded"],
    "worker": ["worker"],
    "gateway": ["gateway"],
    "model_export": ["worker", "model-export", "import-check"],
    "tools/bundle": ["bundle"],
}
"""What is installed beside the core's own dependencies."""


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@cache
def declared(extra: str | None) -> frozenset[str]:
    """Names of the distributions that the project, or one of its extras, asks for."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = project["optional-dependencies"][extra] if extra else project["dependencies"]
    return frozenset(plain(re.match(r"[\w.-]+", line)[0]) for line in asked)  # type: ignore[index]


def imported(folder: Path) -> Iterator[tuple[str, str]]:
    """File and top-level name of every import of a library."""
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            tops = {name.split(".")[0] for name in names} - OURS - sys.stdlib_module_names
            yield from ((path.relative_to(ROOT).as_posix(), top) for top in tops)


@pytest.mark.parametrize("face", EXTRAS)
def test_what_a_face_imports_is_declared_for_it(face: str) -> None:
    known = declared(None).union(*(declared(extra) for extra in EXTRAS[face]))
    of = packages_distributions()
    missing = {(path, top) for path, top in imported(ROOT / face) if known.isdisjoint(plain(name) for name in of.get(top, [top]))}
    assert missing == set()

"""python -m tools.docstrings.

Public docstrings whose first line is too long to be read at a glance.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
PACKAGES: Final = ("oarlock", "service", "worker", "gateway", "model_export", "benchmarks", "tools")
MAX_WORDS: Final = 12
"""As CONTRIBUTING has it; a package's own line also says what may not live there, and may be longer."""

Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def too_long(source: str) -> Iterator[tuple[int, str]]:
    """Line number and first line of each docstring that is too long."""
    for node in public(ast.parse(source)):
        first, *_ = (ast.get_docstring(node) or "").splitlines() or [""]
        if len(first.split()) > MAX_WORDS:
            yield node.body[0].lineno, first


def public(node: ast.AST) -> Iterator[Documented]:
    """The node and what it holds that is public.

    Without names that begin with an underscore, and what functions hold.
    """
    if isinstance(node, Documented) and not getattr(node, "name", "").startswith("_"):
        yield node
        if isinstance(node, ast.Module | ast.ClassDef):
            for child in node.body:
                yield from public(child)


def main() -> int:
    found = [
        f"{path.relative_to(ROOT)}:{line}: {first}"
        for package in PACKAGES
        for path in sorted((ROOT / package).rglob("*.py"))
        if path.name != "__init__.py"
        for line, first in too_long(path.read_text(encoding="utf-8"))
    ]
    print(*found, sep="\n", end="\n" if found else "")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())

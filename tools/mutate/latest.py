"""The survivors of the latest run, kept under build/.

So that only they are tried again once tests are added.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from tools.mutate.mutants import Mutant


def write(root: Path, module: str, tried: int, survivors: Sequence[Mutant]) -> None:
    file = _file(root, module)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps([tried, [asdict(mutant) for mutant in survivors]]), encoding="utf-8")


def read(root: Path, module: str) -> tuple[int, list[Mutant]] | None:
    """How many mutants of a module were tried, and those that survived.

    None where it was not tried as it is now.
    """
    file = _file(root, module)
    if not file.exists():
        return None
    tried, survivors = json.loads(file.read_text(encoding="utf-8"))
    return tried, [Mutant(**fields) for fields in survivors]


def _file(root: Path, module: str) -> Path:
    """Its name changes with the module."""
    digest = hashlib.sha256((root / module).read_bytes()).hexdigest()[:12]
    return root / "build" / "mutants" / f"{module.replace('/', '.')}-{digest}.json"

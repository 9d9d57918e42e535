"""The survivors of the latest run, kept under build/.

So that only they are tried again once tests are added.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from tools.mutate.mutants import Mutant


def write(root: Path, module: str, survivors: Sequence[Mutant]) -> None:
    file = _file(root, module)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps([asdict(mutant) for mutant in survivors]), encoding="utf-8")


def read(root: Path, module: str) -> list[Mutant] | None:
    """The survivors of a module.

    None where it was not tried as it is now.
    """
    file = _file(root, module)
    return [Mutant(**fields) for fields in json.loads(file.read_text(encoding="utf-8"))] if file.exists() else None


def _file(root: Path, module: str) -> Path:
    """Its name changes with the module."""
    digest = hashlib.sha256((root / module).read_bytes()).hexdigest()[:12]
    return root / "build" / "mutants" / f"{module.replace('/', '.')}-{digest}.json"

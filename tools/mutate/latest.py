"""The survivors of the latest run, kept under build/.

So that only they are tried again once tests are added.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from tools.mutate.mutants import Mutant


@dataclass(frozen=True)
class Result:
    """How many mutants were tried, and those that survive now.

    :param survived_at_first: how many, before tests were written for what was seen of them.
    :param seed: of the sample.
    """

    tried: int
    survived_at_first: int
    survivors: Sequence[Mutant]
    seed: int = 0


def write(root: Path, module: str, result: "Result") -> None:
    file = _file(root, module)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(asdict(result)), encoding="utf-8")


def read(root: Path, module: str) -> "Result | None":
    """What became of a module's mutants.

    None where it was not tried as it is now.
    """
    file = _file(root, module)
    if not file.exists():
        return None
    result = Result(**json.loads(file.read_text(encoding="utf-8")))
    return replace(result, survivors=[Mutant(**fields) for fields in result.survivors])  # type: ignore[arg-type]


def _file(root: Path, module: str) -> Path:
    """Its name changes with the module."""
    digest = hashlib.sha256((root / module).read_bytes()).hexdigest()[:12]
    return root / "build" / "mutants-2" / f"{module.replace('/', '.')}-{digest}.json"

"""The part of docs/mutants.md that says which mutants no test noticed."""

import re
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from scipy.stats import beta

from tools.mutate.latest import Result
from tools.mutate.mutants import Mutant

BEGIN: Final = "<!-- mutants: written by make mutate -->"
END: Final = "<!-- mutants: end -->"
_HEAD: Final = (
    "| module | mutants | tried | killed | explained | left | left at first | at most |",
    "| --- " + "| ---: " * 7 + "|",
)


def share_at_most(left: int, tried: int) -> float:
    """The largest share of mutants that may be left after a sample.

    With 95 % confidence (Clopper and Pearson 1934, one-sided).
    """
    return float(beta.ppf(0.95, left + 1, tried - left)) if left < tried else 1.0


def write(root: Path, module: str, mutants: int, result: Result) -> int:
    """Put the result of one module into the page.

    Beside those of the others.

    :return: how many survivors have no explanation
    """
    page = root / "docs" / "mutants.md"
    text = page.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    section, after = rest.split(END)
    why, survivors = reasons(root, module), result.survivors
    left = [mutant for mutant in survivors if _of(mutant) not in why]
    results = _rows(section, r"\| `(oarlock/[^`]+)` \| \d")
    explained = len(survivors) - len(left)
    at_first = max(result.survived_at_first - explained, len(left))
    # Tests that were written for a sample say nothing of the other mutants, so that the bound is that of the tests before.
    most = len(left) / max(mutants, 1) if result.tried == mutants else share_at_most(at_first, result.tried)
    cells = [f"`{module}`", mutants, result.tried, result.tried - len(survivors), explained, len(left), at_first, f"{most:.1%}"]
    results[module] = [f"| {' | '.join(map(str, cells))} |"]
    listed = _rows(section, r"\| `(oarlock/[^`]+)` \| `")
    listed[module] = list(_survivor_rows(module, survivors, why))
    lines = [*_HEAD, *_sorted(results)]
    if any(listed.values()):
        lines += ["", "| survivor of | change | why no test can notice it |", "| --- | --- | --- |", *_sorted(listed)]
    page.write_text(f"{before}{BEGIN}\n\n" + "\n".join(lines) + f"\n\n{END}{after}", encoding="utf-8")
    return len(left)


_Change = tuple[int, str, str]
"""The number of a line, that line, and what a mutant makes of it."""


def _of(mutant: Mutant) -> _Change:
    return mutant.line, mutant.before, mutant.after


def reasons(root: Path, module: str) -> dict[_Change, str]:
    """Why no test can notice a change.

    A line that stands in a module more than once is told apart by a third word of the change: 1 for the first of them, 2 for
    the second. A reason holds for one place.

    :raises ValueError: a change does not say which line it is of, or its line is not there.
    """
    entries = tomllib.loads((root / "tools" / "mutate" / "explained.toml").read_text(encoding="utf-8")).get(module, [])
    if not entries:
        return {}
    lines = [line.strip() for line in (root / module).read_text(encoding="utf-8").splitlines()]
    return {
        (_number(lines, before, which, module), before, after): entry["why"]
        for entry in entries
        for before, after, *which in entry["changes"]
    }


def _number(lines: Sequence[str], line: str, which: Sequence[int], module: str) -> int:
    numbers = [number for number, text in enumerate(lines, start=1) if text == line]
    if len(numbers) != 1 and not (which and 1 <= which[0] <= len(numbers)):
        raise ValueError(f"explained.toml: {module} has {len(numbers)} lines {line!r}: say which one of them, from 1")
    return numbers[which[0] - 1] if which else numbers[0]


def _survivor_rows(module: str, survivors: Sequence[Mutant], why: dict[_Change, str]) -> Iterator[str]:
    for mutant in survivors:
        change = f"`{_cell(mutant.before)}` → `{_cell(mutant.after)}`"
        yield f"| `{module}` | {change} | {why.get(_of(mutant), '**not explained**')} |"


def _rows(section: str, pattern: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in section.splitlines():
        if match := re.match(pattern, line):
            found.setdefault(match[1], []).append(line)
    return found


def _sorted(rows: dict[str, list[str]]) -> list[str]:
    return [line for module in sorted(rows) for line in rows[module]]


def _cell(code: str) -> str:
    return code.replace("|", "\\|").replace("`", "'")

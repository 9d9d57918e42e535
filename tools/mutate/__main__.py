"""Changes one thing at a time: do the tests notice?

``python -m tools.mutate [PATTERN …]``, where a wrong sign hurts a patient. Mutants that no test notices are printed, and
listed in docs/mutants.md with the reason of tools/mutate/explained.toml.
"""

import argparse
import math
import os
import random
import sys
from collections.abc import Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

from tools.mutate import latest, page
from tools.mutate.collected import Collected, Survivor, collect
from tools.mutate.forks import NOTICED, outcomes
from tools.mutate.guarded import HELD_BY
from tools.mutate.mutants import Mutant, mutants
from tools.mutate.trial import loaded_anew, prepare

ROOT: Final = Path(__file__).parents[2]

SHORT_S: Final = 0.1
"""How long a short test may take, with the lines that it runs being noted."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.mutate", description=__doc__.splitlines()[0])
    parser.add_argument("modules", nargs="*", default=list(HELD_BY), help="files to change (default: all that are guarded)")
    parser.add_argument("--tests", nargs="*", type=Path, help="tests to run (default: those that tools/mutate/guarded.py names)")
    parser.add_argument("--only", nargs="*", help="these kinds of changes alone, such as LimitMoved (default: all)")
    parser.add_argument("--sample", type=int, help="so many mutants of each module, drawn at random (default: all)")
    parser.add_argument("--seed", type=int, default=0, help="of the sample; the same seed draws the same mutants")
    parser.add_argument("--again", action="store_true", help="only what survived the last time, of modules that are as they were")
    parser.add_argument(
        "--quick", action="store_true", help="a first look: the short tests alone, and nothing goes into the page"
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="how many mutants at a time (default: one a core)")
    parser.add_argument("--list", action="store_true", help="count the mutants and test none")
    chosen = parser.parse_args()
    if chosen.list:
        for module in chosen.modules:
            print(f"{module}: {len(list(mutants(ROOT, module, chosen.only)))} mutants", flush=True)
        return 0
    prepare()
    left = 0
    for module in chosen.modules:
        left += try_module(module, chosen)
    return int(left > 0)


def try_module(module: str, chosen: argparse.Namespace) -> int:
    """Try the mutants of a module; how many survivors have no explanation."""
    tests = chosen.tests or [ROOT / "tests" / test for test in HELD_BY[module]]
    here, there = get_context("fork").Pipe()
    collector = get_context("fork").Process(target=_collect, args=(module, tests, chosen, there))
    collector.start()
    there.close()
    try:
        count, tried, at_first, survivors = here.recv()
    except EOFError:
        sys.exit(1)  # it has said why
    collector.join()
    survivors = [of.mutant for of in survivors] if chosen.quick else survivors_loaded_anew(survivors, chosen.jobs)
    for mutant in survivors:
        print(f"  {module}:{mutant.line}  {mutant.before}  →  {mutant.after}", flush=True)
    print(f"{module}: {tried} of {count} mutants, {len(survivors)} survive", flush=True)
    if chosen.only:
        return 0
    first, before = len(survivors) if at_first is None else at_first, latest.read(ROOT, module)
    seed = before.seed if before and chosen.again else chosen.seed
    if before and (before.tried, before.seed) == (tried, seed):
        first = max(first, before.survived_at_first)  # tests may have been written for these
    result = latest.Result(tried, first, survivors, seed)
    latest.write(ROOT, module, result)
    if chosen.quick:
        return 0
    return page.write(ROOT, module, count, result)


def _collect(module: str, tests: Sequence[Path], chosen: argparse.Namespace, results: Connection) -> None:
    def work(collected: Collected) -> None:
        every = list(mutants(ROOT, module, chosen.only))
        tried, at_first, few = _chosen(module, every, chosen)
        results.send((len(every), tried, at_first, list(collected.survivors(few, chosen.jobs))))

    collect(ROOT, module, tests, work, SHORT_S if chosen.quick else math.inf)


def _chosen(module: str, every: Sequence[Mutant], chosen: argparse.Namespace) -> tuple[int, int | None, Sequence[Mutant]]:
    """How many mutants the result is of, how many of them survived at first, and those that are tried now."""
    if chosen.again and (result := latest.read(ROOT, module)):
        return result.tried, result.survived_at_first, [mutant for mutant in every if mutant in result.survivors]
    if chosen.sample is None or chosen.sample >= len(every):
        return len(every), None, every
    few = random.Random(f"{module} {chosen.seed}").sample(every, chosen.sample)  # noqa: S311 - it keeps no secret
    return len(few), None, few


def survivors_loaded_anew(survivors: Sequence[Survivor], jobs: int) -> list[Mutant]:
    """Those that survive loading them from the start, too."""
    unsure = [survivor for survivor in survivors if not survivor.sure]
    trials = [loaded_anew(survivor.mutant, survivor.tests, 20 + survivor.limit_s) for survivor in unsure]
    noticed = [unsure[number].mutant for number, outcome in outcomes(trials, jobs) if outcome == NOTICED]
    return sorted((of.mutant for of in survivors if of.mutant not in noticed), key=lambda mutant: mutant.line)


if __name__ == "__main__":
    sys.exit(main())

"""python -m tools.mutate [PATTERN …]: change one thing at a time where a wrong sign hurts a patient; do the tests notice?

Mutants that no test notices are printed, and listed in docs/reliability.md with the reason of tools/mutate/explained.toml.
"""

import argparse
import sys
import time
from pathlib import Path
from typing import Final

from tools.mutate import page
from tools.mutate.mutants import Mutant, mutants, without_functions
from tools.mutate.trial import OUTPUT, passes, prepare

ROOT: Final = Path(__file__).parents[2]

GUARDED: Final = (
    "oarlock/ct/slice_spacing.py",
    "oarlock/ct/sorting.py",
    "oarlock/ct/completeness.py",
    "oarlock/ct/hounsfield.py",
    "oarlock/ct/turned_over.py",
    "oarlock/ct/pixel*.py",
    "oarlock/geometry/grid.py",
    "oarlock/geometry/contours.py",
    "oarlock/geometry/interpolation.py",
    "oarlock/geometry/overlaps.py",
    "oarlock/geometry/polygons.py",
    "oarlock/rtstruct/writer.py",
    "oarlock/rtstruct/reader.py",
    "oarlock/rtstruct/planes.py",
    "oarlock/rtstruct/placing.py",
    "oarlock/rtstruct/validator.py",
    "oarlock/qa/measures.py",
    "oarlock/qa/lattice.py",
    "oarlock/qa/surface_dsc.py",
    "oarlock/qa/volumes.py",
    "oarlock/qa/plausibility*.py",
    "oarlock/qa/checks/*.py",
    "oarlock/segmentation/postprocess.py",
    "oarlock/segmentation/to_ct_grid.py",
    "oarlock/segmentation/clean_up.py",
)
"""What is not there in this version is passed over."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.mutate", description=__doc__.splitlines()[0])
    parser.add_argument("patterns", nargs="*", default=GUARDED, help="files to change (default: all that are guarded)")
    parser.add_argument(
        "--tests", nargs="*", type=Path, help="run these files of tests alone (default: all of the package that use the module)"
    )
    parser.add_argument("--only", nargs="*", help="these kinds of changes alone, such as LimitMoved (default: all)")
    parser.add_argument("--list", action="store_true", help="count the mutants and test none")
    chosen = parser.parse_args()
    modules = sorted({path.relative_to(ROOT).as_posix() for pattern in chosen.patterns for path in ROOT.glob(pattern)})
    modules = [module for module in modules if not module.endswith("__init__.py")]
    prepare()
    left = 0
    for module in modules:
        tried = list(mutants(ROOT, module, chosen.only))
        print(f"{module}: {len(tried)} mutants", flush=True)
        if not chosen.list:
            survivors = survivors_of(module, tried, chosen.tests)
            if not (chosen.only or chosen.tests):
                left += page.write(ROOT, module, len(tried), survivors)
    return int(left > 0)


def survivors_of(module: str, tried: list[Mutant], chosen: list[Path] | None) -> list[Mutant]:
    """The mutants with which all tests that use the module pass."""
    source = (ROOT / module).read_text(encoding="utf-8")
    tests = chosen or tests_of(module, source)
    begun = time.monotonic()
    if not passes(module, source, tests, limit_s=600):
        sys.exit(f"{module}: its tests fail without any change\n{OUTPUT.read_text(encoding='utf-8')[-2000:]}")
    limit_s = 20 + 3 * (time.monotonic() - begun)
    print(f"  {', '.join(test.name for test in tests)}: {time.monotonic() - begun:.0f} s", flush=True)
    survivors = []
    for number, mutant in enumerate(tried, start=1):
        if number % 50 == 0:
            print(f"  {number} of {len(tried)}", flush=True)
        if passes(module, mutant.source, tests, limit_s=limit_s):
            survivors.append(mutant)
            print(f"  {mutant.before}  →  {mutant.after}", flush=True)
    return survivors


def tests_of(module: str, source: str) -> list[Path]:
    """Test files of the module's package that use it, those that bear its name first."""
    package, name = Path(module).parent.name, Path(module).stem
    folder = ROOT / "tests" / ("qa" if package == "checks" else package)
    sabotaged = without_functions(source)
    using = [test for test in folder.glob("test_*.py") if not passes(module, sabotaged, [test], limit_s=120)]
    return sorted(using, key=lambda test: (name not in test.stem, test.stat().st_size))


if __name__ == "__main__":
    sys.exit(main())

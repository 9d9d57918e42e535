"""What make mutate changes, and that it notices whether tests notice."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tools.mutate import latest, page
from tools.mutate.collected import lines_of_statement
from tools.mutate.guarded import HELD_BY
from tools.mutate.mutants import Mutant, mutants
from tools.mutate.operators import exchanged

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]

SOURCE = '''"""A module; 0.5 in a docstring is not a number."""

LIMIT = 0.5


def side(offset: float | None) -> str:
    return "to the left" if offset > LIMIT else "to the right"
'''


@pytest.fixture(scope="module")
def changes(tmp_path_factory: pytest.TempPathFactory) -> set[tuple[str, str]]:
    folder = tmp_path_factory.mktemp("module")
    (folder / "side.py").write_text(SOURCE, encoding="utf-8")
    return {(mutant.before, mutant.after) for mutant in mutants(folder, "side.py")}


def test_a_limit_moves_by_half_and_by_a_third(changes: set[tuple[str, str]]) -> None:
    assert {("LIMIT = 0.5", "LIMIT = 0.75"), ("LIMIT = 0.5", f"LIMIT = {0.5 / 1.5}")} <= changes


def test_a_comparison_is_tried_with_and_without_its_limit_and_the_other_way_round(changes: set[tuple[str, str]]) -> None:
    line = 'return "to the left" if offset > LIMIT else "to the right"'
    assert {(line, line.replace(">", ">=")), (line, line.replace(">", "<="))} <= changes


def test_each_text_has_its_side_exchanged_alone(changes: set[tuple[str, str]]) -> None:
    after = {after for _, after in changes}
    assert 'return "to the right" if offset > LIMIT else "to the right"' in after
    assert 'return "to the left" if offset > LIMIT else "to the left"' in after


def test_annotations_and_docstrings_are_left_alone(changes: set[tuple[str, str]]) -> None:
    assert not [before for before, _ in changes if before.startswith(("def", '"""'))]


def test_whether_a_dataclass_is_frozen_or_an_argument_may_be_named_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "side.py").write_text("@d(frozen=True)\nclass A:\n    def f(a, *, b=None): ...\n", encoding="utf-8")
    assert [mutant.after for mutant in mutants(tmp_path, "side.py")] == []


def test_every_mutant_is_another_program(tmp_path: Path) -> None:
    (tmp_path / "side.py").write_text(SOURCE, encoding="utf-8")
    sources = [mutant.source for mutant in mutants(tmp_path, "side.py")]
    assert len(sources) == len(set(sources))
    assert SOURCE not in sources


def test_words_that_only_begin_like_a_side_stay() -> None:
    assert exchanged("the left lens, Lens_L, leftover, Lens_Large") == "the right lens, Lens_R, leftover, Lens_Large"


TESTS = """
from side import LIMIT, TABLE, side

def test_left():
    assert side(0.6) == "to the left"

def test_where_the_limit_is():
    assert LIMIT < 0.7

def test_the_table():
    assert TABLE["twice"] < 1.4
"""

TRIED = """
import json
from multiprocessing import get_context
from pathlib import Path
from tools.mutate.__main__ import survivors_loaded_anew
from tools.mutate import collected as trials
from tools.mutate.guarded import HELD_BY
from tools.mutate.mutants import Mutant
from tools.mutate import trial

source = Path("side.py").read_text()
changes = [
    ("> LIMIT", "<= LIMIT"), ("LIMIT = 0.5", "LIMIT = 0.75"), ("2 * LIMIT", "3 * LIMIT"), ("> LIMIT", ">= LIMIT"),
    ("the same", "other"), ("return", "while True: continue; return"),
]
mutants = [
    Mutant("side.py", source[:source.index(old)].count("\\n") + 1, old, new, source.replace(old, new, 1)) for old, new in changes
]

def work(collected):
    there.send(list(collected.survivors(mutants, jobs=2)))

trials.LEAST_S = 1  # one of the mutants goes on for ever
trial.LIBRARIES = ("hypothesis.extra.numpy",)  # what is changed needs no others
trial.prepare()
here, there = get_context("fork").Pipe()
get_context("fork").Process(target=trials.collect, args=(Path.cwd(), "side.py", [Path("test_side.py")], work)).start()
found = here.recv()
sure = [of.mutant.after for of in found if of.sure]
Path("said.json").write_text(json.dumps([sure, [mutant.after for mutant in survivors_loaded_anew(found, jobs=2)]]))
"""


def test_survivors_are_those_that_no_test_notices_and_no_file_is_changed(tmp_path: Path) -> None:
    source = f"{SOURCE}\n\nTABLE = {{'twice': 2 * LIMIT, 'name': 'the same'}}\n"
    (tmp_path / "side.py").write_text(source, encoding="utf-8")
    (tmp_path / "test_side.py").write_text(TESTS, encoding="utf-8")
    command = [sys.executable, "-c", TRIED]
    environment = {"PYTHONPATH": f"{ROOT}:{tmp_path}"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    said = tmp_path / "said.json"
    assert said.exists(), done.stdout
    assert json.loads(said.read_text(encoding="utf-8")) == [[">= LIMIT"], [">= LIMIT", "other"]]
    assert (tmp_path / "side.py").read_text(encoding="utf-8") == source


def test_every_guarded_module_and_every_test_that_holds_it_is_there() -> None:
    files = [ROOT / module for module in HELD_BY] + [ROOT / "tests" / test for tests in HELD_BY.values() for test in tests]
    assert [file for file in files if not file.is_file()] == []


def test_the_innermost_statement_is_found_and_whether_it_is_in_a_function() -> None:
    source = "A = (\n  1,\n)\n\ndef f(\n  x=1,\n):\n  if x:\n    y = (\n      2)\n"
    assert [lines_of_statement(source, line) for line in (2, 6, 8, 10)] == [
        (range(1, 4), False),
        (range(5, 11), False),
        (range(8, 11), True),
        (range(9, 11), True),
    ]


def test_the_latest_survivors_are_those_of_the_module_as_it_is(tmp_path: Path) -> None:
    module = tmp_path / "side.py"
    module.write_text(SOURCE, encoding="utf-8")
    assert latest.read(tmp_path, "side.py") is None
    survivor = Mutant("side.py", 3, "LIMIT = 0.5", "LIMIT = 0.75", "…")
    result = latest.Result(7, 2, [survivor])
    latest.write(tmp_path, "side.py", result)
    assert latest.read(tmp_path, "side.py") == result
    module.write_text(f"{SOURCE}# changed\n", encoding="utf-8")
    assert latest.read(tmp_path, "side.py") is None


def explained(root: Path, source: str, change: str) -> None:
    """A page, and a module one change of which has a reason."""
    for folder in ("docs", "oarlock", "tools/mutate"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    (root / "docs" / "mutants.md").write_text(f"# Page\n\n{page.BEGIN}\n\n{page.END}\nRest.\n", encoding="utf-8")
    (root / "oarlock" / "a.py").write_text(source, encoding="utf-8")
    table = f'[["oarlock/a.py"]]\nwhy = "the same number"\nchanges = [{change}]\n'
    (root / "tools" / "mutate" / "explained.toml").write_text(table, encoding="utf-8")


def test_a_reason_holds_for_one_of_the_lines_that_read_the_same(tmp_path: Path) -> None:
    twice = [Mutant("oarlock/a.py", line, "x + 0", "x - 0", "") for line in (1, 2)]
    explained(tmp_path, "x + 0\n  x + 0\n", '["x + 0", "x - 0", 2]')
    assert page.write(tmp_path, "oarlock/a.py", 10, latest.Result(10, 2, twice[1:])) == 0
    assert page.write(tmp_path, "oarlock/a.py", 10, latest.Result(10, 2, twice)) == 1


@pytest.mark.parametrize("change", ['["x + 0", "x - 0"]', '["x + 0", "x - 0", 3]', '["x + 1", "x - 1"]'])
def test_a_reason_that_does_not_say_of_which_line_is_refused(tmp_path: Path, change: str) -> None:
    explained(tmp_path, "x + 0\nx + 0\n", change)
    with pytest.raises(ValueError, match="say which one of them"):
        page.write(tmp_path, "oarlock/a.py", 10, latest.Result(10, 0, []))


@pytest.mark.parametrize("module", tomllib.loads((ROOT / "tools" / "mutate" / "explained.toml").read_text(encoding="utf-8")))
def test_every_reason_is_of_a_line_that_is_there(module: str) -> None:
    assert page.reasons(ROOT, module)


def test_the_page_keeps_the_rows_of_other_modules_and_says_what_is_explained(tmp_path: Path) -> None:
    explained(tmp_path, "x + 0\na | b\n", '["x + 0", "x - 0"]')
    survivors = [Mutant("oarlock/a.py", 1, "x + 0", "x - 0", ""), Mutant("oarlock/a.py", 2, "a | b", "a & b", "")]
    assert page.write(tmp_path, "oarlock/a.py", 10, latest.Result(10, 3, survivors)) == 1
    assert page.write(tmp_path, "oarlock/b.py", 400, latest.Result(40, 0, [])) == 0
    assert page.write(tmp_path, "oarlock/c.py", 400, latest.Result(40, 40, [])) == 0
    text = (tmp_path / "docs" / "mutants.md").read_text(encoding="utf-8")
    assert "| `oarlock/a.py` | 10 | 10 | 8 | 1 | 1 | 2 | 10.0% |" in text
    assert "| `oarlock/b.py` | 400 | 40 | 40 | 0 | 0 | 0 | 7.2% |" in text  # 0.928**40 = 5 %
    assert "| `oarlock/c.py` | 400 | 40 | 40 | 0 | 0 | 40 | 100.0% |" in text  # tests that were written for a sample say little
    assert "| `oarlock/a.py` | `x + 0` → `x - 0` | the same number |" in text
    assert "| `oarlock/a.py` | `a \\| b` → `a \\& b` | **not explained** |".replace("\\&", "&") in text
    assert text.endswith("Rest.\n")

"""What make mutate changes, and that it notices whether tests notice."""

import subprocess
import sys
from pathlib import Path

import pytest

from tools.mutate import page
from tools.mutate.mutants import Mutant, mutants, without_functions
from tools.mutate.operators import exchanged

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


def test_every_mutant_is_another_program(tmp_path: Path) -> None:
    (tmp_path / "side.py").write_text(SOURCE, encoding="utf-8")
    sources = [mutant.source for mutant in mutants(tmp_path, "side.py")]
    assert len(sources) == len(set(sources))
    assert SOURCE not in sources


def test_words_that_only_begin_like_a_side_stay() -> None:
    assert exchanged("the left lens, Lens_L, leftover, Lens_Large") == "the right lens, Lens_R, leftover, Lens_Large"


def test_a_trial_passes_with_the_true_source_and_not_with_a_mutant_and_changes_no_file(tmp_path: Path) -> None:
    (tmp_path / "side.py").write_text(SOURCE, encoding="utf-8")
    (tmp_path / "test_side.py").write_text(
        "from side import side\n\n\ndef test_left():\n    assert side(0.6) == 'to the left'\n", encoding="utf-8"
    )
    program = f"""
from pathlib import Path
from tools.mutate.trial import passes
source, tests = {SOURCE!r}, [Path("test_side.py")]
for changed in (source, source.replace("0.5", "0.75"), "while True: pass"):
    print(passes("side.py", changed, tests, limit_s=20 if changed[0] != "w" else 0.5))
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={"PYTHONPATH": f"{ROOT}:{tmp_path}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["True", "False", "False"]
    assert (tmp_path / "side.py").read_text(encoding="utf-8") == SOURCE


def test_a_module_without_functions_fails_whatever_uses_it() -> None:
    space: dict[str, object] = {}
    exec(without_functions(SOURCE), space)
    assert space["LIMIT"] == 0.5
    with pytest.raises(AssertionError):
        space["side"](1.0)  # type: ignore[operator]


def test_the_page_keeps_the_rows_of_other_modules_and_says_what_is_explained(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "tools" / "mutate").mkdir(parents=True)
    (tmp_path / "docs" / "reliability.md").write_text(f"# Page\n\n{page.BEGIN}\n\n{page.END}\nRest.\n", encoding="utf-8")
    (tmp_path / "tools" / "mutate" / "explained.toml").write_text(
        '[["oarlock/a.py"]]\nwhy = "the same number"\nchanges = [["x + 0", "x - 0"]]\n', encoding="utf-8"
    )
    survivors = [Mutant("oarlock/a.py", "x + 0", "x - 0", ""), Mutant("oarlock/a.py", "a | b", "a & b", "")]
    assert page.write(tmp_path, "oarlock/a.py", 10, survivors) == 1
    assert page.write(tmp_path, "oarlock/b.py", 4, []) == 0
    text = (tmp_path / "docs" / "reliability.md").read_text(encoding="utf-8")
    assert "| `oarlock/a.py` | 10 | 8 | 1 | 1 |" in text
    assert "| `oarlock/b.py` | 4 | 4 | 0 | 0 |" in text
    assert "| `oarlock/a.py` | `x + 0` → `x - 0` | the same number |" in text
    assert "| `oarlock/a.py` | `a \\| b` → `a \\& b` | **not explained** |".replace("\\&", "&") in text
    assert text.endswith("Rest.\n")

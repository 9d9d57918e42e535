"""Long work can be stopped and taken up again."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from model_export.progress import Kept, bar_to, fingerprint, shown

pytestmark = pytest.mark.slow

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def counted(asked: list[str], name: str) -> Callable[[], str]:
    def find_out() -> str:
        asked.append(name)
        return name.upper()

    return find_out


def test_what_was_found_out_is_not_found_out_again(tmp_path: Path) -> None:
    path, asked = tmp_path / "some.part.jsonl", list[str]()
    for _ in range(2):
        kept = Kept(path, "a network")
        assert [kept.get(name, counted(asked, name)) for name in ("a", "b")] == ["A", "B"]
    assert asked == ["a", "b"]
    kept.forget()
    assert not path.exists()


def test_other_work_begins_anew(tmp_path: Path) -> None:
    path, asked = tmp_path / "some.part.jsonl", list[str]()
    for work in ("a network", "another"):
        Kept(path, work).get("a", counted(asked, "a"))
    assert asked == ["a", "a"]


@pytest.mark.parametrize("torn", ['["b", "B', '["b", "B"]'])
def test_a_line_that_was_being_written_does_not_count(torn: str, tmp_path: Path) -> None:
    path, asked = tmp_path / "some.part.jsonl", list[str]()
    path.write_text(json.dumps("work") + '\n["a", "A"]\n' + torn)
    for _ in range(2):
        kept = Kept(path, "work")
        assert [kept.get(name, counted(asked, name)) for name in ("a", "b")] == ["A", "B"]
    assert asked == ["b"]


def test_the_work_is_the_file_and_its_settings(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(b"weights")
    first = fingerprint(path, {"Brain": 0.5})
    assert first == fingerprint(path, {"Brain": 0.5})
    assert first != fingerprint(path, {"Brain": 0.4})
    path.write_bytes(b"others")
    assert first != fingerprint(path, {"Brain": 0.5})


def test_without_a_terminal_no_bar_is_drawn(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(shown([1, 2], "count")) == [1, 2]
    with bar_to(100, "count", "%") as tell:
        tell(30)
        tell(200)
    assert capsys.readouterr().err == ""

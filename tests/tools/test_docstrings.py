"""First lines of docstrings: what is too long is found, and there is none in the packages that are kept so."""

import pytest

from tools import docstrings

pytestmark = pytest.mark.slow

TWELVE = "one two three four five six seven eight nine ten eleven twelve"


@pytest.mark.parametrize(
    ("source", "found"),
    [
        (f'"""{TWELVE}\n\nAnd as many words below as anybody could ever want to say of it in prose."""', []),
        (f'"""{TWELVE} thirteen"""', [1]),
        (f'def f():\n    """{TWELVE} thirteen"""\n', [2]),
        (f'class C:\n    def f(self):\n        """{TWELVE} thirteen"""\n', [3]),
        (f'def _private():\n    """{TWELVE} thirteen"""\n', []),
        (f'def f():\n    def inner():\n        """{TWELVE} thirteen"""\n', []),
    ],
)
def test_a_public_first_line_has_at_most_twelve_words(source: str, found: list[int]) -> None:
    assert [line for line, _ in docstrings.too_long(source)] == found


def test_the_first_line_of_every_public_docstring_is_short(capsys: pytest.CaptureFixture[str]) -> None:
    assert docstrings.main() == 0, capsys.readouterr().out

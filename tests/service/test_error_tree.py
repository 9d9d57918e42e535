"""The error tree: one walk over the core's leaves and the service's, and a core that does not speak of HTTP."""

import re
from pathlib import Path

import pytest

import oarlock.errors
from oarlock.errors import InputError, OarlockError, TransientError, leaves
from service import errors

ROOT = Path(__file__).parents[2]
HTTP = re.compile(
    r"\bHTTP|\b(?:GET|POST|PUT|DELETE|HEAD|URL)\b|/v1/|/docs|\b[Hh]eaders?\b|\bstatus\b|form-data|multipart|\b[Pp]ost(?:s|ed)?\b"
    r"|Authorization|[Bb]earer|Retry-After|Content-Type|Idempotency-Key|\bAllow\b"
)


def words(path: str) -> str:
    """The file without its docstring, where the service is named."""
    return (ROOT / path).read_text(encoding="utf-8").split('"""', 2)[2]


def test_the_core_s_errors_hold_no_word_of_http() -> None:
    assert HTTP.findall(words("oarlock/errors.py")) == []


def test_the_search_for_words_of_http_finds_them_in_the_service_s_errors() -> None:
    assert {word.lower() for word in HTTP.findall(words("service/errors.py"))} >= {"bearer", "retry-after", "/docs", "multipart"}


def test_one_walk_finds_the_leaves_of_the_core_and_of_the_service() -> None:
    homes = {leaf.__module__ for leaf in leaves()}
    assert {oarlock.errors.__name__, errors.__name__} <= homes
    assert errors.RouteNotFound in list(leaves(InputError))
    assert errors.BrokerUnavailable in list(leaves(TransientError))


@pytest.mark.parametrize("leaf", list(leaves()), ids=lambda leaf: leaf.code)
def test_every_error_has_one_public_code_and_a_title(leaf: type[OarlockError]) -> None:
    assert re.fullmatch(r"[a-z_]+\.[a-z_]+", leaf.code)
    assert leaf.title
    assert [other for other in leaves() if other.code == leaf.code] == [leaf]

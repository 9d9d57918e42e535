"""The conformance statement says what the code does."""

import pytest

from tools import conformance, marked

pytestmark = pytest.mark.slow


def test_the_tables_of_the_statement_are_those_of_the_code() -> None:
    page = conformance.PAGE.read_text(encoding="utf-8")
    assert marked.part_of(page, conformance.NAME) == conformance.tables(), "make pages"


def test_the_statement_has_the_parts_of_ps3_2() -> None:
    page = conformance.PAGE.read_text(encoding="utf-8")
    parts = ("Overview", "Services", "Networking", "Character sets", "Security", "SOP classes", "Transfer syntaxes")
    headings = {line.lstrip("# ").strip() for line in page.splitlines() if line.startswith("#")}
    assert set(parts) <= headings

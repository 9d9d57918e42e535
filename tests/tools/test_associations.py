"""What docs/gateway.md says of associations is what the gateway offers."""

import pytest

from tools import associations, marked

pytestmark = pytest.mark.slow


def test_the_table_of_the_page_is_what_the_command_writes() -> None:
    part = marked.part_of(associations.PAGE.read_text(encoding="utf-8"), associations.NAME)
    assert part == associations.table(), "make pages"

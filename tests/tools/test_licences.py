"""Licences of what ships: which are allowed, and that the list in the handbook is that of the locks."""

import pytest

from tools import licences, marked

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("expression", "allowed"),
    [
        ("MIT", True),
        ("GPL-3.0-only", False),
        ("not known", False),
        ("Apache-2.0 OR GPL-2.0-only", True),
        ("MIT AND GPL-2.0-only", False),
        ("MPL-2.0 AND (Apache-2.0 OR MIT)", True),
        ("(MIT AND GPL-3.0-only) OR LGPL-3.0-only", False),
        ("MIT OR Apache-2.0 AND GPL-3.0-only", True),
    ],
)
def test_an_expression_is_allowed_if_it_can_be_met_with_allowed_licences_alone(expression: str, allowed: bool) -> None:
    assert licences.is_allowed(expression) == allowed


def test_an_exception_holds_for_one_component_and_one_licence() -> None:
    def component(name: str, licence: str) -> licences.Component:
        return licences.Component(name, "1.0", licence, "", ())

    assert component("psycopg", "LGPL-3.0-only").allowed
    assert not component("psycopg", "GPL-3.0-only").allowed
    assert not component("another", "LGPL-3.0-only").allowed


def test_nothing_ships_under_a_licence_that_is_not_allowed() -> None:
    assert {part.name for part in licences.components() if not part.allowed} == set()


def test_the_list_in_the_handbook_is_that_of_the_locks() -> None:
    listed = [
        row.split(" | ")[0] for row in marked.part_of(licences.PAGE.read_text(encoding="utf-8"), "shipped").splitlines()[2:]
    ]
    assert listed == [f"| {part.name} {part.version}" for part in licences.components()], "make pages"

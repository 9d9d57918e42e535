"""The map of the code is what the code is."""

import re
from functools import cache

import pytest

from tools import map as drawing
from tools import marked

pytestmark = pytest.mark.slow

drawn = cache(lambda name: drawing.PARTS[name]())


@pytest.mark.parametrize("name", drawing.PARTS)
def test_the_part_of_the_page_is_what_the_command_draws(name: str) -> None:
    part = marked.part_of(drawing.PAGE.read_text(encoding="utf-8"), name)
    assert part == drawn(name), "make pages"


def test_every_path_that_the_page_names_exists() -> None:
    page = drawing.PAGE.read_text(encoding="utf-8")
    paths = re.findall(r"`((?:oarlock|service|worker|model_export|models|docker|docs|benchmarks|tools|tests)/[\w./]*)`", page)
    assert len(paths) > 30
    assert [path for path in paths if not (drawing.ROOT / path).exists()] == []


def test_every_package_says_what_lives_in_it() -> None:
    silent = [
        path.relative_to(drawing.ROOT).as_posix()
        for top in drawing.TOPS
        for path in (drawing.ROOT / top).rglob("__init__.py")
        if "migrations" not in path.parts and not path.read_text(encoding="utf-8").startswith('"""')
    ]
    assert silent == []


def test_the_journey_goes_from_the_disk_to_the_delivered_result() -> None:
    steps = re.findall(r"<b>([\w.]+)</b>", drawn("journey"))
    named = [step.split(".")[-1] for step in steps]
    order = ["receive", "adopt", "enqueue", "claim", "read_ct_series", "segment", "write_rtstruct", "check_rtstruct", "succeed"]
    assert [name for name in named if name in order] == order


def test_a_page_without_the_markers_is_refused() -> None:
    with pytest.raises(ValueError, match="no markers named journey"):
        marked.replaced("# A page\n", "journey", "")


@pytest.mark.parametrize("name", ["imports", "journey"])
def test_no_label_of_a_picture_is_empty_which_mermaid_cannot_parse(name: str) -> None:
    assert "[]" not in drawn(name)

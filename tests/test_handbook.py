"""The handbook: its links lead somewhere, its table of settings is the code's, its controls are tests that exist."""

import re
from pathlib import Path

import pytest

from oarlock.settings import Settings
from tests.test_repository import ROOT, tracked

PAGES = tracked("*.md")


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub makes of a page's headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_of_a_page_leads_to_a_file_and_a_heading_of_it(page: Path) -> None:
    dead = []
    for link in re.findall(r"\]\((?!https?:|mailto:)([^)\s]+)\)", page.read_text(encoding="utf-8")):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
            dead.append(link)
    assert dead == []


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.name != "CHANGELOG.md"], ids=lambda page: page.relative_to(ROOT).as_posix()
)
def test_every_path_that_a_page_names_exists(page: Path) -> None:
    tops = "oarlock|service|worker|gateway|model_export|docker|docs|benchmarks|tools|tests|requirements"
    named = re.findall(rf"`((?:{tops})/[\w./-]*)`", page.read_text(encoding="utf-8"))
    assert [path for path in named if not (ROOT / path).exists()] == []


def documented_settings() -> dict[str, str]:
    """What the table of the handbook says is the default of each variable."""
    handbook = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8").split("\n## Settings\n")[1]
    found = {}
    for line in handbook.splitlines():
        if line.startswith("| `"):
            variables, defaults, _ = line.strip("| ").split(" | ", 2)
            names = re.findall(r"`([A-Z_]+)`", variables)
            values = [value.strip(" `") for value in (defaults.split(", ") if len(names) > 1 else [defaults])]
            found |= dict(zip(names, values * (len(names) if len(values) == 1 else 1), strict=True))
    return found


def as_documented(default: object) -> str:
    if default is None or default == []:
        return "unset"
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, int | float):
        return f"{default:,.0f}"
    return str(default)


def test_the_table_of_settings_has_every_setting_with_its_default_and_no_other() -> None:
    expected = {}
    for name, field in Settings.model_fields.items():
        alias = field.validation_alias
        variable = str(alias.choices[0]) if hasattr(alias, "choices") else f"OARLOCK_{name.upper()}"
        expected[variable] = as_documented(field.default)
    expected |= {"OARLOCK_PORT": "8000"}  # a port has no thousands
    assert documented_settings() == expected


def test_every_control_of_the_safety_file_is_a_test_that_exists() -> None:
    safety = (ROOT / "docs" / "safety.md").read_text(encoding="utf-8")
    rows = [line for line in safety.splitlines() if re.match(r"\| H\d", line)]
    tests = "".join(path.read_text(encoding="utf-8") for path in tracked("tests/**.py", "tests/**/*.py"))
    assert rows
    assert [row for row in rows if "`test_" not in row] == []
    assert [name for name in re.findall(r"`(test_\w+)`", safety) if f"def {name}(" not in tests] == []


def test_every_hazard_of_the_safety_file_has_a_control_in_make_test() -> None:
    """One that is not marked long."""
    safety = (ROOT / "docs" / "safety.md").read_text(encoding="utf-8")
    controls = {line: re.findall(r"`(test_\w+)`", line) for line in safety.splitlines() if re.match(r"\| H\d", line)}
    long = set()
    for path in tracked("tests/**.py", "tests/**/*.py"):
        parts = re.split(r"^def (\w+)\(", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
        whole = "pytestmark = pytest.mark.long" in parts[0]
        decorators = (before.rpartition("\n\n\n")[2] for before in parts[0::2])  # each text ends with those of the next function
        named = zip(parts[1::2], decorators, strict=False)
        long |= {name for name, lines in named if whole or re.search(r"^@pytest\.mark\.long\(", lines, re.MULTILINE)}
    assert [line for line, names in controls.items() if long.issuperset(names)] == []


def test_every_limit_of_the_handbook_has_its_place_in_the_code_and_its_tests() -> None:
    page = (ROOT / "docs" / "limits.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([^|]+) \| `(\S+)` `(\S+)` \| (.*) \|$", page, flags=re.MULTILINE)
    assert len(rows) == sum(line.startswith("| ") for line in page.splitlines()) - 2 * page.count("| limit |")
    assert [
        row[0] for row in rows if not re.search(rf"(?<!\w){re.escape(row[2])}(?!\w)", (ROOT / row[1]).read_text(encoding="utf-8"))
    ] == []
    tests = "".join(path.read_text(encoding="utf-8") for path in tracked("tests/**.py", "tests/**/*.py"))
    assert [row[0] for row in rows if not re.findall(r"`(test_\w+)`", row[3])] == []
    assert [name for name in re.findall(r"`(test_\w+)`", page) if f"def {name}(" not in tests] == []

"""The README says of each organ what the model card says."""

from pathlib import Path

import pytest

from oarlock.organs.catalogue import OARS
from tools import marked, quality

pytestmark = pytest.mark.slow

CARD = """
| scans | OAR | n | DSC mean | SD | radiographer | surface DSC | radiographer |
| --- | --- | --- | --- | --- | --- | --- | --- |
| openkbp | Parotid_L | 29 | 0.100 | 0.1 |  |  |  |
"""


def test_the_table_of_the_readme_is_that_of_the_model_card() -> None:
    part = marked.part_of(quality.PAGE.read_text(encoding="utf-8"), "quality")
    assert part == quality.table(), "make pages"


def test_every_organ_is_in_the_table_of_the_readme() -> None:
    named = {line.split(" | ")[0].removeprefix("| ") for line in quality.table().splitlines()[2:]}
    assert named == {oar.name.removesuffix("_L").removesuffix("_R") for oar in OARS}


def test_a_pair_is_the_mean_of_both_sides_beside_a_human(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    rows = "".join(f"| matched | {oar.name} | 3 | 0.{6 + oar.name.endswith('_L')}00 | 0 | 0.900 | 0.1 | 0.2 |\n" for oar in OARS)
    card = tmp_path / "card.md"
    card.write_text(CARD + rows, encoding="utf-8")
    monkeypatch.setattr(quality, "CARD", card)
    assert "| Parotid | 0.65 | 0.90 | 3 |" in quality.table()
    part = "\n| organ | threshold | share | DSC | scans | radiographer |\n| --- | --- | --- | --- | --- | --- |\n"
    card.write_text(CARD + rows + part + "| Parotid_L | 0.7 |  | 0.8 | 4 | |\n", encoding="utf-8")
    assert "| Parotid | 0.70 | 0.90 | 4 |" in quality.table()  # the right one is still the whole-scan network's, 0.6
    card.write_text(CARD + rows + part + "| Parotid_L | 0.7 |  | 0.8 | 4 | 0.8 |\n", encoding="utf-8")
    assert "| Parotid | 0.70 | 0.85 | 4 |" in quality.table()
    card.write_text(CARD + rows.replace("Brainstem", "Stem"), encoding="utf-8")
    with pytest.raises(LookupError, match="Brainstem"):
        quality.table()

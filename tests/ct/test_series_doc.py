"""The page that physicists read names every code that the intake can give, and no other."""

import re
from pathlib import Path

from oarlock.errors import SeriesError, leaves

ROOT = Path(__file__).parents[2]


def test_the_conformance_page_lists_every_code_of_the_intake() -> None:
    sources = [path.read_text(encoding="utf-8") for name in ("ct", "dicom") for path in (ROOT / "oarlock" / name).glob("*.py")]
    given = {code for source in sources for code in re.findall(r'"(series\.[a-z_]+)"', source)}
    given |= {leaf.code for leaf in leaves(SeriesError)}
    page = (ROOT / "docs" / "dicom.md").read_text(encoding="utf-8")
    assert set(re.findall(r"`(series\.[a-z_]+)`", page)) == given

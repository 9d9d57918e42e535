"""The page that physicists read names every code that the file and its reader can give, and no other."""

import re
from pathlib import Path

from oarlock.errors import StructureSetError, leaves

ROOT = Path(__file__).parents[2]


def test_the_conformance_page_lists_every_code_of_structure_sets() -> None:
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "oarlock" / "rtstruct").glob("*.py")]
    given = {code for source in sources for code in re.findall(r'"((?:structure_set|rtstruct)\.[a-z_]+)"', source)}
    given |= {leaf.code for leaf in leaves(StructureSetError)}
    page = (ROOT / "docs" / "dicom.md").read_text(encoding="utf-8")
    assert set(re.findall(r"`((?:structure_set|rtstruct)\.(?!write)[a-z_]+)`", page)) == given

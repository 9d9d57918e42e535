"""The page that physicists read names every code that the file and its reader can give, and no other."""

import re
from pathlib import Path

from oarlock.dicom import sequences
from oarlock.errors import StructureSetError, leaves
from oarlock.rtstruct import placing, planes, reader

ROOT = Path(__file__).parents[2]


def test_the_conformance_page_lists_every_code_of_structure_sets() -> None:
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "oarlock" / "rtstruct").glob("*.py")]
    given = {code for source in sources for code in re.findall(r'"((?:structure_set|rtstruct)\.[a-z_]+)"', source)}
    given |= {leaf.code for leaf in leaves(StructureSetError)}
    page = (ROOT / "docs" / "dicom.md").read_text(encoding="utf-8")
    assert set(re.findall(r"`((?:structure_set|rtstruct)\.(?!write)[a-z_]+)`", page)) == given


def test_the_limits_of_the_page_are_those_of_the_code() -> None:
    """Each of them has a case on either side in the tests of its module; here the numbers themselves are held."""
    page = " ".join((ROOT / "docs" / "dicom.md").read_text(encoding="utf-8").split())
    budget = placing.Budget()
    for text in (
        (
            f"over {sequences.MAX_DATASET_BYTES >> 20} MiB (inflated; and over {sequences.ALWAYS_INFLATED_BYTES >> 20} MiB, "
            f"{sequences.MAX_RATIO} times its deflated size), {sequences.MAX_DATASET_ELEMENTS:,} elements, "
            f"{sequences.MAX_DATASET_DEPTH} levels, {reader.MAX_ROIS:,} ROIs, {reader.MAX_CONTOURS:,} contours or "
            f"{reader.MAX_POINTS:,} points"
        ),
        f"Contours within {planes.ONE_PLANE_MM} mm of each other lie in one plane",
        f"furthest point, over {planes.EXACT_MM} mm",
        f"up to {planes.NEIGHBOURS} times the usual distance",
        f"and up to {planes.WIDEST_MM} mm apart",
        f"nowhere more than {placing.TWICE_MM} mm apart",
        f"share more than {placing.LARGEST_DISPUTED_SHARE:.0%} of what is drawn".replace("%", " %"),
        (
            f"over {budget.contours:,} contours of matched ROIs, {budget.crossings:,} crossings of edges with rows of voxels, "
            f"{budget.company:,} contours or {budget.voxels:,} voxels to be compared for overlaps, "
            f"or {budget.steps:,} points of contours that may be drawn twice in a file, or {budget.whole} times a whole of these "
            f"together; over {placing._MOST_NEAR // 2:,} pairs of contours of one plane that may be drawn twice"
        ),
    ):
        assert text in page

"""Each limit of laying ROIs on a grid, met exactly and passed.

Voxels are 1 mm wide and slices 2 mm apart, one of them at 0, so that a limit is met exactly in binary numbers. No file is read.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
from pydicom.dataset import Dataset

from oarlock.arrays import FloatArray
from oarlock.ct.series import Instance, SeriesHeader
from oarlock.geometry.grid import Grid
from oarlock.organs.catalogue import BY_NAME
from oarlock.rtstruct import placing
from oarlock.rtstruct.placing import Budget, PlacedROIs, rois_to_masks
from oarlock.rtstruct.reader import ROI, StructureSet

BRAIN = BY_NAME["Brain"]
ROWS, COLUMNS = 24, 20
GRID: Final = Grid(ROWS, COLUMNS, np.outer(range(-8, 9, 2), [0, 0, 1.0]), np.eye(3)[0], np.eye(3)[1], 1.0, 1.0)
IMAGES: Final = tuple(Instance(Path(), f"1.4.{z}", "", z + 1) for z in range(9))
HEADER: Final = SeriesHeader("1.1", "1.2", "1.3", GRID, IMAGES, (), Dataset(), ())

OVERLAP: Final = "in 1 plane(s) its contours overlap; what two of them share counts as outside (XOR)"
UNCERTAIN: Final = "its contours overlap, so what they enclose is not certain"
TOO_MANY: Final = "its contours are too many or too long to be used"
TWINS_UNKNOWN: Final = "its contours are too many to tell whether any are drawn twice"
OVERLAPS_UNKNOWN: Final = "its contours are too many to tell whether any of them overlap"
EDGE: Final = "1 contour(s) reach over the edge of the images and are cut there"
TWIN: Final = "1 of 2 contour(s): left out: drawn twice"


def box(z_mm: float, y: float = 0.5, x: float = 0.5, rows: float = 4, columns: float = 4, lean_mm: float = 0) -> FloatArray:
    """A rectangle from one corner, in rows and columns; it may rise along the rows."""
    corners = np.array([(0, 0, 0), (columns, 0, 0), (columns, rows, lean_mm), (0, rows, lean_mm)])
    return np.asarray(corners + np.array([x, y, z_mm]))


def lay(*contours: FloatArray, budget: Budget | None = None, patient_id: str = "", **of_roi: Any) -> PlacedROIs:
    roi = replace(ROI(7, "", (), contours, (), "1.3"), **of_roi)
    found = StructureSet("1.5", "", "1.3", (roi,), frozenset({"1.3"}), patient_id=patient_id)
    return rois_to_masks(found, HEADER, {BRAIN: 7}, budget)


def told(placed: PlacedROIs) -> list[str]:
    return [warning.detail.removeprefix("ROI number 7: ").removesuffix(".") for warning in placed.warnings]


# ── what a file may cost ──────────────────────────────────────────────────────────────────────────────────────────────

TWO: Final = (box(0), box(0, x=0.75))
"""A quarter of a millimetre apart. Either has 200 + 4 points and one every 0.25 mm of its 16 mm: 268 of each are compared."""

APART: Final = (box(-4), box(0))
"""Both cross 4 rows twice; the slice between them costs as much again, and twenty times the 6 × 6 voxels about them."""


@pytest.mark.parametrize(
    ("contours", "enough", "too_little", "missing"),
    [
        (TWO, {"steps": 536}, {"steps": 535}, TWINS_UNKNOWN),
        ((box(0), box(0, x=0.502)), {"steps": 0}, None, ""),
        ((box(0), box(0, x=0.53)), {"steps": 536}, {"steps": 0}, TWINS_UNKNOWN),
        (APART, {"crossings": 32}, {"crossings": 31}, TOO_MANY),
        (APART, {"voxels": 720}, {"voxels": 719}, TOO_MANY),
        ((box(0, y=-9.5, rows=50),), {"crossings": 2 * ROWS}, {"crossings": 2 * ROWS - 1}, TOO_MANY),
        ((box(0),), {"company": 0, "voxels": 0}, None, ""),
        (APART, {"contours": 2}, {"contours": 1}, TOO_MANY),
    ],
    ids=[
        "contours compared",
        "a rounding apart, none compared",
        "three hundredths apart",
        "rows",
        "interpolated voxels",
        "rows of the image alone",
        "nothing to compare",
        "contours",
    ],
)
def test_an_roi_costs_what_it_costs_and_no_less(
    contours: tuple[FloatArray, ...], enough: dict[str, int], too_little: dict[str, int] | None, missing: str
) -> None:
    assert lay(*contours, budget=Budget(**enough)).not_scored == {}  # type: ignore[arg-type]
    if too_little is not None:
        assert lay(*contours, budget=Budget(**too_little)).not_scored == {BRAIN: missing}  # type: ignore[arg-type]


@pytest.mark.parametrize(("most", "reason"), [(2, {}), (1, {BRAIN: TWINS_UNKNOWN})])
def test_pairs_of_nearly_the_same_place_are_counted_from_both_sides(
    most: int, reason: dict[Any, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(placing, "_MOST_NEAR", most)
    assert lay(*TWO).not_scored == reason


def test_what_is_too_much_to_compare_is_kept_and_nothing_more_is_compared() -> None:
    """Two more contours, of 2 mm, would cost 472 and are kept both."""
    smaller = [box(2, x=x, rows=2, columns=2) for x in (0.5, 0.75)]
    assert told(lay(*TWO, *smaller, budget=Budget(steps=535))) == [TWINS_UNKNOWN, OVERLAP.replace("1 plane", "2 plane")]
    assert told(lay(*smaller, budget=Budget(steps=535))) == [TWIN]


def test_a_budget_gives_what_is_left_and_takes_nothing_when_it_refuses() -> None:
    budget = Budget(steps=10, voxels=0, company=4, whole=1.5)
    asked = [("voxels", 0), ("voxels", 1), ("steps", 11), ("steps", 10), ("company", 3), ("company", 2), ("company", 1)]
    assert [budget.takes(kind, amount) for kind, amount in asked] == [True, False, False, True, False, True, False]


def test_that_there_are_too_many_to_compare_is_told_once() -> None:
    pairs = [box(z_mm, x=x) for z_mm in (0, 2) for x in (0.5, 3.5)]
    assert told(lay(*pairs, budget=Budget(company=1))) == [OVERLAPS_UNKNOWN]


# ── what is said ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("contour", "cut"),
    [
        (box(0, y=-0.99), False),
        (box(0, y=-1), True),
        (box(0, x=-0.99), False),
        (box(0, x=-1), True),
        (box(0, y=ROWS - 4.01), False),
        (box(0, y=ROWS - 4), True),
        (box(0, x=COLUMNS - 4.01), False),
        (box(0, x=COLUMNS - 4), True),
    ],
)
def test_a_contour_one_voxel_beyond_the_centres_reaches_over_the_edge(contour: FloatArray, cut: bool) -> None:
    assert told(lay(contour)) == ([EDGE] if cut else [])


@pytest.mark.parametrize(
    ("size", "scored"),
    [((23, 2), True), ((7, 6), False)],
    ids=["1 of 50", "1 of 46"],
)
def test_one_voxel_that_two_contours_share_is_told_and_two_percent_are_scored(size: tuple[int, int], scored: bool) -> None:
    """The second contour holds two voxels, one of them in the corner of the first. Those of other slices share nothing."""
    rows, columns = size
    corner = box(0, y=rows - 0.5, x=columns - 0.5, rows=1, columns=2)
    alone, apart = [box(2, rows=1, columns=1)], [box(4, x=x, rows=1, columns=1) for x in (0.5, 9.5)]
    placed = lay(box(0, rows=rows, columns=columns), corner, *alone, *apart)
    assert placed.masks.mask(BRAIN).sum() == rows * columns + 2 - 2 + 3
    assert told(placed) == [OVERLAP]
    assert placed.not_scored == ({} if scored else {BRAIN: UNCERTAIN})


@pytest.mark.parametrize(("at_mm", "off"), [(1.01, False), (1.02, True)])
def test_contours_half_a_slice_and_a_hundredth_off_the_image_that_they_name_are_told(at_mm: float, off: bool) -> None:
    found = [text for text in told(lay(box(at_mm), images=("1.4.4",))) if "off the image" in text]
    assert found == ["1 of 1 contour(s): they lie up to 1.02 mm off the image that they name; their points count"] * off


def test_interpolated_slices_are_those_between_planes_and_those_beyond_them() -> None:
    """Two between each two of three planes that are 6 mm apart, and one at each end."""
    made = "6 slice(s) have no contours of their own and are interpolated between its planes"
    assert told(lay(box(-6), box(0), box(6))) == [made]


LEANING: Final = box(0, lean_mm=5)
NO_PLANE: Final = "{} of {} contour(s): left out: not in a plane parallel to the slices"
TINY: Final = box(0, y=0.2, x=0.2, rows=0.5, columns=0.5)


@pytest.mark.parametrize(
    ("contours", "lost", "findings", "why", "hollow"),
    [
        ((), 0, [], None, False),
        ((box(0),), 0, [], None, False),
        ((TINY,), 0, ["its 1 contour(s) enclose no voxel of the CT"], None, True),
        ((TINY,), 1, [], "1 of its 2 contours are left out", True),
        ((LEANING,), 0, [NO_PLANE.format(1, 1)], "1 of its 1 contours are left out", True),
        ((box(0), LEANING), 1, [NO_PLANE.format(1, 2)], "2 of its 3 contours are left out", False),
    ],
    ids=["no contours", "a good one", "a tiny one", "a tiny one of two", "a leaning one", "two lost of three"],
)
def test_an_organ_is_hollow_if_it_has_contours_and_no_voxel(
    contours: tuple[FloatArray, ...], lost: int, findings: list[str], why: str | None, hollow: bool
) -> None:
    placed = lay(*contours, lost=lost)
    assert told(placed) == findings
    assert placed.not_scored == ({BRAIN: why} if why else {})
    assert placed.hollow == ({BRAIN} if hollow else set())


def test_what_is_left_out_as_a_whole_is_not_hollow() -> None:
    placed = lay(box(0), budget=Budget(contours=0))
    assert told(placed) == [TOO_MANY]
    assert not placed.hollow


def test_a_ct_without_a_patient_id_is_of_any_patient() -> None:
    assert told(lay(box(0), patient_id="Canary")) == []

"""docs/qa.md is true: its worked examples are recomputed, and it defines every key that a report has."""

import json
import math
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oarlock.geometry.grid import Grid
from oarlock.geometry.masks import OARMasks
from oarlock.organs.catalogue import BY_NAME, OARS
from oarlock.organs.norms import HALVES, NORMS
from oarlock.qa import checks
from oarlock.qa.checks.place import offset_mm
from oarlock.qa.organ_shape import Shape
from oarlock.qa.plausibility import check_masks
from oarlock.qa.report import Source, compare
from tests.qa.arithmetic import worked_out
from tests.qa.mean_patient import of_any_size

DOC = Path(__file__).parents[2].joinpath("docs", "qa.md").read_text(encoding="utf-8")
SIDE = Source("2.25.1", "HANDBOOK")
STEM = BY_NAME["Brainstem"]
TEXTS = {"oar", "matched_roi", "predicted_roi", "presence", "reason", "tolerance_source", "action_levels", "passed", "failed"}
"""Keys of an entry that are no number."""


def section(heading: str) -> str:
    """What stands between a heading and the next one."""
    return re.split(r"^#+ ", DOC.split(f"# {heading}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]


def rows(text: str) -> Iterator[list[str]]:
    """The cells of each row of a table, without its head."""
    for line in text.splitlines():
        if line.startswith("| `"):
            yield [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


EXAMPLE = {key.strip("`"): (hand.strip("`"), float(value)) for key, hand, value in rows(section("An example by hand"))}

CORNER = math.sqrt((1.25 * 0.5) ** 2 + (1.25 * 0.5) ** 2 + (0.5 * 0.5) ** 2) / 2
EDGE = 2.5 * math.sqrt(0.5**2 + 0.5**2)


def towers() -> tuple[OARMasks, OARMasks, Grid]:
    """The two masks of the example and their grid."""
    heights = np.arange(4) * 2.5
    origins = np.stack([0 * heights, 0 * heights, heights], axis=1)
    grid = Grid(3, 3, origins, np.array([1.0, 0, 0]), np.array([0, 1.0, 0]), 1.0, 1.0)
    predicted, reference = OARMasks.empty([STEM], grid.shape), OARMasks.empty([STEM], grid.shape)
    predicted.bits[2, 1, 1] = reference.bits[2:4, 1, 1] = 1
    return predicted, reference, grid


def entry(predicted: OARMasks, reference: OARMasks, grid: Grid) -> dict[str, Any]:
    sides = {"predicted_source": SIDE, "reference_source": SIDE}
    report = compare(predicted, reference, grid, matched_rois={STEM: "stem"}, tolerances_mm={STEM: 2.49}, **sides)
    found: dict[str, Any] = report.to_json()["oars"][0]
    return found


def test_the_example_has_every_number_of_the_report_and_every_number_is_defined() -> None:
    numbers = entry(*towers()).keys() - TEXTS
    assert EXAMPLE.keys() == numbers
    defined = {key for cells in rows(section("The numbers")) for key in re.findall(r"`([a-z_0-9]+)`", cells[0])}
    assert numbers <= defined


@pytest.mark.parametrize("key", EXAMPLE)
def test_a_number_of_the_example_is_what_the_hand_and_the_code_find(key: str) -> None:
    hand, printed = EXAMPLE[key]
    assert worked_out(hand, c=CORNER, e=EDGE) == pytest.approx(printed, abs=5e-5)
    assert float(entry(*towers())[key]) == pytest.approx(printed, abs=5e-5)


def test_the_areas_of_the_example() -> None:
    assert pytest.approx(CORNER, abs=5e-5) == 0.4593
    assert pytest.approx(EDGE, abs=5e-5) == 1.7678
    for said in ("c = ½ √((1.25·0.5)² + (1.25·0.5)² + (0.5·0.5)²) = 0.4593", "e = 2.5 √(0.5² + 0.5²) = 1.7678"):
        assert said in DOC


def test_the_example_the_other_way_round_needs_nothing_drawn_anew() -> None:
    predicted, reference, grid = towers()
    assert entry(reference, predicted, grid)["added_path_length_mm"] == 0.0


def drawn(cell: str) -> list[tuple[slice, ...]]:
    """The boxes of a cell like "[40:50, 10:40, 90:110] and …"."""
    boxes = re.findall(r"\[([\d:, ]+)\]", cell)
    return [tuple(slice(*map(int, part.split(":"))) for part in box.split(",")) for box in boxes]


CHECKED = [[cell.strip("`") for cell in cells] for cells in rows(section("The checks' numbers by hand")) if len(cells) == 6]


@pytest.fixture(scope="module")
def findings() -> dict[tuple[str, str | None], float | None]:
    """The values of the checks on the handbook's blocks."""
    heights = np.arange(60) * 2.5
    grid = Grid(
        140, 140, np.stack([0 * heights, 0 * heights, heights], axis=1), np.array([1.0, 0, 0]), np.array([0, 1.0, 0]), 1.0, 1.0
    )
    masks = OARMasks.empty(OARS, grid.shape)
    for _, organ, _, cell, *_ in CHECKED:
        for part in re.split(r"[;,] (?=[A-Z]\w+ \[)", cell):  # "… ; Eye_R [40:48, 25:55, 30:50]" draws another organ
            named = re.match(r"([A-Z]\w+) (?=\[)", part)
            oar = BY_NAME[named[1] if named else organ]
            for box in drawn(part):
                masks.bits[box] |= masks.bit(oar)
    hu = np.full(grid.shape, 40, dtype=np.int16)
    hu[26:] = 900
    # Blocks are far too small for a brain or a jaw: by the limits of the norms little would be asked of them.
    limits = of_any_size(*(oar.name for oar in OARS if not oar.name.startswith("Eye")))
    return {(check.code, check.oar): check.value for check in check_masks(masks, grid, hu=hu, limits=limits)}


@pytest.mark.parametrize("row", CHECKED, ids=lambda row: row[0])
def test_a_checks_value_is_what_the_hand_finds(row: list[str], findings: dict[tuple[str, str | None], float | None]) -> None:
    code, organ, _, _, hand, printed = row
    assert worked_out(hand) == pytest.approx(float(printed), abs=5e-5)
    assert findings[code, organ] == pytest.approx(float(printed), abs=5e-5)


def test_the_position_of_the_handbook() -> None:
    centres = {"Brainstem": (0, 0, 0), "Eye_L": (30, -80, 27), "Eye_R": (-32, -81, 27), "Brain": (0, 27, 39)}
    seen = Shape(1.0, np.ones(3), np.zeros(3), 0.0, 0.0, (), (), 1.0, 1, cut_foot=False, cut_head=False, cut_side=False)
    shapes = {BY_NAME[name]: replace(seen, anchor_mm=np.array(centre, dtype=np.float64)) for name, centre in centres.items()}
    predicted = [cells for cells in rows(section("The checks' numbers by hand")) if len(cells) == 3]
    by_hand = [worked_out(hand.strip("`")) for _, hand, _ in predicted]
    off = offset_mm(BY_NAME["Brain"], shapes, NORMS)
    assert off is not None
    assert (sorted(by_hand)[1], off[1]) == (pytest.approx(6.86), pytest.approx(27 - 6.86))
    assert "27 − 6.86 = 20.14 mm" in DOC
    assert (NORMS["Brain"].off_usual_mm[1], NORMS["Brain"].off_mm[1]) == (13.7, 18.0)


def test_the_half_lens_of_the_handbook() -> None:
    hand = re.findall(r"^`(-0\.945.*)` = 2\.264 of the red limit", DOC, flags=re.MULTILINE)
    features = np.array([math.log(0.5), 0, math.log(0.5), 0, 0, 2.5, 0])
    assert worked_out(hand[0]) == pytest.approx(2.264, abs=5e-4)
    assert HALVES["Lens"].scores(features)[2] == pytest.approx(2.264, abs=5e-4)


def test_every_check_of_the_code_is_in_the_table_of_the_handbook_and_the_other_way_round() -> None:
    written = {
        key for cells in rows(section("The checks that need no reference")) for key in re.findall(r"`([a-z_.]+)`", cells[0])
    }
    sources = Path(checks.__file__).parent.glob("*.py")
    codes = {code for path in sources for code in re.findall(r'"((?:organs?|scan)\.[a-z_]+)"', path.read_text(encoding="utf-8"))}
    assert codes == written


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.02, 0.5, 1.0]), st.sampled_from([0.0, 0.02, 0.5, 1.0]))
def test_a_report_of_any_two_masks_holds_no_number_that_json_has_not(seed: int, ours: float, theirs: float) -> None:
    generator = np.random.default_rng(seed)
    _, _, grid = towers()
    sides = [OARMasks((STEM,), np.uint32(generator.random(grid.shape) < share)) for share in (ours, theirs)]
    found = entry(sides[0], sides[1], grid)
    json.dumps(found, allow_nan=False)
    both = all(side.bits.any() for side in sides)
    assert (found["presence"] == "both", found["surface_dsc"] is not None, found["reason"] is None) == (both, both, both)
    for side in sides:
        for check in check_masks(side, grid):
            json.dumps(check.to_json(), allow_nan=False)

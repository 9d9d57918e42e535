"""What a finding holds beside its sentence: the number, the limits of green, their unit, and the slices on which it shows."""

import math
from collections.abc import Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from oarlock.geometry.grid import Grid
from oarlock.geometry.masks import Crop
from oarlock.organs.catalogue import BY_NAME, OARS
from oarlock.organs.norms import HALVES, LUNG_TOPS_MM, NORMS, PAIRS, TISSUES
from oarlock.qa.checks.anatomy import Anatomy
from oarlock.qa.checks.finding import Finding, Level, Slices, level_of, ml
from oarlock.qa.checks.neighbours import check_inside, check_overlaps
from oarlock.qa.checks.place import offset_mm
from oarlock.qa.checks.whole import half_features
from oarlock.qa.plausibility import CHECKS, judge, with_skin
from oarlock.qa.tissue import Composition
from oarlock.segmentation.certainty import Certainty
from tests.qa.mean_patient import CHECK, FLOOR_MM, STEM_FOOT_MM, anatomy, findings, moved, shape, shapes

LEFT, RIGHT = BY_NAME["Parotid_L"], BY_NAME["Parotid_R"]
SLICES = 200
USUAL_OFF = NORMS["Brainstem"].off_usual_mm
_, SMALL_ML, LARGE_ML, _ = NORMS["Brain"].volume_limits_ml()
EYE = PAIRS["Eye"]
BONE = TISSUES["Bone_Mandible"]


def at(x: float, y: float, z: float) -> dict[str, Any]:
    """The change that puts an organ at a place."""
    return {"anchor_mm": np.array([x, y, z])}


# ── the number ────────────────────────────────────────────────────────────────────────────────────────────────────────

Numbers = tuple[float, float | None, float | None, str]
SIDEWAYS = "mm to the left of the middle"

CASES: list[tuple[str, str, Numbers, dict[str, Any]]] = [
    ("organ.laterality", "Parotid_L", (-9.0, None, None, SIDEWAYS), {"Parotid_L": at(-9.0, 5, 7), "Parotid_R": None}),
    ("organ.laterality", "Eye_L", (-35.0, None, None, SIDEWAYS), {"Eye_L": at(-30.0, 5, 7), "Eye_R": at(40.0, 3, 7)}),
    ("organ.laterality", "Eye_R", (35.0, None, None, SIDEWAYS), {"Eye_L": at(-30.0, 5, 7), "Eye_R": at(40.0, 3, 7)}),
    ("organ.order", "Brain", (-7.0, 0.0, None, "mm"), {"Brain": at(1, 2, -4), "Brainstem": at(1, 5, 3)}),
    ("organ.position", "Brainstem", (-40.0, -USUAL_OFF[1], USUAL_OFF[1], "mm"), {"Brainstem": moved("Brainstem", y=-40.0)}),
    ("organ.mirror", "Eye_R", (40.0, -EYE.off_usual_mm[1], EYE.off_usual_mm[1], "mm"), {"Eye_R": moved("Eye_R", y=-40.0)}),
    (
        "organ.lung_tops",
        "Lung_L",
        (-30.0, -LUNG_TOPS_MM, LUNG_TOPS_MM, "mm"),
        {"Lung_L": {"head_mm": shape("Lung_L").head_mm - 30}},
    ),
    ("organ.volume", "Brain", (90.0, SMALL_ML, LARGE_ML, "ml"), {"Brain": {"volume_ml": 90.0}}),
    (
        "organ.symmetry",
        "Eye_R",
        (1.5, 1 / EYE.usual, EYE.usual, "left / right"),
        {"Eye_R": {"volume_ml": NORMS["Eye_R"].volume_ml / 1.5}},
    ),
    (
        "organ.flat_face",
        "Parotid_R",
        (0.99, 0.0, NORMS["Parotid_R"].faces[2], "share of the largest section"),
        {"Parotid_R": {"faces": (0.1, 0.1, 0.99, 0.1, 0.1, 0.1)}},
    ),
    ("organ.incomplete", "SpinalCord", (12.0, 0.0, 10.0, "mm"), {"SpinalCord": {"foot_mm": FLOOR_MM + 12}}),
    ("organ.gap", "SpinalCord", (13.0, -10.0, 10.0, "mm"), {"SpinalCord": {"head_mm": STEM_FOOT_MM - 13}}),
    ("organ.gap", "SpinalCanal", (-14.0, -10.0, 10.0, "mm"), {"SpinalCanal": {"head_mm": STEM_FOOT_MM + 14}}),
    ("organ.islands", "Eye_R", (0.7, 0.95, 1.0, "share in the largest piece"), {"Eye_R": {"largest_share": 0.7, "pieces": 2}}),
    ("organ.skin", "Parotid_L", (0.3, 0.0, 0.01, "share outside of the patient"), {"others": {"outside": {LEFT: 0.3}}}),
    (
        "organ.density",
        "Bone_Mandible",
        (0.2, BONE.usual, 1.0, f"share that is {BONE.tissue.name}"),
        {"others": {"compositions": {BY_NAME["Bone_Mandible"]: Composition(900, 0.2, 0.5, 0.3)}}},
    ),
    (
        "organ.certainty",
        "Parotid_L",
        (0.3, 0.5, 1.0, "strict / loose volume"),
        {"others": {"certainty": {LEFT: Certainty(NORMS["Parotid_L"].volume_ml, 3.0, 10.0)}}},
    ),
    (
        "organ.delivered",
        "Parotid_L",
        (0.6, 0.7, 1.4, "drawn / seen volume"),
        {"others": {"certainty": {LEFT: Certainty(NORMS["Parotid_L"].volume_ml / 0.6, 10.0, 10.0)}}},
    ),
]


@pytest.mark.parametrize(("code", "oar", "numbers", "changes"), CASES, ids=[f"{code} {oar}" for code, oar, *_ in CASES])
def test_a_finding_has_what_was_measured_and_the_limits_of_green(
    code: str, oar: str, numbers: Numbers, changes: dict[str, Any]
) -> None:
    found = findings(code, **changes)[oar]
    assert (found.value, found.low, found.high) == pytest.approx(numbers[:3])
    assert found.unit == numbers[3]


# ── the slices ────────────────────────────────────────────────────────────────────────────────────────────────────────


def turned(grid: Grid) -> Grid:
    """The same voxels, with slices from head to feet and rows from back to front."""
    lowest = grid.origins_mm + (grid.rows - 1) * grid.row_spacing_mm * grid.column_direction
    return replace(grid, origins_mm=lowest[::-1], column_direction=-grid.column_direction)


def crop(start: int, counts: tuple[int, ...], row: int = 40) -> Crop:
    """An organ with so many voxels on each slice from one on."""
    mask = np.zeros((len(counts), 1, max(counts)), np.bool_)
    for one, count in zip(mask, counts, strict=True):
        one[0, :count] = True
    return (slice(start, start + len(counts)), slice(row, row + 1), slice(0, max(counts))), mask


def placed(code: str, crops: Mapping[str, Crop], *, feet_first: bool = True, **changes: Any) -> dict[str | None, Finding]:
    """The findings of one code on the mean patient, some of whose organs lie in these voxels."""
    found = CHECK[code](with_voxels(crops, feet_first=feet_first, **changes))
    return {one.oar: one for one in found if one.code == code}


def with_voxels(crops: Mapping[str, Crop], *, feet_first: bool = True, **changes: Any) -> Anatomy:
    drawn = anatomy(**changes)
    grid = drawn.grid if feet_first else turned(drawn.grid)
    known = {oar: drawn.crops[oar] for oar in drawn.shapes} | {BY_NAME[name]: one for name, one in crops.items()}
    return replace(drawn, crops=known, grid=grid)


TALL = crop(10, (1,) * 50)
LOWER, UPPER = crop(30, (1,) * 40), crop(100, (1,) * 40)


@pytest.mark.parametrize("feet_first", [True, False])
@pytest.mark.parametrize(
    ("code", "oar", "crops", "changes", "stored"),
    [
        # The tops of the lungs: the lower one, to the upper one.
        (
            "organ.lung_tops",
            "Lung_L",
            {"Lung_L": LOWER, "Lung_R": TALL},
            {"Lung_L": {"head_mm": -250.0}},
            [(69, 59, 69), (30, 10, 30)],
        ),
        # The lower end of an organ, to that of the scan.
        (
            "organ.incomplete",
            "SpinalCord",
            {"SpinalCord": LOWER},
            {"SpinalCord": {"foot_mm": FLOOR_MM + 60}},
            [(30, 0, 30), (69, 69, 199)],
        ),
        # The upper end of the cord, to the lower end of the brainstem.
        (
            "organ.gap",
            "SpinalCord",
            {"SpinalCord": LOWER, "Brainstem": UPPER},
            {"SpinalCord": {"head_mm": -80.0}},
            [(69, 69, 100), (30, 30, 139)],
        ),
        ("scan.cut_at_end", "Brain", {"Brain": TALL}, {"Brain": {"cut_head": True}}, [(59, 59, 59), (10, 10, 10)]),
        ("scan.cut_at_end", "Eye_L", {"Eye_L": TALL}, {"Eye_L": {"cut_foot": True}}, [(10, 10, 10), (59, 59, 59)]),
    ],
    ids=lambda case: case if isinstance(case, str) else "",
)
def test_a_finding_names_its_slices_whichever_end_of_the_scan_is_stored_first(
    code: str,
    oar: str,
    crops: Mapping[str, Crop],
    changes: dict[str, Any],
    stored: list[tuple[int, int, int]],
    *,
    feet_first: bool,
) -> None:
    found = placed(code, crops, feet_first=feet_first, **changes)[oar]
    assert found.slices == Slices(*stored[not feet_first])


def test_what_is_about_an_organ_as_a_whole_shows_on_all_of_its_slices_and_best_where_it_is_widest() -> None:
    found = judge(with_voxels({"Brain": crop(7, (1, 3, 2), row=41), "Eye_L": crop(7, (1, 3, 2))}, Eye_L=moved("Eye_L", x=-300.0)))
    told = {(one.code, one.oar): one.slices for one in found}
    assert told["organ.plausible", "Brain"] == Slices(8, 7, 9)
    assert told["organ.laterality", "Eye_L"] == Slices(8, 7, 9)


def test_findings_come_organ_by_organ_and_keep_the_slices_that_they_name() -> None:
    found = judge(with_voxels({"Brain": TALL}, Brain={"cut_head": True}, Cochlea_L=None, Lung_R={"cut_head": True}))
    places = [OARS.index(BY_NAME[one.oar]) for one in found if one.oar is not None]
    assert places == sorted(places)
    assert {(one.code, one.oar): one.slices for one in found}["scan.cut_at_end", "Brain"] == Slices(59, 59, 59)


def test_what_lies_outside_of_the_skin_is_a_share_of_the_organ_and_on_its_slices() -> None:
    """Two and one of twelve voxels, on the second and third slice."""
    around = SimpleNamespace(outside_by_slice=lambda crop, under_skin: ([0, 2, 1], 12))
    found = with_skin(laid(Parotid_L=crop(70, (4, 4, 4))), around)  # type: ignore[arg-type]
    assert (found.outside, found.outside_slices) == ({LEFT: 0.25}, {LEFT: Slices(71, 71, 72)})


def test_every_check_is_made() -> None:
    assert set(CHECK.values()) == set(CHECKS)


def test_rows_that_run_the_other_way_do_not_change_which_end_is_the_upper_one() -> None:
    """A scan that is turned by half around the patient's long axis."""
    drawn = with_voxels({"Brain": TALL})
    grid = replace(drawn.grid, row_direction=-drawn.grid.row_direction, column_direction=-drawn.grid.column_direction)
    assert replace(drawn, grid=grid).end(BY_NAME["Brain"], at_head=True) == 59


def voxels(*places: tuple[int, int, int], start: tuple[int, int, int] = (50, 40, 30)) -> Crop:
    """An organ of these voxels (slice, row, column), its box at a place of its own."""
    mask = np.zeros(np.max(places, axis=0) + 1, np.bool_)
    mask[tuple(np.transpose(places))] = True
    return tuple(slice(low, low + size) for low, size in zip(start, mask.shape, strict=True)), mask  # type: ignore[return-value]


EDGED = voxels((0, 1, 1), (1, 0, 1), (2, 2, 1), (1, 1, 0), (2, 1, 0), (2, 1, 2), (3, 1, 2), (4, 1, 1))
"""Each of its six end planes has voxels on other slices."""


@pytest.mark.parametrize(
    ("face", "feet_first", "stored"),
    [
        *(
            (face, True, at)
            for face, at in enumerate([(50, 50, 50), (54, 54, 54), (51, 51, 51), (52, 52, 52), (51, 51, 52), (52, 52, 53)])
        ),
        *(
            (face, False, at)
            for face, at in enumerate([(54, 54, 54), (50, 50, 50), (52, 52, 52), (51, 51, 51), (51, 51, 52), (52, 52, 53)])
        ),
    ],
)
def test_a_flat_end_shows_on_the_slices_of_its_plane(face: int, feet_first: bool, stored: tuple[int, int, int]) -> None:
    faces = {"faces": tuple(0.99 if place == face else 0.1 for place in range(6))}
    found = placed("organ.flat_face", {"Parotid_L": EDGED}, feet_first=feet_first, Parotid_L=faces)["Parotid_L"]
    assert found.slices == Slices(*stored)


@pytest.mark.parametrize(
    ("half", "feet_first", "end"), [(4, True, 59), (5, True, 10), (4, False, 10), (5, False, 59), (0, True, None)]
)
def test_a_half_that_is_missing_above_or_below_shows_at_that_end(half: int, feet_first: bool, end: int | None) -> None:
    weights = np.array(HALVES["Parotid"].weights)
    wanted = np.full(6, 1.9)
    wanted[half] = 2.0
    features = np.linalg.solve(weights[:, 1:], wanted - weights[:, 0] * math.log(0.5))
    lacking = {
        "volume_ml": NORMS["Parotid_L"].volume_ml / 2,
        "spread_mm": np.exp(features[:3]),
        "anchor_mm": np.array(NORMS["Parotid_L"].position_mm) + features[3:],
    }
    found = placed("organ.half", {"Parotid_L": TALL}, feet_first=feet_first, Parotid_L=lacking)["Parotid_L"]
    assert (found.value, found.low, found.high, found.unit) == (pytest.approx(2.0), None, 1 / 1.3, "of the red limit")
    assert found.slices == (None if end is None else Slices(end, end, end))


@pytest.mark.parametrize(
    ("start", "stored"),
    [((50, 0, 30), (51, 51, 51)), ((50, 397, 30), (52, 52, 52)), ((50, 40, 0), (51, 51, 52)), ((50, 40, 397), (52, 52, 53))],
    ids=["first row", "last row", "first column", "last column"],
)
def test_an_organ_at_the_edge_of_the_images_shows_where_it_reaches_it(
    start: tuple[int, int, int], stored: tuple[int, int, int]
) -> None:
    _, mask = EDGED
    moved_there = tuple(slice(low, low + size) for low, size in zip(start, mask.shape, strict=True))
    found = placed("scan.cut_at_side", {"Parotid_L": (moved_there, mask)}, Parotid_L={"cut_side": True})  # type: ignore[dict-item]
    assert found["Parotid_L"].slices == Slices(*stored)


def test_pieces_beside_the_largest_one_show_on_their_slices_and_corners_join() -> None:
    three, two = ((0, 0, 0), (1, 1, 1), (2, 2, 2)), ((4, 0, 0), (5, 0, 0))
    for largest, others, stored in ((three, two, (54, 54, 55)), (two, three[:1], (50, 50, 50))):
        found = placed("organ.islands", {"Eye_R": voxels(*largest, *others)}, Eye_R={"largest_share": 0.6, "pieces": 2})
        assert found["Eye_R"].slices == Slices(*stored)


@pytest.mark.parametrize("oar", ["Brain", "OpticNrv_L", "Parotid_R"])
@pytest.mark.parametrize("feet_first", [True, False])
def test_an_organ_that_is_not_drawn_is_looked_for_on_the_slice_where_the_others_put_it(oar: str, feet_first: bool) -> None:
    index = round((NORMS[oar].position_mm[2] - FLOOR_MM) / 2)
    at = index if feet_first else SLICES - 1 - index
    assert placed("organ.empty", {}, feet_first=feet_first, **{oar: None})[oar].slices == Slices(at, at, at)


@pytest.mark.parametrize(
    ("z_mm", "index"), [(FLOOR_MM - 1.1, None), (FLOOR_MM - 0.9, 0), (FLOOR_MM + 398.9, 199), (FLOOR_MM + 399.1, None)]
)
def test_a_place_outside_of_the_scan_is_on_no_slice(z_mm: float, index: int | None) -> None:
    expected = None if index is None else Slices(index, index, index)
    assert anatomy().slices_at(np.array([0.0, 0.0, z_mm])) == expected


def laid(**crops: Crop) -> Anatomy:
    whole = anatomy()
    known = {BY_NAME[name]: one for name, one in crops.items()}
    return Anatomy(OARS, known, {oar: whole.shapes[oar] for oar in known}, whole.grid)


def test_an_overlap_shows_where_both_organs_are() -> None:
    (found,) = check_overlaps(laid(Brain=crop(20, (5, 4, 3, 6, 2)), Brainstem=crop(22, (2, 5, 4, 4))))
    assert (found.value, found.low, found.high, found.unit) == (pytest.approx(9 / 15), 0.0, 0.05, "share of the smaller")
    assert found.slices == Slices(23, 22, 24)  # 2, 5 and 2 voxels


def test_boxes_that_do_not_meet_share_nothing() -> None:
    far = [crop(20, (3, 3)), crop(22, (3, 3)), crop(20, (3, 3), row=41), crop(17, (3, 3))]
    for other in far[1:]:
        assert list(check_overlaps(laid(Brain=far[0], Brainstem=other))) == []
        (found,) = check_inside(laid(Lens_L=far[0], Eye_L=other))
        assert (found.value, found.slices) == (0.0, Slices(20, 20, 21))


def test_what_is_not_inside_shows_where_it_is_outside() -> None:
    (found,) = check_inside(laid(Lens_L=crop(20, (4, 4, 4, 4)), Eye_L=crop(19, (9, 9, 3, 2, 9))))
    assert (found.value, found.low, found.high, found.unit) == (pytest.approx(13 / 16), 0.95, 1.0, "share inside")
    assert found.slices == Slices(22, 21, 22)


def test_what_is_of_another_tissue_or_outside_of_the_patient_shows_on_its_slices() -> None:
    jaw = BY_NAME["Bone_Mandible"]
    others = {"compositions": {jaw: Composition(900, 0.2, 0.5, 0.3, (0, 2, 5, 1, 0))}}
    assert placed("organ.density", {"Bone_Mandible": crop(70, (9,) * 5)}, others=others)["Bone_Mandible"].slices == Slices(
        72, 71, 73
    )
    others = {"outside": {LEFT: 0.3}, "outside_slices": {LEFT: Slices(7, 5, 8)}}
    assert placed("organ.skin", {}, others=others)["Parotid_L"].slices == Slices(7, 5, 8)


def test_slices_are_counted_from_1_where_they_are_written() -> None:
    found = Finding("organ.gap", "SpinalCord", Level.RED, "SpinalCord: …", 13.00004, -10.0, None, "mm", Slices(6, 4, 9))
    numbers = {"value": 13.0, "low": -10.0, "high": None, "unit": "mm"}
    words = {"code": "organ.gap", "oar": "SpinalCord", "level": "red", "reason": "SpinalCord: …"}
    assert found.to_json() == words | numbers | {"slices": {"best": 7, "first": 5, "last": 10}}
    assert replace(found, slices=None).to_json()["slices"] is None


# ── limits and edges ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("value", "expected"),
    [(1, "red"), (2, "amber"), (2.5, "amber"), (3, "green"), (5, "green"), (5.5, "amber"), (7, "amber"), (7.5, "red")],
)
def test_a_limit_is_still_inside(value: float, expected: str) -> None:
    assert level_of(value, 2, 3, 5, 7) == expected
    assert level_of(value, 2, 3, 5, 7, no_lower=True) == ("green" if value < 5 else expected)


@pytest.mark.parametrize(
    ("volume", "said"),
    [
        (0.0099, "0.010 ml"),
        (9.44, "9.44 ml"),
        (9.99, "9.99 ml"),
        (10.0, "10.0 ml"),
        (10.4, "10.4 ml"),
        (99.4, "99.4 ml"),
        (99.9, "99.9 ml"),
        (100.0, "100 ml"),
        (100.4, "100 ml"),
        (999.2, "999 ml"),
        (1000.6, "1000 ml"),
    ],
)
def test_a_volume_has_a_decimal_less_from_10_and_100_ml_on_and_tens_from_a_litre_on(volume: float, said: str) -> None:
    assert ml(volume) == said


@pytest.mark.parametrize(("x", "is_told"), [(0.5, False), (-0.5, True), (0.0, True)])
def test_the_middle_itself_is_not_on_the_left(x: float, is_told: bool) -> None:
    found = findings("organ.laterality", Parotid_L=at(x, 0, 0), Parotid_R=None)
    assert {oar: "patient's right" in one.reason for oar, one in found.items()} == ({"Parotid_L": True} if is_told else {})
    found = findings("organ.laterality", Parotid_R=at(x, 0, 0), Parotid_L=None)
    assert {oar: "patient's left" in one.reason for oar, one in found.items()} == ({} if is_told else {"Parotid_R": True})


def test_an_organ_whose_middle_or_place_is_not_known_does_not_keep_others_from_being_judged() -> None:
    """Of four organs, one of which predicts no other's place, the place of that one alone is known."""
    drawn = {"Cochlea_L": {}, "Eye_L": at(-32, -81, 27), "Eye_R": at(32, -81, 27)}
    assert only("organ.laterality", drawn) == {"Eye_L", "Eye_R"}
    drawn = {"Brain": {}, "Brainstem": {}, "Eye_L": {}, "Parotid_L": {"cut_foot": True, **moved("Parotid_L", x=60.0)}}
    assert only("organ.position", drawn) == {"Parotid_L"}


def only(code: str, drawn: dict[str, dict[str, Any]]) -> set[str | None]:
    """The organs that are told where no others are drawn."""
    return set(findings(code, **{oar.name: drawn.get(oar.name) for oar in OARS}))


def test_of_twins_the_one_whose_place_is_known_is_named() -> None:
    drawn = {"Brain": {}, "Brainstem": {}, "Parotid_L": {"cut_foot": True}, "Parotid_R": moved("Parotid_R", x=-40.0)}
    assert only("organ.mirror", drawn) == {"Parotid_L"}


CUT = [{"cut_head": True}, {"cut_foot": True}]


@pytest.mark.parametrize("oar", ["Eye_L", "Lung_L"])
@pytest.mark.parametrize("cut", CUT)
def test_how_high_a_cut_organ_lies_is_judged_where_its_uppermost_part_is_compared(oar: str, cut: dict[str, bool]) -> None:
    z = findings("organ.position", **{oar: moved(oar, z=-60.0) | {"cut_foot": False} | cut})
    assert (oar in z) is (oar == "Lung_L" and "cut_foot" in cut)
    assert oar in findings("organ.position", **{oar: moved(oar, y=60.0) | cut})


@pytest.mark.parametrize("side", ["Eye_L", "Eye_R"])
def test_twins_of_which_one_is_cut_above_are_not_compared_in_height(side: str) -> None:
    assert findings("organ.mirror", **{side: moved(side, z=30.0)}) != {}
    assert findings("organ.mirror", **{side: moved(side, z=30.0) | {"cut_head": True}}) == {}
    assert findings("organ.mirror", **{side: moved(side, x=30.0) | {"cut_head": True}}) != {}


@pytest.mark.parametrize(
    ("change", "predicts"),
    [
        ({"head_mm": -20.0, "foot_mm": -80.0}, True),
        ({"head_mm": -20.0, "foot_mm": -79.9}, False),
        ({"head_mm": -20.0, "foot_mm": -30.0, "cut_foot": False}, True),
        ({"head_mm": -20.0, "foot_mm": -180.0, "cut_head": True}, False),
    ],
)
def test_of_a_cut_cord_60_mm_predict_where_others_are(change: dict[str, Any], predicts: bool) -> None:
    drawn = {oar.name: None for oar in OARS} | {"Brain": {}, "Eye_L": {}, "Eye_R": {}, "SpinalCord": change}
    assert (offset_mm(BY_NAME["Brain"], shapes(**drawn), NORMS) is not None) is predicts


@pytest.mark.parametrize(("change", "predicts"), [({}, True), ({"cut_foot": True}, False), ({"cut_head": True}, False)])
def test_a_jaw_that_is_cut_predicts_nothing(change: dict[str, Any], predicts: bool) -> None:
    drawn = {oar.name: None for oar in OARS} | {"Brain": {}, "Eye_L": {}, "Eye_R": {}, "Bone_Mandible": change}
    assert (offset_mm(BY_NAME["Brain"], shapes(**drawn), NORMS) is not None) is predicts


def test_lungs_are_compared_at_their_tops_unless_one_is_cut_there() -> None:
    level = {"Lung_L": {"head_mm": 0.0}, "Lung_R": {"head_mm": LUNG_TOPS_MM}}
    assert findings("organ.lung_tops", **level) == {}
    lower = {"head_mm": -30.0}
    assert findings("organ.lung_tops", Lung_L=lower, Lung_R={"head_mm": 0.0}).keys() == {"Lung_L"}
    assert findings("organ.lung_tops", Lung_L=lower | {"cut_head": True}, Lung_R={"head_mm": 0.0}) == {}
    assert findings("organ.lung_tops", Lung_L=lower, Lung_R={"head_mm": 0.0, "cut_head": True}) == {}
    assert findings("organ.lung_tops", Lung_L=lower, Lung_R=None) == {}
    assert findings("organ.lung_tops", Lung_L=None, Lung_R=lower) == {}


@pytest.mark.parametrize("side", ["Eye_L", "Eye_R"])
@pytest.mark.parametrize("cut", CUT)
def test_volumes_of_twins_are_compared_where_neither_is_cut(side: str, cut: dict[str, bool]) -> None:
    small = {"volume_ml": NORMS["Eye_L"].volume_ml / 1.5}
    assert findings("organ.symmetry", **{side: small}) != {}
    assert findings("organ.symmetry", **{side: small | cut}) == {}
    other = "Eye_R" if side == "Eye_L" else "Eye_L"
    assert findings("organ.symmetry", **{side: small, other: cut}) == {}


@pytest.mark.parametrize("cut", CUT)
def test_below_the_red_limit_of_its_volume_an_organ_is_tiny_unless_it_is_cut(cut: dict[str, bool]) -> None:
    least = NORMS["Eye_L"].volume_limits_ml()[0]
    pieces = {"largest_share": 0.5, "pieces": 2}
    assert "Eye_L" in findings("organ.islands", Eye_L=pieces | {"volume_ml": least})
    assert findings("organ.islands", Eye_L=pieces | {"volume_ml": least * 0.999}) == {}
    assert "Eye_L" in findings("organ.islands", Eye_L=pieces | {"volume_ml": least * 0.999} | cut)


@pytest.mark.parametrize("feet_first", [True, False])
def test_how_much_is_missing_below_is_measured_to_the_lowest_slice(*, feet_first: bool) -> None:
    found = placed("organ.incomplete", {}, feet_first=feet_first, SpinalCord={"foot_mm": FLOOR_MM + 60})["SpinalCord"]
    assert found.value == pytest.approx(60)


@pytest.mark.parametrize("face", range(6))
@pytest.mark.parametrize("side", ["Parotid_L", "Parotid_R"])
def test_a_half_is_looked_for_where_every_face_of_both_twins_can_be_judged(side: str, face: int) -> None:
    half = {
        "volume_ml": NORMS["Parotid_L"].volume_ml / 2,
        "spread_mm": np.ones(3),
        "anchor_mm": moved("Parotid_L", z=-20.0)["anchor_mm"],
    }
    assert findings("organ.half", Parotid_L=half) != {}
    judged = tuple(place != face for place in range(6))
    changes = {"Parotid_L": half, "Parotid_R": {}}
    changes[side] = changes[side] | {"judged": judged}
    assert findings("organ.half", **changes) == {}


def test_with_exactly_four_fifths_of_its_twins_volume_an_organ_may_lack_a_half() -> None:
    far = {"spread_mm": np.ones(3), "anchor_mm": moved("Parotid_L", z=-60.0)["anchor_mm"]}
    assert "Parotid_L" in findings("organ.half", Parotid_L=far | {"volume_ml": 20.0}, Parotid_R={"volume_ml": 25.0})
    assert findings("organ.half", Parotid_L=far | {"volume_ml": 20.01}, Parotid_R={"volume_ml": 25.0}) == {}


@pytest.mark.parametrize(("lighter", "denser", "rest"), [(0.5, 0.3, "lighter"), (0.3, 0.5, "denser"), (0.4, 0.4, "denser")])
def test_what_most_of_the_wrong_tissue_is_is_said(lighter: float, denser: float, rest: str) -> None:
    others = {"compositions": {LEFT: Composition(900, 0.1, lighter, denser)}}
    assert f"The rest is mostly {rest}." in findings("organ.density", others=others)["Parotid_L"].reason


def test_an_organ_of_which_nothing_is_known_does_not_keep_others_from_being_judged() -> None:
    wrong, unsure = Composition(900, 0.1, 0.5, 0.4), Certainty(NORMS["Parotid_L"].volume_ml, 1.0, 10.0)
    tiny = {"volume_ml": 0.001}
    assert findings("organ.density", others={"compositions": {RIGHT: wrong, LEFT: wrong}}, Parotid_R=tiny).keys() == {"Parotid_L"}
    unknown = [(BY_NAME["Eye_L"], unsure), (BY_NAME["Eye_R"], Certainty(1.0, 0.0, 0.0)), (RIGHT, Certainty(0.0, 1.0, 10.0))]
    told = findings("organ.certainty", others={"certainty": {**dict(unknown), LEFT: unsure}}, Eye_L=None)
    assert told.keys() == {"Parotid_L"}


def test_whether_a_volume_is_small_or_large_is_said_from_the_usual_limits_on() -> None:
    for volume, said in ((SMALL_ML - 0.1, "too small"), (LARGE_ML + 0.1, "too large")):
        assert said in findings("organ.volume", Brain={"volume_ml": volume})["Brain"].reason


@pytest.mark.parametrize(("side", "outwards"), [("Parotid_L", 5.0), ("Parotid_R", -5.0)])
def test_what_tells_half_an_organ_is_its_size_and_place_over_those_of_its_twin(side: str, outwards: float) -> None:
    own = replace(
        shape(side), volume_ml=9.0, spread_mm=np.array([2.0, 3.0, 4.0]), anchor_mm=moved(side, x=5.0, y=6.0, z=7.0)["anchor_mm"]
    )
    twin = "Parotid_R" if side == "Parotid_L" else "Parotid_L"
    other = replace(shape(twin), volume_ml=12.0, spread_mm=np.array([4.0, 1.5, 2.0]))
    features = half_features(BY_NAME[side], own, other, NORMS)
    assert features == pytest.approx([*np.log([9 / 12, 2 / 4, 3 / 1.5, 4 / 2]), outwards, 6, 7])


def test_a_share_is_never_too_large() -> None:
    assert findings("organ.density", others={"compositions": {LEFT: Composition(900, 1.0, 0.0, 0.0)}}) == {}
    sure = Certainty(NORMS["Parotid_L"].volume_ml, 10.0, 10.0)
    assert findings("organ.certainty", others={"certainty": {LEFT: sure}}) == {}


@pytest.mark.parametrize(("ratio", "said"), [(1.45, "more was drawn than the model found"), (0.69, "parts were dropped or lost")])
def test_it_is_said_whether_more_or_less_was_delivered_than_the_model_found(ratio: float, said: str) -> None:
    seen = Certainty(NORMS["Parotid_L"].volume_ml / ratio, 10.0, 10.0)
    assert said in findings("organ.delivered", others={"certainty": {LEFT: seen}})["Parotid_L"].reason


def test_a_lens_in_its_eye_overlaps_others_alone_and_without_an_eye_it_is_not_asked_for_one() -> None:
    drawn = laid(Lens_L=crop(20, (4, 4)), Eye_L=crop(20, (4, 4)), Parotid_L=crop(20, (4, 4)))
    pairs = [one.reason.partition(". ")[0] for one in check_overlaps(drawn)]
    assert pairs == ["Lens_L: overlaps Parotid_L", "Eye_L: overlaps Parotid_L"]
    assert list(check_inside(laid(Lens_L=crop(20, (4, 4))))) == []
    assert list(check_inside(laid(Eye_L=crop(20, (4, 4))))) == []

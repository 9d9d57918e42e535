"""Each check says the right thing of the right side, and its limits are those of docs/qa.md: one case inside, one outside."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from oarlock.geometry.masks import Crop
from oarlock.organs.catalogue import BY_NAME, OARS
from oarlock.organs.norms import HALVES, LUNG_TOPS_MM, NORMS, PAIRS, TISSUES, tolerance_factor, tolerance_factor_above
from oarlock.qa.checks.anatomy import Anatomy
from oarlock.qa.checks.finding import Level, ml
from oarlock.qa.checks.neighbours import check_inside, check_overlaps
from oarlock.qa.checks.place import offset_mm
from oarlock.qa.plausibility import judge
from oarlock.qa.tissue import Composition
from oarlock.segmentation.certainty import Certainty
from tests.qa import mean_patient
from tests.qa.mean_patient import FLOOR_MM, STEM_FOOT_MM, anatomy, findings, level, moved

GREEN, AMBER, RED = Level.GREEN, Level.AMBER, Level.RED
NEXT = 1e-6
"""As far beyond a limit as matters to no patient."""


def test_the_mean_patient_is_green_in_every_organ() -> None:
    assert {found.code for found in judge(anatomy())} == {"organ.plausible", "scan.cut_at_end"}
    assert {found.level for found in judge(anatomy())} == {GREEN}


# ── place ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("oar", "side", "x"), [("Parotid_L", "right", -100.0), ("Parotid_R", "left", 100.0)])
def test_an_organ_without_a_twin_on_the_wrong_side_is_told_with_that_side(oar: str, side: str, x: float) -> None:
    twin = {"Parotid_L": "Parotid_R", "Parotid_R": "Parotid_L"}[oar]
    found = findings("organ.laterality", **{oar: {"anchor_mm": np.array([x, 0.0, 0.0])}, twin: None})
    assert found.keys() == {oar}
    assert (found[oar].level, found[oar].value) == (RED, x)
    assert found[oar].reason == f"{oar}: wrong side. It lies on the patient's {side}; left and right may be exchanged."


def test_exchanged_twins_are_both_told_each_with_the_side_it_lies_on() -> None:
    swapped = {"Eye_L": {"anchor_mm": np.array(NORMS["Eye_R"].position_mm)}, "Eye_R": {"anchor_mm": np.array([31.9, -80.8, 27])}}
    found = findings("organ.laterality", **swapped)
    assert "It lies on the patient's right;" in found["Eye_L"].reason
    assert "It lies on the patient's left;" in found["Eye_R"].reason
    assert {one.level for one in found.values()} == {RED}


WAYS = [
    ("x", -1, "right"),
    ("x", 1, "left"),
    ("y", -1, "front"),
    ("y", 1, "back"),
    ("z", -1, "feet"),
    ("z", 1, "head"),
]


@pytest.mark.parametrize(("axis", "sign", "way"), WAYS)
@pytest.mark.parametrize("oar", ["Parotid_L", "Parotid_R", "Brain"])
def test_a_misplaced_organ_is_told_with_its_distance_and_direction(oar: str, axis: str, sign: int, way: str) -> None:
    found = findings("organ.position", **{oar: moved(oar, **{axis: sign * 40.0})})[oar]
    norm = NORMS[oar]
    known = f"up to {norm.off_usual_mm['xyz'.index(axis)]:.0f} mm is usual, by {norm.placed} patients"
    assert found.reason == f"{oar}: misplaced. It lies 40 mm too far to the {way}, seen from the organs around it; {known}."
    assert (found.level, found.value) == (RED, pytest.approx(sign * 40.0))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_position_is_amber_beyond_the_usual_distance_and_red_beyond_the_limit(axis: int) -> None:
    usual, red = NORMS["Brainstem"].off_usual_mm[axis], NORMS["Brainstem"].off_mm[axis]
    for off, expected in ((usual, GREEN), (usual + NEXT, AMBER), (red, AMBER), (red + NEXT, RED)):
        brainstem = moved("Brainstem", **{"xyz"[axis]: off})
        assert level("organ.position", "Brainstem", Brainstem=brainstem) is expected


@pytest.mark.parametrize("organ", ["Brainstem", "Parotid_L"])
def test_two_misplaced_organs_of_the_five_nearest_do_not_move_where_an_organ_is_expected(organ: str) -> None:
    own = np.array(NORMS[organ].position_mm)
    distance = {oar.name: float(np.linalg.norm(own - NORMS[oar.name].position_mm)) for oar in OARS if oar.name != organ}
    nearest = sorted(distance, key=distance.__getitem__)
    far = mean_patient.shapes(**{name: moved(name, y=100.0) for name in nearest[:2]})
    off = offset_mm(BY_NAME[organ], far, NORMS)
    assert off == pytest.approx(np.zeros(3), abs=1e-9)
    farther = mean_patient.shapes(**{name: moved(name, y=100.0) for name in nearest[:3]})
    assert offset_mm(BY_NAME[organ], farther, NORMS) == pytest.approx([0, -100, 0])


def test_a_position_is_asked_of_three_neighbours_at_least() -> None:
    few = {oar: None for oar in NORMS if oar not in {"Brain", "Eye_L", "Eye_R"}}
    assert offset_mm(BY_NAME["Brain"], mean_patient.shapes(**few), NORMS) is None
    few.pop("Brainstem")
    assert offset_mm(BY_NAME["Brain"], mean_patient.shapes(**few), NORMS) is not None


@pytest.mark.parametrize(("axis", "way"), list(enumerate(["from side to side", "from front to back", "along the body"])))
@pytest.mark.parametrize(("moves", "stays"), [("Eye_L", "Eye_R"), ("Eye_R", "Eye_L")])
def test_the_twin_that_is_off_the_mirror_image_is_named(moves: str, stays: str, axis: int, way: str) -> None:
    pair = PAIRS["Eye"]
    usual, red = pair.off_usual_mm[axis], pair.off_mm[axis]
    levels = ((usual - NEXT, GREEN), (usual + NEXT, AMBER), (red - NEXT, AMBER), (red + 1, RED))
    assert [level("organ.mirror", moves, **{moves: moved(moves, **{"xyz"[axis]: off})}) for off, _ in levels] == [
        expected for _, expected in levels
    ]
    found = findings("organ.mirror", **{moves: moved(moves, **{"xyz"[axis]: red + 1.0})})
    assert found.keys() == {moves}
    assert found[moves].reason == (
        f"{moves}: not opposite {stays}. The two are {red + 1:.0f} mm {way} from being mirror images of each other; "
        f"up to {usual:.0f} mm is usual, by {pair.patients} patients."
    )


@pytest.mark.parametrize(
    ("upper", "lower"),
    [
        ("Brain", "Brainstem"),
        ("Brainstem", "SpinalCord"),
        ("Eye_L", "Bone_Mandible"),
        ("Eye_R", "Bone_Mandible"),
        ("Bone_Mandible", "Lung_L"),
        ("Bone_Mandible", "Lung_R"),
    ],
)
def test_two_organs_out_of_their_order_along_the_body_are_told(upper: str, lower: str) -> None:
    def told(above_mm: float) -> set[tuple[Level, str]]:
        z = NORMS[lower].position_mm[2] + above_mm
        found = judge(anatomy(**{upper: {"anchor_mm": np.array([0.0, 0.0, z])}}))
        return {(one.level, one.reason) for one in found if one.code == "organ.order"}

    sentence = RED, f"{upper}: lies below {lower}. The series or the contours may be upside down."
    assert sentence in told(0.0)
    assert sentence not in told(NEXT)


@pytest.mark.parametrize(("low", "high"), [("Lung_L", "Lung_R"), ("Lung_R", "Lung_L")])
def test_the_lung_that_begins_too_low_is_named(low: str, high: str) -> None:
    top = mean_patient.shape(low).head_mm
    assert findings("organ.lung_tops", **{low: {"head_mm": top - LUNG_TOPS_MM}}) == {}
    found = findings("organ.lung_tops", **{low: {"head_mm": top - 20.0}})
    assert found.keys() == {low}
    assert (found[low].level, found[low].reason) == (RED, f"{low}: begins too low. Its top is 20 mm below that of {high}.")
    assert level("organ.lung_tops", low, **{low: {"head_mm": top - LUNG_TOPS_MM - 1e-3}}) is RED


# ── whole ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("oar", ["Brain", "Parotid_L", "Parotid_R"])
def test_a_volume_is_amber_and_red_beyond_the_limits_of_the_norms(oar: str) -> None:
    red_below, amber_below, amber_above, red_above = NORMS[oar].volume_limits_ml()
    cases = [
        (red_below * (1 - NEXT), RED),
        (red_below, AMBER),
        (amber_below * (1 - NEXT), AMBER),
        (amber_below, GREEN),
        (amber_above, GREEN),
        (amber_above * (1 + NEXT), AMBER),
        (red_above, AMBER),
        (red_above * (1 + NEXT), RED),
    ]
    for volume_ml, expected in cases:
        assert level("organ.volume", oar, **{oar: {"volume_ml": volume_ml}}) is expected, volume_ml


@pytest.mark.parametrize(("patients", "content"), [(10, 0.95), (20, 0.95), (20, 0.999), (100, 0.99)])
def test_a_tolerance_factor_is_that_of_howe_to_one_percent(patients: int, content: float) -> None:
    # Howe's formula with SciPy's own quantiles; the code has only those of the normal distribution.
    z, chi2 = stats.norm.ppf((1 + content) / 2), stats.chi2.ppf(0.05, patients - 1)
    howe = z * math.sqrt((1 + 1 / patients) * (patients - 1) / chi2)
    assert tolerance_factor(patients, content) == pytest.approx(howe, rel=0.01)


@pytest.mark.parametrize(
    ("patients", "content", "table"), [(10, 0.95, 2.911), (20, 0.95, 2.396), (20, 0.99, 3.295), (50, 0.99, 2.863)]
)
def test_a_one_sided_tolerance_factor_is_that_of_the_tables_to_two_percent(patients: int, content: float, table: float) -> None:
    """With 95 % confidence; the published factors (NIST/SEMATECH e-Handbook 7.2.6.3) are of the noncentral t distribution."""
    exact = stats.nct.ppf(0.95, patients - 1, stats.norm.ppf(content) * math.sqrt(patients)) / math.sqrt(patients)
    assert exact == pytest.approx(table, abs=0.001)
    assert tolerance_factor_above(patients, content) == pytest.approx(exact, rel=0.02)


def test_a_tolerance_factor_is_that_of_the_tables_and_falls_to_the_normal_quantile() -> None:
    # Two-sided, 95 % confidence: 2.752 for 95 % and 20 values (NIST/SEMATECH e-Handbook, 7.2.6.3 and its tables).
    assert tolerance_factor(20, 0.95) == pytest.approx(2.752, rel=0.01)
    assert tolerance_factor(10_000_000, 0.95) == pytest.approx(1.960, abs=0.002)
    assert tolerance_factor(10, 0.95) > tolerance_factor(20, 0.95) > tolerance_factor(100, 0.95)


def test_the_volume_limits_are_tolerance_intervals_and_no_narrower_than_what_was_seen() -> None:
    norm = NORMS["Eye_L"]
    red_below, amber_below, amber_above, red_above = norm.volume_limits_ml()
    low, high = norm.volume_range_ml
    amber, red = (math.exp(tolerance_factor(20, share) * norm.volume_spread) for share in (0.95, 0.999))
    assert norm.patients == 20
    assert (amber_below, amber_above) == (min(norm.volume_ml / amber, low), max(norm.volume_ml * amber, high))
    assert (red_below, red_above) == (min(norm.volume_ml / red, low / 1.1), max(norm.volume_ml * red, high * 1.1))
    unsure = replace(norm, patients=15).volume_limits_ml()
    assert unsure[0] < red_below < amber_below < amber_above < red_above < unsure[3]


def test_a_volume_is_told_with_what_experts_drew_and_a_cut_organ_is_only_ever_too_large() -> None:
    small = findings("organ.volume", Brainstem={"volume_ml": 5.0})["Brainstem"]
    _, low, high, _ = NORMS["Brainstem"].volume_limits_ml()
    usual = f"{ml(low)} to {ml(high)} is usual, by 20 patients"
    assert small.reason == f"Brainstem: too small. 5.00 ml drawn; {usual}."
    large = findings("organ.volume", Brainstem={"volume_ml": 90.0})["Brainstem"]
    assert large.reason == f"Brainstem: too large. 90.0 ml drawn; {usual}."
    for end in ("cut_foot", "cut_head"):
        assert level("organ.volume", "Brainstem", Brainstem={"volume_ml": 5.0, end: True}) is GREEN
        assert level("organ.volume", "Brainstem", Brainstem={"volume_ml": 90.0, end: True}) is RED


@pytest.mark.parametrize(("small", "large"), [("Eye_L", "Eye_R"), ("Eye_R", "Eye_L")])
def test_the_smaller_twin_is_named_from_the_usual_factor_on(small: str, large: str) -> None:
    pair, whole = PAIRS["Eye"], NORMS["Eye_L"].volume_ml
    cases = [
        (pair.usual - NEXT, GREEN),
        (pair.usual + NEXT, AMBER),
        (pair.implausible - NEXT, AMBER),
        (pair.implausible + NEXT, RED),
    ]
    for factor, expected in cases:
        assert level("organ.symmetry", small, **{small: {"volume_ml": whole / factor}}) is expected, factor
    found = findings("organ.symmetry", **{small: {"volume_ml": whole / 1.5}})
    assert found.keys() == {small}
    assert found[small].reason == (
        f"{small}: much smaller than {large}. Their volumes differ by a factor of 1.5; "
        f"up to {pair.usual:.2g} is usual, by 20 patients."
    )
    assert findings("organ.symmetry", **{small: {"volume_ml": whole / 1.5, "cut_foot": True}}) == {}


FACES = ["towards the feet", "towards the head", "in front", "at the back", "on the right", "on the left"]


@pytest.mark.parametrize(("face", "where"), list(enumerate(FACES)))
@pytest.mark.parametrize("oar", ["Parotid_L", "Parotid_R"])
def test_a_flat_end_is_told_with_its_side(oar: str, face: int, where: str) -> None:
    def faces(share: float) -> tuple[float, ...]:
        return tuple(share if place == face else 0.1 for place in range(6))

    limit = NORMS[oar].faces[face]
    assert findings("organ.flat_face", **{oar: {"faces": faces(limit)}}) == {}
    found = findings("organ.flat_face", **{oar: {"faces": faces(limit + NEXT)}})[oar]
    assert (found.level, found.reason) == (RED, f"{oar}: flat end {where}. Part of it may be missing there.")
    unjudged = {"faces": faces(1.0), "judged": tuple(place != face for place in range(6))}
    assert findings("organ.flat_face", **{oar: unjudged}) == {}


@pytest.mark.parametrize("oar", ["Parotid_L", "Parotid_R"])
@pytest.mark.parametrize("half", range(6))
def test_a_half_is_amber_from_77_percent_of_its_limit_and_named(half: int, oar: str) -> None:
    weights = np.array(HALVES["Parotid"].weights)

    def scored(share: float) -> dict[str, Any]:
        """Half the volume, and the six other features for which this half has the score and each other one 0.1 less."""
        wanted = np.full(6, share - 0.1)
        wanted[half] = share
        return featured(oar, np.array([math.log(0.5), *np.linalg.solve(weights[:, 1:], wanted - weights[:, 0] * math.log(0.5))]))

    assert findings("organ.half", **{oar: scored(1 / 1.3 - 1e-3)}) == {}
    for share, expected in ((1 / 1.3 + 1e-3, AMBER), (1 - 1e-3, AMBER), (1 + 1e-3, RED)):
        found = findings("organ.half", **{oar: scored(share)})[oar]
        assert (found.level, found.value) == (expected, pytest.approx(share, abs=1e-9))
        assert f"the {('outer', 'inner', 'front', 'back', 'upper', 'lower')[half]} half" in found.reason
    found = findings("organ.half", **{oar: scored(3.0)})[oar]
    assert found.level is RED
    assert found.reason.endswith(
        f"half may be missing. It has 50% of the volume of {'Parotid_R' if oar[-1] == 'L' else 'Parotid_L'}."
    )


def test_an_organ_with_four_fifths_of_its_twins_volume_does_not_lack_a_half_whatever_its_form() -> None:
    def lens(share: float) -> dict[str, Any]:
        return featured("Lens_L", np.array([math.log(share), 0, -1.2, 0, 0, 2.5, 0]))

    assert findings("organ.half", Lens_L=lens(0.81)) == {}
    found = findings("organ.half", Lens_L=lens(0.79))["Lens_L"]
    assert (found.level, found.reason) == (
        RED,
        "Lens_L: the back half may be missing. It has 79% of the volume of Lens_R.",
    )


def featured(oar: str, features: np.ndarray) -> dict[str, Any]:
    """The change of an organ that gives it these features against its twin (see ``half_features``)."""
    outwards = np.array([1.0 if oar.endswith("L") else -1.0, 1.0, 1.0])
    return {
        "volume_ml": NORMS[oar].volume_ml * math.exp(features[0]),
        "spread_mm": np.exp(features[1:4]),
        "anchor_mm": np.array(NORMS[oar].position_mm) + outwards * features[4:],
    }


@pytest.mark.parametrize(("oar", "whole_mm"), [("SpinalCord", 350), ("SpinalCanal", 350), ("Lung_L", 150), ("Lung_R", 150)])
def test_an_organ_that_ends_more_than_10_mm_above_the_scans_end_is_told_unless_it_is_whole(oar: str, whole_mm: int) -> None:
    def ends(gap_mm: float, length_mm: float) -> dict[str, Any]:
        return {"foot_mm": FLOOR_MM + gap_mm, "head_mm": FLOOR_MM + gap_mm + length_mm}

    assert findings("organ.incomplete", **{oar: ends(10.0, 60.0)}) == {}
    found = findings("organ.incomplete", **{oar: ends(20.0, 60.0)})[oar]
    assert (found.level, found.reason) == (RED, f"{oar}: lower part missing. It ends 20 mm above the lower end of the scan.")
    assert level("organ.incomplete", oar, **{oar: ends(10.01, whole_mm - 0.01)}) is RED
    assert findings("organ.incomplete", **{oar: ends(10.01, whole_mm)}) == {}


@pytest.mark.parametrize("oar", ["SpinalCord", "SpinalCanal"])
@pytest.mark.parametrize(("sign", "relation"), [(1, "below"), (-1, "above")])
def test_cord_and_canal_meet_the_brainstem_within_10_mm(oar: str, sign: int, relation: str) -> None:
    assert findings("organ.gap", **{oar: {"head_mm": STEM_FOOT_MM - sign * 10.0}}) == {}
    assert level("organ.gap", oar, **{oar: {"head_mm": STEM_FOOT_MM - sign * 10.01}}) is RED
    found = findings("organ.gap", **{oar: {"head_mm": STEM_FOOT_MM - sign * 15.0}})[oar]
    assert found.reason == f"{oar}: does not meet the Brainstem. It begins 15 mm {relation} the Brainstem's lower end."


# ── presence ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("oar", [oar.name for oar in OARS])
def test_an_organ_that_was_not_drawn_is_red_where_everybody_has_it_and_amber_elsewhere(oar: str) -> None:
    found = findings("organ.empty", **{oar: None})
    everybody = {"Brain", "Brainstem", "Bone_Mandible", "SpinalCanal", "SpinalCord"}
    assert {name: one.level for name, one in found.items()} == {oar: RED if oar in everybody else AMBER}
    assert found[oar].reason == f"{oar}: not drawn. Check that it is in the scan and was not removed by surgery."


@pytest.mark.parametrize(("share", "expected"), [(0.95, GREEN), (0.95 - NEXT, AMBER), (0.6, AMBER), (0.6 - NEXT, RED)])
def test_pieces_are_told_from_5_percent_outside_of_the_largest_on(share: float, expected: Level) -> None:
    assert level("organ.islands", "Eye_R", Eye_R={"largest_share": share, "pieces": 2}) is expected


def test_pieces_are_counted() -> None:
    found = findings("organ.islands", Eye_R={"largest_share": 0.7, "pieces": 3})["Eye_R"]
    assert found.reason == "Eye_R: 3 pieces. The largest has 70% of it."


def test_an_end_of_the_scan_cuts_in_amber_but_where_every_scan_does() -> None:
    assert level("scan.cut_at_end", "Eye_L", Eye_L={"cut_foot": True}) is AMBER
    found = findings("scan.cut_at_end", Brain={"cut_head": True})
    assert (found["Brain"].level, found["Lung_L"].level) == (AMBER, GREEN)
    assert found["Brain"].reason == "Brain: cut by the upper end of the scan. Its volume and dose are those of a part."
    assert found["Lung_L"].reason == "Lung_L: cut by the lower end of the scan. Its volume and dose are those of a part."
    assert level("scan.cut_at_end", "Lung_L", Lung_L={"cut_head": True, "cut_foot": False}) is AMBER


def test_the_edge_of_the_images_is_red() -> None:
    found = findings("scan.cut_at_side", Lung_R={"cut_side": True})
    assert {name: one.level for name, one in found.items()} == {"Lung_R": RED}
    assert found["Lung_R"].reason.startswith("Lung_R: reaches the edge of the images. ")


# ── neighbours ────────────────────────────────────────────────────────────────────────────────────────────────────────


def row(start: int, stop: int) -> Crop:
    """Voxels in a row."""
    return (slice(0, 1), slice(0, 1), slice(start, stop)), np.ones((1, 1, stop - start), np.bool_)


def with_rows(**rows: Crop) -> Anatomy:
    whole = anatomy()
    crops = {BY_NAME[name]: crop for name, crop in rows.items()}
    return Anatomy(OARS, crops, {oar: whole.shapes[oar] for oar in crops}, whole.grid)


@pytest.mark.parametrize(("shared", "expected"), [(50, GREEN), (51, AMBER), (200, AMBER), (201, RED)])
def test_an_overlap_is_amber_above_5_and_red_above_20_percent_of_the_smaller_one(shared: int, expected: Level) -> None:
    found = list(check_overlaps(with_rows(Brain=row(0, 3000), Brainstem=row(3000 - shared, 4000 - shared))))
    assert ([one.level for one in found] or [GREEN]) == [expected]
    for one in found:
        share = f"{shared / 1000:.0%}"
        assert one.reason == f"Brain: overlaps Brainstem. They share {share} of the smaller one; the same tissue cannot be both."


@pytest.mark.parametrize(("inside", "expected"), [(950, GREEN), (949, AMBER), (800, AMBER), (799, RED)])
@pytest.mark.parametrize(("inner", "outer"), [("Lens_L", "Eye_L"), ("Lens_R", "Eye_R"), ("SpinalCord", "SpinalCanal")])
def test_lens_and_cord_lie_inside_by_95_percent(inner: str, outer: str, inside: int, expected: Level) -> None:
    drawn = with_rows(**{outer: row(0, 2000), inner: row(2000 - inside, 3000 - inside)})
    found = list(check_inside(drawn))
    assert ([one.level for one in found] or [GREEN]) == [expected]
    for one in found:
        assert (one.oar, one.reason) == (inner, f"{inner}: not inside {outer}. Only {inside / 1000:.0%} of it lies there.")
    assert list(check_overlaps(drawn)) == []


# ── density and certainty ───────────────────────────────────────────────────────────────────────────────────────────────


def tissue(share: float, voxels: int = 1000) -> dict[str, Any]:
    return {"compositions": {BY_NAME["Bone_Mandible"]: Composition(voxels, share, 1 - share, 0.0)}}


def test_the_wrong_tissue_is_told_from_the_usual_share_down() -> None:
    norm = TISSUES["Bone_Mandible"]
    cases = [
        (norm.usual, GREEN),
        (norm.usual - NEXT, AMBER),
        (norm.implausible, AMBER),
        (norm.implausible - NEXT, RED),
    ]
    for share, expected in cases:
        assert level("organ.density", "Bone_Mandible", others=tissue(share)) is expected
    assert level("organ.density", "Bone_Mandible", others=tissue(0.1, voxels=50)) is RED
    assert level("organ.density", "Bone_Mandible", others=tissue(0.1, voxels=49)) is AMBER


@pytest.mark.parametrize(("share", "expected"), [(0.01, GREEN), (0.01 + NEXT, AMBER), (0.05, AMBER), (0.05 + NEXT, RED)])
def test_an_organ_that_leaves_the_patient_is_amber_above_1_and_red_above_5_percent(share: float, expected: Level) -> None:
    for oar in ("Parotid_L", "Parotid_R"):
        assert level("organ.skin", oar, others={"outside": {BY_NAME[oar]: share}}) is expected


def test_an_organ_that_leaves_the_patient_is_told_with_its_share() -> None:
    found = findings("organ.skin", others={"outside": {BY_NAME["Parotid_R"]: 0.38}})["Parotid_R"]
    where = "in air, or in a pad, bolus, mask, tube or hand on the skin"
    assert found.reason == f"Parotid_R: leaves the patient. 38% of it lies {where}."


def test_of_a_tiny_organ_nothing_is_said_but_that_it_is_tiny() -> None:
    tiny = {"volume_ml": 0.008, "faces": (1.0,) * 6, "largest_share": 0.3, "anchor_mm": np.array([21.5, -150.0, 22.9])}
    told = [
        one for one in judge(anatomy(OpticNrv_L=tiny, others=certain("OpticNrv_L", 0.008, 0.0, 1.0))) if one.oar == "OpticNrv_L"
    ]
    assert [(one.code, one.level) for one in told] == [("organ.volume", RED)]
    assert not any(one.code == "organ.symmetry" for one in judge(anatomy(OpticNrv_L=tiny)))


def certain(oar: str, drawn_ml: float, strict_ml: float, loose_ml: float) -> dict[str, Any]:
    return {"certainty": {BY_NAME[oar]: Certainty(drawn_ml, strict_ml, loose_ml)}}


@pytest.mark.parametrize(("strict", "expected"), [(0.5, GREEN), (0.5 - NEXT, AMBER), (0.25, AMBER), (0.25 - NEXT, RED)])
def test_confidence_is_low_where_the_strict_volume_is_under_half_of_the_loose_one(strict: float, expected: Level) -> None:
    volume = NORMS["Lens_L"].volume_ml
    assert level("organ.certainty", "Lens_L", others=certain("Lens_L", volume, strict, 1.0)) is expected


def test_low_confidence_is_told_in_three_volumes() -> None:
    found = findings("organ.certainty", others=certain("Lens_L", 0.24, 0.01, 0.70), Lens_L={"volume_ml": 0.24})["Lens_L"]
    said = "Lens_L: low confidence. 0.24 ml drawn; 0.01 ml at a stricter threshold, 0.70 ml at a looser one."
    assert found.reason == said


def test_what_was_delivered_is_compared_with_what_the_model_found() -> None:
    volume = NORMS["Eye_R"].volume_ml
    cases = [(0.5 + NEXT, AMBER), (0.5 - NEXT, RED), (0.7 + NEXT, GREEN), (0.7 - NEXT, AMBER)]
    cases += [(1.4 - NEXT, GREEN), (1.4 + NEXT, AMBER), (2.0 - NEXT, AMBER), (2.0 + NEXT, RED)]
    for ratio, expected in cases:
        seen = volume / ratio
        assert level("organ.delivered", "Eye_R", others=certain("Eye_R", seen, seen, seen)) is expected, ratio
    lost = findings("organ.delivered", others=certain("Eye_R", 20.0, 20.0, 20.0), Eye_R={"volume_ml": 8.0})["Eye_R"]
    assert lost.reason == "Eye_R: parts were dropped or lost. 8.00 ml drawn; the model found 20.0 ml."
    grown = findings("organ.delivered", others=certain("Eye_R", 2.0, 2.0, 2.0), Eye_R={"volume_ml": 8.0})["Eye_R"]
    assert grown.reason == "Eye_R: more was drawn than the model found. 8.00 ml drawn; the model found 2.00 ml."


@pytest.mark.parametrize(
    ("volume", "said"),
    [
        (0, "0 ml"),
        (0.00763, "0.008 ml"),
        (0.01, "0.01 ml"),
        (0.0312, "0.03 ml"),
        (0.24, "0.24 ml"),
        (3.14159, "3.14 ml"),
        (37.03, "37.0 ml"),
        (138.4, "138 ml"),
        (1138.04, "1140 ml"),
    ],
)
def test_volumes_are_said_as_people_write_them(volume: float, said: str) -> None:
    assert ml(volume) == said

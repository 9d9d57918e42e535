"""Faults that a dosimetrist must not miss, done to real contours; and how quiet the checks are about contours without one."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from oarlock.geometry.grid import Grid
from oarlock.geometry.masks import Crop, OARMasks
from oarlock.organs.catalogue import BY_NAME, OAR, OARS, Laterality, other_side
from oarlock.organs.norms import HALVES, NORMS, PAIRS, TISSUES
from oarlock.qa.checks.anatomy import NORM_TABLES
from oarlock.qa.checks.finding import Finding, Level
from oarlock.qa.organ_shape import Shape, shape_of
from oarlock.qa.plausibility import check_masks, judge
from oarlock.qa.tissue import composition_of
from tests.expert_data.expert_contours import cases
from tests.expert_data.planning_ct import LaidCT, PlanningCTs
from tests.fixtures.crooked import SHAPE, oblique_grid
from tests.fixtures.crooked import crooked_grid as crooked_grid_
from tests.qa.mean_patient import of_any_size
from tools.derive_norms import ContourSet, halved, limits, printed
from tools.studies.faults import anatomy, level, shifted, shifted_set

DENSITY_RED = ("organ.density", Level.RED)
LEFTS = [oar for oar in OARS if oar.laterality is Laterality.LEFT]


@dataclass(frozen=True)
class Patient:
    masks: OARMasks
    grid: Grid

    def with_mask(self, oar: OAR, volume: np.ndarray) -> "Patient":
        copy = OARMasks(self.masks.oars, self.masks.bits.copy())
        copy.put(oar, np.s_[:, :, :], volume)
        return Patient(copy, self.grid)

    def checks(self) -> tuple[Finding, ...]:
        return check_masks(self.masks, self.grid)

    def reds(self) -> set[tuple[str, str | None]]:
        return {(check.code, check.oar) for check in self.checks() if check.level is Level.RED}

    def red_organs(self) -> set[str | None]:
        return {oar for _, oar in self.reds()}


@pytest.fixture(scope="module")
def patient(expert_contours: Path) -> Patient:
    """An expert's contours, coarser in plane (every second voxel) so that a test may spoil them quickly."""
    case = next(case for case in cases(expert_contours) if case.name == "0522c0669")
    masks, grid = case.masks("oncologist")
    coarse = Grid(
        grid.rows // 2,
        grid.columns // 2,
        grid.origins_mm,
        grid.row_direction,
        grid.column_direction,
        grid.row_spacing_mm * 2,
        grid.column_spacing_mm * 2,
    )
    return Patient(OARMasks(masks.oars, np.ascontiguousarray(masks.bits[:, ::2, ::2])), coarse)


def shape(masks: OARMasks, grid: Grid, oar: OAR) -> Shape:
    crop = masks.crop(oar)
    assert crop is not None
    return shape_of(crop, grid, oar)


@pytest.fixture(scope="module", params=["0522c0708", "TCGA-CV-7245"])
def drawn(request: pytest.FixtureRequest, expert_sets: Sequence[ContourSet]) -> ContourSet:
    """An expert's contours at full size, of two centres."""
    return next(one for one in expert_sets if (one.case, one.rater) == (request.param, "oncologist"))


@pytest.fixture
def ct(drawn: ContourSet, planning_cts: PlanningCTs) -> LaidCT:
    """The CT that the contours were drawn on."""
    return planning_cts.laid[drawn.case]


def worst(drawn: ContourSet, oar: OAR, change: Crop | None, ct: LaidCT) -> Level:
    """The level of an organ, or of its twin, after it was replaced."""
    return level(judge(anatomy(drawn, NORM_TABLES, {oar: change}, ct)), oar, other_side(oar))


AMBER_SHIFTS = {("0522c0708", "Glnd_Submand_R", 20.0, 1), ("TCGA-CV-7245", "Glnd_Submand_L", 20.0, 1)}
"""Shifts of 2 cm along y that are amber."""

FEW_VOXELS = {"Cochlea_L", "Cochlea_R", "Lens_L", "Lens_R", "OpticNrv_L", "OpticNrv_R", "Glnd_Lacrimal_L", "Glnd_Lacrimal_R"}


@pytest.mark.long("cohort")
@pytest.mark.parametrize("oar", OARS, ids=str)
def test_half_of_an_organ_deleted_is_red_whichever_half(oar: OAR, drawn: ContourSet, ct: LaidCT) -> None:
    levels = [worst(drawn, oar, half, ct) for half in halved(oar, drawn.crops[oar]) if half is not None]
    if oar.name not in FEW_VOXELS:
        assert levels == [Level.RED] * 6
    else:  # of twenty voxels ten may also be a small whole one: half of the halves are red, most not green (docs/qa.md)
        assert levels.count(Level.RED) >= 3
        assert levels.count(Level.GREEN) <= 2


@pytest.mark.long("cohort")
@pytest.mark.parametrize("axis", [0, 1, 2], ids="zyx")
@pytest.mark.parametrize("shift_mm", [-20.0, 20.0])
@pytest.mark.parametrize("oar", [oar for oar in OARS if not oar.name.startswith("Lung")], ids=str)
def test_an_organ_shifted_by_2_cm_is_red(oar: OAR, shift_mm: float, axis: int, drawn: ContourSet, ct: LaidCT) -> None:
    expected = Level.AMBER if (drawn.case, oar.name, shift_mm, axis) in AMBER_SHIFTS else Level.RED
    assert worst(drawn, oar, shifted(drawn.crops[oar], axis, shift_mm, drawn), ct) is expected


@pytest.mark.long("cohort")
@pytest.mark.parametrize("axis", [0, 1, 2], ids="zyx")
@pytest.mark.parametrize("shift_mm", [-20.0, 20.0])
@pytest.mark.parametrize("lung", ["Lung_L", "Lung_R"])
@pytest.mark.parametrize("case", ["0522c0014", "0522c0708", "0522c0773", "TCGA-CV-5978"])  # whose CT holds most of the lungs
def test_a_lung_shifted_by_2_cm_is_red(
    case: str, lung: str, shift_mm: float, axis: int, expert_sets: Sequence[ContourSet], planning_cts: PlanningCTs
) -> None:
    drawn = next(one for one in expert_sets if (one.case, one.rater) == (case, "oncologist"))
    change = shifted(drawn.crops[BY_NAME[lung]], axis, shift_mm, drawn)
    assert worst(drawn, BY_NAME[lung], change, planning_cts.laid[case]) is Level.RED


@pytest.mark.long("cohort")
@pytest.mark.parametrize("axis", [0, 1, 2], ids="zyx")
@pytest.mark.parametrize("shift_mm", [-20.0, 20.0])
def test_a_whole_set_shifted_by_2_cm_is_red_by_its_density_alone(
    shift_mm: float, axis: int, drawn: ContourSet, ct: LaidCT
) -> None:
    change = shifted_set(drawn, axis, shift_mm)
    reds = {check.oar for check in judge(anatomy(drawn, NORM_TABLES, change, ct)) if (check.code, check.level) == DENSITY_RED}
    assert {"Bone_Mandible", "SpinalCord"} <= reds


@pytest.mark.long("cohort")
@pytest.mark.parametrize("oar", OARS, ids=str)
def test_an_organ_that_was_not_drawn_is_never_green(oar: OAR, drawn: ContourSet, ct: LaidCT) -> None:
    assert worst(drawn, oar, None, ct) is not Level.GREEN


@pytest.mark.long("cohort")
def test_an_experts_contours_at_full_size_are_not_red(drawn: ContourSet, ct: LaidCT) -> None:
    assert [check for check in judge(anatomy(drawn, NORM_TABLES, ct=ct)) if check.level is Level.RED] == []


@pytest.mark.long("cohort")
def test_no_experts_contours_are_red_and_those_on_a_ct_are_judged_with_it(
    expert_sets: Sequence[ContourSet], planning_cts: PlanningCTs
) -> None:
    cts = [planning_cts.laid.get(one.case) for one in expert_sets]
    assert (len(cts), sum(ct is not None for ct in cts)) == (42, 22)
    judged = [judge(anatomy(one, NORM_TABLES, ct=ct)) for one, ct in zip(expert_sets, cts, strict=True)]
    assert [check for checks in judged for check in checks if check.level is Level.RED] == []


@pytest.mark.long("cohort")
def test_the_tables_in_the_code_are_what_the_benchmark_prints(
    expert_sets: Sequence[ContourSet], planning_cts: PlanningCTs
) -> None:
    rounded = printed(limits(expert_sets, planning_cts))
    assert rounded == printed(NORM_TABLES)


@pytest.mark.long("cohort")
def test_an_experts_contours_are_not_red(patient: Patient) -> None:
    assert patient.reds() == set()


@pytest.mark.long("cohort")
@pytest.mark.parametrize("left", LEFTS, ids=str)
def test_exchanged_sides_are_red_on_both(left: OAR, patient: Patient) -> None:
    right = other_side(left)
    swapped = patient.with_mask(left, patient.masks.mask(right)).with_mask(right, patient.masks.mask(left))
    assert {("organ.laterality", left.name), ("organ.laterality", right.name)} <= swapped.reds()


@pytest.mark.long("cohort")
def test_a_mirrored_scan_is_red_on_every_paired_organ(patient: Patient) -> None:
    mirror = Patient(OARMasks(patient.masks.oars, np.ascontiguousarray(patient.masks.bits[:, :, ::-1])), patient.grid)
    laterality = {oar for code, oar in mirror.reds() if code == "organ.laterality"}
    assert laterality == {oar.name for oar in OARS if oar.laterality}


@pytest.mark.long("cohort")
def test_a_scan_upside_down_is_red(patient: Patient) -> None:
    fallen = Patient(OARMasks(patient.masks.oars, np.ascontiguousarray(patient.masks.bits[::-1])), patient.grid)
    assert ("organ.order", "Brain") in fallen.reds()


@pytest.mark.long("cohort")
def test_overlaps_islands_and_emptiness_are_told(patient: Patient) -> None:
    brain, stem, parotid = BY_NAME["Brain"], BY_NAME["Brainstem"], BY_NAME["Parotid_L"]
    over = patient.with_mask(brain, patient.masks.mask(brain) | patient.masks.mask(stem))
    assert ("organs.overlap", "Brain") in over.reds()
    island = patient.masks.mask(parotid)
    island |= np.roll(island, 40, axis=0)
    assert ("organ.islands", "Parotid_L") in patient.with_mask(parotid, island).reds()
    empty = patient.with_mask(stem, np.zeros_like(island)).checks()
    assert ("organ.empty", Level.RED) in {(check.code, check.level) for check in empty if check.oar == "Brainstem"}


@pytest.mark.long("cohort")
def test_the_checks_do_not_depend_on_how_the_series_is_stored(patient: Patient) -> None:
    # The same patient with the rows running from back to front and the slices from head to foot.
    bits = np.ascontiguousarray(patient.masks.bits[::-1, ::-1])
    rows = patient.grid.rows
    last = patient.grid.origins_mm[::-1] + (rows - 1) * patient.grid.row_spacing_mm * patient.grid.column_direction
    turned = Grid(
        rows,
        patient.grid.columns,
        last,
        patient.grid.row_direction,
        -patient.grid.column_direction,
        patient.grid.row_spacing_mm,
        patient.grid.column_spacing_mm,
    )
    for oar in OARS:
        one = shape(patient.masks, patient.grid, oar)
        other = shape(OARMasks(patient.masks.oars, bits), turned, oar)
        assert other.spread_mm == pytest.approx(one.spread_mm)
        assert other.anchor_mm == pytest.approx(one.anchor_mm)
        assert other.faces == pytest.approx(one.faces)
        assert (other.cut_foot, other.cut_head, other.head_mm) == (one.cut_foot, one.cut_head, pytest.approx(one.head_mm))


def test_the_density_check_says_which_share_of_what_and_what_the_rest_is(crooked_grid: Grid) -> None:
    masks = OARMasks.empty(OARS, SHAPE)
    masks.put(BY_NAME["Bone_Mandible"], np.s_[5:15, 10:20, 10:20], np.ones((10, 10, 10), dtype=np.bool_))
    hu = np.full(SHAPE, 40, dtype=np.int16)
    hu[5:8] = 900
    checks = check_masks(masks, crooked_grid, hu=hu, limits=of_any_size("Bone_Mandible"))
    found = next(check for check in checks if check.code == "organ.density")
    assert (found.oar, found.level, found.value) == ("Bone_Mandible", Level.RED, 0.3)
    assert found.reason.startswith(
        "Bone_Mandible: wrong tissue. Only 30% of it is bone (200 HU or more) on the CT; 66% or more is usual. "
    )
    assert "The rest is mostly lighter." in found.reason
    assert "organ.density" not in {check.code for check in check_masks(masks, crooked_grid)}


@pytest.mark.parametrize(("voxels", "expected"), [(7, Level.AMBER), (8, Level.RED)])
def test_a_few_voxels_of_the_wrong_density_are_no_more_than_amber(voxels: int, expected: Level, crooked_grid: Grid) -> None:
    masks = OARMasks.empty(OARS, SHAPE)
    masks.put(BY_NAME["Lens_L"], np.s_[5 : 5 + voxels, 10:17, 10:11], np.ones((voxels, 7, 1), dtype=np.bool_))
    checks = check_masks(masks, crooked_grid, hu=np.full(SHAPE, -1000, dtype=np.int16))
    assert next(check.level for check in checks if check.code == "organ.density") is expected


def test_what_lies_outside_of_the_scanners_field_is_no_lung() -> None:
    values = np.array([-3024, -1024, -1000, -300, -299], dtype=np.int16)
    found = composition_of(values, TISSUES["Lung_L"].tissue)
    assert (found.voxels, found.share, found.lighter, found.denser) == (5, 0.4, 0.4, 0.2)


def test_a_sentence_names_the_organ_the_number_and_what_is_usual(crooked_grid: Grid) -> None:
    masks = OARMasks.empty(OARS, SHAPE)
    masks.put(BY_NAME["Brainstem"], np.s_[5:20, 10:40, 10:30], np.ones((15, 30, 20), dtype=np.bool_))
    found = next(check for check in check_masks(masks, crooked_grid) if check.code == "organ.flat_face")
    assert found.reason.startswith("Brainstem: flat end ")
    assert found.level is Level.RED
    assert found.to_json()["level"] == "red"


def test_an_organ_at_the_edge_of_the_images_is_red_and_at_the_end_of_the_scan_amber(crooked_grid: Grid) -> None:
    masks = OARMasks.empty(OARS, SHAPE)
    masks.put(BY_NAME["Parotid_L"], np.s_[0:9, 0:9, 10:19], np.ones((9, 9, 9), dtype=np.bool_))
    levels = {check.code: check.level for check in check_masks(masks, crooked_grid) if check.oar == "Parotid_L"}
    assert levels["scan.cut_at_side"] is Level.RED
    assert levels["scan.cut_at_end"] is Level.AMBER


@pytest.mark.parametrize("degrees", [0, 20, 45, 90, 135, 180, 270])
@pytest.mark.parametrize("axis", [0, 1, 2], ids="xyz")
def test_any_orientation_of_the_series_is_judged(degrees: int, axis: int) -> None:
    turn = Rotation.from_euler("xyz"[axis], degrees, degrees=True).as_matrix()
    masks = OARMasks.empty(OARS, SHAPE)
    masks.put(BY_NAME["Brainstem"], np.s_[5:20, 10:40, 10:30], np.ones((15, 30, 20), dtype=np.bool_))
    turned = shape(masks, oblique_grid(turn), BY_NAME["Brainstem"])
    plain = shape(masks, crooked_grid_(), BY_NAME["Brainstem"])
    assert turned.volume_ml == pytest.approx(plain.volume_ml)
    assert turned.anchor_mm == pytest.approx(turn @ plain.anchor_mm)
    assert check_masks(masks, oblique_grid(turn))


def test_a_series_of_one_slice_is_judged() -> None:
    grid = Grid(20, 21, np.zeros((1, 3)), np.array([1.0, 0, 0]), np.array([0, 1.0, 0]), 1.1, 0.9)
    masks = OARMasks.empty(OARS, (1, 20, 21))
    masks.put(BY_NAME["SpinalCord"], np.s_[0:1, 5:9, 5:9], np.ones((1, 4, 4), dtype=np.bool_))
    assert {check.code for check in check_masks(masks, grid) if check.oar == "SpinalCord"} >= {"scan.cut_at_end"}


def test_nothing_drawn_is_red_for_the_organs_that_everybody_has(crooked_grid: Grid) -> None:
    checks = check_masks(OARMasks.empty(OARS, SHAPE), crooked_grid)
    assert len(checks) == 21
    reds = {check.oar for check in checks if check.level is Level.RED}
    assert reds == {"Brain", "Brainstem", "Bone_Mandible", "SpinalCanal", "SpinalCord"}


def test_the_table_of_norms_has_every_organ_and_is_mirror_symmetric() -> None:
    assert set(NORMS) == set(BY_NAME)
    assert set(TISSUES) == set(BY_NAME)
    assert set(PAIRS) == {oar.name[:-2] for oar in LEFTS}
    for left in LEFTS:
        one, other = NORMS[left.name], NORMS[other_side(left).name]
        assert one.position_mm == pytest.approx([-other.position_mm[0], *other.position_mm[1:]])
        assert (one.off_usual_mm, one.off_mm, one.placed) == (other.off_usual_mm, other.off_mm, other.placed)
        assert one.faces == (*other.faces[:4], other.faces[5], other.faces[4])
        assert one.volume_limits_ml() == other.volume_limits_ml()
        assert TISSUES[left.name] == TISSUES[other_side(left).name]


def test_the_table_of_halves_has_every_organ_with_a_twin_but_the_lungs_and_scores_a_mirror_image_0() -> None:
    assert set(HALVES) == set(PAIRS) - {"Lung"}
    for halving in HALVES.values():
        assert halving.scores(np.zeros(7)).tolist() == [0.0] * 6


@pytest.mark.parametrize("missing", ["front", "upper"])
def test_a_half_is_told_by_its_twin_and_named(missing: str) -> None:
    # Two balls of 9 mm, the lenses' size, 65 mm apart, on 1 mm voxels; of the left one a half is missing.
    grid = Grid(40, 100, np.arange(40)[:, None] * np.array([0, 0, 1.0]), np.array([1.0, 0, 0]), np.array([0, 1.0, 0]), 1.0, 1.0)
    ball = sum((axis - 4.0) ** 2 for axis in np.meshgrid(*[np.arange(9)] * 3, indexing="ij")) <= 4.5**2
    masks = OARMasks.empty(OARS, grid.shape)
    masks.put(BY_NAME["Lens_R"], np.s_[10:19, 10:19, 10:19], ball)
    half = ball.copy()
    half[np.s_[:, :4] if missing == "front" else np.s_[5:]] = False
    masks.put(BY_NAME["Lens_L"], np.s_[10:19, 10:19, 75:84], half)
    found = next(check for check in check_masks(masks, grid) if check.code == "organ.half")
    assert (found.oar, found.level) == ("Lens_L", Level.RED)
    assert found.reason.startswith(f"Lens_L: the {missing} half may be missing. It has ")


def test_a_lung_that_begins_2_cm_lower_than_the_other_is_red(crooked_grid: Grid) -> None:
    masks = OARMasks.empty(OARS, SHAPE)
    masks.put(BY_NAME["Lung_L"], np.s_[0:30, 10:40, 30:45], np.ones((30, 30, 15), dtype=np.bool_))
    masks.put(BY_NAME["Lung_R"], np.s_[0:22, 10:40, 5:20], np.ones((22, 30, 15), dtype=np.bool_))
    found = next(check for check in check_masks(masks, crooked_grid) if check.code == "organ.lung_tops")
    assert (found.oar, found.level, found.value) == ("Lung_R", Level.RED, pytest.approx(20.0))


def test_a_lung_that_ends_above_the_end_of_the_scan_is_red_unless_it_is_whole(crooked_grid: Grid) -> None:
    masks = OARMasks.empty(OARS, SHAPE)
    masks.put(BY_NAME["Lung_L"], np.s_[6:30, 10:40, 30:45], np.ones((24, 30, 15), dtype=np.bool_))
    found = next(check for check in check_masks(masks, crooked_grid) if check.code == "organ.incomplete")
    assert (found.oar, found.value) == ("Lung_L", pytest.approx(6 * 2.5))


def test_every_number_of_a_check_is_a_number_of_json(crooked_grid: Grid) -> None:
    # Overlapping blocks of every organ break most rules at once.
    masks = OARMasks.empty(OARS, SHAPE)
    for place, oar in enumerate(OARS):
        low = place % 7
        masks.put(oar, np.s_[low : 20 + low, low : 40 + low, 10:40], np.ones((20, 40, 30), dtype=np.bool_))
    checks = check_masks(masks, crooked_grid)
    assert {"organs.overlap", "organ.volume", "organ.position", "organ.flat_face", "organ.laterality"} <= {c.code for c in checks}
    for check in checks:
        row = check.to_json()
        first, best, last = (row["slices"][name] for name in ("first", "best", "last"))
        assert 1 <= first <= best <= last <= SHAPE[0], check
        assert {type(value) for name, value in row.items() if name != "slices"} <= {str, float, type(None)}, check
        json.dumps(check.to_json(), allow_nan=False)

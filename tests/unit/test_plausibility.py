"""Faults that a dosimetrist must not miss, done to real contours; and how quiet the checks are about contours without one."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from benchmarks.expert_contours import cases
from oarlock.anatomy import NORMS, PAIRS
from oarlock.geometry import Grid
from oarlock.masks import OARMasks
from oarlock.oars import BY_NAME, OAR, OARS, Laterality, mirrored
from oarlock.plausibility import Check, Level, check_masks, shape_of
from tests.fixtures.crooked import SHAPE, oblique_grid
from tests.fixtures.crooked import crooked_grid as crooked_grid_

LEFTS = [oar for oar in OARS if oar.laterality is Laterality.LEFT]


@dataclass(frozen=True)
class Patient:
    masks: OARMasks
    grid: Grid

    def with_mask(self, oar: OAR, volume: np.ndarray) -> "Patient":
        copy = OARMasks(self.masks.oars, self.masks.bits.copy())
        copy.put(oar, np.s_[:, :, :], volume)
        return Patient(copy, self.grid)

    def checks(self) -> tuple[Check, ...]:
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


def shifted(volume: np.ndarray, steps: int, axis: int) -> np.ndarray:
    moved = np.roll(volume, steps, axis=axis)
    ends = [slice(None)] * 3
    ends[axis] = slice(None, steps) if steps > 0 else slice(steps, None)
    moved[tuple(ends)] = False
    return moved


@pytest.mark.slow
def test_an_experts_contours_are_not_red(patient: Patient) -> None:
    assert patient.reds() == set()


@pytest.mark.slow
@pytest.mark.parametrize("left", LEFTS, ids=str)
def test_exchanged_sides_are_red_on_both(left: OAR, patient: Patient) -> None:
    right = mirrored(left)
    swapped = patient.with_mask(left, patient.masks.mask(right)).with_mask(right, patient.masks.mask(left))
    assert {("organ.laterality", left.name), ("organ.laterality", right.name)} <= swapped.reds()


@pytest.mark.slow
def test_a_mirrored_scan_is_red_on_every_paired_organ(patient: Patient) -> None:
    mirror = Patient(OARMasks(patient.masks.oars, np.ascontiguousarray(patient.masks.bits[:, :, ::-1])), patient.grid)
    laterality = {oar for code, oar in mirror.reds() if code == "organ.laterality"}
    assert laterality == {oar.name for oar in OARS if oar.laterality}


@pytest.mark.slow
def test_a_scan_upside_down_is_red(patient: Patient) -> None:
    fallen = Patient(OARMasks(patient.masks.oars, np.ascontiguousarray(patient.masks.bits[::-1])), patient.grid)
    assert ("organ.order", "Brain") in fallen.reds()


@pytest.mark.slow
@pytest.mark.parametrize("axis", [0, 1, 2], ids="zyx")
@pytest.mark.parametrize("direction", [-1, 1])
@pytest.mark.parametrize("name", ["Brainstem", "Parotid_L", "Eye_R", "SpinalCord", "Glnd_Submand_L", "OpticNrv_R", "Cochlea_L"])
def test_an_organ_shifted_by_2_cm_is_red(name: str, direction: int, axis: int, patient: Patient) -> None:
    oar = BY_NAME[name]
    steps = direction * round(20 / patient.grid.spacing_mm[axis])
    spoilt = patient.with_mask(oar, shifted(patient.masks.mask(oar), steps, axis))
    assert name in spoilt.red_organs()


@pytest.mark.slow
@pytest.mark.parametrize("kept", ["head", "feet"])
@pytest.mark.parametrize(
    "name", ["Brain", "Brainstem", "Parotid_R", "Bone_Mandible", "Eye_L", "SpinalCord", "SpinalCanal", "Lung_L"]
)
def test_half_of_an_organ_deleted_is_red(name: str, kept: str, patient: Patient) -> None:
    oar = BY_NAME[name]
    volume = patient.masks.mask(oar)
    middle = int(np.searchsorted(np.cumsum(volume.sum(axis=(1, 2))), volume.sum() / 2))
    volume[slice(None, middle) if kept == "head" else slice(middle, None)] = False
    assert patient.with_mask(oar, volume).red_organs() & {name, mirrored(oar).name}


@pytest.mark.slow
def test_overlaps_islands_and_emptiness_are_told(patient: Patient) -> None:
    brain, stem, parotid = BY_NAME["Brain"], BY_NAME["Brainstem"], BY_NAME["Parotid_L"]
    over = patient.with_mask(brain, patient.masks.mask(brain) | patient.masks.mask(stem))
    assert ("organs.overlap", "Brain") in over.reds()
    island = patient.masks.mask(parotid)
    island |= np.roll(island, 40, axis=0)
    assert ("organ.islands", "Parotid_L") in patient.with_mask(parotid, island).reds()
    empty = patient.with_mask(stem, np.zeros_like(island)).checks()
    assert ("organ.empty", Level.RED) in {(check.code, check.level) for check in empty if check.oar == "Brainstem"}


@pytest.mark.slow
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
        one = shape_of(patient.masks, patient.grid, oar)
        other = shape_of(OARMasks(patient.masks.oars, bits), turned, oar)
        assert one is not None
        assert other is not None
        assert other.anchor_mm == pytest.approx(one.anchor_mm)
        assert other.faces == pytest.approx(one.faces)
        assert (other.cut_foot, other.cut_head, other.head_mm) == (one.cut_foot, one.cut_head, pytest.approx(one.head_mm))


def test_a_sentence_names_the_organ_the_number_and_what_is_usual(crooked_grid: Grid) -> None:
    masks = OARMasks.empty(OARS, SHAPE)
    masks.put(BY_NAME["Brainstem"], np.s_[5:20, 10:40, 10:30], np.ones((15, 30, 20), dtype=np.bool_))
    found = next(check for check in check_masks(masks, crooked_grid) if check.code == "organ.flat_face")
    assert found.reason.startswith("Brainstem ends in a flat face")
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
    shape = shape_of(masks, oblique_grid(turn), BY_NAME["Brainstem"])
    plain = shape_of(masks, crooked_grid_(), BY_NAME["Brainstem"])
    assert shape is not None
    assert plain is not None
    assert shape.volume_ml == pytest.approx(plain.volume_ml)
    assert shape.anchor_mm == pytest.approx(turn @ plain.anchor_mm)
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
    assert set(PAIRS) == {oar.name[:-2] for oar in LEFTS}
    for left in LEFTS:
        one, other = NORMS[left.name], NORMS[mirrored(left).name]
        assert one.position_mm == pytest.approx([-other.position_mm[0], *other.position_mm[1:]])
        assert one.off_mm == other.off_mm
        assert one.faces == (*other.faces[:4], other.faces[5], other.faces[4])
        assert one.volume_limits_ml() == other.volume_limits_ml()

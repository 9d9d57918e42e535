import numpy as np
import numpy.typing as npt
import pytest

from oarlock.geometry.grid import Grid
from oarlock.geometry.masks import OARMasks
from oarlock.organs.catalogue import BY_NAME, OAR
from oarlock.segmentation.clean_up import clean_up
from tests.fixtures import orientations

CORD, EYE, LUNG, MANDIBLE, PAROTID = (BY_NAME[name] for name in ("SpinalCord", "Eye_L", "Lung_L", "Bone_Mandible", "Parotid_L"))


def masks_of(grid: Grid, **organs: npt.NDArray[np.bool_]) -> OARMasks:
    masks = OARMasks.empty([BY_NAME[name] for name in organs], grid.shape)
    for name, mask in organs.items():
        masks.put(BY_NAME[name], (slice(None), slice(None), slice(None)), mask)
    return masks


def test_an_organ_that_is_one_piece_keeps_its_largest_and_the_rest_is_said(crooked_grid: Grid) -> None:
    mask = np.zeros(crooked_grid.shape, np.bool_)
    mask[3:30, 20:30, 20:30] = True
    mask[33:35, 50:55, 5:9] = True  # 40 voxels of 2.5 × 1.1 × 0.9 mm³: 0.099 ml
    masks = masks_of(crooked_grid, SpinalCord=mask, Eye_L=mask & False)
    (warning,) = clean_up(masks, crooked_grid)
    mask[33:35] = False
    assert np.array_equal(masks.mask(CORD), mask)
    assert warning.code == "contours.pieces_dropped"
    assert warning.detail == "SpinalCord: 1 piece apart from the largest dropped, 0.10 ml in all."


def test_the_largest_piece_is_the_one_with_the_most_volume_and_not_the_most_voxels() -> None:
    grid = orientations.uneven()
    mask = np.zeros(grid.shape, np.bool_)
    thin, thick = 9, 10  # 1.5 mm and 2 mm to the neighbours of the one, 2 mm and 2.5 mm to those of the other
    assert grid.slice_thicknesses_mm[[thin, thick]] == pytest.approx([1.75, 2.25])
    mask[thin, 5:15, 5:15] = True  # 100 voxels
    mask[thick, 5:15, 30:39] = True  # 90 thicker ones
    masks = masks_of(grid, Eye_L=mask)
    clean_up(masks, grid)
    assert masks.mask(EYE).sum() == 90


def test_half_a_mandible_stays_and_half_a_parotid_goes(crooked_grid: Grid) -> None:
    mask = np.zeros(crooked_grid.shape, np.bool_)
    mask[10:20, 10:20, 5:15] = True
    mask[10:20, 10:20, 35:41] = True  # 60 % of the other half
    masks = masks_of(crooked_grid, Bone_Mandible=mask, Parotid_L=mask)
    broken, dropped = clean_up(masks, crooked_grid)
    assert masks.mask(BY_NAME["Bone_Mandible"]).sum() == 1600
    assert masks.mask(BY_NAME["Parotid_L"]).sum() == 1000
    assert (broken.code, broken.detail) == ("contours.broken", "Bone_Mandible: drawn in 2 pieces, where it should be one.")
    assert (dropped.code, dropped.detail.split(":")[0]) == ("contours.pieces_dropped", "Parotid_L")


def test_organs_that_are_looked_at_side_by_side_are_cleaned_as_one_after_another(crooked_grid: Grid) -> None:
    noise = np.random.default_rng(3).random((4, *crooked_grid.shape)) < 0.55
    names = ("Brain", "Brainstem", "Eye_L", "SpinalCord")  # the first two are rivals: the one is cleaned in sight of the other
    alone, together = (masks_of(crooked_grid, **dict(zip(names, noise, strict=True))) for _ in range(2))
    assert clean_up(together, crooked_grid, at_once=2) == clean_up(alone, crooked_grid)
    assert np.array_equal(together.bits, alone.bits)


@pytest.mark.parametrize(("columns", "left"), [(26, 2 * 100), (24, 100)])
def test_a_further_piece_counts_from_a_quarter_of_the_largest(columns: int, left: int, crooked_grid: Grid) -> None:
    """docs/models.md: of an organ that crosses the midline, pieces of at least a quarter of the largest are kept."""
    mask = np.zeros(crooked_grid.shape, np.bool_)
    mask[10:20, 10:20, 5] = mask[10, 40, 20 : 20 + columns] = True
    masks = masks_of(crooked_grid, Bone_Mandible=mask)
    clean_up(masks, crooked_grid)
    assert masks.mask(BY_NAME["Bone_Mandible"]).sum() == (100 + columns if left == 200 else 100)


def test_pieces_that_touch_at_a_corner_are_one(crooked_grid: Grid) -> None:
    mask = np.zeros(crooked_grid.shape, np.bool_)
    mask[10, 10:20, 10:20] = True
    mask[11, 20:30, 20:30] = True
    masks = masks_of(crooked_grid, SpinalCord=mask)
    assert clean_up(masks, crooked_grid) == []
    assert np.array_equal(masks.mask(CORD), mask)


def test_a_hole_in_a_slice_is_filled_but_not_in_a_lung(crooked_grid: Grid) -> None:
    mask = np.zeros(crooked_grid.shape, np.bool_)
    mask[5:9, 10:30, 10:30] = True
    mask[5:9, 15:20, 15:20] = False  # a channel, open at both ends of z
    masks = masks_of(crooked_grid, SpinalCord=mask, Lung_L=mask)
    assert clean_up(masks, crooked_grid) == []
    assert masks.mask(CORD)[5:9, 10:30, 10:30].all()
    assert masks.mask(CORD).sum() == 4 * 400
    assert np.array_equal(masks.mask(LUNG), mask)


@pytest.mark.parametrize(("first", "left"), [(5, 0), (0, 408), (33, 0), (34, 408)])
def test_a_speck_is_no_organ_but_where_the_scan_ends_within_one(first: int, left: int, crooked_grid: Grid) -> None:
    mask = np.zeros(crooked_grid.shape, np.bool_)
    mask[first : first + 3, 30:38, 30:47] = True  # 1 ml of a lung, the smallest of which has 900
    masks = masks_of(crooked_grid, Lung_L=mask)
    warnings = clean_up(masks, crooked_grid)
    assert masks.mask(LUNG).sum() == left
    assert [warning.detail for warning in warnings] == (
        [] if left else ["Lung_L: 1 piece too small for the organ dropped, 1.01 ml in all."]
    )


@pytest.mark.parametrize(("columns", "left"), [(30, 0), (31, 496)])
def test_where_the_scan_ends_a_brain_of_less_than_1_2_ml_is_no_brain(columns: int, left: int, crooked_grid: Grid) -> None:
    mask = np.zeros(crooked_grid.shape, np.bool_)
    mask[0, 20:36, 10 : 10 + columns] = True
    masks = masks_of(crooked_grid, Brain=mask)
    ml = masks.volume_ml(BY_NAME["Brain"], crooked_grid)
    clean_up(masks, crooked_grid)
    assert (masks.mask(BY_NAME["Brain"]).sum(), ml > 0.001 * 1211.0) == (left, left > 0), ml


def test_a_hole_that_meets_the_outside_at_a_corner_alone_is_filled(crooked_grid: Grid) -> None:
    """As contours would draw it: voxels of the organ that touch at a corner are connected, those of a hole are not."""
    mask = np.zeros(crooked_grid.shape, np.bool_)
    mask[5:9, 10:20, 10:20] = True
    mask[5:9, 10, 10] = mask[5:9, 11, 11] = False
    masks = masks_of(crooked_grid, SpinalCord=mask)
    clean_up(masks, crooked_grid)
    mask[5:9, 11, 11] = True
    assert np.array_equal(masks.mask(CORD), mask)


def test_a_hole_is_filled_though_an_organ_lies_in_it_that_is_no_rival(crooked_grid: Grid) -> None:
    mask = np.zeros(crooked_grid.shape, np.bool_)
    mask[5:9, 10:30, 10:30] = True
    hole = np.zeros(crooked_grid.shape, np.bool_)
    hole[5:9, 12:28, 12:28] = True
    masks = masks_of(crooked_grid, Eye_L=hole, SpinalCord=mask & ~hole)
    clean_up(masks, crooked_grid)
    assert np.array_equal(masks.mask(CORD), mask)


@pytest.mark.parametrize(("voxels", "said"), [(2, "less than 0.01 ml"), (3, "0.01 ml")])
def test_a_piece_of_less_than_half_a_hundredth_of_a_millilitre_is_said_to_be_less(
    voxels: int, said: str, crooked_grid: Grid
) -> None:
    """A voxel has 2.5 × 1.1 × 0.9 mm³: two are 0.00495 ml, three 0.0074 ml."""
    mask = np.zeros(crooked_grid.shape, np.bool_)
    mask[3:30, 20:30, 20:30] = True
    mask[33, 50, 5 : 5 + voxels] = True
    (warning,) = clean_up(masks_of(crooked_grid, SpinalCord=mask), crooked_grid)
    assert warning.detail == f"SpinalCord: 1 piece apart from the largest dropped, {said} in all."


def test_the_stem_is_no_hole_in_the_brain(crooked_grid: Grid) -> None:
    brain = np.zeros(crooked_grid.shape, np.bool_)
    brain[3:30, 5:55, 5:45] = True
    stem = np.zeros(crooked_grid.shape, np.bool_)
    stem[5:12, 20:30, 20:30] = True
    hole = np.zeros(crooked_grid.shape, np.bool_)
    hole[20, 10:12, 10:12] = True
    masks = masks_of(crooked_grid, Brain=brain & ~stem & ~hole, Brainstem=stem)
    clean_up(masks, crooked_grid)
    assert np.array_equal(masks.mask(BY_NAME["Brain"]), brain & ~stem)
    assert np.array_equal(masks.mask(BY_NAME["Brainstem"]), stem)


def test_an_organ_of_several_pieces_loses_only_its_islands(crooked_grid: Grid) -> None:
    several = OAR("Eye_L", "", (0, 0, 0), 1.0, "", "", "", None, single=False)
    mask = np.zeros(crooked_grid.shape, np.bool_)
    mask[3:9, 5:15, 5:15] = True
    mask[20:26, 5:15, 5:15] = True
    mask[30, 40:44, 40:44] = True  # 16 voxels: 0.0396 ml
    masks = OARMasks.empty([several], crooked_grid.shape)
    masks.put(several, (slice(None), slice(None), slice(None)), mask)
    (warning,) = clean_up(masks, crooked_grid)
    assert masks.mask(several).sum() == 1200
    assert warning.detail == "Eye_L: 1 piece smaller than 0.05 ml dropped, 0.04 ml in all."


SEVERAL = OAR("Eye_L", "", (0, 0, 0), 1.0, "", "", "", None, single=False)


@pytest.mark.parametrize(
    ("oar", "spacing_mm", "kept", "said"),
    [
        (PAROTID, (26.4, 1.0, 1.0), [1], []),
        (PAROTID, (26.39, 1.0, 1.0), [], ["Parotid_L: 1 piece too small for the organ dropped, 0.03 ml in all."]),
        (SEVERAL, (5.0, 5.0, 2.0), [40, 1], []),
        (SEVERAL, (4.99, 5.0, 2.0), [40], ["Eye_L: 1 piece smaller than 0.05 ml dropped, 0.05 ml in all."]),
        (MANDIBLE, (10.0, 10.0, 10.0), [4, 1], ["Bone_Mandible: drawn in 2 pieces, where it should be one."]),
        (MANDIBLE, (10.0, 10.0, 10.0), [5], ["Bone_Mandible: 1 piece apart from the largest dropped, 1.00 ml in all."]),
        (CORD, (1.0, 2.5, 2.0), [40], ["SpinalCord: 1 piece apart from the largest dropped, 0.01 ml in all."]),
        (CORD, (0.99, 2.5, 2.0), [40], ["SpinalCord: 1 piece apart from the largest dropped, less than 0.01 ml in all."]),
    ],
    ids=[
        "0.002 of the smallest parotid, which has 13.2 ml",
        "less of a parotid",
        "an island of 0.05 ml",
        "a smaller island",
        "a quarter of the largest piece",
        "a fifth of it",
        "0.005 ml",
        "less than 0.005 ml",
    ],
)
def test_each_limit_of_a_piece_is_met_exactly_and_missed(
    oar: OAR, spacing_mm: tuple[float, float, float], kept: list[int], said: list[str]
) -> None:
    """Pieces of the middle slice: of the first as many voxels as are kept, one of the second. No volume is rounded."""
    origins = np.outer([-spacing_mm[0], 0, spacing_mm[0]], [0, 0, 1.0])
    grid = Grid(8, 48, origins, np.eye(3)[0], np.eye(3)[1], *spacing_mm[1:])
    mask = np.zeros(grid.shape, np.bool_)
    mask[1, 2, 2 : 2 + (kept[0] if kept else 1)] = True
    mask[1, 5, 5] = oar != PAROTID
    masks = OARMasks.empty([BY_NAME["Eye_R"], oar], grid.shape)  # the first is empty
    masks.put(oar, (slice(None), slice(None), slice(None)), mask)
    assert [warning.detail for warning in clean_up(masks, grid)] == said
    assert masks.mask(oar).sum() == sum(kept)


@pytest.mark.parametrize("name", ["Lung_L", "Lung_R"])
def test_a_hole_stays_in_either_lung(name: str, crooked_grid: Grid) -> None:
    mask = np.zeros(crooked_grid.shape, np.bool_)
    mask[:, 10:30, 10:30] = True
    mask[:, 15:20, 15:20] = False
    masks = masks_of(crooked_grid, **{name: mask})
    assert clean_up(masks, crooked_grid) == []
    assert np.array_equal(masks.mask(BY_NAME[name]), mask)

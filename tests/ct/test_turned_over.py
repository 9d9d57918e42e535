"""A head that is turned over against its header is told in one sentence; one that lies in another position is not."""

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from oarlock.ct.turned_over import turned_over
from oarlock.geometry.grid import Grid
from oarlock.phantom.patient import Phantom, head_and_neck, head_and_neck_on

FRONT, HEAD = "front and back: the air", "head and feet: skull and teeth"


@pytest.fixture(scope="module")
def coarse() -> Phantom:
    return head_and_neck(shape=(64, 110, 116), spacing_mm=(6.0, 4.2, 4.2))


def _rest(grid: Grid) -> tuple[np.ndarray, np.ndarray, np.ndarray, float, float]:
    """All of a grid but its rows and columns."""
    return grid.origins_mm, grid.row_direction, grid.column_direction, grid.row_spacing_mm, grid.column_spacing_mm


def found(phantom: Phantom, hu: np.ndarray | None = None) -> str:
    notices = turned_over(phantom.hu if hu is None else hu, phantom.grid)
    assert [notice.code for notice in notices] in ([], ["series.turned_over"])
    return notices[0].detail if notices else ""


def test_an_ordinary_head_is_not_warned_of(coarse: Phantom) -> None:
    assert found(coarse) == ""


def test_rows_that_are_upside_down_are_told(coarse: Phantom) -> None:
    said = found(coarse, coarse.hu[:, ::-1])
    assert FRONT in said
    assert HEAD not in said


def test_a_stack_that_is_upside_down_is_told(coarse: Phantom) -> None:
    said = found(coarse, coarse.hu[::-1])
    assert HEAD in said
    assert FRONT not in said


def test_both_are_told_in_one_warning(coarse: Phantom) -> None:
    said = found(coarse, coarse.hu[::-1, ::-1])
    assert HEAD in said
    assert FRONT in said


@pytest.mark.parametrize(
    "order",
    [[z ^ 1 for z in range(64)], [z * 37 % 64 for z in range(64)]],
    ids=["exchanged in pairs", "mixed"],
)
def test_slices_out_of_order_are_told(order: list[int], coarse: Phantom) -> None:
    assert sorted(order) == list(range(64))
    codes = [notice.code for notice in turned_over(coarse.hu[order], coarse.grid)]
    assert codes[-1] == "series.out_of_order"


def is_out_of_order(heights: npt.NDArray[Any]) -> bool:
    """Whether slices 2 mm apart are said to be, of which each has one value."""
    origins = np.array([[0.0, 0.0, 2.0 * z] for z in range(len(heights))])
    grid = Grid(64, 64, origins, np.array([1.0, 0, 0]), np.array([0, 1.0, 0]), 3.0, 3.0)
    hu = np.broadcast_to(np.rint(heights).astype(np.int16)[:, None, None], grid.shape)
    return "series.out_of_order" in [notice.code for notice in turned_over(hu, grid)]


@pytest.mark.parametrize(("wiggle", "told"), [(16.0, False), (17.0, True), (18.0, True)])
def test_slices_are_out_of_order_from_a_share_of_0_85_on(wiggle: float, told: bool) -> None:
    """A block grows by 10 HU from slice to slice, and every other slice lies w below, which is more: neighbours differ by w + 10
    and w - 10, in the mean by w, and slices two apart by 20. So w is 17 at the limit.
    """
    heights = 10.0 * np.arange(61) - np.where(np.arange(61) % 2, wiggle, 0.0) - 300
    assert is_out_of_order(heights) == told


@pytest.mark.parametrize(("wiggle", "told"), [(3, False), (4, True), (5, True)])
def test_slices_that_differ_by_less_than_4_hu_are_in_any_order(wiggle: int, told: bool) -> None:
    """As in a phantom of water, where they differ by noise alone. Every other slice lies so much lower here."""
    assert is_out_of_order(-wiggle * (np.arange(60) % 2)) == told


@pytest.mark.parametrize("quarters", [1, 3])
def test_slices_that_are_turned_by_a_quarter_are_told(quarters: int, coarse: Phantom) -> None:
    square = Grid(116, 116, *_rest(coarse.grid))
    padded = np.pad(coarse.hu, ((0, 0), (3, 3), (0, 0)), constant_values=-1000)
    said = found(replace(coarse, grid=square), np.rot90(padded, quarters, axes=(1, 2)))
    assert "by a quarter: the air in nose, mouth and throat lies beside the middle" in said
    assert FRONT not in said
    assert found(replace(coarse, grid=square), padded) == ""


def test_left_and_right_are_not_judged(coarse: Phantom) -> None:
    assert found(coarse, coarse.hu[:, :, ::-1]) == ""


@pytest.mark.slow
@pytest.mark.parametrize("position", ["prone", "feet first", "decubitus"])
def test_another_position_on_the_couch_is_not_turned_over(coarse: Phantom, position: str) -> None:
    """The same body as a scanner sees it whose image axes run the other way; its header says so."""
    grid = coarse.grid
    row, column = {
        "prone": (-grid.row_direction, -grid.column_direction),
        "feet first": (-grid.row_direction, grid.column_direction),
        "decubitus": (grid.column_direction, -grid.row_direction),
    }[position]
    corners = [grid.to_patient(0, np.array([[y, x]], dtype=float))[0] for y in (0, grid.rows - 1) for x in (0, grid.columns - 1)]
    start = max(corners, key=lambda corner: -(corner @ row) - (corner @ column))
    origins = start + np.arange(len(grid.origins_mm))[:, None] * np.array([0.0, 0.0, 6.0])
    other = Grid(grid.rows, grid.columns, origins[::-1] if position == "feet first" else origins, row, column, 4.2, 4.2)
    assert found(head_and_neck_on(other)) == ""


def test_a_short_scan_is_not_judged(coarse: Phantom) -> None:
    whole = coarse.grid
    short = Grid(
        whole.rows,
        whole.columns,
        whole.origins_mm[30:47],
        whole.row_direction,
        whole.column_direction,
        whole.row_spacing_mm,
        whole.column_spacing_mm,
    )
    assert found(replace(coarse, grid=short), coarse.hu[30:47, ::-1]) == ""


# ── the limits of the page ────────────────────────────────────────────────────────────────────────────────────────────


def block(
    shape: tuple[int, int, int],
    pixel_mm: float,
    *,
    down: int = 0,
    left: int = 0,
    tube: tuple[int, int] = (7, 7),
    slice_mm: float = 4.0,
) -> tuple[npt.NDArray[np.int16], Grid]:
    """A block of water in air, with a tube of air of so many rows and columns so many pixels off its middle."""
    slices, rows, columns = shape
    hu = np.full((slices, rows + 10, columns + 10), -1000, dtype=np.int16)
    hu[:, 5:-5, 5:-5] = 0
    top, start = 5 + rows // 2 + down - tube[0] // 2, 5 + columns // 2 + left - tube[1] // 2
    hu[:, top : top + tube[0], start : start + tube[1]] = -1000
    origins = np.array([[0.0, 0.0, slice_mm * z] for z in range(slices)])
    return hu, Grid(*hu.shape[1:], origins, np.array([1.0, 0, 0]), np.array([0, 1.0, 0]), pixel_mm, pixel_mm)


def told(hu: npt.NDArray[np.int16], grid: Grid) -> str:
    return " ".join(notice.detail for notice in turned_over(hu, grid))


@pytest.mark.parametrize(
    ("pixels", "limit_mm", "sentence"),
    [({"down": 2}, 8, "behind the middle"), ({"left": 4}, 15, "beside the middle"), ({"left": -4}, 15, "beside the middle")],
)
def test_air_is_told_from_its_limit_on(pixels: dict[str, Any], limit_mm: float, sentence: str) -> None:
    share = limit_mm / abs(sum(pixels.values()))
    assert sentence not in told(*block((27, 41, 41), share, **pixels))
    assert sentence in told(*block((27, 41, 41), share + 0.01, **pixels))


def test_a_scan_is_judged_from_100_mm_on() -> None:
    assert told(*block((26, 41, 41), 4.0, down=5, slice_mm=3.98)) == ""  # its outermost planes are 99.5 mm apart
    assert "behind the middle" in told(*block((26, 41, 41), 4.0, down=5))


@pytest.mark.parametrize(("wave", "is_told"), [(36, False), (34, True)])
def test_bone_is_told_where_it_falls_towards_the_head_by_a_correlation_of_0_55(wave: int, is_told: bool) -> None:
    """Pixels of bone: a fall by one a slice, and a wave by turns on it that takes the correlation to either side."""
    hu, grid = block((41, 41, 41), 4.0)
    counts = np.arange(41)[::-1] + wave * (np.arange(41) % 2)
    for image, count in zip(hu, counts, strict=True):
        image[6:8, 6:46].flat[:count] = 1000
    correlation = np.corrcoef(np.arange(41), counts)[0, 1]
    assert abs(correlation + 0.55) < 0.03
    assert bool(correlation < -0.55) is is_told
    assert ("the lower end" in told(hu, grid)) is is_told


BEHIND, BESIDE = "behind the middle", "beside the middle"


@pytest.mark.parametrize(
    ("down", "left", "said"),
    [(7, 6, BEHIND), (6, 6, BEHIND), (3, 6, BESIDE), (-3, 6, BESIDE), (-7, 6, ""), (-3, 0, ""), (3, 0, BEHIND)],
)
def test_air_lies_beside_the_middle_if_it_is_further_beside_than_behind_or_in_front(down: int, left: int, said: str) -> None:
    """In pixels of 4 mm: 3 are more than 8 mm, 6 are more than 15."""
    sentence = told(*block((27, 61, 61), 4.0, down=down, left=left))
    assert [other in sentence for other in (BEHIND, BESIDE)] == [said == BEHIND, said == BESIDE]


@pytest.mark.parametrize(("value", "is_told"), [(-400, False), (-401, True)])
def test_inner_air_is_what_lies_below_400_under_water(value: int, is_told: bool) -> None:
    hu, grid = block((27, 41, 41), 4.0, down=3)
    inner = hu[:, 5:-5, 5:-5]
    inner[inner == -1000] = value
    assert (BEHIND in told(hu, grid)) is is_told


@pytest.mark.parametrize(("filled", "is_told"), [(0, False), (1, True)])
def test_a_slice_with_twelve_percent_of_air_shows_lung(filled: int, is_told: bool) -> None:
    """11 by 27 pixels of 37 by 67, whose corners count for nothing: 297 of 2,475, or one less."""
    hu, grid = block((27, 37, 67), 4.0, down=8, tube=(11, 27))
    inner = hu[:, 5:-5, 5:-5]
    assert (inner[0] == -1000).sum() == 0.12 * (inner[0].size - 4)
    rows, columns = np.nonzero(inner[0] == -1000)
    inner[:, rows[:filled], columns[:filled]] = 0
    assert (BEHIND in told(hu, grid)) is is_told


@pytest.mark.parametrize(("pixel_mm", "tube", "is_told"), [(5.0, (1, 2), True), (4.99, (1, 2), False), (5.9, (1, 1), False)])
def test_air_of_fewer_than_50_square_millimetres_is_left_out(pixel_mm: float, tube: tuple[int, int], is_told: bool) -> None:
    assert (BEHIND in told(*block((27, 41, 41), pixel_mm, down=3, tube=tube))) is is_told


@pytest.mark.parametrize(("slices", "is_told"), [(7, False), (8, True)])
def test_air_is_judged_from_eight_slices_on(slices: int, is_told: bool) -> None:
    hu, grid = block((27, 41, 41), 4.0, down=3)
    hu[slices:, 5:-5, 5:-5] = 0
    assert (BEHIND in told(hu, grid)) is is_told


@pytest.mark.parametrize(
    ("place", "tube", "said"),
    [
        ({"down": 3}, (2, 2), BEHIND),
        ({"down": 2}, (2, 2), ""),
        ({"down": 3}, (1, 3), ""),
        ({"left": 5}, (2, 2), BESIDE),
        ({"left": 3}, (2, 2), ""),
    ],
)
def test_pixels_are_looked_at_every_4_mm_whatever_their_size(place: dict[str, Any], tube: tuple[int, int], said: str) -> None:
    """Slices and rows 2 mm apart, columns 0.5: what lies between is water, and 3 of those that are seen have 48 mm²."""
    coarse, grid = block((27, 41, 41), 4.0, tube=tube, **place)
    hu = np.where(np.pad(np.zeros((27, 41, 41), bool), ((0, 0), (5, 5), (5, 5)), constant_values=True), -1000, 0).astype(np.int16)
    hu = hu.repeat(2, axis=0).repeat(2, axis=1).repeat(8, axis=2)
    hu[::2, ::2, ::8] = coarse
    origins = np.array([[0.0, 0.0, 2.0 * z] for z in range(54)])
    sentence = told(hu, Grid(hu.shape[1], hu.shape[2], origins, grid.row_direction, grid.column_direction, 2.0, 0.5))
    assert [other in sentence for other in (BEHIND, BESIDE)] == [said == BEHIND, said == BESIDE]


@pytest.mark.parametrize(
    ("pixel_mm", "down", "tube", "first", "is_told"),
    [
        (4.04, 2, (7, 7), 0, True),
        (4.04, 2, (7, 7), 1, False),
        (4.4, 1, (7, 7), 0, False),
        (5.9, 3, (1, 1), 0, False),
    ],
    ids=["8.1 mm behind", "between those that are seen", "4.4 mm behind", "35 square millimetres"],
)
def test_slices_are_looked_at_every_4_mm_and_pixels_of_4_mm_all(
    pixel_mm: float, down: int, tube: tuple[int, int], first: int, is_told: bool
) -> None:
    """Slices 2 mm apart, of which every other one has air inside."""
    hu, grid = block((54, 41, 41), pixel_mm, down=down, tube=tube, slice_mm=2.0)
    hu[1 - first :: 2, 5:-5, 5:-5] = 0
    assert (BEHIND in told(hu, grid)) is is_told


def test_front_and_back_are_those_of_the_patient_where_the_rows_run_obliquely() -> None:
    """Turned by 45°: two pixels down and two to the left in the image are 11 mm behind, and none beside."""
    hu, grid = block((27, 61, 61), 4.0, down=2, left=2)
    oblique = replace(
        grid, row_direction=np.array([1.0, 1, 0]) / np.sqrt(2), column_direction=np.array([-1.0, 1, 0]) / np.sqrt(2)
    )
    assert BEHIND in told(hu, oblique)
    assert BEHIND not in told(hu[:, :, ::-1], oblique)


def with_bone(hu: npt.NDArray[np.int16], counts: list[int], value: int = 1000) -> npt.NDArray[np.int16]:
    """So many pixels of bone in the block of each slice, row by row."""
    for image, count in zip(hu, counts, strict=True):
        places = np.flatnonzero(image == 0)[1 : count + 1]  # not its corner
        image.reshape(-1)[places] = value
    return hu


@pytest.mark.parametrize(("value", "is_told"), [(700, False), (701, True)])
def test_dense_bone_is_what_lies_over_700(value: int, is_told: bool) -> None:
    hu, grid = block((41, 41, 41), 4.0)
    assert ("the lower end" in told(with_bone(hu, [*range(36, -5, -1)][:37] + [0] * 4, value), grid)) is is_told


@pytest.mark.parametrize(("slices", "slice_mm", "is_told"), [(8, 16.0, True), (7, 18.0, False)])
def test_bone_is_judged_from_eight_slices_on(slices: int, slice_mm: float, is_told: bool) -> None:
    hu, grid = block((slices, 41, 41), 4.0, slice_mm=slice_mm)
    assert ("the lower end" in told(with_bone(hu, [*range(slices, 0, -1)]), grid)) is is_told


def test_bone_is_judged_by_the_heights_of_the_slices_that_are_looked_at() -> None:
    """Slices 2 mm apart."""
    hu, grid = block((54, 41, 41), 4.0, slice_mm=2.0)
    assert "the lower end" in told(with_bone(hu, [*range(54, 0, -1)]), grid)


@pytest.mark.parametrize(("pixel_mm", "is_told"), [(5.0, True), (4.9995, False)])
def test_bone_is_judged_in_slices_of_3000_square_millimetres(pixel_mm: float, is_told: bool) -> None:
    """4 by 31 pixels, whose corners count for nothing."""
    hu, grid = block((30, 4, 31), pixel_mm, tube=(0, 0))
    assert ("the lower end" in told(with_bone(hu, [*range(29, -1, -1)]), grid)) is is_told


@pytest.mark.parametrize(("slices", "is_told"), [(25, False), (26, True)])
def test_the_slices_with_a_body_lie_100_mm_apart(slices: int, is_told: bool) -> None:
    """So many of 30, 4 mm apart; beyond them there is a rod of 5 by 5 pixels."""
    hu, grid = block((30, 41, 41), 4.0, tube=(0, 0))
    with_bone(hu[:slices], [*range(slices, 0, -1)])
    hu[slices:] = -1000
    hu[slices:, 23:28, 23:28] = 0
    assert ("the lower end" in told(hu, grid)) is is_told


def test_what_is_turned_over_is_said_in_whole_sentences() -> None:
    hu, grid = block((41, 61, 61), 4.0, down=3)
    both = told(with_bone(hu, [*range(40, -1, -1)]), grid)
    assert both == (
        "The images seem to be turned over against their header, front and back: the air in nose, mouth and throat lies behind "
        "the middle of the body; and head and feet: skull and teeth lie at the lower end. Do not use the contours before the "
        "orientation is checked."
    )


# ── the order of the slices ───────────────────────────────────────────────────────────────────────────────────────────


def order_is_doubted(hu: npt.NDArray[Any], slice_mm: float = 2.0) -> bool:
    origins = np.array([[0.0, 0.0, slice_mm * z] for z in range(len(hu))])
    grid = Grid(hu.shape[1], hu.shape[2], origins, np.array([1.0, 0, 0]), np.array([0, 1.0, 0]), 3.0, 3.0)
    return "series.out_of_order" in [notice.code for notice in turned_over(hu.astype(np.int16), grid)]


@pytest.mark.parametrize(
    ("shape", "doubted"),
    [
        ((20, 20), True),
        ((32, 64), True),
        ((64, 32), True),
        ((48, 48), True),
        ((62, 62), True),
        ((64, 64), False),
        ((64, 300), False),
        ((300, 64), False),
        ((65, 67), False),
        ((255, 255), False),
        ((256, 256), True),
    ],
)
def test_means_of_32_by_32_blocks_are_compared(shape: tuple[int, int], doubted: bool) -> None:
    """A chessboard of ±50 HU that changes its colours from slice to slice: a block of two by two pixels has a mean of 0, one of 7
    by 7 of a fiftieth. Of 256 columns every other one is looked at: they have one colour.
    """
    y, x = np.indices(shape)
    board = 50 - 100 * ((y + x) % 2)
    hu = np.stack([board, -board] * 26)
    assert order_is_doubted(hu) is doubted


@pytest.mark.parametrize(("slice_mm", "doubted"), [(2.0, True), (1.0, False), (4.0, True), (0.5, False)])
def test_thin_slices_are_compared_in_groups_of_2_mm(slice_mm: float, doubted: bool) -> None:
    """Every other slice is 20 HU higher; 201 are at least 100 mm long."""
    hu = np.broadcast_to(20 * (np.arange(201) % 2)[:, None, None], (201, 32, 32))
    assert order_is_doubted(hu, slice_mm) is doubted


@pytest.mark.parametrize(
    ("one", "other", "doubted"), [(396, 500, True), (397, 500, False), (-996, -1100, True), (-997, -1100, False)]
)
def test_values_beyond_air_and_soft_tissue_are_those_of_their_ends(one: int, other: int, doubted: bool) -> None:
    """Of -1000 and 400 HU: what is left of the difference is 4 HU, which is told, or 3."""
    hu = np.broadcast_to(np.where(np.arange(60) % 2, one, other)[:, None, None], (60, 32, 32))
    assert order_is_doubted(hu) is doubted

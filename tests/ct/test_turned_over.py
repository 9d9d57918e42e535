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


@pytest.mark.parametrize(("wiggle", "told"), [(16.0, False), (18.0, True)])
def test_slices_are_out_of_order_from_a_share_of_0_85_on(wiggle: float, told: bool) -> None:
    """A block grows by 10 HU from slice to slice, and every other slice lies w below, which is more: neighbours differ by w + 10
    and w - 10, in the mean by w, and slices two apart by 20. So w is 17 at the limit.
    """
    heights = 10.0 * np.arange(60) - np.where(np.arange(60) % 2, wiggle, 0.0) - 300
    assert is_out_of_order(heights) == told


@pytest.mark.parametrize(("wiggle", "told"), [(3, False), (5, True)])
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


def block(shape: tuple[int, int, int], pixel_mm: float, *, down: int = 0, left: int = 0) -> tuple[npt.NDArray[np.int16], Grid]:
    """A block of water in air on slices 4 mm apart, with a square tube of air so many pixels off its middle."""
    slices, rows, columns = shape
    hu = np.full((slices, rows + 10, columns + 10), -1000, dtype=np.int16)
    hu[:, 5:-5, 5:-5] = 0
    middle = 5 + rows // 2 + down, 5 + columns // 2 + left
    hu[:, middle[0] - 3 : middle[0] + 4, middle[1] - 3 : middle[1] + 4] = -1000
    origins = np.array([[0.0, 0.0, 4.0 * z] for z in range(slices)])
    return hu, Grid(*hu.shape[1:], origins, np.array([1.0, 0, 0]), np.array([0, 1.0, 0]), pixel_mm, pixel_mm)


def told(hu: npt.NDArray[np.int16], grid: Grid) -> str:
    return " ".join(notice.detail for notice in turned_over(hu, grid))


@pytest.mark.parametrize(
    ("pixels", "limit_mm", "sentence"),
    [({"down": 2}, 8, "behind the middle"), ({"left": 4}, 15, "beside the middle"), ({"left": -4}, 15, "beside the middle")],
)
def test_air_is_told_from_its_limit_on(pixels: dict[str, int], limit_mm: float, sentence: str) -> None:
    share = limit_mm / abs(sum(pixels.values()))
    assert sentence not in told(*block((27, 41, 41), share - 0.01, **pixels))
    assert sentence in told(*block((27, 41, 41), share + 0.01, **pixels))


def test_a_scan_is_judged_from_100_mm_on() -> None:
    assert told(*block((25, 41, 41), 4.0, down=5)) == ""  # its planes are 96 mm apart
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

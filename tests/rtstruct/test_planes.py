"""Which slice each plane of contours goes to, and which slices lie between planes.

Slices are 2 mm apart and one lies at 0, so that every limit is met exactly in binary numbers. Slice 5 of ALL is the one at 0.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pytest

from oarlock.arrays import FloatArray
from oarlock.geometry.grid import Grid
from oarlock.rtstruct.planes import Heights, lay_out, usual_gap_mm

ALL: Final = tuple(range(-10, 11, 2))
UP_TO_0: Final = tuple(range(-10, 1, 2))
FROM_0: Final = tuple(range(0, 11, 2))
BEYOND: Final = "left out: above or below all slices"
NEARER: Final = "left out: between the slices, another plane is nearer"
LEANING: Final = "left out: not in a plane parallel to the slices"

At = float | tuple[float, float]
"""Where a contour lies along the normal: its lowest and its highest point, or both at once."""


def grid_at(positions_mm: Sequence[float]) -> Grid:
    origins = np.array([(0.0, 0.0, position) for position in positions_mm])
    return Grid(5, 5, origins, np.array([1.0, 0, 0]), np.array([0, 1.0, 0]), 1.5, 1.25)


def triangles(*heights_mm: At) -> list[FloatArray]:
    ends = [height if isinstance(height, tuple) else (height, height) for height in heights_mm]
    return [np.array([(0, 0, low), (3, 0, high), (0, 3, high)]) for low, high in ends]


def laid_out(at: Sequence[At], slices: Sequence[float] = ALL, file_gap_mm: float = 4.0) -> dict[str, Any]:
    """All that a layout says and that is not empty; planes by their contours."""
    grid = grid_at(slices)
    layout = lay_out(Heights.of(triangles(*at), grid), grid, file_gap_mm=file_gap_mm)
    said = {name: getattr(layout, name) for name in ("extended", "problems", "lost", "empty")} | {
        "drawn": {z: plane.contours for z, plane in layout.drawn.items()},
        "between": [(z, lower.contours, upper.contours, round(share, 9)) for z, lower, upper, share in layout.between],
        "moved_mm": {i: round(off_mm, 9) for i, off_mm in layout.moved_mm.items()},
    }
    return {name: value for name, value in said.items() if value}


def each(*numbers: int) -> dict[int, tuple[int]]:
    """The contours 0, 1 … on these slices."""
    return {z: (k,) for k, z in enumerate(numbers)}


NEAREST: Final[dict[str, tuple[dict[str, Any], dict[str, Any]]]] = {
    "a hundredth off is in the plane": ({"at": [0.01]}, {"drawn": each(5)}),
    "more is moved": ({"at": [0.0101]}, {"drawn": each(5), "moved_mm": {0: 0.0101}}),
    "moved by its lowest point": ({"at": [(-0.5, 0.25)]}, {"drawn": each(5), "moved_mm": {0: 0.5}}),
    "moved by its highest point": ({"at": [(-0.25, 0.5)]}, {"drawn": each(5), "moved_mm": {0: 0.5}}),
    "leaning by half a distance": ({"at": [(0.0, 1.0)]}, {"drawn": each(5), "moved_mm": {0: 1.0}}),
    "leaning by more": ({"at": [(0.0, 1.001), (0.0, 5.0)]}, {"problems": {LEANING: 2}, "lost": 2}),
    "half way goes to the lower slice": ({"at": [1.0]}, {"drawn": each(5), "moved_mm": {0: 1.0}}),
    "a rounding above half way, too": ({"at": [1.009]}, {"drawn": each(5), "moved_mm": {0: 1.009}}),
    "further goes to the upper slice": ({"at": [1.25]}, {"drawn": each(6), "moved_mm": {0: 0.75}}),
    "planes beside every slice": ({"at": [0.5, 2.5, 4.5]}, {"drawn": each(5, 6, 7), "moved_mm": {0: 0.5, 1: 0.5, 2: 0.5}}),
    "half a slice and a hundredth above the last": (
        {"at": [1.01], "slices": UP_TO_0},
        {"drawn": each(5), "moved_mm": {0: 1.01}},
    ),
    "further above the last": ({"at": [1.02, 1.02], "slices": UP_TO_0}, {"problems": {BEYOND: 2}}),
    "half a slice and a hundredth below the first": (
        {"at": [-1.01], "slices": FROM_0},
        {"drawn": each(0), "moved_mm": {0: 1.01}},
    ),
    "further below the first": ({"at": [-1.02], "slices": FROM_0}, {"problems": {BEYOND: 1}}),
    "a thick slice reaches further": ({"at": [8.0], "slices": (0, 2, 6)}, {"drawn": each(2), "moved_mm": {0: 2.0}}),
    "a twentieth apart is one plane": ({"at": [0.05, 0.0]}, {"drawn": {5: (0, 1)}, "moved_mm": {0: 0.05}}),
    "further apart are two": ({"at": [0.0625, 0.0]}, {"drawn": {5: (1,)}, "problems": {NEARER: 1}}),
    "the nearest of several planes": (
        {"at": [-2.0, -0.5, 0.25, 0.5, 0.5]},
        {"drawn": {4: (0,), 5: (2,)}, "moved_mm": {2: 0.25}, "problems": {NEARER: 3}},
    ),
    "a leaning one among others": (
        {"at": [(0.0, 9.0), 2.0, 0.0]},
        {"drawn": {5: (2,), 6: (1,)}, "problems": {LEANING: 1}, "lost": 1},
    ),
}


@pytest.mark.parametrize("case", NEAREST)
def test_a_plane_goes_to_the_nearest_slice_that_it_reaches(case: str) -> None:
    given, expected = NEAREST[case]
    assert laid_out(**given) == expected


def halves(*slices: int) -> list[tuple[int, tuple[int], tuple[int], float]]:
    """Slices half way between one plane and the next."""
    return [(z, (k,), (k + 1,), 0.5) for k, z in enumerate(slices)]


BETWEEN: Final[dict[str, tuple[dict[str, Any], dict[str, Any]]]] = {
    "every other slice": (
        {"at": [-8, -4, 0, 4, 8], "file_gap_mm": 2.0},
        {"drawn": each(1, 3, 5, 7, 9), "between": halves(2, 4, 6, 8)},
    ),
    "four planes have their own usual distance": (
        {"at": [-8, -4, 0, 4], "file_gap_mm": 2.0},
        {"drawn": each(1, 3, 5, 7), "between": halves(2, 4, 6)},
    ),
    "three planes have that of the file": ({"at": [-8, -4, 0], "file_gap_mm": 2.0}, {"drawn": each(1, 3, 5), "empty": 2}),
    "half as far again is joined": (
        {"at": [-8, -4, 0, 6]},
        {
            "drawn": each(1, 3, 5, 8),
            "between": [*halves(2, 4), (6, (2,), (3,), round(1 / 3, 9)), (7, (2,), (3,), round(2 / 3, 9))],
        },
    ),
    "further is a gap": (
        {"at": [-8, -4, 0, 6.25]},
        {"drawn": {**each(1, 3, 5, 8), 9: (3,)}, "between": halves(2, 4), "moved_mm": {3: 0.25}, "extended": 1, "empty": 2},
    ),
    "10.5 mm are joined": (
        {"at": [-2.5, 8], "file_gap_mm": 10.5},
        {
            "drawn": {2: (0,), 3: (0,), 9: (1,), 10: (1,)},
            "between": [(z, (0,), (1,), round((2 * z - 7.5) / 10.5, 9)) for z in (4, 5, 6, 7, 8)],
            "extended": 3,
        },
    ),
    "11 mm are a gap": (
        {"at": [-2.5, 8.5], "file_gap_mm": 11.0},
        {"drawn": each(4, 9), "moved_mm": {0: 0.5, 1: 0.5}, "empty": 4},
    ),
    "planes that are no slice's": (
        {"at": [-7, -3, 1, 5]},
        {
            "drawn": {1: (0,), 8: (3,)},
            "moved_mm": {0: 1.0, 3: 1.0},
            "between": [(2 * k + i, (k - 1,), (k,), (0.25, 0.75)[i]) for k in (1, 2, 3) for i in (0, 1)],
        },
    ),
    "the outer planes stand for less than half a distance": (
        {"at": [-6, 0, 6], "file_gap_mm": 6.0},
        {
            "drawn": {1: (0,), 2: (0,), 5: (1,), 8: (2,), 9: (2,)},
            "extended": 2,
            "between": [
                (z, (k,), (k + 1,), share)
                for k, z, share in (
                    (0, 3, round(1 / 3, 9)),
                    (0, 4, round(2 / 3, 9)),
                    (1, 6, round(1 / 3, 9)),
                    (1, 7, round(2 / 3, 9)),
                )
            ],
        },
    ),
    "exactly half a distance less a twentieth is too far": (
        {"at": [-8.95, -2.95], "file_gap_mm": 6.0, "slices": UP_TO_0},
        {
            "drawn": {0: (0,), 4: (1,)},
            "moved_mm": {1: 0.95},
            "between": [(z, (0,), (1,), round((2 * z - 1.05) / 6, 9)) for z in (1, 2, 3)],
            "extended": 1,
        },
    ),
    "half a slice and a hundredth is moved": (
        {"at": [-7.01, -1.01], "file_gap_mm": 6.0, "slices": UP_TO_0},
        {
            "drawn": {1: (0,), 5: (1,)},
            "moved_mm": {0: 0.99, 1: 1.01},
            "between": [(z, (0,), (1,), round((2 * z - 2.99) / 6, 9)) for z in (2, 3, 4)],
        },
    ),
    "a plane within a twentieth of a slice is its own": (
        {"at": [-6, 0.05], "file_gap_mm": 6.0},
        {
            "drawn": {1: (0,), 2: (0,), 5: (1,), 6: (1,)},
            "moved_mm": {1: 0.05},
            "between": [(3, (0,), (1,), round(2 / 6.05, 9)), (4, (0,), (1,), round(4 / 6.05, 9))],
            "extended": 2,
        },
    ),
    "the first plane below the slices": (
        {"at": [-12, -6], "file_gap_mm": 6.0},
        {
            "drawn": {2: (1,), 3: (1,)},
            "extended": 1,
            "between": [(0, (0,), (1,), round(1 / 3, 9)), (1, (0,), (1,), round(2 / 3, 9))],
        },
    ),
    "planes beyond the slices": (
        {"at": [4, 8, 12, 16, 16]},
        {"drawn": each(7, 9), "between": [(8, (0,), (1,), 0.5), (10, (1,), (2,), 0.5)], "problems": {BEYOND: 2}},
    ),
}


@pytest.mark.parametrize("case", BETWEEN)
def test_slices_between_neighbouring_planes_are_interpolated(case: str) -> None:
    given, expected = BETWEEN[case]
    assert laid_out(**given) == expected


def test_the_usual_distance_of_a_file_is_the_median_of_all_its_rois() -> None:
    grid = grid_at(ALL)
    rois = [Heights.of(triangles(*at), grid) for at in ((0.0, 2.0, 4.0), (0.0, 5.0), (1.0,))]
    assert usual_gap_mm(rois) == 2.0
    assert usual_gap_mm(rois[2:]) == usual_gap_mm([]) == np.inf

"""The review's files: what a browser unpacks is the series, its organs and the surfaces too far apart, turned as one looks."""

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from oarlock.geometry.masks import OARMasks
from oarlock.organs.catalogue import BY_NAME
from oarlock.pictures.planes import to_axes
from oarlock.pictures.review import LARGEST, Overlay, grey_edges, grey_values, write_review
from oarlock.qa.lattice import Lattice
from oarlock.qa.measures import compare_crops
from tests.fixtures import crooked, orientations

pytestmark = pytest.mark.slow

BRAIN, EYE = BY_NAME["Brain"], BY_NAME["Eye_L"]


class Unpacked:
    """A reader of docs/web.md's description."""

    def __init__(self, folder: Path) -> None:
        self.head: dict[str, Any] = json.loads((folder / "review.json").read_text())
        self._data = (folder / "review.bin").read_bytes()

    def part(self, part: list[int]) -> npt.NDArray[np.uint8]:
        first, length = part
        return np.frombuffer(zlib.decompress(self._data[first : first + length]), dtype=np.uint8)

    def image(self, z: int) -> npt.NDArray[np.int64]:
        (top, bottom), (left, right) = self.head["window"]["y"], self.head["window"]["x"]
        steps = self.part(self.head["images"][z]).reshape(bottom - top, right - left)
        return np.array(self.head["hu"])[np.cumsum(steps, axis=1, dtype=np.uint8)]

    def mask(self, organ: dict[str, Any], shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
        box = tuple(slice(first, end) for first, end in organ["box"])
        sizes = [along.stop - along.start for along in box]
        whole = np.zeros(shape, dtype=np.bool_)
        whole[box] = np.unpackbits(self.part(organ["part"]), count=int(np.prod(sizes))).reshape(sizes)
        return whole


def test_grey_values_tell_soft_tissue_apart_to_2_hu_and_everything_to_100() -> None:
    edges, values = grey_edges().astype(int), np.array(grey_values())
    assert len(edges) == len(values) <= 256
    widths = np.diff(edges)
    assert widths[(edges[:-1] >= -20) & (edges[:-1] < 100)].max() == 2
    assert widths.max() == 100
    assert np.all((edges <= values) & (values < np.append(edges[1:], 3100)))


@pytest.mark.parametrize("position", orientations.PATIENT_POSITIONS)
def test_a_review_holds_every_voxel_of_series_and_organs_turned_as_one_looks(position: str, tmp_path: Path) -> None:
    grid = orientations.axial(position)
    rng = np.random.default_rng(3)
    hu = rng.integers(-1000, 2000, grid.shape).astype(np.int16)
    masks = OARMasks.empty((BRAIN, EYE), grid.shape)
    box = (slice(2, 9), slice(4, 20), slice(7, 31))
    drawn = rng.random((7, 16, 24)) > 0.4
    drawn[:, 0, 0] = drawn[:, -1, -1] = True
    masks.put_inside(BRAIN, box, drawn)
    write_review(tmp_path / "review.json", tmp_path / "review.bin", hu, grid, masks, model="m")
    found = Unpacked(tmp_path)
    axes = to_axes(grid)
    turned, expected = axes.turned(hu), axes.turned(masks.mask(BRAIN))
    brain, eye = found.head["organs"]
    assert np.array_equal(found.mask(brain, turned.shape), expected)
    assert (eye["box"], eye["part"], eye["volume_ml"]) == (None, None, 0.0)
    assert brain["areas"] == [n for n in expected.sum(axis=(1, 2)).tolist() if n]
    (top, bottom), (left, right) = found.head["window"]["y"], found.head["window"]["x"]
    shown = turned[:, top:bottom, left:right].astype(int)
    seen = np.stack([found.image(z) for z in range(len(shown))])
    coarse = np.where(shown < 300, 8, 50)
    assert np.all(np.abs(seen - shown) <= coarse)
    assert [axes.slice_index(z) + 1 for z in range(len(shown))] == found.head["slice_numbers"]


def test_the_surface_beyond_tolerance_is_where_two_boxes_differ_with_its_distance(tmp_path: Path) -> None:
    # A box, and the same one three slices longer at its end: only that end's face is 3 × 2.5 = 7.5 mm away from the other box.
    grid = crooked.crooked_grid()
    ours, theirs = ((slice(5, end), slice(10, 20), slice(10, 22)) for end in (12, 15))
    crops = [(box, np.ones([along.stop - along.start for along in box], dtype=np.bool_)) for box in (ours, theirs)]
    _, beyond = compare_crops(*crops, lattice=Lattice.of(grid), tolerance_mm=5.0)
    assert beyond is not None
    assert len(beyond.predicted.raster) == 0 or beyond.predicted.distances_mm.max() < 7.6
    masks = OARMasks.empty((BRAIN,), grid.shape)
    masks.put_inside(BRAIN, *crops[0])
    points = tuple((side.raster, side.distances_mm) for side in (beyond.predicted, beyond.reference))
    overlay = Overlay({BRAIN: crops[1]}, {BRAIN: (points[0], points[1])})
    hu = crooked.crooked_hu()
    write_review(tmp_path / "review.json", tmp_path / "review.bin", hu, grid, masks, model="m", overlays=[overlay])
    found = Unpacked(tmp_path)
    far = found.head["overlays"][0]["beyond"]["Brain"]["reference"]
    rows = found.part(far["part"]).view("<u2").reshape(-1, 4)
    assert far["count"] == len(rows) > 0
    z_first = 15 if not to_axes(grid).orientation.flipped[0] else grid.shape[0] - 15
    assert {z_first} == set(rows[rows[:, 3] == rows[:, 3].max()][:, 0].tolist())
    assert rows[:, 3].max() == 75  # tenths of a millimetre


def test_a_series_too_large_for_a_browser_is_shown_with_fewer_rows_and_columns() -> None:
    from oarlock.pictures.review import _step

    assert _step((slice(0, 512), slice(0, 512)), 186) == 1
    step = _step((slice(0, 2048), slice(0, 2048)), 1000)
    assert (2048 / step) ** 2 * 1000 <= LARGEST

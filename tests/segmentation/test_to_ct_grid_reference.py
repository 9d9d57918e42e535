"""Masks of small grids are those of SciPy's interpolation, voxel by voxel: ends, slabs, flips, tilts and what nobody draws.

Spacings are sums of powers of two, so that a place on a limit is on it in binary numbers too.
"""

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from scipy.interpolate import RegularGridInterpolator

from oarlock.geometry.grid import Grid
from oarlock.geometry.masks import OARMasks
from oarlock.organs.catalogue import BY_NAME
from oarlock.segmentation.to_ct_grid import probabilities_to_masks
from tests.fixtures.orientations import voxel_centres_mm

CHANNELS = [BY_NAME[name] for name in ("Eye_L", "SpinalCord", "Lens_L", "Brain")]
"""The first is not drawn, and the second has no voxel."""

THRESHOLDS = [0.5, 0.5, 0.625, 0.5]
X, Y, Z = np.eye(3)


def canonical(z_mm: list[float], rows: int, columns: int, yx_mm: tuple[float, float], corner_mm: tuple[float, float]) -> Grid:
    origins = np.array([(corner_mm[1], corner_mm[0], z) for z in z_mm])
    return Grid(rows, columns, origins, X, Y, *yx_mm)


MODEL = canonical([0, 2.5, 4.5, 9.5], 3, 7, (4.0, 3.0), (-20, -30))
"""Its slices are not even."""

EVEN = canonical([0, 8, 16, 24, 32], 3, 2, (8.0, 4.0), (-20, -30))


def axial(row: npt.NDArray[np.float64], column: npt.NDArray[np.float64]) -> Grid:
    """13 slices of 14 × 15 voxels about the middle of MODEL, which lie beyond each of its ends."""
    centre, normal = np.array([-21.0, -16.0, 4.0]), np.cross(row, column)
    shape, step = (13, 14, 15), (1.5, 2.0, 1.75)
    first = centre - sum(d * s * (n - 1) / 2 for d, s, n in zip((normal, column, row), step, shape, strict=True))
    origins = first + np.arange(shape[0])[:, None] * step[0] * normal
    return Grid(shape[1], shape[2], origins, row, column, step[1], step[2])


def sheared(first_mm: tuple[float, float, float], shape: tuple[int, int, int], drift_mm: float = 1.0) -> Grid:
    """Slices that drift to the back: no patient axis runs along an index."""
    origins = np.array(first_mm) + np.arange(shape[0])[:, None] * np.array([0.0, drift_mm, 2.0])
    return Grid(shape[1], shape[2], origins, X, Y, 1.0, 1.0)


GRIDS = {
    "head first": (MODEL, axial(X, Y)),
    "prone": (MODEL, axial(-X, -Y)),
    "feet first": (MODEL, axial(-X, Y)),
    "on the side": (MODEL, axial(Y, -X)),
    "rows exchanged": (MODEL, axial(Y, X)),
    "within the model": (
        MODEL,
        replace(axial(X, Y), rows=3, columns=4, origins_mm=np.add(axial(X, Y).origins_mm[5:8], [9.0, 9.0, 0])),
    ),
    "tilted": (EVEN, sheared((-35.0, -36.0, -8.0), (26, 40, 14))),
    "tilted, within the model": (EVEN, sheared((-30.0, -16.0, 4.0), (3, 4, 3))),
}


def reference(probabilities: npt.NDArray[np.float32], threshold: float, model: Grid, grid: Grid) -> npt.NDArray[np.bool_]:
    """Three quarters of a voxel beyond the outer centres their values hold, and nothing further out."""
    upscale = probabilities.shape[1] // model.rows
    steps = np.array(
        [np.median(np.diff(model.slice_positions_mm)), model.row_spacing_mm / upscale, model.column_spacing_mm / upscale]
    )
    nodes = [model.slice_positions_mm]
    for axis, (n, corner) in enumerate(((model.rows, model.origins_mm[0, 1]), (model.columns, model.origins_mm[0, 0])), start=1):
        nodes.append(corner + ((np.arange(n * upscale) + 0.5) / upscale - 0.5) * steps[axis] * upscale)
    points = voxel_centres_mm(grid)[..., ::-1]
    low, high = (np.array([axis[end] for axis in nodes]) for end in (0, -1))
    near = ((points >= low - 0.75 * steps) & (points <= high + 0.75 * steps)).all(axis=-1)
    values = RegularGridInterpolator(nodes, probabilities.astype(np.float64))(np.clip(points, low, high))
    return np.asarray(near & (values >= threshold))


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("upscale", [1, 2])
@pytest.mark.parametrize("n", [2, 3])
def test_masks_are_what_scipy_interpolates(name: str, upscale: int, n: int) -> None:
    model, grid = GRIDS[name]
    shape = (len(CHANNELS), len(model.origins_mm), model.rows * upscale, model.columns * upscale)
    probabilities = np.random.default_rng(6).random(shape).astype(np.float32)
    probabilities[1] *= 0.25
    rows, columns = shape[2] // 2, shape[3] // 2
    probabilities[3, 1:, rows:, columns:] = 0.5 + probabilities[3, 1:, rows:, columns:] / 2
    probabilities[3, :1] = probabilities[3, :, :rows] = probabilities[3, :, :, :columns] = 0  # the brain is in one corner
    slabs = [(z, probabilities[:, z : z + n]) for z in range(0, shape[1], n)]
    masks = OARMasks.empty(CHANNELS, grid.shape)
    probabilities_to_masks(masks, slabs, model, grid, channels=CHANNELS, thresholds=THRESHOLDS, owned=CHANNELS[1:])
    drawn = [masks.mask(oar) for oar in CHANNELS]
    assert [mask.any() for mask in drawn[:2]] == [False, False]
    expected = [reference(probabilities[index], THRESHOLDS[index], model, grid) for index in (2, 3)]
    assert np.any(expected)
    assert np.array_equal(drawn[2:], expected)


@pytest.mark.parametrize(
    "grid", [canonical([0, 2, 4], 5, 5, (1.0, 1.0), (0, 0)), sheared((0, 0, 0), (3, 5, 5))], ids=["axial", "tilted"]
)
def test_a_voxel_that_just_reaches_the_threshold_is_drawn(grid: Grid) -> None:
    model = canonical([0, 2, 4], 9, 5, (1.0, 1.0), (0, 0))
    probabilities = np.zeros((1, 3, 9, 5), np.float32)
    probabilities[0, 1, 3, 2] = 0.5
    masks = OARMasks.empty(CHANNELS[:1], grid.shape)
    probabilities_to_masks(masks, [(0, probabilities)], model, grid, channels=CHANNELS[:1], thresholds=[0.5])
    assert np.argwhere(masks.mask(CHANNELS[0])).tolist() == [[1, 3 if grid.along_patient_axes() else 2, 2]]


@pytest.mark.parametrize("drift_mm", [0.0, 1.0], ids=["axial", "tilted"])
def test_a_voxel_exactly_at_the_end_of_the_reach_is_drawn(drift_mm: float) -> None:
    """Model voxels of 8 mm: three quarters of one are 6 mm, and the CT has a voxel there in every direction."""
    grid = sheared((0, 0, 0), (18, 40, 34), drift_mm)
    model = canonical([8, 16, 24], 2, 3, (8.0, 8.0), (20, 8))
    masks = OARMasks.empty(CHANNELS[:1], grid.shape)
    probabilities_to_masks(masks, [(0, np.ones((1, 3, 2, 3), np.float32))], model, grid, channels=CHANNELS[:1], thresholds=[0.5])
    z, y, x = np.indices(grid.shape)
    y_mm = y + drift_mm * z
    assert np.array_equal(masks.mask(CHANNELS[0]), (abs(2 * z - 16) <= 14) & (abs(y_mm - 24) <= 10) & (abs(x - 16) <= 14))


@pytest.mark.parametrize("shift_mm", [(0, -40, 0), (0, 40, 0), (-40, 0, 0), (40, 0, 0), (0, 0, -40), (0, 0, 40)])
@pytest.mark.parametrize("drift_mm", [0.0, 1.0], ids=["axial", "tilted"])
def test_what_lies_beyond_the_scan_is_not_drawn(shift_mm: tuple[float, float, float], drift_mm: float) -> None:
    grid = sheared((0, 0, 0), (5, 12, 12), drift_mm)
    model = canonical([2, 4, 6], 3, 3, (1.0, 1.0), (5, 5))
    model = replace(model, origins_mm=model.origins_mm + np.array(shift_mm))
    masks = OARMasks.empty(CHANNELS[:1], grid.shape)
    probabilities_to_masks(masks, [(0, np.ones((1, 3, 3, 3), np.float32))], model, grid, channels=CHANNELS[:1], thresholds=[0.5])
    assert not masks.bits.any()

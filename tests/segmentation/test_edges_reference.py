"""Edges move as a count of every window and SciPy's distances say, and each limit of a distance is met and passed."""

import numpy as np
import pytest
from scipy import ndimage

from oarlock.geometry.grid import Grid
from oarlock.geometry.masks import OARMasks
from oarlock.organs.catalogue import BY_NAME, OAR
from oarlock.segmentation.edges import move_edges, within
from oarlock.segmentation.manifest import Edge

LEFT, RIGHT, STEM, BRAIN = (BY_NAME[name] for name in ("Lung_L", "Lung_R", "Brainstem", "Brain"))
SHAPE = (7, 22, 26)
EDGES = {LEFT: Edge((-900.0, -300.0), 2.0, 3.0), RIGHT: Edge((-900.0, -301.0), 3.0, 1.5), STEM: Edge((0.0, 50.0), 1.0, 1.0)}
"""The stem is not drawn."""

PIXEL_MM = (1.0, 0.8)
"""5 and 7 are the odd numbers of pixels next to 5 mm."""


def grid(z_mm: list[float], drift_mm: float = 0.0) -> Grid:
    origins = np.array([(0.0, drift_mm * z, position) for z, position in enumerate(z_mm)])
    return Grid(SHAPE[1], SHAPE[2], origins, np.eye(3)[0], np.eye(3)[1], *PIXEL_MM)


GRIDS = {
    "even": grid([2.9 * z for z in range(7)]),
    "close": grid([0.5 * z for z in range(7)]),
    "uneven": grid([-12.1, -9.1, -8.6, -6.1, -3.1, -0.3, 2.7]),
    "tilted": grid([1.0 * z for z in range(7)], drift_mm=0.5),
}


def near(mask: np.ndarray, mm: float, places: np.ndarray) -> np.ndarray:
    """Every voxel within a distance of one of the mask: SciPy's distances in each slice, and Pythagoras between them."""
    apart = np.full(mask.shape, np.inf)
    for plane, place in zip(mask, places, strict=True):
        if plane.any():
            in_plane = ndimage.distance_transform_edt(~plane, sampling=PIXEL_MM)
            apart = np.minimum(apart, in_plane**2 + ((places - place) ** 2)[:, None, None])
    return np.asarray((apart <= mm**2 + 1e-9) & (mm > 0))


def tissue(hu: np.ndarray, edge: Edge) -> np.ndarray:
    inside = np.pad((hu >= edge.hu[0]) & (hu <= edge.hu[1]), [(0, 0), (2, 2), (3, 3)], mode="edge")
    return np.asarray(2 * np.lib.stride_tricks.sliding_window_view(inside, (1, 5, 7)).sum(axis=(3, 4, 5)) > 5 * 7)


def reference(masks: OARMasks, hu: np.ndarray, places: np.ndarray) -> dict[OAR, np.ndarray]:
    free = masks.bits == 0
    drawn = {oar: masks.mask(oar) for oar in EDGES}
    could_gain = {oar: tissue(hu, edge) & free & near(drawn[oar], edge.outwards_mm, places) for oar, edge in EDGES.items()}
    contested = sum(could_gain.values(), np.zeros(SHAPE, int)) > 1
    assert contested.any()
    lost = {oar: ~tissue(hu, edge) & near(~drawn[oar], edge.inwards_mm, places) for oar, edge in EDGES.items()}
    return {oar: (drawn[oar] & ~lost[oar]) | (could_gain[oar] & ~contested) for oar in EDGES}


@pytest.mark.parametrize("name", GRIDS)
def test_edges_move_as_every_voxel_is_asked(name: str) -> None:
    """Blocks of HU on a bound of the tissue, just beyond it, or far from it; two lungs that could gain the same, and a brain."""
    rng = np.random.default_rng(8)
    values = rng.choice([-901, -900, -600, -301, -300, -299, 40], (7, 6, 7), p=[0.1, 0.2, 0.2, 0.15, 0.15, 0.1, 0.1])
    hu = values.repeat(4, axis=1).repeat(4, axis=2)[:, :22, :26].astype(np.int16)
    hu[:, 8:14, 8:13] = -600
    masks = OARMasks.empty([BRAIN, LEFT, STEM, RIGHT], SHAPE)
    for oar, place in ((LEFT, np.s_[1:5, 5:17, 12:20]), (RIGHT, np.s_[2:6, 7:20, 2:9]), (BRAIN, np.s_[3, 8:12, 10:12])):
        inside = np.zeros(SHAPE, np.bool_)
        inside[place] = True
        masks.put(oar, (slice(None),) * 3, inside)
    places = GRIDS[name].slice_positions_mm if name != "tilted" else 1000.0 * np.arange(SHAPE[0])
    expected = reference(masks, hu, places)
    before = {oar: masks.mask(oar) for oar in (LEFT, RIGHT, BRAIN)}
    move_edges(masks, hu, GRIDS[name], EDGES)
    assert all(np.array_equal(masks.mask(oar), expected[oar]) for oar in EDGES)
    assert np.array_equal(masks.mask(BRAIN), before[BRAIN])
    assert all((before[oar] & ~expected[oar]).any() and (expected[oar] & ~before[oar]).any() for oar in (LEFT, RIGHT))


def test_without_edges_nothing_moves() -> None:
    masks = OARMasks.empty([LEFT], SHAPE)
    masks.put(LEFT, (slice(None),) * 3, np.ones(SHAPE, np.bool_))
    move_edges(masks, np.zeros(SHAPE, np.int16), GRIDS["even"], {})
    assert masks.mask(LEFT).all()


@pytest.mark.parametrize("step_mm", [0.123454, 0.5, 1.0])
@pytest.mark.parametrize(("steps", "reached"), [(0.0, 0), (0.9, 1), (1.0, 5), (1.4, 5), (1.42, 9), (2.0, 13)])
def test_a_band_of_whole_pixels_reaches_the_last_one(step_mm: float, steps: float, reached: int) -> None:
    mask = np.zeros((1, 7, 7), np.bool_)
    mask[0, 3, 3] = True
    assert within(mask, steps * step_mm, (step_mm, step_mm), np.zeros(1)).sum() == reached
    assert within(mask, steps * step_mm, (step_mm, step_mm), None).sum() == reached


@pytest.mark.parametrize("mm", [0.5, 1.0, 3.0])
def test_slices_that_do_not_lie_above_each_other_stand_alone(mm: float) -> None:
    mask = np.zeros((3, 1, 1), np.bool_)
    mask[1] = True
    assert np.array_equal(within(mask, mm, (1.0, 1.0), None), mask)
    assert within(mask, mm, (1.0, 1.0), np.arange(3) * mm).all()


def test_a_slice_that_is_a_rounding_too_far_is_reached() -> None:
    mask = np.array([[[True]], [[False]]])
    assert within(mask, 3.0, (1.0, 1.0), np.array([0.0, np.nextafter(3.0, 4.0)])).all()


@pytest.mark.parametrize(("step_mm", "first", "next_to_it"), [(3.0, 2, 1), (3.0, 9, 1), (0.5, 6, 6)])
def test_an_organ_gains_the_slices_of_its_band_wherever_it_lies_in_the_scan(step_mm: float, first: int, next_to_it: int) -> None:
    """Of two slices that are drawn, those within 3 mm on each side are gained, and no further one."""
    origins = np.outer(step_mm * np.arange(14), [0, 0, 1.0])
    tall = Grid(4, 5, origins, np.eye(3)[0], np.eye(3)[1], 3.0, 3.0)
    masks = OARMasks.empty([LEFT], tall.shape)
    drawn = np.zeros(tall.shape, np.bool_)
    drawn[first : first + 2] = True
    masks.put(LEFT, (slice(None),) * 3, drawn)
    move_edges(masks, np.full(tall.shape, -600, np.int16), tall, {LEFT: Edge((-900.0, -300.0), 3.0, 3.0)})
    gained = range(first - next_to_it, first + 2 + next_to_it)
    assert np.flatnonzero(masks.mask(LEFT).any(axis=(1, 2))).tolist() == list(gained)

"""Edges that move to those of tissue: how far, into what, and what a manifest may ask for."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from oarlock.errors import ManifestInvalid
from oarlock.geometry.grid import Grid
from oarlock.geometry.masks import Box, OARMasks
from oarlock.organs.catalogue import BY_NAME
from oarlock.segmentation.edges import move_edges, within
from oarlock.segmentation.manifest import Edge
from oarlock.segmentation.segment import Model, segment
from tests.segmentation.test_shared import GRID, TEXT, denser, manifest_of, neck, nothing

LEFT, RIGHT, BRAIN, STEM = (BY_NAME[name] for name in ("Lung_L", "Lung_R", "Brain", "Brainstem"))
SHAPE = (9, 24, 30)
LUNG_HU, CHEST_HU = -800, 40
BOTH_WAYS = Edge((-1100.0, -300.0), 3.0, 3.0)
ROWS = slice(0, 24)


def upright(z_mm: float = 10.0, pixel_mm: float = 1.0, first_mm: float = 0.0) -> Grid:
    origins = (first_mm + np.arange(SHAPE[0]) * z_mm)[:, None] * np.array([0.0, 0.0, 1.0])
    return Grid(SHAPE[1], SHAPE[2], origins, np.array([1.0, 0.0, 0.0]), np.array([0.0, 1.0, 0.0]), pixel_mm, pixel_mm)


def box(x: slice, z: slice = slice(2, 7), y: slice = ROWS) -> Box:
    return z, y, x


def chest(*lungs: Box) -> np.ndarray:
    """(z, y, x) HU: air of a lung in boxes, and tissue around them."""
    hu = np.full(SHAPE, CHEST_HU, np.int16)
    for lung in lungs:
        hu[lung] = LUNG_HU
    return hu


def moved(hu: np.ndarray, edges: dict, grid: Grid | None = None, *, at_once: int = 1, **drawn: Box) -> OARMasks:
    """The masks after the edges moved, where boxes were drawn."""
    masks = OARMasks.empty([LEFT, RIGHT, BRAIN], SHAPE)
    for name, where in drawn.items():
        inside = np.zeros(SHAPE, np.bool_)
        inside[where] = True
        masks.put(BY_NAME[name], (slice(None),) * 3, inside)
    move_edges(masks, hu, grid or upright(), edges, at_once=at_once)
    return masks


def columns(masks: OARMasks, name: str) -> list[int]:
    return np.flatnonzero(masks.mask(BY_NAME[name]).any(axis=(0, 1))).tolist()


def test_an_edge_moves_to_its_tissue_on_both_sides() -> None:
    """Drawn from column 8 to 19, in truth from 10 to 22: two columns are taken off, three added, nothing in rows or slices."""
    truth = box(slice(10, 23))
    masks = moved(chest(truth), {LEFT: BOTH_WAYS}, Lung_L=box(slice(8, 20)))
    expected = np.zeros(SHAPE, np.bool_)
    expected[truth] = True
    assert np.array_equal(masks.mask(LEFT), expected)


def test_organs_that_are_looked_at_side_by_side_have_the_edges_of_one_after_another() -> None:
    """Both could gain the columns between them."""
    drawn = {"Lung_L": box(slice(4, 12)), "Lung_R": box(slice(14, 22))}
    hu, edges = chest(box(slice(2, 24))), {LEFT: BOTH_WAYS, RIGHT: BOTH_WAYS}
    alone, together = (moved(hu, edges, at_once=at_once, **drawn) for at_once in (1, 2))
    assert np.array_equal(together.bits, alone.bits)
    assert columns(together, "Lung_L") == list(range(2, 12))


@pytest.mark.parametrize(("beyond", "reached"), [(3, 3), (4, 3)])
def test_tissue_is_added_up_to_the_band_and_no_further(beyond: int, reached: int) -> None:
    masks = moved(chest(box(slice(8, 20 + beyond))), {LEFT: BOTH_WAYS}, Lung_L=box(slice(8, 20)))
    assert columns(masks, "Lung_L") == list(range(8, 20 + reached))


@pytest.mark.parametrize("depth", [3, 4])
def test_what_is_no_tissue_of_the_organ_is_taken_off_within_the_band_and_not_deeper(depth: int) -> None:
    """A tumour on the pleura: of one of 4 mm the deepest column stays, as the network may know better."""
    hu = chest(box(slice(8 + depth, 20)))
    masks = moved(hu, {LEFT: BOTH_WAYS}, Lung_L=box(slice(8, 20)))
    middle = masks.mask(LEFT)[4, 12]
    assert np.flatnonzero(middle[:12]).tolist() == [11]


def test_a_vessel_at_the_edge_makes_no_notch() -> None:
    """Most of the 5 mm about a pixel decide what it is: two columns of vessel stay in the lung, three are taken off."""
    kept = []
    for width in (2, 3):
        hu = chest(box(slice(8, 30)))
        hu[:, :, 11 : 11 + width] = CHEST_HU
        middle = moved(hu, {LEFT: Edge((-1100.0, -300.0), 5.0, 0.0)}, Lung_L=box(slice(8, 30))).mask(LEFT)[4, 12]
        kept.append(bool(middle[8:13].all()))
    assert kept == [True, False]


def test_an_edge_that_moves_inwards_alone_gains_nothing() -> None:
    masks = moved(chest(box(slice(10, 26))), {LEFT: replace(BOTH_WAYS, outwards_mm=0.0)}, Lung_L=box(slice(8, 20)))
    assert columns(masks, "Lung_L") == list(range(10, 20))


def test_what_lies_beyond_an_organs_box_is_seen_too() -> None:
    """Columns 18 and 19 are lung, and chest begins behind them: the same voxels are kept when a far one widens the box."""
    hu = chest(box(slice(8, 19)))
    hu[:, :, 24:] = LUNG_HU
    inwards = {LEFT: replace(BOTH_WAYS, outwards_mm=0.0)}
    alone = moved(hu, inwards, Lung_L=box(slice(8, 20))).mask(LEFT)
    masks = OARMasks.empty([LEFT, RIGHT, BRAIN], SHAPE)
    wider = np.zeros(SHAPE, np.bool_)
    wider[box(slice(8, 20))] = wider[4, 12, 29] = True
    masks.put(LEFT, (slice(None),) * 3, wider)
    move_edges(masks, hu, upright(), inwards)
    assert np.array_equal(masks.mask(LEFT)[:, :, :20], alone[:, :, :20])


def test_no_organ_is_entered_even_where_its_tissue_looks_the_same() -> None:
    hu = chest(box(slice(4, 26)))
    masks = moved(hu, {LEFT: BOTH_WAYS}, Lung_L=box(slice(8, 16)), Brain=box(slice(17, 26)))
    assert columns(masks, "Lung_L") == [*range(5, 16), 16]
    assert columns(masks, "Brain") == list(range(17, 26))


@pytest.mark.parametrize("names", [(LEFT, RIGHT), (RIGHT, LEFT)])
def test_what_two_organs_could_gain_goes_to_neither_whatever_their_order(names: tuple) -> None:
    """Five columns lie between them: the outer ones are gained, the middle one is within 3 mm of both."""
    hu = chest(box(slice(2, 28)))
    masks = moved(hu, dict.fromkeys(names, BOTH_WAYS), Lung_R=box(slice(2, 12)), Lung_L=box(slice(17, 28)))
    assert columns(masks, "Lung_R")[-1] == 13
    assert columns(masks, "Lung_L")[0] == 15


@pytest.mark.parametrize("first_mm", [0.0, -12.1, 0.1])
@pytest.mark.parametrize(("z_mm", "slices"), [(3.0, [1, 7]), (3.1, [])])
def test_the_band_reaches_the_next_slice_if_it_lies_within(z_mm: float, slices: list[int], first_mm: float) -> None:
    """Wherever the first slice lies: its place in binary must not decide about a cross-section."""
    hu = chest(box(slice(8, 20), z=slice(0, 9)))
    masks = moved(hu, {LEFT: BOTH_WAYS}, upright(z_mm, first_mm=first_mm), Lung_L=box(slice(8, 20)))
    gained = np.flatnonzero(masks.mask(LEFT).any(axis=(1, 2))).tolist()
    assert [z for z in gained if not 2 <= z < 7] == slices


def test_under_a_gantry_tilt_each_slice_stands_alone() -> None:
    """Slices that do not lie straight above each other: a neighbour's pixel is not where its index says."""
    straight = upright(2.0)
    tilted = replace(straight, origins_mm=straight.origins_mm + np.arange(SHAPE[0])[:, None] * np.array([0.0, 0.5, 0.0]))
    hu = chest(box(slice(8, 20), z=slice(0, 9)))
    slices = [
        np.flatnonzero(moved(hu, {LEFT: BOTH_WAYS}, grid, Lung_L=box(slice(8, 20))).mask(LEFT).any(axis=(1, 2))).tolist()
        for grid in (straight, tilted)
    ]
    assert slices == [list(range(1, 8)), list(range(2, 7))]


def test_where_the_scan_ends_there_is_no_edge() -> None:
    """A lung that the scan cuts: its first slice stays whole, though the chest of the slice below was not seen."""
    hu = chest(box(slice(8, 20), z=slice(2, 9)))
    masks = moved(hu, {LEFT: BOTH_WAYS}, upright(2.0), Lung_L=box(slice(8, 20), z=slice(0, 5)))
    sizes = masks.mask(LEFT).sum(axis=(1, 2))
    assert sizes[0] == 6 * 24  # its rim of 3 mm is taken off, what lies deeper is kept
    assert (sizes[2:5] == 12 * 24).all()


@pytest.mark.parametrize("mm", [0.5, 1.0, 2.7, 3.0])
def test_within_is_the_distance_between_centres(mm: float) -> None:
    mask = np.random.default_rng(3).random((7, 20, 22)) < 0.01
    spacing = (1.3, 0.9, 0.7)
    expected = ndimage.distance_transform_edt(~mask, sampling=spacing) <= mm
    assert np.array_equal(within(mask, mm, spacing[1:], np.arange(7) * spacing[0]), expected)


def test_a_band_of_nothing_holds_nothing() -> None:
    assert not within(np.ones((2, 3, 3), np.bool_), 0.0, (1.0, 1.0), None).any()


def test_a_model_that_asks_for_it_draws_to_the_tissue(tmp_path: Path) -> None:
    """The brainstem has 200 HU and is drawn a voxel too large; what is not its tissue is taken off within 2 mm.

    What an organ measures then is what was found of it, so that the checks compare like with like.
    """
    edge = "[edges.Brainstem]\nhu = [150, 230]\ninwards_mm = 2.0\n"
    hu = neck()
    drawn = {}
    for name, text in (("as drawn", TEXT), ("moved", TEXT + edge)):
        folder = tmp_path / name
        folder.mkdir()
        model = Model(manifest_of(folder, text), {"whole": _whole, "axis": nothing}, "cpu")
        found = segment(hu, GRID, model)
        drawn[name] = found.masks.mask(STEM)
        assert found.certainty[STEM].drawn_ml == pytest.approx(
            found.masks.volume_ml(STEM, GRID), rel=1e-9 if "edges" in text else 0.2
        )
    lost = drawn["as drawn"] & ~drawn["moved"]
    assert lost.any()
    assert not (drawn["moved"] & ~drawn["as drawn"]).any()
    assert not ((hu[lost] >= 150) & (hu[lost] <= 230)).any()


def _whole(hu: np.ndarray) -> np.ndarray:
    """Everything above 100 HU and what lies beside it: drawn too large."""
    found = denser(hu, {0: (100.0, 250.0), 1: (500.0, 600.0)})
    wide = ndimage.maximum_filter(found, (1, 1, 1, 3, 3))
    return wide.repeat(2, axis=3).repeat(2, axis=4)


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        ("hu = [230, 150]\ninwards_mm = 2.0", r"\[edges\] Brainstem needs hu as two numbers, the lower one first"),
        ("hu = [150]\ninwards_mm = 2.0", r"\[edges\] \[Brainstem\] hu must be two numbers, the lower one first"),
        ("hu = [150, 230]", r"\[edges\] Brainstem needs inwards_mm or outwards_mm above 0"),
        ("hu = [150, 230]\noutwards_mm = 5.1", r"\[edges\] \[Brainstem\] outwards_mm must be at most 5"),
        ("hu = [150, 230]\ninwards_mm = -1.0", r"\[edges\] \[Brainstem\] inwards_mm must be at least 0"),
        ("hu = [150, 230]\ninwards_mm = 1.0\nband = 3", r"\[edges\] \[Brainstem\] band is not a key of this schema"),
    ],
)
def test_an_edge_that_cannot_be_is_refused_with_the_reason(table: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(ManifestInvalid, match=reason):
        manifest_of(tmp_path, f"{TEXT}\n[edges.Brainstem]\n{table}\n")


def test_an_edge_of_the_widest_band_is_read_and_that_of_an_organ_that_nobody_draws_is_refused(tmp_path: Path) -> None:
    edge = "hu = [150, 230]\ninwards_mm = 5.0\n"
    assert manifest_of(tmp_path, f"{TEXT}\n[edges.Brainstem]\n{edge}").edges == {BY_NAME["Brainstem"]: Edge((150, 230), 5.0, 0.0)}
    with pytest.raises(ManifestInvalid, match=r"\[edges\] Brain: no part draws it"):
        manifest_of(tmp_path, f"{TEXT}\n[edges.Brain]\n{edge}")


def test_both_sides_of_an_organ_have_the_same_edge(tmp_path: Path) -> None:
    pair = TEXT.replace("Brainstem", "Eye_L").replace("SpinalCord", "Eye_R").replace("[shares]\nEye_R = 0.8\n", "")
    pair = pair.replace('Eye_R = "axis"', 'Eye_R = "whole"').replace('Eye_L = "whole"', 'Eye_L = "whole"\nBrain = "axis"')
    pair = pair.replace('oar = [{ name = "Eye_R" }, { name = "Eye_L" }]', 'oar = [{ name = "Brain" }, { name = "Eye_L" }]')
    edge = "[edges.{}]\nhu = [0, 100]\ninwards_mm = {}\n"
    both = manifest_of(tmp_path, pair + edge.format("Eye_L", 2.0) + edge.format("Eye_R", 2.0)).edges
    assert [oar.name for oar in both] == ["Eye_L", "Eye_R"]
    for other in ("", edge.format("Eye_R", 3.0)):
        with pytest.raises(ManifestInvalid, match=r"\[edges\] Eye_. and Eye_. are a pair: give both the same edge"):
            manifest_of(tmp_path, pair + edge.format("Eye_L", 2.0) + other)


def test_an_edge_is_in_the_hash(tmp_path: Path) -> None:
    edge = "\n[edges.Brainstem]\nhu = [150, 230]\ninwards_mm = {}\n"
    hashes = {manifest_of(tmp_path, text).sha256 for text in (TEXT, TEXT + edge.format(2.0), TEXT + edge.format(3.0))}
    assert len(hashes) == 3

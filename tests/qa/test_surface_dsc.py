"""Our numbers against google-deepmind/surface-distance 0.1, against what can be worked out by hand, and against each other."""

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import surface_distance as library
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import ndimage
from surface_distance import lookup_tables

from oarlock.arrays import Mask
from oarlock.geometry.grid import Grid
from oarlock.geometry.masks import Crop, voxels_per_slice
from oarlock.organs.catalogue import OAR, OARS
from oarlock.qa.lattice import Lattice, rounded_tolerance_mm
from oarlock.qa.marching_cubes import TABLE
from oarlock.qa.surface import element_areas_mm2
from oarlock.qa.surface_dsc import ALLOWANCE_MM, OneWay, SurfaceDistances, surface_distances
from oarlock.qa.volumes import added_path_length_mm, centre_mm, contour_pixels, one_sided_slice_share, volume_ml, volumetric_dsc
from tests.fixtures.crooked import SHAPE, SPACING_MM, crooked_grid
from tests.qa.marching_cubes_rule import table_by_rule
from tools.derive_norms import ContourSet

EXACT = 1e-6

pytestmark = pytest.mark.filterwarnings("ignore:Please import:DeprecationWarning")

SPACINGS = st.sampled_from(
    [(1.0, 1.0, 1.0), (2.5, 1.1, 0.9), (3.0, 0.9765625, 0.9765625), (2.500629, 0.98, 0.98), (0.7, 2.0, 0.4)]
)


def block(shape: tuple[int, int, int], *boxes: tuple[slice, slice, slice]) -> Mask:
    mask = np.zeros(shape, dtype=np.bool_)
    for box in boxes:
        mask[box] = True
    return mask


@st.composite
def masks(draw: st.DrawFn, shape: tuple[int, int, int]) -> Mask:
    """A mask of one of many kinds, never empty: noise, blocks that touch the border, a shell with a hole, a single voxel."""
    kind = draw(st.sampled_from(["noise", "block", "shell", "voxel", "full"]))
    if kind == "full":
        return np.ones(shape, dtype=np.bool_)
    if kind == "voxel":
        place = tuple(draw(st.integers(0, n - 1)) for n in shape)
        mask = np.zeros(shape, dtype=np.bool_)
        mask[place] = True
        return mask
    if kind == "noise":
        generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
        mask = generator.random(shape) < draw(st.sampled_from([0.03, 0.3, 0.6, 0.95]))
        mask[tuple(n // 2 for n in shape)] = True
        return mask
    starts = [draw(st.integers(0, n - 1)) for n in shape]
    stops = [draw(st.integers(start + 1, n)) for start, n in zip(starts, shape, strict=True)]
    mask = block(shape, (slice(starts[0], stops[0]), slice(starts[1], stops[1]), slice(starts[2], stops[2])))
    if kind == "shell":
        mask[tuple(slice(start + 1, max(start + 1, stop - 1)) for start, stop in zip(starts, stops, strict=True))] = False
    return mask


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Mask, Mask]:
    shape = draw(st.tuples(st.integers(1, 7), st.integers(1, 8), st.integers(1, 9)))
    return draw(masks(shape)), draw(masks(shape))


# ── the area of surface elements ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.5, 1.1, 0.9), (0.4, 0.8, 3.0)])
def test_all_256_areas_computed_from_the_triangulation_are_the_librarys(spacing: tuple[float, float, float]) -> None:
    theirs = lookup_tables.create_table_neighbour_code_to_surface_area(spacing)
    np.testing.assert_allclose(element_areas_mm2(np.diag(spacing)), theirs, rtol=0, atol=1e-12)


def test_one_corner_is_cut_off_by_the_triangle_through_three_edge_middles() -> None:
    # A triangle with the legs z/2, y/2, x/2: half the root of the sum of its squared shadows, each (a/2)(b/2).
    z, y, x = 2.5, 1.1, 0.9
    expected = math.sqrt((z * y / 4) ** 2 + (y * x / 4) ** 2 + (z * x / 4) ** 2) / 2
    areas = element_areas_mm2(np.diag([z, y, x]))
    for bit in range(8):
        assert areas[1 << bit] == pytest.approx(expected)


def test_a_flat_wall_has_the_area_of_its_face() -> None:
    areas = element_areas_mm2(np.diag([2.5, 1.1, 0.9]))
    assert areas[0b11110000] == pytest.approx(1.1 * 0.9)  # the four voxels of one slice
    assert areas[0b11001100] == pytest.approx(2.5 * 0.9)  # of one row
    assert areas[0b10101010] == pytest.approx(2.5 * 1.1)  # of one column


def test_no_element_where_all_voxels_agree_and_complements_are_equal() -> None:
    areas = element_areas_mm2(np.diag([2.5, 1.1, 0.9]))
    assert areas[0] == areas[255] == 0
    np.testing.assert_allclose(areas, areas[::-1])


def test_a_sheared_cell_has_the_areas_of_its_sheared_triangles() -> None:
    # Slices that drift 1 mm along x for each step of 2 mm: a wall across x stands as before, one across y keeps its height.
    areas = element_areas_mm2(np.array([[2.0, 0.0, 1.0], [0.0, 1.1, 0.0], [0.0, 0.0, 0.9]]))
    assert areas[0b11110000] == pytest.approx(1.1 * 0.9)
    assert areas[0b11001100] == pytest.approx(2.0 * 0.9)  # a parallelogram of base 0.9 and height 2
    assert areas[0b10101010] == pytest.approx(1.1 * math.hypot(2.0, 1.0))


# ── agreement with the library ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
@settings(deadline=None, max_examples=150)
@given(pairs(), SPACINGS, st.sampled_from([0.0, 0.5, 0.98, 1.1, 2.5, 4.03]))
def test_random_masks_of_every_kind_agree_with_the_library(pair: tuple[Mask, Mask], spacing: Any, tolerance_mm: float) -> None:
    predicted, reference = pair
    ours = surface_distances(predicted, reference, lattice=Lattice.upright(len(predicted), spacing))
    theirs = library.compute_surface_distances(reference, predicted, spacing)
    forth, back = library.compute_average_surface_distance(theirs)
    assert ours.reference.mean_mm() == pytest.approx(forth, abs=EXACT)
    assert ours.predicted.mean_mm() == pytest.approx(back, abs=EXACT)
    assert ours.hausdorff_mm(100) == pytest.approx(library.compute_robust_hausdorff(theirs, 100), abs=EXACT)
    dsc = library.compute_surface_dice_at_tolerance(theirs, tolerance_mm)
    assert ours.surface_dsc(tolerance_mm) == pytest.approx(dsc, abs=EXACT)
    # Where exactly 95 % of an area lie below a step, the last digit of a sum decides in the library; we take the step below.
    near = [library.compute_robust_hausdorff(theirs, percent) for percent in (95 - 1e-6, 95, 95 + 1e-6)]
    assume(near[0] == near[2])
    assert ours.hausdorff_mm(95) == pytest.approx(near[1], abs=EXACT)


@settings(deadline=None, max_examples=50)
@given(pairs())
def test_volumetric_dsc_agrees_with_the_library(pair: tuple[Mask, Mask]) -> None:
    predicted, reference = pair
    expected = library.compute_dice_coefficient(reference, predicted)
    assert volumetric_dsc(predicted, reference, lattice=Lattice.upright(len(predicted), (2.5, 1.1, 0.9))) == pytest.approx(
        expected
    )


COLUMNS = {
    "dsc",
    "vol_onc_cc",
    "vol_rad_cc",
    "hd95",
    "hd100",
    "asd_gt_to_pred",
    "asd_pred_to_gt",
    "msd",
    "area_onc_mm2",
    "area_rad_mm2",
    "tau_rounded_mm",
    "sdsc_tau",
    "sdsc_tau_rounded",
}


@pytest.mark.long("cohort")
def test_the_reference_values_of_real_contours_agree_row_by_row(shared: Path, expert_sets: Sequence[ContourSet]) -> None:
    with (shared / "data/contours/expected.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    sides = {(drawn.case, drawn.rater): drawn for drawn in expert_sets}
    pairs = [(row, sides[row["case"], "oncologist"], sides[row["case"], "radiographer"]) for row in rows]
    both = [_disagreements(*pair) for pair in pairs if pair[0]["status"] == "both"]
    assert (len(both), [found for found in both if found]) == (434, [])
    assert not [row for row, *drawn in pairs if row["status"] != "both" and all(_oar(row) in one.crops for one in drawn)]


def _oar(row: Mapping[str, str]) -> OAR:
    return next(oar for oar in OARS if oar.paper_name == row["organ"])


def _disagreements(row: Mapping[str, str], oncologist: ContourSet, radiographer: ContourSet) -> dict[str, tuple[float, float]]:
    crops = [drawn.crops[_oar(row)] for drawn in (oncologist, radiographer)]
    box = tuple(
        slice(min(s.start for s in pair), max(s.stop for s in pair)) for pair in zip(*(box for box, _ in crops), strict=True)
    )
    reference, predicted = (_laid(crop, box) for crop in crops)
    lattice = Lattice.of(oncologist.grid).between(box[0].start, box[0].stop)
    ours = _all_numbers(predicted, reference, lattice, float(row["tau_mm"]))
    assert set(ours) == COLUMNS
    return {
        name: (value, float(row[name]))
        for name, value in ours.items()
        if abs(value - float(row[name])) > EXACT * max(1, abs(value))
    }


def _laid(crop: Crop, box: Sequence[slice]) -> Mask:
    """An organ in a box that holds its own."""
    own, mask = crop
    whole = np.zeros([s.stop - s.start for s in box], dtype=np.bool_)
    whole[tuple(slice(s.start - o.start, s.stop - o.start) for s, o in zip(own, box, strict=True))] = mask
    return whole


def _all_numbers(predicted: Mask, reference: Mask, lattice: Lattice, tolerance_mm: float) -> dict[str, float]:
    distances = surface_distances(predicted, reference, lattice=lattice)
    rounded_mm = rounded_tolerance_mm(tolerance_mm, lattice)
    assert rounded_mm is not None
    return {
        "dsc": volumetric_dsc(predicted, reference, lattice=lattice),
        "vol_onc_cc": volume_ml(voxels_per_slice(reference), lattice=lattice),
        "vol_rad_cc": volume_ml(voxels_per_slice(predicted), lattice=lattice),
        "hd95": distances.hausdorff_mm(95),
        "hd100": distances.hausdorff_mm(100),
        "asd_gt_to_pred": distances.reference.mean_mm(),
        "asd_pred_to_gt": distances.predicted.mean_mm(),
        "msd": distances.mean_mm(),
        "area_onc_mm2": distances.reference.area_mm2,
        "area_rad_mm2": distances.predicted.area_mm2,
        "tau_rounded_mm": rounded_mm,
        "sdsc_tau": distances.surface_dsc(tolerance_mm),
        "sdsc_tau_rounded": distances.surface_dsc(rounded_mm + ALLOWANCE_MM),
    }


# ── properties ────────────────────────────────────────────────────────────────────────────────────────────────────────


@settings(deadline=None, max_examples=60)
@given(pairs(), SPACINGS)
def test_exchanging_the_sides_exchanges_the_directions_and_nothing_else(pair: tuple[Mask, Mask], spacing: Any) -> None:
    lattice = Lattice.upright(len(pair[0]), spacing)
    one, other = surface_distances(*pair, lattice=lattice), surface_distances(*pair[::-1], lattice=lattice)
    assert one.surface_dsc(1.3) == pytest.approx(other.surface_dsc(1.3))
    assert one.hausdorff_mm(95) == other.hausdorff_mm(95)
    assert one.predicted.mean_mm() == pytest.approx(other.reference.mean_mm())


@pytest.mark.slow
@settings(deadline=None, max_examples=60)
@given(pairs(), SPACINGS, st.integers(0, 3))
def test_what_surrounds_the_masks_does_not_matter(pair: tuple[Mask, Mask], spacing: Any, width: int) -> None:
    padded = [np.pad(mask, width) for mask in pair]
    inner = surface_distances(*pair, lattice=Lattice.upright(len(pair[0]), spacing))
    outer = surface_distances(*padded, lattice=Lattice.upright(len(padded[0]), spacing))
    assert outer.surface_dsc(1.5) == pytest.approx(inner.surface_dsc(1.5))
    assert outer.hausdorff_mm(95) == inner.hausdorff_mm(95)


@settings(deadline=None, max_examples=60)
@given(pairs(), SPACINGS)
def test_surface_dsc_grows_with_the_tolerance_from_0_to_1(pair: tuple[Mask, Mask], spacing: Any) -> None:
    distances = surface_distances(*pair, lattice=Lattice.upright(len(pair[0]), spacing))
    values = [distances.surface_dsc(tolerance) for tolerance in (-1.0, 0.0, 0.5, 1.0, 2.0, 100.0)]
    assert values == sorted(values)
    assert values[0] == 0.0
    assert values[-1] == pytest.approx(1.0)


def one_way(shared_mm2: float, **areas_mm2_at: float) -> OneWay:
    """A surface of which so much lies at each distance, in mm."""
    distances = np.array([float(name.removeprefix("mm")) for name in areas_mm2_at])
    return OneWay(distances, np.array(list(areas_mm2_at.values())), np.zeros((len(distances), 3), np.intp), shared_mm2)


@pytest.mark.parametrize(("percent", "mm"), [(40, 0), (41, 1), (60, 1), (61, 2), (90, 2), (91, 4), (100, 4)])
def test_a_percentile_is_the_distance_that_so_much_of_the_area_does_not_exceed(percent: float, mm: float) -> None:
    """Of 10 mm² four are shared, two lie at 1 mm, three at 2 mm and one at 4 mm."""
    assert one_way(4.0, mm4=1.0, mm1=2.0, mm2=3.0).percentile_mm(percent) == mm


def test_mean_distances_are_weighted_by_area_and_both_ways_count_the_same() -> None:
    """(4 + 2 + 6) / 10 one way, 5 · 2 / 4 the other; the 95th percentile of each is the default, and the larger one counts."""
    there, back = one_way(4.0, mm4=1.0, mm1=2.0, mm2=3.0), one_way(2.0, mm5=2.0)
    assert (there.mean_mm(), back.mean_mm()) == pytest.approx((1.2, 2.5))
    assert SurfaceDistances(there, back).mean_mm() == pytest.approx(1.85)
    thin = one_way(0.0, mm1=94.4, mm2=0.3, mm3=5.3)
    assert SurfaceDistances(thin, one_way(1.0)).hausdorff_mm(95) == 3.0
    assert SurfaceDistances(there, back).hausdorff_mm(95) == 5.0


def test_nothing_lies_within_less_than_no_distance() -> None:
    assert OneWay(np.array([1.0]), np.array([2.0]), np.zeros((1, 3), np.int64), 5.0).within_mm2(-0.5) == 0.0


def test_of_a_corner_that_was_cut_off_each_side_has_one_element_alone() -> None:
    """The block's own corner, and the one inside of it, of which seven voxels of eight are left; both are 1 mm from the other."""
    whole = block((5, 5, 5), np.s_[1:4, 1:4, 1:4])
    cut = whole.copy()
    cut[1, 1, 1] = False
    found = surface_distances(whole, cut, lattice=Lattice.upright(5, (1.0, 1.0, 1.0)))
    assert found.predicted.distances_mm.tolist() == found.reference.distances_mm.tolist() == [1.0]
    assert (found.predicted.raster.tolist(), found.reference.raster.tolist()) == ([[1, 1, 1]], [[2, 2, 2]])


@pytest.mark.parametrize("corner", list(np.ndindex(2, 2, 2)))
def test_whichever_corner_was_cut_off_a_mask_shares_every_element_with_itself(corner: tuple[int, int, int]) -> None:
    mask = block((4, 4, 4), np.s_[1:3, 1:3, 1:3])
    mask[tuple(1 + np.array(corner))] = False
    found = surface_distances(mask, mask, lattice=Lattice.upright(4, (1.0, 1.0, 1.0)))
    assert found.predicted.distances_mm.size == 0
    assert found.predicted.shared_mm2 == found.predicted.area_mm2 > 0


def test_a_mask_agrees_with_itself() -> None:
    mask = block((5, 7, 6), np.s_[1:4, 2:6, 1:5])
    distances = surface_distances(mask, mask, lattice=Lattice.upright(5, (2.5, 1.1, 0.9)))
    assert distances.surface_dsc(0.0) == 1.0
    assert distances.hausdorff_mm(100) == distances.mean_mm() == 0.0


def test_a_wrong_order_of_the_spacings_changes_the_numbers() -> None:
    one, other = block((4, 5, 6), np.s_[1:2, 1:4, 1:5]), block((4, 5, 6), np.s_[2:3, 1:4, 1:5])
    right = surface_distances(one, other, lattice=Lattice.upright(4, (2.5, 1.1, 0.9)))
    turned = surface_distances(one, other, lattice=Lattice.upright(4, (0.9, 1.1, 2.5)))
    assert right.hausdorff_mm(100) == 2.5
    assert turned.hausdorff_mm(100) == 0.9


@pytest.mark.parametrize("empty_side", [0, 1])
def test_an_empty_mask_is_refused_and_not_called_infinite(empty_side: int) -> None:
    sides = [np.ones((2, 3, 4), dtype=np.bool_), np.ones((2, 3, 4), dtype=np.bool_)]
    sides[empty_side][:] = False
    with pytest.raises(ValueError, match="no surface"):
        surface_distances(*sides, lattice=Lattice.upright(2, (1, 1, 1)))


def test_masks_of_different_shape_are_refused() -> None:
    with pytest.raises(ValueError, match="one shape"):
        surface_distances(
            np.ones((2, 3, 4), dtype=np.bool_), np.ones((2, 4, 3), dtype=np.bool_), lattice=Lattice.upright(2, (1, 1, 1))
        )


# ── the tolerance ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_tolerance_is_rounded_to_the_nearest_distance_between_two_voxels() -> None:
    # With 2.5 × 0.98 × 0.98 mm: 0, 0.98, √2 · 0.98 = 1.386, 2 · 0.98 = 1.96, √5 · 0.98 = 2.191, 2.5, …
    lattice = Lattice.upright(3, (2.5, 0.98, 0.98))
    rounded = {tolerance: rounded_tolerance_mm(tolerance, lattice) for tolerance in (0.98, 1.01, 1.25, 1.65, 2.02, 2.3, 2.5)}
    expected = {0.98: 0.98, 1.01: 0.98, 1.25: 2**0.5 * 0.98, 1.65: 2**0.5 * 0.98, 2.02: 1.96, 2.3: 5**0.5 * 0.98, 2.5: 2.5}
    assert rounded == pytest.approx(expected)


@settings(deadline=None, max_examples=60)
@given(st.floats(0.3, 3.0), st.tuples(*[st.floats(0.4, 3.0)] * 3))
def test_no_voxel_distance_is_nearer_to_the_tolerance_than_the_rounded_one(tolerance_mm: float, spacing: Any) -> None:
    counts = np.stack(np.meshgrid(*[np.arange(12)] * 3), axis=-1).reshape(-1, 3)
    best = np.abs(np.linalg.norm(counts * spacing, axis=1) - tolerance_mm).min()
    rounded_mm = rounded_tolerance_mm(tolerance_mm, Lattice.upright(2, spacing))
    assert rounded_mm is not None
    assert abs(rounded_mm - tolerance_mm) == pytest.approx(best, abs=1e-9)


def test_a_slice_spacing_just_over_the_tolerance_loses_every_step_unrounded_and_none_rounded() -> None:
    lattice = Lattice.upright(5, (2.500629, 0.98, 0.98))
    one, other = block((5, 6, 6), np.s_[1:3, 1:5, 1:5]), block((5, 6, 6), np.s_[2:4, 1:5, 1:5])
    distances = surface_distances(one, other, lattice=lattice)
    rounded_mm = rounded_tolerance_mm(2.5, lattice)
    assert rounded_mm is not None
    assert distances.surface_dsc(rounded_mm + ALLOWANCE_MM) == 1.0
    assert distances.surface_dsc(2.5) < 1.0


def test_the_last_digit_of_a_position_does_not_decide() -> None:
    # 0.98 · 101 - 0.98 · 100 is a little more than 0.98 in binary; the library's distance transform has exactly 0.98.
    one, other = block((1, 3, 130), np.s_[0:1, 1:2, 100:120]), block((1, 3, 130), np.s_[0:1, 1:2, 101:121])
    assert surface_distances(one, other, lattice=Lattice.upright(1, (2.5, 0.98, 0.98))).surface_dsc(0.98) == 1.0


# ── slices that are not evenly spaced, or drift ───────────────────────────────────────────────────────────────────────


def _grid(offsets_mm: list[tuple[float, float, float]]) -> Grid:
    """Slices at (z, y, x) offsets from a crooked origin."""
    origins = np.array([-31.2, 17.8, -402.5]) + np.array(offsets_mm)[:, ::-1]
    return Grid(20, 21, origins, np.array([1.0, 0, 0]), np.array([0, 1.0, 0]), 1.1, 0.9)


def test_evenly_spaced_slices_of_a_series_are_an_upright_lattice() -> None:
    ours, plain = Lattice.of(crooked_grid()), Lattice.upright(SHAPE[0], SPACING_MM)
    np.testing.assert_array_equal(ours.slice_offsets_mm, plain.slice_offsets_mm)
    np.testing.assert_array_equal(np.asarray(ours.step_mm), np.asarray(plain.step_mm))


def test_positions_that_are_rounded_in_the_file_count_as_even() -> None:
    assert Lattice.of(_grid([(0, 0, 0), (2.4999, 0, 0), (5.0001, 0, 0), (7.5, 0, 0)])).step_mm is not None
    assert Lattice.of(_grid([(0, 0, 0), (2.5, 0, 0), (5.3, 0, 0), (7.8, 0, 0)])).step_mm is None


def test_uneven_slices_use_their_true_positions() -> None:
    # A tower over slices 1 and 2, and one over 1 to 3: they differ by the step from slice 2 to slice 3, which is 4 mm long.
    lattice = Lattice.of(_grid([(0, 0, 0), (2, 0, 0), (4, 0, 0), (8, 0, 0), (10, 0, 0)]))
    short, tall = block((5, 20, 21), np.s_[1:3, 5:15, 5:15]), block((5, 20, 21), np.s_[1:4, 5:15, 5:15])
    distances = surface_distances(short, tall, lattice=lattice)
    # Their tops lie half way up to the next slice: at 4 + 2 = 6 mm and at 8 + 1 = 9 mm.
    assert distances.hausdorff_mm(100) == pytest.approx(3.0)
    assert rounded_tolerance_mm(2.5, lattice) is None
    assert volume_ml(voxels_per_slice(short), lattice=lattice) == pytest.approx(100 * (2 + 3) * 1.1 * 0.9 / 1000)


def test_a_tilted_stack_measures_along_the_tilt() -> None:
    # Slices 2 mm apart that drift 1.5 mm along y: one step is √(2² + 1.5²) = 2.5 mm long.
    lattice = Lattice.of(_grid([(2.0 * z, 1.5 * z, 0) for z in range(6)]))
    one, other = block((6, 20, 21), np.s_[1:2, 9:10, 9:10]), block((6, 20, 21), np.s_[4:5, 9:10, 9:10])
    assert centre_mm(other, lattice=lattice) - centre_mm(one, lattice=lattice) == pytest.approx([6.0, 4.5, 0.0])
    assert rounded_tolerance_mm(2.45, lattice) == pytest.approx(2.5)


@settings(deadline=None, max_examples=40)
@given(pairs(), SPACINGS)
def test_true_positions_give_the_same_numbers_as_whole_steps_where_slices_are_even(pair: tuple[Mask, Mask], spacing: Any) -> None:
    even = Lattice.upright(len(pair[0]), spacing)
    uneven = Lattice(even.slice_offsets_mm, even.thicknesses_mm, None, even.row_spacing_mm, even.column_spacing_mm)
    assume(len(pair[0]) > 1)
    a, b = surface_distances(*pair, lattice=even), surface_distances(*pair, lattice=uneven)
    assert a.mean_mm() == pytest.approx(b.mean_mm())
    assert a.reference.area_mm2 == pytest.approx(b.reference.area_mm2)
    assert a.hausdorff_mm(100) == pytest.approx(b.hausdorff_mm(100))


# ── volumes, slices, paths ────────────────────────────────────────────────────────────────────────────────────────────


def test_centre_and_volume_of_a_block() -> None:
    lattice = Lattice.upright(6, (2.5, 1.1, 0.9))
    mask = block((6, 7, 8), np.s_[1:4, 2:4, 3:8])
    assert volume_ml(voxels_per_slice(mask), lattice=lattice) == pytest.approx(3 * 2 * 5 * 2.5 * 1.1 * 0.9 / 1000)
    assert centre_mm(mask, lattice=lattice) == pytest.approx([2 * 2.5, 2.5 * 1.1, 5 * 0.9])


def test_an_empty_mask_has_no_centre_and_two_have_no_overlap() -> None:
    empty = np.zeros((2, 3, 4), dtype=np.bool_)
    with pytest.raises(ValueError, match="no centre"):
        centre_mm(empty, lattice=Lattice.upright(2, (1, 1, 1)))
    with pytest.raises(ValueError, match="no overlap"):
        volumetric_dsc(empty, empty, lattice=Lattice.upright(2, (1, 1, 1)))


def test_the_share_of_slices_that_one_side_drew() -> None:
    assert one_sided_slice_share(np.array([0, 3, 1, 0, 2]), np.array([0, 2, 0, 5, 1])) == 2 / 4


def test_added_path_length_of_a_square_that_grew_to_one_side() -> None:
    # 4 × 4 pixels have a contour of 12. With two columns more it has 16: the new right column and two pixels each of the top and
    # the bottom row, less the column's corners, which are 2 of these 4: 4 + 4 - 2 = 6 are new. A pixel of 1.1 × 0.9 mm is 1 mm.
    small, large = block((1, 9, 9), np.s_[0:1, 2:6, 2:6]), block((1, 9, 9), np.s_[0:1, 2:6, 2:8])
    assert contour_pixels(small).sum() == 12
    assert contour_pixels(large).sum() == 16
    lattice = Lattice.upright(1, (2.5, 1.1, 0.9))
    assert added_path_length_mm(small, large, lattice=lattice) == pytest.approx(6 * 1.0)


def test_added_path_length_counts_what_is_added_on_new_slices_and_not_what_is_deleted() -> None:
    low, high = block((3, 9, 9), np.s_[0:1, 2:6, 2:6]), block((3, 9, 9), np.s_[0:2, 2:6, 2:6])
    lattice = Lattice.upright(3, (2.5, 1.0, 1.0))
    assert added_path_length_mm(low, high, lattice=lattice) == 12.0
    assert added_path_length_mm(high, low, lattice=lattice) == 0.0


@settings(deadline=None, max_examples=50)
@given(pairs())
def test_contour_pixels_are_those_that_in_plane_erosion_removes(pair: tuple[Mask, Mask]) -> None:
    cross = np.array([[[0, 1, 0], [1, 1, 1], [0, 1, 0]]], dtype=np.bool_)
    np.testing.assert_array_equal(contour_pixels(pair[0]), pair[0] & ~ndimage.binary_erosion(pair[0], cross))


def test_the_table_of_marching_cubes_is_what_the_rules_give() -> None:
    assert table_by_rule() == TABLE

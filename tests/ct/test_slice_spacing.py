"""From planes to a stack: complete or not, straight or leaning, whatever the patient's position."""

import random
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oarlock import errors
from oarlock.ct.slice_spacing import MAX_CORNER_SHIFT_MM, Plane, to_grid
from oarlock.facts import Notice
from tests.fixtures.orientations import PATIENT_POSITIONS


def planes(
    zs: npt.ArrayLike,
    *,
    cosines: tuple[float, ...] = (1, 0, 0, 0, 1, 0),
    thickness_mm: float | None = 2.5,
    lean: float = 0.0,
) -> list[Plane]:
    """Slices along the patient's z axis that lean towards +y by ``lean`` mm per mm."""
    origin = (-31.2, 17.8)
    return [
        Plane((origin[0], origin[1] + lean * float(z), float(z)), cosines, (1.1, 0.9), 61, 53, thickness_mm)
        for z in np.asarray(zs, dtype=float)
    ]


def even(count: int = 9, spacing_mm: float = 2.5) -> npt.NDArray[np.float64]:
    return -402.5 + spacing_mm * np.arange(count)


def codes(found: list[Notice]) -> list[str]:
    return [warning.code for warning in found]


@pytest.mark.parametrize("position", PATIENT_POSITIONS)
def test_every_patient_position_is_axial(position: str) -> None:
    row, column = PATIENT_POSITIONS[position]
    cosines = (*row, *column)
    grid, order, warnings = to_grid(planes(even(), cosines=cosines))
    normal = np.cross(cosines[:3], cosines[3:])
    assert abs(normal[2]) == 1
    assert order == (list(range(9)) if normal[2] > 0 else list(range(8, -1, -1)))
    np.testing.assert_allclose(grid.slice_spacings_mm, 2.5)
    assert warnings == []


@given(seed=st.integers(0, 2**16), count=st.integers(3, 40), spacing=st.floats(0.3, 10))
def test_the_order_of_the_planes_does_not_matter(seed: int, count: int, spacing: float) -> None:
    straight = planes(even(count, spacing))
    shuffled = list(straight)
    random.Random(seed).shuffle(shuffled)
    grid, order, _ = to_grid(shuffled)
    assert [shuffled[i] for i in order] == straight
    np.testing.assert_array_equal(grid.origins_mm, [plane.origin_mm for plane in straight])


@given(count=st.integers(5, 60), spacing=st.floats(0.3, 10), where=st.data())
def test_any_missing_slice_is_found_and_named(count: int, spacing: float, where: st.DataObject) -> None:
    removed = where.draw(st.integers(1, count - 2))
    zs = np.delete(even(count, spacing), removed)
    with pytest.raises(errors.MissingSlices) as caught:
        to_grid(planes(zs, thickness_mm=spacing))
    assert f"Between slices {removed} and {removed + 1} " in str(caught.value)
    assert f"{2 * spacing:.3f} mm where {spacing:.3f} mm is expected" in str(caught.value)


def test_several_gaps_are_counted() -> None:
    """0 1 . 3 4 . . 7 8 9 at 3 mm: the first gap is 6 mm, between the second slice and the third."""
    zs = 3.0 * np.array([0, 1, 3, 4, 7, 8, 9])
    with pytest.raises(errors.MissingSlices, match=r"Between slices 2 and 3 .*6.000 mm where 3.000 mm.*There are 2 such gaps"):
        to_grid(planes(zs, thickness_mm=3.0))


def test_every_other_slice_missing_in_one_half_is_a_gap() -> None:
    zs = np.concatenate([np.arange(0, 20, 2.5), np.arange(20, 60, 5.0)])
    with pytest.raises(errors.MissingSlices):
        to_grid(planes(zs, thickness_mm=2.5))


def test_an_extra_slice_in_between_is_refused() -> None:
    zs = np.sort(np.append(even(9), -396.25))
    with pytest.raises(errors.InconsistentGeometry, match=r"1.250 mm apart where 2.500 mm is usual"):
        to_grid(planes(zs))


def test_positions_rounded_to_a_tenth_of_a_millimetre_are_complete() -> None:
    """1.25 mm slices whose positions were rounded: distances of 1.2 and 1.3 mm."""
    zs = np.round(1.25 * np.arange(40) + 0.01, 1)
    grid, _, warnings = to_grid(planes(zs, thickness_mm=1.25))
    assert warnings == []
    np.testing.assert_array_equal(grid.origins_mm[:, 2], zs)


@pytest.mark.parametrize("spacing_mm", [0.4, 0.5, 0.6, 0.625, 0.7, 0.75, 0.8, 1.0])
@pytest.mark.parametrize("missing", [False, True])
def test_thin_slices_whose_positions_were_rounded_are_complete_and_a_missing_one_is_still_found(
    spacing_mm: float, missing: bool
) -> None:
    """Slices of 0.625 mm whose positions were rounded to 0.1 mm are 0.6 and 0.7 mm apart, which is no gap."""
    exact = spacing_mm * np.arange(80) + 0.013
    zs = np.round(np.delete(exact, 33) if missing else exact, 1)
    if missing:
        with pytest.raises(errors.MissingSlices, match=r"Between slices 33 and 34 "):
            to_grid(planes(zs, thickness_mm=spacing_mm))
    else:
        grid, _, warnings = to_grid(planes(zs, thickness_mm=spacing_mm))
        np.testing.assert_array_equal(grid.origins_mm[:, 2], zs)
        assert codes(warnings) == []


def slabs(junction_mm: float, *, thick_mm: float = 3.0, thin_mm: float = 1.5) -> list[Plane]:
    """Seven slices as far apart as they are thick, then nine thinner ones."""
    zs = np.cumsum([0.0, *[thick_mm] * 6, junction_mm, *[thin_mm] * 8])
    return [replace(plane, thickness_mm=thick_mm if z < 7 else thin_mm) for z, plane in enumerate(planes(zs))]


@pytest.mark.parametrize("junction_mm", [2.25, 2.4, 1.5])
def test_two_slabs_whose_slices_touch_or_overlap_are_complete(junction_mm: float) -> None:
    """Positions are those of the middle of a slice: where 3 mm meet 1.5 mm, slices that touch are 2.25 mm apart."""
    stack = slabs(junction_mm)
    grid, _, warnings = to_grid(stack)
    np.testing.assert_array_equal(grid.origins_mm, [plane.origin_mm for plane in stack])
    assert codes(warnings) == ["series.uneven_spacing"]


@pytest.mark.parametrize("junction_mm", [3.0, 3.75, 4.5, 5.25])
def test_two_slabs_that_leave_tissue_out_between_them_are_refused(junction_mm: float) -> None:
    with pytest.raises(errors.MissingSlices):
        to_grid(slabs(junction_mm))


@given(thick_mm=st.floats(1.0, 8.0), share=st.floats(0.25, 0.8), missing=st.integers(1, 14), seed=st.integers(0, 99))
def test_of_two_slabs_no_slice_can_be_missing(thick_mm: float, share: float, missing: int, seed: int) -> None:
    """Not even a thin one where they meet: what is left is then as far apart as thick slices are."""
    thin_mm = share * thick_mm
    stack = slabs((thick_mm + thin_mm) / 2, thick_mm=thick_mm, thin_mm=thin_mm)
    to_grid(random.Random(seed).sample(stack, len(stack)))
    del stack[missing]
    with pytest.raises((errors.MissingSlices, errors.InconsistentGeometry)):
        to_grid(stack)


@pytest.mark.parametrize("thickness_mm", [None, 1.5, 3.0, 5.0])
def test_two_slabs_of_unexplained_spacing_are_refused(thickness_mm: float | None) -> None:
    zs = np.cumsum([0.0, *[3.0] * 6, *[1.5] * 8])
    with pytest.raises(errors.MissingSlices):
        to_grid(planes(zs, thickness_mm=thickness_mm))


def turned(tilt: float, turn: float) -> npt.NDArray[np.float64]:
    """(6,) direction cosines, turned about the x axis and then within the axial plane."""
    a, b = np.radians((tilt, turn))
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_z = np.array([[np.cos(b), -np.sin(b), 0], [np.sin(b), np.cos(b), 0], [0, 0, 1]])
    return np.concatenate([(about_z @ about_x)[:, 0], (about_z @ about_x)[:, 1]])


def tilted(degrees: float) -> tuple[float, ...]:
    a = np.radians(degrees)
    return (1, 0, 0, 0, float(np.cos(a)), float(np.sin(a)))


@given(degrees=st.floats(0.5, 29.5))
def test_a_tilted_gantry_is_kept_slice_by_slice(degrees: float) -> None:
    """The couch moves along z while the image plane leans: every slice is shifted within its plane."""
    found = planes(even(), cosines=tilted(degrees))
    grid, _, warnings = to_grid(found)
    np.testing.assert_array_equal(grid.origins_mm, [plane.origin_mm for plane in found])
    np.testing.assert_allclose(grid.slice_spacings_mm, 2.5 * np.cos(np.radians(degrees)))
    assert codes(warnings) == ["series.tilted", "series.sheared"]


@given(degrees=st.floats(1, 29))
def test_an_oblique_stack_is_tilted_but_not_sheared(degrees: float) -> None:
    cosines = tilted(degrees)
    normal = np.cross(cosines[:3], cosines[3:])
    stack = [replace(plane, origin_mm=tuple(2.5 * i * normal)) for i, plane in enumerate(planes(even(), cosines=cosines))]
    grid, _, warnings = to_grid(stack)
    np.testing.assert_allclose(grid.slice_spacings_mm, 2.5)
    assert codes(warnings) == ["series.tilted"]


@pytest.mark.parametrize("degrees", [31, 45, 80])
def test_a_large_tilt_is_refused(degrees: float) -> None:
    with pytest.raises(errors.OrientationUnsupported, match=f"{degrees}.0° off"):
        to_grid(planes(even(), cosines=tilted(degrees)))


@pytest.mark.parametrize("cosines", [(0, 1, 0, 0, 0, -1), (1, 0, 0, 0, 0, -1)], ids=["sagittal", "coronal"])
def test_sagittal_and_coronal_stacks_are_refused(cosines: tuple[float, ...]) -> None:
    with pytest.raises(errors.OrientationUnsupported, match=r"90.0°"):
        to_grid(planes(even(), cosines=cosines))


def test_a_single_slice_that_is_shifted_in_its_plane_is_refused() -> None:
    stack = planes(even())
    x, y, z = stack[4].origin_mm
    stack[4] = replace(stack[4], origin_mm=(x + 1.0, y, z))
    with pytest.raises(errors.InconsistentGeometry, match=r"slice 5 \(z = -392.50 mm\) lies 0.89 mm off the line"):
        to_grid(stack)


def test_a_kink_in_the_stack_is_refused() -> None:
    stack = planes(even(12))
    bent = [replace(p, origin_mm=(p.origin_mm[0] + (3.0 if i > 5 else 0.0), *p.origin_mm[1:])) for i, p in enumerate(stack)]
    with pytest.raises(errors.InconsistentGeometry, match="ImagePositionPatient"):
        to_grid(bent)


def test_directions_that_differ_by_rounding_are_taken_with_a_warning() -> None:
    """0.00005 over a row of 52 × 0.9 mm is 0.002 mm, and over a column of 60 × 1.1 mm 0.003 mm."""
    stack = planes(even())
    stack[3] = replace(stack[3], cosines=(1, 0.00005, 0, -0.00005, 1, 0))
    grid, _, warnings = to_grid(stack)
    assert codes(warnings) == ["series.uneven_orientation"]
    assert "up to 0.004 mm" in warnings[0].detail  # the last voxel moves by both, at a right angle
    np.testing.assert_allclose(grid.row_direction @ grid.column_direction, 0, atol=1e-15)


@pytest.mark.parametrize("cosines", [(1, 0, 0, 0, 1, 0.0002), (1, 0, 0.00011, 0, 1, 0.00011), (1, 0.0003, 0, -0.0003, 1, 0)])
def test_directions_that_would_move_a_contour_are_refused(cosines: tuple[float, ...]) -> None:
    """0.0002 over a column of 60 × 1.1 mm is 0.013 mm; 0.00011 along both axes lifts the last voxel by 0.012 mm."""
    stack = planes(even())
    stack[3] = replace(stack[3], cosines=cosines)
    with pytest.raises(errors.InconsistentGeometry, match="ImageOrientationPatient"):
        to_grid(stack)


def test_directions_of_another_length_are_the_same_directions() -> None:
    """Cosines that were written with four decimals, in one slice with fewer: no slice is turned against another."""
    stack = planes(even())
    stack[3] = replace(stack[3], cosines=(0.9998, 0, 0, 0, 0.9998, 0))
    _, _, warnings = to_grid(stack)
    assert codes(warnings) == ["series.rounded_orientation"]
    assert "up to 0.016 mm" in warnings[0].detail


@given(tilt=st.floats(-29, 29), turn=st.floats(-29, 29), noise=st.floats(0, 4e-5), seed=st.integers(0, 2**16))
def test_every_accepted_slice_is_described_to_a_hundredth_of_a_millimetre(
    tilt: float, turn: float, noise: float, seed: int
) -> None:
    """Its corners by its own position and orientation, unrounded (PS3.3 Equation C.7.6.2.1-1), against those of the grid."""
    rng = np.random.default_rng(seed)
    cosines = [turned(tilt, turn) + rng.uniform(-noise, noise, 6) for _ in range(5)]
    stack = [replace(plane, cosines=tuple(own)) for plane, own in zip(planes(even(5)), cosines, strict=True)]
    try:
        grid, order, _ = to_grid(stack)
    except (errors.InconsistentGeometry, errors.OrientationUnsupported):
        return
    for z, i in enumerate(order):
        row, column = np.split(np.array(stack[i].cosines), 2)
        row, column = row / np.linalg.norm(row), column / np.linalg.norm(column)
        normal = np.cross(row, column)
        corners = np.array([(0, 52), (60, 0), (60, 52)], dtype=float)
        ours = grid.to_patient(z, corners)
        own = np.array(stack[i].origin_mm) + corners[:, :1] * 1.1 * column + corners[:, 1:] * 0.9 * row
        assert np.abs((ours - stack[i].origin_mm) @ normal).max() <= MAX_CORNER_SHIFT_MM
        assert np.linalg.norm(ours - own, axis=1).max() <= MAX_CORNER_SHIFT_MM + 66 * abs(row @ column)


def test_a_long_scan_warns() -> None:
    _, _, warnings = to_grid(planes(even(400, 2.5)))
    assert codes(warnings) == ["series.long_scan"]


# ── each limit, just inside and just outside ──────────────────────────────────────────────────────────────────────────


def with_one_distance(spacing_mm: float, odd_mm: float) -> list[Plane]:
    """Ten slices, of which the fifth and the sixth are ``odd_mm`` apart; no thickness explains it."""
    distances = np.full(9, spacing_mm)
    distances[4] = odd_mm
    return planes(np.concatenate([[0.0], np.cumsum(distances)]), thickness_mm=None)


@pytest.mark.parametrize(
    ("spacing_mm", "slack_mm"),
    [(2.5, 0.25), (0.8, 0.1), (0.2, 0.08)],
    ids=["a tenth of the distance", "rounding to a tenth of a millimetre", "two fifths of a very thin slice"],
)
def test_a_distance_may_differ_by_its_slack_and_no_more(spacing_mm: float, slack_mm: float) -> None:
    """docs/dicom.md: 10 %, but 0.1 mm in any case; less than half a slice, for which 0.4 stands."""
    for sign in (-1, 1):
        grid, *_ = to_grid(with_one_distance(spacing_mm, spacing_mm + sign * 0.99 * slack_mm))
        assert len(grid.origins_mm) == 10
    with pytest.raises(errors.MissingSlices, match="Between slices 5 and 6"):
        to_grid(with_one_distance(spacing_mm, spacing_mm + 1.01 * slack_mm))
    with pytest.raises(errors.InconsistentGeometry, match="slices 5 and 6"):
        to_grid(with_one_distance(spacing_mm, spacing_mm - 1.01 * slack_mm))


def test_slices_less_than_a_hundredth_of_a_millimetre_apart_are_one_position() -> None:
    with pytest.raises(errors.DuplicatePosition, match="2"):
        to_grid(with_one_distance(2.5, 0.0099))
    with pytest.raises(errors.InconsistentGeometry):
        to_grid(with_one_distance(2.5, 0.0101))


def test_three_slices_are_a_stack() -> None:
    to_grid(planes(even(3)))


@pytest.mark.parametrize("count", [1, 2])
def test_one_and_two_slices_are_too_few(count: int) -> None:
    with pytest.raises(errors.TooFewSlices, match=str(count)):
        to_grid(planes(even(count)))


def test_image_planes_may_tilt_by_thirty_degrees() -> None:
    to_grid(planes(even(), cosines=tilted(29.9)))
    with pytest.raises(errors.OrientationUnsupported):
        to_grid(planes(even(), cosines=tilted(30.1)))


def test_a_stack_may_lean_by_thirty_degrees() -> None:
    to_grid(planes(even(), lean=float(np.tan(np.radians(29.9)))))
    with pytest.raises(errors.OrientationUnsupported):
        to_grid(planes(even(), lean=float(np.tan(np.radians(30.1)))))


def test_a_tilt_of_a_twentieth_of_a_degree_is_told() -> None:
    assert codes(to_grid(planes(even(), cosines=tilted(0.049)))[2]) == []
    assert codes(to_grid(planes(even(), cosines=tilted(0.051)))[2]) == ["series.tilted", "series.sheared"]


def test_a_slice_may_lie_a_tenth_of_a_millimetre_off_the_line() -> None:
    """The middle one of nine slices pulls the line with it: it lies off by 8/9 of what it is shifted by."""
    stack = planes(even())
    x, y, z = stack[4].origin_mm

    def shifted(off_mm: float) -> list[Plane]:
        return [*stack[:4], replace(stack[4], origin_mm=(x + off_mm * 9 / 8, y, z)), *stack[5:]]

    to_grid(shifted(0.0999))
    with pytest.raises(errors.InconsistentGeometry, match="slice 5"):
        to_grid(shifted(0.1001))


def test_an_orientation_may_move_the_far_corner_by_nine_micrometres() -> None:
    """The last voxel of a column is 60 × 1.1 mm away; a change of its direction moves it by that times the change."""
    stack = planes(even())

    def turned_by(mm: float) -> list[Plane]:
        return [*stack[:3], replace(stack[3], cosines=(1, 0, 0, 0, 1, mm / 66)), *stack[4:]]

    assert codes(to_grid(turned_by(0.00099))[2]) == []
    assert codes(to_grid(turned_by(0.00101))[2]) == ["series.uneven_orientation"]
    assert codes(to_grid(turned_by(0.00899))[2]) == ["series.uneven_orientation"]
    with pytest.raises(errors.InconsistentGeometry, match="ImageOrientationPatient"):
        to_grid(turned_by(0.00901))


def test_directions_that_are_too_short_are_told_from_nine_micrometres_on() -> None:
    """The far corner is 52 × 0.9 mm along the row and 60 × 1.1 mm down the column away."""
    far_mm = float(np.hypot(46.8, 66))
    for mm, told in ((0.00899, []), (0.00901, ["series.rounded_orientation"])):
        length = 1 - mm / far_mm
        assert codes(to_grid(planes(even(), cosines=(length, 0, 0, 0, length, 0)))[2]) == told


def test_pixel_spacings_may_differ_in_the_sixth_digit_alone() -> None:
    stack = planes(even())

    def with_spacing(share: float) -> list[Plane]:
        return [replace(stack[0], pixel_spacing_mm=(1.1, 0.9 * (1 + share))), *stack[1:]]

    to_grid(with_spacing(0.99e-5))
    with pytest.raises(errors.InconsistentGeometry, match="PixelSpacing"):
        to_grid(with_spacing(1.01e-5))


def test_the_spacing_of_the_first_slice_is_what_others_are_held_against() -> None:
    """A hundred-thousandth of the last one's is more, by a hundred-thousandth of it, than that of the first one's."""
    stack = planes(even())
    wider = replace(stack[-1], pixel_spacing_mm=(1.1, 0.9 * (1 + 1.000005e-5)))
    with pytest.raises(errors.InconsistentGeometry, match="PixelSpacing"):
        to_grid([*(replace(plane, pixel_spacing_mm=(1.1, 0.9)) for plane in stack[:-1]), wider])


def test_a_scan_of_eighty_centimetres_is_not_long_and_one_of_half_a_millimetre_more_is() -> None:
    assert codes(to_grid(planes(even(321)))[2]) == []
    assert codes(to_grid(planes(even(321, 2.5015)))[2]) == ["series.long_scan"]


def test_a_gap_is_named_by_the_heights_of_the_slices_around_it() -> None:
    with pytest.raises(errors.MissingSlices) as caught:
        to_grid(planes([-400.0, -397.5, -392.5, -390.0, -387.5]))
    assert "-397.50" in str(caught.value)
    assert "-392.50" in str(caught.value)


def test_an_extra_slice_is_named_by_the_heights_of_the_two_that_are_too_near() -> None:
    with pytest.raises(errors.InconsistentGeometry, match=r"slices 3 and 4 \(z = -395\.00 mm and -394\.00 mm\) are 1\.000 mm"):
        to_grid(planes([-400.0, -397.5, -395.0, -394.0, -392.5, -390.0, -387.5, -385.0]))


def test_two_slices_at_one_position_are_named_by_the_lowest_height_that_is_taken_twice() -> None:
    with pytest.raises(errors.DuplicatePosition, match=r"-397\.50"):
        to_grid(planes([-400.0, -397.5, -397.5, -395.0, -392.5, -392.5]))


def test_of_different_sizes_four_are_named_and_all_are_counted() -> None:
    stack = [replace(plane, rows=rows) for plane, rows in zip(planes(even(5)), (64, 61, 63, 62, 65), strict=True)]
    with pytest.raises(errors.InconsistentGeometry, match=r"5 different sizes \(61 × 53, 62 × 53, 63 × 53, 64 × 53\)"):
        to_grid(stack)
    with pytest.raises(errors.InconsistentGeometry, match=r"2 different sizes \(61 × 53, 62 × 53\)"):
        to_grid([*planes(even(4)), replace(planes([-390.0])[0], rows=62)])


@pytest.mark.parametrize(("tilt", "turn", "said"), [(0, 2, "2.00"), (20, 0, "20.00")], ids=["in the plane", "out of it"])
def test_orientations_that_differ_say_by_how_many_degrees(tilt: float, turn: float, said: str) -> None:
    stack = planes(even())
    stack[4] = replace(stack[4], cosines=tuple(float(value) for value in turned(tilt, turn)))
    with pytest.raises(errors.InconsistentGeometry, match=rf"orientations up to {said}° apart"):
        to_grid(stack)


def test_what_is_said_of_a_long_scan() -> None:
    (warning,) = to_grid(planes(even(322)))[2]
    assert warning.detail == (
        "The series is 802 mm long; this server contours the head and neck only. Check that it is the right scan."
    )


def test_thick_slices_that_overlap_by_more_than_one_of_them_are_refused_behind_thin_ones_too() -> None:
    """1.5, 1.5, 3 and 3 mm thick; the last two are 1.75 mm apart."""
    stack = [replace(plane, thickness_mm=t) for plane, t in zip(planes([0.0, 1.5, 3.75, 5.5]), (1.5, 1.5, 3.0, 3.0), strict=True)]
    with pytest.raises(errors.SeriesError):
        to_grid(stack)


def test_what_is_said_of_directions_that_are_not_of_length_one() -> None:
    warnings = to_grid(planes(even(), cosines=(0.999, 0, 0, 0, 1, 0)))[2]
    assert any("not quite of length 1 or at right angles" in warning.detail for warning in warnings)


def test_a_distance_of_exactly_the_tolerance_is_no_gap() -> None:
    """Slices lie 10 mm apart: 11 mm is not a gap, so the distance of 8 mm is what is wrong."""
    zs = np.cumsum([0, 10, 10, 10, 11, 10, 8, 10, 10])
    with pytest.raises(errors.InconsistentGeometry, match=r"8.000 mm apart where 10.000 mm is usual"):
        to_grid(planes(zs, thickness_mm=None))


@pytest.mark.parametrize(("apart_mm", "near_mm"), [(11.0, 5.0), (10.0, 4.5)], ids=["further apart", "overlapping"])
def test_slices_that_are_exactly_the_tolerance_from_touching_leave_nothing_out(apart_mm: float, near_mm: float) -> None:
    """Thick slices of 10 mm, two of them further apart, go over into thin ones of 5 mm, two of them nearer."""
    thick = planes(np.cumsum([0, 10, 10, apart_mm, 10]), thickness_mm=10.0)
    thin = planes(37.5 + apart_mm + np.cumsum([0, 5, near_mm, 5]), thickness_mm=5.0)
    _, _, warnings = to_grid(thick + thin)
    assert codes(warnings) == ["series.uneven_spacing"]


def test_a_distance_may_differ_by_exactly_its_slack_and_is_no_gap_then() -> None:
    """2.75 mm where 2.5 mm are usual; of two such stacks the other has a gap of 5 mm as well, and that one is named."""
    to_grid(planes(np.cumsum([0, 2.5, 2.5, 2.75, 2.5, 2.5, 2.5]), thickness_mm=None))
    with pytest.raises(
        errors.MissingSlices, match=r"Between slices 5 and 6 \(.* the distance is 5\.000 mm.*about 1 slice\(s\) missing\. "
    ):
        to_grid(planes(np.cumsum([0, 2.5, 2.5, 2.75, 2.5, 5.0, 2.5, 2.5]), thickness_mm=None))


def test_slices_exactly_a_hundredth_of_a_millimetre_apart_are_two_positions_and_all_of_one_are_counted() -> None:
    with pytest.raises(errors.InconsistentGeometry, match="slices 1 and 2"):
        to_grid(planes([0.0, 0.01, 2.5, 5.0, 7.5]))
    with pytest.raises(errors.DuplicatePosition, match=r"^3 slices lie at the same position \(z = -397\.50 mm\)"):
        to_grid(planes([-400.0, -397.5, -397.5, -397.495, -395.0]))
    with pytest.raises(errors.DuplicatePosition, match=r"^2 slices lie at the same position \(z = 0\.00 mm\)"):
        to_grid(planes([0.0, 0.0, 0.01, 2.5, 5.0, 5.0, 5.0]))


def test_the_usual_distance_is_the_one_with_the_most_others_within_its_tolerance_that_of_exactly_it_too() -> None:
    """11 mm is a tenth more than 10: four distances of 10.5 mm in the median, and three of 12.5."""
    with pytest.raises(errors.MissingSlices, match=r"12\.500 mm where 10\.500 mm is expected"):
        to_grid(planes(np.cumsum([0, 10, 10, 11, 11, 12.5, 12.5, 12.5]), thickness_mm=None))


def test_pixel_spacings_may_differ_by_exactly_a_hundred_thousandth() -> None:
    """Of 0.784962 mm, one of the few numbers of which binary arithmetic gives that without rounding."""
    assert 0.78496984962 - 0.784962 == 1e-5 * 0.784962
    spacings = [0.784962, *[0.78496984962] * 8]
    to_grid([replace(p, pixel_spacing_mm=(1.1, mm)) for p, mm in zip(planes(even()), spacings, strict=True)])


def test_a_column_that_is_not_quite_at_a_right_angle_to_the_row_is_made_so() -> None:
    grid, *_ = to_grid(planes(even(), cosines=(1, 0, 0, 0.0001, 1, 0)))
    np.testing.assert_allclose((grid.row_direction, grid.column_direction), [(1, 0, 0), (0, 1, 0)], rtol=0, atol=1e-15)


@pytest.mark.parametrize("degrees", [4, 6, 7, 8, 10, 12, 18, 24, 29])
def test_slices_that_are_turned_in_their_plane_are_axial_to_the_last_digit(degrees: int) -> None:
    """The product of their directions is longer than 1 by the rounding of binary numbers, and has an angle all the same."""
    cosines = tuple(float(value) for value in turned(0, degrees))
    grid, _, warnings = to_grid(planes(even(), cosines=cosines))
    assert abs(grid.normal[2]) > 1
    assert codes(warnings) == ["series.tilted"]
    assert f"tilted {degrees}.0°" in warnings[0].detail


@pytest.mark.parametrize(
    ("junction_mm", "complete"),
    [(1.36, True), (1.34, False), (2.47, True), (2.48, False)],
    ids=["overlap", "more", "apart", "further"],
)
def test_slices_touch_or_overlap_by_the_thinner_one_within_10_percent(junction_mm: float, complete: bool) -> None:
    """1.5 mm, and the half of 3 and 1.5 mm: 1.35 to 2.475 mm."""
    with nullcontext() if complete else pytest.raises(errors.SeriesError):
        to_grid(slabs(junction_mm))

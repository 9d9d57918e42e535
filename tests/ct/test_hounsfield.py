"""Values that no patient has are refused before a job runs; each limit has a case just inside and one just outside."""

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
import pytest

from oarlock.ct import hounsfield
from oarlock.ct.hounsfield import check_hounsfield, check_not_cut, check_step, check_steps, check_values, spread, without_padding
from oarlock.ct.intake import take_in
from oarlock.ct.rules import IntakeRules
from oarlock.ct.series import check_headers
from oarlock.ct.writer import write_ct_series
from oarlock.errors import DerivedImageRefused, NotHounsfield
from oarlock.geometry.grid import Grid

HU = npt.NDArray[np.int16]


def patient(*, slices: int = 9, size: int = 96) -> HU:
    """Air, and in it a round body of fat, muscle and bone: 12 % fat, 75 % muscle, 13 % bone."""
    rng = np.random.default_rng(5)
    y, x = np.indices((size, size)) - (size - 1) / 2
    radius = np.hypot(y, x) / (0.35 * size)
    body = np.select([radius < 0.36, radius < 0.94, radius < 1.0], [700, 45, -100], -1000)
    return (body + rng.normal(0, 12, (slices, size, size))).astype(np.int16)


def stored(hu: HU, slope: float = 1.0, intercept: float = -1024.0) -> HU:
    """What the values become if the stored ones, made with an intercept of -1024, are read with another rescale."""
    return np.clip(np.rint((hu.astype(float) + 1024) * slope + intercept), -32768, 32767).astype(np.int16)


RESCALED = {
    "right": (1.0, -1024.0, None),
    "24 off": (1.0, -1000.0, None),
    "lost": (1.0, 0.0, "no air"),
    "twice": (1.0, -2048.0, "below -1200 HU"),
    "halved": (1.0, -512.0, "no air"),
    "100 too high": (1.0, -924.0, "soft tissue lies around"),
    "200 too low": (1.0, -1224.0, "below -1200|soft tissue"),
    "slope -1": (-1.0, -1024.0, "below -1200 HU"),
    "slope 0.001": (0.001, -1024.0, "lie between -1024 and"),
    "slope 0.5": (0.5, -1024.0, "denser than air"),
    "slope 2": (2.0, -1024.0, "denser than air"),
    "slope 1.1": (1.1, -1024.0, "soft tissue"),
}


@pytest.mark.parametrize("what", RESCALED)
def test_a_rescale_that_is_not_the_scanners_is_found(what: str) -> None:
    slope, intercept, reason = RESCALED[what]
    if reason is None:
        check_values(stored(patient(), slope, intercept))
    else:
        with pytest.raises(NotHounsfield, match=reason):
            check_values(stored(patient(), slope, intercept))


def test_a_grey_level_window_is_found() -> None:
    windowed = np.clip((patient().astype(float) + 200) / 600 * 255, 0, 255).astype(np.int16)
    with pytest.raises(NotHounsfield, match="lie between 0 and 255"):
        check_values(windowed)
    with pytest.raises(NotHounsfield, match="no air"):
        check_values(np.clip(patient(), -200, 400))


def mixed(**shares: float) -> HU:
    """10,000 values: shares by HU, written as h45 or m1000 for -1000; the rest is air."""
    values = np.full(10_000, -1000, dtype=np.int16)
    at = 0
    for name, share in shares.items():
        count = round(share * values.size)
        values[at : at + count] = int(name[1:]) * (-1 if name[0] == "m" else 1)
        at += count
    return values


def halves(low: int, high: int) -> HU:
    return np.repeat([low, high], 5000).astype(np.int16)


LIMITS = [
    (mixed(m790=0.0, h45=0.98, m700=0.02), None),
    (halves(-605, -305), "HU, where fat"),  # spans 300
    (halves(-605, -306), "nearly all of them"),  # spans 299
    (mixed(h0=0.994), None),  # 0.6 % lie far below the others, which is more than the lowest half percent
    (mixed(h0=0.996), "nearly all of them lie between 0 and 0"),
    (mixed(h0=0.006), None),
    (mixed(h0=0.004), "nearly all of them lie between -1000 and -1000"),
    (mixed(h45=0.9, h700=0.099), None),  # 0.1 % air
    (mixed(h45=0.9, h700=0.0991), "no air"),  # 0.09 %
    (mixed(h45=0.9, h700=0.099, m600=0.001), None),  # the lightest that is not denser than air
    (mixed(h45=0.9, h700=0.099, m599=0.001), "no air"),
    (mixed(m1201=0.05, m1250=0.05, m1200=0.05, h45=0.5), None),  # 10 % below -1200
    (mixed(m1201=0.0501, m1250=0.0509, m1200=0.05, h45=0.5), r" 10 % of them lie below"),
    (mixed(m1201=0.3, m1250=0.3, h45=0.2), r" 60 % of them lie below -1200 HU"),
    (mixed(m200=0.0875, h200=0.0875, h700=0.325, m600=0.1), None),  # 35 % soft, with both ends of it
    (mixed(m201=0.0875, h200=0.0875, h700=0.325), "18 % of what is denser"),
    (mixed(m200=0.0875, h201=0.0875, h700=0.325), "18 % of what is denser"),
    (mixed(h45=0.1722, h700=0.3278), "34 % of what is denser than air lies between -200 and 200 HU"),
    (mixed(h45=0.1749, h700=0.3251), "35 % of what is denser"),
    (halves(-1000, -650), r": 0 % of what is denser"),
    (mixed(h120=0.5), None),
    (mixed(h121=0.5), "soft tissue lies around 121 HU"),
    (mixed(m120=0.5), None),
    (mixed(m121=0.5), "soft tissue lies around -121 HU"),
    (mixed(h100=0.4, m300=0.41), "soft tissue lies around -300 HU"),  # the median is of what lies from -300 to 400
    (mixed(h100=0.4, m301=0.41), None),
    (mixed(h100=0.4, h400=0.41), "soft tissue lies around 400 HU"),
    (mixed(h100=0.4, h401=0.41), None),
]


@pytest.mark.parametrize(("values", "reason"), LIMITS, ids=range(len(LIMITS)))
def test_each_limit_has_an_inside_and_an_outside(values: HU, reason: str | None) -> None:
    if reason is None:
        check_values(values)
    else:
        with pytest.raises(NotHounsfield, match=reason):
            check_values(values)


def test_what_a_scanner_fills_the_corners_with_does_not_count() -> None:
    """A constant of -3024 in the corners, as GE writes it, is not taken for values below air."""
    hu = patient()
    hu[:, :30] = -3024
    check_values(hu)


def test_padding_that_was_blurred_by_resampling_does_not_count_and_a_doubled_intercept_does() -> None:
    """Corners of -3024 with a rim of values down to air, and below by overshoot; air that was cut at -1024 and rescaled twice."""
    hu = patient()
    hu[:, :30] = -3024
    hu[:, 30] = -2000
    hu[:, 31, ::2] = -1300
    hu[:, 29, ::7] = -3100
    check_values(hu)
    with pytest.raises(NotHounsfield):
        check_values(np.where(patient() < -900, -2048, patient() - 1024).astype(np.int16))


def test_the_end_of_a_phantom_that_fills_the_field_is_not_a_jump() -> None:
    """Water in the whole of slices 3 to 5, and air before and behind; a lost intercept in water is one."""
    hu = np.full((9, 64, 64), -1000, dtype=np.int16)
    hu[3:6] = 0
    check_steps(hu)
    hu[4] = 1024
    with pytest.raises(NotHounsfield, match="from slice 4 to slice 5 they change by 1024"):
        check_steps(hu)


def test_a_slice_that_jumps_is_found_in_the_whole_series() -> None:
    hu = patient()
    check_steps(hu)
    inside, outside = hu.copy(), hu.copy()
    inside[4] += 170  # noise adds a little to the median
    outside[4] += 201
    check_steps(inside)
    with pytest.raises(NotHounsfield, match="from slice 4 to slice 5 they change by 201"):
        check_steps(outside)


@pytest.mark.parametrize(("slope", "change"), [(2.0, 1069), (0.5, 535), (1.5, 535)])
def test_a_wrong_slope_in_one_slice_is_found_though_most_of_it_is_air(slope: float, change: int) -> None:
    hu = patient()
    assert np.mean(hu[4] < -900) > 0.6
    hu[4] = stored(hu[4], slope)
    with pytest.raises(NotHounsfield, match=r"from slice 4 to slice 5 they change by (\d+)") as told:
        check_steps(hu)
    assert int(told.value.detail.split("change by ")[1].split()[0]) == pytest.approx(change, abs=12)


def test_a_head_that_ends_between_two_slices_is_not_a_jump() -> None:
    hu = patient()
    hu[5:] = np.where(patient()[5:] > -500, patient()[5:] * 0 - 1000, hu[5:])
    hu[4, :60] = -1000
    check_steps(hu)


def top_of_a_head(*, field_mm: float, slice_mm: float, radius_mm: float = 75.0) -> HU:
    """The upper half of a head: 5 mm of scalp, 6 mm of skull and brain, each slice the mean of nine levels of it."""
    y, x = (np.indices((128, 128)) - 63.5) * (field_mm / 128)
    levels = np.arange(9) / 9 - 0.5
    heights = np.arange(0.0, radius_mm + 2 * slice_mm, slice_mm)
    deep = [radius_mm - np.sqrt(x**2 + y**2 + ((z + levels * slice_mm)[:, None, None]) ** 2) for z in heights]
    return np.stack([np.select([d < 0, d < 5, d < 11], [-1000, 20, 1000], 35).mean(axis=0) for d in deep]).astype(np.int16)


@pytest.mark.parametrize(("field_mm", "slice_mm"), [(250.0, 2.0), (300.0, 3.0), (300.0, 5.0), (400.0, 5.0), (500.0, 3.0)])
def test_the_top_of_a_head_in_a_small_field_is_not_a_jump(field_mm: float, slice_mm: float) -> None:
    """From slice to slice most of its pixels become scalp, skull or brain; the same head with a wrong slope jumps."""
    hu = top_of_a_head(field_mm=field_mm, slice_mm=slice_mm)
    check_steps(hu)
    hu[4] = stored(hu[4], 0.5)
    with pytest.raises(NotHounsfield, match="from slice 4 to slice 5"):
        check_steps(hu)


@pytest.mark.parametrize(("top", "refused"), [(150, True), (700, True), (1490, True), (1510, False), (3071, False)])
def test_values_that_are_cut_below_what_bone_has_are_refused(top: int, refused: bool, tmp_path: Path) -> None:
    hu = patient()
    hu[:, 44:52, 44:52] = 1800 + np.random.default_rng(2).integers(0, 900, (9, 8, 8))
    take_in(write(tmp_path / "whole", hu), IntakeRules())
    files = write(tmp_path / "cut", np.minimum(hu, top))
    with pytest.raises(NotHounsfield, match=f"they are cut off at {top} HU") if refused else nullcontext():
        take_in(files, IntakeRules())


def bulk(hu: HU) -> HU:
    """A synthetic CT: air, fat, water and bone have one value each."""
    return np.select([hu < -400, hu < -30, hu < 250], [-1000, -100, 0], 700).astype(np.int16)


def test_bulk_densities_are_not_values_that_are_cut_and_a_window_is_though_it_has_few_levels(tmp_path: Path) -> None:
    densities = bulk(patient())
    take_in(write(tmp_path / "bulk", densities), IntakeRules())
    densities[:, ::9] = patient()[:, ::9]  # as edges are interpolated
    take_in(write(tmp_path / "blurred", np.minimum(densities, 700)), IntakeRules())
    levels = (np.rint((np.clip(patient(), -1350, 150) + 1350) / 1500 * 255) * 1500 / 255 - 1350).astype(np.int16)
    with pytest.raises(NotHounsfield, match="cut off at 150 HU"):
        take_in(write(tmp_path / "levels", levels), IntakeRules())


@pytest.mark.parametrize(("share", "densities", "refused"), [(0.6, 4, False), (0.5996, 4, True), (0.7, 5, True)])
def test_four_densities_are_bulk_from_60_percent_on(share: float, densities: int, refused: bool) -> None:
    """Of 10,000 values below a highest one that 1 % have; the rest is spread over 1,500. Four of the five have 56 %."""
    of_each = round(10_000 * share / densities)
    bulk_values = np.repeat(np.arange(1_100, 1_100 + densities), of_each)
    spread_values = np.resize(np.arange(-500, 1_000), 10_000 - bulk_values.size)
    with pytest.raises(NotHounsfield, match="cut off at 1400 HU") if refused else nullcontext():
        check_not_cut(np.concatenate([bulk_values, spread_values, np.full(100, 1_400)]).astype(np.int16))


def test_a_body_of_one_value_is_not_bulk_densities(tmp_path: Path) -> None:
    """A mask that was written as a CT: nothing in it tells bone from brain."""
    with pytest.raises(NotHounsfield, match="cut off at 40 HU"):
        take_in(write(tmp_path, np.where(patient() < -400, -1000, 40).astype(np.int16)), IntakeRules())


@pytest.mark.parametrize(("signed", "bits", "intercept", "top"), [(1, 12, -1024, 1023), (1, 12, -548, 1499), (1, 12, -547, None)])
def test_a_header_that_allows_no_bone_is_refused(signed: int, bits: int, intercept: int, top: int | None, tmp_path: Path) -> None:
    """The largest signed number of 12 bits is 2047."""
    header = {"PixelRepresentation": signed, "BitsStored": bits, "HighBit": bits - 1, "RescaleIntercept": intercept}
    hu = patient() + np.int16(intercept + 1024)  # stored as it is
    files = write(tmp_path, np.clip(hu - np.int16(intercept + 1024), -1024, 1000), **header)
    if top is not None:
        with pytest.raises(NotHounsfield, match=f"by its header no value can be over {top} HU"):
            take_in(files, IntakeRules())
    else:
        assert check_headers(files).instances[0].pixels.highest_hu == 1500  # type: ignore[union-attr]


@pytest.mark.parametrize("blank", [-1000, -1024])
def test_an_empty_slice_within_a_patient_is_refused_and_one_behind_the_head_is_not(blank: int) -> None:
    hu = patient()
    hu[7:] = blank
    check_steps(hu)
    hu[3] = blank
    with pytest.raises(NotHounsfield, match="slice 4 is empty, and slices on both sides of it show a patient"):
        check_steps(hu)


@pytest.mark.parametrize(("lower", "refused"), [(380, True), (330, False), (1024, True)])
def test_a_slice_that_lies_below_both_of_its_neighbours_is_refused(lower: int, refused: bool) -> None:
    """As if its intercept had been applied once more by whoever wrote it; air cannot go below -1024. Noise takes 15 HU off."""
    hu = patient()
    hu[4] = np.maximum(hu[4] - lower, -1024)
    with pytest.raises(NotHounsfield, match=r"those of slice 5 lie|from slice 4 to") if refused else nullcontext():
        check_steps(hu)


def test_a_neck_between_head_and_shoulders_is_not_empty() -> None:
    """A twentieth of the head is the limit; 5.1 % and 4.9 % of 10,000 pixels here."""
    hu = np.full((4, 100, 200), -1000, dtype=np.int16)
    hu[0, :50], hu[3, :90] = 30, 30
    inside, outside = hu.copy(), hu.copy()
    inside[1:3].reshape(2, -1)[:, :510] = outside[1:3].reshape(2, -1)[:, :490] = 30
    check_steps(inside)
    with pytest.raises(NotHounsfield, match="slice 2 is empty"):
        check_steps(outside)


@pytest.mark.parametrize(("pixels", "refused"), [(95, False), (105, True)])
def test_what_lies_beyond_air_behind_the_head_is_a_patient_from_1_percent_of_a_slice_on(pixels: int, refused: bool) -> None:
    """A hook of a mask, or a speck of noise, is none; a slice has 10,000 pixels here."""
    hu = np.full((4, 100, 100), -1000, dtype=np.int16)
    hu[0, :50] = 30
    hu[3].reshape(-1)[:pixels] = 30
    with pytest.raises(NotHounsfield, match="slice 2 is empty") if refused else nullcontext():
        check_steps(hu)


def test_a_small_matrix_is_not_judged() -> None:
    check_steps(np.arange(3 * 63 * 63, dtype=np.int16).reshape(3, 63, 63))


# ── the limits, one pixel or one HU to either side ────────────────────────────────────────────────────────────────────


PADDED = [
    ("down to 1200 below is not padding", [-1200, 0, 5], [-1200, 0, 5]),
    ("a constant below, 100 and more from all others", [-1300, -1300, -1200, 0], [-1200, 0]),
    ("99 from the others", [-1300, -1300, -1201, 0], [-1300, -1300, -1201, 0]),
    ("half of what lies below has one value", [-2500, -2500, -2450, -1201, -1200, -1200, -1200, 0], [-1200, -1200, -1200, 0]),
    ("that value is within a doubled intercept", [-2499, -2499, -2450, -1201, 0], [-2499, -2499, -2450, -1201, 0]),
    ("less than half has it", [-2500, -2500, -2450, -2410, -1201, 0], [-2500, -2500, -2450, -2410, -1201, 0]),
    ("nothing but one value", [-3000, -3000], [-3000, -3000]),
    ("nothing but what lies below", [-2600, -2600, -2590], [-2600, -2600, -2590]),
]


@pytest.mark.parametrize(("values", "left"), [case[1:] for case in PADDED], ids=[case[0] for case in PADDED])
def test_padding_is_what_lies_far_below_air_and_apart(values: list[int], left: list[int]) -> None:
    assert without_padding(np.array(values, dtype=np.int16)).tolist() == left


CUT = [
    ("2 of 1,000", 1499, 2, 998, 0, False),
    ("3 of 1,000", 1499, 3, 997, 0, True),
    ("as high as enamel", 1500, 3, 997, 0, False),
    ("what is air does not count", 1499, 3, 997, 1000, True),
    ("one other value", 1499, 40, 1, 0, False),  # one density
]


@pytest.mark.parametrize(
    ("top", "with_it", "others", "air", "refused"), [case[1:] for case in CUT], ids=[case[0] for case in CUT]
)
def test_a_highest_value_is_a_cut_if_more_than_2_in_1000_have_it_below_1500(
    top: int, with_it: int, others: int, air: int, refused: bool
) -> None:
    hu = np.concatenate([np.full(with_it, top), np.arange(others) - 599 + (others == 1), np.full(air, -600)])
    with pytest.raises(NotHounsfield, match=f"cut off at {top} HU") if refused else nullcontext():
        check_not_cut(hu.astype(np.int16))


def slices(*of_each: dict[int, int]) -> HU:
    """Slices of 100 by 100 pixels of air, the first of which have values, so many of each."""
    hu = np.full((len(of_each), 10_000), -1000, dtype=np.int16)
    for image, values in zip(hu, of_each, strict=True):
        image[: sum(values.values())] = np.repeat(list(values), list(values.values()))
    return hu.reshape(-1, 100, 100)


@pytest.mark.parametrize(
    ("one", "other", "step"),
    [
        ({0: 10_000}, {200: 10_000}, None),
        ({0: 10_000}, {201: 10_000}, 201),
        ({0: 10_000}, {-201: 10_000}, 201),
        ({0: 4_000}, {350: 4_000}, None),  # the median of all is that of air
        ({0: 4_000}, {351: 4_000}, 351),
        ({-900: 4_000}, {-549: 4_000}, None),  # not denser than air
        ({-899: 4_000}, {-548: 4_000}, 351),
        ({0: 100}, {400: 100}, None),  # 1 % of a slice
        ({0: 101}, {400: 101}, 400),
        ({0: 1_000}, {400: 920}, 400),  # 92 % of the body are in both
        ({0: 1_000}, {400: 919}, None),
        ({0: 919}, {400: 1_000}, None),
        ({0: 1_000}, {400: 919, -900: 1}, None),  # what is as light as air is in neither
        ({0: 1_000, -900: 1}, {400: 920}, 400),
        ({400: 920}, {0: 1_000, -900: 1}, 400),
        ({0: 1_000}, {351: 459, 0: 461}, None),  # the median is of the 920 alone
        ({0: 920, -900: 80}, {351: 459, 0: 461, -549: 80}, None),
        ({351: 459, 0: 461, -549: 80}, {0: 920, -900: 80}, None),
    ],
)
def test_two_slices_jump_by_more_than_200_hu_or_by_more_than_350_in_the_body(
    one: dict[int, int], other: dict[int, int], step: int | None
) -> None:
    with pytest.raises(NotHounsfield, match=f"those of file 7 .* by {step} in") if step else nullcontext():
        check_step(slices(one, other), 7)


def test_slices_of_a_series_may_change_by_200_hu() -> None:
    check_steps(slices({0: 10_000}, {200: 10_000}))
    with pytest.raises(NotHounsfield, match="from slice 1 to slice 2 they change by 201"):
        check_steps(slices({0: 10_000}, {201: 10_000}))


@pytest.mark.parametrize(
    ("image", "is_air"),
    [
        ({0: 500, -1100: 9_500}, True),
        ({0: 500, -1101: 9_500}, False),
        ({0: 500, -900: 9_500}, True),
        ({0: 500, -899: 9_500}, False),
        ({0: 501}, False),
    ],
)
@pytest.mark.parametrize("turned", [1, -1], ids=["behind", "before"])
def test_a_slice_is_air_if_95_percent_lie_from_1100_to_900_below_water(image: dict[int, int], is_air: bool, turned: int) -> None:
    """Beside one of air, a slice may be as it likes: here it is bone."""
    with nullcontext() if is_air else pytest.raises(NotHounsfield, match="from slice 1 to slice 2"):
        check_steps(slices({700: 10_000}, image)[::turned])


BODY = {-560: 4_000}

SUNK = [
    ("350 below both", BODY, {-910: 3_700, -560: 300}, BODY, None),
    ("351 below both", BODY, {-911: 3_700, -560: 300}, BODY, 351),
    ("351 below the lower one", {-460: 4_000}, {-911: 3_700, -560: 300}, BODY, 351),
    ("most of the body in both", {-560: 540}, {-911: 260, -560: 280}, {-560: 500}, 351),
    ("the same behind", {-560: 500}, {-911: 260, -560: 280}, {-560: 540}, 351),
    ("beside what is as light as air", {-560: 500, -900: 40}, {-911: 260, -560: 280}, {-560: 540}, 351),
    ("the same before", {-560: 540}, {-911: 260, -560: 280}, {-560: 500, -900: 40}, 351),
]


@pytest.mark.parametrize(("before", "image", "behind", "sunk"), [case[1:] for case in SUNK], ids=[case[0] for case in SUNK])
def test_a_slice_lies_too_low_if_its_median_is_more_than_350_below_both_neighbours_where_they_show_body(
    before: dict[int, int], image: dict[int, int], behind: dict[int, int], sunk: int | None
) -> None:
    """First and last but one of five slices."""
    for hu, at in ((slices(before, image, behind, behind, behind), 2), (slices(before, before, before, image, behind), 4)):
        with pytest.raises(NotHounsfield, match=f"those of slice {at} lie {sunk} below") if sunk else nullcontext():
            check_steps(hu)


@pytest.mark.parametrize(
    ("image", "last", "is_empty"),
    [
        ({}, {30: 100}, True),  # 1 % of a slice is a patient
        ({}, {30: 99}, False),
        ({30: 250}, {30: 5_000}, False),  # a twentieth of both
        ({30: 249, -900: 100}, {30: 5_000}, True),
        ({30: 249}, {30: 4_900}, False),  # a twentieth of the lesser one is 245
    ],
)
@pytest.mark.parametrize("turned", [1, -1], ids=["behind", "before"])
def test_a_slice_is_empty_that_shows_less_than_a_twentieth_of_those_on_both_sides(
    image: dict[int, int], last: dict[int, int], is_empty: bool, turned: int
) -> None:
    hu = slices({30: 5_000}, image, image, last)[::turned]
    with pytest.raises(NotHounsfield, match="slice 2 is empty, and") if is_empty else nullcontext():
        check_steps(hu)


def test_the_first_two_slices_are_compared_and_the_last_one_not_with_the_first() -> None:
    hu = np.repeat(30 * np.arange(9, dtype=np.int16), 64 * 64).reshape(9, 64, 64)
    check_steps(hu)
    hu[0] -= 200
    with pytest.raises(NotHounsfield, match="from slice 1 to slice 2 they change by 230"):
        check_steps(hu)


@pytest.mark.parametrize(
    ("shape", "seen"),
    [((63, 70), False), ((70, 63), False), ((64, 64), True), ((64, 300), True), ((255, 255), True), ((256, 300), False)],
)
def test_every_pixel_is_looked_at_from_64_to_255_and_every_other_one_of_256(shape: tuple[int, int], seen: bool) -> None:
    """Every other column and row is 600 higher in the second slice."""
    hu = np.zeros((2, *shape), dtype=np.int16)
    hu[1, :, 1::2] = hu[1, 1::2] = 600
    with pytest.raises(NotHounsfield, match="from slice 1 to slice 2") if seen else nullcontext():
        check_steps(hu)


# ── which slices are looked at ────────────────────────────────────────────────────────────────────────────────────────


def test_slices_are_spread_evenly_from_4_to_96_percent() -> None:
    assert spread(101, 6) == [4, 22, 41, 59, 78, 96]
    assert spread(1, 9) == [0]
    assert spread(3, 9) == [0, 1, 2]


def looked_at(
    kinds: str, monkeypatch: pytest.MonkeyPatch, shape: tuple[int, int] = (512, 512), highest_hu: float = 3071
) -> list[tuple[list[int], int]]:
    """The slices of each reading and its step, of a series whose images have rescales and signs by letter."""
    of_kind = {"a": (1.0, -1024.0, False), "b": (1.1, -1024.0, False), "c": (1.0, 0.0, False), "d": (1.0, -1024.0, True)}
    storage = [
        SimpleNamespace(slope=a, intercept=b, signed=c, highest_hu=highest_hu) for a, b, c in map(of_kind.__getitem__, kinds)
    ]
    instances = [SimpleNamespace(path=None, position=z, pixels=pixels) for z, pixels in enumerate(storage)]
    header: Any = SimpleNamespace(grid=SimpleNamespace(rows=shape[0], columns=shape[1]), instances=instances)
    read: list[tuple[list[int], int]] = []

    def read_thinned(chosen: Any, step: int) -> HU:
        read.append(([position for _, position, _ in chosen], step))
        return patient(slices=len(chosen), size=64)

    monkeypatch.setattr(hounsfield, "read_thinned", read_thinned)
    check_hounsfield(header)
    return read


def test_nine_slices_are_looked_at_and_about_128_rows_and_columns_of_each(monkeypatch: pytest.MonkeyPatch) -> None:
    nine = [4, 14, 24, 35, 45, 55, 66, 76, 86]
    assert looked_at("a" * 91, monkeypatch) == [(nine, 4)]
    assert looked_at("a" * 91, monkeypatch, (300, 512)) == looked_at("a" * 91, monkeypatch, (512, 300)) == [(nine, 2)]
    assert looked_at("a" * 91, monkeypatch, (64, 64)) == [(nine, 1)]
    assert looked_at("a" * 91, monkeypatch, (63, 64)) == looked_at("a" * 91, monkeypatch, (64, 63)) == []


def test_six_slices_of_another_rescale_are_compared_with_their_nearest_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = [pair for pair, _ in looked_at("b" * 20 + "a" * 71, monkeypatch)[1:]]
    assert pairs == [[z, 20] for z in (1, 4, 8, 11, 15, 18)]
    assert looked_at("a" * 50 + "b" + "a" * 40, monkeypatch)[1:] == [([50, 49], 4)]


def test_a_header_allows_bone_if_its_values_reach_1500(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(looked_at("a" * 9, monkeypatch, highest_hu=1500)) == 1
    with pytest.raises(NotHounsfield, match="by its header no value can be over 1499 HU"):
        looked_at("a" * 9, monkeypatch, highest_hu=1499)


@pytest.mark.parametrize(
    ("kinds", "compared"),
    [
        ("aaaabcdd", []),  # no more than half have one rescale: each slice has its own
        ("aaaaabcd", [5, 6, 7]),
        ("aaaabbcc", [4, 5, 6, 7]),  # three are not so many
        ("aaaabcddd", []),
        ("aaaaabcdd", [5, 6, 7, 8]),
        ("aaaabaaaa", [4]),
        ("aaaacaaaa", [4]),
        ("aaaadaaaa", [4]),
    ],
)
def test_slices_of_another_rescale_are_compared_unless_each_has_its_own(
    kinds: str, compared: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another slope, another intercept or another sign."""
    found = [pair[0] for pair, _ in looked_at(kinds, monkeypatch)[1:]]
    assert found == compared


# ── at the door ───────────────────────────────────────────────────────────────────────────────────────────────────────


def write(folder: Path, hu: HU, **overrides: object) -> list[Path]:
    origins = np.array([[0.0, 0.0, 2.0 * z] for z in range(len(hu))])
    grid = Grid(hu.shape[1], hu.shape[2], origins, np.array([1.0, 0, 0]), np.array([0, 1.0, 0]), 3.0, 3.0)
    return write_ct_series(folder, hu, grid, overrides=overrides)


def test_a_lost_intercept_is_refused_at_the_door_and_not_by_the_headers(tmp_path: Path) -> None:
    files = write(tmp_path, patient(), RescaleIntercept=0)
    check_headers(files)
    with pytest.raises(NotHounsfield, match="no air"):
        take_in(files, IntakeRules())


@pytest.mark.parametrize("lost", [range(0, 30, 2), range(15)], ids=["every other one", "the lower half"])
def test_an_intercept_lost_in_half_of_the_slices_is_refused_at_the_door(lost: range, tmp_path: Path) -> None:
    files = write(tmp_path, patient(slices=30))
    for z in lost:
        dataset = pydicom.dcmread(files[z])
        dataset.RescaleIntercept = 0
        dataset.save_as(files[z])
    with pytest.raises(NotHounsfield, match="differ from its neighbour's by 102"):
        take_in(files, IntakeRules())


def test_an_intercept_lost_in_slices_of_air_beyond_the_head_is_refused_at_the_door(tmp_path: Path) -> None:
    hu = patient(slices=30)
    hu[25:] = -1000
    files = write(tmp_path, hu)
    for path in files[27:]:
        dataset = pydicom.dcmread(path)
        dataset.RescaleIntercept = 0
        dataset.save_as(path)
    with pytest.raises(NotHounsfield, match="differ from its neighbour's by 1024"):
        take_in(files, IntakeRules())


@pytest.mark.parametrize("z", [0, 13, 29])
def test_an_intercept_lost_in_one_slice_is_refused_at_the_door(z: int, tmp_path: Path) -> None:
    files = write(tmp_path, patient(slices=30))
    assert take_in(files, IntakeRules()).warnings == ()
    dataset = pydicom.dcmread(files[z])
    dataset.RescaleIntercept = 0
    dataset.save_as(files[z])
    with pytest.raises(NotHounsfield, match=rf"those of file {z + 1} differ from its neighbour's by 102[45]"):
        take_in(files, IntakeRules())


def test_a_rescale_of_its_own_in_every_slice_is_no_fault(tmp_path: Path) -> None:
    files = write(tmp_path, patient(slices=12))
    for z, path in enumerate(files):
        dataset = pydicom.dcmread(path)
        values = dataset.pixel_array + np.int16(z)
        dataset.RescaleIntercept = -1024 - z
        dataset.PixelData = values.tobytes()
        dataset.save_as(path)
    take_in(files, IntakeRules())


def test_a_small_or_an_undecodable_image_is_left_to_the_job(tmp_path: Path) -> None:
    take_in(write(tmp_path / "small", np.zeros((5, 63, 70), dtype=np.int16)), IntakeRules())
    files = write(tmp_path / "damaged", patient(slices=5))
    for path in files:
        dataset = pydicom.dcmread(path)
        dataset.compress("1.2.840.10008.1.2.5", generate_instance_uid=False)
        dataset.save_as(path)
        path.write_bytes(path.read_bytes()[:-400])
    check_hounsfield(check_headers(files))


def test_a_derived_image_is_warned_of_or_refused_as_the_site_wants(tmp_path: Path) -> None:
    files = write(tmp_path, patient(), ImageType=["DERIVED", "PRIMARY", "AXIAL", "VMI"])
    (warning,) = take_in(files, IntakeRules()).warnings
    assert (warning.code, "a virtual monoenergetic image" in warning.detail) == ("series.derived_image", True)
    with pytest.raises(DerivedImageRefused, match="virtual monoenergetic"):
        take_in(files, IntakeRules(refuse_derived=True))

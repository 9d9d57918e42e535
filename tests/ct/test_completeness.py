"""What slices say of each other decides whether an even stack is all of its series; each line of the table, on both sides."""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest

from oarlock.ct import series
from oarlock.ct.completeness import Stated, check_complete
from oarlock.ct.listed_images import Listing, listed_images, read_listing
from oarlock.ct.series import check_headers
from oarlock.ct.writer import write_ct_series
from oarlock.errors import MissingSlices
from oarlock.geometry.grid import Grid
from oarlock.rtstruct.writer import write_rtstruct
from tests.fixtures.costly import structure_set
from tests.fixtures.organs import AUTHORSHIP, awkward_masks, write_series

SLICES = 21


def codes(distance_mm: float, **said: object) -> list[str]:
    return [notice.code for notice in check_complete(np.full(SLICES - 1, distance_mm), Stated(**said))]  # type: ignore[arg-type]


def numbers(step: int, *, first: int = 1) -> list[int]:
    return [first + step * i for i in range(SLICES)]


REFUSED = {
    "Spacing Between Slices of half": (4.0, {"spacing_mm": 2.0}, "Spacing Between Slices says 2.000 mm.*every second slice"),
    "spacing of half though the slices touch": (2.0, {"spacing_mm": 1.0, "thickness_mm": 2.0}, "every second slice"),
    "just 1.5 times the spacing": (3.0, {"spacing_mm": 2.0, "thickness_mm": 3.0}, "Spacing Between Slices"),
    "half of the spacing, whatever the count says": (4.0, {"spacing_mm": 2.0, "images": SLICES}, "Spacing Between Slices"),
    "numbers in steps of 2": (2.0, {"thickness_mm": 2.0, "numbers": numbers(2)}, "in steps of 2"),
    "numbers that fall by 3": (3.0, {"numbers": numbers(-3, first=90)}, "in steps of 3: about 2 of every 3 slices"),
    "numbers in steps of 2 and a gap that is stated": (
        4.0,
        {"thickness_mm": 2.0, "spacing_mm": 4.0, "numbers": numbers(2)},
        "steps",
    ),
    "twice as far apart as thick": (4.0, {"thickness_mm": 2.0}, "2.000 mm thick, and nothing says"),
    "renumbered by an archive": (4.0, {"thickness_mm": 2.0, "numbers": numbers(1)}, "every second slice is missing"),
    "just 1.5 times as far apart as thick": (3.0, {"thickness_mm": 2.0}, "2.000 mm thick"),
    "two of three lost": (9.0, {"thickness_mm": 3.0}, "about 2 of every 3 slices are missing"),
    "a count that is too high": (4.0, {"thickness_mm": 2.0, "images": 2 * SLICES}, "2.000 mm thick"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_slices_that_must_be_missing_are_refused(what: str) -> None:
    distance, said, reason = REFUSED[what]
    with pytest.raises(MissingSlices, match=f"^The slices lie {distance:.3f} mm apart throughout, but .*{reason}"):
        codes(distance, **said)


ACCEPTED = {
    "slices that touch": (2.0, {"thickness_mm": 2.0, "numbers": numbers(-1, first=200)}, []),
    "slices that overlap": (1.0, {"thickness_mm": 2.0, "spacing_mm": 1.0, "numbers": numbers(1)}, []),
    "nothing is said": (2.0, {}, []),
    "numbers that begin late": (2.0, {"numbers": numbers(1, first=1001)}, []),
    "numbers in no even steps": (2.0, {"numbers": [*numbers(1)[:-1], 99]}, []),
    "numbers in steps of 2, stated spacing, touching": (2.0, {"thickness_mm": 2.0, "spacing_mm": 2.0, "numbers": numbers(2)}, []),
    "numbers in steps of 2, all there by the count": (2.0, {"numbers": numbers(2), "images": SLICES}, []),
    "just under 1.5 times the spacing": (2.98, {"spacing_mm": 2.0, "thickness_mm": 3.0}, []),
    "10 % and no more": (2.2, {"thickness_mm": 2.0}, []),
    "a little over 10 %": (2.23, {"thickness_mm": 2.0}, ["series.gapped"]),
    "just under 1.5 times the thickness": (2.98, {"thickness_mm": 2.0}, ["series.gapped"]),
    "a gap that is stated": (4.0, {"thickness_mm": 2.0, "spacing_mm": 4.0}, ["series.gapped"]),
    "a gap, and all there by the count": (4.0, {"thickness_mm": 2.0, "images": SLICES}, ["series.gapped"]),
    "as many as the count": (2.0, {"images": SLICES}, []),
    "one fewer than the count": (2.0, {"images": SLICES + 1}, ["series.maybe_incomplete"]),
    "5 mm": (5.0, {"thickness_mm": 5.0}, []),
    "5.1 mm": (5.1, {"thickness_mm": 5.1}, ["series.thick_slices"]),
}


@pytest.mark.parametrize("what", ACCEPTED)
def test_what_may_be_meant_is_accepted_in_silence_or_with_a_warning(what: str) -> None:
    distance, said, expected = ACCEPTED[what]
    assert codes(distance, **said) == expected


def test_where_a_site_wants_it_missing_slices_are_a_warning() -> None:
    (notice,) = check_complete(np.full(9, 4.0), Stated(thickness_mm=2.0), refuse_gaps=False)
    assert notice.code == "series.gapped"
    assert "every second slice is missing" in notice.detail


def test_an_uneven_stack_is_judged_by_its_counts_alone() -> None:
    distances = np.array([3.0] * 6 + [2.25] + [1.5] * 8)
    assert check_complete(distances, Stated(thickness_mm=1.0)) == []
    assert [n.code for n in check_complete(distances, Stated(images=17))] == ["series.maybe_incomplete"]


def steps_of_2(many: int, of: int) -> list[int]:
    """Instance numbers of which so many steps are 2 and no two others are alike."""
    steps = [2] * many + list(range(3, 3 + of - many))
    return [1, *(1 + np.cumsum(steps)).tolist()]


@pytest.mark.parametrize(("many", "of", "all_of_them"), [(14, 20, False), (15, 20, True), (15, 21, False), (16, 21, True)])
def test_three_quarters_of_the_numbers_must_be_the_same_step_apart(many: int, of: int, all_of_them: bool) -> None:
    with pytest.raises(MissingSlices, match="in steps of 2") if all_of_them else nullcontext():
        assert check_complete(np.full(of, 2.0), Stated(numbers=steps_of_2(many, of))) == []


@pytest.mark.parametrize("lost", [5, 6, 19])
def test_numbers_that_few_slices_have_say_nothing(lost: int) -> None:
    """Of 21 slices: two that are numbered 1 and 3 are one step of 2, and 14 of 20 are fewer than three quarters."""
    some: list[int | None] = [*numbers(2)]
    some[SLICES - lost :] = [None] * lost
    if lost == 5:
        with pytest.raises(MissingSlices, match="in steps of 2"):
            codes(2.0, numbers=some)
    else:
        assert codes(2.0, numbers=some) == []


def test_parts_of_an_image_that_have_not_come_are_told() -> None:
    (notice,) = check_complete(np.full(9, 2.0), Stated(parts=(2, 5)))
    assert notice.code == "series.maybe_incomplete"
    assert notice.detail.startswith("An image was sent in 5 parts by its own count (a concatenation), and 2 have come.")


def test_numbers_that_do_not_move_say_nothing() -> None:
    assert codes(2.0, numbers=[7] * SLICES) == []


@pytest.mark.parametrize(("low", "high", "even"), [(4.5, 5.5, True), (4.5, 5.51, False), (5.0, 5.6, True)])
def test_a_stack_is_even_within_twice_the_tolerance(low: float, high: float, even: bool) -> None:
    """10 % of 5 mm: one slice may be 0.5 mm off each way, and only an even stack is judged by its numbers."""
    distances = np.array([5.0] * (SLICES - 3) + [low, high])
    said = Stated(numbers=numbers(2), thickness_mm=5.0)
    if even:
        with pytest.raises(MissingSlices, match="in steps of 2"):
            check_complete(distances, said)
    else:
        assert check_complete(distances, said) == []


@pytest.mark.parametrize(("distance", "meant"), [(5.5, True), (5.51, False), (4.5, True), (4.49, False)])
def test_a_spacing_is_meant_within_10_percent_of_what_is_stated(distance: float, meant: bool) -> None:
    said = {"spacing_mm": 5.0, "thickness_mm": distance, "numbers": numbers(2)}
    if meant:
        assert set(codes(distance, **said)) <= {"series.thick_slices"}
    else:
        with pytest.raises(MissingSlices, match="in steps of 2"):
            codes(distance, **said)


@pytest.mark.parametrize(("over_mm", "told"), [(0.8e-6, False), (1e-6, False), (1.2e-6, True)])
def test_5_mm_may_be_rounded_by_a_millionth(over_mm: float, told: bool) -> None:
    assert codes(5.0 + over_mm, thickness_mm=5.0) == ["series.thick_slices"] * told


# ── from files ────────────────────────────────────────────────────────────────────────────────────────────────────────


def write(folder: Path, **overrides: object) -> list[Path]:
    """24 slices of 2 mm every 2 mm, numbered from the head."""
    origins = np.array([[0.0, 0.0, 2.0 * z] for z in range(24)])
    grid = Grid(6, 5, origins, np.array([1.0, 0, 0]), np.array([0, 1.0, 0]), 1.0, 1.0)
    return write_ct_series(folder, np.zeros(grid.shape, dtype=np.int16), grid, overrides=overrides)


@pytest.mark.parametrize("kept", [slice(None, None, 2), slice(1, None, 2), slice(None, None, 3)])
@pytest.mark.parametrize("silent", ["numbers", "thickness"])
def test_every_second_or_third_file_alone_is_refused_for_either_evidence(kept: slice, silent: str, tmp_path: Path) -> None:
    lost = {"numbers": {"InstanceNumber": None}, "thickness": {"SliceThickness": None}}[silent]
    with pytest.raises(MissingSlices, match="missing"):
        check_headers(write(tmp_path, **lost)[kept])


def test_the_whole_series_and_either_part_of_it_are_accepted_in_silence(tmp_path: Path) -> None:
    files = write(tmp_path)
    for part in (files, files[:15], files[9:]):
        assert check_headers(part).warnings == ()


def test_spacing_between_slices_counts_by_its_size_and_zero_says_nothing(tmp_path: Path) -> None:
    said = {"InstanceNumber": None, "SliceThickness": None}
    assert check_headers(write(tmp_path / "zero", SpacingBetweenSlices=0, **said)[::2]).warnings == ()
    with pytest.raises(MissingSlices, match=r"says 2\.000 mm"):
        check_headers(write(tmp_path / "negative", SpacingBetweenSlices=-2, **said)[::2])


def test_a_third_that_has_not_come_is_told_by_the_count(tmp_path: Path) -> None:
    files = write(tmp_path, ImagesInAcquisition=24)
    assert check_headers(files).warnings == ()
    (warning,) = check_headers(files[:16]).warnings
    assert warning.code == "series.maybe_incomplete"
    assert "24 images by its own count (Images in Acquisition), and 16 slices were sent" in warning.detail


def edit(path: Path, **values: object) -> None:
    dataset = pydicom.dcmread(path)
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    dataset.save_as(path)


@pytest.mark.parametrize("lost", ["SliceThickness", "InstanceNumber"])
def test_one_slice_that_lost_what_all_others_say_does_not_silence_them(lost: str, tmp_path: Path) -> None:
    other = {"SliceThickness": "InstanceNumber", "InstanceNumber": "SliceThickness"}[lost]
    files = write(tmp_path, **{other: None})
    edit(files[4], **{lost: None})
    with pytest.raises(MissingSlices, match="every second slice"):
        check_headers(files[::2])


def test_slices_that_alternate_between_two_runs_of_numbers_are_not_said_to_miss_others() -> None:
    interleaved = [n for pair in zip(range(1, 12), range(21, 32), strict=True) for n in pair]
    assert codes(2.0, numbers=interleaved[:SLICES]) == []


def test_a_count_that_one_slice_lost_still_counts(tmp_path: Path) -> None:
    files = write(tmp_path, ImagesInAcquisition=24)
    edit(files[0], ImagesInAcquisition=None)
    assert [warning.code for warning in check_headers(files[:16]).warnings] == ["series.maybe_incomplete"]


def test_counts_of_two_acquisitions_are_added(tmp_path: Path) -> None:
    files = write(tmp_path, ImagesInAcquisition=12)
    for path in files[12:]:
        dataset = pydicom.dcmread(path)
        dataset.AcquisitionNumber = 2
        dataset.save_as(path)
    assert check_headers(files).warnings == ()
    assert [warning.code for warning in check_headers(files[:-1]).warnings] == ["series.maybe_incomplete"]


def test_acquisitions_of_one_image_each_do_not_say_that_all_are_there(tmp_path: Path) -> None:
    files = write(tmp_path, ImagesInAcquisition=1)
    for number, path in enumerate(files, start=1):
        dataset = pydicom.dcmread(path)
        dataset.AcquisitionNumber = number
        dataset.save_as(path)
    assert check_headers(files).warnings == ()
    with pytest.raises(MissingSlices, match="every second slice is missing"):
        check_headers(files[::2])


def test_images_that_a_supplied_rtstruct_lists_and_nobody_sent_are_counted(tmp_path: Path) -> None:
    made = write_series(tmp_path / "ct")
    structure_set = tmp_path / "rtstruct.dcm"
    write_rtstruct(structure_set, awkward_masks(), made.header, AUTHORSHIP)
    assert check_headers([*made.files, structure_set]).warnings == ()
    (warning,) = check_headers([*made.files[:-2], structure_set]).warnings
    assert (warning.code, warning.detail[:44]) == ("series.maybe_incomplete", "A supplied RTSTRUCT lists 2 image(s) of this")


def test_images_of_another_series_in_an_rtstruct_do_not_count(tmp_path: Path) -> None:
    made = write_series(tmp_path / "ct")
    structure_set = tmp_path / "rtstruct.dcm"
    write_rtstruct(structure_set, awkward_masks(), replace(made.header, series_instance_uid="2.25.7"), AUTHORSHIP)
    assert check_headers([*made.files[:-2], structure_set]).warnings == ()


# ── lists that cost ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
def test_a_list_of_images_is_read_to_its_hundred_thousandth_element_and_no_further(tmp_path: Path) -> None:
    (tmp_path / "long").write_bytes(structure_set(99_000))
    (tmp_path / "endless").write_bytes(structure_set(1_000_000))
    assert listed_images(tmp_path / "long", "1.2.5") == {""}
    assert read_listing(tmp_path / "endless") == Listing(visited=100_000, complete=False)


@pytest.mark.slow
def test_lists_of_many_structure_sets_cost_no_more_than_a_second_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = write(tmp_path / "ct")
    for number in range(9):
        path = tmp_path / f"endless{number}"
        path.write_bytes(structure_set(1_000_000, uid=b"1.2.3.%d" % number))
        files.append(path)
    read: list[Path] = []
    monkeypatch.setattr(series, "read_listing", lambda path: read.append(path) or read_listing(path))
    (warning,) = check_headers(files).warnings
    assert (warning.code, warning.detail[:42]) == ("series.lists_not_read", "The lists of images of 9 supplied RTSTRUCT")
    assert len(read) == 4  # 300,000 elements are three of them

"""What each file of an upload is, and how many there are of each kind."""

import os
import shutil
from pathlib import Path

import pydicom
import pytest
from pydicom.uid import SecondaryCaptureImageStorage

from oarlock import errors
from oarlock.ct.sorting import RT_STRUCTURE_SET, WANTED, sort_out
from oarlock.ct.writer import write_ct_series
from oarlock.dicom.tags import Tag
from tests.ct.test_series import edit, small_grid
from tests.fixtures.crooked import crooked_hu
from tests.fixtures.multiframe import write_multi_frame


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    return write_ct_series(tmp_path, crooked_hu()[:7], small_grid())


def copies(file: Path, *names: str, **values: object) -> list[Path]:
    """The file under these names, each changed so."""
    made = [Path(shutil.copy(file, file.with_name(name))) for name in names]
    for i, path in enumerate(made):
        edit(path, **values, **({"SOPInstanceUID": f"2.25.7{i}"} if values else {}))
    return made


def warnings(files: list[Path]) -> dict[str, str]:
    found = sort_out(files, WANTED)
    found.slices()
    return {warning.code: warning.detail for warning in found.warnings}


def test_what_is_set_aside_is_counted_by_its_kind(files: list[Path]) -> None:
    scouts = copies(files[0], "s1", "s2", "s3", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    captures = copies(files[1], "c1", "c2", SOPClassUID=SecondaryCaptureImageStorage)
    others = copies(files[2], "m1", "m2", "m3", "m4", Modality="MR")
    assert warnings([*scouts, *captures, *others, *files]) == {
        "series.other_object_set_aside": "4 file(s) are not axial CT images (CT image of another modality) and were ignored.",
        "series.localizer_set_aside": "3 file(s) are not axial CT images (CT localizer) and were ignored.",
        "series.secondary_capture_set_aside": "2 file(s) are not axial CT images (secondary capture) and were ignored.",
    }


def test_what_came_more_than_once_is_counted_over_images_and_structure_sets(files: list[Path]) -> None:
    """An image three times and a structure set four times: two and three too many."""
    structure_sets = copies(files[2], "r", SOPClassUID=RT_STRUCTURE_SET)
    again = [*copies(files[0], "a", "b"), *copies(structure_sets[0], "r2", "r3", "r4")]
    told = warnings([*files, *structure_sets, *again])["series.duplicate_ignored"]
    assert told == "5 file(s) were sent more than once, byte for byte the same; each is used once."


def test_an_image_twice_and_a_structure_set_twice_are_two_files_too_many(files: list[Path]) -> None:
    structure_sets = copies(files[2], "r", SOPClassUID=RT_STRUCTURE_SET)
    told = warnings([*files, *structure_sets, *copies(files[0], "a"), *copies(structure_sets[0], "r2")])
    assert told["series.duplicate_ignored"].startswith("2 file(s) ")


def test_files_of_one_uid_are_compared_byte_by_byte_even_where_size_and_time_are_the_same(files: list[Path]) -> None:
    (other,) = copies(files[0], "other")
    content = bytearray(other.read_bytes())
    content[-1] ^= 1  # of the last pixel
    other.write_bytes(content)
    for path in (files[0], other):
        os.utime(path, ns=(0, 0))
    with pytest.raises(errors.DuplicateInstance):
        warnings([*files, other])


def test_an_image_of_the_class_for_one_frame_is_one_slice_without_a_number(files: list[Path]) -> None:
    assert {(file.frame, file.frames) for file in sort_out(files, WANTED).slices()} == {(None, 1)}


def test_a_multi_frame_image_that_does_not_state_its_number_has_one_frame(files: list[Path]) -> None:
    file = write_multi_frame(files[0].with_name("one"), files[:1])
    edit(file, NumberOfFrames=None)
    (frame,) = sort_out([file], WANTED | {Tag.ROWS, Tag.COLUMNS}).slices()
    assert (frame.frame, frame.frames) == (1, 1)


@pytest.mark.parametrize(("length", "valid"), [(63, True), (64, True), (65, False)])
def test_a_uid_has_up_to_64_characters(files: list[Path], length: int, *, valid: bool) -> None:
    uid = "1.2." + "3" * (length - 4)
    dataset = pydicom.dcmread(files[3])
    dataset["SOPInstanceUID"]._value = uid  # not checked
    dataset.save_as(files[3])
    found = sort_out(files, WANTED)
    if valid:
        assert len(found.slices()) == len(files)
    else:
        with pytest.raises(errors.InstanceUnreadable, match="no valid SOP Instance UID"):
            found.slices()


@pytest.mark.parametrize(("stated", "frames"), [("1", 1), ("2", 2), ("000000002", 2), ("0000000002", 1), ("two", 1)], ids=str)
def test_a_number_of_frames_has_up_to_nine_digits_and_a_single_frame_image_one(
    files: list[Path], stated: str, frames: int
) -> None:
    dataset = pydicom.dcmread(files[3])
    dataset.NumberOfFrames = 1
    dataset["NumberOfFrames"]._value = stated
    dataset.save_as(files[3])
    if frames == 1:
        assert len(sort_out(files, WANTED).slices()) == len(files)
    else:
        with pytest.raises(errors.MultiFrameCT, match="the class for single frames"):
            sort_out(files, WANTED)

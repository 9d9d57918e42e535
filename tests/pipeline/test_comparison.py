"""Structure sets that are judged in a child give what they give here."""

import re
from pathlib import Path

import numpy as np
import pydicom
import pytest

from oarlock.ct.series import SeriesHeader, check_headers
from oarlock.errors import FrameOfReferenceMismatch, StructureSetTooCostly, StructureSetUnreadable
from oarlock.phantom.patient import head_and_neck, write_phantom
from oarlock.pipeline import comparison
from oarlock.pipeline.apart import Limits
from oarlock.pipeline.comparison import NO_SITE_FILE, Side, compare_files, compare_on_grid, read_bounded, read_on_grid

Series = tuple[SeriesHeader, Path]


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> Series:
    images, reference = write_phantom(
        tmp_path_factory.mktemp("phantom"), head_and_neck(shape=(40, 64, 64), spacing_mm=(8.0, 7.0, 7.0))
    )
    return check_headers(images), reference


@pytest.mark.slow
def test_a_file_that_is_read_in_a_child_has_the_same_masks_and_warnings(series: Series) -> None:
    header, reference = series
    here, there = read_on_grid(reference, header), read_bounded(reference, header, NO_SITE_FILE)
    assert np.array_equal(here.masks.bits, there.masks.bits)
    assert (here.masks.oars, here.warnings, here.matched_rois) == (there.masks.oars, there.warnings, there.matched_rois)


@pytest.mark.slow
def test_two_files_that_are_compared_in_a_child_have_the_same_report(series: Series) -> None:
    header, reference = series
    here = read_on_grid(reference, header)
    there = compare_files(Side(reference, header), Side(reference, header), NO_SITE_FILE)
    assert there.to_json() == compare_on_grid(here, here, header).to_json()


def test_a_file_in_any_character_set_is_read_in_a_child_that_can_load_none(series: Series, tmp_path: Path) -> None:
    """``ISO 2022 IR 87``: the name of an ROI in kanji; its code says which organ it is."""
    header, reference = series
    dataset = pydicom.dcmread(reference)
    dataset.SpecificCharacterSet = ["", "ISO 2022 IR 87"]
    dataset.StructureSetROISequence[0].ROIName = "脳幹"
    dataset.save_as(tmp_path / "kanji.dcm")
    assert "脳幹" in read_bounded(tmp_path / "kanji.dcm", header, NO_SITE_FILE).matched_rois.values()


@pytest.mark.parametrize("part", ["predicted", "reference"])
def test_an_error_names_the_part_of_the_upload(part: str, series: Series, tmp_path: Path) -> None:
    header, reference = series
    (tmp_path / "bad.dcm").write_bytes(b"not an RTSTRUCT")
    files = {"predicted": reference, "reference": reference} | {part: tmp_path / "bad.dcm"}
    predicted, expected = (Side(path, header, name) for name, path in files.items())
    with pytest.raises(StructureSetUnreadable, match=f"^Part '{part}': The RTSTRUCT cannot be read: "):
        compare_files(predicted, expected, NO_SITE_FILE)


def test_a_file_that_takes_more_than_its_share_is_refused(series: Series, monkeypatch: pytest.MonkeyPatch) -> None:
    header, reference = series
    monkeypatch.setattr(comparison, "limits_on", lambda _, *files: Limits(memory_bytes=1, cpu_s=20, files=files))
    with pytest.raises(StructureSetTooCostly, match="more memory or time"):
        read_bounded(reference, header, NO_SITE_FILE)


def test_a_tolerance_that_rounds_to_nothing_is_told(series: Series) -> None:
    """Pixels of 7 mm: tolerances of up to 3.5 mm round to 0."""
    header, reference = series
    here = read_on_grid(reference, header)
    report = compare_on_grid(here, here, header)
    (told,) = [warning.detail for warning in report.warnings if warning.code == "comparison.tolerance_rounds_to_zero"]
    fine = {score.oar.name for score in report.scores if score.measured.surface_dsc is not None and score.tolerance_mm < 3.5}
    assert fine
    assert set(re.findall(r"[A-Z][A-Za-z_]+(?=[,:])", told)) == fine


def test_the_words_of_an_error_change_and_its_kind_does_not() -> None:
    error = StructureSetUnreadable(reason="it is cut off").reworded("Part 'reference': it is cut off")
    assert (type(error), error.code, error.detail) == (StructureSetUnreadable, "structure_set.unreadable", str(error))
    assert FrameOfReferenceMismatch().reworded("other").detail == "other"

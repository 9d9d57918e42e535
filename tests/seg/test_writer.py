"""The segmentation of a job: read back voxel for voxel by highdicom and by unpacking its bits here, and judged by a validator."""

from io import BytesIO
from pathlib import Path

import highdicom
import numpy as np
import numpy.typing as npt
import pydicom
import pytest
from PIL import Image, ImageCms
from pydicom.uid import ExplicitVRLittleEndian

from oarlock.ct.series import read_ct_series
from oarlock.ct.series_geometry import read_series_geometry, write_series_geometry
from oarlock.errors import ResultNotFound
from oarlock.geometry.masks import OARMasks
from oarlock.organs.catalogue import OARS
from oarlock.pictures.slice_archive import load_rendering, save_rendering
from oarlock.rtstruct.profiles import GENERIC, Profile, read_profile
from oarlock.rtstruct.writer import write_rtstruct
from oarlock.seg.cielab import to_cielab
from oarlock.seg.writer import to_segmentation
from tests.fixtures.judges import dciodvfy
from tests.fixtures.organs import AUTHORSHIP, Series, write_series

pytestmark = pytest.mark.slow


def segmentation(series: Series, folder: Path, masks: OARMasks | None = None, profile: Profile = GENERIC) -> bytes:
    """What a job keeps, and the segmentation that is made of it."""
    masks = series.masks if masks is None else masks
    write_rtstruct(folder / "rtstruct.dcm", masks, series.header, AUTHORSHIP, profile)
    write_series_geometry(folder / "geometry.json", series.header)
    save_rendering(folder / "rendering.npz", read_ct_series(series.header).hu, series.header.grid, masks)
    kept = read_series_geometry(folder / "geometry.json"), load_rendering(folder / "rendering.npz")
    return to_segmentation((folder / "rtstruct.dcm").read_bytes(), *kept)


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> Series:
    name = "Müller^Ärztin"
    return write_series(tmp_path_factory.mktemp("series"), patient_name=name, specific_character_set="ISO_IR 100")


@pytest.fixture(scope="module")
def content(series: Series, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return segmentation(series, tmp_path_factory.mktemp("results"))


@pytest.fixture
def dataset(content: bytes) -> pydicom.Dataset:
    return pydicom.dcmread(BytesIO(content))


def unpacked(dataset: pydicom.Dataset, series: Series) -> dict[str, npt.NDArray[np.bool_]]:
    """(z, y, x) mask of each segment by its label, placed by the image that each frame names (PS3.5 8.1.1)."""
    slices = {one.sop_instance_uid: z for z, one in enumerate(series.header.instances)}
    labels = {one.SegmentNumber: one.SegmentLabel for one in dataset.SegmentSequence}
    masks = {label: np.zeros(series.masks.shape, dtype=bool) for label in labels.values()}
    pixels = dataset.Rows * dataset.Columns
    for index, groups in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        number = groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        image = groups.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        bits = [dataset.PixelData[i // 8] >> i % 8 & 1 for i in range(index * pixels, (index + 1) * pixels)]
        masks[labels[number]][slices[image]] = np.array(bits, dtype=bool).reshape(dataset.Rows, dataset.Columns)
    return masks


def test_every_voxel_comes_back_when_the_bits_are_unpacked_by_hand(dataset: pydicom.Dataset, series: Series) -> None:
    assert dataset.Rows * dataset.Columns % 8  # so that frames begin within a byte
    found = unpacked(dataset, series)
    assert list(found) == [oar.name for oar in series.masks.oars]
    for oar in series.masks.oars:
        np.testing.assert_array_equal(found[oar.name], series.masks.mask(oar), err_msg=oar.name)


def test_highdicom_finds_every_voxel_on_the_image_that_it_was_drawn_on(content: bytes, series: Series) -> None:
    read = highdicom.seg.segread(BytesIO(content))
    images = [one.sop_instance_uid for one in series.header.instances]
    pixels = read.get_pixels_by_source_instance(images, assert_missing_frames_are_empty=True)
    for number, oar in enumerate(series.masks.oars, start=1):
        np.testing.assert_array_equal(pixels[..., number - 1].astype(bool), series.masks.mask(oar), err_msg=oar.name)
        described = read.get_segment_description(number)
        assert (described.segmented_property_type.value, described.algorithm_type.value) == (oar.snomed_code, "AUTOMATIC")


def test_frames_lie_where_the_slices_lie(content: bytes, series: Series) -> None:
    volume = highdicom.seg.segread(BytesIO(content)).get_volume(segment_numbers=[1])
    z = np.flatnonzero(series.masks.mask(series.masks.oars[0]).any(axis=(1, 2)))[[0, -1]]
    found = [volume.map_indices_to_reference(np.array([[index, 0, 0]]))[0] for index in (0, volume.spatial_shape[0] - 1)]
    expected = series.header.grid.origins_mm[z]
    assert np.allclose(found, expected) or np.allclose(found, expected[::-1])


def test_the_validator_says_nothing_of_it(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "seg.dcm").write_bytes(content)
    assert dciodvfy(tmp_path / "seg.dcm") == []


def test_it_belongs_to_the_patient_of_the_ct_and_says_that_no_one_approved_it(dataset: pydicom.Dataset, series: Series) -> None:
    image = pydicom.dcmread(series.files[0], stop_before_pixels=True)
    for keyword in ("PatientName", "PatientID", "StudyInstanceUID", "FrameOfReferenceUID", "SpecificCharacterSet", "StudyDate"):
        assert dataset[keyword].value == image[keyword].value, keyword
    assert (dataset.ContentLabel, dataset.ContentQualification) == ("UNAPPROVED", "RESEARCH")
    assert "not approved" in dataset.ContentDescription
    assert "oarlock-hn 1.2.3 (0123456789ab)" in dataset.SegmentSequence[0].SegmentAlgorithmName
    assert dataset.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert dataset.TimezoneOffsetFromUTC == "+0000"
    assert dataset.ContentTime == "101112"


def test_segments_are_called_numbered_and_coloured_as_the_rois_of_the_rtstruct(series: Series, tmp_path: Path) -> None:
    (tmp_path / "site.toml").write_text(
        '[[roi]]\noar = "Parotid_R"\nname = "Ohrspeicheldrüse"\ncolour = [16, 32, 48]\n[[roi]]\noar = "Brain"\n', encoding="utf-8"
    )
    profile = read_profile(tmp_path / "site.toml")
    masks = series.masks.select([style.oar for style in profile.styles_of(series.masks.oars)])
    dataset = pydicom.dcmread(BytesIO(segmentation(series, tmp_path, masks, profile)))
    labels = [(one.SegmentNumber, one.SegmentLabel) for one in dataset.SegmentSequence]
    assert labels == [(1, "Ohrspeicheldrüse"), (2, "Brain")]
    assert dataset.SegmentSequence[0].RecommendedDisplayCIELabValue == to_cielab((0x10, 0x20, 0x30))


def test_of_nothing_there_is_one_empty_frame(series: Series, tmp_path: Path) -> None:
    nothing = OARMasks.empty(series.masks.oars, series.masks.shape)
    dataset = pydicom.dcmread(BytesIO(segmentation(series, tmp_path, nothing)))
    assert dataset.NumberOfFrames == 1
    assert not any(dataset.PixelData)
    assert len(dataset.SegmentSequence) == len(series.masks.oars)


def test_of_no_roi_there_is_no_segmentation(series: Series, tmp_path: Path) -> None:
    with pytest.raises(ResultNotFound):
        segmentation(series, tmp_path, series.masks.select([]))


def test_colours_are_those_of_a_colour_management_system() -> None:
    to_lab = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
    for oar in OARS:
        lab = ImageCms.applyTransform(Image.new("RGB", (1, 1), oar.colour), to_lab).getpixel((0, 0))  # 8 bits each
        assert [value / 257 for value in to_cielab(oar.colour)] == pytest.approx(list(lab), abs=1.1), oar.name

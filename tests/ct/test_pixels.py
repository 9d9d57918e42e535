"""From stored pixels to Hounsfield units: every encoding, every number of bits, and what is refused before it is decoded."""

import tracemalloc
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from oarlock import errors
from oarlock.ct.pixel_header import StoredPixels, check_pixels, is_tissue_padding
from oarlock.ct.series import SeriesHeader, check_headers, read_ct_series
from oarlock.ct.writer import write_ct_series
from oarlock.dicom.elements import read_elements
from oarlock.dicom.tags import Tag
from tests.fixtures.crooked import crooked_grid, crooked_hu

CUT = slice(10, 13)
"""Three slices through the block of bone."""


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    whole = crooked_grid()
    grid = type(whole)(61, 53, whole.origins_mm[CUT], whole.row_direction, whole.column_direction, 1.1, 0.9)
    return write_ct_series(tmp_path, crooked_hu()[CUT], grid)


def hu_of(files: list[Path]) -> npt.NDArray[np.int16]:
    return read_ct_series(check_headers(files)).hu


def codes(header: SeriesHeader) -> list[str]:
    return [warning.code for warning in header.warnings]


def change(files: list[Path], edit: Callable[[Dataset], object]) -> list[Path]:
    for path in files:
        dataset = pydicom.dcmread(path)
        edit(dataset)
        dataset.save_as(path)
    return files


def store(files: list[Path], stored: npt.NDArray[Any], **values: Any) -> list[Path]:
    """Give all slices the same stored pixels (y, x), and other attributes."""

    def edit(dataset: Dataset) -> None:
        dataset.Rows, dataset.Columns = stored.shape
        dataset.PixelData = stored.tobytes()
        for keyword, value in values.items():
            setattr(dataset, keyword, value)

    return change(files, edit)


# ── encodings ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless], ids=lambda uid: uid.name)
def test_lossless_compression_changes_nothing(files: list[Path], syntax: pydicom.uid.UID) -> None:
    compressed = change(files, lambda dataset: dataset.compress(syntax, generate_instance_uid=False))
    header = check_headers(compressed)
    np.testing.assert_array_equal(read_ct_series(header).hu, crooked_hu()[CUT])
    assert codes(header) == []


@pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian], ids=lambda uid: uid.name
)
def test_the_encoding_of_the_data_set_changes_nothing(files: list[Path], syntax: pydicom.uid.UID) -> None:
    for path in files:
        dataset = Dataset()
        dataset.update({element.tag: element for element in pydicom.dcmread(path)})
        dataset.ensure_file_meta()
        dataset.file_meta.TransferSyntaxUID = syntax
        if syntax == ExplicitVRBigEndian:
            dataset.PixelData = np.frombuffer(dataset.PixelData, "<i2").astype(">i2").tobytes()
        dataset.save_as(path, enforce_file_format=True)
    np.testing.assert_array_equal(hu_of(files), crooked_hu()[CUT])


@pytest.mark.slow
def test_near_lossless_compression_warns(files: list[Path]) -> None:
    def near_lossless(dataset: Dataset) -> None:
        dataset.compress("1.2.840.10008.1.2.4.81", jls_error=2, generate_instance_uid=False)

    header = check_headers(change(files, near_lossless))
    assert codes(header) == ["series.lossy_compression"]
    difference = read_ct_series(header).hu.astype(int) - crooked_hu()[CUT]
    assert 1 <= np.abs(difference).max() <= 2


def test_an_image_that_was_once_compressed_with_loss_warns(files: list[Path]) -> None:
    header = check_headers(change(files, lambda dataset: setattr(dataset, "LossyImageCompression", "01")))
    assert [(w.code, w.detail[:10]) for w in header.warnings] == [("series.lossy_compression", "3 slice(s)")]


# ── values ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@given(
    bits=st.integers(12, 16),
    signed=st.booleans(),
    intercept=st.integers(-2000, 2000),
    junk=st.booleans(),
    seed=st.integers(0, 99),
)
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_every_number_of_bits_and_either_sign(
    files: list[Path], bits: int, signed: bool, intercept: int, junk: bool, seed: int
) -> None:
    """Expected: the low bits as a number with or without a sign, plus the intercept, cut to the 16 bits of the result.

    ``junk`` fills the unused high bits, as files with overlays in the pixel data do (PS3.5 8.1.1).
    """
    rng = np.random.default_rng(seed)
    low = -(1 << (bits - 1)) if signed else 0
    values = rng.integers(low, low + (1 << bits), size=(6, 5))
    raw = values & ((1 << bits) - 1)
    if junk:
        raw |= rng.integers(0, 1 << (16 - bits), size=raw.shape) << bits
    elif signed:
        raw = values & 0xFFFF
    store(
        files,
        raw.astype("<u2"),
        BitsStored=bits,
        HighBit=bits - 1,
        PixelRepresentation=int(signed),
        RescaleIntercept=intercept,
    )
    np.testing.assert_array_equal(hu_of(files)[1], np.clip(values + intercept, -32768, 32767))


def test_a_fractional_rescale_is_rounded_to_the_nearest_integer(files: list[Path]) -> None:
    """0.75 * (0, 1, 2, 3, 4) - 10 = -10, -9.25, -8.5, -7.75, -7; a half goes to the even neighbour."""
    stored = np.array([[0, 1], [2, 3], [4, 4]], dtype="<i2")
    store(files, stored, RescaleSlope=0.75, RescaleIntercept=-10)
    np.testing.assert_array_equal(hu_of(files)[0], [[-10, -9], [-8, -8], [-7, -7]])


def test_an_image_that_is_displayed_inverted_has_the_same_hounsfield_units(files: list[Path]) -> None:
    inverted = change(files, lambda dataset: setattr(dataset, "PhotometricInterpretation", "MONOCHROME1"))
    np.testing.assert_array_equal(hu_of(inverted), crooked_hu()[CUT])


def test_each_slice_has_its_own_rescale(files: list[Path]) -> None:
    for z, path in enumerate(files):
        change([path], lambda dataset, z=z: setattr(dataset, "RescaleIntercept", -1024 + z))
    np.testing.assert_array_equal(hu_of(files), crooked_hu()[CUT] + np.arange(3)[:, None, None])


@pytest.mark.parametrize("signed", [True, False])
def test_padding_far_below_air_becomes_air(files: list[Path], signed: bool) -> None:
    """-2000 with an intercept of -1024 is -3024 HU; unsigned, 63536 is the same two bytes and 62512 HU."""
    stored = np.array([[-2000, 1064], [0, 24]], dtype="<i2")

    def edit(dataset: Dataset) -> None:
        vr = "SS" if signed else "US"
        dataset.add(DataElement(0x00280120, vr, -2000 if signed else 63536))

    store(files, stored, PixelRepresentation=int(signed))
    np.testing.assert_array_equal(hu_of(change(files, edit))[0], [[-1024, 40], [-1024, -1000]])


def test_a_range_of_padding_becomes_air(files: list[Path]) -> None:
    stored = np.array([[-2000, -1500], [-1001, 24]], dtype="<i2")

    def edit(dataset: Dataset) -> None:
        dataset.add(DataElement(0x00280120, "SS", -2000))
        dataset.add(DataElement(0x00280121, "SS", -1001))

    np.testing.assert_array_equal(hu_of(change(store(files, stored), edit))[0], [[-1024, -1024], [-1024, -1000]])


@pytest.mark.slow
def test_padding_that_compression_with_loss_has_blurred_becomes_air_and_nothing_else_does(files: list[Path]) -> None:
    """Near-lossless by 3: among the stored values around the padding hardly one is exactly -2000."""
    body = np.random.default_rng(3).integers(900, 1100, (40, 40)).astype("<i2")
    stored = np.where(np.arange(40)[:, None] + np.arange(40) < 30, np.int16(-2000), body)

    def near_lossless(dataset: Dataset) -> None:
        dataset.add(DataElement(0x00280120, "SS", -2000))
        dataset.compress("1.2.840.10008.1.2.4.81", jls_error=3, generate_instance_uid=False)

    found = hu_of(change(store(files, stored), near_lossless))[0]
    assert set(found[stored == -2000]) == {-1024}
    assert np.abs(found - (stored.astype(int) - 1024))[stored != -2000].max() <= 3


def test_padding_that_could_be_tissue_is_left_with_a_warning(files: list[Path]) -> None:
    """1064 - 1024 = 40 HU: muscle."""
    header = check_headers(change(files, lambda dataset: dataset.add(DataElement(0x00280120, "SS", 1064))))
    (warning,) = header.warnings
    said = "3 slice(s) declare a padding value that is also a value of tissue; it is left as it is."
    assert (warning.code, warning.detail) == ("series.padding_ambiguous", said)
    np.testing.assert_array_equal(read_ct_series(header).hu, crooked_hu()[CUT])


def test_reading_needs_the_volume_and_hardly_more(tmp_path: Path) -> None:
    """40 slices of 256 × 256 are 5.2 MB; twice that would be a second copy of the volume."""
    whole = crooked_grid()
    origins = whole.origins_mm[0] + np.outer(np.arange(40), [0, 0, 2.5])
    grid = type(whole)(256, 256, origins, whole.row_direction, whole.column_direction, 1.1, 0.9)
    header = check_headers(write_ct_series(tmp_path, np.zeros((40, 256, 256), dtype=np.int16), grid))
    tracemalloc.start()
    hu = read_ct_series(header).hu
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < hu.nbytes + 8 * hu[0].nbytes


@pytest.mark.parametrize(
    ("rescale_type", "warnings"),
    [("", []), ("hu", []), ("Hounsfield Units", []), ("US", ["series.rescale_type"]), ("hu_mod", ["series.rescale_type"])],
)
def test_a_rescale_type_is_read_in_any_case_and_told_if_it_is_not_plainly_hu(
    rescale_type: str, warnings: list[str], tmp_path: Path
) -> None:
    files = write_ct_series(tmp_path, crooked_hu(), crooked_grid(), overrides={"RescaleType": rescale_type})
    assert [warning.code for warning in check_headers(files).warnings] == warnings


# ── refused by the header ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, "not a grey image"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "not a grey image"),
        ({"SamplesPerPixel": None}, "not a grey image"),
        ({"BitsAllocated": 8}, "8 bits are allocated"),
        ({"BitsAllocated": 32}, "32 bits are allocated"),
        ({"BitsAllocated": None}, "None bits are allocated"),
        ({"BitsStored": 10, "HighBit": 9}, "10 bits are stored"),
        ({"BitsStored": 12, "HighBit": 15}, "high bit"),
        ({"PixelRepresentation": None}, "signed"),
        ({"RescaleSlope": None}, "no valid Rescale Slope"),
        ({"RescaleIntercept": None}, "no valid Rescale Intercept"),
        ({"RescaleSlope": 0}, "Rescale Slope is not usable"),
        ({"RescaleType": "Z_EFF"}, "not Hounsfield units"),
        ({"Rows": 65535, "Columns": 65535}, "claims 65535 × 65535 pixels"),
        ({"Rows": 0}, "claims 0 × 53 pixels"),
        ({"Rows": 62}, "62 × 53 pixels need 6572 bytes and 6466 are there"),
        ({"PixelData": None}, "there are no pixel data"),
    ],
)
def test_what_is_no_grey_image_in_hounsfield_units_is_refused(files: list[Path], values: dict[str, Any], reason: str) -> None:
    def edit(dataset: Dataset) -> None:
        for keyword, value in values.items():
            if value is None:
                delattr(dataset, keyword)
            else:
                setattr(dataset, keyword, value)

    change(files[2:], edit)
    with pytest.raises(errors.UnsupportedPixelData, match=reason) as caught:
        check_headers(files)
    assert "of file 3 of the upload" in str(caught.value)


@pytest.mark.parametrize("text", ["1_0", "1\\1", "nan", "inf", "1e999", "+-1", "0x1", "١"])
def test_what_only_python_takes_for_a_rescale_is_refused(files: list[Path], text: str) -> None:
    """Python reads "1_0" as 10 (PS3.5 6.2 has no such number): a slope ten times too large and a scan without air."""
    content = files[2].read_bytes()
    at = content.index(b"\x28\x00\x53\x10DS") + 6
    end = at + 2 + int.from_bytes(content[at : at + 2], "little")
    value = text.encode() + b" " * (len(text.encode()) % 2)
    files[2].write_bytes(content[:at] + len(value).to_bytes(2, "little") + value + content[end:])
    with pytest.raises(errors.UnsupportedPixelData, match=r"of file 3 of the upload.*Rescale Slope"):
        check_headers(files)


def test_a_file_that_ends_before_its_last_pixel_is_refused_before_reading(files: list[Path]) -> None:
    files[0].write_bytes(files[0].read_bytes()[:-10])
    with pytest.raises(errors.UnsupportedPixelData, match="cut off"):
        check_headers(files)


def test_pixels_that_are_not_encoded_as_the_file_says_are_refused(files: list[Path]) -> None:
    content = files[1].read_bytes()
    files[1].write_bytes(content.replace(b"1.2.840.10008.1.2.1\0\x02", b"1.2.840.10008.1.2.5\0\x02"))
    with pytest.raises(errors.UnsupportedPixelData, match=r"file 2 .*wrong transfer syntax"):
        check_headers(files)


def test_an_unknown_transfer_syntax_is_refused(files: list[Path]) -> None:
    content = files[1].read_bytes()
    files[1].write_bytes(content.replace(b"1.2.840.10008.1.2.1\0\x02", b"1.2.840.10008.1.9.9\0\x02"))
    with pytest.raises(errors.UnsupportedPixelData, match="transfer syntax is not supported"):
        check_headers(files)


# ── refused by the decoder ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless], ids=lambda uid: uid.name)
@pytest.mark.parametrize("damage", ["file cut", "fragment cut", "other size", "noise"])
def test_damaged_compressed_pixels_are_refused(files: list[Path], syntax: pydicom.uid.UID, damage: str) -> None:
    def edit(dataset: Dataset) -> None:
        frame = bytearray(next(generate_frames(dataset.PixelData, number_of_frames=1)))
        if damage == "fragment cut":
            dataset.PixelData = encapsulate([bytes(frame[: len(frame) // 2])])
        elif damage == "noise":
            frame[100:300] = np.random.default_rng(1).bytes(200)
            dataset.PixelData = encapsulate([bytes(frame)])
        elif damage == "other size":
            dataset.Rows = 60

    change(files, lambda dataset: dataset.compress(syntax, generate_instance_uid=False))
    change(files, edit)
    if damage == "file cut":
        files[1].write_bytes(files[1].read_bytes()[:-200])
    header = check_headers(files)
    with pytest.raises(errors.UnsupportedPixelData):
        read_ct_series(header)


def test_compressed_data_that_claim_a_huge_image_are_not_decoded(files: list[Path]) -> None:
    change(files, lambda dataset: dataset.compress(JPEG2000Lossless, generate_instance_uid=False))
    content = bytearray(files[0].read_bytes())
    siz = content.index(b"\xff\x4f\xff\x51")
    content[siz + 8 : siz + 16] = b"\0\0\xff\xff\0\0\xff\xff"
    files[0].write_bytes(content)
    with pytest.raises(errors.UnsupportedPixelData, match="another size than the header"):
        read_ct_series(check_headers(files))


def test_a_deflated_header_that_never_ends_is_given_up(files: list[Path]) -> None:
    """48 MB of one text element deflate to 52 kB; a megabyte of it is inflated and no more."""
    text = b"\x08\x00\x08\x00CS\x60\xea" + b"A" * 60_000
    deflater = zlib.compressobj(wbits=-15)
    syntax = b"\x02\x00\x10\x00UI\x16\x00" + DeflatedExplicitVRLittleEndian.encode()
    content = deflater.compress(text * 800) + deflater.flush()
    files[0].write_bytes(b"\0" * 128 + b"DICM" + syntax + content)
    with pytest.raises(errors.InstanceUnreadable, match="deflated header is longer"):
        check_headers(files)


def test_a_deflated_file_of_noise_is_refused(files: list[Path]) -> None:
    syntax = b"\x02\x00\x10\x00UI\x16\x00" + DeflatedExplicitVRLittleEndian.encode()
    files[0].write_bytes(b"\0" * 128 + b"DICM" + syntax + b"\xff" * 1000)
    with pytest.raises(errors.InstanceUnreadable, match="cannot be inflated"):
        check_headers(files)


def test_a_file_that_vanished_after_the_check_is_refused(files: list[Path]) -> None:
    header = check_headers(files)
    files[1].unlink()
    with pytest.raises(errors.UnsupportedPixelData, match="cannot be opened"):
        read_ct_series(header)


@pytest.mark.parametrize(
    ("padding_hu", "tissue"),
    [
        ((-900, -900), False),
        ((-899, -899), True),
        ((3071, 3071), True),
        ((3072, 3072), False),
        ((-2000, -899), True),
        ((-2000, -900), False),
        ((3071, 4000), True),
    ],
)
def test_padding_is_tissue_from_just_above_900_hu_below_water_to_3071(padding_hu: tuple[int, int], tissue: bool) -> None:
    """docs/dicom.md: outside of -900 to 3071 HU it becomes air, inside it is left with a warning. Stored is HU + 1024."""
    low, high = (value + 1024 for value in padding_hu)
    stored = StoredPixels("1.2.840.10008.1.2.1", False, 0, 0, 512, 16, 16, 16, True, 1.0, -1024.0, (low, high))
    assert is_tissue_padding(stored) is tissue


def stored(**values: Any) -> StoredPixels:
    plain = StoredPixels("1.2.840.10008.1.2.1", False, 0, 0, 512, 16, 16, 12, True, 1.0, -1024.0, None)
    return replace(plain, **values)


@pytest.mark.parametrize(
    ("signed", "slope", "highest_hu"),
    [(True, 1.0, 2047 - 1024), (True, -1.0, 2048 - 1024), (False, 1.0, 4095 - 1024), (False, -1.0, -1024)],
)
def test_the_highest_value_of_twelve_bits_follows_from_sign_and_slope(signed: bool, slope: float, highest_hu: float) -> None:
    assert stored(signed=signed, slope=slope).highest_hu == highest_hu


@pytest.mark.parametrize(("raw", "signed", "read"), [(32_767, True, 32_767), (32_768, True, -32_768), (32_768, False, 32_768)])
def test_padding_has_the_sign_of_the_pixels(raw: int, signed: bool, read: int, files: list[Path]) -> None:
    def edit(dataset: Dataset) -> None:
        dataset.PixelRepresentation = int(signed)
        dataset.add(DataElement(0x00280120, "US", raw))

    change(files, edit)
    header = read_elements(files[0], frozenset(Tag), keep=lambda _: True)
    assert header is not None
    assert check_pixels(header, 1).padding == (read, read)

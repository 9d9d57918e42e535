"""What a slice's header may claim of its pixels, one step to either side of each limit; headers are made, not read."""

import struct
from pathlib import Path
from typing import Any

import pytest

from oarlock.ct.pixel_header import check_pixels, is_padding, is_tissue_padding, warnings_for
from oarlock.dicom.elements import DEFLATED, Header, PixelData
from oarlock.dicom.tags import Tag
from oarlock.errors import UnsupportedPixelData

EXPLICIT, RLE, LOSSY = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.50"
NEEDED = 4 * 5 * 2
"""Bytes of the four rows and five columns."""

NUMBERS = {
    "SAMPLES_PER_PIXEL": 1,
    "BITS_ALLOCATED": 16,
    "BITS_STORED": 16,
    "HIGH_BIT": 15,
    "PIXEL_REPRESENTATION": 0,
    "ROWS": 4,
    "COLUMNS": 5,
}
TEXTS = {"PHOTOMETRIC_INTERPRETATION": "MONOCHROME2", "RESCALE_SLOPE": "1", "RESCALE_INTERCEPT": "-1024"}


def header(
    values: dict[str, Any] | None = None,
    *,
    pixels: PixelData | None = PixelData(100, NEEDED),  # noqa: B008 - it cannot be changed
    syntax: str = EXPLICIT,
    size: int = 100 + NEEDED,
    path: Path = Path("none"),
) -> Header:
    """A header of such values; None leaves one out."""
    found = {
        int(Tag[name]): value.encode() if isinstance(value, str) else struct.pack("<H", value)
        for name, value in (NUMBERS | TEXTS | (values or {})).items()
        if value is not None
    }
    return Header(path, size, syntax, big_endian=False, dataset_offset=9, values=found, pixel_data=pixels, visited=9)


def refusal(of: Header) -> str | None:
    """Why the header is refused; None if it is not."""
    try:
        check_pixels(of, 3)
    except UnsupportedPixelData as refused:
        return str(refused).removeprefix("The pixel data of file 3 of the upload cannot be used: ")
    return None


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"SAMPLES_PER_PIXEL": 2}, "it is not a grey image"),
        ({"SAMPLES_PER_PIXEL": 0}, "it is not a grey image"),
        ({"PHOTOMETRIC_INTERPRETATION": "MONOCHROME1"}, None),
        ({"PHOTOMETRIC_INTERPRETATION": "MONOCHROME3"}, "it is not a grey image"),
        ({"BITS_ALLOCATED": 15}, "15 bits are allocated where CT has 16"),
        ({"BITS_ALLOCATED": 17}, "17 bits are allocated where CT has 16"),
        ({"BITS_STORED": None}, "None bits are stored where CT has 12 to 16"),
        ({"BITS_STORED": 11, "HIGH_BIT": 10}, "11 bits are stored where CT has 12 to 16"),
        ({"BITS_STORED": 12, "HIGH_BIT": 11}, None),
        ({"BITS_STORED": 17, "HIGH_BIT": 16}, "17 bits are stored where CT has 12 to 16"),
        ({"HIGH_BIT": 14}, "the high bit is not the highest"),
        ({"HIGH_BIT": 16}, "the high bit is not the highest"),
        ({"PIXEL_REPRESENTATION": 1}, None),
        ({"PIXEL_REPRESENTATION": 2}, "it does not say whether its values are signed"),
        ({"RESCALE_TYPE": "hu"}, None),
        ({"RESCALE_TYPE": "us"}, None),
        ({"RESCALE_TYPE": "OD"}, "its values are not Hounsfield units"),
        ({"ROWS": None}, "it claims 0 × 5 pixels; 2 to 4096 rows and columns are accepted"),
        ({"COLUMNS": None}, "it claims 4 × 0 pixels; 2 to 4096 rows and columns are accepted"),
        ({"RESCALE_SLOPE": "1\\1"}, "it has no valid Rescale Slope, so"),
        ({"RESCALE_SLOPE": None}, "it has no valid Rescale Slope, so"),
        ({"RESCALE_SLOPE": "0"}, "its Rescale Slope is not usable"),
        ({"RESCALE_SLOPE": "-1"}, None),
        ({"RESCALE_INTERCEPT": "0"}, None),
        ({"RESCALE_INTERCEPT": None}, "it has no valid Rescale Intercept, so"),
    ],
)
def test_a_slice_is_one_grey_ct_image(values: dict[str, Any], reason: str | None) -> None:
    said = refusal(header(values))
    assert said is None if reason is None else said is not None and said.startswith(reason)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"pixels": None}, "there are no pixel data"),
        ({"pixels": PixelData(100, NEEDED - 1)}, "4 × 5 pixels need 40 bytes and 39 are there."),
        ({"size": 100 + NEEDED - 1}, "it is cut off: the file ends before its last pixel"),
        ({"pixels": PixelData(100, 2 * NEEDED)}, "4 × 5 pixels need 40 bytes and 80 are there."),
        ({"pixels": PixelData(100, None)}, "4 × 5 pixels need 40 bytes and 0 are there."),
        ({"syntax": DEFLATED, "size": 50}, None),  # its place is that in the inflated data set
        ({"syntax": "1.2.840.10008.1.9.9"}, "its transfer syntax is not supported"),
        ({"syntax": RLE}, "the file says that it is compressed, but it is not encapsulated"),
        ({"syntax": RLE, "pixels": PixelData(100, None), "size": 100 + 2 * NEEDED + 1_048_576}, None),
        ({"syntax": RLE, "pixels": PixelData(100, None), "size": 101 + 2 * NEEDED + 1_048_576}, "its compressed form is larger"),
        ({"syntax": RLE, "pixels": PixelData(0, None, 0, ((0, 80), (90, 1_048_576))), "size": 10**8}, None),
        ({"syntax": RLE, "pixels": PixelData(0, None, 0, ((0, 81), (90, 1_048_576)))}, "its compressed form is larger"),
    ],
)
def test_what_a_slice_claims_can_be_there(changes: dict[str, Any], reason: str | None) -> None:
    said = refusal(header(**changes))
    assert said is None if reason is None else said is not None and said.startswith(reason)


@pytest.mark.parametrize(
    ("excess", "reason"),
    [
        (b"\0" * 39, None),
        (b"\x07\x07", None),
        (b"\0\0\x01", "4 × 5 pixels need 40 bytes and 43 are there; the excess is not padding."),
    ],
)
def test_what_lies_behind_the_last_pixel_is_padding(excess: bytes, reason: str | None, tmp_path: Path) -> None:
    """Of fewer bytes than the image; before it and behind its element lies something else."""
    (tmp_path / "slice").write_bytes(b"\x02" * 100 + b"\x03" * NEEDED + excess + b"\x04")
    of = header(pixels=PixelData(100, NEEDED + len(excess)), size=1000, path=tmp_path / "slice")
    assert refusal(of) == reason
    assert is_padding(of, 100 + NEEDED, len(excess)) is (reason is None)
    if reason is None:
        assert list(warnings_for(of, check_pixels(of, 1))) == ["series.excess_pixel_data"]


@pytest.mark.parametrize(
    ("values", "highest"),
    [
        ({}, 65535 - 1024),
        ({"BITS_STORED": 12, "HIGH_BIT": 11}, 4095 - 1024),
        ({"BITS_STORED": 12, "HIGH_BIT": 11, "PIXEL_REPRESENTATION": 1}, 2047 - 1024),
        ({"BITS_STORED": 12, "HIGH_BIT": 11, "PIXEL_REPRESENTATION": 1, "RESCALE_SLOPE": "-2"}, 4096 - 1024),
        ({"BITS_STORED": 12, "HIGH_BIT": 11, "RESCALE_SLOPE": "-2"}, -1024),
    ],
)
def test_the_highest_value_is_that_of_bits_sign_and_rescale(values: dict[str, Any], highest: int) -> None:
    assert check_pixels(header(values), 1).highest_hu == highest


@pytest.mark.parametrize(
    ("values", "padding", "is_tissue"),
    [
        ({}, None, False),
        ({"PIXEL_PADDING_VALUE": 7}, (7, 7), False),
        ({"PIXEL_PADDING_VALUE": 9, "PIXEL_PADDING_RANGE_LIMIT": 5}, (5, 9), False),
        ({"PIXEL_PADDING_VALUE": 5, "PIXEL_PADDING_RANGE_LIMIT": 0}, (0, 5), False),
        ({"PIXEL_PADDING_VALUE": 124}, (124, 124), False),  # -900 HU
        ({"PIXEL_PADDING_VALUE": 125}, (125, 125), True),
        ({"PIXEL_PADDING_VALUE": 0, "PIXEL_PADDING_RANGE_LIMIT": 125}, (0, 125), True),
        ({"PIXEL_PADDING_VALUE": 4095}, (4095, 4095), True),  # 3071 HU
        ({"PIXEL_PADDING_VALUE": 4096}, (4096, 4096), False),
        ({"PIXEL_PADDING_VALUE": 4095, "PIXEL_PADDING_RANGE_LIMIT": 5000}, (4095, 5000), True),
        ({"PIXEL_PADDING_VALUE": 62, "RESCALE_SLOPE": "2"}, (62, 62), False),  # -900 HU
        ({"PIXEL_PADDING_VALUE": 63, "RESCALE_SLOPE": "2"}, (63, 63), True),
        ({"PIXEL_PADDING_VALUE": 65535}, (65535, 65535), False),
        ({"PIXEL_PADDING_VALUE": 65535, "PIXEL_REPRESENTATION": 1}, (-1, -1), False),
        ({"PIXEL_PADDING_VALUE": 32768, "PIXEL_REPRESENTATION": 1}, (-32768, -32768), False),
        ({"PIXEL_PADDING_VALUE": 32767, "PIXEL_REPRESENTATION": 1}, (32767, 32767), False),
    ],
)
def test_padding_is_a_range_of_stored_values_with_the_sign_of_the_pixels(
    values: dict[str, Any], padding: tuple[int, int] | None, is_tissue: bool
) -> None:
    of = header(values)
    pixels = check_pixels(of, 1)
    assert (pixels.padding, is_tissue_padding(pixels)) == (padding, is_tissue)
    assert list(warnings_for(of, pixels)) == (["series.padding_ambiguous"] if is_tissue else [])


@pytest.mark.parametrize(
    ("values", "syntax", "told"),
    [
        ({"LOSSY_IMAGE_COMPRESSION": "01"}, EXPLICIT, ["series.lossy_compression"]),
        ({"LOSSY_IMAGE_COMPRESSION": "00"}, EXPLICIT, []),
        ({}, LOSSY, ["series.lossy_compression"]),
        ({}, RLE, []),
        ({"RESCALE_TYPE": "us"}, EXPLICIT, ["series.rescale_type"]),
        ({"RESCALE_TYPE": "Hounsfield"}, EXPLICIT, []),
    ],
)
def test_what_a_physicist_should_know_is_told(values: dict[str, Any], syntax: str, told: list[str]) -> None:
    of = header(values, syntax=syntax, pixels=PixelData(100, NEEDED if syntax == EXPLICIT else None))
    assert list(warnings_for(of, check_pixels(of, 1))) == told


def test_the_storage_is_that_of_the_header() -> None:
    pixels = check_pixels(header({"BITS_STORED": 12, "HIGH_BIT": 11, "PIXEL_REPRESENTATION": 1, "RESCALE_SLOPE": "0.5"}), 1)
    assert (pixels.rows, pixels.columns, pixels.bits_stored, pixels.signed) == (4, 5, 12, True)
    assert (pixels.slope, pixels.intercept, pixels.offset, pixels.length, pixels.dataset_offset) == (0.5, -1024, 100, NEEDED, 9)

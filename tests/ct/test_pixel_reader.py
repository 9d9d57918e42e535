"""Stored values of one slice to Hounsfield units, from a file that holds them at some place and nothing else."""

import struct
import subprocess
import zlib
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pytest

from oarlock.ct import pixel_reader
from oarlock.ct.pixel_header import RLE, StoredPixels
from oarlock.ct.pixel_reader import read_thinned, read_volume
from oarlock.dicom import decoding
from oarlock.dicom.decoding import FrameSpec
from oarlock.dicom.elements import BIG_ENDIAN, DEFLATED
from oarlock.errors import UnsupportedPixelData

EXPLICIT, NEAR_LOSSLESS, LOSSLESS = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.4.81", "1.2.840.10008.1.2.4.80"
PLAIN = StoredPixels(
    transfer_syntax=EXPLICIT,
    big_endian=False,
    dataset_offset=0,
    offset=7,
    length=None,
    rows=2,
    columns=3,
    bits_stored=16,
    signed=False,
    slope=1.0,
    intercept=-1024.0,
    padding=None,
)
BEFORE, BEHIND = b"\x01\x02\x03\x04\x05\x06\x07", b"\x09" * 5


def hu_of(folder: Path, stored: Sequence[int], **changes: Any) -> list[int]:
    """The Hounsfield units of a slice of two rows and three columns."""
    pixels = replace(PLAIN, **changes)
    dtype = np.dtype("u2").newbyteorder(">" if pixels.big_endian else "<")
    (folder / "slice").write_bytes(BEFORE + (np.array(stored) & 0xFFFF).astype(dtype).tobytes() + BEHIND)
    volume = read_volume([(folder / "slice", 1, pixels)])
    assert (volume.shape, volume.dtype) == ((1, 2, 3), np.dtype(np.int16))
    return volume.ravel().tolist()


VALUES: dict[str, tuple[list[int], dict[str, Any], list[int]]] = {
    "as they are": ([0, 1, 2, 1024, 1064, 4095], {}, [-1024, -1023, -1022, 0, 40, 3071]),
    "most significant byte first": ([0, 1, 2, 1024, 1064, 4095], {"big_endian": True}, [-1024, -1023, -1022, 0, 40, 3071]),
    "up to the highest": ([0, 1, 2, 3, 4, 65535], {"intercept": -32768.0}, [-32768, -32767, -32766, -32765, -32764, 32767]),
    "over the highest": ([0, 1, 2, 3, 4, 65535], {"intercept": -32767.0}, [-32767, -32766, -32765, -32764, -32763, 32767]),
    "signed, below the lowest": (
        [-32768, -32767, -1, 0, 1, 32767],
        {"signed": True, "intercept": -1.0},
        [-32768, -32768, -2, -1, 0, 32766],
    ),
    "signed, over the highest": (
        [-32768, -32767, -1, 0, 1, 32767],
        {"signed": True, "intercept": 1.0},
        [-32767, -32766, 0, 1, 2, 32767],
    ),
    "an intercept over the highest": (
        [-32768, -40, -10, -3, -2, -1],
        {"signed": True, "intercept": 32768.0},
        [0, 32728, 32758, 32765, 32766, 32767],
    ),
    "an intercept below the lowest": (
        [0, 1, 2, 3, 40000, 65535],
        {"intercept": -32769.0},
        [-32768, -32768, -32767, -32766, 7231, 32766],
    ),
    "an intercept with a fraction": ([0, 1, 2, 3, 4, 5], {"intercept": -10.5}, [-10, -10, -8, -8, -6, -6]),
    "a slope of two": ([0, 1, 2, 3, 4, 40000], {"slope": 2.0}, [-1024, -1022, -1020, -1018, -1016, 32767]),
    "a slope below zero": ([0, 1, 2, 3, 4, 65535], {"slope": -1.0, "intercept": 5.0}, [5, 4, 3, 2, 1, -32768]),
    "twelve bits under others": (
        [0x0000, 0x1001, 0xF002, 0x8FFF, 0x0FFF, 0x0800],
        {"bits_stored": 12},
        [-1024, -1023, -1022, 3071, 3071, 1024],
    ),
    "twelve bits and a sign": (
        [0x0000, 0x1001, 0xF002, 0x8FFF, 0x0800, 0x07FF],
        {"bits_stored": 12, "signed": True, "intercept": 0.0},
        [0, 1, 2, -1, -2048, 2047],
    ),
    "fifteen bits under another": (
        [0x8000, 0x8001, 0x0002, 0xFFFF, 5, 6],
        {"bits_stored": 15},
        [-1024, -1023, -1022, 31743, -1019, -1018],
    ),
    "fifteen bits and a sign": (
        [0x8000, 0x8001, 0x0002, 0x7FFF, 0x4000, 0x3FFF],
        {"bits_stored": 15, "signed": True, "intercept": 0.0},
        [0, 1, 2, -1, -16384, 16383],
    ),
    "padding that is the highest value": ([0, 1, 2, 3, 4, 60], {"padding": (60, 60)}, [-1024, -1023, -1022, -1021, -1020, -1024]),
    "padding that is the lowest value": ([5, 6, 7, 8, 9, 5], {"padding": (5, 5)}, [-1024, -1018, -1017, -1016, -1015, -1024]),
    "a range of padding with its ends": ([5, 6, 7, 8, 9, 10], {"padding": (6, 8)}, [-1019, -1024, -1024, -1024, -1015, -1014]),
    "a range over the values": ([5, 6, 7, 8, 9, 10], {"padding": (9, 99)}, [-1019, -1018, -1017, -1016, -1024, -1024]),
    "padding that is tissue": ([5, 6, 7, 8, 9, 1064], {"padding": (1064, 1064)}, [-1019, -1018, -1017, -1016, -1015, 40]),
}


@pytest.mark.parametrize("what", VALUES)
def test_stored_values_become_hounsfield_units_in_16_bits(what: str, tmp_path: Path) -> None:
    """Slope times value and intercept, to the nearest whole number, a half to the even one, and cut to what 16 bits hold."""
    stored, changes, expected = VALUES[what]
    assert hu_of(tmp_path, stored, **changes) == expected


def test_a_deflated_slice_is_read_from_its_place_in_the_inflated_data_set(tmp_path: Path) -> None:
    """Random bytes, which deflating makes larger than they are."""
    random = np.random.default_rng(3)
    stored = random.integers(0, 65_536, (40, 50)).astype("<u2")
    data_set = random.bytes(2_000) + stored.tobytes() + random.bytes(9_000)
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    deflated = deflater.compress(data_set) + deflater.flush()
    (tmp_path / "slice").write_bytes(BEFORE + deflated)
    pixels = replace(PLAIN, transfer_syntax=DEFLATED, dataset_offset=7, offset=2_000, rows=40, columns=50)
    expected = np.minimum(stored.astype(np.int32) - 1024, 32_767)
    np.testing.assert_array_equal(read_volume([(tmp_path / "slice", 1, pixels)])[0], expected)


def test_a_file_that_ends_with_its_last_pixel_is_whole_and_one_that_ends_before_is_named(tmp_path: Path) -> None:
    content = BEFORE + bytes(12)
    (tmp_path / "slice").write_bytes(content)
    assert read_volume([(tmp_path / "slice", 4, PLAIN)]).tolist() == [[[-1024] * 3] * 2]
    (tmp_path / "slice").write_bytes(content[:-1])
    with pytest.raises(UnsupportedPixelData, match="file 4 of the upload cannot be used: it is cut off: the file ends before"):
        read_volume([(tmp_path / "slice", 4, PLAIN)])
    with pytest.raises(UnsupportedPixelData, match="file 5 of the upload cannot be used: the file cannot be opened"):
        read_volume([(tmp_path / "none", 5, PLAIN)])


@pytest.mark.parametrize("step", [1, 2, 3])
def test_thinned_slices_are_every_so_manieth_row_and_column_of_whole_ones(step: int, tmp_path: Path) -> None:
    slices = []
    for z, syntax in enumerate([EXPLICIT, BIG_ENDIAN, ""]):
        pixels = replace(PLAIN, transfer_syntax=syntax, offset=7 + z, rows=5, columns=7, intercept=float(z))
        (tmp_path / str(z)).write_bytes(bytes(7 + z) + np.arange(1000 * z, 1000 * z + 35, dtype="<u2").tobytes())
        slices.append((tmp_path / str(z), z, pixels))
    whole = read_volume(slices)
    np.testing.assert_array_equal(whole, [np.arange(35).reshape(5, 7) + 1001 * z for z in range(3)])
    np.testing.assert_array_equal(read_thinned(slices, step), whole[:, ::step, ::step])
    np.testing.assert_array_equal(read_thinned(slices[1:2], step), whole[1:2, ::step, ::step])


class Decoded:
    """A decoder that has decoded everything, and keeps what it was asked."""

    asked: list[tuple[bytes, FrameSpec]]
    stored: npt.NDArray[Any]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def decode(self, content: bytes, frame: FrameSpec) -> npt.NDArray[Any]:
        self.asked.append((content, frame))
        return self.stored


LOSSY: dict[str, tuple[dict[str, Any], list[int], list[int]]] = {
    "below air": ({"padding": (-2000, -2000)}, [-2000, -1500, -1, 0, 1, 1064], [-1024, -1024, -1024, -1024, -1023, 40]),
    "up to air": ({"padding": (-2000, -1)}, [-2001, -1500, -1, 0, 1, 1064], [-1024, -1024, -1024, -1024, -1023, 40]),
    "air itself": ({"padding": (0, 0)}, [-2001, -1500, -1, 0, 1, 1064], [-3025, -2524, -1025, -1024, -1023, 40]),
    "over it": ({"padding": (-2000, 1)}, [-2001, -1500, -1, 0, 1, 1064], [-3025, -1024, -1024, -1024, -1024, 40]),
    "a slope": ({"padding": (-2000, -300), "slope": 2.0}, [-301, -299, -1, 0, 1, 532], [-1024, -1024, -1024, -1024, -1022, 40]),
    "half a slope": (
        {"padding": (-2000, -40), "slope": 0.5, "intercept": -1000.0},  # up to -1020 HU
        [-2002, -2000, -40, -38, 0, 2080],
        [-2001, -1024, -1024, -1019, -1000, 40],
    ),
    "none": ({"padding": None}, [-2001, -1500, -1, 0, 1, 1064], [-3025, -2524, -1025, -1024, -1023, 40]),
    "without loss": (
        {"padding": (-2000, -2000), "transfer_syntax": LOSSLESS},
        [-2000, -1500, -1, 0, 1, 1064],
        [-1024, -2524, -1025, -1024, -1023, 40],
    ),
}


@pytest.mark.parametrize("what", LOSSY)
def test_where_compression_with_loss_blurred_padding_below_air_nothing_lies_below_air(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes, stored, expected = LOSSY[what]
    pixels = replace(replace(PLAIN, transfer_syntax=NEAR_LOSSLESS, signed=True, fragments=((3, 4), (9, 2))), **changes)
    (tmp_path / "slice").write_bytes(b"...ABCD..EF...")
    decoder = Decoded()
    decoder.asked, decoder.stored = [], np.array(stored, dtype=np.int16).reshape(2, 3)
    monkeypatch.setattr(pixel_reader, "Decoder", lambda: decoder)
    monkeypatch.setattr(pixel_reader, "whole_codestream", lambda content, rows, columns: content + bytes([rows, columns]))
    assert read_volume([(tmp_path / "slice", 1, pixels)]).ravel().tolist() == expected
    assert decoder.asked == [(b"ABCDEF\x02\x03", FrameSpec(pixels.transfer_syntax, 2, 3, 16, True))]


def test_runs_of_bytes_are_decoded_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "slice").write_bytes(b"...ABCD")
    decoder = Decoded()
    decoder.asked, decoder.stored = [], np.arange(6, dtype=np.uint16).reshape(2, 3)
    monkeypatch.setattr(pixel_reader, "Decoder", lambda: decoder)
    read_volume([(tmp_path / "slice", 1, replace(PLAIN, transfer_syntax=RLE, fragments=((3, 4),)))])
    assert decoder.asked == [(b"ABCD", FrameSpec(RLE, 2, 3, 16, False))]


@pytest.mark.parametrize(("kept", "good"), [(68, True), (5, False)])
def test_the_child_of_the_decoder_has_ended_with_the_series_also_where_a_slice_is_unusable(
    kept: int, good: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The true decoder, which starts a process for the first compressed slice; a slice cut to five bytes is unusable."""
    content = (struct.pack("<16I", 2, 64, 66, *[0] * 13) + b"\xfb\x00\xfb\x07")[:kept]  # six high bytes of 0, six low ones of 7
    (tmp_path / "slice").write_bytes(content)
    slices = [(tmp_path / "slice", 1, replace(PLAIN, transfer_syntax=RLE, fragments=((0, len(content)),)))]
    truly_start = decoding._start
    children: list[subprocess.Popen[bytes]] = []

    def start() -> "subprocess.Popen[bytes]":
        children.append(truly_start())
        return children[0]

    monkeypatch.setattr(decoding, "_start", start)
    monkeypatch.setattr(pixel_reader, "Decoder", decoding.Decoder)
    with nullcontext() if good else pytest.raises(UnsupportedPixelData):
        assert read_volume(slices).tolist() == [[[7 - 1024] * 3] * 2]
    assert [child.returncode for child in children] == [0]

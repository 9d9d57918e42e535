"""Each limit that ``docs/dicom.md`` states for a CT has one case just inside and one just outside."""

import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataelem import DataElement

from oarlock import errors
from oarlock.ct import series, sorting
from oarlock.ct.pixel_header import MAX_MATRIX, check_pixels
from oarlock.ct.series import check_headers, read_ct_series
from oarlock.ct.slice_spacing import Plane, to_grid
from oarlock.ct.writer import write_ct_series
from oarlock.dicom import elements, sequences
from oarlock.dicom.elements import Header, PixelData, read_elements
from oarlock.dicom.sequences import read_sequences
from oarlock.dicom.tags import Tag
from oarlock.dicom.unusable import Unusable
from oarlock.geometry.grid import Grid

COUNT = 9


def stack(zs: Any = None, **values: Any) -> list[Plane]:
    """Axial planes of 60 × 50 mm, 2.5 mm apart."""
    zs = 2.5 * np.arange(COUNT) if zs is None else np.asarray(zs, dtype=float)
    usual = {"cosines": (1.0, 0, 0, 0, 1.0, 0), "pixel_spacing_mm": (1.0, 1.0), "rows": 61, "columns": 51, "thickness_mm": None}
    return [Plane(origin_mm=(3.0, 5.0, float(z)), **(usual | values)) for z in zs]


def with_last_distance(distance_mm: float, spacing_mm: float = 2.5) -> list[Plane]:
    zs = spacing_mm * np.arange(COUNT)
    return stack([*zs, zs[-1] + distance_mm])


def moved(dx_mm: float) -> list[Plane]:
    """Slice 5 of 9 to one side. The line through all of them follows it by a ninth, as it is in the middle."""
    planes = stack()
    x, y, z = planes[4].origin_mm
    planes[4] = replace(planes[4], origin_mm=(x + dx_mm, y, z))
    return planes


def leaning(degrees: float) -> list[Plane]:
    return [replace(p, origin_mm=(3.0, 5.0 + p.origin_mm[2] * np.tan(np.radians(degrees)), p.origin_mm[2])) for p in stack()]


def tilted(degrees: float) -> tuple[float, ...]:
    a = np.radians(degrees)
    return (1.0, 0, 0, 0, float(np.cos(a)), float(np.sin(a)))


def turned_in_one(corner_mm: float) -> list[Plane]:
    """One slice whose columns lean so that its last voxel, 60 mm down, is that far off the plane of the others."""
    planes = stack()
    planes[3] = replace(planes[3], cosines=tilted(float(np.degrees(np.arcsin(corner_mm / 60)))))
    return planes


REFUSED = {
    "gap of 10 % and no more": (with_last_distance(2.749), with_last_distance(2.751), errors.MissingSlices),
    "gap of 0.1 mm in thin slices": (with_last_distance(0.699, 0.6), with_last_distance(0.701, 0.6), errors.MissingSlices),
    "gap of 40 % in the thinnest slices": (with_last_distance(0.279, 0.2), with_last_distance(0.281, 0.2), errors.MissingSlices),
    "10 % too near": (with_last_distance(2.251), with_last_distance(2.249), errors.InconsistentGeometry),
    "0.01 mm at one position": (stack([0, 0.0101, 0.02021]), stack([0, 0.0099, 0.0198]), errors.DuplicatePosition),
    "0.1 mm off the line": (moved(0.1 * 9 / 8 - 0.001), moved(0.1 * 9 / 8 + 0.001), errors.InconsistentGeometry),
    "0.009 mm at the far corner": (turned_in_one(0.00898), turned_in_one(0.00902), errors.InconsistentGeometry),
    "a tilt of 30°": (stack(cosines=tilted(29.99)), stack(cosines=tilted(30.01)), errors.OrientationUnsupported),
    "a lean of 30°": (leaning(29.99), leaning(30.01), errors.OrientationUnsupported),
    "three slices": (stack([0, 2, 4]), stack([0, 2]), errors.TooFewSlices),
}


@pytest.mark.parametrize("limit", REFUSED)
def test_a_stack_is_accepted_up_to_the_limit_and_refused_beyond(limit: str) -> None:
    inside, outside, error = REFUSED[limit]
    to_grid(inside)
    with pytest.raises(error):
        to_grid(outside)


WARNED = {
    "0.001 mm of uneven orientation": (turned_in_one(0.0009), turned_in_one(0.0011), "series.uneven_orientation"),
    "0.009 mm of rounding": (
        stack(cosines=(1.0, 0, 0, 0, 1.0 - 0.00014, 0)),
        stack(cosines=(1.0, 0, 0, 0, 1.0 - 0.00016, 0)),
        "series.rounded_orientation",
    ),
    "0.05° of tilt": (stack(cosines=tilted(0.049)), stack(cosines=tilted(0.051)), "series.tilted"),
    "0.05° of lean": (leaning(0.049), leaning(0.051), "series.sheared"),
    "800 mm": (stack(np.linspace(0, 799.9, 301)), stack(np.linspace(0, 800.1, 301)), "series.long_scan"),
}


@pytest.mark.parametrize("limit", WARNED)
def test_a_stack_is_silent_up_to_the_limit_and_warned_of_beyond(limit: str) -> None:
    inside, outside, code = WARNED[limit]
    assert code not in [notice.code for notice in to_grid(inside)[2]]
    assert code in [notice.code for notice in to_grid(outside)[2]]


# ── files ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def write(folder: Path, **overrides: Any) -> list[Path]:
    origins = np.array([[0.0, 0.0, 2.0 * z] for z in range(4)])
    grid = Grid(6, 5, origins, np.array([1.0, 0, 0]), np.array([0, 1.0, 0]), 1.0, 1.0)
    return write_ct_series(folder, np.zeros(grid.shape, dtype=np.int16), grid, overrides=overrides)


def edit(path: Path, change: Callable[[pydicom.Dataset], object]) -> None:
    dataset = pydicom.dcmread(path)
    change(dataset)
    dataset.save_as(path)


@pytest.mark.parametrize(
    ("keyword", "inside", "outside"),
    [
        ("ImageOrientationPatient", [1.000199, 0, 0, 0, 1, 0], [1.000201, 0, 0, 0, 1, 0]),
        ("ImageOrientationPatient", [1, 0, 0, 0.000199, 1, 0], [1, 0, 0, 0.000201, 1, 0]),
        ("PixelSpacing", [0.01, 0.01], [0.0099, 0.01]),
        ("PixelSpacing", [20, 20], [20.1, 20]),
    ],
)
def test_a_plane_is_accepted_up_to_the_limit(keyword: str, inside: list[float], outside: list[float], tmp_path: Path) -> None:
    check_headers(write(tmp_path / "inside", **{keyword: inside}))
    with pytest.raises(errors.GeometryMissing, match=keyword):
        check_headers(write(tmp_path / "outside", **{keyword: outside}))


def test_a_stated_gantry_tilt_counts_from_half_a_degree(tmp_path: Path) -> None:
    assert check_headers(write(tmp_path / "inside", GantryDetectorTilt=0.49)).warnings == ()
    (warning,) = check_headers(write(tmp_path / "outside", GantryDetectorTilt=0.5)).warnings
    assert warning.code == "series.tilt_contradicted"


def test_a_series_has_as_many_slices_as_the_setting_and_no_more(tmp_path: Path) -> None:
    files = write(tmp_path)
    check_headers(files, max_slices=4)
    with pytest.raises(errors.TooManySlices, match="4 slices; this server takes at most 3"):
        check_headers(files, max_slices=3)


def test_a_series_has_two_to_the_thirtieth_voxels_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert series.MAX_VOXELS == 2**30
    files = write(tmp_path)
    monkeypatch.setattr(series, "MAX_VOXELS", 4 * 6 * 5)
    check_headers(files)
    monkeypatch.setattr(series, "MAX_VOXELS", 4 * 6 * 5 - 1)
    with pytest.raises(errors.SeriesTooLarge):
        check_headers(files)


def claiming(tmp_path: Path, **values: int) -> Header:
    """A header that claims sizes, of a file that is as large as it says; nothing of it is read."""
    numbers = {"SAMPLES_PER_PIXEL": 1, "BITS_ALLOCATED": 16, "BITS_STORED": 16, "HIGH_BIT": 15, "PIXEL_REPRESENTATION": 1}
    numbers |= {"ROWS": 2, "COLUMNS": 2} | values
    texts = {"PHOTOMETRIC_INTERPRETATION": "MONOCHROME2", "RESCALE_SLOPE": "1", "RESCALE_INTERCEPT": "0"}
    found = {int(Tag[name]): struct.pack("<H", value) for name, value in numbers.items()}
    found |= {int(Tag[name]): text.encode() for name, text in texts.items()}
    size = 2 * numbers["ROWS"] * numbers["COLUMNS"]
    pixels = PixelData(0, size)
    return Header(
        tmp_path, size, "1.2.840.10008.1.2.1", big_endian=False, dataset_offset=0, values=found, pixel_data=pixels, visited=9
    )


@pytest.mark.parametrize(
    ("inside", "outside", "reason"),
    [
        ({"ROWS": MAX_MATRIX}, {"ROWS": MAX_MATRIX + 1}, "claims 4097 × 2 pixels"),
        ({"COLUMNS": 4_096}, {"COLUMNS": 4_097}, "claims 2 × 4097 pixels"),
        ({"ROWS": 2}, {"ROWS": 1}, "claims 1 × 2 pixels"),
        ({"COLUMNS": 2}, {"COLUMNS": 1}, "claims 2 × 1 pixels"),
        ({"BITS_STORED": 12, "HIGH_BIT": 11}, {"BITS_STORED": 11, "HIGH_BIT": 10}, "11 bits are stored"),
        ({"BITS_STORED": 16}, {"BITS_STORED": 17, "HIGH_BIT": 16}, "17 bits are stored"),
    ],
)
def test_a_matrix_is_accepted_up_to_the_limit(
    inside: dict[str, int], outside: dict[str, int], reason: str, tmp_path: Path
) -> None:
    check_pixels(claiming(tmp_path, **inside), 1)
    with pytest.raises(errors.UnsupportedPixelData, match=reason):
        check_pixels(claiming(tmp_path, **outside), 1)


@pytest.mark.parametrize(("padding_hu", "is_tissue"), [(-901, False), (-899, True), (3_071, True), (3_072, False)])
def test_padding_from_900_below_to_3071_hu_could_be_tissue(padding_hu: int, is_tissue: bool, tmp_path: Path) -> None:
    files = write(tmp_path)
    for path in files:
        edit(path, lambda dataset: dataset.add(DataElement(0x00280120, "SS", padding_hu + 1024)))
    header = check_headers(files)
    assert [warning.code for warning in header.warnings] == (["series.padding_ambiguous"] if is_tissue else [])


@pytest.mark.parametrize(("padding_hu", "read_hu"), [(-901, -1024), (-899, -899)])
def test_padding_becomes_air_just_below_and_stays_just_above_900_hu(padding_hu: int, read_hu: int, tmp_path: Path) -> None:
    files = write(tmp_path)
    for path in files:

        def pad(dataset: pydicom.Dataset) -> None:
            dataset.PixelData = np.full(30, padding_hu + 1024, dtype="<i2").tobytes()
            dataset.add(DataElement(0x00280120, "SS", padding_hu + 1024))

        edit(path, pad)
    assert set(read_ct_series(check_headers(files)).hu.ravel()) == {read_hu}


# ── hostile files ─────────────────────────────────────────────────────────────────────────────────────────────────────

START = b"\x08\x00\x05\x00CS\x00\x00"
SEQUENCE = struct.pack("<HH2s2xI", 8, 0x1140, b"SQ", 0xFFFFFFFF)
ITEM = struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
ENDS = struct.pack("<HHIHHI", 0xFFFE, 0xE00D, 0, 0xFFFE, 0xE0DD, 0)


def read(path: Path, content: bytes) -> Header | None:
    path.write_bytes(content)
    return read_elements(path, (Tag.STUDY_DESCRIPTION,), keep=lambda _: True)


def test_a_header_is_32_levels_deep_and_no_more(tmp_path: Path) -> None:
    assert elements.MAX_HEADER_DEPTH == 32
    read(tmp_path / "a", START + (SEQUENCE + ITEM) * 32 + ENDS * 32)
    with pytest.raises(Unusable, match="deeper than 32"):
        read(tmp_path / "a", START + (SEQUENCE + ITEM) * 33 + ENDS * 33)


def test_a_value_has_64_kilobytes_and_no_more(tmp_path: Path) -> None:
    assert elements.MAX_VALUE_BYTES == 65_536
    implicit = struct.pack("<HHI", 8, 5, 0)
    read(tmp_path / "a", implicit + struct.pack("<HHI", 8, 0x1030, 65_536) + b" " * 65_536)
    with pytest.raises(Unusable, match="longer than its kind"):
        read(tmp_path / "a", implicit + struct.pack("<HHI", 8, 0x1030, 65_538) + b" " * 65_538)


def test_a_header_has_as_many_elements_as_the_limit_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert elements.MAX_HEADER_ELEMENTS == 300_000
    monkeypatch.setattr(elements, "MAX_HEADER_ELEMENTS", 10)
    more = b"\x08\x00\x08\x00CS\x00\x00"
    read(tmp_path / "a", START + more * 9)
    with pytest.raises(Unusable, match="more than 10 elements"):
        read(tmp_path / "a", START + more * 10)


def test_an_upload_has_as_many_elements_as_the_limit_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert sorting.MAX_UPLOAD_ELEMENTS == 1_500_000
    files = write(tmp_path)
    header = read_elements(files[0], series.WANTED, keep=lambda _: True)
    assert header is not None
    monkeypatch.setattr(sorting, "MAX_UPLOAD_ELEMENTS", 4 * header.visited)
    check_headers(files)
    monkeypatch.setattr(sorting, "MAX_UPLOAD_ELEMENTS", 4 * header.visited - 1)
    with pytest.raises(errors.InstanceUnreadable):
        check_headers(files)


def test_a_data_set_is_16_levels_deep_and_no_more(tmp_path: Path) -> None:
    assert (sequences.MAX_DATASET_DEPTH, sequences.MAX_DATASET_ELEMENTS) == (16, 1_000_000)
    path = tmp_path / "a"
    path.write_bytes(START + (SEQUENCE + ITEM) * 16 + ENDS * 16)
    read_sequences(path, sop_class="")
    path.write_bytes(START + (SEQUENCE + ITEM) * 17 + ENDS * 17)
    with pytest.raises(Unusable, match="deeper than 16"):
        read_sequences(path, sop_class="")


def test_a_data_set_has_as_many_elements_as_the_limit_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sequences, "MAX_DATASET_ELEMENTS", 10)
    path = tmp_path / "a"
    path.write_bytes(START * 10)
    read_sequences(path, sop_class="")
    path.write_bytes(START * 11)
    with pytest.raises(Unusable, match="more than 10 elements"):
        read_sequences(path, sop_class="")

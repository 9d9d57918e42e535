"""Any series that a scanner may send: its contours lie in the planes of its own slices and enclose the voxels that were meant."""

import random
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from oarlock import errors
from oarlock.arrays import FloatArray
from oarlock.ct.series import check_headers
from oarlock.ct.slice_spacing import Plane, to_grid
from oarlock.ct.writer import write_ct_series
from oarlock.geometry.grid import Grid
from oarlock.geometry.masks import OARMasks
from oarlock.organs.catalogue import BY_NAME
from oarlock.rtstruct.writer import write_rtstruct
from tests.fixtures.organs import AUTHORSHIP
from tests.fixtures.orientations import PATIENT_POSITIONS
from tests.fixtures.readers import assert_same, read_at_voxel_centres

ORGANS = [BY_NAME[name] for name in ("Brain", "Lens_L")]
MOST_DEGREES = 30.0
Thing = TypeVar("Thing")


@dataclass(frozen=True)
class Scan:
    """What a scanner did: how the patient lies, how the slices are turned, stacked and spaced.

    :param tilt: of the slices about the patient's left-right axis, and ``turn`` within the axial plane, in degrees.
    :param along_table: whether the slices follow each other along the patient's z axis, as behind a tilted gantry, or along
        their normal.
    :param thicknesses_mm: of each slice along that line; slices touch.
    """

    position: str
    tilt: float
    turn: float
    along_table: bool
    thicknesses_mm: tuple[float, ...]
    size: tuple[int, int]
    spacing_mm: tuple[float, float]
    origin_mm: tuple[float, float, float]

    @property
    def gaps_mm(self) -> FloatArray:
        """Distance from the middle of each slice to that of the next one, along that line."""
        t = np.array(self.thicknesses_mm)
        return np.asarray((t[:-1] + t[1:]) / 2)

    def grid(self) -> Grid:
        row, column = (self.rotation @ np.array(direction, dtype=np.float64) for direction in PATIENT_POSITIONS[self.position])
        normal = np.cross(row, column)
        step = np.array([0, 0, np.sign(normal[2])]) if self.along_table else normal
        origins = self.origin_mm + np.append(0.0, np.cumsum(self.gaps_mm))[:, None] * step
        return Grid(*self.size, origins, row, column, *self.spacing_mm)

    @property
    def rotation(self) -> FloatArray:
        a, b = np.radians((self.tilt, self.turn))
        about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
        about_z = np.array([[np.cos(b), -np.sin(b), 0], [np.sin(b), np.cos(b), 0], [0, 0, 1]])
        return np.asarray(about_z @ about_x)

    @property
    def degrees(self) -> float:
        """The largest angle between an axis of the slices and the nearest axis of the patient."""
        return float(np.degrees(np.arccos(np.abs(self.rotation).max(axis=0).min())))

    def planes(self) -> list[Plane]:
        grid = self.grid()
        cosines = (*grid.row_direction, *grid.column_direction)
        across = grid.slice_spacings_mm[0] / self.gaps_mm[0]
        thicknesses = [across * thickness for thickness in self.thicknesses_mm]
        return [
            Plane(tuple(origin), cosines, self.spacing_mm, *self.size, thickness)
            for origin, thickness in zip(grid.origins_mm, thicknesses, strict=True)
        ]

    def write(self, folder: Path) -> list[Path]:
        grid = self.grid()
        files = write_ct_series(folder, np.zeros(grid.shape, dtype=np.int16), grid)
        for file, plane in zip(files, self.planes(), strict=True):
            ct = pydicom.dcmread(file)
            ct.SliceThickness = f"{plane.thickness_mm:.6f}"
            ct.save_as(file)
        return files


EVEN = st.tuples(st.integers(3, 6), st.floats(0.4, 6)).map(lambda drawn: (drawn[1],) * drawn[0])
SLABS = st.tuples(st.integers(2, 3), st.integers(2, 3), st.floats(0.5, 5), st.floats(0.5, 5)).map(
    lambda drawn: (drawn[2],) * drawn[0] + (drawn[3],) * drawn[1]
)
SCANS = st.builds(
    Scan,
    position=st.sampled_from(list(PATIENT_POSITIONS)),
    tilt=st.sampled_from([0.0, 0.0]) | st.floats(-29.9, 29.9),
    turn=st.sampled_from([0.0, 0.0]) | st.floats(-29.9, 29.9),
    along_table=st.booleans(),
    thicknesses_mm=EVEN | SLABS,
    size=st.tuples(st.integers(2, 17), st.integers(2, 19)),
    spacing_mm=st.tuples(st.floats(0.3, 3), st.floats(0.3, 3)),
    origin_mm=st.tuples(*[st.floats(-900, 900)] * 3),
)


def draw_masks(grid: Grid, seed: int) -> OARMasks:
    """Voxels at random: single ones, holes, islands, diagonals, along every border, on the first slice and on the last."""
    masks = OARMasks.empty(ORGANS, grid.shape)
    rng = np.random.default_rng(seed)
    for organ, share in zip(ORGANS, (0.6, 0.05), strict=True):
        masks.bits[rng.random(grid.shape) < share] |= masks.bit(organ)
    return masks


def shuffled(things: list[Thing], seed: int) -> list[Thing]:
    return random.Random(seed).sample(things, len(things))


@pytest.mark.slow
@given(scan=SCANS, seed=st.integers(0, 2**16))
@settings(max_examples=settings.default.max_examples * 3 // 10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_every_voxel_of_any_scan_comes_back_from_contours_in_the_planes_of_their_own_slices(scan: Scan, seed: int) -> None:
    """Judged by PS3.3 Equation C.7.6.2.1-1 with the header of each single slice; a point 0.01 mm off its plane fails."""
    assume(scan.degrees < MOST_DEGREES - 0.01)
    with tempfile.TemporaryDirectory() as folder:
        files = scan.write(Path(folder, "ct"))
        header = check_headers(shuffled(files, seed))
        assert [instance.path for instance in header.instances] == files
        masks = draw_masks(header.grid, seed)
        write_rtstruct(Path(folder, "rtstruct.dcm"), masks, header, AUTHORSHIP)
        assert_same(read_at_voxel_centres(Path(folder, "rtstruct.dcm"), files), masks)


@given(scan=SCANS, seed=st.integers(0, 2**16))
def test_any_scan_within_30_degrees_keeps_every_position_that_it_states(scan: Scan, seed: int) -> None:
    assume(scan.degrees < MOST_DEGREES - 0.01)
    planes = scan.planes()
    grid, _, _ = to_grid(shuffled(planes, seed))
    assert np.array_equal(grid.origins_mm, [plane.origin_mm for plane in planes])


@given(scan=SCANS, seed=st.integers(0, 2**16), degrees=st.floats(30.1, 60))
def test_a_scan_that_is_turned_by_more_than_30_degrees_is_refused(scan: Scan, seed: int, degrees: float) -> None:
    turned = replace(scan, tilt=degrees if seed % 2 else -degrees, along_table=False)
    with pytest.raises(errors.OrientationUnsupported):
        to_grid(shuffled(turned.planes(), seed))


@given(scan=SCANS, seed=st.integers(0, 2**16), what=st.data())
def test_a_scan_without_one_of_its_slices_is_refused(scan: Scan, seed: int, what: st.DataObject) -> None:
    """Also where two slabs meet, unless the slices that are left are as good as evenly spaced."""
    assume(len(scan.gaps_mm) >= 3 and scan.degrees < MOST_DEGREES - 0.01)
    missing = what.draw(st.integers(1, len(scan.gaps_mm) - 1))
    assume(scan.thicknesses_mm[missing] > 0.12 * max(scan.thicknesses_mm) + 0.12)
    planes = scan.planes()
    left = np.diff(np.delete(np.append(0, np.cumsum(scan.gaps_mm)), missing))
    assume(np.ptp(left) > 0.25 * left.max() + 0.25)
    del planes[missing]
    with pytest.raises((errors.MissingSlices, errors.InconsistentGeometry)):
        to_grid(shuffled(planes, seed))


@given(scan=SCANS, seed=st.integers(0, 2**16), shift_mm=st.floats(0.5, 50), what=st.data())
def test_a_scan_with_one_slice_moved_sideways_is_refused(scan: Scan, seed: int, shift_mm: float, what: st.DataObject) -> None:
    """Another field of view, or a patient who moved: the slice would be exact, but the stack is no picture of one patient."""
    assume(len(scan.gaps_mm) >= 3 and scan.degrees < MOST_DEGREES - 0.01)
    planes = scan.planes()
    z = what.draw(st.integers(1, len(planes) - 2))
    x, y, height = np.array(planes[z].origin_mm) + shift_mm * np.array(planes[z].cosines[:3])
    planes[z] = replace(planes[z], origin_mm=(x, y, height))
    with pytest.raises(errors.InconsistentGeometry, match="off the line"):
        to_grid(shuffled(planes, seed))

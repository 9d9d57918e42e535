"""A head and neck phantom whose contours are known.

As a scanner with any grid would see it. Nothing of it is a patient's.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pydicom
import scipy.ndimage

from oarlock.arrays import FloatArray, Int16Array, Mask
from oarlock.ct.series import check_headers
from oarlock.ct.writer import write_ct_series
from oarlock.facts import ModelFacts
from oarlock.geometry.grid import Grid
from oarlock.geometry.masks import Box, OARMasks
from oarlock.organs.catalogue import BY_NAME, OARS
from oarlock.phantom.anatomy import AIR_HU, FilledSolid, couch, head_and_neck_anatomy
from oarlock.phantom.solids import Points, Solid
from oarlock.rtstruct.writer import Authorship, write_rtstruct

_TOP_MM: Final = 121.0
_MIDDLE_MM: Final = (0.0, 22.0)
_ORIGIN_MM: Final = np.array([7.3, -184.6, -431.7])
_TURN_DEGREES: Final = 5.0
_NECK_MM: Final = (-165.0, -85.0)
_LEAN: Final = 0.03
_BLUR_MM: Final = (1.1, 1.0, 1.0)
_NOISE_HU: Final = 9.0
_SLAB_VOXELS: Final = 2_000_000
_LEVELS: Final = 17
_MARGIN_MM: Final = 2.0

REFERENCE_NAME: Final = "reference-rtstruct.dcm"

_CREATED_AT: Final = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@dataclass(frozen=True, eq=False)
class Phantom:
    """A series whose contours are known.

    :param hu: (z, y, x) Hounsfield units.
    :param masks: all 21 OARs, sampled at voxel centres; they overlap as in anatomy (cord in canal, lens in eye).
    """

    hu: Int16Array
    grid: Grid
    masks: OARMasks


def head_and_neck(
    *,
    shape: tuple[int, int, int] = (127, 240, 256),
    spacing_mm: tuple[float, float, float] = (3.0, 1.953125, 1.953125),
    seed: int = 0,
) -> Phantom:
    """The phantom on an axial head-first supine grid.

    The grid begins above the head and reaches down as far as it has slices.

    The head is turned and leans to one side, and the two sides differ, so that a flip cannot go unnoticed.

    :param shape, spacing_mm: (z, y, x); the default holds the body from the crown to the upper chest.
    :param seed: of the noise.
    """
    slices, rows, columns = shape
    dz, dy, dx = spacing_mm
    corner = _MIDDLE_MM[0] - dx * (columns - 1) / 2, _MIDDLE_MM[1] - dy * (rows - 1) / 2, _TOP_MM - dz * (slices - 1)
    origins = _ORIGIN_MM + np.array(corner) + np.arange(slices)[:, None] * np.array([0.0, 0.0, dz])
    grid = Grid(
        rows=rows,
        columns=columns,
        origins_mm=origins,
        row_direction=np.array([1.0, 0.0, 0.0]),
        column_direction=np.array([0.0, 1.0, 0.0]),
        row_spacing_mm=dy,
        column_spacing_mm=dx,
    )
    return head_and_neck_on(grid, seed=seed)


def head_and_neck_on(grid: Grid, *, seed: int = 0) -> Phantom:
    """The phantom as a scanner with this grid would see it.

    The grid may have any spacing, orientation and patient position.
    """
    tissues, organs = head_and_neck_anatomy()
    volume = np.full(grid.shape, AIR_HU, dtype=np.float32)
    _paint(volume, couch(), grid, _COUCH)
    _paint(volume, tissues, grid, _BODY)
    masks = OARMasks.empty(OARS, grid.shape)
    for name, organ in organs.items():
        for box, mask in _sample(organ, grid, _BODY):
            masks.bits[box] |= np.where(mask, masks.bit(BY_NAME[name]), np.uint32(0))
    return Phantom(_scan(volume, grid, seed), grid, masks)


@dataclass(frozen=True)
class _Pose:
    """How a thing lies in the scanner: from its own coordinates to the patient's, and back."""

    to_patient: Callable[[Points], Points]
    to_own: Callable[[Points], Points]


def _paint(volume: npt.NDArray[np.float32], tissues: Sequence[FilledSolid], grid: Grid, pose: _Pose) -> None:
    for tissue in tissues:
        for box, mask in _sample(tissue.solid, grid, pose):
            volume[box][mask] = tissue.hu


def write_phantom(folder: Path, phantom: Phantom | None = None, *, seed: str = "phantom") -> tuple[list[Path], Path]:
    """Write the phantom's CT series and an RTSTRUCT of its contours.

    Into one folder.

    :param phantom: the head and neck on its own grid if it is left out.
    :param seed: of the UIDs and file names.
    :returns: the CT files by slice, and the RTSTRUCT.
    """
    phantom = phantom or head_and_neck()
    images = write_ct_series(folder, phantom.hu, phantom.grid, seed=seed)
    reference = folder / REFERENCE_NAME
    digest = hashlib.sha256(phantom.masks.bits.tobytes()).hexdigest()
    authorship = Authorship(f"phantom {seed}", _CREATED_AT, ModelFacts("phantom, analytic", "1", digest))
    write_rtstruct(reference, phantom.masks, check_headers(images), authorship)
    _relabel(reference)
    return images, reference


def _relabel(path: Path) -> None:
    """Say in the file that its contours are the phantom's own: no network has drawn them."""
    dataset = pydicom.dcmread(path)
    dataset.StructureSetLabel = "PHANTOM"
    dataset.SeriesDescription = "PHANTOM, known contours"
    dataset.StructureSetDescription = "Contours of the solids that the phantom is made of."
    dataset.save_as(path)


def _scan(volume: npt.NDArray[np.float32], grid: Grid, seed: int) -> Int16Array:
    """What a scanner makes of exact tissue: a little blur, a little noise, whole numbers."""
    blur = [blur_mm / spacing for blur_mm, spacing in zip(_BLUR_MM, grid.spacing_mm, strict=True)]
    blurred = scipy.ndimage.gaussian_filter(volume, blur, mode="nearest", truncate=3)
    blurred += np.random.default_rng(seed).standard_normal(grid.shape, dtype=np.float32) * np.float32(_NOISE_HU)
    return np.clip(np.rint(blurred), -1024, 3071).astype(np.int16)


def _sample(solid: Solid, grid: Grid, pose: _Pose) -> Iterator[tuple[Box, Mask]]:
    """Which voxel centres lie in a solid, slab by slab within its box."""
    box = _box_of(solid, grid, pose)
    if box is None:
        return
    rows, columns = box[1], box[2]
    step = max(1, _SLAB_VOXELS // ((rows.stop - rows.start) * (columns.stop - columns.start)))
    for start in range(box[0].start, box[0].stop, step):
        part = slice(start, min(start + step, box[0].stop)), rows, columns
        points = pose.to_own(_centres(grid, part))
        yield part, np.broadcast_to(solid.holds(points), tuple(s.stop - s.start for s in part))


def _box_of(solid: Solid, grid: Grid, pose: _Pose) -> Box | None:
    """The voxels that may lie in a solid: those between the outermost points of its own box's edges."""
    if np.any(solid.low > solid.high):
        return None
    (x0, y0, z0), (x1, y1, z1) = solid.low, solid.high
    edges = np.meshgrid([x0, x1], [y0, y1], np.linspace(z0, z1, _LEVELS))
    patient = np.stack([values.ravel() for values in pose.to_patient((edges[0], edges[1], edges[2]))], axis=1)
    along = patient @ grid.normal
    z = np.flatnonzero(
        (grid.slice_positions_mm >= along.min() - _MARGIN_MM) & (grid.slice_positions_mm <= along.max() + _MARGIN_MM)
    )
    if z.size == 0:
        return None
    yx = np.concatenate([grid.to_plane(int(k), patient)[0] for k in (z[0], z[-1])])
    margin = _MARGIN_MM / np.array([grid.row_spacing_mm, grid.column_spacing_mm])
    low = np.maximum(np.ceil(yx.min(axis=0) - margin), 0).astype(int)
    high = np.minimum(np.floor(yx.max(axis=0) + margin) + 1, [grid.rows, grid.columns]).astype(int)
    if np.any(low >= high):
        return None
    return slice(int(z[0]), int(z[-1]) + 1), slice(int(low[0]), int(high[0])), slice(int(low[1]), int(high[1]))


def _centres(grid: Grid, box: Box) -> Points:
    """Patient x, y and z of the voxel centres of a box, each as small as broadcasting allows."""
    z, y, x = (np.arange(s.start, s.stop) for s in box)
    down, along = grid.row_spacing_mm * grid.column_direction, grid.column_spacing_mm * grid.row_direction

    def axis(i: int) -> FloatArray:
        values = grid.origins_mm[z, i][:, None, None]
        values = values + (y * down[i])[None, :, None] if down[i] else values
        return np.asarray(values + (x * along[i])[None, None, :] if along[i] else values)

    return axis(0), axis(1), axis(2)


# The body in the scanner: it leans to the left the higher one looks (a shear), the head is turned to the right (a twist of the
# neck), and all of it is moved to where the couch is. Both maps keep z and volumes, so a slice of an axial grid cuts the body at
# one height and an ellipsoid's volume is still the closed formula's.


def _turn(z: FloatArray) -> FloatArray:
    """Angle in radians by which the body is turned at these heights: nothing in the chest, all of it in the head."""
    share = np.clip((z - _NECK_MM[0]) / (_NECK_MM[1] - _NECK_MM[0]), 0, 1)
    return np.asarray(np.radians(_TURN_DEGREES) * share * share * (3 - 2 * share))


def _to_patient(points: Points) -> Points:
    """Points of the body to patient coordinates, in mm."""
    x, y, z = points
    angle = _turn(z)
    x, y = np.cos(angle) * x - np.sin(angle) * y + _LEAN * z, np.sin(angle) * x + np.cos(angle) * y
    return x + _ORIGIN_MM[0], y + _ORIGIN_MM[1], z + _ORIGIN_MM[2]


def _to_body(points: Points) -> Points:
    """The inverse of :func:`_to_patient`; arrays stay as small as broadcasting allows."""
    x, y, z = (values - origin for values, origin in zip(points, _ORIGIN_MM, strict=True))
    angle, upright = _turn(z), x - _LEAN * z
    return np.cos(angle) * upright + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * upright, z


def _to_couch(points: Points) -> Points:
    """Patient coordinates to those of the couch, which stands straight."""
    x, y, z = (values - origin for values, origin in zip(points, _ORIGIN_MM, strict=True))
    return x, y, z


def _from_couch(points: Points) -> Points:
    x, y, z = (values + origin for values, origin in zip(points, _ORIGIN_MM, strict=True))
    return x, y, z


_BODY: Final = _Pose(_to_patient, _to_body)
_COUCH: Final = _Pose(_from_couch, _to_couch)

"""The grid of a stack from the planes of its slices.

Or why they are not a stack: a gap, a shift, a tilt.

Nothing is averaged and nothing is repaired: every slice keeps its own Image Position (Patient). What is checked is that the
slices are parallel, lie one behind the other, and that none is missing between them. Sources: PS3.3 C.7.6.2 (image
plane), C.8.2.1.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from oarlock.arrays import FloatArray
from oarlock.errors import (
    DuplicatePosition,
    InconsistentGeometry,
    MissingSlices,
    OrientationUnsupported,
    SeriesError,
    TooFewSlices,
)
from oarlock.facts import Notice
from oarlock.geometry.grid import Grid

MIN_SLICES: Final = 3
"""With fewer there is one distance only, which cannot show whether a slice is missing."""

MAX_TILT_DEGREES: Final = 30.0
MAX_CORNER_SHIFT_MM: Final = 0.009
"""By how much the far corners of a slice may move when the orientation of another slice is used for it: with the rounding to
micrometres, no contour leaves the plane of its own slice by more than 0.01 mm."""

SPACING_TOLERANCE: Final = 0.1
"""Share by which a distance between slices may differ from the expected one; one missing slice doubles the distance."""

ROUNDING_MM: Final = 0.1 + 1e-6
"""By how much it may differ in any case: positions rounded to 0.1 mm are 0.6 and 0.7 mm apart for slices of 0.625 mm."""

_MOST_TOLERANCE: Final = 0.4
"""The rounding of very thin slices, as a share of the distance: half of it would be a slice too few or too many."""

SAME_POSITION_MM: Final = 0.01
MAX_OFF_LINE_MM: Final = 0.1
"""Largest distance of a slice's origin from the straight line through all origins: a tilted gantry shifts every slice by the same
step, a reconstruction with another field of view does not."""

LONG_SCAN_MM: Final = 800.0
"""A head and neck planning scan runs from the vertex to the carina or so: 300 to 500 mm."""


@dataclass(frozen=True, slots=True)
class Plane:
    """The image plane of one slice.

    ``origin_mm`` is Image Position (Patient); ``cosines`` the six values of Image Orientation (Patient); ``thickness_mm`` Slice
    Thickness, or None where it is absent.
    """

    origin_mm: tuple[float, float, float]
    cosines: tuple[float, ...]
    pixel_spacing_mm: tuple[float, float]
    rows: int
    columns: int
    thickness_mm: float | None


def to_grid(planes: Sequence[Plane]) -> tuple[Grid, list[int], list[Notice]]:
    """The grid of a stack of slices.

    :param planes: one for each slice, in any order.
    :returns: the grid; for each of its slices the index into ``planes``; warnings.
    :raises TooFewSlices, InconsistentGeometry, OrientationUnsupported, DuplicatePosition, MissingSlices: they are not a stack.
    """
    _check_same(planes)
    row, column, warnings = _directions(planes)
    normal = np.cross(row, column)
    warnings += _check_tilt(row, column, normal)
    if len(planes) < MIN_SLICES:
        raise TooFewSlices(found=len(planes), needed=MIN_SLICES)
    origins = np.array([plane.origin_mm for plane in planes], dtype=np.float64)
    order = np.argsort(origins @ normal, kind="stable")
    origins = origins[order]
    thicknesses = [planes[i].thickness_mm for i in order]
    warnings += _check_spacing(origins, normal, thicknesses)
    warnings += _check_line(origins, normal)
    warnings += _check_length(origins, normal)
    rows, columns = planes[0].rows, planes[0].columns
    grid = Grid(rows, columns, origins, row, column, *min(plane.pixel_spacing_mm for plane in planes))
    return grid, [int(i) for i in order], warnings


def _check_same(planes: Sequence[Plane]) -> None:
    sizes = {(plane.rows, plane.columns) for plane in planes}
    if len(sizes) > 1:
        found = ", ".join(f"{rows} × {columns}" for rows, columns in sorted(sizes)[:4])
        raise InconsistentGeometry(keyword="Rows and Columns", reason=f"{len(sizes)} different sizes ({found})")
    spacings = np.array([plane.pixel_spacing_mm for plane in planes])
    spread = np.ptp(spacings, axis=0)
    if np.any(spread > 1e-5 * spacings[0]):
        low, high = spacings.min(), spacings.max()
        raise InconsistentGeometry(keyword="PixelSpacing", reason=f"values from {low:.6g} to {high:.6g} mm")


def _directions(planes: Sequence[Plane]) -> tuple[FloatArray, FloatArray, list[Notice]]:
    """Unit vectors along a row and down a column, made exactly orthogonal; the planes agree on them within the tolerance.

    The reference is the plane that comes first in the order of its numbers, so that the order of an upload does not matter.
    """
    stated = np.array([plane.cosines for plane in planes], dtype=np.float64).reshape(-1, 2, 3)
    exact = _orthonormal(stated)
    reference = exact[planes.index(min(planes, key=lambda plane: plane.cosines))]
    apart_mm = _far_corner_mm(exact - reference, planes[0])
    if apart_mm > MAX_CORNER_SHIFT_MM:
        degrees = float(np.degrees(2 * np.arcsin(np.linalg.norm(exact - reference, axis=2).max() / 2)))
        reason = f"orientations up to {degrees:.2f}° apart (localizers, reformats or two acquisitions in one series)"
        raise InconsistentGeometry(keyword="ImageOrientationPatient", reason=reason)
    rounded_mm = _far_corner_mm(exact - stated, planes[0])
    warnings = [_uneven_orientation(apart_mm)] if apart_mm > 0.001 else []
    return reference[0], reference[1], warnings + ([_rounded_orientation(rounded_mm)] if rounded_mm > MAX_CORNER_SHIFT_MM else [])


def _orthonormal(directions: FloatArray) -> FloatArray:
    """(n, 2, 3) row and column directions, of length 1 and at right angles; each pair stays in its plane."""
    row = directions[:, 0] / np.linalg.norm(directions[:, 0], axis=1, keepdims=True)
    column = directions[:, 1] - row * np.sum(directions[:, 1] * row, axis=1, keepdims=True)
    return np.stack([row, column / np.linalg.norm(column, axis=1, keepdims=True)], axis=1)


def _far_corner_mm(changes: FloatArray, plane: Plane) -> float:
    """How far any of the last voxels of a slice moves with such changes of its row and column direction, (n, 2, 3)."""
    along = changes[:, 0] * ((plane.columns - 1) * plane.pixel_spacing_mm[1])
    down = changes[:, 1] * ((plane.rows - 1) * plane.pixel_spacing_mm[0])
    return float(np.linalg.norm(np.concatenate([along, down, along + down]), axis=1).max())


def _uneven_orientation(apart_mm: float) -> Notice:
    detail = (
        f"The direction cosines of the slices differ by rounding, which is up to {apart_mm:.3f} mm at the far corner of a slice"
    )
    return Notice("series.uneven_orientation", detail + "; one orientation is used for all of them.")


def _rounded_orientation(rounded_mm: float) -> Notice:
    detail = "The direction cosines are rounded, so that rows and columns are not quite of length 1 or at right angles"
    return Notice("series.rounded_orientation", detail + f"; making them so moves the far corner by up to {rounded_mm:.3f} mm.")


def _check_tilt(row: FloatArray, column: FloatArray, normal: FloatArray) -> list[Notice]:
    """How far the slices' own axes are from the patient's, judged by the worst of the three; the normal belongs to the z axis."""
    to_z = np.degrees(np.arccos(min(1.0, abs(float(normal[2])))))
    in_plane = [np.degrees(np.arccos(min(1.0, float(np.abs(axis).max())))) for axis in (row, column)]
    degrees = float(max(to_z, *in_plane))
    if degrees > MAX_TILT_DEGREES:
        raise OrientationUnsupported(degrees=degrees, limit=MAX_TILT_DEGREES)
    if degrees < 0.05:
        return []
    detail = f"The slices are tilted {degrees:.1f}° from the axes of the patient (gantry tilt or oblique reconstruction)."
    return [Notice("series.tilted", detail + " Every contour is drawn in the plane of its own slice; check the contours.")]


def _check_spacing(origins: FloatArray, normal: FloatArray, thicknesses: Sequence[float | None]) -> list[Notice]:
    distances = np.diff(origins @ normal)
    same = np.flatnonzero(distances < SAME_POSITION_MM)
    if same.size:
        position = float((origins @ normal)[same[0]])
        count = int(np.sum(np.abs(origins @ normal - position) < SAME_POSITION_MM))
        raise DuplicatePosition(position_mm=float(origins[same[0], 2]), count=count)
    expected = _usual(distances)
    if np.all(np.abs(distances - expected) <= slack_mm(expected)):
        return []
    if _thickness_explains(distances, thicknesses):
        return [_uneven_spacing(distances)]
    raise _spacing_error(origins, distances, expected)


def slack_mm(distance: FloatArray | float) -> FloatArray:
    """How far a distance between slices may differ from the expected."""
    return np.minimum(np.maximum(SPACING_TOLERANCE * np.asarray(distance), ROUNDING_MM), _MOST_TOLERANCE * np.asarray(distance))


def _usual(distances: FloatArray) -> float:
    """The distance with the most others within the tolerance; of several the smallest, as a gap is never the rule."""
    ordered = np.sort(distances)
    near = np.searchsorted(ordered, ordered + slack_mm(ordered), "right") - np.arange(len(ordered))
    start = int(np.argmax(near))
    return float(np.median(ordered[start : start + near[start]]))


def _thickness_explains(distances: FloatArray, thicknesses: Sequence[float | None]) -> bool:
    """Whether every slice touches the next one, or overlaps it by no more than the thinner of the two stands for.

    Only then is an uneven stack known to be complete: slices of 3 mm every 3 mm that go over into slices of 1.5 mm every 1.5 mm
    leave nothing out, and a missing slice of either kind would leave tissue between two slices. A position is that of the middle
    of a slice (PS3.3 C.7.6.2.1.1): two that touch are half of both thicknesses apart.
    """
    if any(thickness is None for thickness in thicknesses):
        return False
    t = np.array(thicknesses, dtype=np.float64)
    thinner, touching = np.minimum(t[:-1], t[1:]), (t[:-1] + t[1:]) / 2
    return bool(np.all((distances >= thinner - slack_mm(thinner)) & (distances <= touching + slack_mm(touching))))


def _uneven_spacing(distances: FloatArray) -> Notice:
    return Notice(
        "series.uneven_spacing",
        f"The distance between slices changes from {distances.min():.3f} to {distances.max():.3f} mm along the series, and the "
        "slice thickness with it; the stack is complete and every contour lies in the plane of its own slice.",
    )


def _spacing_error(origins: FloatArray, distances: FloatArray, expected: float) -> SeriesError:
    """The first gap, or else the narrowest distance."""
    gaps = np.flatnonzero(distances > expected + slack_mm(expected))
    if gaps.size:
        z = int(gaps[0])
        between = (float(origins[z, 2]), float(origins[z + 1, 2]))
        found = float(distances[z])
        return MissingSlices(expected_mm=expected, found_mm=found, at_slice=z + 1, between_mm=between, gaps=int(gaps.size))
    z = int(np.argmin(distances))
    return InconsistentGeometry(
        keyword="ImagePositionPatient",
        reason=f"slices {z + 1} and {z + 2} (z = {origins[z, 2]:.2f} mm and {origins[z + 1, 2]:.2f} mm) are "
        f"{distances[z]:.3f} mm apart where {expected:.3f} mm is usual",
    )


def _check_line(origins: FloatArray, normal: FloatArray) -> list[Notice]:
    """The origins lie on one straight line, upright or leaning: a lean is what a tilted gantry leaves (PS3.3 C.8.2.1.1.2)."""
    positions = origins @ normal
    offsets = origins - positions[:, None] * normal
    design = np.stack([np.ones_like(positions), positions - positions.mean()], axis=1)
    solution, *_ = np.linalg.lstsq(design, offsets, rcond=None)
    misses = np.linalg.norm(offsets - design @ solution, axis=1)
    worst = int(np.argmax(misses))
    if misses[worst] > MAX_OFF_LINE_MM:
        reason = f"slice {worst + 1} (z = {origins[worst, 2]:.2f} mm) lies {misses[worst]:.2f} mm off the line of the others"
        raise InconsistentGeometry(keyword="ImagePositionPatient", reason=reason)
    degrees = float(np.degrees(np.arctan(np.linalg.norm(solution[1]))))
    if degrees > MAX_TILT_DEGREES:
        raise OrientationUnsupported(degrees=degrees, limit=MAX_TILT_DEGREES)
    if degrees < 0.05:
        return []
    detail = f"The slices are stacked at {degrees:.1f}° to their normal, as a tilted gantry leaves them"
    return [Notice("series.sheared", detail + "; every slice keeps its own position.")]


def _check_length(origins: FloatArray, normal: FloatArray) -> list[Notice]:
    length = float(np.ptp(origins @ normal))
    if length <= LONG_SCAN_MM:
        return []
    detail = f"The series is {length:.0f} mm long; this server contours the head and neck only. Check that it is the right scan."
    return [Notice("series.long_scan", detail)]

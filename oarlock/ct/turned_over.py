"""Whether a head and neck is turned over against its header.

Rows written upside down, or a stack from the feet under positions from the head, give a valid series and contours in the wrong
place. Two things in a head and neck do not depend on the scan: the air inside (nose, mouth, throat, windpipe) lies in front of
the middle of the body, and the dense bone (skull, teeth) lies at the head end. Left and right look alike and are not judged.

Slices of one patient that lie next to each other are more alike than those that lie further apart, whatever the scan shows.

Limits: ``docs/dicom.md``, measured on the OpenKBP patients.
"""

from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from oarlock.arrays import FloatArray, Int16Array, Mask
from oarlock.facts import Notice
from oarlock.geometry.body import body_core
from oarlock.geometry.grid import Grid

INNER_AIR_HU: Final = -400
DENSE_BONE_HU: Final = 700
AIR_BEHIND_MM: Final = 8.0
"""Median over the slices. The inner air lies in front of the middle of the body in all of 202 patients, by 5 mm and more; with
their rows turned over this limit finds 199."""

BONE_TREND: Final = -0.55
"""Correlation of height with the share of dense bone. It is higher in all of 202 patients; with their stack turned over this
limit finds 171."""

AIR_ASIDE_MM: Final = 15.0
"""Median over the slices. The inner air lies within 10 mm of the middle, from left to right, in all of 201 patients; with their
slices turned by a quarter this limit finds 196 of 201."""

OUT_OF_ORDER: Final = 0.85
"""How different neighbours are, of how different slices are that are two apart: 0.63 at most in 34 patients. With the 186 slices
of a planning CT in the order of their numbers as texts (1, 10, 100 …), exchanged in pairs or at random it is 0.88 and more."""

UNLIKE_HU: Final = 4.0
"""How different neighbours are at least, in the mean of the blocks: less is noise, which is alike at any distance. It is up to
2.3 HU in a cylinder of water with a noise of 20 HU; in eight patients slices that are two apart differ by 6 to 10 HU."""

MIN_LENGTH_MM: Final = 100.0
MIN_SLICES_WITH_AIR: Final = 8
_LUNG_SHARE: Final = 0.12
_MIN_AIR_MM2: Final = 50.0
_MIN_BODY_MM2: Final = 3_000.0
_COARSE_MM: Final = 4.0
_BLOCKS: Final = 32
"""Rows and columns of blocks whose means are compared: the noise of single pixels is alike at any distance."""

_THICK_MM: Final = 2.0
"""Thinner slices are compared in groups of about so much, for the same reason."""

_SEEN_HU: Final = (-1000, 400)


def turned_over(hu: Int16Array, grid: Grid) -> list[Notice]:
    """Warnings if the images contradict their positions.

    What they show then lies the other way round, or in another order, than their positions say.

    :param hu: (z, y, x) Hounsfield units on ``grid``.
    """
    if np.ptp(grid.slice_positions_mm) < MIN_LENGTH_MM:
        return []
    return [*_turned(hu, grid), *_out_of_order(hu, grid)]


def _out_of_order(hu: Int16Array, grid: Grid) -> list[Notice]:
    group = max(1, round(_THICK_MM / grid.spacing_mm[0]))
    thin = max(1, min(hu.shape[1:]) // (4 * _BLOCKS))
    hu = hu[:, ::thin, ::thin]
    step = max(1, min(hu.shape[1:]) // _BLOCKS)
    sizes = (len(hu) // group, group, hu.shape[1] // step, step, hu.shape[2] // step, step)
    whole = hu[: sizes[0] * group, : sizes[2] * step, : sizes[4] * step]
    means = np.clip(whole, *_SEEN_HU).reshape(sizes).mean(axis=(1, 3, 5))
    one, two = (float(np.abs(means[apart:] - means[:-apart]).mean()) for apart in (1, 2))
    if one < UNLIKE_HU or one < OUT_OF_ORDER * two:
        return []
    detail = "The slices seem to be out of order: neighbours are hardly more alike than slices that are two apart."
    return [Notice("series.out_of_order", detail + " Do not use the contours before the order of the images is checked.")]


def _turned(hu: Int16Array, grid: Grid) -> list[Notice]:
    steps = [max(1, round(_COARSE_MM / spacing)) for spacing in grid.spacing_mm]
    coarse = hu[:: steps[0], :: steps[1], :: steps[2]]
    area_mm2 = grid.row_spacing_mm * steps[1] * grid.column_spacing_mm * steps[2]
    body = _filled(body_core(coarse))
    if body.any():
        aside, behind = _air_off_middle_mm(coarse, body, _in_slice_mm(grid, coarse.shape[1:], steps[1], steps[2]), area_mm2)
        trend = _bone_towards_head(coarse, body, grid.origins_mm[:: steps[0], 2], area_mm2)
        quarter = abs(aside) > max(AIR_ASIDE_MM, abs(behind))
        return _notice(
            front_to_back=not quarter and behind > AIR_BEHIND_MM,
            quarter=quarter,
            head_to_feet=trend is not None and trend < BONE_TREND,
        )
    return []


def _notice(*, front_to_back: bool, quarter: bool, head_to_feet: bool) -> list[Notice]:
    found = []
    if front_to_back:
        found.append("front and back: the air in nose, mouth and throat lies behind the middle of the body")
    if quarter:
        found.append("by a quarter: the air in nose, mouth and throat lies beside the middle of the body")
    if head_to_feet:
        found.append("head and feet: skull and teeth lie at the lower end")
    if not found:
        return []
    detail = f"The images seem to be turned over against their header, {'; and '.join(found)}."
    return [Notice("series.turned_over", detail + " Do not use the contours before the orientation is checked.")]


def _filled(body: Mask) -> Mask:
    return np.stack([ndimage.binary_fill_holes(mask) for mask in body])


def _in_slice_mm(grid: Grid, shape: tuple[int, ...], row_step: int, column_step: int) -> FloatArray:
    """(2, y, x): patient x (to the left) and y (to the back) of each pixel, beside those of the slice's origin."""
    rows, columns = (np.arange(n, dtype=np.float64) for n in shape)
    down = rows * row_step * grid.row_spacing_mm
    along = columns * column_step * grid.column_spacing_mm
    axes = (down[:, None] * grid.column_direction[axis] + along[None, :] * grid.row_direction[axis] for axis in (0, 1))
    return np.stack(list(axes))


def _air_off_middle_mm(hu: Int16Array, body: Mask, place_mm: FloatArray, area_mm2: float) -> tuple[float, float]:
    """By how much the air inside the body lies to the left of its middle, and behind it.

    The medians of the slices that have some and no lung; 0 where they are too few.
    """
    found = []
    for values, inside in zip(hu, body, strict=True):
        air = inside & (values < INNER_AIR_HU)
        count, size = int(air.sum()), int(inside.sum())
        if count * area_mm2 >= _MIN_AIR_MM2 and count < _LUNG_SHARE * size:
            found.append(place_mm[:, air].mean(axis=1) - place_mm[:, inside].mean(axis=1))
    if len(found) < MIN_SLICES_WITH_AIR:
        return 0.0, 0.0
    aside, behind = np.median(found, axis=0)
    return float(aside), float(behind)


def _bone_towards_head(hu: Int16Array, body: Mask, z_mm: npt.NDArray[np.float64], area_mm2: float) -> float | None:
    """Correlation, over the slices, of patient z (towards the head) with the share of dense bone in the body."""
    size = body.sum(axis=(1, 2))
    kept = size * area_mm2 >= _MIN_BODY_MM2
    share = (body & (hu > DENSE_BONE_HU)).sum(axis=(1, 2))[kept] / size[kept]
    if kept.sum() < MIN_SLICES_WITH_AIR or np.ptp(share) == 0 or np.ptp(z_mm[kept]) < MIN_LENGTH_MM:
        return None
    return float(np.corrcoef(z_mm[kept], share)[0, 1])

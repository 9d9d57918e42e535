"""Whether the values of a series are Hounsfield units.

Those of a patient in a CT scanner.

By definition air is -1000 HU and water 0 HU; fat lies at -100, muscle and brain at 20 to 60, bone above 200. A lost or doubled
intercept, a slope of another size or sign, or values cut to a grey-level window move air and soft tissue to where no patient has
them. A few slices, thinned, are enough to see it, so it is asked before a job runs. ``docs/dicom.md`` has the limits and where
they come from.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Final

import numpy as np

from oarlock.arrays import Int16Array
from oarlock.ct.pixel_reader import read_thinned
from oarlock.ct.series import Instance, SeriesHeader
from oarlock.errors import NotHounsfield, UnsupportedPixelData

LOOKED_AT: Final = 9
"""Slices that are looked at, evenly spread."""

LOOKED_AT_APART: Final = 6
"""Of those whose rescale is not that of most slices."""

MIN_MATRIX: Final = 64
"""Rows and columns below which nothing is judged: scanners reconstruct 256 and more, and a test pattern is not a patient."""

_THINNED: Final = 128
"""About so many rows and columns are kept of a slice."""

MIN_SPAN_HU: Final = 300
AIR_HU: Final = -600
MIN_AIR_SHARE: Final = 0.001
BELOW_AIR_HU: Final = -1200
MAX_BELOW_AIR_SHARE: Final = 0.1
SOFT_HU: Final = (-200, 200)
MIN_SOFT_SHARE: Final = 0.35
NEAR_SOFT_HU: Final = (-300, 400)
MAX_SOFT_MEDIAN_HU: Final = 120.0
MAX_STEP_HU: Final = 200.0
"""Median change of a pixel from one slice to the next; between slices of one patient it is below 50."""

MAX_BODY_STEP_HU: Final = 350.0
"""The same of the pixels that lie in the body in both; it is below 230 between slices of one patient."""

BODY_HU: Final = -900
MIN_BODY_SHARE: Final = 0.01
"""What is denser than air, and the share of a slice from which on it is judged on its own."""

MIN_BODY_SHARED: Final = 0.92
"""Of the pixels that lie in the body in one of two slices, the share that must lie in it in both. Where a head ends it is less:
there scalp follows on skull, and skull on brain, in most of the pixels."""

MAX_CUT_HU: Final = 1500
MAX_CUT_SHARE: Final = 0.002
"""Of what is denser than air, the share that may have the highest value of all where that is no higher than enamel. In 202
patients it is a voxel or two, but for metal at the end of the scanner's scale."""

BULK_DENSITIES: Final = 4
BULK_SHARE: Final = 0.6
"""Where so few values, beside the highest, are so much of what is denser than air, each tissue was given a density of its own."""

EMPTY_SHARE: Final = 0.05
"""Of the body in slices before and behind it, what a slice must show of one; a neck shows a fifth of the head's and more."""

ALL_AIR_HU: Final = (-1100, -900)
ALL_AIR_SHARE: Final = 0.95
"""A slice of which so much is air lies beyond the end of what was scanned, and may differ from its neighbour as it likes."""

_PADDING_GAP_HU: Final = 100
_FAR_BELOW_HU: Final = -2500
"""No mistaken rescale brings air here: twice the intercept gives -2048."""


def check_hounsfield(header: SeriesHeader) -> None:
    """Check a few slices of a series.

    A slice that cannot be decoded is left to the job, which names it.

    :raises NotHounsfield: no patient has such values.
    """
    if min(header.grid.rows, header.grid.columns) < MIN_MATRIX:
        return
    _check_range(header)
    try:
        values = _read(header, spread(len(header.instances), LOOKED_AT))
        check_values(values)
        check_not_cut(values)
        for z, neighbour in _odd_ones(header.instances):
            check_step(_read(header, [z, neighbour]), header.instances[z].position)
    except UnsupportedPixelData:
        return


def _check_range(header: SeriesHeader) -> None:
    """Bits, sign and rescale must leave room for bone: a wrong sign turns its values round into those far below air."""
    highest = max((one.pixels.highest_hu for one in header.instances if one.pixels), default=float(MAX_CUT_HU))
    if highest < MAX_CUT_HU:
        raise NotHounsfield(reason=f"by its header no value can be over {highest:.0f} HU, so bone is turned round or cut off")


def spread(count: int, most: int) -> list[int]:
    """At most so many indices, evenly spread over ``count``.

    Away from its ends.
    """
    return sorted({int(i) for i in np.linspace(0.04, 0.96, most) * (count - 1) + 0.5})


def _read(header: SeriesHeader, chosen: Sequence[int]) -> Int16Array:
    step = max(1, min(header.grid.rows, header.grid.columns) // _THINNED)
    instances = [header.instances[z] for z in chosen]
    return read_thinned([(one.path, one.position, one.pixels) for one in instances if one.pixels], step)


def _odd_ones(instances: Sequence[Instance]) -> list[tuple[int, int]]:
    """Slices whose rescale is not that of most, each with its nearest neighbour that has the usual one."""
    kinds = [(one.pixels.slope, one.pixels.intercept, one.pixels.signed) if one.pixels else None for one in instances]
    usual, count = Counter(kinds).most_common(1)[0]
    if count <= len(kinds) // 2 and len(set(kinds)) > 3:  # some scanners rescale each slice to its own range
        return []
    odd = [z for z, kind in enumerate(kinds) if kind != usual]
    plain = np.array([z for z, kind in enumerate(kinds) if kind == usual])
    chosen = [odd[i] for i in spread(len(odd), LOOKED_AT_APART)] if odd else []
    return [(z, int(plain[np.argmin(np.abs(plain - z))])) for z in chosen]


def check_values(hu: Int16Array) -> None:
    """Check values of slices from all over a patient.

    :param hu: (n, y, x) or any other shape.
    :raises NotHounsfield: no patient has such values.
    """
    values = without_padding(hu)
    low, high = (float(end) for end in np.percentile(values, (0.5, 99.5)))
    if high - low < MIN_SPAN_HU:
        raise NotHounsfield(reason=f"nearly all of them lie between {low:.0f} and {high:.0f}")
    if np.mean(values <= AIR_HU) < MIN_AIR_SHARE:
        raise NotHounsfield(reason=f"there is no air, which is -1000 HU; the lowest values lie at {low:.0f}")
    if np.mean(values < BELOW_AIR_HU) > MAX_BELOW_AIR_SHARE:
        share = 100 * float(np.mean(values < BELOW_AIR_HU))
        raise NotHounsfield(reason=f"{share:.0f} % of them lie below {BELOW_AIR_HU} HU, and air is -1000 HU")
    dense = values[values > AIR_HU]
    soft = np.mean((dense >= SOFT_HU[0]) & (dense <= SOFT_HU[1])) if dense.size else 0.0
    if soft < MIN_SOFT_SHARE:
        raise NotHounsfield(
            reason=f"{100 * soft:.0f} % of what is denser than air lies between {SOFT_HU[0]} and {SOFT_HU[1]} HU, where fat, "
            "muscle and brain are; of a patient it is three quarters"
        )
    near = values[(values >= NEAR_SOFT_HU[0]) & (values <= NEAR_SOFT_HU[1])]
    median = float(np.median(near))
    if abs(median) > MAX_SOFT_MEDIAN_HU:
        raise NotHounsfield(reason=f"soft tissue lies around {median:.0f} HU, and of a patient between -45 and 60")


def check_not_cut(hu: Int16Array) -> None:
    """Check that bone keeps its values.

    They are not cut to a window.

    :raises NotHounsfield: far too many voxels have the highest value of all.
    """
    dense = hu[hu > AIR_HU]
    highest = int(dense.max(initial=AIR_HU))
    if highest < MAX_CUT_HU and np.mean(dense == highest) > MAX_CUT_SHARE and not _is_bulk(dense[dense != highest]):
        raise NotHounsfield(reason=f"they are cut off at {highest} HU, so bone is not told from what is denser or lighter")


def _is_bulk(values: Int16Array) -> bool:
    """Whether nearly all of the values are a few densities, as some synthetic CTs give one to each tissue."""
    counts = np.sort(np.unique(values, return_counts=True)[1])
    return values.size > 0 and bool(counts[-BULK_DENSITIES:].sum() >= BULK_SHARE * values.size)


def check_step(pair: Int16Array, position: int) -> None:
    """Check that two neighbouring slices have values of one kind.

    ``pair`` holds the two, (2, y, x).

    :raises NotHounsfield: they jump from one to the other.
    """
    step = _step(pair[0], pair[1])
    if step > MAX_STEP_HU:
        raise NotHounsfield(reason=f"those of file {position} differ from its neighbour's by {step:.0f} in the median")


def check_steps(hu: Int16Array) -> None:
    """Check that no slice jumps away from its neighbours, or is empty.

    ``hu`` is the whole series, (z, y, x).

    :raises NotHounsfield: one does; it is counted along the slice axis from 1.
    """
    if min(hu.shape[1:]) < MIN_MATRIX:
        return
    step = max(1, min(hu.shape[1:]) // _THINNED)
    thin = hu[:, ::step, ::step]
    _check_none_empty(thin)
    for z in range(1, len(thin)):
        found = 0.0 if _is_air(thin[z - 1]) or _is_air(thin[z]) else _step(thin[z - 1], thin[z])
        if found > MAX_STEP_HU:
            raise NotHounsfield(reason=f"from slice {z} to slice {z + 1} they change by {found:.0f} in the median")
    for z in range(1, len(thin) - 1):
        found = _sunk(*thin[z - 1 : z + 2])
        if found > MAX_BODY_STEP_HU:
            raise NotHounsfield(reason=f"those of slice {z + 1} lie {found:.0f} below those of both its neighbours in the median")


def _check_none_empty(hu: Int16Array) -> None:
    """An image that came out blank leaves a hole in every organ: no slice within a patient shows nothing of them."""
    shown = np.mean(hu > BODY_HU, axis=(1, 2))
    before, behind = np.maximum.accumulate(shown), np.maximum.accumulate(shown[::-1])[::-1]
    enclosed = np.minimum(before, behind)
    empty = np.flatnonzero((enclosed >= MIN_BODY_SHARE) & (shown < EMPTY_SHARE * enclosed))
    if empty.size:
        raise NotHounsfield(reason=f"slice {empty[0] + 1} is empty, and slices on both sides of it show a patient")


def _sunk(before: Int16Array, hu: Int16Array, behind: Int16Array) -> float:
    """How far a slice lies below both of its neighbours, where they show body; bone may rise between them, nothing sinks."""
    if not _is_shared(before, behind):
        return 0.0
    body = (before > BODY_HU) & (behind > BODY_HU)
    return float(np.median(np.minimum(before[body], behind[body]).astype(np.int32) - hu[body]))


def _is_air(hu: Int16Array) -> bool:
    """Whether a slice is nothing but air, as beyond the end of a phantom: then it may differ from its neighbour as it likes."""
    return bool(np.mean((hu >= ALL_AIR_HU[0]) & (hu <= ALL_AIR_HU[1])) >= ALL_AIR_SHARE)


def _is_shared(one: Int16Array, other: Int16Array) -> bool:
    """Whether two slices show a body that is nearly the same in both."""
    body, either = (one > BODY_HU) & (other > BODY_HU), (one > BODY_HU) | (other > BODY_HU)
    return bool(np.mean(body) > MIN_BODY_SHARE and np.sum(body) >= MIN_BODY_SHARED * np.sum(either))


def _step(one: Int16Array, other: Int16Array) -> float:
    """Median change of a pixel between two slices.

    A patient may fill less than half of a slice, and a wrong slope leaves air where it is: so the body is looked at too, but not
    where it ends.
    """
    change, body = np.abs(one.astype(np.int32) - other), (one > BODY_HU) & (other > BODY_HU)
    inside = float(np.median(change[body])) if _is_shared(one, other) else 0.0
    return max(float(np.median(change)), inside if inside > MAX_BODY_STEP_HU else 0.0)


def without_padding(hu: Int16Array) -> Int16Array:
    """The values without what fills the unreconstructed part.

    That is a constant far below air and all others; with it goes what resampling blurred between the constant and the image.
    """
    values = hu.ravel()
    lowest = int(values.min())
    if lowest >= BELOW_AIR_HU:
        return values
    others: Int16Array = values[values != lowest]
    if others.size and int(others.min()) - lowest >= _PADDING_GAP_HU:
        return others
    below = values[values < BELOW_AIR_HU]
    found, counts = np.unique(below, return_counts=True)
    blurred = found[np.argmax(counts)] <= _FAR_BELOW_HU and 2 * counts.max() >= below.size
    return values[values >= BELOW_AIR_HU] if blurred and below.size < values.size else values

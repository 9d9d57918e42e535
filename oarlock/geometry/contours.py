"""Masks to closed planar contours in patient millimetres, and back.

**There.** The boundary crosses each line between the centres of an inside and an outside voxel (4-neighbours) at one point, and
these points are the vertices: marching squares on the binary mask. OpenCV follows the borders (8-connected inside, 4-connected
outside: a thin diagonal stays in one piece), and its chains of voxels are unfolded into the crossed lines. Then

- vertices are left out where the line that remains stays within a bound of the whole boundary (:func:`decimation_mm`), and
- all vertices of a loop move by the same small part of a voxel along their lines, so that the loop's area is the area of its
  voxels. Marching squares alone cuts half a voxel off each loop, whatever its size: half of a single voxel, a tenth of a lens's
  last slice. Moving a vertex along its own line can neither make loops cross nor change the side of a voxel's centre.

So a reader that tests voxel centres gets the mask back exactly, and the volume between the polygons is the mask's (ADR 0009).

**Back.** A voxel belongs to a region if a ray from its centre crosses the polygons an odd number of times (even-odd, XOR): holes,
islands, holes in holes and keyholes need no case of their own.

Holes are contours of their own. Arrays are (z, y, x); contour points are (x, y, z) in mm.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from oarlock.arrays import FloatArray, IndexArray, Mask
from oarlock.geometry.grid import Grid
from oarlock.geometry.masks import Box

DEFAULT_TOLERANCE_MM: Final = 0.1

_SAFE_SHARE: Final = 0.1
"""Of the smaller pixel spacing: two strands of the boundary are at least 0.7, and a centre and the boundary 0.35 apart."""

_OPENCV_SLACK: Final = 1.8
"""OpenCV's last clean-up may take a vertex up to √½ of its bound off a line whose points are already one bound off."""

_MOST_SHIFT: Final = 0.3
"""Most that area matching may move a vertex, in voxels; a single voxel needs 0.207, the largest of all."""

_BLOCK: Final = 1 << 20
"""Crossings that are rasterised at a time: bounds the memory that a hostile polygon can claim."""


@dataclass(frozen=True, slots=True)
class PlanarContour:
    """One closed polygon in the plane of one slice.

    :param z: index of the slice.
    :param points_mm: (n, 3) patient positions, n >= 3; the first point is not repeated.
    """

    z: int
    points_mm: FloatArray


def decimation_mm(grid: Grid, tolerance_mm: float = DEFAULT_TOLERANCE_MM) -> float:
    """How far a contour may leave the undecimated boundary.

    The tolerance, but at most a tenth of a pixel.
    """
    return min(tolerance_mm, _SAFE_SHARE * min(grid.row_spacing_mm, grid.column_spacing_mm))


def to_contours(mask: Mask, box: Box, grid: Grid, *, tolerance_mm: float = DEFAULT_TOLERANCE_MM) -> list[PlanarContour]:
    """The boundary of a mask, slice by slice.

    :param mask: (z, y, x) of the size of ``box``.
    :param box: where ``mask`` lies in the grid.
    :param tolerance_mm: bound of the decimation, see :func:`decimation_mm`; 0 keeps every corner.
    :returns: sorted by slice; outer boundaries and holes alike, to be read as even-odd.
    """
    chains, _ = cv2.findContours(_stacked(mask), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    if not chains:
        return []
    spacing_yx = np.array([grid.row_spacing_mm, grid.column_spacing_mm])
    whole = _unfold([np.asarray(chain, dtype=np.intp) for chain in chains], mask.shape[1])
    kept = _decimate(whole, spacing_yx, decimation_mm(grid, tolerance_mm))
    yx = _match_areas(whole, kept, mask) + np.array([box[1].start, box[2].start])
    points_mm = grid.to_patient(kept.z + box[0].start, yx)
    starts = np.append(kept.starts, len(points_mm))
    loops = zip(kept.z[kept.starts] + box[0].start, starts[:-1], starts[1:], strict=True)
    contours = [PlanarContour(int(z), points_mm[start:stop]) for z, start, stop in loops]
    return sorted(contours, key=lambda contour: contour.z)


@dataclass(frozen=True, slots=True)
class _Loops:
    """Closed polygons, one after another.

    ``yx2`` (n, 2) are vertices in half voxels: one coordinate is even, the other odd. ``z`` (n,) is their slice; ``starts`` the
    first vertex of each loop.
    """

    yx2: IndexArray
    z: IndexArray
    starts: IndexArray

    @property
    def following(self) -> IndexArray:
        """(n,) index of the vertex after each one, around its loop."""
        following = np.arange(1, len(self.z) + 1)
        following[np.append(self.starts[1:], len(self.z)) - 1] = self.starts
        return following


def _stacked(mask: Mask) -> npt.NDArray[np.uint8]:
    """All slices above one another in one image, with a line of zeros between them, so that one call follows all borders."""
    slices, rows, columns = mask.shape
    image = np.zeros((slices * (rows + 1) + 1, columns + 2), dtype=np.uint8)
    image[:-1].reshape(slices, rows + 1, columns + 2)[:, 1:, 1:-1] = mask
    return image


_CODE: Final = np.array([3, 2, 1, 4, -1, 0, 5, 6, 7])
"""Freeman code of a step by 3·(dy + 1) + dx + 1: the eight directions, counter-clockwise on the screen from the right."""

_STEPS_YX: Final = np.array([(0, 1), (-1, 0), (0, -1), (1, 0)])
"""The steps to the 4-neighbours, whose Freeman codes are 0, 2, 4 and 6."""


def _crossed_lines() -> npt.NDArray[np.int8]:
    """(8, 8, 4) the outside 4-neighbours, as in ``_STEPS_YX``, that a border passes between coming in and going out; else -1.

    Border following looks around the voxel counter-clockwise from where it came from and goes on to the first inside voxel: all
    that it looked at before is outside. A step back to where it came from has looked at everything else.
    """
    table = np.full((8, 8, 4), -1, dtype=np.int8)
    for came, goes in np.ndindex(8, 8):
        back = (came + 4) % 8
        turn = (goes - back) % 8 or 8
        seen = [(back + i) % 8 for i in range(1, turn)]
        crossed = [code // 2 for code in seen if code % 2 == 0]
        table[came, goes, : len(crossed)] = crossed
    return table


_CROSSED: Final = _crossed_lines()


def _unfold(chains: Sequence[IndexArray], rows: int) -> _Loops:
    """The crossed lines along chains of border voxels."""
    lengths = np.array([len(chain) for chain in chains])
    voxels = np.concatenate(chains).reshape(-1, 2)[:, ::-1]
    first = np.append(0, np.cumsum(lengths)[:-1])
    following = np.arange(1, len(voxels) + 1)
    following[np.append(first[1:], len(voxels)) - 1] = first
    step = voxels[following] - voxels
    goes = _CODE[3 * (step[:, 0] + 1) + step[:, 1] + 1]
    came = np.empty_like(goes)
    came[following] = goes
    crossed = _CROSSED[came, goes]
    crossed[goes < 0] = (0, 1, 2, 3)
    at, place = np.nonzero(crossed >= 0)
    z = voxels[:, 0] // (rows + 1)
    inside = voxels - np.stack([z * (rows + 1) + 1, np.ones_like(z)], axis=1)
    before = np.append(0, np.cumsum(np.count_nonzero(crossed >= 0, axis=1)))
    return _Loops(2 * inside[at] + _STEPS_YX[crossed[at, place]], z[at], before[first])


def _decimate(loops: _Loops, spacing_yx: FloatArray, bound_mm: float) -> _Loops:
    """Leave out the vertices that a polygon within ``bound_mm`` of the loops can do without (Douglas and Peucker)."""
    points_mm = (loops.yx2 * (spacing_yx / 2)).astype(np.float32)
    stops = np.append(loops.starts[1:], len(points_mm))
    bound_mm /= _OPENCV_SLACK
    kept = [
        cv2.approxPolyDP(points_mm[start:stop], bound_mm, closed=True) for start, stop in zip(loops.starts, stops, strict=True)
    ]
    lengths = np.array([len(points) for points in kept])
    yx2 = np.rint(np.concatenate(kept).reshape(-1, 2) / (spacing_yx / 2)).astype(np.intp)
    return _Loops(yx2, np.repeat(loops.z[loops.starts], lengths), np.append(0, np.cumsum(lengths)[:-1]))


def _match_areas(whole: _Loops, kept: _Loops, mask: Mask) -> FloatArray:
    """(n, 2) vertices of ``kept`` in voxels, each loop moved outwards until its area is that of the voxels it encloses.

    With every vertex moved by s along its line, the area is a + b·s + c·s². The voxels' own area is that of ``whole`` and half a
    voxel: each corner cut takes or gives an eighth, and a closed walk turns four times more one way than the other.
    """
    area = _loop_sums(whole, whole.yx2 / 2, whole.yx2 / 2)
    wanted = area + np.copysign(0.5, area)
    vertices, outwards = kept.yx2 / 2, _outwards(kept, mask)
    a = _loop_sums(kept, vertices, vertices) - wanted
    b = _loop_sums(kept, vertices, outwards) + _loop_sums(kept, outwards, vertices)
    c = _loop_sums(kept, outwards, outwards)
    root = np.sqrt(np.maximum(b * b - 4 * a * c, 0))
    shift = np.clip(-2 * a / (b + np.copysign(root, b)), -_MOST_SHIFT, _MOST_SHIFT)
    lengths = np.diff(np.append(kept.starts, len(vertices)))
    return np.asarray(vertices + np.repeat(shift, lengths)[:, None] * outwards)


def _loop_sums(loops: _Loops, p: FloatArray, q: FloatArray) -> FloatArray:
    """Per loop, half the sum of p(i) × q(i + 1): the signed area where both are the vertices."""
    q = q[loops.following]
    return np.asarray(np.add.reduceat(p[:, 1] * q[:, 0] - p[:, 0] * q[:, 1], loops.starts) / 2)


def _outwards(loops: _Loops, mask: Mask) -> FloatArray:
    """(n, 2) unit steps from the inside voxel to the outside voxel of each vertex's line."""
    axis = loops.yx2 % 2
    lower = loops.yx2 // 2
    inside = mask[loops.z, *lower.T] & np.all(lower >= 0, axis=1)  # -1 is that of the other end, which does not count
    return np.where(inside[:, None], axis, -axis).astype(np.float64)


def to_mask(polygons: Sequence[tuple[int, FloatArray]], shape: tuple[int, int, int]) -> Mask:
    """Even-odd rasterisation at voxel centres.

    A centre exactly on an edge belongs to the region if the region lies on the edge's side of growing x, or of growing y where
    the edge runs along x. So regions that share an edge share no voxel and leave none out, and a keyhole's double line cancels.

    :param polygons: pairs of a slice index and (n, 2) fractional row and column indices (:meth:`Grid.to_plane`), finite.
    :param shape: (z, y, x).
    :returns: (z, y, x); polygons of one slice are combined by XOR.
    """
    flips = np.zeros((shape[0], shape[1], shape[2] + 1), dtype=np.bool_)
    flat = flips.reshape(-1)
    for z, rows, crossings in _crossings(polygons, shape):
        column = np.clip(np.ceil(crossings), 0, shape[2]).astype(np.intp)
        np.logical_xor.at(flat, (z * shape[1] + rows) * (shape[2] + 1) + column, True)
    for touched in {z for z, _ in polygons}:
        np.logical_xor.accumulate(flips[touched], axis=1, out=flips[touched])
    return flips[:, :, :-1]


def box_of(polygons: Sequence[tuple[int, FloatArray]], shape: tuple[int, int, int]) -> Box:
    """The voxels whose centres polygons can enclose; at least one voxel."""
    lowest = np.min([yx.min(axis=0) for _, yx in polygons], axis=0)
    highest = np.max([yx.max(axis=0) for _, yx in polygons], axis=0)
    start = np.clip(np.floor(lowest), 0, np.array(shape[1:]) - 1).astype(int)
    stop = np.clip(np.ceil(highest) + 1, start + 1, shape[1:]).astype(int)
    slices = [z for z, _ in polygons]
    return slice(min(slices), max(slices) + 1), slice(start[0], stop[0]), slice(start[1], stop[1])


def count_crossings(polygons: Sequence[tuple[int, FloatArray]], rows: int) -> int:
    """How many steps :func:`to_mask` takes, to refuse what would take too long."""
    ranges = (_row_range(*_edges(group), rows) for group in _batches(polygons))
    return sum(int((stop - start).sum()) for start, stop in ranges)


def _edges(polygons: Sequence[tuple[int, FloatArray]]) -> tuple[FloatArray, FloatArray]:
    """(n, 2) ends of all edges, polygon after polygon: from here to there."""
    here = np.concatenate([yx for _, yx in polygons])
    stops = np.cumsum([len(yx) for _, yx in polygons])
    ahead = np.arange(1, len(here) + 1)
    ahead[stops - 1] = np.append(0, stops[:-1])
    return here, here[ahead]


def _row_range(here: FloatArray, there: FloatArray, rows: int) -> tuple[IndexArray, IndexArray]:
    """First row and the row after the last that each edge crosses: y0 <= row < y1, whichever way it runs."""
    start, stop = np.ceil(np.minimum(here[:, 0], there[:, 0])), np.ceil(np.maximum(here[:, 0], there[:, 0]))
    return np.clip(start, 0, rows).astype(np.intp), np.clip(stop, 0, rows).astype(np.intp)


def _crossings(
    polygons: Sequence[tuple[int, FloatArray]], shape: tuple[int, int, int]
) -> Iterator[tuple[IndexArray, IndexArray, FloatArray]]:
    """Slice, row and x of each crossing of an edge and a row of voxel centres, in blocks of bounded size."""
    for group in _batches(polygons):
        here, there = _edges(group)
        start, stop = _row_range(here, there, shape[1])
        count = stop - start
        z = np.repeat([z for z, _ in group], [len(yx) for _, yx in group])
        crossing = np.flatnonzero(count > 0)
        ends = np.cumsum(count[crossing])
        for edges in np.split(crossing, np.searchsorted(ends, np.arange(_BLOCK, count.sum(), _BLOCK))):
            edge = np.repeat(edges, count[edges])
            first = np.repeat(np.cumsum(count[edges]) - count[edges], count[edges])
            row = start[edge] + np.arange(edge.size) - first
            share = (row - here[edge, 0]) / (there[edge, 0] - here[edge, 0])
            yield z[edge], row, here[edge, 1] + share * (there[edge, 1] - here[edge, 1])


def _batches(polygons: Sequence[tuple[int, FloatArray]]) -> Iterator[Sequence[tuple[int, FloatArray]]]:
    """Polygons by the thousand: enough to be fast."""
    for start in range(0, len(polygons), 1000):
        yield polygons[start : start + 1000]

"""The rules behind the table of marching cubes; ``python -m tests.qa.marching_cubes_rule`` prints the table."""

import sys
from collections.abc import Iterable
from itertools import product
from typing import Final

import numpy as np

from oarlock.arrays import FloatArray
from oarlock.qa.marching_cubes import EDGES

Corner = tuple[int, int, int]

CORNERS: Final[tuple[Corner, ...]] = tuple((z, y, x) for z, y, x in product((0, 1), repeat=3))
"""The eight voxels around a raster point; the first one is the highest bit of its code, the last one the lowest."""


def triangles_by_rule() -> tuple[FloatArray, ...]:
    """For each of the 256 codes the marching-cubes triangles, (n, 3, 3) corner points on the unit cube.

    The rules, which give the classic table (Lorensen and Cline 1987, Figure 3, with its complementary cases):

    1. A cube with more than four voxels inside is drawn like its complement.
    2. The surface crosses each edge between inside and outside at its middle. On each face of the cube, each run of inside
       corners is cut off by one straight line; on a face with two opposite inside corners each is cut off by itself.
    3. These lines close to polygons. Each is cut into triangles that share one of its points: the point for which their
       area on the unit cube is largest (the triangle of three parallel edges of case 5, the inner diagonals of case 11).
    """
    return tuple(_triangulate(_inside(code)) for code in range(256))


def _inside(code: int) -> frozenset[Corner]:
    inside = frozenset(corner for bit, corner in enumerate(CORNERS) if code & (128 >> bit))
    return inside if len(inside) <= 4 else frozenset(CORNERS) - inside


def _triangulate(inside: frozenset[Corner]) -> FloatArray:
    fans = [max(_fans(polygon), key=lambda fan: round(_area(fan), 9)) for polygon in _polygons(inside)]
    return np.concatenate([*fans, np.empty((0, 3, 3))])


def _faces() -> Iterable[list[Corner]]:
    """The four corners of each face, in a circle."""
    for axis, side in product(range(3), (0, 1)):
        circle = np.insert([(0, 0), (0, 1), (1, 1), (1, 0)], axis, side, axis=1)
        yield [(int(z), int(y), int(x)) for z, y, x in circle]


def _polygons(inside: frozenset[Corner]) -> list[FloatArray]:
    """The closed polygons that cut the inside corners off, (n, 3) points each."""
    neighbours: dict[tuple[float, ...], list[tuple[float, ...]]] = {}
    for face in _faces():
        for first in range(4):
            if face[first] in inside and face[first - 1] not in inside:
                last = first
                while face[(last + 1) % 4] in inside:
                    last += 1
                ends = _middle(face[first - 1], face[first]), _middle(face[last % 4], face[(last + 1) % 4])
                neighbours.setdefault(ends[0], []).append(ends[1])
                neighbours.setdefault(ends[1], []).append(ends[0])
    polygons = []
    while neighbours:
        polygon = [next(iter(neighbours))]
        while onward := [point for point in neighbours.pop(polygon[-1]) if point in neighbours]:
            polygon.append(onward[0])
        polygons.append(np.array(polygon))
    return polygons


def _middle(a: Corner, b: Corner) -> tuple[float, ...]:
    return tuple((p + q) / 2 for p, q in zip(a, b, strict=True))


def _fans(polygon: FloatArray) -> list[FloatArray]:
    """The ways to cut a polygon into triangles around one of its points, (n - 2, 3, 3) each."""
    turns = [np.roll(polygon, -start, axis=0) for start in range(len(polygon))]
    return [np.stack([np.broadcast_to(p[0], p[1:-1].shape), p[1:-1], p[2:]], axis=1) for p in turns]


def _area(triangles: FloatArray) -> float:
    sides = triangles[:, 1:] - triangles[:, :1]
    return float(np.linalg.norm(np.cross(sides[:, 0], sides[:, 1]), axis=1).sum()) / 2


def table_by_rule() -> str:
    """The table as the module has it, without its line breaks."""
    letters = {edge: chr(ord("a") + place) for place, edge in enumerate(EDGES)}
    return "|".join(
        "".join(letters[z, y, x] for triangle in found.tolist() for z, y, x in triangle) for found in triangles_by_rule()
    )


if __name__ == "__main__":
    sys.stdout.write(table_by_rule())

"""A series and its contours for a person to look through.

Two files beside the results, which outlive the CT.

``review.json`` (the head) says what lies where in ``review.bin`` (the body), which is a row of zlib streams: each slice, each
organ's mask, each list of surface points. A browser unpacks the one that it shows next without the others. All is turned as
one looks at it (:class:`oarlock.pictures.planes.Axes`), so the reader turns nothing. docs/web.md describes both files.

Grey values are Hounsfield units in 256 steps that are finest where soft tissue is told apart: every window can be chosen.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import IO, Any, Final, Self

import numpy as np
import numpy.typing as npt

from oarlock.arrays import FloatArray, IndexArray
from oarlock.geometry.grid import Grid, Orientation
from oarlock.geometry.masks import Box, Crop, OARMasks, volume_ml, voxels_per_slice
from oarlock.organs.catalogue import OAR
from oarlock.pictures.contact_sheet import body_box
from oarlock.pictures.packing import pack_noisy
from oarlock.pictures.planes import Scene

VERSION: Final = 1

LARGEST: Final = 100_000_000
"""Most voxels of the pictures, a byte each in a browser's memory; larger series are shown with fewer rows and columns."""

MARGIN_MM: Final = 8.0
"""Shown around the body."""

STEPS_HU: Final = ((-1024, 16), (-200, 4), (-20, 2), (100, 4), (300, 20), (800, 100), (3100, 0))
"""From where on grey values are how far apart; noise in a planning CT is 10 HU or more."""

FARTHEST_MM: Final = 6553.5

Points = tuple[IndexArray, FloatArray]
"""(n, 3) raster points of the grid, and (n,) distances in mm."""


@dataclass(frozen=True, eq=False)
class Overlay:
    """Another structure set, to be laid over the series' own.

    :param crops: its organs.
    :param beyond: of each organ that was compared, where our surface and where theirs lies beyond the tolerance.
    """

    crops: Mapping[OAR, Crop]
    beyond: Mapping[OAR, tuple[Points, Points]] = field(default_factory=dict)


def grey_edges() -> npt.NDArray[np.int16]:
    """(n,) lowest Hounsfield unit of each grey value, at most 256."""
    bounds = [np.arange(low, high, step) for (low, step), (high, _) in pairwise(STEPS_HU)]
    return np.concatenate(bounds).astype(np.int16)


def grey_values() -> list[int]:
    """The Hounsfield unit that each grey value stands for.

    The middle of its range.
    """
    edges = grey_edges().astype(int)
    ends = np.append(edges[1:], STEPS_HU[-1][0])
    return [int(value) for value in (edges + ends - 1) // 2]


def _grey_table() -> npt.NDArray[np.uint8]:
    """(65536,) grey value of an int16 whose bits are the index."""
    units = np.arange(1 << 16, dtype=np.uint16).view(np.int16)
    return np.clip(np.searchsorted(grey_edges(), units, side="right") - 1, 0, 255).astype(np.uint8)


def write_review(
    head: Path,
    body: Path,
    hu: npt.NDArray[np.int16],
    grid: Grid,
    masks: OARMasks,
    *,
    model: str,
    overlays: Sequence[Overlay] = (),
) -> None:
    """Write the two files.

    8 MB for 186 slices of 512 × 512.

    :param hu: (z, y, x) on ``grid``.
    :param model: who drew the contours, ModelManifest.identity.
    """
    with body.open("wb") as file:
        described = _Review(hu, masks, _Packer.of(grid, file)).describe(model, overlays)
    head.write_text(json.dumps(described, separators=(",", ":")), encoding="ascii")


def pack_overlay(overlay: Overlay, grid: Grid) -> tuple[dict[str, Any], bytes]:
    """One structure set more for a review that is written.

    Its entry in the head, and the data that its parts lie in.
    """
    file = BytesIO()
    return _Packer.of(grid, file).overlay(overlay), file.getvalue()


class _Parts:
    """A file of zlib streams, one behind the other."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._end = file, 0

    def add(self, values: npt.NDArray[Any]) -> list[int]:
        """Append an array: where its stream begins, and its length in bytes."""
        packed = pack_noisy(values)
        self._file.write(packed)
        begin, self._end = self._end, self._end + len(packed)
        return [begin, len(packed)]


@dataclass(frozen=True, eq=False)
class _Review:
    """The parts of a review; ``window`` is what is shown of rows and columns, in turned indices."""

    hu: npt.NDArray[np.int16]
    masks: OARMasks
    packer: "_Packer"

    def describe(self, model: str, overlays: Sequence[Overlay]) -> dict[str, Any]:
        scene = Scene.of(self.hu, self.masks.bits, self.packer.grid)
        axes, turn = scene.axes, self.packer.turn
        crops = {oar: crop for oar in self.masks.oars if (crop := self.masks.crop(oar)) is not None}
        window = _window(
            scene, [turn.box(crop[0]) for one in (crops, *(over.crops for over in overlays)) for crop in one.values()]
        )
        step = _step(window, len(axes.z_mm))
        organs = [self._organ(oar, crops.get(oar)) for oar in self.masks.oars]
        others = [self.packer.overlay(overlay) for overlay in overlays]
        (y, x), (y_mm, x_mm) = window, (axes.y_mm, axes.x_mm)
        return {
            "version": VERSION,
            "model": model,
            "hu": grey_values(),
            "slices": len(axes.z_mm),
            "slice_numbers": [axes.slice_index(z) + 1 for z in range(len(axes.z_mm))],
            "z_mm": _rounded(axes.z_mm - axes.z_mm[0]),
            "drift_mm": _rounded(axes.drift_mm) if np.abs(axes.drift_mm).max() > 0.01 else None,
            "spacing_mm": _rounded([y_mm[1] - y_mm[0], x_mm[1] - x_mm[0]]),
            "window": {"y": [y.start, y.stop], "x": [x.start, x.stop], "step": step},
            "organs": organs,
            "overlays": others,
            "images": [self.packer.parts.add(image) for image in _images(scene.image, window, step)],
        }

    def _organ(self, oar: OAR, crop: Crop | None) -> dict[str, Any]:
        red, green, blue = oar.colour
        known = {"name": oar.name, "colour": f"#{red:02x}{green:02x}{blue:02x}"}
        return known | (
            self.packer.mask(crop) if crop is not None else {"volume_ml": 0.0, "box": None, "part": None, "areas": []}
        )


@dataclass(frozen=True, eq=False)
class _Packer:
    """Packs what is drawn on a grid, turned as one looks at it."""

    grid: Grid
    turn: "_Turn"
    parts: _Parts

    @classmethod
    def of(cls, grid: Grid, file: IO[bytes]) -> Self:
        return cls(grid, _Turn(grid.orientation(), grid.shape), _Parts(file))

    def mask(self, crop: Crop) -> dict[str, Any]:
        """Where an organ lies, its voxels on each of its slices, and its packed bits."""
        mask = self.turn.orientation.turned(crop[1])
        return {
            "volume_ml": round(volume_ml(crop, self.grid), 4),
            "box": [[along.start, along.stop] for along in self.turn.box(crop[0])],
            "areas": voxels_per_slice(mask).tolist(),
            "part": self.parts.add(np.packbits(mask)),
        }

    def overlay(self, overlay: Overlay) -> dict[str, Any]:
        """Another structure set, and where it and ours are too far apart."""
        organs = [{"name": oar.name} | self.mask(crop) for oar, crop in overlay.crops.items()]
        beyond = {
            oar.name: {side: self._points(points) for side, points in zip(("predicted", "reference"), both, strict=True)}
            for oar, both in overlay.beyond.items()
        }
        return {"organs": organs, "beyond": beyond}

    def _points(self, points: Points) -> dict[str, Any]:
        """Surface points as (n, 4) uint16: raster point (z, y, x) and distance in 0.1 mm, rounded up, sorted by slice."""
        raster, distances_mm = self.turn.raster(points[0]), points[1]
        tenths = np.ceil(np.minimum(distances_mm, FARTHEST_MM) * 10 - 1e-6)
        rows = np.column_stack([raster, tenths]).astype("<u2")
        rows = rows[np.lexsort((rows[:, 2], rows[:, 1], rows[:, 0]))]
        return {"count": len(rows), "part": self.parts.add(rows)}


@dataclass(frozen=True)
class _Turn:
    """Turns places of a grid as :class:`Orientation` turns its volumes."""

    orientation: Orientation
    shape: tuple[int, int, int]

    def box(self, box: Box) -> Box:
        sizes, spans = self.orientation.in_patient_order(self.shape), self.orientation.in_patient_order(box)
        z, y, x = (
            slice(size - span.stop, size - span.start) if flip else span
            for size, span, flip in zip(sizes, spans, self.orientation.flipped, strict=True)
        )
        return z, y, x

    def raster(self, points: IndexArray) -> IndexArray:
        """(n, 3) raster points: of n voxels along an axis there are n + 1."""
        turned = points[:, list(self.orientation.axes)]
        sizes = np.array(self.orientation.in_patient_order(self.shape))
        return np.asarray(np.where(self.orientation.flipped, sizes - turned, turned))


def _window(scene: Scene, boxes: Sequence[Box]) -> tuple[slice, slice]:
    """Rows and columns around the body and every organ."""
    found, body = [], body_box(scene)
    for axis, positions in ((1, scene.axes.y_mm), (2, scene.axes.x_mm)):
        margin = round(MARGIN_MM / float(positions[1] - positions[0]))
        low, high = body[axis]
        starts, stops = [low, *(box[axis].start for box in boxes)], [high + 1, *(box[axis].stop for box in boxes)]
        found.append(slice(max(0, min(starts) - margin), min(len(positions), max(stops) + margin)))
    return found[0], found[1]


def _step(window: tuple[slice, slice], slices: int) -> int:
    """Of how many rows and columns one is kept."""
    rows, columns = (along.stop - along.start for along in window)
    return int(np.ceil(np.sqrt(max(1.0, rows * columns * slices / LARGEST))))


def _images(image: npt.NDArray[np.int16], window: tuple[slice, slice], step: int) -> Iterator[npt.NDArray[np.uint8]]:
    """Each slice in grey values, each but the first of a row less the one before it (modulo 256)."""
    table = _grey_table()
    rows, columns = (slice(along.start, along.stop, step) for along in window)
    for plane in image:
        grey = table[plane[rows, columns].astype(np.int16).view(np.uint16)]
        yield np.diff(grey, axis=1, prepend=np.uint8(0))


def _rounded(values: Any) -> list[Any]:
    return list(np.round(np.asarray(values, dtype=np.float64), 4).tolist())

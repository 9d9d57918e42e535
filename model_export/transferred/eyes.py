"""The centre of an eye.

Where the CT looks most like the mean picture of an expert's eyes.

A network that has seen three pairs of eyes finds an eye but not its middle. The picture of an eye, a sphere of water in fat
with bone on one side, is much the same in everybody: the mean over the matched scans' eyes, each about the middle of its
contour, right ones mirrored, is slid over the neighbourhood of a first guess; the best correlation is at the middle.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from model_export.transferred.scans import F32, Point, Scan

RADIUS_MM: Final = 18
WINDOW_HU: Final = (-120.0, 120.0)
SEARCHES_MM: Final = ((16, 2), (3, 1))
"""How far and in which steps it is looked for: roughly, then to the millimetre."""
LEAST_CORRELATION: Final = 0.5
LEAST_KNOWN: Final = 0.75
_EVERY: Final = 7
"""One in seven of the picture's voxels is enough to correlate by."""


@dataclass(frozen=True, slots=True)
class EyePicture:
    """The mean CT around a left eye.

    Offsets (n, 3) in mm, z, y, x, and the normalised values there.
    """

    offsets: npt.NDArray[np.intp]
    values: F32


def mean_eye(eyes: Iterable[tuple[Scan, Point, str]]) -> EyePicture:
    """The mean picture of some eyes.

    Each comes with its middle and "Eye_L" or "Eye_R".
    """
    pictures = [_around(scan, middle, RADIUS_MM, flip=name == "Eye_R") for scan, middle, name in eyes]
    axis = np.arange(-RADIUS_MM, RADIUS_MM + 1)
    grid = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    offsets = grid[(grid**2).sum(axis=1) <= RADIUS_MM**2][::_EVERY]
    values = np.mean(pictures, axis=0)[tuple((offsets + RADIUS_MM).T)]
    return EyePicture(offsets, ((values - values.mean()) / values.std()).astype(np.float32))


def refined_eye(scan: Scan, guess: Point, name: str, picture: EyePicture) -> tuple[Point, float] | None:
    """The middle of the eye near a guess and its correlation.

    None where the CT shows no eye there, or not all of it.
    """
    place, best = np.asarray(guess[::-1]), -1.0
    flip = name == "Eye_R"
    for reach, step in SEARCHES_MM:
        move, best = _best_move(_around(scan, _xyz(place), RADIUS_MM + reach, flip=flip), reach, step, picture)
        place = place + move * [1.0, 1.0, -1.0 if flip else 1.0]
    if best < LEAST_CORRELATION or _known_share(scan, place, picture.offsets) < LEAST_KNOWN:
        return None
    return _xyz(place), best


def _best_move(hu: F32, reach: int, step: int, picture: EyePicture) -> tuple[F32, float]:
    """The move (z, y, x) of the highest correlation, between the steps by its neighbours, and that correlation."""
    steps = np.arange(-reach, reach + 1, step)
    moves = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, 3)
    moves = moves[(moves**2).sum(axis=1) <= reach**2]
    middle = RADIUS_MM + reach
    found = np.array([_correlation(hu[tuple((picture.offsets + middle + move).T)], picture.values) for move in moves])
    weights = np.exp((found - found.max()) / 0.01)
    return (moves * weights[:, None]).sum(axis=0) / weights.sum(), float(found.max())


def _correlation(values: F32, normalised: F32) -> float:
    deviation = float(values.std())
    return float(((values - values.mean()) * normalised).mean() / deviation) if deviation > 1.0 else -1.0


def _around(scan: Scan, middle: Point, reach_mm: int, *, flip: bool) -> F32:
    """The clipped CT in a cube of 1 mm voxels (z, y, x) around a place, mirrored if asked."""
    axis = np.arange(-reach_mm, reach_mm + 1, dtype=np.float64)
    where = [(axis + place) / step for place, step in zip(middle[::-1], scan.spacing_mm, strict=True)]
    windows = [slice(max(int(at[0]) - 1, 0), max(int(at[-1]) + 3, 1)) for at in where]
    cut = np.clip(scan.hu[tuple(windows)], *WINDOW_HU)
    if not cut.size:
        return np.full([len(axis)] * 3, WINDOW_HU[0], np.float32)
    grid = np.stack(np.meshgrid(*(at - window.start for at, window in zip(where, windows, strict=True)), indexing="ij"))
    hu = ndimage.map_coordinates(cut, grid, order=1, mode="nearest", output=np.float32)
    return hu[:, :, ::-1] if flip else hu


def _known_share(scan: Scan, place: npt.NDArray[np.float64], offsets: npt.NDArray[np.intp]) -> float:
    index = np.rint((offsets + place) / np.asarray(scan.spacing_mm)).astype(np.intp)
    inside = ((index >= 0) & (index < scan.known.shape)).all(axis=1)
    return float(scan.known[tuple(index[inside].T)].sum()) / len(offsets)


def _xyz(place: npt.NDArray[np.float64]) -> Point:
    return float(place[2]), float(place[1]), float(place[0])

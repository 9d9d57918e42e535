"""One organ where two drawings of it differ most.

The predicted contour and the reference over it, on one slice.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from oarlock.geometry.masks import Crop
from oarlock.organs.catalogue import OAR
from oarlock.pictures.canvas import Canvas, Colour, draw_cut
from oarlock.pictures.layout import close_up, draw_letters, draw_marks
from oarlock.pictures.slice_archive import Rendering

REFERENCE: Final[Colour] = (255, 255, 255)
"""White: no organ has it."""

_OURS, _THEIRS, _EITHER = 0, 1, 2
_QUALITY: Final = 88
_SURROUNDINGS_MM: Final = 25.0


def worst_slice(rendering: Rendering, oar: OAR, reference: Mapping[OAR, Crop] | None) -> int:
    """The slice on which two drawings differ most.

    Most voxels are in one drawing alone; without a reference the slice that shows most.

    :param reference: what the other side drew, each organ in its box.
    """
    crop = (reference or {}).get(oar)
    if crop is None:
        return rendering.best_slice(oar)
    box, _ = crop
    drawn = np.flatnonzero(rendering.counts[rendering.oars.index(oar)]) if oar in rendering.oars else np.zeros(0, np.intp)
    slices: list[int] = sorted({*drawn.tolist(), *range(box[0].start, box[0].stop)})
    apart = [int(np.count_nonzero(_ours(rendering, oar, z) ^ _theirs(rendering, crop, z))) for z in slices]
    return slices[int(np.argmax(apart))]


def overlay(rendering: Rendering, oar: OAR, z: int, reference: Mapping[OAR, Crop] | None, size: int) -> bytes:
    """A square close-up of one organ, as a JPEG.

    On a slice of the grid.

    The predicted contour has the organ's colour, the reference is white.
    """
    crop = (reference or {}).get(oar)
    theirs = np.zeros((rendering.grid.rows, rendering.grid.columns), np.bool_) if crop is None else _theirs(rendering, crop, z)
    ours = _ours(rendering, oar, z)
    words = ours * np.uint32(1 << _OURS) | theirs * np.uint32(1 << _THEIRS) | (ours | theirs) * np.uint32(1 << _EITHER)
    cut = replace(rendering.cut(z), bits=rendering.axes.turned_slice(words.astype(np.uint32)))
    frame = close_up(cut, _EITHER, size, _SURROUNDINGS_MM)
    canvas = Canvas(size, size)
    canvas.picture((0, 0), draw_cut(cut, [(_OURS, oar), (_THEIRS, replace(oar, colour=REFERENCE))], frame))
    draw_letters(canvas, (0, 0), frame, cut.letters)
    draw_marks(canvas, (0, 0), frame, f"slice {z + 1}")
    return to_jpeg(canvas.to_pixels())


def to_jpeg(pixels: npt.NDArray[np.uint8]) -> bytes:
    """An RGB picture as a JPEG, a tenth of the PNG."""
    done, encoded = cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    assert done  # an RGB array can always be encoded
    return encoded.tobytes()


def _ours(rendering: Rendering, oar: OAR, z: int) -> npt.NDArray[np.bool_]:
    """(rows, columns) of the grid."""
    if oar not in rendering.oars:
        return np.zeros((rendering.grid.rows, rendering.grid.columns), np.bool_)
    return np.asarray(rendering.masks_of(z) >> np.uint32(rendering.oars.index(oar)) & 1, dtype=np.bool_)


def _theirs(rendering: Rendering, crop: Crop, z: int) -> npt.NDArray[np.bool_]:
    box, mask = crop
    found = np.zeros((rendering.grid.rows, rendering.grid.columns), np.bool_)
    if box[0].start <= z < box[0].stop:
        found[box[1], box[2]] = mask[z - box[0].start]
    return found

"""Drawing a cut, its contours and the words around it.

The pixels of the preview.

Cuts are drawn at twice their size and averaged, so lines are smooth. The type is the one that comes with Pillow, which knows
ASCII and a middle dot: other text is shown with question marks.
"""

from collections.abc import Sequence
from functools import cache
from typing import Final, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image as PillowImage
from PIL import ImageDraw, ImageFont

from oarlock.arrays import FloatArray, Mask
from oarlock.organs.catalogue import OAR
from oarlock.pictures.planes import Cut, Image

Colour = tuple[int, int, int]
Pixels = npt.NDArray[np.uint8]
At = tuple[float, float]

PAPER: Final[Colour] = (13, 15, 18)
INK: Final[Colour] = (226, 229, 233)
QUIET: Final[Colour] = (128, 136, 147)
LETTER: Final[Colour] = (190, 197, 206)
FAINT: Final[Colour] = (58, 64, 72)
AMBER: Final[Colour] = (255, 186, 82)
SHADOW: Final[Colour] = (0, 0, 0)

WINDOW_HU: Final = (-160.0, 240.0)
"""Soft tissue: width 400, level 40."""

_SUPERSAMPLING: Final = 2
_LINE: Final = 3
_FILL: Final = 0.13
_OUTSIDE: Final = -9.0


class Viewport(NamedTuple):
    """What part of a cut is shown.

    The middle in mm, the size in pixels, and the scale.
    """

    across_mm: float
    down_mm: float
    width: int
    height: int
    mm_per_pixel: float


def to_grey(image: Image) -> Pixels:
    """HU to grey through the soft-tissue window; uint8 is grey already."""
    if image.dtype == np.uint8:
        return image
    low, high = WINDOW_HU
    scaled = (image.astype(np.float32) - low) * (255 / (high - low))
    return np.asarray(np.clip(scaled, 0, 255).astype(np.uint8))


def draw_cut(cut: Cut, oars: Sequence[tuple[int, OAR]], frame: Viewport) -> Pixels:
    """(height, width, 3) picture of a cut with contours, large organs first.

    A contour is the 0.5 level of the mask, interpolated between voxel centres.

    :param oars: the organs to draw, each with its bit.
    """
    rows, columns = _maps(cut, frame)
    grey = cv2.remap(np.ascontiguousarray(cut.image), columns, rows, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    grey = to_grey(grey)
    grey[(rows <= _OUTSIDE) | (columns < -0.5) | (columns > len(cut.across_mm) - 0.5)] = 0
    picture: Pixels = np.asarray(cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB), dtype=np.uint8)
    present = [(oar, (cut.bits & np.uint32(1 << bit)) != 0) for bit, oar in oars]
    for oar, mask in sorted(present, key=lambda pair: -int(pair[1].sum())):
        if mask.any():
            _draw_organ(picture, mask, oar.colour, rows, columns)
    size = frame.width, frame.height
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA))


def _maps(cut: Cut, frame: Viewport) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Row and column index of the cut under each pixel of the supersampled picture."""
    down = frame.down_mm + _pixel_offsets(frame.height) * frame.mm_per_pixel
    across = frame.across_mm + _pixel_offsets(frame.width) * frame.mm_per_pixel
    indices = np.arange(len(cut.down_mm))
    rows = np.interp(down, cut.down_mm, indices)
    margin = _margin(cut.down_mm)
    rows[(down < cut.down_mm[0] - margin) | (down > cut.down_mm[-1] + margin)] = _OUTSIDE
    shift = np.interp(rows, indices, cut.shift_mm)
    columns = (across[None, :] - shift[:, None] - cut.across_mm[0]) / (2 * _margin(cut.across_mm))
    wide = np.broadcast_to(rows[:, None], columns.shape)
    return np.ascontiguousarray(wide, dtype=np.float32), columns.astype(np.float32)


def _pixel_offsets(pixels: int) -> FloatArray:
    n = pixels * _SUPERSAMPLING
    return (np.arange(n) + 0.5) / _SUPERSAMPLING - pixels / 2


def _margin(positions: FloatArray) -> float:
    """Half a voxel."""
    return float(np.median(np.diff(positions))) / 2 if len(positions) > 1 else 0.5


def _draw_organ(
    picture: Pixels, mask: Mask, colour: Colour, rows: npt.NDArray[np.float32], columns: npt.NDArray[np.float32]
) -> None:
    """Draw a contour, and inside of it a light fill (``_FILL``), in place."""
    near = _pixels_near(mask, rows, columns)
    level = cv2.remap(mask.astype(np.uint8) * 255, columns[near], rows[near], cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    inside = (level > 127).astype(np.uint8)
    x, y, width, height = cv2.boundingRect(inside)
    if width == 0:
        return
    shown = inside[y : y + height, x : x + width]
    x, y = x + near[1].start, y + near[0].start
    box = slice(y, y + height), slice(x, x + width)
    tinted = cv2.addWeighted(picture[box], 1 - _FILL, np.full_like(picture[box], colour), _FILL, 0)
    cv2.copyTo(tinted, shown, picture[box])
    contours, _ = cv2.findContours(shown, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE, offset=(x, y))
    cv2.polylines(picture, contours, isClosed=True, color=colour, thickness=_LINE, lineType=cv2.LINE_AA)


def _pixels_near(mask: Mask, rows: npt.NDArray[np.float32], columns: npt.NDArray[np.float32]) -> tuple[slice, slice]:
    """Rows and columns of a picture that hold every pixel with something of a mask within a voxel of it."""
    x, y, width, height = cv2.boundingRect(mask.astype(np.uint8))
    down = np.flatnonzero((rows[:, 0] > y - 1) & (rows[:, 0] < y + height))
    across = np.flatnonzero((columns.max(axis=0) > x - 1) & (columns.min(axis=0) < x + width))
    if not down.size or not across.size:
        return slice(0, 1), slice(0, 1)
    return slice(int(down[0]), int(down[-1]) + 1), slice(int(across[0]), int(across[-1]) + 1)


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


class Canvas:
    """A dark sheet in RGB with text, lines and pictures.

    Coordinates are in pixels from the top left.
    """

    def __init__(self, width: int, height: int) -> None:
        self._sheet = PillowImage.new("RGB", (width, height), PAPER)
        self._draw = ImageDraw.Draw(self._sheet)

    def picture(self, corner: tuple[int, int], pixels: Pixels) -> None:
        self._sheet.paste(PillowImage.fromarray(pixels), corner)

    def text(self, at: At, text: str, size: int = 15, colour: Colour = INK, anchor: str = "ls") -> None:
        """Write text; ``anchor`` is Pillow's.

        Horizontal l, m or r; vertical a(scender), m(iddle) or s (baseline).
        """
        self._draw.text(at, to_printable(text), font=_font(size), fill=colour, anchor=anchor)

    def width_of(self, text: str, size: int = 15) -> float:
        return self._draw.textlength(to_printable(text), font=_font(size))

    def label(self, at: At, text: str, size: int = 13, colour: Colour = INK, anchor: str = "ls") -> None:
        """Write text on a picture, with a dark rim.

        So it is read on bone too.
        """
        self._draw.text(at, to_printable(text), font=_font(size), fill=colour, anchor=anchor, stroke_width=2, stroke_fill=SHADOW)

    def line(self, points: Sequence[At], colour: Colour) -> None:
        """A thin line on a picture, with a dark rim."""
        self._draw.line(points, fill=SHADOW, width=3)
        self._draw.line(points, fill=colour, width=1)

    def chip(self, at: At, text: str, size: int, colour: Colour) -> None:
        """Draw a word in a rounded frame that ends at a point.

        The point is in the middle of its height.
        """
        right, middle = at
        width = self.width_of(text, size) + 26
        box = (right - width, middle - size, right, middle + size)
        self._draw.rounded_rectangle(box, radius=size, outline=colour, width=1)
        self.text((right - width / 2, middle), text, size, colour, "mm")

    def swatch(self, at: At, colour: Colour) -> None:
        """Draw the mark of an organ in a list.

        ``at`` is the middle of its left edge.
        """
        x, middle = at
        self._draw.rounded_rectangle((x, middle - 6, x + 12, middle + 6), radius=3, fill=colour)

    def to_pixels(self) -> Pixels:
        return np.array(self._sheet)

    def to_png(self) -> bytes:
        """PNG without any text in it."""
        done, encoded = cv2.imencode(".png", cv2.cvtColor(self.to_pixels(), cv2.COLOR_RGB2BGR), [cv2.IMWRITE_PNG_COMPRESSION, 3])
        assert done  # an RGB array can always be encoded
        return encoded.tobytes()


def to_printable(text: str) -> str:
    """The text in the characters that the type has."""
    return "".join(c if " " <= c <= "~" or c == "·" else "?" for c in text)

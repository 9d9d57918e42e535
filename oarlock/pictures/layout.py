"""What contact sheets and single pictures have in common.

Header, legend, marks, and what part of a slice is shown.
"""

from typing import Final

import numpy as np

from oarlock.geometry.body import BODY_HU
from oarlock.geometry.components import largest_piece
from oarlock.geometry.grid import Grid
from oarlock.geometry.masks import bounding_box
from oarlock.organs.catalogue import OAR
from oarlock.pictures.canvas import AMBER, FAINT, INK, LETTER, QUIET, At, Canvas, Viewport
from oarlock.pictures.planes import Cut, Image, Letters

MARGIN: Final = 32
HEADER: Final = 96
LEGEND: Final = 250
LINE: Final = 38
COARSE: Final = (2, 6, 6)
"""Steps (z, y, x) at which the body is looked for."""

_MIN_FIELD_MM: Final = 225.0
_SURROUNDINGS_MM: Final = 45.0
_BARS_MM: Final = (50, 20, 10)
_LONGEST: Final = 64
_LEVELS_WIDE: Final = 38


def draw_entry(canvas: Canvas, at: At, width: float, oar: OAR, millilitres: float) -> None:
    """Draw one line of the legend: swatch, name, volume in ml.

    ``at`` is the middle of its left edge.
    """
    x, middle = at
    drawn = millilitres > 0
    ink = INK if drawn else QUIET
    canvas.swatch(at, oar.colour if drawn else FAINT)
    canvas.text((x + 22, middle), oar.name, 15, ink, "lm")
    canvas.text((x + width, middle), volume_text(millilitres), 15, ink, "rm")


def volume_text(millilitres: float) -> str:
    """A volume with as many digits as mean something."""
    if millilitres <= 0:
        return "not drawn"
    digits = 2 if millilitres < 10 else 1 if millilitres < 100 else 0
    return f"{millilitres:.{digits}f} ml"


def draw_letters(canvas: Canvas, corner: tuple[int, int], frame: Viewport, letters: Letters) -> None:
    """Draw which way the patient lies, on a picture's four edges.

    Clear of the levels at the right of a cut along the body.
    """
    (x, y), (width, height) = corner, (frame.width, frame.height)
    indent = _LEVELS_WIDE if letters.top == "H" else 10
    canvas.label((x + 10, y + height / 2), letters.left, 13, LETTER, "lm")
    canvas.label((x + width - indent, y + height / 2), letters.right, 13, LETTER, "rm")
    canvas.label((x + width / 2, y + 8), letters.top, 13, LETTER, "ma")
    canvas.label((x + width / 2, y + height - 9), letters.bottom, 13, LETTER, "ms")


def draw_marks(canvas: Canvas, corner: tuple[int, int], frame: Viewport, caption: str) -> None:
    """Caption and scale bar on a picture."""
    x, y = corner
    canvas.label((x + 12, y + 21), caption)
    length_mm = next((mm for mm in _BARS_MM if mm < frame.width * frame.mm_per_pixel / 4), _BARS_MM[-1])
    left, right, bar = x + 12, x + 12 + length_mm / frame.mm_per_pixel, y + frame.height - 14
    canvas.line([(left, bar - 4), (left, bar), (right, bar), (right, bar - 4)], LETTER)
    canvas.label((right + 8, bar + 3), f"{length_mm // 10} cm", 11, LETTER)


def draw_header(canvas: Canvas, right: float, title: str, model: str, facts: str) -> None:
    """Title, author and facts across the top; always with the word UNAPPROVED."""
    canvas.text((MARGIN, 46), title, 26)
    canvas.text((MARGIN, 73), f"Drawn by {model[:_LONGEST]} · Oarlock" if model else "Oarlock", 15, QUIET)
    canvas.chip((right, 38), "UNAPPROVED", 16, AMBER)
    canvas.text((right, 73), facts, 15, QUIET, "rs")


def grid_facts(grid: Grid) -> str:
    """Size and spacing of a series in words, and the window."""
    slices, rows, columns = grid.shape
    dz, dy, dx = grid.spacing_mm
    return f"{slices} slices · {rows} x {columns} · {dz:.3g} x {dy:.3g} x {dx:.3g} mm · W 400 L 40"


def close_up(cut: Cut, bit: int, size: int, surroundings_mm: float = _SURROUNDINGS_MM) -> Viewport:
    """An organ in an axial cut, in a square of ``size`` pixels.

    With its surroundings.
    """
    rows, columns = np.nonzero(cut.bits & np.uint32(1 << bit))
    if rows.size == 0:
        return square_frame(cut, size)
    down, across = cut.down_mm[[rows.min(), rows.max()]], cut.across_mm[[columns.min(), columns.max()]]
    field = max(np.ptp(down), np.ptp(across)) + 2 * surroundings_mm
    return Viewport(float(across.mean()), float(down.mean()), size, size, float(field) / size)


def square_frame(cut: Cut, size: int) -> Viewport:
    """The body in an axial cut, in a square of ``size`` pixels.

    With a margin.
    """
    rows, columns = _extent(cut.image[:: COARSE[1], :: COARSE[2]])
    down, across = cut.down_mm[:: COARSE[1]], cut.across_mm[:: COARSE[2]]
    top, bottom, left, right = down[rows[0]], down[rows[1]], across[columns[0]], across[columns[1]]
    field = max(bottom - top, right - left, _MIN_FIELD_MM) * 1.06
    return Viewport(float(left + right) / 2, float(top + bottom) / 2, size, size, float(field) / size)


def _extent(image: Image) -> tuple[tuple[int, int], tuple[int, int]]:
    """First and last row and column of the largest piece of tissue, or of everything."""
    body = largest_piece(image > (0 if image.dtype == np.uint8 else BODY_HU))
    box = bounding_box(body[None])
    if box is None:
        return (0, image.shape[0] - 1), (0, image.shape[1] - 1)
    _, rows, columns = box
    return (rows.start, rows.stop - 1), (columns.start, columns.stop - 1)

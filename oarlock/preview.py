"""What a dosimetrist looks at first: a contact sheet of a series with its contours, or one organ on one slice.

Radiological convention whatever the orientation of the series: axial cuts from the feet, coronal ones from the front, the
patient's right on the left. Nothing about the patient is drawn, and the PNG holds no text.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import scipy.ndimage

from oarlock.canvas import AMBER, FAINT, INK, LETTER, QUIET, At, Canvas, Frame, draw_cut
from oarlock.cuts import Cut, Image, Letters, Profiles, Scene, to_profiles
from oarlock.geometry import FloatArray, Grid
from oarlock.masks import OARMasks
from oarlock.oars import OAR
from oarlock.rendering import Rendering, load_rendering, save_rendering

__all__ = ["Rendering", "contact_sheet", "draw_single", "load_rendering", "save_rendering", "single"]

IntArray = npt.NDArray[np.int16]

_MARGIN: Final = 32
_GAP: Final = 8
_TILE: Final = 420
_SINGLE: Final = 860
_HEADER: Final = 96
_LEGEND: Final = 250
_LEVELS: Final = 6
_GOOD: Final = 0.85
_LEVELS_WIDE: Final = 38
_MIN_FIELD_MM: Final = 225.0
_SURROUNDINGS_MM: Final = 45.0
_BODY_HU: Final = -300
_COARSE: Final = (2, 6, 6)

_GROUPS: Final = (
    ("Lens", "OpticNrv", "Eye"),
    ("Cochlea", "Brainstem"),
    ("Parotid",),
    ("Bone_Mandible",),
    ("Glnd_Submand",),
    ("Lung",),
)
"""Organs that are looked at together, one axial level for each group; a name also stands for its left and right side."""

_CORONAL: Final = ("Brain", "Brainstem", "Parotid", "SpinalCord", "Bone_Mandible")
_SAGITTAL: Final = ("Brainstem", "SpinalCord", "SpinalCanal")


def contact_sheet(hu: IntArray, grid: Grid, masks: OARMasks, *, model: str, note: str = "") -> bytes:
    """Six axial levels where the organs are, a coronal and a sagittal cut, and the volumes of all organs, as a PNG.

    :param hu: (z, y, x) on ``grid``.
    :param model: who drew the contours, ModelManifest.identity.
    :param note: a line of the caller's that holds no patient data.
    """
    scene = Scene.of(hu, masks.bits, grid)
    profiles = to_profiles(scene.bits, masks.oars)
    sheet = _Sheet(scene, grid, masks.oars, profiles, _body_box(scene))
    canvas = Canvas(2 * _MARGIN + 4 * _TILE + 3 * _GAP + _LEGEND, _HEADER + 2 * _TILE + _GAP + _MARGIN)
    facts = f"{note} · {_facts(grid)}" if note else _facts(grid)
    _draw_header(canvas, _MARGIN + 4 * _TILE + 3 * _GAP + _LEGEND, "Organs at risk", model, facts)
    sheet.draw_axial(canvas)
    sheet.draw_coronal(canvas)
    sheet.draw_sagittal(canvas)
    sheet.draw_legend(canvas)
    return canvas.to_png()


def single(hu: IntArray, grid: Grid, masks: OARMasks, *, oar: OAR | None = None, z: int | None = None, model: str = "") -> bytes:
    """One axial slice as a PNG; the same as :func:`draw_single` without a file in between.

    :param oar: draw this organ alone and close up.
    :param z: slice of the grid; without it the one where the organ (or most of the organs) is largest.
    """
    return draw_single(Rendering.of(hu, grid, masks, model=model), oar=oar, z=z)


def draw_single(rendering: Rendering, *, oar: OAR | None = None, z: int | None = None) -> bytes:
    """One axial slice of a rendering as a PNG.

    :param oar: draw this organ alone and close up.
    :param z: slice of the grid, from 0; without it the one that shows most of the organ, or of all organs.
    :raises IndexError: the grid has no such slice.
    """
    slices = len(rendering.counts[0])
    z = rendering.best_slice(oar) if z is None else z
    if not 0 <= z < slices:
        raise IndexError(f"slice {z} of {slices}")
    cut = rendering.cut(z)
    shown = [(bit, organ) for bit, organ in enumerate(rendering.oars) if oar is None or organ == oar]
    title = f"{oar} · slice {z + 1}" if oar else f"Slice {z + 1}"
    canvas = Canvas(2 * _MARGIN + _SINGLE + _LEGEND, _HEADER + _SINGLE + _MARGIN)
    _draw_header(canvas, _MARGIN + _SINGLE + _LEGEND, title, rendering.model, _facts(rendering.grid))
    frame = _close_up(cut, shown[0][0]) if oar and shown else _square_frame(cut, _SINGLE)
    canvas.picture((_MARGIN, _HEADER), draw_cut(cut, shown, frame))
    draw_letters(canvas, (_MARGIN, _HEADER), frame, cut.letters)
    draw_marks(canvas, (_MARGIN, _HEADER), frame, "axial")
    volumes = rendering.millilitres()
    present = [(bit, organ) for bit, organ in shown if rendering.counts[bit, z]]
    for i, (bit, organ) in enumerate(present):
        draw_entry(canvas, (_MARGIN + _SINGLE + 30, _HEADER + 38 * (i + 0.5)), _LEGEND - 30, organ, volumes[bit])
    return canvas.to_png()


@dataclass(frozen=True, eq=False)
class _Sheet:
    """The parts of a contact sheet; ``body`` holds (low, high) of the body in turned indices (z, y, x)."""

    scene: Scene
    grid: Grid
    oars: tuple[OAR, ...]
    profiles: Profiles
    body: tuple[tuple[int, int], tuple[int, int], tuple[int, int]]

    @property
    def levels(self) -> list[int]:
        """Turned slices of the axial tiles, from head to foot."""
        return axial_levels(self.profiles, self.oars, self.scene.axes.z_mm)

    def draw_axial(self, canvas: Canvas) -> None:
        for i, z in enumerate(self.levels):
            cut = self.scene.axial(z)
            corner = _MARGIN + (i % 3) * (_TILE + _GAP), _HEADER + (i // 3) * (_TILE + _GAP)
            frame = _square_frame(cut, _TILE)
            self._draw_tile(canvas, corner, cut, frame)
            draw_marks(canvas, corner, frame, f"{i + 1} · slice {self.scene.axes.slice_index(z) + 1}")

    def draw_coronal(self, canvas: Canvas) -> None:
        y = _plane(self.profiles.y, self.oars, _CORONAL, self.body[1])
        self._draw_long(canvas, _HEADER, self.scene.coronal(y), self.body[2], "coronal")

    def draw_sagittal(self, canvas: Canvas) -> None:
        x = _middle(self.profiles.x, self.oars, _SAGITTAL, self.body[2])
        self._draw_long(canvas, _HEADER + _TILE + _GAP, self.scene.sagittal(x), self.body[1], "sagittal")

    def _draw_long(self, canvas: Canvas, y: int, cut: Cut, across: tuple[int, int], caption: str) -> None:
        """A cut along the body, with the levels of the axial tiles at its edges."""
        x = _MARGIN + 3 * (_TILE + _GAP)
        height_mm = float(np.ptp(cut.down_mm)) * 1.02 + 1
        middle = float(cut.across_mm[list(across)].mean())
        frame = Frame(middle, float(cut.down_mm[[0, -1]].mean()), _TILE, _TILE, max(height_mm, 60) / _TILE)
        self._draw_tile(canvas, (x, y), cut, frame)
        draw_marks(canvas, (x, y), frame, caption)
        for i, z in enumerate(self.levels):
            at = y + _TILE / 2 + (-self.scene.axes.z_mm[z] - frame.down_mm) / frame.mm_per_pixel
            canvas.line([(x + _TILE - 14, at), (x + _TILE - 1, at)], LETTER)
            canvas.label((x + _TILE - 19, at), str(i + 1), 11, LETTER, "rm")

    def _draw_tile(self, canvas: Canvas, corner: tuple[int, int], cut: Cut, frame: Frame) -> None:
        canvas.picture(corner, draw_cut(cut, list(enumerate(self.oars)), frame))
        draw_letters(canvas, corner, frame, cut.letters)

    def draw_legend(self, canvas: Canvas) -> None:
        millilitres = to_millilitres(self.profiles.z, self.grid, flipped=self.scene.axes.flipped[0])
        x = _MARGIN + 4 * _TILE + 3 * _GAP + 30
        step = min(38, (2 * _TILE + _GAP) / max(len(self.oars), 1))
        for i, (oar, volume) in enumerate(zip(self.oars, millilitres, strict=True)):
            draw_entry(canvas, (x, _HEADER + step * (i + 0.5)), _LEGEND - 30, oar, volume)


def draw_entry(canvas: Canvas, at: At, width: float, oar: OAR, millilitres: float) -> None:
    """One line of the legend: swatch, name, volume in ml; ``at`` is the middle of its left edge."""
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


def draw_letters(canvas: Canvas, corner: tuple[int, int], frame: Frame, letters: Letters) -> None:
    """Which way the patient lies, on the four edges of a picture; beside the levels that a cut along the body has on its right."""
    (x, y), (width, height) = corner, (frame.width, frame.height)
    indent = _LEVELS_WIDE if letters.top == "H" else 10
    canvas.label((x + 10, y + height / 2), letters.left, 13, LETTER, "lm")
    canvas.label((x + width - indent, y + height / 2), letters.right, 13, LETTER, "rm")
    canvas.label((x + width / 2, y + 8), letters.top, 13, LETTER, "ma")
    canvas.label((x + width / 2, y + height - 9), letters.bottom, 13, LETTER, "ms")


def draw_marks(canvas: Canvas, corner: tuple[int, int], frame: Frame, caption: str) -> None:
    """Caption and scale bar on a picture."""
    x, y = corner
    canvas.label((x + 12, y + 21), caption)
    left, right, bar = x + 12, x + 12 + 50 / frame.mm_per_pixel, y + frame.height - 14
    canvas.line([(left, bar - 4), (left, bar), (right, bar), (right, bar - 4)], LETTER)
    canvas.label((right + 8, bar + 3), "5 cm", 11, LETTER)


def _draw_header(canvas: Canvas, right: float, title: str, model: str, facts: str) -> None:
    canvas.text((_MARGIN, 46), title, 26)
    canvas.text((_MARGIN, 73), f"Drawn by {model} · Oarlock" if model else "Oarlock", 15, QUIET)
    canvas.chip((right, 38), "UNAPPROVED", 16, AMBER)
    canvas.text((right, 73), facts, 15, QUIET, "rs")


def _facts(grid: Grid) -> str:
    slices, rows, columns = grid.shape
    dz, dy, dx = grid.spacing_mm
    return f"{slices} slices · {rows} x {columns} · {dz:.3g} x {dy:.3g} x {dx:.3g} mm · W 400 L 40"


def _close_up(cut: Cut, bit: int) -> Frame:
    """An organ in an axial cut, with its surroundings."""
    rows, columns = np.nonzero(cut.bits & np.uint32(1 << bit))
    if rows.size == 0:
        return _square_frame(cut, _SINGLE)
    down, across = cut.down_mm[[rows.min(), rows.max()]], cut.across_mm[[columns.min(), columns.max()]]
    field = max(np.ptp(down), np.ptp(across)) + 2 * _SURROUNDINGS_MM
    return Frame(float(across.mean()), float(down.mean()), _SINGLE, _SINGLE, float(field) / _SINGLE)


# ── where to cut ──────────────────────────────────────────────────────────────────────────────────────────────────────


def axial_levels(profiles: Profiles, oars: Sequence[OAR], z_mm: FloatArray, count: int = _LEVELS) -> list[int]:
    """Slices that show the organs, from head to foot: one for each group of organs, the rest spread over the widest gaps."""
    levels: list[int] = []
    for group in _GROUPS:
        weight = _weight(profiles.z, oars, group)
        if weight.any():
            good = np.flatnonzero(weight >= _GOOD * weight.max())
            level = int(good[len(good) // 2])
            if all(abs(z_mm[level] - z_mm[other]) >= 5 for other in levels):
                levels.append(level)
    levels = sorted(levels[:count])
    while len(levels) < min(count, len(z_mm)):
        edges = [-1, *levels, len(z_mm)]
        widest = int(np.argmax(np.diff(edges)))
        levels = sorted({*levels, (edges[widest] + edges[widest + 1]) // 2})
    return levels[::-1]


def _weight(profile: npt.NDArray[np.int64], oars: Sequence[OAR], names: Iterable[str]) -> FloatArray:
    """(n,) how much of the named organs each plane shows, each organ counted as a share of its largest plane."""
    wanted = set(names)
    shares = [
        profile[i] / profile[i].max()
        for i, oar in enumerate(oars)
        if (oar.name in wanted or oar.name[:-2] in wanted) and profile[i].any()
    ]
    return np.sum(shares, axis=0) if shares else np.zeros(profile.shape[1])


def _plane(profile: npt.NDArray[np.int64], oars: Sequence[OAR], names: Iterable[str], body: tuple[int, int]) -> int:
    """The plane that shows most of the named organs, or the middle of the body."""
    weight = _weight(profile, oars, names)
    return int(np.argmax(weight)) if weight.any() else sum(body) // 2


def _middle(profile: npt.NDArray[np.int64], oars: Sequence[OAR], names: Iterable[str], body: tuple[int, int]) -> int:
    """The plane in the middle of the named organs, or of the body."""
    weight = _weight(profile, oars, names)
    return round(float(np.average(np.arange(len(weight)), weights=weight))) if weight.any() else sum(body) // 2


def to_millilitres(profile_z: npt.NDArray[np.int64], grid: Grid, *, flipped: bool) -> FloatArray:
    """(OARs,) volumes from the voxels of each turned slice."""
    volumes = grid.voxel_volumes_mm3[::-1] if flipped else grid.voxel_volumes_mm3
    return np.asarray(profile_z @ volumes / 1000)


def _square_frame(cut: Cut, size: int) -> Frame:
    """The body in an axial cut, with a margin, in a square of ``size`` pixels."""
    rows, columns = _extent(cut.image[:: _COARSE[1], :: _COARSE[2]])
    down, across = cut.down_mm[:: _COARSE[1]], cut.across_mm[:: _COARSE[2]]
    top, bottom, left, right = down[rows[0]], down[rows[1]], across[columns[0]], across[columns[1]]
    field = max(bottom - top, right - left, _MIN_FIELD_MM) * 1.06
    return Frame(float(left + right) / 2, float(top + bottom) / 2, size, size, float(field) / size)


def _extent(image: Image) -> tuple[tuple[int, int], tuple[int, int]]:
    """First and last row and column of the largest piece of tissue, or of everything."""
    labels, count = scipy.ndimage.label(image > (0 if image.dtype == np.uint8 else _BODY_HU))
    if count == 0:
        return (0, image.shape[0] - 1), (0, image.shape[1] - 1)
    largest = int(np.argmax(np.bincount(labels.ravel())[1:])) + 1
    rows, columns = scipy.ndimage.find_objects(labels)[largest - 1]
    return (rows.start, rows.stop - 1), (columns.start, columns.stop - 1)


def _body_box(scene: Scene) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
    """First and last turned index of the largest piece of tissue along each axis, seen coarsely."""
    dz, dy, dx = _COARSE
    labels, count = scipy.ndimage.label(scene.image[::dz, ::dy, ::dx] > _BODY_HU)
    if count == 0:
        z, y, x = scene.image.shape
        return (0, z - 1), (0, y - 1), (0, x - 1)
    largest = int(np.argmax(np.bincount(labels.ravel())[1:])) + 1
    box = scipy.ndimage.find_objects(labels)[largest - 1]
    z_range, y_range, x_range = ((s.start * step, (s.stop - 1) * step) for s, step in zip(box, _COARSE, strict=True))
    return z_range, y_range, x_range

"""A contact sheet of a series, or one organ on one slice.

What a dosimetrist looks at first.

Radiological convention whatever the orientation of the series: axial cuts from the feet, coronal ones from the front, the
patient's right on the left. Nothing about the patient is drawn, and the PNG holds no text.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from oarlock.arrays import FloatArray
from oarlock.geometry.body import BODY_HU
from oarlock.geometry.components import largest_piece
from oarlock.geometry.grid import Grid
from oarlock.geometry.masks import OARMasks, bounding_box
from oarlock.organs.catalogue import OAR
from oarlock.pictures.canvas import LETTER, Canvas, Viewport, draw_cut
from oarlock.pictures.layout import (
    COARSE,
    HEADER,
    LEGEND,
    LINE,
    MARGIN,
    draw_entry,
    draw_header,
    draw_letters,
    draw_marks,
    grid_facts,
    square_frame,
)
from oarlock.pictures.planes import Cut, Profiles, Scene, to_profiles

IntArray = npt.NDArray[np.int16]

_GAP: Final = 8
_TILE: Final = 420
_LEVELS: Final = 6
_GOOD: Final = 0.85

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
    """Six axial levels, a coronal and a sagittal cut, as a PNG.

    The levels are where the organs are; the volumes of all organs stand beside them.

    :param hu: (z, y, x) on ``grid``.
    :param model: who drew the contours, ModelManifest.identity.
    :param note: a line of the caller's that holds no patient data.
    """
    scene = Scene.of(hu, masks.bits, grid)
    profiles = to_profiles(scene.bits, masks.oars)
    sheet = _Sheet(scene, grid, masks.oars, profiles, body_box(scene))
    canvas = Canvas(2 * MARGIN + 4 * _TILE + 3 * _GAP + LEGEND, HEADER + 2 * _TILE + _GAP + MARGIN)
    facts = f"{note} · {grid_facts(grid)}" if note else grid_facts(grid)
    draw_header(canvas, MARGIN + 4 * _TILE + 3 * _GAP + LEGEND, "Organs at risk", model, facts)
    sheet.draw_axial(canvas)
    sheet.draw_coronal(canvas)
    sheet.draw_sagittal(canvas)
    sheet.draw_legend(canvas)
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
            corner = MARGIN + (i % 3) * (_TILE + _GAP), HEADER + (i // 3) * (_TILE + _GAP)
            frame = square_frame(cut, _TILE)
            self._draw_tile(canvas, corner, cut, frame)
            draw_marks(canvas, corner, frame, f"{i + 1} · slice {self.scene.axes.slice_index(z) + 1}")

    def draw_coronal(self, canvas: Canvas) -> None:
        y = _plane(self.profiles.y, self.oars, _CORONAL, self.body[1])
        self._draw_long(canvas, HEADER, self.scene.coronal(y), self.body[2], "coronal")

    def draw_sagittal(self, canvas: Canvas) -> None:
        x = _middle(self.profiles.x, self.oars, _SAGITTAL, self.body[2])
        self._draw_long(canvas, HEADER + _TILE + _GAP, self.scene.sagittal(x), self.body[1], "sagittal")

    def _draw_long(self, canvas: Canvas, y: int, cut: Cut, across: tuple[int, int], caption: str) -> None:
        """A cut along the body, with the levels of the axial tiles at its edges."""
        x = MARGIN + 3 * (_TILE + _GAP)
        height_mm = float(np.ptp(cut.down_mm)) * 1.02 + 1
        middle = float(cut.across_mm[list(across)].mean())
        frame = Viewport(middle, float(cut.down_mm[[0, -1]].mean()), _TILE, _TILE, max(height_mm, 60) / _TILE)
        self._draw_tile(canvas, (x, y), cut, frame)
        draw_marks(canvas, (x, y), frame, caption)
        for i, z in enumerate(self.levels):
            at = y + _TILE / 2 + (-self.scene.axes.z_mm[z] - frame.down_mm) / frame.mm_per_pixel
            canvas.line([(x + _TILE - 14, at), (x + _TILE - 1, at)], LETTER)
            canvas.label((x + _TILE - 19, at), str(i + 1), 11, LETTER, "rm")

    def _draw_tile(self, canvas: Canvas, corner: tuple[int, int], cut: Cut, frame: Viewport) -> None:
        canvas.picture(corner, draw_cut(cut, list(enumerate(self.oars)), frame))
        draw_letters(canvas, corner, frame, cut.letters)

    def draw_legend(self, canvas: Canvas) -> None:
        millilitres = to_millilitres(self.profiles.z, self.grid, flipped=self.scene.axes.orientation.flipped[0])
        x = MARGIN + 4 * _TILE + 3 * _GAP + 30
        step = min(LINE, (2 * _TILE + _GAP) / max(len(self.oars), 1))
        for i, (oar, volume) in enumerate(zip(self.oars, millilitres, strict=True)):
            draw_entry(canvas, (x, HEADER + step * (i + 0.5)), LEGEND - 30, oar, volume)


# ── where to cut ──────────────────────────────────────────────────────────────────────────────────────────────────────


def axial_levels(profiles: Profiles, oars: Sequence[OAR], z_mm: FloatArray, count: int = _LEVELS) -> list[int]:
    """Slices that show the organs, from head to foot.

    One for each group of organs, the rest spread over the widest gaps.
    """
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
    return grid.volumes_ml(profile_z[:, ::-1] if flipped else profile_z)


def body_box(scene: Scene) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
    """First and last turned index of the body along each axis.

    The body is the largest piece of tissue, seen coarsely.
    """
    dz, dy, dx = COARSE
    body = largest_piece(scene.image[::dz, ::dy, ::dx] > BODY_HU)
    box = bounding_box(body)
    if box is None:
        z, y, x = scene.image.shape
        return (0, z - 1), (0, y - 1), (0, x - 1)
    z_range, y_range, x_range = ((s.start * step, (s.stop - 1) * step) for s, step in zip(box, COARSE, strict=True))
    return z_range, y_range, x_range

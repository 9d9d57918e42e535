"""A series and its contours, small enough to be kept.

Slices are drawn from it on demand without the CT files.

The file is a NumPy archive without pickles. Grey values are windowed to 8 bits, and each slice is compressed on its own, so one
slice is read without the others.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from oarlock.geometry.grid import Grid
from oarlock.geometry.masks import OARMasks
from oarlock.organs.catalogue import BY_NAME, OAR
from oarlock.pictures.canvas import Canvas, draw_cut, to_grey
from oarlock.pictures.layout import (
    HEADER,
    LEGEND,
    LINE,
    MARGIN,
    close_up,
    draw_entry,
    draw_header,
    draw_letters,
    draw_marks,
    grid_facts,
    square_frame,
)
from oarlock.pictures.packing import pack_noisy, pack_sparse
from oarlock.pictures.planes import Axes, Cut, axial_cut, to_axes

SIZE: Final = 860
"""Width and height of a single picture, in pixels."""

_GEOMETRY: Final = ("origins_mm", "row_direction", "column_direction")


@dataclass(frozen=True, eq=False)
class Rendering:
    """What is needed to draw any slice of a contoured series.

    :param model: who drew the contours.
    :param counts: (OARs, slices) voxels of every OAR in each slice of the grid.
    :param grey: one compressed uint8 picture (rows, columns) for each slice of the grid.
    :param words: the same for the uint32 words of the masks.
    """

    grid: Grid
    oars: tuple[OAR, ...]
    model: str
    counts: npt.NDArray[np.int64]
    grey: Sequence[bytes]
    words: Sequence[bytes]

    @classmethod
    def of(
        cls, hu: npt.NDArray[np.int16], grid: Grid, masks: OARMasks, *, model: str, grey: Sequence[bytes] | None = None
    ) -> Self:
        """A rendering of a series and its masks.

        :param grey: what :func:`packed_grey` made of ``hu``, where that was done before.
        :raises ValueError: if ``grey`` has another number of slices.
        """
        if grey is not None and len(grey) != len(hu):
            msg = f"{len(grey)} packed slices are not of a series of {len(hu)}"
            raise ValueError(msg)
        words = [pack_sparse(image) for image in masks.bits]
        return cls(grid, masks.oars, model, _counts(masks), packed_grey(hu) if grey is None else grey, words)

    @property
    def axes(self) -> Axes:
        return to_axes(self.grid)

    def cut(self, z: int) -> Cut:
        """Slice ``z`` of the grid, turned to be looked at."""
        grey = np.frombuffer(zlib.decompress(self.grey[z]), dtype=np.uint8).reshape(self.grid.rows, self.grid.columns)
        axes = self.axes
        return axial_cut(axes.turned_slice(grey), axes.turned_slice(self.masks_of(z)), axes)

    def masks_of(self, z: int) -> npt.NDArray[np.uint32]:
        """(rows, columns) words of the masks on slice ``z``.

        Bit i says whether a voxel belongs to ``oars[i]``.
        """
        words = np.frombuffer(zlib.decompress(self.words[z]), dtype="<u4")
        return words.reshape(self.grid.rows, self.grid.columns)

    def millilitres(self) -> npt.NDArray[np.float64]:
        """(OARs,) volumes."""
        return self.grid.volumes_ml(self.counts)

    def best_slice(self, oar: OAR | None) -> int:
        """The slice that shows most of an organ.

        Or of as many organs as possible.
        """
        counts = self.counts if oar is None or oar not in self.oars else self.counts[[self.oars.index(oar)]]
        shares = counts / np.maximum(counts.max(axis=1, keepdims=True), 1)
        total = shares.sum(axis=0)
        return int(np.argmax(total)) if total.any() else len(total) // 2

    def single(self, *, oar: OAR | None = None, z: int | None = None) -> bytes:
        """One axial slice with its contours, as a PNG.

        :param oar: draw this organ alone and close up.
        :param z: slice of the grid, from 0; without it the one that shows most of the organ, or of all organs.
        :raises IndexError: the grid has no such slice.
        """
        slices = len(self.counts[0])
        z = self.best_slice(oar) if z is None else z
        if not 0 <= z < slices:
            raise IndexError(f"slice {z} of {slices}")
        cut = self.cut(z)
        shown = [(bit, organ) for bit, organ in enumerate(self.oars) if oar is None or organ == oar]
        title = f"{oar} · slice {z + 1}" if oar else f"Slice {z + 1}"
        canvas = Canvas(2 * MARGIN + SIZE + LEGEND, HEADER + SIZE + MARGIN)
        draw_header(canvas, MARGIN + SIZE + LEGEND, title, self.model, grid_facts(self.grid))
        frame = close_up(cut, shown[0][0], SIZE) if oar and shown else square_frame(cut, SIZE)
        canvas.picture((MARGIN, HEADER), draw_cut(cut, shown, frame))
        draw_letters(canvas, (MARGIN, HEADER), frame, cut.letters)
        draw_marks(canvas, (MARGIN, HEADER), frame, "axial")
        volumes = self.millilitres()
        present = [(bit, organ) for bit, organ in shown if self.counts[bit, z]]
        step = min(LINE, SIZE / max(len(present), 1))
        for i, (bit, organ) in enumerate(present):
            draw_entry(canvas, (MARGIN + SIZE + 30, HEADER + step * (i + 0.5)), LEGEND - 30, organ, volumes[bit])
        return canvas.to_png()


def packed_grey(hu: npt.NDArray[np.int16]) -> list[bytes]:
    """The slices of a series as a rendering keeps them."""
    return [pack_noisy(to_grey(image)) for image in hu]


def save_rendering(
    path: Path,
    hu: npt.NDArray[np.int16],
    grid: Grid,
    masks: OARMasks,
    *,
    model: str = "",
    grey: Sequence[bytes] | None = None,
) -> None:
    """Write the rendering of a series, whole.

    About 5 MB for 186 slices of 512 × 512.

    :param grey: what :func:`packed_grey` made of ``hu``, where that was done before.
    """
    rendering = Rendering.of(hu, grid, masks, model=model, grey=grey)
    arrays: dict[str, npt.NDArray[Any]] = {
        **{name: getattr(grid, name) for name in _GEOMETRY},
        "size": np.array([grid.rows, grid.columns]),
        "spacing_mm": np.array([grid.row_spacing_mm, grid.column_spacing_mm]),
        "oars": np.array([oar.name for oar in masks.oars], dtype=np.str_),
        "model": np.array(model, dtype=np.str_),
        "counts": rendering.counts,
        **_joined("grey", rendering.grey),
        **_joined("words", rendering.words),
    }
    with path.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def load_rendering(path: Path) -> Rendering:
    """Read a rendering that :func:`save_rendering` wrote."""
    with np.load(path, allow_pickle=False) as file:
        rows, columns = (int(n) for n in file["size"])
        row_spacing_mm, column_spacing_mm = (float(mm) for mm in file["spacing_mm"])
        geometry = {name: file[name] for name in _GEOMETRY}
        grid = Grid(rows=rows, columns=columns, row_spacing_mm=row_spacing_mm, column_spacing_mm=column_spacing_mm, **geometry)
        oars = tuple(BY_NAME[name] for name in file["oars"].tolist())
        grey, words = (_split(file[name], file[f"{name}_sizes"]) for name in ("grey", "words"))
        return Rendering(grid, oars, str(file["model"]), file["counts"], grey, words)


def _joined(name: str, chunks: Sequence[bytes]) -> dict[str, npt.NDArray[Any]]:
    joined = np.frombuffer(b"".join(chunks), dtype=np.uint8)
    return {name: joined, f"{name}_sizes": np.array([len(chunk) for chunk in chunks], dtype=np.int64)}


def _split(joined: npt.NDArray[np.uint8], sizes: npt.NDArray[np.int64]) -> list[bytes]:
    ends = np.cumsum(sizes)
    return [joined[end - size : end].tobytes() for end, size in zip(ends, sizes, strict=True)]


def _counts(masks: OARMasks) -> npt.NDArray[np.int64]:
    counts = np.zeros((len(masks.oars), masks.shape[0]), dtype=np.int64)
    for i, oar in enumerate(masks.oars):
        cropped = masks.crop(oar)
        if cropped is not None:
            box, mask = cropped
            counts[i, box[0]] = mask.sum(axis=(1, 2))
    return counts

"""The pictures of ``docs/pictures.md``.

Expert contours over the CT that they were drawn on, as other programs see our files.

``python -m tools.pictures --openkbp FOLDER --contours FOLDER --matched matched.csv --out docs/pictures``

One real head is written as three CT series, stored in the way of three patient positions, and its organs as three RTSTRUCTs.
The pictures are drawn from these files by pydicom and the standard's equation (PS3.3 C.7.6.2.1-1) alone, in patient millimetres:
where nothing of ours is wrong, all three look alike, and the lines lie on the anatomy. Files: CT of OpenKBP (MIT), contours
released with the paper (CC BY 4.0), and the table that lays one on the other (``docs/model.md``).
"""

import argparse
import csv
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import cv2
import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import numpy.typing as npt
import pydicom
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.transforms import Affine2D

from model_export.datasets.openkbp import RAW_OFFSET_HU, read_patients
from oarlock.arrays import FloatArray
from oarlock.ct.series import check_headers
from oarlock.ct.writer import write_ct_series
from oarlock.facts import ModelFacts
from oarlock.geometry.grid import Grid
from oarlock.geometry.masks import OARMasks
from oarlock.organs.catalogue import BY_NAME
from oarlock.rtstruct.validator import check_rtstruct
from oarlock.rtstruct.writer import Authorship, write_rtstruct
from tests.expert_data.expert_contours import cases

CASE: Final = "0522c0226"
POSITIONS: Final = {
    "HFS": ("head first, supine", (1, 0, 0), (0, 1, 0)),
    "FFP": ("feet first, prone", (1, 0, 0), (0, -1, 0)),
    "HFDR": ("head first, right side down", (0, 1, 0), (-1, 0, 0)),
}
"""Row and column direction of each (PS3.3 C.7.3.1.1.2). FFP is stored from head to foot, HFDR with rows that are columns."""

AUTHORSHIP: Final = Authorship("pictures", datetime(2026, 1, 1, tzinfo=UTC), ModelFacts("expert", "oncologist", "0" * 64))
WINDOW_HU: Final = (-160, 240)
Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Head:
    """A real head.

    (z, y, x) Hounsfield units, masks and grid, stored along the patient's own axes.
    """

    hu: npt.NDArray[np.int16]
    masks: OARMasks
    grid: Grid


def main() -> None:
    """Write both pictures."""
    parser = argparse.ArgumentParser(prog="python -m tools.pictures", description=__doc__)
    for name in ("openkbp", "contours", "matched", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    paths = parser.parse_args()
    mpl.use("agg")
    paths.out.mkdir(parents=True, exist_ok=True)
    head = read_head(paths.openkbp, paths.contours, paths.matched)
    with TemporaryDirectory() as folder:
        files = {position: Files.of(write_turned(head, position, Path(folder, position))) for position in POSITIONS}
    draw_cuts(files, paths.out / "three-cuts.png")
    draw_close_up(files["HFS"], head, paths.out / "close-up.png")


# ── the head ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def read_head(openkbp: Path, contours: Path, matched: Path) -> Head:
    """The part of the scan that CT and contours both show."""
    with matched.open(newline="") as file:
        row = next(row for row in csv.DictReader(file) if row["case"] == CASE)
    raw = next(patient.raw for patient in read_patients(openkbp) if patient.name == row["patient"])
    masks, grid = next(case for case in cases(contours) if case.name == CASE).masks("oncologist")
    hu = _laid_on(raw, grid, *(int(row[f"{axis}_offset"]) for axis in ("slice", "row", "column")))
    known = np.argwhere(hu > -1000)
    (z0, y0, x0), (z1, y1, x1) = known.min(axis=0), known.max(axis=0) + 1
    bits = masks.bits[z0:z1, y0:y1, x0:x1].copy()
    origins = grid.to_points(np.array([(z, y0, x0) for z in range(z0, z1)], dtype=np.float64))
    cut = Grid(y1 - y0, x1 - x0, origins, grid.row_direction, grid.column_direction, grid.row_spacing_mm, grid.column_spacing_mm)
    return Head(hu[z0:z1, y0:y1, x0:x1], OARMasks(masks.oars, bits), cut)


def _laid_on(raw: Array, grid: Grid, slice_offset: int, row_offset: int, column_offset: int) -> npt.NDArray[np.int16]:
    """OpenKBP's CT, each voxel of which covers 4 × 4 of the label grid, on that grid."""
    hu = np.full(grid.shape, -1024, dtype=np.int16)
    for k, image in enumerate(np.where(raw > 0, raw - RAW_OFFSET_HU, -1024).astype(np.float32)):
        if not 0 <= (z := k + slice_offset) < len(hu):
            continue
        fine = cv2.resize(image, None, fx=4, fy=4, interpolation=cv2.INTER_LINEAR)
        rows, columns = np.arange(fine.shape[0]) + row_offset, np.arange(fine.shape[1]) + column_offset
        inside = (rows >= 0) & (rows < grid.rows), (columns >= 0) & (columns < grid.columns)
        hu[np.ix_([z], rows[inside[0]], columns[inside[1]])] = np.rint(fine[np.ix_(*inside)])
    return hu


def write_turned(head: Head, position: str, folder: Path) -> Path:
    """The same voxels, stored in the order of a patient position.

    At the same places; CT and RTSTRUCT.
    """
    _, row, column = POSITIONS[position]
    normal = np.cross(row, column)
    axis_y, axis_x = 2 - int(np.argmax(np.abs(column))), 2 - int(np.argmax(np.abs(row)))
    flips = tuple(slice(None, None, -1 if sum(direction) < 0 else 1) for direction in (normal, column, row))
    order = (0, axis_y, axis_x)
    last = np.array(head.grid.shape) - 1
    start = np.zeros((len(head.hu), 3))
    start[:, 0] = np.arange(len(head.hu))[flips[0]]
    for axis, flip in ((axis_y, flips[1]), (axis_x, flips[2])):
        start[:, axis] = last[axis] if flip.step < 0 else 0
    spacing = head.grid.spacing_mm
    shape = tuple(head.grid.shape[axis] for axis in order)
    directions = np.array(row, dtype=np.float64), np.array(column, dtype=np.float64)
    grid = Grid(shape[1], shape[2], head.grid.to_points(start), *directions, spacing[axis_y], spacing[axis_x])
    hu, bits = (np.ascontiguousarray(array.transpose(order)[flips]) for array in (head.hu, head.masks.bits))
    header = check_headers(write_ct_series(folder, hu, grid, overrides={"PatientPosition": position}))
    masks = OARMasks(head.masks.oars, bits)
    write_rtstruct(folder / "rtstruct.dcm", masks, header, AUTHORSHIP)
    if findings := check_rtstruct(folder / "rtstruct.dcm", header, masks):
        raise SystemExit(f"the RTSTRUCT is not fit to be shown: {findings}")
    return folder


# ── what another program sees ─────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, eq=False)
class Slice:
    """One CT image as its file describes it.

    ``row`` and ``column`` are the steps along a row and down a column in mm.
    """

    hu: Array
    origin: FloatArray
    row: FloatArray
    column: FloatArray

    def line(self, axis: int, at_mm: float) -> tuple[FloatArray, Array]:
        """Positions and HU of the voxels nearest to a plane.

        The positions are on the other axis of the patient (0: x, 1: y); the plane lies across ``axis``.
        """
        along_rows = abs(self.column[axis]) > abs(self.row[axis])
        step, other = (self.column, self.row) if along_rows else (self.row, self.column)
        index = int(np.clip(round((at_mm - self.origin[axis]) / step[axis]), 0, self.hu.shape[0 if along_rows else 1] - 1))
        values = self.hu[index] if along_rows else self.hu[:, index]
        positions = self.origin[1 - axis] + other[1 - axis] * np.arange(len(values))
        ascending = np.argsort(positions)
        return positions[ascending], values[ascending]


@dataclass(frozen=True, eq=False)
class Files:
    """What the files of one series say.

    Slices from foot to head, and each organ's colour and its polygons by slice.
    """

    slices: list[Slice]
    organs: dict[str, tuple[tuple[float, ...], dict[int, list[FloatArray]]]]

    @classmethod
    def of(cls, folder: Path) -> "Files":
        images = [pydicom.dcmread(path) for path in folder.iterdir() if path.name != "rtstruct.dcm"]
        images.sort(key=lambda image: image.ImagePositionPatient[2])
        places = {image.SOPInstanceUID: z for z, image in enumerate(images)}
        dataset = pydicom.dcmread(folder / "rtstruct.dcm")
        names = {roi.ROINumber: str(roi.ROIName) for roi in dataset.StructureSetROISequence}
        organs: dict[str, tuple[tuple[float, ...], dict[int, list[FloatArray]]]] = {}
        for roi in dataset.ROIContourSequence:
            polygons: dict[int, list[FloatArray]] = {}
            for contour in roi.get("ContourSequence", []):
                z = places[contour.ContourImageSequence[0].ReferencedSOPInstanceUID]
                polygons.setdefault(z, []).append(np.array(contour.ContourData, dtype=np.float64).reshape(-1, 3))
            organs[names[roi.ReferencedROINumber]] = tuple(level / 255 for level in roi.ROIDisplayColor), polygons
        return cls([_slice(image) for image in images], organs)

    def middle_mm(self, organ: str) -> FloatArray:
        """The middle of an organ's points."""
        return np.concatenate([points for polygons in self.organs[organ][1].values() for points in polygons]).mean(axis=0)


def _slice(image: pydicom.Dataset) -> Slice:
    row, column = np.array(image.ImageOrientationPatient, dtype=np.float64).reshape(2, 3)
    between_rows, between_columns = (float(value) for value in image.PixelSpacing)
    hu = image.pixel_array * float(image.RescaleSlope) + float(image.RescaleIntercept)
    return Slice(hu, np.array(image.ImagePositionPatient, dtype=np.float64), between_columns * row, between_rows * column)


# ── drawing ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def draw_cuts(files: dict[str, Files], path: Path) -> None:
    """A row for each way of storing, a column for each cut."""
    figure, rows = plt.subplots(len(files), 3, figsize=(11, 11), facecolor="black", layout="constrained")
    for axes, (position, content) in zip(rows, files.items(), strict=True):
        eye, stem, parotid = (content.middle_mm(organ) for organ in ("Eye_L", "Brainstem", "Parotid_L"))
        _draw_axial(axes[0], content, float(eye[2]))
        _draw_across(axes[1], content, 1, float(parotid[1]))
        _draw_across(axes[2], content, 0, float(stem[0]))
        axes[0].set_xlim(stem[0] - 85, stem[0] + 85)
        axes[0].set_ylim(stem[1] + 105, stem[1] - 105)
        axes[1].set_xlim(stem[0] - 120, stem[0] + 120)
        _label(axes[0], f"{position}: {POSITIONS[position][0]}", "R", "L")
        _label(axes[1], "", "R", "L")
        _label(axes[2], "", "A", "P")
    _save(figure, path)


def draw_close_up(files: Files, head: Head, path: Path) -> None:
    """Both eyes.

    The experts' voxels and the lines that we wrote around them, point by point.
    """
    figure, axes = plt.subplots(figsize=(11, 5.2), facecolor="black", layout="constrained")
    lens = files.middle_mm("Lens_L")
    z = _draw_axial(axes, files, float(lens[2]), points=True)
    inside = np.zeros((*head.grid.shape[1:], 4))
    for name in ("Eye_L", "Eye_R", "Lens_L", "Lens_R", "OpticNrv_L", "OpticNrv_R", "Glnd_Lacrimal_L", "Glnd_Lacrimal_R"):
        inside[head.masks.mask(BY_NAME[name])[z]] = (*files.organs[name][0], 0.3)
    axes.imshow(inside, transform=_to_patient(files.slices[z]) + axes.transData, interpolation="none")
    middle = (files.middle_mm("Eye_L") + files.middle_mm("Eye_R")) / 2
    axes.set_xlim(middle[0] - 52, middle[0] + 52)
    axes.set_ylim(middle[1] + 26, middle[1] - 20)
    _label(axes, "", "R", "L")
    _save(figure, path)


def _to_patient(image: Slice) -> Affine2D:
    """From column and row index to the patient's x and y."""
    (a, b), (c, d), (e, f) = image.row[:2], image.column[:2], image.origin[:2]
    return Affine2D.from_values(a, b, c, d, e, f)


def _draw_axial(axes: Axes, files: Files, at_mm: float, *, points: bool = False) -> int:
    z = int(np.argmin([abs(image.origin[2] - at_mm) for image in files.slices]))
    image = files.slices[z]
    corners = _to_patient(image).transform([(0, 0), (image.hu.shape[1] - 1, image.hu.shape[0] - 1)])
    _show(axes, image.hu, transform=_to_patient(image) + axes.transData)
    for colour, polygons in files.organs.values():
        for polygon in polygons.get(z, []):
            closed = np.concatenate([polygon, polygon[:1]])
            axes.plot(closed[:, 0], closed[:, 1], color=colour, linewidth=1.3, marker="." if points else None, markersize=3)
    axes.set_xlim(corners[:, 0].min(), corners[:, 0].max())
    axes.set_ylim(corners[:, 1].max(), corners[:, 1].min())
    return z


def _draw_across(axes: Axes, files: Files, axis: int, at_mm: float) -> None:
    """A cut across the patient's x (0: sagittal) or y (1: coronal): where the polygons of each slice cross it."""
    lines = [image.line(axis, at_mm) for image in files.slices]
    positions, heights = lines[0][0], [image.origin[2] for image in files.slices]
    half = (heights[1] - heights[0]) / 2
    step = (positions[1] - positions[0]) / 2
    _show(
        axes,
        np.stack([values for _, values in lines]),
        extent=(positions[0] - step, positions[-1] + step, heights[0] - half, heights[-1] + half),
        origin="lower",
    )
    for colour, polygons in files.organs.values():
        crossed = {z: sorted(_crossings(polygons[z], axis, at_mm)) for z in polygons}
        ends = [[(x, heights[z] - half), (x, heights[z] + half)] for z, found in crossed.items() for x in found]
        axes.add_collection(LineCollection(ends, colors=[colour], linewidths=1.6))
        for z, found in crossed.items():
            for start, stop in zip(found[::2], found[1::2], strict=True):
                axes.fill_between([start, stop], heights[z] - half, heights[z] + half, color=colour, alpha=0.25, linewidth=0)
    axes.set_xlim(positions[0], positions[-1])
    axes.set_ylim(heights[0], heights[-1])


def _crossings(polygons: list[FloatArray], axis: int, at_mm: float) -> Iterator[float]:
    for polygon in polygons:
        here, there = polygon, np.roll(polygon, -1, axis=0)
        for a, b in zip(here, there, strict=True):
            if (a[axis] <= at_mm) != (b[axis] <= at_mm):
                yield a[1 - axis] + (at_mm - a[axis]) / (b[axis] - a[axis]) * (b[1 - axis] - a[1 - axis])


def _show(axes: Axes, hu: Array, **options: Any) -> None:
    axes.imshow(hu, cmap="gray", vmin=WINDOW_HU[0], vmax=WINDOW_HU[1], interpolation="nearest", **options)
    axes.set_aspect("equal")


def _label(axes: Axes, title: str, left: str, right: str) -> None:
    axes.set_axis_off()
    style: dict[str, Any] = {"color": "white", "transform": axes.transAxes, "va": "center"}
    axes.text(0.02, 0.5, left, ha="left", **style)
    axes.text(0.98, 0.5, right, ha="right", **style)
    axes.text(0.02, 0.96, title, ha="left", fontsize=9, **style)


def _save(figure: Any, path: Path) -> None:
    figure.savefig(path, dpi=100, facecolor="black", pil_kwargs={"optimize": True})
    print(f"{path}: {path.stat().st_size >> 10} KiB")


if __name__ == "__main__":
    main()

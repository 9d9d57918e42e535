"""What edges that tissue draws are worth.

The whole-scan network's contours on the matched scans are scored with and without. The CT is OpenKBP's of 4 mm, made as fine as
the released contours by interpolation: cruder than the native CT that a contour is drawn on when it is served.
"""

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from model_export.datasets.released_contours import RATERS, read_case
from model_export.evaluate import surface_dsc, volumetric_dsc
from model_export.prepare import Match, cut
from model_export.transferred.atlases import native_ranges
from model_export.transferred.coarse import CoarseModel
from model_export.transferred.scans import NATIVE_PER_VOXEL, Mask, Scan
from oarlock.geometry.components import largest_piece
from oarlock.geometry.grid import Grid
from oarlock.geometry.masks import OARMasks
from oarlock.organs.catalogue import BY_NAME
from oarlock.segmentation.edges import move_edges
from oarlock.segmentation.manifest import Edge
from oarlock.segmentation.manifest_file import EdgeTable

UNKNOWN_HU: Final = 3000
"""No organ gains what is not known."""

LEAST_SHOWN_ML: Final = 10.0


@dataclass(frozen=True, slots=True)
class EdgeScore:
    """One organ in one scan, before and after.

    Each is a pair of the volumetric DSC and the surface DSC at the paper's tolerance. Of the contour as drawn, of the moved one
    and of the radiographer's.
    """

    case: str
    organ: str
    drawn: tuple[float, float]
    moved: tuple[float, float]
    human: tuple[float, float] | None


def read_edges(path: Path) -> dict[str, dict[str, Any]]:
    """The tables of edges by organ, as a manifest holds them."""
    return tomllib.loads(path.read_text(encoding="utf-8"))


def judge_edges(
    scan: Scan, match: Match, contours: Path, *, coarse: CoarseModel, edges: Mapping[str, Mapping[str, Any]]
) -> Iterator[EdgeScore]:
    """Scores of each organ of which enough is known.

    An expert drew at least ``LEAST_SHOWN_ML`` of it in the known CT.
    """
    drawing = coarse.draw(scan, whole=True)
    known, native_mm = scan.native_known, scan.native_mm
    hu = np.where(known, on_finer_pixels(scan.hu, NATIVE_PER_VOXEL), UNKNOWN_HU).astype(np.int16)
    grid = grid_of(scan, NATIVE_PER_VOXEL)
    drawn = OARMasks.empty([BY_NAME[organ] for organ in edges], grid.shape)
    for oar in drawn.oars:
        drawn.put(oar, (slice(None),) * 3, drawing.native_mask(oar.name) & known)
    moved = OARMasks(drawn.oars, drawn.bits.copy())
    move_edges(moved, hu, grid, {BY_NAME[organ]: _edge(table) for organ, table in edges.items()})
    for organ in edges:
        oar, by = BY_NAME[organ], [read_case(contours, match.case, rater, [organ]) for rater in RATERS]
        masks = [cut(rater[organ].mask, *native_ranges(scan, match)) & known if organ in rater else None for rater in by]
        reference = masks[0]
        if reference is None or reference.sum() * np.prod(native_mm) < LEAST_SHOWN_ML * 1000:
            continue
        theirs = [drawn.mask(oar), largest_piece(moved.mask(oar) & known), masks[1]]
        scores = [None if mask is None else _scored(mask, reference, native_mm, oar.tolerance_mm) for mask in theirs]
        assert scores[0] is not None  # both are masks
        assert scores[1] is not None
        yield EdgeScore(match.case, organ, scores[0], scores[1], scores[2])


def to_table(rows: Sequence[EdgeScore]) -> str:
    """Markdown: each organ's mean DSC and surface DSC."""
    lines = ["| organ | scans | as drawn | moved | least gain | radiographer |", "| --- | ---: | ---: | ---: | ---: | ---: |"]
    for organ in dict.fromkeys(row.organ for row in rows):
        own = [row for row in rows if row.organ == organ]
        gains = np.array([np.subtract(row.moved, row.drawn) for row in own]).min(axis=0)
        cells = [_mean(pairs) for pairs in zip(*map(_pairs, own), strict=True)]
        least = f"{gains[0]:+.3f} ({gains[1]:+.3f})"
        lines.append(f"| {organ} | {len(own)} | {cells[0]} | {cells[1]} | {least} | {cells[2]} |")
    return "\n".join(lines)


def on_finer_pixels(volume: npt.NDArray[np.float32], factor: int) -> npt.NDArray[np.float32]:
    """A volume on finer pixels between the same edges, linearly.

    (z, y, x) to (z, factor · y, factor · x).
    """
    slices = torch.from_numpy(volume)[:, None]
    finer = functional.interpolate(slices, scale_factor=factor, mode="bilinear", align_corners=False)[:, 0]
    return cast("npt.NDArray[np.float32]", finer.numpy())


def grid_of(scan: Scan, finer: int) -> Grid:
    """A scan's slices, upright from the origin on.

    With so many pixels for each of its own along a row and along a column.
    """
    slices, rows, columns = scan.hu.shape
    z, y, x = scan.spacing_mm
    origins = np.arange(slices)[:, None] * np.array([0.0, 0.0, z])
    along, down = np.array([1.0, 0.0, 0.0]), np.array([0.0, 1.0, 0.0])
    return Grid(rows * finer, columns * finer, origins, along, down, y / finer, x / finer)


def _edge(table: Mapping[str, Any]) -> Edge:
    return Edge(**EdgeTable.model_validate(table).model_dump())


def _mean(pairs: Sequence[tuple[float, float] | None]) -> str:
    known = [pair for pair in pairs if pair is not None]
    return "{:.3f} ({:.3f})".format(*np.mean(known, axis=0)) if known else ""


def _pairs(row: EdgeScore) -> tuple[tuple[float, float] | None, ...]:
    return row.drawn, row.moved, row.human


def _scored(mask: Mask, reference: Mask, spacing_mm: tuple[float, float, float], tolerance_mm: float) -> tuple[float, float]:
    surface = surface_dsc(mask, reference, spacing_mm, tolerance_mm)
    return volumetric_dsc(mask, reference) or 0.0, surface or 0.0

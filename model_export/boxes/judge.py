"""How well a box network draws unseen scans.

Per organ, on the native grid of the released contours.

The box is laid as it is when it is served, by what the coarse model found; an organ that is shared is drawn by both, and one that
is one piece keeps its largest piece. The reference is the oncologist's drawing; the
radiographer's of the same scan and the coarse model's own are scored beside it. Only known CT is compared.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from model_export.boxes.config import BoxConfig
from model_export.boxes.data import BoxCase
from model_export.boxes.export import RADIOGRAPHER, SCANS
from model_export.boxes.sampling import no_placement, see
from model_export.boxes.served import ServedBox
from model_export.datasets.released_contours import RATERS, read_case
from model_export.datasets.training_file import AIR_HU, to_codes
from model_export.evaluate import surface_dsc, volumetric_dsc
from model_export.prepare import OPEN_ENDED, Match, cut
from model_export.transferred.atlases import native_ranges
from model_export.transferred.coarse import CoarseModel
from model_export.transferred.scans import NATIVE_PER_VOXEL, Point, Scan, to_mm
from oarlock.geometry.components import largest_piece
from oarlock.organs.catalogue import BY_NAME
from oarlock.segmentation.shared import faded

LEAST_KNOWN: Final = 0.9
"""An organ of which less lies in the known CT does not judge."""

_COLUMNS: Final = ("dsc", "coarse_dsc", "human_dsc", "surface_dsc", "human_surface_dsc")

F32 = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class BoxScore:
    """One organ in one scan: volumetric DSC, surface DSC and volumes.

    Of the box network, of the coarse model and of the radiographer; the surface DSC at the paper's tolerance, volumes in ml.
    """

    case: str
    organ: str
    dsc: float | None
    coarse_dsc: float | None
    human_dsc: float | None
    predicted_ml: float
    reference_ml: float
    surface_dsc: float | None = None
    human_surface_dsc: float | None = None


def box_middle(box: BoxConfig, centres: Mapping[str, Point]) -> tuple[float, float, float] | None:
    """Where the box lies (z, y, x).

    In mm from the centre of voxel 0; None where none of its anchors was found.
    """
    found = [np.add(centres[name][::-1], offset) for name, offset in box.anchors.items() if name in centres]
    if not found:
        return None
    z, y, x = np.mean(found, axis=0)
    return float(z), float(y), float(x)


def draw_box_on(served: ServedBox, scan: Scan, middle: Sequence[float], shown: Mask | None = None) -> F32:
    """Probabilities in the box around a place of a scan.

    (organs, Z, Y · upscale, X · upscale).
    """
    case = whole_case(scan, middle)
    hu, _, _ = see(case, no_placement(case).in_scan(served.box.positions_mm(fine=False)))
    if shown is not None:
        hu = torch.where(torch.from_numpy(shown), hu, torch.full_like(hu, AIR_HU))
    with torch.no_grad():
        found: F32 = served(hu[None, None])[0].numpy()
    return found


def whole_case(scan: Scan, middle: Sequence[float]) -> BoxCase:
    """A scan as it is, without labels, with a box's middle.

    The middle is (z, y, x) in mm from the centre of voxel 0.
    """
    z, y, x = (place + step / 2 for place, step in zip(middle, scan.spacing_mm, strict=True))
    return BoxCase(scan.name, "", scan.split, scan.spacing_mm, to_codes(scan.hu, scan.known), (z, y, x), ())


def on_native_grid(
    probabilities: F32, box: BoxConfig, middle: Sequence[float], scan: Scan
) -> tuple[F32, tuple[slice, slice, slice]]:
    """Probabilities at the native grid's voxels in the box.

    And which voxels those are.
    """
    spans, places = [], []
    for span, at, half in _native_places(box, middle, scan):
        spans.append(span)
        places.append(torch.from_numpy((at / half).astype(np.float32)))
    z, y, x = torch.meshgrid(*places, indexing="ij")
    where = torch.stack([x, y, z], dim=-1)[None]
    found: Tensor = functional.grid_sample(
        torch.from_numpy(probabilities)[None], where, align_corners=False, padding_mode="border"
    )
    return found[0].numpy(), (spans[0], spans[1], spans[2])


def faded_on_native_grid(box: BoxConfig, middle: Sequence[float], scan: Scan) -> F32:
    """How much of a share counts at the same voxels.

    All of it, and less towards the faces of the box.
    """
    return faded([half - np.abs(at) for _, at, half in _native_places(box, middle, scan)])


def _native_places(box: BoxConfig, middle: Sequence[float], scan: Scan) -> list[tuple[slice, npt.NDArray[np.float64], float]]:
    """Along each axis the native voxels in the box, their way in mm from its middle, and half of its extent."""
    factors = (1, NATIVE_PER_VOXEL, NATIVE_PER_VOXEL)
    found = []
    for place, count, step, spacing, factor, voxels in zip(
        middle, box.size, box.spacing_mm, scan.spacing_mm, factors, scan.hu.shape, strict=True
    ):
        at = np.array([to_mm(float(index), factor) for index in range(voxels * factor)]) * spacing - place
        inside = np.flatnonzero(np.abs(at) <= count * step / 2)
        found.append((slice(int(inside[0]), int(inside[-1]) + 1), at[inside], count * step / 2))
    return found


def judge(
    served: ServedBox,
    scan: Scan,
    match: Match,
    contours: Path,
    *,
    coarse: CoarseModel,
    thresholds: Mapping[str, float],
) -> list[BoxScore]:
    """Every organ of the box that the scan shows whole."""
    coarse_drawing = coarse.draw(scan, whole=bool(served.box.shares))
    also = {oar.name for oar in coarse.part.oars}
    middle = box_middle(served.box, coarse_drawing.centres)
    if middle is None:
        return []
    found, spans = on_native_grid(draw_box_on(served, scan, middle), served.box, middle, scan)
    fade = faded_on_native_grid(served.box, middle, scan)
    raters = [read_case(contours, match.case, rater, served.box.drawn_organs) for rater in RATERS]
    known, native_mm = scan.native_known, scan.native_mm
    rows = []
    voxel_ml = float(np.prod(native_mm)) / 1000.0
    for index, organ in enumerate(served.box.drawn_organs):
        masks = [cut(rater[organ].mask, *native_ranges(scan, match)) if organ in rater else None for rater in raters]
        counted = None if masks[0] is None else where_it_judges(organ, masks[0], known)
        if masks[0] is None or counted is None:
            continue
        reference = masks[0] & counted
        probability = np.zeros(reference.shape, np.float32)
        share: F32 | float = 1.0
        if organ in served.box.shares:
            probability, share = coarse_drawing.native_probability(organ), served.box.shares[organ] * fade
        probability[spans] += share * (found[index] - probability[spans])
        drawn = (probability >= thresholds.get(organ, 0.5)) & known
        drawn = (largest_piece(drawn) if BY_NAME[organ].single else drawn) & counted
        rows.append(
            BoxScore(
                case=match.case,
                organ=organ,
                dsc=volumetric_dsc(drawn, reference),
                coarse_dsc=volumetric_dsc(coarse_drawing.native_mask(organ) & counted, reference) if organ in also else None,
                human_dsc=None if masks[1] is None else volumetric_dsc(masks[1] & counted, reference),
                surface_dsc=surface_dsc(drawn, reference, native_mm, BY_NAME[organ].tolerance_mm),
                human_surface_dsc=None
                if masks[1] is None
                else surface_dsc(masks[1] & counted, reference, native_mm, BY_NAME[organ].tolerance_mm),
                predicted_ml=round(float(drawn.sum()) * voxel_ml, 3),
                reference_ml=round(float(reference.sum()) * voxel_ml, 3),
            )
        )
    return rows


def where_it_judges(organ: str, reference: Mask, known: Mask) -> Mask | None:
    """The voxels in which a drawing is compared with a reference.

    None if too little of the reference is known.

    A cord is drawn down to some level: of it what is known counts, from its lowest slice upwards.
    """
    shown = reference & known
    if organ in OPEN_ENDED and shown.any():
        lowest = int(np.flatnonzero(shown.any(axis=(1, 2)))[0])
        return np.asarray(known & (np.arange(len(known)) >= lowest)[:, None, None])
    return known if reference.any() and shown.sum() >= LEAST_KNOWN * reference.sum() else None


def read_judged(path: Path) -> list[BoxScore]:
    """What `box-judge` wrote."""
    return [BoxScore(**row) for row in json.loads(path.read_text(encoding="utf-8"))["organs"]]


def to_results(rows: Sequence[BoxScore]) -> dict[str, float | int]:
    """What a manifest says of each organ.

    The mean volumetric DSC, on how many scans, and the radiographer's on those.

    :raises ValueError: if an organ was judged twice on a scan: then the files are not one a fold.
    """
    seen = [(row.case, row.organ) for row in rows]
    if twice := {pair for pair in seen if seen.count(pair) > 1}:
        raise ValueError(f"judged twice: {', '.join(sorted(' '.join(pair) for pair in twice))}; one file a fold")
    results: dict[str, float | int] = {}
    for organ in dict.fromkeys(row.organ for row in rows):
        own = [row for row in rows if row.organ == organ]
        results[organ] = round(_mean([row.dsc for row in own]), 3)
        results[f"{organ}{SCANS}"] = len(own)
        if all(row.human_dsc is not None for row in own):
            results[f"{organ}{RADIOGRAPHER}"] = round(_mean([row.human_dsc for row in own]), 3)
    return results


def to_table(rows: Sequence[BoxScore]) -> str:
    """Markdown: the mean over the scans of each organ."""
    lines = [
        "| organ | scans | box | coarse | radiographer | surface: box | radiographer | drawn / reference, ml |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    for organ in dict.fromkeys(row.organ for row in rows):
        own = [row for row in rows if row.organ == organ]
        means = [_mean([getattr(row, key) for row in own]) for key in _COLUMNS]
        volumes = " / ".join(f"{_mean([getattr(row, key) for row in own]):.2f}" for key in ("predicted_ml", "reference_ml"))
        shown = ["" if math.isnan(mean) else f"{mean:.3f}" for mean in means]
        lines.append(f"| {organ} | {len(own)} | {' | '.join(shown)} | {volumes} |")
    return "\n".join(lines)


def _mean(values: Sequence[float | None]) -> float:
    present = [value for value in values if value is not None]
    return float(np.mean(present)) if present else float("nan")

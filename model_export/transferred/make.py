"""Transferred labels from public scans and released contours.

One file a scan; what is done is not done again.
"""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np

from model_export.datasets.openkbp import find_patients
from model_export.prepare import read_matches
from model_export.progress import Kept, shown, whole_lines
from model_export.transferred.atlases import Atlas, read_atlases
from model_export.transferred.coarse import CoarseModel
from model_export.transferred.eyes import EyePicture, mean_eye, refined_eye
from model_export.transferred.neighbourhoods import ORBITS, Neighbourhood
from model_export.transferred.registration import anchored, carried, lay_on, surroundings
from model_export.transferred.scans import NATIVE_PER_VOXEL, Image, Point, Scan, centre_mm, read_scan, to_image
from model_export.transferred.votes import TransferredScan, Votes, write_transferred

log = logging.getLogger(__name__)

EYES_APART_MM: Final = (50.0, 80.0)
REFUSED: Final = "refused.json"
CENTRES: Final = "centres.jsonl"
NO_BRAINSTEM: Final = "the brainstem is not seen"

Centres: TypeAlias = Callable[[], Mapping[str, Point]]
"""Where a coarse model sees organs; it looks when it is asked."""
Finder: TypeAlias = Callable[[Scan, Centres], dict[str, Point] | str]
"""The landmarks of a scan, or why there are none."""


def transfer(openkbp: Path, contours: Path, matched: Path, *, model: Path, out: Path, near: Neighbourhood = ORBITS) -> None:
    """Write ``pt_N.npz`` for each scan that shows the landmarks.

    And ``refused.json`` with a reason for each of the others.
    """
    out.mkdir(parents=True, exist_ok=True)
    matches, paths = read_matches(matched), find_patients(openkbp)
    atlases = read_atlases({path.stem: read_scan(path) for path in paths if path.stem in matches}, matches, contours, near)
    find, coarse = finder_of(near, atlases), Kept(out / CENTRES, work=str(model))
    seen_by, refused = CoarseModel(model), dict[str, str]()
    for path in shown(paths, "transfer"):
        if (out / f"{path.stem}.npz").is_file():
            continue
        scan = read_scan(path)
        found = find(scan, partial(seen, scan, seen_by, coarse))
        if isinstance(found, str):
            refused[scan.name] = found
            continue
        write_transferred(out / f"{scan.name}.npz", carry_over(scan, found, atlases, near))
    (out / REFUSED).write_text(json.dumps(refused, indent=1) + "\n", encoding="utf-8")
    log.info("%d scans, %d refused", len(paths) - len(refused), len(refused))


def seen(scan: Scan, model: CoarseModel, kept: Kept) -> dict[str, Point]:
    """Where the coarse model sees organs in a scan; it looks once."""
    return _points(kept.get(scan.name, partial(model.centres, scan)))


def read_centres(folder: Path) -> dict[str, dict[str, Point]]:
    """Where the coarse model saw organs, by scan.

    Of what `transfer` left in its folder.
    """
    return {name: _points(centres) for name, centres in whole_lines(folder / CENTRES)[1:]}


def _points(centres: Mapping[str, Sequence[float]]) -> dict[str, Point]:
    return {name: (x, y, z) for name, (x, y, z) in centres.items()}


def finder_of(near: Neighbourhood, atlases: Sequence[Atlas]) -> Finder:
    """What finds the landmarks of a neighbourhood in a scan."""
    if near is ORBITS:
        picture = picture_of(atlases)
        return lambda scan, see: landmarks_of(scan, see(), picture)
    return lambda scan, see: NO_BRAINSTEM if (place := brainstem_of(scan, see)) is None else {"Brainstem": place}


def picture_of(atlases: Sequence[Atlas]) -> EyePicture:
    """The mean picture of the atlases' eyes.

    A mirror image shows nothing new.
    """
    plain = [atlas for atlas in atlases if not atlas.is_mirrored]
    return mean_eye((atlas.scan, atlas.centres[eye], eye) for atlas in plain for eye in ("Eye_L", "Eye_R"))


def landmarks_of(scan: Scan, centres: Mapping[str, Point], picture: EyePicture) -> dict[str, Point] | str:
    """Both eyes and the brainstem, or why not."""
    found: dict[str, Point] = {}
    for eye in ("Eye_L", "Eye_R"):
        if eye not in centres:
            return f"{eye} is not seen"
        refined = refined_eye(scan, centres[eye], eye, picture)
        if refined is None:
            return f"{eye} does not look like an eye, or is cut"
        found[eye] = refined[0]
    apart = float(np.linalg.norm(np.subtract(found["Eye_L"], found["Eye_R"])))
    if not EYES_APART_MM[0] <= apart <= EYES_APART_MM[1] or found["Eye_L"][0] < found["Eye_R"][0]:
        return f"the eyes lie {apart:.0f} mm apart"
    if (place := brainstem_of(scan, lambda: centres)) is None:
        return NO_BRAINSTEM
    return found | {"Brainstem": place}


def brainstem_of(scan: Scan, see: Centres) -> Point | None:
    """The brainstem's middle, as drawn or else as seen."""
    drawn = scan.masks.get("Brainstem")
    return see().get("Brainstem") if drawn is None else centre_mm(drawn, scan.spacing_mm)


def carry_over(scan: Scan, landmarks: Mapping[str, Point], atlases: Sequence[Atlas], near: Neighbourhood) -> TransferredScan:
    """Every atlas of another patient laid on a scan.

    Its organs are moved to the scan's own anchors, where the neighbourhood says so.
    """
    fixed = surroundings(scan, [landmarks[name] for name in near.landmarks], near.margin_mm)
    grids = {
        organ: vote_grid(scan, landmarks[anchor], near.reach_of(organ), near.finer) for organ, anchor in near.anchors.items()
    }
    shares: dict[str, list[tuple[str, float, np.ndarray]]] = {organ: [] for organ in near.organs}
    for atlas in atlases:
        if atlas.scan.name == scan.name:
            continue
        transform, correlation = lay_on(fixed, atlas.moving, compared=near.compared)
        for organ, image in atlas.images.items():
            anchor = near.anchors[organ]
            moved = anchored(transform, landmarks[anchor], atlas.centres[anchor]) if near.joins_anchors else transform
            share = carried({organ: image}, moved, grids[organ][0])[organ]
            shares[organ].append((atlas.case, correlation, np.rint(share * 255).astype(np.uint8)))
    votes = {
        organ: Votes(
            np.stack([v for _, _, v in found]), grids[organ][1], tuple(c for c, _, _ in found), tuple(q for _, q, _ in found)
        )
        for organ, found in shares.items()
        if found
    }
    return TransferredScan(scan.name, dict(landmarks), votes)


def vote_grid(
    scan: Scan, anchor: Point, reach_mm: tuple[Point, Point], finer: int = NATIVE_PER_VOXEL
) -> tuple[Image, tuple[int, int, int]]:
    """A part of the scan's grid, so much finer, around an anchor.

    An image to resample onto, and its first index (z, y, x).
    """
    factors = (1, finer, finer)
    spans = []
    for axis, (factor, step, count) in enumerate(zip(factors, scan.spacing_mm, scan.hu.shape, strict=True)):
        place, low, high = anchor[2 - axis], reach_mm[0][2 - axis], reach_mm[1][2 - axis]
        first, last = ((place + reach) / step * factor for reach in (low, high))
        spans.append((max(0, int(first)), min(count * factor, int(last) + 1)))
    first_index = (spans[0][0], spans[1][0], spans[2][0])
    empty = np.zeros([max(stop - start, 1) for start, stop in spans], np.uint8)
    return to_image(empty, scan.spacing_mm, first=first_index, factor=finer), first_index

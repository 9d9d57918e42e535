"""How good transferred labels are.

Each matched scan's organs from the other patients' contours alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np

from model_export.datasets.openkbp import find_patients
from model_export.evaluate import volumetric_dsc
from model_export.prepare import read_matches
from model_export.transferred.atlases import Atlas, Share, read_atlases
from model_export.transferred.brain import TOP_MM, lower_brain
from model_export.transferred.coarse import CoarseModel
from model_export.transferred.make import carry_over, finder_of
from model_export.transferred.neighbourhoods import ORBITS, SKULL_BASE, Neighbourhood
from model_export.transferred.registration import carried
from model_export.transferred.scans import F32, NATIVE_PER_VOXEL, Mask, read_scan, to_image
from model_export.transferred.votes import TransferredScan, Votes, fused, joined, on_lattice

GIVEN, FOUND = "true", "found"
"""Landmarks: the experts' own, or those that a stranger's scan gets."""
OWN, JOINED = "OpenKBP's own", "joined"
"""What OpenKBP drew, and the label that is made of it and of what was carried over."""


@dataclass(frozen=True, slots=True)
class TransferScore:
    """One organ of one scan.

    Volumetric DSC with what both raters drew on the mean; None where the label was refused.
    """

    case: str
    organ: str
    landmarks: str
    dsc: float | None


def judge_transfer(
    openkbp: Path, contours: Path, matched: Path, *, model: Path, near: Neighbourhood = ORBITS
) -> list[TransferScore]:
    """Every atlas as the target of the others.

    With the experts' landmarks and with those that are found.
    """
    matches = read_matches(matched)
    scans = {path.stem: read_scan(path) for path in find_patients(openkbp) if path.stem in matches}
    atlases, coarse = read_atlases(scans, matches, contours, near), CoarseModel(model)
    rows = []
    for target in [atlas for atlas in atlases if not atlas.is_mirrored]:
        others = [atlas for atlas in atlases if atlas.case != target.case]
        rows += judge_target(target, {name: target.centres[name] for name in near.landmarks}, GIVEN, others, near)
        found = finder_of(near, others)(target.scan, partial(coarse.centres, target.scan))
        if isinstance(found, str):
            rows += [TransferScore(target.case, organ, FOUND, None) for organ in near.organs]
        else:
            rows += judge_target(target, found, FOUND, others, near)
    return rows


def judge_target(
    target: Atlas, landmarks: dict[str, tuple[float, float, float]], how: str, others: Sequence[Atlas], near: Neighbourhood
) -> list[TransferScore]:
    """Each organ of a scan that others' contours were laid on.

    Of the brain, what becomes a label.
    """
    found = carry_over(target.scan, landmarks, others, near)
    if near is SKULL_BASE:
        return [TransferScore(target.case, "Brain", how, _score_of_lower_brain(target, found))]
    rows = []
    for organ, votes in found.votes.items():
        if organ not in target.shares:
            continue
        label, reference = fused(votes), _reference(target.shares[organ], votes)
        rows.append(TransferScore(target.case, organ, how, None if label is None else volumetric_dsc(label >= 0.5, reference)))
        if how == FOUND and organ in target.scan.masks:
            own = on_lattice(target.scan.masks[organ], votes.first, reference.shape, near.finer)
            rows.append(TransferScore(target.case, organ, OWN, volumetric_dsc(own, reference)))
            if label is not None:
                rows.append(TransferScore(target.case, organ, JOINED, volumetric_dsc(joined(label, own) >= 0.5, reference)))
    return rows


def _score_of_lower_brain(target: Atlas, found: TransferredScan) -> float | None:
    """In known CT, up to the height that the label reaches."""
    scan, share = target.scan, target.shares["Brain"]
    end = int((found.landmarks["Brainstem"][2] + TOP_MM) / scan.spacing_mm[0]) + 1
    label = lower_brain(scan, found, end)
    if label is None:
        return None
    drawn = to_image(share.values, scan.spacing_mm, first=share.first, factor=NATIVE_PER_VOXEL)
    counted = scan.known & (np.arange(len(scan.hu)) < end)[:, None, None]
    reference = carried({"Brain": drawn}, None, to_image(scan.hu, scan.spacing_mm))["Brain"] >= 0.5
    return volumetric_dsc(label, reference & counted)


def _reference(share: Share, votes: Votes) -> Mask:
    """The true organ on the lattice of the votes."""
    out: F32 = np.zeros(votes.shares.shape[1:], np.float32)
    source, target = [], []
    for start, count, first, size in zip(share.first, share.values.shape, votes.first, out.shape, strict=True):
        low, high = max(start, first), min(start + count, first + size)
        source.append(slice(low - start, high - start))
        target.append(slice(low - first, high - first))
    out[tuple(target)] = share.values[tuple(source)]
    return np.asarray(out >= 0.5, np.bool_)


def to_table(rows: Sequence[TransferScore]) -> str:
    """The judgements as Markdown.

    A line for each organ and kind of label, a column for each scan, and the mean over those that were not refused.
    """
    cases: Final = list(dict.fromkeys(row.case for row in rows))
    lines = [f"| organ | | {' | '.join(cases)} | mean |", "| --- | --- |" + " ---: |" * (len(cases) + 1)]
    for organ, how in dict.fromkeys((row.organ, row.landmarks) for row in rows):
        found = {row.case: row.dsc for row in rows if (row.organ, row.landmarks) == (organ, how)}
        told = ["" if case not in found else "refused" if (dsc := found[case]) is None else f"{dsc:.3f}" for case in cases]
        scores = [dsc for dsc in found.values() if dsc is not None]
        lines.append(f"| {organ} | {how} | {' | '.join(told)} | {np.mean(scores) if scores else float('nan'):.3f} |")
    return "\n".join(lines)

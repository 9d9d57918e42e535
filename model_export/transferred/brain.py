"""The lower brain, as other patients' contours say where it lies.

A head whose top or back is cut shows no closed ring of bone for `plain_brain`, and three training scans show a whole brain under
an expert's contour. Contours of other patients, carried over by the bones of the skull base, agree on it; what is bone or air in
the CT is taken off. It becomes a label of a training scan up to some way above the brainstem, where one affine map still fits.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from model_export.datasets.openkbp import OpenKBPPatient
from model_export.datasets.training_file import CHANNEL, Case
from model_export.prepare import TUNING_CASES
from model_export.transferred.scans import Mask, Scan, to_scan
from model_export.transferred.votes import TransferredScan, fused, read_transferred
from oarlock.geometry.components import largest_piece
from oarlock.geometry.masks import Box

TISSUE_HU: Final = (-200.0, 350.0)
TOP_MM: Final = 30.0
"""How far above the brainstem's middle the label reaches."""
HIGHEST_MM: Final = 45.0
"""How far at most, where the plain upper brain begins there."""
LEAST_AGREEMENT: Final = 0.85


@dataclass(frozen=True, slots=True)
class LowerBrains:
    """The lower brains of a folder that `transfer --near skull-base` wrote.

    Called with a case of OpenKBP, its patient and where in the patient it lies, it gives the case with its label. No scan that
    tunes says anything of them.
    """

    folder: Path

    def __call__(self, case: Case, patient: OpenKBPPatient, box: Box) -> Case:
        path = self.folder / f"{patient.name}.npz"
        return with_lower_brain(case, to_scan(patient), box, read_transferred(path), TUNING_CASES) if path.is_file() else case


def with_lower_brain(case: Case, scan: Scan, box: Box, found: TransferredScan, left_out: Collection[str] = ()) -> Case:
    """The case with the lower brain labelled too.

    Where others' contours agree, and the upper brain is either unlabelled or begins where they still fit; else as it is.

    :param box: where in the scan the case lies.
    """
    channel, middle_mm, step_mm = CHANNEL["Brain"], found.landmarks["Brainstem"][2], scan.spacing_mm[0]
    begins = case.labelled_slices[case.channels.index(channel)][0] + box[0].start if channel in case.channels else None
    end = int((middle_mm + TOP_MM) / step_mm) + 1 if begins is None else begins
    if (end - 1) * step_mm > middle_mm + HIGHEST_MM or (drawn := lower_brain(scan, found, end, left_out)) is None:
        return case
    top = max(0, min(end, len(scan.hu)) - 1 - box[0].start)
    return case.with_label("Brain", drawn[box], (0, top)) if begins is None else _joined(case, drawn[box])


def lower_brain(scan: Scan, found: TransferredScan, end: int, left_out: Collection[str] = ()) -> Mask | None:
    """The brain below a slice.

    (z, y, x) on the scan's grid; None where the contours that were carried over do not agree.

    :param left_out: released cases whose contours say nothing.
    """
    votes = found.votes["Brain"].without(left_out)
    z, y, x = (slice(first, first + count) for first, count in zip(votes.first, votes.shares.shape[1:], strict=True))
    part = (slice(z.start, max(z.start, min(z.stop, end))), y, x)
    said = votes.shares[:, : part[0].stop - z.start] * scan.known[part]  # elsewhere the maps need not agree
    share = fused(replace(votes, shares=said), least_agreement=LEAST_AGREEMENT)
    if share is None:
        return None
    drawn = np.zeros(scan.hu.shape, np.bool_)
    drawn[part] = share >= 0.5
    drawn &= scan.known & (scan.hu > TISSUE_HU[0]) & (scan.hu < TISSUE_HU[1])
    return largest_piece(drawn) if drawn.any() else None


def _joined(case: Case, lower: Mask) -> Case:
    """The case whose label of the upper brain goes on downwards; both lie on the CT's grid."""
    index = case.channels.index(CHANNEL["Brain"])
    labels, slices = case.labels.copy(), list(case.labelled_slices)
    labels[index] |= lower.astype(np.uint8) * np.uint8(17)
    slices[index] = (0, slices[index][1])
    return replace(case, labels=labels, labelled_slices=tuple(slices))

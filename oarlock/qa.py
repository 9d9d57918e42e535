"""QAReport: one score per OAR, or the reason why there is none.

What every number means, its formula, source, unit and range: ``docs/qa.md``. The shape of the JSON is that of ``docs/api.md``;
keys beyond it may be added, none is ever taken away or NaN. ``DEFINITION`` names this set of definitions in every report, so
that numbers of two releases are only compared where they mean the same.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any, Final

import numpy as np

from oarlock.geometry import Grid
from oarlock.masks import Box, Mask, OARMasks, grow
from oarlock.oars import OAR, OARS
from oarlock.plausibility import Check, Level, check_masks
from oarlock.surface_distance import (
    ALLOWANCE_MM,
    ZYX,
    Lattice,
    added_path_length_mm,
    centre_mm,
    one_sided_slice_share,
    rounded_tolerance_mm,
    surface_distances,
    volume_ml,
    volumetric_dsc,
    voxels_per_slice,
)

__all__ = [
    "DEFINITION",
    "Check",
    "Level",
    "Measured",
    "OARScore",
    "Presence",
    "QAReport",
    "Source",
    "check_masks",
    "compare",
    "job_report",
    "measure",
    "score",
]

DEFINITION: Final = "surface-dsc/1"


class Presence(StrEnum):
    """Who drew an organ."""

    BOTH = "both"
    PREDICTED_ONLY = "predicted_only"
    REFERENCE_ONLY = "reference_only"
    NEITHER = "neither"

    @classmethod
    def of(cls, *, predicted: bool, reference: bool) -> "Presence":
        """From who drew it."""
        if predicted:
            return cls.BOTH if reference else cls.PREDICTED_ONLY
        return cls.REFERENCE_ONLY if reference else cls.NEITHER


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What one mask is against another; every field is a finite number, or None where it is not defined.

    Lengths are in mm, volumes in ml, shares and coefficients in [0, 1].
    """

    tolerance_rounded_mm: float | None = None
    surface_dsc: float | None = None
    surface_dsc_unrounded: float | None = None
    volumetric_dsc: float | None = None
    hausdorff_95_mm: float | None = None
    hausdorff_mm: float | None = None
    mean_surface_distance_mm: float | None = None
    mean_distance_predicted_to_reference_mm: float | None = None
    mean_distance_reference_to_predicted_mm: float | None = None
    added_path_length_mm: float | None = None
    predicted_volume_ml: float = 0.0
    reference_volume_ml: float = 0.0
    volume_ratio: float | None = None
    centre_distance_mm: float | None = None
    predicted_slices: int = 0
    reference_slices: int = 0
    one_sided_slice_share: float | None = None


@dataclass(frozen=True, slots=True)
class OARScore:
    """One organ of a comparison.

    :param matched_roi: name of the reference's ROI, None where none was matched.
    :param reason: why numbers are missing, in a sentence; None where none is missing.
    :param predicted_cut_by_scan, reference_cut_by_scan: whether the organ is drawn on the first or the last slice of the series.
    """

    oar: OAR
    matched_roi: str | None
    presence: Presence
    tolerance_mm: float
    tolerance_source: str
    measured: Measured
    reason: str | None
    predicted_cut_by_scan: bool
    reference_cut_by_scan: bool

    @property
    def surface_dsc(self) -> float | None:
        """Surface DSC at the rounded tolerance, the number that is charted."""
        return self.measured.surface_dsc

    def to_json(self) -> dict[str, Any]:
        """One entry of ``oars``."""
        return {
            "oar": self.oar.name,
            "matched_roi": self.matched_roi,
            "presence": self.presence.value,
            "tolerance_mm": self.tolerance_mm,
            **asdict(self.measured),
            "reason": self.reason,
            "tolerance_source": self.tolerance_source,
            "predicted_cut_by_scan": self.predicted_cut_by_scan,
            "reference_cut_by_scan": self.reference_cut_by_scan,
        }


@dataclass(frozen=True, slots=True)
class Source:
    """Where the contours of one side came from: an RTSTRUCT's SOP instance UID and structure set label."""

    sop_instance_uid: str
    label: str

    def to_json(self) -> dict[str, str]:
        """``{"sop_instance_uid": …, "label": …}``."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class QAReport:
    """The comparison of two structure sets on one series."""

    series_instance_uid: str
    predicted: Source
    reference: Source
    scores: tuple[OARScore, ...]
    unmatched: tuple[str, ...] = ()
    ambiguous: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The report as ``docs/api.md`` fixes it."""
        return {
            "definition": DEFINITION,
            "series_instance_uid": self.series_instance_uid,
            "predicted": self.predicted.to_json(),
            "reference": self.reference.to_json(),
            "oars": [score.to_json() for score in self.scores],
            "unmatched_reference_rois": list(self.unmatched),
            "ambiguous_reference_rois": list(self.ambiguous),
        }


def job_report(series_instance_uid: str, comparisons: Iterable[QAReport], checks: Iterable[Check]) -> dict[str, Any]:
    """The answer of ``GET /v1/jobs/{id}/qa``: a comparison with each supplied RTSTRUCT, and the checks that need none."""
    reports = [replace(report, series_instance_uid=series_instance_uid) for report in comparisons]
    return {
        "definition": DEFINITION,
        "series_instance_uid": series_instance_uid,
        "comparisons": [report.to_json() for report in reports],
        "checks": [check.to_json() for check in checks],
    }


def compare(
    predicted: OARMasks,
    reference: OARMasks,
    grid: Grid,
    *,
    matched_rois: Mapping[OAR, str],
    predicted_source: Source,
    reference_source: Source,
    unmatched: Sequence[str] = (),
    ambiguous: Sequence[str] = (),
    series_instance_uid: str = "",
    tolerances_mm: Mapping[OAR, float] | None = None,
) -> QAReport:
    """Score every OAR that either side knows, in the house's order.

    :param predicted, reference: masks on the same grid; an OAR that is not among a side's ``oars`` counts as not drawn there.
    :param matched_rois: name of the reference's ROI for each OAR that was matched (:func:`oarlock.names.match_rois`).
    :param unmatched, ambiguous: names of the reference's ROIs that were left out.
    :param tolerances_mm: a site's own tolerances in place of the paper's.
    :raises ValueError: if the shapes differ from the grid's.
    """
    if not predicted.shape == reference.shape == grid.shape:
        raise ValueError("both sets of masks must be on the grid")
    pair = _Pair(predicted, reference, Lattice.of(grid), tolerances_mm or {})
    known = {*predicted.oars, *reference.oars}
    scores = tuple(pair.score(oar, matched_rois.get(oar)) for oar in OARS if oar in known)
    return QAReport(series_instance_uid, predicted_source, reference_source, scores, tuple(unmatched), tuple(ambiguous))


def score(predicted: Mask, reference: Mask, *, spacing_mm: ZYX, tolerance_mm: float) -> Measured:
    """Every number for two masks of one organ on an upright grid with even spacings.

    :param predicted, reference: (z, y, x) of one shape; cropped to their common box this is fastest, and gives the same.
    :param spacing_mm: (z, y, x).
    """
    return measure(predicted, reference, lattice=Lattice.upright(len(predicted), spacing_mm), tolerance_mm=tolerance_mm)


def measure(predicted: Mask, reference: Mask, *, lattice: Lattice, tolerance_mm: float) -> Measured:
    """Every number for two masks of one organ; only volumes and slices where one of them is empty.

    :param lattice: of the arrays' slices.
    """
    drawn, expected = voxels_per_slice(predicted), voxels_per_slice(reference)
    amounts = Measured(
        predicted_volume_ml=volume_ml(drawn, lattice=lattice),
        reference_volume_ml=volume_ml(expected, lattice=lattice),
        predicted_slices=int(np.count_nonzero(drawn)),
        reference_slices=int(np.count_nonzero(expected)),
    )
    if not drawn.any() or not expected.any():
        return amounts
    distances = surface_distances(predicted, reference, lattice=lattice)
    rounded_mm = rounded_tolerance_mm(tolerance_mm, lattice)
    apart_mm = centre_mm(predicted, lattice=lattice) - centre_mm(reference, lattice=lattice)
    return replace(
        amounts,
        tolerance_rounded_mm=rounded_mm,
        surface_dsc=None if rounded_mm is None else distances.surface_dsc(rounded_mm + ALLOWANCE_MM),
        surface_dsc_unrounded=distances.surface_dsc(tolerance_mm),
        volumetric_dsc=volumetric_dsc(predicted, reference, lattice=lattice),
        hausdorff_95_mm=distances.hausdorff_mm(95),
        hausdorff_mm=distances.hausdorff_mm(100),
        mean_surface_distance_mm=distances.mean_mm(),
        mean_distance_predicted_to_reference_mm=distances.predicted.mean_mm(),
        mean_distance_reference_to_predicted_mm=distances.reference.mean_mm(),
        added_path_length_mm=added_path_length_mm(predicted, reference, lattice=lattice),
        volume_ratio=amounts.predicted_volume_ml / amounts.reference_volume_ml,
        centre_distance_mm=float(np.linalg.norm(apart_mm)),
        one_sided_slice_share=one_sided_slice_share(drawn, expected),
    )


@dataclass(frozen=True, eq=False)
class _Pair:
    """The two sides of a comparison."""

    predicted: OARMasks
    reference: OARMasks
    lattice: Lattice
    tolerances_mm: Mapping[OAR, float]

    def score(self, oar: OAR, matched_roi: str | None) -> OARScore:
        boxes = _box(self.predicted, oar), _box(self.reference, oar)
        presence = Presence.of(predicted=boxes[0] is not None, reference=boxes[1] is not None)
        tolerance_mm = self.tolerances_mm.get(oar, oar.tolerance_mm)
        measured = self._measure(oar, boxes, tolerance_mm)
        return OARScore(
            oar=oar,
            matched_roi=matched_roi,
            presence=presence,
            tolerance_mm=tolerance_mm,
            tolerance_source="the site's own" if oar in self.tolerances_mm else oar.tolerance_source,
            measured=measured,
            reason=self._reason(oar, presence, matched_roi, measured),
            predicted_cut_by_scan=self._is_cut(boxes[0]),
            reference_cut_by_scan=self._is_cut(boxes[1]),
        )

    def _measure(self, oar: OAR, boxes: tuple[Box | None, Box | None], tolerance_mm: float) -> Measured:
        box = _union(*boxes)
        if box is None:
            return Measured()
        # One slice more at each end: where the spacing is uneven, the gap to the next slice belongs to the surface.
        box = (grow(box, 1, self.predicted.shape)[0], box[1], box[2])
        lattice = self.lattice.between(box[0].start, box[0].stop)
        predicted, reference = _mask(self.predicted, oar, box), _mask(self.reference, oar, box)
        return measure(predicted, reference, lattice=lattice, tolerance_mm=tolerance_mm)

    def _is_cut(self, box: Box | None) -> bool:
        return box is not None and (box[0].start == 0 or box[0].stop == self.predicted.shape[0])

    def _reason(self, oar: OAR, presence: Presence, matched_roi: str | None, measured: Measured) -> str | None:
        ours = "is not drawn by the model" if oar not in self.predicted.oars else "is empty in the prediction"
        theirs = "has no ROI in the reference" if matched_roi is None else "is empty in the reference"
        match presence:
            case Presence.PREDICTED_ONLY:
                return f"{oar} {theirs}, so there is nothing to compare with."
            case Presence.REFERENCE_ONLY:
                return f"{oar} {ours}, so there is nothing to compare."
            case Presence.NEITHER:
                return f"{oar} {ours} and {theirs}."
        if measured.surface_dsc is None:
            return (
                "The slices are not evenly spaced, so the tolerance has no nearest voxel distance and surface_dsc is not "
                "defined; all other numbers use the slices' true positions."
            )
        return None


def _box(masks: OARMasks, oar: OAR) -> Box | None:
    return masks.boxes()[oar.name] if oar in masks.oars else None


def _mask(masks: OARMasks, oar: OAR, box: Box) -> Mask:
    if oar not in masks.oars:
        return np.zeros(masks.bits[box].shape, dtype=np.bool_)
    mask: Mask = np.not_equal(masks.bits[box] & masks.bit(oar), 0)
    return mask


def _union(a: Box | None, b: Box | None) -> Box | None:
    if a is None or b is None:
        return a or b
    z, y, x = (slice(min(p.start, q.start), max(p.stop, q.stop)) for p, q in zip(a, b, strict=True))
    return z, y, x

"""QAReport: one score per OAR, or the reason why there is none.

What every number means, its formula, source, unit and range: ``docs/qa.md``. The shape of the JSON is that of ``docs/api.md``;
keys beyond it may be added, none is ever taken away or NaN. ``DEFINITION`` names this set of definitions in every report, so
that numbers of two releases are only compared where they mean the same.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final

from oarlock.facts import ComparisonRows, ModelFacts, Notice
from oarlock.geometry.grid import Grid
from oarlock.geometry.masks import Crop, OARMasks
from oarlock.organs.catalogue import OAR, OARS
from oarlock.qa.action_levels import ActionLevels, all_pass, failures
from oarlock.qa.checks.finding import Finding
from oarlock.qa.interobserver import Spread
from oarlock.qa.lattice import Lattice, rounded_tolerance_mm
from oarlock.qa.measures import Beyond, Measured, amounts_of, compare_crops
from oarlock.qa.rounding import rounded
from oarlock.qa.verdict import verdict_of_set, verdicts

DEFINITION: Final = "surface-dsc/1"

OWN_TOLERANCE: Final = "the site's own"


class Presence(StrEnum):
    """Who drew an organ.

    Or that one side could only be read in part, so that it must not be compared as if it were whole.
    """

    BOTH = "both"
    READ_IN_PART = "read_in_part"
    PREDICTED_ONLY = "predicted_only"
    REFERENCE_ONLY = "reference_only"
    NEITHER = "neither"

    @classmethod
    def of(cls, *, predicted: bool, reference: bool) -> "Presence":
        """From who drew it."""
        if predicted:
            return cls.BOTH if reference else cls.PREDICTED_ONLY
        return cls.REFERENCE_ONLY if reference else cls.NEITHER


@dataclass(frozen=True, slots=True, eq=False)
class Remarks:
    """What the masks of one side do not tell of its ROIs.

    :param not_scored: why an organ's mask is not all that its ROI means, as the end of a sentence.
    :param hollow: organs whose ROI has contours that enclose no voxel.
    :param contested: organs that several ROIs claim, with the names of these.
    """

    not_scored: Mapping[OAR, str] = field(default_factory=dict)
    hollow: frozenset[OAR] = frozenset()
    contested: Mapping[OAR, tuple[str, ...]] = field(default_factory=dict)

    def absence(self, oar: OAR, side: str, *, has_roi: bool) -> str:
        """Why an organ has no voxel on a side.

        It is the rest of a sentence that begins with the organ.
        """
        if oar in self.hollow:
            return f"has contours in {side} that enclose no voxel"
        if oar in self.contested:
            return f"is claimed by {len(self.contested[oar])} ROIs in {side}, of which none was used"
        return f"{'is empty' if has_roi else 'has no ROI that can be used'} in {side}"


@dataclass(frozen=True, slots=True)
class OARScore:
    """One organ of a comparison.

    :param matched_roi: name of the reference's ROI, None where none was matched; ``predicted_roi`` that of the prediction's.
    :param reason: why numbers are missing, in a sentence; None where none is missing.
    :param action_levels: the site's own for this organ.
    :param predicted_cut_by_scan, reference_cut_by_scan: whether the organ is drawn on the first or the last slice of the series.
    :param beyond: where the surfaces are further apart than the tolerance; None where they are not compared. Not in the JSON.
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
    predicted_roi: str | None = None
    beyond: Beyond | None = field(default=None, compare=False, repr=False)
    action_levels: ActionLevels = field(default_factory=dict)

    @property
    def failed(self) -> tuple[str, ...] | None:
        """Which numbers lie beyond the site's action levels.

        None where nothing is judged.
        """
        return failures(self.action_levels, asdict(self.measured), missed=self.presence is Presence.REFERENCE_ONLY)

    @property
    def passed(self) -> bool | None:
        """Whether no number lies beyond the site's action levels.

        None where nothing is judged.
        """
        return None if self.failed is None else not self.failed

    @property
    def surface_dsc(self) -> float | None:
        """Surface DSC at the rounded tolerance, the number that is charted."""
        return self.measured.surface_dsc

    def to_row(self, verdict: str | None = None) -> dict[str, Any]:
        """The numbers of this organ as a row.

        As round as in the report; and why some are missing.

        :param verdict: on what the predicted side drew.
        """
        known = {"oar": self.oar.name, "presence": self.presence.value, "tolerance_mm": self.tolerance_mm, "passed": self.passed}
        return known | rounded(asdict(self.measured)) | {"undefined_reason": self.reason, "verdict": verdict}

    def to_json(self) -> dict[str, Any]:
        """One entry of ``oars``."""
        return {
            "oar": self.oar.name,
            "matched_roi": self.matched_roi,
            "presence": self.presence.value,
            "tolerance_mm": self.tolerance_mm,
            **rounded(asdict(self.measured)),
            "reason": self.reason,
            "tolerance_source": self.tolerance_source,
            "predicted_cut_by_scan": self.predicted_cut_by_scan,
            "reference_cut_by_scan": self.reference_cut_by_scan,
            "predicted_roi": self.predicted_roi,
            "action_levels": dict(self.action_levels),
            "passed": self.passed,
            "failed": list(self.failed or ()),
        }


@dataclass(frozen=True, slots=True)
class Source:
    """Where the contours of one side came from.

    An RTSTRUCT's SOP instance UID and structure set label.
    """

    sop_instance_uid: str
    label: str

    def to_json(self) -> dict[str, str]:
        """``{"sop_instance_uid": …, "label": …}``."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class QAReport:
    """The comparison of two structure sets on one series.

    :param warnings: what of the two files was not used as it stands, or should be known of them.
    :param position: of the reference among the RTSTRUCTs that were supplied, from 1.
    """

    series_instance_uid: str
    predicted: Source
    reference: Source
    scores: tuple[OARScore, ...]
    unmatched: tuple[str, ...] = ()
    ambiguous: tuple[str, ...] = ()
    predicted_unmatched: tuple[str, ...] = ()
    predicted_ambiguous: tuple[str, ...] = ()
    warnings: tuple[Notice, ...] = ()
    position: int = 1

    @property
    def passed(self) -> bool | None:
        """Whether every judged organ lies within the site's action levels.

        None where no organ is judged.
        """
        return all_pass(score.passed for score in self.scores)

    @property
    def measured(self) -> dict[OAR, Measured]:
        """The numbers by OAR."""
        return {score.oar: score.measured for score in self.scores}

    def to_rows(self, verdicts: Mapping[str, str] = MappingProxyType({})) -> ComparisonRows:
        """The scores as rows for a table.

        Names of ROIs and labels are left out: a sender chose them.

        :param verdicts: on the organs of the predicted side, by name.
        """
        rows = tuple(score.to_row(verdicts.get(score.oar.name)) for score in self.scores)
        return ComparisonRows(DEFINITION, rows, self.position)

    def to_json(self) -> dict[str, Any]:
        """The report as ``docs/api.md`` fixes it."""
        return {
            "definition": DEFINITION,
            "series_instance_uid": self.series_instance_uid,
            "predicted": self.predicted.to_json(),
            "reference": self.reference.to_json(),
            "passed": self.passed,
            "oars": [score.to_json() for score in self.scores],
            "unmatched_reference_rois": list(self.unmatched),
            "ambiguous_reference_rois": list(self.ambiguous),
            "unmatched_predicted_rois": list(self.predicted_unmatched),
            "ambiguous_predicted_rois": list(self.predicted_ambiguous),
            "warnings": [asdict(warning) for warning in self.warnings],
        }


@dataclass(frozen=True, slots=True)
class Making:
    """Which job and model contours are of.

    :param created_at: when the job was sent, in ISO 8601.
    :param software: version of Oarlock.
    """

    job_id: str
    created_at: str
    model: ModelFacts
    software: str

    def to_json(self) -> dict[str, Any]:
        """``made`` of a report."""
        return {
            "job_id": self.job_id,
            "created_at": self.created_at,
            "model": asdict(self.model),
            "software": f"Oarlock {self.software}",
        }


def tolerance_table(oars: Iterable[OAR], grid: Grid, own_mm: Mapping[OAR, float]) -> list[dict[str, Any]]:
    """``tolerances`` of a report, by organ.

    What each organ is, or would be, scored with on this grid.

    :param own_mm: a site's own tolerances in place of the paper's.
    """
    lattice = Lattice.of(grid)
    return [
        {
            "oar": oar.name,
            "tolerance_mm": own_mm.get(oar, oar.tolerance_mm),
            "tolerance_rounded_mm": rounded(rounded_tolerance_mm(own_mm.get(oar, oar.tolerance_mm), lattice)),
            "tolerance_source": OWN_TOLERANCE if oar in own_mm else oar.tolerance_source,
        }
        for oar in oars
    ]


def _grid_json(grid: Grid) -> dict[str, Any]:
    slices, rows, columns = grid.shape
    z, y, x = (round(spacing, 6) for spacing in grid.spacing_mm)
    return {"slices": slices, "rows": rows, "columns": columns, "spacing_mm": {"slices": z, "rows": y, "columns": x}}


def job_report(
    series_instance_uid: str,
    comparisons: Iterable[QAReport],
    checks: Iterable[Finding],
    observers: Iterable[Spread] = (),
    not_compared: Sequence[Mapping[str, Any]] = (),
    *,
    grid: Grid | None = None,
    made: Making | None = None,
    site: str | None = None,
    tolerances: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """The answer of ``GET /v1/jobs/{id}/qa``.

    A comparison with each supplied RTSTRUCT, and the checks that need none.

    :param observers: how far several supplied RTSTRUCTs are from each other, see :mod:`oarlock.qa.interobserver`.
    :param not_compared: position, code and detail of each RTSTRUCT that could not be used.
    :param grid: of the series.
    :param made: which job and model the predicted contours are of, where they are a job's.
    :param site: the name that the site gives itself.
    :param tolerances: :func:`tolerance_table` of the organs.
    """
    checks = tuple(checks)
    organs = verdicts(checks, OARS)
    reports = [replace(report, series_instance_uid=series_instance_uid) for report in comparisons]
    return {
        "definition": DEFINITION,
        "series_instance_uid": series_instance_uid,
        "made": None if made is None else made.to_json(),
        "site": site,
        "grid": None if grid is None else _grid_json(grid),
        "verdict": verdict_of_set(organs).value,
        "organs": [verdict.to_json() for verdict in organs],
        "tolerances": list(tolerances),
        "comparisons": [{"origin": "supplied", "position": one.position, **one.to_json()} for one in reports],
        "checks": [check.to_json() for check in checks],
        "observers": [spread.to_json() for spread in observers],
        "not_compared": list(not_compared),
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
    predicted_unmatched: Sequence[str] = (),
    predicted_ambiguous: Sequence[str] = (),
    series_instance_uid: str = "",
    tolerances_mm: Mapping[OAR, float] | None = None,
    predicted_remarks: Remarks | None = None,
    reference_remarks: Remarks | None = None,
    predicted_rois: Mapping[OAR, str] | None = None,
    action_levels: Mapping[OAR, ActionLevels] | None = None,
) -> QAReport:
    """The scores of every OAR that either side knows.

    In the order of the catalogue.

    :param predicted, reference: masks on the same grid; an OAR that is not among a side's ``oars`` counts as not drawn there.
    :param matched_rois: name of the reference's ROI for each OAR that was matched (:func:`oarlock.organs.roi_names.match_rois`).
    :param unmatched, ambiguous: names of the reference's ROIs that were left out; ``predicted_…`` those of the predicted.
    :param tolerances_mm: a site's own tolerances in place of the paper's.
    :param predicted_rois: name of the predicted ROI for each OAR.
    :param action_levels: a site's own.
    :param predicted_remarks, reference_remarks: what the masks of a side do not tell.
    :raises ValueError: if the shapes differ from the grid's.
    """
    if not predicted.shape == reference.shape == grid.shape:
        raise ValueError("both sets of masks must be on the grid")
    pair = _Pair(
        predicted,
        reference,
        Lattice.of(grid),
        tolerances_mm or {},
        predicted_remarks or Remarks(),
        reference_remarks or Remarks(),
    )
    known = {*predicted.oars, *reference.oars}
    ours = predicted_rois or {}
    levels = action_levels or {}
    scores = tuple(
        replace(pair.score(oar, matched_rois.get(oar)), predicted_roi=ours.get(oar), action_levels=levels.get(oar, {}))
        for oar in OARS
        if oar in known
    )
    return QAReport(
        series_instance_uid,
        predicted_source,
        reference_source,
        scores,
        unmatched=tuple(unmatched),
        ambiguous=tuple(ambiguous),
        predicted_unmatched=tuple(predicted_unmatched),
        predicted_ambiguous=tuple(predicted_ambiguous),
    )


@dataclass(frozen=True, eq=False)
class _Pair:
    """The two sides of a comparison."""

    predicted: OARMasks
    reference: OARMasks
    lattice: Lattice
    tolerances_mm: Mapping[OAR, float]
    predicted_remarks: Remarks
    reference_remarks: Remarks

    def score(self, oar: OAR, matched_roi: str | None) -> OARScore:
        crops = [masks.crop(oar) if oar in masks.oars else None for masks in (self.predicted, self.reference)]
        presence = Presence.of(predicted=crops[0] is not None, reference=crops[1] is not None)
        in_part = self._in_part(oar)
        tolerance_mm = self.tolerances_mm.get(oar, oar.tolerance_mm)
        if in_part:
            presence, measured, beyond = Presence.READ_IN_PART, amounts_of(*crops, lattice=self.lattice), None
        else:
            measured, beyond = compare_crops(*crops, lattice=self.lattice, tolerance_mm=tolerance_mm)
        return OARScore(
            oar=oar,
            matched_roi=matched_roi,
            presence=presence,
            tolerance_mm=tolerance_mm,
            tolerance_source=OWN_TOLERANCE if oar in self.tolerances_mm else oar.tolerance_source,
            measured=measured,
            reason=in_part or self._reason(oar, presence, matched_roi, measured),
            predicted_cut_by_scan=self._is_cut(crops[0]),
            reference_cut_by_scan=self._is_cut(crops[1]),
            beyond=beyond,
        )

    def _is_cut(self, crop: Crop | None) -> bool:
        return crop is not None and (crop[0][0].start == 0 or crop[0][0].stop == self.predicted.shape[0])

    def _in_part(self, oar: OAR) -> str | None:
        """Why an organ is not scored although it may be drawn; None if it is."""
        sides = (("prediction", self.predicted_remarks), ("reference", self.reference_remarks))
        why = [f"in the {side}, {remarks.not_scored[oar]}" for side, remarks in sides if oar in remarks.not_scored]
        return f"{oar} is not scored: {'; '.join(why)}." if why else None

    def _reason(self, oar: OAR, presence: Presence, matched_roi: str | None, measured: Measured) -> str | None:
        ours = self.predicted_remarks.absence(oar, "the prediction", has_roi=oar in self.predicted.oars)
        theirs = self.reference_remarks.absence(oar, "the reference", has_roi=matched_roi is not None)
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

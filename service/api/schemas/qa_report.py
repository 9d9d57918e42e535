"""The QA report and comparisons of RTSTRUCTs as documents.

Of a job, or of two RTSTRUCTs; ``docs/qa.md`` says what every number means.

What a report of an earlier version lacks is null, or an empty list.
"""

from typing import Literal

from pydantic import Field

from service.api.schemas.base import Schema, Time

Level = Literal["green", "amber", "red"]
PresenceName = Literal["both", "read_in_part", "predicted_only", "reference_only", "neither"]


class Notice(Schema):
    """Something that a physicist should know."""

    code: str
    detail: str


class StructureSetSource(Schema):
    """The RTSTRUCT of one side."""

    sop_instance_uid: str
    label: str = Field(description="Structure Set Label")


class OrganScore(Schema):
    """The numbers of one organ in a comparison.

    Null where one is not defined, and `reason` says why.
    """

    oar: str = Field(description="TG-263 name")
    matched_roi: str | None = Field(description="name of the reference's ROI")
    predicted_roi: str | None = Field(None, description="name of the predicted ROI")
    presence: PresenceName = Field(description="who drew the organ")
    tolerance_mm: float
    tolerance_rounded_mm: float | None = Field(description="nearest distance that the raster knows")
    surface_dsc: float | None = Field(description="at tolerance_rounded_mm, 0 to 1")
    surface_dsc_unrounded: float | None = Field(description="at tolerance_mm, 0 to 1")
    volumetric_dsc: float | None = Field(description="0 to 1")
    hausdorff_95_mm: float | None
    hausdorff_mm: float | None
    mean_surface_distance_mm: float | None
    mean_distance_predicted_to_reference_mm: float | None
    mean_distance_reference_to_predicted_mm: float | None
    added_path_length_mm: float | None
    predicted_volume_ml: float
    reference_volume_ml: float
    volume_ratio: float | None = Field(description="predicted / reference")
    centre_distance_mm: float | None
    predicted_slices: int
    reference_slices: int
    one_sided_slice_share: float | None = Field(description="0 to 1")
    reason: str | None = Field(description="why numbers are missing")
    tolerance_source: str
    predicted_cut_by_scan: bool
    reference_cut_by_scan: bool
    action_levels: dict[str, float] = Field({}, description="the site's own, by the name of the number")
    passed: bool | None = Field(None, description="whether no number lies beyond its action level; null: not judged")
    failed: list[str] = Field([], description="names of the numbers that do")


class Comparison(Schema):
    """Two RTSTRUCTs on one series."""

    definition: str = Field(description="which definitions the numbers follow")
    series_instance_uid: str
    predicted: StructureSetSource
    reference: StructureSetSource
    passed: bool | None = Field(None, description="whether every organ that is judged passes; null where none is")
    oars: list[OrganScore] = Field(description="in the order of the catalogue")
    unmatched_reference_rois: list[str] = Field(description="names of ROIs that are not one of the organs")
    ambiguous_reference_rois: list[str] = Field(description="names of ROIs that claim one organ together")
    unmatched_predicted_rois: list[str] = Field([])
    ambiguous_predicted_rois: list[str] = Field([])
    warnings: list[Notice] = Field([], description="what was not used as it stands")


class JobComparison(Comparison):
    """The contours of a job against one RTSTRUCT."""

    origin: Literal["supplied", "approved"] = Field("supplied", description="came with the series, or was returned afterwards")
    position: int = Field(1, description="among those of its origin, from 1")
    returned_at: Time | None = Field(None, description="when it came back; null if it came with the series")
    superseded: bool = Field(False, description="whether a later return took its place")
    file: str | None = Field(None, description="address of the RTSTRUCT; null if it was not kept")


class SliceSpan(Schema):
    """Numbers of slices along the slice axis of the series, from 1."""

    best: int = Field(description="on which it shows best")
    first: int
    last: int


class Check(Schema):
    """What one check that needs no reference found."""

    code: str
    oar: str | None = Field(description="TG-263 name; null for the whole set")
    level: Level
    reason: str
    value: float | None = Field(description="what was measured, in `unit`")
    low: float | None = Field(description="lower limit of green")
    high: float | None = Field(description="upper limit of green")
    unit: str | None
    slices: SliceSpan | None = Field(None, description="where it shows; null where nowhere")


class OrganVerdict(Schema):
    """What all checks of one organ come to."""

    oar: str
    verdict: Level
    code: str = Field(description="of the strongest finding")
    reason: str = Field(description="of the strongest finding")
    other_codes: list[str]
    slices: SliceSpan | None = Field(None, description="where the strongest finding shows")


class Tolerance(Schema):
    """What an organ is scored with."""

    oar: str
    tolerance_mm: float
    tolerance_rounded_mm: float | None = Field(description="nearest distance that the raster knows")
    tolerance_source: str


class Range(Schema):
    """The lowest, the median and the highest of some numbers."""

    lowest: float
    median: float
    highest: float


class Ranges(Schema):
    """Ours against the observers, and the observers against each other."""

    ours: Range | None
    between: Range | None


class Observers(Schema):
    """One organ in the eyes of several observers."""

    oar: str
    observers: int
    pairs: int
    surface_dsc: Ranges
    volumetric_dsc: Ranges
    hausdorff_95_mm: Ranges
    mean_surface_distance_mm: Ranges
    within_observers: bool | None = Field(description="whether our median is no lower than the lowest between two observers")
    reason: str | None


class NotCompared(Schema):
    """A supplied RTSTRUCT that could not be compared with."""

    position: int = Field(description="among those supplied, from 1")
    code: str
    detail: str


class DrawnBy(Schema):
    """The model that drew the contours."""

    name: str
    version: str
    sha256: str


class Made(Schema):
    """Which job, model and software made the contours, and when."""

    job_id: str
    created_at: Time
    started_at: Time | None = None
    finished_at: Time | None = None
    model: DrawnBy
    software: str


class SpacingMm(Schema):
    """Distances of neighbouring voxels."""

    slices: float
    rows: float
    columns: float


class GridFacts(Schema):
    """Size and spacing of the series."""

    slices: int
    rows: int
    columns: int
    spacing_mm: SpacingMm


class QAReportDocument(Schema):
    """What is known of the contours of a job.

    Verdicts, checks, and comparisons with every RTSTRUCT that came.
    """

    definition: str
    series_instance_uid: str = ""
    made: Made | None = None
    grid: GridFacts | None = None
    site: str | None = Field(None, description="what the site calls itself (docs/qa.md, site file)")
    verdict: Level | None = Field(None, description="of the whole set: that of its worst organ")
    organs: list[OrganVerdict] = Field([])
    tolerances: list[Tolerance] = Field([], description="what each organ is scored with on this grid")
    comparisons: list[JobComparison] = Field([], description="supplied ones in their order, then returned ones in theirs")
    checks: list[Check] = Field([])
    observers: list[Observers] = Field([], description="spread between several supplied RTSTRUCTs")
    not_compared: list[NotCompared] = Field([])

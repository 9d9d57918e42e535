"""Scores, their summary and the control charts, as documents."""

from datetime import date
from typing import Annotated, Final, Literal

from pydantic import Field

from oarlock.qa.control_chart import Rule
from oarlock.store.reviews import Opinion
from oarlock.store.scores.write import Origin
from service.api.schemas.base import Schema, Time

BucketName = Literal["day", "week", "month", "all"]


class ScoreRow(Schema):
    """One organ of one comparison, without patient data."""

    at: Time = Field(description="when it was compared")
    job_id: str
    origin: Origin = Field(
        description="whether the RTSTRUCT came with the series, was approved afterwards, or is what was delivered"
    )
    position: int = Field(description="of the RTSTRUCT among those of its origin for the job, from 1")
    model: str
    model_version: str
    model_sha256: str
    scanner: str = Field(description="Manufacturer, Manufacturer's Model Name and Station Name of the CT, in plain letters")
    site: str = Field(description="whose job it was; empty for an operator's")
    oar: str = Field(description="TG-263 name")
    presence: Literal["both", "predicted_only", "reference_only", "read_in_part"] = Field(
        description="who drew the organ; read_in_part: a side could not be read as a whole, so nothing compares"
    )
    definition: str
    tolerance_mm: float
    surface_dsc: float | None
    surface_dsc_unrounded: float | None
    volumetric_dsc: float | None
    hausdorff_95_mm: float | None
    mean_surface_distance_mm: float | None
    added_path_length_mm: float | None
    predicted_volume_ml: float
    reference_volume_ml: float
    tolerance_rounded_mm: float | None
    undefined_reason: str | None = Field(description="why numbers are null, in a sentence; null where none is")
    verdict: Literal["green", "amber", "red"] | None = Field(
        description="of the checks on what was drawn; null where nothing was, and for jobs of versions before there were verdicts"
    )
    shadow: bool = Field(description="whether a model drew it that delivered nothing")
    review: Opinion | None = Field(description="what somebody last said of the organ as it was delivered; null where nobody did")


class ScorePage(Schema):
    """Some scores, newest first."""

    scores: list[ScoreRow]
    next: str | None = Field(description="the cursor of the next page; null on the last one")


class ScoreDistribution(Schema):
    """What the defined scores say together."""

    n: int = Field(description="how many are defined")
    mean: float
    sd: float | None = Field(description="sample standard deviation; null of a single score")
    lowest: float
    lower_quartile: float
    median: float
    upper_quartile: float
    highest: float
    below_alert: float = Field(description="share under the alert level, 0 to 1")


class ScoreSummary(Schema):
    """The scores of an organ over some time.

    A distribution is null where no score is defined.
    """

    n: int = Field(description="cases that both sides drew")
    one_sided: int = Field(description="cases that one side alone drew")
    missed: int = Field(description="of these, those that the reference alone drew, where it is known")
    extra: int = Field(description="of these, those that the predicted side alone drew, where it is known")
    changed: int = Field(description="of n, those whose volumetric DSC is below 1; of approved contours, what people edited")
    surface_dsc: ScoreDistribution | None
    volumetric_dsc: ScoreDistribution | None


class ScoreBucket(ScoreSummary):
    """The summary's part of one day, week or month."""

    start: date = Field(description="its first day, UTC")


class ScoreAmount(Schema):
    """A length or a volume, of the cases that define it."""

    n: int
    mean: float
    lowest: float
    highest: float


class Turnaround(Schema):
    """How long jobs took from their post to their end, in seconds."""

    n: int
    mean: float
    lower_quartile: float
    median: float
    upper_quartile: float
    highest: float


class OARScores(ScoreSummary):
    """The summary of an organ.

    Over the whole time and over each part of it that has a case.
    """

    oar: str
    hausdorff_95_mm: ScoreAmount | None
    mean_surface_distance_mm: ScoreAmount | None
    added_path_length_mm: ScoreAmount | None
    predicted_volume_ml: ScoreAmount | None
    reference_volume_ml: ScoreAmount | None
    over_time: list[ScoreBucket]


class QASummary(Schema):
    """What a QA dashboard plots."""

    since: date = Field(serialization_alias="from", description="first day, UTC")
    to: date = Field(description="last day, UTC")
    bucket: BucketName
    origin: Origin = Field(description="of what was compared with; one is never mixed with the other")
    alert_level: float
    turnaround_s: Turnaround | None = Field(description="of all jobs that succeeded in that time; null where none did")
    oars: list[OARScores] = Field(description="in the order of the RTSTRUCT; without those that have no case")


class CheckBucket(Schema):
    """How often in one day, week or month."""

    start: date = Field(description="its first day, UTC")
    n: int


class CheckCount(Schema):
    """How often a check gave a level for an organ."""

    oar: str | None = Field(description="TG-263 name; null for a whole set of contours")
    check: str = Field(description="code of the check; `verdict` for what all come to; `action_levels` for pass and fail")
    level: Literal["green", "amber", "red", "pass", "fail"]
    n: int
    over_time: list[CheckBucket]


class QAChecks(Schema):
    """What the checks said over time."""

    since: date = Field(serialization_alias="from", description="first day, UTC")
    to: date = Field(description="last day, UTC")
    bucket: BucketName
    checks: list[CheckCount] = Field(description="in the order of the RTSTRUCT, by check and level")


class DriftRule(Schema):
    """A rule of the control charts."""

    rule: Rule
    meaning: str


class DriftModel(Schema):
    """The model of a chart."""

    name: str
    version: str
    sha256: str


class DriftAlarm(Schema):
    """A score at which a rule fires."""

    at: Time
    job_id: str
    rule: Rule
    side: Literal["lower", "higher"] = Field(description="of the centre")


class DriftPoint(Schema):
    """The surface DSC of one approved case."""

    at: Time
    job_id: str
    value: float
    review: Opinion | None = Field(description="what somebody last said of the organ of this job")
    alarms: list[Rule] = Field(description="rules whose pattern this point completes")


class DriftBasePoint(Schema):
    """The surface DSC of one approved case of a baseline."""

    at: Time
    job_id: str
    value: float
    review: Opinion | None = Field(description="what somebody last said of the organ of this job")


class DriftBaseline(Schema):
    """What the limits are made of."""

    n: int
    needed: int
    since: Time = Field(serialization_alias="from")
    to: Time
    points: list[DriftBasePoint] = Field(description="in their order")


class DriftLimits(Schema):
    """Between which scores a stable process stays."""

    lower: float
    upper: float | None = Field(description="null where only low scores alarm: limits of past patients")


class DriftCommissioned(Schema):
    """The past patients that the first limits are made of.

    They count until enough contours have come back.
    """

    at: Time = Field(description="when they were kept")
    patients: int
    n: int = Field(description="scores of this organ that the limits are made of")
    own_scanner: bool = Field(description="whether they are those of this scanner alone, or of all together")


class DriftChart(Schema):
    """How the surface DSC of one organ went over time.

    Of one organ, model and scanner, against contours that were approved.
    """

    oar: str
    model: DriftModel
    scanner: str
    site: str = Field(description="whose jobs they were; empty for an operator's")
    shadow: bool = Field(description="whether the model delivered nothing of it")
    metric: Literal["surface_dsc"]
    baseline: DriftBaseline
    centre: float | None = Field(description="null as long as there is no baseline")
    limits: DriftLimits | None
    commissioned: DriftCommissioned | None = Field(description="null as soon as the baseline is whole")
    reason: str | None = Field(description="why there are no limits")
    points: list[DriftPoint] = Field(description="the newest ones behind the baseline, or of all while `commissioned`")
    alarms: list[DriftAlarm] = Field(description="of these points")


class Drift(Schema):
    """Control charts, by model, scanner and organ."""

    rules: list[DriftRule]
    charts: list[DriftChart]


class BaselineModel(Schema):
    """The model that drew the past patients."""

    name: str = Field(min_length=1, max_length=200)
    version: str = Field(min_length=1, max_length=200)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


_Share = Annotated[float, Field(ge=0, le=1)]


_OfScanners = dict[Annotated[str, Field(max_length=200)], list[_Share]]
_BY_SCANNER: Final = "the same by scanner: its charts begin with its own where it has five"


class BaselineOrganPost(Schema):
    """What one organ scored, as it is told."""

    oar: str = Field(description="TG-263 name")
    surface_dsc_scores: list[_Share] = Field(max_length=10_000, description="of each patient, 0 to 1")
    surface_dsc_by_scanner: _OfScanners = Field({}, max_length=200, description=_BY_SCANNER)


class BaselineOrgan(Schema):
    """What one organ scored."""

    oar: str = Field(description="TG-263 name")
    surface_dsc_scores: list[float] = Field(description="of each patient, 0 to 1")
    surface_dsc_by_scanner: dict[str, list[float]] = Field(description=_BY_SCANNER)


class BaselinePost(Schema):
    """What `oarlock commission` leaves in `commissioning.json`.

    What else is in it is not read.
    """

    drawn_by: BaselineModel
    patients: int = Field(ge=1, le=10_000)
    organs: list[BaselineOrganPost] = Field(min_length=1, max_length=200)


class BaselineEntry(Schema):
    """What a model scored on past patients."""

    at: Time
    by: str = Field(description="who kept it")
    site: str = Field(description="whose patients they were; empty: it holds for each site without one of its own")
    drawn_by: BaselineModel
    patients: int
    organs: list[BaselineOrgan]


class Baselines(Schema):
    """The newest baseline of each model and site."""

    baselines: list[BaselineEntry]

"""The JSON of the HTTP contract. Every field is always present; one without a value is null."""

from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer

from oarlock.qa.control_chart import Rule
from oarlock.rtstruct.profiles import Profile
from oarlock.segmentation.manifest import ModelManifest
from oarlock.store.jobs import Job, JobFailure, JobState, Priority, Stage
from oarlock.store.scores.write import Origin
from service.api.problems import describe


def rfc3339(time: datetime) -> str:
    """A time as RFC 3339 in UTC, to the millisecond."""
    return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


Time = Annotated[datetime, PlainSerializer(rfc3339, return_type=str)]
PriorityName = Literal["urgent", "normal", "low"]
BucketName = Literal["day", "week", "month", "all"]


class _Schema(BaseModel):
    model_config = ConfigDict(frozen=True, protected_namespaces=())


class Problem(_Schema):
    """An RFC 9457 problem document."""

    type: str = Field(description="where this kind of problem is explained")
    title: str
    status: int
    code: str = Field(description="stable code of the error, see docs/api.md")
    detail: str = Field(description="what is wrong, where, and what to do; never patient data")
    instance: str | None = Field(None, description="the request, as the server's log names it")


class JobError(_Schema):
    """Why a job failed."""

    type: str
    title: str
    status: int
    code: str
    detail: str

    @classmethod
    def of(cls, failure: JobFailure) -> Self:
        return cls(**describe(failure.code, failure.title, failure.detail))


class JobSeries(_Schema):
    """The CT series of a job."""

    study_instance_uid: str
    series_instance_uid: str
    frame_of_reference_uid: str
    slices: int
    spacing_mm: tuple[float, float, float] = Field(description="(z, y, x)")


class JobModel(_Schema):
    """The model of a job."""

    name: str
    version: str
    sha256: str


class JobWarningEntry(_Schema):
    """Something that a physicist should know about a job."""

    code: str
    detail: str


class JobLinks(_Schema):
    """Where a job and its results are; a result answers 409 until the job has succeeded."""

    self: str
    rtstruct: str
    qa: str
    preview: str
    cancel: str

    @classmethod
    def of(cls, job: Job) -> "JobLinks":
        here = f"/v1/jobs/{job.id}"
        return cls(
            self=here, rtstruct=f"{here}/rtstruct", qa=f"{here}/qa", preview=f"{here}/preview.png", cancel=f"{here}/cancel"
        )


class JobDocument(_Schema):
    """A job."""

    id: str
    state: JobState
    stage: Stage | None = Field(description="what a running job is doing")
    progress: float = Field(ge=0, le=1, description="never falls")
    queue_position: int | None = Field(description="place of a queued job, from 1")
    priority: PriorityName
    attempts: int = Field(description="how often a worker has started it")
    series: JobSeries
    model: JobModel
    created_at: Time
    started_at: Time | None
    finished_at: Time | None
    warnings: list[JobWarningEntry]
    error: JobError | None
    links: JobLinks

    @classmethod
    def of(cls, job: Job, queue_position: int | None) -> Self:
        return cls(
            id=job.id,
            state=job.state,
            stage=job.stage,
            progress=job.progress,
            queue_position=queue_position,
            priority=_PRIORITY_NAMES[job.priority],
            attempts=job.attempts,
            series=JobSeries.model_validate(job.series, from_attributes=True),
            model=JobModel.model_validate(job.model, from_attributes=True),
            created_at=job.created_at,
            started_at=job.started_at,
            finished_at=job.finished_at,
            warnings=[JobWarningEntry(code=warning.code, detail=warning.detail) for warning in job.warnings],
            error=None if job.error is None else JobError.of(job.error),
            links=JobLinks.of(job),
        )


class JobPage(_Schema):
    """Some jobs, newest first."""

    jobs: list[JobDocument]
    next: str | None = Field(description="the cursor of the next page; null on the last one")


class ModelDocument(_Schema):
    """A model that a job can be given to."""

    name: str
    version: str
    sha256: str
    licence: str
    description: str
    default: bool = Field(description="whether it is used when a post names none")
    oars: list[str] = Field(description="TG-263 names, in the order of the RTSTRUCT")
    spacing_mm: tuple[float, float, float] | None = Field(description="(z, y, x) of the model's grid; null: the series' own")
    training: dict[str, Any] = Field(description="where and on what it was trained")
    results: dict[str, Any] = Field(description="what was measured on it")
    limits: list[str] = Field(description="what it is not for")

    @classmethod
    def of(cls, manifest: ModelManifest, *, default: bool) -> Self:
        return cls(
            name=manifest.name,
            version=manifest.version,
            sha256=manifest.sha256,
            licence=manifest.licence,
            description=manifest.description,
            default=default,
            oars=[oar.name for oar in manifest.oars],
            spacing_mm=manifest.parts[0].input.spacing_mm,
            training=dict(manifest.training),
            results=dict(manifest.results),
            limits=list(manifest.limits),
        )


class ModelList(_Schema):
    """The models of this server."""

    models: list[ModelDocument]


class ProfileROI(_Schema):
    """How an OAR is written."""

    oar: str = Field(description="TG-263 name")
    name: str = Field(description="ROI Name in the RTSTRUCT")
    colour: tuple[int, int, int] = Field(description="sRGB, 0 to 255")


class ProfileDocument(_Schema):
    """A site profile that a job can be given to."""

    name: str
    description: str
    default: bool = Field(description="whether it is used when neither a post nor its key names one")
    label: str = Field(description="template of Structure Set Label")
    series_description: str
    empty_rois: Literal["keep", "leave_out"]
    max_name_length: int
    max_points: int | None = Field(description="most points of one contour; null: no maximum")
    max_deviation_mm: float = Field(description="how far a contour may leave the exact one to come down to max_points")
    ordered: bool = Field(description="whether rois also gives their order and choice; otherwise that of the model counts")
    rois: list[ProfileROI]

    @classmethod
    def of(cls, profile: Profile, *, default: bool) -> Self:
        return cls(
            name=profile.name,
            description=profile.description,
            default=default,
            label=profile.label,
            series_description=profile.series_description,
            empty_rois="keep" if profile.keep_empty else "leave_out",
            max_name_length=profile.max_name_length,
            max_points=profile.max_points,
            max_deviation_mm=profile.max_deviation_mm,
            ordered=profile.ordered,
            rois=[ProfileROI(oar=style.oar.name, name=style.name, colour=style.colour) for style in profile.styles],
        )


class ProfileList(_Schema):
    """The site profiles of this server."""

    profiles: list[ProfileDocument]


class ScoreRow(_Schema):
    """One organ of one comparison, without patient data."""

    at: Time = Field(description="when it was compared")
    job_id: str
    origin: Origin = Field(description="whether the RTSTRUCT came with the series or was approved afterwards")
    position: int = Field(description="of the RTSTRUCT among those of its origin for the job, from 1")
    model: str
    model_version: str
    model_sha256: str
    scanner: str = Field(description="Manufacturer, Manufacturer's Model Name and Station Name of the CT, in plain letters")
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


class ScorePage(_Schema):
    """Some scores, newest first."""

    scores: list[ScoreRow]
    next: str | None = Field(description="the cursor of the next page; null on the last one")


class ScoreDistribution(_Schema):
    """What the defined scores say together."""

    n: int = Field(description="how many are defined")
    mean: float
    lower_quartile: float
    median: float
    upper_quartile: float
    below_alert: float = Field(description="share under the alert level, 0 to 1")


class ScoreSummary(_Schema):
    """The scores of an organ over some time; a distribution is null where no score is defined."""

    n: int = Field(description="cases that both sides drew")
    one_sided: int = Field(description="cases that one side alone drew")
    surface_dsc: ScoreDistribution | None
    volumetric_dsc: ScoreDistribution | None


class ScoreBucket(ScoreSummary):
    """The part of the summary that lies in one day, week or month."""

    start: date = Field(description="its first day, UTC")


class OARScores(ScoreSummary):
    """The summary of an organ, over the whole time and over each part of it that has a case."""

    oar: str
    over_time: list[ScoreBucket]


class QASummary(_Schema):
    """What a QA dashboard plots."""

    since: date = Field(serialization_alias="from", description="first day, UTC")
    to: date = Field(description="last day, UTC")
    bucket: BucketName
    alert_level: float
    oars: list[OARScores] = Field(description="in the order of the RTSTRUCT; without those that have no case")


class DriftRule(_Schema):
    """A rule of the control charts."""

    rule: Rule
    meaning: str


class DriftModel(_Schema):
    """The model of a chart."""

    name: str
    version: str
    sha256: str


class DriftAlarm(_Schema):
    """A score at which a rule fires."""

    at: Time
    job_id: str
    rule: Rule
    side: Literal["lower", "higher"] = Field(description="of the centre")


class DriftPoint(_Schema):
    """The surface DSC of one approved case."""

    at: Time
    job_id: str
    value: float
    alarms: list[Rule] = Field(description="rules whose pattern this point completes")


class DriftBaseline(_Schema):
    """What the limits are made of."""

    n: int
    needed: int
    since: Time = Field(serialization_alias="from")
    to: Time


class DriftLimits(_Schema):
    """Between which scores a stable process stays."""

    lower: float
    upper: float


class DriftChart(_Schema):
    """How the surface DSC of one organ, model and scanner went, against contours that were approved."""

    oar: str
    model: DriftModel
    scanner: str
    metric: Literal["surface_dsc"]
    baseline: DriftBaseline
    centre: float | None = Field(description="null as long as there is no baseline")
    limits: DriftLimits | None
    reason: str | None = Field(description="why there are no limits")
    points: list[DriftPoint] = Field(description="the newest ones behind the baseline, in their order")
    alarms: list[DriftAlarm] = Field(description="of these points")


class Drift(_Schema):
    """Control charts, by model, scanner and organ."""

    rules: list[DriftRule]
    charts: list[DriftChart]


class Liveness(_Schema):
    """The process is up."""

    status: Literal["alive"]


class Dependency(_Schema):
    """One thing that the service needs."""

    ready: bool
    detail: str | None = Field(description="what is wrong with it")


class Readiness(_Schema):
    """Whether series can be processed, and what is missing if not."""

    ready: bool
    database: Dependency
    broker: Dependency
    storage: Dependency
    workers: Dependency
    model: Dependency

    def reasons(self) -> dict[str, str]:
        """What is not ready, and why."""
        entries = {name: getattr(self, name) for name in type(self).model_fields}
        return {name: entry.detail or "" for name, entry in entries.items() if isinstance(entry, Dependency) and not entry.ready}


_PRIORITY_NAMES: Final[Mapping[Priority, PriorityName]] = {
    Priority.URGENT: "urgent",
    Priority.NORMAL: "normal",
    Priority.LOW: "low",
}
PRIORITIES: Final[Mapping[str, Priority]] = {name: priority for priority, name in _PRIORITY_NAMES.items()}

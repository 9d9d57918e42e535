"""Jobs, as documents."""

from collections.abc import Sequence
from typing import Literal, Self

from pydantic import Field

from oarlock.store.deliveries import Delivery
from oarlock.store.jobs import Job, JobFailure, JobState, Stage
from oarlock.store.reviews import Review
from service.api.problems import describe
from service.api.schemas.base import Schema, Time
from service.api.schemas.deliveries import DeliveryEntry
from service.api.schemas.reviews import ReviewEntry
from service.intake.submission import PRIORITY_NAMES

PriorityName = Literal["urgent", "normal", "low"]


class JobError(Schema):
    """Why a job failed."""

    type: str
    title: str
    status: int
    code: str
    detail: str

    @classmethod
    def of(cls, failure: JobFailure) -> Self:
        return cls(**describe(failure.code, failure.title, failure.detail))


class JobSeries(Schema):
    """The CT series of a job."""

    study_instance_uid: str
    series_instance_uid: str
    frame_of_reference_uid: str
    slices: int
    spacing_mm: tuple[float, float, float] = Field(description="(z, y, x)")


class JobModel(Schema):
    """The model of a job."""

    name: str
    version: str
    sha256: str


class JobWarningEntry(Schema):
    """Something that a physicist should know about a job."""

    code: str
    detail: str


class JobLinks(Schema):
    """Addresses of a job, its results and its actions.

    Results answer 409 until it has succeeded.
    """

    self: str
    rtstruct: str
    seg: str
    qa: str
    report: str
    report_pdf: str
    preview: str
    review: str
    reviews: str
    events: str
    reference: str
    cancel: str
    retry: str

    @classmethod
    def of(cls, job: Job) -> "JobLinks":
        here = f"/v1/jobs/{job.id}"
        return cls(
            self=here,
            rtstruct=f"{here}/rtstruct",
            seg=f"{here}/seg",
            qa=f"{here}/qa",
            report=f"{here}/report.html",
            report_pdf=f"{here}/report.pdf",
            preview=f"{here}/preview.png",
            review=f"{here}/review",
            reviews=f"{here}/reviews",
            events=f"{here}/events",
            reference=f"{here}/reference",
            cancel=f"{here}/cancel",
            retry=f"{here}/retry",
        )


class JobDocument(Schema):
    """A job."""

    id: str
    state: JobState
    stage: Stage | None = Field(description="what a running job is doing")
    progress: float = Field(ge=0, le=1, description="never falls")
    queue_position: int | None = Field(description="place of a queued job, from 1")
    priority: PriorityName
    label: str | None = Field(description="what its sender calls it")
    attempts: int = Field(description="how often a worker has started it")
    series: JobSeries
    model: JobModel
    created_at: Time
    started_at: Time | None
    finished_at: Time | None
    warnings: list[JobWarningEntry]
    error: JobError | None
    reviews: list[ReviewEntry] = Field(description="what people said of its organs: the newest of each")
    superseded_by: str | None = Field(description="the job that holds more of the same series")
    deliveries: list[DeliveryEntry] = Field(description="when and where its results arrived, as the gateway told")
    links: JobLinks

    @classmethod
    def of(
        cls, job: Job, queue_position: int | None, deliveries: Sequence[Delivery] = (), reviews: Sequence[Review] = ()
    ) -> Self:
        return cls(
            id=job.id,
            state=job.state,
            stage=job.stage,
            progress=job.progress,
            queue_position=queue_position,
            priority=PRIORITY_NAMES[job.priority],
            label=job.label,
            attempts=job.attempts,
            series=JobSeries.model_validate(job.series, from_attributes=True),
            model=JobModel.model_validate(job.model, from_attributes=True),
            created_at=job.created_at,
            started_at=job.started_at,
            finished_at=job.finished_at,
            warnings=[JobWarningEntry(code=warning.code, detail=warning.detail) for warning in job.warnings],
            error=None if job.error is None else JobError.of(job.error),
            superseded_by=job.superseded_by,
            deliveries=[DeliveryEntry.of(one) for one in deliveries],
            reviews=[ReviewEntry.of(review) for review in reviews],
            links=JobLinks.of(job),
        )


class RunningJob(Schema):
    """How far a job is that runs."""

    id: str
    stage: Stage | None
    progress: float = Field(description="0 to 1")


class JobsDocument(Schema):
    """How the list of jobs stands."""

    changes: int = Field(
        description="changes when a job came, began, ended or went, or something was noted of one: then read the list again. "
        "Compare it within one stream alone, and read the list once when a stream begins"
    )
    running: list[RunningJob] = Field(description="the jobs that run now; for their progress the list need not be read again")


class JobPage(Schema):
    """Some jobs, newest first."""

    jobs: list[JobDocument]
    next: str | None = Field(description="the cursor of the next page; null on the last one")

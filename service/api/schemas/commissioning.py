"""A commissioning as a document.

What the jobs of past patients come to.
"""

from pydantic import Field

from service.api.schemas.base import Schema
from service.api.schemas.qa_report import DrawnBy


class CommissioningPost(Schema):
    """Which finished jobs a model is judged by."""

    model_config = Schema.model_config | {"extra": "forbid"}

    jobs: list[str] = Field(min_length=1, max_length=500, description="ids of jobs of one model, each posted with its RTSTRUCT")
    against: list[str] = Field([], max_length=500, description="ids of the same patients' jobs by an earlier model")
    unapproved: bool = Field(False, description="whether RTSTRUCTs count that are not approved")


class Spread(Schema):
    """Some scores of one organ."""

    n: int
    mean: float
    sd: float | None
    lowest: float
    highest: float
    mean_low: float | None = Field(description="95 % confidence interval of the mean")
    mean_high: float | None
    limit: float | None = Field(description="what 95 % of such patients keep, with 95 % confidence; null of few")


class MissedBy(Schema):
    """How many of the paired patients each model missed."""

    ours: int
    theirs: int


class CommissionedOrgan(Schema):
    """What one organ came to."""

    oar: str
    n: int = Field(description="patients that both sides drew it on")
    missed: int
    red: int
    surface_dsc: Spread | None
    volumetric_dsc: Spread | None
    hausdorff_95_mm: Spread | None
    added_path_length_mm: Spread | None
    surface_dsc_scores: list[float]
    action_levels: dict[str, float] = Field(description="proposed; a physicist decides")
    change: Spread | None = Field(description="surface DSC less that of the earlier model, patient by patient")
    missed_by: MissedBy | None


class LeftOut(Schema):
    """A job that does not count, and why."""

    job_id: str
    state: str = Field(description="of the job")
    reason: str


class Commissioning(Schema):
    """What jobs of past patients come to.

    It can be kept as a baseline (`POST /v1/qa/baselines`).
    """

    model: str
    drawn_by: DrawnBy
    sha256: str
    patients: int
    approved: int = Field(description="of their RTSTRUCTs")
    waiting: int = Field(description="jobs that are queued or running: ask again")
    left_out: list[LeftOut]
    organs: list[CommissionedOrgan]

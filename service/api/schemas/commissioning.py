"""A commissioning as a document.

What the jobs of past patients come to.
"""

from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field

from service.api.schemas.base import Schema, Time
from service.api.schemas.qa_report import DrawnBy

MOST: Final = 500
"""Jobs of one commissioning, and commissionings of a list, at most."""


class CommissioningPost(Schema):
    """Which finished jobs a model is judged by."""

    model_config = Schema.model_config | {"extra": "forbid"}

    jobs: list[str] = Field(min_length=1, max_length=MOST, description="ids of jobs of one model, each posted with its RTSTRUCT")
    against: list[str] = Field([], max_length=MOST, description="ids of the same patients' jobs by an earlier model")
    unapproved: bool = Field(False, description="whether RTSTRUCTs count that are not approved")


_SHA256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class AskedCommissioning(BaseModel):
    """Which jobs of a model, and what they are compared with."""

    model_config = ConfigDict(extra="ignore", protected_namespaces=())

    label: str = Field(min_length=1, max_length=64, description="of the jobs, as it was posted")
    site: str | None = Field(
        None,
        max_length=64,
        description="jobs of this site alone, empty for an operator's; without it of all that the caller sees",
    )
    against: _SHA256 | None = Field(None, description="the earlier model that it is compared with in pairs, by its SHA-256")
    against_label: str | None = Field(None, max_length=64, description="label of that model's jobs; without it the same")
    unapproved: bool = Field(False, description="whether RTSTRUCTs count that are not approved")
    format: str = Field("json", pattern="^(json|html)$", description="json, or html for the report with pictures")


class CommissioningEntry(Schema):
    """Jobs that share a label, a site and a model."""

    label: str
    site: str = Field(description="whose jobs; empty for an operator's")
    drawn_by: DrawnBy
    jobs: int
    waiting: int = Field(description="that are queued or running")
    first_at: Time
    last_at: Time


class Commissionings(Schema):
    """Commissionings, the newest first."""

    commissionings: list[CommissioningEntry]


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
    surface_dsc_by_scanner: dict[str, list[float]] = Field(
        description="the same scores by scanner, as the rows of scores name it"
    )
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

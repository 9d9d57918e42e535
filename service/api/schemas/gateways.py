"""Gateways and what they are asked, as documents."""

import json
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, model_validator

from oarlock.store.gateways import Gateway, Outcome, Request, RequestKind, RequestState
from service.api.schemas.base import Schema, Time
from service.api.schemas.deliveries import PLAIN, Moment, Place

UID: Final = r"^[0-9]+(\.[0-9]+)*$"
TITLE: Final = r"^[\x21-\x5B\x5D-\x7E][\x20-\x5B\x5D-\x7E]{0,14}[\x21-\x5B\x5D-\x7E]?$"
SERIES_ID: Final = r"^[0-9a-f]{20}$"
JOB: Final = r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"

Uid = Annotated[str, Field(pattern=UID, max_length=64)]
Title = Annotated[str, Field(pattern=TITLE, description="AE title")]
SeriesId = Annotated[str, Field(pattern=SERIES_ID, description="what the gateway calls the series in its logs")]
JobId = Annotated[str, Field(pattern=JOB)]
Sentence = Annotated[str, Field(max_length=500, pattern=PLAIN, description="in words, without patient data")]


class RetrievalPost(Schema):
    """A series that is to be fetched from an archive and contoured."""

    model_config = Schema.model_config | {"extra": "forbid"}

    archive: Place = Field(description="name of a peer with archive = true in a gateway's configuration (GET /v1/gateways)")
    series_instance_uid: Uid
    study_instance_uid: Uid | None = Field(None, description="some archives find no series without it")
    gateway: Place | None = Field(None, description="which gateway; without it any that knows the archive")
    called: Title | None = Field(None, description="AE title of ours that the series counts as sent to, for the gateway's rules")
    structure_sets: bool = Field(False, strict=True, description="whether the RTSTRUCTs of its study come first, as references")
    priors: int = Field(
        0,
        ge=0,
        le=5,
        strict=True,
        description="how many earlier series of the patient with approved contours are fetched and contoured too, for QA alone",
    )


class GatewayRequest(Schema):
    """What a gateway is asked, and what came of it."""

    id: str
    kind: RequestKind
    state: RequestState
    gateway: str | None = Field(description="who does it, or is asked; null while any gateway may take it")
    archive: str | None
    series_instance_uid: str | None
    study_instance_uid: str | None
    called: str | None
    structure_sets: bool
    priors: int
    series: str | None = Field(description="what the gateway calls a series that is to be counted as whole")
    place: str | None = Field(description="where results are sent again; null for all places")
    job_id: str | None = Field(description="the job that came of it, or whose results are sent again")
    prior_jobs: list[str] = Field(description="jobs of earlier series of the patient")
    instances: int | None = Field(description="how many files came")
    detail: str | None = Field(description="where it stands, or why it failed")
    by: str = Field(description="who asked")
    created_at: Time
    taken_at: Time | None = Field(description="when a gateway first took it")
    ended_at: Time | None

    @classmethod
    def of(cls, request: Request, wanted: bytes) -> Self:
        plain = {name: getattr(request, name) for name in cls.model_fields if hasattr(request, name)}
        return cls.model_validate(_NOTHING | json.loads(wanted) | plain | {"prior_jobs": list(request.prior_jobs)})


_NOTHING: Final[Mapping[str, Any]] = {
    **dict.fromkeys(("archive", "series_instance_uid", "study_instance_uid", "called", "series", "place")),
    "structure_sets": False,
    "priors": 0,
}


class RetrievalPage(Schema):
    """Retrievals, newest first."""

    retrievals: list[GatewayRequest]
    next: str | None = Field(description="cursor of the next page")


class ReportedSeries(Schema):
    """A series that a gateway has and that is not a job.

    It is named by nothing that identifies anybody.
    """

    model_config = Schema.model_config | {"extra": "forbid"}

    id: SeriesId
    state: Literal["coming_in", "left_alone", "refused"]
    calling: str = Field(max_length=64, pattern=PLAIN, description="who sent it: an AE title, or the name of a watched folder")
    called: Title
    images: int = Field(ge=0, le=1_000_000, strict=True)
    first_at: Moment
    last_at: Moment = Field(description="when the newest image came")
    note: Sentence = Field("", description="why it is left alone or refused")


class GatewayReport(Schema):
    """What a gateway says of itself."""

    model_config = Schema.model_config | {"extra": "forbid"}

    archives: list[Place] = Field([], max_length=200, description="peers that it fetches from")
    series: list[ReportedSeries] = Field([], max_length=200, description="what it has and is not a job")


class GatewayTask(Schema):
    """A request, as the gateway that holds it is told."""

    token: int = Field(description="to be sent back with what came of it")
    request: GatewayRequest


class GatewayTasks(Schema):
    """All that a gateway holds."""

    tasks: list[GatewayTask]


class WaitingSeries(Schema):
    """A series that a gateway has and that is not a job."""

    id: str = Field(description="what the gateway calls it in its logs")
    state: Literal["coming_in", "left_alone", "refused"]
    calling: str = Field(description="who sent it")
    called: str
    images: int
    first_at: Time
    last_at: Time
    note: str = Field(description="why it is left alone or refused")


class GatewayDocument(Schema):
    """A gateway, as it last reported."""

    name: str
    site: str
    seen_at: Time
    archives: list[str]
    series: list[WaitingSeries]

    @classmethod
    def of(cls, gateway: Gateway) -> Self:
        return cls.model_validate(gateway, from_attributes=True)


class GatewayList(Schema):
    """The gateways, and what they were asked lately, newest first."""

    gateways: list[GatewayDocument]
    requests: list[GatewayRequest]


class RequestOutcome(Schema):
    """What a gateway tells of a request that it holds."""

    model_config = Schema.model_config | {"extra": "forbid"}

    token: int = Field(ge=0, strict=True)
    state: Literal["running", "succeeded", "failed"]
    detail: Sentence | None = None
    job_id: JobId | None = None
    prior_jobs: list[JobId] = Field([], max_length=5)
    instances: int | None = Field(None, ge=0, le=1_000_000_000, strict=True)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.state == "failed" and not self.detail:
            raise ValueError("a request that failed needs a detail that says why")
        return self

    def to_outcome(self) -> Outcome:
        state = RequestState(self.state)
        return Outcome(state, self.detail, self.job_id, tuple(self.prior_jobs), self.instances)

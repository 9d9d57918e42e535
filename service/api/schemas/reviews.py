"""Reviews, as documents."""

from typing import Annotated, Self

from pydantic import Field, StringConstraints

from oarlock.store.reviews import Opinion, Review
from service.api.schemas.base import Schema, Time

Comment = Annotated[str, StringConstraints(strip_whitespace=True, max_length=500, pattern=r"^[^\x00-\x08\x0b-\x1f\x7f]*$")]


class OrganReview(Schema):
    """What is said of one organ."""

    model_config = Schema.model_config | {"extra": "forbid"}

    oar: str = Field(description="TG-263 name of an organ that the job's model draws")
    verdict: Opinion
    comment: Comment | None = Field(None, description="deleted with the job")


class ReviewPost(Schema):
    """What is said of a job."""

    model_config = Schema.model_config | {"extra": "forbid"}

    organs: list[OrganReview] = Field(min_length=1, max_length=64)


class ReviewEntry(Schema):
    """The newest review of an organ."""

    oar: str
    verdict: Opinion
    comment: str | None
    by: str = Field(description="who said it, as their key or token names them")
    at: Time

    @classmethod
    def of(cls, review: Review) -> Self:
        return cls(oar=review.oar, verdict=review.verdict, comment=review.comment, by=review.by, at=review.at)


class ReviewRow(Schema):
    """A review, for a table.

    Without its comment, which is for those who may see the job.
    """

    at: Time
    job_id: str
    model: str
    model_version: str
    oar: str
    verdict: Opinion
    by: str

    @classmethod
    def of(cls, review: Review) -> Self:
        return cls(
            at=review.at,
            job_id=review.job_id,
            model=review.model,
            model_version=review.model_version,
            oar=review.oar,
            verdict=review.verdict,
            by=review.by,
        )


class ReviewPage(Schema):
    """Some reviews, newest first."""

    reviews: list[ReviewRow]
    next: str | None = Field(description="the cursor of the next page; null on the last one")

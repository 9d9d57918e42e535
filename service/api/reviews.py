"""Routes of reviews: what people say of a job's organs."""

from typing import Annotated, Final

from fastapi import APIRouter, Query
from starlette.responses import Response

from oarlock import errors
from oarlock.organs.catalogue import BY_NAME
from oarlock.pipeline.csv_text import to_csv
from oarlock.scopes import Scope
from oarlock.store.cursors import invalid_cursor
from service.api.dependencies import PRIVATE, By, Caller, Here, TheJob, check_finished, needs
from service.api.openapi import JOB_ID, NO_RESULT, Call, json_answer, problems, with_csv
from service.api.routing import reads
from service.api.schemas.reviews import ReviewEntry, ReviewPage, ReviewPost, ReviewRow

reviews = APIRouter(tags=["qa"])

_ENTRY: Final = {"oar": "Parotid_L", "verdict": "needs_edits", "comment": "too far to the front", "by": "marta"}
_POSTED: Final[Call] = {
    "responses": {
        200: {
            "description": "The newest review of each organ of the job",
            "content": {
                "application/json": {
                    "schema": {"type": "array", "items": {"$ref": "#/components/schemas/ReviewEntry"}},
                    "example": [_ENTRY | {"at": "2026-03-05T12:10:00.000Z"}],
                }
            },
        },
        **problems(
            *NO_RESULT,
            errors.InvalidParameter(
                name="oar", reason="must be the TG-263 name of an organ that this server draws (GET /v1/models)"
            ),
        ),
    }
}


@reviews.post(
    "/v1/jobs/{job_id}/reviews",
    summary="Review a job's organs",
    response_model=list[ReviewEntry],
    dependencies=[needs(Scope.REVIEWS_WRITE)],
    **_POSTED,
)
def post_review(service: Here, job: TheJob, by: By, said: ReviewPost) -> list[ReviewEntry]:
    """Say of organs whether they are usable.

    Usable, to be edited, or unusable. The newest review of an organ counts; all are kept.
    """
    check_finished(job)
    for one in said.organs:
        if one.oar not in BY_NAME:
            reason = "must be the TG-263 name of an organ that this server draws (GET /v1/models)"
            raise errors.InvalidParameter(name="oar", reason=reason)
    service.reviews.add(job, [(one.oar, one.verdict, one.comment or None) for one in said.organs], by=by)
    return [ReviewEntry.of(review) for review in service.reviews.latest([job.id])[job.id]]


_ROW: Final = {"at": "2026-03-05T12:10:00.000Z", "job_id": JOB_ID, "model": "oarlock-hn", "model_version": "1.0.0"} | {
    name: _ENTRY[name] for name in ("oar", "verdict", "by")
}
_LIST: Final[Call] = {
    "responses": {
        200: json_answer("A page of reviews", {"reviews": [_ROW], "next": None}, "ReviewPage"),
        **problems(invalid_cursor()),
    }
}
with_csv(_LIST["responses"][200], f"{','.join(_ROW)}\r\n{','.join(_ROW.values())}\r\n")


@reads(reviews, "/v1/qa/reviews", summary="List reviews", response_model=ReviewPage, dependencies=[needs(Scope.QA_READ)], **_LIST)
def list_reviews(
    service: Here,
    caller: Caller,
    *,
    oar: Annotated[str | None, Query(max_length=64, description="TG-263 name")] = None,
    format_: Annotated[str, Query(alias="format", pattern="^(json|csv)$", description="json or csv")] = "json",
    limit: Annotated[int, Query(ge=1, le=5_000, description="most reviews of a page")] = 500,
    cursor: Annotated[str | None, Query(max_length=20, description="`next` of the page before")] = None,
) -> Response:
    """Every review of every job, newest first, without comments."""
    if cursor is not None and not cursor.isdecimal():
        raise invalid_cursor()
    before = None if cursor is None else int(cursor)
    found = service.reviews.page(site=caller.site, oar=oar, before=before, limit=limit + 1)
    rows = [ReviewRow.of(review) for review in found[:limit]]
    if format_ == "csv":
        text = to_csv(list(ReviewRow.model_fields), [row.model_dump(mode="json") for row in rows])
        return Response(text, media_type="text/csv; header=present", headers=PRIVATE)
    page = ReviewPage(reviews=rows, next=str(found[limit - 1].id) if len(found) > limit else None)
    return Response(page.model_dump_json(), media_type="application/json", headers=PRIVATE)

"""Deliveries: where the results of a job arrived.

The gateway tells when and where.
"""

from typing import Final

from fastapi import APIRouter
from starlette.responses import Response

from oarlock import errors
from oarlock.scopes import Scope
from service.api.dependencies import By, Here, TheJob, needs
from service.api.openapi import NOT_FOUND, Call, problems
from service.api.schemas.deliveries import DeliveryNote

deliveries = APIRouter(prefix="/v1/jobs/{job_id}/deliveries", tags=["jobs"])

_NOTE: Final[Call] = {
    "responses": {
        204: {"description": "It was noted, and stands in the job"},
        **problems(*NOT_FOUND, errors.InvalidParameter(name="place", reason="String should match pattern '^[A-Za-z0-9]…'")),
    }
}


@deliveries.post("", status_code=204, summary="Tell how a delivery stands", dependencies=[needs(Scope.JOBS_WRITE)], **_NOTE)
def post_delivery(service: Here, job: TheJob, by: By, told: DeliveryNote) -> Response:
    """Tell when and where a result arrived, or why not.

    A result of the job. The last word about a place and a result counts.
    """
    service.deliveries.note(job.id, told.to_delivery(), by=by)
    return Response(status_code=204)

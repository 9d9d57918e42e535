"""Routes of QA: comparisons on demand."""

import anyio.to_thread
import orjson
from fastapi import APIRouter, Request
from starlette.responses import Response

from oarlock.keys import Scope
from service import contract, uploads
from service.access import needs
from service.comparing import compare_upload
from service.routes import PRIVATE, check_space, incoming_folder
from service.state import Here

comparisons = APIRouter(prefix="/v1/comparisons", tags=["qa"])


@comparisons.post(
    "", summary="Compare two RTSTRUCTs", dependencies=[needs(Scope.JOBS_WRITE, Scope.QA_READ)], **contract.COMPARISON
)
async def post_comparison(request: Request, service: Here) -> Response:
    """Score one RTSTRUCT against another on a CT series. Nothing of it is kept."""
    check_space(request, service)
    async with incoming_folder(service) as incoming:
        upload = await uploads.receive(request, incoming, service.settings, service.upload_threads, uploads.COMPARISON)
        report = await anyio.to_thread.run_sync(compare_upload, upload, service.settings, limiter=service.comparison_threads)
    return Response(orjson.dumps(report.to_json()), media_type="application/json", headers=PRIVATE)

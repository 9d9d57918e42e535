"""Routes of results: what a finished job hands out.

RTSTRUCT, segmentation, QA report and pictures.
"""

import hashlib
from typing import Annotated, Final

import anyio.to_thread
import orjson
from fastapi import APIRouter, Header, Path, Query, Request
from starlette.responses import FileResponse, Response

from oarlock.errors import InvalidParameter, ReportFailed
from oarlock.organs.catalogue import BY_NAME, OAR
from oarlock.pictures.slice_archive import load_rendering
from oarlock.reporting.contents import subject_of
from oarlock.reporting.page import POLICY
from oarlock.scopes import Scope
from oarlock.store import audit
from oarlock.store.audit import Action, Actor, Event
from oarlock.store.files import PREVIEW, QA_REPORT, RENDERING, REVIEW, REVIEW_DATA, RTSTRUCT, SEGMENTATION
from oarlock.store.jobs import Job
from oarlock.store.scores.write import Origin
from service.api import reports
from service.api.dependencies import PRIVATE, By, Here, TheJob, check_finished, needs
from service.api.examples import QA_REPORT as QA_EXAMPLE
from service.api.examples import REVIEW as REVIEW_EXAMPLE
from service.api.openapi import NO_RESULT, NOT_MODIFIED, Call, bytes_answer, json_answer, problems
from service.api.qa_report import overlay_data, qa_report, reference_file, returned_overlays
from service.api.routing import reads
from service.api.schemas.qa_report import QAReportDocument
from service.api.schemas.review import Patient, ReviewHead
from service.container import Service
from service.delivery import read_result, rtstruct_of, segmentation_of

results = APIRouter(prefix="/v1/jobs/{job_id}", tags=["jobs"])

_READ: Final = [needs(Scope.JOBS_READ)]
_RTSTRUCT: Final[Call] = {
    "responses": {200: bytes_answer("The RTSTRUCT", "application/dicom"), 304: NOT_MODIFIED, **problems(*NO_RESULT)}
}


@reads(results, "/rtstruct", summary="Fetch the RTSTRUCT", dependencies=_READ, **_RTSTRUCT)
def get_rtstruct(request: Request, service: Here, job: TheJob, by: By) -> Response:
    """The structure set as a DICOM file."""
    check_finished(job)
    content = rtstruct_of(service, job)
    note_read(service, job, by, RTSTRUCT, content)
    return _result(request, content, "application/dicom", file_name=RTSTRUCT)


_SEG: Final[Call] = {
    "responses": {200: bytes_answer("The segmentation", "application/dicom"), 304: NOT_MODIFIED, **problems(*NO_RESULT)}
}


@reads(results, "/seg", summary="Fetch the segmentation", dependencies=_READ, **_SEG)
def get_seg(request: Request, service: Here, job: TheJob, by: By) -> Response:
    """The masks as a DICOM Segmentation.

    Made when it is asked for: the same organs as in the RTSTRUCT, voxel for voxel.
    """
    check_finished(job)
    content = segmentation_of(service, job)
    note_read(service, job, by, SEGMENTATION, content)
    return _result(request, content, "application/dicom", file_name=SEGMENTATION)


_QA: Final[Call] = {
    "responses": {
        200: json_answer("The QA report", QA_EXAMPLE, "QAReportDocument"),
        304: NOT_MODIFIED,
        **problems(*NO_RESULT),
    }
}


_READ_QA: Final = [needs(Scope.JOBS_READ, Scope.QA_READ)]


@reads(results, "/qa", summary="Fetch the QA report", response_model=QAReportDocument, dependencies=_READ_QA, **_QA)
def get_qa(request: Request, service: Here, job: TheJob, by: By) -> Response:
    """Verdicts, checks and scores of a finished job.

    The scores are against every structure set that came with the series or was returned.
    """
    check_finished(job)
    content = qa_report(service, job).model_dump_json().encode()
    note_read(service, job, by, QA_REPORT, content)
    return _result(request, content, "application/json")


_POSITION: Final = Path(ge=1, le=999, description="among those of its origin, from 1")
_FROM: Final = Path(description="supplied: it came with the series; approved: it was returned")


@reads(results, "/references/{origin}/{position}", summary="Fetch a reference", dependencies=_READ, **_RTSTRUCT)
def get_reference(
    request: Request, service: Here, job: TheJob, by: By, *, origin: Annotated[Origin, _FROM], position: Annotated[int, _POSITION]
) -> Response:
    """An RTSTRUCT that the contours were compared with.

    As its sender sent it.
    """
    check_finished(job)
    content = reference_file(service, job, origin, position)
    name = f"{origin}-{position}.dcm"
    note_read(service, job, by, name, content)
    return _result(request, content, "application/dicom", file_name=name)


_NO_REPORT: Final = (*NO_RESULT, ReportFailed(reason="it took too much memory or time"))
_HTML: Final[Call] = {
    "responses": {200: bytes_answer("The report", "text/html", "<!doctype html>…"), 304: NOT_MODIFIED, **problems(*NO_RESULT)}
}
_PDF: Final[Call] = {
    "responses": {200: bytes_answer("The report", "application/pdf"), 304: NOT_MODIFIED, **problems(*_NO_REPORT)}
}
_DICOM_PDF: Final[Call] = {
    "responses": {200: bytes_answer("The report", "application/dicom"), 304: NOT_MODIFIED, **problems(*_NO_REPORT)}
}


@reads(results, "/report.html", summary="Fetch the report as a page", dependencies=_READ, **_HTML)
async def get_report_html(request: Request, service: Here, job: TheJob, by: By) -> Response:
    """The report of a job for people, as a page.

    Verdicts, pictures of where to look first, scores and the model's limits; a place to sign.
    """
    return await _made(request, service, job, by, reports.HTML)


@reads(results, "/report.pdf", summary="Fetch the report as a PDF", dependencies=_READ, **_PDF)
async def get_report_pdf(request: Request, service: Here, job: TheJob, by: By) -> Response:
    """The same as PDF/A-3b."""
    return await _made(request, service, job, by, reports.PDF)


@reads(results, "/report.dcm", summary="Fetch the report as a DICOM object", dependencies=_READ, **_DICOM_PDF)
async def get_report_dicom(request: Request, service: Here, job: TheJob, by: By) -> Response:
    """The PDF as an Encapsulated PDF of the same study.

    For an archive.
    """
    return await _made(request, service, job, by, reports.DICOM)


async def _made(request: Request, service: Service, job: Job, by: Actor, kind: reports.Kind) -> Response:
    """A report that is made now; as with comparisons, two at a time."""
    check_finished(job)

    def answer() -> Response:
        content = kind.make(service, job)
        note_read(service, job, by, kind.file_name, content)
        found = _result(request, content, kind.media_type, file_name=kind.file_name if kind.is_saved else None)
        found.headers["Content-Security-Policy"] = POLICY
        return found

    return await anyio.to_thread.run_sync(answer, limiter=service.comparison_threads)


_PREVIEW: Final[Call] = {
    "responses": {
        200: bytes_answer("The picture", "image/png"),
        304: NOT_MODIFIED,
        **problems(*NO_RESULT, InvalidParameter(name="slice", reason="is beyond the last slice of the series, which is 156")),
    }
}
_OAR_QUERY: Final = Query(json_schema_extra={"enum": list(BY_NAME)}, description="TG-263 name of one organ to show")


@reads(results, "/preview.png", summary="Fetch a picture", dependencies=_READ, **_PREVIEW)
def get_preview(
    request: Request,
    service: Here,
    job: TheJob,
    by: By,
    *,
    oar: Annotated[str | None, _OAR_QUERY] = None,
    slice_number: Annotated[int | None, Query(alias="slice", ge=1, description="slice to show, from 1")] = None,
) -> Response:
    """A contact sheet, or one organ or slice.

    With ``oar`` or ``slice`` one picture of that organ or of that slice (from 1, along the slice axis).
    """
    check_finished(job)
    if oar is None and slice_number is None:
        sheet = read_result(service, job, PREVIEW)
        note_read(service, job, by, PREVIEW, sheet)
        return _result(request, sheet, "image/png")
    if slice_number is not None and slice_number > job.series.slices:
        raise InvalidParameter(name="slice", reason=f"is beyond the last slice of the series, which is {job.series.slices}")
    chosen = _oar(oar)
    z = None if slice_number is None else slice_number - 1
    picture = load_rendering(service.storage.result(job.id, RENDERING)).single(oar=chosen, z=z)
    note_read(service, job, by, PREVIEW, picture)
    return _result(request, picture, "image/png")


_REVIEW: Final[Call] = {
    "responses": {200: json_answer("What lies where in the data", REVIEW_EXAMPLE, "ReviewHead"), 304: NOT_MODIFIED}
    | problems(*NO_RESULT)
}


@reads(results, "/review", summary="Fetch what the review page shows", response_model=ReviewHead, dependencies=_READ, **_REVIEW)
def get_review(request: Request, service: Here, job: TheJob, by: By) -> Response:
    """Geometry, organs and contents of the review's data.

    Jobs of earlier versions have none.
    """
    check_finished(job)
    head = orjson.loads(read_result(service, job, REVIEW))
    head["overlays"] += returned_overlays(service, job)
    content = ReviewHead.model_validate(head).model_dump_json().encode()
    note_read(service, job, by, REVIEW, content)
    return _result(request, content, "application/json")


_REVIEW_DATA: Final[Call] = {
    "responses": {
        200: bytes_answer("The whole file", "application/octet-stream"),
        206: bytes_answer("The bytes that `Range` asked for", "application/octet-stream"),
        416: {"description": "The file has no such bytes"},
        **problems(*NO_RESULT),
    }
}


@reads(results, "/review/data", summary="Fetch the review's slices and masks", dependencies=_READ, **_REVIEW_DATA)
def get_review_data(
    service: Here,
    job: TheJob,
    by: By,
    range_: Annotated[str | None, Header(alias="Range", description="`bytes=FIRST-LAST`, as the head names them")] = None,
) -> Response:
    """A row of zlib streams.

    The head says what each of them is.
    """
    del range_  # the file's answer reads it
    check_finished(job)
    path = service.storage.result(job.id, REVIEW_DATA)
    note_read(service, job, by, REVIEW_DATA, path.read_bytes())
    return FileResponse(path, media_type="application/octet-stream", headers={"Cache-Control": "private, no-cache"})


_PATIENT_EXAMPLE: Final = {"name": "Doe, Jane", "id": "4711", "study_date": "2026-03-05"}
_PATIENT: Final[Call] = {
    "responses": {200: json_answer("Who the patient is", _PATIENT_EXAMPLE, "Patient"), **problems(*NO_RESULT)}
}


@reads(
    results,
    "/patient",
    summary="Say who the patient is",
    response_model=Patient,
    dependencies=[needs(Scope.JOBS_READ)],
    **_PATIENT,
)
def get_patient(service: Here, job: TheJob, by: By) -> Response:
    """Name, ID and date of the study, as the RTSTRUCT has them.

    No other document of a job but RTSTRUCT, segmentation and report names the patient. Who asked is in the audit log.
    """
    check_finished(job)
    subject = subject_of(rtstruct_of(service, job))
    content = Patient(name=subject.patient_name, id=subject.patient_id, study_date=subject.study_date).model_dump_json()
    note_read(service, job, by, "patient", content.encode())
    return Response(content, media_type="application/json", headers=PRIVATE)


_RETURNED: Final[Call] = {"responses": {200: bytes_answer("The whole file", "application/octet-stream"), **problems(*NO_RESULT)}}


@reads(results, "/review/returned/{position}", summary="Fetch the masks of returned contours", dependencies=_READ, **_RETURNED)
def get_returned_overlay(
    request: Request, service: Here, job: TheJob, by: By, *, position: Annotated[int, _POSITION]
) -> Response:
    """What the parts of a returned overlay of the head lie in.

    A row of zlib streams, as in ``review/data``.
    """
    check_finished(job)
    content = overlay_data(service, job, position)
    note_read(service, job, by, f"returned-{position}.review", content)
    return _result(request, content, "application/octet-stream")


def _oar(name: str | None) -> OAR | None:
    if name is not None and name not in BY_NAME:
        raise InvalidParameter(name="oar", reason="must be the TG-263 name of an organ that this server draws (GET /v1/models)")
    return None if name is None else BY_NAME[name]


def note_read(service: Service, job: Job, by: Actor, name: str, content: bytes) -> None:
    """Write into the audit log who is given what.

    Before it is given.
    """
    audit.record(service.database, read_event(job, by, name, content))


def read_event(job: Job, by: Actor, name: str, content: bytes) -> Event:
    """What the audit log says of a result that somebody is given."""
    result = f"{name} sha256:{hashlib.sha256(content).hexdigest()}"
    return Event(Action.RESULT_READ, by, job.id, audit.to_text(job.model), result)


def _result(request: Request, content: bytes, media_type: str, file_name: str | None = None) -> Response:
    """A result with a tag of its content, or 304 for a caller who has it already."""
    tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    headers = {"ETag": tag, "Cache-Control": "private, no-cache"}
    if tag in [given.strip().removeprefix("W/") for given in request.headers.get("if-none-match", "").split(",")]:
        return Response(status_code=304, headers=headers)
    if file_name is not None:
        headers["Content-Disposition"] = f'attachment; filename="{file_name}"'
    return Response(content, media_type=media_type, headers=headers)

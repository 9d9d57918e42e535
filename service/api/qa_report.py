"""The QA report of a job as it is answered.

What the worker wrote, and what came after it.
"""

from collections.abc import Iterator
from typing import Any, Final

import orjson

from oarlock.errors import ResultNotFound
from oarlock.store.files import QA_REPORT, Storage, reference_name
from oarlock.store.jobs import Job
from oarlock.store.scores.read import Return
from oarlock.store.scores.write import Origin
from service.api.schemas.qa_report import QAReportDocument
from service.container import Service
from service.delivery import read_result


def qa_report(service: Service, job: Job) -> QAReportDocument:
    """The report with what came after the job.

    The job's times, its returned comparisons, and where each RTSTRUCT is.

    :raises ResultNotFound: if the job has no report.
    """
    content = service.vault.report(job, read_result(service, job, QA_REPORT))
    report: dict[str, Any] = orjson.loads(content)
    if report.get("made"):
        report["made"] |= {"started_at": job.started_at, "finished_at": job.finished_at}
    supplied = report.get("comparisons", [])
    for position, one in enumerate(supplied, start=1):
        one.setdefault("position", position)
        one["file"] = _address(job, Origin.SUPPLIED, one["position"]) if _is_kept(service.storage, job, one["position"]) else None
    report["comparisons"] = [*supplied, *_returned(service, job)]
    return QAReportDocument.model_validate(report)


def _returned(service: Service, job: Job) -> Iterator[dict[str, Any]]:
    """One entry for each approved RTSTRUCT that was kept."""
    for one in service.qa_store.returns(job.id):
        try:
            comparison = orjson.loads(returned_file(service, job, one, "json"))
        except ResultNotFound:  # it came when only its scores were kept
            continue
        about = {"returned_at": one.at, "superseded": one.superseded, "file": _address(job, Origin.APPROVED, one.position)}
        yield {"origin": Origin.APPROVED.value, "position": one.position, **about, **comparison}


OVERLAY: Final = "overlay.json"
OVERLAY_DATA: Final = "overlay.bin"
"""What the review page shows of an RTSTRUCT that came back: its entry in the head, and the data."""


def returned_overlays(service: Service, job: Job) -> Iterator[dict[str, Any]]:
    """Entries of a review's head: what came back, the oldest first.

    Without what was kept by earlier versions.
    """
    for one in service.qa_store.returns(job.id):
        try:
            overlay = orjson.loads(returned_file(service, job, one, OVERLAY))
        except ResultNotFound:
            continue
        address = f"/v1/jobs/{job.id}/review/returned/{one.position}"
        about = {"returned_at": one.at, "superseded": one.superseded, "data": address}
        yield {"origin": Origin.APPROVED, "position": one.position, **about, **overlay}


def overlay_data(service: Service, job: Job, position: int) -> bytes:
    """The data of one of :func:`returned_overlays`.

    :raises ResultNotFound: if it was not kept, or never came.
    """
    return returned_file(service, job, _return_at(service, job, position), OVERLAY_DATA)


def returned_file(service: Service, job: Job, one: Return, kind: str) -> bytes:
    """The RTSTRUCT that came back, or what was made of it.

    ``dcm`` is the file; ``json``, :data:`OVERLAY` and :data:`OVERLAY_DATA` were made of it.

    :raises ResultNotFound: if it was not kept.
    """
    return service.vault.unseal(job, service.storage.returned(job.id, f"{one.content_sha256}.{kind}"))


def reference_file(service: Service, job: Job, origin: Origin, position: int) -> bytes:
    """An RTSTRUCT that a job was compared with.

    As its sender knows it.

    :raises ResultNotFound: if it was not kept, or never came.
    """
    if origin is Origin.SUPPLIED:
        return service.vault.rtstruct(job, read_result(service, job, reference_name(position)))
    if origin is Origin.DELIVERED:
        raise ResultNotFound(what="reference")
    return returned_file(service, job, _return_at(service, job, position), "dcm")


def _return_at(service: Service, job: Job, position: int) -> Return:
    for one in service.qa_store.returns(job.id):
        if one.position == position:
            return one
    raise ResultNotFound(what=f"approved RTSTRUCT {position}")


def _is_kept(storage: Storage, job: Job, position: int) -> bool:
    try:
        storage.result(job.id, reference_name(position))
    except ResultNotFound:
        return False
    return True


def _address(job: Job, origin: Origin, position: int) -> str:
    return f"/v1/jobs/{job.id}/references/{origin}/{position}"

"""The report of a job for people.

Made when it is asked for: a page, a PDF, and the PDF as a DICOM object.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from oarlock import __version__
from oarlock.errors import OarlockError
from oarlock.geometry.masks import Crop
from oarlock.organs.catalogue import OAR
from oarlock.pictures.slice_archive import load_rendering
from oarlock.reporting.contents import Contents, drawn_in, subject_of
from oarlock.reporting.encapsulated import to_encapsulated_pdf
from oarlock.reporting.page import to_html
from oarlock.reporting.pdf import to_pdf
from oarlock.store.files import RENDERING, reference_name
from oarlock.store.jobs import Job
from oarlock.store.scores.write import Origin
from service.api.qa_report import qa_report, reference_file
from service.container import Service
from service.delivery import kept_header, rtstruct_of, with_true_uids


def report_html(service: Service, job: Job) -> bytes:
    """The report as a page.

    :raises ResultNotFound: if the job has no results; as in the functions below.
    """
    return _html(service, job).encode()


def report_pdf(service: Service, job: Job) -> bytes:
    """The report as PDF/A-3b.

    :raises ReportFailed: if it cannot be made; as in the function below.
    """
    return to_pdf(_html(service, job))


def report_dicom(service: Service, job: Job) -> bytes:
    """The report as an Encapsulated PDF."""
    return to_encapsulated_pdf(report_pdf(service, job), rtstruct_of(service, job), report_version(service, job))


def report_version(service: Service, job: Job) -> str:
    """What a report depends on beside what never changes of a job.

    The same text means the same report: its SOP Instance UID is known before it is made.
    """
    returned = [[one.position, one.content_sha256, one.superseded] for one in service.qa_store.returns(job.id)]
    return json.dumps([__version__, returned, *_said_of_model(service, job)])


@dataclass(frozen=True, slots=True)
class Kind:
    """A form of the report.

    :ivar is_saved: whether a browser saves it, in place of showing it.
    """

    file_name: str
    media_type: str
    make: Callable[[Service, Job], bytes]
    is_saved: bool = True


HTML: Final = Kind("report.html", "text/html; charset=utf-8", report_html, is_saved=False)
PDF: Final = Kind("report.pdf", "application/pdf", report_pdf)
DICOM: Final = Kind("report.dcm", "application/dicom", report_dicom)


def _html(service: Service, job: Job) -> str:
    report = qa_report(service, job).model_dump(mode="json")
    return to_html(
        Contents(
            report,
            load_rendering(service.storage.result(job.id, RENDERING)),
            [drawn_by_reference(service, job, comparison) for comparison in report["comparisons"]],
            subject_of(rtstruct_of(service, job), job.label),
            job.warnings,
            *_said_of_model(service, job),
        )
    )


def _said_of_model(service: Service, job: Job) -> tuple[str, tuple[str, ...]]:
    """Description and limits of the model that drew; nothing where this server has another one of its name by now."""
    manifest = service.models.of(job.model)
    return ("", ()) if manifest is None else (manifest.description, tuple(manifest.limits))


def drawn_by_reference(service: Service, job: Job, comparison: Mapping[str, Any]) -> Mapping[OAR, Crop]:
    """What the reference of a comparison drew.

    Nothing if it is not kept, or was superseded.
    """
    if comparison["file"] is None or comparison["superseded"]:
        return {}
    settings, position = service.settings, comparison["position"]
    header = kept_header(job.id, settings, service.storage)
    try:
        if comparison["origin"] == Origin.SUPPLIED:
            return drawn_in(service.storage.result(job.id, reference_name(position)), header, settings.site_of(job.site))
        header = with_true_uids(header, service.vault.uids(job))
        with service.storage.incoming() as scratch:
            path = scratch.next_file()
            path.write_bytes(reference_file(service, job, Origin.APPROVED, position))
            return drawn_in(path, replace(header, structure_sets=()), settings.site_of(job.site))
    except OarlockError:  # purged in this very moment: the report goes without
        return {}

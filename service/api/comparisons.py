"""Comparing: two RTSTRUCTs on a series to the report of ``oarlock qa``, while the sender waits.

The second one may be what a clinician made of a job's contours and approved: then the scores are kept and charted.
"""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from oarlock.ct.series import SeriesHeader, check_headers
from oarlock.ct.series_geometry import read_series_geometry
from oarlock.errors import ResultNotFound, StructureSetError
from oarlock.pipeline.comparison import StructureSetOnGrid, compare_on_grid, read_on_grid
from oarlock.qa.control_chart import Alarm
from oarlock.qa.report import QAReport
from oarlock.settings import Settings
from oarlock.store.audit import Actor
from oarlock.store.files import GEOMETRY, RTSTRUCT, Storage
from oarlock.store.jobs import Job, JobId
from oarlock.store.scores.filters import Filters
from oarlock.store.scores.read import ScoreStore
from service.intake.multipart import Upload

log = logging.getLogger(__name__)

AT_ONCE: Final = 2
"""How many comparisons a service makes at the same time: each holds two words a voxel of its series (docs/operations.md)."""


def compare_upload(upload: Upload, settings: Settings) -> QAReport:
    """Compare the two RTSTRUCTs of an upload.

    :raises SeriesError: if the files are not one CT series.
    :raises StructureSetError: if an RTSTRUCT cannot be used; its sentence names the part.
    """
    header = check_headers(upload.files, max_slices=settings.max_slices)
    predicted, reference = (read_part(name, upload.parts[name], header, settings) for name in ("predicted", "reference"))
    return compare_on_grid(predicted, reference, header, settings.site)


def read_part(name: str, path: Path, header: SeriesHeader, settings: Settings) -> StructureSetOnGrid:
    """What the RTSTRUCT in one part of an upload draws on a series.

    :raises StructureSetError: if it cannot be used; its sentence names the part.
    """
    try:
        return read_on_grid(path, header, settings.site)
    except StructureSetError as error:
        error.detail = f"Part '{name}': {error.detail}"
        raise


@dataclass(frozen=True, slots=True)
class Returned:
    """What came of an approved RTSTRUCT: the comparison, and the alarms that it completes, each with its organ."""

    report: QAReport
    alarms: Sequence[tuple[str, Alarm]]


def compare_approved(
    job: Job, upload: Upload, *, uids: Mapping[str, str], settings: Settings, storage: Storage, scores: ScoreStore, by: Actor
) -> Returned:
    """Compare the contours of a finished job with what was approved, and write the scores down.

    :param uids: the true UIDs of the series by those that stand for them in the job's folder.
    :raises StructureSetError: if the RTSTRUCT cannot be used.
    :raises ResultNotFound: if the job's own RTSTRUCT is gone.
    :raises JobExpired: if the job was purged.
    """
    path = upload.parts["reference"]
    header = _header(job.id, settings, storage)
    predicted = read_on_grid(storage.result(job.id, RTSTRUCT), header, settings.site)
    true = _with_true_uids(header, uids)
    report = compare_on_grid(predicted, read_part("reference", path, true, settings), true, settings.site)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if not scores.approve(job, header.scanner, report.to_rows(), digest, by=by):
        return Returned(report, ())
    return Returned(report, _alarms(job, header.scanner, scores))


def _header(job_id: JobId, settings: Settings, storage: Storage) -> SeriesHeader:
    """Where the slices of a job's series lie; a job from before that was kept still has its images, or cannot be compared."""
    try:
        return read_series_geometry(storage.result(job_id, GEOMETRY))
    except ResultNotFound:
        return check_headers(storage.input_files(job_id), max_slices=settings.max_slices)


def _with_true_uids(header: SeriesHeader, uids: Mapping[str, str]) -> SeriesHeader:
    """The series as whoever sent it knows it."""
    named = ("study_instance_uid", "series_instance_uid", "frame_of_reference_uid")
    true = {name: uids.get(uid, uid) for name in named if (uid := getattr(header, name))}
    instances = (replace(one, sop_instance_uid=uids.get(one.sop_instance_uid, one.sop_instance_uid)) for one in header.instances)
    return replace(header, instances=tuple(instances), **true)


def _alarms(job: Job, scanner: str, scores: ScoreStore) -> list[tuple[str, Alarm]]:
    """What the newest point of each chart of this model and scanner completes, if it is the job's."""
    filters = Filters(model=job.model.name, model_version=job.model.version, scanner=scanner)
    newest = [(chart.oar, chart.points[-1]) for chart in scores.charts(filters, points=1) if chart.points]
    found = [(oar, alarm) for oar, point in newest if point.job_id == job.id for alarm in point.alarms]
    for oar, alarm in found:
        log.warning("drift alarm", extra={"job_id": job.id, "oar": oar, "rule": alarm.rule, "side": alarm.side})
    return found

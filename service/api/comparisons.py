"""Comparisons of two RTSTRUCTs on a series, while the sender waits.

The second RTSTRUCT may be what a clinician approved of a job's contours: then its scores are kept and charted.
"""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass

import orjson

from oarlock.ct.series import SeriesHeader, check_headers
from oarlock.errors import OarlockError
from oarlock.pipeline.comparison import Side, compare_and_show, compare_files
from oarlock.qa.control_chart import Alarm
from oarlock.qa.report import QAReport
from oarlock.settings import Settings
from oarlock.store.audit import Actor
from oarlock.store.files import QA_REPORT, RTSTRUCT, SHADOW_RTSTRUCT, Storage
from oarlock.store.jobs import Job
from oarlock.store.scores.filters import Filters
from oarlock.store.scores.read import ScoreStore
from oarlock.store.shadows import ShadowState, ShadowStore
from service.api.qa_report import OVERLAY, OVERLAY_DATA
from service.delivery import kept_header, with_true_uids
from service.intake.forms import Upload
from service.intake.vault import Vault

log = logging.getLogger(__name__)


def compare_upload(upload: Upload, settings: Settings, site: str) -> QAReport:
    """Compare the two RTSTRUCTs of an upload.

    :param site: whose names and tolerances count; empty for an operator's.
    :raises SeriesError: if the files are not one CT series.
    :raises StructureSetError: if an RTSTRUCT cannot be used; its sentence names the part.
    """
    header = check_headers(upload.files, max_slices=settings.max_slices, refuse_gaps=False)
    predicted, reference = (Side(upload.parts[name], header, name) for name in ("predicted", "reference"))
    return compare_files(predicted, reference, settings.site_of(site))


@dataclass(frozen=True, slots=True)
class Returned:
    """The comparison with an approved RTSTRUCT, and its alarms.

    The alarms that it completes, each with its organ.
    """

    report: QAReport
    alarms: Sequence[tuple[str, Alarm]]


def compare_approved(
    job: Job,
    upload: Upload,
    *,
    vault: Vault,
    settings: Settings,
    storage: Storage,
    scores: ScoreStore,
    shadows: ShadowStore,
    by: Actor,
) -> Returned:
    """Compare a finished job with the approved contours.

    The file, the comparison, what the review page shows of it and the scores are kept.

    The files come before the row that leads to them: a crash in between leaves files that nobody sees, until it is sent again.

    :raises StructureSetError: if the RTSTRUCT cannot be used.
    :raises ResultNotFound: if the job's own RTSTRUCT is gone.
    :raises JobExpired: if the job was purged.
    """
    path = upload.parts["reference"]
    header = kept_header(job.id, settings, storage)
    predicted = Side(storage.result(job.id, RTSTRUCT), header)
    reference = Side(path, with_true_uids(header, vault.uids(job)), "reference")
    shown = compare_and_show(predicted, reference, settings.site_of(job.site))
    report, content = shown.report, path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    kept = {
        "dcm": content,
        "json": orjson.dumps(report.to_json()),
        OVERLAY: orjson.dumps(shown.overlay),
        OVERLAY_DATA: shown.data,
    }
    for kind, file in kept.items():
        storage.keep_returned(job.id, f"{digest}.{kind}", vault.seal(job, file))
    if not scores.approve(job, header.scanner, report.to_rows(_verdicts(job, storage)), digest, by=by):
        return Returned(report, ())
    try:
        _compare_shadow(job, header, reference, digest, settings=settings, storage=storage, scores=scores, shadows=shadows, by=by)
    except OarlockError as error:  # what a shadow run drew is nobody's answer
        log.warning("a shadow run was not compared", extra={"job_id": job.id, "error": error.code})
    return Returned(report, _alarms(job, header.scanner, scores))


def _compare_shadow(
    job: Job,
    header: SeriesHeader,
    reference: Side,
    digest: str,
    *,
    settings: Settings,
    storage: Storage,
    scores: ScoreStore,
    shadows: ShadowStore,
    by: Actor,
) -> None:
    """Compare what a shadow run drew with what was approved; a run that comes later compares for itself."""
    found = shadows.of(job.id)
    if found is None or found[1] is not ShadowState.DONE:
        return
    drawn = Side(storage.returned_path(job.id, SHADOW_RTSTRUCT), header)
    report = compare_files(drawn, reference, settings.site_of(job.site))
    scores.approve(job, header.scanner, report.to_rows({}), digest, by=by, shadow=found[0])


def _verdicts(job: Job, storage: Storage) -> dict[str, str]:
    """Those on the organs of a job, as its QA report has them; none for a job of a version without them."""
    report = orjson.loads(storage.result(job.id, QA_REPORT).read_bytes())
    return {organ["oar"]: organ["verdict"] for organ in report.get("organs", ())}


def _alarms(job: Job, scanner: str, scores: ScoreStore) -> list[tuple[str, Alarm]]:
    """The alarms of the newest point of each chart of this model and scanner, if that point is the job's."""
    filters = Filters(site=job.site, model=job.model.name, model_version=job.model.version, scanner=scanner, shadow=False)
    newest = [(chart.oar, chart.points[-1]) for chart in scores.charts(filters, points=1) if chart.points]
    found = [(oar, alarm) for oar, point in newest if point.job_id == job.id for alarm in point.alarms]
    for oar, alarm in found:
        log.warning("drift alarm", extra={"job_id": job.id, "oar": oar, "rule": alarm.rule, "side": alarm.side})
    return found

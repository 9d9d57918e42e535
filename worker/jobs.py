"""The whole walk of one series: from the files of a job to its results. No Celery in it.

Safe to run twice, and to be killed anywhere: a job is claimed by a lease, results appear all at once under the lease's token,
and the state changes once, at the end, if the lease is still ours. Nothing in the results depends on when or how often the job
was run.
"""

import errno
import hashlib
import logging
import secrets
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import orjson

from oarlock import logs
from oarlock.ct.series import CTSeries, SeriesHeader, check_headers, read_ct_series
from oarlock.ct.series_geometry import write_header
from oarlock.errors import (
    DatabaseUnavailable,
    DeviceOutOfMemory,
    InternalError,
    OarlockError,
    ProfileInvalid,
    ResultInvalid,
    StorageFull,
    StorageUnavailable,
    StructureSetError,
    TransientError,
)
from oarlock.facts import ModelFacts, Notice
from oarlock.geometry.body import within_body
from oarlock.geometry.masks import OARMasks
from oarlock.organs.catalogue import OAR
from oarlock.pictures import contact_sheet as preview
from oarlock.pipeline.comparison import NO_SITE_FILE, ComparisonSet, StructureSetOnGrid, read_on_grid
from oarlock.qa import report as qa
from oarlock.qa.site_file import Site
from oarlock.rtstruct.profiles import GENERIC, GENERIC_NAME, Profile
from oarlock.rtstruct.validator import check_rtstruct
from oarlock.rtstruct.writer import Authorship, WrittenRTSTRUCT, write_rtstruct
from oarlock.segmentation.certainty import Certainty, Watch
from oarlock.segmentation.postprocess import clean_up, to_masks
from oarlock.segmentation.resampling import to_model_grid
from oarlock.segmentation.slabs import predict
from oarlock.store.files import GEOMETRY, PREVIEW, QA_REPORT, RENDERING, RTSTRUCT, Storage
from oarlock.store.job_store import JobStore, Lease, LeaseLost
from oarlock.store.jobs import MAX_ATTEMPTS, Job, JobId, Stage
from oarlock.store.score_store import Scored
from worker.inference import Model
from worker.lease import CancelRequested, LeaseKeeper, WorkerStopping

log = logging.getLogger(__name__)

Report = Callable[[Stage, float], None]
ModelOf = Callable[[ModelFacts], Model]

_STORAGE_ERRORS: Final[Mapping[int | None, Callable[[], TransientError]]] = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), StorageFull),
    # What a shared file system answers whose other end is away.
    **dict.fromkeys((errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT, errno.EHOSTDOWN), StorageUnavailable),
}


def contour(
    job_id: JobId,
    *,
    store: JobStore,
    storage: Storage,
    models: ModelOf,
    worker: str,
    lease_s: float,
    max_slices: int = 1024,
    site: Site = NO_SITE_FILE,
    profiles: Mapping[str, Profile] | None = None,
    stopping: Callable[[], bool] = lambda: False,
    room_is_left: Callable[[], bool] = lambda: True,
) -> None:
    """Contour the series of one job, if there is still something to do.

    The outcome is in the job store; nothing is raised but what ends the process.

    :param models: gives the model that a job names.
    :param worker: name of this worker, for the job table.
    :param site: the site's own names of ROIs and its own tolerances.
    :param profiles: the site profiles by name; without them the generic one alone.
    :param stopping: whether the worker was asked to end; the job is then handed back at the next step.
    :param room_is_left: whether the data folder is there, with room for the results of other jobs.
    """
    with logs.about(job_id):
        lease = _claim(store, job_id, worker, lease_s)
        if lease is None:
            return
        log.info("job started", extra={"job_id": job_id, "attempt": lease.attempt})
        with LeaseKeeper(store, lease, lease_s=lease_s, stopping=stopping) as keeper:
            try:
                job = store.get(job_id)
                with storage.results_writer(job_id, lease.token) as folder:
                    profile = _profile_of(job, profiles or {GENERIC_NAME: GENERIC})
                    walk = Walk(storage.input_files(job_id), folder, job, keeper.report, max_slices, site, profile)
                    walk.run(models)
                    keeper.report(Stage.COMPARING, 1.0)
                    digest = _digest(folder / RTSTRUCT)
                store.succeed(lease, warnings=walk.warnings, result=digest, scored=walk.scored)
            except Exception as error:  # whatever happens, the job ends, goes back, or is left to its new owner
                with suppress(LeaseLost, DatabaseUnavailable):  # then its lease runs out and the sweeper takes it back
                    _end(store, lease, error, room_is_left)
            else:
                log.info("job succeeded", extra={"job_id": job_id})


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return f"{path.name} sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def _claim(store: JobStore, job_id: JobId, worker: str, lease_s: float) -> Lease | None:
    try:
        return store.claim(job_id, worker=worker, lease_s=lease_s)
    except DatabaseUnavailable:  # the job is as it was: queued, and the sweeper sends it again
        log.warning("a job could not be claimed", extra={"job_id": job_id})
        return None


def _profile_of(job: Job, profiles: Mapping[str, Profile]) -> Profile:
    """How the result of a job is to be written; a job from before there were profiles is written as the generic one says.

    :raises ProfileInvalid: if this worker has no profile of that name, although the service had one.
    """
    name = job.profile or GENERIC_NAME
    if name not in profiles:
        raise ProfileInvalid(profile=name, reason="the worker has none of that name; give it the folder that the service has")
    return profiles[name]


def _end(store: JobStore, lease: Lease, error: Exception, room_is_left: Callable[[], bool]) -> None:
    """What an error means for the job."""
    about = {"job_id": lease.job_id, "error": getattr(error, "code", "") or type(error).__name__}
    match _foreseen(error):
        case LeaseLost():
            log.warning("the job is no longer this worker's", extra=about)
        case CancelRequested():
            store.cancelled(lease)
            log.info("job cancelled", extra=about)
        case WorkerStopping():
            store.hand_back(lease)
            log.info("job handed back", extra=about)
        case StorageFull() | StorageUnavailable() if not room_is_left():  # what this job wrote is deleted: others filled the disk
            store.hand_back(lease)
            log.warning("job handed back until its results have a place to go", extra=about)
        case TransientError() if lease.attempt < MAX_ATTEMPTS:
            store.hand_back(lease, attempt_counts=True)
            log.warning("job handed back after an error that may pass", extra=about)
        case OarlockError() as known:
            store.fail(lease, known)
            log.warning("job failed", extra=about)
        case unforeseen:
            reference = secrets.token_hex(6)
            where = [f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in traceback.extract_tb(unforeseen.__traceback__)]
            # The message of an unforeseen error may quote what a sender wrote: type and place are enough to find it.
            log.error("job failed for an unforeseen reason", extra={**about, "reference": reference, "where": where})
            store.fail(lease, InternalError(reference=reference))


def _foreseen(error: Exception) -> Exception:
    """Errors of the system that have a name in the house."""
    if isinstance(error, MemoryError):
        return DeviceOutOfMemory(device="cpu")
    if isinstance(error, OSError) and error.errno in _STORAGE_ERRORS:
        return _STORAGE_ERRORS[error.errno]()
    return error


@dataclass
class Walk:
    """One run over one series.

    :param files: the upload, in its order.
    :param folder: where the results are written.
    :param job: for what must be the same in every run: its id, when it was created, its model.
    :param report: told the stage and its share; raises to stop the walk.
    :param profile: what of the result is delivered, and how it is written.
    """

    files: Sequence[Path]
    folder: Path
    job: Job
    report: Report
    max_slices: int = 1024
    site: Site = NO_SITE_FILE
    profile: Profile = GENERIC
    warnings: list[Notice] = field(default_factory=list)
    certainty: Mapping[OAR, Certainty] = field(default_factory=dict)
    scored: Scored | None = None

    def run(self, models: ModelOf) -> None:
        """Read, infer, contour, compare.

        :raises OarlockError: whatever a step may raise.
        """
        self.report(Stage.READING, 0.0)
        model = models(self.job.model)
        series = read_ct_series(check_headers(self.files, max_slices=self.max_slices))
        masks = self._chosen(self._infer(series, model))
        written = self._contour(series.header, masks, model.facts)
        write_header(self.folder / GEOMETRY, series.header)
        self._compare(series, masks, written)
        self._draw(series, masks, model)

    def _infer(self, series: CTSeries, model: Model) -> OARMasks:
        self.report(Stage.READING, 0.7)
        grid, manifest = series.header.grid, model.manifest
        fed = to_model_grid(series.hu, grid, manifest.input)
        self.report(Stage.INFERRING, 0.0)
        slabs = predict(fed.volume, model.predict, manifest.input, progress=lambda share: self.report(Stage.INFERRING, share))
        watch = Watch(fed.grid, manifest.oars, manifest.thresholds)
        claims = watch.over(within_body(slabs, fed.volume))
        masks = to_masks(claims, fed.grid, grid, manifest.oars, manifest.thresholds)
        self.certainty = watch.found()
        return masks

    def _chosen(self, masks: OARMasks) -> OARMasks:
        """The organs that the profile asks for: what is not delivered is not scored or shown either."""
        missing = [oar.name for oar in self.profile.not_drawn(masks.oars)]
        if missing:
            detail = f"The profile asks for {', '.join(missing)}, which the model does not draw."
            self.warnings.append(Notice("rtstruct.not_drawn", detail))
        return masks.select([style.oar for style in self.profile.styles_of(masks.oars)])

    def _contour(self, header: SeriesHeader, masks: OARMasks, model: ModelFacts) -> WrittenRTSTRUCT:
        self.report(Stage.CONTOURING, 0.0)
        self.warnings += clean_up(masks, header.grid)
        self.report(Stage.CONTOURING, 0.4)
        path = self.folder / RTSTRUCT
        written = write_rtstruct(path, masks, header, Authorship(self.job.id, self.job.created_at, model), self.profile)
        self.warnings += written.warnings
        self.report(Stage.CONTOURING, 0.7)
        if findings := check_rtstruct(path, header, masks, self.profile):
            raise ResultInvalid(findings=findings)
        return written

    def _compare(self, series: CTSeries, masks: OARMasks, written: WrittenRTSTRUCT) -> None:
        self.report(Stage.COMPARING, 0.0)
        header = series.header
        panel = ComparisonSet(StructureSetOnGrid(qa.Source(written.sop_instance_uid, written.label), masks), header, self.site)
        not_compared: list[dict[str, Any]] = []
        for position, path in enumerate(header.structure_sets, start=1):
            try:
                self._compare_with(path, position, panel)
            except StructureSetError as error:
                not_compared.append({"position": position, "code": error.code, "detail": error.detail})
                detail = f"Supplied RTSTRUCT {position} was not compared with. {error.detail}"
                self.warnings.append(Notice("structure_set.not_compared", detail))
            self.report(Stage.COMPARING, 0.7 * position / len(header.structure_sets))
        checks = qa.check_masks(masks, header.grid, self.certainty, series.hu)
        self.scored = Scored(header.scanner, panel.reports, checks)
        report = panel.report(checks, not_compared)
        (self.folder / QA_REPORT).write_bytes(orjson.dumps(report, option=orjson.OPT_INDENT_2))

    def _compare_with(self, path: Path, position: int, panel: ComparisonSet) -> None:
        supplied = read_on_grid(path, panel.header, self.site)
        self.warnings += [Notice(note.code, f"Supplied RTSTRUCT {position}: {note.detail}") for note in supplied.warnings]
        panel.add(supplied)

    def _draw(self, series: CTSeries, masks: OARMasks, model: Model) -> None:
        self.report(Stage.COMPARING, 0.8)
        grid = series.header.grid
        sheet = preview.contact_sheet(series.hu, grid, masks, model=model.manifest.identity)
        (self.folder / PREVIEW).write_bytes(sheet)
        self.report(Stage.COMPARING, 0.9)
        preview.save_rendering(self.folder / RENDERING, series.hu, grid, masks, model=model.manifest.identity)

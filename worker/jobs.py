"""A job from its id to its end.

The lease, the results and what an error means. No Celery in it.

Safe to run twice, and to be killed anywhere: a job is claimed by a lease, results appear all at once under the lease's token,
and the state changes once, at the end, if the lease is still ours.
"""

import errno
import hashlib
import logging
import secrets
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, tzinfo
from pathlib import Path
from typing import Final

from oarlock import logs
from oarlock.errors import (
    DatabaseUnavailable,
    DeviceOutOfMemory,
    InternalError,
    OarlockError,
    ProfileInvalid,
    StorageFull,
    StorageUnavailable,
    TransientError,
)
from oarlock.facts import ModelFacts
from oarlock.pipeline.comparison import NO_SITE_FILE
from oarlock.pipeline.contouring import Walk
from oarlock.qa.site_file import Site
from oarlock.qa.verdict import verdict_of_set
from oarlock.rtstruct.profiles import GENERIC, GENERIC_NAME, Profile
from oarlock.segmentation.segment import Model
from oarlock.store.files import RTSTRUCT, Storage
from oarlock.store.job_store import JobStore
from oarlock.store.jobs import MAX_ATTEMPTS, Job, JobId, Stage
from oarlock.store.leases import Lease, LeaseLost
from oarlock.store.migrations import DatabaseNewer, DatabaseOlder
from oarlock.store.scores.write import Scored
from worker.lease_keeper import CancelRequested, LeaseKeeper, WorkerStopping

log = logging.getLogger(__name__)

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
    site_of: Callable[[str], Site] = lambda _: NO_SITE_FILE,
    profiles: Mapping[str, Profile] | None = None,
    time_zone: tzinfo | None = UTC,
    stopping: Callable[[], bool] = lambda: False,
    room_is_left: Callable[[], bool] = lambda: True,
    shadow_of: Callable[[Job], ModelFacts | None] = lambda _: None,
) -> None:
    """Contour one job, if it still has to be done.

    The outcome is in the job store; only what ends the process is raised.

    :param models: returns the model that a job was given to.
    :param worker: name of this worker, for the job table.
    :param site_of: a site's own ROI names and tolerances, by its name; empty for an operator's job.
    :param profiles: the site profiles by name; the generic one alone by default.
    :param time_zone: of the dates in the RTSTRUCT; None for that of the machine.
    :param stopping: whether the worker was asked to end; the job is then handed back at the next step.
    :param room_is_left: whether the data folder has room for the results of other jobs.
    :param shadow_of: the model that draws the job too, for the scores alone; None for none.
    """
    with logs.about(job_id):
        lease = _claim(store, job_id, worker, lease_s)
        if lease is None:
            return
        log.info("job started", extra={"job_id": job_id, "attempt": lease.attempt})
        with LeaseKeeper(store.leases, lease, lease_s=lease_s, stopping=stopping) as keeper:
            try:
                job = store.get(job_id)
                with storage.results_writer(job_id, lease.token) as folder:
                    profile = profile_of(job, profiles or {GENERIC_NAME: GENERIC})
                    files = storage.input_files(job_id)
                    created_at = job.created_at.astimezone(time_zone)
                    walk = Walk(files, folder, job_id, created_at, keeper.report, max_slices, site_of(job.site), profile)
                    walk.run(lambda: models(job.model))
                    keeper.report(Stage.COMPARING, 1.0)
                    digest = _digest(folder / RTSTRUCT)
                judged = {verdict.oar: verdict.level.value for verdict in walk.verdicts}
                comparisons = [report.to_rows(judged) for report in walk.reports]
                checks = [(check.code, check.oar or "", check.level.value) for check in walk.checks]
                of_set = verdict_of_set(walk.verdicts).value
                scored = Scored(walk.scanner, comparisons, checks, list(judged.items()), of_set)
                store.leases.succeed(lease, warnings=walk.warnings, result=digest, scored=scored, shadow=shadow_of(job))
            except Exception as error:  # whatever happens, the job ends, goes back, or is left to its new worker
                with suppress(LeaseLost, DatabaseUnavailable):  # then its lease runs out and the sweeper takes it back
                    _end(store, lease, error, room_is_left)
            else:
                log.info("job succeeded", extra={"job_id": job_id})


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return f"{path.name} sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def _claim(store: JobStore, job_id: JobId, worker: str, lease_s: float) -> Lease | None:
    try:
        return store.leases.claim(job_id, worker=worker, lease_s=lease_s)
    except DatabaseUnavailable:  # the job is as it was: queued, and the sweeper sends it again
        log.warning("a job could not be claimed", extra={"job_id": job_id})
        return None
    except (DatabaseNewer, DatabaseOlder) as error:  # so it is here
        log.warning("a job was not taken", extra={"job_id": job_id, "reason": str(error)})
        return None


def profile_of(job: Job, profiles: Mapping[str, Profile]) -> Profile:
    """The profile that a job names.

    Jobs older than profiles use the generic one.

    :raises ProfileInvalid: if this worker, unlike the service, has no profile of that name.
    """
    name = job.profile or GENERIC_NAME
    if name not in profiles:
        raise ProfileInvalid(profile=name, reason="the worker has none of that name; give it the folder that the service has")
    return profiles[name]


def _end(store: JobStore, lease: Lease, error: Exception, room_is_left: Callable[[], bool]) -> None:
    """End the job, or hand it back, as the error demands."""
    about = {"job_id": lease.job_id, "error": getattr(error, "code", "") or type(error).__name__}
    match _foreseen(error):
        case LeaseLost():
            log.warning("the job is no longer this worker's", extra=about)
        case CancelRequested():
            store.leases.cancelled(lease)
            log.info("job cancelled", extra=about)
        case WorkerStopping():
            store.leases.hand_back(lease)
            log.info("job handed back", extra=about)
        case StorageFull() | StorageUnavailable() if (
            not room_is_left()
        ):  # this job's own files are deleted: others filled the disk
            store.leases.hand_back(lease)
            log.warning("job handed back until its results can be written", extra=about)
        case TransientError() if lease.attempt < MAX_ATTEMPTS:
            store.leases.hand_back(lease, attempt_counts=True)
            log.warning("job handed back after an error that may pass", extra=about)
        case OarlockError() as known:
            store.leases.fail(lease, known)
            log.warning("job failed", extra=about)
        case unforeseen:
            reference = secrets.token_hex(6)
            where = [f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in traceback.extract_tb(unforeseen.__traceback__)]
            # The message of an unforeseen error may quote what a sender wrote: type and place are enough to find it.
            log.error("job failed for an unforeseen reason", extra={**about, "reference": reference, "where": where})
            store.leases.fail(lease, InternalError(reference=reference))


def _foreseen(error: Exception) -> Exception:
    """The error of ours that a system error amounts to; any other error as it is."""
    if isinstance(error, MemoryError):
        return DeviceOutOfMemory(device="cpu")
    if isinstance(error, OSError) and error.errno in _STORAGE_ERRORS:
        return _STORAGE_ERRORS[error.errno]()
    return error

"""A shadow run from its job's id to its end.

A second model draws a finished job, for the scores alone.

Nothing that it draws is delivered. Its scores are written as those of a model of its own: against what was delivered, against the
RTSTRUCTs that came with the series, and against what has been approved since. It makes room for every job that is queued.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import tzinfo
from pathlib import Path
from time import monotonic
from typing import Final

from oarlock import logs
from oarlock.ct.series import check_headers
from oarlock.errors import DatabaseUnavailable, OarlockError, ResultNotFound, TransientError
from oarlock.facts import ComparisonRows
from oarlock.pipeline.comparison import Side, compare_files
from oarlock.pipeline.contouring import Walk
from oarlock.qa.site_file import Site
from oarlock.qa.verdict import verdict_of_set
from oarlock.rtstruct.profiles import Profile
from oarlock.store.files import RTSTRUCT, SHADOW_RTSTRUCT, Storage
from oarlock.store.job_store import JobStore
from oarlock.store.jobs import Job, JobId, Stage
from oarlock.store.scores.read import ScoreStore
from oarlock.store.scores.write import Origin, ShadowScored
from oarlock.store.shadows import Shadow, ShadowLost
from worker.jobs import ModelOf, profile_of
from worker.lease_keeper import WorkerStopping

log = logging.getLogger(__name__)

LOOK_EVERY_S: Final = 2.0
"""How often a run asks whether a job waits."""


class JobWaits(Exception):
    """A job waits for a worker: the run makes room."""


@dataclass(frozen=True, kw_only=True)
class ShadowRuns:
    """Does shadow runs with what a worker has.

    :param models: returns the very model that a run was given to.
    :param site_of: a site's own ROI names and tolerances, by its name.
    :param profiles: the site profiles by name; organs that a profile leaves out are not scored.
    :param stopping: whether the worker was asked to end.
    :param clock: gives seconds that only grow.
    """

    store: JobStore
    scores: ScoreStore
    storage: Storage
    models: ModelOf
    worker: str
    profiles: dict[str, Profile]
    site_of: Callable[[str], Site]
    max_slices: int = 1024
    time_zone: tzinfo | None = None
    stopping: Callable[[], bool] = lambda: False
    clock: Callable[[], float] = field(default=monotonic)

    def run(self, job_id: JobId) -> None:
        """Draw one job, if its turn has come.

        The outcome is in the job store.
        """
        with logs.about(job_id):
            try:
                shadow = self.store.shadows.claim(job_id, worker=self.worker)
            except DatabaseUnavailable:  # the run waits as before, and is offered again
                return
            if shadow is None:
                return
            log.info("shadow run started", extra={"job_id": job_id, "model": shadow.model.name})
            try:
                self._draw(shadow)
            except Exception as error:  # whatever happens, the run ends or waits again, and the job stays as it is
                with suppress(ShadowLost, DatabaseUnavailable):  # then it is taken back when this worker is gone
                    self._end(shadow, error)
            else:
                log.info("shadow run done", extra={"job_id": job_id})

    def _end(self, shadow: Shadow, error: Exception) -> None:
        code = getattr(error, "code", "") or type(error).__name__
        about = {"job_id": shadow.job_id, "error": code}
        match error:
            case ShadowLost():
                log.info("the shadow run is no longer this worker's", extra=about)
            case JobWaits() | WorkerStopping():
                self.store.shadows.hand_back(shadow, attempt_counts=False)
                log.info("shadow run put back", extra=about)
            case TransientError() | MemoryError() | OSError():
                self.store.shadows.hand_back(shadow, attempt_counts=True)
                log.warning("shadow run put back after an error that may pass", extra=about)
            case _:
                self.store.shadows.drop(shadow, code if isinstance(error, OarlockError) else "internal.error")
                log.warning("shadow run dropped", extra=about)

    def _draw(self, shadow: Shadow) -> None:
        """Draw the job, score it and end the run."""
        job = self.store.get(shadow.job_id)
        files = self.storage.input_files(job.id)
        with self.storage.shadow_folder(job.id) as folder:
            created_at = job.created_at.astimezone(self.time_zone)
            # another id: its RTSTRUCT must not have the UIDs of the one that was delivered
            named, profile = f"{job.id}/shadow", profile_of(job, self.profiles)
            report = self._reporter(shadow)
            walk = Walk(
                files, folder, named, created_at, report, self.max_slices, self.site_of(job.site), profile, pictured=False
            )
            walk.run(lambda: self.models(shadow.model))
            judged = {verdict.oar: verdict.level.value for verdict in walk.verdicts}
            supplied = [(Origin.SUPPLIED, one.to_rows(judged), None) for one in walk.reports]
            self.storage.keep_returned(job.id, SHADOW_RTSTRUCT, (folder / RTSTRUCT).read_bytes())
            checks = [(check.code, check.oar or "", check.level.value) for check in walk.checks]
            done = False
            while not done:  # again where an RTSTRUCT was approved meanwhile
                report(Stage.COMPARING, 0.5)
                approved = self._last_approved(job)
                compared = [*supplied, *self._compared(job, files, folder, judged, approved)]
                verdict = verdict_of_set(walk.verdicts).value
                scored = ShadowScored(walk.scanner, compared, checks, list(judged.items()), verdict)
                done = self.store.shadows.finish(shadow, scored, approved=approved)

    def _last_approved(self, job: Job) -> str | None:
        returns = self.scores.returns(job.id)
        return returns[-1].content_sha256 if returns else None

    def _compared(
        self, job: Job, files: list[Path], folder: Path, judged: dict[str, str], approved: str | None
    ) -> Iterator[tuple[Origin, ComparisonRows, str | None]]:
        """What was drawn beside what was delivered and, where this worker can read it, what was approved last."""
        header = check_headers(files, max_slices=self.max_slices, refuse_gaps=False)
        drawn = Side(folder / RTSTRUCT, header)
        others: list[tuple[Origin, Path, str | None]] = [(Origin.DELIVERED, self.storage.result(job.id, RTSTRUCT), None)]
        if approved and job.identity is None:  # of a de-identified job it is sealed, and the service alone can open it
            with suppress(ResultNotFound):
                others.append((Origin.APPROVED, self.storage.returned_path(job.id, f"{approved}.dcm"), approved))
        for origin, path, content_sha256 in others:
            yield origin, compare_files(drawn, Side(path, header), self.site_of(job.site)).to_rows(judged), content_sha256

    def _reporter(self, shadow: Shadow) -> Callable[[Stage, float], None]:
        """What the walk tells its progress; it stops the run where it has to make room."""
        looked_at = float("-inf")

        def report(stage: Stage, share: float) -> None:
            nonlocal looked_at
            del stage, share
            if self.stopping():
                raise WorkerStopping
            if self.clock() - looked_at >= LOOK_EVERY_S:
                if self.store.shadows.must_yield(shadow):
                    raise JobWaits
                looked_at = self.clock()

        return report

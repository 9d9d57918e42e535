"""What one worker process holds.

The job store, the storage, its models, and its heartbeat.
"""

import logging
import os
import signal
import socket
from collections.abc import Mapping
from threading import Event, Thread
from time import time
from typing import Final

from oarlock.confinement import tell_what_is_lacking
from oarlock.ct.series import check_headers, read_ct_series
from oarlock.errors import OarlockError
from oarlock.facts import ModelFacts
from oarlock.inference.backends import CheckScan, faster
from oarlock.inference.models import Models
from oarlock.rtstruct.profiles import read_profiles
from oarlock.segmentation.model_folder import ModelFolder
from oarlock.segmentation.segment import Model
from oarlock.settings import Settings
from oarlock.store.database import Database
from oarlock.store.files import Storage
from oarlock.store.job_store import JobStore
from oarlock.store.jobs import Job, JobId
from oarlock.store.scores.read import ScoreStore
from worker.gate import ResultSpace
from worker.jobs import contour
from worker.lease_keeper import HAND_BACK
from worker.shadow import ShadowRuns

log = logging.getLogger(__name__)

BEATS: Final = 3
"""Heartbeats of a worker within the length of a lease."""

SILENT_LEASES: Final = 2
"""For how many leases a worker counts as alive after its last heartbeat."""


class Runtime:
    """What a process that runs jobs has.

    Made once in each of them, after that process was started.
    """

    def __init__(self, settings: Settings) -> None:
        self.name = f"{socket.gethostname()}-{os.getpid()}"
        self._settings = settings
        self._database, self._storage = (
            Database(settings.database, create=False, connections=1),
            Storage(settings.data, create=False),
        )
        self._store = JobStore(self._database)
        self._space = ResultSpace(settings, self._storage)
        folder = ModelFolder(settings.models, settings.model)
        self._models = Models(folder.now, device=settings.device, threads=settings.threads, faster=self._faster)
        self._problem: str | None = None
        self._profiles = read_profiles(settings.profiles)
        self._stopping, self._ended = Event(), Event()
        self._life = Thread(target=self._live, name="life", daemon=True)

    def start(self) -> None:
        """Load the default model, then send heartbeats.

        A heartbeat means that the model works.
        """
        signal.signal(HAND_BACK, lambda *_: self._stopping.set())
        self._life.start()

    def run(self, job_id: JobId) -> None:
        """Contour the series of a job."""
        contour(
            job_id,
            store=self._store,
            storage=self._storage,
            models=self._models,
            worker=self.name,
            lease_s=self._settings.lease_s,
            max_slices=self._settings.max_slices,
            site_of=self._settings.site_of,
            profiles=self._profiles,
            time_zone=self._settings.zone,
            stopping=self._stopping.is_set,
            room_is_left=self._space.is_left,
            shadow_of=self._shadow_of,
        )

    def draw_shadow(self, job_id: JobId) -> None:
        """Let a second model draw a finished job, for the scores alone."""
        runs = ShadowRuns(
            store=self._store,
            scores=ScoreStore(self._database),
            storage=self._storage,
            models=self._models,
            worker=self.name,
            profiles=self._profiles,
            site_of=self._settings.site_of,
            max_slices=self._settings.max_slices,
            time_zone=self._settings.zone,
            stopping=self._stopping.is_set,
        )
        runs.run(job_id)

    def _faster(self, model: Model) -> Model:
        """The model on the first backend of the settings that draws the same."""
        settings = self._settings
        if not settings.backends or settings.backend_scan is None:
            return model
        try:
            header = check_headers(sorted(path for path in settings.backend_scan.iterdir() if path.is_file()))
            series = read_ct_series(header)
        except (OarlockError, OSError) as error:
            log.warning("no backend is used: the scan cannot be read", extra={"reason": str(error)})
            return model
        return faster(model, settings.backends, CheckScan(series.hu, header.grid), threads=settings.threads)

    def _shadow_of(self, job: Job) -> ModelFacts | None:
        """The model that draws a job of this site in the shadow; none where that is the job's own, or not installed."""
        name = self._settings.shadow_of(job.site)
        manifest = self._models.installed().offered.get(name) if name else None
        if manifest is None:
            if name:
                log.warning("the shadow model is not installed", extra={"model": name})
            return None
        facts = ModelFacts(manifest.name, manifest.version, manifest.sha256)
        return None if facts == job.model else facts

    def stop(self) -> None:
        """Sign off in the job table."""
        self._ended.set()
        self._life.join()
        try:
            self._store.workers.sign_off(self.name)
        except OarlockError:
            log.warning("the worker could not sign off")
        self._database.close()

    def _live(self) -> None:
        try:
            device = self._models.default().device
        except (OarlockError, KeyError) as error:
            detail = error.detail if isinstance(error, OarlockError) else "no such model"
            log.error("the model cannot be used", extra={"model": self._settings.model, "reason": detail})  # noqa: TRY400
            return
        tell_what_is_lacking()
        log.info("ready", extra={"model": self._models.installed().default, "device": device})
        while True:
            if self._storage.is_there():  # a worker without the data folder is of no use, and must be seen as missing
                self._beat(self._offered(), device)
                self._promise()
            if self._ended.wait(self._settings.lease_s / BEATS):
                return

    def _offered(self) -> Mapping[str, str]:
        """Name and hash of each model that new jobs can be given to; what is wrong with the folder is logged once."""
        installed = self._models.installed()
        if installed.problem not in {None, self._problem}:
            log.error("the models stay as they were", extra={"reason": installed.problem})
        self._problem = installed.problem
        return {name: manifest.sha256 for name, manifest in installed.offered.items()}

    def _beat(self, models: Mapping[str, str], device: str) -> None:
        try:
            self._store.workers.heartbeat(self.name, models, device)
        except OarlockError:
            log.warning("a heartbeat could not be written")
        except Exception:  # if this thread ended, a worker that works would count as dead
            log.exception("a heartbeat could not be written")

    def _promise(self) -> None:
        """Write for a health check until when this worker counts as alive; reading it needs no database."""
        if self._settings.alive_file is not None:
            try:
                self._settings.alive_file.write_text(f"{time() + SILENT_LEASES * self._settings.lease_s:.0f}", encoding="ascii")
            except OSError as error:
                log.warning("the file of the health check could not be written", extra={"reason": error.strerror})

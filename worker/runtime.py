"""What one worker process holds while it lives: the job store, the storage, its models, and its sign of life."""

import logging
import os
import signal
import socket
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread
from time import time
from typing import Final

from oarlock.errors import DatabaseUnavailable, OarlockError
from oarlock.rtstruct.profiles import read_profiles
from oarlock.segmentation.manifest import read_manifests
from oarlock.settings import Settings
from oarlock.store.database import Database
from oarlock.store.files import Storage
from oarlock.store.job_store import JobStore
from oarlock.store.jobs import JobId
from worker.inference import Models
from worker.jobs import contour
from worker.room import Room

log = logging.getLogger(__name__)

HAND_BACK: Final = signal.SIGUSR2
"""What the parent sends to a busy process when the worker is to end."""

BEATS: Final = 3
"""How many signs of life a worker gives in the length of a lease."""

SILENT_LEASES: Final = 2
"""For how many leases a worker counts as alive after its last sign of life."""


class Runtime:
    """Made once in each process that runs jobs, after that process was started.

    :param settings: read from the environment.
    """

    def __init__(self, settings: Settings) -> None:
        self.name = f"{socket.gethostname()}-{os.getpid()}"
        self._settings = settings
        self._database, self._storage = Database(settings.database), Storage(settings.data, create=False)
        self._store = JobStore(self._database)
        self._room = Room(settings, self._storage)
        self._models = Models(read_manifests(settings.models), device=settings.device, threads=settings.threads)
        self._profiles = read_profiles(settings.profiles)
        self._stopping, self._ended = Event(), Event()
        self._life = Thread(target=self._live, name="life", daemon=True)

    def start(self) -> None:
        """Load the model that is used most, and give signs of life from then on: who hears one knows that the model works."""
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
            site=self._settings.site,
            profiles=self._profiles,
            stopping=self._stopping.is_set,
            room_is_left=self._room.is_left,
        )

    def stop(self) -> None:
        """Say farewell."""
        self._ended.set()
        self._life.join()
        try:
            self._store.farewell(self.name)
        except OarlockError:
            log.warning("the farewell could not be written")
        self._database.close()

    def _live(self) -> None:
        try:
            device = self._models.named(self._settings.model).device
        except (OarlockError, KeyError) as error:
            detail = error.detail if isinstance(error, OarlockError) else "no such model"
            log.error("the model cannot be used", extra={"model": self._settings.model, "reason": detail})  # noqa: TRY400
            return
        log.info("ready", extra={"model": self._settings.model, "device": device})
        models = {name: manifest.sha256 for name, manifest in self._models.manifests.items()}
        while True:
            if self._storage.is_there():  # who has no data folder is of no use, and is to be seen as missing
                self._beat(models, device)
                self._promise()
            if self._ended.wait(self._settings.lease_s / BEATS):
                return

    def _beat(self, models: Mapping[str, str], device: str) -> None:
        try:
            self._store.heartbeat(self.name, models, device)
        except OarlockError:
            log.warning("a sign of life could not be written")
        except Exception:  # a worker that falls silent for good is taken for dead while it works
            log.exception("a sign of life could not be written")

    def _promise(self) -> None:
        """Write for a health check until when this worker is to be believed alive: no database is needed to read that."""
        if self._settings.alive_file is not None:
            try:
                self._settings.alive_file.write_text(f"{time() + SILENT_LEASES * self._settings.lease_s:.0f}", encoding="ascii")
            except OSError as error:
                log.warning("the file of the health check could not be written", extra={"reason": error.strerror})


def check_schema(settings: Settings) -> None:
    """Bring the database to the schema of this version before any process depends on it. One that is away now may come back.

    :raises DatabaseNewer: if a newer Oarlock has changed it.
    """
    with suppress(DatabaseUnavailable):
        Database(settings.database).close()


def manifests_of(models: Path) -> list[str]:
    """Names of the models in a folder.

    :raises ManifestInvalid: if one of them is wrong.
    """
    return list(read_manifests(models))

"""Health: whether the process lives, and whether everything that a job needs is there."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from oarlock.errors import OarlockError
from oarlock.segmentation.manifest import ModelManifest
from oarlock.settings import Settings
from oarlock.store.files import Storage
from oarlock.store.job_store import JobStore
from oarlock.store.jobs import JobState
from oarlock.store.workers import Worker
from service.api.schemas import Dependency, Readiness
from service.broker import Broker

SILENT_LEASES: Final = 2
"""A worker renews its lease several times before it runs out; one that was silent for two of them is taken for dead."""


class Health:
    """Looks at each dependency by name."""

    def __init__(
        self, settings: Settings, store: JobStore, storage: Storage, broker: Broker, manifests: Mapping[str, ModelManifest]
    ) -> None:
        self._settings, self._store, self._storage, self._broker, self._manifests = settings, store, storage, broker, manifests
        self._silence_s = SILENT_LEASES * settings.lease_s

    def readiness(self) -> Readiness:
        """Every dependency, and whether all are ready."""
        checks: dict[str, Callable[[], str | None]] = {
            "database": self._database,
            "broker": self._queue,
            "storage": self._disk,
            "workers": self._any_worker,
            "model": self._model,
        }
        found = {name: _look(check) for name, check in checks.items()}
        return Readiness(ready=all(entry.ready for entry in found.values()), **found)

    def live_workers(self) -> list[Worker]:
        """The workers that were heard of lately."""
        return self._store.workers.live(within_s=self._silence_s)

    def free_bytes(self) -> int:
        """Free space on the data folder's disk."""
        return self._storage.room_bytes()

    def _database(self) -> str | None:
        self._store.check()
        return None

    def _queue(self) -> str | None:
        self._broker.depth()
        return None

    def _disk(self) -> str | None:
        if self._storage.room_bytes(keep_bytes=self._settings.reserve_bytes) < 0:
            return "too little disk space is free: nothing is accepted, and what was accepted waits"
        if self._storage.room_bytes(keep_bytes=self._settings.min_free_bytes) < 0:
            return "too little disk space is free: nothing is accepted"
        self._storage.check()
        return None

    def _any_worker(self) -> str | None:
        if self.live_workers():
            return None
        waiting = self._store.counts()[JobState.QUEUED]
        return f"no worker was heard of in the last {self._silence_s:g} s, and {waiting} job(s) wait"

    def _model(self) -> str | None:
        """The default model is here, some worker has it, and no worker has another file of a model that is offered: it would fail
        the jobs that it takes.
        """
        manifest = self._manifests.get(self._settings.model)
        if manifest is None:
            return f"the default model '{self._settings.model}' is not installed, or a manifest is not valid (see the log)"
        workers = self.live_workers()
        if others := [text for one in self._manifests.values() for text in _with_another(one, workers)]:
            return "; ".join(others)
        return None if any(manifest.name in worker.models for worker in workers) else "no live worker has the default model"


def _with_another(manifest: ModelManifest, workers: Sequence[Worker]) -> Iterator[str]:
    for worker in workers:
        found = worker.models.get(manifest.name, manifest.sha256)
        if found != manifest.sha256:
            hashes = f"sha256 {found[:12]}…, and the service has {manifest.sha256[:12]}…"
            yield f"worker {worker.name} has another file of {manifest.name} ({hashes})"


def _look(check: Callable[[], str | None]) -> Dependency:
    try:
        reason = check()
    except OarlockError as error:
        reason = error.detail
    except OSError as error:
        reason = f"the data folder takes no file ({error.strerror})"
    return Dependency(ready=reason is None, detail=reason)

"""Health: whether everything that a job needs is there."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from threading import Lock
from time import monotonic
from typing import Final

from oarlock.errors import OarlockError
from oarlock.segmentation.manifest import ModelManifest
from oarlock.segmentation.model_folder import Installed
from oarlock.settings import Settings
from oarlock.store.files import Storage
from oarlock.store.job_store import JobStore
from oarlock.store.migrations import DatabaseNewer, DatabaseOlder
from oarlock.store.workers import Worker
from service.broker import Broker

SILENT_LEASES: Final = 2
"""A worker renews its lease several times before it runs out; one that is silent for two of them counts as dead."""

FRESH_S: Final = 1.0
"""How long an answer is given again: each look writes a file and asks Redis, and anybody may ask for it."""

Problem = Callable[[], str | None]


class Health:
    """Looks at each dependency by name.

    :param embedded: why the service's own worker does not run; None if it does, or if there is none.
    """

    def __init__(
        self,
        settings: Settings,
        store: JobStore,
        storage: Storage,
        broker: Broker,
        models: Callable[[], Installed],
        *,
        embedded: Problem = lambda: None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._settings, self._store, self._storage, self._broker, self._models = settings, store, storage, broker, models
        self._silence_s = SILENT_LEASES * settings.lease_s
        self._embedded, self._clock = embedded, clock
        self._lock = Lock()
        self._known: dict[str, str | None] = {}
        self._looked_at = float("-inf")

    def readiness(self) -> Mapping[str, str | None]:
        """What is wrong with each dependency, None for nothing.

        At most a second old.
        """
        with self._lock:
            if self._clock() - self._looked_at >= FRESH_S:
                self._known, self._looked_at = self._look(), self._clock()
            return self._known

    def _look(self) -> dict[str, str | None]:
        checks: dict[str, Problem] = {
            "database": self._database,
            "broker": self._queue,
            "storage": self._disk,
            "workers": self._any_worker,
            "model": self._model,
        }
        return {name: _reason(check) for name, check in checks.items()}

    def warnings(self) -> list[str]:
        """What stops nothing, and an operator may not have meant."""
        for_ever = "jobs and their results are kept for ever: OARLOCK_KEEP_RESULTS is never"
        models = self._models()
        found = [] if self._settings.keep_results is not None else [for_ever]
        if models.problem is not None:
            found.append(f"the models stay as they were: {models.problem}")
        missing = sorted({name for name in self._settings.shadow.values() if name and name not in models.offered})
        return found + [f"the shadow model '{name}' is not installed" for name in missing]

    def live_workers(self) -> list[Worker]:
        """The workers that reported lately."""
        return self._store.workers.live(within_s=self._silence_s)

    @property
    def min_free_bytes(self) -> int:
        """Free space below which nothing is accepted."""
        return self._settings.min_free_bytes

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
        waiting = self._store.waiting()
        why = self._embedded()
        return f"no worker reported in the last {self._silence_s:g} s, and {waiting} job(s) wait" + (f"; {why}" if why else "")

    def _model(self) -> str | None:
        """What is wrong with the models.

        A worker with another file of a model than the service has would fail the jobs that it takes.
        """
        models = self._models()
        manifest = models.offered.get(models.default)
        if manifest is None:
            return models.problem or f"the default model '{models.default}' is not installed"
        workers = self.live_workers()
        if others := [text for one in models.offered.values() for text in _with_another(one, workers)]:
            return "; ".join(others)
        return None if any(manifest.name in worker.models for worker in workers) else "no live worker has the default model"


def _with_another(manifest: ModelManifest, workers: Sequence[Worker]) -> Iterator[str]:
    for worker in workers:
        found = worker.models.get(manifest.name, manifest.sha256)
        if found != manifest.sha256:
            hashes = f"sha256 {found[:12]}…, and the service has {manifest.sha256[:12]}…"
            yield f"worker {worker.name} has another file of {manifest.name} ({hashes})"


def _reason(check: Problem) -> str | None:
    try:
        return check()
    except OarlockError as error:
        return error.detail
    except OSError as error:
        return f"the data folder cannot be written to ({error.strerror})"
    except (DatabaseNewer, DatabaseOlder) as error:
        return str(error)

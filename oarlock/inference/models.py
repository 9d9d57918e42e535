"""The models of a process.

Each is loaded when it is first asked for, its files verified and its answers checked.
"""

import os
from collections.abc import Callable
from pathlib import Path
from threading import Lock

from oarlock.errors import ManifestInvalid
from oarlock.facts import ModelFacts
from oarlock.inference.network import CPU, Folds, Network, Providers, providers_of
from oarlock.segmentation.manifest import ModelManifest, Part
from oarlock.segmentation.model_folder import Installed
from oarlock.segmentation.segment import AT_ONCE, Model
from oarlock.segmentation.slabs import is_small


def load(manifest: ModelManifest, *, device: str = "auto", threads: int = 0, providers: Providers | None = None) -> Model:
    """Open a model and see that it is what its manifest says.

    :param device: ``auto`` (CUDA where the session really gets it, else CPU), ``cpu``, or ``cuda`` (that or nothing).
    :param threads: CPU threads; 0 for all cores.
    :param providers: what its sessions may run on instead of what the device says.
    :raises ManifestInvalid: another file, other inputs or outputs, or another answer to the self-check than in the manifest.
    :raises InferenceFailed: the session cannot be made, or not on the device that was insisted on.
    """
    networks: dict[str, Network | Folds] = {}
    cores = threads or _cores()
    on_cpu = list(providers or providers_of(device)) == [CPU]
    fitting = {part.name for part in manifest.parts if part.patches is None and is_small(part.input)}
    side_by_side = frozenset(fitting if on_cpu and cores >= AT_ONCE else ())
    for part in manifest.parts:
        kind = Network if len(part.files) == 1 else Folds
        each = _threads_of(part, cores) if part.name in side_by_side else threads
        networks[part.name] = kind(manifest.name, part, device, each, providers=providers)
    for network in networks.values():
        network.check_answer()
    devices = {network.device for network in networks.values()}
    return Model(manifest, networks, devices.pop() if len(devices) == 1 else "cpu", side_by_side)


def _threads_of(part: Part, cores: int) -> int:
    """Threads of a session where two predictions run at once.

    Two slabs run in one session: each brings its caller's thread, and they share the others. Two boxes have a session each.
    """
    slides = part.input.slices is None
    return max(1, cores - (AT_ONCE - 1)) if slides else max(1, cores // AT_ONCE)


def _cores() -> int:
    """The physical cores that this process may run on."""
    ours = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    siblings = (Path(f"/sys/devices/system/cpu/cpu{n}/topology/thread_siblings_list") for n in ours)
    return len({path.read_text("ascii") if path.exists() else str(path) for path in siblings})


class Models:
    """The models of this process.

    Each is loaded when it is first asked for, and kept for as long as it is installed.

    :param installed: says which there are now (:meth:`oarlock.segmentation.model_folder.ModelFolder.now`).
    :param faster: gives a model on a backend that draws the same (:func:`oarlock.inference.backends.faster`), or as it is.
    """

    def __init__(
        self,
        installed: Callable[[], Installed],
        *,
        device: str = "auto",
        threads: int = 0,
        faster: Callable[[Model], Model] = lambda model: model,
    ) -> None:
        self.installed = installed
        self._load: Callable[[ModelManifest], Model] = lambda manifest: faster(load(manifest, device=device, threads=threads))
        self._loaded: list[Model] = []
        self._lock = Lock()

    def __call__(self, facts: ModelFacts) -> Model:
        """The very model that a job was given to, retired or not.

        :raises ManifestInvalid: if this worker does not have it, or has another one of that name.
        """
        installed = self.installed()
        manifest = installed.of(facts)
        if manifest is None:
            raise ManifestInvalid(model=facts.name, reason=_why_not(facts, installed))
        return self._ready(manifest)

    def named(self, name: str) -> Model:
        """An offered model by its name, loaded."""
        return self._ready(self.installed().offered[name])

    def default(self) -> Model:
        """The default model, loaded.

        :raises ManifestInvalid: if it cannot be used.
        :raises KeyError: if there is none of its name.
        """
        installed = self.installed()
        return self._ready(installed.offered[installed.default])

    def _ready(self, manifest: ModelManifest) -> Model:
        with self._lock:
            installed = self.installed()
            here = [*installed.offered.values(), *installed.retired.values()]
            self._loaded = [model for model in self._loaded if model.manifest in here]
            ready = next((model for model in self._loaded if model.manifest == manifest), None)
            if ready is None:
                ready = self._load(manifest)
                self._loaded.append(ready)
            return ready


def _why_not(facts: ModelFacts, installed: Installed) -> str:
    """Why a job's model is not here."""
    if facts.name not in installed.offered:
        return "this worker does not have it, or has it no longer; post the series again, to a model that is installed"
    return f"the job was given to {facts.sha256[:12]}… and this worker has {installed.offered[facts.name].sha256[:12]}…"

"""The models of a process.

Each is loaded when it is first asked for, its files verified and its answers checked.
"""

from collections.abc import Callable, Mapping
from threading import Lock

from oarlock.errors import ManifestInvalid
from oarlock.facts import ModelFacts
from oarlock.inference.network import Folds, Network
from oarlock.segmentation.manifest import ModelManifest
from oarlock.segmentation.segment import Model


def load(manifest: ModelManifest, *, device: str = "auto", threads: int = 0) -> Model:
    """Open a model and see that it is what its manifest says.

    :param device: ``auto`` (CUDA where the session really gets it, else CPU), ``cpu``, or ``cuda`` (that or nothing).
    :param threads: CPU threads; 0 for all cores.
    :raises ManifestInvalid: another file, other inputs or outputs, or another answer to the self-check than in the manifest.
    :raises InferenceFailed: the session cannot be made, or not on the device that was insisted on.
    """
    kind = {part.name: Network if len(part.files) == 1 else Folds for part in manifest.parts}
    networks = {part.name: kind[part.name](manifest.name, part, device, threads) for part in manifest.parts}
    for network in networks.values():
        network.check_answer()
    devices = {network.device for network in networks.values()}
    return Model(manifest, networks, devices.pop() if len(devices) == 1 else "cpu")


class Models:
    """The models of this process.

    Each is loaded when it is first asked for and then kept.

    :param manifests: by name (:func:`oarlock.segmentation.manifest.read_manifests`).
    """

    def __init__(self, manifests: Mapping[str, ModelManifest], *, device: str = "auto", threads: int = 0) -> None:
        self.manifests = manifests
        self._load: Callable[[ModelManifest], Model] = lambda manifest: load(manifest, device=device, threads=threads)
        self._loaded: dict[str, Model] = {}
        self._lock = Lock()

    def __call__(self, facts: ModelFacts) -> Model:
        """The very model that a job was given to.

        :raises ManifestInvalid: if this worker has none of that name, or another version of it.
        """
        manifest = self.manifests.get(facts.name)
        if manifest is None:
            raise ManifestInvalid(model=facts.name, reason="this worker does not have it")
        if manifest.sha256 != facts.sha256:
            reason = f"the job was given to {facts.sha256[:12]}… and this worker has {manifest.sha256[:12]}…"
            raise ManifestInvalid(model=facts.name, reason=reason)
        return self.named(facts.name)

    def named(self, name: str) -> Model:
        """A model by its name, loaded."""
        with self._lock:
            if name not in self._loaded:
                self._loaded[name] = self._load(self.manifests[name])
            return self._loaded[name]

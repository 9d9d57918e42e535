"""ModelFolder: which models there are now.

The folder is read anew whenever it has changed, so a model is added, made the default or retired while jobs run. A job keeps the
model that it was given to, told by its hash.

    MODELS/NAME/manifest.toml    a model that new jobs can be given to
    MODELS/NAME/retired          an empty file: it draws the jobs that have it, and gets no new ones
    MODELS/default               the name of the default model; without it the setting's counts
    MODELS/.NAME/                not looked at: a model is copied under such a name and then renamed
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock
from typing import Final

from oarlock.errors import OarlockError
from oarlock.facts import ModelFacts
from oarlock.segmentation.manifest import (
    MANIFEST_NAME,
    RETIRED,
    ModelManifest,
    check_default_model,
    model_folders,
    read_manifest,
    read_manifests,
)

DEFAULT: Final = "default"
"""Name of the file that names the default model."""

Signature = tuple[tuple[str, int, int, int], ...]


@dataclass(frozen=True, slots=True)
class Installed:
    """The models of a folder at one moment.

    :ivar offered: by name, those that a new job can be given to.
    :ivar retired: by hash, those that draw the jobs which have them, and nothing else.
    :ivar default: name of the model of a job that names none.
    :ivar problem: why what is in the folder now is not used, and what was there before still is; None if it is used.
    """

    offered: Mapping[str, ModelManifest]
    retired: Mapping[str, ModelManifest]
    default: str
    problem: str | None = None

    def of(self, facts: ModelFacts) -> ModelManifest | None:
        """The very model that a job was given to.

        None if it is not here.
        """
        found = (self.offered.get(facts.name), self.retired.get(facts.sha256))
        return next((one for one in found if one is not None and (one.name, one.sha256) == (facts.name, facts.sha256)), None)


class ModelFolder:
    """The models below a folder, read anew whenever it has changed.

    What cannot be used changes nothing: the models that were there stay, and :attr:`Installed.problem` says why.

    :param default: name of the default model where the folder has no file that names one.
    """

    def __init__(self, folder: Path, default: str) -> None:
        self._folder, self._default = folder, default
        self._lock = Lock()
        self._signature: Signature | None = None
        self._installed = Installed({}, {}, default)

    def read(self) -> Installed:
        """What is in the folder.

        :raises ManifestInvalid: for the first manifest that is wrong, or when two offered models have one name.
        """
        offered = read_manifests(self._folder)
        put_away = [read_manifest(path) for path in model_folders(self._folder) if (path / RETIRED).exists()]
        return Installed(offered, {manifest.sha256: manifest for manifest in put_away}, self._named_default())

    def check(self) -> Installed:
        """What is in the folder, if it can be used.

        :raises ManifestInvalid: see :meth:`read`.
        :raises DefaultModelMissing: if no offered model has the default's name.
        """
        found = self.read()
        check_default_model(self._folder, found.offered, found.default)
        return found

    def now(self) -> Installed:
        """What counts now.

        A few questions to the file system where nothing has changed; what could not be used is tried again each time, as an error
        in reading it may pass.
        """
        with self._lock:
            signature = tuple(self._looks())
            if signature != self._signature or self._installed.problem is not None:
                self._signature, self._installed = signature, self._next()
            return self._installed

    def _next(self) -> Installed:
        try:
            return self.check()
        except OarlockError as error:
            return replace(self._installed, problem=error.detail)

    def _named_default(self) -> str:
        try:
            return (self._folder / DEFAULT).read_text(encoding="utf-8", errors="replace").strip()
        except OSError:
            return self._default

    def _looks(self) -> Iterator[tuple[str, int, int, int]]:
        """What changes when something is added, replaced, retired or made the default."""
        of_each = ((path / MANIFEST_NAME, path / RETIRED) for path in model_folders(self._folder))
        for path in (self._folder / DEFAULT, *(path for pair in of_each for path in pair)):
            try:
                seen = path.stat()
            except OSError:
                continue
            yield str(path), seen.st_mtime_ns, seen.st_size, seen.st_ino

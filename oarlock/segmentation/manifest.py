"""ModelManifest: what an ONNX file expects and gives, and how to know that it is the right file.

A model is a folder ``models/NAME/`` with ``model.onnx``, ``manifest.toml`` and ``MODEL_CARD.md``. Any network with sigmoid
outputs, one channel per OAR, runs unchanged when its manifest says what it needs. The schema, with every key explained, is
``docs/models.md``; a manifest that breaks it is refused with the reason.
"""

import hashlib
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from oarlock.errors import ManifestInvalid
from oarlock.organs.catalogue import BY_NAME, OAR

MANIFEST_NAME = "manifest.toml"


@dataclass(frozen=True, slots=True)
class InputSpec:
    """What the network is fed: float32 Hounsfield units of shape (batch, 1, z, y, x).

    ``spacing_mm`` (z, y, x) is the grid that it was trained on, or None for the series' own grid. ``size_yx`` is the fixed size
    in plane, or None where any size will do. ``context_slices`` input slices stand behind each predicted slice, so a slab of
    n + context_slices - 1 slices gives n. ``padding_hu`` is what lies outside of the scan.
    """

    name: str
    spacing_mm: tuple[float, float, float] | None
    size_yx: tuple[int, int] | None
    context_slices: int
    padding_hu: float


@dataclass(frozen=True, slots=True)
class OutputSpec:
    """What the network gives: float32 probabilities of shape (batch, OARs, z - context_slices + 1, y · upscale, x · upscale)."""

    name: str
    upscale: int


@dataclass(frozen=True, slots=True)
class SelfCheck:
    """What the network must answer to :func:`self_check_input`: the mean probability of every channel, within a tolerance."""

    slices: int
    size_yx: tuple[int, int]
    expected_means: tuple[float, ...]
    tolerance: float


@dataclass(frozen=True, slots=True)
class ModelManifest:
    """A model that can be chosen by name."""

    name: str
    version: str
    sha256: str
    licence: str
    description: str
    path: Path
    input: InputSpec
    output: OutputSpec
    oars: tuple[OAR, ...]
    thresholds: tuple[float, ...]
    self_check: SelfCheck
    training: Mapping[str, Any]
    results: Mapping[str, Any]
    limits: tuple[str, ...]

    @property
    def identity(self) -> str:
        """Name, version and the first 12 digits of the hash: what is written into every output."""
        return f"{self.name} {self.version} ({self.sha256[:12]})"


def read_manifest(folder: Path) -> ModelManifest:
    """Read and check the manifest of one model folder.

    :raises ManifestInvalid: with the key that is wrong and why.
    """
    try:
        tables = tomllib.loads((folder / MANIFEST_NAME).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise ManifestInvalid(model=folder.name, reason=f"{MANIFEST_NAME} cannot be read ({type(error).__name__})") from error
    return _Reader(folder, tables).manifest()


def read_manifests(models: Path) -> dict[str, ModelManifest]:
    """All models below a folder by name, in the order of their names.

    :raises ManifestInvalid: for the first one that is wrong, or when two folders claim one name.
    """
    found: dict[str, ModelManifest] = {}
    for path in sorted(models.glob(f"*/{MANIFEST_NAME}")):
        manifest = read_manifest(path.parent)
        if manifest.name in found:
            raise ManifestInvalid(model=manifest.name, reason="two folders hold a model of this name")
        found[manifest.name] = manifest
    return found


def check_hash(manifest: ModelManifest) -> None:
    """Compare the ONNX file with the manifest's sha256.

    :raises ManifestInvalid: if it is another file.
    """
    try:
        with manifest.path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ManifestInvalid(model=manifest.name, reason="its ONNX file cannot be read") from error
    if found != manifest.sha256:
        raise ManifestInvalid(model=manifest.name, reason=f"the file's sha256 is {found[:12]}… and not {manifest.sha256[:12]}…")


def self_check_input(slices: int, size_yx: tuple[int, int]) -> npt.NDArray[np.float32]:
    """The fixed picture that a network is asked about when it is loaded: (1, 1, slices, y, x) float32 HU.

    Air around a soft-tissue ellipse with a bone ring and a gentle wave, different in each direction, so that a network fed with
    swapped axes, another window or another file answers something else.
    """
    z, y, x = np.meshgrid(np.arange(slices), *(np.linspace(-1, 1, n) for n in size_yx), indexing="ij")
    radius = np.sqrt((y / 0.6) ** 2 + (x / 0.5) ** 2)
    hu = np.where(radius < 1, 40 + 30 * np.sin(4 * x + 0.2 * z) * np.cos(7 * y), -1000.0)
    hu = np.where((radius > 0.55) & (radius < 0.65) & (y > 0), 900.0, hu)
    return hu.astype(np.float32)[None, None]


class _Reader:
    """Takes the tables of one manifest apart and says which key is wrong."""

    def __init__(self, folder: Path, tables: Mapping[str, Any]) -> None:
        self.folder, self.tables = folder, tables

    def fail(self, reason: str) -> ManifestInvalid:
        return ManifestInvalid(model=self.folder.name, reason=reason)

    def table(self, name: str) -> Mapping[str, Any]:
        value = self.tables.get(name, {})
        if not isinstance(value, dict):
            raise self.fail(f"[{name}] is not a table")
        return value

    def get(self, table: str, key: str, kind: type | tuple[type, ...]) -> Any:
        value = self.table(table).get(key)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise self.fail(f"[{table}] {key} is missing or of the wrong type")
        return value

    def manifest(self) -> ModelManifest:
        oars, thresholds = self.oars()
        return ModelManifest(
            name=self.get("model", "name", str),
            version=self.get("model", "version", str),
            sha256=self.sha256(),
            licence=self.get("model", "licence", str),
            description=self.get("model", "description", str),
            path=self.path(),
            input=self.input(),
            output=OutputSpec(self.get("output", "name", str), self.positive("output", "upscale")),
            oars=oars,
            thresholds=thresholds,
            self_check=self.self_check(len(oars)),
            training=self.table("training"),
            results=self.table("results"),
            limits=self.limits(),
        )

    def limits(self) -> tuple[str, ...]:
        lines = self.table("limits").get("not_for", [])
        if not isinstance(lines, list) or not all(isinstance(line, str) for line in lines):
            raise self.fail("[limits] not_for must be a list of texts")
        return tuple(lines)

    def sha256(self) -> str:
        value = str(self.get("model", "sha256", str)).lower()
        if len(value) != 64 or set(value) - set("0123456789abcdef"):
            raise self.fail("[model] sha256 is not 64 hexadecimal digits")
        return value

    def path(self) -> Path:
        name = str(self.get("model", "file", str))
        if Path(name).name != name:
            raise self.fail("[model] file must be a plain file name in the model's folder")
        if not (self.folder / name).is_file():
            raise self.fail("[model] file names no file in the model's folder")
        return self.folder / name

    def positive(self, table: str, key: str) -> int:
        value = int(self.get(table, key, int))
        if value < 1:
            raise self.fail(f"[{table}] {key} must be at least 1")
        return value

    def number(self, table: str, key: str) -> float:
        value = self.get(table, key, (int, float))
        if not _is_finite(value):
            raise self.fail(f"[{table}] {key} is not a finite number")
        return float(value)

    def input(self) -> InputSpec:
        context = self.positive("input", "context_slices")
        if context % 2 == 0:
            raise self.fail("[input] context_slices must be odd: the predicted slice is in the middle")
        return InputSpec(
            name=self.get("input", "name", str),
            spacing_mm=self.spacing(),
            size_yx=self.size_yx("input", required=False),
            context_slices=context,
            padding_hu=self.number("input", "padding_hu"),
        )

    def spacing(self) -> tuple[float, float, float] | None:
        value = self.get("input", "spacing_mm", (list, str))
        if value == "native":
            return None
        if not isinstance(value, list) or len(value) != 3 or not all(_is_positive(v) for v in value):
            raise self.fail('[input] spacing_mm must be three positive numbers (z, y, x) or "native"')
        return float(value[0]), float(value[1]), float(value[2])

    def size_yx(self, table: str, *, required: bool) -> tuple[int, int] | None:
        value = self.table(table).get("size_yx")
        if value is None and not required:
            return None
        if not isinstance(value, list) or len(value) != 2 or not all(isinstance(v, int) and v > 0 for v in value):
            raise self.fail(f"[{table}] size_yx must be two positive whole numbers")
        return value[0], value[1]

    def oars(self) -> tuple[tuple[OAR, ...], tuple[float, ...]]:
        entries = self.tables.get("oar", [])
        if not isinstance(entries, list) or not entries:
            raise self.fail("it lists no [[oar]]")
        if not all(isinstance(entry, dict) for entry in entries):
            raise self.fail("[[oar]] is not a list of tables")
        names = [entry.get("name") for entry in entries]
        if not all(isinstance(name, str) for name in names):
            raise self.fail("[[oar]] name is missing or not a text")
        unknown = [name for name in names if name not in BY_NAME]
        if unknown:
            raise self.fail(f"[[oar]] {', '.join(unknown)} is not an OAR of this house (see oarlock/organs/catalogue.py)")
        if len(set(names)) != len(names):
            raise self.fail("[[oar]] lists an OAR twice")
        thresholds = [entry.get("threshold", 0.5) for entry in entries]
        if not all(_is_positive(t) and t < 1 for t in thresholds):
            raise self.fail("[[oar]] threshold must lie between 0 and 1")
        return tuple(BY_NAME[name] for name in names), tuple(float(t) for t in thresholds)

    def self_check(self, channels: int) -> SelfCheck:
        means = self.get("self_check", "expected_means", list)
        if len(means) != channels or not all(map(_is_finite, means)):
            raise self.fail("[self_check] expected_means must hold one number per OAR")
        size = self.size_yx("self_check", required=True)
        assert size is not None  # required=True
        return SelfCheck(
            slices=self.positive("self_check", "slices"),
            size_yx=size,
            expected_means=tuple(float(mean) for mean in means),
            tolerance=self.number("self_check", "tolerance"),
        )


def _is_finite(value: object) -> bool:
    """Whether it is a number that a float can hold; TOML knows nan and inf, and whole numbers of any length."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _is_positive(value: object) -> bool:
    return isinstance(value, int | float) and _is_finite(value) and value > 0

"""ModelManifest: what a model's ONNX files expect and give.

Where each looks, and how to know that they are the right files.

A model is a folder ``models/NAME/`` with ``manifest.toml``, the ONNX files that it names, and ``MODEL_CARD.md``. Any network
with sigmoid outputs, one channel per OAR, runs unchanged when its manifest says what it needs. ``docs/models.md`` explains every
key; a manifest that breaks the schema is refused with the reason.
"""

import hashlib
import json
import tomllib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from oarlock.errors import DefaultModelMissing, ManifestInvalid
from oarlock.organs.catalogue import BY_NAME, OAR, OARS, other_side
from oarlock.segmentation.manifest_file import (
    VERSIONS,
    FileOfOne,
    FileOfParts,
    InputTable,
    LookTable,
    OutputTable,
    PartTable,
    PatchesTable,
    ResamplingTable,
    reason_of,
)
from oarlock.segmentation.rivals import rivals

ZYX = tuple[float, float, float]

MANIFEST_NAME = "manifest.toml"

RETIRED: Final = "retired"
"""Name of the empty file that takes a model's folder out of those that new jobs can be given to."""

THE_ONE_PART: Final = "model"
"""Name of the only part of a model of schema version 1."""


@dataclass(frozen=True, slots=True)
class InputSpec:
    """What a network is fed.

    float32 Hounsfield units of shape (batch, 1, z, y, x).

    :ivar spacing_mm: (z, y, x) of the grid that it was trained on, or None for the series' own grid.
    :ivar size_yx: the fixed size in plane, or None where any size will do.
    :ivar context_slices: input slices behind each predicted slice: a slab of n + context_slices - 1 slices gives n.
    :ivar padding_hu: what lies outside of the scan.
    :ivar slices: the fixed number of slices of a network that sees its whole box at once, or None where z is free.
    """

    name: str
    spacing_mm: tuple[float, float, float] | None
    size_yx: tuple[int, int] | None
    context_slices: int
    padding_hu: float
    slices: int | None = None


@dataclass(frozen=True, slots=True)
class OutputSpec:
    """What a network gives.

    float32 probabilities of shape (batch, OARs, z', y', x').

    :ivar upscale: output voxels for each input voxel along y and x; z' is then z - context_slices + 1.
    :ivar size_zyx: the fixed (z', y', x') of a network that sees its whole box at once; the outer edges of input and output
        coincide.
    """

    name: str
    upscale: int
    size_zyx: tuple[int, int, int] | None = None

    def shape(self, fed_zyx: tuple[int, int, int], context_slices: int) -> tuple[int, int, int]:
        """(z', y', x') of the answer to a (z, y, x) input."""
        z, y, x = fed_zyx
        return self.size_zyx or (z - context_slices + 1, y * self.upscale, x * self.upscale)


@dataclass(frozen=True, slots=True)
class SelfCheck:
    """What a network must answer to :func:`self_check_input`.

    The mean probability of every channel, within a tolerance.
    """

    slices: int
    size_yx: tuple[int, int]
    expected_means: tuple[float, ...]
    tolerance: float


@dataclass(frozen=True, slots=True)
class Look:
    """Where a part looks.

    :ivar at: the whole scan, the slices that show the body, or a box around organs that an earlier part found.
    :ivar around: those organs, each with the way (z, y, x) in mm from its middle to the middle of a box of fixed size.
    :ivar found_by: name of the part that finds them.
    :ivar margin_mm: (z, y, x) from the organs to the edge of the box, where the network takes any size.
    """

    at: Literal["scan", "body", "box"]
    around: tuple[tuple[OAR, ZYX], ...] = ()
    found_by: str | None = None
    margin_mm: ZYX | None = None

    @property
    def organs(self) -> tuple[OAR, ...]:
        """The organs that it looks around."""
        return tuple(organ for organ, _ in self.around)


@dataclass(frozen=True, slots=True)
class Normalisation:
    """From Hounsfield units to what a network was trained on.

    Over the whole of what it looks at.

    :ivar scheme: ``ct`` clips to low and high, takes the mean off and divides by std; ``z-score`` does so with the volume's own
        mean and std, unclipped; ``range`` brings the volume's own range to [0, 1].
    """

    scheme: Literal["ct", "z-score", "range", "none"]
    low: float | None = None
    high: float | None = None
    mean: float | None = None
    std: float | None = None


@dataclass(frozen=True, slots=True)
class Resampling:
    """From one number of voxels to another between the same edges.

    :ivar order: of the spline.
    :ivar order_z: of the spline along an axis that is resampled by itself.
    :ivar separate: whether the axis of the largest spacing is: where it is three times the smallest, always, or never.
    """

    order: int
    order_z: int = 0
    separate: Literal["auto", "always", "never"] = "auto"


@dataclass(frozen=True, slots=True)
class Fold:
    """A further ONNX file of a part.

    The same network, trained on other scans. The logits of all are averaged.
    """

    path: Path
    sha256: str


@dataclass(frozen=True, slots=True)
class PatchSpec:
    """How a network is slid in patches of its one size.

    What it gives are logits, one channel a head.

    :ivar order: for each axis of the network the patient axis that it runs along: 0, 1 or 2 for z, y or x.
    :ivar flipped: for each patient axis (z, y, x) whether the network's axis runs against it.
    :ivar step: from one patch to the next, in patches, at most.
    :ivar mirror: patient axes along which the network also sees the mirror image; each set of them is a pass, the mean counts.
    :ivar regions: whether a head is a region that is painted where its logit is positive, later heads over earlier ones; else the
        head of the largest logit wins.
    :ivar values: the label that each head paints.
    :ivar labels: for each organ of the part the labels that it is made of.
    :ivar resampling: of the normalised CT to the network's voxels.
    :ivar resampling_back: of the logits to the CT's voxels.
    :ivar like: whose steps are taken. MONAI's crop nothing, resample linearly from the first voxel's centre on before they
        normalise, and put patches a fixed way apart.
    :ivar weights: of the voxels of a patch.
    """

    order: tuple[int, int, int]
    flipped: tuple[bool, bool, bool]
    step: float
    mirror: tuple[int, ...]
    regions: bool
    values: tuple[int, ...]
    labels: tuple[tuple[int, ...], ...]
    normalisation: Normalisation
    resampling: Resampling
    resampling_back: Resampling
    folds: tuple[Fold, ...] = ()
    like: Literal["nnunet", "monai"] = "nnunet"
    weights: Literal["gaussian", "constant"] = "gaussian"


@dataclass(frozen=True, slots=True)
class Part:
    """One network: an ONNX file, or one for each fold.

    :ivar oars: the organ of each channel; the part may find an organ that another part draws.
    :ivar thresholds: for each channel the probability from which a voxel belongs to the organ.
    :ivar patches: how it is slid in patches; None for a network whose channels are the organs' probabilities.
    """

    name: str
    path: Path
    sha256: str
    look: Look
    input: InputSpec
    output: OutputSpec
    oars: tuple[OAR, ...]
    thresholds: tuple[float, ...]
    self_check: SelfCheck
    patches: PatchSpec | None = None

    @property
    def channels(self) -> int:
        """Number of channels of the network's output."""
        return len(self.oars) if self.patches is None else len(self.patches.values)

    @property
    def files(self) -> tuple[Fold, ...]:
        """Its ONNX files with their hashes."""
        return (Fold(self.path, self.sha256), *(self.patches.folds if self.patches else ()))

    @property
    def fingerprint(self) -> str:
        """SHA-256 of its file, or of its files' hashes."""
        hashes = [file.sha256 for file in self.files]
        return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode("ascii")).hexdigest()

    @property
    def voxel_mm3(self) -> float | None:
        """Volume of an output voxel; None where it is the series' own."""
        if self.input.spacing_mm is None:
            return None
        fed = (self.input.slices or 1, *(self.input.size_yx or (1, 1)))
        shape = self.output.shape((fed[0] + self.input.context_slices - 1, fed[1], fed[2]), self.input.context_slices)
        return float(np.prod(self.input.spacing_mm) * np.prod(fed) / np.prod(shape))


@dataclass(frozen=True, slots=True)
class Edge:
    """Where tissue draws the edge of an organ (:mod:`oarlock.segmentation.edges`).

    :ivar hu: lowest and highest Hounsfield units of the organ's tissue.
    :ivar inwards_mm, outwards_mm: how far the edge may move; 0: not that way.
    """

    hu: tuple[float, float]
    inwards_mm: float
    outwards_mm: float


@dataclass(frozen=True)
class ModelManifest:
    """A model that can be chosen by name.

    :ivar sha256: of its one file, or of all that decides what its parts draw.
    :ivar parts: a part comes after the part that finds its organs.
    :ivar owners: for each organ that the model draws the name of the part that draws it.
    :ivar shares: for each organ that a part draws together with its finder the part's share of the mean, in (0, 1].
    :ivar edges: for each organ whose edge moves to that of its tissue, which tissue, and how far.
    """

    name: str
    version: str
    sha256: str
    licence: str
    description: str
    parts: tuple[Part, ...]
    owners: Mapping[OAR, str]
    training: Mapping[str, Any]
    results: Mapping[str, Any]
    limits: tuple[str, ...]
    shares: Mapping[OAR, float] = field(default_factory=dict)
    edges: Mapping[OAR, Edge] = field(default_factory=dict)

    @cached_property
    def oars(self) -> tuple[OAR, ...]:
        """The organs that it draws, in the order of their ROIs."""
        if len(self.parts) == 1:
            return self.parts[0].oars
        return tuple(oar for oar in OARS if oar in self.owners)

    @property
    def identity(self) -> str:
        """Name, version and the first 12 digits of the hash.

        They are written into every output.
        """
        return f"{self.name} {self.version} ({self.sha256[:12]})"

    def drawn_by(self) -> dict[str, tuple[str, str]]:
        """For each organ, the name and hash of its part.

        By the organ's name; empty for a model of one part. A shared organ has both parts' names, and the hash of its owner.
        """
        if len(self.parts) == 1:
            return {}
        owners = {oar: self.part_named(owner) for oar, owner in self.owners.items()}
        return {oar.name: (self._names(oar, owner), owner.fingerprint) for oar, owner in owners.items()}

    def _names(self, oar: OAR, owner: Part) -> str:
        return f"{owner.name}+{owner.look.found_by}" if oar in self.shares else owner.name

    def part_named(self, name: str) -> Part:
        """One part.

        :raises StopIteration: if it has no such part.
        """
        return next(part for part in self.parts if part.name == name)

    def organs_of(self, part: Part) -> tuple[set[OAR], dict[OAR, float]]:
        """The organs that a part owns, and its shares.

        A share is of an organ that it draws together with its finder.
        """
        owned = {oar for oar, owner in self.owners.items() if owner == part.name}
        return owned, {oar: share for oar, share in self.shares.items() if oar in owned}

    def found_by(self, part: Part) -> list[OAR]:
        """The organs that this part finds for others to look around."""
        looks = [other.look for other in self.parts if other.look.found_by == part.name]
        return list(dict.fromkeys(oar for look in looks for oar in look.organs))

    def lent_by(self, part: Part) -> list[OAR]:
        """The organs of which parts that it finds for draw a share."""
        lenders = {other.name for other in self.parts if other.look.found_by == part.name}
        return [oar for oar in self.shares if self.owners[oar] in lenders]

    def used_of(self, part: Part) -> set[OAR]:
        """The organs of its answer that anything is made of.

        Drawn, found or lent, or a rival of these.
        """
        used = {*self.organs_of(part)[0], *self.found_by(part), *self.lent_by(part)}
        return used | {rival for oar in used for rival in rivals(oar)}


def read_manifest(folder: Path) -> ModelManifest:
    """Read and check the manifest of one model folder.

    :raises ManifestInvalid: with the key that is wrong and why.
    """
    try:
        tables = tomllib.loads((folder / MANIFEST_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ManifestInvalid(model=folder.name, reason=f"{MANIFEST_NAME} cannot be read ({type(error).__name__})") from error
    try:
        return _to_manifest(folder, tables)
    except ValidationError as error:
        raise ManifestInvalid(model=folder.name, reason=reason_of(error)) from error
    except _Wrong as wrong:
        raise ManifestInvalid(model=folder.name, reason=str(wrong)) from wrong


def read_manifests(models: Path) -> dict[str, ModelManifest]:
    """All models below a folder by name, in their order.

    The order of their names. Retired ones are left out.

    :raises ManifestInvalid: for the first one that is wrong, or when two folders claim one name.
    """
    found: dict[str, ModelManifest] = {}
    for path in model_folders(models):
        if (path / RETIRED).exists():
            continue
        manifest = read_manifest(path)
        if manifest.name in found:
            raise ManifestInvalid(model=manifest.name, reason="two folders hold a model of this name")
        found[manifest.name] = manifest
    return found


def model_folders(models: Path) -> list[Path]:
    """The folders that hold a manifest, by name.

    Hidden ones are left out: a model that is still being copied is in such a folder.
    """
    return sorted(path.parent for path in models.glob(f"*/{MANIFEST_NAME}") if not path.parent.name.startswith("."))


def check_default_model(folder: Path, found: Collection[str], name: str) -> None:
    """Check that the default model is among those found.

    Jobs get it that name none.

    :param folder: where the models were looked for.
    :param found: the models' names.
    :raises DefaultModelMissing: if it is not among them.
    """
    if name not in found:
        raise DefaultModelMissing(model=name, folder=str(folder), found=", ".join(sorted(found)) or "none")


def read_checked(model: str, file: Part | Fold) -> bytes:
    """The bytes of an ONNX file, read once.

    What is hashed is what is returned.

    :param model: its name, for the error.
    :param file: a fold, or a part, whose first file is meant.
    :raises ManifestInvalid: if it is another file than the manifest's.
    """
    try:
        content = file.path.read_bytes()
    except OSError as error:
        raise ManifestInvalid(model=model, reason=f"{file.path.name} cannot be read") from error
    found = hashlib.sha256(content).hexdigest()
    if found != file.sha256:
        raise ManifestInvalid(model=model, reason=f"the sha256 of {file.path.name} is {found[:12]}… and not {file.sha256[:12]}…")
    return content


def check_hash(manifest: ModelManifest) -> None:
    """Compare every ONNX file with the manifest's sha256.

    :raises ManifestInvalid: if one is another file.
    """
    for part in manifest.parts:
        for file in part.files:
            read_checked(manifest.name, file)


def self_check_input(slices: int, size_yx: tuple[int, int]) -> npt.NDArray[np.float32]:
    """(1, 1, slices, y, x) float32 HU: a fixed picture.

    The network is asked about it when it is loaded.

    Air around a soft-tissue ellipse with a bone ring and a gentle wave, different in each direction, so that a network fed with
    swapped axes, another window or another file answers something else.
    """
    z, y, x = np.meshgrid(np.arange(slices), *(np.linspace(-1, 1, n) for n in size_yx), indexing="ij")
    radius = np.sqrt((y / 0.6) ** 2 + (x / 0.5) ** 2)
    hu = np.where(radius < 1, 40 + 30 * np.sin(4 * x + 0.2 * z) * np.cos(7 * y), -1000.0)
    hu = np.where((radius > 0.55) & (radius < 0.65) & (y > 0), 900.0, hu)
    return hu.astype(np.float32)[None, None]


# ── from the file's tables ────────────────────────────────────────────────────────────────────────────────────────────


class _Wrong(Exception):
    """The tables contradict each other; the text says how."""


def _to_manifest(folder: Path, tables: Mapping[str, Any]) -> ModelManifest:
    version = tables.get("schema_version", 1)
    schema = VERSIONS.get(version) if type(version) is int else None
    if schema is None:
        raise _Wrong(f"schema_version must be one of {', '.join(map(str, VERSIONS))}")
    file = schema.model_validate(tables)
    if isinstance(file, FileOfOne):
        parts, sha256 = _one_part(folder, file), file.model.sha256
        owners, shares, edges = dict.fromkeys(parts[0].oars, THE_ONE_PART), {}, {}
    else:
        parts = _in_order([_part(folder, table) for table in file.part])
        owners = _owners(file, parts)
        shares = _shares(file, parts, owners)
        edges = _edges(file, owners)
        sha256 = composed_sha256(parts, owners, shares, edges)
    return ModelManifest(
        name=file.model.name,
        version=file.model.version,
        sha256=sha256,
        licence=file.model.licence,
        description=file.model.description,
        parts=parts,
        owners=owners,
        training=_of_each_part(file, "training"),
        results=_of_each_part(file, "results"),
        limits=tuple(file.limits.not_for),
        shares=shares,
        edges=edges,
    )


def _of_each_part(file: FileOfOne | FileOfParts, table: Literal["training", "results"]) -> dict[str, Any]:
    """A table for people: the model's own entries, and those of each part under its name."""
    parts = {part.name: getattr(part, table) for part in file.part} if isinstance(file, FileOfParts) else {}
    return {**getattr(file, table), **{name: entries for name, entries in parts.items() if entries}}


def composed_sha256(
    parts: Sequence[Part], owners: Mapping[OAR, str], shares: Mapping[OAR, float], edges: Mapping[OAR, Edge]
) -> str:
    """Hash of all that decides what a composed model draws.

    Its files' hashes, and what its manifest says of each part.

    The order of the parts in the file does not matter.
    """
    told: list[Any] = [[_told_of_part(part) for part in sorted(parts, key=lambda part: part.name)]]
    told.append({oar.name: owner for oar, owner in owners.items()})
    if shares:  # a model without any keeps the hash that it had before there were shares; likewise edges
        told.append({oar.name: share for oar, share in shares.items()})
    if edges:
        told.append({oar.name: asdict(edge) for oar, edge in edges.items()})
    text = json.dumps(told, sort_keys=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def _told_of_part(part: Part) -> dict[str, Any]:
    told = asdict(part) | {"path": None, "oars": [oar.name for oar in part.oars]} | {"look": _told(part.look)}
    patches = told.pop("patches")
    if patches is not None:  # a model without such a part keeps the hash that it had before there were any
        told["patches"] = patches | {"folds": [fold["sha256"] for fold in patches["folds"]]}
    return told


def _told(look: Look) -> list[Any]:
    return [look.at, sorted((oar.name, offset) for oar, offset in look.around), look.found_by, look.margin_mm]


def _one_part(folder: Path, file: FileOfOne) -> tuple[Part, ...]:
    if file.input.size_zyx or file.output.size_zyx:
        raise _Wrong("size_zyx needs a part that looks at a box (schema_version 2)")
    table = PartTable(
        name=THE_ONE_PART,
        file=file.model.file,
        sha256=file.model.sha256,
        input=file.input,
        output=file.output,
        oar=file.oar,
        self_check=file.self_check,
    )
    return (_part(folder, table),)


def _part(folder: Path, table: PartTable) -> Part:
    path = folder / table.file
    if not path.is_file():
        raise _Wrong(f"{table.file} is not a file in the model's folder")
    oars = tuple(BY_NAME[oar.name] for oar in table.oar)
    if len(set(oars)) != len(oars):
        raise _Wrong("[[oar]] lists an OAR twice")
    return Part(
        name=table.name,
        path=path,
        sha256=table.sha256,
        look=_look(table.name, table.look, fixed=table.input.size_zyx is not None and table.patches is None),
        input=_input(table.input),
        output=_output(table.input, table.output),
        oars=oars,
        thresholds=tuple(oar.threshold for oar in table.oar),
        self_check=_self_check(table),
        patches=_patches(folder, table),
    )


_ALONG: Final = {"S": (0, False), "I": (0, True), "P": (1, False), "A": (1, True), "L": (2, False), "R": (2, True)}
"""Which patient axis (z, y, x) a letter lies on, and whether it lies on its lower end."""


def _patches(folder: Path, part: PartTable) -> PatchSpec | None:
    table = part.patches
    if (table is None) == any(oar.labels for oar in part.oar):
        raise _Wrong(f"the part '{part.name}' needs labels for each organ if it goes in patches, and only then")
    if table is None:
        return None
    _check_patches(folder, part, table)
    order, flipped = zip(*(_ALONG[letter] for letter in table.axes), strict=True)
    scheme = table.normalisation
    return PatchSpec(
        order=order,
        flipped=tuple(flipped[order.index(axis)] for axis in range(3)),
        step=table.step,
        mirror=tuple(sorted({"zyx".index(axis) for axis in table.mirror})),
        regions=table.heads == "regions",
        values=tuple(table.values),
        labels=tuple(tuple(oar.labels or ()) for oar in part.oar),
        normalisation=Normalisation(scheme.scheme, scheme.low, scheme.high, scheme.mean, scheme.std),
        resampling=_resampling(table.resampling),
        resampling_back=_resampling(table.resampling_back),
        folds=tuple(Fold(folder / fold.file, fold.sha256) for fold in table.fold),
        like=table.like,
        weights=table.weights,
    )


def _check_patches(folder: Path, part: PartTable, table: PatchesTable) -> None:
    if part.input.size_zyx is None or part.input.spacing_mm is None or part.output.size_zyx or part.output.upscale != 1:
        raise _Wrong(
            f"the part '{part.name}' goes in patches, so [input] needs size_zyx and spacing_mm, and [output] a name alone"
        )
    for fold in table.fold:
        if not (folder / fold.file).is_file():
            raise _Wrong(f"{fold.file} is not a file in the model's folder")
    if len(set(table.values)) != len(table.values):
        raise _Wrong("[part.patches] values lists a label twice")
    for oar in part.oar:
        unknown = set(oar.labels or ()) - set(table.values)
        if unknown or not oar.labels:
            raise _Wrong(f"[[oar]] labels of {oar.name} must be among the values of [part.patches]")


def _resampling(table: ResamplingTable) -> Resampling:
    return Resampling(table.order, table.order_z, table.separate)


def _look(name: str, table: LookTable, *, fixed: bool) -> Look:
    if (table.at == "box") != bool(table.around and table.found_by):
        raise _Wrong(f"the look of the part '{name}' needs around and found_by if it is a box, and only then")
    if fixed and table.at != "box":
        raise _Wrong(f"the part '{name}' has a size_zyx, so it must look at a box")
    if (table.margin_mm is None) == (table.at == "box" and not fixed):
        raise _Wrong(f"the part '{name}' needs margin_mm if it looks at a box without a size_zyx, and only then")
    around = tuple((BY_NAME[anchor.organ], anchor.offset_mm) for anchor in table.around)
    if not fixed and any(any(offset) for _, offset in around):
        raise _Wrong(f"the part '{name}' has no size_zyx, so its box has no middle for an offset_mm")
    return Look(table.at, around, table.found_by, table.margin_mm)


def _input(table: InputTable) -> InputSpec:
    if table.size_zyx is None:
        return InputSpec(table.name, table.spacing_mm, table.size_yx, table.context_slices, table.padding_hu)
    if table.size_yx or table.context_slices != 1:
        raise _Wrong("[input] size_zyx stands without size_yx and context_slices")
    slices, *size_yx = table.size_zyx
    return InputSpec(table.name, table.spacing_mm, (size_yx[0], size_yx[1]), 1, table.padding_hu, slices)


def _output(fed: InputTable, table: OutputTable) -> OutputSpec:
    if table.size_zyx and (fed.size_zyx is None or table.upscale != 1):
        raise _Wrong("[output] size_zyx goes with the size_zyx of [input], and without upscale")
    if fed.size_zyx is None:
        return OutputSpec(table.name, table.upscale)
    z, y, x = fed.size_zyx
    return OutputSpec(table.name, table.upscale, table.size_zyx or (z, y * table.upscale, x * table.upscale))


def _self_check(part: PartTable) -> SelfCheck:
    table = part.self_check
    if len(table.expected_means) != len(part.patches.values if part.patches else part.oar):
        raise _Wrong("[self_check] expected_means must hold one number per OAR, or per head of a part that goes in patches")
    if part.input.size_zyx is None:
        if table.slices is None or table.size_yx is None:
            raise _Wrong("[self_check] slices and size_yx are missing")
        slices, size_yx = table.slices, table.size_yx
    else:
        if table.slices is not None or table.size_yx is not None:
            raise _Wrong("[self_check] slices and size_yx stand only where [input] has no size_zyx")
        slices, *size = part.input.size_zyx
        size_yx = (size[0], size[1])
    return SelfCheck(slices, size_yx, tuple(table.expected_means), table.tolerance)


def _in_order(parts: Sequence[Part]) -> tuple[Part, ...]:
    """Each part after the one that finds its organs; parts that do not depend on each other in the order of their names."""
    by_name = {part.name: part for part in parts}
    if len(by_name) != len(parts):
        raise _Wrong("[[part]] two parts have the same name")
    for part in parts:
        _check_finder(part, by_name)
    finders = {part.name: [part.look.found_by] if part.look.found_by else [] for part in parts}
    sorter = TopologicalSorter(finders)
    try:
        sorter.prepare()
    except CycleError as error:
        raise _Wrong("[[part]] found_by runs in a circle") from error
    ordered: list[Part] = []
    while sorter.is_active():
        ready = sorted(sorter.get_ready())
        ordered += [by_name[name] for name in ready]
        sorter.done(*ready)
    return tuple(ordered)


def _check_finder(part: Part, by_name: Mapping[str, Part]) -> None:
    if part.look.found_by is None:
        return
    finder = by_name.get(part.look.found_by)
    if finder is None:
        raise _Wrong(f"the part '{part.name}' looks for organs of '{part.look.found_by}', which is not a part")
    missing = [oar.name for oar in part.look.organs if oar not in finder.oars]
    if missing:
        raise _Wrong(f"the part '{finder.name}' does not find {', '.join(missing)}, which '{part.name}' looks around")


def _owners(file: FileOfParts, parts: Sequence[Part]) -> dict[OAR, str]:
    """Who draws each organ: said for every organ of every part, once."""
    owners = {BY_NAME[organ]: owner for organ, owner in file.owners.items()}
    drawable = {(part.name, oar) for part in parts for oar in part.oars}
    for oar, owner in owners.items():
        if (owner, oar) not in drawable:
            raise _Wrong(f"[owners] {oar} = '{owner}': that is not a part with a channel for it")
    without = sorted({oar.name for _, oar in drawable if oar not in owners})
    if without:
        raise _Wrong(f"[owners] says nothing of {', '.join(without)}")
    idle = [part.name for part in parts if part.name not in owners.values() and not _is_finder(part, parts)]
    if idle:
        raise _Wrong(f"the part '{idle[0]}' draws nothing and finds nothing")
    _check_rivals(owners, {part.name: part for part in parts})
    return owners


def _shares(file: FileOfParts, parts: Sequence[Part], owners: Mapping[OAR, str]) -> dict[OAR, float]:
    """The owner's share of each organ: only a part of fixed size shares, with a finder that knows the organ."""
    by_name = {part.name: part for part in parts}
    shares = {BY_NAME[organ]: share for organ, share in file.shares.items()}
    for oar in shares:
        owner = by_name.get(owners.get(oar, ""))
        if owner is None or owner.output.size_zyx is None or owner.patches is not None:
            raise _Wrong(f"[shares] {oar}: its owner must be a part that looks at a box of fixed size")
        if oar not in by_name[owner.look.found_by or ""].oars:
            raise _Wrong(
                f"[shares] {oar}: the part '{owner.look.found_by}', which finds for '{owner.name}', has no channel for it"
            )
        alone = [rival for rival in rivals(oar) if owners.get(rival) == owner.name and rival not in shares]
        if alone:
            raise _Wrong(f"[shares] {oar} and {alone[0]} exclude each other: share both or neither")
    return {oar: shares[oar] for oar in OARS if oar in shares}


def _edges(file: FileOfParts, owners: Mapping[OAR, str]) -> dict[OAR, Edge]:
    """The edges that move, in the catalogue's order."""
    edges = {BY_NAME[organ]: Edge(**table.model_dump()) for organ, table in file.edges.items()}
    undrawn = [oar.name for oar in edges if oar not in owners]
    if undrawn:
        raise _Wrong(f"[edges] {undrawn[0]}: no part draws it")
    for oar, edge in edges.items():
        side = other_side(oar) if oar.laterality else oar
        if side in owners and edges.get(side) != edge:
            raise _Wrong(f"[edges] {oar} and {side} are a pair: give both the same edge")
    return {oar: edges[oar] for oar in OARS if oar in edges}


def _is_finder(part: Part, parts: Sequence[Part]) -> bool:
    return any(other.look.found_by == part.name for other in parts)


def _check_rivals(owners: Mapping[OAR, str], by_name: Mapping[str, Part]) -> None:
    """Of two rivals the one of the finer part keeps a voxel that both claim, so one must be finer."""
    for oar in owners:
        for rival in rivals(oar):
            if rival not in owners or owners[rival] == owners[oar]:
                continue
            sizes = [by_name[owners[organ]].voxel_mm3 for organ in (oar, rival)]
            if None in sizes or sizes[0] == sizes[1]:
                raise _Wrong(f"[owners] {oar} and {rival} exclude each other: give both to one part, or one to a finer part")

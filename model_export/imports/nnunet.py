"""From an nnU-Net v2 results folder to a model folder.

That is an ONNX file for each fold, and a manifest.

The folder is written beside its place, loaded as a worker loads it, made to draw a scan, and only then put in its place.
"""

import hashlib
import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from model_export.imports.compared import Comparison, Drawn, compare, draw, draw_turned
from model_export.imports.organs import read_map
from model_export.imports.plans import REORIENTED, Results, build_network, normalisation, read_results, resampling
from model_export.imports.refusals import CannotImport, reading
from model_export.imports.scan import Scan, read_scan
from model_export.imports.sides import check_sides, check_turned, turns
from model_export.imports.writing import PATIENT, expected_means, in_patient_order, write_manifest, write_onnx
from oarlock.errors import OarlockError
from oarlock.inference.models import load
from oarlock.segmentation.manifest import MANIFEST_NAME, ModelManifest, read_manifest
from oarlock.segmentation.resampling import body_box_mm
from oarlock.segmentation.segment import Model

log = logging.getLogger(__name__)

_BY: Final = "import nnunet"
_AIR_HU: Final = -1000.0
_CARD: Final = "MODEL_CARD.md"


@dataclass(frozen=True)
class Wanted:
    """What somebody who imports a network says of it.

    :ivar orientation: which way the voxels of the training files ran, as nibabel says it: ``RAS`` is to the right, the front and
        the head along the file's first, second and third axis. None where the reader of nnU-Net turned them.
    :ivar organs: the table of organs and labels.
    :ivar check: a scan that the model must draw the right way round.
    :ivar look: whether it looks at the whole scan or at the body.
    :ivar step: from patch to patch, in patches.
    :ivar mirror: whether mirror images are averaged where the checkpoint allows it.
    :ivar compared: whether nnU-Net's own predictor is asked too.
    """

    organs: Path
    check: Path
    orientation: str | None = None
    version: str = "1"
    licence: str = "not stated by whoever imported it"
    description: str = ""
    part: str = "nnunet"
    look: str = "body"
    step: float = 0.5
    mirror: bool = True
    folds: Sequence[str] = ()
    compared: bool = True


@dataclass(frozen=True)
class Imported:
    """What was written.

    :ivar left_out: labels that no organ is made of.
    :ivar seen: what the scan showed of the model's orientation, in sentences.
    :ivar comparison: with nnU-Net's own predictor; None if it was not asked.
    """

    manifest: ModelManifest
    left_out: tuple[str, ...]
    seen: tuple[str, ...] = ()
    comparison: Comparison | None = field(default=None)


def import_nnunet(results_folder: Path, folder: Path, wanted: Wanted) -> Imported:
    """Write a model folder.

    :raises CannotImport: if anything is not supported, does not fit, or the model does not draw what it must.
    """
    results = read_results(results_folder, wanted.folds)
    axes_of(results, wanted.orientation)  # a refusal comes before any work
    organs = read_map(wanted.organs, results.labels)
    scan = read_scan(wanted.check)
    with put_in_place(folder) as written, reading(f"the model of {results_folder.name}"):
        write_model(results, written, folder.name, wanted, organs)
        model = loaded(written)
        drawn = draw(model, scan)
        seen = see_sides(results.labels, model, scan, drawn)
        comparison = compare(results, model, drawn) if wanted.compared else None
        if comparison is not None:
            comparison.check()
            add_results(written, comparison)
    used = {value for values in organs.values() for value in values}
    left_out = tuple(name for name, values in results.labels.items() if not set(values) <= {0, *used})
    return Imported(read_manifest(folder), left_out, seen, comparison)


def axes_of(results: Results, orientation: str | None) -> str:
    """Which way the network's axes run in the patient.

    ``SAR`` is that of RAS files that are not transposed.

    :raises CannotImport: if nothing says which way the training files lay, or two things contradict each other.
    """
    reader = results.plans.get("image_reader_writer")
    turned = "RAS" if reader == REORIENTED else None
    if orientation is None and turned is None:
        raise CannotImport(
            f"nothing says which way the training files lay (their reader, {reader}, does not turn them): say --orientation, "
            "such as RAS or LPS"
        )
    if turned is not None and orientation not in {None, turned}:
        raise CannotImport(f"--orientation {orientation} contradicts the reader {reader}, which turns all files to {turned}")
    letters = (orientation or turned or "").upper()
    if len(letters) != 3 or {min(pair) for pair in ("LR", "AP", "IS") for letter in letters if letter in pair} != set("LAI"):
        raise CannotImport(f"--orientation {orientation}: three letters are needed, one each of L or R, P or A, and S or I")
    of_file = letters[::-1]  # arrays are read with the last axis of the file first
    return "".join(of_file[axis] for axis in results.transposed)


# ── writing ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def write_model(results: Results, folder: Path, name: str, wanted: Wanted, organs: Mapping[str, tuple[int, ...]]) -> None:
    """Write the ONNX files, the manifest and the card into a folder.

    :param organs: the labels of each organ.
    :raises CannotImport: if a network cannot be built, or its ONNX file answers otherwise.
    """
    files = []
    for fold, weights in results.folds.items():
        path = folder / f"{wanted.part}-fold-{fold}.onnx"
        write_onnx(build_network(results, weights), path, results.configuration["patch_size"])
        files.append({"file": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()})
        log.info("%s: %.1f MB", path.name, path.stat().st_size / 1e6)
    part = to_part(results, wanted, organs, files)
    model = {"name": name, "version": wanted.version, "licence": wanted.licence, "description": _described(results, wanted)}
    write_manifest(folder, model, part, [0.5] * len(results.values), by=_BY)  # until the files have answered
    manifest = read_manifest(folder)
    means = expected_means(folder, manifest.parts[0])
    write_manifest(folder, model, part, means, by=_BY)
    (folder / _CARD).write_text(to_card(model, results, part), encoding="utf-8")


def to_part(
    results: Results, wanted: Wanted, organs: Mapping[str, tuple[int, ...]], files: Sequence[Mapping[str, str]]
) -> dict[str, Any]:
    """The ``[[part]]`` of the manifest, but for its self-check."""
    axes = axes_of(results, wanted.orientation)
    patch, spacing = (in_patient_order(results.configuration[key], axes) for key in ("patch_size", "spacing"))
    forth, back = resampling(results)
    mirror = sorted({"zyx"[PATIENT[axes[axis]]] for axis in results.mirror}, reverse=True) if wanted.mirror else []
    patches: dict[str, Any] = {
        "axes": axes,
        "step": wanted.step,
        "mirror": mirror,
        "heads": "regions" if results.regions else "labels",
        "values": list(results.values),
        "normalisation": normalisation(results),
        "resampling": forth,
        "resampling_back": back,
    }
    return {
        "name": wanted.part,
        **files[0],
        "input": {"name": "patch", "spacing_mm": spacing, "size_zyx": patch, "padding_hu": _AIR_HU},
        "output": {"name": "logits"},
        "oar": [{"name": organ, "labels": list(labels)} for organ, labels in organs.items()],
        "patches": patches | ({"fold": [dict(file) for file in files[1:]]} if len(files) > 1 else {}),
        # the volume's own mean or range is that of the whole scan, or it is another volume
        "look": {"at": "scan" if patches["normalisation"]["scheme"] in {"z-score", "range"} else wanted.look},
        "training": {
            "dataset": str(results.plans.get("dataset_name", "")),
            "plans": str(results.plans.get("plans_name", "")),
            "configuration": results.configuration_name,
            "trainer": results.trainer,
            "folds": list(results.folds),
            "orientation": wanted.orientation or "RAS",
        },
    }


def _described(results: Results, wanted: Wanted) -> str:
    named = results.plans.get("dataset_name", results.name)
    return wanted.description or f"an nnU-Net v2 network ({named}, {results.configuration_name}, {len(results.folds)} folds)"


def to_card(model: Mapping[str, Any], results: Results, part: Mapping[str, Any]) -> str:
    """Where it comes from, and what each organ is made of."""
    names = {value: name for name, values in results.labels.items() if len(values) == 1 for value in values}
    lines = [f"# {model['name']} {model['version']}", "", f"{model['description']}. Licence: {model['licence']}.", ""]
    lines += ["Imported by `python -m model_export import nnunet`; how well it draws is for whoever uses it to measure", ""]
    lines[-2] += " (`python -m model_export compare`)."
    lines += ["| organ | labels of the network |", "| --- | --- |"]
    lines += [f"| {oar['name']} | {', '.join(names.get(value, str(value)) for value in oar['labels'])} |" for oar in part["oar"]]
    return "\n".join(lines) + "\n"


# ── checking ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def put_in_place(folder: Path) -> Iterator[Path]:
    """A folder to write a model into.

    It gets its name when everything went well, and is gone otherwise.

    :raises CannotImport: if there is one of that name.
    """
    if folder.exists():
        raise CannotImport(f"{folder} is there already")
    written = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(written, ignore_errors=True)
    written.mkdir(parents=True)
    try:
        yield written
        written.rename(folder)
    finally:
        shutil.rmtree(written, ignore_errors=True)


def loaded(folder: Path) -> Model:
    """The model as a worker loads it.

    :raises CannotImport: with what a worker would say.
    """
    try:
        return load(read_manifest(folder), device="cpu")
    except OarlockError as error:
        raise CannotImport(str(error)) from error


def see_sides(labels: Mapping[str, tuple[int, ...]], model: Model, scan: Scan, drawn: Drawn) -> tuple[str, ...]:
    """Check that what was drawn lies as it does in a patient.

    Names of labels and organs tell the sides. What the network draws on the scan turned round tells up from down and front from
    back where it finds an organ by its looks, wherever that lies.

    :raises CannotImport: see :func:`model_export.imports.sides.check_sides` and :func:`~model_export.imports.sides.check_turned`.
    """
    body = body_box_mm(scan.hu, scan.grid)
    part = model.manifest.parts[0]
    if body is None or part.patches is None:
        raise CannotImport("the scan of --check shows no patient")
    of_names = {name: values for name, values in labels.items() if set(values) != {0}}
    of_names |= {oar.name: values for oar, values in zip(part.oars, part.patches.labels, strict=True)}
    middle_mm = float(body[0][0] + body[1][0]) / 2
    seen = check_sides(drawn.middles_mm(of_names), list(of_names), middle_mm=middle_mm)
    as_said = draw_turned(model, drawn, ())
    for how, axes in turns(of_names, part.patches.mirror):
        turned = draw_turned(model, drawn, axes)
        try:
            check_sides(turned.middles_mm(of_names), list(of_names), middle_mm=middle_mm)
        except CannotImport:  # as no patient is: the way that was said is the better one
            continue
        seen.append(check_turned(as_said.labels, turned.labels, how))
    return tuple(seen)


def add_results(folder: Path, comparison: Comparison) -> None:
    """Write the figures of a comparison into a manifest."""
    path = folder / MANIFEST_NAME
    path.write_text(path.read_text(encoding="utf-8") + comparison.to_toml(), encoding="utf-8")

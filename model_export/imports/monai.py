"""From a MONAI bundle to a model folder, without running the bundle.

A bundle's JSON names Python classes, and strings in it that begin with ``$`` are Python: to read it as MONAI does is to run it.
Here a short list of transforms is translated, and any other is refused by its name. A network of ``monai.networks.nets`` with
plain arguments is built without running anything of the bundle. If its definition holds Python, the import lists it and stops; it
is evaluated only if whoever imports it says so.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import nn

from model_export.imports.compared import Comparison, draw
from model_export.imports.nnunet import Imported, Wanted, add_results, loaded, put_in_place, see_sides
from model_export.imports.organs import read_map
from model_export.imports.plans import LARGEST_NUMBER, check_patch, check_spacing, largest
from model_export.imports.refusals import CannotImport, read_json, reading
from model_export.imports.scan import read_scan
from model_export.imports.writing import expected_means, in_patient_order, write_manifest, write_onnx
from oarlock.segmentation.manifest import Part, read_manifest
from oarlock.segmentation.patches import logits_in_patches, normalised
from oarlock.segmentation.segment import Model

_AIR_HU: Final = -1000.0
_UNBOUNDED: Final = 1e8
_BY: Final = "import monai"
NETWORKS: Final = ("AttentionUnet", "BasicUNet", "DynUNet", "SegResNet", "SwinUNETR", "UNet", "UNETR", "VNet")
"""Networks of MONAI's that only compute; others fetch weights when they are asked to."""

_NO_EFFECT: Final = {"LoadImaged", "EnsureChannelFirstd", "EnsureTyped", "CastToTyped", "ToTensord", "SaveImaged", "SaveImage"}
"""Transforms that change no value here: reading, types, writing."""


@dataclass(frozen=True)
class Bundle:
    """What a bundle's configuration says, as far as it is known here.

    :ivar axes: which way the network's axes run in the patient.
    :ivar spacing, patch: along the network's axes.
    :ivar evaluated: the Python in the definition of the network.
    :ivar left: transforms whose work Oarlock's own clean-up does instead.
    """

    config: Mapping[str, Any]
    axes: str
    spacing: tuple[float, float, float]
    patch: tuple[int, int, int]
    step: float
    weights: str
    normalisation: Mapping[str, Any]
    labels: Mapping[str, tuple[int, ...]]
    evaluated: tuple[str, ...]
    left: tuple[str, ...]


def read_bundle(folder: Path, config: str = "configs/inference.json") -> Bundle:
    """Read a bundle without running anything of it.

    :raises CannotImport: for a transform, an argument or an inferer that is not known here, or a value that is Python.
    """
    with reading(f"the bundle {folder.name}"):
        return _read_bundle(folder, config)


def _read_bundle(folder: Path, config: str) -> Bundle:
    told = read_json(folder / config)
    before, after = (_transforms(told, section) for section in ("preprocessing", "postprocessing"))
    known = ["Orientationd", "Spacingd", "ScaleIntensityRanged"]
    names = [name for name, _ in before if name not in _NO_EFFECT]
    if names != known:
        raise CannotImport(f"the preprocessing {', '.join(names)}: not supported; {', '.join(known)}, in this order, is")
    steps = dict(before)
    inferer = _inferer(told)
    _check_after(after)
    patch, spacing = _three(told, inferer, "roi_size", int), _three(told, steps["Spacingd"], "pixdim", float)
    check_patch(patch)
    check_spacing(spacing)
    return Bundle(
        config=told,
        axes=str(_argument(told, steps["Orientationd"], "axcodes")),
        spacing=spacing,
        patch=patch,
        step=1 - float(_argument(told, inferer, "overlap", 0.25)),
        weights=str(_argument(told, inferer, "mode", "constant")),
        normalisation=_scaling(told, steps["ScaleIntensityRanged"]),
        labels=_labels(read_json(folder / "configs/metadata.json")),
        evaluated=tuple(_python_in(told, told.get("network_def"), set())),
        left=tuple(name for name, _ in after if name == "KeepLargestConnectedComponentd"),
    )


def import_monai(folder: Path, out: Path, wanted: Wanted, *, evaluate: bool = False) -> Imported:
    """Write a model folder of a bundle: ``configs/inference.json``, ``configs/metadata.json`` and ``models/model.pt``.

    :param evaluate: whether the Python in the network's definition may be run.
    :raises CannotImport: if anything is not supported, does not fit, or the model does not draw what it must.
    """
    bundle = read_bundle(folder)
    organs = read_map(wanted.organs, bundle.labels)
    scan = read_scan(wanted.check)
    network = build_network(bundle, evaluate=evaluate)
    _load_weights(network, folder / "models" / "model.pt")
    with put_in_place(out) as written, reading(f"the model of {folder.name}"):
        path = written / f"{wanted.part}.onnx"
        write_onnx(network, path, bundle.patch)
        part = to_part(bundle, wanted, organs, path)
        description = wanted.description or f"a MONAI bundle ({folder.name})"
        model = {"name": out.name, "version": wanted.version, "licence": wanted.licence, "description": description}
        write_manifest(written, model, part, [0.5] * len(bundle.labels), by=_BY)  # until the file has answered
        means = expected_means(written, read_manifest(written).parts[0])
        write_manifest(written, model, part, means, by=_BY)
        (written / "MODEL_CARD.md").write_text(f"# {out.name} {wanted.version}\n\n{description}.\n", encoding="utf-8")
        ready = loaded(written)
        drawn = draw(ready, scan)
        seen = see_sides(bundle.labels, ready, scan, drawn)
        comparison = compare_sliding(bundle, network, ready, drawn.fed.volume) if wanted.compared else None
        if comparison is not None:
            comparison.check()
            add_results(written, comparison)
    used = {value for values in organs.values() for value in values}
    left_out = tuple(name for name, values in bundle.labels.items() if not set(values) <= {0, *used})
    return Imported(read_manifest(out), left_out, seen, comparison)


def build_network(bundle: Bundle, *, evaluate: bool) -> nn.Module:
    """The network of ``network_def``, without weights.

    :raises CannotImport: if it holds Python and ``evaluate`` is not given; the text lists it.
    """
    definition = bundle.config.get("network_def")
    if bundle.evaluated:
        listed = "; ".join(bundle.evaluated)
        if not evaluate:
            raise CannotImport(f"the network's definition holds Python, which is run only with --yes-evaluate: {listed}")
        from monai.bundle import ConfigParser

        network: Any = ConfigParser(dict(bundle.config)).get_parsed_content("network_def")
    else:
        from monai.networks import nets

        if not isinstance(definition, dict) or "_target_" not in definition:
            raise CannotImport("network_def does not name a network")
        arguments: dict[str, Any] = {
            key: _resolved(bundle.config, value) for key, value in definition.items() if not key.startswith("_")
        }
        if too_large := [key for key, value in arguments.items() if largest(value) > LARGEST_NUMBER]:
            raise CannotImport(f"network_def has {too_large[0]} above {LARGEST_NUMBER}: not supported")
        try:
            network = getattr(nets, definition["_target_"].rsplit(".", 1)[-1])(**arguments)
        except Exception as error:  # a network may raise anything about its arguments
            raise CannotImport(f"the network cannot be built: {(str(error).splitlines() or ['?'])[0][:200]}") from error
    if not isinstance(network, nn.Module):
        raise CannotImport("network_def is not a network")
    return network.eval()


def to_part(bundle: Bundle, wanted: Wanted, organs: Mapping[str, tuple[int, ...]], path: Path) -> dict[str, Any]:
    """The ``[[part]]`` of the manifest, but for its self-check."""
    return {
        "name": wanted.part,
        "file": path.name,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "input": {
            "name": "patch",
            "spacing_mm": in_patient_order(bundle.spacing, bundle.axes),
            "size_zyx": in_patient_order(bundle.patch, bundle.axes),
            "padding_hu": _AIR_HU,
        },
        "output": {"name": "logits"},
        "oar": [{"name": organ, "labels": list(labels)} for organ, labels in organs.items()],
        "patches": {
            "axes": bundle.axes,
            "like": "monai",
            "weights": bundle.weights,
            "step": bundle.step,
            "heads": "labels",
            "values": sorted(value for values in bundle.labels.values() for value in values),
            "normalisation": dict(bundle.normalisation),
            "resampling": {"order": 1},
            "resampling_back": {"order": 1},
        },
        "look": {"at": wanted.look},
        "training": {"bundle": path.parent.name.strip("."), "left_to_our_clean_up": list(bundle.left)},
    }


def compare_sliding(bundle: Bundle, network: nn.Module, model: Model, hu: Any) -> Comparison:
    """The same scan by MONAI's own SlidingWindowInferer.

    It is taken as if it lay on the network's lattice, so that sliding alone counts.
    """
    import monai
    from monai.inferers import SlidingWindowInferer

    part: Part = model.manifest.parts[0]
    spec, spacing = part.patches, part.input.spacing_mm
    assert spec is not None
    assert spacing is not None
    predictor = model.predictors[part.name]
    ours = np.stack([slice_ for _, _, slice_ in logits_in_patches(hu, spacing, predictor, part)], axis=1)
    flipped = tuple(axis for axis in range(3) if spec.flipped[axis])
    fed = np.ascontiguousarray(np.flip(normalised(hu, spec.normalisation), flipped).transpose(spec.order))
    inferer = SlidingWindowInferer(bundle.patch, overlap=1 - bundle.step, mode=bundle.weights)
    with torch.no_grad():
        given = inferer(torch.from_numpy(fed)[None, None], network)[0].numpy()
    theirs = np.flip(given.transpose(0, *(spec.order.index(axis) + 1 for axis in range(3))), tuple(axis + 1 for axis in flipped))
    differ = ours.argmax(axis=0) != theirs.argmax(axis=0)
    ordered = np.sort(ours, axis=0)
    largest = float((ordered[-1] - ordered[-2])[differ].max(initial=0.0))
    drawn = int(np.count_nonzero(theirs.argmax(axis=0)))
    return Comparison(f"MONAI {monai.__version__} (sliding alone)", differ.size, drawn, int(differ.sum()), largest)


# ── reading the configuration ─────────────────────────────────────────────────────────────────────────────────────────


def _transforms(told: Mapping[str, Any], section: str) -> list[tuple[str, Mapping[str, Any]]]:
    """(name, arguments) of each transform of a section."""
    found = told.get(section)
    steps = found.get("transforms") if isinstance(found, dict) else found
    if not isinstance(steps, list) or not all(isinstance(step, dict) and "_target_" in step for step in steps):
        raise CannotImport(f"{section} is not a list of transforms")
    return [(str(step["_target_"]).rsplit(".", 1)[-1], step) for step in steps if not step.get("_disabled_", False)]


def _argument(told: Mapping[str, Any], step: Mapping[str, Any], key: str, default: Any = None) -> Any:
    value = _resolved(told, step.get(key, default))
    if value is None:
        raise CannotImport(f"{step['_target_']} says no {key}")
    return value


def _resolved(told: Mapping[str, Any], value: Any) -> Any:
    """A value with references to other plain values followed."""
    if isinstance(value, str) and value.startswith("$"):
        raise CannotImport(f"{value}: Python, which is not run here")
    if isinstance(value, str) and value.startswith("@"):
        return _resolved(told, _referred(told, value[1:]))
    if isinstance(value, list):
        return [_resolved(told, item) for item in value]
    return value


def _referred(told: Mapping[str, Any], name: str) -> Any:
    """What a reference, without its ``@``, stands for.

    :raises CannotImport: if it stands for nothing.
    """
    found: Any = told
    try:
        for key in name.replace("#", "::").split("::"):
            found = found[int(key)] if isinstance(found, list) else found[key]
    except (LookupError, TypeError, ValueError) as error:
        raise CannotImport(f"@{name} refers to nothing") from error
    return found


def _three(told: Mapping[str, Any], step: Mapping[str, Any], key: str, kind: type) -> tuple[Any, Any, Any]:
    values = _argument(told, step, key)
    if (
        not isinstance(values, list)
        or len(values) != 3
        or not all(isinstance(value, int | float) and value > 0 for value in values)
    ):
        raise CannotImport(f"{step['_target_']} {key}: three positive numbers are supported")
    return kind(values[0]), kind(values[1]), kind(values[2])


def _inferer(told: Mapping[str, Any]) -> Mapping[str, Any]:
    inferer = told.get("inferer")
    if not isinstance(inferer, dict) or str(inferer.get("_target_")).rsplit(".", 1)[-1] != "SlidingWindowInferer":
        raise CannotImport("the inferer is not a SlidingWindowInferer")
    usual = {"sigma_scale": 0.125, "padding_mode": "constant", "cval": 0.0}
    for key, value in usual.items():
        if _argument(told, inferer, key, value) != value:
            raise CannotImport(f"SlidingWindowInferer {key} other than {value}: not supported")
    if _argument(told, inferer, "mode", "constant") not in {"constant", "gaussian"}:
        raise CannotImport(f"SlidingWindowInferer mode {inferer['mode']}: not supported")
    return inferer


def _check_after(steps: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
    """One label a voxel, by a softmax or none, is what comes out."""
    for name, step in steps:
        if name == "Activationsd" and not step.get("softmax", False):
            raise CannotImport("Activationsd without softmax: not supported")
        if name == "AsDiscreted" and not step.get("argmax", False):
            raise CannotImport("AsDiscreted without argmax: not supported")
        if name not in {"Activationsd", "AsDiscreted", "Invertd", "KeepLargestConnectedComponentd", *_NO_EFFECT}:
            raise CannotImport(f"the transform {name}: not supported")


def _scaling(told: Mapping[str, Any], step: Mapping[str, Any]) -> dict[str, Any]:
    """A range brought to another one, as the scheme ``ct``: less a mean, over a standard deviation."""
    low, high = float(_argument(told, step, "a_min")), float(_argument(told, step, "a_max"))
    to_low, to_high = float(_argument(told, step, "b_min", 0.0)), float(_argument(told, step, "b_max", 1.0))
    std = (high - low) / (to_high - to_low)
    bounds = (low, high) if _argument(told, step, "clip", False) else (-_UNBOUNDED, _UNBOUNDED)
    return {"scheme": "ct", "low": bounds[0], "high": bounds[1], "mean": low - to_low * std, "std": std}


def _labels(metadata: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """The labels by name, from what the metadata says of the output's channels."""
    try:
        channels = metadata["network_data_format"]["outputs"]["pred"]["channel_def"]
        labels: dict[str, tuple[int, ...]] = {str(name): (int(channel),) for channel, name in channels.items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CannotImport("metadata.json does not say what the channels of the output 'pred' are (channel_def)") from error
    if sorted(value for values in labels.values() for value in values) != list(range(len(channels))):
        raise CannotImport("the channels of metadata.json are not 0, 1, 2, … with a name each")
    return labels


_REFERENCE: Final = re.compile(r"@(\w+(?:(?:::|#)\w+)*)")
_NOT_FOLLOWED: Final = re.compile(r"%|.*@(?:::|#)", re.DOTALL)
"""Macros, which stand for parts of any file, and references from where they stand."""


def _python_in(told: Mapping[str, Any], value: Any, seen: set[str]) -> Iterator[str]:
    """What MONAI would run to build the network: strings that begin with ``$``, and classes that are not its networks.

    So of whatever ``value`` refers to.

    :param seen: references that were followed already; it grows.
    :raises CannotImport: for a reference that cannot be followed here.
    """
    if isinstance(value, dict):
        target = str(value.get("_target_", ""))
        if target and target.removeprefix("monai.networks.nets.") not in NETWORKS:
            yield f"_target_ {target}"
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _python_in(told, item, seen)
    elif isinstance(value, str):
        if _NOT_FOLLOWED.match(value):
            raise CannotImport(f"{value}: a macro or a relative reference, which cannot be followed here")
        if value.startswith("$"):
            yield value
        for name in sorted(set(_REFERENCE.findall(value)) - seen):
            seen.add(name)
            yield from _python_in(told, _referred(told, name), seen)


def _load_weights(network: nn.Module, path: Path) -> None:
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
        network.load_state_dict(weights.get("model", weights) if isinstance(weights, dict) else weights, strict=True)
    except Exception as error:  # torch raises pickle's, zip's and its own
        raise CannotImport(f"{path.name} does not hold the network's weights and nothing else: {type(error).__name__}") from error

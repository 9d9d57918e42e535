"""What an nnU-Net v2 results folder says, read without trusting it.

plans.json and dataset.json are data; a name in them is looked up in a short list and never imported. A checkpoint is read with
torch's own reader of weights, which runs no code; of what is not a tensor it may hold numbers and texts alone.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import nn

from model_export.imports.refusals import CannotImport, read_json, reading

REORIENTED: Final = "NibabelIOWithReorient"
"""The one reader of nnU-Net's that turns its files, to RAS."""

_SCHEMES: Final = {
    "CTNormalization": "ct",
    "ZScoreNormalization": "z-score",
    "RescaleTo01Normalization": "range",
    "NoNormalization": "none",
}
_NETWORKS: Final = ("PlainConvUNet", "ResidualEncoderUNet")
LONGEST_PATCH: Final = 1024
LARGEST_PATCH: Final = 512**3
"""Voxels of a patch; the largest that nnU-Net plans by itself has about 200³."""

LARGEST_NUMBER: Final = 2048
"""Of anything in a network's definition: features, layers, sizes of kernels."""

_DATA, _PROBABILITIES = "resampling_fn_data", "resampling_fn_probabilities"


@dataclass(frozen=True)
class Results:
    """One network of a results folder.

    :ivar configuration: of plans.json, with the values that it inherits; sizes and spacings are in the network's axes.
    :ivar transposed: for each axis of the network the axis (z, y, x) of the training files.
    :ivar labels: for each name the labels that it stands for.
    :ivar values: the label that each head paints.
    :ivar folds: by name, the weights.
    :ivar mirror: axes of the network along which mirror images are averaged.
    """

    name: str
    plans: Mapping[str, Any]
    dataset: Mapping[str, Any]
    configuration: Mapping[str, Any]
    configuration_name: str
    trainer: str
    transposed: tuple[int, int, int]
    labels: Mapping[str, tuple[int, ...]]
    regions: bool
    values: tuple[int, ...]
    folds: Mapping[str, Mapping[str, torch.Tensor]]
    mirror: tuple[int, ...]


def read_results(folder: Path, folds: Sequence[str] = (), checkpoint: str = "checkpoint_final.pth") -> Results:
    """Read a results folder: ``plans.json``, ``dataset.json`` and ``fold_*/checkpoint_final.pth``.

    :param folds: their names, such as ``0`` or ``all``; all that are there if empty.
    :raises CannotImport: with what is missing or not supported.
    """
    with reading(f"the results folder {folder.name}"):
        return _read_results(folder, folds, checkpoint)


def _read_results(folder: Path, folds: Sequence[str], checkpoint: str) -> Results:
    plans, dataset = read_json(folder / "plans.json"), read_json(folder / "dataset.json")
    paths = {path.parent.name.removeprefix("fold_"): path for path in sorted(folder.glob(f"fold_*/{checkpoint}"))}
    if missing := [fold for fold in folds if fold not in paths]:
        raise CannotImport(f"fold_{missing[0]}/{checkpoint} is not there")
    if not paths:
        raise CannotImport(f"there is no fold_*/{checkpoint}")
    checkpoints = {fold: read_checkpoint(path) for fold, path in paths.items() if not folds or fold in folds}
    first = next(iter(checkpoints.values()))
    name = first["init_args"]["configuration"]
    configuration = _configuration(plans, name)
    _check(plans, dataset, configuration, name)
    labels, regions, values = _heads(dataset)
    mirror = tuple(first.get("inference_allowed_mirroring_axes") or ())
    if not set(mirror) <= {0, 1, 2}:
        raise CannotImport(f"{first['trainer_name']} mirrors the axes {mirror}, which a network of three axes does not have")
    return Results(
        name=folder.name,
        plans=plans,
        dataset=dataset,
        configuration=configuration,
        configuration_name=name,
        trainer=str(first.get("trainer_name", "")),
        transposed=tuple(plans["transpose_forward"]),
        labels=labels,
        regions=regions,
        values=values,
        folds={fold: content["network_weights"] for fold, content in checkpoints.items()},
        mirror=mirror,
    )


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint of nnU-Net's trainer: tensors, numbers and texts.

    nnU-Net itself reads it as a pickle, which may run any code. Here whatever is neither a tensor nor a plain number of numpy's
    is refused by its name.

    :raises CannotImport: if it holds anything else.
    """
    # what numpy's scalars are made of; nnU-Net keeps its scores as such
    harmless = [np._core.multiarray.scalar, np.dtype]  # type: ignore[attr-defined]  # noqa: SLF001
    harmless += [type(np.dtype(kind)) for kind in (np.float64, np.float32, np.float16, np.int64, np.int32, np.bool_)]
    try:
        with torch.serialization.safe_globals(harmless):
            content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises pickle's, zip's and its own
        raise CannotImport(
            f"{path.parent.name}/{path.name} holds more than weights, numbers and texts: {_first(error)}"
        ) from error
    if not {"network_weights", "init_args"} <= content.keys():
        raise CannotImport(f"{path.parent.name}/{path.name} is not a checkpoint of nnU-Net v2")
    return content


def _first(error: Exception) -> str:
    """What torch says is not allowed, or the kind of the error."""
    lines = [line.strip() for line in str(error).splitlines()]
    return next((line for line in lines if "GLOBAL" in line or "Unsupported" in line), type(error).__name__)[:200]


def _configuration(plans: Mapping[str, Any], name: str, seen: tuple[str, ...] = ()) -> dict[str, Any]:
    """A configuration with what it inherits."""
    if name in seen or name not in plans["configurations"]:
        raise CannotImport(f"plans.json has no configuration '{name}', or it inherits from itself")
    own = plans["configurations"][name]
    inherited = _configuration(plans, own["inherits_from"], (*seen, name)) if "inherits_from" in own else {}
    return {**inherited, **own}


def _check(plans: Mapping[str, Any], dataset: Mapping[str, Any], configuration: Mapping[str, Any], name: str) -> None:
    """Refuse by its name what is not done here."""
    channels = dataset.get("channel_names", dataset.get("modality", {}))
    normalisation = configuration["normalization_schemes"][0]
    refused = {
        f"the configuration '{name}' is of two dimensions": len(configuration["patch_size"]) != 3,
        f"the configuration '{name}' is the second stage of a cascade": configuration.get("previous_stage") is not None,
        f"the network takes {len(channels)} channels": len(channels) != 1,
        f"the preprocessor {configuration.get('preprocessor_name')}": configuration.get("preprocessor_name")
        != "DefaultPreprocessor",
        f"the label manager {plans.get('label_manager')}": plans.get("label_manager", "LabelManager") != "LabelManager",
        f"the normalisation {normalisation}": normalisation not in _SCHEMES,
        "a mask for the normalisation (use_mask_for_norm)": bool(configuration.get("use_mask_for_norm", [False])[0])
        and normalisation == "ZScoreNormalization",
    }
    for what, holds in refused.items():
        if holds:
            raise CannotImport(f"{what}: not supported")
    if sorted(plans["transpose_forward"]) != [0, 1, 2]:
        raise CannotImport(f"plans.json transposes the axes {plans['transpose_forward']}, which is not an order of three")
    check_patch(configuration["patch_size"])
    check_spacing(configuration["spacing"])


def check_patch(size: Sequence[Any]) -> None:
    """Check that a patch can be held in memory.

    A file may say what it likes.

    :raises CannotImport: if not.
    """
    if not all(type(n) is int and 0 < n <= LONGEST_PATCH for n in size) or math.prod(size) > LARGEST_PATCH:
        raise CannotImport(f"a patch of {' x '.join(map(str, size))[:80]} voxels: not supported")


def check_spacing(spacing_mm: Sequence[Any]) -> None:
    """Check that a spacing is one.

    :raises CannotImport: if not.
    """
    if len(spacing_mm) != 3 or not all(isinstance(mm, int | float) and 0.01 <= mm <= 100 for mm in spacing_mm):
        raise CannotImport(f"a spacing of {spacing_mm} mm: not three lengths of 0.01 to 100 mm")


def _heads(dataset: Mapping[str, Any]) -> tuple[dict[str, tuple[int, ...]], bool, tuple[int, ...]]:
    """The labels of each name, whether heads are regions, and the label that each head paints."""
    named = {name: value for name, value in dataset["labels"].items() if name != "ignore"}
    labels = {name: tuple(value) if isinstance(value, list) else (int(value),) for name, value in named.items()}
    if any(len(set(values)) > 1 for values in labels.values()):
        order = dataset.get("regions_class_order")
        heads = [name for name, values in labels.items() if set(values) != {0}]
        if order is None or len(order) != len(heads):
            raise CannotImport("dataset.json has regions, and no regions_class_order with one label for each")
        return labels, True, tuple(order)
    values = tuple(sorted({value for values in labels.values() for value in values}))
    if values != tuple(range(len(values))):
        raise CannotImport("the labels of dataset.json are not 0, 1, 2, …")
    return labels, False, values


def normalisation(results: Results) -> dict[str, Any]:
    """The ``normalisation`` of a manifest."""
    scheme = _SCHEMES[results.configuration["normalization_schemes"][0]]
    if scheme != "ct":
        return {"scheme": scheme}
    by = "foreground_intensity_properties_"
    of = results.plans.get(f"{by}per_channel") or results.plans[f"{by}by_modality"]
    seen = of["0"]
    low, high = seen["percentile_00_5"], seen["percentile_99_5"]
    return {"scheme": scheme, "low": low, "high": high, "mean": seen["mean"], "std": max(seen["std"], 1e-8)}


def resampling(results: Results) -> tuple[dict[str, Any], dict[str, Any]]:
    """The ``resampling`` and ``resampling_back`` of a manifest.

    :raises CannotImport: for a function or an argument of another name.
    """
    with reading("the resampling of plans.json"):
        return _resampling(results.configuration, _DATA), _resampling(results.configuration, _PROBABILITIES)


def _resampling(configuration: Mapping[str, Any], which: str) -> dict[str, Any]:
    function, given = configuration[which], dict(configuration.get(f"{which}_kwargs", {}))
    separate = {None: "auto", True: "always", False: "never"}[given.pop("force_separate_z", None)]
    if given.pop("is_seg", False):
        raise CannotImport(f"{which} with is_seg: not supported")
    if function == "resample_data_or_seg_to_shape":
        made = {"order": given.pop("order", 3), "order_z": given.pop("order_z", 0)}
    elif function == "resample_torch_fornnunet":
        if (given.pop("mode", "linear"), given.pop("aniso_axis_mode", "nearest-exact")) != ("linear", "nearest-exact"):
            raise CannotImport(f"{which}: a mode of {function} other than linear and nearest-exact: not supported")
        for harmless in ("num_threads", "memefficient_seg_resampling"):
            given.pop(harmless, None)
        made = {"order": 1, "order_z": 0}
    else:
        raise CannotImport(f"{which} = {function}: not supported")
    if given:
        raise CannotImport(f"{which}: {', '.join(given)} of {function}: not supported")
    return {**made, "separate": separate}


# ── the network ───────────────────────────────────────────────────────────────────────────────────────────────────────


def build_network(results: Results, weights: Mapping[str, torch.Tensor]) -> nn.Module:
    """The network of the plans with the weights of a fold.

    `dynamic-network-architectures` alone is needed.

    :raises CannotImport: for a network or a layer of another name, or weights that do not fit exactly.
    """
    from dynamic_network_architectures.architectures import unet

    with reading("the network of plans.json"):
        class_name, arguments = _architecture(results.configuration)
    if class_name not in _NETWORKS:
        raise CannotImport(f"the network {class_name}: not supported; {' and '.join(_NETWORKS)} are")
    if too_large := [key for key, value in arguments.items() if largest(value) > LARGEST_NUMBER]:
        raise CannotImport(f"the network of plans.json has {too_large[0]} above {LARGEST_NUMBER}: not supported")
    try:
        network: nn.Module = getattr(unet, class_name)(
            input_channels=1, num_classes=len(results.values), deep_supervision=False, **arguments
        )
        network.load_state_dict(weights, strict=True)
    except (TypeError, ValueError, RuntimeError, AssertionError, LookupError, AttributeError, MemoryError) as error:
        raise CannotImport(
            f"the weights do not fit the network of the plans: {(str(error).splitlines() or [type(error).__name__])[0][:300]}"
        ) from error
    return network.eval()


def largest(value: Any) -> float:
    """The largest number in a value, or its longest list's length.

    0 where there is none.
    """
    if isinstance(value, dict):
        return max(map(largest, value.values()), default=0)
    if isinstance(value, list):
        return max(len(value), *map(largest, value), 0)
    return abs(value) if isinstance(value, int | float) else 0


def _architecture(configuration: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Name of the class, and its arguments, with layers looked up in torch.nn."""
    if "architecture" not in configuration:
        return _old_architecture(configuration)
    told = configuration["architecture"]
    arguments = dict(told["arch_kwargs"])
    for key in told["_kw_requires_import"]:
        arguments[key] = _layer(arguments.get(key))
    return told["network_class_name"].rsplit(".", 1)[-1], arguments


def _old_architecture(configuration: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """What plans before nnU-Net 2.4 leave unsaid of the network, as nnU-Net fills it in."""
    class_name, blocks = configuration["UNet_class_name"], configuration["n_conv_per_stage_encoder"]
    widest, first = configuration["unet_max_num_features"], configuration["UNet_base_num_features"]
    return class_name, {
        "n_stages": len(blocks),
        "features_per_stage": [min(first * 2**stage, widest) for stage in range(len(blocks))],
        "conv_op": nn.Conv3d,
        "kernel_sizes": configuration["conv_kernel_sizes"],
        "strides": configuration["pool_op_kernel_sizes"],
        "n_conv_per_stage" if class_name == "PlainConvUNet" else "n_blocks_per_stage": blocks,
        "n_conv_per_stage_decoder": configuration["n_conv_per_stage_decoder"],
        "conv_bias": True,
        "norm_op": nn.InstanceNorm3d,
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": nn.LeakyReLU,
        "nonlin_kwargs": {"inplace": True},
    }


def _layer(name: str | None) -> type[nn.Module] | None:
    """A layer of torch.nn by its full name; nothing else is imported."""
    if name is None:
        return None
    layer = getattr(nn, name.rsplit(".", 1)[-1], None)
    if not name.startswith("torch.nn.") or not isinstance(layer, type) or not issubclass(layer, nn.Module):
        raise CannotImport(f"the layer {name}: not a layer of torch.nn")
    return layer

"""To go on from a model that has been shipped.

Its ONNX file gives back a network that can be trained.

The export folded each norm that follows a convolution into it, and with it the statistics that training needs. They are measured
anew on some slabs, and the norms set so that the network's answers stay what they were.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, cast

import torch
from torch import Tensor, nn

from model_export.config import Config
from model_export.datasets.training_file import Case
from model_export.network import Network, Norm, NormReLUConv, ResidualBlock
from model_export.served import AIR
from model_export.train import Run, slabs_of_step, start_run
from oarlock.segmentation.manifest import read_manifest

MEASURED_STEPS: Final = 8


class NotOurs(ValueError):
    """The file does not hold a network of this shape."""


def start_from_model(config: Config, folder: Path, cases: Sequence[Case], *, device: str = "cpu") -> Run:
    """A fresh run whose weights are those of a model folder.

    :raises NotOurs: if the file's weights do not fit the config's network.
    """
    network = Network(config.network)
    manifest = read_manifest(folder)
    folded = load_onnx(network, manifest.parts[0].path)
    measured = (sample.ct_hu for step in range(MEASURED_STEPS) for sample in slabs_of_step(step, cases, config))
    measure_norms(network, folded, measured)
    run = start_run(config, device=device, network=network)
    of_all = manifest.training
    run.origin = {"start": manifest.identity, **all_before(of_all.get(manifest.parts[0].name, of_all))}
    return run


def all_before(training: Mapping[str, Any]) -> dict[str, float]:
    """The steps and hours behind a network, from its manifest.

    Its own, and those of what it started from.
    """
    return {f"{key}_before": round(training.get(key, 0) + training.get(f"{key}_before", 0), 2) for key in ("steps", "hours")}


def load_onnx(network: Network, path: Path) -> list[NormReLUConv]:
    """Copy an exported file's weights into a network.

    One of the same shape.

    The network then answers as the file does. Returns the blocks whose norm was folded into the convolution before it: they hold
    its bias, and no statistics as yet.

    :raises NotOurs: if the file's weights do not fit the network, or are not all there.
    """
    state, folded = network.state_dict(), []
    weights = exported_weights(path)
    norms = tuple(f"{name}." for name, module in network.named_modules() if isinstance(module, Norm))
    if lacking := [name for name, _ in network.named_parameters() if name not in weights and not name.startswith(norms)]:
        raise NotOurs(f"{path.name} does not hold {', '.join(lacking)}")
    for exported, value in weights.items():
        name = exported
        if name not in state and name.endswith(".conv.bias"):  # ours has none: it is the folded norm's
            name = next_norm_bias(exported)
            folded.append(network.get_submodule(name.removesuffix(".norm.bias")))
        if name not in state or state[name].shape != value.shape:
            raise NotOurs(f"{path.name}: {name} {tuple(value.shape)} does not fit the network of this config")
        state[name] = value
    network.load_state_dict(state)
    blocks = [cast("NormReLUConv", block) for block in folded]
    for block in blocks:
        _as_bias(block.norm)
    return blocks


def exported_weights(path: Path) -> dict[str, Tensor]:
    """The file's weights under torch's names.

    Those that the exporter renamed are found by the node that uses them.
    """
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(str(path)).graph
    arrays = {weight.name: torch.from_numpy(numpy_helper.to_array(weight).copy()) for weight in graph.initializer}
    found: dict[str, Tensor] = {}
    for node in graph.node:
        used = [name for name in node.input if name in arrays]
        for name, part in zip(used, ("weight", "bias"), strict=False):
            if name == AIR:
                continue
            if not name.startswith("onnx::"):
                found[name.removeprefix("network.")] = arrays[name]
            elif node.op_type in ("Conv", "MatMul") and (module := module_of_node(node.name)):  # none: the head's, mirrored
                value = arrays[name].t().contiguous() if node.op_type == "MatMul" else arrays[name]
                found[f"{module}.{part}"] = value
        if node.op_type == "BatchNormalization":
            found |= {name.removeprefix("network."): arrays[name] for name in used[2:]}
    return found


def module_of_node(name: str) -> str:
    """``/network/up.6/block/convs/convs.0/conv/Conv``, or without ``network``, is ``up.6.block.convs.0.conv``."""
    scopes = name.strip("/").removeprefix("network/").split("/")[:-1]
    following = [*scopes[1:], ""][: len(scopes)]
    return ".".join(scope for scope, after in zip(scopes, following, strict=True) if not after.startswith(f"{scope}."))


def next_norm_bias(name: str) -> str:
    """``….convs.0.conv.bias`` to ``….convs.1.norm.bias``."""
    block, number = name.removesuffix(".conv.bias").rsplit(".", 1)
    return f"{block}.{int(number) + 1}.norm.bias"


def measure_norms(network: Network, blocks: Iterable[NormReLUConv], slabs: Iterable[Tensor]) -> None:
    """Give folded norms the statistics of their input.

    Over some slabs (each (Z, Y, X) in HU); what comes before is scaled to 1.

    What the network answers does not change: y = x + b becomes y = s (x - m) / s + (b + m).
    """
    before = dict(_convolutions_before(network))
    sums: dict[nn.Module, list[Any]] = {block.norm: [0, 0.0, 0.0] for block in blocks}

    def add(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        values = inputs[0].detach().double()
        sums[norm][0] += values[:, 0].numel()
        sums[norm][1] += values.sum((0, 2, 3))
        sums[norm][2] += values.square().sum((0, 2, 3))

    hooks = [norm.register_forward_pre_hook(add) for norm in sums]
    network.eval()
    with torch.no_grad():
        for slab in slabs:
            network.features(slab[None, None])
        for hook in hooks:
            hook.remove()
        for norm, (count, total, squares) in sums.items():
            mean = total / count
            _set_statistics(norm, before[norm], mean, (squares / count - mean.square()).clamp_min(1e-6))


def _as_bias(norm: Any) -> None:
    norm.running_mean.zero_()
    norm.running_var.fill_(1.0 - norm.eps)
    nn.init.ones_(norm.weight)


def _set_statistics(norm: Any, conv: nn.Conv2d, mean: Tensor, var: Tensor) -> None:
    """The convolution's output to mean m / s and variance 1, the norm to take it back."""
    deviation = var.sqrt()
    conv.weight /= deviation.to(conv.weight.dtype).view(-1, 1, 1, 1)
    norm.running_mean.copy_(mean / deviation)
    norm.running_var.fill_(1.0 - norm.eps)
    norm.weight.copy_(deviation)
    norm.bias += mean.to(norm.bias.dtype)


def _convolutions_before(network: Network) -> Iterable[tuple[nn.Module, nn.Conv2d]]:
    for module in network.modules():
        if isinstance(module, ResidualBlock):
            blocks = [cast("NormReLUConv", block) for block in module.convs]
            yield from ((after.norm, block.conv) for block, after in pairwise(blocks))

"""One optimisation, which can be stopped at any time.

It goes on bit for bit from its last checkpoint.
"""

import ctypes
import json
import logging
import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import torch
from torch import Tensor, nn

from model_export.augment import CPU
from model_export.config import Config, TrainingConfig
from model_export.datasets.training_file import Case
from model_export.loss import fast_loss_of_sample
from model_export.network import Network
from model_export.progress import bar_to
from model_export.sampling import Sample, counted_from, draw_case, draw_sample, to_subpixels
from model_export.served import body_window, read_of_air

log = logging.getLogger(__name__)

CHECKPOINT_EVERY_S: Final = 300.0
AIR_EVERY_STEPS: Final = 16  # how often what the network reads of air is computed anew: it moves as slowly as its weights
CHECKPOINT: Final = "checkpoint.pt"
CURVE: Final = "curve.jsonl"
_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD = -3, -1  # malloc.h


@dataclass
class Run:
    """Everything that a checkpoint holds."""

    config: Config
    network: Network
    average: Network
    optimiser: torch.optim.Optimizer
    step: int = 0
    elapsed_s: float = 0.0
    losses: list[float] = field(default_factory=list)
    origin: dict[str, str | float] = field(default_factory=dict)  # the model that it started from, with its steps and hours
    air: Tensor | None = None  # what the fully connected block reads of air, where only the body is computed

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self.network.head.conv.weight.device


def slabs_of_step(step: int, cases: Sequence[Case], config: Config, device: torch.device = CPU) -> list[Sample]:
    """What a step sees, drawn on a device.

    It depends on the seed and on the step's number alone.
    """
    training = config.training
    rng = np.random.default_rng([training.seed, step])
    drawn = [draw_case(cases, training.oar_first, rng, emphasis=training.emphasis) for _ in range(training.slabs_per_step)]
    same_way_round = config.network.same_way_round
    return [
        draw_sample(
            case, config.grid, training.slices, config.augment, rng, oar=oar, device=device, same_way_round=same_way_round
        )
        for case, oar in drawn
    ]


def keep_freed_memory() -> None:
    """Have glibc keep large arrays that were freed.

    The kernel clears each page of a new one, 0.06 of the CPU time of a step.
    """
    allocator = getattr(ctypes.CDLL(None), "mallopt", None)
    if allocator:  # another C library has none
        for parameter in (_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD):
            allocator(parameter, 2**31 - 1)


def start_run(config: Config, *, device: str = "cpu", network: Network | None = None) -> Run:
    """A fresh run, of a fresh network or a given one.

    The same seed gives the same run.
    """
    torch.manual_seed(config.training.seed)
    network = network or Network(config.network)
    cast("Any", network).to(device=device, memory_format=torch.channels_last)  # torch's types do not know it here
    return Run(
        config=config,
        network=network,
        average=deepcopy(network),
        optimiser=to_optimiser(network, network.head.conv, config.training),
    )


def to_optimiser(network: nn.Module, last_layer: nn.Module, training: TrainingConfig) -> torch.optim.Optimizer:
    """Adam with L2 in the loss as in the paper, or AdamW.

    Norms and biases are not decayed by the latter.

    Adam moves a parameter by at most the rate in a step, whatever its gradient. The last convolution's weights and biases are a
    hundred times larger than the others, and an organ that is rarely seen moves them rarely: they get a rate of their own.
    """
    parameters = list(network.parameters())
    if training.optimiser == "adam":
        return torch.optim.Adam(parameters, lr=training.learning_rate, weight_decay=2 * training.weight_decay)
    last = list(last_layer.parameters())
    body = [p for p in parameters if not any(p is other for other in last)]
    groups = [
        {"params": [p for p in body if p.dim() > 1], "weight_decay": training.weight_decay, "factor": 1.0},
        {"params": [p for p in body if p.dim() <= 1], "weight_decay": 0.0, "factor": 1.0},
        {"params": last, "weight_decay": 0.0, "factor": training.head_rate_factor},
    ]
    return torch.optim.AdamW(groups, lr=training.learning_rate, betas=(0.9, 0.99))


def train(
    run: Run,
    cases: Sequence[Case],
    folder: Path,
    *,
    hours: float | None = None,
    steps: int | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> None:
    """Train until the schedule ends.

    After `hours` of training in all (0: as it starts), or after the config's `steps`.

    `steps`, and `stop` when it says so between two steps, end it earlier without changing the schedule.
    """
    folder.mkdir(parents=True, exist_ok=True)
    started_s, saved_s = time.monotonic() - run.elapsed_s, time.monotonic()
    with bar_to(100.0, "train", "%") as tell:
        while run.step != steps and not stop():
            progress = _progress(run, hours)
            tell(round(100.0 * progress, 1))
            if progress >= 1.0:
                break
            run.losses.append(train_step(run, slabs_of_step(run.step, cases, run.config, run.device), progress))
            run.elapsed_s = time.monotonic() - started_s
            if run.step % 50 == 0:
                write_point(run, folder, progress)
            if time.monotonic() - saved_s > CHECKPOINT_EVERY_S:
                write_checkpoint(run, folder / CHECKPOINT)
                saved_s = time.monotonic()
    write_checkpoint(run, folder / CHECKPOINT)


def _progress(run: Run, hours: float | None) -> float:
    """The share of the schedule that is done.

    One of no hours is done before it begins.
    """
    if hours is None:
        return run.step / run.config.training.steps
    return run.elapsed_s / (3600.0 * hours) if hours else 1.0


def train_step(run: Run, samples: Sequence[Sample], progress: float) -> float:
    """One step of the optimiser on some slabs; the loss.

    At a share of the schedule.
    """
    config, training = run.config, run.config.training
    run.network.train(not training.fixed_norms)
    run.network.set_norm_limit(norm_limit(training, progress))
    if not sees_the_body_only(config):
        run.air = None
    elif run.air is None or run.step % AIR_EVERY_STEPS == 0:
        run.air = read_of_air(run.network)
    loss = loss_of_step(run.network, samples, config, air=run.air)
    descend(run.network, run.optimiser, loss, rate=training.rate(run.step, progress), clip_norm=training.clip_norm)
    run.step += 1
    follow(run.average, run.network, decay=training.average, step=run.step)
    return float(loss.detach())


def descend(network: nn.Module, optimiser: torch.optim.Optimizer, loss: Tensor, *, rate: float, clip_norm: float) -> None:
    """Take one step of the optimiser down a loss.

    :param rate: learning rate; a group of parameters multiplies it by its ``factor``.
    :param clip_norm: bound of the gradient's norm; 0 for none.
    """
    for group in optimiser.param_groups:
        group["lr"] = rate * group.get("factor", 1.0)
    optimiser.zero_grad(set_to_none=True)
    torch.autograd.backward(loss)
    if clip_norm:
        nn.utils.clip_grad_norm_(network.parameters(), clip_norm)
    optimiser.step()


def follow(average: nn.Module, network: nn.Module, *, decay: float, step: int) -> None:
    """Move averaged weights and running statistics towards the current ones.

    Fast at first: ``decay`` is reached after some steps; at 0 the average is the network.
    """
    share = 1.0 - (min(decay, (1 + step) / (10 + step)) if decay else 0.0)
    for mean, value in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
        mean.lerp_(value, share)  # a state dict holds detached tensors


def loss_of_step(network: Network, samples: Sequence[Sample], config: Config, *, air: Tensor | None = None) -> Tensor:
    """Mean loss over the slabs of a step.

    Logits are made only for the labelled channels, where the loss looks.

    :param air: what the fully connected block reads of air; given, only the window of the body is computed, as when it is served.
    """
    if air is not None:
        return torch.stack([_loss_in_window(network, sample, config, air) for sample in samples]).mean()
    ct_hu = torch.stack([sample.ct_hu for sample in samples])[:, None]  # (N, 1, Z + 20, Y, X)
    with _autocast(ct_hu, config):
        flat = network.features(ct_hu)  # (Z · N, C, Y, X)
        features = flat.reshape(-1, len(samples), *flat.shape[1:])  # (Z, N, C, Y, X)
        logits = [
            network.head.subpixels(features[:, index, :, *sample.window], sample.channels) for index, sample in enumerate(samples)
        ]
    return torch.stack([_loss(found, sample, config) for found, sample in zip(logits, samples, strict=True)]).mean()


def sees_the_body_only(config: Config) -> bool:
    """Whether a step computes the window of the body alone.

    Not while norms learn from what a step sees: the statistics of a body are not those of a field.
    """
    return config.network.body_only and config.training.fixed_norms


def _loss_in_window(network: Network, sample: Sample, config: Config, air: Tensor) -> Tensor:
    ct_hu = sample.ct_hu[None, None]
    window = body_window(ct_hu, air).in_numbers()
    cell = ct_hu.shape[-1] // window.size
    shown = window.rows(cell), window.columns(cell)
    seen = sample.within(*shown)
    rows, columns = map(counted_from, shown, seen.window)
    with _autocast(ct_hu, config):
        features = network.features(window.of(ct_hu, cell), window)  # (Z, C, y, x)
        if not seen.counts.numel():  # nothing that the loss looks at lies near the body
            return features.sum() * 0.0
        logits = network.head.subpixels(features[..., rows, columns], seen.channels)
    return _loss(logits, seen, config)


def _loss(logits: Tensor, sample: Sample, config: Config) -> Tensor:
    target = to_subpixels(sample.target, config.grid.upscale)
    return fast_loss_of_sample(logits, target, sample.counts[:, None, None], config.loss)


def _autocast(ct_hu: Tensor, config: Config) -> torch.autocast:
    device = ct_hu.device.type
    return torch.autocast(device, dtype=torch.bfloat16, enabled=computes_in_bfloat16(config.training, device))


def computes_in_bfloat16(training: TrainingConfig, device: str = "cpu") -> bool:
    """Whether to compute in bfloat16.

    Where a CPU has no units for it, it is many times slower than float32.
    """
    return training.bfloat16 and (device != "cpu" or cpu_has_bfloat16())


def cpu_has_bfloat16() -> bool:
    """Whether an x86 CPU has units for bfloat16.

    oneDNN's own answer is yes wherever it can compute so, in float32 at half of its speed. Other CPUs count as having none.
    """
    found = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()  # noqa: SLF001 - torch has no public name
    return bool(found)


def norm_limit(training: TrainingConfig, progress: float) -> float:
    """The limit of the norm correction at a time.

    Plain batch norm for the first 5 % of the schedule, then a linear rise to the full limit at 20 %.
    """
    share = min(max((progress - 0.05) / 0.15, 0.0), 1.0)
    return 1.0 + share * (training.norm_limit - 1.0)


def write_point(run: Run, folder: Path, progress: float) -> None:
    """One line of the curve: the mean loss of the last steps."""
    recent = run.losses[-50:]
    point = {
        "step": run.step,
        "elapsed_s": round(run.elapsed_s, 1),
        "progress": round(progress, 4),
        "loss": round(float(np.mean(recent)), 5),
        "rate": run.optimiser.param_groups[0]["lr"],
    }
    with (folder / CURVE).open("a") as file:
        file.write(json.dumps(point) + "\n")
    log.info("step %(step)d, %(elapsed_s).0f s, %(progress).3f of the schedule, loss %(loss).4f, rate %(rate).2e", point)
    del run.losses[:-50]


def write_checkpoint(run: Run, path: Path) -> None:
    """All of a run in one file.

    Written aside and then moved into place.
    """
    state: dict[str, Any] = {
        "config": asdict(run.config),
        "network": run.network.state_dict(),
        "average": run.average.state_dict(),
        "optimiser": run.optimiser.state_dict(),
        "step": run.step,
        "elapsed_s": run.elapsed_s,
        "losses": run.losses,
        "origin": run.origin,
        "air": run.air,
    }
    aside = path.with_suffix(".part")
    torch.save(state, aside)
    aside.replace(path)


def resume_run(config: Config, path: Path, *, device: str = "cpu") -> Run:
    """The run that a checkpoint holds.

    The config may differ in all that does not change the network's shape.
    """
    run = start_run(config, device=device)
    state = torch.load(path, weights_only=True, map_location=device)
    run.network.load_state_dict(state["network"])
    run.average.load_state_dict(state["average"])
    run.optimiser.load_state_dict(state["optimiser"])
    run.step, run.elapsed_s, run.losses = state["step"], state["elapsed_s"], state["losses"]
    run.origin, run.air = state.get("origin", {}), state.get("air")
    return run

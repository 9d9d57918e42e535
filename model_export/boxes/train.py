"""One optimisation of a box network.

It can be stopped at any time and goes on bit for bit from its last checkpoint.
"""

import json
import logging
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import torch
from torch import Tensor

from model_export.boxes.config import BoxConfig, BoxRun
from model_export.boxes.data import BoxCase
from model_export.boxes.network import BoxNetwork, BoxNetworkConfig
from model_export.boxes.sampling import BoxSample, draw_box, draw_box_case
from model_export.loss import fast_loss_of_sample
from model_export.progress import bar_to
from model_export.train import computes_in_bfloat16, descend, follow, norm_limit, to_optimiser

log = logging.getLogger(__name__)

CHECKPOINT: Final = "checkpoint.pt"
CURVE: Final = "curve.jsonl"
CHECKPOINT_EVERY_S: Final = 120.0
POINT_EVERY: Final = 100


@dataclass
class BoxTraining:
    """Everything that a checkpoint holds."""

    run: BoxRun
    network: BoxNetwork
    average: BoxNetwork
    optimiser: torch.optim.Optimizer
    step: int = 0
    cpu_s: float = 0.0
    losses: list[float] = field(default_factory=list)

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.network.parameters()).device


@dataclass(frozen=True, slots=True)
class Trained:
    """What a checkpoint is to who draws with it.

    Its averaged network, and what that one cost.
    """

    network: BoxNetwork
    step: int
    cpu_s: float


def read_trained(path: Path, box: BoxConfig) -> Trained:
    """The network of a checkpoint, as wide as its own run says.

    :raises ValueError: if it was trained for other organs than the box has.
    """
    state = torch.load(path, weights_only=True, map_location="cpu")
    if tuple(organs := state["run"]["box"]["organs"]) != box.organs:
        msg = f"{path} draws {', '.join(organs)}, not {', '.join(box.organs)}"
        raise ValueError(msg)
    network = BoxNetwork(BoxNetworkConfig(**state["run"]["network"]))
    network.load_state_dict(state["average"])
    return Trained(network, state["step"], state["cpu_s"])


def start_box_training(run: BoxRun, *, device: str = "cpu") -> BoxTraining:
    """A fresh training; the same seed gives the same one."""
    torch.manual_seed(run.training.seed)
    network = BoxNetwork(run.network)
    cast("Any", network).to(device=device, memory_format=torch.channels_last)  # torch's types do not know it here
    return BoxTraining(run, network, deepcopy(network), to_optimiser(network, network.head.conv, run.training))


def boxes_of_step(step: int, cases: Sequence[BoxCase], run: BoxRun) -> list[BoxSample]:
    """What a step sees.

    It depends on the seed and on the step's number alone.
    """
    rng = np.random.default_rng([run.training.seed, step])
    count = run.training.slabs_per_step
    return [draw_box(draw_box_case(cases, run.sampling.expert_share, rng), run, rng) for _ in range(count)]


def drawn_ahead(
    first: int, last: int, cases: Sequence[BoxCase], run: BoxRun, workers: int
) -> Generator[list[BoxSample], None, None]:
    """The boxes of each step in turn.

    With workers, threads draw some steps ahead while a GPU computes.
    """
    if not workers:
        yield from (boxes_of_step(step, cases, run) for step in range(first, last))
        return
    with ThreadPoolExecutor(workers) as pool:
        begun: deque[Future[list[BoxSample]]] = deque()
        for step in range(first, last):
            begun.append(pool.submit(boxes_of_step, step, cases, run))
            if len(begun) > 2 * workers:
                yield begun.popleft().result()
        yield from (future.result() for future in begun)


def train_boxes(
    training: BoxTraining,
    cases: Sequence[BoxCase],
    folder: Path,
    *,
    stop: Callable[[], bool] = lambda: False,
    until: int | None = None,
    workers: int = 0,
) -> None:
    """Train until the config's last step, or one before it.

    `stop` may end it between two steps.

    :param workers: threads that draw boxes ahead; without any they are drawn between two steps.
    """
    folder.mkdir(parents=True, exist_ok=True)
    last, saved_s, begun_s = training.run.training.steps, time.monotonic(), time.process_time() - training.cpu_s
    steps = drawn_ahead(training.step, min(last, until or last), cases, training.run, workers)
    with bar_to(float(last), "train", "step") as tell, closing(steps):
        while not stop() and (boxes := next(steps, None)) is not None:
            training.losses.append(train_box_step(training, boxes))
            training.cpu_s = time.process_time() - begun_s
            tell(float(training.step))
            if training.step % POINT_EVERY == 0:
                _write_point(training, folder)
            if time.monotonic() - saved_s > CHECKPOINT_EVERY_S:
                write_box_checkpoint(training, folder / CHECKPOINT)
                saved_s = time.monotonic()
    write_box_checkpoint(training, folder / CHECKPOINT)


def train_box_step(training: BoxTraining, samples: Sequence[BoxSample]) -> float:
    """One step of the optimiser on some boxes; returns the loss."""
    config = training.run.training
    progress = training.step / config.steps
    training.network.train(not config.fixed_norms)
    training.network.set_norm_limit(norm_limit(config, progress))
    loss = loss_of_boxes(training.network, samples, training.run)
    rate = config.rate(training.step, progress)
    descend(training.network, training.optimiser, loss, rate=rate, clip_norm=config.clip_norm)
    training.step += 1
    follow(training.average, training.network, decay=config.average, step=training.step)
    return float(loss.detach())


def loss_of_boxes(network: BoxNetwork, samples: Sequence[BoxSample], run: BoxRun) -> Tensor:
    """Mean over the boxes of the weighted mean over their labelled organs."""
    device = next(network.parameters()).device
    ct_hu = torch.stack([sample.ct_hu for sample in samples])[:, None].to(device)  # (N, 1, Z, Y, X)
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=computes_in_bfloat16(run.training, device.type)):
        logits = network(ct_hu)  # (N, organs, Z, y, x)
    losses = []
    for found, sample in zip(logits, samples, strict=True):
        for place, organ in enumerate(sample.organs):
            one, target, counts = found[organ : organ + 1], sample.target[place : place + 1], sample.counts[place : place + 1]
            loss = fast_loss_of_sample(one, target.to(device), counts.to(device), run.loss)
            losses.append(loss * sample.weights[place])
    return torch.stack(losses).sum() / (len(samples) * len(run.box.organs))


def _write_point(training: BoxTraining, folder: Path) -> None:
    recent = training.losses[-POINT_EVERY:]
    point = {
        "step": training.step,
        "cpu_s": round(training.cpu_s, 1),
        "loss": round(float(np.mean(recent)), 5),
        "rate": training.optimiser.param_groups[0]["lr"],
    }
    with (folder / CURVE).open("a") as file:
        file.write(json.dumps(point) + "\n")
    log.info("step %(step)d, %(cpu_s).0f CPU s, loss %(loss).4f, rate %(rate).2e", point)
    del training.losses[:-POINT_EVERY]


def write_box_checkpoint(training: BoxTraining, path: Path) -> None:
    """All of a training in one file.

    Written aside and then moved into place.
    """
    state: dict[str, Any] = {
        "run": asdict(training.run),
        "network": training.network.state_dict(),
        "average": training.average.state_dict(),
        "optimiser": training.optimiser.state_dict(),
        "step": training.step,
        "cpu_s": training.cpu_s,
        "losses": training.losses,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(".part")
    torch.save(state, aside)
    aside.replace(path)


def resume_box_training(run: BoxRun, path: Path, *, device: str = "cpu", afresh: bool = False) -> BoxTraining:
    """The training that a checkpoint holds.

    `afresh` keeps its weights and their optimiser but begins the schedule again.
    """
    training = start_box_training(run, device=device)
    state = torch.load(path, weights_only=True, map_location=device)
    training.network.load_state_dict(state["network"])
    training.average.load_state_dict(state["average"])
    training.optimiser.load_state_dict(state["optimiser"])
    training.cpu_s = state["cpu_s"]
    if not afresh:
        training.step, training.losses = state["step"], state["losses"]
    return training

"""A training run, read from TOML.

Every number that shapes the network or its training is in ``configs/*.toml``.
"""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model_export.augment import AugmentConfig
from model_export.loss import LossConfig
from model_export.network import NetworkConfig
from model_export.sampling import GridConfig
from oarlock.organs.catalogue import OARS


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """One optimisation. `milestones` are (step, factor) pairs.

    Without any the rate warms up and follows a cosine to zero.
    """

    slices: int  # predicted slices per slab
    slabs_per_step: int
    steps: int  # the schedule's length where it is not given in hours
    optimiser: str  # "adam": L2 in the loss; "adamw": decoupled
    learning_rate: float
    weight_decay: float
    head_rate_factor: float = 1.0  # AdamW only: how much faster the last convolution learns
    milestones: tuple[tuple[int, float], ...] = ()
    warm_up: float = 0.0  # share of the schedule
    average: float = 0.0  # decay of the moving average of the weights; 0: none
    oar_first: float = 0.0  # share of the slabs for which an OAR is drawn first, then one of the scans that show it
    emphasis: tuple[str, ...] = ()  # OARs that those slabs are centred on three times as often as on others
    clip_norm: float = 0.0
    norm_limit: float = 1.0
    fixed_norms: bool = False  # a step normalises as inference does: for a network that has been trained already
    bfloat16: bool = False  # where the CPU has units for it
    seed: int = 1

    def rate(self, step: int, progress: float) -> float:
        """Learning rate at a step and a share of the schedule.

        The share is in [0, 1].
        """
        if self.milestones:
            factors = [factor for start, factor in self.milestones if step >= start]
            return self.learning_rate * (factors[-1] if factors else 1.0)
        warm = min(1.0, progress / self.warm_up) if self.warm_up else 1.0
        return self.learning_rate * warm * _half_cosine(progress)


@dataclass(frozen=True, kw_only=True)
class Config:
    """A whole run."""

    grid: GridConfig
    network: NetworkConfig
    loss: LossConfig
    augment: AugmentConfig
    training: TrainingConfig


def read_config(path: Path, overrides: dict[str, dict[str, Any]] | None = None) -> Config:
    """A run from TOML.

    `overrides` replaces single keys by table, so that a test can shrink a run.
    """
    tables: dict[str, dict[str, Any]] = tomllib.loads(path.read_text(encoding="utf-8"))
    for table, keys in (overrides or {}).items():
        tables[table].update(keys)
    return to_config(tables)


def to_config(tables: dict[str, dict[str, Any]]) -> Config:
    """Tables of a TOML file to a run.

    An unknown key is a TypeError.
    """
    parts = {name: {key: _frozen(value) for key, value in table.items()} for name, table in tables.items()}
    size, upscale = parts["grid"]["size"], parts["grid"]["upscale"]
    network = NetworkConfig(size=size, upscale=upscale, outputs=len(OARS), **parts["network"])
    return Config(
        grid=GridConfig(context_slices=network.context_slices, **parts["grid"]),
        network=network,
        loss=LossConfig(**parts["loss"]),
        augment=AugmentConfig(**parts["augment"]),
        training=TrainingConfig(**parts["training"]),
    )


def _frozen(value: Any) -> Any:
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value


def _half_cosine(progress: float) -> float:
    from math import cos, pi

    return 0.5 * (1.0 + cos(pi * min(max(progress, 0.0), 1.0)))

"""A box network's run, read from TOML.

Where its box lies, what it draws, how it is trained.
"""

import tomllib
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from model_export.augment import AugmentConfig
from model_export.boxes.network import BoxNetworkConfig
from model_export.boxes.things import ThingsConfig
from model_export.config import TrainingConfig
from model_export.loss import LossConfig
from oarlock.organs.catalogue import BY_NAME, other_side

F32 = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class BoxConfig:
    """A box on the patient's axes (z, y, x).

    From foot to head, front to back, the patient's right to left.

    ``organs`` are those that the network draws: the left one of each pair, and unpaired ones. The right ones are drawn on the
    mirror image of the box. ``anchors`` gives, for each organ that the box is laid by, the offset (z, y, x) in mm from the
    organ's middle to the middle of the box; the box lies at the mean over those that were found. ``hidden_columns`` are columns
    on the patient's right that the network is not shown: what lies there belongs to the mirror image. ``shares`` are of the
    organs that the served box draws together with its finder (docs/models.md). ``smoothing_sd_voxels`` is of the Gaussian that
    the served box lays over its probabilities in plane, in voxels of its output; 0 is none.
    """

    name: str
    organs: tuple[str, ...]
    anchors: dict[str, tuple[float, float, float]]
    size: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    upscale: int
    hidden_columns: int = 0
    smoothing_sd_voxels: float = 0.0
    thresholds: dict[str, float] = field(default_factory=dict)  # by organ, both sides; else 0.5
    shares: dict[str, float] = field(default_factory=dict)  # by organ, both sides; else drawn by the box alone

    def __post_init__(self) -> None:
        if self.smoothing_sd_voxels < 0:
            msg = f"a Gaussian of {self.smoothing_sd_voxels} voxels"
            raise ValueError(msg)

    @cached_property
    def mirrored_organs(self) -> tuple[str, ...]:
        """The same organs on the other side."""
        return tuple(other_side(BY_NAME[name]).name for name in self.organs)

    @cached_property
    def drawn_organs(self) -> tuple[str, ...]:
        """What a served network gives, in the order of its channels.

        The left of a pair, then its right.
        """
        pairs = zip(self.organs, self.mirrored_organs, strict=True)
        return tuple(dict.fromkeys(name for pair in pairs for name in pair))

    def positions_mm(self, *, fine: bool, shown: bool = False) -> tuple[F32, F32, F32]:
        """Voxel centres along z, y and x.

        In mm from the middle of the box; of the shown columns, or of all.
        """
        factors = (1, self.upscale, self.upscale) if fine else (1, 1, 1)
        found = []
        for axis, (count, step, factor) in enumerate(zip(self.size, self.spacing_mm, factors, strict=True)):
            places = (np.arange(count * factor) - (count * factor - 1) / 2) * (step / factor)
            found.append(places[self.hidden_columns * factor :] if shown and axis == 2 else places)
        z, y, x = (places.astype(np.float32) for places in found)
        return z, y, x


@dataclass(frozen=True, kw_only=True)
class BoxSamplingConfig:
    """How boxes are drawn for training.

    The finder errs: the middle of a box is off by a normal deviate of ``jitter_sd_mm``, and in ``lost_probability`` of the
    samples by up to ``lost_mm`` along each axis. ``expert_share`` of the samples show experts' contours. A transferred label
    weighs ``transferred_weight`` where an expert's weighs 1. Axes (z, y, x).
    """

    jitter_sd_mm: tuple[float, float, float] = (3.0, 3.0, 3.0)
    lost_probability: float = 0.1
    lost_mm: float = 25.0
    expert_share: float = 0.3
    transferred_weight: float = 0.5
    tilt_deg: float = 0.0  # rotation out of the axial plane


@dataclass(frozen=True, kw_only=True)
class BoxRun:
    """A whole run."""

    box: BoxConfig
    network: BoxNetworkConfig
    sampling: BoxSamplingConfig
    augment: AugmentConfig
    things: ThingsConfig
    loss: LossConfig
    training: TrainingConfig


def read_box_run(path: Path, overrides: dict[str, dict[str, Any]] | None = None) -> BoxRun:
    """A run from TOML.

    `overrides` replaces single keys by table, so that a test can shrink a run.
    """
    tables: dict[str, dict[str, Any]] = tomllib.loads(path.read_text(encoding="utf-8"))
    for table, keys in (overrides or {}).items():
        tables[table].update(keys)
    return to_box_run(tables)


def to_box_run(tables: dict[str, dict[str, Any]]) -> BoxRun:
    """Tables of a TOML file to a run.

    An unknown key is a TypeError.
    """
    parts = {name: {key: _frozen(value) for key, value in table.items()} for name, table in tables.items()}
    box = BoxConfig(**parts["box"])
    return BoxRun(
        box=box,
        network=BoxNetworkConfig(outputs=len(box.organs), upscale=box.upscale, **parts["network"]),
        sampling=BoxSamplingConfig(**parts["sampling"]),
        augment=AugmentConfig(**parts["augment"]),
        things=ThingsConfig(**parts["things"]),
        loss=LossConfig(**parts["loss"]),
        training=TrainingConfig(**parts["training"]),
    )


def _frozen(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _frozen(item) for key, item in value.items()}
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value

"""What lies on and around a patient.

It is in no training scan: it is painted onto the air of a box, touching the skin.

Thermoplastic masks, bolus, gel pads, tubes, head rests and hands come in all shapes; what a network has to learn is that nothing
outside of the skin is an organ, whatever its density. So the shapes are simple and their HU vary widely.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from model_export.augment import F32, Generator
from oarlock.geometry.body import BODY_HU
from oarlock.geometry.components import largest_piece

FARTHEST_MM = 100.0


@dataclass(frozen=True, kw_only=True)
class ThingsConfig:
    """How often each kind of thing is seen in a box."""

    mask: float = 0.0
    bolus: float = 0.0
    pad: float = 0.0
    tube: float = 0.0
    rest: float = 0.0


def distance_to_skin(hu: F32, spacing_mm: tuple[float, float, float]) -> F32:
    """Distance of each voxel (z, y, x) to the body, mm.

    0 in the body and in what it encloses within a slice.
    """
    body = largest_piece(hu > BODY_HU)
    if not body.any():
        return np.full(hu.shape, FARTHEST_MM, np.float32)
    filled = np.stack([ndimage.binary_fill_holes(plane) for plane in body])
    found: F32 = ndimage.distance_transform_edt(~filled, sampling=spacing_mm).astype(np.float32)
    return np.minimum(found, np.float32(FARTHEST_MM))


@dataclass(frozen=True)
class Scene:
    """A box's air and skin.

    The distance to the skin (z, y, x) in mm, 0 in the body, and where its voxels lie in mm.
    """

    skin_mm: Tensor
    places: tuple[F32, F32, F32]

    @cached_property
    def axes(self) -> tuple[Tensor, Tensor, Tensor]:
        """The places along z, y and x.

        Each is to be spread over the other two axes.
        """
        z, y, x = (torch.from_numpy(place) for place in self.places)
        return z.view(-1, 1, 1), y.view(1, -1, 1), x.view(1, 1, -1)

    def soft(self, depth_mm: Tensor) -> Tensor:
        """The share of a voxel within an edge: 0.5 on it."""
        return (depth_mm / float(self.places[2][1] - self.places[2][0]) + 0.5).clamp(0.0, 1.0)

    def mixed(self, hu: Tensor, cover: Tensor, value: float) -> Tensor:
        """A thing's HU where it covers air; nothing within the body changes."""
        return torch.where(self.skin_mm > 0, torch.lerp(hu, torch.full_like(hu, value), cover.expand_as(hu)), hu)

    def offsets_from_skin(self, rng: Generator) -> list[Tensor]:
        """Offsets (z, y, x) from a random place of the skin."""
        at = _on_skin(self.skin_mm, rng)
        return [axis - float(place[index]) for axis, place, index in zip(self.axes, self.places, at, strict=True)]


def paint_things(hu: Tensor, scene: Scene, config: ThingsConfig, rng: Generator) -> Tensor:
    """The box (z, y, x) in HU with some things on it."""
    for paint, probability in (
        (_mask, config.mask),
        (_bolus, config.bolus),
        (_pad, config.pad),
        (_tube, config.tube),
        (_rest, config.rest),
    ):
        if rng.random() < probability:
            hu = paint(hu, scene, rng)
    return hu


def _mask(hu: Tensor, scene: Scene, rng: Generator) -> Tensor:
    """A shell of thermoplast that follows the skin."""
    gap, thickness = rng.uniform(0.0, 4.0), rng.uniform(1.5, 4.0)
    cover = scene.soft(scene.skin_mm - gap) * scene.soft(gap + thickness - scene.skin_mm)
    return scene.mixed(hu, cover, rng.uniform(-150.0, 250.0))


def _bolus(hu: Tensor, scene: Scene, rng: Generator) -> Tensor:
    """A sheet around one place, as dense as tissue."""
    z, y, x = scene.offsets_from_skin(rng)
    near = torch.sqrt(z**2 + y**2 + x**2)
    cover = scene.soft(rng.uniform(4.0, 16.0) - scene.skin_mm) * scene.soft(rng.uniform(20.0, 60.0) - near)
    return scene.mixed(hu, cover, rng.uniform(-120.0, 120.0))


def _pad(hu: Tensor, scene: Scene, rng: Generator) -> Tensor:
    """A cushion of gel on one side of the head."""
    way = rng.normal(size=3) * [0.3, 1.0, 1.0]
    z, y, x = (axis * float(part) for axis, part in zip(scene.axes, way / np.linalg.norm(way), strict=True))
    cover = scene.soft(rng.uniform(10.0, 60.0) - scene.skin_mm) * scene.soft(z + y + x - rng.uniform(-20.0, 40.0))
    return scene.mixed(hu, cover, rng.uniform(-200.0, 150.0))


def _tube(hu: Tensor, scene: Scene, rng: Generator) -> Tensor:
    """A pipe that lies on the skin: a wall of plastic, air within."""
    z, y, x = scene.offsets_from_skin(rng)
    way = rng.normal(size=3)
    a, b, c = (float(part) for part in way / np.linalg.norm(way))
    away = torch.sqrt(torch.clamp(z**2 + y**2 + x**2 - (z * a + y * b + x * c) ** 2, min=0.0))
    radius = rng.uniform(3.0, 10.0)
    hu = scene.mixed(hu, scene.soft(radius - away), rng.uniform(0.0, 400.0))
    return scene.mixed(hu, scene.soft(radius - rng.uniform(1.5, 3.0) - away), -1000.0)


def _rest(hu: Tensor, scene: Scene, rng: Generator) -> Tensor:
    """A head rest or couch behind the patient: a shell, and foam behind it."""
    depth = scene.axes[1] - float(scene.places[1][_last_row(scene.skin_mm)]) - rng.uniform(0.0, 10.0)
    shell = scene.soft(depth) * scene.soft(rng.uniform(2.0, 5.0) - depth)
    hu = scene.mixed(hu, shell, rng.uniform(-100.0, 300.0))
    return scene.mixed(hu, scene.soft(depth - 4.0), rng.uniform(-980.0, -750.0))


def _on_skin(skin_mm: Tensor, rng: Generator) -> tuple[int, int, int]:
    """The index of a random voxel of air next to the body; the middle where there is none."""
    found = torch.nonzero((skin_mm > 0) & (skin_mm < 6.0))
    if not len(found):
        z, y, x = skin_mm.shape
        return z // 2, y // 2, x // 2
    z, y, x = (int(index) for index in found[int(rng.integers(len(found)))])
    return z, y, x


def _last_row(skin_mm: Tensor) -> int:
    """The backmost row that shows the body."""
    rows = torch.nonzero((skin_mm == 0).any(2).any(0)).flatten()
    return int(rows[-1]) if len(rows) else skin_mm.shape[1] - 1

"""Random deformations and intensity changes.

Those of Nikolov et al. 2021, Methods, and what the shipped model adds.

All spatial changes become one dense deformation, applied once. Deformations are in plane, as in the paper; the stretch along z
is ours. Positions are millimetres from the middle of the field of view, x to the patient's left, y to the back.
"""

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

CPU: Final = torch.device("cpu")

F32 = npt.NDArray[np.float32]
Generator = np.random.Generator


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Half-widths of uniform draws, standard deviations, and probabilities.

    The paper's values are in ``configs/paper.toml``.
    """

    translation_mm: float = 0.0
    rotation_deg: float = 0.0
    scale: tuple[float, float] = (1.0, 1.0)
    shear: float = 0.0
    elastic_sd_mm: float = 0.0
    elastic_grid_mm: float = 100.0
    noise_sd_hu: float = 0.0
    mirror_probability: float = 0.0
    stretch_z: tuple[float, float] = (1.0, 1.0)  # ours, as is all below
    shift_hu: float = 0.0
    cut_probability: float = 0.0
    blur_probability: float = 0.0
    blur_sd_voxels: float = 0.7


@dataclass(frozen=True)
class Deformation:
    """Where in the source each place of the output comes from.

    An affine map in plane plus a cubic B-spline field.
    """

    matrix: F32  # (2, 2), applied to (y, x)
    translation_mm: F32  # (2,)
    control_mm: F32  # (2, z, y, x) displacements at the control points
    control_spacing_mm: float
    stretch_z: float
    mirror: bool

    def in_plane(self, z_mm: F32, y_mm: F32, x_mm: F32, device: torch.device = CPU) -> Tensor:
        """Source positions (y, x) in mm of a grid of output positions.

        (2, Z, Y, X), computed on a device.
        """
        y, x = np.meshgrid(y_mm, -x_mm if self.mirror else x_mm, indexing="ij")
        affine = np.einsum("ij,jyx->iyx", self.matrix, np.stack([y, x])) + self.translation_mm[:, None, None]
        placed = torch.from_numpy(affine.astype(np.float32)).to(device)[:, None].expand(-1, len(z_mm), -1, -1)
        return placed + self._elastic(z_mm, y_mm, x_mm, device) if self.control_mm.any() else placed

    def _elastic(self, z_mm: F32, y_mm: F32, x_mm: F32, device: torch.device) -> Tensor:
        """Displacements (2, Z, Y, X) in mm; a tensor product of three one-dimensional splines."""
        field = torch.from_numpy(self.control_mm).to(device)
        for axis, positions in enumerate((z_mm, y_mm, x_mm), start=1):
            basis = torch.from_numpy(spline_basis(positions / self.control_spacing_mm, field.shape[axis])).to(device)
            field = torch.tensordot(field, basis, dims=([axis], [1])).movedim(-1, axis)
        return field


def draw_deformation(config: AugmentConfig, rng: Generator, *, extent_mm: tuple[float, float, float]) -> Deformation:
    """One random deformation for a field of view.

    The field is (z, y, x) mm.
    """
    angle = math.radians(rng.uniform(-config.rotation_deg, config.rotation_deg))
    shear_y, shear_x = rng.uniform(-config.shear, config.shear, 2)
    rotate = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    matrix = rotate @ np.array([[1.0, shear_y], [shear_x, 1.0]]) / rng.uniform(*config.scale)
    points = [2 * math.ceil(extent / 2 / config.elastic_grid_mm) + 5 for extent in extent_mm]
    return Deformation(
        matrix=matrix.astype(np.float32),
        translation_mm=rng.uniform(-config.translation_mm, config.translation_mm, 2).astype(np.float32),
        control_mm=rng.normal(0.0, config.elastic_sd_mm, (2, *points)).astype(np.float32),
        control_spacing_mm=config.elastic_grid_mm,
        stretch_z=rng.uniform(*config.stretch_z),
        mirror=bool(rng.random() < config.mirror_probability),
    )


def spline_basis(positions: F32, points: int) -> F32:
    """Weights (positions, points) of a uniform cubic B-spline.

    Positions count control points from the middle one.
    """
    distance = np.abs(positions[:, None] + (points - 1) / 2 - np.arange(points)[None, :])
    near = 2 / 3 - distance**2 + distance**3 / 2
    far = np.clip(2.0 - distance, 0.0, None) ** 3 / 6
    weights: F32 = np.where(distance < 1.0, near, far).astype(np.float32)
    return weights


def change_intensities(hu: Tensor, config: AugmentConfig, rng: Generator) -> Tensor:
    """Blur, shift and noise, in that order.

    (z, y, x) HU. The noise depends on the generator and on the kind of device.
    """
    if rng.random() < config.blur_probability:
        hu = blur(hu, rng.uniform(0.0, config.blur_sd_voxels))
    shift = rng.uniform(-config.shift_hu, config.shift_hu)
    generator = torch.Generator(hu.device).manual_seed(int(rng.integers(1 << 62)))
    noise = torch.randn(hu.shape, generator=generator, device=hu.device)
    return (hu + shift + config.noise_sd_hu * noise).clamp_(min=-1000.0)


def blur(hu: Tensor, sd_voxels: float) -> Tensor:
    """A three-tap smoothing along y and x.

    With the variance of a Gaussian of this width.
    """
    side = min(sd_voxels**2 / 2, 0.25)
    for axis in (1, 2):
        count = hu.shape[axis]
        padded = torch.cat([hu.narrow(axis, 0, 1), hu, hu.narrow(axis, count - 1, 1)], dim=axis)
        hu = side * (padded.narrow(axis, 0, count) + padded.narrow(axis, 2, count)) + (1 - 2 * side) * hu
    return hu


def draw_cut(shape: tuple[int, int, int], config: AugmentConfig, rng: Generator) -> npt.NDArray[np.bool_] | None:
    """What stays known when a part of a scan is taken away.

    Half-spaces along one to three axes, as OpenKBP took them away.
    """
    if rng.random() >= config.cut_probability:
        return None
    kept = np.ones(shape, np.bool_)
    for axis in rng.permutation(3)[: rng.integers(1, 4)]:
        count = int(rng.uniform(0.1, 0.4) * shape[axis])
        index: list[Any] = [slice(None)] * 3
        index[axis] = slice(0, count) if rng.random() < 0.5 else slice(shape[axis] - count, None)
        kept[tuple(index)] = False
    return kept

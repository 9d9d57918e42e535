"""What one step sees of a scan.

A turned, stretched, bent and shifted box, with its labels at the output's fineness.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from model_export.augment import F32, AugmentConfig, Generator, change_intensities, draw_cut, spline_basis
from model_export.boxes.config import BoxRun
from model_export.boxes.data import TRANSFERRED, BoxCase, BoxLabel
from model_export.boxes.things import FARTHEST_MM, Scene, paint_things
from model_export.datasets.training_file import AIR_HU, HU_OF_CODE

FAR_VOXELS: Final = 3
THING_HU: Final = 50.0
BESIDE_SKIN_MM: Final = 2.0
"""A thing counts where it changed the air by so much, and from so far outside of the skin on."""


@dataclass(frozen=True)
class BoxSample:
    """One box as its network is shown it.

    The left side, whichever it was.

    ``ct_hu`` (Z, Y, X); ``organs`` the places among the network's outputs of those that are labelled, ``weights`` what they
    weigh; ``target`` (organs, Z, y, x) shares on the output's lattice and ``counts`` where they count.
    """

    ct_hu: Tensor
    organs: tuple[int, ...]
    weights: tuple[float, ...]
    target: Tensor
    counts: Tensor


@dataclass(frozen=True)
class Placement:
    """Where in a scan a box lies.

    A place is its offset from the box's middle, mirrored if asked, turned, bent, and moved.
    """

    middle_mm: F32  # (3,)
    matrix: F32  # (3, 3)
    control_mm: F32  # (3, z, y, x) displacements at control points
    control_spacing_mm: float
    mirror: bool

    def in_scan(self, axes_mm: Sequence[F32]) -> Tensor:
        """Places (3, Z, Y, X) of a lattice of offsets.

        In mm from the scan's outer corner.
        """
        z, y, x = axes_mm
        grid = torch.from_numpy(np.stack(np.meshgrid(z, y, -x if self.mirror else x, indexing="ij")))
        places = torch.einsum("ij,jzyx->izyx", torch.from_numpy(self.matrix), grid)
        places += torch.from_numpy(self.middle_mm).view(3, 1, 1, 1)
        return places + self._elastic(axes_mm) if self.control_mm.any() else places

    def _elastic(self, axes_mm: Sequence[F32]) -> Tensor:
        field = torch.from_numpy(self.control_mm)
        for axis, positions in enumerate(axes_mm, start=1):
            basis = torch.from_numpy(spline_basis(positions / self.control_spacing_mm, field.shape[axis]))
            field = torch.tensordot(field, basis, dims=([axis], [1])).movedim(-1, axis)
        return field


def draw_box_case(cases: Sequence[BoxCase], expert_share: float, rng: Generator) -> BoxCase:
    """A scan, in a share of the draws one of the experts'."""
    experts = [case for case in cases if case.is_expert]
    pool = experts if experts and rng.random() < expert_share else cases
    return pool[int(rng.integers(len(pool)))]


def draw_placement(case: BoxCase, run: BoxRun, rng: Generator) -> Placement:
    """A random place near a case's box, as a finder errs."""
    sampling, augment = run.sampling, run.augment
    middle = np.array(case.middle_mm) + rng.normal(0.0, sampling.jitter_sd_mm)
    if rng.random() < sampling.lost_probability:
        middle = middle + rng.uniform(-sampling.lost_mm, sampling.lost_mm, 3)
    extents = [count * step for count, step in zip(run.box.size, run.box.spacing_mm, strict=True)]
    points = [2 * math.ceil(extent / 2 / augment.elastic_grid_mm) + 5 for extent in extents]
    return Placement(
        middle_mm=middle.astype(np.float32),
        matrix=_draw_matrix(augment, sampling.tilt_deg, rng).astype(np.float32),
        control_mm=rng.normal(0.0, augment.elastic_sd_mm, (3, *points)).astype(np.float32),
        control_spacing_mm=augment.elastic_grid_mm,
        mirror=bool(rng.random() < augment.mirror_probability),
    )


def no_placement(case: BoxCase, *, mirror: bool = False, middle_mm: Sequence[float] | None = None) -> Placement:
    """The box as it is served."""
    none: npt.NDArray[Any] = np.zeros((3, 1, 1, 1), np.float32)
    middle = np.asarray(case.middle_mm if middle_mm is None else middle_mm, np.float32)
    return Placement(middle, np.eye(3, dtype=np.float32), none, 100.0, mirror=mirror)


def _draw_matrix(augment: AugmentConfig, tilt_deg: float, rng: Generator) -> npt.NDArray[np.float64]:
    """Turn about z by as much as the config says, about the other axes by the tilt; stretch and shear."""
    matrix = np.eye(3)
    for axes, limit in (((1, 2), augment.rotation_deg), ((0, 1), tilt_deg), ((0, 2), tilt_deg)):
        angle, turn = math.radians(rng.uniform(-limit, limit)), np.eye(3)
        turn[np.ix_(axes, axes)] = [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
        matrix = matrix @ turn
    shear = np.eye(3)
    shear[1, 2], shear[2, 1] = rng.uniform(-augment.shear, augment.shear, 2)
    in_plane = rng.uniform(*augment.scale)
    stretch = [rng.uniform(*augment.stretch_z), in_plane * rng.uniform(0.95, 1.05), in_plane * rng.uniform(0.95, 1.05)]
    return np.asarray(matrix @ shear @ np.diag(stretch))


def draw_box(case: BoxCase, run: BoxRun, rng: Generator) -> BoxSample:
    """A random box of a case, as a step sees it."""
    placement = draw_placement(case, run, rng)
    if not labelled_outputs(case, run, mirror=placement.mirror):
        placement = replace(placement, mirror=not placement.mirror)
    axes = run.box.positions_mm(fine=False, shown=True)
    hu, known, skin_mm = see(case, placement.in_scan(axes), with_skin=True)
    bare, hu = hu, paint_things(hu, Scene(skin_mm, axes), run.things, rng)
    things = ((hu - bare).abs() > THING_HU) & (skin_mm > BESIDE_SKIN_MM)
    kept = draw_cut((hu.shape[0], hu.shape[1], hu.shape[2]), run.augment, rng)
    if kept is not None:
        known, things = known * torch.from_numpy(kept), things & torch.from_numpy(kept)
        hu = torch.where(torch.from_numpy(kept), hu, torch.full_like(hu, AIR_HU))
    ct_hu = change_intensities(hu, run.augment, rng)
    if kept is not None:
        ct_hu = torch.where(torch.from_numpy(kept), ct_hu, torch.full_like(hu, AIR_HU))
    inside = known > 0.99
    near = functional.max_pool3d(inside[None].float(), 2 * FAR_VOXELS + 1, 1, FAR_VOXELS)[0] > 0
    return _labelled_box(case, run, placement, ct_hu, (inside, ~near | things))


def see(case: BoxCase, places: Tensor, *, with_skin: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """HU, known share and distance to the skin at some places.

    Places are (3, Z, Y, X), distances mm; air outside.
    """
    codes = torch.from_numpy(case.ct)
    layers = [torch.from_numpy(HU_OF_CODE - np.float32(AIR_HU))[codes.long()], (codes > 0).float()]
    if with_skin:
        layers.append(FARTHEST_MM - torch.from_numpy(case.skin_mm))
    where = _normalised(places, [count * step for count, step in zip(case.ct.shape, case.spacing_mm, strict=True)])
    found = functional.grid_sample(torch.stack(layers)[None], where[None], align_corners=False, padding_mode="zeros")[0]
    skin = FARTHEST_MM - found[2] if with_skin else torch.zeros_like(found[0])
    return found[0] + AIR_HU, found[1], torch.where(skin < 0.5, torch.zeros_like(skin), skin)


def _normalised(places: Tensor, extents: Sequence[float]) -> Tensor:
    """Places (3, …) in mm to positions (…, 3) for grid_sample: x first, outer edges at -1 and 1."""
    return torch.stack([2 * places[axis] / extents[axis] - 1 for axis in (2, 1, 0)], dim=-1)


def _labelled_box(case: BoxCase, run: BoxRun, placement: Placement, ct_hu: Tensor, seen: tuple[Tensor, Tensor]) -> BoxSample:
    """A box with its labels.

    :param seen: (z, y, x) where the CT is known, and where every organ is absent: far from known CT, and in things, for
        OpenKBP's air counts as unknown up to the skin.
    """
    labelled = labelled_outputs(case, run, mirror=placement.mirror)
    places = placement.in_scan(run.box.positions_mm(fine=True, shown=True))
    upscale = run.box.upscale
    inner, absent = (mask.repeat_interleave(upscale, 1).repeat_interleave(upscale, 2) for mask in seen)
    target = torch.stack([shares_at(label, case, places) for _, label in labelled])
    counts = torch.stack([(inner & _in_slices(label, case, places)) | absent for _, label in labelled])
    weights = [run.sampling.transferred_weight if label.source == TRANSFERRED else 1.0 for _, label in labelled]
    return BoxSample(ct_hu, tuple(index for index, _ in labelled), tuple(weights), target * inner, counts)


def labelled_outputs(case: BoxCase, run: BoxRun, *, mirror: bool) -> list[tuple[int, BoxLabel]]:
    """The network's outputs that a case has a label for.

    On the side that it is shown.
    """
    names = run.box.mirrored_organs if mirror else run.box.organs
    return [(index, case.by_organ[name]) for index, name in enumerate(names) if name in case.by_organ]


def shares_at(label: BoxLabel, case: BoxCase, places: Tensor) -> Tensor:
    """The organ's shares at some places (3, Z, Y, X).

    Interpolated; computed only where it is.
    """
    steps = [case.spacing_mm[0], case.spacing_mm[1] / label.factor, case.spacing_mm[2] / label.factor]
    low = [first * step for first, step in zip(label.first, steps, strict=True)]
    extents = [count * step for count, step in zip(label.shares.shape, steps, strict=True)]
    within = torch.ones(places.shape[1:], dtype=torch.bool)
    for axis in range(3):
        within &= (places[axis] > low[axis]) & (places[axis] < low[axis] + extents[axis])
    out = torch.zeros(places.shape[1:])
    index = within.flatten().nonzero().flatten()
    if len(index):
        local = places.flatten(1)[:, index] - torch.tensor(low)[:, None]
        where = _normalised(local, extents)[None, None, None]
        shares = torch.from_numpy(label.shares).float()[None, None] / 255.0
        out.view(-1)[index] = functional.grid_sample(shares, where, align_corners=False, padding_mode="border").flatten()
    return out


def _in_slices(label: BoxLabel, case: BoxCase, places: Tensor) -> Tensor:
    first, last = label.slices
    return (places[0] >= first * case.spacing_mm[0]) & (places[0] <= (last + 1) * case.spacing_mm[0])

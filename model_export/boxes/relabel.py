"""A second round of labels, by what a box network draws.

Its drawing puts transferred labels right, and stands in where a scan has none.

A transferred eye lies where the first finder saw it; the network that learnt from eighty such eyes sees it better. And glands
that experts drew in nine scans are in a hundred others, where a network that is sure of them can say so. Experts' labels and
OpenKBP's stay as they are.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from torch import Tensor

from model_export.boxes.config import BoxConfig
from model_export.boxes.data import TRANSFERRED, BoxCase, BoxLabel
from model_export.boxes.sampling import no_placement, see
from model_export.transferred.scans import NATIVE_PER_VOXEL
from oarlock.geometry.components import largest_piece
from oarlock.geometry.masks import Box, bounding_box, grow
from oarlock.organs.catalogue import BY_NAME, other_side
from oarlock.organs.norms import NORMS

FARTHEST_MM: Final = 7.0
"""A leading organ that is drawn further from its label belies the label."""
RANGE: Final = (0.7, 1.2)
"""Nor is its drawing believed outside of so much of the range of experts' volumes."""
USUAL: Final = (0.6, 1.6)
"""An added label has so much of the usual volume."""
ADDED_FROM: Final = 0.65
RAMP: Final = 0.3
"""An added label ends at the one probability, and fades over so much of it."""
DOUBT: Final = 0.2
SURE: Final = (0.3, 0.8)
LEAST_SURE: Final = 0.3
"""What is claimed from the second probability of ``SURE`` on is at least so much of what is claimed from the first."""

LOOKS: Final = ((0, 0, 0), (1, 1, -2), (-1, -2, 1), (0, 2, 2))
"""How far the box is moved for the mean of several looks: (z, y, x) in voxels of the output."""

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
Drawer = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Relabelled:
    """The cases of the second round, and what was done.

    A line each.
    """

    cases: list[BoxCase]
    told: list[str]


def relabel(
    cases: Sequence[BoxCase],
    box: BoxConfig,
    served: Drawer,
    *,
    moved: Sequence[str] = (),
    added: Sequence[str] = (),
    threshold: float = 0.5,
    looks: Sequence[tuple[int, int, int]] = LOOKS[:1],
) -> Relabelled:
    """Move and add labels by what a network draws.

    :param served: (1, 1, Z, Y, X) HU to (1, organs, Z, y, x) probabilities, as `ServedBox`.
    :param moved: left organs; transferred labels of a side are moved as the first of them is. A scan in which the label of the
        first and its drawing contradict each other is left out.
    :param added: left organs that the scans without a label of them get one of, where the network is sure.
    :param threshold: from where the first of ``moved`` is drawn.
    :param looks: what is drawn is the mean over places of the box, each so many voxels of the output (z, y, x) off.
    """
    found = Relabelled([], [])
    for case in cases:
        _, known, _ = see(case, no_placement(case).in_scan(box.positions_mm(fine=False)))
        drawn = _Drawn(case, box, _mean_of_looks(case, box, served, looks), known.numpy())
        moves = [] if not moved else [(side, drawn.move_mm(side[0], threshold)) for side in _sides(moved)]
        moves = [(side, move) for side, move in moves if (label := case.by_organ.get(side[0])) and label.source == TRANSFERRED]
        if any(move is None for _, move in moves):
            found.told.append(f"{case.name}: left out, the network draws {moved[0]} elsewhere")
            continue
        labels = dict(case.by_organ)
        for side, move in moves:
            assert move is not None  # asked above
            labels |= {name: _moved_by(labels[name], move, case) for name in side if _is_transferred(labels.get(name))}
            found.told.append(f"{case.name}: {side[0]} moved by {np.linalg.norm(move):.1f} mm")
        for name in (name for side in _sides(added) for name in side):
            if not case.is_expert and name not in labels and (label := drawn.label(name)) is not None:
                labels[name] = label
                found.told.append(f"{case.name}: {name} added")
        found.cases.append(replace(case, labels=tuple(labels.values())))
    return found


def _mean_of_looks(case: BoxCase, box: BoxConfig, served: Drawer, looks: Sequence[tuple[int, int, int]]) -> F32:
    """(organs, Z, y, x) probabilities. At the edges of the box, where a label is not believed, a look shows the opposite edge."""
    steps_mm = np.array(box.spacing_mm) / (1, box.upscale, box.upscale)
    answers = []
    for look in looks:
        places = no_placement(case, middle_mm=tuple(case.middle_mm + look * steps_mm)).in_scan(box.positions_mm(fine=False))
        with torch.no_grad():
            answers.append(np.roll(served(see(case, places)[0][None, None])[0].numpy(), look, axis=(1, 2, 3)))
    return np.asarray(np.mean(answers, axis=0), np.float32)


def _sides(organs: Sequence[str]) -> list[list[str]]:
    return [list(organs), [other_side(BY_NAME[name]).name for name in organs]] if organs else []


def _is_transferred(label: BoxLabel | None) -> bool:
    return label is not None and label.source == TRANSFERRED


@dataclass(frozen=True, eq=False)
class _Drawn:
    """What a network draws in the box of a case: ``probabilities`` (organs, Z, y, x), ``known`` (Z, Y, X) share of known CT."""

    case: BoxCase
    box: BoxConfig
    probabilities: F32
    known: F32

    def move_mm(self, organ: str, threshold: float) -> F64 | None:
        """From the middle (z, y, x) of an organ's label to that of its drawing; None where it is not believed."""
        found = self.probabilities[self.box.drawn_organs.index(organ)]
        piece = largest_piece(found >= threshold)
        low, high = NORMS[organ].volume_range_ml
        if not RANGE[0] * low < self._ml(piece) < RANGE[1] * high or organ not in self.case.by_organ:
            return None
        label = self.case.by_organ[organ]
        steps = _steps_mm(label, self.case)
        theirs = (np.add(_middle(label.shares.astype(np.float32)), label.first) + 0.5) * steps
        axes = self.box.positions_mm(fine=True)
        middle = _middle(np.where(piece, found, np.float32(0)))
        ours = [np.interp(index, np.arange(len(axis)), axis) for index, axis in zip(middle, axes, strict=True)]
        move = np.add(ours, self.case.middle_mm) - theirs
        return move if np.linalg.norm(move) < FARTHEST_MM else None

    def label(self, organ: str) -> BoxLabel | None:
        """An organ as the network draws it; None where it is not sure of it, or sees it cut."""
        found = self.probabilities[self.box.drawn_organs.index(organ)]
        piece = largest_piece(found >= DOUBT)
        span = bounding_box(piece & (found >= ADDED_FROM))
        if span is None or any(side.start < 2 or side.stop > n - 2 for side, n in zip(span, found.shape, strict=True)):
            return None
        span = grow(span, 3, found.shape)
        inside = np.where(piece[span], found[span], np.float32(0))
        usual_ml, sure = NORMS[organ].volume_ml, [np.count_nonzero(inside >= value) for value in SURE]
        if not USUAL[0] * usual_ml < self._ml(inside >= ADDED_FROM) < USUAL[1] * usual_ml or sure[1] < LEAST_SURE * sure[0]:
            return None
        finer = self.known.repeat(self.box.upscale, axis=1).repeat(self.box.upscale, axis=2)
        return self._on_native(organ, inside, span) if finer[span][inside >= DOUBT].min() > 0.99 else None

    def _on_native(self, organ: str, inside: F32, span: Box) -> BoxLabel:
        steps = np.array(self.case.spacing_mm) / (1, NATIVE_PER_VOXEL, NATIVE_PER_VOXEL)
        firsts, places = [], []
        for axis, side, step, middle in zip(self.box.positions_mm(fine=True), span, steps, self.case.middle_mm, strict=True):
            at = axis[side] + middle
            first, last = int(np.ceil(at[0] / step - 0.5)), int(np.floor(at[-1] / step - 0.5))
            firsts.append(first)
            places.append(((np.arange(first, last + 1) + 0.5) * step - at[0]) / (axis[1] - axis[0]))
        found = ndimage.map_coordinates(inside, np.meshgrid(*places, indexing="ij"), order=1, mode="nearest")
        shares = np.rint(np.clip((found - ADDED_FROM) / RAMP + 0.5, 0, 1) * 255).astype(np.uint8)
        z, y, x = (first - 1 for first in firsts)
        return BoxLabel(organ, np.pad(shares, 1), (z, y, x), NATIVE_PER_VOXEL, TRANSFERRED, (0, len(self.case.ct) - 1))

    def _ml(self, mask: npt.NDArray[np.bool_]) -> float:
        return float(np.count_nonzero(mask)) * float(np.prod(self.box.spacing_mm)) / self.box.upscale**2 / 1000


def _middle(weights: F32) -> list[float]:
    """The middle of some weights, as indices."""
    return [float(index) for index in ndimage.center_of_mass(weights)] if weights.any() else [0.0, 0.0, 0.0]


def _steps_mm(label: BoxLabel, case: BoxCase) -> F64:
    return np.array(case.spacing_mm) / (1, label.factor, label.factor)


def _moved_by(label: BoxLabel, move_mm: F64, case: BoxCase) -> BoxLabel:
    """A label moved by (z, y, x) mm: by whole voxels, and the rest interpolated."""
    voxels = move_mm / _steps_mm(label, case)
    whole = np.floor(voxels).astype(int)
    shares = ndimage.shift(np.pad(label.shares.astype(np.float32), ((0, 1),) * 3), voxels - whole, order=1)
    z, y, x = (int(a + b) for a, b in zip(label.first, whole, strict=True))
    return replace(label, shares=np.rint(np.clip(shares, 0, 255)).astype(np.uint8), first=(z, y, x))

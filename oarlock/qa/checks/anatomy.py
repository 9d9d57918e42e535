"""Anatomy: the organs of one patient as checks see them.

Beside the limits that they are judged by.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from oarlock.arrays import FloatArray, Mask
from oarlock.geometry.grid import Grid
from oarlock.geometry.masks import Crop, voxels_per_slice
from oarlock.organs.catalogue import BY_NAME, OAR, Laterality, other_side
from oarlock.organs.norms import HALVES, LUNG_TOPS_MM, NORMS, PAIRS, TISSUES, Halving, Norm, Pair, TissueNorm
from oarlock.qa.checks.finding import Slices
from oarlock.qa.organ_shape import Shape
from oarlock.qa.tissue import Composition
from oarlock.segmentation.certainty import Certainty


@dataclass(frozen=True, slots=True)
class NormTables:
    """The tables of :mod:`oarlock.organs.norms`, or others made in the same way."""

    norms: Mapping[str, Norm]
    twins: Mapping[str, Pair]
    halves: Mapping[str, Halving]
    lung_tops_mm: float
    tissues: Mapping[str, TissueNorm]


NORM_TABLES: Final = NormTables(NORMS, PAIRS, HALVES, LUNG_TOPS_MM, TISSUES)
"""Those that ship."""


@dataclass(frozen=True, slots=True)
class Anatomy:
    """The organs of one patient.

    :param oars: those that were asked for; ``crops`` and ``shapes`` hold those that were drawn.
    :param outside: of organs on a known CT, the share that lies outside of the patient's skin; ``outside_slices``, where.
    """

    oars: tuple[OAR, ...]
    crops: Mapping[OAR, Crop]
    shapes: Mapping[OAR, Shape]
    grid: Grid
    limits: NormTables = NORM_TABLES
    certainty: Mapping[OAR, Certainty] = field(default_factory=dict)
    compositions: Mapping[OAR, Composition] = field(default_factory=dict)
    outside: Mapping[OAR, float] = field(default_factory=dict)
    outside_slices: Mapping[OAR, Slices | None] = field(default_factory=dict)

    def is_tiny(self, oar: OAR) -> bool:
        """Whether an organ is too small to judge more than its size.

        Its place, form and twin then say nothing: below the red limit of its volume, uncut.
        """
        shape = self.shapes[oar]
        return not (shape.cut_foot or shape.cut_head) and shape.volume_ml < self.limits.norms[oar.name].volume_limits_ml()[0]

    def sound(self) -> dict[OAR, Shape]:
        """The organs that are not tiny.

        Those of which more than their size can be judged.
        """
        return {oar: shape for oar, shape in self.shapes.items() if not self.is_tiny(oar)}

    def get(self, name: str) -> Shape | None:
        """The shape of an organ by name; None if not drawn."""
        return self.shapes.get(BY_NAME[name])

    def pairs(self) -> Iterator[tuple[OAR, Shape, Shape]]:
        """(left organ, its shape, the right one's shape) of each pair.

        Where both are drawn, and neither is tiny.
        """
        sound = self.sound()
        for oar, shape in sound.items():
            if oar.laterality is Laterality.LEFT and (other := sound.get(other_side(oar))) is not None:
                yield oar, shape, other

    def midline_mm(self) -> float | None:
        """Where the middle of the body is, in x.

        The median of the unpaired organs.
        """
        centres = [shape.anchor_mm[0] for oar, shape in self.shapes.items() if oar.laterality is None]
        return float(np.median(centres)) if centres else None

    def slices(self, oar: OAR, part: Mask | None = None) -> Slices | None:
        """The slices of an organ, or of a part of its mask.

        None where nothing of it is drawn.
        """
        if oar not in self.crops:
            return None
        box, mask = self.crops[oar]
        return Slices.most(voxels_per_slice(mask if part is None else part).tolist(), box[0].start)

    def end(self, oar: OAR, *, at_head: bool) -> int:
        """The last slice of an organ towards the head or feet."""
        own = self.crops[oar][0][0]
        return int(own.stop - 1 if at_head is not self.grid.orientation().flipped[0] else own.start)

    def slices_at(self, place_mm: FloatArray) -> Slices | None:
        """The slice that a place (x, y, z) lies in.

        None outside of the scan.
        """
        index = round(float(self.grid.to_indices(place_mm[None])[0, 0]))
        return Slices(index, index, index) if 0 <= index < self.grid.shape[0] else None

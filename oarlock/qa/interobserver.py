"""How far several observers are from each other, and ours from them.

A score of our contours against one clinician's says little without what another clinician would have got. Where a job brings
several RTSTRUCTs, each pair of them is measured like ours against each of them, and both ranges stand side by side. Surface DSC,
volumetric DSC, HD95 and mean surface distance do not depend on which of two sides is called the reference.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from statistics import median
from typing import Any, Final

from oarlock.geometry.masks import Crop
from oarlock.organs.catalogue import OAR, OARS
from oarlock.qa.lattice import Lattice
from oarlock.qa.measures import Measured, measure_crops
from oarlock.qa.rounding import rounded

METRICS: Final = ("surface_dsc", "volumetric_dsc", "hausdorff_95_mm", "mean_surface_distance_mm")

OrganCrops = Mapping[OAR, Crop]
"""What one observer drew; an organ that is empty or has no ROI is not in it."""


@dataclass(frozen=True, slots=True)
class Range:
    """The lowest, the median and the highest of some numbers."""

    lowest: float
    median: float
    highest: float

    @classmethod
    def of(cls, values: Sequence[float | None]) -> "Range | None":
        """Of those that are defined; None if none is."""
        defined = [value for value in values if value is not None]
        return cls(min(defined), median(defined), max(defined)) if defined else None


@dataclass(frozen=True, slots=True)
class Spread:
    """One organ in the eyes of several observers.

    :param observers: how many of them drew it; ``pairs``, how many pairs of them were measured.
    :param ours: of each metric, the range of ours against each observer, None where we drew nothing.
    :param between: of each metric, the range over the pairs of observers, None with fewer than two of them.
    """

    oar: OAR
    observers: int
    pairs: int
    ours: Mapping[str, Range | None]
    between: Mapping[str, Range | None]

    @property
    def within(self) -> bool | None:
        """Whether our median surface DSC reaches the observers' lowest.

        No lower than the lowest between two observers; None where one is not defined.
        """
        ours, between = self.ours["surface_dsc"], self.between["surface_dsc"]
        return None if ours is None or between is None else ours.median >= between.lowest

    @property
    def reason(self) -> str | None:
        """Why the two ranges are not compared; None where they are.

        It is a sentence.
        """
        if self.within is not None:
            return None
        if self.observers < 2:
            return f"{self.oar} was drawn by {('no observer', 'one observer only')[self.observers]}."
        if self.ours["volumetric_dsc"] is None:
            return f"{self.oar} is not among the predicted contours, or empty there."
        return "The slices are not evenly spaced, so surface_dsc is not defined."

    def to_json(self) -> dict[str, Any]:
        """One entry of ``observers``."""
        return {
            "oar": self.oar.name,
            "observers": self.observers,
            "pairs": self.pairs,
            **{metric: {"ours": _json(self.ours[metric]), "between": _json(self.between[metric])} for metric in METRICS},
            "within_observers": self.within,
            "reason": self.reason,
        }


def _json(found: Range | None) -> dict[str, float] | None:
    return None if found is None else rounded(asdict(found))


def spread(
    ours: Sequence[Mapping[OAR, Measured]],
    observers: Sequence[OrganCrops],
    *,
    lattice: Lattice,
    tolerances_mm: Mapping[OAR, float],
) -> tuple[Spread, ...]:
    """The spread of every organ that any observer drew.

    In the order of the catalogue.

    :param ours: our numbers against each of the observers, by OAR.
    :param observers: what each of them drew, in the same order.
    :param lattice: of all slices of the series.
    :param tolerances_mm: a site's own tolerances in place of the paper's.
    """
    drawn = [oar for oar in OARS if any(oar in one for one in observers)]
    return tuple(_spread(oar, ours, observers, lattice, tolerances_mm.get(oar, oar.tolerance_mm)) for oar in drawn)


def _spread(
    oar: OAR, ours: Sequence[Mapping[OAR, Measured]], observers: Sequence[OrganCrops], lattice: Lattice, tolerance_mm: float
) -> Spread:
    crops = [one[oar] for one in observers if oar in one]
    between = [measure_crops(a, b, lattice=lattice, tolerance_mm=tolerance_mm) for a, b in combinations(crops, 2)]
    against = [measured[oar] for measured, one in zip(ours, observers, strict=True) if oar in one and oar in measured]
    return Spread(oar, len(crops), len(between), _ranges(against), _ranges(between))


def _ranges(found: Sequence[Measured]) -> dict[str, Range | None]:
    return {metric: Range.of([getattr(measured, metric) for measured in found]) for metric in METRICS}

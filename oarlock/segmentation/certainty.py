"""How much an organ's volume depends on the threshold.

The threshold that drew it.

A probability may fall from 1 to 0 within a voxel of the drawn line, or stay near the threshold over half of the organ: then the
line is there by chance. So each organ's volume is measured at three thresholds while the slabs pass: the model's own, and those
at which the odds are e times higher and lower. Only the sums are kept.
"""

import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from oarlock.arrays import FloatArray
from oarlock.geometry.grid import Grid
from oarlock.organs.catalogue import OAR

Slab = tuple[int, npt.NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Certainty:
    """The volume of one organ at three thresholds.

    Before anything is cleaned up.

    :param drawn_ml: at the model's own threshold.
    :param strict_ml, loose_ml: where the odds p / (1 - p) must be e times as high, and need only be 1/e times as high.
    """

    drawn_ml: float
    strict_ml: float
    loose_ml: float

    @property
    def share(self) -> float | None:
        """The strict volume over the loose one, in [0, 1].

        1 where the threshold does not matter; None where nothing was seen.
        """
        return self.strict_ml / self.loose_ml if self.loose_ml > 0 else None


class CertaintyMeter:
    """Sums each organ's volumes at three thresholds, slab by slab.

    While slabs pass through :meth:`over`.
    """

    def __init__(
        self, model_grid: Grid, oars: Sequence[OAR], thresholds: Sequence[float], *, wanted: Collection[OAR] | None = None
    ) -> None:
        """Of slabs in the form of :func:`oarlock.segmentation.slabs.predict_in_slabs`, made from an input on ``model_grid``.

        :param thresholds: for each OAR the probability from which a voxel belongs to it, in (0, 1).
        :param wanted: the organs that are measured; None for all.
        """
        self._model_grid = model_grid
        self._channel = {oar: channel for channel, oar in enumerate(oars) if wanted is None or oar in wanted}
        self._limits = np.array([[t, of_odds(t, math.e), of_odds(t, 1 / math.e)] for t in thresholds], dtype=np.float32)
        self._ml: FloatArray = np.zeros((len(self._limits), 3))

    def over(self, slabs: Iterable[Slab]) -> Iterator[Slab]:
        """Pass the slabs on unchanged."""
        for first, slab in slabs:
            upscale = slab.shape[2] // self._model_grid.shape[1]
            voxels_ml = self._model_grid.voxel_volumes_mm3[first : first + slab.shape[1]] / 1000 / upscale**2
            for channel in self._channel.values():
                limits = self._limits[channel]
                if (slab[channel] >= limits.min()).any():
                    reached = [np.count_nonzero(slab[channel] >= limit, axis=(1, 2)) @ voxels_ml for limit in limits]
                    self._ml[channel] += reached
            yield first, slab
            del slab  # or it would be kept while the next one is waited for

    def found(self) -> dict[OAR, Certainty]:
        """The volumes measured so far, by organ."""
        return {oar: Certainty(*(float(ml) for ml in self._ml[channel])) for oar, channel in self._channel.items()}


def of_odds(probability: float, factor: float) -> float:
    """The probability whose odds are ``factor`` times those of another one."""
    return probability * factor / (1 - probability + probability * factor)

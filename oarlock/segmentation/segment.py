"""From the CT of a series to masks: resample, predict in slabs, keep what lies in the body, bring it back to the CT grid."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from oarlock.facts import ModelFacts
from oarlock.geometry.body import within_body
from oarlock.geometry.grid import Grid
from oarlock.geometry.masks import OARMasks
from oarlock.organs.catalogue import OAR
from oarlock.segmentation.certainty import Certainty, CertaintyMeter
from oarlock.segmentation.manifest import ModelManifest
from oarlock.segmentation.resampling import to_model_grid
from oarlock.segmentation.slabs import Predictor, predict_in_slabs
from oarlock.segmentation.to_ct_grid import probabilities_to_masks


@dataclass(frozen=True, eq=False)
class Model:
    """A model that can predict.

    :param predict: see :data:`oarlock.segmentation.slabs.Predictor`.
    :param device: where it runs: ``cpu`` or ``cuda``.
    """

    manifest: ModelManifest
    predict: Predictor
    device: str

    @property
    def facts(self) -> ModelFacts:
        return ModelFacts(self.manifest.name, self.manifest.version, self.manifest.sha256)


@dataclass(frozen=True, eq=False)
class Segmentation:
    """What a model drew on one series, before it is cleaned up.

    :param masks: on the grid of the CT.
    :param certainty: for each organ its volume at three thresholds.
    """

    masks: OARMasks
    certainty: Mapping[OAR, Certainty]


def segment(
    hu: npt.NDArray[np.int16], grid: Grid, model: Model, *, progress: Callable[[float], Any] = lambda _: None
) -> Segmentation:
    """Masks of every organ that the model draws.

    :param hu: (z, y, x) Hounsfield units on ``grid``.
    :param progress: told the share of the work that is done, in [0, 1]; may raise to stop.
    :raises InferenceFailed:  as the predictor raises it.
    """
    manifest = model.manifest
    fed = to_model_grid(hu, grid, manifest.input)
    progress(0.0)
    slabs = predict_in_slabs(fed.volume, model.predict, manifest.input, progress=progress)
    meter = CertaintyMeter(fed.grid, manifest.oars, manifest.thresholds)
    measured = meter.over(within_body(slabs, fed.volume))
    masks = probabilities_to_masks(measured, fed.grid, grid, manifest.oars, manifest.thresholds)
    return Segmentation(masks, meter.found())

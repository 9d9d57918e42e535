"""Backends.

Other arithmetic for the same network, chosen only where it draws the same.

A backend is asked for, detected and proved, never assumed: the session must truly run on it, and on a scan of the site every
organ that the model draws must be the one that 32-bit arithmetic draws. One that fails is left out with the reason, and the next
is tried.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from oarlock.errors import InferenceFailed, ManifestInvalid, TransientError
from oarlock.geometry.grid import Grid
from oarlock.geometry.masks import OARMasks
from oarlock.inference.models import load
from oarlock.inference.network import CPU, CUDA, CUDA_OPTIONS, Providers, is_there
from oarlock.organs.catalogue import OAR
from oarlock.segmentation.segment import Model, segment

log = logging.getLogger(__name__)

LEAST_DICE: Final = 0.995
"""Of each organ, against 32-bit arithmetic on the same scan."""

TENSORRT: Final = "TensorrtExecutionProvider"

BACKENDS: Final[Mapping[str, Providers]] = {
    "tf32": ((CUDA, {**CUDA_OPTIONS, "use_tf32": "1"}), CPU),
    "tensorrt": ((TENSORRT, {}), (CUDA, CUDA_OPTIONS), CPU),
    "tensorrt-fp16": ((TENSORRT, {"trt_fp16_enable": "1"}), (CUDA, CUDA_OPTIONS), CPU),
}
"""What a session is given, by the names that ``OARLOCK_BACKENDS`` takes; what one cannot do, the next in the row does."""


@dataclass(frozen=True, eq=False)
class CheckScan:
    """A scan on which backends are proved.

    Every organ of the model must be on it.

    :param hu: (z, y, x) Hounsfield units on ``grid``.
    """

    hu: npt.NDArray[np.int16]
    grid: Grid


class BackendLeftOut(Exception):
    """Why a backend is not used."""


def faster(model: Model, wanted: Sequence[str], scan: CheckScan, *, threads: int = 0) -> Model:
    """The model on the first backend that draws the same.

    The model as it is if none does.

    :param wanted: names of :data:`BACKENDS`, the first one that passes is taken.
    :param scan: where they are proved.
    """
    exact: OARMasks | None = None
    for name in wanted:
        try:
            other = _on(model, name, threads)
            exact = exact or segment(scan.hu, scan.grid, model).masks
            check_same(exact, segment(scan.hu, scan.grid, other).masks)
        except (BackendLeftOut, InferenceFailed, ManifestInvalid, TransientError) as error:
            log.warning("a backend is not used", extra={"model": model.manifest.name, "backend": name, "reason": str(error)})
        else:
            log.info("a backend draws the same and is used", extra={"model": model.manifest.name, "backend": name})
            return other
    return model


def _on(model: Model, name: str, threads: int) -> Model:
    """The model on a backend.

    :raises BackendLeftOut: if this machine does not have it.
    """
    first = BACKENDS[name][0]
    provider = first if isinstance(first, str) else first[0]
    if not is_there(provider):
        raise BackendLeftOut("this machine does not have it")
    found = load(model.manifest, threads=threads, providers=BACKENDS[name])
    if any(getattr(network, "provider", None) != provider for network in found.predictors.values()):
        raise BackendLeftOut("a session did not get it")
    return found


def check_same(exact: OARMasks, other: OARMasks) -> None:
    """Check that each organ is the same in two drawings.

    :raises BackendLeftOut: for the first one that is not, or that the first drawing does not show.
    """
    for oar in exact.oars:
        dice = _dice(exact, other, oar)
        if dice is None:
            raise BackendLeftOut(f"the scan does not show {oar.name}, so nothing is proved of it")
        if dice < LEAST_DICE:
            raise BackendLeftOut(f"{oar.name} is drawn otherwise: Dice {dice:.4f} and not at least {LEAST_DICE}")


def _dice(exact: OARMasks, other: OARMasks, oar: OAR) -> float | None:
    ours, theirs = exact.mask(oar), other.mask(oar)
    return None if not ours.any() else float(2 * (ours & theirs).sum() / (ours.sum() + theirs.sum()))

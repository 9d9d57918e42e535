"""Rivals: organs that cannot share a voxel.

And which of two claims on it counts.
"""

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from oarlock.organs.catalogue import BY_NAME, OAR, other_side

Probabilities = npt.NDArray[np.float32]

BRAIN_AND_STEM: Final = (BY_NAME["Brain"], BY_NAME["Brainstem"])


def rivals(oar: OAR) -> tuple[OAR, ...]:
    """Organs that cannot share tissue with this one.

    Its other side; brain and brainstem. Networks confuse them.
    """
    sides = (other_side(oar),) if oar.laterality else ()
    return sides + tuple(other for other in BRAIN_AND_STEM if oar in BRAIN_AND_STEM and other != oar)


def rival_channels(oars: Sequence[OAR]) -> list[list[int]]:
    """For each channel, the channels of its rivals."""
    return [[oars.index(rival) for rival in rivals(oar) if rival in oars] for oar in oars]


def undisputed(
    channel: int, claim: Callable[[int], Probabilities], rivals: Sequence[int], thresholds: Sequence[float]
) -> Probabilities:
    """Probabilities of one organ, 0 where a rival's are higher.

    There the rival's claim is stronger.

    A claim is a probability over its organ's threshold; of two equal claims the lower channel's counts.

    :param claim: gives the probabilities of a channel, all of one shape.
    """
    ours = claim(channel)
    for rival in rivals:
        theirs = claim(rival)
        if theirs.max(initial=0.0) < thresholds[rival]:
            continue
        stronger = np.greater if channel < rival else np.greater_equal
        lost = stronger(theirs / np.float32(thresholds[rival]), ours / np.float32(thresholds[channel]))
        ours = np.asarray(np.where(lost, np.float32(0), ours), dtype=np.float32)
    return ours

"""Body: where the patient is in a scan.

Nothing is drawn elsewhere.

A network that has seen few couches may take the foam of one, which is as light as a lung, for a lung. So what it claims outside
of the body does not count, before pieces are chosen and before anything is said of how sure it was.
"""

from collections.abc import Iterable, Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from oarlock.arrays import Mask
from oarlock.geometry.components import largest_piece, to_pieces
from oarlock.geometry.morphology import opened_in_plane

Volume = npt.NDArray[np.float32]

BODY_HU: Final = -300
"""Between lung and fat: what is denser is body, table or head rest."""

_CROSS: Final = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], np.bool_)


def body_core(hu: npt.NDArray[Any]) -> Mask:
    """The largest connected dense thing that an opening leaves.

    Denser than ``BODY_HU``, opened with a cross of three voxels in plane.

    On a picture of about 4 mm what is thinner than about 12 mm in plane (the shell of a table, a head rest, a mask, a tube) falls
    away, and with it the bridge to anything thicker beyond it.

    :param hu: (z, y, x) HU.
    :returns: a mask of the same shape; all False where there is nothing but air.
    """
    return largest_piece(opened_in_plane(np.asarray(hu > BODY_HU), _CROSS))


def body_mask(hu: Volume) -> Mask:
    """Where the body may be.

    In each column of each slice, from its first to its last voxel, and one voxel around.

    The body is what is denser than ``BODY_HU`` and connected to its core (:func:`body_core`). A concavity counts as body: lungs
    stay, also where the field of view cuts through them, and so does what is connected to the patient. A mirrored scan has the
    mirrored mask.

    :param hu: (z, y, x) HU in canonical axes, as :func:`oarlock.segmentation.resampling.to_model_grid` gives them.
    :returns: a mask of the same shape; all True where nothing is dense enough to be a body.
    """
    from scipy import ndimage  # late, as in components.py

    core = body_core(hu)
    if not core.any():
        return np.ones(hu.shape, np.bool_)
    pieces, _ = to_pieces(hu > BODY_HU)
    body = np.asarray(pieces == pieces[core][0], np.bool_)
    front_to_back = np.logical_or.accumulate(body, axis=1)
    back_to_front = np.logical_or.accumulate(body[:, ::-1], axis=1)[:, ::-1]
    return np.asarray(ndimage.binary_dilation(front_to_back & back_to_front, _CROSS[None]), np.bool_)


def within_body(slabs: Iterable[tuple[int, Volume]], body: Mask) -> Iterator[tuple[int, Volume]]:
    """Slabs with 0 outside of the body.

    :param slabs: in the form of :func:`oarlock.segmentation.slabs.predict_in_slabs`; changed in place.
    :param body: (z, y, x) of the lattice that the slabs were predicted from (:func:`body_mask`).
    """
    outside = ~body
    for start, probabilities in slabs:
        upscale = probabilities.shape[2] // body.shape[1]
        finer = outside[start : start + probabilities.shape[1]].repeat(upscale, axis=1).repeat(upscale, axis=2)
        np.copyto(probabilities, np.float32(0), where=finer)
        yield start, probabilities
        del probabilities  # or they would be kept while the next ones are waited for

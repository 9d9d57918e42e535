"""Sliding a predictor over a volume in slabs along z.

Memory is bounded by the slab and no slice is predicted twice.
"""

import math
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from oarlock.ahead import ahead
from oarlock.arrays import Mask
from oarlock.segmentation.manifest import InputSpec

Volume = npt.NDArray[np.float32]
Predictor = Callable[[Volume], Volume]
"""(1, 1, n + context_slices - 1, y, x) HU to (1, OARs, n, y · upscale, x · upscale) probabilities."""

_SLAB_VOXELS: Final = 1_000_000
_SLAB_SLICES: Final = (4, 38)


def slab_for(size_yx: tuple[int, int], context_slices: int) -> int:
    """Number of slices to predict at once: 4 to 38.

    With the input (context included) of at most a million voxels.
    """
    slices = _SLAB_VOXELS // (size_yx[0] * size_yx[1]) - (context_slices - 1)
    return max(_SLAB_SLICES[0], min(_SLAB_SLICES[1], slices))


def is_small(spec: InputSpec) -> bool:
    """Whether a slab or box is small enough to predict two.

    Its size must be known, and at most a million voxels.
    """
    if spec.size_yx is None:
        return False
    slices = spec.slices or slab_for(spec.size_yx, spec.context_slices) + spec.context_slices - 1
    return slices * spec.size_yx[0] * spec.size_yx[1] <= _SLAB_VOXELS


def predict_in_slabs(
    volume: Volume,
    predictor: Predictor,
    spec: InputSpec,
    *,
    slab: int | None = None,
    outer: int = 0,
    needed: Mask | None = None,
    progress: Callable[[float], None] = lambda _: None,
    at_once: int = 1,
    all_begun: Callable[[], Any] = lambda: None,
) -> Generator[tuple[int, Volume]]:
    """Probabilities of a volume, slab by slab from foot to head.

    Each predicted slice sees ``spec.context_slices`` (odd) input slices with itself in the middle, so a slab of n is fed n +
    context_slices - 1 of them: neighbouring slabs share context, and their predictions meet without a seam for any predictor
    that is valid along z. Slabs are equally thick; the last may be thinner. Below the first
    and above the last slice lies ``spec.padding_hu``.

    :param volume: (z, y, x) HU.
    :param slab: slices predicted at once, and fewer in the last slab; None for equal slabs of at most :func:`slab_for`.
    :param outer: so many slices at each end of the volume are context and are not predicted.
    :param needed: (z,) whether anything of a slice matters; a slab without such a slice is left out. None for all.
    :param progress: told the share of slices predicted so far, in (0, 1], after each slab; in the caller's thread.
    :param at_once: slabs that are predicted side by side; the slabs are the same, however many.
    :param all_begun: called in the caller's thread when the last of slabs side by side was begun and those before it are drawn:
        from then on fewer are predicted. Not called where slabs go one by one.
    :returns: (first slice, (OARs, n, y · upscale, x · upscale) probabilities) in ascending order, every slice at most once.
    :raises ValueError: if the predictor answers with another number of slices than it was asked for.
    """
    before = (spec.context_slices - 1) // 2
    bottom, top = outer, len(volume) - outer
    slab = slab or _equal(max(top - bottom, 1), slab_for((volume.shape[1], volume.shape[2]), spec.context_slices))
    spans = [(start, min(start + slab, top)) for start in range(bottom, top, slab)]
    spans = [(start, stop) for start, stop in spans if needed is None or needed[start:stop].any()]

    def predict(start: int, stop: int) -> Volume:
        answer: Volume = predictor(_padded(volume, start - before, stop + before, spec.padding_hu)[None, None])[0]
        return answer

    def calls() -> Iterator[Callable[[], Volume]]:
        yield from (partial(predict, *span) for span in spans)
        all_begun()

    with closing(ahead(calls(), at_once)) as answers:
        for start, stop in spans:
            probabilities = next(answers)
            if probabilities.shape[1] != stop - start:
                msg = f"the predictor gave {probabilities.shape[1]} slices for {stop - start}"
                raise ValueError(msg)
            progress((stop - bottom) / (top - bottom))
            yield start, probabilities
            del probabilities  # or they would be kept while the next ones are waited for


def _equal(slices: int, most: int) -> int:
    """How thick slabs are that share so many slices, each of at most so many."""
    return math.ceil(slices / math.ceil(slices / most))


def predict_at_once(volume: Volume, predictor: Predictor, shape: tuple[int, int, int]) -> tuple[int, Volume]:
    """Probabilities of a box that a network sees whole.

    One slab, (0, (OARs, z', y', x')).

    :param volume: (z, y, x) HU.
    :param shape: (z', y', x') of the answer.
    :raises ValueError: if the predictor answers with another shape.
    """
    probabilities = predictor(np.ascontiguousarray(volume)[None, None])[0]
    if probabilities.shape[1:] != shape:
        msg = f"the predictor gave {probabilities.shape[1:]} for {shape}"
        raise ValueError(msg)
    return 0, probabilities


def _padded(volume: Volume, start: int, stop: int, padding_hu: float) -> Volume:
    """Slices ``start`` to ``stop`` of a volume, contiguous; those outside it hold ``padding_hu``."""
    inner = volume[max(start, 0) : min(stop, len(volume))]
    padding = [(max(-start, 0), max(stop - len(volume), 0)), (0, 0), (0, 0)]
    return np.pad(inner, padding, constant_values=np.float32(padding_hu))

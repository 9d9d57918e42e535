"""Sliding a network over a volume in patches of one size.

As nnU-Net v2 does, and the organs that its labels make.

Its networks see a patch as a whole (instance norm), so they cannot be slid in slabs. The order of steps is nnU-Net's: crop to
what is not 0, normalise, resample, pad, slide with Gaussian weights, average over mirror images, resample the *logits* back, and
only then choose a label for each voxel. Arrays stay in the patient's axes; each patch is turned at the network's door. What
nnU-Net rounds (where patches start, how padding is shared) it rounds along the network's axes, and so does this.

The sums are kept for the slices that a row of patches covers, not for the volume: they pass on slice by slice.
"""

import itertools
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from oarlock.arrays import IndexArray, Mask
from oarlock.geometry.masks import Box, bounding_box
from oarlock.segmentation.manifest import Normalisation, Part, PatchSpec, self_check_input
from oarlock.segmentation.slabs import Predictor, Volume
from oarlock.segmentation.zoom import Matrix, Steps, along, lone_axis, matrices, matrices_of_centres, resample

Logits = npt.NDArray[np.floating[Any]]
"""(heads, y, x) or (heads, z, y, x)."""

Progress = Callable[[float], Any]

_TOP: Final = 10.0
"""Largest Gaussian weight of a patch."""

_SIGMA: Final = 1 / 8
"""Of the Gaussian weights, in patches."""

_LEAST_OF_MONAI: Final = 1e-3
"""Weights below this are raised to it in MONAI."""

_SLAB_VALUES: Final = 16_000_000
_RING_BYTES: Final = 2 << 30


@dataclass(frozen=True, eq=False)
class _Lattice:
    """Where patches lie. All is in the order (z, y, x) of the patient, with indices that grow along the patient's axes.

    :param box: of the CT that is not 0, to which all else refers.
    :param size: voxels of the network's lattice in that box.
    :param before: voxels of padding below it, where a patch is larger than it.
    :param starts: for each axis where patches start in the padded lattice, in the network's order.
    :param forth, back: the matrices of each axis from the CT to the lattice, and back.
    """

    box: Box
    size: tuple[int, int, int]
    before: tuple[int, int, int]
    starts: tuple[list[int], list[int], list[int]]
    forth: Steps
    back: Steps
    lone: int | None


def predict_in_patches(
    hu: Volume,
    spacing_mm: Sequence[float],
    predictor: Predictor,
    part: Part,
    *,
    needed: Mask | None = None,
    progress: Progress = lambda _: None,
) -> Generator[tuple[int, Volume]]:
    """Probabilities of the organs of a part that goes in patches.

    Slab by slab from foot to head, on the CT's own voxels.

    The probability of an organ is the logistic function of the margin by which its labels win over all others: it reaches 0.5
    exactly where nnU-Net gives the voxel one of these labels.

    :param hu: (z, y, x) HU in canonical axes.
    :param spacing_mm: (z, y, x).
    :param predictor: of one patch, (1, 1, patch) to (1, heads, patch) logits.
    :param needed: (z, y, x) where anything matters; patches without such a voxel are left out. None for all.
    :param progress: told the share of passes that are done, in [0, 1], before and after each pass; may raise to stop.
    :returns: (first slice, (OARs, n, y, x) probabilities) in ascending order.
    """
    assert part.patches is not None
    slices: list[Volume] = []
    at_once = max(1, _SLAB_VALUES // max(1, len(part.oars) * hu.shape[1] * hu.shape[2]))
    first = 0
    logits = logits_in_patches(hu, spacing_mm, predictor, part, needed=needed, progress=progress)
    for z, box, slice_ in logits:
        if not slices:
            first = z
        whole = np.zeros((len(part.oars), *hu.shape[1:]), np.float32)
        whole[:, box[0], box[1]] = organ_probabilities(slice_, part.patches)
        slices.append(whole)
        if len(slices) == at_once:
            yield first, np.stack(slices, axis=1)
            slices = []
    if slices:
        yield first, np.stack(slices, axis=1)


def logits_in_patches(
    hu: Volume,
    spacing_mm: Sequence[float],
    predictor: Predictor,
    part: Part,
    *,
    needed: Mask | None = None,
    half: bool | None = None,
    progress: Progress = lambda _: None,
) -> Iterator[tuple[int, tuple[slice, slice], Logits]]:
    """The heads' logits on the CT's voxels, slice by slice.

    From foot to head.

    :param half: whether sums and answers are rounded to 16 bits, as nnU-Net rounds them; None where 32 bits would need too much
        memory.
    :returns: (slice, the (y, x) box that is not cropped away, (heads, y, x) logits in that box); no slice that is cropped away.
    """
    assert part.patches is not None
    lattice = _lattice(hu, spacing_mm, part)
    volume = _prepared(hu[lattice.box], lattice, part.patches)
    wanted = None if needed is None else needed[lattice.box]
    sums = _Sums(volume, lattice, part, wanted, half=half)
    for z, logits in _back_along_z(sums.slices(predictor, progress), lattice.back[0]):
        in_plane = along(lattice.back[2], along(lattice.back[1], logits, 1), 2)
        yield z + lattice.box[0].start, lattice.box[1:], in_plane.astype(sums.dtype, copy=False)


def _prepared(hu: Volume, lattice: _Lattice, spec: PatchSpec) -> Volume:
    """The CT as the network sees it: nnU-Net normalises first, MONAI's bundles resample first."""
    if spec.like == "monai":
        return normalised(resample(hu.astype(np.float32), lattice.forth, spec.resampling, lattice.lone), spec.normalisation)
    return resample(normalised(hu, spec.normalisation), lattice.forth, spec.resampling, lattice.lone)


def normalised(hu: Volume, scheme: Normalisation) -> Volume:
    """Hounsfield units as a network was trained to see them.

    A new array.
    """
    values = hu.astype(np.float32)  # nnU-Net computes in 32 bits, and a copy is changed
    if scheme.scheme == "ct":
        assert scheme.mean is not None
        assert scheme.std is not None
        np.clip(values, scheme.low, scheme.high, out=values)
        values -= scheme.mean
        values /= max(scheme.std, 1e-8)
    elif scheme.scheme == "z-score":
        mean, std = values.mean(), values.std()
        values -= mean
        values /= max(std, 1e-8)
    elif scheme.scheme == "range":
        values -= values.min()
        values /= max(values.max(), 1e-8)
    return values


def question(part: Part) -> Volume:
    """What the self-check asks a network.

    HU (1, 1, z, y, x), or a patch normalised and turned into its axes.
    """
    picture = self_check_input(part.self_check.slices, part.self_check.size_yx)
    if part.patches is None:
        return picture
    return _turned(normalised(picture[0, 0], part.patches.normalisation), part.patches)


def head_probabilities(logits: Volume, spec: PatchSpec) -> Volume:
    """(1, heads, …) logits as probabilities.

    A softmax where labels compete, else a logistic function of each.
    """
    if spec.regions:
        return np.asarray(1 / (1 + np.exp(-logits.astype(np.float64))), np.float32)
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True), np.float32)


def _turned(patch: Volume, spec: PatchSpec) -> Volume:
    """(1, 1, …) of a (z, y, x) patch in the network's axes."""
    flipped = np.flip(patch, tuple(axis for axis in range(3) if spec.flipped[axis]))
    return np.ascontiguousarray(flipped.transpose(spec.order))[None, None]


def _turned_back(answer: Volume, spec: PatchSpec) -> Volume:
    """(heads, z, y, x) of an answer (heads, …) in the network's axes."""
    back = answer.transpose(0, *(spec.order.index(axis) + 1 for axis in range(3)))
    return np.flip(back, tuple(axis + 1 for axis in range(3) if spec.flipped[axis]))


# ── where the patches lie ─────────────────────────────────────────────────────────────────────────────────────────────


def _lattice(hu: Volume, spacing_mm: Sequence[float], part: Part) -> _Lattice:
    spec, target, patch = part.patches, part.input.spacing_mm, _patch(part)
    assert spec is not None
    assert target is not None
    whole = (slice(0, hu.shape[0]), slice(0, hu.shape[1]), slice(0, hu.shape[2]))
    box = whole if spec.like == "monai" else bounding_box(np.not_equal(hu, 0)) or whole
    fed = [side.stop - side.start for side in box]
    size, forth, back, lone = _steps(fed, spacing_mm, target, spec)
    before, starts = [], []
    for n, p, flip in zip(size, patch, spec.flipped, strict=True):
        missing = max(0, p - n)
        before.append(missing - missing // 2 if flip else missing // 2)
        along_network = (dense_starts_of if spec.like == "monai" else starts_of)(n + missing, p, spec.step)
        starts.append([n + missing - p - start for start in along_network] if flip else along_network)
    return _Lattice(
        box=box,
        size=(size[0], size[1], size[2]),
        before=(before[0], before[1], before[2]),
        starts=(sorted(starts[0]), starts[1], starts[2]),
        forth=_turned_steps(forth, spec),
        back=_turned_steps(back, spec),
        lone=lone,
    )


def _steps(
    fed: Sequence[int], spacing_mm: Sequence[float], target: Sequence[float], spec: PatchSpec
) -> tuple[list[int], Steps, Steps, int | None]:
    """Voxels of the network's lattice, the matrices to it and back along the network's axes, and the lone axis."""
    if spec.like == "monai":
        size = [round((n - 1) * of / to + 1) for n, of, to in zip(fed, spacing_mm, target, strict=True)]
        back = matrices_of_centres(size, fed, target, spacing_mm)
        return size, matrices_of_centres(fed, size, spacing_mm, target), back, None
    size = [round(of / to * n) for of, to, n in zip(spacing_mm, target, fed, strict=True)]
    lone, lone_back = lone_axis(spec.resampling, spacing_mm, target), lone_axis(spec.resampling_back, target, spacing_mm)
    return size, matrices(spec.resampling, fed, size, lone), matrices(spec.resampling_back, size, fed, lone_back), lone


def _turned_steps(steps: Steps, spec: PatchSpec) -> Steps:
    """Along an axis that the network counts backwards both indices of a matrix run backwards."""
    z, y, x = (step[::-1, ::-1] if flip else step for step, flip in zip(steps, spec.flipped, strict=True))
    return z, y, x


def starts_of(size: int, patch: int, step: float) -> list[int]:
    """Where patches start along one axis, spread evenly.

    As few as are not further apart than ``step`` patches.

    :param size: number of voxels, at least ``patch``.
    """
    count = int(np.ceil((size - patch) / (patch * step))) + 1
    apart = (size - patch) / max(count - 1, 1)
    return [int(np.round(apart * i)) for i in range(count)]


def dense_starts_of(size: int, patch: int, step: float) -> list[int]:
    """Where patches start along one axis as MONAI puts them.

    They lie a fixed way apart; the last one is moved back into the volume.
    """
    apart = patch if size == patch else max(1, int(patch * step))
    count = -(-(size - patch) // apart) + 1
    return [min(i * apart, size - patch) for i in range(count)]


def _patch(part: Part) -> tuple[int, int, int]:
    """(z, y, x) of a patch along the patient's axes."""
    assert part.input.slices is not None
    assert part.input.size_yx is not None
    return part.input.slices, *part.input.size_yx


def weights(patch: Sequence[int], spec: PatchSpec) -> npt.NDArray[np.float32]:
    """(z, y, x) weights of the voxels of a patch.

    Gaussian, in 16 bits as nnU-Net rounds them, or as MONAI has them; or all 1.
    """
    if spec.weights == "constant":
        return np.ones(tuple(patch), np.float32)
    if spec.like == "monai":
        tails = [np.exp(-(((np.arange(n) - (n - 1) / 2) / (n * _SIGMA)) ** 2) / 2) for n in patch]
        gaussian = tails[0][:, None, None] * tails[1][:, None] * tails[2]
        return np.asarray(np.maximum(gaussian, max(gaussian.min(), _LEAST_OF_MONAI)), np.float32)
    profiles = []
    for n, flip in zip(patch, spec.flipped, strict=True):
        peak = np.zeros(n)
        peak[n // 2] = 1.0
        profile = ndimage.gaussian_filter1d(peak, n * _SIGMA, mode="constant")
        profiles.append(profile[::-1] if flip else profile)
    z, y, x = profiles
    gaussian = z[:, None, None] * y[:, None] * x
    rounded = (gaussian / (gaussian.max() / _TOP)).astype(np.float16)
    rounded[rounded == 0] = rounded[rounded > 0].min()
    return np.asarray(rounded, np.float32)


# ── the sums ──────────────────────────────────────────────────────────────────────────────────────────────────────────


class _Sums:
    """Weighted sums of the heads' logits over the slices that the patches at hand cover."""

    def __init__(self, volume: Volume, lattice: _Lattice, part: Part, needed: Mask | None, *, half: bool | None) -> None:
        assert part.patches is not None
        self.spec, self.lattice, self.patch = part.patches, lattice, _patch(part)
        padding = [(b, max(0, p - n) - b) for b, p, n in zip(lattice.before, self.patch, lattice.size, strict=True)]
        self.volume = np.pad(volume, padding)
        self.weights = weights(self.patch, self.spec)
        self.patches = [self._box(start) for start in itertools.product(*lattice.starts)]
        if needed is not None:
            self.patches = [box for box in self.patches if self._shows(box, needed)]
        shape = (self.patch[0], *self.volume.shape[1:])
        values = part.channels * int(np.prod(shape))
        self.dtype = np.float16 if half or (half is None and values * 4 > _RING_BYTES) else np.float32
        self.total = np.zeros((part.channels, *shape), self.dtype)
        self.weight = np.zeros(shape, self.dtype)
        self.low = 0

    def slices(self, predictor: Predictor, progress: Progress) -> Iterator[tuple[int, Logits]]:
        """(slice of the lattice, (heads, y, x) logits), every slice in ascending order; 0 where there was no patch."""
        progress(0.0)
        for done, box in enumerate(self.patches):
            yield from self._finished(box[0].start)
            share = lambda part, done=done: progress((done + part) / len(self.patches))  # noqa: E731
            self._add(box, self._logits(self.volume[box], predictor, share))
        yield from self._finished(len(self.volume))
        progress(1.0)

    def _add(self, box: Box, logits: Volume) -> None:
        here = (slice(box[0].start - self.low, box[0].stop - self.low), *box[1:])
        for head, answer in zip(self.total, logits, strict=True):  # one by one: a product of all would double the memory
            head[here] += answer * self.weights
        self.weight[here] += self.weights

    def _logits(self, patch: Volume, predictor: Predictor, progress: Progress) -> Volume:
        """(heads, z, y, x): the mean over the mirror images."""
        sets = [axes for n in range(len(self.spec.mirror) + 1) for axes in itertools.combinations(self.spec.mirror, n)]
        total: Volume | None = None
        for done, axes in enumerate(sets):
            answer = _turned_back(predictor(_turned(np.flip(patch, axes), self.spec))[0], self.spec)
            mirrored = np.flip(answer, tuple(axis + 1 for axis in axes))
            total = mirrored if total is None else total + mirrored
            progress((done + 1) / len(sets))
        assert total is not None
        return total if len(sets) == 1 else np.asarray(total / np.float32(len(sets)), np.float32)

    def _finished(self, below: int) -> Iterator[tuple[int, Logits]]:
        """The slices below one, to which nothing more is added; the sums move up."""
        first, last = self.lattice.before[0], self.lattice.before[0] + self.lattice.size[0]
        rows, columns = (slice(b, b + n) for b, n in zip(self.lattice.before[1:], self.lattice.size[1:], strict=True))
        for z in range(max(self.low, first), min(below, last)):
            row = min(z - self.low, len(self.weight) - 1)  # beyond the patches at hand nothing was added
            total, weight = self.total[:, row, rows, columns], self.weight[row, rows, columns]
            known = (weight > 0) & (row == z - self.low)
            yield z - first, np.divide(total, weight, out=np.zeros_like(total), where=known)
        self._move_up(below - self.low)
        self.low = below

    def _move_up(self, rows: int) -> None:
        for sums in (*self.total, self.weight):
            if 0 < rows < len(sums):
                sums[:-rows] = sums[rows:]
            sums[max(0, len(sums) - rows) if rows else len(sums) :] = 0

    def _box(self, start: Sequence[int]) -> Box:
        z, y, x = (slice(first, first + n) for first, n in zip(start, self.patch, strict=True))
        return z, y, x

    def _shows(self, box: Box, needed: Mask) -> bool:
        """Whether a patch, grown by a voxel from which logits are interpolated, holds anything that is needed."""
        sides = zip(box, self.lattice.before, self.lattice.size, needed.shape, strict=True)
        ct = tuple(
            slice(max(0, int((side.start - before - 1) * n / size)), max(0, int(np.ceil((side.stop - before + 1) * n / size))))
            for side, before, size, n in sides
        )
        return bool(needed[ct].any())


def _back_along_z(slices: Iterator[tuple[int, Logits]], matrix: Matrix) -> Iterator[tuple[int, Logits]]:
    """Slices of the lattice as slices of the CT: each is given as soon as those that it is made of are there."""
    kept: dict[int, Logits] = {}
    rows = [_row(matrix, z) for z in range(matrix.shape[0])]
    lowest = np.array([places.min() for places, _ in rows])
    needed = np.minimum.accumulate(lowest[::-1])[::-1]  # by a row and all after it: a later one may reach further back
    at = 0
    for z, logits in slices:
        kept[z] = logits
        while at < len(rows) and rows[at][0].max() <= z:
            places, shares = rows[at]
            mixed = [kept[int(place)] * share for place, share in zip(places, shares, strict=True)]
            yield at, mixed[0] if len(mixed) == 1 else np.sum(mixed, axis=0)
            at += 1
        first = needed[at] if at < len(rows) else z + 1
        kept = {place: kept[place] for place in kept if place >= first}


def _row(matrix: Matrix, row: int) -> tuple[IndexArray, npt.NDArray[np.float32]]:
    """The columns and values of one row of a sparse matrix."""
    entries = slice(matrix.indptr[row], matrix.indptr[row + 1])
    return matrix.indices[entries], matrix.data[entries]


# ── from heads to organs ──────────────────────────────────────────────────────────────────────────────────────────────


def organ_probabilities(logits: Logits, spec: PatchSpec) -> Volume:
    """(OARs, …) probabilities from (heads, …) logits.

    0.5 or more exactly where an organ's labels win.

    :returns: the logistic function of the margin: where labels compete, the largest logit of the organ's heads less the largest
        of all others; where regions are painted, how far the heads are from painting another label.
    """
    answer = np.empty((len(spec.labels), *logits.shape[1:]), np.float32)
    values = np.array(spec.values)
    winner, top = painted(logits, spec), logits.max(axis=0)
    for organ, labels in zip(answer, spec.labels, strict=True):
        heads, won = np.isin(values, labels), np.isin(winner, labels)
        margin = _region_margin(logits, heads) if spec.regions else _label_margin(logits, heads, top, won)
        np.negative(margin, out=margin)
        np.exp(np.minimum(margin, 80.0, out=margin), out=margin)
        np.divide(1.0, 1.0 + margin, out=organ)
        # where two logits are equal, or rounding hides a difference, the margin's sign says nothing
        np.maximum(organ, np.float32(0.5), out=organ, where=won)
        np.minimum(organ, np.nextafter(np.float32(0.5), np.float32(0)), out=organ, where=~won)
    return answer


def painted(logits: Logits, spec: PatchSpec) -> npt.NDArray[np.int64]:
    """The label of each voxel, as nnU-Net gives it.

    0 where no region is painted.
    """
    values = np.array(spec.values)
    if not spec.regions:
        return np.asarray(values[logits.argmax(axis=0)])
    labels = np.zeros(logits.shape[1:], np.int64)
    for value, head in zip(spec.values, logits, strict=True):
        labels[head > 0] = value
    return labels


def _label_margin(logits: Logits, heads: Mask, top: Logits, won: Mask) -> Volume:
    """The largest logit of some heads, less the largest of the others.

    :param top: the largest of all, which is that of the others wherever these heads have not won.
    """
    others = top.astype(np.float32)
    others[won] = logits[:, won][~heads].max(axis=0, initial=-np.inf)
    return np.asarray(logits[heads].max(axis=0) - others, np.float32)


def _region_margin(logits: Logits, heads: Mask) -> Volume:
    """Above 0 where the last head that is positive is one of some heads."""
    best: Any = np.full(logits.shape[1:], -np.inf, np.float32)
    for head, ours in zip(logits, heads, strict=True):
        value = head.astype(np.float32)
        best = np.maximum(best, value) if ours else np.minimum(best, -value)
    return np.asarray(best)

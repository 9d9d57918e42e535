"""What several atlases say of one organ.

Kept apart, and fused when it is read.

They are kept apart so that a scan whose contours judge a model can be left out of the labels that the model learns from.
"""

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from model_export.transferred.scans import F32, Mask

POWER: Final = 4
"""Votes are weighed by their correlation to this power (Heckemann et al. 2006 weigh alike; a poor fit hardly counts)."""
STEEPNESS: Final = 1.5
LEAST_CORRELATION: Final = 0.2
LEAST_AGREEMENT: Final = 0.55
OPENKBP_SHARE: Final = 0.3
"""What OpenKBP's drawing of an organ counts beside experts' contours that were carried over."""
BLUR: Final = (0.6, 2.0, 2.0)
"""How far it is blurred for that: slices, and native pixels (SD)."""

U8 = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Votes:
    """One organ of one scan.

    Shares (atlases, z, y, x) as bytes, from a first index on the native grid of the scan.
    """

    shares: U8
    first: tuple[int, int, int]
    cases: tuple[str, ...]
    correlations: tuple[float, ...]

    def without(self, cases: Collection[str]) -> "Votes":
        """What the other atlases say."""
        kept = [index for index, case in enumerate(self.cases) if case not in cases]
        return Votes(self.shares[kept], self.first, tuple(self.cases[i] for i in kept), tuple(self.correlations[i] for i in kept))


@dataclass(frozen=True, slots=True)
class TransferredScan:
    """All that was carried over to one scan.

    Its landmarks (x, y, z) in mm, and the votes by organ.
    """

    name: str
    landmarks: dict[str, tuple[float, float, float]]
    votes: dict[str, Votes]


def fused(votes: Votes, *, least_agreement: float = LEAST_AGREEMENT) -> F32 | None:
    """A soft label (z, y, x).

    The weighted mean of the votes, with 0.5 where it encloses their median volume.

    None where the atlases fit too badly or disagree: such an organ stays unlabelled.
    """
    if not votes.cases or max(votes.correlations) < LEAST_CORRELATION:
        return None
    weights = np.clip(votes.correlations, 0.01, None) ** POWER
    shares = votes.shares.astype(np.float32) / 255.0
    mean = np.tensordot(weights / weights.sum(), shares, axes=1)
    count = int(np.median((shares >= 0.5).sum(axis=(1, 2, 3))))
    if count == 0:
        return None
    level = float(np.partition(mean.ravel(), -count)[-count])
    if agreement(shares, mean >= level) < least_agreement:
        return None
    label: F32 = np.clip(0.5 + STEEPNESS * (mean - level), 0.0, 1.0).astype(np.float32)
    return np.where(mean > 0, label, 0.0).astype(np.float32)


def joined(shares: F32, drawn: Mask) -> F32:
    """Experts' contours, and to a smaller share OpenKBP's drawing.

    Both on one lattice (z, y, x). OpenKBP's centres draw a brainstem otherwise than the experts do, but they saw this scan.
    """
    blurred = ndimage.gaussian_filter(drawn.astype(np.float32), BLUR)
    return np.asarray((1.0 - OPENKBP_SHARE) * shares + OPENKBP_SHARE * blurred, np.float32)


def on_lattice(mask: Mask, first: Sequence[int], shape: Sequence[int], factor: int) -> Mask:
    """A scan's mask on a lattice `factor` times finer in plane.

    From a first index (z, y, x) of that lattice on; beyond the scan its outermost voxels go on.
    """
    finer = (1, factor, factor)
    places = [
        np.clip((start + np.arange(count)) // step, 0, size - 1)
        for start, count, step, size in zip(first, shape, finer, mask.shape, strict=True)
    ]
    return mask[np.ix_(*places)]


def agreement(shares: F32, together: npt.NDArray[np.bool_]) -> float:
    """Median volumetric DSC of the single votes with what they say together."""
    found = []
    for share in shares:
        alone = share >= 0.5
        found.append(2.0 * float((alone & together).sum()) / max(float(alone.sum() + together.sum()), 1.0))
    return float(np.median(found))


def write_transferred(path: Path, scan: TransferredScan) -> None:
    """One compressed ``.npz``."""
    entries = {
        name: {"first": list(votes.first), "cases": list(votes.cases), "correlations": list(votes.correlations)}
        for name, votes in scan.votes.items()
    }
    index = json.dumps({"name": scan.name, "landmarks": scan.landmarks, "votes": entries})
    arrays: dict[str, Any] = {f"votes/{name}": votes.shares for name, votes in scan.votes.items()}
    arrays["index"] = np.frombuffer(index.encode(), np.uint8)
    aside = path.with_suffix(".part.npz")
    np.savez_compressed(aside, **arrays)
    aside.replace(path)


def read_transferred(path: Path) -> TransferredScan:
    """What `write_transferred` wrote."""
    with np.load(path) as arrays:
        index = json.loads(arrays["index"].tobytes())
        votes = {
            name: Votes(arrays[f"votes/{name}"], _triple(entry["first"]), tuple(entry["cases"]), tuple(entry["correlations"]))
            for name, entry in index["votes"].items()
        }
    return TransferredScan(index["name"], {name: _triple(place) for name, place in index["landmarks"].items()}, votes)


def _triple(values: list[Any]) -> Any:
    first, second, third = values
    return first, second, third

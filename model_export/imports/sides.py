"""Whether an imported model draws left on the left.

Likewise above above, and front in front, on a scan where it must.

nnU-Net does not say which way the arrays lay that it was trained on. If the wrong way is said, the network is shown a mirrored
patient and gives the left parotid's name to the right one. So a model is only written once it has passed this.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from model_export.imports.refusals import CannotImport
from oarlock.arrays import FloatArray, Mask
from oarlock.organs.catalogue import BY_NAME

_FAR_MM: Final = 5.0
"""Two middles that are nearer along an axis say nothing of their order."""

_ABOVE: Final = (
    ("Brain", "Bone_Mandible"),
    ("Brain", "Parotid"),
    ("Eye", "Bone_Mandible"),
    ("Brain", "Lung"),
    ("Bone_Mandible", "Lung"),
)
"""Pairs of which the first lies nearer to the head, by the beginning of their names."""

_IN_FRONT: Final = (
    ("Eye", "Brainstem"),
    ("Eye", "Parotid"),
    ("Bone_Mandible", "Parotid"),
    ("Bone_Mandible", "Spinal"),
    ("Glnd_Submand", "Spinal"),
    ("Bone_Mandible", "Brainstem"),
    ("Parotid", "Spinal"),
    ("Lens", "Brainstem"),
)
"""Pairs of which the first lies nearer to the face."""


_SAME: Final = 0.9
"""Mean DSC of the labels from which two drawings are the same."""

_CLEARLY_LESS: Final = 0.95
"""Up to this share of what was drawn as it was said, what is drawn turned round is clearly less; an untrained network gives 1."""

_SIDES: Final = {"left": "right", "right": "left", "l": "r", "r": "l"}
_WORD: Final = re.compile(r"(?<![A-Za-z0-9])(left|right|l|r)(?![A-Za-z0-9])", re.IGNORECASE)


def check_sides(middles: Mapping[str, FloatArray], names: Sequence[str], *, middle_mm: float) -> list[str]:
    """Check that what was drawn lies as it does in a patient.

    :param middles: (x, y, z) in mm of the middle of each organ and each label that was drawn, by name.
    :param names: of all organs and labels that the network has.
    :param middle_mm: x of the middle of the body.
    :returns: what was seen, in sentences.
    :raises CannotImport: if something lies on the other side or the other way round, or if names have sides and none was drawn.
    """
    if not middles:
        raise CannotImport(
            "the model drew nothing on the scan of --check: it is not of that part of the body, or --orientation is wrong"
        )
    sided = [line for line in (_side(name, middles, middle_mm) for name in middles if _WORD.search(name)) if line]
    if not sided and any(_WORD.search(name) for name in names):
        raise CannotImport(
            "the model drew nothing of the left or the right on the scan of --check, so that its orientation cannot be told: "
            "give another scan, one that shows such organs"
        )
    return sided + _order(middles, _ABOVE, 2, "above") + _order(middles, _IN_FRONT, 1, "in front of")


def _side(name: str, middles: Mapping[str, FloatArray], middle_mm: float) -> str | None:
    """Patient x grows to the left (LPS)."""
    other = _WORD.sub(lambda found: _other(found[1]), name)
    to_left = middles[name][0] - (middles[other][0] if other in middles else middle_mm)
    if abs(to_left) < _FAR_MM:
        return None
    than = other if other in middles else "the middle of the body"
    way = "left" if to_left > 0 else "right"
    said = f"{name} lies {abs(to_left):.0f} mm to the {way} of {than}"
    found = _WORD.search(name)
    assert found is not None
    if found[1].lower()[0] != way[0]:
        raise CannotImport(f"{said}: --orientation is not that of the training")
    return said


def turns(names: Collection[str], mirror: Collection[int]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The ways in which a patient may have been turned round.

    Each as the patient axes (z, y, x) that are mirrored.

    :param names: of the organs and labels of the network; where none has a side, left for right is among the ways.
    :param mirror: axes along which the network's mirror images are averaged, so that it cannot tell them.
    """
    told = {(0,): "upside down", (1,): "back to front", (0, 1): "upside down and back to front"}
    if not any(_WORD.search(name) for name in names):
        told[2,] = "left for right"
    yield from ((how, axes) for axes, how in told.items() if not set(axes) <= set(mirror))


def check_turned(as_said: npt.NDArray[np.int64], turned: npt.NDArray[np.int64], how: str) -> str:
    """Check that the network draws no turned patient better.

    Where it draws the same, it does not matter which way round the training files lay.

    :param as_said, turned: (z, y, x) labels of the same voxels.
    :param how: in which way the patient was turned.
    :returns: what was seen, in a sentence.
    :raises CannotImport: unless the one that was said is clearly the better, or both are the same.
    """
    drawn = sorted({*np.unique(as_said).tolist(), *np.unique(turned).tolist()} - {0})
    pairs = [(as_said == label, turned == label) for label in drawn]
    if np.mean([2 * (one & other).sum() / (one.sum() + other.sum()) for one, other in pairs]) >= _SAME:
        return f"{how} it draws the same"
    ours, theirs = np.sum([[_largest_piece(mask) for mask in pair] for pair in pairs], axis=0).tolist()
    if theirs > ours:
        raise CannotImport(f"the model draws more of a patient who is turned {how}: --orientation is not that of the training")
    if theirs > _CLEARLY_LESS * ours:
        raise CannotImport(
            f"the model draws as much of a patient who is turned {how}, so that its orientation cannot be told: "
            "give another scan, one that shows more organs"
        )
    return f"{how} it draws {theirs / ours:.0%} of it"


def _largest_piece(mask: Mask) -> int:
    """Voxels of the largest piece: what is in crumbs was not found."""
    pieces, _ = ndimage.label(mask)
    return int(np.bincount(pieces.ravel())[1:].max(initial=0))


def _other(word: str) -> str:
    other = _SIDES[word.lower()]
    return other.upper() if word.isupper() else other


def _order(middles: Mapping[str, FloatArray], pairs: Sequence[tuple[str, str]], axis: int, how: str) -> list[str]:
    """Along patient z up is positive, along y the front is negative."""
    seen = []
    for first, second in pairs:
        ours, theirs = ([at[axis] for found, at in middles.items() if found.startswith(name)] for name in (first, second))
        if not ours or not theirs:
            continue
        ahead = (np.mean(ours) - np.mean(theirs)) * (1 if axis == 2 else -1)
        if ahead < -_FAR_MM:
            reason = f"{first} does not lie {how} {second}, but {-ahead:.0f} mm the other way"
            raise CannotImport(f"{reason}: --orientation is not that of the training")
        seen.append(f"{first} lies {ahead:.0f} mm {how} {second}")
    return seen


assert all(any(name.startswith(part) for name in BY_NAME) for pair in (*_ABOVE, *_IN_FRONT) for part in pair)

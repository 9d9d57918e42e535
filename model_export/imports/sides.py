"""Whether an imported model draws left on the left.

Likewise above above, and front in front, on a scan where it must.

nnU-Net does not say which way the arrays lay that it was trained on. If the wrong way is said, the network is shown a mirrored
patient and gives the left parotid's name to the right one. So a model is only written once it has passed this.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from model_export.imports.refusals import CannotImport
from oarlock.arrays import FloatArray
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

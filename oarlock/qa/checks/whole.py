"""Is each organ whole?

As large as organs are, like its twin, without a cut, and as long as the scan lets it be.
"""

from collections.abc import Iterator, Mapping
from typing import Final

import numpy as np

from oarlock.arrays import FloatArray
from oarlock.organs.catalogue import BY_NAME, OAR, Laterality, other_side
from oarlock.organs.norms import Norm
from oarlock.qa.checks.anatomy import Anatomy
from oarlock.qa.checks.finding import Finding, Level, Slices, level_of, ml
from oarlock.qa.organ_shape import Shape

FACES: Final = ("towards the feet", "towards the head", "in front", "at the back", "on the right", "on the left")

HALF_NAMES: Final = ("outer", "inner", "front", "back", "upper", "lower")
"""The halves that an organ may lack, in the order of :class:`oarlock.organs.norms.Halving`."""

HALF_AMBER: Final = 1 / 1.3
"""None of the whole organs that the limits come from has a score above this share of the red limit."""

HALF_SHARE: Final = 0.8
"""Whatever its form, an organ with more than this share of its twin's volume does not lack a half."""

_WHOLE_MM: Final = {"SpinalCanal": 350.0, "SpinalCord": 350.0, "Lung_L": 150.0, "Lung_R": 150.0}
"""Organs that go on to the lower end of the scan, unless this much of them is in it."""


def check_volume(anatomy: Anatomy) -> Iterator[Finding]:
    """Is it as large as organs are?

    A cut organ can only be too large.
    """
    for oar, shape in anatomy.shapes.items():
        limits = anatomy.limits.norms[oar.name].volume_limits_ml()
        is_part = shape.cut_foot or shape.cut_head
        level = level_of(shape.volume_ml, *limits, no_lower=is_part)
        if level is not Level.GREEN:
            size = "small" if shape.volume_ml < limits[1] else "large"
            patients = anatomy.limits.norms[oar.name].patients
            usual = f"{ml(limits[1])} to {ml(limits[2])} is usual, by {patients} patients"
            reason = f"{oar}: too {size}. {ml(shape.volume_ml)} drawn; {usual}."
            yield Finding("organ.volume", oar.name, level, reason, shape.volume_ml, limits[1], limits[2], "ml")


def check_symmetry(anatomy: Anatomy) -> Iterator[Finding]:
    """Are both sides alike in volume?"""
    for oar, left, right in anatomy.pairs():
        if left.cut_head or right.cut_head or left.cut_foot or right.cut_foot:
            continue
        ratio, pair = left.volume_ml / right.volume_ml, anatomy.limits.twins[oar.name[:-2]]
        level = level_of(ratio, 1 / pair.implausible, 1 / pair.usual, pair.usual, pair.implausible)
        if level is not Level.GREEN:
            small, factor = (oar if ratio < 1 else other_side(oar)), max(ratio, 1 / ratio)
            reason = (
                f"{small}: much smaller than {other_side(small)}. Their volumes differ by a factor of {factor:.2g}; "
                f"up to {pair.usual:.2g} is usual, by {pair.patients} patients."
            )
            yield Finding("organ.symmetry", small.name, level, reason, ratio, 1 / pair.usual, pair.usual, "left / right")


def check_flat_faces(anatomy: Anatomy) -> Iterator[Finding]:
    """Does it end in a cut?"""
    for oar, shape in anatomy.sound().items():
        limits = anatomy.limits.norms[oar.name].faces
        for place, (face, share, limit, judged) in enumerate(zip(FACES, shape.faces, limits, shape.judged, strict=True)):
            if judged and share > limit:
                reason = f"{oar}: flat end {face}. Part of it may be missing there."
                unit, slices = "share of the largest section", _face(anatomy, oar, place)
                yield Finding("organ.flat_face", oar.name, Level.RED, reason, share, 0.0, limit, unit, slices)


def _face(anatomy: Anatomy, oar: OAR, place: int) -> Slices | None:
    """The slices of one of an organ's six end planes, in the order of :data:`FACES`."""
    mask, orientation = anatomy.crops[oar][1], anatomy.grid.orientation()
    plane = np.zeros_like(mask)
    end = [slice(None)] * 3
    end[place // 2] = slice(0, 1) if place % 2 == 0 else slice(-1, None)
    orientation.turned(plane)[tuple(end)] = orientation.turned(mask)[tuple(end)]
    return anatomy.slices(oar, plane)


def check_halves(anatomy: Anatomy) -> Iterator[Finding]:
    """Is one of two twins like half of the other?

    Small organs show no cut, but half of one is smaller, narrower, to one side.
    """
    sound = anatomy.sound()
    for oar, own in sound.items():
        halving = anatomy.limits.halves.get(oar.name[:-2]) if oar.laterality else None
        other = sound.get(other_side(oar))
        if halving is None or other is None or not all((*own.judged, *other.judged)):
            continue
        share = own.volume_ml / other.volume_ml
        if share > HALF_SHARE:
            continue
        scores = halving.scores(half_features(oar, own, other, anatomy.limits.norms))
        worst = int(np.argmax(scores))
        if scores[worst] > HALF_AMBER:
            level = Level.RED if scores[worst] > 1 else Level.AMBER
            half = HALF_NAMES[worst]
            reason = f"{oar}: the {half} half may be missing. It has {share:.0%} of the volume of {other_side(oar)}."
            unit, slices = "of the red limit", None
            if half in {"upper", "lower"}:
                end = anatomy.end(oar, at_head=half == "upper")
                slices = Slices(end, end, end)
            yield Finding("organ.half", oar.name, level, reason, float(scores[worst]), None, HALF_AMBER, unit, slices)


def half_features(oar: OAR, own: Shape, other: Shape, norms: Mapping[str, Norm]) -> FloatArray:
    """(7,) what tells half an organ from a whole one.

    The logarithms of volume, width, depth and height (spreads) over those of the other side, and how far it is from the other
    side's mirror image (outwards, to the back, to the head) in mm.
    """
    outwards = np.array([1.0 if oar.laterality is Laterality.LEFT else -1.0, 1.0, 1.0])
    expected = np.array(norms[oar.name].position_mm) - norms[other_side(oar).name].position_mm
    ratios = np.log([own.volume_ml / other.volume_ml, *(own.spread_mm / other.spread_mm)])
    return np.concatenate([ratios, outwards * (own.anchor_mm - other.anchor_mm - expected)])


def check_continuity(anatomy: Anatomy) -> Iterator[Finding]:
    """Do cord, canal and lungs go on to the lower end?

    Of the scan; and do cord and canal begin at the brainstem?
    """
    heights = anatomy.grid.origins_mm[[0, -1], 2]
    foot_mm, foot = float(heights.min()), int(np.argmin(heights)) * (anatomy.grid.shape[0] - 1)
    for name, whole_mm in _WHOLE_MM.items():
        shape = anatomy.get(name)
        if shape is not None and (gap_mm := shape.foot_mm - foot_mm) > 10 and shape.head_mm - shape.foot_mm < whole_mm:
            reason = f"{name}: lower part missing. It ends {gap_mm:.0f} mm above the lower end of the scan."
            slices = Slices.between(anatomy.end(BY_NAME[name], at_head=False), foot)
            yield Finding("organ.incomplete", name, Level.RED, reason, gap_mm, 0.0, 10.0, "mm", slices)
    stem = anatomy.get("Brainstem")
    for name in ("SpinalCanal", "SpinalCord"):
        shape = anatomy.get(name)
        if shape is not None and stem is not None and abs(gap_mm := stem.foot_mm - shape.head_mm) > 10:
            relation = "below" if gap_mm > 0 else "above"
            reason = f"{name}: does not meet the Brainstem. It begins {abs(gap_mm):.0f} mm {relation} the Brainstem's lower end."
            ends = anatomy.end(BY_NAME[name], at_head=True), anatomy.end(BY_NAME["Brainstem"], at_head=False)
            yield Finding("organ.gap", name, Level.RED, reason, gap_mm, -10.0, 10.0, "mm", Slices.between(*ends))

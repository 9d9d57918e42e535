"""Is each organ on its side and in its place?

In its order along the body, and where its neighbours and its twin put it?
"""

from collections.abc import Iterator, Mapping
from typing import Final

import numpy as np

from oarlock.arrays import FloatArray, Mask
from oarlock.organs.catalogue import BY_NAME, OAR, Laterality, other_side
from oarlock.organs.norms import Norm, Pair
from oarlock.qa.checks.anatomy import Anatomy
from oarlock.qa.checks.finding import Finding, Level, Slices
from oarlock.qa.organ_shape import ANCHOR_MM, FROM_HEAD, Shape

PARTNERS: Final = 5
"""An organ's position is predicted from this many others: those that lie nearest to it."""

_ABOVE: Final = (
    ("Brain", "Brainstem"),
    ("Brainstem", "SpinalCord"),
    ("Eye_L", "Bone_Mandible"),
    ("Eye_R", "Bone_Mandible"),
    ("Bone_Mandible", "Lung_L"),
    ("Bone_Mandible", "Lung_R"),
)


def check_laterality(anatomy: Anatomy) -> Iterator[Finding]:
    """Is it on its side of the body?"""
    midline = anatomy.midline_mm()
    for oar, shape in anatomy.shapes.items():
        if oar.laterality is None:
            continue
        other = anatomy.shapes.get(other_side(oar))
        middle = float(shape.anchor_mm[0] + other.anchor_mm[0]) / 2 if other is not None else midline
        if middle is None:
            continue
        off = float(shape.anchor_mm[0]) - middle
        if (off > 0) is not (oar.laterality is Laterality.LEFT):
            side = "left" if off > 0 else "right"
            reason = f"{oar}: wrong side. It lies on the patient's {side}; left and right may be exchanged."
            yield Finding("organ.laterality", oar.name, Level.RED, reason, off, unit="mm to the left of the middle")


def check_order(anatomy: Anatomy) -> Iterator[Finding]:
    """Do the organs follow each other from head to foot?"""
    for upper, lower in _ABOVE:
        above, below = anatomy.get(upper), anatomy.get(lower)
        if above is not None and below is not None and above.anchor_mm[2] <= below.anchor_mm[2]:
            reason = f"{upper}: lies below {lower}. The series or the contours may be upside down."
            off = float(above.anchor_mm[2] - below.anchor_mm[2])
            yield Finding("organ.order", upper, Level.RED, reason, off, 0.0, None, "mm")


def check_position(anatomy: Anatomy) -> Iterator[Finding]:
    """Is it where the organs around it put it?"""
    sound = anatomy.sound()
    for oar, shape in sound.items():
        off = offset_mm(oar, sound, anatomy.limits.norms)
        if off is None:
            continue
        norm = anatomy.limits.norms[oar.name]
        # A cut organ's centre of mass along the body is that of a part.
        judged = np.array([True, True, not (shape.cut_head or (shape.cut_foot and oar.name not in FROM_HEAD))])
        axis, level = _worst_axis(off, judged, norm)
        if level is not Level.GREEN:
            way = (("right", "left"), ("front", "back"), ("feet", "head"))[axis][int(off[axis] > 0)]
            limit = norm.off_usual_mm[axis]
            known = f"up to {limit:.0f} mm is usual, by {norm.placed} patients"
            where = f"{abs(off[axis]):.0f} mm too far to the {way}, seen from the organs around it"
            reason = f"{oar}: misplaced. It lies {where}; {known}."
            yield Finding("organ.position", oar.name, level, reason, float(off[axis]), -limit, limit, "mm")


def _worst_axis(off_mm: FloatArray, judged: Mask, limits: Norm | Pair) -> tuple[int, Level]:
    """The axis along which an offset is furthest beyond its red limit, else its amber one; and the level."""
    for level, limit in ((Level.RED, limits.off_mm), (Level.AMBER, limits.off_usual_mm)):
        excess = np.where(judged, np.abs(off_mm) / limit, 0.0)
        axis = int(np.argmax(excess))
        if excess[axis] > 1:
            return axis, level
    return 0, Level.GREEN


def offset_mm(oar: OAR, shapes: Mapping[OAR, Shape], norms: Mapping[str, Norm]) -> FloatArray | None:
    """(x, y, z) offset from where other organs put it, or None."""
    expected = expected_mm(oar, shapes, norms)
    return None if expected is None else np.asarray(shapes[oar].anchor_mm - expected)


def expected_mm(oar: OAR, shapes: Mapping[OAR, Shape], norms: Mapping[str, Norm]) -> FloatArray | None:
    """(x, y, z) where other organs put an organ, or None.

    The organs around it; None with fewer than three of them.

    Each of the five nearest organs that are drawn predicts the position by its own and the offset between the two in the mean
    anatomy; their median is the prediction, so that two misplaced neighbours out of five do not move it.
    """
    own = np.array(norms[oar.name].position_mm)
    # A head cut at the top moves the brain's centre: it predicts nothing then.
    others = [other for other, shape in shapes.items() if other != oar and not (shape.cut_head or _is_short(other, shape))]
    nearest = sorted(others, key=lambda other: float(np.linalg.norm(own - norms[other.name].position_mm)))[:PARTNERS]
    if len(nearest) < 3:
        return None
    predictions = [shapes[other].anchor_mm + own - norms[other.name].position_mm for other in nearest]
    return np.asarray(np.median(predictions, axis=0))


def _is_short(oar: OAR, shape: Shape) -> bool:
    """Whether less than the part that is compared is in the scan."""
    return shape.cut_foot and (oar.name not in FROM_HEAD or shape.head_mm - shape.foot_mm < ANCHOR_MM)


def check_mirror(anatomy: Anatomy) -> Iterator[Finding]:
    """Does each side lie where the other one's mirror image is?

    If not, the side is named that is further off.
    """
    for oar, left, right in anatomy.pairs():
        twin = other_side(oar)
        pair = anatomy.limits.twins[oar.name[:-2]]
        expected = np.array(anatomy.limits.norms[oar.name].position_mm) - anatomy.limits.norms[twin.name].position_mm
        judged = np.array([True, True, not (left.cut_head or right.cut_head)])
        apart = left.anchor_mm - right.anchor_mm - expected
        axis, level = _worst_axis(apart, judged, pair)
        if level is not Level.GREEN:
            named = max((oar, twin), key=lambda side: _off_along(side, anatomy, axis))
            way = ("from side to side", "from front to back", "along the body")[axis]
            limit = pair.off_usual_mm[axis]
            reason = (
                f"{named}: not opposite {other_side(named)}. The two are {abs(apart[axis]):.0f} mm {way} "
                f"from being mirror images of each other; up to {limit:.0f} mm is usual, by {pair.patients} patients."
            )
            yield Finding("organ.mirror", named.name, level, reason, float(apart[axis]), -limit, limit, "mm")


def _off_along(oar: OAR, anatomy: Anatomy, axis: int) -> float:
    off = offset_mm(oar, anatomy.sound(), anatomy.limits.norms)
    return 0.0 if off is None else abs(float(off[axis]))


def check_lung_tops(anatomy: Anatomy) -> Iterator[Finding]:
    """Do the two lungs begin at one height?"""
    left, right, limit = anatomy.get("Lung_L"), anatomy.get("Lung_R"), anatomy.limits.lung_tops_mm
    if left is None or right is None or left.cut_head or right.cut_head:
        return
    apart_mm = left.head_mm - right.head_mm
    if abs(apart_mm) > limit:
        lower, upper = ("Lung_R", "Lung_L") if apart_mm > 0 else ("Lung_L", "Lung_R")
        tops = Slices.between(*(anatomy.end(BY_NAME[lung], at_head=True) for lung in (lower, upper)))
        reason = f"{lower}: begins too low. Its top is {abs(apart_mm):.0f} mm below that of {upper}."
        yield Finding("organ.lung_tops", lower, Level.RED, reason, apart_mm, -limit, limit, "mm", tops)

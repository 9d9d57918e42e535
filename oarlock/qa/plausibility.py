"""Checks that need no reference: is this the anatomy of a human being, on the right sides, whole and inside of the scan?

Each check gives green, amber or red and a sentence for a dosimetrist. Red means that no set of the 42 expert contours that the
limits were derived from looks like this; amber means look here first. Green is not approval. The limits are in
:mod:`oarlock.organs.norms`, the table of all checks and what they cannot see in ``docs/qa.md``.

Positions are patient millimetres (x to the left, y to the back, z to the head).
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from itertools import combinations
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from oarlock.arrays import FloatArray, Mask
from oarlock.geometry.grid import Grid
from oarlock.geometry.masks import Crop, OARMasks
from oarlock.organs.catalogue import BY_NAME, OAR, Laterality, other_side
from oarlock.organs.norms import HALVES, LUNG_TOPS_MM, NORMS, PAIRS, TISSUES, Halving, Norm, Pair, TissueNorm
from oarlock.qa.organ_shape import ANCHOR_MM, FROM_HEAD, Shape, shape_of
from oarlock.qa.tissue import Composition, compositions
from oarlock.segmentation.certainty import Certainty

PARTNERS: Final = 5
"""An organ's position is predicted from this many others: those that lie nearest to it."""

FACES: Final = ("towards the feet", "towards the head", "in front", "at the back", "on the right", "on the left")

_CORE: Final = frozenset({"Brain", "Brainstem", "Bone_Mandible", "SpinalCanal", "SpinalCord"})
_INSIDE: Final = (("Lens_L", "Eye_L"), ("Lens_R", "Eye_R"), ("SpinalCord", "SpinalCanal"))
_ABOVE: Final = (
    ("Brain", "Brainstem"),
    ("Brainstem", "SpinalCord"),
    ("Eye_L", "Bone_Mandible"),
    ("Eye_R", "Bone_Mandible"),
    ("Bone_Mandible", "Lung_L"),
    ("Bone_Mandible", "Lung_R"),
)
_WHOLE_MM: Final = {"SpinalCanal": 350.0, "SpinalCord": 350.0, "Lung_L": 150.0, "Lung_R": 150.0}
"""Organs that go on to the lower end of the scan, unless this much of them is in it."""

HALF_NAMES: Final = ("outer", "inner", "front", "back", "upper", "lower")
"""The halves that an organ may lack, in the order of :class:`oarlock.organs.norms.Halving`."""


class Level(StrEnum):
    """How serious a finding is."""

    GREEN = "green"
    AMBER = "amber"
    RED = "red"


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding.

    :param code: stable name of the check, listed in ``docs/qa.md``.
    :param oar: name of the organ, None for a check of the whole set.
    :param value, low, high: what was measured and the limits of green, in ``unit``; None where there is no number.
    """

    code: str
    oar: str | None
    level: Level
    reason: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    unit: str | None = None

    def to_json(self) -> dict[str, Any]:
        """One entry of ``checks``."""
        return {**asdict(self), "level": self.level.value}


# ── judging ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def check_masks(
    masks: OARMasks,
    grid: Grid,
    certainty: Mapping[OAR, Certainty] | None = None,
    hu: npt.NDArray[np.int16] | None = None,
) -> tuple[Finding, ...]:
    """All checks of a set of contours, those of one organ together, in the order of ``masks.oars``.

    :param hu: (z, y, x) Hounsfield units on the grid; without them what an organ consists of is not checked.
    :param certainty: what the model's probabilities said, where the contours are a model's own.

    A green check is only listed for an organ as a whole (``organ.plausible``), so that the list stays as short as its news.
    """
    crops = {oar: crop for oar in masks.oars if (crop := masks.crop(oar)) is not None}
    shapes = {oar: shape_of(crop, grid, oar) for oar, crop in crops.items()}
    found = {} if hu is None else compositions(hu, crops, TISSUES)
    return judge(Anatomy(masks.oars, crops, shapes, grid, certainty=certainty or {}, compositions=found))


@dataclass(frozen=True, slots=True)
class NormTables:
    """The tables of :mod:`oarlock.organs.norms`, or others made in the same way."""

    norms: Mapping[str, Norm]
    twins: Mapping[str, Pair]
    halves: Mapping[str, Halving]
    lung_tops_mm: float
    tissues: Mapping[str, TissueNorm]


NORM_TABLES: Final = NormTables(NORMS, PAIRS, HALVES, LUNG_TOPS_MM, TISSUES)


def judge(anatomy: "Anatomy") -> tuple[Finding, ...]:
    """The checks of :func:`check_masks` on organs that are already measured."""
    found = [check for check_one in _CHECKS for check in check_one(anatomy)]
    for oar in anatomy.shapes:
        if not any(check.oar == oar.name and check.level is not Level.GREEN for check in found):
            found.append(Finding("organ.plausible", oar.name, Level.GREEN, f"{oar} passes every check."))
    places = {oar.name: place for place, oar in enumerate(anatomy.oars)}
    return tuple(sorted(found, key=lambda check: places.get(check.oar or "", -1)))


@dataclass(frozen=True, slots=True)
class Anatomy:
    """The organs of one patient.

    :param oars: those that were asked for; ``crops`` and ``shapes`` hold those that were drawn.
    """

    oars: tuple[OAR, ...]
    crops: Mapping[OAR, Crop]
    shapes: Mapping[OAR, Shape]
    grid: Grid
    limits: NormTables = NORM_TABLES
    certainty: Mapping[OAR, Certainty] = field(default_factory=dict)
    compositions: Mapping[OAR, Composition] = field(default_factory=dict)

    def get(self, name: str) -> Shape | None:
        return self.shapes.get(BY_NAME[name])

    def pairs(self) -> Iterator[tuple[OAR, Shape, Shape]]:
        """(left organ, its shape, the right one's shape) where both are drawn."""
        for oar, shape in self.shapes.items():
            if oar.laterality is Laterality.LEFT and (other := self.shapes.get(other_side(oar))) is not None:
                yield oar, shape, other

    def midline_mm(self) -> float | None:
        """Where the middle of the body is, in x: the median of the unpaired organs."""
        centres = [shape.anchor_mm[0] for oar, shape in self.shapes.items() if oar.laterality is None]
        return float(np.median(centres)) if centres else None


def _empty(anatomy: Anatomy) -> Iterator[Finding]:
    for oar in anatomy.oars:
        if oar not in anatomy.shapes:
            level = Level.RED if oar.name in _CORE else Level.AMBER
            reason = f"{oar} was not drawn. Is it in the scan, and was it not removed by surgery?"
            yield Finding("organ.empty", oar.name, level, reason)


def _field_of_view(anatomy: Anatomy) -> Iterator[Finding]:
    for oar, shape in anatomy.shapes.items():
        if shape.cut_side:
            reason = f"{oar} reaches the edge of the images: a part of it is outside, or what was drawn there is not the organ."
            yield Finding("scan.cut_at_side", oar.name, Level.RED, reason)
        for cut, end in ((shape.cut_foot, "lower"), (shape.cut_head, "upper")):
            if not cut:
                continue
            usual = oar.name in FROM_HEAD and end == "lower"
            level = Level.GREEN if usual else Level.AMBER
            reason = f"{oar} is cut by the {end} end of the scan: its volume and doses are those of a part."
            yield Finding("scan.cut_at_end", oar.name, level, reason)


def _volume(anatomy: Anatomy) -> Iterator[Finding]:
    for oar, shape in anatomy.shapes.items():
        limits = anatomy.limits.norms[oar.name].volume_limits_ml()
        is_part = shape.cut_foot or shape.cut_head
        level = _level(shape.volume_ml, *limits, no_lower=is_part)
        if level is not Level.GREEN:
            size = "small" if shape.volume_ml < limits[1] else "large"
            reason = f"{oar} is too {size}: {_ml(shape.volume_ml)}; experts drew {_ml(limits[1])} to {_ml(limits[2])}."
            yield Finding("organ.volume", oar.name, level, reason, shape.volume_ml, limits[1], limits[2], "ml")


def _symmetry(anatomy: Anatomy) -> Iterator[Finding]:
    for oar, left, right in anatomy.pairs():
        if left.cut_head or right.cut_head or left.cut_foot or right.cut_foot:
            continue
        ratio, pair = left.volume_ml / right.volume_ml, anatomy.limits.twins[oar.name[:-2]]
        level = _level(ratio, 1 / pair.implausible, 1 / pair.usual, pair.usual, pair.implausible)
        if level is not Level.GREEN:
            small, factor = (oar if ratio < 1 else other_side(oar)), max(ratio, 1 / ratio)
            reason = f"{small} is {factor:.2g} times smaller than the other side; {pair.usual:.2g} is usual at most."
            yield Finding("organ.symmetry", small.name, level, reason, ratio, 1 / pair.usual, pair.usual, "left / right")


def _mirror(anatomy: Anatomy) -> Iterator[Finding]:
    """Each side lies where the other one's mirror image is; of two that do not, the one is named that is further off."""
    for oar, left, right in anatomy.pairs():
        limits = np.array(anatomy.limits.twins[oar.name[:-2]].off_mm)
        expected = np.array(anatomy.limits.norms[oar.name].position_mm) - anatomy.limits.norms[other_side(oar).name].position_mm
        judged = np.array([True, True, not (left.cut_head or right.cut_head)])
        apart = np.where(judged, left.anchor_mm - right.anchor_mm - expected, 0.0)
        axis = int(np.argmax(np.abs(apart) / limits))
        if abs(apart[axis]) > limits[axis]:
            name = max((oar, other_side(oar)), key=lambda side: _off_along(side, anatomy, axis)).name
            way = ("from side to side", "from front to back", "along the body")[axis]
            reason = f"{oar} and {other_side(oar)} are {abs(apart[axis]):.0f} mm {way} from being mirror images of each other."
            yield Finding(
                "organ.mirror", name, Level.RED, reason, float(apart[axis]), -float(limits[axis]), float(limits[axis]), "mm"
            )


def _off_along(oar: OAR, anatomy: Anatomy, axis: int) -> float:
    off = offset_mm(oar, anatomy.shapes, anatomy.limits.norms)
    return 0.0 if off is None else abs(float(off[axis]))


def _laterality(anatomy: Anatomy) -> Iterator[Finding]:
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
            reason = f"{oar} lies on the patient's {side}: left and right are exchanged, or it is misplaced."
            yield Finding("organ.laterality", oar.name, Level.RED, reason, off, unit="mm to the left of the middle")


def _position(anatomy: Anatomy) -> Iterator[Finding]:
    for oar, shape in anatomy.shapes.items():
        off = offset_mm(oar, anatomy.shapes, anatomy.limits.norms)
        if off is None:
            continue
        red = np.array(anatomy.limits.norms[oar.name].off_mm)
        # A cut organ's centre of mass along the body is that of a part.
        judged = np.array([True, True, not (shape.cut_head or (shape.cut_foot and oar.name not in FROM_HEAD))])
        excess = np.where(judged, np.abs(off) / red, 0.0)
        axis = int(np.argmax(excess))
        if excess[axis] > _AMBER_SHARE:
            level = Level.RED if excess[axis] > 1 else Level.AMBER
            way = (("right", "left"), ("front", "back"), ("feet", "head"))[axis][int(off[axis] > 0)]
            reason = f"{oar} lies {abs(off[axis]):.0f} mm too far to the {way}, seen from the organs around it."
            yield Finding("organ.position", oar.name, level, reason, float(off[axis]), -float(red[axis]), float(red[axis]), "mm")


def offset_mm(oar: OAR, shapes: Mapping[OAR, Shape], norms: Mapping[str, Norm]) -> FloatArray | None:
    """(x, y, z) how far an organ is from where the organs around it would have it; None with fewer than three of them.

    Each of the five nearest organs that are drawn predicts the position by its own and the offset between the two in the mean
    anatomy; their median is the prediction, so that two misplaced neighbours out of five do no harm.
    """
    own = np.array(norms[oar.name].position_mm)
    # A head cut at the top moves the brain's centre: it predicts nothing then.
    others = [other for other, shape in shapes.items() if other != oar and not (shape.cut_head or _is_short(other, shape))]
    nearest = sorted(others, key=lambda other: float(np.linalg.norm(own - norms[other.name].position_mm)))[:PARTNERS]
    if len(nearest) < 3:
        return None
    predictions = [shapes[other].anchor_mm + own - norms[other.name].position_mm for other in nearest]
    return np.asarray(shapes[oar].anchor_mm - np.median(predictions, axis=0))


def _is_short(oar: OAR, shape: Shape) -> bool:
    """Whether less than the part that is compared is in the scan."""
    return shape.cut_foot and (oar.name not in FROM_HEAD or shape.head_mm - shape.foot_mm < ANCHOR_MM)


def _flat_faces(anatomy: Anatomy) -> Iterator[Finding]:
    for oar, shape in anatomy.shapes.items():
        limits = anatomy.limits.norms[oar.name].faces
        for face, share, limit, judged in zip(FACES, shape.faces, limits, shape.judged, strict=True):
            if judged and share > limit:
                reason = f"{oar} ends in a flat face {face}: a part of it seems to be missing."
                yield Finding("organ.flat_face", oar.name, Level.RED, reason, share, 0.0, limit, "share of the largest section")


def half_features(oar: OAR, own: Shape, other: Shape, norms: Mapping[str, Norm]) -> FloatArray:
    """(7,) what tells half an organ from a whole one: the logarithms of volume, width, depth and height (spreads) over those of
    the other side, and how far it is from the other side's mirror image (outwards, to the back, to the head) in mm.
    """
    outwards = np.array([1.0 if oar.laterality is Laterality.LEFT else -1.0, 1.0, 1.0])
    expected = np.array(norms[oar.name].position_mm) - norms[other_side(oar).name].position_mm
    ratios = np.log([own.volume_ml / other.volume_ml, *(own.spread_mm / other.spread_mm)])
    return np.concatenate([ratios, outwards * (own.anchor_mm - other.anchor_mm - expected)])


def _halves(anatomy: Anatomy) -> Iterator[Finding]:
    """Small organs have no cut that can be seen, but a whole twin: half an organ is half as large, narrower and to one side."""
    for oar, own in anatomy.shapes.items():
        halving = anatomy.limits.halves.get(oar.name[:-2]) if oar.laterality else None
        other = anatomy.shapes.get(other_side(oar))
        if halving is None or other is None or not all((*own.judged, *other.judged)):
            continue
        scores = halving.scores(half_features(oar, own, other, anatomy.limits.norms))
        worst = int(np.argmax(scores))
        if scores[worst] > HALF_AMBER:
            level = Level.RED if scores[worst] > 1 else Level.AMBER
            share, half = own.volume_ml / other.volume_ml, HALF_NAMES[worst]
            reason = f"The {half} half of {oar} seems to be missing: it has {share:.0%} of the volume of {other_side(oar)}."
            yield Finding("organ.half", oar.name, level, reason, float(scores[worst]), None, HALF_AMBER, "of the red limit")


def _continuity(anatomy: Anatomy) -> Iterator[Finding]:
    """Cord, canal and lungs go on to the lower end of the scan; cord and canal begin at the brainstem."""
    foot_mm = float(anatomy.grid.to_points(np.array([[0.0, 0, 0], [anatomy.grid.shape[0] - 1.0, 0, 0]]))[:, 2].min())
    for name, whole_mm in _WHOLE_MM.items():
        shape = anatomy.get(name)
        if shape is not None and (gap_mm := shape.foot_mm - foot_mm) > 10 and shape.head_mm - shape.foot_mm < whole_mm:
            reason = f"{name} ends {gap_mm:.0f} mm above the lower end of the scan: its lower part is missing."
            yield Finding("organ.incomplete", name, Level.RED, reason, gap_mm, 0.0, 10.0, "mm")
    stem = anatomy.get("Brainstem")
    for name in ("SpinalCanal", "SpinalCord"):
        shape = anatomy.get(name)
        if shape is not None and stem is not None and abs(gap_mm := stem.foot_mm - shape.head_mm) > 10:
            relation = "below" if gap_mm > 0 else "above"
            reason = f"{name} begins {abs(gap_mm):.0f} mm {relation} the lower end of the Brainstem: they should meet."
            yield Finding("organ.gap", name, Level.RED, reason, gap_mm, -10.0, 10.0, "mm")


def _lung_tops(anatomy: Anatomy) -> Iterator[Finding]:
    left, right, limit = anatomy.get("Lung_L"), anatomy.get("Lung_R"), anatomy.limits.lung_tops_mm
    if left is None or right is None or left.cut_head or right.cut_head:
        return
    apart_mm = left.head_mm - right.head_mm
    if abs(apart_mm) > limit:
        lower = "Lung_R" if apart_mm > 0 else "Lung_L"
        reason = f"{lower} begins {abs(apart_mm):.0f} mm below the top of the other lung: the tops lie at one height."
        yield Finding("organ.lung_tops", lower, Level.RED, reason, apart_mm, -limit, limit, "mm")


def _order(anatomy: Anatomy) -> Iterator[Finding]:
    for upper, lower in _ABOVE:
        above, below = anatomy.get(upper), anatomy.get(lower)
        if above is not None and below is not None and above.anchor_mm[2] <= below.anchor_mm[2]:
            reason = f"{upper} lies below {lower}: the series or the contours are upside down."
            yield Finding(
                "organ.order", upper, Level.RED, reason, float(above.anchor_mm[2] - below.anchor_mm[2]), 0.0, None, "mm"
            )


def _islands(anatomy: Anatomy) -> Iterator[Finding]:
    for oar, shape in anatomy.shapes.items():
        if oar.single and shape.largest_share < 0.95:
            level = Level.AMBER if shape.largest_share > 0.6 else Level.RED
            reason = f"{oar} is in {shape.pieces} pieces; the largest has {shape.largest_share:.0%} of it."
            yield Finding("organ.islands", oar.name, level, reason, shape.largest_share, 0.95, 1.0, "share in the largest piece")


def _overlaps(anatomy: Anatomy) -> Iterator[Finding]:
    for a, b in combinations(anatomy.shapes, 2):
        if {a.name, b.name} in [set(pair) for pair in _INSIDE]:
            continue
        share = _shared(anatomy.crops[a], anatomy.crops[b])
        if share > 0.05:
            level = Level.AMBER if share <= 0.2 else Level.RED
            reason = f"{a} and {b} overlap by {share:.0%} of the smaller one: the same tissue cannot be both."
            yield Finding("organs.overlap", a.name, level, reason, share, 0.0, 0.05, "share of the smaller")


def _inside(anatomy: Anatomy) -> Iterator[Finding]:
    for name, around in _INSIDE:
        inner, outer = BY_NAME[name], BY_NAME[around]
        if inner in anatomy.shapes and outer in anatomy.shapes:
            share = _covered(anatomy.crops[inner], anatomy.crops[outer])
            if share < 0.95:
                level = Level.AMBER if share >= 0.8 else Level.RED
                reason = f"Only {share:.0%} of {inner} lies inside of {outer}."
                yield Finding("organ.not_inside", inner.name, level, reason, share, 0.95, 1.0, "share inside")


def _density(anatomy: Anatomy) -> Iterator[Finding]:
    """Does the organ lie on its own tissue? The one check that sees a whole set of contours misplaced together."""
    for oar, found in anatomy.compositions.items():
        norm = anatomy.limits.tissues[oar.name]
        level = _level(found.share, norm.implausible, norm.usual, 1.0, 1.0)
        if level is Level.RED and found.voxels < FEW_VOXELS:
            level = Level.AMBER
        if level is not Level.GREEN:
            rest = "lighter" if found.lighter > found.denser else "denser"
            reason = (
                f"Only {found.share:.0%} of {oar} is {norm.tissue.said} on the CT; {norm.usual:.0%} or more is usual. "
                f"The rest is mostly {rest}. Does the contour lie on the organ, and is the CT free of artefacts there?"
            )
            unit = f"share that is {norm.tissue.name}"
            yield Finding("organ.density", oar.name, level, reason, found.share, norm.usual, 1.0, unit)


def _certainty(anatomy: Anatomy) -> Iterator[Finding]:
    """Does the model's probability stand behind the line, and is what it drew in the contour?"""
    for oar, seen in anatomy.certainty.items():
        shape = anatomy.shapes.get(oar)
        if shape is None or seen.share is None or seen.drawn_ml == 0:
            continue
        level = _level(seen.share, *CERTAINTY_LIMITS, 1.0, 1.0)
        if level is not Level.GREEN:
            reason = (
                f"The model is not sure of {oar}: were it a little stricter, {_ml(seen.strict_ml)} would be left, "
                f"were it a little less strict, there would be {_ml(seen.loose_ml)}; {_ml(shape.volume_ml)} are drawn."
            )
            yield Finding(
                "organ.certainty", oar.name, level, reason, seen.share, CERTAINTY_LIMITS[1], 1.0, "strict / loose volume"
            )
        ratio = shape.volume_ml / seen.drawn_ml
        level = _level(ratio, *DELIVERED_LIMITS)
        if level is not Level.GREEN:
            reason = f"{oar} has {_ml(shape.volume_ml)}, but the model saw {_ml(seen.drawn_ml)}: pieces were dropped or lost."
            yield Finding("organ.delivered", oar.name, level, reason, ratio, *DELIVERED_LIMITS[1:3], "drawn / seen volume")


_CHECKS: Final[tuple[Callable[[Anatomy], Iterator[Finding]], ...]] = (
    _empty,
    _laterality,
    _order,
    _position,
    _volume,
    _symmetry,
    _mirror,
    _flat_faces,
    _halves,
    _continuity,
    _lung_tops,
    _islands,
    _overlaps,
    _inside,
    _field_of_view,
    _density,
    _certainty,
)

_AMBER_SHARE: Final = 0.8
"""An organ that is off by this share of the red limit is amber."""

FEW_VOXELS: Final = 50
"""Of fewer voxels (a cochlea, a lens on thick slices) those at its edge are too large a share for a red."""

CERTAINTY_LIMITS: Final = (0.25, 0.5)
"""Of the strict volume over the loose one (:class:`oarlock.segmentation.certainty.Certainty`): red and amber below."""

DELIVERED_LIMITS: Final = (0.5, 0.7, 1.4, 2.0)
"""Of the delivered volume over the one that the model saw: red below, amber below, amber above, red above."""

HALF_AMBER: Final = 1 / 1.3
"""No whole organ that the limits come from has a score above this share of the red limit."""


def _level(
    value: float, red_below: float, amber_below: float, amber_above: float, red_above: float, *, no_lower: bool = False
) -> Level:
    low = math.inf if no_lower else value
    if low < red_below or value > red_above:
        return Level.RED
    return Level.AMBER if low < amber_below or value > amber_above else Level.GREEN


def _ml(volume_ml: float) -> str:
    """Three digits as a person writes them: 0.0312 ml, 37 ml, 1140 ml."""
    digits = 2 - math.floor(math.log10(volume_ml)) if volume_ml > 0 else 0
    rounded = round(volume_ml, digits)
    return f"{rounded:.{max(digits, 0)}f} ml"


def _shared(a: Crop, b: Crop) -> float:
    """Volume of the overlap over that of the smaller organ, by voxels."""
    both = _in_both(a, b)
    return both / int(min(np.count_nonzero(a[1]), np.count_nonzero(b[1]))) if both else 0.0


def _covered(inner: Crop, outer: Crop) -> float:
    """Which share of an organ lies in another one, by voxels."""
    return _in_both(inner, outer) / int(np.count_nonzero(inner[1]))


def _in_both(a: Crop, b: Crop) -> int:
    common = [slice(max(p.start, q.start), min(p.stop, q.stop)) for p, q in zip(a[0], b[0], strict=True)]
    if any(s.start >= s.stop for s in common):
        return 0
    return int(np.count_nonzero(_part(a, common) & _part(b, common)))


def _part(crop: Crop, box: Sequence[slice]) -> Mask:
    """What an organ has in a box that lies in its own."""
    own, mask = crop
    return mask[tuple(slice(p.start - q.start, p.stop - q.start) for p, q in zip(box, own, strict=True))]

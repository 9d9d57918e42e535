"""Checks that need no reference: is this the anatomy of a human being, on the right sides, whole and inside of the scan?

Each check gives green, amber or red and a sentence for a dosimetrist. Red means that no set of the 42 expert contours that the
limits were derived from looks like this; amber means look here first. Green is not approval. The limits are in
:mod:`oarlock.anatomy`, the table of all checks and what they cannot see in ``docs/qa.md``.

Positions are patient millimetres (x to the left, y to the back, z to the head). Arrays inside of this module are turned so that
z runs from foot to head, y from front to back and x from the patient's right to the left, whatever the series' orientation is.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from itertools import combinations, permutations
from typing import Any, Final

import numpy as np
from scipy import ndimage

from oarlock.anatomy import NORMS, PAIRS, Norm, Pair
from oarlock.geometry import FloatArray, Grid
from oarlock.masks import Box, Mask, OARMasks
from oarlock.oars import BY_NAME, OAR, Laterality, mirrored

ANCHOR_MM: Final = 60.0
"""Of an organ that scans cut at the lower end, the position of its uppermost part of this height is compared."""

FROM_HEAD: Final = frozenset({"SpinalCanal", "SpinalCord", "Lung_L", "Lung_R"})
"""The organs that most scans cut at the lower end."""

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
_WHOLE_CORD_MM: Final = 350.0


class Level(StrEnum):
    """How serious a finding is."""

    GREEN = "green"
    AMBER = "amber"
    RED = "red"


@dataclass(frozen=True, slots=True)
class Check:
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


@dataclass(frozen=True, eq=False, slots=True)
class Shape:
    """What the checks need to know of one organ.

    :param volume_ml: volume.
    :param anchor_mm: (x, y, z) centre of mass; of the organs in ``FROM_HEAD`` that of the uppermost 60 mm.
    :param foot_mm, head_mm: z of the lowest and the highest slice.
    :param faces: area of the first and last plane over the largest parallel one: foot, head, front, back, right, left. A rounded
        organ has small ones, a cut has one near 1.
    :param judged: which of the faces can be judged: not cut by the scan, planes no thicker than where the limits come from.
    :param largest_share: share of the voxels that are in the largest connected piece (26 neighbours).
    :param pieces: number of connected pieces.
    :param cut_foot, cut_head, cut_side: whether the organ reaches the first or last slice, or the edge of the images.
    """

    volume_ml: float
    anchor_mm: FloatArray
    foot_mm: float
    head_mm: float
    faces: tuple[float, ...]
    judged: tuple[bool, ...]
    largest_share: float
    pieces: int
    cut_foot: bool
    cut_head: bool
    cut_side: bool


# ── measuring ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def shape_of(masks: OARMasks, grid: Grid, oar: OAR) -> Shape | None:
    """Measure one organ; None if it is empty."""
    cropped = masks.crop(oar)
    if cropped is None:
        return None
    box, mask = cropped
    turn = _Turn.of(grid)
    planes, spacings = turn.array(mask), turn.triple(grid.spacing_mm)
    cuts = turn.ends([(s.start == 0, s.stop == n) for s, n in zip(box, masks.shape, strict=True)])
    areas = [np.count_nonzero(planes, axis=axes) for axes in ((1, 2), (0, 2), (0, 1))]
    pieces, count = ndimage.label(mask, structure=np.ones((3, 3, 3), dtype=np.int8))
    sizes = np.bincount(pieces.ravel())[1:]
    heights = grid.to_points(_corners(box))[:, 2]
    coarse = [spacing > limit for spacing, limit in zip(spacings, (2.6, 1.3, 1.3), strict=True)]
    return Shape(
        volume_ml=float(np.array([np.count_nonzero(image) for image in mask]) @ grid.voxel_volumes_mm3[box[0]]) / 1000,
        anchor_mm=_anchor_mm(mask, box, grid, turn, from_head=oar.name in FROM_HEAD),
        foot_mm=float(heights.min()),
        head_mm=float(heights.max()),
        faces=tuple(float(area[end] / area.max()) for area in areas for end in (0, -1)),
        judged=tuple(not cut and not coarse[axis] for axis, pair in enumerate(cuts) for cut in pair),
        largest_share=float(sizes.max() / sizes.sum()),
        pieces=int(count),
        cut_foot=cuts[0][0],
        cut_head=cuts[0][1],
        cut_side=any(cuts[1]) or any(cuts[2]),
    )


@dataclass(frozen=True, slots=True)
class _Turn:
    """Which index axis runs along which patient axis (z, y, x), and which way: the nearest quarter turn."""

    order: tuple[int, ...]
    flipped: tuple[bool, ...]

    @classmethod
    def of(cls, grid: Grid) -> "_Turn":
        directions = np.stack([grid.normal, grid.column_direction, grid.row_direction])
        along = np.abs(directions[:, ::-1])  # index axis × patient axis (z, y, x)
        order = max(permutations(range(3)), key=lambda indices: sum(along[index, i] for i, index in enumerate(indices)))
        return cls(order, tuple(bool(directions[index, 2 - i] < 0) for i, index in enumerate(order)))

    def array(self, mask: Mask) -> Mask:
        """A view of an array with its axes along the patient's."""
        turned = mask.transpose(self.order)
        return np.flip(turned, axis=tuple(i for i, flipped in enumerate(self.flipped) if flipped))

    def triple(self, values: tuple[float, float, float]) -> tuple[float, ...]:
        """One value per index axis, in the order of the patient's axes."""
        return tuple(values[index] for index in self.order)

    def ends(self, pairs: list[tuple[bool, bool]]) -> list[tuple[bool, bool]]:
        """One (first, last) per index axis, as (lower, upper) per patient axis."""
        turned = [pairs[index] for index in self.order]
        return [pair[::-1] if flipped else pair for pair, flipped in zip(turned, self.flipped, strict=True)]


def _corners(box: Box) -> FloatArray:
    z, y, x = box
    return np.array([[z.start, y.start, x.start], [z.stop - 1, y.start, x.start]], dtype=np.float64)


def _anchor_mm(mask: Mask, box: Box, grid: Grid, turn: _Turn, *, from_head: bool) -> FloatArray:
    kept = mask
    if from_head:
        kept = mask.copy()
        planes = turn.array(kept)
        planes[: max(0, len(planes) - round(ANCHOR_MM / turn.triple(grid.spacing_mm)[0]))] = False
    totals = [np.count_nonzero(kept, axis=axes) for axes in ((1, 2), (0, 2), (0, 1))]
    centre = [np.arange(s.start, s.stop) @ total / total.sum() for s, total in zip(box, totals, strict=True)]
    return np.asarray(grid.to_points(np.array([centre]))[0])


# ── judging ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def check_masks(masks: OARMasks, grid: Grid) -> tuple[Check, ...]:
    """All checks of a set of contours, those of one organ together, in the order of ``masks.oars``.

    A green check is only listed for an organ as a whole (``organ.plausible``), so that the list stays as short as its news.
    """
    shapes = {oar: shape for oar in masks.oars if (shape := shape_of(masks, grid, oar)) is not None}
    return judge(shapes, masks, grid)


def judge(
    shapes: Mapping[OAR, Shape],
    masks: OARMasks,
    grid: Grid,
    norms: Mapping[str, Norm] = NORMS,
    twins: Mapping[str, Pair] = PAIRS,
) -> tuple[Check, ...]:
    """The checks of :func:`check_masks` on organs that are already measured."""
    found = [check for check_one in _CHECKS for check in check_one(_Anatomy(shapes, masks, grid, norms, twins))]
    for oar in masks.oars:
        if oar in shapes and not any(check.oar == oar.name and check.level is not Level.GREEN for check in found):
            found.append(Check("organ.plausible", oar.name, Level.GREEN, f"{oar} passes every check."))
    places = {oar.name: place for place, oar in enumerate(masks.oars)}
    return tuple(sorted(found, key=lambda check: places.get(check.oar or "", -1)))


@dataclass(frozen=True, slots=True)
class _Anatomy:
    """The measured organs of one patient."""

    shapes: Mapping[OAR, Shape]
    masks: OARMasks
    grid: Grid
    norms: Mapping[str, Norm]
    twins: Mapping[str, Pair]

    def get(self, name: str) -> Shape | None:
        return self.shapes.get(BY_NAME[name])

    def pairs(self) -> Iterator[tuple[OAR, Shape, Shape]]:
        """(left organ, its shape, the right one's shape) where both are drawn."""
        for oar, shape in self.shapes.items():
            if oar.laterality is Laterality.LEFT and (other := self.shapes.get(mirrored(oar))) is not None:
                yield oar, shape, other

    def midline_mm(self) -> float | None:
        """Where the middle of the body is, in x: the median of the unpaired organs."""
        centres = [shape.anchor_mm[0] for oar, shape in self.shapes.items() if oar.laterality is None]
        return float(np.median(centres)) if centres else None


def _empty(anatomy: _Anatomy) -> Iterator[Check]:
    for oar in anatomy.masks.oars:
        if oar not in anatomy.shapes:
            level = Level.RED if oar.name in _CORE else Level.AMBER
            reason = f"{oar} was not drawn. Is it in the scan, and was it not removed by surgery?"
            yield Check("organ.empty", oar.name, level, reason)


def _field_of_view(anatomy: _Anatomy) -> Iterator[Check]:
    for oar, shape in anatomy.shapes.items():
        if shape.cut_side:
            reason = f"{oar} reaches the edge of the images: a part of it is outside, or what was drawn there is not the organ."
            yield Check("scan.cut_at_side", oar.name, Level.RED, reason)
        for cut, end in ((shape.cut_foot, "lower"), (shape.cut_head, "upper")):
            if not cut:
                continue
            usual = oar.name in FROM_HEAD and end == "lower"
            level = Level.GREEN if usual else Level.AMBER
            reason = f"{oar} is cut by the {end} end of the scan: its volume and doses are those of a part."
            yield Check("scan.cut_at_end", oar.name, level, reason)


def _volume(anatomy: _Anatomy) -> Iterator[Check]:
    for oar, shape in anatomy.shapes.items():
        limits = anatomy.norms[oar.name].volume_limits_ml()
        is_part = shape.cut_foot or shape.cut_head
        level = _level(shape.volume_ml, *limits, no_lower=is_part)
        if level is not Level.GREEN:
            size = "small" if shape.volume_ml < limits[1] else "large"
            reason = f"{oar} is too {size}: {shape.volume_ml:.3g} ml; experts drew {limits[1]:.3g} to {limits[2]:.3g} ml."
            yield Check("organ.volume", oar.name, level, reason, shape.volume_ml, limits[1], limits[2], "ml")


def _symmetry(anatomy: _Anatomy) -> Iterator[Check]:
    for oar, left, right in anatomy.pairs():
        if left.cut_head or right.cut_head or left.cut_foot or right.cut_foot:
            continue
        ratio, pair = left.volume_ml / right.volume_ml, anatomy.twins[oar.name[:-2]]
        level = _level(ratio, 1 / pair.implausible, 1 / pair.usual, pair.usual, pair.implausible)
        if level is not Level.GREEN:
            small, factor = (oar if ratio < 1 else mirrored(oar)), max(ratio, 1 / ratio)
            reason = f"{small} is {factor:.2g} times smaller than the other side; {pair.usual:.2g} is usual at most."
            yield Check("organ.symmetry", small.name, level, reason, ratio, 1 / pair.usual, pair.usual, "left / right")


def _mirror(anatomy: _Anatomy) -> Iterator[Check]:
    """Each side lies where the other one's mirror image is; of two that do not, the one is named that is further off."""
    for oar, left, right in anatomy.pairs():
        limits = np.array(anatomy.twins[oar.name[:-2]].off_mm)
        expected = np.array(anatomy.norms[oar.name].position_mm) - anatomy.norms[mirrored(oar).name].position_mm
        judged = np.array([True, True, not (left.cut_head or right.cut_head)])
        apart = np.where(judged, left.anchor_mm - right.anchor_mm - expected, 0.0)
        axis = int(np.argmax(np.abs(apart) / limits))
        if abs(apart[axis]) > limits[axis]:
            name = max((oar, mirrored(oar)), key=lambda side: _off_along(side, anatomy, axis)).name
            way = ("from side to side", "from front to back", "along the body")[axis]
            reason = f"{oar} and {mirrored(oar)} are {abs(apart[axis]):.0f} mm {way} from being mirror images of each other."
            yield Check(
                "organ.mirror", name, Level.RED, reason, float(apart[axis]), -float(limits[axis]), float(limits[axis]), "mm"
            )


def _off_along(oar: OAR, anatomy: _Anatomy, axis: int) -> float:
    off = offset_mm(oar, anatomy.shapes, anatomy.norms)
    return 0.0 if off is None else abs(float(off[axis]))


def _laterality(anatomy: _Anatomy) -> Iterator[Check]:
    midline = anatomy.midline_mm()
    for oar, shape in anatomy.shapes.items():
        if oar.laterality is None:
            continue
        other = anatomy.shapes.get(mirrored(oar))
        middle = float(shape.anchor_mm[0] + other.anchor_mm[0]) / 2 if other is not None else midline
        if middle is None:
            continue
        off = float(shape.anchor_mm[0]) - middle
        if (off > 0) is not (oar.laterality is Laterality.LEFT):
            side = "left" if off > 0 else "right"
            reason = f"{oar} lies on the patient's {side}: left and right are exchanged, or it is misplaced."
            yield Check("organ.laterality", oar.name, Level.RED, reason, off, unit="mm to the left of the middle")


def _position(anatomy: _Anatomy) -> Iterator[Check]:
    for oar, shape in anatomy.shapes.items():
        off = offset_mm(oar, anatomy.shapes, anatomy.norms)
        if off is None:
            continue
        red = np.array(anatomy.norms[oar.name].off_mm)
        # A cut organ's centre of mass along the body is that of a part.
        judged = np.array([True, True, not (shape.cut_head or (shape.cut_foot and oar.name not in FROM_HEAD))])
        excess = np.where(judged, np.abs(off) / red, 0.0)
        axis = int(np.argmax(excess))
        if excess[axis] > _AMBER_SHARE:
            level = Level.RED if excess[axis] > 1 else Level.AMBER
            way = (("right", "left"), ("front", "back"), ("feet", "head"))[axis][int(off[axis] > 0)]
            reason = f"{oar} lies {abs(off[axis]):.0f} mm too far to the {way}, seen from the organs around it."
            yield Check("organ.position", oar.name, level, reason, float(off[axis]), -float(red[axis]), float(red[axis]), "mm")


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


def _flat_faces(anatomy: _Anatomy) -> Iterator[Check]:
    for oar, shape in anatomy.shapes.items():
        limits = anatomy.norms[oar.name].faces
        for face, share, limit, judged in zip(FACES, shape.faces, limits, shape.judged, strict=True):
            if judged and share > limit:
                reason = f"{oar} ends in a flat face {face}: a part of it seems to be missing."
                yield Check("organ.flat_face", oar.name, Level.RED, reason, share, 0.0, limit, "share of the largest section")


def _continuity(anatomy: _Anatomy) -> Iterator[Check]:
    """Cord and canal run from the brainstem to the end of the scan."""
    foot_mm = float(anatomy.grid.to_points(np.array([[0.0, 0, 0], [anatomy.grid.shape[0] - 1.0, 0, 0]]))[:, 2].min())
    for name in ("SpinalCanal", "SpinalCord"):
        shape, stem = anatomy.get(name), anatomy.get("Brainstem")
        if shape is None:
            continue
        gap_mm = shape.foot_mm - foot_mm
        if gap_mm > 10 and shape.head_mm - shape.foot_mm < _WHOLE_CORD_MM:
            reason = f"{name} ends {gap_mm:.0f} mm above the lower end of the scan: its lower part is missing."
            yield Check("organ.incomplete", name, Level.RED, reason, gap_mm, 0.0, 10.0, "mm")
        if stem is not None and abs(gap_mm := stem.foot_mm - shape.head_mm) > 10:
            relation = "below" if gap_mm > 0 else "above"
            reason = f"{name} begins {abs(gap_mm):.0f} mm {relation} the lower end of the Brainstem: they should meet."
            yield Check("organ.gap", name, Level.RED, reason, gap_mm, -10.0, 10.0, "mm")


def _order(anatomy: _Anatomy) -> Iterator[Check]:
    for upper, lower in _ABOVE:
        above, below = anatomy.get(upper), anatomy.get(lower)
        if above is not None and below is not None and above.anchor_mm[2] <= below.anchor_mm[2]:
            reason = f"{upper} lies below {lower}: the series or the contours are upside down."
            yield Check("organ.order", upper, Level.RED, reason, float(above.anchor_mm[2] - below.anchor_mm[2]), 0.0, None, "mm")


def _islands(anatomy: _Anatomy) -> Iterator[Check]:
    for oar, shape in anatomy.shapes.items():
        if oar.single and shape.largest_share < 0.95:
            level = Level.AMBER if shape.largest_share > 0.6 else Level.RED
            reason = f"{oar} is in {shape.pieces} pieces; the largest has {shape.largest_share:.0%} of it."
            yield Check("organ.islands", oar.name, level, reason, shape.largest_share, 0.95, 1.0, "share in the largest piece")


def _overlaps(anatomy: _Anatomy) -> Iterator[Check]:
    for a, b in combinations(anatomy.shapes, 2):
        if {a.name, b.name} in [set(pair) for pair in _INSIDE]:
            continue
        share = _shared(anatomy.masks, a, b)
        if share > 0.05:
            level = Level.AMBER if share <= 0.2 else Level.RED
            reason = f"{a} and {b} overlap by {share:.0%} of the smaller one: the same tissue cannot be both."
            yield Check("organs.overlap", a.name, level, reason, share, 0.0, 0.05, "share of the smaller")


def _inside(anatomy: _Anatomy) -> Iterator[Check]:
    for name, around in _INSIDE:
        inner, outer = BY_NAME[name], BY_NAME[around]
        if inner in anatomy.shapes and outer in anatomy.shapes:
            share = _covered(anatomy.masks, inner, outer)
            if share < 0.95:
                level = Level.AMBER if share >= 0.8 else Level.RED
                reason = f"Only {share:.0%} of {inner} lies inside of {outer}."
                yield Check("organ.not_inside", inner.name, level, reason, share, 0.95, 1.0, "share inside")


_CHECKS: Final[tuple[Callable[[_Anatomy], Iterator[Check]], ...]] = (
    _empty,
    _laterality,
    _order,
    _position,
    _volume,
    _symmetry,
    _mirror,
    _flat_faces,
    _continuity,
    _islands,
    _overlaps,
    _inside,
    _field_of_view,
)

_AMBER_SHARE: Final = 0.8
"""An organ that is off by this share of the red limit is amber."""


def _level(
    value: float, red_below: float, amber_below: float, amber_above: float, red_above: float, *, no_lower: bool = False
) -> Level:
    low = math.inf if no_lower else value
    if low < red_below or value > red_above:
        return Level.RED
    return Level.AMBER if low < amber_below or value > amber_above else Level.GREEN


def _shared(masks: OARMasks, a: OAR, b: OAR) -> float:
    """Volume of the overlap over that of the smaller organ, by voxels."""
    box_a, box_b = masks.boxes()[a.name], masks.boxes()[b.name]
    assert box_a is not None  # both are drawn
    assert box_b is not None
    box = tuple(slice(max(p.start, q.start), min(p.stop, q.stop)) for p, q in zip(box_a, box_b, strict=True))
    if any(s.start >= s.stop for s in box):
        return 0.0
    bits = masks.bit(a) | masks.bit(b)
    both = int(np.count_nonzero((masks.bits[box] & bits) == bits))
    return both / min(_voxels(masks, a), _voxels(masks, b)) if both else 0.0


def _covered(masks: OARMasks, inner: OAR, outer: OAR) -> float:
    box = masks.boxes()[inner.name]
    assert box is not None  # it is drawn
    bits = masks.bit(inner) | masks.bit(outer)
    return int(np.count_nonzero((masks.bits[box] & bits) == bits)) / _voxels(masks, inner)


def _voxels(masks: OARMasks, oar: OAR) -> int:
    box = masks.boxes()[oar.name]
    return 0 if box is None else int(np.count_nonzero(masks.bits[box] & masks.bit(oar)))

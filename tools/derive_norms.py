"""Derives the tables of oarlock/organs/norms.py, and prints them.

From the expert contours.

    python -m tools.derive_norms FOLDER --openkbp OPENKBP --matched matched.csv

FOLDER holds the contours in their public layout (see expert_contours.py), OPENKBP the planning CTs (see planning_ct.py). The
method is in docs/qa.md; how often checks with these limits are wrong is measured by tools/studies/faults.py.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from oarlock.geometry.grid import Grid
from oarlock.geometry.masks import Crop
from oarlock.organs.catalogue import OAR, OARS, Laterality, other_side
from oarlock.organs.norms import (
    AIRY,
    BONE,
    FATTY,
    FEW,
    PLAUSIBLE,
    PLAUSIBLE_NEAR,
    SOFT,
    USUAL,
    Halving,
    Norm,
    Pair,
    TissueNorm,
    TissueRange,
    tolerance_factor,
    tolerance_factor_above,
)
from oarlock.qa.checks.anatomy import NormTables
from oarlock.qa.checks.place import offset_mm
from oarlock.qa.checks.whole import HALF_AMBER, half_features
from oarlock.qa.organ_shape import FROM_HEAD, Shape, shape_of
from oarlock.qa.tissue import composition_of
from tests.expert_data.expert_contours import RATERS, Case, cases
from tests.expert_data.planning_ct import PlanningCTs, Values

Shapes = Mapping[OAR, Shape]

FLAT = 0.75
"""An end face that is this flat in an expert's contour may be flat: no limit is set for it."""


SHRINKAGE = 0.1
"""Added to the diagonal of the covariance of whole organs, as a share of it: 21 patients do not tell seven features apart."""


TISSUE_OF: Final[dict[str, TissueRange]] = {
    "Brain": SOFT,
    "Brainstem": SOFT,
    "Cochlea": BONE,
    "Glnd_Lacrimal": FATTY,
    "Lens": SOFT,
    "Lung": AIRY,
    "Bone_Mandible": BONE,
    "OpticNrv": FATTY,
    "Eye": SOFT,
    "Parotid": FATTY,
    "SpinalCanal": FATTY,
    "SpinalCord": SOFT,
    "Glnd_Submand": SOFT,
}
"""By the name of the organ without its side. A cochlea is a hollow of two millimetres in the hardest bone; parotids and
canals hold fat, and nerves lie in it."""

TISSUE_NAMES: Final = {AIRY: "AIRY", SOFT: "SOFT", FATTY: "FATTY", BONE: "BONE"}

MANY = 100
"""From so many sets of an organ on, what other patients look like is known well enough for a tight limit."""


@dataclass(frozen=True)
class ContourSet:
    """One set of contours.

    Its organs, their shapes, and those of the six halves of each.
    """

    case: str
    rater: str
    grid: Grid
    crops: Mapping[OAR, Crop]
    shapes: Shapes
    halves: Mapping[OAR, Sequence[Shape | None]]

    @property
    def patient(self) -> str:
        """Two scans of one patient differ by a letter."""
        return self.case.rstrip("abc")


def read(folder: Path) -> Iterator[ContourSet]:
    """Every set of contours."""
    for case in cases(folder):
        for rater in RATERS:
            yield drawn_of(case, rater)


def drawn_of(case: Case, rater: str) -> ContourSet:
    """What one rater drew on one scan."""
    crops, grid = case.crops(rater)
    shapes = {oar: shape_of(crop, grid, oar) for oar, crop in crops.items()}
    halves = {
        oar: [None if half is None else shape_of(half, grid, oar) for half in halved(oar, crops[oar])]
        for oar in crops
        if oar.laterality and oar.name not in FROM_HEAD
    }
    return ContourSet(case.name, rater, grid, crops, shapes, halves)


def halved(oar: OAR, crop: Crop) -> list[Crop | None]:
    """What is left of an organ without each of its halves.

    Outer, inner, front, back, upper and lower; None where the organ is one voxel wide.

    :param crop: of a grid whose axes run to the head, to the back and to the left; so do the axes of an expert's contours.
    """
    outer_last = oar.laterality is not Laterality.RIGHT
    return [
        _without(crop, axis, last=last)
        for axis, last in zip((2, 2, 1, 1, 0, 0), (outer_last, not outer_last, False, True, True, False), strict=True)
    ]


def _without(crop: Crop, axis: int, *, last: bool) -> Crop | None:
    """An organ without the half at the end (or the beginning) of an axis, cut between the two planes nearest to its middle."""
    box, mask = crop
    areas = np.count_nonzero(mask, axis=tuple(i for i in range(3) if i != axis))
    if len(areas) < 2:
        return None
    left = np.cumsum(areas)[:-1] / areas.sum()
    cut = int(np.argmin(np.abs(left - 0.5))) + 1
    kept = mask.copy()
    kept[(slice(None),) * axis + (slice(cut, None) if last else slice(None, cut),)] = False
    return tight((box, kept))


def tight(crop: Crop) -> Crop:
    """The same organ in the smallest box."""
    box, mask = crop
    hits = [np.flatnonzero(mask.any(axis=tuple(i for i in range(3) if i != axis))) for axis in range(3)]
    inner = [slice(int(hit[0]), int(hit[-1]) + 1) for hit in hits]
    z, y, x = (slice(s.start + i.start, s.start + i.stop) for s, i in zip(box, inner, strict=True))
    return (z, y, x), np.ascontiguousarray(mask[tuple(inner)])


def limits(sets: Sequence[ContourSet], cts: PlanningCTs) -> NormTables:
    """All tables."""
    shapes = [drawn.shapes for drawn in sets]
    table = norms(sets)
    return NormTables(table, pairs(sets), halvings(sets, table), _lung_tops_mm(shapes), tissues(sets, cts))


def tissues(sets: Sequence[ContourSet], cts: PlanningCTs) -> dict[str, TissueNorm]:
    """The table TISSUES, from the contours that lie on a CT.

    Those of the experts, and those of OpenKBP's patients.

    98 % of all sets lack less of an organ's tissue than a certain share (of fewer than 50 sets, all). Red is what lacks a fifth
    more than that and beyond it another 3 % of the organ, or 10 % where there are few sets to learn from; amber is half way.
    """
    table = {}
    for oar in OARS:
        tissue = TISSUE_OF[unsided(oar)]
        lacking = [1 - composition_of(values, tissue).share for values in _voxels(oar, sets, cts)]
        worst = float(np.quantile(lacking, 0.98, method="higher"))
        slack = 0.03 if len(lacking) >= MANY else 0.1
        red = 1.2 * worst + slack
        table[oar.name] = TissueNorm(tissue, 1 - (worst + red) / 2, 1 - red)
    return table


def _voxels(oar: OAR, sets: Sequence[ContourSet], cts: PlanningCTs) -> Iterator[Values]:
    """The Hounsfield units in each drawing of an organ or of its other side."""
    for side in {oar, other_side(oar)} if oar.laterality else {oar}:
        yield from (values for _, values in cts.drawn.get(side, ()))
        for drawn in sets:
            laid, crop = cts.laid.get(drawn.case), drawn.crops.get(side)
            if laid is not None and crop is not None and (values := laid.under(crop)) is not None:
                yield values


def unsided(oar: OAR) -> str:
    """The name of an organ without its side."""
    return oar.name[:-2] if oar.laterality else oar.name


def halvings(sets: Sequence[ContourSet], table: Mapping[str, Norm]) -> dict[str, Halving]:
    """The table HALVES.

    Fisher's discriminant between whole organs and each of their halves.
    """
    return {
        oar.name[:-2]: _halving(oar, sets, table)
        for oar in OARS
        if oar.laterality is Laterality.LEFT and oar.name not in FROM_HEAD
    }


def _halving(left: OAR, sets: Sequence[ContourSet], table: Mapping[str, Norm]) -> Halving:
    """Its limits are one-sided tolerance limits.

    They lie above 1.3 times the highest score of a whole organ and half way to the average half.

    Each of two twins is the other one's twin, so the features of whole organs are 0 on average.
    """
    sides = [(s, oar) for s in sets for oar in (left, other_side(left)) if {oar, other_side(oar)} <= s.shapes.keys()]
    whole = np.array([half_features(oar, s.shapes[oar], s.shapes[other_side(oar)], table) for s, oar in sides])
    patients = len({s.patient for s, _ in sides})
    spread = np.cov(whole.T)
    spread += SHRINKAGE * np.diag(np.diag(spread))
    weights = []
    for place in range(6):
        halves = [(oar, half, s.shapes[other_side(oar)]) for s, oar in sides if (half := s.halves[oar][place]) is not None]
        moved = np.mean([half_features(oar, half, other, table) for oar, half, other in halves], axis=0)
        direction = np.linalg.solve(spread, moved)
        scores = whole @ direction
        tolerated = tolerance_factor_above(patients, PLAUSIBLE_NEAR) * float(np.sqrt(np.mean(np.square(scores))))
        limit = max(tolerated, float(np.max(scores)) / HALF_AMBER, float(moved @ direction) / 2)
        weights.append(tuple((direction / limit).tolist()))
    return Halving(tuple(weights))


def _lung_tops_mm(sets: Sequence[Shapes]) -> float:
    """The limit LUNG_TOPS_MM."""
    left, right = (next(oar for oar in OARS if oar.name == f"Lung_{side}") for side in "LR")
    apart = [abs(s[left].head_mm - s[right].head_mm) for s in sets if left in s and right in s]
    return 1.5 * max(apart)


def norms(drawn: Sequence[ContourSet]) -> dict[str, Norm]:
    """The table NORMS."""
    sets = [one.shapes for one in drawn]
    positions = _positions(sets)
    first = {oar.name: _norm(oar, drawn, positions, _NOT_YET) for oar in OARS}
    return {oar.name: _norm(oar, drawn, positions, _off_limits(oar, drawn, first)) for oar in OARS}


def _positions(sets: Sequence[Shapes]) -> dict[OAR, np.ndarray]:
    """The mean anatomy: each organ's median offset from the brainstem, and the two sides made mirror images of each other."""
    stem = next(oar for oar in OARS if oar.name == "Brainstem")
    offsets = {
        oar: np.median(
            [s[oar].anchor_mm - s[stem].anchor_mm for s in sets if oar in s and stem in s and not s[oar].cut_head], axis=0
        )
        for oar in OARS
    }
    flip = np.array([-1.0, 1.0, 1.0])
    return {
        oar: (offset + flip * offsets[other_side(oar)]) / 2 if oar.laterality else offset * [0, 1, 1]
        for oar, offset in offsets.items()
    }


def _norm(oar: OAR, drawn: Sequence[ContourSet], positions: Mapping[OAR, np.ndarray], off: "_OffLimits") -> Norm:
    """One row; the two sides of the body share everything but the sign of x, front and the order of the side faces."""
    sets = [one.shapes for one in drawn]
    own = [s[oar] for s in sets if oar in s]
    both = own + ([s[other_side(oar)] for s in sets if other_side(oar) in s] if oar.laterality else [])
    # Of an organ that every scan cuts nothing is known but that it is larger than its parts.
    whole = np.array([shape.volume_ml for shape in both if not _cut(shape)] or [4 * shape.volume_ml for shape in both])
    patients = len({one.patient for one in drawn if (shape := one.shapes.get(oar)) is not None and not _cut(shape)})
    return Norm(
        volume_ml=float(np.median(whole)),
        volume_spread=max(_deviation(np.log(whole), patients or len(drawn)), 0.5 if len(whole) < FEW else 0.0),
        volume_range_ml=(float(whole.min()), float(whole.max())),
        position_mm=tuple(positions[oar].tolist()),
        off_usual_mm=tuple(off.usual_mm.tolist()),
        off_mm=tuple(off.red_mm.tolist()),
        faces=_face_limits(oar, drawn),
        patients=patients,
        placed=off.patients,
    )


@dataclass(frozen=True)
class _OffLimits:
    """(x, y, z) limits of a distance, and of how many patients they are known."""

    usual_mm: np.ndarray
    red_mm: np.ndarray
    patients: int


_NOT_YET = _OffLimits(np.ones(3), np.ones(3), 0)


def _off_limits(oar: OAR, drawn: Sequence[ContourSet], table: Mapping[str, Norm]) -> _OffLimits:
    """The limits of the distance from the predicted position."""
    sides = [oar, other_side(oar)] if oar.laterality else [oar]
    found = [
        (one.patient, off)
        for one in drawn
        for side in sides
        if side in one.shapes and not _part(side, one.shapes[side]) and (off := offset_mm(side, one.shapes, table)) is not None
    ]
    return _limits_of(oar, np.array([off for _, off in found]), len({patient for patient, _ in found}))


def _limits_of(oar: OAR, off_mm: np.ndarray, patients: int) -> _OffLimits:
    """Tolerance intervals around 0; what was seen is not red, and no distance is red below 10 mm or amber below 8 mm.

    Lungs lie so differently in the chest that a shift of 2 cm cannot be told: their limits are not drawn tight for it.
    """
    spread, seen = np.sqrt(np.mean(np.square(off_mm), axis=0)), np.max(np.abs(off_mm), axis=0)
    usual, red = (tolerance_factor(patients, share) * spread for share in (USUAL, PLAUSIBLE_NEAR))
    least = 30.0 if oar.name.startswith("Lung") else 10.0
    red = np.maximum(np.maximum(red, 1.1 * seen), least)
    return _OffLimits(np.clip(usual, 0.8 * least, red), red, patients)


def _part(oar: OAR, shape: Shape) -> bool:
    return shape.cut_head or (shape.cut_foot and oar.name not in FROM_HEAD)


def _face_limits(oar: OAR, drawn: Sequence[ContourSet]) -> tuple[float, ...]:
    """One-sided tolerance limits of the end faces; what was seen is not red, nor what is below 0.3. 2.0 where an end may be flat.

    Of arcsin √share, whose spread is alike for shares of different size.
    """
    seen: list[list[tuple[str, float]]] = [[] for _ in range(6)]
    for one in drawn:
        for side in {oar, other_side(oar)} & one.shapes.keys():
            order = (0, 1, 2, 3, 4, 5) if side == oar else (0, 1, 2, 3, 5, 4)
            for face, place in enumerate(order):
                if one.shapes[side].judged[place]:
                    seen[face].append((one.patient, one.shapes[side].faces[place]))
    return tuple(_face_limit([share for _, share in of], len({patient for patient, _ in of})) for of in seen)


def _face_limit(shares: Sequence[float], patients: int) -> float:
    flattest = max(shares, default=1.0)
    if flattest > FLAT:
        return 2.0
    angles = np.arcsin(np.sqrt(shares))
    beyond = float(angles.mean() + tolerance_factor_above(patients, PLAUSIBLE) * _deviation(angles, patients))
    tolerated = float(np.sin(min(beyond, np.pi / 2)) ** 2)
    return max(min(max(tolerated, 1.1 * flattest), (1 + flattest) / 2), 0.3)


def _deviation(values: np.ndarray, patients: int) -> float:
    """The standard deviation from a mean that the values give themselves, as if each patient gave one of them.

    Two raters and two sides of one patient are hardly apart, so it is the patients that are counted: of n the sum of squares is
    divided by n - 1, as the tolerance factors assume.
    """
    return float(np.std(values) * np.sqrt(patients / max(patients - 1, 1)))


def pairs(drawn: Sequence[ContourSet]) -> dict[str, Pair]:
    """The table PAIRS.

    The limits of the factor, tolerance intervals no narrower than what was seen, and of the offset.
    """
    sets = [one.shapes for one in drawn]
    table = {}
    for oar in OARS:
        if oar.laterality is not Laterality.LEFT:
            continue
        both = [(s[oar], s[other_side(oar)]) for s in sets if oar in s and other_side(oar) in s]
        logs = [abs(np.log(left.volume_ml / right.volume_ml)) for left, right in both if not (_cut(left) or _cut(right))]
        apart = np.array([left.anchor_mm - right.anchor_mm for left, right in both])
        patients = len({one.patient for one in drawn if {oar, other_side(oar)} <= one.shapes.keys()})
        # The two sides are alike on average: the spread is that from 0.
        spread = float(np.sqrt(np.mean(np.square(logs))))
        usual, implausible = (float(np.exp(tolerance_factor(patients, share) * spread)) for share in (USUAL, PLAUSIBLE))
        factors = max(usual, 1.15), max(implausible, float(np.exp(max(logs))), 1.35)
        off = _limits_of(oar, apart - [np.median(apart[:, 0]), 0, 0], patients)
        table[oar.name[:-2]] = Pair(*factors, tuple(off.usual_mm.tolist()), tuple(off.red_mm.tolist()), patients)
    return table


def _cut(shape: Shape) -> bool:
    return shape.cut_foot or shape.cut_head


def printed(found: NormTables) -> str:
    """The tables as they stand in oarlock/organs/norms.py."""
    lines = ["NORMS: Final[dict[str, Norm]] = {"]
    for name, norm in found.norms.items():
        volume = f"{norm.volume_ml:.3g}, {norm.volume_spread:.2f}, {_tuple(norm.volume_range_ml, 4)}"
        position, off = _tuple(norm.position_mm, 3), f"{_tuple(norm.off_usual_mm, 3)}, {_tuple(norm.off_mm, 3)}"
        known = f"{norm.patients}, {norm.placed}"
        lines.append(f'    "{name}": Norm({volume}, {position}, {off}, {_tuple(norm.faces, 2)}, {known}),')
    lines += ["}", "", "PAIRS: Final[dict[str, Pair]] = {"]
    for name, pair in found.twins.items():
        off = f"{_tuple(pair.off_usual_mm, 3)}, {_tuple(pair.off_mm, 3)}"
        lines.append(f'    "{name}": Pair({pair.usual:.3g}, {pair.implausible:.3g}, {off}, {pair.patients}),')
    lines += ["}", "", "HALVES: Final[dict[str, Halving]] = {"]
    for name, halving in found.halves.items():
        rows = (f"            {_tuple(row, 3)}," for row in halving.weights)
        lines += [f'    "{name}": Halving(', "        (", *rows, "        )", "    ),"]
    lines += ["}", "", "TISSUES: Final[dict[str, TissueNorm]] = {"]
    for name, norm in found.tissues.items():
        lines.append(f'    "{name}": TissueNorm({TISSUE_NAMES[norm.tissue]}, {norm.usual:.3f}, {norm.implausible:.3f}),')
    return "\n".join([*lines, "}", "", f"LUNG_TOPS_MM: Final = {found.lung_tops_mm:.3g}"])


def _tuple(values: Sequence[float], digits: int) -> str:
    return f"({', '.join(str(float(f'{value:.{digits}g}')) for value in values)})"


def add_data(parser: argparse.ArgumentParser) -> None:
    """The arguments that name the data."""
    parser.add_argument("folder", type=Path, help="the contours released with the paper")
    parser.add_argument("--openkbp", type=Path, required=True, help="OpenKBP's patients")
    parser.add_argument("--matched", type=Path, required=True, help="the table of scans that are in both")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.derive_norms", description=__doc__.splitlines()[0])
    add_data(parser)
    chosen = parser.parse_args()
    print(printed(limits(list(read(chosen.folder)), PlanningCTs.read(chosen.openkbp, chosen.matched))))


if __name__ == "__main__":
    main()

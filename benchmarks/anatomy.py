"""Derives the limits of oarlock/anatomy.py from the expert contours, and measures how often the checks are wrong about them.

    python -m benchmarks.anatomy FOLDER            prints the two tables of oarlock/anatomy.py
    python -m benchmarks.anatomy FOLDER --honest   leaves each patient out in turn: false alarms, and faults that were found

FOLDER holds the contours in their public layout (see expert_contours.py). The method is in docs/qa.md.
"""

import argparse
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks.expert_contours import RATERS, cases
from oarlock.anatomy import Norm, Pair
from oarlock.geometry import Grid
from oarlock.masks import OARMasks
from oarlock.oars import OAR, OARS, Laterality, mirrored
from oarlock.plausibility import FROM_HEAD, Check, Level, Shape, judge, offset_mm, shape_of

Shapes = Mapping[OAR, Shape]

FEW = 15
"""With fewer whole organs than this their spread is not trusted to be smaller than a half."""

FLAT = 0.75
"""An end face that is this flat in an expert's contour may be flat: no limit is set for it."""


def measured(folder: Path) -> dict[tuple[str, str], Shapes]:
    """The shapes of every set of contours, by case and rater."""
    found = {}
    for case in cases(folder):
        for rater in RATERS:
            masks, grid = case.masks(rater)
            found[case.name, rater] = {oar: shape for oar in OARS if (shape := shape_of(masks, grid, oar)) is not None}
    return found


def norms(sets: Sequence[Shapes]) -> dict[str, Norm]:
    """The table NORMS."""
    positions = _positions(sets)
    first = {oar.name: _norm(oar, sets, positions, np.ones(3)) for oar in OARS}
    return {oar.name: _norm(oar, sets, positions, _off_limits(oar, sets, first)) for oar in OARS}


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
        oar: (offset + flip * offsets[mirrored(oar)]) / 2 if oar.laterality else offset * [0, 1, 1]
        for oar, offset in offsets.items()
    }


def _norm(oar: OAR, sets: Sequence[Shapes], positions: Mapping[OAR, np.ndarray], off_mm: np.ndarray) -> Norm:
    """One row; the two sides of the body share everything but the sign of x, front and the order of the side faces."""
    own = [s[oar] for s in sets if oar in s]
    both = own + ([s[mirrored(oar)] for s in sets if mirrored(oar) in s] if oar.laterality else [])
    # Of an organ that every scan cuts nothing is known but that it is larger than its parts.
    whole = np.array([shape.volume_ml for shape in both if not _cut(shape)] or [4 * shape.volume_ml for shape in both])
    return Norm(
        volume_ml=float(np.median(whole)),
        volume_spread=max(float(np.std(np.log(whole))), 0.5 if len(whole) < FEW else 0.0),
        volume_range_ml=(float(whole.min()), float(whole.max())),
        position_mm=tuple(positions[oar].tolist()),
        off_mm=tuple(np.asarray(off_mm).tolist()),
        faces=_face_limits(oar, sets),
    )


def _off_limits(oar: OAR, sets: Sequence[Shapes], table: Mapping[str, Norm]) -> np.ndarray:
    """The limits of the distance from the predicted position."""
    sides = [oar, mirrored(oar)] if oar.laterality else [oar]
    off = [offset_mm(side, s, table) for s in sets for side in sides if side in s and not _part(side, s[side])]
    return _red(oar, np.max(np.abs([o for o in off if o is not None]), axis=0))


def _red(oar: OAR, extreme: np.ndarray) -> np.ndarray:
    """The red limit of a distance: 1.5 times the largest one seen, at least 10 mm, and above 14 mm only 1.1 times as much.

    Lungs lie so differently in the chest that a shift of 2 cm cannot be told: their limits are not drawn tight for it.
    """
    if oar.name.startswith("Lung"):
        return np.maximum(1.5 * extreme, 30.0)
    return np.maximum(np.clip(1.5 * extreme, 10.0, 14.0), 1.1 * extreme)


def _part(oar: OAR, shape: Shape) -> bool:
    return shape.cut_head or (shape.cut_foot and oar.name not in FROM_HEAD)


def _face_limits(oar: OAR, sets: Sequence[Shapes]) -> tuple[float, ...]:
    """Half as much again as the flattest end face seen, or half way from it to 1; 2.0, which is no limit, if it may be flat."""
    seen: list[list[float]] = [[] for _ in range(6)]
    for s in sets:
        for side in {oar, mirrored(oar)} & s.keys():
            order = (0, 1, 2, 3, 4, 5) if side == oar else (0, 1, 2, 3, 5, 4)
            for face, place in enumerate(order):
                if s[side].judged[place]:
                    seen[face].append(s[side].faces[place])
    flattest = [max(values, default=1.0) for values in seen]
    return tuple(max(min(1.5 * flat, (1 + flat) / 2), 0.3) if flat <= FLAT else 2.0 for flat in flattest)


def pairs(sets: Sequence[Shapes]) -> dict[str, Pair]:
    """The table PAIRS: the 95th percentile and the extreme (to the power of 1.4) of the factor, and the limits of the offset."""
    table = {}
    for oar in OARS:
        if oar.laterality is not Laterality.LEFT:
            continue
        both = [(s[oar], s[mirrored(oar)]) for s in sets if oar in s and mirrored(oar) in s]
        logs = [abs(np.log(left.volume_ml / right.volume_ml)) for left, right in both if not (_cut(left) or _cut(right))]
        apart = np.array([left.anchor_mm - right.anchor_mm for left, right in both])
        off = np.abs(apart - [np.median(apart[:, 0]), 0, 0]).max(axis=0)
        usual, implausible = max(float(np.exp(np.quantile(logs, 0.95))), 1.15), max(float(np.exp(1.4 * max(logs))), 1.35)
        table[oar.name[:-2]] = Pair(usual, implausible, tuple(_red(oar, off).tolist()))
    return table


def _cut(shape: Shape) -> bool:
    return shape.cut_foot or shape.cut_head


def printed(table: Mapping[str, Norm], twins: Mapping[str, Pair]) -> str:
    """The two tables as they stand in oarlock/anatomy.py."""
    lines = ["NORMS: Final[dict[str, Norm]] = {"]
    for name, norm in table.items():
        volume = f"{norm.volume_ml:.3g}, {norm.volume_spread:.2f}, {_tuple(norm.volume_range_ml, 4)}"
        position, off = _tuple(norm.position_mm, 3), _tuple(norm.off_mm, 3)
        lines.append(f'    "{name}": Norm({volume}, {position}, {off}, {_tuple(norm.faces, 2)}),')
    lines += ["}", "", "PAIRS: Final[dict[str, Pair]] = {"]
    for name, pair in twins.items():
        lines.append(f'    "{name}": Pair({pair.usual:.3g}, {pair.implausible:.3g}, {_tuple(pair.off_mm, 3)}),')
    return "\n".join([*lines, "}"])


def _tuple(values: Sequence[float], digits: int) -> str:
    return f"({', '.join(str(float(f'{value:.{digits}g}')) for value in values)})"


# ── how often the checks are wrong ────────────────────────────────────────────────────────────────────────────────────


def honest(folder: Path) -> None:
    """Judge each patient by limits that were made from the others, as drawn and with faults."""
    sets = measured(folder)
    alarms, found, tried = Counter[str](), Counter[str](), Counter[str]()
    for case in cases(folder):
        others = [shapes for (name, _), shapes in sets.items() if _patient(name) != _patient(case.name)]
        table, twins = norms(others), pairs(others)
        for rater in RATERS:
            masks, grid = case.masks(rater)
            checks = judge(sets[case.name, rater], masks, grid, table, twins)
            alarms.update({level.value for level in Level if any(check.level is level for check in checks)})
            print(f"{case.name:14} {rater:13} red: {', '.join(_reds(checks)) or 'none'}", flush=True)
            if rater == RATERS[0]:
                for fault, oar, spoilt in faults(masks, grid):
                    shapes = dict(sets[case.name, rater])
                    shapes |= {o: shape for o in (oar, mirrored(oar)) if (shape := shape_of(spoilt, grid, o)) is not None}
                    reds = judge(shapes, spoilt, grid, table, twins)
                    tried[fault, oar.name] += 1
                    found[fault, oar.name] += any(c.level is Level.RED and c.oar in {oar.name, mirrored(oar).name} for c in reds)
    print(f"sets with a red check: {alarms['red']} of {len(sets)}; with an amber one: {alarms['amber']}")
    kinds = list(dict.fromkeys(fault for fault, _ in tried))
    print("red after a fault\t" + "\t".join(kinds))
    for oar in OARS:
        print(f"{oar}\t" + "\t".join(f"{found[kind, oar.name]}/{tried[kind, oar.name]}" for kind in kinds))


def _patient(case: str) -> str:
    """Two scans of one patient differ by a letter."""
    return case.rstrip("abc")


def faults(masks: OARMasks, grid: Grid) -> Iterator[tuple[str, OAR, OARMasks]]:
    """One organ at a time: halved at its middle and shifted by 2 cm, in the six directions, and exchanged with the other side."""
    for oar in OARS:
        cropped = masks.crop(oar)
        if cropped is None:
            continue
        box, mask = cropped
        for axis, side in ((axis, side) for axis in range(3) for side in (0, 1)):
            name = f"{('z', 'y', 'x')[axis]}{'-+'[side]}"
            half = mask.copy()
            middle = int(np.searchsorted(np.cumsum(np.count_nonzero(mask, axis=_others(axis))), mask.sum() / 2)) + 1
            half[(slice(None),) * axis + (slice(None, middle) if side else slice(middle, None),)] = False
            yield f"half {name}", oar, _with(masks, oar, box, half)
            steps = round(20 / grid.spacing_mm[axis]) * (2 * side - 1)
            moved = tuple(slice(s.start + steps, s.stop + steps) if i == axis else s for i, s in enumerate(box))
            kept = tuple(slice(max(0, s.start), min(n, s.stop)) for s, n in zip(moved, masks.shape, strict=True))
            part = tuple(slice(k.start - m.start, k.stop - m.start) for k, m in zip(kept, moved, strict=True))
            yield f"2 cm {name}", oar, _with(masks, oar, kept, mask[part])
        if oar.laterality is Laterality.LEFT and (other := masks.crop(mirrored(oar))) is not None:
            yield "swap", oar, _with(_with(masks, oar, *other), mirrored(oar), box, mask)


def _others(axis: int) -> tuple[int, ...]:
    return tuple(i for i in range(3) if i != axis)


def _with(masks: OARMasks, oar: OAR, box: tuple[slice, ...], mask: np.ndarray) -> OARMasks:
    spoilt = OARMasks(masks.oars, masks.bits.copy())
    spoilt.put(oar, box, mask)
    return spoilt


def _reds(checks: Sequence[Check]) -> list[str]:
    return [f"{check.oar} {check.code}" for check in checks if check.level is Level.RED]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.anatomy", description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--honest", action="store_true", help="judge every patient by the others' limits")
    arguments = parser.parse_args()
    if arguments.honest:
        honest(arguments.folder)
    else:
        sets = list(measured(arguments.folder).values())
        print(printed(norms(sets), pairs(sets)))


if __name__ == "__main__":
    main()

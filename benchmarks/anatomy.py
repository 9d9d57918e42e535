"""Derives the limits of oarlock/anatomy.py from the expert contours, and measures how often the checks are wrong about them.

    python -m benchmarks.anatomy FOLDER            prints the two tables of oarlock/anatomy.py
    python -m benchmarks.anatomy FOLDER --honest   leaves each patient out in turn: false alarms and detected faults

FOLDER holds the contours in their public layout (see expert_contours.py). The method is in docs/qa.md.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks.expert_contours import RATERS, cases
from oarlock.anatomy import Norm
from oarlock.oars import OAR, OARS, Laterality, mirrored
from oarlock.plausibility import FROM_HEAD, Shape, offset_mm, shape_of

Shapes = Mapping[OAR, Shape]

FEW = 15
"""With fewer whole organs than this their spread is not trusted to be smaller than a quarter."""

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
    whole = np.array([shape.volume_ml for shape in both if not (shape.cut_foot or shape.cut_head)])
    return Norm(
        volume_ml=float(np.median(whole)),
        volume_spread=max(float(np.std(np.log(whole))), 0.25 if len(whole) < FEW else 0.0),
        volume_range_ml=(float(whole.min()), float(whole.max())),
        position_mm=tuple(positions[oar].tolist()),
        off_mm=tuple(np.asarray(off_mm).tolist()),
        faces=_face_limits(oar, sets),
    )


def _off_limits(oar: OAR, sets: Sequence[Shapes], table: Mapping[str, Norm]) -> np.ndarray:
    """1.2 times the largest distance from the predicted position that an expert's organ had, and at least 5 mm."""
    sides = [oar, mirrored(oar)] if oar.laterality else [oar]
    off = [offset_mm(side, s, table) for s in sets for side in sides if side in s and not _part(side, s[side])]
    return np.maximum(1.2 * np.max(np.abs([o for o in off if o is not None]), axis=0), 5.0)


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


def symmetry(sets: Sequence[Shapes]) -> dict[str, tuple[float, float]]:
    """The table SYMMETRY: the usual and the implausible factor between the two sides, from the middle 95 % of the ratios."""
    table = {}
    for oar in OARS:
        if oar.laterality is Laterality.LEFT:
            logs = [
                abs(np.log(s[oar].volume_ml / s[mirrored(oar)].volume_ml))
                for s in sets
                if oar in s and mirrored(oar) in s and not any(_cut(s[side]) for side in (oar, mirrored(oar)))
            ]
            table[oar.name[:-2]] = float(np.exp(np.quantile(logs, 0.95))), float(np.exp(1.2 * max(logs)))
    return table


def _cut(shape: Shape) -> bool:
    return shape.cut_foot or shape.cut_head


def printed(table: Mapping[str, Norm], factors: Mapping[str, tuple[float, float]]) -> str:
    """The two tables as they stand in oarlock/anatomy.py."""
    lines = ["NORMS: Final[dict[str, Norm]] = {"]
    for name, norm in table.items():
        volume = f"{norm.volume_ml:.3g}, {norm.volume_spread:.2f}, {_tuple(norm.volume_range_ml, 4)}"
        position, off = _tuple(norm.position_mm, 3), _tuple(norm.off_mm, 3)
        lines.append(f'    "{name}": Norm({volume}, {position}, {off}, {_tuple(norm.faces, 2)}),')
    lines += ["}", "", "SYMMETRY: Final[dict[str, tuple[float, float]]] = {"]
    lines += [f'    "{name}": {_tuple(pair, 3)},' for name, pair in factors.items()]
    return "\n".join([*lines, "}"])


def _tuple(values: Sequence[float], digits: int) -> str:
    return f"({', '.join(str(float(f'{value:.{digits}g}')) for value in values)})"

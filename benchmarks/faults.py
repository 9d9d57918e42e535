"""Faults done to real contours: how many the checks without a reference find, and how often they are red without one.

    python -m benchmarks.faults FOLDER [--honest]

FOLDER holds the expert contours in their public layout (see expert_contours.py). For every scan and rater, one organ at a time is
halved at its middle and shifted by 2 cm in the six directions, deleted, and exchanged with the other side; then the whole scan is
mirrored. A fault's level is the worst one of any check of the organ or its other side; of untouched contours, of the organ's own.
``--honest`` judges each patient by limits made from the other patients alone. The numbers are in docs/qa.md.
"""

import argparse
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path

import numpy as np

from benchmarks.anatomy import Drawn, halved, limits, read, tight
from oarlock.masks import Crop
from oarlock.oars import OAR, OARS, Laterality, mirrored
from oarlock.plausibility import HOUSE, Anatomy, Check, Level, Limits, judge
from oarlock.shapes import shape_of

Change = Mapping[OAR, Crop | None]
Tally = dict[str, dict[str, Counter[Level]]]
WORST = (Level.RED, Level.AMBER, Level.GREEN)


def anatomy(drawn: Drawn, table: Limits, change: Change | None = None) -> Anatomy:
    """A set of contours as the checks see it, with some organs replaced or (None) deleted."""
    change = change or {}
    crops = {oar: crop for oar, crop in {**drawn.crops, **change}.items() if crop is not None}
    shapes = {oar: shape_of(crop, drawn.grid, oar) if oar in change else drawn.shapes[oar] for oar, crop in crops.items()}
    return Anatomy(OARS, crops, shapes, drawn.grid, table)


def faults(drawn: Drawn) -> Iterator[tuple[str, OAR, Change]]:
    """(kind, organ, what replaces which organs), one organ at a time."""
    for oar, crop in drawn.crops.items():
        yield "deleted", oar, {oar: None}
        yield from (("halved", oar, {oar: half}) for half in halved(oar, crop) if half is not None)
        for axis, shift_mm in product(range(3), (-20.0, 20.0)):
            yield "2 cm", oar, {oar: shifted(crop, axis, shift_mm, drawn)}
        if oar.laterality is Laterality.LEFT and (other := drawn.crops.get(mirrored(oar))) is not None:
            yield "exchanged", oar, {oar: other, mirrored(oar): crop}


def shifted(crop: Crop, axis: int, shift_mm: float, drawn: Drawn) -> Crop | None:
    """An organ moved along an axis; what leaves the scan is lost."""
    box, mask = crop
    steps = round(shift_mm / drawn.grid.spacing_mm[axis])
    start, stop = box[axis].start + steps, box[axis].stop + steps
    kept = slice(max(0, start), min(drawn.grid.shape[axis], stop))
    if kept.start >= kept.stop:
        return None
    z, y, x = (kept if i == axis else s for i, s in enumerate(box))
    left = mask[(slice(None),) * axis + (slice(kept.start - start, kept.stop - start),)]
    return tight(((z, y, x), left)) if left.any() else None


def mirrored_scan(drawn: Drawn) -> Change:
    """Every organ at the place that it has in the mirror image of the scan."""
    columns = drawn.grid.shape[2]
    return {
        oar: ((box[0], box[1], slice(columns - box[2].stop, columns - box[2].start)), np.ascontiguousarray(mask[:, :, ::-1]))
        for oar, (box, mask) in drawn.crops.items()
    }


def level(checks: Sequence[Check], *oars: OAR) -> Level:
    """The worst level of any check of some organs."""
    found = {check.level for check in checks if check.oar in {oar.name for oar in oars}}
    return next(one for one in WORST if one in found)


def tallied(sets: Sequence[Drawn], *, honest: bool) -> tuple[Tally, list[tuple[Drawn, list[str]]]]:
    """The levels of every fault by kind and organ, and the red checks of every untouched set."""
    tally: Tally = defaultdict(lambda: defaultdict(Counter))
    alarms = []
    tables: dict[str, Limits] = {}
    for drawn in sets:
        if honest and drawn.patient not in tables:
            tables[drawn.patient] = limits([other for other in sets if other.patient != drawn.patient])
        table = tables[drawn.patient] if honest else HOUSE
        checks = judge(anatomy(drawn, table))
        alarms.append((drawn, [f"{check.oar} {check.code}" for check in checks if check.level is Level.RED]))
        for oar in drawn.crops:
            tally["untouched"][oar.name][level(checks, oar)] += 1
        for kind, oar, change in faults(drawn):
            tally[kind][oar.name][level(judge(anatomy(drawn, table, change)), oar, mirrored(oar))] += 1
        flipped = judge(anatomy(drawn, table, mirrored_scan(drawn)))
        for oar in drawn.crops:
            if oar.laterality:
                tally["mirrored"][oar.name][level(flipped, oar)] += 1
        print(f"{drawn.case:14} {drawn.rater:13} red: {', '.join(alarms[-1][1]) or 'none'}", flush=True)
    return tally, alarms


def percent(levels: Counter[Level]) -> str:
    """Shares of red, amber and green in per cent, and how many there are."""
    total = levels.total()
    return "" if not total else " / ".join(f"{levels[one] / total:.0%}".rstrip("%") for one in WORST) + f" ({total})"


def table_of(tally: Tally) -> str:
    """The table of docs/qa.md."""
    kinds = ["untouched", "halved", "2 cm", "deleted", "exchanged", "mirrored"]
    lines = ["| organ | " + " | ".join(kinds) + " |", "| --- |" + " --- |" * len(kinds)]
    lines += [f"| {oar} | " + " | ".join(percent(tally[kind][oar.name]) for kind in kinds) + " |" for oar in OARS]
    totals = [sum((levels for levels in tally[kind].values()), Counter[Level]()) for kind in kinds]
    return "\n".join([*lines, "| **all** | " + " | ".join(percent(levels) for levels in totals) + " |"])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults", description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--honest", action="store_true", help="judge every patient by the others' limits")
    arguments = parser.parse_args()
    tally, alarms = tallied(list(read(arguments.folder)), honest=arguments.honest)
    print("\nshares of red / amber / green in per cent (number judged)\n" + table_of(tally))
    red = [drawn for drawn, reds in alarms if reds]
    print(f"untouched sets with a red check: {len(red)} of {len(alarms)}, of {len({d.patient for d in red})} patients")


if __name__ == "__main__":
    main()

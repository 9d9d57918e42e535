"""Faults done to real contours, and false alarms.

How many the checks without a reference find, and how often they are red without one.

    python -m tools.studies.faults FOLDER --openkbp OPENKBP --matched matched.csv [--on-ct] [--honest] [--skin]

FOLDER holds the expert contours in their public layout (see expert_contours.py). For every scan and rater, one organ at a time is
halved at its middle and shifted by 2 cm in the six directions, deleted, and exchanged with the other side; then the whole scan is
mirrored. A fault's level is the worst one of any check of the organ or its other side; of untouched contours, of the organ's own.
``--on-ct`` takes the organs of which the CT is known (see planning_ct.py), judges them with it, shifts them one by one, and the
whole set together. ``--honest`` judges each patient by limits made from the other patients alone. ``--skin`` counts how often the
check of the skin is red on untouched contours, on the CT interpolated to the rows and columns of the scan. The numbers are in
docs/qa.md.
"""

import argparse
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product

import numpy as np

from oarlock.geometry.grid import Grid
from oarlock.geometry.masks import Crop
from oarlock.geometry.skin import UNDER_SKIN, Surroundings
from oarlock.organs.catalogue import OAR, OARS, Laterality, other_side
from oarlock.qa.checks.anatomy import NORM_TABLES, Anatomy, NormTables
from oarlock.qa.checks.finding import Finding, Level, level_of
from oarlock.qa.checks.skin import OUTSIDE_LIMITS
from oarlock.qa.organ_shape import shape_of
from oarlock.qa.plausibility import judge
from oarlock.qa.tissue import composition_of
from tests.expert_data.planning_ct import LaidCT, PlanningCTs
from tools.derive_norms import ContourSet, add_data, halved, limits, read, tight

Change = Mapping[OAR, Crop | None]
Tally = dict[str, dict[str, Counter[Level]]]
TOGETHER, SET = "all 2 cm", "the set"
WORST = (Level.RED, Level.AMBER, Level.GREEN)


def anatomy(drawn: ContourSet, table: NormTables, change: Change | None = None, ct: LaidCT | None = None) -> Anatomy:
    """A set of contours as the checks see it.

    With some organs replaced or (None) deleted, on its CT where that is known.
    """
    change = change or {}
    crops = {oar: crop for oar, crop in {**drawn.crops, **change}.items() if crop is not None}
    shapes = {oar: shape_of(crop, drawn.grid, oar) if oar in change else drawn.shapes[oar] for oar, crop in crops.items()}
    found = {} if ct is None else {oar: values for oar, crop in crops.items() if (values := ct.under(crop)) is not None}
    compositions = {oar: composition_of(values, table.tissues[oar.name].tissue) for oar, values in found.items()}
    return Anatomy(OARS, crops, shapes, drawn.grid, table, compositions=compositions)


def faults(drawn: ContourSet) -> Iterator[tuple[str, OAR, Change]]:
    """(kind, organ, what replaces which organs), one organ at a time."""
    for oar, crop in drawn.crops.items():
        yield "deleted", oar, {oar: None}
        yield from (("halved", oar, {oar: half}) for half in halved(oar, crop) if half is not None)
        for axis, shift_mm in product(range(3), (-20.0, 20.0)):
            yield "2 cm", oar, {oar: shifted(crop, axis, shift_mm, drawn)}
        if oar.laterality is Laterality.LEFT and (other := drawn.crops.get(other_side(oar))) is not None:
            yield "exchanged", oar, {oar: other, other_side(oar): crop}


def shifted(crop: Crop, axis: int, shift_mm: float, drawn: ContourSet) -> Crop | None:
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


def shifted_set(drawn: ContourSet, axis: int, shift_mm: float) -> Change:
    """All organs moved together."""
    return {oar: shifted(crop, axis, shift_mm, drawn) for oar, crop in drawn.crops.items()}


def mirrored_scan(drawn: ContourSet) -> Change:
    """Every organ at its place in the scan's mirror image."""
    columns = drawn.grid.shape[2]
    return {
        oar: ((box[0], box[1], slice(columns - box[2].stop, columns - box[2].start)), np.ascontiguousarray(mask[:, :, ::-1]))
        for oar, (box, mask) in drawn.crops.items()
    }


def level(checks: Sequence[Finding], *oars: OAR) -> Level:
    """The worst level of any check of some organs."""
    names = {oar.name for oar in oars}
    return worst(check for check in checks if check.oar in names)


def worst(checks: Iterable[Finding]) -> Level:
    """The worst level of some checks, at least one."""
    found = {check.level for check in checks}
    return next(one for one in WORST if one in found)


def tallied(
    sets: Sequence[ContourSet], cts: PlanningCTs, *, on_ct: bool, honest: bool
) -> tuple[Tally, list[tuple[ContourSet, list[str]]]]:
    """The levels of every fault by kind and organ.

    And the red checks of every untouched set.
    """
    tally: Tally = defaultdict(lambda: defaultdict(Counter))
    alarms = []
    tables: dict[str, NormTables] = {}
    for drawn in sets:
        ct = cts.laid.get(drawn.case) if on_ct else None
        if on_ct and ct is None:
            continue
        if honest and drawn.patient not in tables:
            others = [other for other in sets if other.patient != drawn.patient]
            tables[drawn.patient] = limits(others, cts.without(drawn.patient))
        table = tables[drawn.patient] if honest else NORM_TABLES
        checks = judge(anatomy(drawn, table, ct=ct))
        alarms.append((drawn, [f"{check.oar} {check.code}" for check in checks if check.level is Level.RED]))
        print(f"{drawn.case:14} {drawn.rater:13} red: {', '.join(alarms[-1][1]) or 'none'}", flush=True)
        if ct is not None:
            _tally_on_ct(drawn, table, ct, tally)
            continue
        for oar in drawn.crops:
            tally["untouched"][oar.name][level(checks, oar)] += 1
        for kind, oar, change in faults(drawn):
            tally[kind][oar.name][level(judge(anatomy(drawn, table, change)), oar, other_side(oar))] += 1
        flipped = judge(anatomy(drawn, table, mirrored_scan(drawn)))
        for oar in drawn.crops:
            if oar.laterality:
                tally["mirrored"][oar.name][level(flipped, oar)] += 1
    return tally, alarms


def _tally_on_ct(drawn: ContourSet, table: NormTables, ct: LaidCT, tally: Tally) -> None:
    """The organs on the CT as they are, each shifted in six directions, and all of the set shifted together."""
    whole = anatomy(drawn, table, ct=ct)
    checks = judge(whole)
    for oar in whole.compositions:
        tally["untouched"][oar.name][level(checks, oar)] += 1
    for axis, shift_mm in product(range(3), (-20.0, 20.0)):
        for oar in whole.compositions:
            alone = judge(anatomy(drawn, table, {oar: shifted(drawn.crops[oar], axis, shift_mm, drawn)}, ct))
            tally["2 cm"][oar.name][level(alone, oar, other_side(oar))] += 1
        together = judge(anatomy(drawn, table, shifted_set(drawn, axis, shift_mm), ct))
        tally[TOGETHER][SET][worst(together)] += 1
        for oar in whole.compositions:
            tally[TOGETHER][oar.name][level(together, oar)] += 1


def skin_levels(sets: Sequence[ContourSet], cts: PlanningCTs) -> dict[str, Counter[Level]]:
    """The levels of the skin check on untouched contours.

    Those whose CT is known.

    Its limits come from no patient, so there is nobody to leave out.
    """
    found: dict[str, Counter[Level]] = defaultdict(Counter)
    for drawn in sets:
        ct = cts.laid.get(drawn.case)
        if ct is None:
            continue
        hu = ct.interpolated()
        origins = np.arange(len(hu))[:, None] * np.array([0.0, 0.0, drawn.grid.spacing_mm[0]])
        _, rows, columns = hu.shape
        right, down = np.eye(3)[:2]
        _, row_mm, column_mm = drawn.grid.spacing_mm
        grid = Grid(rows, columns, origins, right, down, row_mm, column_mm)
        around = Surroundings(hu, grid)
        for oar, crop in drawn.crops.items():
            if (moved := ct.moved(crop)) is not None:
                counts, voxels = around.outside_by_slice(moved, under_skin=oar.name.startswith(UNDER_SKIN))
                share = sum(counts) / voxels
                found[oar.name][level_of(share, 0.0, 0.0, *OUTSIDE_LIMITS)] += 1
                if share > OUTSIDE_LIMITS[0]:
                    print(f"{drawn.case:14} {drawn.rater:13} {oar}: {share:.1%} outside of the skin", flush=True)
    return found


def percent(levels: Counter[Level]) -> str:
    """Shares of red, amber and green in per cent, and their number."""
    total = levels.total()
    return "" if not total else " / ".join(f"{levels[one] / total:.0%}".rstrip("%") for one in WORST) + f" ({total})"


def said_of(what: str, levels: Iterable[Counter[Level]]) -> str:
    """How many of some organs are red.

    Of untouched ones: the false alarms.
    """
    counted = sum(levels, Counter[Level]())
    return f"{what} that are red: {counted[Level.RED]} of {counted.total()} ({counted[Level.RED] / max(1, counted.total()):.2%})"


def found_of(kind: str, by_organ: Mapping[str, Counter[Level]]) -> str:
    """How many faults of one kind are not green.

    Without and with the lungs.
    """
    shares = []
    for what, names in (("without lungs", [name for name in by_organ if not name.startswith("Lung")]), ("with lungs", by_organ)):
        counted = sum((by_organ[name] for name in names), Counter[Level]())
        shares.append(f"{1 - counted[Level.GREEN] / max(1, counted.total()):.1%} of {counted.total()} {what}")
    return f"{kind}: found {', '.join(shares)}"


def table_of(tally: Tally) -> str:
    """The table of docs/qa.md."""
    kinds = [kind for kind in ("untouched", "halved", "2 cm", "deleted", "exchanged", "mirrored", TOGETHER) if kind in tally]
    lines = ["| organ | " + " | ".join(kinds) + " |", "| --- |" + " --- |" * len(kinds)]
    lines += [f"| {oar} | " + " | ".join(percent(tally[kind][oar.name]) for kind in kinds) + " |" for oar in OARS]
    totals = [tally[kind][SET] or sum((levels for levels in tally[kind].values()), Counter[Level]()) for kind in kinds]
    return "\n".join([*lines, "| **all** | " + " | ".join(percent(levels) for levels in totals) + " |"])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.studies.faults", description=__doc__.splitlines()[0])
    add_data(parser)
    parser.add_argument("--on-ct", action="store_true", help="judge with the CT, where it is known")
    parser.add_argument("--honest", action="store_true", help="judge every patient by the others' limits")
    parser.add_argument("--skin", action="store_true", help="only the skin check, on the CT where it is known")
    arguments = parser.parse_args()
    cts = PlanningCTs.read(arguments.openkbp, arguments.matched)
    if arguments.skin:
        levels = skin_levels(list(read(arguments.folder)), cts)
        print("\n".join(f"| {oar} | {percent(levels[oar.name])} |" for oar in OARS))
        print(said_of("untouched organs", levels.values()))
        return
    tally, alarms = tallied(list(read(arguments.folder)), cts, on_ct=arguments.on_ct, honest=arguments.honest)
    print("\nshares of red / amber / green in per cent (number judged)\n" + table_of(tally))
    print(said_of("untouched organs", tally["untouched"].values()))
    for kind in ("halved", "2 cm", "exchanged", "mirrored"):
        if kind in tally:
            print(found_of(kind, tally[kind]))
    red = [drawn for drawn, reds in alarms if reds]
    print(f"untouched sets with a red check: {len(red)} of {len(alarms)}, of {len({d.patient for d in red})} patients")


if __name__ == "__main__":
    main()

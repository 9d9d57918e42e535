"""The metrics of 21 OARs: ours, the reference implementation, the floor.

In one run on real contours.

    python -m benchmarks.qa CONTOURS [--case NAME ...] [--expected FILE]

CONTOURS is the folder of expert contours (see expert_contours.py). Seconds are CPU seconds of this process. Ours computes every
number of the report; surface-distance only surface DSC, HD95 and mean distances, and the volumetric DSC. The floor is reading the
masks once. ``--expected`` compares every row of the table of reference values and prints the largest difference of each column.
"""

import argparse
import csv
import tracemalloc
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import surface_distance as library

from benchmarks.clock import least_cpu_s
from oarlock.geometry.grid import Grid
from oarlock.geometry.masks import OARMasks
from oarlock.organs.catalogue import BY_PAPER_NAME, OARS
from oarlock.qa.report import QAReport, Source, compare
from tests.expert_data.expert_contours import RATERS, Case, cases

SIDE = Source("2.25.1", "BENCHMARK")

COLUMNS = {
    "dsc": "volumetric_dsc",
    "vol_onc_cc": "reference_volume_ml",
    "vol_rad_cc": "predicted_volume_ml",
    "hd95": "hausdorff_95_mm",
    "hd100": "hausdorff_mm",
    "asd_gt_to_pred": "mean_distance_reference_to_predicted_mm",
    "asd_pred_to_gt": "mean_distance_predicted_to_reference_mm",
    "msd": "mean_surface_distance_mm",
    "tau_rounded_mm": "tolerance_rounded_mm",
    "sdsc_tau": "surface_dsc_unrounded",
    "sdsc_tau_rounded": "surface_dsc",
}


def ours(predicted: OARMasks, reference: OARMasks, grid: Grid) -> QAReport:
    fresh = [OARMasks(masks.oars, masks.bits) for masks in (predicted, reference)]  # with no bounding boxes remembered
    return compare(*fresh, grid, matched_rois={}, predicted_source=SIDE, reference_source=SIDE)


def theirs(predicted: list[Any], reference: list[Any], grid: Grid) -> None:
    for ours_, theirs_, oar in zip(predicted, reference, OARS, strict=True):
        if not (ours_.any() and theirs_.any()):
            continue
        distances = library.compute_surface_distances(theirs_, ours_, grid.spacing_mm)
        library.compute_surface_dice_at_tolerance(distances, oar.tolerance_mm)
        library.compute_surface_dice_at_tolerance(distances, oar.tolerance_mm + 1e-6)
        library.compute_robust_hausdorff(distances, 95)
        library.compute_average_surface_distance(distances)
        library.compute_dice_coefficient(theirs_, ours_)


def floor(predicted: OARMasks, reference: OARMasks) -> None:
    for masks in (predicted, reference):
        np.bitwise_or.reduce(masks.bits.ravel())


def peak_mib(work: Callable[[], Any]) -> float:
    """Memory that a piece of work adds at its peak."""
    tracemalloc.start()
    work()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 2**20


def measure(case: Case) -> None:
    (reference, grid), (predicted, _) = case.masks(RATERS[0]), case.masks(RATERS[1])
    our_s = least_cpu_s(lambda: ours(predicted, reference, grid), repeats=3)
    our_mib = peak_mib(lambda: ours(predicted, reference, grid))
    floor_s = least_cpu_s(lambda: floor(predicted, reference), repeats=3)
    volumes = [[masks.mask(oar) for oar in OARS] for masks in (predicted, reference)]
    their_s = least_cpu_s(lambda: theirs(*volumes, grid), repeats=1)
    their_mib = peak_mib(lambda: theirs(*volumes, grid))
    size = "×".join(str(n) for n in grid.shape)
    seconds = f"{our_s:8.2f} {their_s:17.2f} {floor_s:8.2f} {their_s / our_s:7.1f}"
    print(f"{case.name:14} {size:13} {seconds} {our_mib:10.0f} {their_mib:12.0f}", flush=True)


def check(folder: Path, expected: Path) -> None:
    with expected.open(newline="") as file:
        rows = {(row["case"], row["organ"]): row for row in csv.DictReader(file)}
    worst = dict.fromkeys(COLUMNS, 0.0)
    compared = 0
    for case in cases(folder):
        (reference, grid), (predicted, _) = case.masks(RATERS[0]), case.masks(RATERS[1])
        tolerances = {oar: float(rows[case.name, oar.paper_name]["tau_mm"]) for oar in OARS}
        sides = {"predicted_source": SIDE, "reference_source": SIDE}
        report = compare(predicted, reference, grid, matched_rois={}, tolerances_mm=tolerances, **sides).to_json()
        for entry, oar in zip(report["oars"], BY_PAPER_NAME.values(), strict=True):
            row = rows[case.name, oar.paper_name]
            if row["status"] != "both":
                assert entry["presence"] != "both"
                continue
            compared += 1
            for column, key in COLUMNS.items():
                difference = abs(entry[key] - float(row[column])) / max(1.0, abs(entry[key]))
                worst[column] = max(worst[column], difference)
    print(f"{compared} rows compared; largest difference (relative above 1):")
    for column, difference in worst.items():
        print(f"  {column:18} {difference:.1e}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.qa", description=__doc__.splitlines()[0])
    parser.add_argument("contours", type=Path)
    parser.add_argument("--case", action="append", help="a case to measure; 0522c0017 (512 × 512 × 156) if none is given")
    parser.add_argument("--expected", type=Path, help="table of reference values to compare every row with")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", category=DeprecationWarning)  # the library imports from scipy's old places
    if arguments.expected:
        check(arguments.contours, arguments.expected)
        return
    print("case           voxels        ours, s surface-distance, s floor, s  faster  ours, MiB  theirs, MiB")
    for case in cases(arguments.contours):
        if case.name in (arguments.case or ["0522c0017"]):
            measure(case)


if __name__ == "__main__":
    main()

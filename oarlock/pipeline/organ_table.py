"""The table of a result for people, a line per organ.

And the same for spreadsheets.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from oarlock.ct.series import SeriesHeader
from oarlock.geometry.grid import Grid
from oarlock.geometry.masks import Crop, OARMasks, volume_ml
from oarlock.organs.catalogue import OAR
from oarlock.pipeline.csv_text import to_csv
from oarlock.rtstruct.placing import rois_to_masks
from oarlock.rtstruct.reader import read_structure_set

_NUMBERS: Final = (("surface_dsc", 14, 3), ("volumetric_dsc", 8, 3), ("hausdorff_95_mm", 10, 1))

_COLUMNS: Final = (
    *("oar", "verdict", "reference", "presence", "predicted_roi", "matched_roi", "tolerance_mm", "tolerance_rounded_mm"),
    *("surface_dsc", "surface_dsc_unrounded", "volumetric_dsc", "hausdorff_95_mm", "hausdorff_mm", "mean_surface_distance_mm"),
    *("added_path_length_mm", "predicted_volume_ml", "reference_volume_ml", "volume_ratio", "centre_distance_mm"),
    *("passed", "failed", "reason"),
)


def organ_table(rtstruct: Path, report: Mapping[str, Any], header: SeriesHeader, oar_of: Mapping[str, OAR]) -> Iterator[str]:
    """:func:`table_of` of a file that was delivered, read back from it.

    :param oar_of: organ by the name of its ROI in that file.
    :raises StructureSetError: if the file cannot be read.
    """
    structure_set = read_structure_set(rtstruct)
    rois = [(roi.name, oar_of[roi.name]) for roi in structure_set.rois]
    masks = rois_to_masks(structure_set, header, {oar_of[roi.name]: roi.number for roi in structure_set.rois}).masks
    return table_of(rois, masks, report, header.grid)


def table_of(
    rois: Sequence[tuple[str, OAR]], masks: OARMasks, report: Mapping[str, Any], grid: Grid, comparison: int = 0
) -> Iterator[str]:
    """Volume, slices, verdict and scores of each ROI.

    Below it, what is red, and what lies beyond an action level.

    :param rois: name and organ of each line.
    :param report: a job's QA report.
    :param comparison: whose scores are shown, from 0; where there is not one, none are.
    """
    rows = report["comparisons"][comparison]["oars"] if comparison < len(report["comparisons"]) else []
    by_oar = {row["oar"]: row for row in rows}
    levels = {organ["oar"]: organ["verdict"] for organ in report["organs"]}
    titles = f"{'surface DSC':>14}{'DSC':>8}{'HD95, mm':>10}" if rows else ""
    yield f"{'organ':<18}{'volume, ml':>12}{'slices':>9}{'checks':>9}{titles}"
    for name, oar in rois:
        size = _size(masks.crop(oar), grid)
        yield f"{name:<18}{size}{levels.get(oar.name, ''):>9}{_scores(by_oar.get(oar.name))}".rstrip()
    yield from _below("Red", [organ["reason"] for organ in report["organs"] if organ["verdict"] == "red"])
    yield from _below("Not scored", [row["reason"] for row in rows if row["reason"] and row["presence"] != "neither"])
    yield from _below("Beyond an action level", [_failure(row) for row in rows if row["failed"]])


def _below(title: str, lines: Sequence[str]) -> Iterator[str]:
    yield from ["", title, *(f"  {line}" for line in lines)] if lines else []


def _size(crop: Crop | None, grid: Grid) -> str:
    if crop is None:
        return f"{'not found':>12}{'':>9}"
    slices = int(crop[1].any(axis=(1, 2)).sum())
    return f"{volume_ml(crop, grid):12.2f}{slices:9d}"


def _scores(row: Mapping[str, Any] | None) -> str:
    if row is None or row["presence"] == "neither":
        return ""
    numbers = ((row[name], width, digits) for name, width, digits in _NUMBERS)
    return "".join(f"{'–' if value is None else format(value, f'.{digits}f'):>{width}}" for value, width, digits in numbers)


def _failure(row: Mapping[str, Any]) -> str:
    shown = {name: "not defined" if row[name] is None else row[name] for name in row["failed"]}
    return f"{row['oar']}: " + ", ".join(f"{name} {value} ({row['action_levels'][name]})" for name, value in shown.items())


def organ_csv(report: Mapping[str, Any]) -> str:
    """The scores and verdicts of a QA report as CSV.

    A line an organ and comparison, or an organ where none was compared.
    """
    verdicts = {organ["oar"]: organ["verdict"] for organ in report["organs"]}
    scored = [
        {"reference": place, "verdict": verdicts.get(row["oar"], ""), **row, "failed": " ".join(row["failed"])}
        for place, comparison in enumerate(report["comparisons"], start=1)
        for row in comparison["oars"]
        if row["presence"] != "neither"
    ]
    return to_csv(_COLUMNS, scored or [{"oar": oar, "verdict": verdict} for oar, verdict in verdicts.items()])

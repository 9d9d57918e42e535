"""The table of a result for people: a line per organ, read back from the files that were delivered."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from oarlock.ct.series import SeriesHeader
from oarlock.geometry.masks import Crop, volume_ml
from oarlock.organs.catalogue import OAR
from oarlock.rtstruct.placing import rois_to_masks
from oarlock.rtstruct.reader import read_structure_set


def organ_table(rtstruct: Path, report: Mapping[str, Any], header: SeriesHeader, oar_of: Mapping[str, OAR]) -> Iterator[str]:
    """Volume, slices, verdict and scores of each ROI; below it, the strongest reason of each organ that is red.

    :param rtstruct: the file that was delivered.
    :param report: the QA report of its job.
    :param oar_of: organ by the name of its ROI in that file.
    :raises StructureSetError: if the file cannot be read.
    """
    structure_set = read_structure_set(rtstruct)
    numbers = {oar_of[roi.name]: roi.number for roi in structure_set.rois}
    masks = rois_to_masks(structure_set, header, numbers).masks
    scores, levels = _scores(report), {organ["oar"]: organ["verdict"] for organ in report["organs"]}
    yield f"{'organ':<18}{'volume, ml':>12}{'slices':>9}{'checks':>9}{'surface DSC':>14}{'DSC':>8}".rstrip()
    for roi in structure_set.rois:
        oar = oar_of[roi.name]
        size = _size(masks.crop(oar), header)
        yield f"{roi.name:<18}{size}{levels.get(oar.name, ''):>9}{scores.get(oar.name, '')}".rstrip()
    red = [organ["reason"] for organ in report["organs"] if organ["verdict"] == "red"]
    yield from ["", "Red", *(f"  {reason}" for reason in red)] if red else []


def _size(crop: Crop | None, header: SeriesHeader) -> str:
    if crop is None:
        return f"{'not found':>12}{'':>9}"
    slices = int(crop[1].any(axis=(1, 2)).sum())
    return f"{volume_ml(crop, header.grid):12.2f}{slices:9d}"


def _scores(report: Mapping[str, Any]) -> dict[str, str]:
    """The scores against the first supplied RTSTRUCT, by organ."""
    rows = report["comparisons"][0]["oars"] if report["comparisons"] else []
    return {
        row["oar"]: f"{row['surface_dsc']:14.3f}{row['volumetric_dsc']:8.3f}" for row in rows if row["surface_dsc"] is not None
    }

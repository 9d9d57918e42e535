"""What the contours and the file of 21 OARs cost.

And how exact they are: ours, rt-utils, and the floor, in one run.

    python -m benchmarks.rtstruct FOLDER_OF_EXPERT_CONTOURS [--case 0522c0017] [--all]

Speed is CPU time of this process for one case, without reading the CT. Exactness is that of the finished file: how many voxels an
independent reader (plastimatch, which tests voxel centres) gets wrong, and the worst error of an organ's volume. ``--all``
measures our file for every scan and rater.
"""

import argparse
import math
import shutil
import subprocess
import tempfile
import time
import warnings
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pydicom

from benchmarks.clock import least_cpu_s
from oarlock.arrays import FloatArray
from oarlock.ct.series import SeriesHeader, check_headers
from oarlock.ct.writer import write_ct_series
from oarlock.facts import ModelFacts
from oarlock.geometry.contours import PlanarContour, decimation_mm, to_contours
from oarlock.geometry.grid import Grid
from oarlock.geometry.masks import OARMasks
from oarlock.rtstruct.writer import Authorship, write_rtstruct
from tests.expert_data.expert_contours import RATERS, cases

AUTHORSHIP = Authorship("benchmark", datetime(2026, 1, 2, tzinfo=UTC), ModelFacts("expert", "1", "0" * 64))


@dataclass(frozen=True)
class Row:
    """One way to write the file."""

    name: str
    cpu_s: float
    path: Path


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Write the contours of 21 OARs in several ways.")
    parser.add_argument("contours", type=Path, help="folder of the expert contours")
    parser.add_argument("--case", default="0522c0017")
    parser.add_argument("--all", action="store_true", help="also measure our contours on every scan and rater")
    chosen = parser.parse_args(arguments)
    case = next(case for case in cases(chosen.contours) if case.name == chosen.case)
    masks, grid = case.masks(RATERS[0])
    with tempfile.TemporaryDirectory() as folder:
        compare_writers(masks, grid, Path(folder))
    if chosen.all:
        measure_all(chosen.contours)


def compare_writers(masks: OARMasks, grid: Grid, folder: Path) -> None:
    ct = folder / "ct"
    header = check_headers(write_ct_series(ct, np.zeros(grid.shape, dtype=np.int16), grid))
    ours = folder / "ours.dcm"
    theirs = folder / "rt-utils.dcm"
    rows = [
        Row("Oarlock", least_cpu_s(lambda: write_rtstruct(ours, masks, header, AUTHORSHIP), repeats=5), ours),
        Row(f"rt-utils {version('rt-utils')}", write_with_rt_utils(theirs, ct, masks), theirs),
    ]
    floor = least_cpu_s(lambda: (folder / "floor.dcm").write_bytes(ours.read_bytes()), repeats=5)
    cost = rows[0].cpu_s
    print(f"{len(masks.oars)} OARs on {masks.shape[0]} slices of {masks.shape[1]} × {masks.shape[2]}\n")
    print("| writer | CPU s | × ours | contours | points | MB | voxels lost or won | worst volume | dciodvfy errors |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | --- | ---: |")
    print(f"| floor: the bytes of ours to the disk | {floor:.4f} | {floor / cost:.2f} | | | | | | |")
    for row in rows:
        print(f"| {row.name} | {row.cpu_s:.3f} | {row.cpu_s / cost:.0f} | {judged(row, masks, header, folder)} |")


def write_with_rt_utils(path: Path, ct: Path, masks: OARMasks) -> float:
    """CPU seconds of rt-utils for adding all organs and saving.

    Without its reading of the CT; one run.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from rt_utils import RTStructBuilder

        builder = RTStructBuilder.create_new(dicom_series_path=str(ct))
        volumes = {oar.name: np.ascontiguousarray(masks.mask(oar).transpose(1, 2, 0)) for oar in masks.oars}
        start = time.process_time()
        for name, volume in volumes.items():
            builder.add_roi(mask=volume, name=name)
        builder.save(str(path))
        return time.process_time() - start


def judged(row: Row, masks: OARMasks, header: SeriesHeader, folder: Path) -> str:
    polygons = read_polygons(row.path, header)
    points = sum(len(yx) for contours in polygons.values() for _, yx in contours)
    number = sum(len(contours) for contours in polygons.values())
    columns = [f"{number:,}", f"{points:,}", f"{row.path.stat().st_size / 1e6:.1f}"]
    columns += [differing_voxels(row, masks, folder), worst_volume(polygons, masks), dciodvfy_errors(row.path)]
    return " | ".join(columns)


def read_polygons(path: Path, header: SeriesHeader) -> dict[str, list[tuple[int, FloatArray]]]:
    """Slice and fractional indices of every contour, by ROI name."""
    dataset = pydicom.dcmread(path)
    names = {roi.ROINumber: str(roi.ROIName) for roi in dataset.StructureSetROISequence}
    found: dict[str, list[tuple[int, FloatArray]]] = {}
    for roi in dataset.ROIContourSequence:
        contours = [np.array(c.ContourData, dtype=np.float64).reshape(-1, 3) for c in roi.get("ContourSequence", [])]
        at = [(nearest_slice(header.grid, points[0]), points) for points in contours]
        found[names[roi.ReferencedROINumber]] = [(z, header.grid.to_plane(z, points)[0]) for z, points in at]
    return found


def nearest_slice(grid: Grid, point_mm: FloatArray) -> int:
    return int(np.argmin(np.abs(grid.slice_positions_mm - point_mm @ grid.normal)))


def signed_area(yx: FloatArray) -> float:
    y, x = yx.T
    return float(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1))) / 2


def worst_volume(polygons: dict[str, list[tuple[int, FloatArray]]], masks: OARMasks) -> str:
    """The organ whose polygons' volume differs most from its voxels'."""
    errors = {}
    for oar in masks.oars:
        voxels = int(np.count_nonzero(masks.mask(oar)))
        if voxels:
            errors[oar.name] = abs(sum(signed_area(yx) for _, yx in polygons[oar.name])) / voxels - 1
    name = max(errors, key=lambda organ: abs(errors[organ]))
    return f"{errors[name]:+.2%} ({name})"


def differing_voxels(row: Row, masks: OARMasks, folder: Path) -> str:
    """Voxels of all organs that plastimatch reads otherwise than they were."""
    if shutil.which("plastimatch") is None:
        return "plastimatch is not installed"
    different = count_differing(row.path, masks, folder / "ct", folder / f"{row.name}-read")
    return f"{different:,} of {int(np.bitwise_count(masks.bits).sum()):,}"


def count_differing(path: Path, masks: OARMasks, ct: Path, out: Path) -> int:
    """Voxels that plastimatch gets wrong, over all organs that are not empty."""
    out.mkdir()
    command = ["plastimatch", "convert", "--input", path, "--referenced-ct", ct, "--output-prefix", out]
    subprocess.run([*map(str, command), "--prefix-format", "nrrd", "--xor-contours"], check=True, capture_output=True)
    drawn = [oar for oar in masks.oars if masks.boxes()[oar.name] is not None]
    return sum(int(np.count_nonzero(read_mask(out / f"{oar.name}.nrrd") != masks.mask(oar))) for oar in drawn)


def read_mask(path: Path) -> npt.NDArray[np.bool_]:
    import SimpleITK

    return np.asarray(SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path))) > 0)


def dciodvfy_errors(path: Path) -> str:
    if shutil.which("dciodvfy") is None:
        return "not installed"
    done = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, errors="replace", check=False)
    return f"{sum(line.startswith('Error') for line in (done.stdout + done.stderr).splitlines()):,}"


@dataclass
class Totals:
    """What is found over all scans and raters.

    Volumes and distances are the worst.
    """

    organs: int = 0
    points: int = 0
    wrong: int = 0
    worst: float = 0.0
    worst_small: float = 0.0
    moved: float = 0.0


def measure_all(folder: Path) -> None:
    """Our file of every rater's organs, as plastimatch reads it."""
    totals = Totals()
    for case in cases(folder):
        for rater in RATERS:
            with tempfile.TemporaryDirectory() as scratch:
                measure_case(*case.masks(rater), Path(scratch), totals)
    print(f"\n{totals.organs} organs of all scans and raters, {totals.points:,} points;")
    print(f"plastimatch reads {totals.wrong} voxels wrong;")
    print(f"worst volume {totals.worst:.3%}, of organs under 0.5 ml {totals.worst_small:.3%};")
    print(f"decimation moves the line by at most {totals.moved:.3f} of its bound")


def measure_case(masks: OARMasks, grid: Grid, folder: Path, totals: Totals) -> None:
    header = check_headers(write_ct_series(folder / "ct", np.zeros(grid.shape, dtype=np.int16), grid))
    written = write_rtstruct(folder / "ours.dcm", masks, header, AUTHORSHIP)
    totals.wrong += count_differing(folder / "ours.dcm", masks, folder / "ct", folder / "read")
    polygons = read_polygons(folder / "ours.dcm", header)
    for oar in masks.oars:
        if (cropped := masks.crop(oar)) is None:
            continue
        voxels = int(np.count_nonzero(cropped[1]))
        error = abs(abs(sum(signed_area(yx) for _, yx in polygons[oar.name])) / voxels - 1)
        totals.worst = max(totals.worst, error)
        totals.worst_small = max(totals.worst_small, error * (voxels * math.prod(grid.spacing_mm) < 500))
        whole = to_contours(cropped[1], cropped[0], grid, tolerance_mm=0)
        totals.moved = max(totals.moved, furthest(written.contours[oar.name], whole, decimation_mm(grid)))
        totals.organs += 1
        totals.points += sum(len(yx) for _, yx in polygons[oar.name])


def furthest(kept: list[PlanarContour], whole: list[PlanarContour], bound_mm: float) -> float:
    """The largest distance that thinning made, as a share of its bound.

    Of the undecimated contours' points from the decimated contours.
    """
    largest = 0.0
    for less, more in zip(kept, whole, strict=True):
        a, along = less.points_mm, np.roll(less.points_mm, -1, axis=0) - less.points_mm
        offset = more.points_mm[:, None] - a
        share = np.clip(np.sum(offset * along, axis=2) / np.sum(along**2, axis=1), 0, 1)
        distance = np.linalg.norm(offset - share[..., None] * along, axis=2).min(axis=1)
        largest = max(largest, float(distance.max()) / bound_mm)
    return largest


if __name__ == "__main__":
    main()

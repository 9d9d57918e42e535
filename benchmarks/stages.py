"""What each stage costs: ``python -m benchmarks.stages FOLDER``.

The stages of a job on a real series, beside a floor and a peer.

Wall and CPU seconds, and the highest resident memory of this process while the stage ran (with what it holds from the stages
before it). One run, one process, one machine: the ratios count. A peer gets the same input in the same run.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from time import perf_counter, process_time
from typing import Any, TypeVar
from warnings import catch_warnings

import numpy as np

from oarlock.ct.hounsfield import check_steps
from oarlock.ct.series import CTSeries, SeriesHeader, check_headers, read_ct_series
from oarlock.ct.turned_over import turned_over
from oarlock.facts import ModelFacts
from oarlock.geometry.contours import to_contours
from oarlock.geometry.masks import OARMasks
from oarlock.geometry.skin import Surroundings
from oarlock.inference.models import load
from oarlock.pictures.contact_sheet import contact_sheet
from oarlock.pictures.review import write_review
from oarlock.pictures.slice_archive import save_rendering
from oarlock.pipeline.comparison import StructureSetOnGrid, compare_on_grid, read_on_grid
from oarlock.pipeline.contouring import Walk
from oarlock.qa.plausibility import check_masks
from oarlock.qa.report import QAReport
from oarlock.rtstruct.validator import check_rtstruct
from oarlock.rtstruct.writer import Authorship, write_rtstruct
from oarlock.segmentation.clean_up import clean_up
from oarlock.segmentation.manifest import read_manifest
from oarlock.segmentation.resampling import to_model_grid
from oarlock.segmentation.segment import Model, segment
from oarlock.segmentation.slabs import slab_for
from oarlock.segmentation.within_skin import within_skin

T = TypeVar("T")


@dataclass
class Row:
    """One line of the table.

    ``kind``: ours, floor, peer, a part of another row, or the job as a whole.
    """

    stage: str
    kind: str
    wall_s: float
    cpu_s: float
    peak_mib: float | None
    note: str


class Table:
    """Measures calls and remembers what they took."""

    def __init__(self) -> None:
        self.rows: list[Row] = []

    def measure(self, stage: str, call: Callable[[], T], *, kind: str = "ours", note: str = "") -> T:
        """Run a call once and add a row for it."""
        _forget_peak()
        wall, cpu = perf_counter(), process_time()
        result = call()
        self.rows.append(Row(stage, kind, perf_counter() - wall, process_time() - cpu, _peak_mib(), note))
        return result

    def show(self) -> None:
        """Print the table as Markdown."""
        print("| stage | | wall s | CPU s | peak MiB | |\n| --- | --- | ---: | ---: | ---: | --- |")
        for row in self.rows:
            peak = "" if row.peak_mib is None else f"{row.peak_mib:.0f}"
            print(f"| {row.stage} | {row.kind} | {row.wall_s:.3f} | {row.cpu_s:.3f} | {peak} | {row.note} |")
        ours = [row for row in self.rows if row.kind == "ours"]
        highest = max(row.peak_mib or 0.0 for row in ours)
        print(f"| all of ours | | {sum(r.wall_s for r in ours):.3f} | {sum(r.cpu_s for r in ours):.3f} | {highest:.0f} | |")


def _forget_peak() -> None:
    """Start a new high-water mark of resident memory (Linux, proc(5) clear_refs); elsewhere there is no column."""
    marks = Path("/proc/self/clear_refs")
    if marks.exists():
        marks.write_text("5")


def _peak_mib() -> float | None:
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def walk(series: Path, model: Path, folder: Path, table: Table) -> None:
    """Every stage of a job in its order."""
    files = sorted(path for path in series.rglob("*") if path.is_file())
    table.measure("read", lambda: sum(len(path.read_bytes()) for path in files), kind="floor", note="the bytes alone")
    manifest = read_manifest(model)
    network = table.measure("load model", lambda: load(manifest), note="hash, session, self-check; once per worker")
    _walk_at_once(files, network, folder / "job", table)
    header = table.measure("check headers", lambda: check_headers(files), note=f"{len(files)} files")
    ct = table.measure("read", lambda: read_ct_series(header), note="to Hounsfield units")
    _read_with_simpleitk(header, table)
    table.measure("check series", lambda: _check_series(ct), note="side by side in a job")

    fed = table.measure(
        "resample", lambda: to_model_grid(ct.hu, header.grid, manifest.parts[0].input), kind="part", note="of the segmentation"
    )
    slab = slab_for(fed.volume.shape[1:], manifest.parts[0].input.context_slices)
    found = table.measure("segment", lambda: segment(ct.hu, header.grid, network), note=f"{network.device}, slabs of {slab}")
    masks = found.masks
    around = Surroundings(ct.hu, header.grid)
    warnings = table.measure("clean up", lambda: within_skin(masks, around, at_once=2), note="cut at the skin")
    warnings += table.measure("clean up", lambda: clean_up(masks, header.grid, at_once=2))
    authorship = Authorship(
        "benchmark", datetime(2026, 1, 1, tzinfo=UTC), ModelFacts(manifest.name, manifest.version, manifest.sha256)
    )
    _contour(header, masks, authorship, folder, table)
    _compare(ct, around, masks, folder, table)
    table.measure("preview", lambda: contact_sheet(ct.hu, header.grid, masks, model=manifest.identity))
    table.measure("preview", lambda: save_rendering(folder / "rendering.npz", ct.hu, header.grid, masks), note="file for ?oar=")
    head, body = folder / "review.json", folder / "review.bin"
    table.measure(
        "preview", lambda: write_review(head, body, ct.hu, header.grid, masks, model=""), note="files of the review page"
    )
    print(
        f"{header.grid.shape} voxels, {sum(box is not None for box in masks.boxes().values())} OARs, {len(warnings)} warnings\n"
    )


def _check_series(ct: CTSeries) -> None:
    check_steps(ct.hu)
    turned_over(ct.hu, ct.header.grid)


def _walk_at_once(files: list[Path], network: Model, folder: Path, table: Table) -> None:
    """The job as a worker does it, pictures and all; first, so that its peak is its own."""
    folder.mkdir()
    job = Walk(files, folder, "benchmark", datetime(2026, 1, 1, tzinfo=UTC), lambda *_: None)
    table.measure("the whole job", lambda: job.run(lambda: network), kind="job", note="from files to every result")


def _read_with_simpleitk(header: SeriesHeader, table: Table) -> None:
    try:
        import SimpleITK
    except ImportError:
        return

    def read() -> Any:
        reader = SimpleITK.ImageSeriesReader()
        reader.SetFileNames([str(instance.path) for instance in header.instances])
        return SimpleITK.GetArrayFromImage(reader.Execute())

    table.measure("read", read, kind="peer", note="SimpleITK, told the order")


def _contour(header: SeriesHeader, masks: OARMasks, authorship: Authorship, folder: Path, table: Table) -> None:
    def contour() -> int:
        crops = [masks.crop(oar) for oar in masks.oars]
        return sum(len(to_contours(crop[1], crop[0], header.grid)) for crop in crops if crop)

    count = table.measure("contours", contour, kind="part", note="of the next row")
    path = folder / "rtstruct.dcm"
    table.measure("RTSTRUCT", lambda: write_rtstruct(path, masks, header, authorship), note=f"{count} contours")
    findings = table.measure("check RTSTRUCT", lambda: check_rtstruct(path, header, masks))
    if findings:
        print("the RTSTRUCT has findings:", *findings, sep="\n  ")
    _write_with_rt_utils(header, masks, folder, table)


def _write_with_rt_utils(header: SeriesHeader, masks: OARMasks, folder: Path, table: Table) -> None:
    try:
        from rt_utils import RTStructBuilder
    except ImportError:
        return

    def write() -> None:
        source = folder / "series"
        source.mkdir()
        for instance in header.instances:
            (source / f"{instance.position}.dcm").symlink_to(instance.path.resolve())
        builder = RTStructBuilder.create_new(dicom_series_path=str(source))
        for oar in masks.oars:
            mask = masks.mask(oar)
            if mask.any():
                builder.add_roi(mask=np.moveaxis(mask, 0, 2), color=list(oar.colour), name=oar.name)
        builder.save(str(folder / "rt-utils.dcm"))

    with catch_warnings(action="ignore"), redirect_stdout(StringIO()):
        table.measure("RTSTRUCT", write, kind="peer", note="rt-utils, reading its headers included")


def _compare(ct: CTSeries, around: Surroundings, masks: OARMasks, folder: Path, table: Table) -> None:
    header = ct.header

    def compared() -> QAReport:
        reference = read_on_grid(folder / "rtstruct.dcm", header)
        return compare_on_grid(StructureSetOnGrid(reference.source, masks), reference, header)

    table.measure("QA, one RTSTRUCT", compared, note="reading it included")
    table.measure(
        "QA, no reference", lambda: json.dumps([c.to_json() for c in check_masks(masks, header.grid, hu=ct.hu, around=around)])
    )
    _score_with_surface_distance(header, masks, table)


def _score_with_surface_distance(header: SeriesHeader, masks: OARMasks, table: Table) -> None:
    try:
        import surface_distance
    except ImportError:
        return

    def score() -> None:
        for oar in masks.oars:
            mask = masks.mask(oar)
            if mask.any():
                distances = surface_distance.compute_surface_distances(mask, mask, header.grid.spacing_mm)
                surface_distance.compute_surface_dice_at_tolerance(distances, oar.tolerance_mm)
                surface_distance.compute_robust_hausdorff(distances, 95)

    table.measure("QA, one RTSTRUCT", score, kind="peer", note="surface-distance, masks at hand")


def main(arguments: list[str] | None = None) -> int:
    """Print the table for one series."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stages", description=__doc__)
    parser.add_argument("series", type=Path, help="folder of one CT series")
    parser.add_argument("--model", type=Path, default=Path("models/oarlock-hn"), help="folder of a model")
    options = parser.parse_args(arguments)
    table = Table()
    with tempfile.TemporaryDirectory() as folder:
        walk(options.series, options.model, Path(folder), table)
    table.show()
    return 0


if __name__ == "__main__":
    sys.exit(main())

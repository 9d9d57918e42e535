"""``oarlock contour``: one series from a folder to a folder.

It needs no queue, no service and no job table.

The wheel alone does not bring ONNX Runtime: the extra ``worker`` does. So the runtime is imported when the command is run.
"""

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from oarlock.cli import judging
from oarlock.cli.exit_status import UNUSABLE
from oarlock.ct.intake import take_in
from oarlock.ct.series import SeriesHeader
from oarlock.ct.series_geometry import read_series_geometry
from oarlock.errors import UnknownModel
from oarlock.organs.catalogue import OARS
from oarlock.pictures.slice_archive import load_rendering
from oarlock.pipeline.contouring import Walk
from oarlock.pipeline.organ_table import organ_csv, organ_table
from oarlock.qa.site_file import Site
from oarlock.reporting.contents import Contents, drawn_in, subject_of
from oarlock.rtstruct.profiles import Profile, profile_named, read_profiles
from oarlock.seg.writer import to_segmentation
from oarlock.segmentation.manifest import ModelManifest
from oarlock.segmentation.model_folder import ModelFolder
from oarlock.settings import Settings, read_settings
from oarlock.store.files import GEOMETRY, PREVIEW, QA_REPORT, RENDERING, RTSTRUCT, SEGMENTATION, reference_name
from oarlock.store.jobs import Stage

if TYPE_CHECKING:
    from oarlock.inference.models import Models

DELIVERED: Final = (RTSTRUCT, QA_REPORT, PREVIEW)


def add_command(commands: Any) -> None:
    """Add the command to the subparsers of ``oarlock``."""
    parser = commands.add_parser("contour", help="contour a CT series: an RTSTRUCT, a QA report and a picture")
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder of the CT series, and of RTSTRUCTs to compare with")
    parser.add_argument("--out", type=Path, default=Path(), metavar="DIR", help="where to; made if it is missing")
    parser.add_argument("--profile", help="site profile by which the RTSTRUCT is written (docs/profiles.md)")
    parser.add_argument("--model", help="name of the model")
    parser.add_argument("--dicom-only", action="store_true", help="leave out files that are not DICOM Part 10, by their content")
    parser.add_argument("--seg", action="store_true", help="write the masks as a DICOM Segmentation too")
    printed = parser.add_mutually_exclusive_group()
    printed.add_argument("--json", action="store_true", help="print the QA report in place of the table")
    printed.add_argument("--csv", action="store_true", help="print a line of CSV for each organ and reference in place of it")
    judging.add_options(parser)
    judging.add_reports(parser)
    parser.set_defaults(run=run)


def run(chosen: argparse.Namespace) -> int:
    """Contour the series and give the exit status.

    Every other choice comes from the settings (docs/operations.md).

    :raises OarlockError: whatever a step may raise.
    """
    settings = read_settings()
    site = judging.site_of(chosen, settings.site)
    profile = profile_named(read_profiles(settings.profiles), chosen.profile or settings.profile)
    found = chosen_model("contour", chosen.model, settings)
    if found is None:
        return UNUSABLE
    models, name = found
    files = sorted(path for path in chosen.folder.rglob("*") if path.is_file())
    if chosen.dicom_only:
        files = [path for path in files if _is_part_10(path)]
    header = take_in(files, settings.intake_rules)
    chosen.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=chosen.out, prefix=".oarlock-") as folder:
        now, job_id = datetime.now(UTC).astimezone(settings.zone), str(uuid4())
        walk = Walk(files, Path(folder), job_id, now, _show, settings.max_slices, site, profile)
        walk.run(lambda: models.named(name))
        _end_line()
        if chosen.seg:
            _write_segmentation(Path(folder))
        judging.write_reports(chosen, lambda: contents_of(Path(folder), header, walk, site, models.installed().offered[name]))
        delivered = (*DELIVERED, *([SEGMENTATION] if chosen.seg else ()))
        _deliver(Path(folder), chosen.out, delivered)
    for warning in (*header.warnings, *walk.warnings):
        print(f"warning: {warning.detail} ({warning.code})", file=sys.stderr)
    report = json.loads((chosen.out / QA_REPORT).read_bytes())
    if chosen.json:
        print(json.dumps(report, indent=2, ensure_ascii=False))
    elif chosen.csv:
        print(organ_csv(report), end="")
    else:
        print(*_table(chosen.out, report, header, profile), "", sep="\n")
        print(*(chosen.out / name for name in delivered), sep="\n")
    return judging.exit_status(report, chosen)


def _is_part_10(path: Path) -> bool:
    """Whether a file begins as PS3.10 section 7.1 has it."""
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def chosen_model(command: str, chosen: str | None, settings: Settings) -> "tuple[Models, str] | None":
    """The installed models, and the name of the chosen or default one.

    None, which is said on the terminal, where ONNX Runtime is not installed.

    :raises UnknownModel: if there is no model of that name.
    """
    models = _installed_models(settings)
    if models is None:
        print(f"oarlock: {command} needs ONNX Runtime. Install it: pip install 'oarlock[worker]'", file=sys.stderr)
        return None
    return models, _model_name(chosen, models)


def _installed_models(settings: Settings) -> "Models | None":
    """The installed models; None where ONNX Runtime is not installed."""
    try:
        from oarlock.inference.models import Models
    except ModuleNotFoundError as error:
        if error.name != "onnxruntime":
            raise
        return None
    installed = ModelFolder(settings.models, settings.model).read()
    return Models(lambda: installed, device=settings.device, threads=settings.threads)


def _model_name(chosen: str | None, models: "Models") -> str:
    """The model that was chosen, or the default one.

    :raises UnknownModel: if it is not installed.
    """
    installed = models.installed()
    name = chosen or installed.default
    if name not in installed.offered:
        raise UnknownModel(available=list(installed.offered))
    return name


def contents_of(folder: Path, header: SeriesHeader, walk: Walk, site: Site, manifest: ModelManifest) -> Contents:
    """What the report shows, of the results in a folder."""
    report = json.loads((folder / QA_REPORT).read_bytes())
    drawn = [drawn_in(folder / reference_name(one["position"]), header, site) for one in report["comparisons"]]
    subject = subject_of((folder / RTSTRUCT).read_bytes())
    rendering = load_rendering(folder / RENDERING)
    return Contents(report, rendering, drawn, subject, walk.warnings, manifest.description, manifest.limits)


def _write_segmentation(folder: Path) -> None:
    """Write the segmentation beside the results that it is made of."""
    header, rendering = read_series_geometry(folder / GEOMETRY), load_rendering(folder / RENDERING)
    (folder / SEGMENTATION).write_bytes(to_segmentation((folder / RTSTRUCT).read_bytes(), header, rendering))


def _deliver(folder: Path, out: Path, names: Sequence[str]) -> None:
    """Move the results out, each whole or not at all, with the mode that this user's new files have."""
    for name in names:
        copy = folder / f"{name}.delivered"
        shutil.copyfile(folder / name, copy)
        copy.replace(out / name)


def _table(out: Path, report: Mapping[str, Any], header: SeriesHeader, profile: Profile) -> Iterator[str]:
    """A line per organ of the RTSTRUCT that was delivered."""
    oar_of = {style.name: style.oar for style in profile.styles_of(OARS)}
    return organ_table(out / RTSTRUCT, report, header, oar_of)


def _show(stage: Stage, share: float) -> None:
    """Say what is being done, on a terminal alone."""
    if sys.stderr.isatty():
        print(f"\r{stage.value:<11}{share:5.0%}", end="", file=sys.stderr, flush=True)


def _end_line() -> None:
    if sys.stderr.isatty():
        print(file=sys.stderr)

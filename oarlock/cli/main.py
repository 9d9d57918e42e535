"""The commands of ``oarlock`` and what their exit status means.

What the service does with a job's files, for files at hand. Exit status: 0 good; 1 findings, or a threshold that is not
met; 2 the input cannot be used.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from oarlock import __version__
from oarlock.cli import administration, application, backup, commission, configuration, contour, judging, upgrade
from oarlock.cli.exit_status import FINDINGS, GOOD, UNUSABLE
from oarlock.ct.series import SeriesHeader, check_headers, read_ct_series
from oarlock.errors import OarlockError
from oarlock.facts import Notice
from oarlock.pictures.slice_archive import Rendering
from oarlock.pipeline.comparison import NO_SITE_FILE, ComparisonSet, StructureSetOnGrid, read_on_grid
from oarlock.pipeline.organ_table import organ_csv, table_of
from oarlock.qa.interobserver import Spread
from oarlock.qa.plausibility import check_masks
from oarlock.qa.site_file import Site
from oarlock.reporting.contents import Contents, subject_of
from oarlock.rtstruct.validator import check_rtstruct
from oarlock.settings import SettingsInvalid
from oarlock.store.database import DatabaseMissing
from oarlock.store.migrations import DatabaseNewer, DatabaseOlder, WorkersLive
from oarlock.store.migrations.refused import RollBackRefused

DATABASE_PROBLEMS: Final = (DatabaseMissing, DatabaseNewer, DatabaseOlder, RollBackRefused, WorkersLive)
"""What is wrong with a database and is said in a sentence."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand and give its exit status."""
    chosen = _parser().parse_args(arguments)
    try:
        status: int = chosen.run(chosen)
    except OarlockError as error:
        print(f"oarlock: {error.detail} ({error.code})", file=sys.stderr)
        return UNUSABLE
    except OSError as error:
        print(f"oarlock: {error.strerror or error}", file=sys.stderr)
        return UNUSABLE
    except (*DATABASE_PROBLEMS, SettingsInvalid) as error:
        print(f"oarlock: {error}", file=sys.stderr)
        return UNUSABLE
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="oarlock", description="Contours of organs at risk on head and neck planning CT.")
    parser.add_argument("--version", action="version", version=f"oarlock {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    check = commands.add_parser("check", help="is an RTSTRUCT fit to be delivered? exit status 1 with findings")
    check.add_argument("file", type=Path, help="the RTSTRUCT")
    check.set_defaults(run=_check)

    qa = commands.add_parser("qa", help="score one RTSTRUCT against others (surface DSC, …), or check it without one")
    qa.add_argument("predicted", type=Path, help="the RTSTRUCT to be judged")
    qa.add_argument("references", type=Path, nargs="*", metavar="reference", help="RTSTRUCTs to judge it by, one per observer")
    printed = qa.add_mutually_exclusive_group()
    printed.add_argument(
        "--json",
        action="store_true",
        help="print the service's report: a comparison for one reference, a job's report for none or several",
    )
    printed.add_argument("--csv", action="store_true", help="print a line of CSV for each organ and reference")
    judging.add_options(qa)
    judging.add_reports(qa)
    qa.set_defaults(run=_qa)

    for command in (check, qa):
        command.add_argument("--ct", type=Path, required=True, metavar="DIR", help="folder of the CT series")

    phantom = commands.add_parser("phantom", help="write a made-up head and neck CT series and its known contours")
    phantom.add_argument("folder", type=Path, metavar="DIR", help="where to; made if it is missing")
    phantom.set_defaults(run=_phantom)

    contour.add_command(commands)
    commission.add_command(commands)
    application.add_command(commands, main)
    configuration.add_command(commands)
    backup.add_commands(commands)
    upgrade.add_commands(commands)
    administration.add_commands(commands)
    return parser


def _check(chosen: argparse.Namespace) -> int:
    findings = check_rtstruct(chosen.file, _series(chosen.ct))
    for finding in findings:
        print(finding)
    if not findings:
        print("fit to be delivered")
    return FINDINGS if findings else GOOD


def _qa(chosen: argparse.Namespace) -> int:
    site = judging.site_of(chosen, NO_SITE_FILE)
    header = _series(chosen.ct)
    panel = ComparisonSet(_drawing(chosen.predicted, header, site), header, site)
    for path in chosen.references:
        panel.add(_drawing(path, header, site))
    hu = read_ct_series(header).hu
    report = panel.report(check_masks(panel.predicted.masks, header.grid, hu=hu))
    judging.write_reports(chosen, lambda: _contents(chosen.predicted, panel, report, hu))
    if chosen.json:
        content = panel.reports[0].to_json() if len(panel.reports) == 1 else report
        print(json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False))
    elif chosen.csv:
        print(organ_csv(report), end="")
    else:
        _print_tables(panel, report, chosen.references)
    return judging.exit_status(report, chosen)


def _contents(path: Path, panel: ComparisonSet, report: Mapping[str, Any], hu: npt.NDArray[np.int16]) -> Contents:
    rendering = Rendering.of(hu, panel.header.grid, panel.predicted.masks, model="")
    return Contents(report, rendering, panel.drawn, subject_of(path.read_bytes()), panel.header.warnings)


def _print_tables(panel: ComparisonSet, report: Mapping[str, Any], references: Sequence[Path]) -> None:
    """One table for each reference, or one without scores; then the spread between references, and what is amber."""
    rois = [(name, oar) for oar, name in panel.predicted.matched_rois.items()]
    for place in range(max(len(references), 1)):
        if len(references) > 1:
            print(references[place])
        print(*table_of(rois, panel.predicted.masks, report, panel.header.grid, place), sep="\n")
        print()
    for spread in panel.observers():
        _print_spread(spread)
    amber = [organ["reason"] for organ in report["organs"] if organ["verdict"] == "amber"]
    print(*(["Amber", *(f"  {reason}" for reason in amber)] if amber else []), sep="\n")


def _drawing(path: Path, header: SeriesHeader, site: Site) -> StructureSetOnGrid:
    drawing = read_on_grid(path, header, site)
    _warn(drawing.warnings, about=path)
    return drawing


def _print_spread(spread: Spread) -> None:
    """Surface DSC of ours against the observers, and of the observers against each other: lowest, median, highest."""
    sides = (spread.ours["surface_dsc"], spread.between["surface_dsc"])
    ours, between = ("–" if side is None else f"{side.lowest:.3f} {side.median:.3f} {side.highest:.3f}" for side in sides)
    print(f"{spread.oar.name:<16} ours {ours:<18} between observers {between:<18} {spread.reason or ''}".rstrip())


def _phantom(chosen: argparse.Namespace) -> int:
    from oarlock.phantom.patient import write_phantom  # half a second, and no other command needs it

    images, reference = write_phantom(chosen.folder)
    print(f"{len(images)} CT images and {reference}")
    return GOOD


def _series(folder: Path) -> SeriesHeader:
    """The CT series of a folder and its subfolders."""
    header = check_headers(sorted(path for path in folder.rglob("*") if path.is_file()), refuse_gaps=False)
    _warn(header.warnings)
    return header


def _warn(warnings: Sequence[Notice], *, about: Path | None = None) -> None:
    """Print each warning, with the file that it is about."""
    where = f"{about}: " if about else ""
    for warning in warnings:
        print(f"warning: {where}{warning.detail} ({warning.code})", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())

"""oarlock check FILE --ct DIR; oarlock qa PREDICTED [REFERENCE …] --ct DIR; oarlock phantom DIR; oarlock contour DIR;
oarlock config check; oarlock keys ACTION.

What the service does with a job's files, for files at hand. Exit status: 0 good, 1 findings, 2 the input cannot be used.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from oarlock import __version__
from oarlock.cli import administration, configuration, contour
from oarlock.cli.exit_status import FINDINGS, GOOD, UNUSABLE
from oarlock.ct.series import SeriesHeader, check_headers, read_ct_series
from oarlock.errors import OarlockError
from oarlock.facts import Notice
from oarlock.phantom.patient import write_phantom
from oarlock.pipeline.comparison import NO_SITE_FILE, ComparisonSet, StructureSetOnGrid, read_on_grid
from oarlock.qa.interobserver import Spread
from oarlock.qa.plausibility import check_masks
from oarlock.qa.report import QAReport
from oarlock.qa.site_file import Site, read_site
from oarlock.qa.verdict import verdicts
from oarlock.rtstruct.validator import check_rtstruct
from oarlock.settings import SettingsInvalid
from oarlock.store.database import DatabaseMissing
from oarlock.store.migrations import DatabaseNewer


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
    except (DatabaseMissing, DatabaseNewer, SettingsInvalid) as error:
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
    qa.add_argument("--site", type=Path, metavar="FILE", help="TOML file of the site's own names and tolerances")
    qa.add_argument(
        "--json",
        action="store_true",
        help="print the service's report: a comparison for one reference, a job's report for none or several",
    )
    qa.set_defaults(run=_qa)

    for command in (check, qa):
        command.add_argument("--ct", type=Path, required=True, metavar="DIR", help="folder of the CT series")

    phantom = commands.add_parser("phantom", help="write a made-up head and neck CT series and its known contours")
    phantom.add_argument("folder", type=Path, metavar="DIR", help="where to; made if it is missing")
    phantom.set_defaults(run=_phantom)

    contour.add_command(commands)
    configuration.add_command(commands)
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
    site = read_site(chosen.site) if chosen.site else NO_SITE_FILE
    header = _series(chosen.ct)
    panel = ComparisonSet(_drawing(chosen.predicted, header, site), header, site)
    for path in chosen.references:
        panel.add(_drawing(path, header, site))
    is_pair = len(panel.reports) == 1
    checks = () if is_pair else check_masks(panel.predicted.masks, header.grid, hu=read_ct_series(header).hu)
    if chosen.json:
        content = panel.reports[0].to_json() if is_pair else panel.report(checks)
        print(json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False))
        return GOOD
    for report in panel.reports:
        _print_scores(report)
    for spread in panel.observers():
        _print_spread(spread)
    for verdict in verdicts(checks, panel.predicted.masks.oars):
        others = f" ({', '.join(verdict.codes)})" if verdict.codes else ""
        print(f"{verdict.level.value:<6} {verdict.oar:<16} {verdict.reason}{others}")
    return GOOD


def _drawing(path: Path, header: SeriesHeader, site: Site) -> StructureSetOnGrid:
    drawing = read_on_grid(path, header, site)
    _warn(drawing.warnings, about=path)
    return drawing


def _print_scores(report: QAReport) -> None:
    print(f"{'OAR':<16}{'surface DSC':>12}{'DSC':>8}{'HD95 mm':>9}  ")
    for score in report.to_json()["oars"]:
        numbers = (_number(score[key], width) for key, width in (("surface_dsc", 12), ("volumetric_dsc", 8)))
        print(f"{score['oar']:<16}{''.join(numbers)}{_number(score['hausdorff_95_mm'], 9, 2)}  {score['reason'] or ''}".rstrip())


def _print_spread(spread: Spread) -> None:
    """Surface DSC of ours against the observers, and of the observers against each other: lowest, median, highest."""
    sides = (spread.ours["surface_dsc"], spread.between["surface_dsc"])
    ours, between = ("–" if side is None else f"{side.lowest:.3f} {side.median:.3f} {side.highest:.3f}" for side in sides)
    print(f"{spread.oar.name:<16} ours {ours:<18} between observers {between:<18} {spread.reason or ''}".rstrip())


def _number(value: float | None, width: int, digits: int = 4) -> str:
    return f"{'–' if value is None else format(value, f'.{digits}f'):>{width}}"


def _phantom(chosen: argparse.Namespace) -> int:
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

"""oarlock check FILE --ct DIR; oarlock qa PREDICTED REFERENCE --ct DIR; oarlock phantom DIR.

What the service does with a job's files, for files at hand. Exit status: 0 good, 1 findings, 2 the input cannot be used.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from oarlock import __version__
from oarlock.check import check_rtstruct
from oarlock.errors import OarlockError
from oarlock.jobs import JobWarning
from oarlock.names import match_rois
from oarlock.phantom import write_phantom
from oarlock.qa import QAReport, Source, compare
from oarlock.series import SeriesHeader, check_headers
from oarlock.structure_set import read_structure_set, to_masks

GOOD, FINDINGS, UNUSABLE = 0, 1, 2


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
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="oarlock", description="Contours of organs at risk on head and neck planning CT.")
    parser.add_argument("--version", action="version", version=f"oarlock {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    check = commands.add_parser("check", help="is an RTSTRUCT fit to be delivered? exit status 1 with findings")
    check.add_argument("file", type=Path, help="the RTSTRUCT")
    check.set_defaults(run=_check)

    qa = commands.add_parser("qa", help="score one RTSTRUCT against another: surface DSC, volumetric DSC, HD95, …")
    qa.add_argument("predicted", type=Path, help="the RTSTRUCT to be judged")
    qa.add_argument("reference", type=Path, help="the RTSTRUCT to judge it by")
    qa.add_argument("--json", action="store_true", help="print the report as the service gives it")
    qa.set_defaults(run=_qa)

    for command in (check, qa):
        command.add_argument("--ct", type=Path, required=True, metavar="DIR", help="folder of the CT series")

    phantom = commands.add_parser("phantom", help="write a made-up head and neck CT series and its known contours")
    phantom.add_argument("folder", type=Path, metavar="DIR", help="where to; made if it is missing")
    phantom.set_defaults(run=_phantom)
    return parser


def _check(chosen: argparse.Namespace) -> int:
    findings = check_rtstruct(chosen.file, _series(chosen.ct))
    for finding in findings:
        print(finding)
    if not findings:
        print("fit to be delivered")
    return FINDINGS if findings else GOOD


def _qa(chosen: argparse.Namespace) -> int:
    report = _compare(chosen.predicted, chosen.reference, _series(chosen.ct))
    if chosen.json:
        print(json.dumps(report.to_json(), indent=2, ensure_ascii=False))
        return GOOD
    print(f"{'OAR':<16}{'surface DSC':>12}{'DSC':>8}{'HD95 mm':>9}  ")
    for score in report.to_json()["oars"]:
        numbers = (_number(score[key], width) for key, width in (("surface_dsc", 12), ("volumetric_dsc", 8)))
        print(f"{score['oar']:<16}{''.join(numbers)}{_number(score['hausdorff_95_mm'], 9, 2)}  {score['reason'] or ''}".rstrip())
    return GOOD


def _number(value: float | None, width: int, digits: int = 4) -> str:
    return f"{'–' if value is None else format(value, f'.{digits}f'):>{width}}"


def _phantom(chosen: argparse.Namespace) -> int:
    images, reference = write_phantom(chosen.folder)
    print(f"{len(images)} CT images and {reference}")
    return GOOD


def _series(folder: Path) -> SeriesHeader:
    """The CT series of a folder and its subfolders."""
    header = check_headers(sorted(path for path in folder.rglob("*") if path.is_file()))
    _warn(header.warnings)
    return header


def _compare(predicted_file: Path, reference_file: Path, header: SeriesHeader) -> QAReport:
    predicted, reference = read_structure_set(predicted_file), read_structure_set(reference_file)
    ours, theirs = match_rois(predicted.rois), match_rois(reference.rois)
    drawn, notes = to_masks(predicted, header, {oar: roi.number for oar, roi in ours.matched.items()})
    wanted, more = to_masks(reference, header, {oar: roi.number for oar, roi in theirs.matched.items()})
    _warn((*notes, *more))
    return compare(
        drawn,
        wanted,
        header.grid,
        matched_rois={oar: roi.name for oar, roi in theirs.matched.items()},
        predicted_source=Source(predicted.sop_instance_uid, predicted.label),
        reference_source=Source(reference.sop_instance_uid, reference.label),
        unmatched=theirs.unmatched,
        ambiguous=theirs.ambiguous,
        series_instance_uid=header.series_instance_uid,
    )


def _warn(warnings: Sequence[JobWarning]) -> None:
    for warning in warnings:
        print(f"warning: {warning.detail} ({warning.code})", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())

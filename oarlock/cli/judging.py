"""What ``oarlock contour`` and ``oarlock qa`` share.

Thresholds, what is printed, and the exit status that comes of it.
"""

import argparse
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from oarlock.cli.exit_status import FINDINGS, GOOD
from oarlock.errors import InvalidParameter, ReportFailed
from oarlock.organs.catalogue import OARS
from oarlock.qa.action_levels import LEAST
from oarlock.qa.checks.finding import Level
from oarlock.qa.site_file import Site, read_site

if TYPE_CHECKING:
    from oarlock.reporting.contents import Contents

_THRESHOLDS: Final = {
    "--min-surface-dsc": "surface_dsc",
    "--min-dsc": "volumetric_dsc",
    "--max-hd95-mm": "hausdorff_95_mm",
}
_WORSE: Final = {Level.RED: {"red"}, Level.AMBER: {"red", "amber"}}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options to a subcommand."""
    group = parser.add_argument_group("pass and fail", "exit status 1 where a threshold or an action level is not met")
    for option, name in _THRESHOLDS.items():
        least = "lowest" if name in LEAST else "highest"
        group.add_argument(option, type=float, metavar="X", help=f"{least} {name} with which an organ passes, for all organs")
    group.add_argument(
        "--fail-on", type=Level, choices=list(_WORSE), metavar="LEVEL", help="red or amber: a verdict as bad as this fails too"
    )
    group.add_argument(
        "--site", type=Path, metavar="FILE", help="TOML file of the site's own names, tolerances and action levels"
    )


def add_reports(parser: argparse.ArgumentParser) -> None:
    """Add the options that write the report."""
    for option, what in (("--html", "a page"), ("--pdf", "PDF/A")):
        parser.add_argument(option, type=Path, metavar="FILE", help=f"write the report for people as {what}")


def write_reports(chosen: argparse.Namespace, contents: Callable[[], "Contents"]) -> None:
    """Write what was asked for.

    :param contents: called only if something was.
    :raises ReportFailed: if it cannot be made, or the extra ``report`` is not installed.
    """
    if not (chosen.html or chosen.pdf):
        return
    try:
        from oarlock.reporting.page import to_html
        from oarlock.reporting.pdf import to_pdf
    except ModuleNotFoundError as error:
        raise ReportFailed(reason="Jinja is not installed: pip install 'oarlock[report]'") from error
    html = to_html(contents())
    if chosen.html:
        chosen.html.write_text(html, encoding="utf-8")
    if chosen.pdf:
        chosen.pdf.write_bytes(to_pdf(html))


def site_of(chosen: argparse.Namespace, otherwise: Site) -> Site:
    """The site, with the command line's thresholds.

    It is the named one, or another; the thresholds take the place of its action levels.

    :raises InvalidParameter: if a threshold has no meaning.
    """
    site = read_site(chosen.site) if chosen.site else otherwise
    asked = {name: getattr(chosen, _attribute(option)) for option, name in _THRESHOLDS.items()}
    given = {name: value for name, value in asked.items() if value is not None}
    for option, name in _THRESHOLDS.items():
        if name in given and not 0 <= given[name] <= (1 if name in LEAST else 1_000):
            raise InvalidParameter(name=option, reason=f"must be from 0 to {1 if name in LEAST else 1_000}")
    levels = {oar: {**site.action_levels.get(oar, {}), **given} for oar in OARS}
    return replace(site, action_levels=levels) if given else site


def _attribute(option: str) -> str:
    return option.strip("-").replace("-", "_")


def exit_status(report: Mapping[str, Any], chosen: argparse.Namespace) -> int:
    """1 if a comparison fails or a verdict is too bad.

    As bad as ``--fail-on``. A threshold that nothing was held against is not met: a script would take silence for a pass.

    :param report: a job's QA report.
    """
    passed = [comparison["passed"] for comparison in report["comparisons"] if comparison["passed"] is not None]
    if not passed and any(getattr(chosen, _attribute(option)) is not None for option in _THRESHOLDS):
        sys.stderr.write("warning: nothing was compared, so no threshold is met\n")
        return FINDINGS
    failed = not all(passed)
    return FINDINGS if failed or report["verdict"] in _WORSE.get(chosen.fail_on, ()) else GOOD

"""``oarlock commission``: a model on past patients, organ by organ.

With proposed action levels (docs/commissioning.md).
Each patient is drawn and scored as a job would be, and leaves one file in the folder; what is there already is not done again.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import uuid4

from oarlock import __version__
from oarlock.cli import administration, judging
from oarlock.cli.contour import chosen_model, contents_of
from oarlock.cli.exit_status import FINDINGS, GOOD, UNUSABLE
from oarlock.commissioning.cases import PastCase, find_cases
from oarlock.commissioning.summary import METRICS, scored, summarise_cases, to_site_tables
from oarlock.ct.intake import take_in
from oarlock.errors import OarlockError
from oarlock.pipeline.contouring import Walk
from oarlock.pipeline.csv_text import to_csv
from oarlock.qa.site_file import Site
from oarlock.reporting.contents import pictures_of
from oarlock.rtstruct.profiles import GENERIC
from oarlock.segmentation.segment import Model
from oarlock.settings import Settings, read_settings
from oarlock.store.files import QA_REPORT
from oarlock.store.scores.baselines import Baseline
from oarlock.store.scores.read import ScoreStore

CASES = "cases"


def add_command(commands: Any) -> None:
    """Add the command to the subparsers of ``oarlock``."""
    parser = commands.add_parser("commission", help="a model on past patients with their approved contours, organ by organ")
    parser.add_argument("folder", type=Path, metavar="DIR", help="CT series and RTSTRUCTs, in whatever subfolders")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where to; started again, it goes on there")
    parser.add_argument("--model", help="name of the model")
    parser.add_argument("--against", type=Path, metavar="DIR", help="an earlier --out of the same patients, compared in pairs")
    parser.add_argument("--unapproved", action="store_true", help="take RTSTRUCTs too that are not approved")
    parser.add_argument("--site", type=Path, metavar="FILE", help="TOML file of the site's names, tolerances and action levels")
    parser.add_argument("--baseline", action="store_true", help="keep the scores in the database: control charts begin with them")
    parser.add_argument("--pdf", action="store_true", help="write the report as PDF/A too")
    parser.set_defaults(run=run, min_surface_dsc=None, min_dsc=None, max_hd95_mm=None)


def run(chosen: argparse.Namespace) -> int:
    """Draw, score and summarise; 1 if a patient could not be used.

    :raises OarlockError: if nothing can be begun.
    """
    settings = read_settings()
    site = judging.site_of(chosen, settings.site)
    drawing = chosen_model("commission", chosen.model, settings)
    if drawing is None:
        return UNUSABLE
    models, name = drawing
    earlier = _kept(chosen.against / CASES) if chosen.against else []
    if earlier is None:
        print(f"oarlock: {chosen.against} holds cases of several models, sites' files or versions", file=sys.stderr)
        return UNUSABLE
    found = find_cases(chosen.folder, unapproved=chosen.unapproved)
    print(
        f"{len(found.cases)} patients with CT and RTSTRUCT; {found.without_structure_set} series have no RTSTRUCT, and ", end=""
    )
    print(f"{found.without_series} RTSTRUCTs name no series that is there")
    for reason in found.left_out:
        print(f"warning: a series is left out. {reason}", file=sys.stderr)
    if not found.cases:
        return UNUSABLE
    if chosen.baseline:
        with administration.opened_database():  # before hours of drawing, not after them
            pass
    model = models.named(name)
    folder = chosen.out / CASES
    folder.mkdir(parents=True, exist_ok=True)
    bench = _Bench(folder, model, site, settings)
    cases = [bench.case(case, f"{i}/{len(found.cases)}") for i, case in enumerate(found.cases, start=1)]
    done = [case for case in cases if "failed" not in case]
    failed = [*(case["failed"] for case in cases if "failed" in case), *found.left_out]
    _write(chosen, done, failed, earlier, model)
    return FINDINGS if failed else GOOD


@dataclass(frozen=True)
class _Bench:
    """What every patient is drawn with, and the folder that what is kept of them goes to."""

    folder: Path
    model: Model
    site: Site
    settings: Settings

    def case(self, case: PastCase, place: str) -> dict[str, Any]:
        """What is kept of one patient: made now, or in an earlier run with the same model, site's file and version."""
        path = self.folder / f"{case.key}-{self.model.facts.sha256[:12]}-{made_with(self.site)}.json"
        if path.exists():
            return {**json.loads(path.read_bytes()), "approved": case.approved}
        _show(place)
        try:
            kept = self._draw(case)
        except OarlockError as error:
            kept = {"key": case.key, "failed": f"{error.detail} ({error.code})"}
        if "failed" in kept:  # the next run tries again
            print(f"warning: patient {place} is left out. {kept['failed']}", file=sys.stderr)
            return kept
        writing = path.with_suffix(".writing")
        writing.write_text(json.dumps(kept), encoding="utf-8")
        writing.replace(path)
        return {**kept, "approved": case.approved}

    def _draw(self, case: PastCase) -> dict[str, Any]:
        header = take_in(case.files, self.settings.intake_rules)
        with tempfile.TemporaryDirectory(dir=self.folder, prefix=".drawing-") as scratch:
            folder, now = Path(scratch), datetime.now(UTC)
            walk = Walk(case.files, folder, str(uuid4()), now, lambda *_: None, self.settings.max_slices, self.site, GENERIC)
            walk.run(lambda: self.model)
            report = json.loads((folder / QA_REPORT).read_bytes())
            pictures = pictures_of(contents_of(folder, header, walk, self.site, self.model.manifest))
        rows = [row for comparison in report["comparisons"] for row in comparison["oars"] if row["presence"] != "neither"]
        if all(row["presence"] == "predicted_only" for row in rows):
            reasons = " ".join(one["detail"] for one in report["not_compared"])
            return {"key": case.key, "failed": reasons or "Its structure set draws no organ that Oarlock scores."}
        scores = {row["oar"]: row["surface_dsc"] or 0.0 for row in rows}
        return {
            "key": case.key,
            "scanner": walk.scanner,
            "oars": rows,
            "verdicts": {organ["oar"]: organ["verdict"] for organ in report["organs"]},
            "pictures": [
                {"oar": one.title, "caption": one.caption, "address": one.address, "score": scores.get(one.title, 0.0)}
                for one in pictures
                if one.has_reference
            ],
        }


def made_with(site: Site) -> str:
    """A hash of the site's choices and Oarlock's version."""
    tolerances = sorted((oar.name, mm) for oar, mm in site.tolerances_mm.items())
    levels = sorted((oar.name, sorted(levels.items())) for oar, levels in site.action_levels.items())
    told = json.dumps([sorted(site.names.items()), tolerances, levels, __version__])
    return sha256(told.encode()).hexdigest()[:12]


def _kept(folder: Path) -> list[dict[str, Any]] | None:
    """The cases of an earlier run; None where they were made in more than one way, as their names tell."""
    paths = sorted(folder.glob("*.json"))
    if len({path.stem.partition("-")[2] for path in paths}) > 1:
        return None
    return [json.loads(path.read_bytes()) for path in paths]


def _write(
    chosen: argparse.Namespace,
    done: Sequence[Mapping[str, Any]],
    failed: Sequence[str],
    earlier: Sequence[Mapping[str, Any]],
    model: Model,
) -> None:
    """The summary as JSON, CSV, tables for the site's file, and a report; the table goes to the terminal."""
    from oarlock.reporting.commissioning import to_html
    from oarlock.reporting.pdf import to_pdf

    organs, identity = summarise_cases(done, earlier), model.manifest.identity
    summary = {
        "model": identity,
        "drawn_by": asdict(model.facts),
        "sha256": model.facts.sha256,
        "patients": len(done),
        "approved": sum(case["approved"] for case in done),
        "failed": len(failed),
        "organs": organs,
    }
    (chosen.out / "commissioning.json").write_text(json.dumps(summary, indent=2), encoding="utf-8")
    columns = ["oar", "n", "missed", "red", *(f"{name}_{part}" for name in METRICS for part in _PARTS)]
    (chosen.out / "commissioning.csv").write_text(to_csv(columns, map(_flat, organs)), encoding="utf-8")
    (chosen.out / "action_levels.toml").write_text(to_site_tables(organs, f"{len(done)} patients, {identity}"), encoding="utf-8")
    html = to_html(summary, [one for case in done for one in case["pictures"]], failed)
    (chosen.out / "report.html").write_text(html, encoding="utf-8")
    if chosen.pdf:
        (chosen.out / "report.pdf").write_bytes(to_pdf(html))
    if chosen.baseline and done:
        scores = {organ["oar"]: organ["surface_dsc_scores"] for organ in organs}
        by_scanner = {organ["oar"]: organ["surface_dsc_by_scanner"] for organ in organs}
        baseline = Baseline(model.facts, len(done), scores, of_scanners=by_scanner)
        with administration.opened_database() as database:
            ScoreStore(database).keep_baseline(baseline, by=administration.administrator())
    print(f"{summary['approved']} of {len(done)} references are APPROVED")
    _print_table(organs)
    print("", *sorted(path for path in chosen.out.iterdir() if path.is_file()), sep="\n")


_PARTS = ("n", "mean", "sd", "lowest", "highest", "mean_low", "mean_high", "limit")


def _flat(organ: Mapping[str, Any]) -> dict[str, Any]:
    numbers = {f"{name}_{part}": (organ[name] or {}).get(part) for name in METRICS for part in _PARTS}
    return {name: organ[name] for name in ("oar", "n", "missed", "red")} | numbers


def _print_table(organs: Sequence[Mapping[str, Any]]) -> None:
    print(f"{'organ':<18}{'n':>4}{'missed':>8}{'surface DSC':>13}{'SD':>7}{'lowest':>8}{'limit':>7}{'HD95, mm':>10}{'limit':>7}")
    for organ in organs:
        score, far = organ["surface_dsc"] or {}, organ["hausdorff_95_mm"] or {}
        cells = (
            *((score.get(part), width, 3) for part, width in (("mean", 13), ("sd", 7), ("lowest", 8), ("limit", 7))),
            *((far.get(part), width, 1) for part, width in (("mean", 10), ("limit", 7))),
        )
        shown = "".join(f"{'–' if value is None else format(value, f'.{digits}f'):>{width}}" for value, width, digits in cells)
        print(f"{organ['oar']:<18}{scored(organ):>4}{organ['missed']:>8}{shown}")


def _show(place: str) -> None:
    """Which patient is drawn: a line that is written over on a terminal, a line each elsewhere."""
    print(f"\rpatient {place}", end="" if sys.stderr.isatty() else "\n", file=sys.stderr, flush=True)

"""``oarlock contour``: the whole walk of one series from a folder to a folder, without a queue, a service or a job table.

The core knows no ONNX Runtime, so it does not know this command: the distribution names it to the core as an entry point
(``oarlock.commands`` in ``pyproject.toml``), and the walk is loaded when it is asked for.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

from oarlock.ct.series import SeriesHeader, check_headers
from oarlock.errors import UnknownModel
from oarlock.facts import ModelFacts
from oarlock.rtstruct.profiles import profile_named, read_profiles
from oarlock.segmentation.manifest import ModelManifest, read_manifests
from oarlock.settings import Settings
from oarlock.store.files import PREVIEW, QA_REPORT, RTSTRUCT
from oarlock.store.jobs import Job, JobId, JobState, Priority, Stage

DELIVERED: Final = (RTSTRUCT, QA_REPORT, PREVIEW)


def add_to(commands: Any) -> None:
    """Add the command to the subparsers of ``oarlock``."""
    parser = commands.add_parser("contour", help="contour a CT series: an RTSTRUCT, a QA report and a picture")
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder of the CT series, and of RTSTRUCTs to compare with")
    parser.add_argument("--out", type=Path, default=Path(), metavar="DIR", help="where to; made if it is missing")
    parser.add_argument("--profile", help="site profile by which the RTSTRUCT is written (docs/profiles.md)")
    parser.add_argument("--model", help="name of the model")
    parser.set_defaults(run=run)


def run(chosen: argparse.Namespace) -> int:
    """Contour the series and give the exit status; every other choice comes from the settings (docs/operations.md).

    :raises OarlockError: whatever a step may raise.
    """
    from worker.inference import Models
    from worker.jobs import Walk

    settings = Settings()
    profile = profile_named(read_profiles(settings.profiles), chosen.profile or settings.profile)
    models = Models(read_manifests(settings.models), device=settings.device, threads=settings.threads)
    files = sorted(path for path in chosen.folder.rglob("*") if path.is_file())
    header = check_headers(files, max_slices=settings.max_slices)
    job = _job(header, _facts(models.manifests, chosen.model or settings.model))
    chosen.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=chosen.out, prefix=".oarlock-") as folder:
        walk = Walk(files, Path(folder), job, _Bar(), settings.max_slices, settings.site, profile)
        walk.run(models)
        for name in DELIVERED:
            (Path(folder) / name).replace(chosen.out / name)
    for warning in (*header.warnings, *walk.warnings):
        print(f"warning: {warning.detail} ({warning.code})", file=sys.stderr)
    print(*(chosen.out / name for name in DELIVERED), sep="\n")
    return os.EX_OK


def _facts(manifests: Mapping[str, ModelManifest], name: str) -> ModelFacts:
    manifest = manifests.get(name)
    if manifest is None:
        raise UnknownModel(available=list(manifests))
    return ModelFacts(manifest.name, manifest.version, manifest.sha256)


def _job(header: SeriesHeader, model: ModelFacts) -> Job:
    """A job of this moment that no table knows."""
    now = datetime.now(UTC)
    return Job(
        id=JobId(str(uuid4())),
        state=JobState.RUNNING,
        stage=Stage.READING,
        progress=0.0,
        priority=Priority.NORMAL,
        attempts=1,
        series=header.facts(),
        model=model,
        profile=None,
        created_at=now,
        started_at=now,
        finished_at=None,
        purged_at=None,
        input_purged_at=None,
        cancel_requested=False,
        warnings=header.warnings,
        error=None,
    )


class _Bar:
    """Says what is being done, on a terminal alone."""

    def __call__(self, stage: Stage, share: float) -> None:
        if sys.stderr.isatty():
            print(f"\r{stage.value:<11}{share:5.0%}", end="", file=sys.stderr, flush=True)

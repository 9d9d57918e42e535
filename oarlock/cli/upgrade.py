"""oarlock upgrade --backup FILE; oarlock roll-back SCHEMA --backup FILE.

From one version of Oarlock to another and back. Both write a backup first, and refuse while workers run.
"""

import argparse
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

from oarlock.cli.administration import administrator
from oarlock.cli.exit_status import GOOD
from oarlock.facts import ModelFacts
from oarlock.segmentation.model_folder import ModelFolder
from oarlock.settings import read_settings
from oarlock.store import migrations
from oarlock.store.backup import write_backup
from oarlock.store.database import Database
from oarlock.store.job_store import JobStore


def add_commands(commands: Any) -> None:
    """Add these subcommands to those of ``oarlock``."""
    upgrade = commands.add_parser("upgrade", help="bring the database to the schema of this version; service and workers stopped")
    back = commands.add_parser("roll-back", help="bring it to an older version's, with every job; service and workers stopped")
    back.add_argument("schema", metavar="SCHEMA", help="the older version's, as 'oarlock upgrade' printed it: 0007")
    back.add_argument("--models", type=Path, metavar="DIR", help="the older version's models: what waits is given to them")
    for command, run in ((upgrade, _upgrade), (back, _roll_back)):
        command.add_argument("--backup", type=Path, metavar="FILE", help="where database and files are backed up to first")
        command.set_defaults(run=run)


def _upgrade(chosen: argparse.Namespace) -> int:
    settings = read_settings()
    found = _prepare(chosen.backup)
    with closing(Database(settings.database)) as database:
        _give(database, settings.models)
    _tell(found, migrations.NEWEST, f"To go back: oarlock roll-back {found}")
    return GOOD


def _roll_back(chosen: argparse.Namespace) -> int:
    found = _prepare(chosen.backup)
    with closing(Database(read_settings().database, create=False)) as database:
        if chosen.models is not None:
            _give(database, chosen.models)
        database.roll_back(chosen.schema)
    _tell(found, chosen.schema, "Start the older version now; to go forward again: oarlock upgrade")
    return GOOD


def _give(database: Database, models: Path) -> None:
    """Give the jobs that wait to the models of the version that is to draw them."""
    installed = ModelFolder(models, "").read()
    facts = {name: ModelFacts(name, found.version, found.sha256) for name, found in installed.offered.items()}
    if given := JobStore(database).give_to(facts, but=installed.retired, by=administrator()):
        print(f"{given} job(s) that waited for another version of their model are given to that of {models}.", file=sys.stderr)


def _prepare(backup: Path | None) -> str:
    """See that nobody works on the database, and back it up; gives its schema.

    :raises WorkersLive: if workers do.
    """
    settings = read_settings()
    with closing(Database(settings.database, create=False, any_schema=True)) as database:
        schema = database.stopped_schema()
        if backup is not None:
            write_backup(database, settings.data, backup)
    return schema


def _tell(found: str, now: str, then: str) -> None:
    changed = f"The database had schema {found} and has {now} now. {then}" if found != now else f"The database has schema {now}."
    print(changed, file=sys.stderr)

"""oarlock upgrade --backup FILE; oarlock roll-back SCHEMA --backup FILE.

From one version of Oarlock to another and back. Both write a backup first, and refuse while workers run.
"""

import argparse
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

from oarlock.cli.exit_status import GOOD
from oarlock.settings import read_settings
from oarlock.store import migrations
from oarlock.store.backup import write_backup
from oarlock.store.database import Database


def add_commands(commands: Any) -> None:
    """Add these subcommands to those of ``oarlock``."""
    upgrade = commands.add_parser("upgrade", help="bring the database to the schema of this version; service and workers stopped")
    back = commands.add_parser("roll-back", help="bring it to an older version's, with every job; service and workers stopped")
    back.add_argument("schema", metavar="SCHEMA", help="the older version's, as 'oarlock upgrade' printed it: 0007")
    for command, run in ((upgrade, _upgrade), (back, _roll_back)):
        command.add_argument("--backup", type=Path, metavar="FILE", help="where database and files are backed up to first")
        command.set_defaults(run=run)


def _upgrade(chosen: argparse.Namespace) -> int:
    settings = read_settings()
    found = _prepare(chosen.backup)
    Database(settings.database).close()
    _tell(found, migrations.NEWEST, f"To go back: oarlock roll-back {found}")
    return GOOD


def _roll_back(chosen: argparse.Namespace) -> int:
    found = _prepare(chosen.backup)
    with closing(Database(read_settings().database, create=False, any_schema=True)) as database:
        database.roll_back(chosen.schema)
    _tell(found, chosen.schema, "Start the older version now; to go forward again: oarlock upgrade")
    return GOOD


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

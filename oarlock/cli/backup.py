"""oarlock backup FILE; oarlock restore FILE: everything that lasts.

Of the service that the settings name.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from oarlock.cli.exit_status import GOOD
from oarlock.settings import read_settings
from oarlock.store.backup import restore_backup, rows_of, write_backup
from oarlock.store.database import Database


def add_commands(commands: Any) -> None:
    """Add these subcommands to those of ``oarlock``."""
    backup = commands.add_parser("backup", help="write database and files into one archive; the service may run meanwhile")
    backup.add_argument("file", type=Path, metavar="FILE", help="the archive, which holds patients; must not exist")
    backup.set_defaults(run=_backup)
    restore = commands.add_parser("restore", help="make a database and a data folder from such an archive")
    restore.add_argument("file", type=Path, metavar="FILE", help="the archive; database and data folder must be empty")
    restore.set_defaults(run=_restore)


def _backup(chosen: argparse.Namespace) -> int:
    settings = read_settings()
    database = Database(settings.database, create=False, any_schema=True)
    try:
        counts = write_backup(database, settings.data, chosen.file)
    finally:
        database.close()
    print("\n".join(rows_of(counts)), file=sys.stderr)
    return GOOD


def _restore(chosen: argparse.Namespace) -> int:
    settings = read_settings()
    counts = restore_backup(chosen.file, settings.database, settings.data)
    print("\n".join(rows_of(counts)), file=sys.stderr)
    return GOOD

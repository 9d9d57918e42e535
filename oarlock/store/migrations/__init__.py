"""Migrations: the way from any earlier schema of the database to the one that this version knows (ADR 0010).

Each step is a file in ``versions``; Alembic keeps in the table ``alembic_version`` which was the last one taken. A step that was
released is never changed: what is new is a new step. Steps add; what an older process still reads stays until the release after.
"""

import logging
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, text

log = logging.getLogger(__name__)

FIRST: Final = "0001"
HEAD: Final = "head"
_POSTGRESQL_LOCK: Final = 7226519
_ALEMBIC: Final = Lock()  # Alembic keeps the environment that it runs in in a global


class DatabaseNewer(RuntimeError):
    """The database was changed by a newer Oarlock; this one could misread it."""

    def __init__(self, version: str) -> None:
        super().__init__(f"the database has schema {version}, which this version does not know; start the version that wrote it")


def upgrade(connection: Connection, to: str = HEAD) -> None:
    """Take the steps that a database lacks: all of them, or none if one fails.

    The connection's transaction must hold the write lock of a SQLite file already; on PostgreSQL a lock is taken here. So of
    several processes that start at once one takes the steps, and the others wait and find nothing to do.

    :param to: the last step to take; tests stop in between.
    :raises DatabaseNewer: if this version does not know the last step taken.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text(f"SELECT pg_advisory_xact_lock({_POSTGRESQL_LOCK})"))
    version = version_of(connection)
    if version == _steps().get_current_head():
        return
    if version is not None and version not in _known():
        raise DatabaseNewer(version)
    with _ALEMBIC:
        if version is None:
            _adopt(connection)
        command.upgrade(_config(connection), to)
    log.info("schema brought up to date", extra={"found": version})


def is_ours(connection: Connection) -> bool:
    """Whether a database has a schema of Oarlock, of whatever version."""
    return version_of(connection) is not None or inspect(connection).has_table("schema_version")


def version_of(connection: Connection) -> str | None:
    """The last step that was taken; None if there was none."""
    return MigrationContext.configure(connection).get_current_revision()


def _adopt(connection: Connection) -> None:
    """Versions before Alembic's kept a number in a table of their own; their schema is what the first step builds."""
    if inspect(connection).has_table("schema_version"):
        command.stamp(_config(connection), FIRST)
        connection.execute(text("DROP TABLE schema_version"))


def _config(connection: Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


@cache
def _steps() -> ScriptDirectory:
    return ScriptDirectory.from_config(_config())


@cache
def _known() -> frozenset[str]:
    return frozenset(step.revision for step in _steps().walk_revisions())

"""Migrations: the way from any earlier schema of the database to the one that this version knows (ADR 0010).

Each step is a file in ``versions``; Alembic keeps in the table ``alembic_version`` which was the last one taken. A step that was
released is never changed: what is new is a new step. Steps add; what an older process still reads stays until the release after.
"""

import logging
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, inspect, text

log = logging.getLogger(__name__)

HEAD: Final = "head"
NEWEST: Final = max(step.name for step in Path(__file__).with_name("versions").glob("v*.py"))[1:5]
"""The last step that this version knows. Whoever finds a database with it need not load Alembic."""

_POSTGRESQL_LOCK: Final = 7226519


class DatabaseNewer(RuntimeError):
    """A newer Oarlock has changed the database.

    This one could misread it.
    """

    def __init__(self, version: str) -> None:
        super().__init__(f"the database has schema {version}, which this version does not know; start the version that wrote it")


def upgrade(connection: Connection, to: str = HEAD) -> None:
    """Take the steps that a database lacks.

    All of them, or none if one fails.

    The connection's transaction must hold the write lock of a SQLite file already; on PostgreSQL a lock is taken here. So of
    several processes that start at once one takes the steps, and the others wait and find nothing to do.

    :param to: the last step to take; tests stop in between.
    :raises DatabaseNewer: if this version does not know the last step taken.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text(f"SELECT pg_advisory_xact_lock({_POSTGRESQL_LOCK})"))
    version = version_of(connection)
    if version == NEWEST:
        return
    from oarlock.store.migrations import steps  # Alembic takes a sixth of the time that a worker takes to start

    if version is not None and version not in steps.known():
        raise DatabaseNewer(version)
    steps.take(connection, to, adopt=version is None)
    log.info("schema brought up to date", extra={"found": version})


def is_ours(connection: Connection) -> bool:
    """Whether a database has a schema of Oarlock, of whatever version."""
    return version_of(connection) is not None or inspect(connection).has_table("schema_version")


def version_of(connection: Connection) -> str | None:
    """The last step that was taken; None if there was none."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return found

"""Migrations: the way from any earlier schema of the database to the one that this version knows (ADR 0010).

Each step is a file in ``versions``; Alembic keeps in the table ``alembic_version`` which was the last one taken. A step that was
released is never changed: what is new is a new step. Steps add; what an older process still reads stays until the release after.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from sqlalchemy import ColumnElement, Connection, Text, column, exists, inspect, select, table, text

from oarlock.store.migrations.refused import RollBackRefused
from oarlock.store.schema import WORKERS, lately

log = logging.getLogger(__name__)

HEAD: Final = "head"
NEWEST: Final = max(step.name for step in Path(__file__).with_name("versions").glob("v*.py"))[1:5]
"""The last step that this version knows. Whoever finds a database with it need not load Alembic."""

OLDEST: Final = "0007"
"""The step that the ways back end at: the schema of version 7008e73."""

_POSTGRESQL_LOCK: Final = 7226519


LIVES_S: Final = 30
"""How long ago a worker may have given its last sign of life, to count as one that works."""


class DatabaseNewer(RuntimeError):
    """A newer Oarlock has changed the database.

    This one could misread it.
    """

    def __init__(self, version: str) -> None:
        super().__init__(f"the database has schema {version}, which this version does not know; start the version that wrote it")


class DatabaseOlder(RuntimeError):
    """The database still has the schema of an older Oarlock.

    Whoever may change it, the service or ``oarlock upgrade``, did not yet.
    """

    def __init__(self, version: str | None) -> None:
        found = f"schema {version}" if version else "no schema yet"
        super().__init__(f"the database has {found}, and this version needs {NEWEST}; the service brings it there when it starts")


class WorkersLive(RuntimeError):
    """Workers of another version work on the database."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(
            f"the schema is not changed while workers run that do not know it: {', '.join(names)}. "
            f"Stop them and try again; one that was killed counts for {LIVES_S} s more"
        )


def upgrade(connection: Connection, to: str = HEAD) -> None:
    """Take the steps that a database lacks.

    All of them, or none if one fails.

    The connection's transaction must hold the write lock of a SQLite file already; on PostgreSQL a lock is taken here. So of
    several processes that start at once one takes the steps, and the others wait and find nothing to do.

    :param to: the last step to take; tests stop in between.
    :raises DatabaseNewer: if this version does not know the last step taken.
    :raises WorkersLive: if workers of the version before are at work.
    """
    _lock(connection)
    version = version_of(connection)
    if version == NEWEST:
        return
    from oarlock.store.migrations import steps  # Alembic takes a sixth of the time that a worker takes to start

    if version is not None and version not in steps.known():
        raise DatabaseNewer(version)
    check_workers(connection)
    steps.take(connection, to, adopt=version is None)
    log.info("schema brought up to date", extra={"found": version})


def downgrade(connection: Connection, to: str) -> None:
    """Take steps back, for an older version of Oarlock; all of them, or none if one fails.

    What that version does not know is dropped: everything that it knows stays, jobs above all.

    :param to: the last step that stays.
    :raises DatabaseNewer: if this version does not know the last step taken.
    :raises WorkersLive: if workers are at work.
    :raises RollBackRefused: if the older version would misread what there is, or there is no such way back.
    """
    from oarlock.store.migrations import steps

    _lock(connection)
    version = version_of(connection)
    if version is None or version not in steps.known():
        raise DatabaseNewer(str(version))
    if to not in steps.known() or not OLDEST <= to <= version:
        raise RollBackRefused(to, f"it has schema {version}, and the ways back lead to {OLDEST} and later")
    check_workers(connection)
    steps.take_back(connection, to)
    log.info("schema brought back", extra={"found": version, "to": to})


def _lock(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(text(f"SELECT pg_advisory_xact_lock({_POSTGRESQL_LOCK})"))


def check_workers(connection: Connection) -> None:
    """See that no worker lives: each reads and writes by the schema that it started with.

    :raises WorkersLive: if one does.
    """
    if not inspect(connection).has_table("workers"):
        return
    live = select(WORKERS.c.name).where(lately(LIVES_S)).order_by(WORKERS.c.name)
    if names := connection.scalars(live).all():
        raise WorkersLive(names)


def check(connection: Connection) -> None:
    """Check that a database has the schema of this version.

    :raises DatabaseNewer: if a newer Oarlock has changed it.
    :raises DatabaseOlder: if it was not brought to it yet.
    """
    if (version := version_of(connection)) == NEWEST:
        return
    if version is not None and version > NEWEST:
        raise DatabaseNewer(version)
    raise DatabaseOlder(version)


def is_current() -> ColumnElement[bool]:
    """Whether a database has the schema of this version, to be asked within another statement."""
    version = column("version_num", Text)
    return exists(select(version).select_from(table("alembic_version", version)).where(version == NEWEST))


def is_ours(connection: Connection) -> bool:
    """Whether a database has a schema of Oarlock, of whatever version."""
    return version_of(connection) is not None or inspect(connection).has_table("schema_version")


def version_of(connection: Connection) -> str | None:
    """The last step that was taken; None if there was none."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return found

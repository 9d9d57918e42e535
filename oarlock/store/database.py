"""Database: one SQLite file or PostgreSQL database for several processes.

With the schema that this version knows.

SQLite runs with a write-ahead log. A transaction that will write says so when it begins; one that only reads never waits.
"""

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.engine import URL
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as NoConnectionFree

from oarlock.errors import DatabaseUnavailable
from oarlock.store import migrations

BUSY_S: Final = 15.0
"""How long a process waits for a SQLite file that another one holds."""


def utc_now() -> datetime:
    """The present, aware, in UTC."""
    return datetime.now(UTC)


class DatabaseMissing(RuntimeError):
    """There is no database of Oarlock where the settings look for it."""

    def __init__(self, where: str) -> None:
        super().__init__(
            f"there is no database of Oarlock at {where}. Set OARLOCK_DATA or DATABASE_URL as the service has it; "
            "the service makes a database at its first start, and so does 'oarlock keys create --first'"
        )


class Database:
    """A database at the schema of this version.

    Several processes may open it, and bring it there, at once.

    :param url: SQLAlchemy URL of a SQLite file or a PostgreSQL database.
    :param create: whether to make the file and the tables where there are none, and to bring older ones to this schema.
    :param schema: the last step of the schema to take (:mod:`oarlock.store.migrations`).
    :param connections: most connections at once. A worker has one: PostgreSQL has a hundred for all, unless it is told otherwise.
    :param any_schema: whether one that is not to be changed may have another schema.
    :raises DatabaseMissing: if there are none, and none are to be made.
    :raises DatabaseUnavailable: if it does not answer.
    :raises DatabaseNewer: if a newer Oarlock has changed its schema.
    :raises DatabaseOlder: if it is not to be changed and has an older schema.
    :raises WorkersLive: if it is to be changed while workers of an older version run.
    """

    def __init__(
        self,
        url: str,
        *,
        create: bool = True,
        schema: str = migrations.HEAD,
        any_schema: bool = False,
        connections: int | None = None,
    ) -> None:
        where = make_url(url)
        if not create:
            _check_file(where)
        pool = {} if connections is None else {"pool_size": connections, "max_overflow": 0}
        self._engine = _engine(where, **pool)
        self._together = threading.local()
        try:
            with self.writing() if create else self.reading() as connection:
                if create:
                    migrations.upgrade(connection, schema)
                else:
                    _check_ours(connection, where)
                    if not any_schema:
                        migrations.check(connection)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    def check(self) -> None:
        """Check that the database answers and has this version's schema.

        :raises DatabaseUnavailable: if there is no answer.
        :raises DatabaseNewer: if a newer Oarlock has changed its schema.
        :raises DatabaseOlder: if it was brought back to an older one.
        """
        with self.reading() as connection:
            migrations.check(connection)

    def stopped_schema(self) -> str:
        """The schema's last step that was taken, while no worker runs.

        :raises WorkersLive: if one does.
        """
        with self.reading() as connection:
            migrations.check_workers(connection)
            return migrations.version_of(connection) or "from before 0001"

    def roll_back(self, schema: str) -> None:
        """Take back the steps behind one, for an older version.

        :raises WorkersLive: if workers run.
        :raises RollBackRefused: if that version would misread what there is.
        """
        with self.writing() as connection:
            migrations.downgrade(connection, schema)

    def checkpoint(self) -> bool:
        """Remove deleted rows from the files now.

        SQLite's write-ahead log keeps old rows until it is emptied.

        PostgreSQL does it in its own time (VACUUM, recycling of its log).

        :returns: whether it was done; it is not while a reader holds on for long.
        """
        if self._engine.dialect.name != "sqlite":
            return True
        with _translated(), closing(self._engine.raw_connection()) as connection:
            busy, *_ = connection.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        return not busy

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that may write.

        It is committed at the end of the block, and rolled back if the block raises.

        :raises DatabaseUnavailable: if the database does not answer.
        """
        with _translated(), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def noting(self) -> Iterator[Connection]:
        """A transaction that a loss of power may undo.

        As :meth:`writing` has it otherwise; for signs of life, which soon come again.

        SQLite lets one write at a time, and need not wait for the disk here. PostgreSQL waits for many at once.

        :raises DatabaseUnavailable: if the database does not answer.
        """
        with _translated(), self._engine.connect().execution_options(oarlock_notes=True) as connection, connection.begin():
            yield connection

    @contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """A transaction that only reads, of one moment.

        It sees nothing of what others write meanwhile.

        :raises DatabaseUnavailable: if the database does not answer.
        """
        isolation = {} if self._engine.dialect.name == "sqlite" else {"isolation_level": "REPEATABLE READ"}
        with self._reading(**isolation) as connection:
            yield connection

    @contextmanager
    def together(self) -> Iterator[None]:
        """All that this thread reads in the block is of one moment.

        It is one transaction: each of its own costs four more ways to the server and back. Nothing is written in the block: reads
        in it would not see that, and it needs a second connection.

        :raises DatabaseUnavailable: if the database does not answer.
        """
        outer = getattr(self._together, "connection", None)
        with self.snapshot() as connection:
            self._together.connection = connection
            try:
                yield
            finally:
                self._together.connection = outer

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A transaction that only reads.

        :raises DatabaseUnavailable: if the database does not answer.
        """
        with self._reading() as connection:
            yield connection

    @contextmanager
    def _reading(self, **options: Any) -> Iterator[Connection]:
        shared: Connection | None = getattr(self._together, "connection", None)
        with _translated():
            if shared is not None:
                yield shared
                return
            with self._engine.connect().execution_options(oarlock_reads=True, **options) as connection:
                yield connection


def _check_file(url: URL) -> None:
    """See that a SQLite file is there: opening it would make it.

    :raises DatabaseMissing: if it is not.
    """
    if url.get_backend_name() == "sqlite" and not Path(url.database or "").is_file():
        raise DatabaseMissing(_name(url))


def _check_ours(connection: Connection, url: URL) -> None:
    """See that a database has a schema of Oarlock.

    :raises DatabaseMissing: if not.
    """
    if not migrations.is_ours(connection):
        raise DatabaseMissing(_name(url))


def _name(url: URL) -> str:
    """Where a database is, without a password."""
    return url.database or "" if url.get_backend_name() == "sqlite" else url.render_as_string(hide_password=True)


def _engine(url: URL, **pool: int) -> Engine:
    if url.get_backend_name() in {"postgresql", "postgres"}:
        psycopg = url.set(drivername="postgresql+psycopg")
        # A database that was made without an encoding (SQL_ASCII) would answer with bytes.
        return create_engine(psycopg, connect_args={"client_encoding": "utf8"}, pool_pre_ping=True, hide_parameters=True, **pool)
    engine = create_engine(url, hide_parameters=True, **pool)
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: Any, record: object) -> None:
    """Several processes share the file: readers do not wait for a writer, writers wait for each other."""
    del record
    connection.isolation_level = None  # the driver must not begin transactions by its own rules
    _set(connection, f"busy_timeout = {round(1000 * BUSY_S)}")
    _use_write_ahead_log(connection)
    _set(connection, "synchronous = FULL")
    _set(connection, "secure_delete = ON")


def _use_write_ahead_log(connection: Any) -> None:
    """The file keeps the mode. Of processes that change that of a new file at once, SQLite refuses some without a wait."""
    deadline_s = time.monotonic() + BUSY_S
    while True:
        try:
            return _set(connection, "journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline_s:
                raise
        time.sleep(0.01)


def _set(connection: Any, pragma: str) -> None:
    connection.execute(f"PRAGMA {pragma}").close()


def _begin_sqlite(connection: Connection) -> None:
    """A transaction that will write takes the write lock at once: upgrading a read lock can fail where waiting cannot."""
    options = connection.get_execution_options()
    if options.get("oarlock_reads", False):
        connection.exec_driver_sql("BEGIN")
        return
    connection.exec_driver_sql(f"PRAGMA synchronous = {'NORMAL' if options.get('oarlock_notes', False) else 'FULL'}")
    connection.exec_driver_sql("BEGIN IMMEDIATE")


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (OperationalError, InterfaceError, NoConnectionFree) as error:
        raise DatabaseUnavailable from error

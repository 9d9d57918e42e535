"""Databases as operators have them."""

import sqlite3
import threading
from contextlib import closing
from pathlib import Path

from sqlalchemy import text

from oarlock.store.database import Database
from tests.fixtures import postgresql

WORD = "Zürich, µ, 王"


def test_text_comes_back_from_a_postgresql_database_that_was_made_without_an_encoding(
    postgresql_server: postgresql.Server,
) -> None:
    with postgresql_server.database(encoding="SQL_ASCII") as url, closing(Database(url)) as database:
        with database.writing() as connection:
            connection.execute(text("CREATE TABLE words (word text)"))
            connection.execute(text("INSERT INTO words VALUES (:word)"), {"word": WORD})
        with database.reading() as connection:
            assert connection.scalar(text("SELECT word FROM words")) == WORD


def test_a_new_file_that_another_process_writes_to_just_now_is_waited_for(tmp_path: Path) -> None:
    """SQLite itself refuses at once to change the journal's mode under a writer, whatever the busy timeout."""
    path = tmp_path / "oarlock.sqlite"
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")
        other.execute("CREATE TABLE first (x)")
        ends = threading.Timer(0.5, other.execute, ["COMMIT"])
        ends.start()
        with closing(Database(f"sqlite:///{path}")) as database, database.reading() as connection:
            assert connection.scalar(text("PRAGMA journal_mode")) == "wal"
            assert connection.scalar(text("SELECT count(*) FROM first")) == 0
        ends.join()

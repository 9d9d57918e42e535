"""Databases as operators have them."""

import sqlite3
import threading
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
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


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_what_is_read_together_is_of_one_moment_also_behind_a_block_within_it(
    kind: str, tmp_path: Path, postgresql_server: postgresql.Server
) -> None:
    """Another writer adds a row while the block runs: it is seen behind the block and nowhere in it."""
    with ExitStack() as open_ones:
        url = f"sqlite:///{tmp_path}/a.sqlite" if kind == "sqlite" else open_ones.enter_context(postgresql_server.database())
        ours, theirs = (open_ones.enter_context(closing(Database(url))) for _ in range(2))

        def rows() -> int:
            with ours.reading() as connection:
                return int(connection.scalar(text("SELECT count(*) FROM words")))

        with theirs.writing() as connection:
            connection.execute(text("CREATE TABLE words (word text)"))
        with ours.together():
            counted = [rows()]
            with theirs.writing() as connection:
                connection.execute(text("INSERT INTO words VALUES (:word)"), {"word": WORD})
            with ours.together():
                counted.append(rows())
            counted.append(rows())
        assert [*counted, rows()] == [0, 0, 0, 1]

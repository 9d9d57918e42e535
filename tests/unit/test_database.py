"""Databases as operators have them."""

from contextlib import closing

from sqlalchemy import text

from oarlock.database import Database
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

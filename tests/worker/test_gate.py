"""The gate: a worker of another schema takes no job, and says why."""

import pytest
from sqlalchemy import text

from oarlock.store import migrations
from oarlock.store.database import Database
from worker.gate import SchemaWatch


def set_schema(database: Database, version: str) -> None:
    with database.writing() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = :version"), {"version": version})


def test_another_schema_is_a_problem_for_as_long_as_it_is_there(database: Database, migrated_url: str) -> None:
    watch = SchemaWatch(migrated_url)
    for version, said in (("9999", "which this version does not know"), ("0016", f"this version needs {migrations.NEWEST}")):
        set_schema(database, version)
        watch.look()
        assert said in (watch.problem or "")
    set_schema(database, migrations.NEWEST)
    watch.look()
    assert watch.problem is None


@pytest.mark.parametrize("database_kind", ["sqlite"])
def test_a_database_that_is_not_there_yet_is_a_problem(database_url: str) -> None:
    watch = SchemaWatch(database_url)
    watch.look()
    assert "there is no database of Oarlock" in (watch.problem or "")


def test_a_database_that_is_away_changes_nothing() -> None:
    watch = SchemaWatch("postgresql://127.0.0.1:1/none")
    watch.problem = "as before"
    watch.look()
    assert watch.problem == "as before"

"""Rolling back: an older version finds the schema that it knows, with every job, or is told why it cannot be had."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import Engine, MetaData, create_engine, insert, inspect, make_url, select, text

from oarlock.scopes import Scope
from oarlock.store import audit, migrations
from oarlock.store.database import Database
from oarlock.store.job_store import JobStore
from oarlock.store.jobs import JobId, JobState
from oarlock.store.keys import KeyStore
from oarlock.store.migrations import DatabaseNewer, DatabaseOlder, WorkersLive
from oarlock.store.migrations.refused import RollBackRefused
from oarlock.store.schema import JOBS, WORKERS, DatabaseNow
from oarlock.store.scores.write import Scored
from tests.fixtures.scores import compared, score
from tests.store.test_job_store import claim, create
from tests.store.test_migrations import open_old


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    engine = create_engine(make_url(database_url.replace("postgresql:", "postgresql+psycopg:")))
    yield engine
    engine.dispose()


def shape(engine: Engine) -> dict[str, tuple[set[tuple[str, bool]], set[tuple[str, ...]]]]:
    """Of each table its columns and whether each may be NULL, and the columns of its indexes and unique constraints."""
    found, seen = {}, inspect(engine)
    for table in seen.get_table_names():
        columns = {(column["name"], bool(column["nullable"])) for column in seen.get_columns(table)}
        unique = {tuple(one["column_names"]) for one in seen.get_unique_constraints(table)}
        indexes = {tuple(str(name) for name in one["column_names"]) for one in seen.get_indexes(table)}
        found[table] = (columns, indexes | unique)
    return found


def content(engine: Engine) -> dict[str, list[tuple[object, ...]]]:
    """Every row of every table, sorted."""
    tables = MetaData()
    tables.reflect(engine)
    with engine.connect() as connection:
        return {
            table.name: sorted((tuple(row) for row in connection.execute(select(table))), key=repr)
            for table in tables.sorted_tables
        }


def test_there_and_back_a_database_of_7008e73_is_what_it_was_row_by_row(
    database_url: str, engine: Engine, tmp_path: Path
) -> None:
    open_old(engine, tmp_path)
    before = shape(engine), content(engine)
    with closing(Database(database_url)) as database:
        database.roll_back("0007")
    assert (shape(engine), content(engine)) == before


def test_what_came_after_an_upgrade_stays_for_the_older_version(database_url: str, engine: Engine, tmp_path: Path) -> None:
    """A job that waits, one that was drawn and scored since, their chain of entries, and one sum of both in the counts."""
    open_old(engine, tmp_path)
    with engine.connect() as connection:
        counted = "SELECT sum(cases) FROM qa_histogram WHERE oar = 'Parotid_L'"
        before = connection.scalar(text(counted)) or 0
    with closing(Database(database_url)) as database:
        store = JobStore(database)
        create(store, "new")
        create(store, "drawn")
        found = [("organ.volume", "Brain", "red"), ("organ.volume", "Brain", "red")]
        store.leases.succeed(claim(store, "drawn"), scored=Scored("CT1", [compared(score("Parotid_L", 0.9))], checks=found))
        database.roll_back("0020")
        with database.reading() as connection:
            left = "SELECT sum(findings) FROM qa_findings WHERE oar = 'Brain'"
            assert connection.scalar(text(left)) == len(found)  # they waited to be counted
        database.roll_back("0007")
    with engine.connect() as connection:
        states = {row.id: row.state for row in connection.execute(text("SELECT id, state FROM jobs"))}
        assert (states["new"], states["drawn"], states["waits"]) == ("queued", "succeeded", "queued")
        assert connection.scalar(text(counted)) == before + 1
    with closing(Database(database_url)) as database:
        assert audit.verify(audit.read_entries(database), [audit.read_head(database)]).findings == ()
        assert JobStore(database).get(JobId("new")).state is JobState.QUEUED


def test_scores_packed_since_say_to_the_older_version_only_whether_both_sides_drew(
    database_url: str, engine: Engine, tmp_path: Path
) -> None:
    """It took the second byte of a record for a truth value: 2, one side alone, would be both sides."""
    open_old(engine, tmp_path)
    with closing(Database(database_url)) as database:
        with database.writing() as connection:
            connection.execute(
                text("UPDATE qa_days SET scores = :scores"), {"scores": b"".join(bytes([7, who]) + 16 * b"x" for who in range(4))}
            )
        database.roll_back("0016")
    with engine.connect() as connection:
        (scores,) = set(connection.scalars(text("SELECT scores FROM qa_days")))
    assert list(bytes(scores)[1::18]) == [0, 1, 0, 0]


def test_a_version_that_knows_no_sites_does_not_get_the_jobs_of_one(database: Database) -> None:
    create(JobStore(database), "theirs", site="north")
    with pytest.raises(RollBackRefused, match="the site north has keys, jobs or scores"):
        database.roll_back("0009")
    database.check()  # all steps or none


def test_a_key_of_a_site_stands_in_the_way_until_it_is_revoked(database: Database) -> None:
    KeyStore(database).create("planning", [Scope.JOBS_READ], site="north")
    with pytest.raises(RollBackRefused):
        database.roll_back("0009")
    KeyStore(database).revoke("planning")
    database.roll_back("0009")


@pytest.mark.parametrize("schema", ["0006", "9999", "head", ""])
def test_a_schema_that_no_way_leads_back_to_is_refused(database: Database, schema: str) -> None:
    with pytest.raises(RollBackRefused, match="lead to 0007 and later"):
        database.roll_back(schema)


def test_neither_way_is_gone_while_a_worker_lives(database_url: str, database: Database) -> None:
    JobStore(database).workers.heartbeat("gpu-1", {}, "cuda")
    with pytest.raises(WorkersLive, match="gpu-1"):
        database.roll_back("0016")
    JobStore(database).workers.sign_off("gpu-1")
    database.roll_back("0016")
    with database.writing() as connection:
        connection.execute(insert(WORKERS).values(name="gpu-1", models="{}", device="cuda", seen_at=DatabaseNow()))
    with pytest.raises(WorkersLive, match="gpu-1"), database.writing() as connection:
        migrations.upgrade(connection)


def test_a_worker_takes_no_job_of_another_schema(database: Database) -> None:
    """Even if the schema changes after it last looked: the claim itself asks."""
    store = JobStore(database)
    create(store, "waits")
    with database.writing() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(DatabaseNewer):
        claim(store, "waits")
    with database.writing() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0016'"))
    with pytest.raises(DatabaseOlder, match="0016"):
        claim(store, "waits")
    with database.reading() as connection:
        assert connection.scalar(select(JOBS.c.state)) == JobState.QUEUED

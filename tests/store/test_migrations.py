"""The database: old ones are brought to the schema of today, with every row, by whoever starts first."""

import multiprocessing
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, MetaData, create_engine, inspect, make_url, select, text

from oarlock.facts import Notice
from oarlock.store import audit, migrations
from oarlock.store.database import Database
from oarlock.store.job_store import JobStore
from oarlock.store.jobs import JobId, JobState, Priority, Stage
from oarlock.store.migrations import DatabaseNewer, steps
from oarlock.store.schema import METADATA, QA_SCORES
from oarlock.store.scores.filters import Filters
from oarlock.store.scores.read import ScoreStore
from oarlock.store.scores.write import Scored
from oarlock.store.stage_times import STAGE_BUCKETS_S
from tests.fixtures.scores import compared, score
from tests.store.forked import FORKED

ROOT = Path(__file__).parent.parent.parent

FIRST_SCHEMA = """
CREATE TABLE jobs (
    id TEXT NOT NULL, state TEXT NOT NULL, stage TEXT, stage_since BIGINT, progress FLOAT NOT NULL, priority INTEGER NOT NULL,
    attempts INTEGER NOT NULL, study_instance_uid TEXT NOT NULL, series_instance_uid TEXT NOT NULL,
    frame_of_reference_uid TEXT NOT NULL, slices INTEGER NOT NULL, spacing_z_mm FLOAT NOT NULL, spacing_y_mm FLOAT NOT NULL,
    spacing_x_mm FLOAT NOT NULL, model_name TEXT NOT NULL, model_version TEXT NOT NULL, model_sha256 TEXT NOT NULL, profile TEXT,
    idempotency_key TEXT, content_sha256 TEXT NOT NULL, intake_warnings TEXT NOT NULL, result_warnings TEXT NOT NULL,
    error_code TEXT, error_title TEXT, error_detail TEXT, cancel_requested BOOLEAN NOT NULL, worker TEXT,
    lease_token INTEGER NOT NULL, lease_until BIGINT, created_at BIGINT NOT NULL, queued_at BIGINT NOT NULL, sent_at BIGINT,
    started_at BIGINT, finished_at BIGINT, purged_at BIGINT, PRIMARY KEY (id), UNIQUE (idempotency_key)
);
CREATE INDEX jobs_by_age ON jobs (created_at, id);
CREATE INDEX jobs_by_series ON jobs (series_instance_uid, created_at, id);
CREATE INDEX jobs_by_state ON jobs (state, created_at, id);
CREATE TABLE schema_version (version INTEGER NOT NULL);
CREATE TABLE stage_durations (
    stage TEXT NOT NULL, bucket INTEGER NOT NULL, jobs BIGINT NOT NULL, total_s FLOAT NOT NULL, PRIMARY KEY (stage, bucket)
);
CREATE TABLE workers (
    name TEXT NOT NULL, models TEXT NOT NULL, device TEXT NOT NULL, seen_at BIGINT NOT NULL, PRIMARY KEY (name)
);
INSERT INTO schema_version VALUES (1);
"""
"""What Oarlock made before it had Alembic, statement by statement."""

CREATED = datetime(2026, 3, 5, 12, 0, 0, 123456, tzinfo=UTC)
MICROSECONDS = int(CREATED.timestamp() * 1_000_000)

FIRST_ROWS: dict[str, list[dict[str, Any]]] = {
    "jobs": [
        {
            "id": job_id,
            "state": state,
            "progress": progress,
            "priority": 0,
            "attempts": attempts,
            "study_instance_uid": "2.25.1",
            "series_instance_uid": "2.25.2",
            "frame_of_reference_uid": "2.25.3",
            "slices": 37,
            "spacing_z_mm": 2.5,
            "spacing_y_mm": 1.1,
            "spacing_x_mm": 0.9,
            "model_name": "oarlock-hn",
            "model_version": "0.1.0",
            "model_sha256": "ab" * 32,
            "idempotency_key": f"key of {job_id}",
            "content_sha256": "cd" * 32,
            "intake_warnings": '[{"code": "series.tilted", "detail": "The slices are tilted."}]',
            "result_warnings": "[]",
            "cancel_requested": False,
            "lease_token": attempts,
            "created_at": MICROSECONDS,
            "queued_at": MICROSECONDS,
        }
        for job_id, state, progress, attempts in (("waits", "queued", 0.0, 0), ("done", "succeeded", 1.0, 2))
    ],
    "workers": [{"name": "w", "models": "{}", "device": "cpu", "seen_at": MICROSECONDS}],
    "stage_durations": [
        {"stage": stage, "bucket": bucket, "jobs": 3 if bucket == 2 else 0, "total_s": 4.5 if bucket == 2 else 0.0}
        for stage in Stage
        for bucket in range(len(STAGE_BUCKETS_S))
    ],
}


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """The same database without the house's rules."""
    engine = create_engine(make_url(database_url.replace("postgresql:", "postgresql+psycopg:")))
    yield engine
    engine.dispose()


def write_first_schema(connection: Connection) -> None:
    for statement in FIRST_SCHEMA.split(";\n"):
        connection.execute(text(statement))
    reflected = MetaData()
    reflected.reflect(connection)
    for table, rows in FIRST_ROWS.items():
        connection.execute(reflected.tables[table].insert(), rows)


def test_the_steps_build_the_schema_that_the_code_knows(database: Database) -> None:
    with database.reading() as connection:
        assert compare_metadata(MigrationContext.configure(connection), METADATA) == []


def test_a_database_from_before_alembic_is_brought_here_with_every_row(database_url: str, engine: Engine) -> None:
    with engine.begin() as connection:
        write_first_schema(connection)
    database = Database(database_url)
    store = JobStore(database)
    waits, done = store.get(JobId("waits")), store.get(JobId("done"))
    assert (waits.state, waits.priority, waits.created_at) == (JobState.QUEUED, Priority.URGENT, CREATED)
    assert (done.state, done.attempts, done.series.spacing_mm) == (JobState.SUCCEEDED, 2, (2.5, 1.1, 0.9))
    assert done.warnings == (Notice("series.tilted", "The slices are tilted."),)
    assert [(entry.counts[2], entry.total_s) for entry in store.stage_times.all()] == [(3, 4.5)] * len(Stage)
    assert store.leases.claim(JobId("waits"), worker="w", lease_s=15) is not None
    with database.reading() as connection:
        assert not inspect(connection).has_table("schema_version")
    database.close()


@pytest.mark.slow
def test_every_step_keeps_the_rows_of_the_step_before(engine: Engine) -> None:
    known = sorted(steps.known())
    with engine.begin() as connection:
        write_first_schema(connection)
        for step in known:
            migrations.upgrade(connection, to=step)
            assert migrations.version_of(connection) == step
            assert {table: rows_of(connection, table) for table in FIRST_ROWS} == FIRST_ROWS


def rows_of(connection: Connection, table: str) -> list[dict[str, Any]]:
    """The rows of a table, with the columns and in the order of :data:`FIRST_ROWS`."""
    reflected = MetaData()
    reflected.reflect(connection, only=[table])
    columns = [reflected.tables[table].c[name] for name in FIRST_ROWS[table][0]]
    found = [dict(row) for row in connection.execute(select(*columns)).mappings()]
    return sorted(found, key=FIRST_ROWS[table].index)


def test_the_newest_step_is_the_head_that_alembic_finds() -> None:
    assert ScriptDirectory(str(Path(migrations.__file__).parent)).get_heads() == [migrations.NEWEST]


def test_a_database_of_a_newer_version_is_refused_and_left_as_it_is(database_url: str, engine: Engine) -> None:
    Database(database_url).close()
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(DatabaseNewer, match="9999"):
        Database(database_url)
    with engine.connect() as connection:
        assert migrations.version_of(connection) == "9999"


def _open(url: str, start: "multiprocessing.synchronize.Barrier") -> None:
    start.wait()
    Database(url).close()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["new", "from before Alembic"])
def test_of_processes_that_start_at_once_one_takes_the_steps_and_all_go_on(database_url: str, engine: Engine, kind: str) -> None:
    if kind != "new":
        with engine.begin() as connection:
            write_first_schema(connection)
    start = FORKED.Barrier(6)
    processes = [FORKED.Process(target=_open, args=(database_url, start)) for _ in range(6)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=60)
    assert [process.exitcode for process in processes] == [0] * 6
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM alembic_version")).scalar() == 1
        assert connection.execute(text("SELECT count(*) FROM stage_durations")).scalar() == len(Stage) * len(STAGE_BUCKETS_S)


def test_a_step_that_fails_leaves_nothing_behind(database_url: str, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped at the last moment, the schema is as before: the steps are one transaction, on SQLite too."""
    with engine.begin() as connection:
        write_first_schema(connection)

    def upgrade_and_fail(connection: Connection, to: str) -> None:
        take_all(connection, to)
        raise RuntimeError("power cut")

    take_all = migrations.upgrade
    monkeypatch.setattr(migrations, "upgrade", upgrade_and_fail)
    with pytest.raises(RuntimeError, match="power cut"):
        Database(database_url)
    with engine.connect() as connection:
        assert sorted(inspect(connection).get_table_names()) == sorted([*FIRST_ROWS, "schema_version"])


# ── from 7008e73, with its data ───────────────────────────────────────────────────────────────────────────────────────

OLD = Path(__file__).parent.parent / "fixtures" / "database_7008e73.sql"
"""Six jobs with scores, three approved RTSTRUCTs and a job that waits, written by 7008e73 itself into SQLite, and dumped."""


def open_old(engine: Engine, tmp_path: Path) -> None:
    """Make a database as 7008e73 left it; on PostgreSQL by the steps of that time and the same rows."""
    if engine.dialect.name == "sqlite":
        with closing(sqlite3.connect(engine.url.database or "")) as connection:
            connection.executescript(OLD.read_text())
        return
    with closing(sqlite3.connect(tmp_path / "old.sqlite")) as connection:
        connection.executescript(OLD.read_text())
    source, tables = create_engine(f"sqlite:///{tmp_path / 'old.sqlite'}"), MetaData()
    with source.connect() as old, engine.begin() as new:
        tables.reflect(old)
        migrations.upgrade(new, to="0007")
        for table in tables.sorted_tables:
            if table.name != "alembic_version":
                new.execute(table.delete() if table.name != "audit" else text("SELECT 1"))
                if rows := [dict(row) for row in old.execute(select(table)).mappings()]:
                    new.execute(table.insert(), rows)
        for table_name in ("qa_cases", "qa_streams"):
            new.execute(text(f"SELECT setval(pg_get_serial_sequence('{table_name}', 'id'), max(id)) FROM {table_name}"))
    source.dispose()


def by_the_rows(database: Database) -> dict[str, tuple[int, int, list[float]]]:
    """Of each organ how many cases both sides drew, how many one side alone, and the surface DSCs: from the rows, by name."""
    with database.reading() as connection:
        rows = connection.execute(select(QA_SCORES)).all()
    return {
        oar: (
            sum(row.presence == "both" for row in rows if row.oar == oar),
            sum(row.presence != "both" for row in rows if row.oar == oar),
            sorted(row.surface_dsc for row in rows if row.oar == oar and row.presence == "both" and row.surface_dsc is not None),
        )
        for oar in {row.oar for row in rows}
    }


def test_the_history_of_7008e73_says_what_it_said_of_every_organ(database_url: str, engine: Engine, tmp_path: Path) -> None:
    open_old(engine, tmp_path)
    with closing(Database(database_url)) as database:
        rows = by_the_rows(database)
        found = ScoreStore(database).summary(Filters(site=""), alert_level=0.5, part_of=None)
        assert len(rows) > 15
        assert {entry.oar for entry in found} == set(rows)
        for entry in found:
            n, one_sided, scores = rows[entry.oar]
            assert (entry.whole.n, entry.whole.one_sided) == (n, one_sided)
            if entry.whole.surface_dsc is None:
                assert scores == []
                continue
            assert entry.whole.surface_dsc.median == pytest.approx(median(scores))
            assert entry.whole.surface_dsc.below_alert == pytest.approx(sum(score < 0.5 for score in scores) / len(scores))


def test_the_history_of_7008e73_goes_on(database_url: str, engine: Engine, tmp_path: Path) -> None:
    """Its chain of entries holds, its waiting job runs, and new scores stand beside the old ones."""
    open_old(engine, tmp_path)
    with closing(Database(database_url)) as database:
        store, scores = JobStore(database), ScoreStore(database)
        before = {entry.oar: entry.whole.n for entry in scores.summary(Filters(site=""), alert_level=0.5, part_of=None)}
        lease = store.leases.claim(JobId("waits"), worker="w", lease_s=15)
        assert lease is not None
        store.leases.succeed(lease, scored=Scored("CT1", [compared(score("Parotid_L", 0.9))]))
        after = {entry.oar: entry.whole.n for entry in scores.summary(Filters(site=""), alert_level=0.5, part_of=None)}
        assert after == before | {"Parotid_L": before["Parotid_L"] + 1}
        assert audit.verify(audit.read_entries(database), [audit.read_head(database)]).findings == ()
        assert len(scores.charts(Filters(site=""), points=5)) > 0


@pytest.mark.slow
@pytest.mark.parametrize("face", ["service", pytest.param("worker", marks=pytest.mark.long("matrix"))])
def test_neither_face_starts_on_a_database_of_a_newer_version(tmp_path: Path, face: str) -> None:
    url = f"sqlite:///{tmp_path / 'oarlock.sqlite'}"
    Database(url).close()
    with closing(sqlite3.connect(tmp_path / "oarlock.sqlite")) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    environment = os.environ | {"DATABASE_URL": url, "OARLOCK_DATA": str(tmp_path), "OARLOCK_PORT": "0"}
    ended = subprocess.run(
        [sys.executable, "-m", face],
        check=False,
        cwd=ROOT,
        env=environment | {"REDIS_URL": "redis://127.0.0.1:1/0", "OARLOCK_EMBEDDED_WORKER": "false"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 1
    assert "9999" in ended.stderr


def test_every_step_from_0008_on_has_a_way_back() -> None:
    script = ScriptDirectory(str(Path(migrations.__file__).parent))
    ways = {step.revision: hasattr(step.module, "downgrade") for step in script.walk_revisions()}
    assert {step for step, found in ways.items() if not found} == {f"{number:04}" for number in range(1, 8)}

"""The audit log: nothing happens without its entry, and no entry changes unnoticed."""

import hashlib
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, create_engine, delete, event, insert, make_url, select, text, update
from sqlalchemy.exc import DatabaseError

from oarlock.cli.administration import to_head
from oarlock.cli.main import main
from oarlock.errors import IdempotencyConflict, InferenceFailed
from oarlock.facts import ModelFacts, SeriesFacts
from oarlock.scopes import Scope
from oarlock.store import audit
from oarlock.store.audit import BEGINNING, Action, Actor, Entry, Event, Head
from oarlock.store.database import Database
from oarlock.store.job_store import JobStore, NewJob
from oarlock.store.jobs import JobId
from oarlock.store.keys import KeyStore
from oarlock.store.schema import AUDIT, AUDIT_HEAD
from tests.fixtures.clock import Clock

NOW = datetime(2026, 3, 5, 12, 0, 0, 120000, tzinfo=UTC)
MARTA = Actor("key:0123456789ab", "planning", "198.51.100.7")
SERIES = SeriesFacts("2.25.1", "2.25.2", "2.25.3", 37, (2.5, 1.1, 0.9))
MODEL = ModelFacts("oarlock-hn", "1.0", "ab" * 32)
TOLD = f"oarlock-hn 1.0 {'ab' * 32}"


def entries(database: Database) -> list[Entry]:
    return list(audit.read_entries(database))


def findings(database: Database, *kept: Head) -> tuple[str, ...]:
    return audit.check(database, kept).findings


def post(store: JobStore, job_id: str, *, key: str | None = None, digest: str = "cd" * 32) -> JobId:
    new = NewJob(id=JobId(job_id), series=SERIES, model=MODEL, content_sha256=digest, idempotency_key=key)
    return store.create(new, by=MARTA).id


def test_the_life_of_every_job_and_key_is_written_down_in_its_order(database: Database) -> None:
    store, keys = JobStore(database), KeyStore(database)
    key, _ = keys.create("planning", [Scope.ADMIN], by=MARTA)
    first, second, third = (post(store, job_id) for job_id in ("first", "second", "third"))
    lease = store.leases.claim(first, worker="w", lease_s=15)
    assert lease
    store.leases.succeed(lease, result="rtstruct.dcm sha256:ef")
    store.purge(first, by=MARTA)
    store.purge(first, by=MARTA)
    lease = store.leases.claim(second, worker="w", lease_s=15)
    assert lease
    store.request_cancel(second, by=MARTA)
    store.leases.cancelled(lease)
    store.retry(second, by=MARTA)
    lease = store.leases.claim(second, worker="w", lease_s=15)
    assert lease
    store.leases.fail(lease, InferenceFailed(reason="of the test"))
    store.discard(third, by=MARTA)
    keys.revoke("planning", by=MARTA)
    keys.revoke("planning", by=MARTA)
    marta, w = MARTA.id, "worker:w"
    assert [(e.action, e.actor, e.job_id, e.model, e.result) for e in entries(database)] == [
        ("key.created", marta, None, None, f"key:{key.id}"),
        ("job.posted", marta, "first", TOLD, None),
        ("job.posted", marta, "second", TOLD, None),
        ("job.posted", marta, "third", TOLD, None),
        ("job.succeeded", w, "first", TOLD, "rtstruct.dcm sha256:ef"),
        ("job.purged", marta, "first", None, None),
        ("job.cancel_requested", marta, "second", None, None),
        ("job.cancelled", w, "second", TOLD, None),
        ("job.retried", marta, "second", None, None),
        ("job.failed", w, "second", TOLD, "model.inference_failed"),
        ("job.withdrawn", marta, "third", None, None),
        ("key.revoked", marta, None, None, f"key:{key.id}"),
    ]
    assert {(e.actor_name, e.address) for e in entries(database) if e.actor == marta} == {("planning", "198.51.100.7")}
    assert findings(database) == ()


def test_a_job_that_no_worker_brought_to_an_end_is_ended_by_the_system(database: Database) -> None:
    clock = Clock(NOW)
    store = JobStore(database, clock=clock)
    job, stopped = post(store, "killer"), post(store, "stopped")
    for _ in range(3):
        assert store.leases.claim(job, worker="w", lease_s=15)
        store.leases.take_back(store.leases.signs_of_life())
    assert store.leases.claim(job, worker="w", lease_s=15) is None
    assert store.leases.claim(stopped, worker="w", lease_s=15)
    store.request_cancel(stopped, by=MARTA)
    store.leases.take_back(store.leases.signs_of_life())
    told = [(e.action, e.actor, e.job_id, e.result) for e in entries(database)]
    assert ("job.failed", "system", "killer", "job.attempts_exhausted") in told
    assert ("job.cancelled", "system", "stopped", None) in told


def test_an_entry_has_the_hash_that_the_documentation_says(database: Database) -> None:
    east = timezone(timedelta(hours=2))
    audit.record(database, Event(Action.RESULT_READ, MARTA, "j", TOLD, "qa.json sha256:00"), clock=lambda: NOW)
    audit.record(database, Event(Action.KEY_REVOKED, Actor("cli:ö", "ö")), clock=lambda: NOW.astimezone(east))
    previous = "0" * 64
    at = "2026-03-05T12:00:00.120000Z"
    for entry, members in zip(
        entries(database),
        (
            [1, at, "key:0123456789ab", "planning", "198.51.100.7", "result.read", "j", TOLD, "qa.json sha256:00"],
            [2, at, "cli:ö", "ö", None, "key.revoked", None, None, None],
        ),
        strict=True,
    ):
        previous = hashlib.sha256(json.dumps([previous, *members], separators=(",", ":")).encode("ascii")).hexdigest()
        assert entry.hash == previous


# ── neither without the other ─────────────────────────────────────────────────────────────────────────────────────────


def test_what_did_not_happen_is_not_written_down(database: Database) -> None:
    store = JobStore(database)
    post(store, "a", key="k")
    with pytest.raises(IdempotencyConflict):
        post(store, "b", key="k", digest="00" * 32)
    post(store, "c", key="k")  # the same post again: no second job
    assert [(e.action, e.job_id) for e in entries(database)] == [("job.posted", "a")]


def test_what_cannot_be_written_down_does_not_happen(database: Database) -> None:
    store = JobStore(database)

    def refuse(_connection: Connection, _cursor: object, statement: str, *_: object) -> None:
        if statement.startswith("INSERT INTO audit"):
            raise DatabaseError(statement, None, Exception("the log is full"))

    event.listen(database._engine, "before_cursor_execute", refuse)
    with pytest.raises(DatabaseError):
        post(store, "a")
    assert not store.exists(JobId("a"))


# ── what is found ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def seven(database: Database) -> Database:
    """A log with seven entries, without the triggers that a forger would take away first."""
    for number in range(7):
        audit.record(database, Event(Action.JOB_POSTED, MARTA, f"job {number}", TOLD))
    assert findings(database) == ()
    with database.writing() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("DROP TRIGGER audit_only_grows ON audit"))
        else:
            connection.execute(text("DROP TRIGGER audit_only_grows_UPDATE"))
            connection.execute(text("DROP TRIGGER audit_only_grows_DELETE"))
    return database


@pytest.mark.parametrize("column", [name for name in AUDIT.c.keys() if name != "seq"])  # noqa: SIM118 - columns, not a dict
@pytest.mark.parametrize("seq", [1, 4, 7])
def test_a_changed_word_is_found(seven: Database, column: str, seq: int) -> None:
    with seven.writing() as connection:
        connection.execute(update(AUDIT).where(AUDIT.c.seq == seq).values({column: "0" * 64}))
    assert f"entry {seq} is not what was written behind entry {seq - 1}" in findings(seven)


def move(connection: Connection, seq: int, to: int) -> None:
    connection.execute(update(AUDIT).where(AUDIT.c.seq == seq).values(seq=to))


def exchange(connection: Connection) -> None:
    move(connection, 3, 99)
    move(connection, 5, 3)
    move(connection, 99, 5)


def put_in(connection: Connection) -> None:
    row = dict(connection.execute(select(AUDIT).where(AUDIT.c.seq == 7)).mappings().one())
    connection.execute(insert(AUDIT).values(row | {"seq": 8}))
    connection.execute(update(AUDIT_HEAD).values(seq=8))


def put_before(connection: Connection) -> None:
    """Where the database refused such an entry, its rule is taken away first."""
    postgresql = connection.dialect.name == "postgresql"
    connection.execute(text(f"DROP TRIGGER audit_counts_from_one{' ON audit' if postgresql else ''}"))
    row = dict(connection.execute(select(AUDIT).where(AUDIT.c.seq == 1)).mappings().one())
    connection.execute(insert(AUDIT).values(row | {"seq": -1}))


HEAD_LOST = "the row that names the last entry is missing or not the only one"

FORGERIES: dict[str, tuple[Callable[[Connection], Any], str]] = {
    "the first is taken out": (lambda c: c.execute(delete(AUDIT).where(AUDIT.c.seq == 1)), "after entry 0 comes entry 2"),
    "one in the middle is taken out": (lambda c: c.execute(delete(AUDIT).where(AUDIT.c.seq == 4)), "after entry 3 comes entry 5"),
    "the last is taken out": (lambda c: c.execute(delete(AUDIT).where(AUDIT.c.seq == 7)), "entry 7, of which"),
    "all are taken out": (lambda c: c.execute(delete(AUDIT)), "entry 7, of which"),
    "two are exchanged": (exchange, "entry 3 is not what was written behind entry 2"),
    "one is put in": (put_in, "entry 8 is not what was written behind entry 7"),
    "one is put before the first": (put_before, "after entry 0 comes entry -1"),
    "the row of the last entry is taken out": (lambda c: c.execute(delete(AUDIT_HEAD)), HEAD_LOST),
    "the row of the last entry is doubled": (lambda c: c.execute(insert(AUDIT_HEAD).values(seq=9, hash="0")), HEAD_LOST),
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_what_is_taken_out_put_in_or_moved_is_found(seven: Database, forgery: str) -> None:
    forge, finding = FORGERIES[forgery]
    with seven.writing() as connection:
        forge(connection)
    assert any(found.startswith(finding) for found in findings(seven)), findings(seven)


def rewrite(database: Database, *, until: int) -> None:
    """What somebody does who knows how the chain is made and may write everywhere: another past, with all its hashes."""
    with database.writing() as connection:
        connection.execute(delete(AUDIT).where(AUDIT.c.seq > until))
        connection.execute(update(AUDIT).where(AUDIT.c.seq == 2).values(actor_name="nobody"))
    head = Head(0, BEGINNING)
    for entry in entries(database):
        head = Head(entry.seq, entry.chained(head.hash))
        with database.writing() as connection:
            connection.execute(update(AUDIT).where(AUDIT.c.seq == entry.seq).values(hash=head.hash))
    with database.writing() as connection:
        connection.execute(update(AUDIT_HEAD).values(seq=head.seq, hash=head.hash))


@pytest.mark.parametrize(("until", "finding"), [(7, "has another hash"), (5, "is missing")])
def test_a_rewritten_past_is_found_by_whoever_wrote_down_an_entry_elsewhere(seven: Database, until: int, finding: str) -> None:
    witness = audit.read_head(seven)
    rewrite(seven, until=until)
    assert findings(seven) == ()
    (found,) = findings(seven, witness)
    assert finding in found


@pytest.mark.parametrize("statement", ["UPDATE audit SET actor = 'nobody'", "DELETE FROM audit"])
def test_the_database_itself_refuses_to_change_the_log(migrated_url: str, statement: str) -> None:
    database = Database(migrated_url)
    audit.record(database, Event(Action.JOB_POSTED, MARTA, "j"))
    engine = create_engine(make_url(migrated_url.replace("postgresql:", "postgresql+psycopg:")))
    with pytest.raises(DatabaseError, match="only grows"), engine.begin() as connection:
        connection.execute(text(statement))
    engine.dispose()
    assert findings(database) == ()
    database.close()


@pytest.mark.parametrize("seq", [0, -1])
def test_the_database_itself_refuses_an_entry_before_the_first(database: Database, seq: int) -> None:
    with pytest.raises(DatabaseError, match="numbered from 1"), database.writing() as connection:
        connection.execute(
            insert(AUDIT).values(dict.fromkeys(("at", "actor", "actor_name", "action", "hash"), "x") | {"seq": seq})
        )


def test_of_many_who_write_at_once_each_follows_another(database: Database) -> None:
    def write(number: int) -> None:
        audit.record(database, Event(Action.JOB_POSTED, MARTA, f"{number} a"), Event(Action.JOB_PURGED, MARTA, f"{number} b"))

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(write, range(30)))
    written = [entry.job_id for entry in audit.read_entries(database, page=7)]
    assert sorted(written, key=str) == sorted((f"{number} {letter}" for number in range(30) for letter in "ab"), key=str)
    assert all(written[i][:-1] == written[i + 1][:-1] for i in range(0, 60, 2))  # type: ignore[index]
    assert findings(database) == ()


# ── the administrator ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_administrator_verifies_exports_and_verifies_the_export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OARLOCK_DATA", str(tmp_path / "data"))
    monkeypatch.delenv("DATABASE_URL", raising=False)
    monkeypatch.setenv("LOGNAME", "ada")
    assert main(["keys", "create", "planning", "--scope", "admin", "--first"]) == 0
    assert main(["keys", "revoke", "planning"]) == 0
    capsys.readouterr()
    assert main(["audit", "verify"]) == 0
    verified = capsys.readouterr()
    assert verified.out == ""
    (head,) = (line.removeprefix("last entry ") for line in verified.err.splitlines())
    assert to_head(head).seq == 2

    assert main(["audit", "export"]) == 0
    export = capsys.readouterr().out
    assert [json.loads(line)["actor"] for line in export.splitlines()] == ["cli:ada", "cli:ada"]
    file = tmp_path / "audit.jsonl"
    file.write_text(export)
    assert main(["audit", "verify", "--file", str(file), "--expect", head]) == 0
    file.write_text(export.splitlines()[0] + "\n")
    assert main(["audit", "verify", "--file", str(file)]) == 0  # a shorter log is a log: only a witness tells
    assert main(["audit", "verify", "--file", str(file), "--expect", head]) == 1
    assert "entry 2" in capsys.readouterr().out
    file.write_text(export.replace("planning", "other").replace("key.created", "job.posted"))
    assert main(["audit", "verify", "--file", str(file)]) == 1
    file.write_text("{}\n")
    assert main(["audit", "verify", "--file", str(file)]) == 2


@pytest.mark.parametrize("wrong", ["", "7", "7:abc", "x:" + "0" * 64, "-1:" + "0" * 64])
def test_what_is_no_last_entry_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match="SEQ:HASH"):
        to_head(wrong)

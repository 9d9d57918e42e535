"""Backups: what was there is there again, in either kind of database, or nothing is."""

import io
import sqlite3
import tarfile
from contextlib import closing
from pathlib import Path

import pytest

from oarlock.errors import BackupInvalid
from oarlock.facts import ComparisonRows
from oarlock.scopes import Scope
from oarlock.store import audit
from oarlock.store.backup import check_backup, restore_backup, write_backup
from oarlock.store.database import Database
from oarlock.store.job_store import JobStore
from oarlock.store.keys import KeyStore
from oarlock.store.scores.filters import Filters
from oarlock.store.scores.read import ScoreStore
from oarlock.store.scores.write import Scored
from tests.service.test_sites import SCORE
from tests.store.test_job_store import claim, create

pytestmark = pytest.mark.slow


def fill(database: Database, data: Path) -> None:
    """A finished job with scores, an identity and files; a key."""
    store = JobStore(database)
    job = create(store, identity=b"\x00sealed", idempotency_key="k", callback_url="https://tps.example/")
    store.leases.succeed(claim(store), scored=Scored("scanner", [ComparisonRows("surface-dsc/1", (SCORE,))]))
    KeyStore(database).create("planning", [Scope.JOBS_READ])
    folder = data / "jobs" / job.id / "results-1"
    folder.mkdir(parents=True)
    (folder / "rtstruct.dcm").write_bytes(b"contours")


def seen(database: Database, data: Path) -> tuple[object, ...]:
    """All that can be asked."""
    scores = ScoreStore(database)
    return (
        JobStore(database).page(site=""),
        KeyStore(database).all(),
        scores.scores(Filters(site=""), limit=10),
        scores.summary(Filters(site=""), alert_level=0.8, part_of=None),
        scores.histograms(),
        list(audit.read_entries(database)),
        {path.relative_to(data): path.read_bytes() for path in (data / "jobs").rglob("*") if path.is_file()},
    )


@pytest.fixture
def archive(database: Database, tmp_path: Path) -> Path:
    fill(database, tmp_path / "data")
    write_backup(database, tmp_path / "data", tmp_path / "backup.tar")
    return tmp_path / "backup.tar"


def test_everything_is_there_after_a_restore_into_sqlite_and_new_rows_follow_the_old_ones(
    database: Database, archive: Path, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path / 'restored.sqlite'}"
    restore_backup(archive, url, tmp_path / "restored")
    restored = Database(url)
    assert seen(restored, tmp_path / "restored") == seen(database, tmp_path / "data")
    check_goes_on(restored)


@pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)
def test_what_sqlite_held_can_be_restored_into_postgresql(migrated_url: str, tmp_path: Path) -> None:
    with closing(Database(f"sqlite:///{tmp_path / 'jobs.sqlite'}")) as old:
        fill(old, tmp_path / "data")
        write_backup(old, tmp_path / "data", tmp_path / "backup.tar")
        restore_backup(tmp_path / "backup.tar", migrated_url, tmp_path / "restored")
        restored = Database(migrated_url)
        assert seen(restored, tmp_path / "restored") == seen(old, tmp_path / "data")
    check_goes_on(restored)


def check_goes_on(restored: Database) -> None:
    """New rows get ids of their own, and the chain of the audit log holds."""
    store = JobStore(restored)
    create(store, "b")
    store.leases.succeed(claim(store, "b"), scored=Scored("another", [ComparisonRows("surface-dsc/1", (SCORE,))]))
    assert len(ScoreStore(restored).scores(Filters(site=""), limit=10)[0]) == 2
    assert audit.check(restored, []).findings == ()
    restored.close()


def test_a_backup_of_an_earlier_schema_gets_the_steps_that_were_added_since(tmp_path: Path) -> None:
    early = f"sqlite:///{tmp_path / 'early.sqlite'}"
    with closing(Database(early, schema="0007")) as database, database.writing():
        pass
    with closing(sqlite3.connect(tmp_path / "early.sqlite")) as connection:
        connection.execute("INSERT INTO keys (id, name, digest, scopes, created_at) VALUES ('i', 'old', 'd', 'jobs:read', 1)")
        connection.commit()
    with closing(Database(early, schema="0007")) as database:
        write_backup(database, tmp_path / "data", tmp_path / "backup.tar")
    restore_backup(tmp_path / "backup.tar", f"sqlite:///{tmp_path / 'new.sqlite'}", tmp_path / "restored")
    with closing(Database(f"sqlite:///{tmp_path / 'new.sqlite'}")) as database:
        assert [(key.name, key.site) for key in KeyStore(database).all()] == [("old", "")]


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_an_archive_that_was_cut_or_changed_is_refused_and_leaves_nothing(archive: Path, tmp_path: Path) -> None:
    whole = archive.read_bytes()
    changed = whole.replace(b"contours", b"COntours")
    for name, content in {"cut": whole[: len(whole) // 2], "changed": changed, "no tar": b"x" * 600}.items():
        archive.write_bytes(content)
        with pytest.raises(BackupInvalid):
            restore_backup(archive, f"sqlite:///{tmp_path / name}.sqlite", tmp_path / name)
        assert not (tmp_path / name).exists()
        assert not (tmp_path / f"{name}.sqlite").exists()


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "jobs/../../outside", "tables/x.sh", "jobs/a"])
def test_a_member_that_leads_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    with tarfile.open(tmp_path / "bad.tar", "w") as archive:
        member = tarfile.TarInfo(name)
        member.size = 1
        archive.addfile(member, io.BytesIO(b"x"))
    with pytest.raises(BackupInvalid):
        check_backup(tmp_path / "bad.tar")


def test_nothing_is_restored_over_what_is_there(database: Database, archive: Path, migrated_url: str, tmp_path: Path) -> None:
    before = seen(database, tmp_path / "data")
    with pytest.raises(BackupInvalid, match="the database holds jobs"):
        restore_backup(archive, migrated_url, tmp_path / "elsewhere")
    with pytest.raises(BackupInvalid, match="holds jobs already"):
        restore_backup(archive, f"sqlite:///{tmp_path / 'other.sqlite'}", tmp_path / "data")
    assert seen(database, tmp_path / "data") == before
    with pytest.raises(FileExistsError):
        write_backup(database, tmp_path / "data", archive)

"""The administrator's commands: they look at the database that is there, and never make one by mistake."""

import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from oarlock.cli.main import main
from oarlock.segmentation.manifest import read_manifests
from oarlock.store.backup import check_backup
from tests.fixtures import postgresql

pytestmark = pytest.mark.slow

LOOKING = [["audit", "verify"], ["audit", "export"], ["keys", "list"], ["callbacks", "list"]]
CHANGING = [["keys", "create", "planning", "--scope", "admin"], ["keys", "revoke", "planning"], ["callbacks", "resend", "id"]]


@pytest.fixture(autouse=True)
def umask() -> Iterator[None]:
    """A command sets it for its process."""
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("DATABASE_URL", raising=False)
    monkeypatch.setenv("OARLOCK_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


@pytest.mark.parametrize("command", LOOKING + CHANGING, ids=" ".join)
@pytest.mark.parametrize("folder", ["missing", "empty"])
def test_where_there_is_no_database_a_command_says_so_and_makes_none(
    command: list[str], folder: str, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if folder == "empty":
        data.mkdir()
    assert main(command) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert str(data / "oarlock.sqlite") in said.err
    assert "OARLOCK_DATA" in said.err
    assert not data.exists() or list(data.iterdir()) == []


def test_a_database_of_something_else_is_left_as_it_is(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data.mkdir()
    with closing(sqlite3.connect(data / "oarlock.sqlite")) as connection:
        connection.execute("CREATE TABLE theirs (id)")
    assert main(["audit", "verify"]) == 2
    assert "no database of Oarlock" in capsys.readouterr().err
    with closing(sqlite3.connect(data / "oarlock.sqlite")) as connection:
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("theirs",)]


def test_an_empty_postgresql_database_is_left_as_it_is_too(
    postgresql_server: postgresql.Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with postgresql_server.database() as url:
        monkeypatch.setenv("DATABASE_URL", url)
        assert main(["keys", "list"]) == 2
        assert "no database of Oarlock" in capsys.readouterr().err
        assert main(["keys", "create", "first", "--scope", "admin", "--first"]) == 0
        assert main(["keys", "list"]) == 0


def test_the_first_key_may_make_the_database_which_is_for_its_user_alone(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys", "create", "planning", "--scope", "admin", "--first"]) == 0
    assert capsys.readouterr().out.startswith("oarlock_")
    assert stat.S_IMODE(data.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in data.iterdir()} == {0o600}
    assert main(["audit", "verify"]) == 0
    assert main(["keys", "create", "second", "--scope", "admin"]) == 0


@pytest.fixture
def old(data: Path) -> Path:
    """A database of 7008e73 in the data folder."""
    data.mkdir()
    with closing(sqlite3.connect(data / "oarlock.sqlite")) as connection:
        connection.executescript((Path(__file__).parent.parent / "fixtures" / "database_7008e73.sql").read_text())
    return data / "oarlock.sqlite"


def test_a_command_that_only_looks_leaves_a_database_of_an_earlier_version_as_it_is(
    old: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with closing(sqlite3.connect(old)) as connection:
        before = list(connection.iterdump())
    assert main(["audit", "verify"]) == main(["keys", "list"]) == 2
    assert "the database has schema 0007, and this version needs" in capsys.readouterr().err
    with closing(sqlite3.connect(old)) as connection:
        assert list(connection.iterdump()) == before


def test_an_upgrade_and_the_way_back_are_a_command_each_and_back_up_first(
    old: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["upgrade", "--backup", str(tmp_path / "before.tar")]) == 0
    assert "To go back: oarlock roll-back 0007" in capsys.readouterr().err
    assert main(["audit", "verify"]) == 0
    with closing(sqlite3.connect(old)) as connection:
        (given,) = connection.execute("SELECT model_sha256 FROM jobs WHERE state = 'queued'")
    assert given[0] == read_manifests(Path("models"))["oarlock-hn"].sha256  # the model of its version is gone
    assert main(["roll-back", "0007", "--backup", str(tmp_path / "after.tar")]) == 0
    with closing(sqlite3.connect(old)) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [("0007",)]
        jobs = connection.execute("SELECT count(*) FROM jobs").fetchone()[0]
    assert check_backup(tmp_path / "before.tar")["schema"] == "0007"
    assert check_backup(tmp_path / "after.tar")["rows"]["jobs"] == jobs == 7

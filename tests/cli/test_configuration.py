"""oarlock config check: what is in force, where it comes from, and what is odd."""

from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from oarlock.cli.configuration import odd_keys, odd_settings
from oarlock.cli.main import main
from oarlock.scopes import Scope
from oarlock.settings import Settings
from oarlock.store.database import Database, utc_now
from oarlock.store.keys import KeyStore
from tests.service.running import write_model

pytestmark = pytest.mark.slow

NOTHING_ODD: dict[str, Any] = {"keep_results": 90 * 86_400, "keep_input": 86_400, "time_zone": "Europe/Berlin"}


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An environment in which nothing is odd, but that there is no database yet."""
    write_model(tmp_path / "models", "tiny")
    for name, value in {
        "OARLOCK_DATA": str(tmp_path / "data"),
        "OARLOCK_MODELS": str(tmp_path / "models"),
        "OARLOCK_MODEL": "tiny",
        "OARLOCK_KEEP_RESULTS": "90d",
        "OARLOCK_KEEP_INPUT": "1d",
        "OARLOCK_TIME_ZONE": "Europe/Berlin",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("REDIS_URL", raising=False)
    monkeypatch.delenv("DATABASE_URL", raising=False)
    return tmp_path


def row_of(variable: str, printed: str) -> list[str]:
    return next(line.split() for line in printed.splitlines() if line.startswith(f"{variable} "))


def test_each_setting_is_printed_with_its_value_and_its_source(
    site: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    secret = site / "redis"
    secret.write_text("redis://:hidden@queue:6379/0")
    monkeypatch.setenv("REDIS_URL_FILE", str(secret))
    main(["config", "check"])
    printed = capsys.readouterr().out
    assert row_of("OARLOCK_KEEP_RESULTS", printed) == ["OARLOCK_KEEP_RESULTS", str(90 * 86_400), "environment"]
    assert row_of("OARLOCK_PORT", printed) == ["OARLOCK_PORT", "8000", "default"]
    assert row_of("REDIS_URL", printed) == ["REDIS_URL", "set", "file", str(secret)]
    assert "hidden" not in printed


def test_it_makes_no_database_and_says_that_there_is_none(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "check"]) == 1
    assert "odd: There is no database yet" in capsys.readouterr().out
    assert not (site / "data").exists()


def test_before_an_upgrade_all_is_printed_and_the_older_database_is_odd(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (site / "data").mkdir()
    with closing(Database(f"sqlite:///{site / 'data' / 'oarlock.sqlite'}")) as database:
        database.roll_back("0020")
    assert main(["config", "check"]) == 1
    printed = capsys.readouterr().out
    assert row_of("OARLOCK_PORT", printed)
    assert "odd: The database has schema 0020" in printed


def test_the_status_is_0_where_nothing_is_odd(site: Path) -> None:
    main(["keys", "create", "planning", "--scope", "jobs:write", "--expires", "90d", "--first"])
    assert main(["config", "check"]) == 0


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("OARLOCK_MODEL", "nope", "has no model 'nope' (found: tiny)"),
        ("OARLOCK_PROFILE", "nope", "nope"),
        ("OARLOCK_KEEP_RESULT", "30d", "Did you mean OARLOCK_KEEP_RESULTS?"),
        ("OARLOCK_KEEP_INPUT", "banana", "OARLOCK_KEEP_INPUT"),
    ],
)
def test_what_keeps_a_service_from_starting_is_said_with_status_2(
    site: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], variable: str, value: str, said: str
) -> None:
    monkeypatch.setenv(variable, value)
    assert main(["config", "check"]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({}, None),
        ({"keep_results": None}, "OARLOCK_KEEP_RESULTS is never"),
        ({"keep_input": None}, "OARLOCK_KEEP_INPUT is never"),
        ({"host": "0.0.0.0", "plain_http": True}, "plain HTTP beyond this machine"),
        ({"trusted_proxies": ["0.0.0.0/0"]}, "OARLOCK_TRUSTED_PROXIES names every address"),
        ({"rate_per_minute": 0}, "OARLOCK_RATE_PER_MINUTE is 0"),
        ({"min_free_bytes": 0}, "OARLOCK_MIN_FREE_BYTES is 0"),
    ],
)
def test_what_an_operator_may_not_have_meant_is_odd(changed: dict[str, Any], said: str | None) -> None:
    found = list(odd_settings(Settings(**(NOTHING_ODD | changed))))
    assert found == [] if said is None else len(found) == 1 and said in found[0]


def test_keys_that_expire_soon_or_are_old_and_never_expire_are_odd(tmp_path: Path) -> None:
    now = utc_now()
    database = Database(f"sqlite:///{tmp_path / 'keys.sqlite'}")
    keys = KeyStore(database, clock=lambda: now - timedelta(days=366))
    keys.create("soon", [Scope.JOBS_READ], expires_at=now + timedelta(days=29))
    keys.create("later", [Scope.JOBS_READ], expires_at=now + timedelta(days=31))
    keys.create("old", [Scope.JOBS_READ])
    KeyStore(database, clock=lambda: now - timedelta(days=364)).create("young", [Scope.JOBS_READ])
    said = list(odd_keys(KeyStore(database).all(), now))
    database.close()
    assert {sentence.split("'")[1] for sentence in said} == {"soon", "old"}

"""Keys: made once, stored as a hash, found only while they are valid."""

import hashlib
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from oarlock.cli.administration import to_time
from oarlock.cli.main import main
from oarlock.errors import InvalidParameter
from oarlock.scopes import Scope
from oarlock.store.database import Database
from oarlock.store.keys import KeyStore
from tests.fixtures.clock import NOW, Clock


@pytest.fixture
def keys(database: Database, clock: Clock) -> KeyStore:
    return KeyStore(database, clock=clock)


def test_what_its_owner_sends_finds_a_key_with_all_that_it_was_made_with(keys: KeyStore) -> None:
    made, token = keys.create("planning", [Scope.JOBS_WRITE, Scope.JOBS_READ], expires_at=NOW + timedelta(days=1), profile="p")
    keys.create("other", [Scope.ADMIN])
    assert keys.find(token) == made
    assert (made.name, made.scopes, made.profile) == ("planning", {Scope.JOBS_WRITE, Scope.JOBS_READ}, "p")
    assert (made.created_at, made.expires_at, made.revoked_at) == (NOW, NOW + timedelta(days=1), None)
    assert [key.name for key in keys.all()] == ["planning", "other"] or {key.name for key in keys.all()} == {"planning", "other"}


def test_the_secret_has_256_random_bits_and_no_two_are_alike(keys: KeyStore) -> None:
    tokens = [keys.create(f"k{i}", [Scope.ADMIN])[1] for i in range(20)]
    assert len({token.rsplit("_", 1)[1][:43] for token in tokens}) == 20
    assert all(re.fullmatch(r"oarlock_[0-9a-f]{12}_[A-Za-z0-9_-]{43}", token) for token in tokens)


def test_a_secret_is_in_no_byte_of_the_database_and_its_hash_is(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'oarlock.sqlite'}")
    _, token = KeyStore(database).create("planning", [Scope.ADMIN])
    database.close()
    written = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert token[-43:].encode() not in written
    assert hashlib.sha256(token.encode()).hexdigest().encode() in written


@pytest.mark.parametrize(
    "spoil",
    [
        lambda token: token[:-1] + ("A" if token[-1] != "A" else "B"),
        lambda token: token + "A",
        lambda token: token[:-1],
        lambda token: token.replace("oarlock_", "oarlock_0", 1),
        lambda token: "oarlock_" + "0" * 12 + token[20:],
        lambda token: token.upper(),
        lambda token: "",
        lambda token: "' OR 1=1 --",
        lambda token: "ключ",
    ],
)
def test_what_is_not_exactly_a_key_finds_nothing(keys: KeyStore, spoil: Callable[[str], str]) -> None:
    _, token = keys.create("planning", [Scope.ADMIN])
    assert keys.find(spoil(token)) is None
    assert keys.find(token) is not None


def test_a_key_ends_at_the_very_moment_it_expires(keys: KeyStore, clock: Clock) -> None:
    key, token = keys.create("planning", [Scope.ADMIN], expires_at=NOW + timedelta(hours=1))
    clock.now = NOW + timedelta(hours=1) - timedelta(microseconds=1)
    assert keys.find(token) == key
    assert keys.any_valid()
    clock.now = NOW + timedelta(hours=1)
    assert keys.find(token) is None
    assert not keys.any_valid()
    assert keys.were_made()


@pytest.mark.parametrize("by", ["name", "id"])
def test_a_revoked_key_opens_nothing_and_the_first_revocation_stands(keys: KeyStore, clock: Clock, by: str) -> None:
    key, token = keys.create("planning", [Scope.ADMIN])
    _, other = keys.create("other", [Scope.ADMIN])
    assert keys.revoke(getattr(key, by)).revoked_at == NOW
    clock.now = NOW + timedelta(days=1)
    assert keys.revoke(getattr(key, by)).revoked_at == NOW
    assert keys.find(token) is None
    assert keys.find(other) is not None


@pytest.mark.parametrize("name", ["", "two words", "Müller", "a" * 65, "-x", "x;y"])
def test_a_name_that_could_confuse_is_refused(keys: KeyStore, name: str) -> None:
    with pytest.raises(InvalidParameter):
        keys.create(name, [Scope.ADMIN])


def test_a_name_is_never_used_twice_not_even_after_it_was_revoked(keys: KeyStore) -> None:
    keys.create("planning", [Scope.ADMIN])
    keys.revoke("planning")
    with pytest.raises(InvalidParameter, match="not used again"):
        keys.create("planning", [Scope.ADMIN])


def test_a_key_without_a_scope_or_in_the_past_is_refused_and_an_unknown_one_cannot_be_revoked(keys: KeyStore) -> None:
    with pytest.raises(InvalidParameter, match="scope"):
        keys.create("a", [])
    with pytest.raises(InvalidParameter, match="future"):
        keys.create("a", [Scope.ADMIN], expires_at=NOW)
    with pytest.raises(InvalidParameter):
        keys.revoke("a")
    assert not keys.were_made()


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("90d", NOW + timedelta(days=90)),
        ("2027-01-31", datetime(2027, 1, 31, tzinfo=UTC)),
        ("2027-01-31T12:30:00Z", datetime(2027, 1, 31, 12, 30, tzinfo=UTC)),
        ("2027-01-31T12:30:00+02:00", datetime(2027, 1, 31, 12, 30, tzinfo=timezone(timedelta(hours=2)))),
    ],
)
def test_times_as_administrators_write_them(text: str, meant: datetime) -> None:
    assert to_time(text, NOW) == meant


@pytest.mark.parametrize("text", ["soon", "31.01.2027", "90", "-1d", "2027-02-30", "123456d"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(InvalidParameter):
        to_time(text, NOW)


def test_an_administrator_makes_lists_and_revokes_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OARLOCK_DATA", str(tmp_path / "new" / "data"))
    monkeypatch.delenv("DATABASE_URL", raising=False)
    assert (
        main(["keys", "create", "planning", "--scope", "jobs:write", "--scope", "jobs:read", "--profile", "eclipse", "--first"])
        == 0
    )
    token = capsys.readouterr().out.strip()
    database = Database(f"sqlite:///{tmp_path / 'new' / 'data' / 'oarlock.sqlite'}")
    found = KeyStore(database).find(token)
    assert found is not None
    assert (found.scopes, found.profile) == ({Scope.JOBS_WRITE, Scope.JOBS_READ}, "eclipse")

    assert main(["keys", "list"]) == 0
    listing = capsys.readouterr().out
    assert re.search(rf"^planning +{found.id} +valid +never +eclipse +– +jobs:read jobs:write$", listing, flags=re.MULTILINE)
    assert token[-43:] not in listing

    assert main(["keys", "revoke", "planning"]) == 0
    assert KeyStore(database).find(token) is None
    database.close()
    assert main(["keys", "list"]) == 0
    assert "revoked" in capsys.readouterr().out
    assert main(["keys", "revoke", "nobody"]) == 2
    assert "request.invalid_parameter" in capsys.readouterr().err

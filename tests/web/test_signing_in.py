"""Getting in: what a session's cookie opens, for whom, from where, and until when."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from sqlalchemy import select

from oarlock.scopes import Scope
from oarlock.store import audit
from oarlock.store.audit import Actor
from oarlock.store.database import Database
from oarlock.store.keys import KeyStore
from oarlock.store.schema import SESSIONS
from service.access.sessions import LASTS, Sessions
from service.web.sign_in import own_path
from tests.service.conftest import make_settings
from tests.service.running import Running, serve, write_model
from tests.service.test_oidc import AUDIENCE, Issuer, issuer  # noqa: F401 - a fixture

pytestmark = pytest.mark.slow

COOKIE = "oarlock-session"
NOW = datetime(2026, 3, 5, 8, 0, tzinfo=UTC)


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory, redis_url: str, issuer: Issuer) -> Iterator[Running]:  # noqa: F811
    """A service with a key, and an issuer that people sign in at."""
    folder = tmp_path_factory.mktemp("closed")
    write_model(folder / "models")
    changes = {"oidc_issuer": issuer.url, "oidc_audience": AUDIENCE, "oidc_client_id": "oarlock-pages"}
    with serve(make_settings(folder, redis_url, **changes)) as running:
        yield running


@pytest.fixture
def key(closed: Running, request: pytest.FixtureRequest) -> str:
    name = re.sub(r"[^A-Za-z0-9]", "-", request.node.name)[:60]
    return KeyStore(closed.service.database).create(name, [Scope.JOBS_READ])[1]


@pytest.fixture
def client(closed: Running) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=closed.url, headers={"Origin": closed.url}) as client:
        yield client


def sign_in(client: httpx.Client, key: str, wanted: str = "/") -> httpx.Response:
    return client.post("/sign-in", data={"key": key, "next": wanted})


def test_a_key_opens_a_session_that_scripts_cannot_read_and_other_sites_cannot_send(client: httpx.Client, key: str) -> None:
    assert client.get("/v1/jobs").status_code == 401
    answer = sign_in(client, key, "/jobs/x")
    assert (answer.status_code, answer.headers["location"]) == (303, "/jobs/x")
    cookie = answer.headers["set-cookie"].lower()
    assert {"httponly", "samesite=strict", "path=/"} <= {part.strip() for part in cookie.split(";")}
    assert key not in cookie
    assert client.get("/v1/jobs").status_code == 200
    assert client.get("/v1/caller").json()["scopes"] == ["jobs:read"]
    assert client.get("/v1/qa/scores").status_code == 403


def test_a_wrong_key_gets_the_form_again_and_no_cookie(client: httpx.Client) -> None:
    answer = sign_in(client, "oarlock_nonsense")
    assert answer.status_code == 401
    assert "set-cookie" not in answer.headers
    assert "<form" in answer.text
    assert "oarlock_nonsense" not in answer.text


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://elsewhere.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_another_page_can_use_no_session_and_begin_none(
    client: httpx.Client, closed: Running, key: str, headers: dict[str, str]
) -> None:
    sign_in(client, key)
    assert client.get("/v1/jobs", headers=headers).status_code == 403
    assert client.post("/v1/jobs", headers=headers).status_code == 403
    assert client.post("/sign-in", data={"key": key}, headers=headers).status_code == 403


def test_a_call_that_changes_something_needs_an_origin_where_a_cookie_is_all_that_it_brings(closed: Running, key: str) -> None:
    with httpx.Client(base_url=closed.url) as client:
        client.cookies.set(COOKIE, closed.service.sessions.open(key, Actor("key:x", "x")))
        assert client.get("/v1/jobs").status_code == 200
        answer = client.delete("/v1/jobs/0e9c1f9a-7a49-4d0c-9f0e-3c1f6a1f2f11")
        assert (answer.status_code, answer.json()["code"]) == (403, "access.cross_site")


def test_signing_out_ends_the_session_everywhere_and_both_are_written_down(
    client: httpx.Client, closed: Running, key: str
) -> None:
    sign_in(client, key)
    cookie = client.cookies[COOKIE]
    assert client.post("/sign-out").headers["location"] == "/sign-in"
    client.cookies.set(COOKIE, cookie)
    assert client.get("/v1/jobs").status_code == 401
    caller = f"key:{key.split('_')[1]}"
    assert [entry.action for entry in audit.read_entries(closed.service.database) if entry.actor == caller] == [
        "session.opened",
        "session.closed",
    ]


def test_a_revoked_key_ends_its_sessions(client: httpx.Client, closed: Running, key: str) -> None:
    sign_in(client, key)
    KeyStore(closed.service.database).revoke(key.split("_")[1])
    assert client.get("/v1/jobs").status_code == 401


def test_a_session_ends_after_twelve_hours_and_its_row_is_deleted(database: Database) -> None:
    now = [NOW]
    sessions = Sessions(database, clock=lambda: now[0])
    cookie = sessions.open("a key", Actor("key:x", "x"))
    assert sessions.find(cookie) == "a key"
    now[0] += LASTS - timedelta(seconds=1)
    assert sessions.find(cookie) == "a key"
    now[0] += timedelta(seconds=2)
    assert sessions.find(cookie) is None
    sessions.open("another", Actor("key:x", "x"))
    with database.reading() as connection:
        assert len(connection.execute(select(SESSIONS)).all()) == 1


def test_the_database_holds_neither_key_nor_cookie(database: Database, tmp_path: Path) -> None:
    cookie = Sessions(database).open("oarlock_canary", Actor("key:x", "x"))
    with database.reading() as connection:
        [row] = connection.execute(select(SESSIONS)).all()
    assert "canary" not in str(row)
    assert cookie not in str(row)


@pytest.mark.parametrize(
    "wanted", ["//elsewhere.example", "https://elsewhere.example", "/\\elsewhere", "javascript:1", "/a\nb", ""]
)
def test_the_way_back_never_leads_elsewhere(wanted: str) -> None:
    assert own_path(wanted) == "/"


def test_a_form_that_is_larger_than_ours_is_refused(client: httpx.Client) -> None:
    assert sign_in(client, "x" * 10_000).status_code == 400


def test_an_open_service_asks_for_no_key(tmp_path: Path, redis_url: str) -> None:
    write_model(tmp_path / "models")
    with serve(make_settings(tmp_path, redis_url)) as running:
        answer = httpx.get(f"{running.url}/sign-in?next=/jobs/x")
        assert (answer.status_code, answer.headers["location"]) == (303, "/jobs/x")
        assert httpx.get(f"{running.url}/v1/caller").json()["open"] is True


# ── identity provider ─────────────────────────────────────────────────────────────────────────────────────────────────


def away(client: httpx.Client) -> dict[str, str]:
    """Go to the identity provider: what it is told."""
    answer = client.get("/sign-in/oidc?next=/jobs/x")
    assert answer.status_code == 303
    return {name: values[0] for name, values in parse_qs(urlsplit(answer.headers["location"]).query).items()}


def test_people_sign_in_at_the_identity_provider_with_a_proof_key(
    client: httpx.Client,
    closed: Running,
    issuer: Issuer,  # noqa: F811
) -> None:
    told = away(client)
    assert told["response_type"] == "code"
    assert (told["client_id"], told["code_challenge_method"]) == ("oarlock-pages", "S256")
    assert told["redirect_uri"] == f"{closed.url}/sign-in/callback"
    issuer.codes["of-marta"] = (told["code_challenge"], issuer.token(sub="marta", preferred_username="marta"))
    answer = client.get("/sign-in/callback", params={"code": "of-marta", "state": told["state"]})
    assert answer.status_code == 200
    assert 'content="0;url=/jobs/x"' in answer.text
    assert client.get("/v1/caller").json()["name"] == "marta"
    assert client.get("/v1/jobs").status_code == 200


def test_an_answer_that_this_browser_did_not_ask_for_begins_no_session(
    client: httpx.Client,
    closed: Running,
    issuer: Issuer,  # noqa: F811
) -> None:
    told = away(client)
    issuer.codes["stolen"] = (told["code_challenge"], issuer.token())
    with httpx.Client(base_url=closed.url) as other:
        answer = other.get("/sign-in/callback", params={"code": "stolen", "state": told["state"]})
        assert (answer.status_code, answer.json()["code"]) == (403, "access.cross_site")
    assert client.get("/sign-in/callback", params={"code": "stolen", "state": "guessed"}).status_code == 403
    assert COOKIE not in client.cookies


def test_a_token_for_another_service_begins_no_session(client: httpx.Client, issuer: Issuer) -> None:  # noqa: F811
    told = away(client)
    issuer.codes["other"] = (told["code_challenge"], issuer.token(aud="another"))
    answer = client.get("/sign-in/callback", params={"code": "other", "state": told["state"]})
    assert answer.status_code == 401
    assert COOKIE not in client.cookies

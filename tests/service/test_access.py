"""Who may call what, and how the others are told."""

import io
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from oarlock.logs import JSONFormatter
from oarlock.scopes import Scope
from oarlock.store.database import Database
from oarlock.store.keys import KeyStore
from service.__main__ import KeyMissing, NotPrivate, check_keys, check_private
from service.access.auth import WRONG_PER_MINUTE
from service.access.hosts import is_loopback
from service.access.rate_limit import RateLimit
from service.api.dependencies import admit
from tests.fixtures.processes import eventually
from tests.service.conftest import make_settings
from tests.service.running import Running, parts, serve, write_model

SIGN_IN = {"/sign-in", "/sign-in/oidc", "/sign-in/callback", "/sign-out"}
OPEN = {"/", "/charts", "/commissionings", "/models", "/jobs/{job_id}", "/static/{name}", "/livez", "/readyz", "/docs"}
NO_JOB = "/v1/jobs/0e9c1f9a-7a49-4d0c-9f0e-3c1f6a1f2f11"
NO_STUDY = "/dicom-web/studies/1.2.3"
NO_SERIES = f"{NO_STUDY}/series/1.2.4"
NO_INSTANCE = f"{NO_SERIES}/instances/1.2.5"
TEMPLATES = {
    NO_JOB: "/v1/jobs/{job_id}",
    "?wrong": "",
    "9f" * 32: "{model_sha256}",
    "/1.2.3": "/{study}",
    "/1.2.4": "/{series}",
    "/1.2.5": "/{instance}",
    "frames/1": "frames/{numbers}",
    "7FE00010": "{tag}",
    "returned/1": "returned/{position}",
    "received/none": "received/{received_id}",
    "gateways/none": "gateways/{gateway}",
    "abababababababababab": "{series}",
    "retrievals/none": "retrievals/{request_id}",
    "requests/none": "requests/{request_id}",
}
"""How the contract spells these addresses."""

CALLS: dict[tuple[str, str], set[Scope]] = {
    ("POST", "/v1/jobs"): {Scope.JOBS_WRITE},
    ("POST", f"{NO_JOB}/cancel"): {Scope.JOBS_WRITE},
    ("POST", f"{NO_JOB}/retry"): {Scope.JOBS_WRITE},
    ("DELETE", NO_JOB): {Scope.JOBS_WRITE},
    ("GET", "/v1/jobs"): {Scope.JOBS_READ},
    ("GET", "/v1/events?wrong"): {Scope.JOBS_READ},  # where the key is good it is refused: the stream has no end
    ("GET", NO_JOB): {Scope.JOBS_READ},
    ("GET", f"{NO_JOB}/events"): {Scope.JOBS_READ},
    ("GET", f"{NO_JOB}/rtstruct"): {Scope.JOBS_READ},
    ("GET", f"{NO_JOB}/seg"): {Scope.JOBS_READ},
    ("GET", f"{NO_JOB}/preview.png"): {Scope.JOBS_READ},
    ("GET", f"{NO_JOB}/review"): {Scope.JOBS_READ},
    ("GET", f"{NO_JOB}/patient"): {Scope.JOBS_READ},
    ("GET", f"{NO_JOB}/review/data"): {Scope.JOBS_READ},
    ("GET", f"{NO_JOB}/review/returned/1"): {Scope.JOBS_READ},
    ("POST", f"{NO_JOB}/reviews"): {Scope.REVIEWS_WRITE},
    ("GET", "/v1/qa/reviews"): {Scope.QA_READ},
    ("GET", f"{NO_JOB}/qa"): {Scope.JOBS_READ, Scope.QA_READ},
    **{("GET", f"{NO_JOB}/report.{kind}"): {Scope.JOBS_READ} for kind in ("html", "pdf", "dcm")},
    ("POST", "/v1/comparisons"): {Scope.JOBS_WRITE, Scope.QA_READ},
    ("GET", "/v1/qa/scores"): {Scope.QA_READ},
    ("GET", "/v1/qa/summary"): {Scope.QA_READ},
    ("POST", f"{NO_JOB}/reference"): {Scope.JOBS_WRITE},
    ("GET", "/v1/qa/drift"): {Scope.QA_READ},
    ("GET", "/v1/qa/baselines"): {Scope.QA_READ},
    ("POST", "/v1/qa/baselines"): {Scope.QA_WRITE},
    ("POST", "/v1/commissionings"): {Scope.JOBS_READ},
    ("GET", "/v1/commissionings"): {Scope.JOBS_READ},
    ("GET", f"/v1/commissionings/{'9f' * 32}"): {Scope.JOBS_READ},
    ("GET", "/v1/caller"): set(Scope),
    ("GET", "/v1/models"): set(Scope),
    ("GET", "/v1/profiles"): set(Scope),
    ("GET", "/metrics"): {Scope.METRICS_READ},
    ("POST", "/dicom-web/studies"): {Scope.JOBS_WRITE},
    ("POST", NO_STUDY): {Scope.JOBS_WRITE},
    **{("GET", f"/dicom-web/{level}"): {Scope.JOBS_READ} for level in ("studies", "series", "instances")},
    **{("GET", f"{NO_STUDY}{path}"): {Scope.JOBS_READ} for path in ("", "/metadata", "/series", "/instances")},
    **{("GET", f"{NO_SERIES}{path}"): {Scope.JOBS_READ} for path in ("", "/metadata", "/instances")},
    **{("GET", f"{NO_INSTANCE}{path}"): {Scope.JOBS_READ} for path in ("", "/metadata", "/frames/1", "/bulkdata/7FE00010")},
    ("GET", "/v1/received"): {Scope.JOBS_READ},
    ("DELETE", "/v1/received/none"): {Scope.JOBS_WRITE},
    ("POST", f"{NO_JOB}/resend"): {Scope.JOBS_WRITE},
    **{("POST", f"/v1/retrievals{path}"): {Scope.JOBS_WRITE} for path in ("", "/none/cancel")},
    **{("GET", f"/v1/retrievals{path}"): {Scope.JOBS_READ} for path in ("", "/none")},
    ("GET", "/v1/gateways"): {Scope.JOBS_READ},
    **{("POST", f"/v1/gateways/none{path}"): {Scope.JOBS_WRITE} for path in ("", "/requests/none")},
    ("POST", f"/v1/gateways/none/series/{'ab' * 10}/complete"): {Scope.JOBS_WRITE},
}
"""Every call that is not open, and the scopes that allow it, beside ``admin``."""


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> Iterator[Running]:
    """A service that has a key for each scope."""
    folder = tmp_path_factory.mktemp("closed")
    write_model(folder / "models")
    with serve(make_settings(folder, redis_url)) as running:
        yield running


@pytest.fixture(scope="module")
def tokens(closed: Running) -> dict[Scope, str]:
    keys = KeyStore(closed.service.database)
    return {scope: keys.create(scope.replace(":", "-"), [scope])[1] for scope in Scope}


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def test_on_loopback_a_service_without_keys_is_open_and_the_first_key_closes_it_for_good(
    tmp_path: Path, redis_url: str, series: list[Path]
) -> None:
    write_model(tmp_path / "models")
    with serve(make_settings(tmp_path, redis_url)) as running:
        assert httpx.post(f"{running.url}/v1/jobs", files=parts(series[:5])).status_code == 202
        assert httpx.get(f"{running.url}/metrics").status_code == 200
        keys = KeyStore(running.service.database)
        keys.create("first", [Scope.ADMIN])
        assert httpx.get(f"{running.url}/v1/jobs").status_code == 401
        keys.revoke("first")
        assert httpx.get(f"{running.url}/v1/jobs").status_code == 401
    with serve(make_settings(tmp_path, redis_url)) as running:
        assert httpx.get(f"{running.url}/v1/jobs").status_code == 401


@pytest.mark.slow
@pytest.mark.parametrize("scope", Scope)
def test_each_scope_opens_its_calls_and_no_others(closed: Running, tokens: dict[Scope, str], scope: Scope) -> None:
    for (method, path), allowed in CALLS.items():
        answer = httpx.request(method, f"{closed.url}{path}", headers=bearer(tokens[scope]))
        if scope in allowed | {Scope.ADMIN}:
            assert answer.status_code not in {401, 403}, (method, path)
            continue
        assert (answer.status_code, answer.json()["code"]) == (403, "access.forbidden"), (method, path)
        challenge = answer.headers["www-authenticate"]
        assert challenge.startswith('Bearer realm="oarlock", error="insufficient_scope", scope="')
        assert set(challenge.split('scope="')[1].rstrip('"').split()) == allowed


@pytest.mark.parametrize(("method", "path"), CALLS)
def test_without_a_key_nothing_is_told_not_even_whether_a_job_exists(
    closed: Running, tokens: dict[Scope, str], method: str, path: str
) -> None:
    answer = httpx.request(method, f"{closed.url}{path}?limit=wrong")
    assert (answer.status_code, answer.headers["content-type"]) == (401, "application/problem+json")
    assert answer.json()["code"] == "access.unauthenticated"
    assert answer.headers["www-authenticate"] == 'Bearer realm="oarlock"'


@pytest.mark.parametrize("header", ["Bearer nonsense", "Basic dXNlcjpwYXNz", "Bearer", "oarlock"])
def test_a_header_that_is_no_key_is_refused_and_not_repeated(closed: Running, tokens: dict[Scope, str], header: str) -> None:
    answer = httpx.get(f"{closed.url}/v1/jobs", headers={"Authorization": header})
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert ('error="invalid_token"' in answer.headers["www-authenticate"]) is (header == "Bearer nonsense")
    assert "nonsense" not in answer.text


def test_a_key_is_revoked_at_once(closed: Running, tokens: dict[Scope, str]) -> None:
    keys = KeyStore(closed.service.database)
    _, token = keys.create("leaver", [Scope.JOBS_READ])
    assert httpx.get(f"{closed.url}/v1/jobs", headers=bearer(token)).status_code == 200
    keys.revoke("leaver")
    answer = httpx.get(f"{closed.url}/v1/jobs", headers=bearer(token))
    assert (answer.status_code, answer.json()["code"]) == (401, "access.invalid_token")


@pytest.mark.slow
def test_every_call_says_what_it_needs_but_the_open_ones(closed: Running, tokens: dict[Scope, str]) -> None:
    routes = closed.app.state.routes
    guarded = {route.path for route in routes if any(entry.dependency is admit for entry in route.dependencies)}
    assert {route.path for route in routes} - guarded == OPEN | SIGN_IN
    assert all(
        httpx.get(f"{closed.url}{path.format(job_id='x', name='mark.svg')}").status_code in {200, 503}
        for path in OPEN | {"/openapi.json"}
    )


def test_the_contract_names_the_scopes_and_the_answers_to_strangers(closed: Running, tokens: dict[Scope, str]) -> None:
    document = httpx.get(f"{closed.url}/openapi.json", timeout=30).json()
    assert document["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"
    for (method, path), allowed in CALLS.items():
        for part, template in TEMPLATES.items():
            path = path.replace(part, template)  # noqa: PLW2901
        operation = document["paths"][path][method.lower()]
        wanted = [] if allowed == set(Scope) else sorted(allowed)
        assert sorted(scope for entry in operation["security"] for scope in entry["bearer"]) == wanted, path
        assert {"401", "403", "429"} <= set(operation["responses"])
    for path in ("/livez", "/readyz"):
        assert "security" not in document["paths"][path]["get"]


def test_the_log_names_the_key_and_never_its_secret(
    closed: Running, tokens: dict[Scope, str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    httpx.get(f"{closed.url}/v1/jobs", headers=bearer(tokens[Scope.JOBS_READ]))
    httpx.get(f"{closed.url}/v1/jobs", headers=bearer(tokens[Scope.JOBS_READ] + "x"))
    # A request is noted after its answer has left.
    assert eventually(lambda: [record.getMessage() for record in caplog.records].count("request") == 2, within_s=10)
    stream = io.StringIO()
    for record in caplog.records:
        print(JSONFormatter().format(record), file=stream)
    (key,) = (key for key in KeyStore(closed.service.database).all() if key.name == "jobs-read")
    assert f'"caller": "key:{key.id}"' in stream.getvalue()
    assert tokens[Scope.JOBS_READ][-43:] not in stream.getvalue()


# ── too many calls ────────────────────────────────────────────────────────────────────────────────────────────────────


class Seconds:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_minute_holds_so_many_calls_in_one_burst_and_then_an_even_pace() -> None:
    clock = Seconds()
    limit = RateLimit(6, clock=clock)
    assert [limit.wait_s("a") for _ in range(6)] == [0.0] * 6
    assert limit.wait_s("a") == pytest.approx(10.0)
    assert limit.wait_s("b") == 0.0
    clock.now += 9.0
    assert limit.wait_s("a") == pytest.approx(1.0)
    clock.now += 1.0
    assert limit.wait_s("a") == 0.0
    assert limit.wait_s("a") == pytest.approx(10.0)
    clock.now += 60.0
    assert [limit.wait_s("a") for _ in range(6)] == [0.0] * 6


def test_without_a_limit_nobody_waits() -> None:
    limit = RateLimit(0, clock=Seconds())
    assert not any(limit.wait_s("a") for _ in range(10_000))


def test_callers_that_were_quiet_for_a_minute_are_forgotten() -> None:
    clock = Seconds()
    limit = RateLimit(60, clock=clock)
    for i in range(5_000):
        clock.now += 0.1
        limit.wait_s(f"caller {i}")
    assert len(limit._due) <= 1_001


def test_of_threads_that_call_at_once_exactly_as_many_get_through_as_are_allowed() -> None:
    limit = RateLimit(100, clock=Seconds())
    with ThreadPoolExecutor(8) as pool:
        waits = list(pool.map(lambda _: limit.wait_s("a"), range(400)))
    assert waits.count(0.0) == 100


def test_a_key_that_calls_too_often_is_told_when_to_come_back_and_costs_no_other_key(tmp_path: Path, redis_url: str) -> None:
    write_model(tmp_path / "models")
    with serve(make_settings(tmp_path, redis_url, rate_per_minute=3)) as running:
        keys = KeyStore(running.service.database)
        _, eager = keys.create("eager", [Scope.JOBS_READ])
        _, calm = keys.create("calm", [Scope.JOBS_READ])
        answers = [httpx.get(f"{running.url}/v1/jobs", headers=bearer(eager)) for _ in range(4)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
        assert answers[3].json()["code"] == "access.rate_limited"
        assert 1 <= int(answers[3].headers["retry-after"]) <= 20
        assert httpx.get(f"{running.url}/v1/jobs", headers=bearer(calm)).status_code == 200


# ── beyond loopback ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "oarlock.example"])
def test_a_service_that_others_reach_needs_a_valid_key_to_start(tmp_path: Path, redis_url: str, host: str) -> None:
    settings = make_settings(tmp_path, redis_url, host=host)
    with pytest.raises(KeyMissing, match="oarlock keys create"):
        check_keys(settings)
    database = Database(settings.database)
    keys = KeyStore(database)
    keys.create("first", [Scope.JOBS_READ])
    check_keys(settings)
    keys.revoke("first")
    with pytest.raises(KeyMissing):
        check_keys(settings)
    database.close()


def test_a_service_that_others_reach_needs_tls_or_a_stated_proxy_to_start(tmp_path: Path, redis_url: str) -> None:
    with pytest.raises(NotPrivate, match=r"OARLOCK_TLS_CERTIFICATE.*OARLOCK_TRUSTED_PROXIES.*OARLOCK_PLAIN_HTTP"):
        check_private(make_settings(tmp_path, redis_url, host="0.0.0.0"))
    for enough in ({"tls_certificate": Path("a.pem")}, {"trusted_proxies": ["192.0.2.0/24"]}, {"plain_http": True}):
        check_private(make_settings(tmp_path, redis_url, host="0.0.0.0", **enough))
    check_private(make_settings(tmp_path, redis_url, host="127.0.0.1"))


@pytest.mark.slow
def test_wrong_keys_are_counted_by_address_and_right_ones_pass(tmp_path: Path, redis_url: str) -> None:
    write_model(tmp_path / "models")
    with serve(make_settings(tmp_path, redis_url)) as running, httpx.Client(base_url=running.url, timeout=30) as client:
        _, key = KeyStore(running.service.database).create("planning", [Scope.JOBS_READ])
        assert client.get("/v1/jobs", headers=bearer(key)).status_code == 200
        codes = [
            client.get("/v1/jobs", headers=bearer(f"oarlock_{i:08x}_wrong")).status_code for i in range(WRONG_PER_MINUTE + 5)
        ]
        assert codes[:WRONG_PER_MINUTE] == [401] * WRONG_PER_MINUTE
        assert codes[-1] == 429
        assert client.get("/v1/jobs", headers=bearer(key)).status_code == 200


def test_the_log_names_the_caller_of_a_call_that_was_refused(
    tmp_path: Path, redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    write_model(tmp_path / "models")
    with serve(make_settings(tmp_path, redis_url, rate_per_minute=1)) as running:
        key, token = KeyStore(running.service.database).create("reader", [Scope.JOBS_READ])
        statuses = [httpx.post(f"{running.url}/v1/jobs", headers=bearer(token)).status_code for _ in range(2)]
        assert statuses == [403, 429]
    lines = [record for record in caplog.records if getattr(record, "status", None) in {403, 429}]
    assert [record.caller for record in lines] == [f"key:{key.id}"] * 2  # type: ignore[attr-defined]


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "::1", "localhost"])
def test_loopback_needs_none(tmp_path: Path, redis_url: str, host: str) -> None:
    assert is_loopback(host)
    check_keys(make_settings(tmp_path, redis_url, host=host))


def test_a_service_that_listens_beyond_loopback_is_never_open(tmp_path: Path, redis_url: str) -> None:
    write_model(tmp_path / "models")
    with serve(make_settings(tmp_path, redis_url, host="0.0.0.0")) as running:  # however it was started
        assert httpx.get(f"{running.url}/v1/jobs").status_code == 401

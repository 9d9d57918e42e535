"""Tokens of an identity provider: a real issuer that serves its keys over HTTP, and everything that must not open the door."""

import base64
import hashlib
import hmac
import json
import socket
import threading
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.client import HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm
from pydantic import ValidationError

from oarlock.scopes import Scope
from oarlock.settings import Settings
from oarlock.store.keys import KeyStore
from service.access import oidc
from service.access.oidc import OIDC, IssuerKeys, check_url, fetch_json
from service.errors import InvalidToken, IssuerUnavailable
from tests.service.conftest import make_settings
from tests.service.running import Running, serve, write_model

pytestmark = pytest.mark.slow

AUDIENCE = "oarlock"


@dataclass
class Issuer:
    """An identity provider: makes tokens, and serves a discovery document and its public keys over HTTP on loopback."""

    server: ThreadingHTTPServer
    private: dict[str, Any] = field(default_factory=dict)
    published: list[dict[str, Any]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    codes: dict[str, tuple[str, str]] = field(default_factory=dict)
    """For people who sign in with a browser: the challenge that a code came with, and the token that it is good for."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def publish(self, key_id: str, private: Any, algorithm: Any, name: str) -> None:
        public = algorithm.to_jwk(private.public_key(), as_dict=True)
        self.private[key_id] = (private, name)
        self.published.append(public | {"kid": key_id, "use": "sig", "alg": name})

    def token(self, key_id: str = "rsa", **changes: Any) -> str:
        now = datetime.now(UTC)
        claims = {"iss": self.url, "aud": AUDIENCE, "sub": "u-1", "exp": now + timedelta(minutes=5), "iat": now}
        claims |= {"scope": "openid jobs:read"} | changes
        private, algorithm = self.private[key_id]
        given = {name: value for name, value in claims.items() if value is not None}
        return jwt.encode(given, private, algorithm=algorithm, headers={"kid": key_id})


class Handler(BaseHTTPRequestHandler):
    issuer: Issuer

    def do_GET(self) -> None:
        self.issuer.asked.append(self.path)
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", f"{self.issuer.url}/keys")
            self.end_headers()
            return
        documents = {
            "/.well-known/openid-configuration": {
                "issuer": self.issuer.url,
                "jwks_uri": f"{self.issuer.url}/keys",
                "authorization_endpoint": f"{self.issuer.url}/authorize",
                "token_endpoint": f"{self.issuer.url}/token",
            },
            "/keys": {"keys": self.issuer.published},
        }
        body = b"[" + b" " * 1_000_000 + b"]" if self.path == "/large" else json.dumps(documents[self.path]).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        """Change a code for a token, if its proof key fits (RFC 7636)."""
        sent = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        challenge, token = self.issuer.codes.pop(sent["code"][0], ("", ""))
        proof = base64.urlsafe_b64encode(hashlib.sha256(sent["code_verifier"][0].encode()).digest()).decode().rstrip("=")
        fits = bool(token) and proof == challenge
        body = json.dumps({"access_token": token, "token_type": "Bearer"} if fits else {"error": "invalid_grant"}).encode()
        self.send_response(200 if fits else 400)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def start_issuer() -> Issuer:
    handler = type("Bound", (Handler,), {})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    handler.issuer = Issuer(server)  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return handler.issuer  # type: ignore[attr-defined,no-any-return]


def stop(issuer: Issuer) -> None:
    issuer.server.shutdown()
    issuer.server.server_close()


@pytest.fixture(scope="module")
def issuer() -> Iterator[Issuer]:
    made = start_issuer()
    made.publish("rsa", rsa.generate_private_key(public_exponent=65537, key_size=2048), RSAAlgorithm, "RS256")
    made.publish("ec", ec.generate_private_key(ec.SECP256R1()), ECAlgorithm, "ES256")
    made.publish("ed", ed25519.Ed25519PrivateKey.generate(), OKPAlgorithm, "EdDSA")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # cryptography and PyJWT warn of such keys
        made.publish("weak", rsa.generate_private_key(public_exponent=65537, key_size=1024), RSAAlgorithm, "RS256")
    made.published.append({"kty": "of the future", "kid": "strange"})
    yield made
    stop(made)


@pytest.fixture(scope="module")
def trusting(issuer: Issuer, tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> Iterator[Running]:
    """A service that trusts the issuer."""
    folder = tmp_path_factory.mktemp("trusting")
    write_model(folder / "models")
    changes = {"oidc_issuer": issuer.url, "oidc_audience": AUDIENCE, "oidc_scope_map": {"Physicists": [Scope.QA_READ]}}
    with serve(make_settings(folder, redis_url, **changes)) as running:
        yield running


def ask(running: Running, token: str, path: str = "/v1/jobs") -> httpx.Response:
    return httpx.get(f"{running.url}{path}", headers={"Authorization": f"Bearer {token}"})


@pytest.mark.parametrize("key_id", ["rsa", "ec", "ed"])
def test_a_token_opens_what_its_scopes_say_and_nothing_else(trusting: Running, issuer: Issuer, key_id: str) -> None:
    token = issuer.token(key_id)
    assert ask(trusting, token).status_code == 200
    answer = ask(trusting, token, "/metrics")
    assert (answer.status_code, answer.json()["code"]) == (403, "access.forbidden")


def test_a_service_that_trusts_an_issuer_is_never_open_and_keys_work_beside_tokens(trusting: Running, issuer: Issuer) -> None:
    assert httpx.get(f"{trusting.url}/v1/jobs").status_code == 401
    _, key = KeyStore(trusting.service.database).create("script", [Scope.JOBS_READ])
    assert ask(trusting, key).status_code == 200


def test_the_values_of_another_claim_are_mapped(issuer: Issuer) -> None:
    recogniser = OIDC(
        IssuerKeys(issuer.url, fetch=fetch_json),
        issuer=issuer.url,
        audience=AUDIENCE,
        scope_claim="realm_access.roles",
        scope_map={"Planners": [Scope.JOBS_WRITE, Scope.JOBS_READ]},
    )

    recogniser.keys.refresh_if_wanted()

    def scopes(**claims: Any) -> set[Scope]:
        return set(recogniser.recognise(issuer.token(scope="admin", **claims)).scopes)

    assert scopes(realm_access={"roles": ["Planners", "qa:read", "offline_access", 7]}) == {
        Scope.JOBS_WRITE,
        Scope.JOBS_READ,
        Scope.QA_READ,
    }
    assert scopes(realm_access="jobs:read") == set()
    assert scopes(realm_access={"roles": None}) == set()
    assert scopes() == set()


def test_a_caller_is_named_for_people_and_identified_for_logs(issuer: Issuer) -> None:
    recogniser = OIDC(
        IssuerKeys(issuer.url, fetch=fetch_json), issuer=issuer.url, audience=AUDIENCE, scope_claim="scope", scope_map={}
    )
    recogniser.keys.refresh_if_wanted()
    caller = recogniser.recognise(issuer.token(preferred_username="k.jansen"))
    assert (caller.id, caller.name, caller.scopes) == ("oidc:u-1", "k.jansen", {Scope.JOBS_READ})
    assert recogniser.recognise(issuer.token()).name == "u-1"
    assert len(recogniser.recognise(issuer.token(sub="x" * 9_999)).id) < 300


# ── what must not open the door ───────────────────────────────────────────────────────────────────────────────────────


def test_a_claim_names_the_site_and_only_an_operator_needs_none(issuer: Issuer) -> None:
    recogniser = OIDC(
        IssuerKeys(issuer.url, fetch=fetch_json),
        issuer=issuer.url,
        audience=AUDIENCE,
        scope_claim="scope",
        scope_map={},
        site_claim="clinic.id",
    )
    recogniser.keys.refresh_if_wanted()
    assert recogniser.recognise(issuer.token(scope="jobs:read", clinic={"id": "north"})).site == "north"
    assert recogniser.recognise(issuer.token(scope="admin")).site == ""
    for claims in ({}, {"clinic": {"id": ""}}, {"clinic": {"id": "a/b"}}, {"clinic": {"id": ["north"]}}, {"clinic": "north"}):
        with pytest.raises(InvalidToken):
            recogniser.recognise(issuer.token(scope="jobs:read", **claims))
    with pytest.raises(InvalidToken):  # metrics show what all sites have
        recogniser.recognise(issuer.token(scope="metrics:read", clinic={"id": "north"}))


def minutes(count: float) -> datetime:
    return datetime.now(UTC) + timedelta(minutes=count)


@pytest.mark.parametrize(
    "changes",
    [
        {"exp": minutes(-2)},
        {"nbf": minutes(24 * 60)},
        {"iat": minutes(24 * 60)},
        {"aud": "another-service"},
        {"aud": None},
        {"iss": "https://other.example"},
        {"iss": None},
        {"exp": None},
        {"sub": None},
    ],
)
def test_a_token_that_is_expired_or_for_somebody_else_or_incomplete_is_refused(
    trusting: Running, issuer: Issuer, changes: dict[str, Any]
) -> None:
    answer = ask(trusting, issuer.token(**changes))
    assert (answer.status_code, answer.json()["code"]) == (401, "access.invalid_token")
    assert 'error="invalid_token"' in answer.headers["www-authenticate"]


@pytest.mark.filterwarnings("ignore:The RSA key is 1024 bits long")
def test_a_token_of_an_rsa_key_that_is_too_short_is_refused_though_its_issuer_publishes_it(
    trusting: Running, issuer: Issuer
) -> None:
    assert ask(trusting, issuer.token("weak")).status_code == 401


def encoded(part: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=")


def test_a_token_that_was_changed_unsigned_or_signed_by_others_is_refused(trusting: Running, issuer: Issuer) -> None:
    header, body, signature = issuer.token().split(".")
    claims = jwt.decode(issuer.token(), options={"verify_signature": False})
    stranger = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    public = issuer.private["rsa"][0].public_key()
    pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    forged_mac = jwt.encode(claims, b"x" * 32, algorithm="HS256", headers={"kid": "rsa"}).split(".")
    forged = [
        f"{header}.{encoded(claims | {'scope': 'admin'})}.{signature}",
        f"{encoded({'alg': 'none', 'kid': 'rsa'})}.{body}.",
        jwt.encode(claims, stranger, algorithm="RS256", headers={"kid": "rsa"}),
        jwt.encode(claims, stranger, algorithm="RS256", headers={"kid": "unknown"}),
        jwt.encode(claims, stranger, algorithm="RS256"),
        issuer.token("rsa").replace(header, encoded({"alg": "RS256", "kid": "ec"})),
        _signed_with_the_public_key(claims, pem),
        ".".join(forged_mac),
        "a.b.c",
        "..",
    ]
    for token in forged:
        assert ask(trusting, token).status_code == 401, token


def _signed_with_the_public_key(claims: dict[str, Any], pem: bytes) -> str:
    """The public key, which everybody has, taken for the secret of an HMAC; by hand, as the library refuses to do it."""

    signed = f"{encoded({'alg': 'HS256', 'kid': 'rsa'})}.{encoded(claims)}"
    mac = hmac.new(pem, signed.encode(), hashlib.sha256).digest()
    return f"{signed}.{base64.urlsafe_b64encode(mac).decode().rstrip('=')}"


# ── the issuer's keys ─────────────────────────────────────────────────────────────────────────────────────────────────


class Seconds:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def test_keys_are_fetched_once_and_again_when_old_or_when_a_new_one_is_named_but_not_at_a_strangers_whim(issuer: Issuer) -> None:
    clock = Seconds()
    keys = IssuerKeys(issuer.url, fetch=fetch_json, clock=clock)
    issuer.asked.clear()
    for _ in range(5):
        keys.refresh_if_wanted()
        assert keys.find("rsa") is not None
    assert issuer.asked == ["/.well-known/openid-configuration", "/keys"]
    assert [keys.find(f"stranger {i}") for i in range(100)] == [None] * 100
    keys.refresh_if_wanted()
    assert len(issuer.asked) == 2
    issuer.publish("new", ec.generate_private_key(ec.SECP256R1()), ECAlgorithm, "ES256")
    clock.now += oidc.PAUSE_S
    assert keys.find("new") is None  # a caller does not wait for the issuer
    keys.refresh_if_wanted()
    assert keys.find("new") is not None
    assert len(issuer.asked) == 4
    clock.now += oidc.FRESH_S + 1
    assert keys.find("rsa") is not None
    keys.refresh_if_wanted()
    assert len(issuer.asked) == 6


def test_while_the_issuer_is_away_its_keys_are_used_for_an_hour_and_then_no_token_is_taken() -> None:
    made, clock = start_issuer(), Seconds()
    made.publish("ec", ec.generate_private_key(ec.SECP256R1()), ECAlgorithm, "ES256")
    keys = IssuerKeys(made.url, fetch=fetch_json, clock=clock)
    keys.refresh_if_wanted()
    assert keys.find("ec") is not None
    stop(made)
    clock.now += oidc.STALE_S - 1
    assert keys.find("ec") is not None
    keys.refresh_if_wanted()
    clock.now += 2
    with pytest.raises(IssuerUnavailable):
        keys.find("ec")


@pytest.fixture
def slow_issuer() -> Iterator[str]:
    """An issuer that answers a byte every tenth of a second, so that no read ever times out."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.2)
        stopped = threading.Event()

        def drip() -> None:
            with ExitStack() as opened:
                connections: list[socket.socket] = []
                while not stopped.wait(0.1):
                    with suppress(TimeoutError):
                        connections.append(opened.enter_context(listener.accept()[0]))
                    for connection in connections:
                        with suppress(OSError):
                            connection.sendall(b"H")

        thread = threading.Thread(target=drip)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        stopped.set()
        thread.join()


def test_a_document_that_drips_is_given_up_at_its_deadline(slow_issuer: str) -> None:
    began = time.monotonic()
    with pytest.raises((OSError, HTTPException)):
        fetch_json(slow_issuer, deadline_s=0.5)
    assert time.monotonic() - began < 5


def test_a_slow_issuer_keeps_nobody_waiting(
    tmp_path: Path, redis_url: str, slow_issuer: str, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(oidc.fetch_json, "__kwdefaults__", {"deadline_s": 1.0})
    monkeypatch.setattr(oidc, "PAUSE_S", 0.0)
    write_model(tmp_path / "models")
    settings = make_settings(tmp_path, redis_url, oidc_issuer=slow_issuer, oidc_audience=AUDIENCE)
    with serve(settings) as running, ThreadPoolExecutor(60) as strangers:
        answers = [strangers.submit(ask, running, issuer.token()) for _ in range(60)]
        began = time.monotonic()
        httpx.get(f"{running.url}/readyz", timeout=30)
        assert time.monotonic() - began < 3  # it was 8.7 s, and more
        assert {answer.result().status_code for answer in answers} == {503}


def test_a_token_without_a_subject_is_not_valid(trusting: Running, issuer: Issuer) -> None:
    for subject in ("", None):
        answer = ask(trusting, issuer.token(sub=subject))
        assert (answer.status_code, answer.json()["code"]) == (401, "access.invalid_token")


def test_an_issuer_that_never_answered_is_a_503_and_keys_still_work(tmp_path: Path, redis_url: str, issuer: Issuer) -> None:
    write_model(tmp_path / "models")
    settings = make_settings(tmp_path, redis_url, oidc_issuer="http://127.0.0.1:1", oidc_audience=AUDIENCE)
    with serve(settings) as running:
        answer = ask(running, issuer.token())
        assert (answer.status_code, answer.json()["code"]) == (503, "access.issuer_unavailable")
        assert "retry-after" in answer.headers
        _, key = KeyStore(running.service.database).create("script", [Scope.JOBS_READ])
        assert ask(running, key).status_code == 200


def test_an_issuer_that_calls_itself_otherwise_is_not_believed(issuer: Issuer) -> None:
    keys = IssuerKeys(issuer.url + "/", fetch=fetch_json)
    keys.refresh_if_wanted()
    with pytest.raises(IssuerUnavailable):
        keys.find("rsa")


@pytest.mark.parametrize("broken", ["not a key", None, {"kty": "oct", "k": "AA", "kid": ["rsa"]}, {"kty": "RSA", "kid": "rsa2"}])
def test_a_key_that_cannot_be_read_does_not_keep_the_others_out(
    issuer: Issuer, broken: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(issuer, "published", [broken, *issuer.published])
    keys = IssuerKeys(issuer.url, fetch=fetch_json)
    keys.refresh_if_wanted()
    assert keys.find("rsa") is not None


@pytest.mark.parametrize("path", ["/moved", "/large"])
def test_a_document_that_leads_elsewhere_or_never_ends_is_not_read(issuer: Issuer, path: str) -> None:
    with pytest.raises(OSError, match=r"302|too large"):
        fetch_json(issuer.url + path)


@pytest.mark.parametrize("url", ["http://idp.example", "file:///etc/passwd", "ftp://127.0.0.1", "idp.example"])
def test_an_issuer_without_tls_is_trusted_on_this_machine_alone(url: str) -> None:
    with pytest.raises(ValueError, match="https"):
        check_url(url)


def test_an_issuer_without_an_audience_is_refused_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OARLOCK_OIDC_ISSUER", "https://idp.example")
    with pytest.raises(ValidationError, match="OARLOCK_OIDC_AUDIENCE"):
        Settings()
    monkeypatch.setenv("OARLOCK_OIDC_AUDIENCE", AUDIENCE)
    monkeypatch.setenv("OARLOCK_OIDC_SCOPE_MAP", '{"Physicists": ["jobs:read", "qa:read"]}')
    assert Settings().oidc_scope_map == {"Physicists": [Scope.JOBS_READ, Scope.QA_READ]}


def test_a_broken_token_is_no_error_of_ours(issuer: Issuer) -> None:
    recogniser = OIDC(
        IssuerKeys(issuer.url, fetch=fetch_json), issuer=issuer.url, audience=AUDIENCE, scope_claim="scope", scope_map={}
    )
    for token in ("", ".", "..", "é.é.é", f"{encoded({'alg': 'RS256', 'kid': 7})}.{encoded({})}.", "e30.e30.e30"):
        with pytest.raises(InvalidToken):
            recogniser.recognise(token)

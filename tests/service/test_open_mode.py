"""A service without keys answers programs of this machine, and no web page; names of the server are checked in every mode."""

import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from oarlock.scopes import Scope
from oarlock.store.keys import KeyStore
from service.access.hosts import host_name
from tests.service.conftest import make_settings
from tests.service.running import Running, parts, serve, write_model

JOB = "/v1/jobs/0e9c1f9a-7a49-4d0c-9f0e-3c1f6a1f2f11"


def port_of(running: Running) -> int:
    return int(running.url.rsplit(":", 1)[1])


@pytest.mark.parametrize("host", ["rebound.evil.example", "evil.example:80", "localhost.evil.example", "0.0.0.0", "[::2]", "a"])
@pytest.mark.parametrize("path", ["/v1/jobs", f"{JOB}/rtstruct", "/v1/qa/scores", "/metrics"])
def test_a_name_that_was_rebound_to_this_machine_opens_nothing(running: Running, path: str, host: str) -> None:
    answer = httpx.get(f"{running.url}{path}", headers={"Host": host})
    assert (answer.status_code, answer.json()["code"]) == (403, "access.host_not_allowed")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3:9", "localhost", "LOCALHOST:{port}", "[::1]:{port}"])
def test_this_machine_s_own_names_are_answered(running: Running, host: str) -> None:
    answer = httpx.get(f"{running.url}/v1/jobs", headers={"Host": host.format(port=port_of(running))})
    assert answer.status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "http://["},
        {"Origin": "http://{own}]"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "http://{own}", "Sec-Fetch-Site": "cross-site"},
    ],
)
def test_a_form_that_another_page_posts_is_refused_before_it_is_read(
    running: Running, series: list[Path], headers: dict[str, str]
) -> None:
    own = running.url.removeprefix("http://")
    sent = {name: value.format(own=own) for name, value in headers.items()}
    for path, files in (("/v1/jobs", parts(series[:5])), (f"{JOB}/cancel", None), (f"{JOB}/retry", None)):
        answer = httpx.post(f"{running.url}{path}", files=files, headers=sent, timeout=30)
        assert (answer.status_code, answer.json()["code"]) == (403, "access.cross_site")


def test_a_page_of_the_server_itself_and_a_typed_address_are_answered(running: Running) -> None:
    own = {"Origin": running.url, "Sec-Fetch-Site": "same-origin"}
    assert httpx.get(f"{running.url}/v1/jobs", headers=own).status_code == 200
    assert httpx.get(f"{running.url}/v1/jobs", headers={"Sec-Fetch-Site": "none"}).status_code == 200


def raw(running: Running, request: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port_of(running)), timeout=10) as connection:
        connection.sendall(request)
        answer = b""
        while piece := connection.recv(65_536):
            answer += piece
    return answer


@pytest.mark.parametrize(
    "line", [b"", b"Host:\r\n", b"Host: [\r\n", b"Host: a/b?c\r\n", b"Host: x@y:z\r\n", b"Host: a\r\nHost: b\r\n"]
)
def test_a_host_that_is_missing_malformed_or_doubled_is_refused_everywhere(running: Running, line: bytes) -> None:
    answer = raw(running, b"GET /livez HTTP/1.1\r\n" + line + b"Connection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 403 ")
    assert b"access.host_not_allowed" in answer


@pytest.mark.parametrize("path", ["/v1/jobs%0a", "/v1/jobs%00", "/livez%0d", "/v1%09/jobs"])
def test_an_address_with_a_control_character_leads_nowhere(running: Running, path: str) -> None:
    answer = httpx.get(f"{running.url}{path}")
    assert (answer.status_code, answer.json()["code"]) == (404, "request.not_found")


@pytest.fixture
def named(tmp_path: Path, redis_url: str) -> Iterator[Running]:
    write_model(tmp_path / "models")
    with serve(make_settings(tmp_path, redis_url, allowed_hosts=["oarlock.example"])) as running:
        yield running


def test_a_server_with_names_answers_to_them_and_to_this_machine_s_alone_also_with_keys(named: Running) -> None:
    _, key = KeyStore(named.service.database).create("planning", [Scope.JOBS_READ])
    bearer = {"Authorization": f"Bearer {key}"}
    for host, status in (("oarlock.example", 200), ("OARLOCK.example:8443", 200), ("127.0.0.1", 200), ("other.example", 403)):
        assert httpx.get(f"{named.url}/v1/jobs", headers=bearer | {"Host": host}).status_code == status, host


def test_a_key_makes_any_well_formed_name_and_origin_good_where_no_names_are_set(tmp_path: Path, redis_url: str) -> None:
    write_model(tmp_path / "models")
    with serve(make_settings(tmp_path, redis_url)) as running:
        _, key = KeyStore(running.service.database).create("planning", [Scope.JOBS_READ])
        headers = {"Authorization": f"Bearer {key}", "Host": "planning.example", "Origin": "https://dashboard.example"}
        assert httpx.get(f"{running.url}/v1/jobs", headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("a.example:80", "a.example"),
        ("A.", "a"),
        ("[::1]", "::1"),
        ("[::1]:80", "::1"),
        ("a b", None),
        ("a:b", None),
        (None, None),
    ],
)
def test_the_name_in_a_host_header(header: str | None, name: str | None) -> None:
    assert host_name(header) == name

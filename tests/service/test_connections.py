"""Limits of a connection that hold before a caller is known."""

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from service import connection
from service.access import bodies
from service.api.openapi import JOB_ID
from tests.fixtures.processes import eventually
from tests.service.conftest import make_settings
from tests.service.running import Running, parts, serve, write_model

pytestmark = pytest.mark.slow


@pytest.fixture
def own(tmp_path: Path, redis_url: str) -> Iterator[Running]:
    write_model(tmp_path / "models")
    with serve(make_settings(tmp_path, redis_url, connections_per_address=8)) as running:
        yield running


@contextmanager
def connected(running: Running) -> Iterator[socket.socket]:
    host, port = running.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as opened:
        yield opened


def answer_to(opened: socket.socket, pieces: Iterator[bytes]) -> tuple[bytes, int]:
    """What is answered until the connection is closed, and how many bytes could be sent until then."""
    sent, answer = 0, b""
    try:
        for piece in pieces:
            opened.sendall(piece)
            sent += len(piece)
    except OSError:
        pass
    try:
        while data := opened.recv(65_536):
            answer += data
    except OSError:
        pass
    return answer, sent


def without_end(head: bytes, more: bytes, total: int = 20_000_000) -> Iterator[bytes]:
    yield head
    for _ in range(total // len(more)):
        yield more


@pytest.mark.parametrize(
    ("head", "more"),
    [
        (b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: ", b"a" * 65_536),
        (b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n", b"X: y\r\n" * 10_922),
        (b"GET /", b"a" * 65_536),
        (b"POST /v1/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n5;", b"a" * 65_536),
        (b"POST /v1/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"X: y\r\n" * 10_922),
        (b"", b"\r\n" * 32_768),
    ],
    ids=["value", "lines", "address", "chunk extension", "trailers", "blank lines"],
)
def test_what_never_ends_is_cut_off_early(own: Running, head: bytes, more: bytes) -> None:
    with connected(own) as opened:
        _, sent = answer_to(opened, without_end(head, more))
    assert sent < 20_000_000  # what the buffers of two sockets hold, and no more
    assert httpx.get(f"{own.url}/livez", timeout=10).status_code == 200


@pytest.mark.parametrize(("spare", "status"), [(200, 200), (-1, 431)])
def test_a_head_may_have_64_kib_and_not_a_byte_more(own: Running, spare: int, status: int) -> None:
    lines = [b"Host: 127.0.0.1", b"Connection: close", b"X: "]
    counted = len(b"/livez") + sum(len(line) - 2 + 4 for line in lines)  # a name, a value, and four bytes around them
    filled = b"a" * (connection.HEAD_BYTES - counted - spare)
    with connected(own) as opened:
        answer, _ = answer_to(opened, iter([b"GET /livez HTTP/1.1\r\n" + b"\r\n".join(lines) + filled + b"\r\n\r\n"]))
    assert answer.startswith(f"HTTP/1.1 {status} ".encode())


def test_half_a_head_is_waited_for_ten_seconds_at_most(own: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    assert connection.HEAD_S == 10
    monkeypatch.setattr(connection, "HEAD_S", 0.3)
    with connected(own) as opened:
        began = time.monotonic()
        answer, _ = answer_to(opened, iter([b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\nX-"]))
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert time.monotonic() - began < 5
    with connected(own) as opened:
        assert answer_to(opened, iter([]))[0].startswith(b"HTTP/1.1 408 ")  # not a byte is half a head, too


CALLS = [f"/v1/jobs/{JOB_ID}/reviews", "/v1/retrievals", "/sign-in"]


@pytest.mark.parametrize("path", CALLS)
def test_a_stranger_s_body_is_refused_before_it_is_read(path: str, own: Running) -> None:
    """By its announced length at once, else as soon as more than 1 MiB has come."""
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nConnection: close\r\n"
    with connected(own) as opened:
        opened.sendall(f"{head}Content-Length: {bodies.LARGEST_BYTES + 1}\r\n\r\n".encode())
        assert opened.recv(65_536).startswith(b"HTTP/1.1 413 ")
    chunk = b"10000\r\n" + b" " * 65_536 + b"\r\n"
    for chunks, refused in ((17, True), (16, False)):  # 16 chunks are exactly 1 MiB
        with connected(own) as opened:
            sent = [f"{head}Transfer-Encoding: chunked\r\n\r\n".encode(), *[chunk] * chunks, b"0\r\n\r\n"]
            answer, _ = answer_to(opened, iter(sent))
            assert answer.startswith(b"HTTP/1.1 413 ") is refused, answer[:80]


@pytest.mark.parametrize("path", CALLS)
def test_half_a_body_is_waited_for_so_long_and_no_longer(path: str, own: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    assert bodies.LONGEST_S == 20
    monkeypatch.setattr(bodies, "LONGEST_S", 0.3)
    with connected(own) as opened:
        opened.sendall(f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000\r\n\r\n{{".encode())
        began = time.monotonic()
        assert opened.recv(65_536).startswith(b"HTTP/1.1 408 ")
        assert time.monotonic() - began < 5


def test_a_second_request_on_a_connection_has_its_own_head_and_time(own: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "HEAD_S", 0.5)
    request = b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    with connected(own) as opened:
        for _ in range(4):
            time.sleep(0.2)
            opened.sendall(request)
            answer = opened.recv(65_536)
            while not answer.endswith(b"}"):  # head and body may come one after the other
                answer += opened.recv(65_536)
            assert answer.startswith(b"HTTP/1.1 200 ")
        answer, _ = answer_to(opened, iter([request[:20]]))
        assert answer.startswith(b"HTTP/1.1 408 ")


def test_an_empty_line_behind_a_request_does_not_cut_off_an_answer_that_takes_long(
    running: Running, client: httpx.Client, series: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = client.post("/v1/jobs", files=parts(series[:5])).json()["id"]
    monkeypatch.setattr(connection, "HEAD_S", 0.3)
    with connected(running) as opened:
        opened.sendall(f"GET /v1/jobs/{job}/events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        assert opened.recv(65_536).startswith(b"HTTP/1.1 200 ")
        opened.sendall(b"\r\n")
        time.sleep(1.0)
        assert client.post(f"/v1/jobs/{job}/cancel").status_code == 202
        answer = b""
        while b"event: end" not in answer:
            piece = opened.recv(65_536)
            assert piece, "the stream was cut off"
            answer += piece


def test_an_address_has_so_many_connections_and_more_when_some_have_left(own: Running) -> None:
    host, port = own.url.removeprefix("http://").split(":")
    held = [socket.create_connection((host, int(port)), timeout=20) for _ in range(8)]
    try:
        assert eventually(lambda: _is_shut_out(own), within_s=10)
    finally:
        for opened in held:
            opened.close()
    assert eventually(lambda: not _is_shut_out(own), within_s=10)


def _is_shut_out(running: Running) -> bool:
    try:
        return httpx.get(f"{running.url}/livez", timeout=10).status_code != 200
    except httpx.TransportError:
        return True


@pytest.mark.parametrize(
    ("address", "exempt"),
    [("10.1.2.3", True), ("::ffff:10.1.2.3", True), ("::ffff:11.1.2.3", False), ("fd00::1", True), ("", True)],
)
def test_a_proxy_is_known_by_its_address_also_where_one_socket_hears_both_kinds(address: str, *, exempt: bool) -> None:
    protocol = connection.limited(1, ["10.0.0.0/8", "fd00::/8"])
    assert protocol._is_exempt(protocol.__new__(protocol), address) is exempt


def test_a_stated_proxy_speaks_for_many_and_has_no_such_limit(tmp_path: Path, redis_url: str) -> None:
    write_model(tmp_path / "models")
    settings = make_settings(tmp_path, redis_url, connections_per_address=2, trusted_proxies=["127.0.0.0/8"])
    with serve(settings) as running:
        host, port = running.url.removeprefix("http://").split(":")
        held = [socket.create_connection((host, int(port)), timeout=20) for _ in range(8)]
        assert not _is_shut_out(running)
        for opened in held:
            opened.close()

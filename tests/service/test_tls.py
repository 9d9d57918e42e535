"""TLS, mutual TLS, and proxies: real certificates, real handshakes, a real nginx."""

import logging
import os
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from pydantic import ValidationError

from oarlock.scopes import Scope
from oarlock.settings import Settings
from oarlock.store.keys import KeyStore
from tests.fixtures.certificates import Authority, Pair
from tests.fixtures.processes import eventually, free_port, listens
from tests.service.conftest import make_settings
from tests.service.running import parts, serve, write_model

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def house_ca(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("house"), "house")


@pytest.fixture(scope="module")
def strangers_ca(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("strangers"), "strangers")


@pytest.fixture(scope="module")
def server_pair(house_ca: Authority) -> Pair:
    return house_ca.vouch("server", server=True)


@pytest.fixture(scope="module")
def client_pair(house_ca: Authority) -> Pair:
    return house_ca.vouch("client", server=False)


def tls_settings(folder: Path, redis_url: str, server: Pair, **changes: object) -> Settings:
    write_model(folder / "models")
    return make_settings(folder, redis_url, tls_certificate=server.certificate, tls_key=server.key, **changes)


def refused(call: object) -> bool:
    return isinstance(call, (httpx.ConnectError, httpx.ReadError, httpx.RemoteProtocolError))


def get(url: str, context: ssl.SSLContext) -> httpx.Response | Exception:
    try:
        return httpx.get(url, verify=context)
    except httpx.TransportError as error:
        return error


def test_with_a_certificate_the_service_speaks_tls_and_nothing_older_than_1_2(
    tmp_path: Path, redis_url: str, house_ca: Authority, strangers_ca: Authority, server_pair: Pair, series: list[Path]
) -> None:
    trusting = house_ca.trusted_by_client()
    with serve(tls_settings(tmp_path, redis_url, server_pair), tls=trusting) as running:
        assert running.url.startswith("https://")
        posted = httpx.post(f"{running.url}/v1/jobs", files=parts(series[:5]), verify=trusting)
        assert posted.status_code == 202
        assert refused(get(f"{running.url}/livez", strangers_ca.trusted_by_client()))
        with pytest.raises(httpx.TransportError):
            httpx.get(running.url.replace("https", "http") + "/livez")
        old = house_ca.trusted_by_client()
        old.set_ciphers("DEFAULT@SECLEVEL=0")  # the client itself would refuse otherwise, and the test say nothing of the server
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            old.maximum_version = ssl.TLSVersion.TLSv1_1
        assert refused(get(f"{running.url}/livez", old))


def test_mutual_tls_lets_in_who_shows_a_certificate_of_the_house_and_keys_decide_what_he_may(
    tmp_path: Path, redis_url: str, house_ca: Authority, strangers_ca: Authority, server_pair: Pair, client_pair: Pair
) -> None:
    known = house_ca.trusted_by_client(client_pair)
    settings = tls_settings(tmp_path, redis_url, server_pair, tls_client_ca=house_ca.certificate)
    with serve(settings, tls=known) as running:
        url = f"{running.url}/v1/jobs"
        assert httpx.get(url, verify=known).status_code == 200
        assert refused(get(url, house_ca.trusted_by_client()))
        assert refused(get(url, house_ca.trusted_by_client(strangers_ca.vouch("stranger", server=False))))
        assert refused(get(f"{running.url}/livez", house_ca.trusted_by_client()))
        _, key = KeyStore(running.service.database).create("script", [Scope.JOBS_READ])
        assert httpx.get(url, verify=known).status_code == 401
        assert httpx.get(url, verify=known, headers={"Authorization": f"Bearer {key}"}).status_code == 200


# ── whose word is taken for an address ────────────────────────────────────────────────────────────────────────────────


def addresses(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [str(vars(record)["address"]) for record in caplog.records if record.getMessage() == "request"]


@pytest.mark.parametrize(
    ("proxies", "believed"),
    [([], False), (["127.0.0.1/32"], True), (["127.0.0.0/8"], True), (["192.0.2.0/24"], False)],
)
def test_a_forwarded_address_counts_from_a_stated_proxy_alone(
    tmp_path: Path, redis_url: str, caplog: pytest.LogCaptureFixture, proxies: list[str], believed: bool
) -> None:
    write_model(tmp_path / "models")
    caplog.set_level(logging.INFO)
    with serve(make_settings(tmp_path, redis_url, trusted_proxies=proxies)) as running:
        caplog.clear()
        httpx.get(f"{running.url}/v1/jobs", headers={"X-Forwarded-For": "198.51.100.7"})
    assert addresses(caplog) == ["198.51.100.7" if believed else "127.0.0.1"]


def test_proxies_are_addresses_and_certificates_come_with_their_keys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OARLOCK_TRUSTED_PROXIES", " 127.0.0.1, 10.1.0.0/16,2001:db8::1 ")
    assert Settings().trusted_proxies == ["127.0.0.1/32", "10.1.0.0/16", "2001:db8::1/128"]
    for wrong in ("*", "proxy.example", "10.1.0.0/99", "10.1.2.3/16"):
        monkeypatch.setenv("OARLOCK_TRUSTED_PROXIES", wrong)
        with pytest.raises(ValidationError):
            Settings()
    monkeypatch.delenv("OARLOCK_TRUSTED_PROXIES")
    for alone in ("OARLOCK_TLS_CERTIFICATE", "OARLOCK_TLS_KEY", "OARLOCK_TLS_CLIENT_CA"):
        with monkeypatch.context() as only:
            only.setenv(alone, str(tmp_path / "x.pem"))
            with pytest.raises(ValidationError, match="OARLOCK_TLS_KEY"):
                Settings()


# ── behind nginx ──────────────────────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def nginx(folder: Path, upstream: str, ca: Authority, server: Pair) -> Iterator[str]:
    """The proxy of ``docs/nginx.conf``, with this test's files and ports in the place of the documented ones."""
    program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        pytest.skip("nginx is not installed (apt-get install nginx-light)")
    port = free_port()
    replaced = {
        "listen 443": f"listen 127.0.0.1:{port}",
        "/etc/oarlock/tls/server.pem": str(server.certificate),
        "/etc/oarlock/tls/server.key": str(server.key),
        "/etc/oarlock/tls/clients.pem": str(ca.certificate),
        "http://127.0.0.1:8000": upstream,
    }
    documented = (ROOT / "docs" / "nginx.conf").read_text(encoding="utf-8")
    for word, other in replaced.items():
        assert documented.count(word) == 1
        documented = documented.replace(word, other)
    temporary = "\n".join(f"{kind}_temp_path {folder};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    (folder / "nginx.conf").write_text(
        f"pid {folder}/pid; error_log {folder}/error.log; {'user root;' if os.getuid() == 0 else ''} events {{}}\n"
        f"http {{ access_log off; {temporary}\n{documented} }}"
    )
    command = [program, "-p", folder, "-c", folder / "nginx.conf", "-g", "daemon off;"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        assert eventually(lambda: process.poll() is not None or listens(port), within_s=20)
        assert process.poll() is None, (folder / "error.log").read_text()
        yield f"https://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def test_the_documented_proxy_asks_for_certificates_and_says_who_called(
    tmp_path: Path,
    redis_url: str,
    house_ca: Authority,
    server_pair: Pair,
    client_pair: Pair,
    series: list[Path],
    caplog: pytest.LogCaptureFixture,
) -> None:
    write_model(tmp_path / "models")
    caplog.set_level(logging.INFO)
    known = house_ca.trusted_by_client(client_pair)
    with (
        serve(make_settings(tmp_path, redis_url, trusted_proxies=["127.0.0.1/32"])) as running,
        nginx(tmp_path, running.url, house_ca, server_pair) as url,
    ):
        posted = httpx.post(f"{url}/v1/jobs", files=parts(series[:5]), verify=known)
        assert posted.status_code == 202
        job = f"{url}{posted.json()['links']['self']}"
        spoofed = {"X-Forwarded-For": "198.51.100.7"}
        assert httpx.get(job, verify=known, headers=spoofed).json()["state"] == "queued"
        # A request is noted after its answer has left. The proxy replaces what a caller would like to be.
        assert eventually(lambda: len(addresses(caplog)) >= 2, within_s=10)
        assert set(addresses(caplog)) == {"127.0.0.1"}
        stranger = get(job, house_ca.trusted_by_client())
        assert isinstance(stranger, httpx.Response)
        assert (stranger.status_code, "No required SSL certificate" in stranger.text) == (400, True)
        httpx.post(f"{job}/cancel", verify=known)
        with httpx.stream("GET", f"{job}/events", verify=known) as stream:
            assert "event: end" in "".join(stream.iter_text())

"""The embedded worker and Redis: what they are given, and what is said of a worker that cannot start."""

import base64
import json
import logging
import os
import stat
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from oarlock.settings import Settings
from service.embedded import supervisor as embedded
from service.embedded.redis_server import PrivateRedis
from service.embedded.supervisor import Supervisor, companions, worker_environment
from tests.fixtures.processes import eventually
from tests.service.conftest import make_settings
from tests.service.running import serve, write_model

pytestmark = pytest.mark.slow

SECRET = "whsec_" + base64.b64encode(b"x" * 32).decode()
SET = {
    "OARLOCK_ALLOWED_HOSTS": "oarlock.example",
    "OARLOCK_CORS_ORIGINS": "https://dashboard.example",
    "OARLOCK_CALLBACK_HOSTS": "tps.example",
    "OARLOCK_CALLBACK_NETWORKS": "10.20.0.0/16",
    "OARLOCK_CALLBACK_SECRETS": SECRET,
    "OARLOCK_DEIDENTIFY_KEY": base64.urlsafe_b64encode(b"k" * 32).decode(),
    "OARLOCK_OIDC_AUDIENCE": "oarlock",
    "OARLOCK_OIDC_ISSUER": "https://idp.example",
    "OARLOCK_OIDC_SCOPE_CLAIM": "roles",
    "OARLOCK_OIDC_SCOPE_MAP": json.dumps({"Physicists": ["qa:read"]}),
    "OARLOCK_OIDC_SITE_CLAIM": "clinic",
    "OARLOCK_OIDC_CLIENT_ID": "oarlock-pages",
    "OARLOCK_OIDC_CLIENT_SECRET": "secret",
    "OARLOCK_TLS_CERTIFICATE": "a.pem",
    "OARLOCK_TLS_CLIENT_CA": "b.pem",
    "OARLOCK_TLS_KEY": "c.pem",
    "OARLOCK_TRUSTED_PROXIES": "192.0.2.1",
    "OARLOCK_PLAIN_HTTP": "true",
    "OARLOCK_KEEP_INPUT": "30d",
    "OARLOCK_KEEP_RESULTS": "1d",
    "OARLOCK_ALIVE_FILE": "alive",
    "OARLOCK_SITE_FILE": "site.toml",
    "OARLOCK_SITES": "sites",
    "OARLOCK_TIME_ZONE": "Europe/Amsterdam",
    "OARLOCK_PROFILES": "profiles",
    "OARLOCK_SHADOW": "north=candidate",
    "OARLOCK_BACKENDS": "tf32",
    "OARLOCK_BACKEND_SCAN": ".",
}
"""A value for each setting without a default, and for those that make one another necessary; the scan's folder must exist."""


def test_the_environment_of_the_worker_is_valid_with_every_setting_set_and_holds_no_secret(
    tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    unset = {f"OARLOCK_{name.upper()}" for name, field in Settings.model_fields.items() if field.default in (None, [], {})}
    assert unset - {"OARLOCK_REDIS_URL", "OARLOCK_DATABASE_URL"} <= set(SET)
    for name, value in SET.items():
        monkeypatch.setenv(name, value)
    Settings()  # valid for the service
    given = worker_environment(make_settings(tmp_path, redis_url))
    command = [sys.executable, "-c", "from oarlock.settings import Settings; print(Settings().keep_input)"]
    run = subprocess.run(command, env=given, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout.strip()) == (0, str(30 * 86_400)), run.stderr
    assert not {SECRET, SET["OARLOCK_DEIDENTIFY_KEY"]} & set(given.values())


def test_a_child_that_cannot_start_is_said_once_and_tried_ever_less_often(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(embedded, "RESTART_S", 0.02)
    starts: list[None] = []

    def start() -> "subprocess.Popen[bytes]":
        starts.append(None)
        return subprocess.Popen(["sh", "-c", "exit 3"])

    caplog.set_level(logging.WARNING)
    supervisor = Supervisor()
    supervisor.add("worker", start)
    supervisor.start()
    assert eventually(lambda: supervisor.failing() == {"worker": 3}, within_s=20)
    assert eventually(lambda: len(starts) >= 6, within_s=30)
    supervisor.stop()
    errors = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert errors == ["child process cannot start; it is tried again less and less often"]


@pytest.mark.long("matrix")
def test_readyz_says_why_the_embedded_worker_does_not_start(
    tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "RESTART_S", 0.02)
    write_model(tmp_path / "models")
    settings = make_settings(tmp_path, redis_url, embedded_worker=True)
    monkeypatch.setenv("OARLOCK_MODEL", "nope")  # of which there is none
    with companions(settings) as beside:
        assert eventually(lambda: beside.worker_problem() is not None, within_s=120)
        with serve(settings, worker_problem=beside.worker_problem) as running:
            detail = httpx.get(f"{running.url}/readyz", timeout=30).json()["detail"]
    assert "the embedded worker ends with status 1 each time it starts: Oarlock's worker cannot start:" in detail
    assert "nope" in detail


def test_the_socket_of_the_private_redis_lies_where_nobody_else_may_enter_and_its_folder_goes_with_it(tmp_path: Path) -> None:
    server = PrivateRedis(tmp_path / "redis")
    other = PrivateRedis(tmp_path / "redis")
    assert server.url != other.url  # not a name that somebody could take first
    folder = Path(server.url.removeprefix("unix://")).parent
    with server.running():
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert folder.stat().st_uid == os.getuid()
    assert not folder.exists()
    other.remove()


def test_the_socket_folder_of_a_run_that_was_killed_goes_at_the_next_start(tmp_path: Path) -> None:
    killed = PrivateRedis(tmp_path / "redis")
    process = killed.start()
    killed.wait_until_ready()
    process.kill()
    process.wait()
    left = Path(killed.url.removeprefix("unix://")).parent
    assert left.exists()
    with PrivateRedis(tmp_path / "redis").running():
        assert not left.exists()

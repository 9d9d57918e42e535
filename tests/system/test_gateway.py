"""The gateway against programs that no one here wrote: dcmtk and Orthanc, in a network of their own."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import sleep
from typing import Any

import httpx
import pytest

from gateway.configuration import Configuration
from gateway.running import Gateway
from gateway.settings import GatewaySettings
from service.embedded.redis_server import PrivateRedis
from tests.fixtures.organs import write_series
from tests.fixtures.private_network import private_network
from tests.fixtures.processes import eventually
from tests.service.conftest import make_settings
from tests.service.running import Running, serve, write_model

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def alone() -> Iterator[None]:
    if shutil.which("storescu") is None:
        pytest.skip("dcmtk is not installed (apt-get install dcmtk)")
    with private_network():
        yield


@pytest.fixture(scope="module")
def service(alone: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("service")
    write_model(folder / "models")
    with (
        PrivateRedis(tmp_path_factory.mktemp("redis")).running() as redis_url,
        serve(make_settings(folder, redis_url, lease_s=3600)) as running,
    ):
        yield running


def settings_of(folder: Path, service: Running, **changes: Any) -> GatewaySettings:
    values: dict[str, Any] = {"data": folder / "gateway", "port": 0, "service": service.url, "metrics_port": None}
    values |= {"settled_s": 0.2, "quiet_s": 60.0, "min_free_bytes": 0}
    return GatewaySettings(**values | changes)


@contextmanager
def gateway_on(folder: Path, service: Running, configuration: Configuration | None = None, **changes: Any) -> Iterator[Gateway]:
    gateway = Gateway(settings_of(folder, service, **changes), configuration or Configuration())
    try:
        with gateway.running():
            yield gateway
    finally:
        gateway.close()


def store_files(gateway: Gateway, *paths: Path, called: str = "OARLOCK", options: tuple[str, ...] = ()) -> int:
    command = ["storescu", "-aec", called, *options, "127.0.0.1", str(gateway.receiver.ports[0]), *map(str, paths)]
    return subprocess.run(command, check=False, capture_output=True, timeout=60).returncode


def jobs_of(service: Running, series_uid: str) -> list[dict[str, Any]]:
    answer = httpx.get(f"{service.url}/v1/jobs", params={"series_instance_uid": series_uid}).raise_for_status()
    return list(answer.json()["jobs"])


def test_a_series_that_storescu_sends_becomes_one_job_at_once(service: Running, tmp_path: Path) -> None:
    series = write_series(tmp_path / "ct", seed="at once")
    uid = series.header.series_instance_uid
    with gateway_on(tmp_path, service) as gateway:
        assert (
            subprocess.run(["echoscu", "-aec", "OARLOCK", "127.0.0.1", str(gateway.receiver.ports[0])], check=False).returncode
            == 0
        )
        assert store_files(gateway, *series.files) == 0
        assert eventually(lambda: len(jobs_of(service, uid)) == 1, within_s=10)
        assert store_files(gateway, *series.files) == 0
        sleep(1)
    (job,) = jobs_of(service, uid)
    assert job["series"]["slices"] == len(series.files)

"""A service and a small CT series for it."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import redis

from oarlock.ct.writer import write_ct_series
from oarlock.settings import Settings
from service.monitoring import health
from tests.fixtures.crooked import crooked_grid, crooked_hu
from tests.service.running import Running, serve, write_model


def make_settings(folder: Path, redis_url: str, **changes: object) -> Settings:
    values: dict[str, object] = {
        "data": folder / "data",
        "models": folder / "models",
        "redis_url": redis_url,
        "database_url": None,
        "min_free_bytes": 0,
        "max_upload_bytes": 50_000_000,
        "max_upload_files": 100,
    }
    return Settings(_env_file=None).model_copy(update=values | changes)  # type: ignore[call-arg]


@pytest.fixture(autouse=True)
def fresh_health(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests ask for the health faster than anybody else."""
    monkeypatch.setattr(health, "FRESH_S", 0.0)


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("service")
    write_model(folder / "models")
    # Jobs that a test has left running stay as they are: taken back, they would change what another test is counting.
    with serve(make_settings(folder, redis_url, lease_s=3600)) as running:
        yield running
    with redis.Redis.from_url(redis_url) as client:
        client.flushdb()


@pytest.fixture
def client(running: Running) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=running.url, timeout=30) as client:
        yield client


@pytest.fixture(scope="session")
def series(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Files of a small crooked CT series."""
    return write_ct_series(tmp_path_factory.mktemp("series"), crooked_hu(), crooked_grid())

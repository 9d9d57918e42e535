"""The promise about memory, held against a real process."""

from pathlib import Path

import pytest

from benchmarks import upload
from tests.service.running import write_model

pytestmark = pytest.mark.slow

LIMIT_MB = 100


@pytest.mark.long("soak")
def test_eight_uploads_of_80_mb_at_once_raise_the_memory_of_the_service_by_less_than_100_mb(
    tmp_path: Path, redis_url: str
) -> None:
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("peak memory of another process is read from Linux' /proc")
    write_model(tmp_path / "models")
    body = upload.Body.of(upload.series_files(tmp_path / "series"))
    assert len(body.content) > 78_000_000
    environment = {"OARLOCK_DATA": str(tmp_path / "data"), "OARLOCK_MODELS": str(tmp_path / "models"), "REDIS_URL": redis_url}
    with upload.serving("oarlock", environment | {"OARLOCK_MIN_FREE_BYTES": "0"}) as server:
        *_, megabytes = upload.measure(server, body)
    assert megabytes < LIMIT_MB

"""More than the service can take: it says so in time, with when to try again, and goes on."""

import errno
import shutil
import socket
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType, SimpleNamespace

import anyio
import httpx
import pytest

from oarlock.scopes import Scope
from oarlock.store.keys import KeyStore
from service.intake import multipart
from service.intake.multipart import Pace
from tests.fixtures.processes import eventually
from tests.service.conftest import make_settings
from tests.service.running import Running, parts, serve, write_model, zipped

pytestmark = pytest.mark.slow

ZIP = {"Content-Type": "application/zip"}


@pytest.fixture
def own(tmp_path: Path, redis_url: str) -> Iterator[Running]:
    """A service whose limits a test may change."""
    write_model(tmp_path / "models")
    with serve(make_settings(tmp_path, redis_url)) as running:
        yield running


@contextmanager
def begun(running: Running, body: bytes, headers: Mapping[str, str] = MappingProxyType({})) -> Iterator[socket.socket]:
    """An upload of which the last byte does not come."""
    host, port = running.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        length = len(body) + 1
        lines = {"Host": host, "Content-Length": str(length)} | ZIP | headers
        head = "POST /v1/jobs HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        connection.sendall(f"{head}\r\n".encode() + body)
        yield connection


def test_an_upload_too_many_is_told_to_come_again_and_may_when_another_has_ended(own: Running, series: list[Path]) -> None:
    own.service.places.total = 1
    with begun(own, zipped(series)):
        assert eventually(lambda: own.service.places.taken == 1, within_s=30)
        answer = httpx.post(f"{own.url}/v1/jobs", files=parts(series), timeout=60)
        assert (answer.status_code, answer.json()["code"]) == (503, "service.busy")
        assert int(answer.headers["retry-after"]) > 0
        assert httpx.get(f"{own.url}/livez", timeout=60).status_code == 200
    assert eventually(lambda: own.service.places.taken == 0, within_s=30)
    assert httpx.post(f"{own.url}/v1/jobs", files=parts(series), timeout=60).status_code == 202


def test_one_caller_has_so_many_uploads_at_once_and_another_is_not_kept_from_it(own: Running, series: list[Path]) -> None:
    assert (own.service.places.total, own.service.places.of_one) == (64, 8)
    own.service.places.of_one = 1
    keys = KeyStore(own.service.database)
    one, other = ({"Authorization": f"Bearer {keys.create(name, [Scope.JOBS_WRITE])[1]}"} for name in ("one", "other"))
    with begun(own, zipped(series), one):
        assert eventually(lambda: own.service.places.taken == 1, within_s=30)
        answer = httpx.post(f"{own.url}/v1/jobs", files=parts(series), headers=one, timeout=60)
        assert (answer.status_code, answer.json()["code"]) == (429, "upload.too_many")
        assert int(answer.headers["retry-after"]) > 0
        assert httpx.post(f"{own.url}/v1/jobs", files=parts(series), headers=other, timeout=60).status_code == 202
    assert eventually(lambda: own.service.places.taken == 0, within_s=30)


def test_an_upload_must_keep_the_least_speed_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sender of a batch just in its time, again and again, would hold a place for ever."""
    now = 0.0
    monkeypatch.setattr(multipart.anyio, "current_time", lambda: now)
    allowed: list[float] = []
    real = anyio.fail_after

    def fail_after(seconds: float) -> object:
        allowed.append(seconds)
        return real(5)

    monkeypatch.setattr(multipart.anyio, "fail_after", fail_after)
    pace = Pace(batch_s=60, grace_s=60, least_bytes_per_s=65_536)

    async def batches() -> AsyncIterator[bytes]:
        nonlocal now
        for _ in range(10):
            now += 59  # a second before its time is over
            yield bytes(multipart.BATCH_BYTES)

    async def receive() -> None:
        async for _ in multipart._in_time(batches(), pace):
            if allowed[-1] <= 0:
                return

    anyio.run(receive)
    # 60 s and 16 s for each mebibyte that has come, less the 59 s that each took
    assert allowed == [60, 60 + 16 - 59, 60 + 32 - 118]


def test_a_sender_who_stops_sending_loses_their_place_and_leaves_nothing(
    own: Running, series: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(multipart, "PACE", Pace(batch_s=0.3))
    with begun(own, zipped(series)) as connection:
        answer = connection.recv(65_536)
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"upload.stalled" in answer
    assert eventually(lambda: own.service.places.taken == 0, within_s=30)
    assert eventually(lambda: own.files() == [], within_s=30)


def test_uploads_that_each_found_room_at_their_start_stop_before_the_disk_is_full(
    own: Running, series: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    least = own.settings.min_free_bytes
    at_the_start = iter([shutil.disk_usage(own.settings.data)])
    monkeypatch.setattr("oarlock.store.files.shutil.disk_usage", lambda _: next(at_the_start, SimpleNamespace(free=least - 1)))
    answer = httpx.post(f"{own.url}/v1/jobs", content=zipped(series), headers=ZIP, timeout=60)
    assert (answer.status_code, answer.json()["code"]) == (507, "storage.full")
    assert int(answer.headers["retry-after"]) > 0
    assert eventually(lambda: own.files() == [], within_s=30)


@pytest.mark.parametrize("step", ["incoming", "adopt"])
def test_a_disk_without_room_for_a_folder_or_for_the_last_flush_is_full_and_no_fault(
    own: Running, series: list[Path], monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def no_room(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no space left on device")

    place = {"incoming": "oarlock.store.files.Incoming.__init__", "adopt": "oarlock.store.files.Storage.adopt"}[step]
    monkeypatch.setattr(place, no_room)
    answer = httpx.post(f"{own.url}/v1/jobs", files=parts(series), timeout=60)
    assert (answer.status_code, answer.json()["code"]) == (507, "storage.full")
    assert eventually(lambda: own.files() == [], within_s=30)

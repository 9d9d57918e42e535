"""More than the service can take: it says so in time, with when to try again, and goes on."""

import errno
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest

from service.intake import multipart as uploads
from tests.fixtures.processes import eventually
from tests.service.conftest import make_settings
from tests.service.running import Running, parts, serve, write_model, zipped

ZIP = {"Content-Type": "application/zip"}


@pytest.fixture
def own(tmp_path: Path, redis_url: str) -> Iterator[Running]:
    """A service whose limits a test may change."""
    write_model(tmp_path / "models")
    with serve(make_settings(tmp_path, redis_url)) as running:
        yield running


@contextmanager
def begun(running: Running, body: bytes) -> Iterator[socket.socket]:
    """An upload of which the last byte does not come."""
    host, port = running.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        head = f"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Type: application/zip\r\nContent-Length: {len(body) + 1}\r\n\r\n"
        connection.sendall(head.encode() + body)
        yield connection


def test_an_upload_too_many_is_told_to_come_again_and_may_when_another_has_ended(own: Running, series: list[Path]) -> None:
    own.service.uploads.total_tokens = 1
    with begun(own, zipped(series)):
        assert eventually(lambda: own.service.uploads.borrowed_tokens == 1, within_s=30)
        answer = httpx.post(f"{own.url}/v1/jobs", files=parts(series), timeout=60)
        assert (answer.status_code, answer.json()["code"]) == (503, "service.busy")
        assert int(answer.headers["retry-after"]) > 0
        assert httpx.get(f"{own.url}/livez", timeout=60).status_code == 200
    assert eventually(lambda: own.service.uploads.borrowed_tokens == 0, within_s=30)
    assert httpx.post(f"{own.url}/v1/jobs", files=parts(series), timeout=60).status_code == 202


def test_a_sender_who_stops_sending_loses_his_place_and_leaves_nothing(
    own: Running, series: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "BATCH_LIMIT_S", 0.3)
    with begun(own, zipped(series)) as connection:
        answer = connection.recv(65_536)
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"upload.stalled" in answer
    assert eventually(lambda: own.service.uploads.borrowed_tokens == 0, within_s=30)
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

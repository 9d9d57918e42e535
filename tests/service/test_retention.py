"""Bytes go when their time is over, by key; and a disk that runs low in the middle of an upload is said."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from oarlock.errors import JobExpired
from oarlock.scopes import Scope
from oarlock.settings import Settings
from oarlock.store.files import RTSTRUCT
from oarlock.store.jobs import JobId, JobState
from oarlock.store.keys import KeyStore
from oarlock.store.retention import Retention
from service.background.sweeper import Sweeper
from tests.service.conftest import make_settings
from tests.service.running import Running, parts, serve, write_model

pytestmark = pytest.mark.slow


def sweeper(running: Running, settings: Settings) -> Sweeper:
    service = running.service
    return Sweeper(settings, service.store, service.storage, service.broker)


def post(running: Running, series: list[Path], token: str = "") -> JobId:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    answer = httpx.post(f"{running.url}/v1/jobs", files=parts(series), headers=headers, timeout=30)
    assert answer.status_code == 202, answer.text
    return JobId(answer.json()["id"])


def test_an_input_that_is_not_to_be_kept_goes_when_its_job_has_ended_and_the_results_stay(
    running: Running, series: list[Path]
) -> None:
    done, waiting = post(running, series), post(running, series)
    running.finish({"id": done}, {RTSTRUCT: b"contours"})
    sweeper(running, running.settings.model_copy(update={"keep_input": 0})).retire()
    storage = running.service.storage
    with pytest.raises(JobExpired):
        storage.input_files(done)
    assert storage.result(done, RTSTRUCT).read_bytes() == b"contours"
    assert len(storage.input_files(waiting)) == 37


def test_what_a_crash_left_of_a_purged_input_goes_with_the_next_cleaning(
    running: Running, series: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = post(running, series)
    running.finish({"id": job_id}, {RTSTRUCT: b"contours"})
    running.store.retirement.purge_inputs_due(Retention(input_s=0))  # and then the service was killed
    assert len(running.service.storage.input_files(job_id)) == 37
    sweeper(running, running.settings).clean()
    with pytest.raises(JobExpired):
        running.service.storage.input_files(job_id)


@pytest.fixture
def closed(tmp_path: Path, redis_url: str) -> Iterator[Running]:
    """A service of its own, as it has keys, and whose settings keep everything."""
    write_model(tmp_path / "models")
    with serve(make_settings(tmp_path, redis_url)) as running:
        yield running


def test_the_jobs_of_a_key_go_when_the_key_says(closed: Running, series: list[Path]) -> None:
    keys = KeyStore(closed.service.database)
    _, brief = keys.create("brief", [Scope.ADMIN], retention=Retention(0, 0))
    _, plain = keys.create("plain", [Scope.ADMIN])
    gone, stays = post(closed, series, brief), post(closed, series, plain)
    for job_id in (gone, stays):
        closed.finish({"id": job_id}, {RTSTRUCT: b"contours"})
    sweeper(closed, closed.settings).retire()
    with httpx.Client(base_url=closed.url, headers={"Authorization": f"Bearer {plain}"}) as client:
        assert client.get(f"/v1/jobs/{gone}").status_code == 410
        assert client.get(f"/v1/jobs/{stays}/rtstruct").content == b"contours"
    assert not any(gone in name for name in closed.files())


def test_a_job_without_its_input_answers_a_retry_with_410(running: Running, client: httpx.Client, series: list[Path]) -> None:
    job_id = post(running, series)
    running.store.request_cancel(job_id)
    sweeper(running, running.settings.model_copy(update={"keep_input": 0})).retire()
    answer = client.post(f"/v1/jobs/{job_id}/retry")
    assert (answer.status_code, answer.json()["code"]) == (410, "job.expired")
    assert running.store.get(job_id).state is JobState.CANCELLED


def test_a_disk_that_runs_low_in_the_middle_of_an_upload_is_said_and_nothing_of_it_stays(
    running: Running, client: httpx.Client, series: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = running.files()
    usage = shutil.disk_usage(running.settings.data)
    left = iter([usage, usage])  # when it begins, and at its first piece
    monkeypatch.setattr("oarlock.store.files.shutil.disk_usage", lambda _: next(left, usage._replace(free=-1)))

    def body() -> Iterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\n'
        for _ in range(6):
            yield b"x" * 600_000

    answer = client.post("/v1/jobs", content=body(), headers={"Content-Type": "multipart/form-data; boundary=b"})
    assert (answer.status_code, answer.json()["code"]) == (507, "storage.full")
    assert running.files() == before

"""What the audit log says of calls over HTTP."""

import hashlib
import logging
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from oarlock.errors import DatabaseUnavailable
from oarlock.scopes import Scope
from oarlock.store import audit
from oarlock.store.files import PREVIEW, QA_REPORT, RTSTRUCT
from oarlock.store.keys import KeyStore
from tests.fixtures.processes import eventually
from tests.service.conftest import make_settings
from tests.service.running import Running, parts, serve, write_model

pytestmark = pytest.mark.slow

RESULTS = {RTSTRUCT: b"contours", QA_REPORT: b'{"definition": "surface-dsc/1"}', PREVIEW: b"\x89PNG"}


@pytest.fixture
def closed(tmp_path: Path, redis_url: str) -> Iterator[Running]:
    write_model(tmp_path / "models")
    with serve(make_settings(tmp_path, redis_url)) as running:
        yield running


def test_the_log_says_which_key_did_what_to_which_job_and_what_it_was_given(closed: Running, series: list[Path]) -> None:
    key, token = KeyStore(closed.service.database).create("planning", [Scope.JOBS_WRITE, Scope.JOBS_READ])
    client = httpx.Client(base_url=closed.url, headers={"Authorization": f"Bearer {token}"})
    with client:
        job = client.post("/v1/jobs", files=parts(series[:5])).json()
        closed.finish(job, RESULTS)
        answers = {
            name: client.get(job["links"][link]) for name, link in zip(RESULTS, ("rtstruct", "qa", "preview"), strict=True)
        }
        assert {answer.status_code for answer in answers.values()} == {200}
        assert client.get(f"{job['links']['self']}/preview.png?slice=1").status_code == 404  # nothing was given
        assert client.delete(job["links"]["self"]).status_code == 204
        assert client.get(job["links"]["rtstruct"]).status_code == 410
    model = f"oarlock-hn 1.2.3 {'ab' * 32}"
    given = [f"{name} sha256:{hashlib.sha256(answer.content).hexdigest()}" for name, answer in answers.items()]
    by_key = [e for e in audit.read_entries(closed.service.database) if e.actor == f"key:{key.id}"]
    assert [(e.action, e.model, e.result) for e in by_key] == [
        ("job.posted", model, None),
        *(("result.read", model, result) for result in given),
        ("job.purged", None, None),
    ]
    assert {(e.actor_name, e.address, e.job_id) for e in by_key} == {("planning", "127.0.0.1", job["id"])}
    assert audit.verify(audit.read_entries(closed.service.database), [audit.read_head(closed.service.database)]).findings == ()


def test_nobody_is_given_a_result_that_cannot_be_written_down(
    closed: Running, series: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = httpx.post(f"{closed.url}/v1/jobs", files=parts(series[:5])).json()
    closed.finish(job, RESULTS)

    def full(*_: object) -> None:
        raise DatabaseUnavailable

    monkeypatch.setattr(audit, "record", full)
    answer = httpx.get(f"{closed.url}{job['links']['rtstruct']}")
    assert (answer.status_code, b"contours" in answer.content) == (503, False)


def test_the_last_entry_is_told_to_the_log_that_is_kept_elsewhere(
    tmp_path: Path, redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    write_model(tmp_path / "models")
    caplog.set_level(logging.INFO)
    with serve(make_settings(tmp_path, redis_url)) as running:
        head = str(audit.read_head(running.service.database))
        assert eventually(lambda: any(vars(record).get("head") == head for record in caplog.records), within_s=10)

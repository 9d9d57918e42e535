"""When and where results arrived, and which job takes the place of which, as the API tells it."""

from pathlib import Path
from typing import Any

import httpx
import pytest

from oarlock.store import audit
from oarlock.store.jobs import JobId
from tests.service.running import Running, parts

pytestmark = pytest.mark.slow

AT = "2026-03-05T12:00:33.000Z"
ARRIVED = {"place": "eclipse", "result": "rtstruct", "state": "delivered", "attempts": 2, "note": None, "at": AT, "gateway": None}
WRONG = (
    *({"place": "a/b"}, {"place": ""}, {"result": "dose"}, {"state": "lost"}, {"at": "today"}),
    *({"patient": "x"}, {"note": "x" * 301}),
)


@pytest.fixture
def done(running: Running, client: httpx.Client, series: list[Path]) -> dict[str, Any]:
    job: dict[str, Any] = client.post("/v1/jobs", files=parts(series)).json()
    running.finish(job, {"rtstruct.dcm": b"", "qa.json": b"{}"})
    return job


def deliveries_of(client: httpx.Client, job: dict[str, Any]) -> list[dict[str, Any]]:
    return list(client.get(f"/v1/jobs/{job['id']}").json()["deliveries"])


def test_the_last_word_about_a_place_and_a_result_stands_in_the_job_and_in_lists(
    client: httpx.Client, done: dict[str, Any]
) -> None:
    waits = {"place": "eclipse", "result": "rtstruct", "state": "waiting", "attempts": 1, "note": "it does not answer"}
    for told in (waits, ARRIVED, ARRIVED, ARRIVED | {"place": "share"}):
        assert client.post(f"/v1/jobs/{done['id']}/deliveries", json=told).status_code == 204
    expected = [ARRIVED, ARRIVED | {"place": "share"}]
    assert deliveries_of(client, done) == expected
    (listed,) = [job for job in client.get("/v1/jobs").json()["jobs"] if job["id"] == done["id"]]
    assert listed["deliveries"] == expected


def test_the_audit_log_has_each_end_once_and_the_metrics_count_them(
    running: Running, client: httpx.Client, done: dict[str, Any]
) -> None:
    dead = ARRIVED | {"place": "pacs", "state": "dead", "note": "it answers 400"}
    for told in (ARRIVED, ARRIVED, dead):
        client.post(f"/v1/jobs/{done['id']}/deliveries", json=told).raise_for_status()
    entries = [entry for entry in audit.read_entries(running.service.database) if entry.job_id == done["id"]]
    found = [(entry.action, entry.result) for entry in entries if "deliver" in entry.action]
    assert found == [("result.delivered", "rtstruct eclipse"), ("result.delivery_given_up", "rtstruct pacs")]
    text = client.get("/metrics").text
    assert 'oarlock_deliveries{state="dead"} ' in text


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_told_is_checked(client: httpx.Client, done: dict[str, Any], wrong: dict[str, str]) -> None:
    answer = client.post(f"/v1/jobs/{done['id']}/deliveries", json=ARRIVED | wrong)
    assert (answer.status_code, answer.json()["code"]) == (422, "request.invalid_parameter")
    assert deliveries_of(client, done) == []


def test_a_purge_takes_the_deliveries_with_it(running: Running, client: httpx.Client, done: dict[str, Any]) -> None:
    client.post(f"/v1/jobs/{done['id']}/deliveries", json=ARRIVED).raise_for_status()
    client.delete(f"/v1/jobs/{done['id']}").raise_for_status()
    assert running.service.deliveries.of([JobId(done["id"])]) == {}
    assert client.post(f"/v1/jobs/{done['id']}/deliveries", json=ARRIVED).status_code == 410


def test_a_post_that_supersedes_a_job_says_so(client: httpx.Client, done: dict[str, Any], series: list[Path]) -> None:
    answer = client.post("/v1/jobs", files=parts(series), data={"supersedes": done["id"]})
    new = answer.json()
    assert [warning["code"] for warning in new["warnings"]] == ["series.supersedes"]
    assert client.get(f"/v1/jobs/{done['id']}").json()["superseded_by"] == new["id"]
    assert new["superseded_by"] is None
    assert client.post("/v1/jobs", files=parts(series), data={"supersedes": "the other"}).status_code == 422

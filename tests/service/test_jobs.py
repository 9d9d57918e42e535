"""Jobs over HTTP: how they stand, how they are cancelled, tried again and purged, and what comes out of them."""

import hashlib
import json
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import httpx
import numpy as np
import pytest

from oarlock.errors import DatabaseUnavailable, InferenceFailed, JobExpired
from oarlock.geometry.masks import OARMasks
from oarlock.organs.catalogue import BY_NAME, OARS
from oarlock.pictures.slice_archive import load_rendering, save_rendering
from oarlock.segmentation.model_folder import Installed
from oarlock.store import audit
from oarlock.store.files import PREVIEW, QA_REPORT, RENDERING, REVIEW, REVIEW_DATA, RTSTRUCT
from oarlock.store.jobs import Job, JobId, JobState, Stage
from oarlock.store.leases import LeaseLost
from service.api import events
from service.api.examples import REVIEW as REVIEW_EXAMPLE
from service.api.schemas.jobs import JobDocument
from service.api.schemas.qa_report import QAReportDocument
from service.background import followers
from service.background.followers import Followers
from tests.fixtures.crooked import crooked_grid, crooked_hu
from tests.service.running import Running, parts

RESULTS = {
    RTSTRUCT: b"\0" * 128 + b"DICM",
    QA_REPORT: QAReportDocument(definition="surface-dsc/1").model_dump_json().encode(),
    PREVIEW: b"\x89PNG",
}


@pytest.fixture
def job(client: httpx.Client, series: list[Path]) -> dict[str, Any]:
    answer = client.post("/v1/jobs", files=parts(series[:5]))
    assert answer.status_code == 202
    job: dict[str, Any] = answer.json()
    return job


@pytest.fixture
def finished(running: Running, job: dict[str, Any]) -> dict[str, Any]:
    running.finish(job, RESULTS)
    return job


def problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    document: dict[str, Any] = answer.json()
    assert (document["code"], document["status"]) == (code, status)
    return document


# ── looking ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_running_job_shows_its_stage_and_progress_and_an_ended_one_its_times(
    client: httpx.Client, running: Running, job: dict[str, Any]
) -> None:
    here = job["links"]["self"]
    lease = running.claim(job)
    running.store.leases.progress(lease, stage=Stage.INFERRING, progress=0.42, lease_s=60)
    seen = client.get(here).json()
    assert (seen["state"], seen["stage"], seen["progress"], seen["queue_position"]) == ("running", "inferring", 0.42, None)
    assert seen["attempts"] == 1
    running.store.leases.succeed(lease)
    ended = client.get(here).json()
    times = [datetime.fromisoformat(ended[name]) for name in ("created_at", "started_at", "finished_at")]
    assert times == sorted(times)
    assert all(time.tzinfo == UTC for time in times)
    assert (ended["state"], ended["stage"], ended["progress"]) == ("succeeded", None, 1.0)


def test_a_failed_job_says_why_as_a_problem_would(client: httpx.Client, running: Running, job: dict[str, Any]) -> None:
    running.store.leases.fail(running.claim(job), InferenceFailed(reason="of a test"))
    error = client.get(job["links"]["self"]).json()["error"]
    assert error == {
        "type": "/docs#model.inference_failed",
        "title": "The model failed",
        "status": 500,
        "code": "model.inference_failed",
        "detail": "The model could not be run: of a test.",
    }


@pytest.mark.parametrize("path", ["", "/events", "/rtstruct", "/seg", "/qa", "/preview.png"])
@pytest.mark.parametrize("job_id", ["00000000-0000-4000-8000-000000000000", "1", "%2e%2e", "%00", "x" * 3000])
def test_a_job_that_there_is_not_is_not_found(client: httpx.Client, path: str, job_id: str) -> None:
    answer = client.get(f"/v1/jobs/{job_id}{path}")
    assert answer.status_code == 404
    assert answer.json()["code"] in {"job.not_found", "request.not_found"}


def test_a_body_of_json_that_is_not_utf_8_is_said_to_be_so(client: httpx.Client) -> None:
    answer = client.post("/v1/commissionings", content=b"\xff{}", headers={"Content-Type": "application/json"})
    problem(answer, 422, "request.invalid_parameter")
    assert answer.json()["detail"] == "The parameter 'body' is not valid: it is not UTF-8."


def test_jobs_are_listed_newest_first_in_pages_and_by_state_and_series(
    client: httpx.Client, running: Running, job: dict[str, Any], series: list[Path]
) -> None:
    newer = client.post("/v1/jobs", files=parts(series[:5])).json()
    page = client.get("/v1/jobs", params={"limit": 1}).json()
    assert [entry["id"] for entry in page["jobs"]] == [newer["id"]]
    after = client.get("/v1/jobs", params={"limit": 1, "cursor": page["next"]}).json()
    assert [entry["id"] for entry in after["jobs"]] == [job["id"]]
    running.claim(newer)
    wanted = {"state": "running", "series_instance_uid": newer["series"]["series_instance_uid"], "limit": 500}
    found = client.get("/v1/jobs", params=wanted).json()["jobs"]
    assert newer["id"] in [entry["id"] for entry in found]
    assert {entry["state"] for entry in found} == {"running"}
    assert client.get("/v1/jobs", params={"series_instance_uid": "1.2.3"}).json() == {"jobs": [], "next": None}


@pytest.mark.parametrize(
    "query",
    [
        {"state": "x"},
        {"limit": 0},
        {"limit": 501},
        {"limit": "x"},
        {"cursor": "x"},
        {"series_instance_uid": "x'--"},
        {"cursor": "A" * 999},
    ],
)
def test_a_list_with_a_wrong_parameter_is_refused_without_repeating_it(client: httpx.Client, query: dict[str, Any]) -> None:
    document = problem(client.get("/v1/jobs", params=query), 422, "request.invalid_parameter")
    assert f"'{next(iter(query))}'" in document["detail"]
    assert "x'--" not in document["detail"]


def events_of(text: str) -> list[tuple[str, dict[str, Any]]]:
    blocks = [block.split("\n") for block in text.split("\n\n") if block.startswith("event:")]
    return [(lines[0].removeprefix("event: "), json.loads(lines[2].removeprefix("data: "))) for lines in blocks]


def test_events_tell_each_change_until_the_job_ends(client: httpx.Client, running: Running, job: dict[str, Any]) -> None:
    text = ""
    steps: list[Callable[[], object]] = [
        lambda: leases.append(running.claim(job)),
        lambda: running.store.leases.progress(leases[0], stage=Stage.CONTOURING, progress=0.5, lease_s=60),
        lambda: running.store.leases.succeed(leases[0]),
    ]
    leases: list[Any] = []
    with client.stream("GET", f"{job['links']['self']}/events") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        for chunk in answer.iter_text():
            text += chunk
            if steps:
                steps.pop(0)()  # each change waits until the one before was told
    told = events_of(text)
    assert [(name, job["state"]) for name, job in told] == [
        ("progress", "queued"),
        ("progress", "running"),
        ("progress", "running"),
        ("end", "succeeded"),
    ]
    assert [job["progress"] for _, job in told] == [0.0, 0.0, 0.5, 1.0]


def test_events_of_an_ended_job_end_at_once_and_a_browser_that_reconnects_is_told_to_stop(
    client: httpx.Client, finished: dict[str, Any]
) -> None:
    path = f"{finished['links']['self']}/events"
    assert [name for name, _ in events_of(client.get(path).text)] == ["end"]
    assert client.get(path, headers={"Last-Event-ID": "end"}).status_code == 204


def test_a_quiet_stream_is_kept_open_and_a_database_that_is_away_for_a_moment_does_not_end_it(
    running: Running, job: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(followers, "POLL_S", 0)
    monkeypatch.setattr(events, "KEEP_ALIVE_S", 0.2)
    queued = running.store.get(JobId(job["id"]))
    answers = iter([queued, DatabaseUnavailable(), queued])

    def marks(job_ids: set[JobId]) -> dict[JobId, tuple[object, ...]]:
        answer = next(answers, queued if not heard[1:] else replace(queued, state=JobState.CANCELLED))
        if isinstance(answer, Exception):
            raise answer
        table[queued.id] = answer
        return {queued.id: (answer.state,)}

    table: dict[JobId, Job] = {}
    heard: list[str] = []

    async def collect() -> None:
        store = SimpleNamespace(marks=marks, several=lambda ids: table, queue_positions=lambda ids: dict.fromkeys(ids, 1))
        hub = Followers(store)  # type: ignore[arg-type]
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(hub.run)
            with events.progress(hub.following(queued, "me"), JobDocument.of, still_allowed=lambda: True) as stream:
                async for text in stream:
                    heard.append(text.split("\n")[0])  # noqa: PERF401 - the answers above depend on what was heard
            tasks.cancel_scope.cancel()

    anyio.run(collect)
    assert heard == ["event: progress", ": still here", "event: end"]


# ── changing ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_cancel_and_retry_and_what_they_answer_when_it_is_too_late(
    client: httpx.Client, running: Running, job: dict[str, Any]
) -> None:
    cancel, retry = job["links"]["cancel"], f"{job['links']['self']}/retry"
    problem(client.post(retry), 409, "job.not_retryable")
    cancelled = client.post(cancel)
    assert (cancelled.status_code, cancelled.json()["state"]) == (202, "cancelled")
    problem(client.post(cancel), 409, "job.already_ended")
    retried = client.post(retry)
    assert (retried.status_code, retried.json()["state"], retried.headers["location"]) == (202, "queued", job["links"]["self"])
    lease = running.claim(job)
    assert client.post(cancel).json()["state"] == "running"
    assert running.store.leases.progress(lease, stage=Stage.READING, progress=0, lease_s=60) is True


def test_a_job_whose_model_is_gone_is_not_tried_again_but_says_what_to_do(
    client: httpx.Client, running: Running, job: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    client.post(job["links"]["cancel"]).raise_for_status()
    here = running.service.models
    others = Installed({"other": next(iter(here.offered.values()))}, {}, "other")
    monkeypatch.setattr(running.service.model_folder, "now", lambda: others)
    refused = client.post(job["links"]["retry"])
    problem(refused, 409, "job.model_gone")
    assert refused.json()["detail"].endswith("Send the series anew, for one of: other.")
    monkeypatch.undo()
    assert client.post(job["links"]["retry"]).json()["state"] == "queued"


def test_a_purged_job_is_gone_with_every_byte_and_stays_gone(
    client: httpx.Client, running: Running, finished: dict[str, Any]
) -> None:
    here = finished["links"]["self"]
    assert any(finished["id"] in name for name in running.files())
    answer = client.delete(here)
    assert (answer.status_code, answer.content) == (204, b"")
    assert not any(finished["id"] in name for name in running.files())
    for path in ("", "/events", "/rtstruct", "/seg", "/qa", "/preview.png"):
        problem(client.get(here + path), 410, "job.expired")
    for path in ("/cancel", "/retry"):
        problem(client.post(here + path), 410, "job.expired")
    problem(client.delete(here), 410, "job.expired")
    assert finished["id"] not in client.get("/v1/jobs", params={"limit": 500}).text


def test_what_a_worker_writes_for_a_job_that_is_purged_meanwhile_is_refused_and_removed(
    client: httpx.Client, running: Running, job: dict[str, Any]
) -> None:
    lease = running.claim(job)
    storage = running.service.storage

    def work(folder: Path) -> None:
        (folder / RTSTRUCT).write_bytes(b"contours")
        assert client.delete(job["links"]["self"]).status_code == 204

    with pytest.raises(JobExpired), storage.results_writer(JobId(job["id"]), lease.token) as folder:
        work(folder)
    with pytest.raises(LeaseLost):
        running.store.leases.succeed(lease)
    assert not any(job["id"] in name for name in running.files())


# ── results ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("path", "media_type", "name"),
    [("rtstruct", "application/dicom", RTSTRUCT), ("qa", "application/json", QA_REPORT), ("preview.png", "image/png", PREVIEW)],
)
def test_a_result_is_served_as_it_was_written_and_not_sent_twice(
    client: httpx.Client, finished: dict[str, Any], path: str, media_type: str, name: str
) -> None:
    url = f"{finished['links']['self']}/{path}"
    answer = client.get(url)
    assert (answer.status_code, answer.headers["content-type"], answer.content) == (200, media_type, RESULTS[name])
    again = client.get(url, headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    head = client.head(url)
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", str(len(RESULTS[name])))


def test_a_review_is_read_in_pieces_and_each_reading_is_written_down(
    client: httpx.Client, running: Running, job: dict[str, Any]
) -> None:
    running.finish(job, {REVIEW: json.dumps(REVIEW_EXAMPLE).encode(), REVIEW_DATA: bytes(range(200))})
    head = client.get(job["links"]["review"])
    assert head.json() == REVIEW_EXAMPLE
    piece = client.get(f"{job['links']['review']}/data", headers={"Range": "bytes=10-19"})
    assert (piece.status_code, piece.content) == (206, bytes(range(10, 20)))
    assert client.get(f"{job['links']['review']}/data", headers={"Range": "bytes=900-"}).status_code == 416
    read = [entry.result for entry in audit.read_entries(running.service.database) if entry.job_id == job["id"]]
    digest = hashlib.sha256(bytes(range(200))).hexdigest()
    assert read[-3:-1] == [f"{REVIEW} sha256:{hashlib.sha256(head.content).hexdigest()}", f"{REVIEW_DATA} sha256:{digest}"]


@pytest.mark.parametrize("path", ["rtstruct", "seg", "qa", "preview.png", "preview.png?slice=1", "review", "review/data"])
def test_a_job_that_has_not_succeeded_has_no_result(
    client: httpx.Client, running: Running, job: dict[str, Any], path: str
) -> None:
    url = f"{job['links']['self']}/{path}"
    assert "queued" in problem(client.get(url), 409, "job.not_finished")["detail"]
    running.store.leases.fail(running.claim(job), InferenceFailed(reason="of a test"))
    assert "failed" in problem(client.get(url), 409, "job.not_finished")["detail"]


def test_a_result_that_was_not_made_is_not_found(client: httpx.Client, running: Running, job: dict[str, Any]) -> None:
    running.finish(job, {RTSTRUCT: b"only this"})
    problem(client.get(job["links"]["qa"]), 404, "job.result_not_found")
    problem(client.get(job["links"]["preview"], params={"oar": "Brain"}), 404, "job.result_not_found")


@pytest.mark.slow
def test_one_organ_or_one_slice_is_drawn_on_demand_counting_slices_from_one(
    client: httpx.Client, running: Running, job: dict[str, Any], tmp_path: Path
) -> None:
    grid = crooked_grid()
    masks = OARMasks.empty(OARS, grid.shape)
    masks.put(BY_NAME["Brain"], (slice(3, 9), slice(10, 40), slice(12, 50)), np.ones((6, 30, 38), dtype=np.bool_))
    save_rendering(tmp_path / RENDERING, crooked_hu(), grid, masks, model="oarlock-hn 1.2.3")
    running.finish(job, {RENDERING: (tmp_path / RENDERING).read_bytes()})
    saved = load_rendering(tmp_path / RENDERING)
    preview = job["links"]["preview"]
    for query, expected in (
        ({"slice": 5}, saved.single(z=4)),
        ({"oar": "Brain"}, saved.single(oar=BY_NAME["Brain"])),
        ({"oar": "Brain", "slice": 1}, saved.single(oar=BY_NAME["Brain"], z=0)),
    ):
        answer = client.get(preview, params=query)
        assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
        assert answer.content == expected


@pytest.mark.parametrize("query", [{"oar": "Liver"}, {"slice": 0}, {"slice": 6}, {"slice": "x"}])
def test_a_picture_of_what_there_is_not_is_refused(client: httpx.Client, finished: dict[str, Any], query: dict[str, Any]) -> None:
    document = problem(client.get(finished["links"]["preview"], params=query), 422, "request.invalid_parameter")
    assert f"'{next(iter(query))}'" in document["detail"]


def test_many_callers_at_once_see_one_consistent_job(client: httpx.Client, running: Running, job: dict[str, Any]) -> None:
    lease = running.claim(job)
    seen: list[float] = []

    def look() -> None:
        with httpx.Client(timeout=30) as mine:
            seen.extend(mine.get(running.url + job["links"]["self"]).json()["progress"] for _ in range(10))

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for step in range(1, 11):
        running.store.leases.progress(lease, stage=Stage.INFERRING, progress=step / 10, lease_s=60)
    for thread in threads:
        thread.join()
    assert len(seen) == 40
    assert set(seen) <= {round(step / 10, 1) for step in range(11)}

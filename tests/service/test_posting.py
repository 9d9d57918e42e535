"""Posting a series: what is taken in, in which forms, and that it is not lost."""

import hashlib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from oarlock.store.jobs import QUEUE, JobId, JobState, Stage
from service.background.sweeper import MESSAGE_LATE_S, Sweeper
from service.broker import Broker
from service.embedded.redis_server import PrivateRedis
from service.errors import BrokerUnavailable
from tests.service.conftest import make_settings
from tests.service.running import Running, parts, serve, write_model, zipped

pytestmark = pytest.mark.slow


def post(client: httpx.Client, files: list[Any], **more: Any) -> dict[str, Any]:
    answer = client.post("/v1/jobs", files=parts(files), **more)
    assert answer.status_code == 202, answer.text
    job: dict[str, Any] = answer.json()
    return job


def input_hashes(running: Running, job: dict[str, Any]) -> list[str]:
    paths = running.service.storage.input_files(JobId(job["id"]))
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]


def hashes(files: list[Path]) -> list[str]:
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]


def test_a_posted_series_becomes_a_queued_job_with_every_field(client: httpx.Client, series: list[Path]) -> None:
    answer = client.post(
        "/v1/jobs", files=parts(series), data={"priority": "urgent", "profile": "generic", "model": "oarlock-hn"}
    )
    assert answer.status_code == 202
    job = answer.json()
    assert answer.headers["location"] == job["links"]["self"] == f"/v1/jobs/{job['id']}"
    assert int(answer.headers["retry-after"]) > 0
    assert list(job) == [
        *("id", "state", "stage", "progress", "queue_position", "priority", "label", "attempts", "series", "model"),
        *("created_at", "started_at", "finished_at", "warnings", "error", "reviews", "superseded_by", "deliveries", "links"),
    ]
    assert (job["state"], job["stage"], job["progress"], job["priority"], job["attempts"]) == ("queued", None, 0.0, "urgent", 0)
    assert job["queue_position"] == 1
    assert job["series"]["slices"] == 37
    assert job["series"]["spacing_mm"] == pytest.approx([2.5, 1.1, 0.9])
    assert job["model"] == {"name": "oarlock-hn", "version": "1.2.3", "sha256": "ab" * 32}
    assert job["created_at"].endswith("Z")
    assert (job["started_at"], job["finished_at"], job["error"]) == (None, None, None)
    assert client.get(job["links"]["self"]).json() == job


def test_a_job_is_found_by_any_part_of_its_label_until_it_is_purged(client: httpx.Client, series: list[Path]) -> None:
    label = "Plan_47 50% Ö"
    job = client.post("/v1/jobs", files=parts(series), data={"label": f" {label} "}).json()
    assert job["label"] == label
    client.post("/v1/jobs", files=parts(series)).raise_for_status()

    def found(part: str) -> list[str]:
        return [one["id"] for one in client.get("/v1/jobs", params={"label": part}).json()["jobs"]]

    assert [found(part) for part in ("plan_47", "50%", "Ö", "4%", "plan47", "PlanX47")] == [[job["id"]]] * 3 + [[]] * 3
    assert "Plan_47" not in client.get("/metrics").text
    client.delete(job["links"]["self"])
    assert found("plan") == []


@pytest.mark.parametrize("label", ["x" * 65, "two\nlines"])
def test_a_label_that_cannot_be_printed_on_a_line_is_refused(client: httpx.Client, series: list[Path], label: str) -> None:
    answer = client.post("/v1/jobs", files=parts(series), data={"label": label})
    assert (answer.status_code, answer.json()["code"]) == (422, "request.invalid_parameter")


def test_files_arrive_unchanged_in_the_order_of_the_upload_and_not_under_their_senders_names(
    client: httpx.Client, running: Running, series: list[Path]
) -> None:
    job = post(client, series)
    assert input_hashes(running, job) == hashes(series)
    assert [path.name for path in running.service.storage.input_files(JobId(job["id"]))][:2] == ["000001", "000002"]


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_archives_among_the_parts_are_unpacked_in_their_place(
    client: httpx.Client, running: Running, series: list[Path], method: int
) -> None:
    job = post(client, [series[0], zipped(series[1:20], method=method), series[20], zipped(series[21:])])
    assert input_hashes(running, job) == hashes(series)


def test_a_body_may_be_one_archive(client: httpx.Client, running: Running, series: list[Path]) -> None:
    answer = client.post("/v1/jobs", content=zipped(series), headers={"Content-Type": "application/zip"})
    assert answer.status_code == 202
    assert input_hashes(running, answer.json()) == hashes(series)


@pytest.mark.parametrize("size", [1, 7, 4096, 1_000_003])
def test_it_does_not_matter_where_the_network_cuts_the_body(running: Running, series: list[Path], size: int) -> None:
    request = httpx.Request("POST", running.url + "/v1/jobs", files=parts(series[:9]), data={"priority": "low"})
    body = request.read()
    head, tail = body[: 20 * size], body[20 * size :]

    def pieces() -> Iterator[bytes]:
        yield from (head[i : i + size] for i in range(0, len(head), size))
        yield tail

    with httpx.Client(timeout=30) as client:
        headers = {"Content-Type": request.headers["content-type"]}
        answer = client.post(running.url + "/v1/jobs", content=pieces(), headers=headers)
    assert answer.status_code == 202
    assert answer.json()["priority"] == "low"
    assert input_hashes(running, answer.json()) == hashes(series[:9])


def test_the_message_carries_the_job_id_alone_and_lies_in_the_queue_of_its_priority(
    client: httpx.Client, redis_url: str, series: list[Path]
) -> None:
    with redis.Redis.from_url(redis_url) as queue:
        queue.flushdb()
        job = post(client, series, data={"priority": "urgent"})
        steps = (QUEUE, *(f"{QUEUE}\x06\x16{step}" for step in (1, 2, 3)))  # of urgent jobs, by how many wait (ADR 23)
        (message,) = (message for step in steps for message in queue.lrange(step, 0, -1))
        assert job["id"].encode() in message
        assert b"2.25." not in message


# ── the same post twice ───────────────────────────────────────────────────────────────────────────────────────────────


def test_the_same_post_with_the_same_key_gives_the_same_job_in_whatever_order_and_packing(
    client: httpx.Client, running: Running, series: list[Path]
) -> None:
    key = {"Idempotency-Key": "plan-17"}
    first = post(client, series, headers=key)
    before = running.files()
    assert post(client, series[::-1], headers=key)["id"] == first["id"]
    assert post(client, [zipped(series)], headers=key)["id"] == first["id"]
    assert running.files() == before
    assert post(client, series)["id"] != first["id"]


def test_the_same_key_with_another_body_is_a_conflict(client: httpx.Client, running: Running, series: list[Path]) -> None:
    key = {"Idempotency-Key": "plan-18"}
    post(client, series, headers=key)
    before = running.files()
    for answer in (
        client.post("/v1/jobs", files=parts(series[:30]), headers=key),
        client.post("/v1/jobs", files=parts(series), data={"priority": "low"}, headers=key),
    ):
        assert (answer.status_code, answer.json()["code"]) == (409, "job.idempotency_conflict")
    assert running.files() == before


@pytest.mark.parametrize("key", ["", "x" * 256, "tab\there"])
def test_a_key_that_cannot_be_kept_is_refused(client: httpx.Client, series: list[Path], key: str) -> None:
    answer = client.post("/v1/jobs", files=parts(series[:3]), headers={"Idempotency-Key": key})
    assert (answer.status_code, answer.json()["code"]) == (422, "request.invalid_parameter")


# ── nothing is lost ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def mortal_redis(tmp_path: Path) -> Iterator[tuple[PrivateRedis, Any]]:
    server = PrivateRedis(tmp_path / "redis")
    process = server.start()
    server.wait_until_ready()
    yield server, process
    process.kill()
    process.wait()


def test_a_series_that_cannot_be_queued_is_refused_and_nothing_of_it_is_kept_until_redis_is_back(
    mortal_redis: tuple[PrivateRedis, Any], tmp_path: Path, series: list[Path]
) -> None:
    server, process = mortal_redis
    write_model(tmp_path / "models")
    with serve(make_settings(tmp_path, server.url)) as running, httpx.Client(base_url=running.url, timeout=30) as client:
        post(client, series)
        before = running.files()
        process.kill()
        process.wait()
        answer = client.post("/v1/jobs", files=parts(series), headers={"Idempotency-Key": "k"})
        assert (answer.status_code, answer.json()["code"]) == (503, "broker.unavailable")
        assert int(answer.headers["retry-after"]) > 0
        assert running.files() == before
        assert len(client.get("/v1/jobs").json()["jobs"]) == 1

        again = server.start()
        server.wait_until_ready()
        try:
            assert post(client, series, headers={"Idempotency-Key": "k"})["state"] == "queued"
        finally:
            again.terminate()
            again.wait()


class _Sent(Broker):
    """Remembers instead of sending; ``waiting`` is how many messages it claims to hold."""

    def __init__(self, waiting: int = 0) -> None:
        self.jobs: list[str] = []
        self.waiting = waiting

    def enqueue(self, job: Any) -> None:
        self.jobs.append(job.id)

    def depth(self) -> int:
        return self.waiting


class _Down(Broker):
    def __init__(self) -> None:
        pass

    def enqueue(self, job: Any) -> None:
        raise BrokerUnavailable

    def depth(self) -> int:
        raise BrokerUnavailable


def sweeper(running: Running, broker: Broker) -> Sweeper:
    return Sweeper(running.settings.model_copy(update={"lease_s": 15}), running.store, running.service.storage, broker)


def test_a_retry_is_accepted_while_redis_is_down_and_the_sweeper_sends_it_later(
    client: httpx.Client, running: Running, series: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = post(client, series)
    client.post(job["links"]["cancel"])
    with monkeypatch.context() as patch:
        patch.setattr(Broker, "enqueue", _Down.enqueue)
        assert client.post(f"{job['links']['self']}/retry").status_code == 202
    assert running.store.queued()[job["id"]].sent_at is None
    broker = _Sent()
    requeue_long_enough(sweeper(running, broker))
    assert job["id"] in broker.jobs or running.store.queued()[job["id"]].sent_at  # by the service's own


def requeue_long_enough(sweeper: Sweeper) -> None:
    for _ in range(sweeper.looks_in(max(MESSAGE_LATE_S, 15))):
        sweeper.requeue()


def test_the_job_of_a_silent_worker_is_sent_again(client: httpx.Client, running: Running, series: list[Path]) -> None:
    job = post(client, series)
    running.store.leases.claim(JobId(job["id"]), worker="dead", lease_s=15)
    broker = _Sent()
    requeue_long_enough(sweeper(running, broker))
    assert running.store.get(JobId(job["id"])).state is JobState.QUEUED
    assert job["id"] in broker.jobs


def test_a_worker_that_reports_between_looks_keeps_its_job(client: httpx.Client, running: Running, series: list[Path]) -> None:
    lease = running.claim(post(client, series))
    watching = sweeper(running, _Sent())
    for _ in range(3 * watching.looks_in(15)):
        watching.requeue()
        running.store.leases.progress(lease, stage=Stage.READING, progress=0.0, lease_s=15)
    assert running.store.get(lease.job_id).state is JobState.RUNNING


def test_a_long_queue_is_not_made_longer_by_sending_again_what_only_waits(
    client: httpx.Client, running: Running, series: list[Path]
) -> None:
    job = post(client, series)
    patient, emptied = _Sent(waiting=10_000), _Sent(waiting=0)
    requeue_long_enough(sweeper(running, patient))
    assert job["id"] not in patient.jobs
    requeue_long_enough(sweeper(running, emptied))
    assert job["id"] in emptied.jobs


def test_bytes_without_a_job_are_deleted_and_bytes_of_a_job_are_not(
    client: httpx.Client, running: Running, series: list[Path]
) -> None:
    job = post(client, series)
    storage = running.service.storage
    orphan = JobId("00000000-0000-0000-0000-000000000000")
    with storage.incoming() as incoming:
        incoming.next_file().write_bytes(b"adopted, and then the service was killed")
        storage.adopt(incoming, orphan)
    sweeper(running, _Sent()).clean()
    assert not any(orphan in name for name in running.files())
    assert len(storage.input_files(JobId(job["id"]))) == 37


def test_leftovers_are_deleted_while_redis_is_down(running: Running, client: httpx.Client, series: list[Path]) -> None:
    post(client, series)
    storage = running.service.storage
    orphan = JobId("00000000-0000-0000-0000-000000000001")
    with storage.incoming() as incoming:
        incoming.next_file().write_bytes(b"adopted, and then the service was killed")
        storage.adopt(incoming, orphan)
    sweeper(running, _Down()).sweep()
    assert not any(orphan in name for name in running.files())

"""Followers: one poll for all, a limit for each caller, and a key that is looked at again."""

from collections.abc import AsyncIterator, Callable, Collection
from contextlib import AbstractContextManager
from dataclasses import replace
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import httpx
import pytest
from starlette.types import Message

from oarlock.errors import InferenceFailed
from oarlock.scopes import Scope
from oarlock.store.job_store import Movements
from oarlock.store.jobs import Job, JobId, JobState, Stage
from oarlock.store.keys import KeyStore
from service.api import events
from service.api.events import EventStream
from service.api.schemas.jobs import JobDocument
from service.background import followers
from service.background.followers import Followers, Listing
from service.errors import TooManyFollowers
from tests.service.conftest import make_settings
from tests.service.running import Running, parts, serve, write_model

pytestmark = pytest.mark.slow


@pytest.fixture
def queued(running: Running, client: httpx.Client, series: list[Path]) -> Job:
    job: dict[str, Any] = client.post("/v1/jobs", files=parts(series[:5])).json()
    return running.store.get(JobId(job["id"]))


class Table:
    """A job table that counts how often it is asked."""

    def __init__(self, jobs: list[Job]) -> None:
        self.jobs = {job.id: job for job in jobs}
        self.asked: list[set[JobId]] = []

    def several(self, job_ids: Collection[JobId]) -> dict[JobId, Job]:
        return {job_id: self.jobs[job_id] for job_id in job_ids}

    def marks(self, job_ids: Collection[JobId]) -> dict[JobId, tuple[object, ...]]:
        self.asked.append(set(job_ids))
        return {job_id: (self.jobs[job_id].state,) for job_id in job_ids}

    def queue_positions(self, job_ids: Collection[JobId]) -> dict[JobId, int]:
        return {job_id: place for place, job_id in enumerate(job_ids, start=1)}


def test_two_hundred_followers_cost_one_poll_and_all_hear_the_end(queued: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(followers, "POLL_S", 0.05)
    jobs = [replace(queued, id=JobId(f"job-{i}")) for i in range(50)]
    table, ends = Table(jobs), 0

    async def follow(hub: Followers, job: Job) -> None:
        nonlocal ends
        with events.progress(hub.following(job, "me"), JobDocument.of, still_allowed=lambda: True) as stream:
            async for text in stream:
                ends += text.startswith("event: end")

    async def main() -> None:
        hub = Followers(table)  # type: ignore[arg-type]
        async with anyio.create_task_group() as polling:
            polling.start_soon(hub.run)
            async with anyio.create_task_group() as streams:
                for i in range(200):
                    streams.start_soon(follow, hub, jobs[i % 50])
                with anyio.fail_after(30):
                    while not table.asked:  # noqa: ASYNC110 - it is asked in a thread
                        await anyio.sleep(0.02)
                await anyio.sleep(0.3)
                asked_in_the_meantime = len(table.asked)
                table.jobs = {job.id: replace(job, state=JobState.CANCELLED) for job in jobs}
            assert len(hub) == 0
            await anyio.sleep(0.2)
            asked_at_rest = len(table.asked)
            await anyio.sleep(0.2)
            assert len(table.asked) == asked_at_rest  # nobody follows, so nobody asks
            assert asked_in_the_meantime <= 8  # and not 200 times as many
            polling.cancel_scope.cancel()

    anyio.run(main)
    assert ends == 200


def test_watchers_of_lists_share_the_poll_and_hear_of_their_own_site_alone(
    running: Running, queued: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An operator hears of all; how far a job is makes no list worth reading again."""
    monkeypatch.setattr(followers, "POLL_S", 0.02)
    monkeypatch.setattr(followers, "REST", 0.0)
    store, asked = running.store, list[int | None]()

    def movements(since: int | None) -> Movements:
        asked.append(since)
        return store.movements(since)

    async def main() -> None:
        hub = Followers(SimpleNamespace(movements=movements))  # type: ignore[arg-type]
        async with anyio.create_task_group() as polling:
            polling.start_soon(hub.run)
            with hub.watching("", "me") as all_sites, hub.watching("", "you"), hub.watching("north", "other") as north:

                async def heard(change: Callable[[], object]) -> tuple[int, list[float]]:
                    rung = all_sites.rung
                    await anyio.to_thread.run_sync(change)
                    with anyio.fail_after(30):
                        await rung.wait()
                    assert all_sites.news is not None
                    return all_sites.news.changes, [job[2] for job in all_sites.news.running if job[0] == queued.id]

                before, _ = await heard(lambda: None)
                lease = store.leases.claim(queued.id, worker="w", lease_s=60)
                assert lease is not None
                begun = await heard(lambda: None)
                moved = await heard(lambda: store.leases.progress(lease, stage=Stage.INFERRING, progress=0.5, lease_s=60))
                ended = await heard(lambda: store.leases.fail(lease, InferenceFailed(reason="of a test")))
                assert (begun, moved, ended) == ((before + 1, [0.0]), (before + 1, [0.5]), (before + 2, []))
                assert north.news == Listing(1, ())
            polling.cancel_scope.cancel()

    anyio.run(main)
    assert asked.count(None) == 1


def test_a_service_that_stops_ends_every_stream(queued: Job) -> None:
    ended = list[str]()

    async def follow(following: AbstractContextManager[AsyncIterator[str]], name: str) -> None:
        with following as stream:
            async for _ in stream:
                pass
        ended.append(name)

    async def main() -> None:
        hub = Followers(Table([queued]))  # type: ignore[arg-type]
        job = events.progress(hub.following(queued, "me"), JobDocument.of, still_allowed=lambda: True)
        jobs = events.listing(hub.watching("", "me"), still_allowed=lambda: True)
        with anyio.fail_after(5):
            async with anyio.create_task_group() as streams:
                streams.start_soon(follow, job, "job")
                streams.start_soon(follow, jobs, "list")
                await anyio.wait_all_tasks_blocked()
                hub.close()
                late = events.listing(hub.watching("", "me"), still_allowed=lambda: True)  # a call that was let in before
                streams.start_soon(follow, late, "late list")

    anyio.run(main)
    assert sorted(ended) == ["job", "late list", "list"]


@pytest.mark.parametrize(("poll_s", "rest_s"), [(0.125, 1.125), (4.0, 5.0)])
def test_polls_that_take_long_are_made_less_often_but_every_5_s_and_one_alone_silences_nobody(
    poll_s: float, rest_s: float, queued: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    now = count(step=poll_s)  # each look at the clock is a poll later
    monkeypatch.setattr(followers, "monotonic", lambda: next(now))

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(followers, "anyio", SimpleNamespace(Event=anyio.Event, to_thread=anyio.to_thread, sleep=sleep))

    async def main() -> None:
        hub = Followers(Table([queued]))  # type: ignore[arg-type]
        with hub.following(queued, "me"):
            await hub.run()

    with pytest.raises(KeyboardInterrupt):
        anyio.run(main)
    assert pauses == [followers.POLL_S, rest_s]


def test_a_poll_that_fails_as_nobody_foresaw_ends_neither_the_followers_nor_the_service(
    queued: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(followers, "POLL_S", 0.01)
    monkeypatch.setattr(followers, "FAILED_S", 0.01)
    table = Table([queued])
    marks, broken = table.marks, iter([True, False])

    def marks_of_a_row_that_cannot_be_read(job_ids: Collection[JobId]) -> dict[JobId, tuple[object, ...]]:
        if next(broken, False):
            raise ValueError
        return marks(job_ids)

    monkeypatch.setattr(table, "marks", marks_of_a_row_that_cannot_be_read)

    async def main() -> None:
        hub = Followers(table)  # type: ignore[arg-type]
        async with anyio.create_task_group() as polling:
            polling.start_soon(hub.run)
            with hub.following(queued, "me") as follower, anyio.fail_after(5):
                await follower.rung.wait()
                assert follower.news == (queued, 1)
            polling.cancel_scope.cancel()

    anyio.run(main)


def test_one_caller_follows_so_many_jobs_and_another_is_not_kept_from_it(queued: Job) -> None:
    hub = Followers(Table([queued]), of_one=2)  # type: ignore[arg-type]
    with hub.following(queued, "one"), hub.following(queued, "one"):
        with pytest.raises(TooManyFollowers, match="follows 2 jobs"), hub.watching("", "one"):
            pass
        with hub.following(queued, "other"):
            pass
    with hub.following(queued, "one"):
        pass


def test_of_streams_that_begin_at_once_no_more_get_a_place_than_there_are(queued: Job) -> None:
    hub = Followers(Table([queued]), of_one=1)  # type: ignore[arg-type]
    let_in = [EventStream(events.listing(hub.watching("", "one"), still_allowed=lambda: True)) for _ in range(2)]
    sent = []

    async def receive() -> Message:
        await anyio.sleep_forever()
        return {}

    async def send(message: Message) -> None:
        sent.append(message["type"])
        await anyio.sleep_forever()

    async def main() -> None:
        async with anyio.create_task_group() as streams:
            scope: dict[str, Any] = {"type": "http"}
            streams.start_soon(let_in[0].__call__, scope, receive, send)
            await anyio.wait_all_tasks_blocked()
            with pytest.raises(TooManyFollowers):
                await let_in[1](scope, receive, send)
            streams.cancel_scope.cancel()

    anyio.run(main)
    assert sent == ["http.response.start"]
    assert len(hub) == 0


def test_a_stream_too_many_is_answered_429(
    running: Running, client: httpx.Client, queued: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running.service.followers, "_of_one", 0)
    answer = client.get(f"/v1/jobs/{queued.id}/events")
    assert (answer.status_code, answer.json()["code"]) == (429, "access.too_many_followers")
    assert "retry-after" in answer.headers


def test_a_stream_ends_when_its_key_is_revoked(
    tmp_path: Path, redis_url: str, series: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "KEEP_ALIVE_S", 0.2)
    write_model(tmp_path / "models")
    with serve(make_settings(tmp_path, redis_url)) as running:
        keys = KeyStore(running.service.database)
        _, key = keys.create("planning", [Scope.JOBS_READ, Scope.JOBS_WRITE])
        bearer = {"Authorization": f"Bearer {key}"}
        job = httpx.post(f"{running.url}/v1/jobs", files=parts(series[:5]), headers=bearer, timeout=30).json()
        text = ""
        with httpx.stream("GET", f"{running.url}{job['links']['events']}", headers=bearer, timeout=30) as answer:
            for chunk in answer.iter_text():
                text += chunk
                if "still here" in text:
                    keys.revoke("planning")
        assert "event: progress" in text
        assert "event: end" not in text

"""The job table: what it allows, what it refuses, and who wins a race."""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import cache
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, precondition, rule
from sqlalchemy import text

from oarlock.errors import (
    AttemptsExhausted,
    DatabaseUnavailable,
    IdempotencyConflict,
    InferenceFailed,
    InvalidParameter,
    JobAlreadyEnded,
    JobExpired,
    JobNotFound,
    JobNotRetryable,
)
from oarlock.facts import ModelFacts, Notice, SeriesFacts
from oarlock.store import audit
from oarlock.store.audit import SYSTEM
from oarlock.store.database import Database
from oarlock.store.deliveries import Delivery, DeliveryState, DeliveryStore
from oarlock.store.job_store import JobStore, NewJob, Queued
from oarlock.store.jobs import MAX_ATTEMPTS, Job, JobId, JobState, Priority, Stage
from oarlock.store.leases import Lease, LeaseLost
from oarlock.store.reviews import ReviewStore
from tests.fixtures.clock import Clock
from tests.store.forked import FORKED

SERIES = SeriesFacts("2.25.1", "2.25.2", "2.25.3", 37, (2.5, 1.1, 0.9))
MODEL = ModelFacts("oarlock-hn", "1.0", "ab" * 32)


@pytest.fixture
def sqlite_file(tmp_path: Path) -> Database:
    """A SQLite file that is alone in its folder; the test closes it."""
    return Database(f"sqlite:///{tmp_path / 'jobs.sqlite'}")


def create(store: JobStore, job_id: str = "a", **changes: object) -> Job:
    facts = {"id": JobId(job_id), "series": SERIES, "model": MODEL, "content_sha256": "c"} | changes
    return store.create(NewJob(**facts))  # type: ignore[arg-type]


def claim(store: JobStore, job_id: str = "a", worker: str = "w", lease_s: float = 15) -> Lease:
    lease = store.leases.claim(JobId(job_id), worker=worker, lease_s=lease_s)
    assert lease is not None
    return lease


# ── one job ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_new_job_is_queued_and_says_what_it_was_made_with(store: JobStore, clock: Clock) -> None:
    warning = Notice("series.gantry_tilt", "The gantry is tilted.")
    job = create(store, priority=Priority.URGENT, profile="clinic", warnings=(warning,))
    assert job == store.get(job.id)
    assert (job.state, job.stage, job.progress, job.attempts) == (JobState.QUEUED, None, 0.0, 0)
    assert (job.series, job.model, job.profile, job.priority) == (SERIES, MODEL, "clinic", Priority.URGENT)
    assert (job.created_at, job.started_at, job.finished_at) == (clock.now, None, None)
    assert (job.warnings, job.error, job.cancel_requested) == ((warning,), None, False)


def test_a_job_runs_reports_and_succeeds(store: JobStore, clock: Clock) -> None:
    created = create(store, warnings=(Notice("before", "at intake"),)).created_at
    clock.advance(2)
    lease = claim(store)
    clock.advance(3)
    assert store.leases.progress(lease, stage=Stage.INFERRING, progress=0.25, lease_s=15) is False
    running = store.get(JobId("a"))
    assert (running.state, running.stage, running.progress, running.attempts) == (JobState.RUNNING, Stage.INFERRING, 0.25, 1)
    clock.advance(4)
    store.leases.succeed(lease, warnings=[Notice("after", "in the worker")])
    job = store.get(JobId("a"))
    assert (job.state, job.stage, job.progress) == (JobState.SUCCEEDED, None, 1.0)
    assert [(t - created).total_seconds() for t in (job.started_at, job.finished_at) if t] == [2, 9]
    assert [warning.code for warning in job.warnings] == ["before", "after"]


def test_progress_never_falls_not_even_when_another_worker_starts_again_or_the_job_is_retried(
    store: JobStore, clock: Clock
) -> None:
    create(store)
    lease = claim(store)
    store.leases.progress(lease, stage=Stage.CONTOURING, progress=0.8, lease_s=15)
    store.leases.progress(lease, stage=Stage.CONTOURING, progress=0.7, lease_s=15)
    store.leases.take_back(store.leases.signs_of_life())
    second = claim(store, worker="v")
    store.leases.progress(second, stage=Stage.READING, progress=0.1, lease_s=15)
    store.leases.fail(second, InferenceFailed(reason="of a test"))
    assert store.retry(JobId("a")).progress == 0.8


def test_a_failed_job_says_why_and_a_retry_forgets_it_and_gives_back_all_attempts(store: JobStore) -> None:
    create(store)
    error = InferenceFailed(reason="of a test")
    store.leases.fail(claim(store), error)
    failed = store.get(JobId("a"))
    assert failed.error is not None
    assert (failed.error.code, failed.error.title, failed.error.detail) == (error.code, error.title, error.detail)
    retried = store.retry(JobId("a"))
    assert (retried.state, retried.error, retried.attempts, retried.started_at, retried.finished_at) == (
        JobState.QUEUED,
        None,
        0,
        None,
        None,
    )


def test_a_job_that_nobody_made_is_not_found(store: JobStore) -> None:
    nobody = JobId("nobody")
    for call in (store.get, store.request_cancel, store.retry, store.purge):
        with pytest.raises(JobNotFound):
            call(nobody)
    assert store.leases.claim(nobody, worker="w", lease_s=1) is None
    assert store.queue_position(nobody) is None


# ── leases ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_running_job_is_not_given_to_a_second_worker_whatever_his_clock_says(store: JobStore, clock: Clock) -> None:
    create(store)
    claim(store, lease_s=15)
    clock.advance(3_600)
    assert store.leases.claim(JobId("a"), worker="v", lease_s=15) is None


def test_a_worker_that_lost_its_lease_can_write_nothing(store: JobStore) -> None:
    create(store)
    lost = claim(store, lease_s=15)
    store.leases.take_back(store.leases.signs_of_life())
    owner = claim(store, worker="v")
    assert owner.token > lost.token
    before = store.get(JobId("a"))
    for report in (
        lambda: store.leases.progress(lost, stage=Stage.COMPARING, progress=0.9, lease_s=15),
        lambda: store.leases.succeed(lost),
        lambda: store.leases.fail(lost, InferenceFailed(reason="late")),
        lambda: store.leases.cancelled(lost),
        lambda: store.leases.hand_back(lost),
    ):
        with pytest.raises(LeaseLost):
            report()
    assert store.get(JobId("a")) == before
    store.leases.succeed(owner)


def test_a_worker_that_is_late_but_was_not_replaced_may_finish(store: JobStore, clock: Clock) -> None:
    create(store)
    lease = claim(store, lease_s=15)
    clock.advance(1000)
    store.leases.succeed(lease)
    assert store.get(JobId("a")).state is JobState.SUCCEEDED


def test_a_job_that_loses_its_worker_each_time_fails_after_the_last_attempt(store: JobStore) -> None:
    create(store)
    for attempt in range(1, MAX_ATTEMPTS + 1):
        assert claim(store).attempt == attempt
        sent_again = store.leases.take_back(store.leases.signs_of_life())
        assert sent_again == ([JobId("a")] if attempt < MAX_ATTEMPTS else [])
    job = store.get(JobId("a"))
    assert job.state is JobState.FAILED
    assert job.error is not None
    assert job.error.code == AttemptsExhausted.code
    assert store.leases.claim(JobId("a"), worker="w", lease_s=1) is None


def test_a_worker_that_stops_hands_its_job_back_and_the_attempt_does_not_count(store: JobStore) -> None:
    create(store)
    for _ in range(MAX_ATTEMPTS + 2):
        store.leases.hand_back(claim(store))
    assert (store.get(JobId("a")).state, store.get(JobId("a")).attempts) == (JobState.QUEUED, 0)
    store.leases.hand_back(claim(store), attempt_counts=True)
    assert store.get(JobId("a")).attempts == 1


def test_a_job_is_taken_back_once_and_only_if_there_was_no_report_meanwhile(store: JobStore, clock: Clock) -> None:
    create(store)
    lease = claim(store, lease_s=15)
    seen = store.leases.signs_of_life()
    clock.advance(-3_600)
    store.leases.progress(lease, stage=Stage.READING, progress=0.0, lease_s=15)
    assert store.leases.take_back(seen) == []
    assert store.leases.take_back({}) == []
    seen = store.leases.signs_of_life()
    assert store.leases.take_back(seen) == [JobId("a")]
    claim(store)
    assert store.leases.take_back(seen) == []


# ── cancelling and purging ────────────────────────────────────────────────────────────────────────────────────────────


def test_a_queued_job_is_cancelled_at_once_and_is_not_run_by_the_message_that_is_still_queued(store: JobStore) -> None:
    create(store)
    assert store.request_cancel(JobId("a")).state is JobState.CANCELLED
    assert store.leases.claim(JobId("a"), worker="w", lease_s=1) is None


def test_a_running_job_learns_of_its_cancellation_with_the_next_report(store: JobStore) -> None:
    create(store)
    lease = claim(store)
    assert store.request_cancel(JobId("a")).state is JobState.RUNNING
    assert store.request_cancel(JobId("a")).cancel_requested
    assert store.leases.progress(lease, stage=Stage.INFERRING, progress=0.1, lease_s=15) is True
    store.leases.cancelled(lease)
    assert store.get(JobId("a")).state is JobState.CANCELLED


@pytest.mark.parametrize("way", ["taken back", "handed back"])
def test_a_cancellation_outlives_the_worker_that_did_not_hear_it(store: JobStore, way: str) -> None:
    create(store)
    lease = claim(store)
    store.request_cancel(JobId("a"))
    if way == "handed back":
        store.leases.hand_back(lease)
    if way == "taken back":
        assert store.leases.take_back(store.leases.signs_of_life()) == []
    assert store.get(JobId("a")).state is JobState.CANCELLED


def test_what_has_ended_cannot_be_cancelled_and_only_what_failed_or_was_cancelled_can_be_retried(store: JobStore) -> None:
    create(store)
    with pytest.raises(JobNotRetryable):
        store.retry(JobId("a"))
    store.leases.succeed(claim(store))
    with pytest.raises(JobAlreadyEnded):
        store.request_cancel(JobId("a"))
    with pytest.raises(JobNotRetryable):
        store.retry(JobId("a"))
    create(store, "b")
    store.request_cancel(JobId("b"))
    with pytest.raises(JobAlreadyEnded):
        store.request_cancel(JobId("b"))
    assert store.retry(JobId("b")).state is JobState.QUEUED
    assert claim(store, "b").attempt == 1


@pytest.mark.parametrize("when", ["queued", "running", "succeeded"])
def test_of_a_purged_job_only_its_id_its_state_and_its_times_are_left(store: JobStore, when: str) -> None:
    create(store, idempotency_key="secret-key", profile="clinic", warnings=[Notice("x", "secret-detail")])
    lease = None if when == "queued" else claim(store)
    if when == "succeeded" and lease:
        store.leases.succeed(lease)
    store.purge(JobId("a"))
    store.purge(JobId("a"))
    job = store.get(JobId("a"))
    assert job.purged_at is not None
    assert job.state is (JobState.SUCCEEDED if when == "succeeded" else JobState.CANCELLED)
    assert "2.25" not in repr(job)
    assert "secret" not in repr(job)
    assert store.page(site="") == ([], None)
    with pytest.raises(JobNotRetryable):
        store.retry(JobId("a"))
    if when == "running" and lease:
        with pytest.raises(LeaseLost):
            store.leases.succeed(lease)
    assert create(store, "b", idempotency_key="secret-key", content_sha256="other").id == "b"


def test_an_idempotency_key_is_not_in_the_bytes_of_the_database(tmp_path: Path, sqlite_file: Database) -> None:
    store = JobStore(sqlite_file)
    create(store, idempotency_key="patient-4711")
    assert not [path for path in tmp_path.iterdir() if b"patient-4711" in path.read_bytes()]
    sqlite_file.close()


def test_a_purged_series_is_not_in_the_bytes_of_the_database_file(tmp_path: Path, sqlite_file: Database) -> None:
    store = JobStore(sqlite_file)
    canary = "2.25.987654321987654321"
    create(store, series=SeriesFacts(canary, canary, canary, 3, (1.0, 1.0, 1.0)))
    store.purge(JobId("a"))
    sqlite_file.close()  # the last connection folds the write-ahead log into the file
    assert all(canary.encode() not in path.read_bytes() for path in tmp_path.iterdir())


# ── posting the same thing twice ──────────────────────────────────────────────────────────────────────────────────────


def test_the_same_key_with_the_same_content_gives_the_same_job(store: JobStore) -> None:
    first = create(store, "a", idempotency_key="k", content_sha256="c")
    assert create(store, "b", idempotency_key="k", content_sha256="c") == first
    with pytest.raises(JobNotFound):
        store.get(JobId("b"))


def test_the_same_key_with_another_content_is_a_conflict(store: JobStore) -> None:
    create(store, "a", idempotency_key="k", content_sha256="c")
    with pytest.raises(IdempotencyConflict):
        create(store, "b", idempotency_key="k", content_sha256="d")


def test_no_key_of_an_operator_is_that_of_a_site(store: JobStore) -> None:
    of_north = create(store, "a", idempotency_key="abc", site="north")
    of_operator = create(store, "b", idempotency_key="north/abc")
    assert (of_north.id, of_operator.id) == ("a", "b")
    assert store.find_post("north/abc", "c", "") == of_operator
    assert store.find_post("abc", "c", "north") == of_north
    assert store.find_post("abc", "c", "") is None


def test_a_job_that_was_to_be_superseded_by_one_that_could_not_be_sent_stands_again(store: JobStore) -> None:
    create(store, "a")
    create(store, "b", supersedes=JobId("a"))
    assert store.get(JobId("a")).superseded_by == "b"
    store.discard(JobId("b"))
    assert store.get(JobId("a")).superseded_by is None


def test_a_site_finds_no_job_by_a_label_that_another_site_gave(store: JobStore) -> None:
    job = create(store, "a", label="spring", site="north")
    found = {
        site: store.of_label("spring", job.model.sha256, sites=[site] if site else [], limit=5) for site in ("north", "south", "")
    }
    assert found == {"north": ["a"], "south": [], "": ["a"]}


def test_reviews_of_more_jobs_than_a_statement_takes_are_found(store: JobStore, database: Database) -> None:
    """As many as the charts of a large group show."""
    reviews, many = ReviewStore(database), [JobId(str(number)) for number in range(70_000)]
    for job_id in (many[0], many[-1]):
        reviews.add(create(store, job_id), [("Brain", "usable", None)], by=SYSTEM)
    assert set(reviews.latest(many)) == {many[0], many[-1]}


@pytest.mark.parametrize("what", ["review", "delivery"])
def test_nothing_is_said_of_a_job_that_was_purged_a_moment_ago(store: JobStore, database: Database, what: str) -> None:
    """The call was let in before the purge."""
    job = create(store)
    told = Delivery("archive", "rtstruct", DeliveryState.WAITING, 1, "no route to Doe", None)
    say: dict[str, Callable[[], None]] = {
        "review": lambda: ReviewStore(database).add(job, [("Brain", "usable", "Doe's brain")], by=SYSTEM),
        "delivery": lambda: DeliveryStore(database).note(job.id, told, by=SYSTEM),
    }
    store.purge(job.id)
    with pytest.raises(JobExpired):
        say[what]()
    assert ReviewStore(database).page(site="") == []
    assert DeliveryStore(database).of([job.id]) == {}


def test_a_job_that_could_not_be_sent_is_discarded_unless_somebody_else_sent_or_claimed_it(store: JobStore) -> None:
    create(store, "a")
    assert store.discard(JobId("a"))
    with pytest.raises(JobNotFound):
        store.get(JobId("a"))
    assert store.marked_sent(JobId("a")) is False
    create(store, "b")
    store.marked_sent(JobId("b"))
    create(store, "c")
    claim(store, "c")
    assert (store.discard(JobId("b")), store.discard(JobId("c"))) == (False, False)


# ── lists and numbers ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_pages_hold_every_job_once_newest_first_even_those_of_the_same_instant(store: JobStore, clock: Clock) -> None:
    for i in range(7):
        create(store, f"job{i}")
        clock.advance(i % 2)
    seen: list[str] = []
    cursor = None
    for _ in range(4):
        jobs, cursor = store.page(site="", limit=2, cursor=cursor)
        seen += [job.id for job in jobs]
    assert cursor is None
    assert seen == ["job6", "job5", "job4", "job3", "job2", "job1", "job0"]


def test_pages_can_be_narrowed_to_a_state_or_a_series(store: JobStore) -> None:
    create(store, "a")
    create(store, "b", series=SeriesFacts("2.25.1", "2.25.9", "2.25.3", 3, (1.0, 1.0, 1.0)))
    claim(store, "a")
    assert [job.id for job in store.page(site="", state=JobState.RUNNING)[0]] == ["a"]
    assert [job.id for job in store.page(site="", series_instance_uid="2.25.9")[0]] == ["b"]
    assert store.page(site="", state=JobState.RUNNING, series_instance_uid="2.25.9") == ([], None)


@pytest.mark.parametrize("cursor", ["", "x", "ä", "AAAA", "MQ", "OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk5Lg", "!" * 500])
def test_a_cursor_that_is_not_ours_is_refused(store: JobStore, cursor: str) -> None:
    with pytest.raises(InvalidParameter):
        store.page(site="", cursor=cursor)


def test_the_place_in_the_queue_goes_by_priority_then_by_waiting_time(store: JobStore, clock: Clock) -> None:
    priorities = {"low": Priority.LOW, "first": Priority.NORMAL, "second": Priority.NORMAL, "now": Priority.URGENT}
    for job_id, priority in priorities.items():
        create(store, job_id, priority=priority)
        clock.advance(1)
    everyone = [JobId(job_id) for job_id in priorities]
    assert store.queue_positions([*everyone, JobId("nobody")]) == {"now": 1, "first": 2, "second": 3, "low": 4}
    assert [store.queue_position(job_id) for job_id in everyone] == [4, 2, 3, 1]
    assert store.queue_positions([JobId("second")]) == {"second": 3}
    claim(store, "now")
    assert (store.queue_position(JobId("now")), store.queue_position(JobId("first"))) == (None, 1)


def test_queued_jobs_say_when_they_were_queued_and_sent_in_the_order_of_the_queue(store: JobStore, clock: Clock) -> None:
    create(store, "sent")
    clock.advance(1)
    create(store, "never")
    create(store, "running")
    claim(store, "running")
    at = clock.now
    clock.advance(1)
    store.marked_sent(JobId("sent"))
    before = {JobId("sent"): Queued(at - timedelta(seconds=1), clock.now), JobId("never"): Queued(at, None)}
    assert list(store.queued().items()) == list(before.items())


def test_jobs_are_counted_by_state_and_purged_ones_are_not(store: JobStore) -> None:
    for job_id in "abc":
        create(store, job_id)
    claim(store, "a")
    store.purge(JobId("c"))
    assert store.open_by_site() == {("", JobState.QUEUED): 1, ("", JobState.RUNNING): 1}
    assert store.waiting() == 1
    assert dict(store.counts()) == {state: int(state in {JobState.QUEUED, JobState.RUNNING}) for state in JobState}


def test_the_duration_of_each_stage_is_counted_once_in_its_bucket(store: JobStore, clock: Clock) -> None:
    create(store)
    lease = claim(store)
    clock.advance(0.4)
    store.leases.progress(lease, stage=Stage.INFERRING, progress=0.1, lease_s=99)
    clock.advance(7)
    store.leases.progress(lease, stage=Stage.INFERRING, progress=0.2, lease_s=99)
    clock.advance(10_000)
    store.leases.succeed(lease)
    durations = {entry.stage: entry for entry in store.stage_times.all()}
    assert (durations[Stage.READING].counts[0], durations[Stage.READING].total_s) == (1, pytest.approx(0.4))
    assert (durations[Stage.INFERRING].counts[-1], durations[Stage.INFERRING].total_s) == (1, pytest.approx(10_007))
    assert sum(durations[Stage.INFERRING].counts) == 1
    assert sum(durations[Stage.COMPARING].counts) == 0


def test_workers_are_alive_while_they_are_heard_of(store: JobStore, database: Database) -> None:
    store.workers.heartbeat("w", {"oarlock-hn": "ab"}, "cpu")
    with database.writing() as connection:
        connection.execute(text("UPDATE workers SET seen_at = seen_at - 20000000"))
    store.workers.heartbeat("v", {}, "cuda:0")
    store.workers.heartbeat("v", {"other": "cd"}, "cuda:0")
    (alive,) = store.workers.live(10)
    assert (alive.name, alive.models, alive.device) == ("v", {"other": "cd"}, "cuda:0")
    store.workers.sign_off("v")
    assert [worker.name for worker in store.workers.live(60)] == ["w"]


def test_who_was_silent_for_long_is_forgotten_and_comes_back_when_he_is_heard_of(store: JobStore, database: Database) -> None:
    store.workers.heartbeat("killed", {}, "cpu")
    with database.writing() as connection:
        connection.execute(text("UPDATE workers SET seen_at = seen_at - 20000000"))
    store.workers.heartbeat("living", {}, "cpu")
    store.workers.forget(10)
    assert [worker.name for worker in store.workers.live(60)] == ["living"]
    store.workers.heartbeat("killed", {}, "cpu")
    assert [worker.name for worker in store.workers.live(60)] == ["killed", "living"]


def test_a_worker_or_a_reader_whose_clock_is_wrong_changes_nothing_about_who_is_alive(store: JobStore, clock: Clock) -> None:
    store.workers.heartbeat("w", {}, "cpu")
    clock.advance(3_600)
    store.workers.heartbeat("v", {}, "cpu")
    clock.advance(3_600)
    assert [worker.name for worker in store.workers.live(60)] == ["v", "w"]


# ── several processes ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_of_many_threads_that_claim_at_once_each_job_has_one_owner(store: JobStore) -> None:
    ids = [f"job{i}" for i in range(8)]
    for job_id in ids:
        create(store, job_id)
    tries = [(JobId(job_id), f"worker{i}") for job_id in ids for i in range(6)]
    with ThreadPoolExecutor(6) as pool:
        leases = list(pool.map(lambda pair: store.leases.claim(pair[0], worker=pair[1], lease_s=60), tries))
    assert sorted(lease.job_id for lease in leases if lease) == ids


def _claim_all(url: str, worker: str, start: "multiprocessing.synchronize.Barrier", won: "multiprocessing.Queue[str]") -> None:
    start.wait()
    database = Database(url)  # the schema too is made by all at once
    store = JobStore(database)
    for i in range(20):
        store.create(NewJob(id=JobId(f"job{i}"), series=SERIES, model=MODEL, idempotency_key=f"key{i}", content_sha256="c"))
        if lease := store.leases.claim(JobId(f"job{i}"), worker=worker, lease_s=60):
            store.leases.progress(lease, stage=Stage.INFERRING, progress=0.5, lease_s=60)
            store.leases.succeed(lease)
            won.put(lease.job_id)
    database.close()


@pytest.mark.slow
def test_of_several_processes_that_start_create_and_claim_at_once_each_job_has_one_owner(database_url: str) -> None:
    start, won = FORKED.Barrier(3), FORKED.Queue()
    processes = [FORKED.Process(target=_claim_all, args=(database_url, f"worker{i}", start, won)) for i in range(3)]
    for process in processes:
        process.start()
    winners = [won.get(timeout=60) for _ in range(20)]
    for process in processes:
        process.join(timeout=60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert (sorted(winners), won.empty()) == (sorted(f"job{i}" for i in range(20)), True)


def test_a_database_that_is_gone_is_a_transient_error(tmp_path: Path) -> None:
    with pytest.raises(DatabaseUnavailable):
        Database(f"sqlite:///{tmp_path / 'no' / 'such' / 'folder' / 'jobs.sqlite'}")


def test_a_database_survives_being_opened_again(migrated_url: str) -> None:
    first = Database(migrated_url)
    create(JobStore(first))
    first.close()
    second = Database(migrated_url)
    assert JobStore(second).get(JobId("a")).state is JobState.QUEUED
    second.close()


# ── every walk through the states ─────────────────────────────────────────────────────────────────────────────────────


NEXT = {
    JobState.QUEUED: {JobState.RUNNING, JobState.CANCELLED, JobState.FAILED},
    JobState.RUNNING: {JobState.QUEUED, JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED},
    JobState.SUCCEEDED: set(),
    JobState.FAILED: {JobState.QUEUED},
    JobState.CANCELLED: {JobState.QUEUED},
}
"""The picture in oarlock/store/jobs.py, and the job that fails because its last worker fell silent."""


@cache
def one_for_all_walks() -> Database:
    """Making the schema takes longer than a walk."""
    return Database("sqlite://")


class Walk(RuleBasedStateMachine):
    """Any order of calls by service, sweeper and workers keeps to NEXT, and only the newest lease is heard."""

    leases = Bundle("leases")

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.store = JobStore(one_for_all_walks(), clock=self.clock)
        self.job_id = create(self.store, str(uuid4())).id
        self.seen = self.store.get(self.job_id)
        self.newest = 0

    def teardown(self) -> None:
        """No other walk meets this job."""
        self.store.purge(self.job_id)

    @rule(target=leases, lease_s=st.sampled_from([1, 10]))
    def a_worker_claims(self, lease_s: float) -> Lease | None:
        lease = self.store.leases.claim(self.job_id, worker="w", lease_s=lease_s)
        if lease:
            assert lease.token > self.newest
            assert lease.attempt <= MAX_ATTEMPTS
            self.newest = lease.token
        return lease

    @rule(lease=leases, progress=st.floats(0, 1), stage=st.sampled_from(Stage))
    def a_worker_reports(self, lease: Lease | None, progress: float, stage: Stage) -> None:
        if lease:
            self.heard_only_if_it_holds(
                lease, lambda: self.store.leases.progress(lease, stage=stage, progress=progress, lease_s=5)
            )

    @rule(lease=consumes(leases), how=st.sampled_from(["succeed", "fail", "cancelled", "hand_back"]))
    def a_worker_ends(self, lease: Lease | None, how: str) -> None:
        if lease:
            more = (InferenceFailed(reason="x"),) if how == "fail" else ()
            self.heard_only_if_it_holds(lease, lambda: getattr(self.store.leases, how)(lease, *more))

    def heard_only_if_it_holds(self, lease: Lease, report) -> None:  # type: ignore[no-untyped-def]
        holds = self.store.get(self.job_id).state is JobState.RUNNING and lease.token == self.newest
        if holds:
            report()
        else:
            with pytest.raises(LeaseLost):
                report()

    @rule()
    def the_sender_cancels(self) -> None:
        ended = self.store.get(self.job_id).state.ended
        if ended:
            with pytest.raises(JobAlreadyEnded):
                self.store.request_cancel(self.job_id)
        else:
            self.store.request_cancel(self.job_id)

    @rule()
    def the_sender_retries(self) -> None:
        job = self.store.get(self.job_id)
        if job.state in {JobState.FAILED, JobState.CANCELLED} and not job.purged_at:
            self.check()
            assert self.store.retry(self.job_id).attempts == 0
        else:
            with pytest.raises(JobNotRetryable):
                self.store.retry(self.job_id)

    @precondition(lambda self: self.newest > 3)
    @rule()
    def the_sender_purges(self) -> None:
        self.store.purge(self.job_id)

    @rule(seconds=st.sampled_from([0.5, 6, 20]))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule()
    def the_sweeper_sweeps(self) -> None:
        self.store.leases.take_back(self.store.leases.signs_of_life())

    @invariant()
    def check(self) -> None:
        before, now = self.seen, self.store.get(self.job_id)
        reachable = {before.state, *NEXT[before.state]}
        if before.state is JobState.RUNNING:  # one claim may give a job up that was just taken back
            reachable |= {JobState.QUEUED, JobState.FAILED}
        assert now.state in reachable
        assert now.progress >= before.progress
        assert 0 <= now.attempts <= MAX_ATTEMPTS
        assert (now.finished_at is not None) is now.state.ended
        assert (now.stage is not None) is (now.state is JobState.RUNNING)
        assert (now.error is not None) is (now.state is JobState.FAILED and now.purged_at is None)
        assert before.purged_at is None or now == before
        self.seen = now


Walk.TestCase.settings = settings(
    max_examples=settings.default.max_examples * 2 // 5,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
test_every_walk_keeps_to_the_allowed_transitions = pytest.mark.slow(Walk.TestCase)


# ── an upgrade ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_jobs_that_wait_for_a_model_that_is_gone_are_given_to_the_one_that_is_there(database: Database) -> None:
    """Its sender and the audit log are told; so it is with one that a killed worker left running.

    A job that has ended, and one of another model, stay as they are."""
    store, newer = JobStore(database), ModelFacts("oarlock-hn", "2.0", "ef" * 32)
    for job_id in ("ended", "runs", "waits"):
        create(store, job_id)
    create(store, "other", model=ModelFacts("other", "1.0", "ab" * 32))
    store.leases.succeed(claim(store, "ended"))
    claim(store, "runs")
    assert store.give_to({"oarlock-hn": newer}) == 2
    assert store.give_to({"oarlock-hn": newer}) == 0
    models = {job_id: store.get(JobId(job_id)).model.version for job_id in ("ended", "runs", "waits", "other")}
    assert models == {"ended": "1.0", "runs": "2.0", "waits": "2.0", "other": "1.0"}
    (warning,) = store.get(JobId("waits")).warnings
    assert (warning.code, "1.0, which was replaced by 2.0" in warning.detail) == ("job.model_replaced", True)
    given = list(audit.read_entries(database))[-2:]
    assert {(entry.action, entry.job_id, entry.model) for entry in given} == {
        ("job.given_to_model", job_id, audit.to_text(newer)) for job_id in ("runs", "waits")
    }

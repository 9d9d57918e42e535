"""How long jobs stay: their own times count before the settings', and nothing that is waited for is taken away."""

from datetime import timedelta

import pytest
from pydantic import ValidationError

from oarlock.cli.main import main
from oarlock.errors import JobExpired
from oarlock.settings import Settings
from oarlock.store.audit import read_entries
from oarlock.store.database import Database
from oarlock.store.job_store import JobStore
from oarlock.store.jobs import JobId, JobState
from oarlock.store.keys import KeyStore
from oarlock.store.retention import Retention, to_seconds
from tests.fixtures.clock import Clock
from tests.store.test_job_store import claim, create

HOUR_S = 3_600
FOREVER = Retention()
FAILURE = JobExpired()


def end(store: JobStore, state: JobState, job_id: str = "a") -> None:
    if state is JobState.CANCELLED:
        store.request_cancel(JobId(job_id))
        return
    lease = claim(store, job_id)
    if state is JobState.SUCCEEDED:
        store.leases.succeed(lease)
    else:
        store.leases.fail(lease, FAILURE)


ENDS = [JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED]


@pytest.mark.parametrize("state", ENDS)
def test_an_input_goes_when_its_time_is_over_and_not_before(store: JobStore, clock: Clock, state: JobState) -> None:
    create(store)
    end(store, state)
    clock.advance(HOUR_S - 1)
    assert store.retirement.purge_inputs_due(Retention(input_s=HOUR_S)) == []
    clock.advance(1)
    assert store.retirement.purge_inputs_due(Retention(input_s=HOUR_S)) == ["a"]
    assert store.retirement.purge_inputs_due(Retention(input_s=HOUR_S)) == []
    assert store.get(JobId("a")).input_purged_at == clock.now
    assert store.retirement.without_input() == {"a"}


@pytest.mark.parametrize("state", ENDS)
def test_a_job_goes_with_all_that_is_known_of_it_when_the_time_of_its_results_is_over(
    store: JobStore, clock: Clock, state: JobState
) -> None:
    create(store)
    end(store, state)
    clock.advance(HOUR_S)
    assert store.retirement.purge_due(Retention(results_s=HOUR_S)) == ["a"]
    job = store.get(JobId("a"))
    assert (job.purged_at, job.series.series_instance_uid, job.state) == (clock.now, "", state)


def test_a_time_of_nothing_is_over_as_soon_as_the_job_has_ended(store: JobStore) -> None:
    create(store)
    assert store.retirement.purge_inputs_due(Retention(0, 0)) == store.retirement.purge_due(Retention(0, 0)) == []
    lease = claim(store)
    assert store.retirement.purge_inputs_due(Retention(0, 0)) == store.retirement.purge_due(Retention(0, 0)) == []
    store.leases.succeed(lease)
    assert store.retirement.purge_inputs_due(Retention(0, 0)) == ["a"]


def test_without_a_time_nothing_goes(store: JobStore, clock: Clock) -> None:
    create(store)
    end(store, JobState.SUCCEEDED)
    clock.advance(100 * 365 * 24 * HOUR_S)
    assert store.retirement.purge_inputs_due(FOREVER) == store.retirement.purge_due(FOREVER) == []


def test_the_times_that_a_job_was_posted_with_count_before_the_settings(store: JobStore, clock: Clock) -> None:
    create(store, "short", retention=Retention(HOUR_S, 2 * HOUR_S))
    create(store, "long", retention=Retention(9 * HOUR_S, 9 * HOUR_S))
    for job_id in ("short", "long"):
        end(store, JobState.SUCCEEDED, job_id)
    clock.advance(HOUR_S)
    assert store.retirement.purge_inputs_due(FOREVER) == ["short"]
    clock.advance(HOUR_S)
    assert store.retirement.purge_due(Retention(HOUR_S, HOUR_S)) == ["short"]
    assert store.retirement.purge_inputs_due(Retention(HOUR_S, HOUR_S)) == []


def test_a_failed_job_without_its_input_is_not_retried(store: JobStore) -> None:
    create(store)
    end(store, JobState.FAILED)
    store.retirement.purge_inputs_due(Retention(input_s=0))
    with pytest.raises(JobExpired):
        store.retry(JobId("a"))
    assert store.get(JobId("a")).state is JobState.FAILED


def test_a_job_that_is_being_retried_keeps_its_input_and_its_time_starts_again(store: JobStore, clock: Clock) -> None:
    create(store)
    end(store, JobState.FAILED)
    clock.advance(HOUR_S)
    store.retry(JobId("a"))
    assert store.retirement.purge_inputs_due(Retention(0, 0)) == store.retirement.purge_due(Retention(0, 0)) == []
    end(store, JobState.FAILED)
    assert store.retirement.purge_inputs_due(Retention(input_s=HOUR_S)) == []


def test_the_audit_log_says_that_the_time_was_over(store: JobStore, database: Database) -> None:
    create(store)
    end(store, JobState.SUCCEEDED)
    store.retirement.purge_inputs_due(Retention(input_s=0))
    store.retirement.purge_due(Retention(results_s=0))
    entries = [(entry.action, entry.actor, entry.job_id) for entry in read_entries(database)][-2:]
    assert entries == [("input.purged", "system", "a"), ("job.purged", "system", "a")]


@pytest.mark.parametrize(
    ("text", "seconds"), [("0", 0), ("90", 90), ("90s", 90), ("45m", 2_700), ("12h", 43_200), ("30d", 2_592_000)]
)
def test_durations(text: str, seconds: int) -> None:
    assert to_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "-1", "1.5d", "1 d", "d", "30D", "forever", "1d12h", "9999999"])
def test_what_is_not_a_duration(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="not a duration"):
        to_seconds(text)
    monkeypatch.setenv("OARLOCK_KEEP_INPUT", text)
    with pytest.raises(ValidationError, match="not a duration"):
        Settings()


def test_the_settings_say_how_long(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings().retention == Retention(30 * 24 * HOUR_S, 365 * 24 * HOUR_S)
    monkeypatch.setenv("OARLOCK_KEEP_INPUT", "0")
    monkeypatch.setenv("OARLOCK_KEEP_RESULTS", "30d")
    assert Settings().retention == Retention(0, timedelta(days=30) // timedelta(seconds=1))


def test_a_key_carries_the_times_that_it_was_made_with(
    database: Database, migrated_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATABASE_URL", migrated_url)
    arguments = ["--scope", "jobs:write", "--keep-input", "0", "--keep-results", "7d"]
    assert main(["keys", "create", "planning", *arguments]) == 0
    found = KeyStore(database).find(capsys.readouterr().out.strip())
    assert found is not None
    assert found.retention == Retention(0, 7 * 24 * HOUR_S)

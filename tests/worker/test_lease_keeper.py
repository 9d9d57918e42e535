from collections.abc import Callable
from threading import Event
from typing import Any

import pytest

from oarlock.errors import DatabaseUnavailable
from oarlock.store.jobs import JobId, Stage
from oarlock.store.leases import Lease, LeaseLost
from worker.lease_keeper import SHARES, CancelRequested, LeaseKeeper, WorkerStopping

LEASE = Lease(JobId("job"), token=1, worker="test", attempt=1)


class Table:
    """A job table that answers every report with the next of its answers."""

    def __init__(self, *answers: bool | Exception) -> None:
        self.answers, self.reports = list(answers), [] if answers else [0.0]
        self.enough, self.wanted = Event(), 3

    def progress(self, lease: Lease, *, stage: Stage, progress: float, lease_s: float) -> bool:
        self.reports.append(progress)
        if len(self.reports) > self.wanted:
            self.enough.set()
        answer = self.answers.pop(0) if self.answers else False
        if isinstance(answer, Exception):
            raise answer
        return answer


def keeper(table: Table, *, lease_s: float = 3600.0, stopping: Callable[[], bool] = lambda: False) -> LeaseKeeper:
    store: Any = table
    return LeaseKeeper(store, LEASE, lease_s=lease_s, stopping=stopping)


def test_the_stages_share_the_whole_of_the_progress_in_their_order() -> None:
    assert list(SHARES) == list(Stage)
    edges = [edge for share in SHARES.values() for edge in share]
    assert edges == sorted(edges)
    assert edges[0] == 0.0
    assert edges[-1] == 1.0


def test_a_long_native_call_keeps_its_lease() -> None:
    table = Table()
    with keeper(table, lease_s=0.03) as held:
        held.report(Stage.INFERRING, 0.5)
        assert table.enough.wait(30)  # nobody reports meanwhile
    assert table.reports[-1] == pytest.approx(0.45)


def test_a_loss_that_is_learnt_in_the_background_stops_the_job_at_the_next_step() -> None:
    table = Table(False, LeaseLost())
    table.wanted = 2
    with keeper(table, lease_s=0.03) as held:
        assert table.enough.wait(30)
        with pytest.raises(LeaseLost):
            held.report(Stage.INFERRING)


def test_a_database_that_is_away_for_a_moment_does_not_stop_the_job() -> None:
    with keeper(Table(DatabaseUnavailable(), False)) as held:
        held.report(Stage.READING)
        held.report(Stage.INFERRING)


def test_cancellation_and_the_end_of_the_worker_are_told_apart() -> None:
    with keeper(Table(True)) as held, pytest.raises(CancelRequested):
        held.report(Stage.READING)
    with keeper(Table(False), stopping=lambda: True) as held, pytest.raises(WorkerStopping):
        held.report(Stage.READING)


def test_an_error_that_nobody_foresaw_does_not_end_the_renewals() -> None:
    table = Table(RuntimeError("a driver's own"), RuntimeError("once more"))
    with keeper(table, lease_s=0.03):
        assert table.enough.wait(30)


def test_progress_within_a_stage_is_written_now_and_then_and_each_stage_at_once() -> None:
    """A hundred reports in a moment are four writes; the end of the worker is noticed at each of them."""
    table = Table()
    table.reports = []
    with keeper(table) as held:
        for stage in Stage:
            for step in range(25):
                held.report(stage, step / 25)
    assert table.reports == [SHARES[stage][0] for stage in Stage]
    with keeper(Table(), stopping=lambda: True) as held:
        held._written_at = float("inf")
        with pytest.raises(WorkerStopping):
            held.report(Stage.READING, 0.5)

"""Fairness: one site's hundred jobs do not make another site's one wait for all of them."""

import heapq
from collections.abc import Sequence

import pytest

from oarlock.store.database import Database
from oarlock.store.fairness import rank_of
from oarlock.store.job_store import JobStore
from oarlock.store.jobs import JobId, Priority
from tests.store.test_job_store import claim, create


def order_of(posts: Sequence[tuple[str, Priority]]) -> list[int]:
    """In which order one worker takes jobs that were posted at once, by their places among the posts."""
    queue: list[tuple[int, int]] = []
    ranks: dict[tuple[str, Priority], list[int]] = {}
    for place, post in enumerate(posts):
        waiting = ranks.setdefault(post, [])
        waiting.append(rank_of(post[1], len(waiting), max(waiting, default=0)))
        heapq.heappush(queue, (waiting[-1], place))
    return [heapq.heappop(queue)[1] for _ in posts]


def test_one_job_behind_a_hundred_of_another_site_waits_for_one_of_them() -> None:
    order = order_of([("large", Priority.NORMAL)] * 100 + [("small", Priority.NORMAL)])
    assert order.index(100) == 1


def test_ten_jobs_behind_a_hundred_of_another_site_wait_for_sixteen_of_them() -> None:
    order = order_of([("large", Priority.NORMAL)] * 100 + [("small", Priority.NORMAL)] * 10)
    assert sum(place < 100 for place in order[: order.index(109)]) == 16


def test_of_two_sites_the_one_with_a_share_of_two_has_twice_as_many_jobs_at_each_step() -> None:
    ranks = {share: [] for share in (1, 2)}  # type: dict[int, list[int]]
    for share, given in ranks.items():
        for waiting in range(40):
            given.append(rank_of(Priority.NORMAL, waiting, max(given, default=0), share))
    assert [ranks[1].count(step) for step in (4, 5, 6)] == [1, 3, 12]
    assert [ranks[2].count(step) for step in (4, 5, 6)] == [2, 6, 24]


def test_within_a_site_jobs_of_one_priority_keep_the_order_of_arrival() -> None:
    posts = [("large", Priority.NORMAL)] * 40 + [("small", Priority.NORMAL)] * 40
    order = order_of(posts)
    for mine in (range(40), range(40, 80)):
        assert [place for place in order if place in mine] == list(mine)


@pytest.mark.parametrize(("before", "after"), [(Priority.URGENT, Priority.NORMAL), (Priority.NORMAL, Priority.LOW)])
def test_a_higher_priority_goes_before_a_lower_one_however_many_wait(before: Priority, after: Priority) -> None:
    order = order_of([("one", after), ("two", after)] + [("one", before)] * 100)
    assert order[-2:] == [0, 1]


def test_every_rank_is_a_step_of_the_queue() -> None:
    assert {rank_of(priority, waiting, 0) for priority in Priority for waiting in range(200)} == set(range(10))


def test_a_job_does_not_overtake_an_earlier_one_of_its_site_when_the_queue_has_become_short(database: Database) -> None:
    store = JobStore(database)
    for number in range(5):
        create(store, f"job-{number}", site="north")
    assert [store.get(JobId(f"job-{number}")).rank for number in range(5)] == [4, 5, 5, 5, 6]
    for number in range(4):
        claim(store, f"job-{number}")
    assert create(store, "late", site="north").rank == 6
    assert create(store, "other", site="south").rank == 4


def test_a_place_in_the_queue_counts_the_jobs_of_the_own_site_alone(database: Database) -> None:
    store = JobStore(database)
    for number in range(3):
        create(store, f"north-{number}", site="north")
    create(store, "south-0", site="south")
    assert store.queue_position(JobId("south-0")) == 1
    assert store.queue_positions([JobId("south-0"), JobId("north-2")]) == {"south-0": 1, "north-2": 3}

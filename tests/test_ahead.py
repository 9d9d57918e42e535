"""Calls side by side: in order, bounded, and ended with whoever asked."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import closing
from contextvars import ContextVar
from functools import partial
from threading import Barrier, Event, Thread, current_thread
from time import sleep

import pytest

from oarlock.ahead import ahead, beside


@pytest.mark.parametrize("at_once", [1, 2, 5])
def test_answers_come_in_the_order_of_the_calls_whichever_ends_first(at_once: int) -> None:
    behind = Event()

    def first() -> int:
        assert at_once == 1 or behind.wait(10)
        return 1

    def second() -> int:
        behind.set()
        return 2

    assert list(ahead([first, second, lambda: 3], at_once)) == [1, 2, 3]


def test_two_calls_truly_run_at_the_same_time() -> None:
    met = Barrier(2, timeout=10)  # broken, with an error, unless two wait at it
    assert len(list(ahead([met.wait] * 4, 2))) == 4


def test_one_at_a_time_runs_in_the_callers_thread_and_not_before_it_is_asked_for() -> None:
    ran: list[str] = []
    answers = ahead([lambda: ran.append(current_thread().name)] * 2, 1)
    assert not ran
    next(answers)
    assert ran == [current_thread().name]


def test_no_more_calls_are_begun_than_may_be_under_way() -> None:
    taken: list[int] = []

    def calls() -> Iterator[Callable[[], int]]:
        for n in range(9):
            taken.append(n)
            yield partial(int, n)

    answers = ahead(calls(), 2)
    for n in range(5):
        assert next(answers) == n
        assert taken == list(range(n + 2))  # the one that was got, and one under way
    answers.close()


def test_an_error_is_raised_in_its_turn_with_its_cause() -> None:
    def fails() -> int:
        raise KeyError("what was wrong") from ValueError("the reason")

    answers = ahead([lambda: 1, fails, lambda: 3], 2)
    assert next(answers) == 1
    with pytest.raises(KeyError, match="what was wrong") as raised:
        next(answers)
    assert isinstance(raised.value.__cause__, ValueError)


def test_after_it_is_closed_nothing_runs_and_nothing_is_begun() -> None:
    """A second call may be under way beside the first; none begins for an answer that nobody asked for."""
    go_on, ended, ran_in = Event(), list[int](), set[Thread]()

    def call(n: int) -> int:
        ran_in.add(current_thread())
        if n:
            assert go_on.wait(10)
            sleep(0.02)  # it still runs unless it is waited for
        ended.append(n)
        return n

    with closing(ahead([partial(call, n) for n in range(9)], 2)) as answers:
        assert next(answers) == 0
        go_on.set()
    assert not [thread for thread in ran_in if thread.is_alive()]
    assert set(ended) <= {0, 1}


def test_a_thread_knows_what_its_caller_knows() -> None:
    job = ContextVar("job", default="none")
    job.set("this one")
    assert list(ahead([job.get, job.get], 2)) == ["this one", "this one"]


def test_a_thread_beside_runs_one_call_after_another_and_gives_their_answers() -> None:
    ran: list[int] = []
    with beside() as start:
        for n in range(5):
            start(partial(ran.append, n))
        named, fails = start(lambda: current_thread().name), start(lambda: 1 // 0)
        assert named() != current_thread().name
        with pytest.raises(ZeroDivisionError):
            fails()
    assert ran == list(range(5))


def test_where_its_context_ends_with_an_error_the_call_that_runs_is_waited_for_and_no_other_begins(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first call goes on only once the second one has been cancelled."""
    began, cancelled, ended = Event(), Event(), list[str]()
    cancel = Future.cancel

    def noted(future: "Future[None]") -> bool:
        answer = cancel(future)
        cancelled.set()
        return answer

    def first() -> None:
        began.set()
        assert cancelled.wait(10)
        sleep(0.02)  # it still runs unless it is waited for
        ended.append("first")

    def stopped() -> None:
        with beside() as start:
            start(first)
            start(lambda: ended.append("second"))
            assert began.wait(10)
            raise InterruptedError

    monkeypatch.setattr(Future, "cancel", noted)
    with pytest.raises(InterruptedError):
        stopped()
    assert ended == ["first"]

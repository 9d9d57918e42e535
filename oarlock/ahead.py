"""Calls that run side by side in threads, their answers in order.

NumPy, SciPy, OpenCV, zlib and ONNX Runtime let other threads go on while they compute. Whoever asks for the answers gets them one
after another, so what is made of them does not depend on which call ended first.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from itertools import islice
from typing import TypeVar

T = TypeVar("T")


def ahead(calls: Iterable[Callable[[], T]], at_once: int) -> Generator[T]:
    """The answers of calls, in the order of the calls.

    Calls run while the caller works on an answer: of these and the answer in work there are never more than ``at_once``, so
    cores and memory are full and no more. To close it is to wait for the calls that run; no other is begun then.

    :param calls: taken one by one, in the caller's thread.
    :param at_once: how many run side by side; with 1 each runs in the caller's thread when its answer is asked for.
    :raises Exception: what a call raised, in its turn.
    """
    if at_once == 1:
        yield from (call() for call in calls)
        return
    coming: deque[Future[T]] = deque()
    left = iter(calls)
    with ThreadPoolExecutor(at_once) as threads:
        try:
            coming.extend(threads.submit(copy_context().run, call) for call in islice(left, at_once))
            while coming:
                yield coming.popleft().result()
                coming.extend(threads.submit(copy_context().run, call) for call in islice(left, 1))
        finally:
            for future in coming:
                future.cancel()


@contextmanager
def beside() -> Iterator[Callable[[Callable[[], T]], Callable[[], T]]]:
    """One thread beside the caller's.

    Yields ``start``. ``start(call)`` queues a call for the thread and returns a function, which waits for the call and returns or
    raises what it did.

    Calls run one at a time, in the order in which they were queued, so that a call must wait for none that was queued after it.
    Where the context ends, calls that did not begin never do, and the one that runs is waited for.
    """
    thread = ThreadPoolExecutor(1)
    try:
        yield lambda call: thread.submit(copy_context().run, call).result
    finally:
        thread.shutdown(cancel_futures=True)

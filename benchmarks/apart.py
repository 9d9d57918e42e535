"""python -m benchmarks.apart: judging a stranger's file in a process.

What it costs that the process is one of its own.

Ours is :func:`oarlock.pipeline.apart.run_apart` once its first call was made; the peer is a process pool of the standard library
with one task a process, which confines nothing; the floor is a fork that ends at once.
"""

import multiprocessing
import os
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from statistics import median

from oarlock.pipeline.apart import Limits, run_apart

CALLS = 50
PLENTY = Limits(memory_bytes=2**28, cpu_s=20)


def main() -> None:
    run_apart(PLENTY, int)
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), max_tasks_per_child=1) as pool:
        pool.submit(int).result()
        rows = {
            "ours": median_ms(lambda: run_apart(PLENTY, int), CALLS),
            "process pool, one task each": median_ms(lambda: pool.submit(int).result(), 5),
            "fork (floor)": median_ms(fork, CALLS),
        }
    for name, ms in rows.items():
        print(f"{name:30} {ms:8.1f} ms")


def fork() -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)


def median_ms(work: Callable[[], object], calls: int) -> float:
    """Median of the time by the clock that a call takes."""
    times = []
    for _ in range(calls):
        begin = time.perf_counter()
        work()
        times.append(time.perf_counter() - begin)
    return 1000 * median(times)


if __name__ == "__main__":
    main()

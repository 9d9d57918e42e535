"""How long work takes, where the machine is shared with others."""

import time
from collections.abc import Callable


def least_cpu_s(work: Callable[[], object], repeats: int) -> float:
    """The least CPU time of a few runs, in seconds.

    What others on the machine added is in the larger ones.
    """
    times = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times)

"""Fairness, simulated: ``python -m tools.studies.fairness``.

Who waits how long when one site posts a hundred jobs.

Two workers take a minute a job. At the same moment a large site has posted 100 jobs, a middle one 10, a small one 1; a minute
later the small one posts an urgent job, and ten minutes later another plain one.
"""

import heapq
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from oarlock.store.fairness import rank_of
from oarlock.store.jobs import Priority

WORKERS: Final = 2
JOB_MIN: Final = 1.0


@dataclass(frozen=True)
class Post:
    """A job of a site.

    When it was posted, in minutes, and how urgent it is.
    """

    site: str
    at_min: float = 0.0
    priority: Priority = Priority.NORMAL
    label: str = ""


POSTS: Final = (
    *(Post("large") for _ in range(100)),
    *(Post("middle") for _ in range(10)),
    Post("small", label="small: the only one"),
    Post("small", 1.0, Priority.URGENT, "small: urgent, a minute later"),
    Post("small", 10.0, label="small: one more, ten minutes later"),
)


def waits_min(posts: tuple[Post, ...], shares: Mapping[str, int], *, by_age: bool) -> list[float]:
    """How long each job waits until a worker takes it.

    :param by_age: whether priorities alone count, and within one the time of arrival, as without sites.
    """
    waits = [0.0] * len(posts)
    free = [0.0] * WORKERS
    coming = sorted(range(len(posts)), key=lambda n: posts[n].at_min)
    queue: list[tuple[int, float, int]] = []
    waiting: dict[tuple[str, Priority], dict[int, int]] = {}
    while coming or queue:
        now = heapq.heappop(free)
        if not queue:
            now = max(now, posts[coming[0]].at_min)
        while coming and posts[coming[0]].at_min <= now:
            number = coming.pop(0)
            post = posts[number]
            mine = waiting.setdefault((post.site, post.priority), {})
            rank = rank_of(post.priority, len(mine), max(mine.values(), default=0), shares.get(post.site, 1))
            mine[number] = rank
            heapq.heappush(queue, (int(post.priority) if by_age else rank, post.at_min, number))
        _, _, number = heapq.heappop(queue)
        waiting[posts[number].site, posts[number].priority].pop(number)
        waits[number] = now - posts[number].at_min
        heapq.heappush(free, now + JOB_MIN)
    return waits


def main() -> None:
    """Print the table."""
    runs = [
        waits_min(POSTS, {}, by_age=True),
        waits_min(POSTS, {}, by_age=False),
        waits_min(POSTS, {"middle": 4}, by_age=False),
    ]
    rows = {"large: the last of 100": 99, "middle: the first of 10": 100, "middle: the last of 10": 109}
    rows |= {post.label: number for number, post in enumerate(POSTS) if post.label}
    print("| minutes until it is taken | by age alone | **by steps** | middle with a share of 4 |\n| --- | ---: | ---: | ---: |")
    for name, number in rows.items():
        print(f"| {name} | " + " | ".join(f"{waits[number]:.0f}" for waits in runs) + " |")


if __name__ == "__main__":
    main()

"""Fairness: where a job stands in the queue.

One site's hundred jobs do not make another site's one wait for all of them.

The queue has ten steps. Each priority begins at a step of its own and has those up to the next priority. A site's first jobs of a
priority stand at its first step; the more of them wait, the further back the next one stands. Within a site the order of arrival
holds: a job never stands before an earlier one of the same site and priority.
"""

from bisect import bisect_right
from typing import Final

from oarlock.store.jobs import Priority

STEPS: Final = (1, 4, 16)
"""How many jobs of a site and a priority may wait at each step, those before included, for a share of 1."""

LAST_STEP: Final = 9
"""Of the queue (:meth:`oarlock.settings.Settings.broker_transport_options`)."""


def rank_of(priority: Priority, waiting: int, furthest: int, share: int = 1) -> int:
    """The step of the queue at which a new job stands.

    From 0, which is taken first.

    :param waiting: how many jobs of its site and priority wait already.
    :param furthest: the largest step at which one of them stands; 0 if there is none.
    :param share: how many times as many jobs of its site stand at a step as of a site whose share is 1.
    """
    return max(furthest, min(priority + bisect_right([share * step for step in STEPS], waiting), steps_of(priority)[-1]))


def steps_of(priority: Priority) -> range:
    """The steps of the queue at which jobs of a priority stand."""
    return range(priority, min((other for other in Priority if other > priority), default=LAST_STEP + 1))

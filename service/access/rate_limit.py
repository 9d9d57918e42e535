"""Rate limit: the generic cell rate algorithm, counted in this process."""

from collections.abc import Callable
from threading import Lock
from time import monotonic
from typing import Final

_MANY: Final = 1_000
_WINDOW_S: Final = 60.0


class RateLimit:
    """A number of calls a minute from each caller.

    In bursts of up to a minute's worth.

    For each caller one time is kept: when all calls until now would have been due at an even pace.

    :param per_minute: 0 for no limit.
    """

    def __init__(self, per_minute: int, *, clock: Callable[[], float] = monotonic) -> None:
        self._interval_s = _WINDOW_S / per_minute if per_minute else 0.0
        self._clock = clock
        self._due: dict[str, float] = {}
        self._lock = Lock()

    def wait_s(self, caller: str, *, count: bool = True) -> float:
        """Seconds until the next call is allowed, 0 if now.

        A refused call is not counted.

        :param count: False only looks.
        """
        with self._lock:
            now = self._clock()
            due = max(self._due.get(caller, now), now)
            wait_s = due - now - (_WINDOW_S - self._interval_s)
            if wait_s > 0:
                return wait_s
            if count:
                self._due[caller] = due + self._interval_s
            if len(self._due) > _MANY:
                self._due = {name: at for name, at in self._due.items() if at > now}
            return 0.0

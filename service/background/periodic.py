"""Steps that the service repeats for as long as it runs."""

import logging
from collections.abc import Callable

import anyio
import anyio.to_thread
from anyio import CapacityLimiter

from oarlock.errors import TransientError

log = logging.getLogger(__name__)


async def every(period_s: float, step: Callable[[], None]) -> None:
    """Take a step, in a thread of its own, until cancelled.

    Calls that are waited for must not keep it from a thread.
    """
    limiter = CapacityLimiter(1)
    while True:
        await anyio.to_thread.run_sync(attempt, step, limiter=limiter)
        await anyio.sleep(period_s)


def attempt(step: Callable[[], None]) -> None:
    """Take a step; a failure is logged and the step repeated.

    Later: a database, a Redis or a disk may be away for a while.
    """
    try:
        step()
    except (TransientError, OSError) as error:
        log.warning("interrupted", extra={"step": _name(step), "error": type(error).__name__})
    except Exception:  # a step that ended for good would be missed in silence; one that goes on is in the log each time
        log.exception("failed", extra={"step": _name(step)})


def _name(step: Callable[[], None]) -> str:
    return getattr(getattr(step, "func", step), "__qualname__", "step")

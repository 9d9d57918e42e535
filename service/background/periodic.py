"""Periodic: what the service does by itself, again and again, for as long as it runs."""

import logging
from collections.abc import Callable

import anyio
import anyio.to_thread

from oarlock.errors import TransientError

log = logging.getLogger(__name__)


async def every(period_s: float, step: Callable[[], None]) -> None:
    """Take a step, in a thread, until cancelled."""
    while True:
        await anyio.to_thread.run_sync(attempt, step)
        await anyio.sleep(period_s)


def attempt(step: Callable[[], None]) -> None:
    """Take a step. What fails now is tried again in a moment: a database, a Redis or a disk may be away for a while."""
    try:
        step()
    except (TransientError, OSError) as error:
        log.warning("interrupted", extra={"step": _name(step), "error": type(error).__name__})
    except Exception:  # what stops is missed in silence; what goes on says so with every attempt
        log.exception("failed", extra={"step": _name(step)})


def _name(step: Callable[[], None]) -> str:
    return getattr(getattr(step, "func", step), "__qualname__", "step")

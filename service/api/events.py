"""Events: a job's progress as server-sent events, until it ends.

Each event's data is the whole job. The last one is named ``end`` and has the id ``end``; a browser that reconnects with that id
is answered 204, which tells it to stop.
"""

from collections.abc import AsyncIterator, Callable
from time import monotonic
from typing import Final

import anyio
import anyio.to_thread

from oarlock.errors import TransientError
from service.api.schemas import JobDocument

POLL_S: Final = 0.25
KEEP_ALIVE_S: Final = 15.0
END: Final = "end"


async def progress(read: Callable[[], JobDocument]) -> AsyncIterator[str]:
    """Tell every change of a job, from how it stands now to its end.

    :param read: gives the job as it stands; called in a thread.
    """
    told: JobDocument | None = None
    count, spoken_at = 0, monotonic()
    while told is None or not told.state.ended:
        try:
            job = await anyio.to_thread.run_sync(read)
        except TransientError:  # the caller would only ask again
            await anyio.sleep(POLL_S)
            continue
        if job != told:
            count += 1
            spoken_at, told = monotonic(), job
            yield _event(job, count)
        elif monotonic() - spoken_at > KEEP_ALIVE_S:
            spoken_at = monotonic()
            yield ": still here\n\n"
        if not job.state.ended:
            await anyio.sleep(POLL_S)


def _event(job: JobDocument, count: int) -> str:
    name, number = (END, END) if job.state.ended else ("progress", str(count))
    return f"event: {name}\nid: {number}\ndata: {job.model_dump_json()}\n\n"

"""Server-sent events: a job's progress, and what moves in the list.

The data of each event of a job is the whole job. The last event is named ``end`` and has the id ``end``; a browser that
reconnects with it is answered 204, which tells it to stop. A list has no last event.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager
from time import monotonic
from typing import Final

import anyio
import anyio.to_thread

from oarlock.store.jobs import Job
from service.api.schemas.jobs import JobDocument, JobsDocument, RunningJob
from service.background.followers import Follower, Listing, Standing

KEEP_ALIVE_S: Final = 15.0
"""How often an idle stream says that it is still there; then the caller's key is looked at again, too."""

END: Final = "end"

LIST_EVERY_S: Final = 1.0
"""How often a list tells of itself at most."""

ToDocument = Callable[[Job, int | None], JobDocument]


async def progress(
    following: AbstractContextManager[Follower[Standing]], to_document: ToDocument, *, still_allowed: Callable[[], bool]
) -> AsyncIterator[str]:
    """Every change of a job, from now to its end.

    The stream ends without an ``end`` when its caller's key is not valid any more.

    :param still_allowed: whether the caller may still follow; called in a thread.
    """
    told: JobDocument | None = None
    count, asked_at = 0, monotonic()
    with following as follower:
        while not follower.over and (told is None or not told.state.ended):
            rung, standing = follower.rung, follower.news
            if standing is not None and (document := to_document(*standing)) != told:
                count, told = count + 1, document
                yield _event(told, count)
                continue
            with anyio.move_on_after(KEEP_ALIVE_S - (monotonic() - asked_at)):
                await rung.wait()
                continue
            asked_at = monotonic()
            if not await anyio.to_thread.run_sync(still_allowed):
                return
            yield ": still here\n\n"


def _event(job: JobDocument, count: int) -> str:
    name, number = (END, END) if job.state.ended else ("progress", str(count))
    return f"event: {name}\nid: {number}\ndata: {job.model_dump_json()}\n\n"


async def listing(
    watching: AbstractContextManager[Follower[Listing]], *, still_allowed: Callable[[], bool]
) -> AsyncIterator[str]:
    """What moves in a list, while somebody listens.

    :param still_allowed: as for :func:`progress`.
    """
    told: Listing | None = None
    count, asked_at = 0, monotonic()
    with watching as watcher:
        while not watcher.over:
            rung, found = watcher.rung, watcher.news
            if found is not None and found != told:
                count, told = count + 1, found
                running = [RunningJob(id=job_id, stage=stage, progress=share) for job_id, stage, share in found.running]
                document = JobsDocument(changes=found.changes, running=running)
                yield f"event: jobs\nid: {count}\ndata: {document.model_dump_json()}\n\n"
                await anyio.sleep(LIST_EVERY_S)
            elif (left_s := KEEP_ALIVE_S - (monotonic() - asked_at)) > 0:
                with anyio.move_on_after(left_s):
                    await rung.wait()
                continue
            if monotonic() - asked_at >= KEEP_ALIVE_S:
                asked_at = monotonic()
                if not await anyio.to_thread.run_sync(still_allowed):
                    return
                yield ": still here\n\n"

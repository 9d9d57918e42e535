"""Server-sent events: a job's progress, and what moves in the list.

The data of each event of a job is the whole job. The last event is named ``end`` and has the id ``end``; a browser that
reconnects with it is answered 204, which tells it to stop. A list has no last event.
"""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from time import monotonic
from typing import Final, TypeVar

import anyio
import anyio.to_thread
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from oarlock.store.jobs import Job
from service.api.schemas.jobs import JobDocument, JobsDocument, RunningJob
from service.background.followers import Follower, Listing, Standing

KEEP_ALIVE_S: Final = 15.0
"""How often an idle stream says that it is still there; then the caller's key is looked at again, too."""

END: Final = "end"

LIST_EVERY_S: Final = 1.0
"""How often a list tells of itself at most."""

MEDIA_TYPE: Final = "text/event-stream"
HEADERS: Final = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}

ToDocument = Callable[[Job, int | None], JobDocument]
News = TypeVar("News")
Document = TypeVar("Document", JobDocument, JobsDocument)


class EventStream(StreamingResponse):
    """An answer of server-sent events.

    Whoever follows has a place from before its first byte to after its last.

    :param stream: gives the events. Where there is no place it raises, and that becomes the answer.
    """

    def __init__(self, stream: AbstractContextManager[AsyncIterator[str]]) -> None:
        super().__init__((), media_type=MEDIA_TYPE, headers=HEADERS)
        self._stream = stream

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take the place, send, give it back."""
        with self._stream as self.body_iterator:
            await super().__call__(scope, receive, send)


@contextmanager
def progress(
    following: AbstractContextManager[Follower[Standing]], to_document: ToDocument, *, still_allowed: Callable[[], bool]
) -> Iterator[AsyncIterator[str]]:
    """Every change of a job, from now to its end.

    The stream ends without an ``end`` when its caller's key is not valid any more.

    :param still_allowed: whether the caller may still follow; called in a thread.
    """
    with following as follower:
        yield _events(follower, lambda standing: to_document(*standing), _of_job, still_allowed, rest_s=0)


@contextmanager
def listing(
    watching: AbstractContextManager[Follower[Listing]], *, still_allowed: Callable[[], bool]
) -> Iterator[AsyncIterator[str]]:
    """What moves in a list, while somebody listens.

    :param still_allowed: as for :func:`progress`.
    """
    with watching as watcher:
        yield _events(watcher, _jobs_document, _of_list, still_allowed, rest_s=LIST_EVERY_S)


async def _events(
    follower: Follower[News],
    to_document: Callable[[News], Document],
    named: Callable[[Document, int], tuple[str, str]],
    still_allowed: Callable[[], bool],
    *,
    rest_s: float,
) -> AsyncIterator[str]:
    """An event for each document that differs from the one before, until one has the id ``end``.

    :param named: name and id of the event of a document, which is the n-th.
    :param rest_s: how long it is silent after each.
    """
    told: Document | None = None
    count, asked_at = 0, monotonic()
    while not follower.over:
        rung, news = follower.rung, follower.news
        if news is not None and (document := to_document(news)) != told:
            count, told = count + 1, document
            name, number = named(document, count)
            yield f"event: {name}\nid: {number}\ndata: {document.model_dump_json()}\n\n"
            if number == END:
                return
            await anyio.sleep(rest_s)
        elif (left_s := KEEP_ALIVE_S - (monotonic() - asked_at)) > 0:
            with anyio.move_on_after(left_s):
                await rung.wait()
        if monotonic() - asked_at >= KEEP_ALIVE_S:
            asked_at = monotonic()
            if not await anyio.to_thread.run_sync(still_allowed):
                return
            yield ": still here\n\n"


def _of_job(job: JobDocument, count: int) -> tuple[str, str]:
    return (END, END) if job.state.ended else ("progress", str(count))


def _of_list(_: JobsDocument, count: int) -> tuple[str, str]:
    return "jobs", str(count)


def _jobs_document(found: Listing) -> JobsDocument:
    running = [RunningJob(id=job_id, stage=stage, progress=share) for job_id, stage, share in found.running]
    return JobsDocument(changes=found.changes, running=running)

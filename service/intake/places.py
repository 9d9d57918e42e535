"""Places for uploads: how many may be under way.

At once, in all and for one caller.
"""

from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from types import TracebackType
from typing import Final

import anyio
import anyio.to_thread
from anyio import CapacityLimiter

from oarlock.settings import Settings
from oarlock.store.files import Incoming, Storage
from service.errors import ServiceBusy, TooManyUploads
from service.intake.upload_files import disk

UPLOADS: Final = 64
"""How many uploads may be under way at once; each may hold a batch or two in memory."""

UPLOADS_OF_ONE: Final = 8
"""How many of them may be one caller's: the others stay free for everybody else."""

THREADS: Final = 8
"""How many uploads may work on the disk at once; the others wait with their bytes still at the sender."""


class Places:
    """The places for uploads of one service. Used in one event loop."""

    def __init__(self, storage: Storage, settings: Settings, *, total: int = UPLOADS, of_one: int = UPLOADS_OF_ONE) -> None:
        self._storage, self._settings = storage, settings
        self.total, self.of_one = total, of_one
        self.threads = CapacityLimiter(THREADS)
        self._taken: Counter[str] = Counter()

    @property
    def taken(self) -> int:
        """How many uploads are under way."""
        return self._taken.total()

    def check_space(self, announced_bytes: int) -> None:
        """Check that the disk has room for what a request announces.

        :raises StorageFull: if not.
        """
        more_bytes = min(announced_bytes, self._settings.max_upload_bytes)
        self._storage.check_room(keep_bytes=self._settings.min_free_bytes, more_bytes=more_bytes)

    @asynccontextmanager
    async def folder(self, caller_id: str) -> AsyncIterator[Incoming]:
        """A place and a folder for an upload.

        What is left in the folder is deleted behind it.

        Deleting may take long: it happens in a thread, and is not cut short when the sender leaves.

        :raises ServiceBusy: if all places are taken.
        :raises TooManyUploads: if the caller has all the places that one caller may have.
        :raises StorageFull: if the disk has no room for the folder, or for what is done in it.
        """
        with self._place(caller_id), disk():
            async with AsyncExitStack() as stack:
                incoming = self._storage.incoming()
                folder = await anyio.to_thread.run_sync(incoming.__enter__, limiter=self.threads)

                async def leave(
                    kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
                ) -> None:
                    with anyio.CancelScope(shield=True):
                        await anyio.to_thread.run_sync(incoming.__exit__, kind, error, trace, limiter=self.threads)

                stack.push_async_exit(leave)
                yield folder

    @contextmanager
    def _place(self, caller_id: str) -> Iterator[None]:
        if self._taken[caller_id] >= self.of_one:
            raise TooManyUploads(limit=self.of_one)
        if self.taken >= self.total:
            raise ServiceBusy
        self._taken[caller_id] += 1
        try:
            yield
        finally:
            self._taken[caller_id] -= 1
            if not self._taken[caller_id]:
                del self._taken[caller_id]

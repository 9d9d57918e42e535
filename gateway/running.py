"""The gateway as a process: the receiver, and its loops.

Each loop repeats one step for as long as the process runs.
"""

import fcntl
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Final

from gateway import metrics
from gateway.asked import Asked
from gateway.completeness import Waits
from gateway.configuration import Configuration
from gateway.delivering import Delivering
from gateway.dimse.receiver import Receiver
from gateway.errors import SetupInvalid
from gateway.inbox import Inbox
from gateway.posting import Posting
from gateway.service_client import ServiceClient
from gateway.settings import PREFIX, GatewaySettings
from gateway.store import Store
from gateway.watched_folder import WatchedFolder

log = logging.getLogger(__name__)

LOOK_S: Final = 0.25
"""Seconds between two looks at the table."""

TIDY_S: Final = 600.0


class Loop:
    """Repeats a step in a thread of its own.

    A step that fails is logged and repeated: nothing here may end in silence.
    """

    def __init__(self, name: str, step: Callable[[], None], every_s: float) -> None:
        self._step, self._every_s = step, every_s
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def __enter__(self) -> "Loop":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join(timeout=30)

    def _run(self) -> None:
        while not self._end.wait(self._every_s):
            try:
                self._step()
            except Exception:
                log.exception("failed", extra={"step": self._thread.name})
                self._end.wait(5)


class Gateway:
    """Everything that one gateway consists of, put together."""

    def __init__(
        self, settings: GatewaySettings, configuration: Configuration, *, clock: Callable[[], float] = time.time
    ) -> None:
        self.settings, self.configuration, self.clock = settings, configuration, clock
        self.store = Store(settings.data)
        self.inbox = Inbox(settings.data, self.store, min_free_bytes=settings.min_free_bytes, clock=clock)
        self.service = ServiceClient(settings)
        waits = Waits(settings.settled_s, settings.quiet_s)
        self.posting = Posting(settings.data, self.store, self.service, configuration, waits=waits, clock=clock)
        self.delivering = Delivering(self.store, self.service, configuration, attempts=settings.attempts, clock=clock)
        self.asked = Asked(self.store, self.service, configuration, self.inbox, settings=settings)
        self.receiver = Receiver(settings, configuration, self.store, self.inbox, clock)

    def close(self) -> None:
        """Let go of the table and of the service."""
        self.service.close()
        self.store.close()

    def tidy(self) -> None:
        """Release what is over, and report deliveries without a place.

        Those to places that the configuration does not have any more.
        """
        self.delivering.tidy()
        self.delivering.forget(self.settings.keep, self.settings.keep_known)
        self.inbox.tidy()
        for place in self.delivering.places() - set(self._places()):
            self.delivering.step(place)

    def _places(self) -> list[str]:
        configuration = self.configuration
        peers = [peer.name for peer in configuration.peer if peer.listens]
        others = [web.name for web in configuration.web] + [folder.name for folder in configuration.folder]
        return peers + others + [watch.name for watch in configuration.watch]

    @contextmanager
    def running(self) -> Iterator["Gateway"]:
        """Receive and work until the block ends.

        :raises OSError: a port cannot be listened on.
        :raises SetupInvalid: another gateway works on the folder.
        """
        with ExitStack() as stack:
            stack.enter_context(_alone_on(self.settings.data))
            self.store.close_open_associations(self.clock())
            self.store.forget_marks()
            self.inbox.sweep()
            if self.settings.metrics_port is not None:
                _, stop = metrics.serve(self.store, self.settings.metrics_host, self.settings.metrics_port, self.clock)
                stack.callback(stop)
            stack.enter_context(Loop("posting", self.posting.step, LOOK_S))
            for place in self._places():
                stack.enter_context(Loop(f"delivering to {place}", partial(self.delivering.step, place), LOOK_S))
            for watch in self.configuration.watch:
                watched = WatchedFolder(watch, self.store, self.inbox)
                stack.enter_context(Loop(f"watching {watch.name}", watched.step, watch.every_s))
            stack.enter_context(Loop("reporting", self.asked.report, LOOK_S))
            stack.enter_context(Loop("fetching", self.asked.fetch, LOOK_S))
            stack.enter_context(Loop("telling", self.delivering.tell, LOOK_S))
            stack.enter_context(Loop("tidying", self.tidy, TIDY_S))
            self.receiver.start()
            stack.callback(self.receiver.stop)
            yield self


@contextmanager
def _alone_on(data: Path) -> Iterator[None]:
    """Hold a data folder for this process: what a second gateway takes for leftovers is what the first is writing."""
    with (data / "lock").open("wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SetupInvalid(f"another gateway works on {data}; give this one a folder of its own ({PREFIX}DATA).") from None
        yield

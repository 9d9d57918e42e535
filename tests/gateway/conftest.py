"""A gateway without a network: its table and inbox are real, the service is a stand-in, the clock is moved by hand."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from gateway.completeness import Waits
from gateway.configuration import Configuration
from gateway.delivering import Delivering
from gateway.errors import ServiceAway, ServiceRefused
from gateway.inbox import Inbox
from gateway.posting import Posting
from gateway.rules import Sent
from gateway.service_client import Job
from gateway.store import Delivery, Store
from tests.fixtures.organs import Series, write_series

SENT = Sent("CT1", "OARLOCK")


@dataclass
class Clock:
    now: float = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class StandIn:
    """A service in memory: one job for each idempotency key, as the real one has it."""

    away: bool = False
    refuses: ServiceRefused | None = None
    loses_answers: bool = False
    jobs: dict[str, str] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)
    digests: dict[str, object] = field(default_factory=dict)
    posts: list[tuple[tuple[str, ...], dict[str, str], str]] = field(default_factory=list)
    purged: list[str] = field(default_factory=list)
    returned: list[tuple[str, bytes]] = field(default_factory=list)
    results: dict[str, bytes] = field(default_factory=dict)
    told: list[Delivery] = field(default_factory=list)

    def _answer(self) -> None:
        if self.away:
            raise ServiceAway("the service does not answer (ConnectError)")

    def post_series(self, files: Sequence[Path], fields: Mapping[str, str], key: str) -> Job:
        self._answer()
        if self.refuses is not None:
            raise self.refuses
        assert all(path.is_file() for path in files)
        digest = (tuple(sorted(path.name for path in files)), dict(fields))
        if self.digests.setdefault(key, digest) != digest:
            raise ServiceRefused(409, "idempotency.conflict", "The key belongs to another post.")
        if key not in self.keys:
            self.keys[key] = f"job-{len(self.keys) + 1}"
            self.jobs[self.keys[key]] = "queued"
            self.posts.append((tuple(path.name for path in files), dict(fields), key))
        if self.loses_answers:
            raise ServiceAway("the service does not answer (ReadError)")
        return self.job(self.keys[key])

    def job(self, job_id: str) -> Job:
        self._answer()
        return Job(job_id, self.jobs[job_id], "")

    def cancel(self, job_id: str) -> None:
        self._answer()
        if self.jobs[job_id] in ("queued", "running"):
            self.jobs[job_id] = "cancelled"

    def purge(self, job_id: str) -> None:
        self._answer()
        self.purged.append(job_id)

    def result(self, job_id: str, name: str) -> bytes | None:
        self._answer()
        return self.results.get(name)

    def tell_delivery(self, job_id: str, delivery: Delivery) -> None:
        self._answer()
        self.told.append(delivery)

    def return_contours(self, job_id: str, content: bytes) -> None:
        self._answer()
        self.returned.append((job_id, content))


@dataclass
class Desk:
    """What a test of the gateway holds in its hands."""

    data: Path
    store: Store
    inbox: Inbox
    service: StandIn
    posting: Posting
    delivering: Delivering
    clock: Clock

    def receive(self, *files: Path, sent: Sent = SENT, released: bool = True) -> None:
        """Files over one association."""
        association = self.store.begin(sent, self.clock())
        for path in files:
            self.inbox.take(path.read_bytes(), sent, association=association)
        self.store.end(association, self.clock(), released=released)

    def after(self, seconds: float) -> None:
        """Look once this many seconds later."""
        self.clock.now += seconds
        self.posting.step()


MakeDesk = Callable[..., Desk]


@pytest.fixture
def make_desk(tmp_path: Path) -> Iterator[MakeDesk]:
    stores: list[Store] = []

    def make(configuration: Configuration | None = None, *, clock: Clock | None = None, service: StandIn | None = None) -> Desk:
        clock, service = clock or Clock(), service or StandIn()
        data = tmp_path / "gateway"
        store = Store(data)
        stores.append(store)
        inbox = Inbox(data, store, min_free_bytes=0, clock=clock)
        waits = Waits(settled_s=2, quiet_s=60)
        posting = Posting(data, store, service, configuration or Configuration(), waits=waits, clock=clock)  # type: ignore[arg-type]
        delivering = Delivering(store, service, configuration or Configuration(), attempts=20, clock=clock)  # type: ignore[arg-type]
        return Desk(data, store, inbox, service, posting, delivering, clock)

    yield make
    for store in stores:
        store.close()


@pytest.fixture
def desk(make_desk: MakeDesk) -> Desk:
    return make_desk()


@pytest.fixture(scope="session")
def ct(tmp_path_factory: pytest.TempPathFactory) -> Series:
    return write_series(tmp_path_factory.mktemp("ct"))

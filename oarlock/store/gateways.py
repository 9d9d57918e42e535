"""Gateways: what they are asked, and what came of it.

A gateway calls the service and is never called: it may stand behind a firewall. So what it is asked waits here until it reports.
A report takes what the gateway can do, and renews the lease on what it holds. What a silent gateway held is taken by the next one
that can do it; each taking has a token, and only the holder of the newest ends a request. What two gateways do by mistake comes
to the same: the same bytes on the same way are one job.
"""

import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import product
from typing import Any, Final

from sqlalchemy import Connection, RowMapping, and_, delete, func, literal, or_, select, update

from oarlock.errors import IdempotencyConflict, RequestNotFound, RequestNotHeld, RequestTaken
from oarlock.store import audit
from oarlock.store.audit import SYSTEM, Action, Actor, Event
from oarlock.store.cursors import of_cursor, to_cursor
from oarlock.store.database import Database, utc_now
from oarlock.store.job_rows import sealed
from oarlock.store.schema import GATEWAY_REQUESTS, GATEWAYS, Time
from oarlock.store.scores.write import insert_of

LEASE: Final = timedelta(seconds=60)
"""How long a gateway may be silent before another one takes what it holds; it reports every few seconds."""

HELD: Final = 8
"""Most requests that one gateway holds: the others are for gateways that have nothing to do."""

PATIENCE: Final = timedelta(days=1)
"""How long a request waits for a gateway that can do it."""

KEPT: Final = timedelta(days=30)
"""How long requests are kept after their end, and gateways after their last report."""

UNTAKEN: Final = "No gateway that can do it has reported for a day. Start it, run its command check, and ask again."

_REQUESTS: Final = GATEWAY_REQUESTS.c


class RequestKind(StrEnum):
    """What a gateway can be asked."""

    RETRIEVE = "retrieve"
    COMPLETE = "complete"
    RESEND = "resend"


class RequestState(StrEnum):
    """Where a request stands."""

    WAITING = "waiting"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


_OPEN: Final = (RequestState.WAITING, RequestState.RUNNING)


@dataclass(frozen=True, slots=True)
class Gateway:
    """A gateway, as it last reported.

    :ivar archives: names of archives that it fetches from.
    :ivar series: those that it has and that are not a job, as documents without UIDs.
    """

    site: str
    name: str
    seen_at: datetime
    archives: tuple[str, ...]
    series: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True, slots=True)
class Wish:
    """What is asked.

    :ivar gateway: which one is asked; None for any that knows the archive.
    :ivar job_id: of which job results are sent again.
    :ivar wanted: the rest, as the gateway is told it; opaque here.
    :ivar digest: the same for the same wish.
    """

    site: str
    kind: RequestKind
    gateway: str | None
    archive: str | None
    job_id: str | None
    wanted: bytes
    digest: str


@dataclass(frozen=True, slots=True)
class Request:
    """A request and what came of it.

    :ivar gateway: who holds it, or who is asked; None where any may take it.
    :ivar token: of the newest taking.
    :ivar job_id: the job that came of it, or whose results are sent again.
    :ivar prior_jobs: jobs of earlier series of the patient.
    :ivar instances: how many files came.
    :ivar detail: where it stands, or why it failed, in a sentence.
    """

    id: str
    site: str
    kind: RequestKind
    state: RequestState
    gateway: str | None
    wanted: bytes
    token: int
    job_id: str | None
    prior_jobs: tuple[str, ...]
    instances: int | None
    detail: str | None
    by: str
    created_at: datetime
    taken_at: datetime | None
    ended_at: datetime | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a gateway tells of a request that it holds.

    ``RUNNING`` while it is at it.
    """

    state: RequestState
    detail: str | None = None
    job_id: str | None = None
    prior_jobs: tuple[str, ...] = ()
    instances: int | None = None


class GatewayStore:
    """All gateways and what they are asked.

    :param clock: gives the present as an aware time.
    """

    def __init__(self, database: Database, *, clock: Callable[[], datetime] = utc_now) -> None:
        self._database, self._clock = database, clock

    # ── asking ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def ask(self, wish: Wish, *, key: str | None, by: Actor) -> Request:
        """Make a request, or find the one that an earlier call made.

        The same key finds it however it stands; the same wish finds one that has not ended.

        :raises IdempotencyConflict: if the key belongs to another wish.
        """
        now, kept = self._clock(), sealed(key, wish.site)
        with self._database.writing() as connection:
            found = self._earlier(connection, wish, kept)
            if found is not None:
                return found
            row = {name: getattr(wish, name) for name in ("site", "kind", "gateway", "archive", "job_id", "wanted", "digest")}
            row |= {"id": str(uuid.uuid4()), "state": RequestState.WAITING, "idempotency_key": kept, "lease_token": 0}
            row |= {"prior_jobs": "[]", "created_at": now, "actor_name": by.name}
            new = insert_of(connection)(GATEWAY_REQUESTS).values(row).on_conflict_do_nothing().returning(_REQUESTS.id)
            if connection.scalar(new) is None and (found := self._earlier(connection, wish, kept)) is not None:
                return found  # of the same call, which came twice at once
            audit.append(connection, now, Event(Action.GATEWAY_ASKED, by, wish.job_id, result=f"{wish.kind} {row['id']}"))
            return _one(connection, str(row["id"]))

    def _earlier(self, connection: Connection, wish: Wish, kept: str | None) -> Request | None:
        same = (_REQUESTS.site == wish.site) & (_REQUESTS.digest == wish.digest)
        row = None
        if kept is not None:
            row = connection.execute(select(GATEWAY_REQUESTS).where(_REQUESTS.idempotency_key == kept)).mappings().first()
            if row is not None and row["digest"] != wish.digest:
                raise IdempotencyConflict
        if row is None:
            row = connection.execute(select(GATEWAY_REQUESTS).where(same, _REQUESTS.state.in_(_OPEN))).mappings().first()
            if row is not None and kept is not None and row["idempotency_key"] is None:  # from now on this key finds it
                own = update(GATEWAY_REQUESTS).where(_REQUESTS.id == row["id"], _REQUESTS.idempotency_key.is_(None))
                connection.execute(own.values(idempotency_key=kept))
        return None if row is None else _request(row)

    def cancel(self, request_id: str, *, site: str, by: Actor) -> Request:
        """Take back a request that no gateway has taken.

        :raises RequestNotFound: if there is none.
        :raises RequestTaken: if it is too late.
        """
        now = self._clock()
        with self._database.writing() as connection:
            found = _one(connection, request_id, site, locked=True)
            if found.state is not RequestState.WAITING:
                raise RequestTaken
            _end(connection, found, {"state": RequestState.CANCELLED}, now, by)
            return _one(connection, request_id)

    def get(self, request_id: str, *, site: str) -> Request:
        """A request of a site; empty for all sites.

        :raises RequestNotFound: if there is none.
        """
        with self._database.reading() as connection:
            return _one(connection, request_id, site)

    def page(
        self, *, site: str, kind: RequestKind | None = None, limit: int = 50, cursor: str | None = None
    ) -> tuple[list[Request], str | None]:
        """Requests, newest first, and the cursor of the next page.

        :raises InvalidParameter: if the cursor is not one that this method gave.
        """
        wanted = [_REQUESTS.site == site] if site else []
        wanted += [_REQUESTS.kind == kind] if kind is not None else []
        if cursor is not None:
            at, key = of_cursor(cursor)
            wanted.append(or_(_REQUESTS.created_at < at, and_(_REQUESTS.created_at == at, _REQUESTS.id < key)))
        query = select(GATEWAY_REQUESTS).where(*wanted).order_by(_REQUESTS.created_at.desc(), _REQUESTS.id.desc())
        with self._database.reading() as connection:
            found = [_request(row) for row in connection.execute(query.limit(limit + 1)).mappings()]
        following = to_cursor(found[limit - 1].created_at, found[limit - 1].id) if len(found) > limit else None
        return found[:limit], following

    def gateways(self, *, site: str) -> list[Gateway]:
        """The gateways of a site, or of all sites, by name."""
        query = select(GATEWAYS).where(*([GATEWAYS.c.site == site] if site else [])).order_by(GATEWAYS.c.name, GATEWAYS.c.site)
        with self._database.reading() as connection:
            rows = connection.execute(query).all()
        return [
            Gateway(row.site, row.name, row.seen_at, tuple(json.loads(row.archives)), tuple(json.loads(row.series)))
            for row in rows
        ]

    def silent_s(self) -> list[tuple[Gateway, float]]:
        """Every gateway, and the seconds since it last reported."""
        now = self._clock()
        return [(one, max(0.0, (now - one.seen_at).total_seconds())) for one in self.gateways(site="")]

    def counts(self) -> dict[tuple[RequestKind, RequestState], int]:
        """How many requests of each kind stand in each state."""
        query = select(_REQUESTS.kind, _REQUESTS.state, func.count()).group_by(_REQUESTS.kind, _REQUESTS.state)
        with self._database.reading() as connection:
            found = {(RequestKind(kind), RequestState(state)): int(count) for kind, state, count in connection.execute(query)}
        return {pair: found.get(pair, 0) for pair in product(RequestKind, RequestState)}

    # ── doing ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    def report(
        self,
        site: str,
        name: str,
        archives: Sequence[str],
        series: Sequence[Mapping[str, Any]],
        *,
        read: Callable[[bytes], object] = len,
    ) -> list[Request]:
        """What a gateway has to do, once it said what it has.

        :param read: reads what is asked (``wanted``); if it raises, nothing is taken, and nothing kept from others.
        :returns: all that it holds, with those that it has just taken, in the order in which they were asked.
        """
        now = self._clock()
        with self._database.writing() as connection:
            _note(
                connection,
                (site, name),
                {"seen_at": now, "archives": json.dumps(list(archives)), "series": json.dumps(list(series))},
            )
            mine = and_(_REQUESTS.site == site, _REQUESTS.state == RequestState.RUNNING, _REQUESTS.holder == name)
            connection.execute(update(GATEWAY_REQUESTS).where(mine).values(lease_until=now + LEASE))
            holds = connection.scalar(select(func.count()).where(mine)) or 0
            lapsed = and_(_REQUESTS.state == RequestState.RUNNING, _REQUESTS.lease_until < now)
            free = or_(_REQUESTS.state == RequestState.WAITING, lapsed)
            fits = or_(_REQUESTS.gateway == name, and_(_REQUESTS.gateway.is_(None), _REQUESTS.archive.in_(archives)))
            oldest = select(_REQUESTS.id).where(_REQUESTS.site == site, free, fits).order_by(_REQUESTS.created_at)
            ids = connection.scalars(oldest.limit(max(0, HELD - holds)).with_for_update(skip_locked=True)).all()
            taken = {"state": RequestState.RUNNING, "holder": name, "lease_until": now + LEASE, "detail": None}
            taken |= {
                "lease_token": _REQUESTS.lease_token + 1,
                "taken_at": func.coalesce(_REQUESTS.taken_at, literal(now, Time())),
            }
            connection.execute(update(GATEWAY_REQUESTS).where(_REQUESTS.id.in_(ids)).values(taken))
            rows = connection.execute(select(GATEWAY_REQUESTS).where(mine).order_by(_REQUESTS.created_at, _REQUESTS.id))
            held = [_request(row) for row in rows.mappings()]
            for one in held:
                read(one.wanted)
            return held

    def tell(self, request_id: str, outcome: Outcome, *, site: str, gateway: str, token: int, by: Actor) -> None:
        """Note how a request stands. Telling the same end again changes nothing.

        :raises RequestNotFound: if there is none.
        :raises RequestNotHeld: if the gateway does not hold it any more.
        """
        now = self._clock()
        values = {"state": outcome.state, "detail": outcome.detail, "instances": outcome.instances}
        values |= {"job_id": outcome.job_id} if outcome.job_id is not None else {}
        values |= {"prior_jobs": json.dumps(list(outcome.prior_jobs))}
        with self._database.writing() as connection:
            found = _one(connection, request_id, site, exactly=True, locked=True)
            if (found.gateway, found.token) != (gateway, token):
                raise RequestNotHeld
            if found.state is outcome.state and found.ended_at is not None:
                return
            if found.state is not RequestState.RUNNING:
                raise RequestNotHeld
            if outcome.state is RequestState.RUNNING:
                connection.execute(update(GATEWAY_REQUESTS).where(_REQUESTS.id == request_id).values(values))
            else:
                _end(connection, found, values, now, by)

    def expire(self) -> None:
        """End requests that no gateway takes.

        What is over for long is forgotten.
        """
        now = self._clock()
        since = func.coalesce(_REQUESTS.lease_until, _REQUESTS.created_at)
        with self._database.writing() as connection:  # all that it changes is locked before the audit log is
            connection.execute(delete(GATEWAY_REQUESTS).where(_REQUESTS.ended_at < now - KEPT))
            connection.execute(delete(GATEWAYS).where(GATEWAYS.c.seen_at < now - KEPT))
            late = select(GATEWAY_REQUESTS).where(_REQUESTS.state.in_(_OPEN), since < now - PATIENCE)
            for row in connection.execute(late.with_for_update(skip_locked=True)).mappings().all():
                _end(connection, _request(row), {"state": RequestState.FAILED, "detail": UNTAKEN}, now, SYSTEM)


def _note(connection: Connection, key: tuple[str, str], values: Mapping[str, Any]) -> None:
    new = insert_of(connection)(GATEWAYS).values({"site": key[0], "name": key[1], **values})
    connection.execute(new.on_conflict_do_update(index_elements=list(GATEWAYS.primary_key), set_=dict(values)))


def _end(connection: Connection, request: Request, values: Mapping[str, Any], now: datetime, by: Actor) -> None:
    connection.execute(update(GATEWAY_REQUESTS).where(_REQUESTS.id == request.id).values({**values, "ended_at": now}))
    result = f"{request.kind} {request.id} {values['state']}"
    audit.append(connection, now, Event(Action.GATEWAY_ENDED, by, values.get("job_id", request.job_id), result=result))


def _one(connection: Connection, request_id: str, site: str = "", *, exactly: bool = False, locked: bool = False) -> Request:
    """A request; ``locked`` keeps it as it is for everybody else until the transaction ends."""
    query = select(GATEWAY_REQUESTS).where(_REQUESTS.id == request_id)
    query = query.with_for_update() if locked else query
    row = connection.execute(query).mappings().first()
    if row is None or (row["site"] != site and (exactly or site)):
        raise RequestNotFound
    return _request(row)


def _request(row: RowMapping) -> Request:
    return Request(
        id=row["id"],
        site=row["site"],
        kind=RequestKind(row["kind"]),
        state=RequestState(row["state"]),
        gateway=row["holder"] or row["gateway"],
        wanted=row["wanted"],
        token=row["lease_token"],
        job_id=row["job_id"],
        prior_jobs=tuple(json.loads(row["prior_jobs"])),
        instances=row["instances"],
        detail=row["detail"],
        by=row["actor_name"],
        created_at=row["created_at"],
        taken_at=row["taken_at"],
        ended_at=row["ended_at"],
    )

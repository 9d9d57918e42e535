"""Audit: who did what to which job and when (ADR 0012).

In a table that only grows.

An entry is written in the transaction of the change that it records, so neither exists without the other. Each entry holds a hash
over itself and the hash of the entry before it: an entry that is changed, removed, inserted or moved afterwards breaks the chain
from there on. A row beside the table names the last entry. Entries hold no patient data: a job is named by its id.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Final

from sqlalchemy import ColumnElement, Connection, insert, select, update

from oarlock.facts import ModelFacts
from oarlock.store.database import Database, utc_now
from oarlock.store.schema import AUDIT, AUDIT_HEAD, EPOCH

log = logging.getLogger(__name__)

BEGINNING: Final = "0" * 64
"""What the first entry follows."""

_LOCK_HEAD: Final = select(AUDIT_HEAD).with_for_update()
_WRITE: Final = insert(AUDIT)
_MOVE_HEAD: Final = update(AUDIT_HEAD)


class Action(StrEnum):
    """What can be done."""

    JOB_POSTED = "job.posted"
    JOB_WITHDRAWN = "job.withdrawn"
    JOB_CANCEL_REQUESTED = "job.cancel_requested"
    JOB_RETRIED = "job.retried"
    JOB_GIVEN = "job.given_to_model"
    JOB_SUCCEEDED = "job.succeeded"
    JOB_FAILED = "job.failed"
    JOB_CANCELLED = "job.cancelled"
    JOB_PURGED = "job.purged"
    JOB_REVIEWED = "job.reviewed"
    INPUT_PURGED = "input.purged"
    CALLBACK_RESENT = "callback.resent"
    RESULT_READ = "result.read"
    RESULT_DELIVERED = "result.delivered"
    DELIVERY_GIVEN_UP = "result.delivery_given_up"
    GATEWAY_ASKED = "gateway.asked"
    GATEWAY_ENDED = "gateway.ended"
    REFERENCE_RETURNED = "reference.returned"
    BASELINE_KEPT = "baseline.kept"
    KEY_CREATED = "key.created"
    KEY_REVOKED = "key.revoked"
    SESSION_OPENED = "session.opened"
    SESSION_CLOSED = "session.closed"


@dataclass(frozen=True, slots=True)
class Actor:
    """The person or program that acts.

    :ivar id: ``key:ID``, ``oidc:SUBJECT``, ``worker:NAME``, ``cli:USER``, ``anyone`` (an open service) or ``system``.
    :ivar name: display name.
    :ivar address: where the call came from, if it was one.
    """

    id: str
    name: str
    address: str | None = None


SYSTEM: Final = Actor("system", "system")
"""Oarlock itself: its sweeper, its rules of retention."""


@dataclass(frozen=True, slots=True)
class Event:
    """An action that is about to be recorded.

    :ivar model: name, version and sha256 of the job's model.
    :ivar result: an error's code, the SHA-256 of a file or the id of a key.
    """

    action: Action
    actor: Actor
    job_id: str | None = None
    model: str | None = None
    result: str | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of the log.

    ``seq`` counts from 1 without a gap; ``at`` is RFC 3339 in UTC, to the microsecond.
    """

    seq: int
    at: str
    actor: str
    actor_name: str
    address: str | None
    action: str
    job_id: str | None
    model: str | None
    result: str | None
    hash: str

    def chained(self, previous: str) -> str:
        """The hash that this entry must have after another one.

        SHA-256 of the JSON array ``[previous, seq, at, actor, actor_name, address, action, job_id, model, result]`` without
        spaces, in ASCII.
        """
        members = [value for name, value in asdict(self).items() if name != "hash"]
        return hashlib.sha256(json.dumps([previous, *members], separators=(",", ":")).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Head:
    """Number and hash of the last entry.

    A copy that is kept elsewhere shows whether the log was cut.
    """

    seq: int
    hash: str

    def __str__(self) -> str:
        return f"{self.seq}:{self.hash}"


def to_text(model: ModelFacts) -> str:
    """A model as the log names it."""
    return f"{model.name} {model.version} {model.sha256}"


def append(connection: Connection, now: datetime, *events: Event) -> None:
    """Append entries to the chain.

    As the last step of the transaction that they record.

    The last entry is locked until the transaction ends, so no other transaction can append. One that took further locks after
    this could wait for one that waits for it.
    """
    if not events:
        return
    row = connection.execute(_LOCK_HEAD).one()
    head = Head(row.seq, row.hash)
    entries = []
    for event in events:
        entry = _entry(event, head.seq + 1, now)
        head = Head(entry.seq, entry.chained(head.hash))
        entries.append(replace(entry, hash=head.hash))
    connection.execute(_WRITE, [asdict(entry) for entry in entries])
    connection.execute(_MOVE_HEAD, asdict(head))


def record(database: Database, *events: Event, clock: Callable[[], datetime] = utc_now) -> None:
    """Append entries for actions that change nothing else in the database.

    :raises DatabaseUnavailable: if they could not be written; then the action must not take place.
    """
    with database.writing() as connection:
        append(connection, clock(), *events)


def _entry(event: Event, seq: int, now: datetime) -> Entry:
    at = EPOCH + (now - EPOCH)  # in UTC, whatever zone the clock shows
    return Entry(
        seq=seq,
        at=at.isoformat(timespec="microseconds").replace("+00:00", "Z"),
        actor=event.actor.id,
        actor_name=event.actor.name,
        address=event.actor.address,
        action=event.action.value,
        job_id=event.job_id,
        model=event.model,
        result=event.result,
        hash="",
    )


def read_entries(database: Database, *, page: int = 1_000) -> Iterator[Entry]:
    """Every entry of the table in order.

    Read in pages, so that no writer has to wait.
    """
    behind: list[ColumnElement[bool]] = []  # at first everything: an entry before number 1 is to be seen too
    while True:
        query = select(AUDIT).where(*behind).order_by(AUDIT.c.seq).limit(page)
        with database.reading() as connection:
            rows = connection.execute(query).mappings().all()
        yield from (Entry(**row) for row in rows)
        if len(rows) < page:
            return
        behind = [AUDIT.c.seq > rows[-1]["seq"]]


def read_head(database: Database) -> Head | None:
    """The last entry, from the one row beside the table.

    None if there is not exactly one.
    """
    with database.reading() as connection:
        rows = connection.execute(select(AUDIT_HEAD)).all()
    return Head(rows[0].seq, rows[0].hash) if len(rows) == 1 else None


def tell_head(database: Database) -> None:
    """Log the last entry.

    The log is kept elsewhere, so it shows when the table was rewritten.
    """
    head = read_head(database)
    if head is None:
        log.error("the row that names the last entry of the audit log is missing or not the only one")
        return
    log.info("audit log", extra={"head": str(head)})


def of_json(line: str) -> Entry:
    """An entry from a line of an export.

    :raises ValueError: if it is not an entry.
    """
    try:
        return Entry(**json.loads(line))
    except TypeError as error:
        msg = "the line is not an entry of an audit log"
        raise ValueError(msg) from error


def to_json(entry: Entry) -> str:
    """An entry as a line of an export.

    All of its members, the hash too, so that it can be checked anywhere.
    """
    return json.dumps(asdict(entry))


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of a check of the chain.

    ``findings`` is empty if it is intact.
    """

    head: Head
    findings: tuple[str, ...]


def check(database: Database, kept: Iterable[Head] = ()) -> Verdict:
    """Follow the chain of a database.

    :param kept: last entries that were written down elsewhere.
    """
    return verify(read_entries(database), [read_head(database), *kept])


def verify(entries: Iterable[Entry], heads: Iterable[Head | None] = ()) -> Verdict:
    """Follow the chain from its beginning.

    :param entries: in their order.
    :param heads: last entries that were written down: the row beside the table (None where it is missing, which is a finding),
        and any that were kept elsewhere.
    """
    known = set(heads)
    written_down = {head for head in known if head is not None} - {Head(0, BEGINNING)}
    findings, head = [], Head(0, BEGINNING)
    for entry in entries:
        if entry.seq != head.seq + 1:
            findings.append(f"after entry {head.seq} comes entry {entry.seq}")
        if entry.hash != entry.chained(head.hash):
            findings.append(f"entry {entry.seq} is not what was written behind entry {head.seq}")
        head = Head(entry.seq, entry.hash)
        written_down.discard(head)
    findings += [_not_found(missing, head) for missing in sorted(written_down, key=str)]
    if None in known:
        findings.append("the row that names the last entry is missing or not the only one")
    return Verdict(head, tuple(findings))


def _not_found(missing: Head, last: Head) -> str:
    what = "is missing" if missing.seq > last.seq else "has another hash than was written down"
    return f"entry {missing.seq}, of which the hash was written down, {what}"

"""Deliveries: when and where the results of jobs arrived.

As whoever carries them (the gateway) tells it.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from sqlalchemy import func, insert, select, update

from oarlock.store import audit
from oarlock.store.audit import Action, Actor, Event
from oarlock.store.database import Database, utc_now
from oarlock.store.job_rows import check_alive
from oarlock.store.jobs import JobId
from oarlock.store.schema import DELIVERIES


class DeliveryState(StrEnum):
    """Where a delivery stands; ``dead`` is one that was given up."""

    WAITING = "waiting"
    DELIVERED = "delivered"
    DEAD = "dead"


@dataclass(frozen=True, slots=True)
class Delivery:
    """One result of a job on its way to one place.

    :ivar place: what the carrier's operator calls it.
    :ivar result: ``rtstruct``, ``seg`` or ``report``.
    :ivar note: why it has not arrived, in the carrier's words; None where it has.
    :ivar at: when it ended; None where it has not.
    :ivar gateway: who carries it; None where they did not say.
    """

    place: str
    result: str
    state: DeliveryState
    attempts: int
    note: str | None
    at: datetime | None
    gateway: str | None = None


_ACTIONS: Final = {DeliveryState.DELIVERED: Action.RESULT_DELIVERED, DeliveryState.DEAD: Action.DELIVERY_GIVEN_UP}


class DeliveryStore:
    """The deliveries of all jobs that were not purged.

    :param clock: gives the present as an aware time.
    """

    def __init__(self, database: Database, *, clock: Callable[[], datetime] = utc_now) -> None:
        self._database, self._clock = database, clock

    def note(self, job_id: JobId, delivery: Delivery, *, by: Actor) -> None:
        """Note how a delivery stands.

        Its end is written into the audit log. Telling the same again changes nothing.

        :raises JobExpired: if the job was purged in the meantime.
        """
        key = (DELIVERIES.c.job_id == job_id) & (DELIVERIES.c.place == delivery.place) & (DELIVERIES.c.result == delivery.result)
        values = {"state": delivery.state, "attempts": delivery.attempts, "note": delivery.note, "at": delivery.at}
        values |= {"gateway": delivery.gateway}
        with self._database.writing() as connection:
            check_alive(connection, job_id)
            before = connection.execute(select(DELIVERIES.c.state, DELIVERIES.c.at).where(key)).first()
            if before is None:
                named = {"job_id": job_id, "place": delivery.place, "result": delivery.result}
                connection.execute(insert(DELIVERIES).values(named | values))
            else:
                connection.execute(update(DELIVERIES).where(key).values(values))
            if delivery.state in _ACTIONS and (before is None or tuple(before) != (delivery.state, delivery.at)):
                event = Event(_ACTIONS[delivery.state], by, job_id, result=f"{delivery.result} {delivery.place}")
                audit.append(connection, self._clock(), event)

    def of(self, job_ids: Collection[JobId]) -> Mapping[JobId, list[Delivery]]:
        """The deliveries of each job, by place and result.

        Of those of these jobs that have any.
        """
        found: defaultdict[JobId, list[Delivery]] = defaultdict(list)
        if job_ids:
            query = select(DELIVERIES).where(DELIVERIES.c.job_id.in_(job_ids)).order_by(DELIVERIES.c.place, DELIVERIES.c.result)
            with self._database.reading() as connection:
                for row in connection.execute(query):
                    state = DeliveryState(row.state)
                    one = Delivery(row.place, row.result, state, row.attempts, row.note, row.at, row.gateway)
                    found[JobId(row.job_id)].append(one)
        return found

    def counts(self) -> dict[DeliveryState, int]:
        """How many deliveries stand in each state."""
        query = select(DELIVERIES.c.state, func.count()).group_by(DELIVERIES.c.state)
        with self._database.reading() as connection:
            found = {DeliveryState(row[0]): int(row[1]) for row in connection.execute(query)}
        return {state: found.get(state, 0) for state in DeliveryState}

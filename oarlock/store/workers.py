"""Workers: which ones live, and which models they have.

The database's clock says when, for all who write and read.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete, insert, select, update

from oarlock.store.database import Database
from oarlock.store.schema import WORKERS, DatabaseNow, lately


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker that reported: its models as name to sha256."""

    name: str
    models: Mapping[str, str]
    device: str
    seen_at: datetime


class WorkerRegistry:
    """The workers of all machines."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def heartbeat(self, worker: str, models: Mapping[str, str], device: str) -> None:
        """Note that a worker lives.

        :param models: name to sha256 of the models that it has loaded or can load.
        """
        values = {"models": json.dumps(dict(models)), "device": device, "seen_at": DatabaseNow()}
        with self._database.noting() as connection:
            if not connection.execute(update(WORKERS).where(WORKERS.c.name == worker).values(values)).rowcount:
                connection.execute(insert(WORKERS).values(values | {"name": worker}))

    def sign_off(self, worker: str) -> None:
        """Note that a worker stops."""
        with self._database.writing() as connection:
            connection.execute(delete(WORKERS).where(WORKERS.c.name == worker))

    def live(self, within_s: float) -> list[Worker]:
        """The workers that reported in the last seconds, by name."""
        with self._database.reading() as connection:
            rows = connection.execute(select(WORKERS).where(lately(within_s)).order_by(WORKERS.c.name)).all()
        return [Worker(row.name, json.loads(row.models), row.device, row.seen_at) for row in rows]

    def forget(self, silent_s: float) -> None:
        """Delete the rows of workers that were silent too long.

        Those that are killed never report their end, and names are not reused.
        """
        with self._database.writing() as connection:
            connection.execute(delete(WORKERS).where(~lately(silent_s)))

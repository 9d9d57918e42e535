"""Baselines.

What a model scored on a site's past patients, before it drew a new one.

Control charts begin with them (:mod:`oarlock.store.scores.charts`). Nothing is ever changed: a later one of the same model and
site takes the place of an earlier one, which stays.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import Connection, insert, select

from oarlock.facts import ModelFacts
from oarlock.qa.control_chart import FEWEST
from oarlock.store import audit
from oarlock.store.audit import Action, Actor, Event
from oarlock.store.schema import BASELINES


@dataclass(frozen=True, slots=True)
class Baseline:
    """What a model scored on past patients.

    :ivar patients: how many there were.
    :ivar scores: surface DSC of each organ, in [0, 1], in any order, of all scanners together.
    :ivar of_scanners: those whose scanner is known, by organ and scanner.
    :ivar site: whose patients they were; empty for an operator's, whose baseline holds for each site without one of its own.
    """

    model: ModelFacts
    patients: int
    scores: Mapping[str, Sequence[float]]
    site: str = ""
    of_scanners: Mapping[str, Mapping[str, Sequence[float]]] = field(default_factory=dict)

    def scores_on(self, scanner: str, oar: str) -> tuple[Sequence[float], bool]:
        """What limits of an organ on a scanner are made of.

        And whether it is that scanner's alone, or that of all together, where it has too few.
        """
        own = self.of_scanners.get(oar, {}).get(scanner, ())
        return (own, True) if len(own) >= FEWEST else (self.scores.get(oar, ()), False)


@dataclass(frozen=True, slots=True)
class KeptBaseline:
    """A baseline, when it was kept and by whom."""

    at: datetime
    by: str
    baseline: Baseline


def keep(connection: Connection, now: datetime, baseline: Baseline, *, by: Actor) -> None:
    """Write a baseline down.

    From now on it is the one of its model and site.
    """
    model = baseline.model
    values = {
        "at": now,
        "site": baseline.site,
        "model": model.name,
        "model_version": model.version,
        "model_sha256": model.sha256,
        "patients": baseline.patients,
        "scores": json.dumps({oar: list(scores) for oar, scores in baseline.scores.items()}),
        "of_scanners": json.dumps(baseline.of_scanners, default=list),
        "actor": by.id,
        "actor_name": by.name,
    }
    connection.execute(insert(BASELINES).values(values))
    result = f"{baseline.patients} patients, {len(baseline.scores)} organs"
    audit.append(connection, now, Event(Action.BASELINE_KEPT, by, None, audit.to_text(model), result))


def newest(connection: Connection, site: str = "") -> dict[tuple[str, str], KeptBaseline]:
    """The newest baseline of each site and model (its SHA-256).

    :param site: whose are asked for, beside those that hold for all; empty for those of every site.
    """
    wanted = [BASELINES.c.site.in_(["", site])] if site else []
    rows = connection.execute(select(BASELINES).where(*wanted).order_by(BASELINES.c.id))
    return {
        (row.site, row.model_sha256): KeptBaseline(
            row.at,
            row.actor_name,
            Baseline(
                ModelFacts(row.model, row.model_version, row.model_sha256),
                row.patients,
                json.loads(row.scores),
                row.site,
                json.loads(row.of_scanners),
            ),
        )
        for row in rows
    }

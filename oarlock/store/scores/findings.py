"""What the checks without a reference said, by organ and day."""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import ColumnElement, Connection, func, select

from oarlock.organs.catalogue import OARS
from oarlock.store.schema import QA_CHECKS, QA_FINDINGS, QA_UNCOUNTED
from oarlock.store.scores.filters import Filters, of_streams, read_streams
from oarlock.store.scores.write import day_of

_ORDER = {oar.name: place for place, oar in enumerate(OARS)}


@dataclass(frozen=True, slots=True)
class Findings:
    """How often one check gave one level for one organ.

    :ivar parts: over each part of the time that has one, by its first day since 1970.
    """

    oar: str
    code: str
    level: str
    n: int
    parts: Mapping[int, int]


def uncounted(connection: Connection, *wanted: ColumnElement[bool]) -> dict[int, Counter[tuple[str, str, str]]]:
    """Findings that wait to be counted, by day.

    How often each organ, code and level was found.

    Read in the snapshot in which the counters are read, nothing is missed and nothing is in both.
    """
    found: defaultdict[int, Counter[tuple[str, str, str]]] = defaultdict(Counter)
    for day, findings in connection.execute(select(QA_UNCOUNTED.c.day, QA_UNCOUNTED.c.findings).where(*wanted)):
        found[day].update(map(tuple, json.loads(findings)))
    return found


def read_checks(connection: Connection) -> list[tuple[str, str, str, int]]:
    """Organ, code, level and count over all that was delivered."""
    counted = Counter({(row.oar, row.code, row.level): row.findings for row in connection.execute(select(QA_CHECKS))})
    for of_day in uncounted(connection, ~QA_UNCOUNTED.c.shadow).values():
        counted.update(of_day)
    return [(*key, findings) for key, findings in sorted(counted.items())]


def read_findings(connection: Connection, filters: Filters, part_of: Callable[[int], int] | None) -> list[Findings]:
    """One entry for each organ, check and level, in the catalogue's order.

    :param filters: its moments stand for whole days, as in a summary; ``origin`` means nothing here.
    :param part_of: see :func:`oarlock.store.scores.summaries.summarise`.
    """
    streams = read_streams(connection, filters)
    if not streams:
        return []
    of, left = QA_FINDINGS.c, QA_UNCOUNTED.c
    wanted = _wanted(of.stream_id, of.day, filters, streams)
    if filters.oar is not None:
        wanted.append(of.oar == filters.oar)
    key = (of.oar, of.code, of.level, of.day)
    query = select(*key, func.sum(of.findings)).where(*wanted).group_by(*key)
    waiting = uncounted(connection, *_wanted(left.stream_id, left.day, filters, streams))
    more = [(*one, day, n) for day, of_day in waiting.items() for one, n in of_day.items() if filters.oar in {None, one[0]}]
    found: dict[tuple[str, str, str], dict[int, int]] = {}
    for oar, code, level, day, n in (*connection.execute(query), *more):
        parts = found.setdefault((oar, code, level), {})
        part = part_of(day) if part_of else 0
        parts[part] = parts.get(part, 0) + int(n)
    entries = [
        Findings(*entry, sum(parts.values()), dict(sorted(parts.items())) if part_of else {}) for entry, parts in found.items()
    ]
    return sorted(entries, key=lambda one: (_ORDER.get(one.oar, len(_ORDER)), one.oar, one.code, one.level))


def _wanted(
    stream_id: ColumnElement[int], day: ColumnElement[int], filters: Filters, streams: Mapping[int, object]
) -> list[ColumnElement[bool]]:
    wanted = of_streams(stream_id, filters, streams)
    if filters.since is not None:
        wanted.append(day >= day_of(filters.since))
    if filters.until is not None:
        wanted.append(day <= day_of(filters.until - timedelta(microseconds=1)))
    return wanted

"""What the checks without a reference said, by organ and day."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import Connection, func, select

from oarlock.organs.catalogue import OARS
from oarlock.store.schema import QA_FINDINGS
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


def read_findings(connection: Connection, filters: Filters, part_of: Callable[[int], int] | None) -> list[Findings]:
    """One entry for each organ, check and level, in the catalogue's order.

    :param filters: its moments stand for whole days, as in a summary; ``origin`` means nothing here.
    :param part_of: see :func:`oarlock.store.scores.summaries.summarise`.
    """
    streams = read_streams(connection, filters)
    if not streams:
        return []
    wanted = of_streams(QA_FINDINGS.c.stream_id, filters, streams)
    if filters.since is not None:
        wanted.append(QA_FINDINGS.c.day >= day_of(filters.since))
    if filters.until is not None:
        wanted.append(QA_FINDINGS.c.day <= day_of(filters.until - timedelta(microseconds=1)))
    if filters.oar is not None:
        wanted.append(QA_FINDINGS.c.oar == filters.oar)
    key = (QA_FINDINGS.c.oar, QA_FINDINGS.c.code, QA_FINDINGS.c.level)
    query = select(*key, QA_FINDINGS.c.day, func.sum(QA_FINDINGS.c.findings)).where(*wanted).group_by(*key, QA_FINDINGS.c.day)
    found: dict[tuple[str, str, str], dict[int, int]] = {}
    for oar, code, level, day, n in connection.execute(query):
        parts = found.setdefault((oar, code, level), {})
        part = part_of(day) if part_of else 0
        parts[part] = parts.get(part, 0) + int(n)
    entries = [
        Findings(*entry, sum(parts.values()), dict(sorted(parts.items())) if part_of else {}) for entry, parts in found.items()
    ]
    return sorted(entries, key=lambda one: (_ORDER.get(one.oar, len(_ORDER)), one.oar, one.code, one.level))

"""What the checks without a reference said, by organ and day."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import Connection, Subquery, func, literal, select, union_all

from oarlock.organs.catalogue import OARS
from oarlock.store.schema import QA_CHECKS, QA_FINDINGS, QA_UNCOUNTED
from oarlock.store.scores.filters import Filters, of_streams, read_streams
from oarlock.store.scores.write import day_of, rows_of

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


def every_finding(connection: Connection) -> Subquery:
    """A table as ``qa_findings``, with what jobs have left and nobody has counted.

    In one statement, so that nothing is in it twice.
    """
    named = (QA_FINDINGS.c.oar, QA_FINDINGS.c.code, QA_FINDINGS.c.level)
    left = rows_of(connection, QA_UNCOUNTED.c.findings, named)
    once = literal(1).label("findings")
    uncounted = select(QA_UNCOUNTED.c.day, QA_UNCOUNTED.c.stream_id, *left, once).select_from(QA_UNCOUNTED)
    return union_all(select(QA_FINDINGS), uncounted).subquery()


def every_check(connection: Connection) -> Subquery:
    """The same over all days of what was delivered, as ``qa_checks``."""
    left = rows_of(connection, QA_UNCOUNTED.c.findings, (QA_CHECKS.c.oar, QA_CHECKS.c.code, QA_CHECKS.c.level))
    uncounted = select(*left, literal(1)).select_from(QA_UNCOUNTED).where(~QA_UNCOUNTED.c.shadow)
    return union_all(select(QA_CHECKS), uncounted).subquery()


def read_findings(connection: Connection, filters: Filters, part_of: Callable[[int], int] | None) -> list[Findings]:
    """One entry for each organ, check and level, in the catalogue's order.

    :param filters: its moments stand for whole days, as in a summary; ``origin`` means nothing here.
    :param part_of: see :func:`oarlock.store.scores.summaries.summarise`.
    """
    streams = read_streams(connection, filters)
    if not streams:
        return []
    of = every_finding(connection).c
    wanted = of_streams(of.stream_id, filters, streams)
    if filters.since is not None:
        wanted.append(of.day >= day_of(filters.since))
    if filters.until is not None:
        wanted.append(of.day <= day_of(filters.until - timedelta(microseconds=1)))
    if filters.oar is not None:
        wanted.append(of.oar == filters.oar)
    key = (of.oar, of.code, of.level)
    query = select(*key, of.day, func.sum(of.findings)).where(*wanted).group_by(*key, of.day)
    found: dict[tuple[str, str, str], dict[int, int]] = {}
    for oar, code, level, day, n in connection.execute(query):
        parts = found.setdefault((oar, code, level), {})
        part = part_of(day) if part_of else 0
        parts[part] = parts.get(part, 0) + int(n)
    entries = [
        Findings(*entry, sum(parts.values()), dict(sorted(parts.items())) if part_of else {}) for entry, parts in found.items()
    ]
    return sorted(entries, key=lambda one: (_ORDER.get(one.oar, len(_ORDER)), one.oar, one.code, one.level))

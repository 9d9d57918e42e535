"""Summaries: what the scores of each organ say together.

Over the whole time and over its parts.

The scores of a day are read as one piece, packed: a year of a large clinic is a million numbers, which NumPy sorts in the time in
which a database hands out the first rows of them (ADR 17).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection, func, select

from oarlock.organs.catalogue import OARS
from oarlock.qa.quantiles import Distribution, IntArray, distributions
from oarlock.store.jobs import JobState
from oarlock.store.schema import JOBS, QA_CASES, QA_DAYS, QA_OARS, QA_SCORES
from oarlock.store.scores.filters import Filters, of_cases, of_streams, read_streams
from oarlock.store.scores.write import PACKED, WHO, day_of

Columns = Mapping[str, npt.NDArray[Any]]

RECORD: Final = np.dtype([("oar", "u1"), ("who", "u1"), ("surface_dsc", "<f8"), ("volumetric_dsc", "<f8")])
"""The same bytes as :data:`oarlock.store.scores.write.PACKED`."""

assert RECORD.itemsize == PACKED.size

_ORDER: Final = {oar.name: place for place, oar in enumerate(OARS)}


@dataclass(frozen=True, slots=True)
class Summary:
    """The scores of one organ over some time.

    :ivar n: cases that both sides drew; ``one_sided``, those that one side alone drew.
    :ivar missed, extra: of these, those that the reference alone drew, and the predicted alone, where it is known.
    :ivar changed: of ``n``, those whose volumetric DSC is below 1; against approved contours, what people edited.
    """

    n: int
    one_sided: int
    missed: int
    extra: int
    changed: int
    surface_dsc: Distribution | None
    volumetric_dsc: Distribution | None


@dataclass(frozen=True, slots=True)
class OARSummary:
    """One organ over the whole time and its parts.

    Each part that has a case, by its first day.
    """

    oar: str
    whole: Summary
    parts: Mapping[int, Summary]
    amounts: Mapping[str, "Amount"] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Amount:
    """A length or a volume, of the cases that define it."""

    n: int
    mean: float
    lowest: float
    highest: float


AMOUNTS: Final = (
    "hausdorff_95_mm",
    "mean_surface_distance_mm",
    "added_path_length_mm",
    "predicted_volume_ml",
    "reference_volume_ml",
)


def summarise(
    connection: Connection, filters: Filters, alert_level: float, part_of: Callable[[int], int] | None
) -> list[OARSummary]:
    """One entry for each organ that has a case.

    In the catalogue's order.

    :param filters: its moments stand for the whole days that they lie in; the day of ``until`` is not among them.
    :param alert_level: scores below it are counted, in [0, 1].
    :param part_of: from a day, counted from 1970, to the first day of the part of time that it belongs to; None for one part.
    """
    streams = read_streams(connection, filters)
    rows = connection.execute(_days(filters, streams)).all() if streams else []
    names = {row.id: row.name for row in connection.execute(select(QA_OARS))}
    part = [part_of(row.day) if part_of else 0 for row in rows]
    parts = sorted(set(part)) if part_of else []
    numbers = np.searchsorted(parts, part) if part_of else np.zeros(len(rows), np.int64)
    groups = np.repeat(numbers, [len(row.scores) // PACKED.size for row in rows])
    table = np.frombuffer(b"".join(row.scores for row in rows), RECORD)
    amounts = _read_amounts(connection, filters, streams) if streams else {}
    found = [
        replace(_oar_summary(oar, *columns, parts, alert_level), amounts=amounts.get(oar, {}))
        for oar, columns in _by_oar(table, groups, names, filters.oar)
    ]
    return sorted(found, key=lambda entry: (_ORDER.get(entry.oar, len(_ORDER)), entry.oar))


def _read_amounts(connection: Connection, filters: Filters, streams: Mapping[int, object]) -> dict[str, dict[str, Amount]]:
    """The amounts of each organ that both sides drew."""
    wanted = [*of_cases(filters, streams), QA_SCORES.c.presence == "both"]
    if filters.oar is not None:
        wanted.append(QA_SCORES.c.oar == filters.oar)
    sums = [function(QA_SCORES.c[name]) for name in AMOUNTS for function in (func.count, func.avg, func.min, func.max)]
    query = select(QA_SCORES.c.oar, *sums).join(QA_CASES, QA_CASES.c.id == QA_SCORES.c.case_id).where(*wanted)
    found = {}
    for oar, *row in connection.execute(query.group_by(QA_SCORES.c.oar)):
        numbers = iter(row)
        quadruples = {name: [next(numbers) for _ in range(4)] for name in AMOUNTS}
        found[oar] = {name: Amount(*values) for name, values in quadruples.items() if values[0]}
    return found


def read_turnaround_s(connection: Connection, filters: Filters) -> Distribution | None:
    """How long jobs took that succeeded, in seconds.

    From their post to their end; None where none did.
    """
    wanted = [JOBS.c.state == JobState.SUCCEEDED, JOBS.c.finished_at.is_not(None)]
    if filters.site:
        wanted.append(JOBS.c.site == filters.site)
    if filters.since is not None:
        wanted.append(JOBS.c.finished_at >= filters.since)
    if filters.until is not None:
        wanted.append(JOBS.c.finished_at < filters.until)
    rows = connection.execute(select(JOBS.c.created_at, JOBS.c.finished_at).where(*wanted)).all()
    seconds = np.array([(finished - created).total_seconds() for created, finished in rows])
    (found,) = distributions(seconds, np.zeros(len(seconds), np.int64), 1, 0.0)
    return found


def _days(filters: Filters, streams: Mapping[int, object]) -> Any:
    wanted = of_streams(QA_DAYS.c.stream_id, filters, streams)
    if filters.since is not None:
        wanted.append(QA_DAYS.c.day >= day_of(filters.since))
    if filters.until is not None:
        wanted.append(QA_DAYS.c.day <= day_of(filters.until - timedelta(microseconds=1)))
    if filters.origin is not None:
        wanted.append(QA_DAYS.c.origin == filters.origin)
    return select(QA_DAYS.c.day, QA_DAYS.c.scores).where(*wanted)


def _by_oar(
    table: npt.NDArray[np.void], groups: IntArray, names: Mapping[int, str], only: str | None
) -> Iterator[tuple[str, tuple[Columns, IntArray]]]:
    """The columns of each organ that has a record, or of one organ.

    They are taken apart once, each in one piece: asking packed records again for every organ is most of the work otherwise.
    """
    ids = np.ascontiguousarray(table["oar"])
    if only is not None:
        wanted = [oar_id for oar_id, name in names.items() if name == only]
        order = np.flatnonzero(np.isin(ids, np.array(wanted, np.uint8)))
    else:
        order = np.argsort(ids, kind="stable")
    columns = {name: np.ascontiguousarray(table[name])[order] for name in ("who", "surface_dsc", "volumetric_dsc")}
    groups, counts = groups[order], np.bincount(ids[order])
    ends = np.cumsum(counts)
    for oar_id in np.flatnonzero(counts).tolist():
        mine = slice(ends[oar_id] - counts[oar_id], ends[oar_id])
        yield names[oar_id], ({name: column[mine] for name, column in columns.items()}, groups[mine])


def _oar_summary(oar: str, columns: Columns, groups: IntArray, parts: Sequence[int], alert_level: float) -> OARSummary:
    """One organ.

    :param columns, groups: of its records, and the place of each one's part among ``parts``.
    """
    (whole,) = _summaries(columns, np.zeros(len(groups), np.int64), 1, alert_level)
    by_part = zip(parts, _summaries(columns, groups, len(parts), alert_level), strict=True) if parts else ()
    return OARSummary(oar, whole, {part: found for part, found in by_part if found.n or found.one_sided})


def _summaries(columns: Columns, groups: IntArray, count: int, alert_level: float) -> list[Summary]:
    who = columns["who"]
    both = who == WHO["both"]
    one_sided, missed, extra = (
        np.bincount(groups[chosen], minlength=count).tolist()
        for chosen in (~both, who == WHO["reference_only"], who == WHO["predicted_only"])
    )
    if any(one_sided):
        columns, groups = {name: column[both] for name, column in columns.items()}, groups[both]
    n = np.bincount(groups, minlength=count).tolist()
    changed = np.bincount(groups[columns["volumetric_dsc"] < 1], minlength=count).tolist()
    scores = [distributions(columns[name], groups, count, alert_level) for name in ("surface_dsc", "volumetric_dsc")]
    return [Summary(*row) for row in zip(n, one_sided, missed, extra, changed, *scores, strict=True)]

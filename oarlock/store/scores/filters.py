"""Filters: which cases are asked for, and what that means as conditions."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, select

from oarlock.store.schema import QA_CASES, QA_STREAMS
from oarlock.store.scores.write import Origin, is_shadow


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """Which cases are asked for; None for all.

    ``since`` is the first moment, ``until`` the first one after.

    ``site`` has no default: whoever asks says whose cases they may see, and an empty one stands for those of all sites.

    ``shadow`` asks for shadow runs, or for delivered contours; None stands for both of a model that is named, else for delivered.
    """

    site: str

    since: datetime | None = None
    until: datetime | None = None
    model: str | None = None
    model_version: str | None = None
    scanner: str | None = None
    origin: Origin | None = None
    oar: str | None = None
    shadow: bool | None = None

    @property
    def of_shadows(self) -> bool | None:
        """Whether shadow runs are asked for, or delivered contours; None for both."""
        return False if self.shadow is None and self.model is None else self.shadow


def read_streams(connection: Connection, filters: Filters) -> dict[int, Row[Any]]:
    """The models and scanners that are asked for.

    A handful, so the large tables are asked by number.
    """
    asked = {"model": filters.model, "model_version": filters.model_version, "scanner": filters.scanner}
    asked["site"] = filters.site or None
    same = [QA_STREAMS.c[name] == value for name, value in asked.items() if value is not None]
    if filters.of_shadows is not None:
        same.append(QA_STREAMS.c.shadow == filters.of_shadows)
    return {row.id: row for row in connection.execute(select(QA_STREAMS).where(*same))}


def of_streams(column: ColumnElement[int], filters: Filters, streams: Mapping[int, object]) -> list[ColumnElement[bool]]:
    """The condition that a row is of these streams.

    Where the filters ask for all that was delivered it names the few that are not: rows are then read in their order.
    """
    if filters.model is filters.model_version is filters.scanner is None and not filters.site and not filters.of_shadows:
        return [is_shadow(column, wanted=False)]
    return [column == next(iter(streams))] if len(streams) == 1 else [column.in_(streams)]


def of_cases(filters: Filters, streams: Mapping[int, object]) -> list[ColumnElement[bool]]:
    """The conditions on a row of ``qa_cases``."""
    wanted = of_streams(QA_CASES.c.stream_id, filters, streams)
    if filters.since is not None:
        wanted.append(QA_CASES.c.at >= filters.since)
    if filters.until is not None:
        wanted.append(QA_CASES.c.at < filters.until)
    if filters.origin is not None:
        wanted.append(QA_CASES.c.origin == filters.origin)
    return wanted

"""Stage times: how long the stages of all jobs took.

Counted in buckets as Prometheus wants them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import Connection, bindparam, select, update

from oarlock.store.database import Database
from oarlock.store.jobs import Stage
from oarlock.store.schema import STAGES

STAGE_BUCKETS_S: Final = (0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, float("inf"))
"""Upper bounds of the histogram of stage durations."""

_COUNT: Final = (
    update(STAGES)
    .where(STAGES.c.stage == bindparam("of_stage"), STAGES.c.bucket == bindparam("in_bucket"))
    .values(jobs=STAGES.c.jobs + 1, total_s=STAGES.c.total_s + bindparam("seconds"))
)


@dataclass(frozen=True, slots=True)
class StageDurations:
    """How long a stage took, over all jobs ever.

    ``counts[i]`` of them took at most ``STAGE_BUCKETS_S[i]`` and longer than the bound before it.
    """

    stage: Stage
    counts: tuple[int, ...]
    total_s: float


class StageTimes:
    """The histogram of each stage.

    Its rows are made with the schema, one for each stage and bucket.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def all(self) -> list[StageDurations]:
        """The histogram of every stage, in the order of the stages."""
        with self._database.reading() as connection:
            rows = connection.execute(select(STAGES).order_by(STAGES.c.stage, STAGES.c.bucket)).all()
        return [
            StageDurations(
                stage,
                counts=tuple(row.jobs for row in rows if row.stage == stage),
                total_s=sum(row.total_s for row in rows if row.stage == stage),
            )
            for stage in Stage
        ]


def count_stages(connection: Connection, stages: Sequence[tuple[Stage, datetime]], now: datetime) -> None:
    """Count the stages of a job, the last of which ends now.

    In the order of their rows: so no two jobs that end wait for each other.

    :param stages: each with its beginning, in order.
    """
    ends = [began for _, began in stages[1:]] + [now]
    took = [(stage, max(0.0, (end - began).total_seconds())) for (stage, began), end in zip(stages, ends, strict=True)]
    cells = [{"of_stage": stage, "in_bucket": _bucket(seconds), "seconds": seconds} for stage, seconds in took]
    if cells:
        connection.execute(_COUNT, sorted(cells, key=lambda cell: (cell["of_stage"], cell["in_bucket"])))


def _bucket(seconds: float) -> int:
    return next(i for i, bound in enumerate(STAGE_BUCKETS_S) if seconds <= bound)

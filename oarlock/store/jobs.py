"""The contract of the two faces: jobs and their states.

What a job is, and which way its state may go.

    queued ──► running ──► succeeded
      │  ▲        │ └────► failed ───┐
      │  │        └──────► cancelled ┤
      │  └───────────────────────────┘   retry
      └───────────────────► cancelled

The job table is the truth (ADR 0004): a message on the queue carries a job id and nothing else, and losing or doubling a message
changes nothing that the table does not allow.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum, StrEnum
from typing import Final, NewType

from oarlock.facts import ModelFacts, Notice, SeriesFacts

JobId = NewType("JobId", str)

CONTOUR_SERIES: Final = "oarlock.contour_series"
"""Name of the task that does a job; its one argument is the job id."""

DRAW_SHADOW: Final = "oarlock.draw_shadow"
"""Name of the task that lets a second model draw a finished job; its one argument is the job id."""

QUEUE: Final = "oarlock"

MAX_ATTEMPTS: Final = 3
"""How often a job is started before it fails: a series that kills its worker must not do so for ever."""


class JobState(StrEnum):
    """Where a job stands; the last three are ends."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        return self in ENDED


ENDED: Final = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED})


class Stage(StrEnum):
    """What a running job is doing."""

    READING = "reading"
    INFERRING = "inferring"
    CONTOURING = "contouring"
    COMPARING = "comparing"


class Priority(IntEnum):
    """Priority on the broker: Redis takes the smallest number first."""

    URGENT = 0
    NORMAL = 4
    LOW = 8


@dataclass(frozen=True, slots=True)
class JobFailure:
    """Why a job failed: the code and the sentence of an :class:`oarlock.errors.OarlockError`."""

    code: str
    title: str
    detail: str


@dataclass(frozen=True, slots=True)
class Job:
    """One row of the job table, as everyone sees it.

    Times are aware, in UTC. ``progress`` is from 0 to 1 and never falls. ``identity`` is sealed; only a service can open it.
    ``superseded_by`` is the job that holds more of the same series.
    ``site`` is empty for a job that an operator's key posted; ``rank`` is its step in the queue (``fairness``).
    ``label`` is what the sender calls the job: it may name a patient, so it is never logged.
    """

    id: JobId
    state: JobState
    stage: Stage | None
    progress: float
    priority: Priority
    attempts: int
    series: SeriesFacts
    model: ModelFacts
    profile: str | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    purged_at: datetime | None
    input_purged_at: datetime | None
    cancel_requested: bool
    warnings: tuple[Notice, ...]
    error: JobFailure | None
    identity: bytes | None = None
    superseded_by: JobId | None = None
    site: str = ""
    rank: int = 0
    label: str | None = None

    def is_seen_by(self, site: str) -> bool:
        """Whether a caller of a site may know of the job.

        Operators, whose site is empty, see all.
        """
        return site in {"", self.site}

"""Small values that every package may hold.

They are about a series, about a model, and what people should know.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class SeriesFacts:
    """What the API says of a job's series; nothing identifies a person."""

    study_instance_uid: str
    series_instance_uid: str
    frame_of_reference_uid: str
    slices: int
    spacing_mm: tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """The model that a job was given to."""

    name: str
    version: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Notice:
    """Something the physicist should know.

    A stable code and a sentence without patient data.
    """

    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class ComparisonRows:
    """A comparison of two structure sets as rows for a table.

    Nothing that a sender wrote is in it.

    :ivar definition: which set of definitions its numbers follow.
    :ivar oars: one mapping an organ, from column to value: ``oar``, ``presence``, ``tolerance_mm``, the measured numbers,
        ``undefined_reason`` and ``verdict``.
    :ivar position: of the reference among all that were supplied, from 1, those that could not be used among them.
    """

    definition: str
    oars: tuple[Mapping[str, Any], ...]
    position: int = 1

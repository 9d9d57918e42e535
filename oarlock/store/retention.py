"""Retention: how long the bytes of a job stay after its end."""

import re
from dataclasses import dataclass
from typing import Final

_DURATION: Final = re.compile(r"(\d{1,6})([smhd]?)")
_UNITS_S: Final = {"": 1, "s": 1, "m": 60, "h": 3_600, "d": 86_400}


@dataclass(frozen=True, slots=True)
class Retention:
    """How many seconds after its end a job keeps its input, and its results with all else that is known of it.

    None stands for what the next one says: a job's own for its key's, which was taken when it was posted, and that for the
    settings'; None there, until the job is purged on request.
    """

    input_s: int | None = None
    results_s: int | None = None


UNSAID: Final = Retention()
"""Whatever the next one says."""


def to_seconds(text: str) -> int:
    """A duration as people write it: ``0``, ``45m``, ``12h``, ``30d``.

    :raises ValueError: if it is none.
    """
    found = _DURATION.fullmatch(text)
    if found is None:
        msg = "is no duration: write 0, 45m, 12h or 30d"
        raise ValueError(msg)
    return int(found[1]) * _UNITS_S[found[2]]

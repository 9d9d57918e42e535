"""Retention: how long the bytes of a job stay after its end."""

import re
from dataclasses import dataclass
from typing import Final

_DURATION: Final = re.compile(r"(\d{1,6})([smhd]?)")
_UNITS_S: Final = {"": 1, "s": 1, "m": 60, "h": 3_600, "d": 86_400}


@dataclass(frozen=True, slots=True)
class Retention:
    """How many seconds a job keeps its input and its results.

    After its end; with the results goes all else that is known of it.

    None in a job leaves a time to its key (asked when it is posted), in a key to the settings; None there keeps everything
    until the job is purged on request.
    """

    input_s: int | None = None
    results_s: int | None = None


NO_OVERRIDE: Final = Retention()
"""Leaves both times to the key, or to the settings."""


def to_seconds(text: str) -> int:
    """A duration as people write it: ``0``, ``45m``, ``12h``, ``30d``.

    :raises ValueError: if it is not one.
    """
    found = _DURATION.fullmatch(text)
    if found is None:
        msg = "is not a duration; write 0, 45m, 12h or 30d"
        raise ValueError(msg)
    return int(found[1]) * _UNITS_S[found[2]]

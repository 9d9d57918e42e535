"""Decimal Strings, by the grammar of the standard (PS3.5 6.2, DS).

Python's own grammar is wider: it reads "1_0" as 10, takes "nan" and "infinity", and digits of every script.
"""

import math
import re
from typing import Final

LONGEST_STANDARD: Final = 16
"""Most characters that the standard allows."""

LONGEST_READ: Final = 32
"""Most characters that are read: numbers of 17 to 20 characters are common and mean what they say."""

_GRAMMAR: Final = r" *[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)? *"
_TEXT: Final = re.compile(_GRAMMAR)
_BYTES: Final = re.compile(_GRAMMAR.encode("ascii"))


def is_decimal(value: str | bytes) -> bool:
    """Whether a single value is a Decimal String of any length.

    Blanks around it are allowed.
    """
    return (_TEXT.fullmatch(value) if isinstance(value, str) else _BYTES.fullmatch(value)) is not None


def to_numbers(text: str) -> tuple[float, ...]:
    """The values of a DS element; empty unless all are finite."""
    parts = [part.strip() for part in text.split("\\")]
    if not all(len(part) <= LONGEST_READ and is_decimal(part) for part in parts):
        return ()
    values = tuple(float(part) for part in parts)
    return values if all(map(math.isfinite, values)) else ()

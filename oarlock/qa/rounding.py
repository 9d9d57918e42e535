"""Rounding: as many digits as a report prints."""

from collections.abc import Mapping
from typing import Final, TypeVar, overload

DECIMALS: Final = 4
"""A tenth of a micrometre, of a microlitre, or a ten-thousandth of a surface: finer than any voxel."""

V = TypeVar("V")


@overload
def rounded(value: Mapping[str, V]) -> dict[str, V]: ...
@overload
def rounded(value: float | None) -> float | None: ...
def rounded(value: object) -> object:
    """A number, or every number of a mapping, rounded.

    To :data:`DECIMALS` digits behind the point; anything else stays as it is.
    """
    if isinstance(value, Mapping):
        return {name: rounded(inner) for name, inner in value.items()}
    return round(value, DECIMALS) if isinstance(value, float) else value

"""What is changed.

A choice of cosmic-ray's operators, and two of our own.
"""

import re
from ast import literal_eval
from collections.abc import Iterator, Sequence
from typing import Any, Final

from cosmic_ray.ast import is_number
from cosmic_ray.operators.operator import Example, Operator
from cosmic_ray.plugins import get_operator
from parso.python.tree import Number, String

Positions = Iterator[tuple[tuple[int, int], tuple[int, int]]]

FACTORS: Final = (1.5, 1 / 1.5)
OPPOSITES: Final = (
    ("left", "right"),
    ("front", "back"),
    ("upper", "lower"),
    ("inner", "outer"),
    ("head", "feet"),
    ("above", "below"),
    ("_L", "_R"),
)


class LimitMoved(Operator):  # type: ignore[misc]
    """A decimal number, half as large again or a third smaller.

    0.1 to 0.15.

    cosmic-ray adds and takes away 1, which leaves no limit below 1 where a patient could meet it.
    """

    def mutation_positions(self, node: Any) -> Positions:
        if is_number(node) and isinstance(literal_eval(node.value), float) and literal_eval(node.value):
            yield from [(node.start_pos, node.end_pos)] * len(FACTORS)

    def mutate(self, node: Any, index: int) -> Number:
        return Number(repr(literal_eval(node.value) * FACTORS[index]), node.start_pos, node.prefix)

    @classmethod
    def examples(cls) -> Sequence[Example]:
        return (Example("x = 0.5", "x = 0.75"),)


class SideExchanged(Operator):  # type: ignore[misc]
    """A text with its sides exchanged: left for right, front for back."""

    def mutation_positions(self, node: Any) -> Positions:
        if node.type in {"string", "fstring_string"} and not _is_docstring(node) and exchanged(node.value) != node.value:
            yield node.start_pos, node.end_pos

    def mutate(self, node: Any, _index: int) -> Any:
        if node.type == "string":
            return String(exchanged(node.value), node.start_pos, node.prefix)
        node.value = exchanged(node.value)
        return node

    @classmethod
    def examples(cls) -> Sequence[Example]:
        return (Example("x = 'to the left'", "x = 'to the right'"),)


def exchanged(text: str) -> str:
    """The text with every word of a side replaced by its opposite."""
    opposite = {a: b for pair in OPPOSITES for a, b in (pair, pair[::-1])}
    return re.sub("|".join(rf"{re.escape(word)}(?![a-z])" for word in opposite), lambda match: opposite[match.group()], text)


def _is_docstring(node: Any) -> bool:
    return node.parent is not None and node.parent.type in {"simple_stmt", "file_input"}


_PAIRS: Final = ("Add Sub", "Sub Add", "Mul Div", "Div Mul", "FloorDiv Mul", "Mod Mul", "Pow Mul", "BitAnd BitOr", "BitOr BitAnd")
_COMPARED: Final = (
    "Lt LtE",
    "Lt GtE",
    "LtE Lt",
    "LtE Gt",
    "Gt GtE",
    "Gt LtE",
    "GtE Gt",
    "GtE Lt",
    "Eq NotEq",
    "NotEq Eq",
    "Is IsNot",
    "IsNot Is",
)
_SIGNS: Final = ("USub_UAdd", "Delete_USub", "Delete_Not", "Delete_Invert")
_OTHERS: Final = (
    "AddNot",
    "ReplaceTrueWithFalse",
    "ReplaceFalseWithTrue",
    "ReplaceAndWithOr",
    "ReplaceOrWithAnd",
    "ReplaceBreakWithContinue",
    "ReplaceContinueWithBreak",
    "NumberReplacer",
    "ZeroIterationForLoop",
)


def operators() -> Iterator[Operator]:
    """One of each operator.

    Bit shifts in place of sums and their like are left out, as every test notices them.
    """
    names = (
        *(f"ReplaceBinaryOperator_{pair.replace(' ', '_')}" for pair in _PAIRS),
        *(f"ReplaceComparisonOperator_{pair.replace(' ', '_')}" for pair in _COMPARED),
        *(f"ReplaceUnaryOperator_{name}" for name in _SIGNS),
        *_OTHERS,
    )
    yield from (get_operator(f"core/{name}")() for name in names)
    yield LimitMoved()
    yield SideExchanged()

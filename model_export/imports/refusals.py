"""Why something that others made cannot be taken over."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from oarlock.errors import OarlockError


class CannotImport(Exception):
    """The text names what is not supported or does not fit."""


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Turn what goes wrong with a stranger's values into a refusal.

    :param what: is read or made, for the sentence.
    :raises CannotImport: for a value that is missing, of another kind, out of its range, or too large for this machine.
    """
    try:
        yield
    except OarlockError as error:
        raise CannotImport(error.detail) from error
    except KeyError as error:
        raise CannotImport(f"{what}: it says nothing of {error}") from error
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError, MemoryError) as error:
        lines = str(error).splitlines() or [""]
        raise CannotImport(f"{what}: {lines[0][:200]} ({type(error).__name__})") from error


def read_json(path: Path) -> dict[str, Any]:
    """The object that a JSON file holds.

    :raises CannotImport: if it is not one.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CannotImport(f"{path.name} cannot be read ({type(error).__name__})") from error
    if not isinstance(content, dict):
        raise CannotImport(f"{path.name} is not an object")
    return content

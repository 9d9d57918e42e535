"""Long work shows how far it is, and can be stopped.

What is done is kept until all of it is, and not done again.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

T = TypeVar("T")


def shown(items: Iterable[T], what: str) -> Iterator[T]:
    """The items, with a bar on a terminal.

    What is logged meanwhile stands above it.
    """
    with logging_redirect_tqdm():
        yield from tqdm(items, desc=what, disable=None, dynamic_ncols=True)


@contextmanager
def bar_to(total: float, what: str, unit: str) -> Iterator[Callable[[float], None]]:
    """A bar on a terminal, told how far the work is.

    For work whose steps are not counted beforehand.
    """
    with logging_redirect_tqdm(), tqdm(desc=what, total=total, unit=unit, disable=None, dynamic_ncols=True) as bar:

        def tell(done: float) -> None:
            bar.update(min(done, total) - bar.n)

        yield tell


class Kept:
    """What was found out so far, by name.

    A line of JSON for each; taken up again by the same work alone.

    `work` says all that the answers depend on. Without a path nothing is kept.
    """

    def __init__(self, path: Path | None = None, work: str = "") -> None:
        self.path, self.rows = path, dict[str, Any]()
        if path is None:
            return
        first, *rows = whole_lines(path) or [None]
        self.rows = dict(rows) if first == work else {}
        lines = [json.dumps(line) + "\n" for line in (work, *self.rows.items())]
        path.write_text("".join(lines), encoding="utf-8")

    def get(self, name: str, find_out: Callable[[], Any]) -> Any:
        """The answer for a name, found out only once."""
        if name not in self.rows:
            self.rows[name] = find_out()
            if self.path:
                with self.path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps([name, self.rows[name]]) + "\n")
        return self.rows[name]

    def forget(self) -> None:
        """All is done, and the result written."""
        if self.path:
            self.path.unlink(missing_ok=True)


def whole_lines(path: Path) -> list[Any]:
    """The whole lines of JSON of a file; none without one.

    One that was being written when the work was stopped is left out.
    """
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.is_file() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def fingerprint(path: Path, *settings: object) -> str:
    """What work on a file depends on.

    The file's bytes and the settings.
    """
    digest = hashlib.sha256(path.read_bytes())
    digest.update(json.dumps(settings, sort_keys=True, default=str).encode())
    return digest.hexdigest()

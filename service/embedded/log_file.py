"""The log of a child process, kept small.

While the child goes on writing to it.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

LARGEST_BYTES: Final = 10_000_000
OLDER: Final = 4
"""How many full files are kept: ``worker.log.1`` is the newest of them."""


@contextmanager
def log_file(path: Path) -> Iterator[IO[bytes]]:
    """The file for a child to inherit.

    Not a pipe: an unread pipe fills up and stops the process that writes to it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        yield file


def rotate(path: Path, *, largest_bytes: int = LARGEST_BYTES) -> bool:
    """Copy a file that has grown too large and empty it.

    Its writers append, so they go on at its new end.

    What is written between the copy and the end of the copying is lost: a line at most, as with logrotate's ``copytruncate``.

    :returns: whether it was too large.
    """
    try:
        if path.stat().st_size <= largest_bytes:
            return False
    except FileNotFoundError:
        return False
    for number in range(OLDER, 1, -1):
        newer = path.with_name(f"{path.name}.{number - 1}")
        if newer.exists():
            newer.replace(path.with_name(f"{path.name}.{number}"))
    shutil.copyfile(path, path.with_name(f"{path.name}.1"))
    with path.open("r+b") as file:
        file.truncate(0)
    return True

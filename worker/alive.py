"""``python -m worker.alive``: exit status 0 if the worker of this container gave a sign of life lately. For a health check.

It looks at a file and not at the database: while that is away the worker is well, and starting it again would help nobody.
"""

import sys
from pathlib import Path
from time import time
from typing import Final

from oarlock.settings import Settings

SILENT_LEASES: Final = 2.0
"""A sign of life comes several times in the length of a lease."""


def is_alive(file: Path, *, lease_s: float, now: float) -> bool:
    """Whether the last sign of life is young enough.

    :param now: seconds since 1970.
    """
    try:
        return now - file.stat().st_mtime < SILENT_LEASES * lease_s
    except FileNotFoundError:
        return False


def main() -> int | str:
    """Exit status of a health check, or the sentence that says why it cannot be made."""
    settings = Settings()
    if settings.alive_file is None:
        return "OARLOCK_ALIVE_FILE is not set"
    return 0 if is_alive(settings.alive_file, lease_s=settings.lease_s, now=time()) else 1


if __name__ == "__main__":
    sys.exit(main())

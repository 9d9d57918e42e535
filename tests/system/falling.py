"""``python -m tests.system.falling PLACE before|after``: the service, which kills itself with ``kill -9`` at a place.

A place is ``module:Class.method``. The crash is real; only its moment is chosen.
"""

import importlib
import os
import signal
import sys
from functools import wraps
from typing import Any

from service.__main__ import main


def fall_at(place: str, when: str) -> None:
    """Have the process killed when a method is called for the first time, before or after it does its work."""
    module, path = place.split(":")
    owner, name = path.split(".")
    target = getattr(importlib.import_module(module), owner)
    method = getattr(target, name)

    @wraps(method)
    def falls(*arguments: Any, **named: Any) -> None:
        if when == "after":
            method(*arguments, **named)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(target, name, falls)


if __name__ == "__main__":
    fall_at(sys.argv[1], sys.argv[2])
    sys.exit(main())

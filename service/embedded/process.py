"""Child processes: what is asked of the kernel for them.

When the service starts one. Needs the standard library alone.
"""

import ctypes
import signal
from typing import Final

_PR_SET_PDEATHSIG: Final = 1
_libc = ctypes.CDLL(None, use_errno=True)


def die_with_parent() -> None:
    """Ask the kernel to end this process with its parent.

    When the thread that started it ends (Linux; elsewhere nothing).
    """
    if hasattr(_libc, "prctl"):
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)

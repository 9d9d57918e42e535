"""Logs: one JSON line an event, on standard error.

They are alike in every process, and without patient data.

Events are named in the code. What a sender wrote does not get in either: of an exception, caught or not, the line has the type
and the places, and not the message; loggers that quote values are silent.
"""

import json
import logging
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final

_QUOTING: Final = ("pydicom", "py.warnings", "python_multipart", "uvicorn.access")
"""Loggers that quote what was sent: pydicom's warnings hold the value that they are about, which may be a name."""

_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message", "taskName", "data"}


JOB: Final[ContextVar[str | None]] = ContextVar("job", default=None)
"""The job that this thread works on: whatever is logged meanwhile names it, from whatever depth."""


@contextmanager
def about(job_id: str) -> Iterator[None]:
    """Everything that this thread logs in the block is about a job."""
    token = JOB.set(job_id)
    try:
        yield
    finally:
        JOB.reset(token)


class JSONFormatter(logging.Formatter):
    """A record as one JSON object on a line.

    What was passed as ``extra`` becomes keys of its own.

    ``job_id`` is in every line: the one that was passed, or else the job that the thread works on, or null.
    """

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": _event(record),
            "job_id": JOB.get(),
        }
        line |= {key: value for key, value in vars(record).items() if key not in _STANDARD}
        if record.exc_info and record.exc_info[1] is not None:
            line |= _describe(record.exc_info[1])
        return json.dumps(line, default=str)


def _event(record: logging.LogRecord) -> str:
    """The message; beside an exception without its arguments, and without more than one line, as libraries quote it there."""
    if record.exc_info is None:
        return record.getMessage()
    return str(record.msg).split("\n", 1)[0]


def _describe(error: BaseException) -> dict[str, Any]:
    frames = traceback.extract_tb(error.__traceback__)
    return {"error": type(error).__qualname__, "at": [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]}


def _uncaught(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    """Instead of the interpreter's traceback, which ends with the message."""
    if error is None or isinstance(error, KeyboardInterrupt):
        sys.__excepthook__(kind, error or kind(), trace)
        return
    logging.getLogger(__name__).critical("uncaught", exc_info=(kind, error, trace))


def set_up(*, replace: bool = False) -> None:
    """Send everything from ``info`` on to standard error.

    :param replace: whether handlers that something else has set up go; otherwise they stay and nothing is done.
    """
    root = logging.getLogger()
    if root.handlers and not replace:
        return
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JSONFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=replace)
    logging.captureWarnings(capture=True)
    sys.excepthook = _uncaught
    threading.excepthook = lambda args: _uncaught(args.exc_type, args.exc_value, args.exc_traceback)
    for quoting in _QUOTING:
        logging.getLogger(quoting).setLevel(logging.CRITICAL)

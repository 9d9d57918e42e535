"""One JSON line an event, on standard error. No patient data: events are named here in the code, and carry ids and numbers."""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Final

_QUOTING: Final = ("pydicom", "py.warnings")
"""Loggers that quote what was sent: pydicom's warnings hold the value that they are about, which may be a name."""

_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "data"}


class JsonFormatter(logging.Formatter):
    """A record as one line; what was passed as ``extra`` becomes keys of its own."""

    def format(self, record: logging.LogRecord) -> str:
        event = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
        }
        event |= {key: value for key, value in vars(record).items() if key not in _STANDARD}
        if record.exc_info and record.exc_info[0] is not None:
            event["error"] = record.exc_info[0].__name__  # never its message: it may quote what a sender wrote
        return json.dumps(event, default=str, ensure_ascii=False)


def set_up() -> None:
    """Send everything from ``info`` on to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.captureWarnings(capture=True)
    for quoting in _QUOTING:
        logging.getLogger(quoting).setLevel(logging.CRITICAL)

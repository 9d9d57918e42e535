"""Cursors: where a page of a long list ended.

A caller sends it back to get the next page.

The lists are sorted by time and, within one moment, by a key. A page begins behind the last entry of the one before, whatever was
added or removed in the meantime.
"""

import base64
import binascii
from datetime import datetime, timedelta

from oarlock.errors import InvalidParameter
from oarlock.store.schema import EPOCH


def to_cursor(at: datetime, key: str) -> str:
    """The cursor of a page by its last entry.

    By that entry's time and key.
    """
    microseconds = (at - EPOCH) // timedelta(microseconds=1)
    return base64.urlsafe_b64encode(f"{microseconds}.{key}".encode()).decode().rstrip("=")


def of_cursor(cursor: str) -> tuple[datetime, str]:
    """Time and key of the entry that a page ended with.

    :raises InvalidParameter: if the cursor is not one that :func:`to_cursor` made.
    """
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        microseconds, key = base64.b64decode(padded, altchars=b"-_", validate=True).decode("ascii").split(".", 1)
        return EPOCH + timedelta(microseconds=int(microseconds)), key
    except (ValueError, OverflowError, binascii.Error) as error:
        raise invalid_cursor() from error


def invalid_cursor() -> InvalidParameter:
    """The error for a cursor that this server did not give."""
    return InvalidParameter(name="cursor", reason="is not a cursor that this server gave")

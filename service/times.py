"""Times as the HTTP contract writes them."""

from datetime import UTC, datetime


def rfc3339(time: datetime) -> str:
    """A time as RFC 3339 in UTC, to the millisecond."""
    return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

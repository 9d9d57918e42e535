"""Scopes: what a caller of the service may do.

Settings and keys both name them.
"""

import re
from enum import StrEnum
from typing import Final

NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""What a key and a site may be called."""


class Scope(StrEnum):
    """What a key is good for; ``ADMIN`` is good for everything."""

    JOBS_WRITE = "jobs:write"
    JOBS_READ = "jobs:read"
    REVIEWS_WRITE = "reviews:write"
    QA_READ = "qa:read"
    QA_WRITE = "qa:write"
    METRICS_READ = "metrics:read"
    ADMIN = "admin"

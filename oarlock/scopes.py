"""Scopes: what a caller of the service may do.

Settings and keys both name them.
"""

from enum import StrEnum


class Scope(StrEnum):
    """What a key is good for; ``ADMIN`` is good for everything."""

    JOBS_WRITE = "jobs:write"
    JOBS_READ = "jobs:read"
    REVIEWS_WRITE = "reviews:write"
    QA_READ = "qa:read"
    METRICS_READ = "metrics:read"
    ADMIN = "admin"

"""The settings of this process, read once, when they are first needed."""

from functools import cache

from oarlock.settings import Settings


@cache
def settings() -> Settings:
    """What the environment says.

    :raises pydantic.ValidationError: if a value is wrong.
    """
    return Settings()

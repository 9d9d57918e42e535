"""The settings of this process, read once, when they are first needed."""

from functools import cache

from oarlock.settings import Settings, read_settings


@cache
def settings() -> Settings:
    """What the environment says.

    :raises SettingsInvalid: with a sentence for each variable that is unknown, or whose value cannot be used.
    """
    return read_settings()

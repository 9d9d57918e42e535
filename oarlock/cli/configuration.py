"""oarlock config check: what is in force, and what is odd.

It says where each value comes from.

It reads what a service or worker with the same environment would read, and makes nothing.
"""

import argparse
import os
import time
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from oarlock.cli.exit_status import FINDINGS, GOOD
from oarlock.rtstruct.profiles import check_default, read_profiles
from oarlock.segmentation.model_folder import ModelFolder
from oarlock.settings import SECRETS, Settings, read_settings, variables
from oarlock.store.database import Database, DatabaseMissing, utc_now
from oarlock.store.keys import Key, KeyStore
from oarlock.store.migrations import DatabaseOlder

KEY_AGE: Final = timedelta(days=365)
"""A valid key that is older is odd: nobody has replaced it for a year."""

EXPIRES_SOON: Final = timedelta(days=30)


def add_command(commands: Any) -> None:
    """Add this subcommand to those of ``oarlock``."""
    config = commands.add_parser("config", help="check the settings of this environment")
    actions = config.add_subparsers(required=True, metavar="ACTION")
    check = actions.add_parser("check", help="print what is in force, where it comes from and what is odd; exit status 1 if so")
    check.set_defaults(run=_check)


def _check(chosen: argparse.Namespace) -> int:
    del chosen
    settings = read_settings()
    settings.check_sites()
    check_default(read_profiles(settings.profiles), settings.profile)
    ModelFolder(settings.models, settings.model).check()
    for row in in_force(settings):
        print(row)
    oddities = [*odd_settings(settings), *_odd_database(settings)]
    for sentence in oddities:
        print(f"odd: {sentence}")
    return FINDINGS if oddities else GOOD


def in_force(settings: Settings) -> Iterator[str]:
    """A line for each setting: variable, value and origin.

    A secret's value is never shown.
    """
    for name, variable in variables().items():
        value = getattr(settings, name)
        shown = ("set" if value else "unset") if name in SECRETS else _shown(value)
        yield f"{variable:<34}{shown:<28}{_source(name, variable)}"


def _shown(value: object) -> str:
    if value is None or value in ([], {}):
        return "unset"
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _source(name: str, variable: str) -> str:
    """Where the value of a setting was read."""
    own = f"OARLOCK_{name.upper()}"
    if found := next((candidate for candidate in (variable, own) if os.environ.get(candidate) is not None), None):
        return f"environment ({found})" if found != variable else "environment"
    if name in SECRETS and os.environ.get(f"{variable}_FILE"):
        return f"file {os.environ[f'{variable}_FILE']}"
    return "default"


def odd_settings(settings: Settings) -> Iterator[str]:
    """What an operator may not have meant, a sentence for each."""
    if settings.keep_results is None:
        yield "OARLOCK_KEEP_RESULTS is never: jobs and their results are kept for ever. Set it, for example to 90d."
    if settings.keep_input is None:
        yield "OARLOCK_KEEP_INPUT is never: images are kept as long as the results. Set it, for example to 7d."
    if settings.host not in {"127.0.0.1", "::1", "localhost"} and not (settings.tls_certificate or settings.trusted_proxies):
        yield "The service speaks plain HTTP beyond this machine. Set OARLOCK_TLS_CERTIFICATE, or name a proxy that speaks TLS."
    if any(network.endswith("/0") for network in settings.trusted_proxies):
        yield "OARLOCK_TRUSTED_PROXIES names every address: any caller can choose the address that the logs show."
    if settings.rate_per_minute == 0:
        yield "OARLOCK_RATE_PER_MINUTE is 0: one caller can take the whole service."
    if settings.min_free_bytes == 0:
        yield "OARLOCK_MIN_FREE_BYTES is 0: a full disk stops jobs that were accepted."
    if settings.time_zone is None and time.tzname[0] in {"UTC", "GMT"}:
        yield "OARLOCK_TIME_ZONE is unset and the clock runs in UTC: dates in an RTSTRUCT may be a day off from the site's."


def odd_keys(keys: Sequence[Key] | None, now: datetime) -> Iterator[str]:
    """What is odd about the keys.

    :param keys: None if there is no database yet.
    """
    if keys is None:
        yield "There is no database yet: the first start of the service makes it."
        return
    for key in (key for key in keys if key.is_valid(now)):
        if key.expires_at is not None and key.expires_at - now < EXPIRES_SOON:
            yield f"The key '{key.name}' expires on {key.expires_at:%Y-%m-%d}. Make its successor now."
        elif key.expires_at is None and now - key.created_at > KEY_AGE:
            yield f"The key '{key.name}' is of {key.created_at:%Y-%m-%d} and never expires. Replace it, with --expires."


def _odd_database(settings: Settings) -> list[str]:
    try:
        return list(odd_keys(_keys(settings), utc_now()))
    except DatabaseOlder as error:  # before an upgrade the settings are looked at too
        return [f"{str(error)[0].upper()}{str(error)[1:]}."]


def _keys(settings: Settings) -> list[Key] | None:
    try:
        database = Database(settings.database, create=False)
    except DatabaseMissing:
        return None
    try:
        return KeyStore(database).all()
    finally:
        database.close()

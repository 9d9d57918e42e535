"""The commands oarlock keys, oarlock audit and oarlock callbacks.

oarlock keys create | list | revoke; oarlock audit verify | export; oarlock callbacks list | resend.

What an administrator does to the database that the settings name (``DATABASE_URL``, ``OARLOCK_DATA``). A database that is not
there is never made, unless ``keys create --first`` asks for it: at a wrong address all would seem well.
"""

import argparse
import getpass
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from oarlock.cli.exit_status import FINDINGS, GOOD
from oarlock.errors import InvalidParameter
from oarlock.rtstruct.profiles import profile_named, read_profiles
from oarlock.scopes import Scope
from oarlock.settings import read_settings
from oarlock.store import audit
from oarlock.store.audit import Actor, Head, Verdict
from oarlock.store.callbacks import CallbackState, CallbackStore
from oarlock.store.database import Database, utc_now
from oarlock.store.files import PRIVATE_UMASK, make_private
from oarlock.store.keys import Key, KeyStore
from oarlock.store.retention import Retention, to_seconds


def add_commands(commands: Any) -> None:
    """Add these subcommands to those of ``oarlock``."""
    keys = commands.add_parser("keys", help="make, list and revoke the keys of the service")
    actions = keys.add_subparsers(required=True, metavar="ACTION")

    create = actions.add_parser("create", help="make a key and print it, once")
    create.add_argument("name", metavar="NAME", help="name of whoever will use it")
    create.add_argument(
        "--scope",
        action="append",
        required=True,
        choices=list(Scope),
        metavar="SCOPE",
        help=f"may be repeated: {', '.join(Scope)}",
    )
    create.add_argument("--expires", metavar="WHEN", help="90d, 2027-01-31 or 2027-01-31T12:00:00Z; never by default")
    create.add_argument("--site", default="", metavar="SITE", help="whose key it is; without it an operator's, for all sites")
    create.add_argument("--profile", metavar="NAME", help="site profile of its jobs that do not name one")
    for what in ("input", "results"):
        create.add_argument(
            f"--keep-{what}", type=to_seconds, metavar="TIME", help=f"how long the {what} of its jobs are kept: 0, 12h, 30d"
        )
    create.add_argument("--first", action="store_true", help="make the database if there is none: before the first start")
    create.set_defaults(run=_create_key)

    listing = actions.add_parser("list", help="every key that was ever made, without its secret")
    listing.set_defaults(run=_list_keys)

    revoke = actions.add_parser("revoke", help="revoke a key at once")
    revoke.add_argument("name", metavar="NAME", help="the key's name or id")
    revoke.set_defaults(run=_revoke_key)

    calls = commands.add_parser("callbacks", help="list the callbacks of jobs, and send them again")
    actions = calls.add_subparsers(required=True, metavar="ACTION")

    told = actions.add_parser("list", help="every callback with its job, its host and the result of its last attempt")
    told.add_argument("--state", choices=list(CallbackState), metavar="STATE", help=f"one of {', '.join(CallbackState)}")
    told.set_defaults(run=_list_callbacks)

    resend = actions.add_parser("resend", help="send a callback again, also one that was given up")
    resend.add_argument("id", metavar="ID", nargs="+", help="id of a callback, or of a job")
    resend.set_defaults(run=_resend_callbacks)

    log = commands.add_parser("audit", help="check and export the audit log")
    actions = log.add_subparsers(required=True, metavar="ACTION")

    verify = actions.add_parser("verify", help="check that the log is as it was written; exit status 1 with findings")
    verify.add_argument("--file", type=Path, metavar="FILE", help="check an export instead of the database")
    verify.add_argument("--expect", type=to_head, metavar="SEQ:HASH", help="a last entry that was written down earlier")
    verify.set_defaults(run=_verify_audit)

    export = actions.add_parser("export", help="print every entry as a line of JSON")
    export.set_defaults(run=_export_audit)


def to_time(text: str, now: datetime) -> datetime:
    """The moment when something expires.

    It is given as so many days from now, a date (its beginning, in UTC), or a time (in UTC unless it says otherwise).

    :raises InvalidParameter: if it is not one of these.
    """
    if days := re.fullmatch(r"(\d{1,5})d", text):
        return now + timedelta(days=int(days[1]))
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise InvalidParameter(
            name="expires", reason="is not a valid time; write 90d, 2027-01-31 or 2027-01-31T12:00:00Z"
        ) from error
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def administrator() -> Actor:
    """The OS user who runs the command."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        name = str(os.getuid())
    return Actor(f"cli:{name}", name)


@contextmanager
def opened_database(*, create: bool = False) -> Iterator[Database]:
    """The database of the settings.

    :param create: whether to make it, and the data folder, if there is none.
    :raises DatabaseMissing: if there is none and none is to be made.
    """
    settings = read_settings()
    os.umask(PRIVATE_UMASK)
    if create and settings.database_url is None:
        make_private(settings.data)
    database = Database(settings.database, create=create)
    try:
        yield database
    finally:
        database.close()


def _create_key(chosen: argparse.Namespace) -> int:
    expires_at = to_time(chosen.expires, utc_now()) if chosen.expires else None
    scopes = [Scope(scope) for scope in chosen.scope]
    if chosen.profile is not None:
        profile_named(read_profiles(read_settings().profiles), chosen.profile)
    with opened_database(create=chosen.first) as database:
        store = KeyStore(database)
        retention = Retention(chosen.keep_input, chosen.keep_results)
        by = administrator()
        about = {"expires_at": expires_at, "profile": chosen.profile, "retention": retention, "site": chosen.site}
        key, token = store.create(chosen.name, scopes, **about, by=by)
    print(f"Key '{key.name}' ({key.id}). It is shown only now; Oarlock stores a hash of it:", file=sys.stderr)
    print(token)
    return GOOD


def _list_keys(chosen: argparse.Namespace) -> int:
    del chosen
    with opened_database() as database:
        keys = KeyStore(database).all()
    now = utc_now()
    print(f"{'NAME':<24}{'ID':<14}{'STATE':<10}{'EXPIRES':<22}{'PROFILE':<14}{'SITE':<14}SCOPES")
    for key in keys:
        expires = f"{key.expires_at:%Y-%m-%dT%H:%M:%SZ}" if key.expires_at else "never"
        scopes = " ".join(sorted(key.scopes))
        print(
            f"{key.name:<24}{key.id:<14}{_state(key, now):<10}{expires:<22}{key.profile or '–':<14}{key.site or '–':<14}{scopes}"
        )
    return GOOD


def _state(key: Key, now: datetime) -> str:
    if key.revoked_at is not None:
        return "revoked"
    return "valid" if key.is_valid(now) else "expired"


def _revoke_key(chosen: argparse.Namespace) -> int:
    with opened_database() as database:
        key = KeyStore(database).revoke(chosen.name, by=administrator())
    print(f"Key '{key.name}' ({key.id}) is revoked.", file=sys.stderr)
    return GOOD


def _list_callbacks(chosen: argparse.Namespace) -> int:
    """Without the URL's path, which a sender chose."""
    with opened_database() as database:
        callbacks = CallbackStore(database).all(CallbackState(chosen.state) if chosen.state else None)
    print(f"{'ID':<38}{'JOB':<38}{'STATE':<11}{'ATTEMPTS':<10}{'NEXT':<22}{'HOST':<30}OUTCOME")
    for found in callbacks:
        next_at = f"{found.next_at:%Y-%m-%dT%H:%M:%SZ}" if found.state is CallbackState.WAITING else "–"
        told = f"{found.state:<11}{found.attempts:<10}{next_at:<22}{urlsplit(found.url).hostname or '':<30}{found.outcome or '–'}"
        print(f"{found.id:<38}{found.job_id:<38}{told}")
    return GOOD


def _resend_callbacks(chosen: argparse.Namespace) -> int:
    with opened_database() as database:
        store = CallbackStore(database)
        for callback_id in chosen.id:
            store.resend(callback_id, by=administrator())
    print("The running service sends them again.", file=sys.stderr)
    return GOOD


def to_head(text: str) -> Head:
    """The last entry that a printed line names.

    ``oarlock audit verify`` and the service's log print it.

    :raises ValueError: if it is malformed.
    """
    seq, _, digest = text.partition(":")
    if not (seq.isdecimal() and re.fullmatch(r"[0-9a-f]{64}", digest)):
        msg = "a last entry is written SEQ:HASH"
        raise ValueError(msg)
    return Head(int(seq), digest)


def _verify_audit(chosen: argparse.Namespace) -> int:
    kept = [chosen.expect] if chosen.expect else []
    if chosen.file:
        verdict = _verify_export(chosen.file, kept)
    else:
        with opened_database() as database:
            verdict = audit.check(database, kept)
    for finding in verdict.findings:
        print(finding)
    print(f"last entry {verdict.head}", file=sys.stderr)
    return FINDINGS if verdict.findings else GOOD


def _verify_export(file: Path, kept: Sequence[Head]) -> Verdict:
    try:
        with file.open(encoding="ascii") as lines:
            return audit.verify(map(audit.of_json, lines), kept)
    except ValueError as error:
        raise InvalidParameter(name="--file", reason="is not what oarlock audit export prints") from error


def _export_audit(chosen: argparse.Namespace) -> int:
    del chosen
    with opened_database() as database:
        for entry in audit.read_entries(database):
            print(audit.to_json(entry))
    return GOOD

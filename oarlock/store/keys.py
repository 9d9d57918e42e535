"""Keys: who may call the service, and what for (ADR 0011).

A key is ``oarlock_ID_SECRET``. The id finds the row; the secret is 256 random bits, and of it only a hash is stored.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import RowMapping, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from oarlock.errors import InvalidParameter
from oarlock.scopes import NAME, Scope
from oarlock.store import audit
from oarlock.store.audit import SYSTEM, Action, Actor, Event
from oarlock.store.database import Database, utc_now
from oarlock.store.retention import NO_OVERRIDE, Retention
from oarlock.store.schema import KEYS

_TOKEN: Final = re.compile(r"oarlock_([0-9a-f]{12})_[A-Za-z0-9_-]{43}")
_SECRET_BYTES: Final = 32
OF_ALL_SITES: Final = frozenset({Scope.ADMIN, Scope.METRICS_READ})
"""Scopes for operators alone."""

_NOBODY: Final = "0" * 64
"""Compared with where there is no such key, so that an unknown id takes as long as a wrong secret."""


@dataclass(frozen=True, slots=True)
class Key:
    """A key as it is stored, without its secret.

    :ivar profile: how RTSTRUCTs are written for jobs that name no profile themselves; None for the server's default.
    :ivar retention: how long jobs stay that are posted with it.
    :ivar site: whose it is; empty for an operator's, which sees what all sites have.
    """

    id: str
    name: str
    scopes: frozenset[Scope]
    profile: str | None
    retention: Retention
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    site: str = ""

    def is_valid(self, now: datetime) -> bool:
        """Whether it opens anything now."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


class KeyStore:
    """All keys that were ever made.

    :param clock: gives the present as an aware time.
    """

    def __init__(self, database: Database, *, clock: Callable[[], datetime] = utc_now) -> None:
        self._database, self._clock = database, clock

    def create(
        self,
        name: str,
        scopes: Collection[Scope],
        *,
        expires_at: datetime | None = None,
        profile: str | None = None,
        retention: Retention = NO_OVERRIDE,
        site: str = "",
        by: Actor = SYSTEM,
    ) -> tuple[Key, str]:
        """Make a key.

        :param by: who makes it, for the audit log.
        :returns: the key, and what its owner sends. This is the only time that it can be had.
        :raises InvalidParameter: if the name is taken or not usable, no scope is given, or it would have expired already.
        """
        if not NAME.fullmatch(name):
            raise InvalidParameter(name="NAME", reason="must be 1 to 64 letters, digits, dots, hyphens and underscores")
        if not scopes:
            raise InvalidParameter(name="scope", reason=f"is missing: one or more of {', '.join(Scope)}")
        check_site(site, scopes)
        now = self._clock()
        if expires_at is not None and expires_at <= now:
            raise InvalidParameter(name="expires", reason="is not in the future")
        key = Key(secrets.token_hex(6), name, frozenset(scopes), profile, retention, now, expires_at, None, site)
        token = f"oarlock_{key.id}_{secrets.token_urlsafe(_SECRET_BYTES)}"
        try:
            with self._database.writing() as connection:
                connection.execute(insert(KEYS).values(_columns(key) | {"digest": _digest(token)}))
                audit.append(connection, now, Event(Action.KEY_CREATED, by, result=f"key:{key.id}"))
        except IntegrityError as error:
            raise InvalidParameter(name="NAME", reason="is the name of another key; names are not used again") from error
        return key, token

    def find(self, token: str) -> Key | None:
        """The key that a caller sent, if it is valid now.

        How long this takes tells nothing of what is wrong with it.
        """
        shape = _TOKEN.fullmatch(token)
        with self._database.reading() as connection:
            query = select(KEYS).where(KEYS.c.id == (shape[1] if shape else ""))
            row = connection.execute(query).mappings().first()
        matches = hmac.compare_digest(_digest(token), _NOBODY if row is None else row["digest"])
        key = _key(row) if matches and row is not None else None
        return key if key is not None and key.is_valid(self._clock()) else None

    def all(self) -> list[Key]:
        """Every key, the oldest first."""
        with self._database.reading() as connection:
            return [_key(row) for row in connection.execute(select(KEYS).order_by(KEYS.c.created_at, KEYS.c.id)).mappings()]

    def were_made(self) -> bool:
        """Whether there ever was a key.

        One that expired or was revoked counts.
        """
        with self._database.reading() as connection:
            return connection.scalar(select(KEYS.c.id).limit(1)) is not None

    def any_valid(self) -> bool:
        """Whether there is a key that opens anything now."""
        return any(key.is_valid(self._clock()) for key in self.all())

    def revoke(self, name_or_id: str, *, by: Actor = SYSTEM) -> Key:
        """Make a key useless from now on.

        Revoking twice is no error; the first time stands.

        :raises InvalidParameter: if there is no such key.
        """
        which = or_(KEYS.c.name == name_or_id, KEYS.c.id == name_or_id)
        with self._database.writing() as connection:
            end = update(KEYS).where(which, KEYS.c.revoked_at.is_(None)).values(revoked_at=self._clock())
            revoked = connection.scalars(end.returning(KEYS.c.id)).all()
            row = connection.execute(select(KEYS).where(which)).mappings().first()
            audit.append(
                connection, self._clock(), *(Event(Action.KEY_REVOKED, by, result=f"key:{key_id}") for key_id in revoked)
            )
        if row is None:
            raise InvalidParameter(name="NAME", reason="is neither the name nor the id of a key")
        return _key(row)


def check_site(site: str, scopes: Collection[Scope]) -> None:
    """Check that a site can have a key with these scopes.

    :param site: empty for an operator's key, which may have any.
    :raises InvalidParameter: if the name is not usable, or a scope shows what other sites have.
    """
    if site and not NAME.fullmatch(site):
        raise InvalidParameter(name="site", reason="must be 1 to 64 letters, digits, dots, hyphens and underscores")
    if site and (of_all := sorted(OF_ALL_SITES.intersection(scopes))):
        raise InvalidParameter(name="scope", reason=f"{of_all[0]} shows what all sites have: a key of one site cannot have it")


def _digest(token: str) -> str:
    """What is stored of a key. A fast hash is enough: 256 random bits cannot be guessed at any speed (ADR 0011)."""
    return hashlib.sha256(token.encode()).hexdigest()


def _columns(key: Key) -> dict[str, Any]:
    return {
        "id": key.id,
        "name": key.name,
        "scopes": " ".join(sorted(key.scopes)),
        "profile": key.profile,
        "keep_input_s": key.retention.input_s,
        "keep_results_s": key.retention.results_s,
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "revoked_at": key.revoked_at,
        "site": key.site,
    }


def _key(row: RowMapping) -> Key:
    return Key(
        id=row["id"],
        name=row["name"],
        scopes=frozenset(Scope(scope) for scope in row["scopes"].split()),
        profile=row["profile"],
        retention=Retention(row["keep_input_s"], row["keep_results_s"]),
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        revoked_at=row["revoked_at"],
        site=row["site"],
    )

"""Sessions: a browser's way to send a credential (ADR 29).

A key or token that its user typed once.

The cookie is a random number. The database has its hash, and the key or token sealed with it: neither opens anything without the
other, and every process of the service knows every session. What a session may do is what its key may do now; a revoked key ends
it.
"""

import base64
import hashlib
import secrets
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

from cryptography.fernet import Fernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from sqlalchemy import delete, insert, select
from starlette.requests import Request
from starlette.responses import Response

from oarlock.store import audit
from oarlock.store.audit import Action, Actor, Event
from oarlock.store.database import Database, utc_now
from oarlock.store.schema import SESSIONS
from service.access.hosts import Origin

LASTS: Final = timedelta(hours=12)
"""How long a session lasts at most: a working day."""

SAFE: Final = frozenset({"GET", "HEAD"})

_BYTES: Final = 32


class Sessions:
    """All open sessions.

    :param clock: gives the present as an aware time.
    """

    def __init__(self, database: Database, *, clock: Callable[[], datetime] = utc_now) -> None:
        self._database, self._clock = database, clock

    def open(self, token: str, by: Actor) -> str:
        """Begin a session: what its cookie holds.

        Those that have ended are forgotten.

        :param by: whom the key or token names.
        """
        cookie, now = secrets.token_urlsafe(_BYTES), self._clock()
        row = {"id": _name(cookie), "sealed": _seal(cookie).encrypt(token.encode()), "ends_at": now + LASTS}
        with self._database.writing() as connection:
            connection.execute(delete(SESSIONS).where(SESSIONS.c.ends_at < now))
            connection.execute(insert(SESSIONS).values(row))
            audit.append(connection, now, Event(Action.SESSION_OPENED, by))
        return cookie

    def find(self, cookie: str) -> str | None:
        """The key or token of a session, or None.

        None if it has ended, or never began.
        """
        query = select(SESSIONS.c.sealed).where(SESSIONS.c.id == _name(cookie), SESSIONS.c.ends_at > self._clock())
        with self._database.reading() as connection:
            sealed = connection.scalar(query)
        return None if sealed is None else _seal(cookie).decrypt(sealed).decode()

    def close(self, cookie: str, by: Actor) -> None:
        """End a session."""
        with self._database.writing() as connection:
            if connection.execute(delete(SESSIONS).where(SESSIONS.c.id == _name(cookie))).rowcount:
                audit.append(connection, self._clock(), Event(Action.SESSION_CLOSED, by))


def _name(cookie: str) -> str:
    return hashlib.sha256(cookie.encode()).hexdigest()


def _seal(cookie: str) -> Fernet:
    key = HKDF(SHA256(), _BYTES, salt=None, info=b"oarlock session").derive(cookie.encode())
    return Fernet(base64.urlsafe_b64encode(key))


# ── cookies ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def cookie_name(request: Request) -> str:
    """The name of the cookie, safer under TLS.

    Under TLS no other host or plain page can set it (RFC 6265bis, ``__Host-``).
    """
    return "__Host-oarlock" if request.url.scheme == "https" else "oarlock-session"


def cookie_of(request: Request) -> str | None:
    """What the session's cookie holds.

    :raises CrossSite: if a page of another origin, or (for a call that changes something) no page of this one, sent it.
    """
    cookie = request.cookies.get(cookie_name(request))
    if cookie is not None:
        Origin.of(request).check_own_page(safe=request.method in SAFE)
    return cookie


def set_cookie(request: Request, answer: Response, cookie: str) -> None:
    """Give a browser its session.

    Scripts cannot read it, other sites cannot send it.
    """
    secure = request.url.scheme == "https"
    answer.set_cookie(
        cookie_name(request),
        cookie,
        max_age=int(LASTS.total_seconds()),
        path="/",
        secure=secure,
        httponly=True,
        samesite="strict",
    )


def drop_cookie(request: Request, answer: Response) -> None:
    """Take a browser's session away."""
    secure = request.url.scheme == "https"
    answer.delete_cookie(cookie_name(request), path="/", secure=secure, httponly=True, samesite="strict")

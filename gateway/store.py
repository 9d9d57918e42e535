"""The gateway's own table: series, images, posts, deliveries.

One SQLite file, which survives any end.

Whoever is answered "stored" is in here first: each step is one transaction, written through to the disk (``synchronous=FULL``)
before it returns. Commands open the same file while the gateway runs.
"""

import json
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from gateway.errors import SetupInvalid
from gateway.instances import Identity, digest_of
from gateway.rules import Route, Sent

_STEPS: Final = (
    """
CREATE TABLE associations (
    id INTEGER PRIMARY KEY, calling TEXT NOT NULL, called TEXT NOT NULL, began REAL NOT NULL, ended REAL, released INTEGER);
CREATE TABLE series (
    id TEXT PRIMARY KEY, uid TEXT NOT NULL, study TEXT NOT NULL, calling TEXT NOT NULL, called TEXT NOT NULL,
    first_at REAL NOT NULL, last_at REAL NOT NULL, forced INTEGER NOT NULL DEFAULT 0,
    changed INTEGER NOT NULL DEFAULT 1, revision INTEGER NOT NULL DEFAULT 1, note TEXT NOT NULL DEFAULT '');
CREATE INDEX series_by_uid ON series (uid);
CREATE TABLE announced (series_uid TEXT PRIMARY KEY, images INTEGER NOT NULL, at REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE images (
    series TEXT NOT NULL, uid TEXT NOT NULL, path TEXT NOT NULL, sha256 TEXT NOT NULL, bytes INTEGER NOT NULL,
    association INTEGER, PRIMARY KEY (series, uid)) WITHOUT ROWID;
CREATE TABLE structure_sets (
    uid TEXT PRIMARY KEY, path TEXT NOT NULL, sha256 TEXT NOT NULL, at REAL NOT NULL, note TEXT NOT NULL DEFAULT '');
CREATE TABLE names (
    series_uid TEXT NOT NULL, structure_set TEXT NOT NULL, PRIMARY KEY (series_uid, structure_set)) WITHOUT ROWID;
CREATE TABLE posts (
    id INTEGER PRIMARY KEY, series TEXT NOT NULL, state TEXT NOT NULL, route TEXT NOT NULL, files TEXT NOT NULL,
    key TEXT NOT NULL, job TEXT, supersedes INTEGER, attempts INTEGER NOT NULL DEFAULT 0, next_at REAL NOT NULL,
    note TEXT NOT NULL DEFAULT '', made_at REAL NOT NULL, ended_at REAL);
CREATE INDEX posts_by_state ON posts (state, next_at);
CREATE INDEX posts_by_series ON posts (series, id);
CREATE TABLE returned (
    post INTEGER NOT NULL, structure_set TEXT NOT NULL, state TEXT NOT NULL, attempts INTEGER NOT NULL DEFAULT 0,
    next_at REAL NOT NULL, note TEXT NOT NULL DEFAULT '', PRIMARY KEY (post, structure_set)) WITHOUT ROWID;
CREATE TABLE deliveries (
    id INTEGER PRIMARY KEY, post INTEGER NOT NULL, place TEXT NOT NULL, result TEXT NOT NULL, state TEXT NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0, next_at REAL NOT NULL, note TEXT NOT NULL DEFAULT '', uid TEXT, ended_at REAL,
    told INTEGER NOT NULL DEFAULT 0, UNIQUE (post, place, result));
CREATE INDEX deliveries_by_state ON deliveries (state, next_at);
""",
    "CREATE TABLE priors (series TEXT PRIMARY KEY) WITHOUT ROWID",
)
"""What builds the tables, step by step; a new one is added at the end."""

VERSION: Final = len(_STEPS)


@dataclass(frozen=True, slots=True)
class Series:
    """A series as it was sent to one of our AE titles.

    Sent to another one it is another series here.

    :ivar id: what it is called in logs and folders; says nothing of the UID.
    :ivar changed: whether there is something in it that no post holds.
    :ivar revision: goes up with each image.
    :ivar note: why it is left alone; empty otherwise.
    """

    id: str
    uid: str
    study: str
    calling: str
    called: str
    first_at: float
    last_at: float
    forced: bool
    changed: bool
    revision: int
    note: str

    @property
    def sent(self) -> Sent:
        """Who sent it where."""
        return Sent(self.calling, self.called)


@dataclass(frozen=True, slots=True)
class Post:
    """One post of a series to the service.

    What was in it, and what became of it.

    :ivar state: ``waiting``, ``posted`` (its job runs), ``succeeded``, ``failed``, ``refused``, ``superseded``.
    :ivar files: relative to the data folder.
    :ivar key: of the same bytes on the same route; empty once the images are not here any more.
    :ivar supersedes: id of the post of the same series that it takes the place of.
    """

    id: int
    series: str
    state: str
    route: Route
    files: tuple[str, ...]
    key: str
    job: str | None
    supersedes: int | None
    attempts: int
    next_at: float
    note: str
    made_at: float
    ended_at: float | None


@dataclass(frozen=True, slots=True)
class Delivery:
    """One result on its way to one place.

    :ivar state: ``waiting``, ``delivered``, ``dead``, ``dropped``.
    :ivar uid: SOP Instance UID of what was delivered.
    """

    id: int
    post: int
    place: str
    result: str
    state: str
    attempts: int
    next_at: float
    note: str
    uid: str | None
    ended_at: float | None
    told: bool


@dataclass(frozen=True, slots=True)
class Return:
    """Approved contours on their way back to their job.

    It is the one that drew the first ones.
    """

    post: int
    structure_set: str
    attempts: int


_HELD: Final = "SELECT series FROM images"

OPEN: Final = ("waiting", "posted")
"""States of posts that are under way."""


class Store:
    """All tables. Used by several threads, one at a time."""

    def __init__(self, data: Path) -> None:
        data.mkdir(parents=True, exist_ok=True)
        self._lock = threading.RLock()
        self._connection = sqlite3.connect(data / "gateway.sqlite", timeout=20, check_same_thread=False, isolation_level=None)
        self._connection.row_factory = sqlite3.Row
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=FULL")
        self._create()

    def _create(self) -> None:
        with self.writing() as connection:
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if version > VERSION:
                raise SetupInvalid(
                    "The gateway's database was written by a newer version; run that version, or set another folder."
                )
            for step in _STEPS[version:]:
                for statement in step.split(";"):
                    connection.execute(statement)
            connection.execute(f"PRAGMA user_version={VERSION}")

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction, whole and on the disk, or nothing.

        It is written at the end of the block.
        """
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    def _all(self, query: str, *values: object) -> list[sqlite3.Row]:
        with self._lock:
            return self._connection.execute(query, values).fetchall()

    # ── associations ──────────────────────────────────────────────────────────────────────────────────────────────────

    def begin(self, sent: Sent, now: float) -> int:
        """Note that an association was opened; its number."""
        with self.writing() as connection:
            row = (sent.calling, sent.called, now)
            return int(
                connection.execute("INSERT INTO associations (calling, called, began) VALUES (?, ?, ?)", row).lastrowid or 0
            )

    def end(self, association: int, now: float, *, released: bool) -> None:
        """Note how an association ended; the first word counts."""
        with self.writing() as connection:
            query = "UPDATE associations SET ended = ?, released = ? WHERE id = ? AND ended IS NULL"
            connection.execute(query, (now, released, association))

    # ── receiving ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def held(self, series: str, uid: str) -> tuple[str, str] | None:
        """Path and SHA-256 of an image; None where it is not here."""
        rows = self._all("SELECT path, sha256 FROM images WHERE series = ? AND uid = ?", series, uid)
        return (rows[0]["path"], rows[0]["sha256"]) if rows else None

    def came_again(self, series: str, uid: str, sha256: str, now: float) -> bool:
        """Whether an image is here with these bytes.

        If it is, its series is not forgotten soon.
        """
        with self.writing() as connection:
            held = "SELECT 1 FROM images WHERE series = ? AND uid = ? AND sha256 = ?"
            if connection.execute(held, (series, uid, sha256)).fetchone() is None:
                return False
            # one that still comes in is not forgotten, and what is not new does not make it wait
            connection.execute("UPDATE series SET last_at = ? WHERE id = ? AND (NOT changed OR note != '')", (now, series))
            if _was_for_qa(connection, series):  # now somebody sends it to be contoured
                connection.execute("UPDATE series SET changed = 1, revision = revision + 1 WHERE id = ?", (series,))
        return True

    def add_image(
        self,
        identity: Identity,
        sent: Sent,
        file: tuple[str, str, int],
        now: float,
        *,
        association: int | None,
    ) -> None:
        """Put an image into its series.

        It takes the place of one with the same UID.

        :param file: path relative to the data folder, SHA-256, size in bytes.
        """
        series = series_id(identity.series_uid, sent.called)
        with self.writing() as connection:
            connection.execute(
                "INSERT INTO series (id, uid, study, calling, called, first_at, last_at)"
                " VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET last_at = excluded.last_at, changed = 1,"
                " revision = revision + 1, calling = excluded.calling, note = ''",
                (series, identity.series_uid, identity.study_uid, *_titles(sent), now, now),
            )
            connection.execute(
                "INSERT OR REPLACE INTO images (series, uid, path, sha256, bytes, association) VALUES (?, ?, ?, ?, ?, ?)",
                (series, identity.sop_instance_uid, *file, association),
            )
            if identity.announced is not None:
                connection.execute(
                    "INSERT OR IGNORE INTO announced VALUES (?, ?, ?)", (identity.series_uid, identity.announced, now)
                )

    def add_structure_set(self, uid: str, file: tuple[str, str], names: frozenset[str], now: float) -> bool:
        """Keep an RTSTRUCT with the UIDs of the series it names.

        False if the same bytes are here.
        """
        with self.writing() as connection:
            row = connection.execute("SELECT sha256 FROM structure_sets WHERE uid = ?", (uid,)).fetchone()
            if row is not None and row["sha256"] == file[1]:
                connection.execute("UPDATE structure_sets SET at = ? WHERE uid = ?", (now, uid))
                return False
            connection.execute(
                "INSERT OR REPLACE INTO structure_sets (uid, path, sha256, at) VALUES (?, ?, ?, ?)", (uid, *file, now)
            )
            for table in ("names", "returned"):  # other bytes are given back anew
                connection.execute(f"DELETE FROM {table} WHERE structure_set = ?", (uid,))  # noqa: S608 — our own words
            connection.executemany("INSERT INTO names (series_uid, structure_set) VALUES (?, ?)", [(name, uid) for name in names])
        return True

    def announce(self, series_uid: str, images: int, now: float) -> None:
        """Note how many images a series has by somebody's word.

        The last word counts.
        """
        with self.writing() as connection:
            connection.execute("INSERT OR REPLACE INTO announced VALUES (?, ?, ?)", (series_uid, images, now))

    def announced(self, series_uid: str) -> int | None:
        """How many images a series was said to have.

        None where nothing was said.
        """
        rows = self._all("SELECT images FROM announced WHERE series_uid = ?", series_uid)
        return int(rows[0]["images"]) if rows else None

    # ── series ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def series(self, *, uid: str | None = None, changed: bool = False, held: bool = False) -> list[Series]:
        """Series in the order in which they began, all or only some.

        :param held: only those whose images are here.
        """
        asked = {"uid = ?": uid, "changed AND note = ''": changed, f"id IN ({_HELD})": held}
        wanted = " AND ".join(["1", *(condition for condition, asks in asked.items() if asks)])
        rows = self._all(f"SELECT * FROM series WHERE {wanted} ORDER BY first_at", *([uid] if uid else []))  # noqa: S608 — our own words
        return [_series(row) for row in rows]

    def one_series(self, series: str) -> Series | None:
        """A series by its id."""
        rows = self._all("SELECT * FROM series WHERE id = ?", series)
        return _series(rows[0]) if rows else None

    def images(self, series: str) -> dict[str, tuple[str, str]]:
        """Path and SHA-256 of each image of a series.

        By SOP Instance UID, in the order of the UIDs.
        """
        rows = self._all("SELECT uid, path, sha256 FROM images WHERE series = ? ORDER BY uid", series)
        return {row["uid"]: (row["path"], row["sha256"]) for row in rows}

    def one_association_brought(self, series: str) -> bool:
        """Whether one association brought all images of a series, and was released."""
        query = (
            "SELECT count(DISTINCT coalesce(i.association, -1)) AS n, min(coalesce(a.released, 0)) AS released"
            " FROM images i LEFT JOIN associations a ON a.id = i.association WHERE i.series = ?"
        )
        row = self._all(query, series)[0]
        return bool(row["n"] == 1 and row["released"])

    def structure_sets(self, series_uid: str) -> dict[str, tuple[str, str]]:
        """Path and SHA-256 of each RTSTRUCT that names a series.

        By SOP Instance UID, without those that were set aside.
        """
        query = (
            "SELECT s.uid, s.path, s.sha256 FROM structure_sets s JOIN names n ON n.structure_set = s.uid"
            " WHERE n.series_uid = ? AND s.note = '' ORDER BY s.uid"
        )
        return {row["uid"]: (row["path"], row["sha256"]) for row in self._all(query, series_uid)}

    def force(self, series: str) -> int:
        """Count a series as whole now, by its UID or id.

        How many were still coming in.
        """
        with self.writing() as connection:
            query = "UPDATE series SET forced = 1 WHERE ? IN (uid, id) AND changed AND note = ''"
            return connection.execute(query, (series,)).rowcount

    def without_job(self, most: int) -> list[tuple[Series, int, str]]:
        """Series that are here and are not a job, newest first.

        How many images each has, and why it was refused, if it was.
        """
        newest = "(SELECT {} FROM posts WHERE series = s.id ORDER BY id DESC LIMIT 1)"
        query = (
            "SELECT s.*, (SELECT count(*) FROM images WHERE series = s.id) AS images,"  # noqa: S608 — our own words
            f" CASE {newest.format('state')} WHEN 'refused' THEN {newest.format('note')} ELSE '' END AS refused FROM series s"
            f" WHERE s.id IN ({_HELD}) AND (s.changed OR s.note != '' OR refused != '') ORDER BY s.last_at DESC LIMIT ?"
        )
        found = []
        for row in self._all(query, most):
            values = {name: row[name] for name in row.keys() if name not in ("images", "refused")}  # noqa: SIM118 — sqlite3.Row
            found.append((_series(values), int(row["images"]), str(row["refused"] or "")))
        return found

    # ── series that are fetched for QA alone ──────────────────────────────────────────────────────────────────────────

    def mark_prior(self, series: str) -> None:
        """Note that a series is about to come for QA alone.

        Its next post is delivered nowhere.
        """
        with self.writing() as connection:
            connection.execute("INSERT OR IGNORE INTO priors VALUES (?)", (series,))

    def is_prior(self, series: str) -> bool:
        """Whether a series comes for QA alone."""
        return bool(self._all("SELECT 1 FROM priors WHERE series = ?", series))

    def forget_marks(self) -> None:
        """Forget marks of series of which nothing new came.

        Who sends one of them from now on wants its contours.
        """
        with self.writing() as connection:
            connection.execute("DELETE FROM priors WHERE series NOT IN (SELECT id FROM series WHERE changed AND note = '')")

    def touch(self, series: str) -> None:
        """Make a series count as changed."""
        with self.writing() as connection:
            connection.execute("UPDATE series SET changed = 1, revision = revision + 1 WHERE id = ?", (series,))

    def leave_alone(self, series: Series, why: str) -> None:
        """Note why nothing is done with a series.

        Unless it changed in the meantime.
        """
        with self.writing() as connection:
            query = "UPDATE series SET note = ?, changed = 0, forced = 0 WHERE id = ? AND revision = ?"
            if connection.execute(query, (why, series.id, series.revision)).rowcount:
                connection.execute("DELETE FROM priors WHERE series = ?", (series.id,))

    def leave_as_posted(self, series: Series) -> None:
        """Note that a post holds just what a series is.

        Unless the series changed in the meantime.
        """
        with self.writing() as connection:
            query = "UPDATE series SET changed = 0, forced = 0 WHERE id = ? AND revision = ?"
            if connection.execute(query, (series.id, series.revision)).rowcount:
                connection.execute("DELETE FROM priors WHERE series = ?", (series.id,))

    def loose_structure_sets(self) -> dict[str, str]:
        """Paths, by SOP Instance UID, of RTSTRUCTs that name a series.

        The series is here, and the RTSTRUCTs were not set aside.
        """
        query = (
            "SELECT DISTINCT t.uid, t.path FROM structure_sets t JOIN names n ON n.structure_set = t.uid"
            " JOIN series s ON s.uid = n.series_uid WHERE t.note = ''"
        )
        return {row["uid"]: row["path"] for row in self._all(query)}

    def drawn_on(self, structure_set: str) -> list[Series]:
        """The series that are here and that an RTSTRUCT names."""
        query = "SELECT s.* FROM series s JOIN names n ON n.series_uid = s.uid WHERE n.structure_set = ? ORDER BY s.first_at"
        return [_series(row) for row in self._all(query, structure_set)]

    def set_aside(self, structure_set: str, why: str) -> None:
        """Note why an RTSTRUCT is not used."""
        with self.writing() as connection:
            connection.execute("UPDATE structure_sets SET note = ? WHERE uid = ?", (why, structure_set))

    # ── posts ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    def posts(self, *, series: str | None = None, states: Sequence[str] = (), due: float | None = None) -> list[Post]:
        """Posts in their order.

        Of a series, in some states, whose time has come.
        """
        wanted: list[str] = ["1"]
        values: list[object] = []
        if series is not None:
            wanted.append("series = ?")
            values.append(series)
        if states:
            wanted.append(f"state IN ({', '.join('?' * len(states))})")
            values += list(states)
        if due is not None:
            wanted.append("next_at <= ?")
            values.append(due)
        rows = self._all(f"SELECT * FROM posts WHERE {' AND '.join(wanted)} ORDER BY id", *values)  # noqa: S608 — our own words
        return [_post(row) for row in rows]

    def one_post(self, post: int) -> Post:
        """A post by its id."""
        return _post(self._all("SELECT * FROM posts WHERE id = ?", post)[0])

    def add_post(self, series: Series, route: Route, files: Sequence[str], key: str, now: float) -> int | None:
        """Make a post of a series as it is.

        Unless it changed in the meantime.

        An earlier post that was never tried is replaced; one that was is superseded when the service has taken this one.
        """
        with self.writing() as connection:
            cleared = "UPDATE series SET changed = 0, forced = 0, note = '' WHERE id = ? AND revision = ?"
            if connection.execute(cleared, (series.id, series.revision)).rowcount != 1:
                return None
            connection.execute("DELETE FROM priors WHERE series = ?", (series.id,))
            untried = "UPDATE posts SET state = 'superseded', note = 'it grew before it was sent', ended_at = ? WHERE series = ?"
            connection.execute(f"{untried} AND state = 'waiting' AND attempts = 0", (now, series.id))
            before = connection.execute(
                "SELECT max(id) FROM posts WHERE series = ? AND state != 'refused' AND key != ''"
                " AND (job IS NOT NULL OR state = 'waiting')",
                (series.id,),
            ).fetchone()[0]
            row = (series.id, json.dumps(asdict(route)), json.dumps(list(files)), key, before, now, now)
            columns = "series, state, route, files, key, supersedes, next_at, made_at"
            query = f"INSERT INTO posts ({columns}) VALUES (?, 'waiting', ?, ?, ?, ?, ?, ?)"  # noqa: S608 — our own words
            return int(connection.execute(query, row).lastrowid or 0)

    def change_post(self, post: int, **values: object) -> None:
        """Set columns of a post."""
        columns = ", ".join(f"{name} = ?" for name in values)
        with self.writing() as connection:
            connection.execute(f"UPDATE posts SET {columns} WHERE id = ?", (*values.values(), post))  # noqa: S608 — our own words

    def supersede(self, post: int, now: float) -> None:
        """Set a post aside for one that holds the whole stack.

        What of it was not delivered will not be.
        """
        with self.writing() as connection:
            query = (
                "UPDATE posts SET state = 'superseded', note = 'more slices came', ended_at = coalesce(ended_at, ?) WHERE id = ?"
            )
            connection.execute(query, (now, post))
            dropped = "UPDATE deliveries SET state = 'dropped', note = 'superseded', ended_at = ?"
            connection.execute(f"{dropped} WHERE post = ? AND state IN ('waiting', 'dead')", (now, post))

    def succeed(self, post: Post, now: float) -> None:
        """End a post whose job is done.

        Its results are to be delivered from now on.
        """
        rows = [(post.id, place, result, "waiting", now) for place in post.route.places for result in post.route.results]
        with self.writing() as connection:
            done = "UPDATE posts SET state = 'succeeded', note = '', ended_at = ? WHERE id = ? AND state = 'posted'"
            if connection.execute(done, (now, post.id)).rowcount == 1:
                query = "INSERT OR IGNORE INTO deliveries (post, place, result, state, next_at) VALUES (?, ?, ?, ?, ?)"
                connection.executemany(query, rows)

    # ── contours that come back ───────────────────────────────────────────────────────────────────────────────────────

    def give_back(self, post: int, structure_set: str, now: float) -> None:
        """Note that a post's job is to get approved contours."""
        with self.writing() as connection:
            query = "INSERT OR IGNORE INTO returned (post, structure_set, state, next_at) VALUES (?, ?, 'waiting', ?)"
            connection.execute(query, (post, structure_set, now))

    def to_give_back(self, now: float) -> list[Return]:
        """Approved contours whose time has come."""
        rows = self._all("SELECT post, structure_set, attempts FROM returned WHERE state = 'waiting' AND next_at <= ?", now)
        return [Return(*row) for row in rows]

    def given_back(self, back: Return, state: str, note: str, next_at: float) -> None:
        """Note what came of giving contours back."""
        with self.writing() as connection:
            query = "UPDATE returned SET state = ?, note = ?, next_at = ?, attempts = attempts + 1"
            where = "WHERE post = ? AND structure_set = ?"
            connection.execute(f"{query} {where}", (state, note, next_at, back.post, back.structure_set))

    def is_giving_back(self, post: int) -> bool:
        """Whether contours are on their way back to a post's job."""
        return bool(self._all("SELECT 1 FROM returned WHERE post = ? AND state = 'waiting' LIMIT 1", post))

    def structure_set_path(self, uid: str) -> str | None:
        """Path of an RTSTRUCT; None where it is gone."""
        rows = self._all("SELECT path FROM structure_sets WHERE uid = ?", uid)
        return rows[0]["path"] if rows else None

    # ── deliveries ────────────────────────────────────────────────────────────────────────────────────────────────────

    def deliveries(
        self, *, post: int | None = None, states: Sequence[str] = (), place: str | None = None, due: float | None = None
    ) -> list[Delivery]:
        """Deliveries in their order.

        Of a post, in some states, to a place, whose time has come.
        """
        wanted: list[str] = ["1"]
        values: list[object] = []
        for column, value in (("post", post), ("place", place)):
            if value is not None:
                wanted.append(f"{column} = ?")
                values.append(value)
        if states:
            wanted.append(f"state IN ({', '.join('?' * len(states))})")
            values += list(states)
        if due is not None:
            wanted.append("next_at <= ?")
            values.append(due)
        rows = self._all(f"SELECT * FROM deliveries WHERE {' AND '.join(wanted)} ORDER BY id", *values)  # noqa: S608 — our own words
        return [_delivery(row) for row in rows]

    def change_delivery(self, delivery: int, **values: object) -> None:
        """Set columns of a delivery.

        Unless it was taken back in the meantime.
        """
        columns = ", ".join(f"{name} = ?" for name in values)
        with self.writing() as connection:
            query = f"UPDATE deliveries SET {columns} WHERE id = ? AND state != 'dropped'"  # noqa: S608 — our own words
            connection.execute(query, (*values.values(), delivery))

    def resend(self, job: str, now: float, *, place: str | None = None) -> int:
        """Deliver a job's results again; how many deliveries that are."""
        with self.writing() as connection:
            query = (
                "UPDATE deliveries SET state = 'waiting', attempts = 0, next_at = ?, note = '', ended_at = NULL, told = 0"
                " WHERE post IN (SELECT id FROM posts WHERE job = ? AND state = 'succeeded')"
            )
            return connection.execute(
                f"{query}{' AND place = ?' if place else ''}", (now, job, *([place] if place else []))
            ).rowcount

    def untold(self) -> list[Delivery]:
        """Deliveries of which the service does not know how they stand."""
        return [
            _delivery(row) for row in self._all("SELECT * FROM deliveries WHERE NOT told AND (attempts OR state != 'waiting')")
        ]

    def told(self, delivery: Delivery) -> None:
        """Note that the service knows how a delivery stands.

        Unless it changed in the meantime.
        """
        with self.writing() as connection:
            query = "UPDATE deliveries SET told = 1 WHERE id = ? AND state = ? AND attempts = ?"
            connection.execute(query, (delivery.id, delivery.state, delivery.attempts))

    def is_ours(self, sop_instance_uid: str) -> bool:
        """Whether an RTSTRUCT is our own, come back unchanged.

        One that was delivered from here.
        """
        return bool(self._all("SELECT 1 FROM deliveries WHERE uid = ? LIMIT 1", sop_instance_uid))

    # ── tidying ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def let_go(self, series: Series) -> None:
        """Forget the images of a series.

        Unless it changed in the meantime; its posts are still known by their jobs.

        Sent once more it is a series of its own: a key is empty where the images are gone.
        """
        with self.writing() as connection:
            if _is_as_seen(connection, series):
                connection.execute("DELETE FROM images WHERE series = ?", (series.id,))
                connection.execute("UPDATE posts SET key = '' WHERE series = ?", (series.id,))

    def forget(self, series: Series) -> None:
        """Forget a series with all that came of it.

        Unless it changed in the meantime.
        """
        posts = "SELECT id FROM posts WHERE series = ?"
        with self.writing() as connection:
            if not _is_as_seen(connection, series):
                return
            connection.execute(f"DELETE FROM deliveries WHERE post IN ({posts})", (series.id,))  # noqa: S608 — our own words
            connection.execute(f"DELETE FROM returned WHERE post IN ({posts})", (series.id,))  # noqa: S608 — our own words
            for table, column in (("posts", "series"), ("images", "series"), ("series", "id")):
                connection.execute(f"DELETE FROM {table} WHERE {column} = ?", (series.id,))  # noqa: S608 — our own words

    def forget_loose_ends(self, before: float) -> int:
        """Forget what is old and belongs to no images here.

        RTSTRUCTs, associations and announcements of before a time.

        How many RTSTRUCTs no series was there for.
        """
        uids = f"SELECT uid FROM series WHERE id IN ({_HELD})"  # noqa: S608 — our own words
        old = (
            "SELECT uid, note = '' AND NOT EXISTS (SELECT 1 FROM posts WHERE instr(files, path)) AS unmatched"  # noqa: S608
            " FROM structure_sets WHERE at < ?"
            f" AND uid NOT IN (SELECT structure_set FROM names WHERE series_uid IN ({uids}))"
            " AND uid NOT IN (SELECT structure_set FROM returned WHERE state = 'waiting')"
        )
        with self.writing() as connection:
            rows = connection.execute(old, (before,)).fetchall()
            connection.executemany("DELETE FROM structure_sets WHERE uid = ?", [(row["uid"],) for row in rows])
            connection.executemany("DELETE FROM names WHERE structure_set = ?", [(row["uid"],) for row in rows])
            connection.execute(f"DELETE FROM announced WHERE at < ? AND series_uid NOT IN ({uids})", (before,))  # noqa: S608
            used = "SELECT association FROM images WHERE association IS NOT NULL"
            connection.execute(f"DELETE FROM associations WHERE began < ? AND id NOT IN ({used})", (before,))  # noqa: S608
        return sum(row["unmatched"] for row in rows)

    def paths(self) -> set[str]:
        """Every file that something leads to."""
        found = {row["path"] for table in ("images", "structure_sets") for row in self._all(f"SELECT path FROM {table}")}  # noqa: S608
        for row in self._all("SELECT files FROM posts WHERE state = 'waiting'"):
            found.update(json.loads(row["files"]))
        return found

    def counts(self) -> Mapping[str, int]:
        """How many posts and deliveries stand in each state.

        And how many series are coming in.
        """
        counts = {"series.receiving": self._all("SELECT count(*) FROM series WHERE changed AND note = ''")[0][0]}
        for table in ("posts", "deliveries"):
            rows = self._all(f"SELECT state, count(*) AS n FROM {table} GROUP BY state")  # noqa: S608 — our own words
            counts |= {f"{table}.{row['state']}": row["n"] for row in rows}
        return counts

    def close_open_associations(self, now: float) -> None:
        """Count what was open when the gateway ended as broken off."""
        with self.writing() as connection:
            connection.execute("UPDATE associations SET ended = ?, released = 0 WHERE ended IS NULL", (now,))


def series_id(series_uid: str, called: str) -> str:
    """The id of a series sent to one of our AE titles."""
    return digest_of(f"{series_uid}|{called}")


def _is_as_seen(connection: sqlite3.Connection, series: Series) -> bool:
    """Whether nothing came for a series since it was read."""
    query = "SELECT 1 FROM series WHERE id = ? AND revision = ? AND last_at = ?"
    return connection.execute(query, (series.id, series.revision, series.last_at)).fetchone() is not None


def _was_for_qa(connection: sqlite3.Connection, series: str) -> bool:
    """Whether the newest post of a series was for QA alone, and what comes now is not."""
    newest = "SELECT json_extract(route, '$.for_qa') FROM posts WHERE series = ? ORDER BY id DESC LIMIT 1"
    row = connection.execute(newest, (series,)).fetchone()
    marked = connection.execute("SELECT 1 FROM priors WHERE series = ?", (series,)).fetchone()
    return row is not None and bool(row[0]) and marked is None


def _titles(sent: Sent) -> tuple[str, str]:
    return sent.calling, sent.called


def _series(row: sqlite3.Row | Mapping[str, Any]) -> Series:
    values: dict[str, Any] = dict(row)
    return Series(**values | {"forced": bool(row["forced"]), "changed": bool(row["changed"])})


def _post(row: sqlite3.Row) -> Post:
    values: dict[str, Any] = dict(row)
    route = json.loads(row["route"])
    route |= {"places": tuple(route["places"]), "results": tuple(route["results"])}
    return Post(**values | {"route": Route(**route), "files": tuple(json.loads(row["files"]))})


def _delivery(row: sqlite3.Row) -> Delivery:
    values: dict[str, Any] = dict(row)
    return Delivery(**values | {"told": bool(row["told"])})

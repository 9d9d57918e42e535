"""Backups: database and files in one tar archive.

Everything that lasts; either kind of database can be made from it.

    backup.json           who wrote it: version, last step of the schema, number of rows of each table
    tables/NAME.jsonl     the rows of a table: one JSON object a line, binary values in base64
    jobs/JOB/…            the files of the jobs, as they lie in the data folder
    SHA256SUMS            a line for each member before it

The rows are read in one transaction, before the files: a job that comes in between has files without a row, which a service
deletes; the other way round it would have a row without files. Redis needs no backup: the sweeper sends again what waits.
"""

import base64
import hashlib
import io
import json
import os
import re
import shutil
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any, Final

from sqlalchemy import Boolean, Connection, LargeBinary, column, delete, func, insert, inspect, select, table

from oarlock import __version__
from oarlock.errors import BackupInvalid
from oarlock.store.database import Database
from oarlock.store.files import make_private
from oarlock.store.migrations import version_of
from oarlock.store.schema import AUDIT, JOBS, KEYS, METADATA

ABOUT: Final = "backup.json"
SUMS: Final = "SHA256SUMS"
_ROWS_AT_ONCE: Final = 1_000
_PIECE: Final = 1 << 20


def write_backup(database: Database, data: Path, target: Path) -> dict[str, int]:
    """Write a backup; a service may run meanwhile.

    The archive appears whole or not at all, for its owner's eyes alone.

    :param data: the data folder.
    :returns: the number of rows of each table, and under ``files`` that of the jobs' files.
    :raises FileExistsError: if the target exists.
    """
    if target.exists():
        raise FileExistsError(17, f"{target} exists already; a backup replaces nothing")
    part = target.with_name(f"{target.name}.part")
    try:
        with part.open("xb") as file:
            part.chmod(0o600)
            with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
                counts = _Writer(archive).write(database, data)
            file.flush()
            os.fsync(file.fileno())
        part.rename(target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    return counts


class _Writer:
    """Adds members to an archive, and remembers their digests."""

    def __init__(self, archive: tarfile.TarFile) -> None:
        self._archive, self._sums = archive, io.StringIO()

    def write(self, database: Database, data: Path) -> dict[str, int]:
        with database.snapshot() as connection:
            schema = version_of(connection)
            present = METADATA.tables.keys() & inspect(connection).get_table_names()
            counts = {name: self._table(connection, name) for name in sorted(present)}
        about = {"oarlock": __version__, "schema": schema, "rows": counts}
        self._bytes(ABOUT, json.dumps(about, indent=2).encode())
        files = sum(self._file(path, data) for path in sorted((data / "jobs").rglob("*")))
        self._bytes(SUMS, self._sums.getvalue().encode())
        return counts | {"files": files}

    def _table(self, connection: Connection, name: str) -> int:
        columns = [found["name"] for found in inspect(connection).get_columns(name)]
        lines = io.BytesIO()
        count = 0
        for row in connection.execute(select(table(name, *map(column, columns)))).mappings().yield_per(_ROWS_AT_ONCE):
            lines.write(json.dumps({key: _to_json(value) for key, value in row.items()}).encode() + b"\n")
            count += 1
        self._bytes(f"tables/{name}.jsonl", lines.getvalue())
        return count

    def _file(self, path: Path, data: Path) -> bool:
        """Add a file of a job; folders are left out, and what was purged or renamed since its name was read."""
        with suppress(FileNotFoundError, IsADirectoryError), path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            self._add(path.relative_to(data).as_posix(), file, size)
            return True
        return False

    def _bytes(self, name: str, content: bytes) -> None:
        self._add(name, io.BytesIO(content), len(content))

    def _add(self, name: str, file: Any, size: int) -> None:
        member = tarfile.TarInfo(name)
        member.size, member.mode = size, 0o600
        hashed = _Hashed(file)
        self._archive.addfile(member, hashed)
        self._sums.write(f"{hashed.digest.hexdigest()}  {name}\n")


class _Hashed:
    """A file whose bytes are hashed as they are read."""

    def __init__(self, file: Any) -> None:
        self._file, self.digest = file, hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        content: bytes = self._file.read(size)
        self.digest.update(content)
        return content


def check_backup(source: Path) -> dict[str, Any]:
    """Check that an archive is a whole, unchanged backup.

    Its bytes must be those that were written.

    :returns: what :data:`ABOUT` says.
    :raises BackupInvalid: if not.
    """
    sums: dict[str, str] = {}
    about: dict[str, Any] = {}
    stated: str | None = None
    with _opened(source) as archive:
        for member in archive:
            if not (member.isfile() and _is_known(member.name)):
                raise BackupInvalid(reason=f"the member {len(sums) + 1} is not one that a backup has")
            content = archive.extractfile(member)
            assert content is not None  # it is a file
            if member.name == SUMS:
                stated = content.read().decode("ascii", "replace")
                continue
            digest, kept = hashlib.sha256(), bytearray()
            while piece := content.read(_PIECE):
                digest.update(piece)
                if member.name == ABOUT:
                    kept += piece
            sums[member.name] = digest.hexdigest()
            about = json.loads(kept) if member.name == ABOUT else about
    if stated is None or stated != "".join(f"{digest}  {name}\n" for name, digest in sums.items()):
        raise BackupInvalid(reason="it is not whole, or its bytes were changed")
    return about


def restore_backup(source: Path, url: str, data: Path) -> dict[str, int]:
    """Make a database and a data folder from a backup.

    Whichever kind of database it was written from.

    The database gets the schema of the backup, then its rows, then the steps that this version adds. Nothing is left if it fails.

    :param url: SQLAlchemy URL of a database that holds no job and no key; a SQLite file is made.
    :param data: a data folder without jobs.
    :returns: the number of rows of each table, and under ``files`` that of the jobs' files.
    :raises BackupInvalid: if the archive is not a whole backup, or the database or the folder is in use.
    :raises DatabaseNewer: if a newer Oarlock wrote it.
    """
    about = check_backup(source)
    make_private(data)
    if (data / "jobs").is_dir() and any((data / "jobs").iterdir()):
        raise BackupInvalid(reason=f"{data} holds jobs already; restore into an empty folder")
    restoring = data / "restoring"
    shutil.rmtree(restoring, ignore_errors=True)
    try:
        files = _unpack(source, restoring)
        database = Database(url, schema=about["schema"])
        try:
            with database.writing() as connection:
                _check_unused(connection)
                for name in METADATA.tables:
                    if (rows := restoring / "tables" / f"{name}.jsonl").is_file():
                        _load(connection, name, rows)
        finally:
            database.close()
        shutil.rmtree(data / "jobs", ignore_errors=True)
        (restoring / "jobs").mkdir(exist_ok=True, mode=0o700)
        (restoring / "jobs").rename(data / "jobs")
    finally:
        shutil.rmtree(restoring, ignore_errors=True)
    Database(url).close()  # takes the steps that this version adds
    counts: dict[str, int] = about["rows"]
    return counts | {"files": files}


def _check_unused(connection: Connection) -> None:
    used = [one.name for one in (JOBS, KEYS, AUDIT) if connection.scalar(select(func.count()).select_from(one))]
    if used:
        raise BackupInvalid(reason="the database holds jobs, keys or an audit log already; restore into an empty one")


def _load(connection: Connection, name: str, rows: Path) -> None:
    """Fill a table. What the steps of the schema put there themselves gives way."""
    present = {found["name"]: found["type"] for found in inspect(connection).get_columns(name)}
    plain = table(name, *map(column, present))
    if name != AUDIT.name:
        connection.execute(delete(plain))
    batch: list[dict[str, Any]] = []
    with rows.open("rb") as lines:
        for line in lines:
            batch.append({key: _from_json(value, present[key]) for key, value in json.loads(line).items()})
            if len(batch) == _ROWS_AT_ONCE:
                connection.execute(insert(plain), batch)
                batch.clear()
    if batch:
        connection.execute(insert(plain), batch)
    _renumber(connection, name)


def _renumber(connection: Connection, name: str) -> None:
    """PostgreSQL counts the ids that it gives out by itself: on, behind those that were loaded."""
    if connection.dialect.name != "postgresql":
        return
    for key in METADATA.tables[name].primary_key:
        if key.autoincrement is True or (key.autoincrement == "auto" and key.type.python_type is int and not key.foreign_keys):
            sequence = connection.scalar(select(func.pg_get_serial_sequence(name, key.name)))
            if sequence is not None:
                following = select(func.coalesce(func.max(column(key.name)), 0) + 1).select_from(table(name)).scalar_subquery()
                connection.execute(select(func.setval(sequence, following, False)))


def _unpack(source: Path, folder: Path) -> int:
    """Write the members of a checked archive; gives the number of the jobs' files."""
    files = 0
    with _opened(source) as archive:
        for member in archive:
            content, target = archive.extractfile(member), folder / member.name
            assert content is not None  # it was checked
            target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with target.open("xb") as file:
                shutil.copyfileobj(content, file, _PIECE)
                file.flush()
                os.fsync(file.fileno())
            files += member.name.startswith("jobs/")
    return files


@contextmanager
def _opened(source: Path) -> Iterator[tarfile.TarFile]:
    try:
        with tarfile.open(source, mode="r:") as archive:
            yield archive
    except tarfile.TarError as error:
        raise BackupInvalid(reason="it is not a tar archive, or only the beginning of one") from error


def _is_known(name: str) -> bool:
    """Whether a member has a name that a backup gives: nothing leads out of the folder that it is unpacked into."""
    if name in {ABOUT, SUMS} or re.fullmatch(r"tables/[a-z_]+\.jsonl", name):
        return True
    path = PurePosixPath(name)
    return path.parts[:1] == ("jobs",) and len(path.parts) > 2 and ".." not in path.parts and path.as_posix() == name


def _to_json(value: object) -> object:
    return {"base64": base64.b64encode(value).decode()} if isinstance(value, bytes | memoryview) else value


def _from_json(value: Any, kind: object) -> object:
    """A value for a column; SQLite keeps booleans as numbers."""
    if isinstance(kind, Boolean) and value is not None:
        return bool(value)
    return base64.b64decode(value["base64"]) if isinstance(kind, LargeBinary) and isinstance(value, Mapping) else value


def rows_of(counts: Mapping[str, int]) -> Iterator[str]:
    """A line for each table that has rows, and for the files."""
    return (f"{name:<20}{count:>10}" for name, count in counts.items() if count)

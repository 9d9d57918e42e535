"""The inbox: what was received, on the disk.

A file is on the disk, and known, before anybody is told that it was taken.

    DATA/incoming/RANDOM               a file that is still being written
    DATA/series/SERIES/IMAGE-BYTES     an image, after one rename; named by digests of its UID and of its bytes
    DATA/structure_sets/UID-BYTES      an RTSTRUCT

A crash leaves a file in ``incoming``, which the next start deletes, or a whole file without a row: its sender was told nothing,
and it is put into its series where that is known.
"""

import hashlib
import os
import secrets
import shutil
from collections.abc import Callable
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import Final

from gateway.instances import CT_CLASSES, Identity, digest_of, identify
from gateway.rules import Sent
from gateway.store import Store, series_id
from oarlock.dicom.unusable import Unusable

_INCOMING: Final = "incoming"
_SERIES: Final = "series"
_STRUCTURE_SETS: Final = "structure_sets"


class Taken(StrEnum):
    """What taking a file came to."""

    NEW = "new"
    AGAIN = "again"


class DiskLow(Exception):
    """There is too little room on the disk to take anything."""


class Inbox:
    """Takes files in.

    :param clock: seconds since 1970.
    """

    def __init__(self, data: Path, store: Store, *, min_free_bytes: int, clock: Callable[[], float]) -> None:
        self.data, self._store, self._clock = data, store, clock
        self._min_free_bytes = min_free_bytes
        for name in (_INCOMING, _SERIES, _STRUCTURE_SETS):
            (data / name).mkdir(parents=True, exist_ok=True)

    def now(self) -> float:
        """The present by the inbox's clock."""
        return self._clock()

    def check_room(self) -> None:
        """Check that the disk has room.

        :raises DiskLow: if not.
        """
        if shutil.disk_usage(self.data).free < self._min_free_bytes:
            raise DiskLow

    def take(self, content: bytes, sent: Sent, *, association: int | None) -> Taken:
        """Keep a DICOM file.

        When this returns, the file survives any end of the process and of the machine.

        :param content: the file with its meta information.
        :raises DiskLow: there is no room.
        :raises Unusable: it is not what the gateway takes.
        """
        self.check_room()
        part = self.data / _INCOMING / secrets.token_hex(8)
        try:
            _write_through(part, content)
            return self._file(part, hashlib.sha256(content).hexdigest(), sent, association)
        finally:
            part.unlink(missing_ok=True)

    def _file(self, part: Path, digest: str, sent: Sent, association: int | None) -> Taken:
        identity = identify(part)
        if identity.sop_class not in CT_CLASSES:
            return self._file_structure_set(part, digest, identity)
        series = series_id(identity.series_uid, sent.called)
        if self._store.came_again(series, identity.sop_instance_uid, digest, self._clock()):
            return Taken.AGAIN
        path = self._place(part, self.data / _SERIES / series, identity, digest)
        file = (path, digest, (self.data / path).stat().st_size)
        self._store.add_image(identity, sent, file, self._clock(), association=association)
        return Taken.NEW

    def _file_structure_set(self, part: Path, digest: str, identity: Identity) -> Taken:
        path = self._place(part, self.data / _STRUCTURE_SETS, identity, digest)
        new = self._store.add_structure_set(identity.sop_instance_uid, (path, digest), identity.names, self._clock())
        return Taken.NEW if new else Taken.AGAIN

    def _place(self, part: Path, folder: Path, identity: Identity, digest: str) -> str:
        """Give a file its name, for good; its path relative to the data folder."""
        made = not folder.exists()
        folder.mkdir(exist_ok=True)
        path = folder / f"{digest_of(identity.sop_instance_uid)}-{digest[:16]}"
        part.rename(path)
        _sync_folder(folder)
        if made:
            _sync_folder(folder.parent)
        return str(path.relative_to(self.data))

    def sweep(self) -> None:
        """Delete what a crash left half-written; take in what is whole.

        Called before anything is received.
        """
        for part in (self.data / _INCOMING).iterdir():
            part.unlink()
        known = self._store.paths()
        for folder in (self.data / _SERIES).iterdir():
            series = self._store.one_series(folder.name)
            for path in folder.iterdir():
                if str(path.relative_to(self.data)) in known:
                    continue
                if series is None or not self._adopt(path, folder.name, series.sent):
                    path.unlink()

    def _adopt(self, path: Path, series: str, sent: Sent) -> bool:
        """Put a whole file without a row into its series; False where it is of no use."""
        try:
            identity = identify(path)
        except Unusable:
            return False
        if self._store.held(series, identity.sop_instance_uid) is not None:
            return False
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        file = (str(path.relative_to(self.data)), digest, path.stat().st_size)
        self._store.add_image(identity, sent, file, self._clock(), association=None)
        return True

    def tidy(self) -> None:
        """Delete every file that nothing leads to any more.

        Run between looks: it does not meet a file that is being taken.
        """
        known = self._store.paths()
        for folder in [self.data / _STRUCTURE_SETS, *(self.data / _SERIES).iterdir()]:
            for path in list(folder.iterdir()):
                if str(path.relative_to(self.data)) not in known and path.stat().st_mtime < self._clock() - 3_600:
                    path.unlink()
            if folder.parent.name == _SERIES:
                with suppress(OSError):  # not empty
                    folder.rmdir()


def _write_through(path: Path, content: bytes) -> None:
    """Write a file, and its bytes to the disk."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb", buffering=0, closefd=False) as file:
            view = memoryview(content)
            while view:
                view = view[file.write(view) or 0 :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    """Write a folder's entries to the disk, so that a new name in it lasts."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

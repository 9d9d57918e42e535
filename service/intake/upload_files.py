"""Files of an upload, within the post's limits.

DICOM parts as they are, members of archives in place of the archive.
"""

import errno
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

from oarlock.errors import StorageFull
from oarlock.settings import Settings
from oarlock.store.files import Incoming, check_room, room_bytes
from service.errors import PartMissing, UploadTooLarge
from service.intake.archives import SIGNATURES, ArchiveLimits, check_no_other_archive, open_archive
from service.intake.forms import FILES, Form, Upload

COPY_BYTES: Final = 262_144


class UploadFiles:
    """Writes the files of one post into its incoming folder."""

    def __init__(self, incoming: Incoming, settings: Settings, form: Form) -> None:
        self._incoming, self._settings, self._form = incoming, settings, form
        self._name = FILES
        self._upload = Upload(incoming.files, {})
        self._head = bytearray()
        self._file: IO[bytes] | None = None
        self._digest = hashlib.sha256()
        self._archive = incoming.folder / "archive"
        self._is_archive, self._unnamed = False, False
        self._content_bytes, self._unpacked_bytes, self._packed_bytes = 0, 0, 0

    def takes(self, name: str) -> bool:
        """Whether a file of this name may come now."""
        return name in self._form.names and name not in self._upload.parts

    def begin(self, name: str, *, unnamed: bool = False) -> None:
        """Begin a file.

        A browser sends an empty file without a name where nothing was chosen.
        """
        self._head.clear()
        self._name, self._file, self._unnamed = name, None, unnamed

    def write(self, data: bytes | memoryview) -> None:
        """Add bytes to the file."""
        if self._file is None:
            self._head += data
            if len(self._head) >= 4:
                self._open()
        else:
            self._put(self._file, data)

    def end(self) -> None:
        """Complete the file: an archive is unpacked and removed."""
        if self._file is None and self._unnamed and not self._head:
            return
        (self._file or self._open()).close()
        if self._is_archive:
            self._unpack()
            self._archive.unlink()
        elif self._name == FILES:
            self._upload.file_digests.append(self._digest.digest())

    def close(self) -> None:
        """Close what an interrupted upload left open."""
        if self._file is not None:
            self._file.close()

    def upload(self, fields: dict[str, str]) -> Upload:
        """The whole upload.

        :raises UploadError: if a required file is missing.
        """
        if self._form.series and not self._upload.files:
            raise self._form.missing()
        if missing := sorted(self._form.parts - self._upload.parts.keys()):
            raise PartMissing(name=missing[0])
        self._upload.fields = fields
        return self._upload

    def _open(self) -> IO[bytes]:
        """Open the file that a part goes to, now that its first bytes say what it is, and write those bytes."""
        head = bytes(self._head)
        may_be_archive = self._name == FILES and not self._form.related
        self._is_archive = may_be_archive and head[:4] in SIGNATURES
        if may_be_archive:
            check_no_other_archive(head)
        self._file = (self._archive if self._is_archive else self._next_file()).open("wb", buffering=0)
        self._digest = hashlib.sha256()
        self._put(self._file, bytes(self._head))
        return self._file

    def _next_file(self) -> Path:
        if self._name != FILES:
            return self._upload.parts.setdefault(self._name, self._incoming.folder / self._name)
        if len(self._upload.files) >= self._settings.max_upload_files:
            raise UploadTooLarge(limit=self._settings.max_upload_files, unit="files")
        return self._incoming.next_file()

    def _put(self, file: IO[bytes], data: bytes | memoryview) -> None:
        """Write while there is room: uploads without a length, or many at once, were admitted before they used the disk.

        :raises StorageFull: if there is not.
        """
        check_room(self._incoming.folder, keep_bytes=self._settings.min_free_bytes)
        with disk():
            _write_all(file, data)
        if not self._is_archive:
            self._digest.update(data)
            self._content_bytes += len(data)

    def _unpack(self) -> None:
        limits = ArchiveLimits(
            members=self._settings.max_upload_files - len(self._upload.files),
            content_bytes=self._settings.max_upload_bytes - self._content_bytes,
            disk_bytes=room_bytes(self._incoming.folder, keep_bytes=self._settings.min_free_bytes),
            ratio=self._settings.max_archive_ratio,
            content_before=self._unpacked_bytes,
            packed_so_far=self._packed_bytes,
        )
        self._is_archive = False
        self._packed_bytes += self._archive.stat().st_size
        with open_archive(self._archive, limits) as members:
            for member in members:
                with member, self._next_file().open("wb", buffering=0) as file:
                    self._digest = hashlib.sha256()
                    while data := member.read(COPY_BYTES):
                        self._put(file, data)
                        self._unpacked_bytes += len(data)
                self._upload.file_digests.append(self._digest.digest())


def _write_all(file: IO[bytes], data: bytes | memoryview) -> None:
    """Write everything: an unbuffered file may take less than it is given."""
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


@contextmanager
def disk() -> Iterator[None]:
    """Turn the system's "no space left" in this block into :class:`StorageFull`.

    :raises StorageFull: instead of the system's error.
    """
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise StorageFull from error
        raise

"""Uploads: a request's body to files on the disk, never whole in memory (benchmarks/upload.py).

FastAPI's UploadFile keeps each part under 1 MB in memory, and a CT slice is half of that. Here the body is parsed as it comes, a
batch at a time, and each batch goes to the disk in a thread of its own before the next one is taken from the socket: what a
sender can make the service hold is one batch.
"""

import errno
import hashlib
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final, Protocol

import anyio.to_thread
from anyio import CapacityLimiter
from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from oarlock.errors import OarlockError, StorageFull
from oarlock.settings import Settings
from oarlock.store.files import Incoming, check_room, room_bytes
from service.errors import (
    ArchiveInvalid,
    PartMissing,
    UnsupportedMediaType,
    UploadEmpty,
    UploadMalformed,
    UploadStalled,
    UploadTooLarge,
)
from service.intake.archives import SIGNATURES, ArchiveLimits, open_archive

FIELD_LIMIT_BYTES: Final = 2_048
BATCH_BYTES: Final = 1_048_576
BATCH_LIMIT_S: Final = 60.0
COPY_BYTES: Final = 262_144
_ZIP_TYPES: Final = frozenset({b"application/zip", b"application/x-zip-compressed"})
_FILES: Final = "files"


@dataclass(frozen=True, slots=True)
class Form:
    """What a call takes.

    :ivar accepted: what its body may be, as a sender who sent something else is told.
    :ivar series: whether it takes the files of a series: any number of parts named ``files``, archives among them.
    :ivar parts: names of parts that are one file each, and must come.
    :ivar fields: names of text fields.
    :ivar media_types: of a body that is one file and no form; it counts as the part ``files``, or as the one of ``parts``.
    """

    accepted: str
    series: bool = True
    parts: frozenset[str] = frozenset()
    fields: frozenset[str] = frozenset()
    media_types: frozenset[bytes] = frozenset()

    @property
    def names(self) -> list[str]:
        """Names of the parts that are files; a body without a form counts as the first."""
        return [*([_FILES] if self.series else []), *sorted(self.parts)]

    def missing(self) -> OarlockError:
        """What a sender is told who sent nothing."""
        return UploadEmpty() if self.series else PartMissing(name=self.names[0])


JOB: Final = Form(
    "multipart/form-data with parts named 'files', or one zip archive as application/zip",
    fields=frozenset({"model", "profile", "priority", "callback_url"}),
    media_types=_ZIP_TYPES,
)
COMPARISON: Final = Form(
    "multipart/form-data: the CT series in parts named 'files', one RTSTRUCT named 'predicted' and one named 'reference'",
    parts=frozenset({"predicted", "reference"}),
)
REFERENCE: Final = Form(
    "the RTSTRUCT as application/dicom, or multipart/form-data with one part named 'reference'",
    series=False,
    parts=frozenset({"reference"}),
    media_types=frozenset({b"application/dicom"}),
)


@dataclass
class Upload:
    """What a post brought: its form fields, and its files in the order of the upload, archives unpacked.

    ``digest`` is the same for the same fields and the same files in any order, packed or not. ``parts`` are the files that have
    a name of their own in the form.
    """

    files: list[Path]
    fields: dict[str, str]
    parts: dict[str, Path] = field(default_factory=dict)
    file_digests: list[bytes] = field(default_factory=list)

    @property
    def digest(self) -> str:
        whole = hashlib.sha256(b"".join(sorted(self.file_digests)))
        for name, value in sorted(self.fields.items()):
            whole.update(f"\0{name}={value}".encode())
        return whole.hexdigest()


async def receive(request: Request, incoming: Incoming, settings: Settings, threads: CapacityLimiter, form: Form = JOB) -> Upload:
    """Take the body of a post into a folder.

    :param threads: how many posts may use the disk at once.
    :param form: what the call takes.
    :raises UploadError: if it is too large, not well-formed, or of another type.
    :raises StorageFull: if less disk space than is to stay free is left while it is written.
    """
    files = _Files(incoming, settings, form)
    try:
        body = _body(request, files, form)

        async for batch in _batches(request, settings.max_upload_bytes):
            await anyio.to_thread.run_sync(body.write, batch, limiter=threads)
        return await anyio.to_thread.run_sync(body.finish, limiter=threads)
    finally:
        files.close()


def _body(request: Request, files: "_Files", form: Form) -> "_Body":
    if not request.state.unread:
        raise form.missing()
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    if kind in form.media_types:
        return _FileBody(files, form.names[0], SIGNATURES if kind in _ZIP_TYPES else (b"",))
    if kind == b"multipart/form-data" and options.get(b"boundary"):
        return _MultipartBody(files, options[b"boundary"], form)
    if kind == b"multipart/form-data":
        raise UploadMalformed(reason="its Content-Type names no boundary")
    raise UnsupportedMediaType(accepted=form.accepted)


async def _batches(request: Request, limit: int) -> AsyncIterator[bytes]:
    """The body in pieces of about one batch.

    :raises UploadTooLarge: at once if the headers announce too much, else as soon as too much has come.
    :raises UploadStalled: if a batch takes too long.
    """
    if int(request.headers.get("content-length", 0)) > limit:
        raise UploadTooLarge(limit=limit, unit="bytes")
    batch, total = bytearray(), 0
    async for chunk in _in_time(request.stream()):
        batch += chunk
        total += len(chunk)
        if total > limit:
            raise UploadTooLarge(limit=limit, unit="bytes")
        if len(batch) >= BATCH_BYTES:
            yield bytes(batch)
            batch.clear()
    if batch:
        yield bytes(batch)


async def _in_time(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """What comes, as long as every batch of it comes in its time: a slow sender keeps a place from others."""
    received, until = 0, anyio.current_time() + BATCH_LIMIT_S
    while True:
        try:
            with anyio.fail_after(until - anyio.current_time()):
                chunk = await anext(chunks, None)
        except TimeoutError:
            raise UploadStalled(limit_s=BATCH_LIMIT_S) from None
        if chunk is None:
            return
        yield chunk
        received += len(chunk)
        if received >= BATCH_BYTES:
            received, until = 0, anyio.current_time() + BATCH_LIMIT_S


# ── bodies ────────────────────────────────────────────────────────────────────────────────────────────────────────────


class _Body(Protocol):
    def write(self, batch: bytes) -> None: ...
    def finish(self) -> Upload: ...


class _FileBody:
    """One file as the whole body."""

    def __init__(self, files: "_Files", name: str, signatures: tuple[bytes, ...]) -> None:
        self._files, self._name, self._signatures = files, name, signatures
        self._begun = False

    def write(self, batch: bytes) -> None:
        if not self._begun:
            if not batch.startswith(self._signatures):
                raise ArchiveInvalid(reason="it does not begin like one")
            self._files.begin(self._name)
            self._begun = True
        self._files.write(batch)

    def finish(self) -> Upload:
        if self._begun:
            self._files.end()
        return self._files.upload({})


class _MultipartBody:
    """``multipart/form-data`` (RFC 7578), driven by python-multipart's parser."""

    def __init__(self, files: "_Files", boundary: bytes, form: Form) -> None:
        self._files, self._form = files, form
        self._fields: dict[str, str] = {}
        self._header, self._value = bytearray(), bytearray()
        self._disposition = b""
        self._field: tuple[str, bytearray] | None = None
        self._any, self._ended = False, False
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._part_begins,
                    "on_header_field": lambda data, start, end: self._header.extend(data[start:end]),
                    "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
                    "on_header_end": self._header_ends,
                    "on_headers_finished": self._headers_finished,
                    "on_part_data": self._part_data,
                    "on_part_end": self._part_ends,
                    "on_end": self._ends,
                },
            )
        except FormParserError as error:
            raise UploadMalformed(reason="its boundary is too long") from error

    def write(self, batch: bytes) -> None:
        self._any = True
        try:
            self._parser.write(batch)
        except FormParserError as error:
            raise UploadMalformed(reason="a boundary or a part's header is not where it must be, or is too long") from error

    def finish(self) -> Upload:
        if self._any and not self._ended:
            raise UploadMalformed(reason="its closing boundary is missing, so it was cut off")
        return self._files.upload(self._fields)

    def _part_begins(self) -> None:
        self._disposition = b""

    def _header_ends(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = bytes(self._value)
        self._header.clear()
        self._value.clear()

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        name = options.get(b"name", b"").decode("utf-8", "replace")
        if self._files.takes(name):
            self._field = None
            self._files.begin(name, unnamed=not options.get(b"filename"))
        elif name in self._form.fields and name not in self._fields:
            self._field = (name, bytearray())
        else:
            known = ", ".join(f"'{part}'" for part in self._form.names)
            raise UploadMalformed(
                reason=f"it holds a part that this call does not know, or a field twice; name the files {known}"
            )

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        if self._field is None:
            self._files.write(memoryview(data)[start:end])
            return
        _, value = self._field
        value += data[start:end]
        if len(value) > FIELD_LIMIT_BYTES:
            raise UploadMalformed(reason="a field is too long")

    def _part_ends(self) -> None:
        if self._field is None:
            self._files.end()
            return
        name, value = self._field
        try:
            self._fields[name] = value.decode("utf-8").strip()
        except UnicodeDecodeError as error:
            raise UploadMalformed(reason="a field is not UTF-8") from error

    def _ends(self) -> None:
        self._ended = True


# ── files ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


class _Files:
    """Writes parts into the incoming folder: a DICOM file as it is, the members of an archive in its place."""

    def __init__(self, incoming: Incoming, settings: Settings, form: Form) -> None:
        self._incoming, self._settings, self._form = incoming, settings, form
        self._name = _FILES
        self._upload = Upload(incoming.files, {})
        self._head = bytearray()
        self._file: IO[bytes] | None = None
        self._digest = hashlib.sha256()
        self._archive = incoming.folder / "archive"
        self._is_archive, self._unnamed = False, False
        self._content_bytes = 0

    def takes(self, name: str) -> bool:
        """Whether a file of this name may come now."""
        return name in self._form.names and name not in self._upload.parts

    def begin(self, name: str, *, unnamed: bool = False) -> None:
        """A file begins. A browser sends an empty file without a name where nothing was chosen."""
        self._head.clear()
        self._name, self._file, self._unnamed = name, None, unnamed

    def write(self, data: bytes | memoryview) -> None:
        if self._file is None:
            self._head += data
            if len(self._head) >= 4:
                self._open()
        else:
            self._put(self._file, data)

    def end(self) -> None:
        """The file is complete: an archive is unpacked and removed."""
        if self._file is None and self._unnamed and not self._head:
            return
        (self._file or self._open()).close()
        if self._is_archive:
            self._unpack()
            self._archive.unlink()
        elif self._name == _FILES:
            self._upload.file_digests.append(self._digest.digest())

    def close(self) -> None:
        """Close what an interrupted upload left open."""
        if self._file is not None:
            self._file.close()

    def upload(self, fields: dict[str, str]) -> Upload:
        if self._form.series and not self._upload.files:
            raise self._form.missing()
        if missing := sorted(self._form.parts - self._upload.parts.keys()):
            raise PartMissing(name=missing[0])
        self._upload.fields = fields
        return self._upload

    def _open(self) -> IO[bytes]:
        """Open the file that a part goes to, now that its first bytes say what it is, and write those bytes."""
        self._is_archive = self._name == _FILES and bytes(self._head[:4]) in SIGNATURES
        self._file = (self._archive if self._is_archive else self._next_file()).open("wb", buffering=0)
        self._digest = hashlib.sha256()
        self._put(self._file, bytes(self._head))
        return self._file

    def _next_file(self) -> Path:
        if self._name != _FILES:
            return self._upload.parts.setdefault(self._name, self._incoming.folder / self._name)
        if len(self._upload.files) >= self._settings.max_upload_files:
            raise UploadTooLarge(limit=self._settings.max_upload_files, unit="files")
        return self._incoming.next_file()

    def _put(self, file: IO[bytes], data: bytes | memoryview) -> None:
        """Write, while the disk has more room than must stay: many uploads at once may each have found enough at their start."""
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
        )
        self._is_archive = False
        with open_archive(self._archive, limits) as members:
            for member in members:
                with member, self._next_file().open("wb", buffering=0) as file:
                    self._digest = hashlib.sha256()
                    while data := member.read(COPY_BYTES):
                        self._put(file, data)
                self._upload.file_digests.append(self._digest.digest())


def _write_all(file: IO[bytes], data: bytes | memoryview) -> None:
    """An unbuffered file may take less than it is given."""
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


@contextmanager
def disk() -> Iterator[None]:
    """Whoever finds no room on the disk in this block finds that the storage is full.

    :raises StorageFull: instead of the system's error.
    """
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise StorageFull from error
        raise

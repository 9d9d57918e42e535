"""Bodies of posts, parsed as they come.

Written to the disk a batch at a time, never whole in memory.

FastAPI's UploadFile keeps each part under 1 MB in memory, and a CT slice is half of that. Here each batch goes to the disk, in a
thread, before the next one is taken from the socket: a sender can make the service hold one batch (``benchmarks/upload.py``).
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final, Protocol

import anyio
import anyio.to_thread
from anyio import CapacityLimiter
from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from oarlock.settings import Settings
from oarlock.store.files import Incoming
from service.errors import UnsupportedMediaType, UploadMalformed, UploadStalled, UploadTooLarge
from service.intake.archives import check_is_zip
from service.intake.forms import FILES, JOB, ZIP_TYPES, Form, Upload
from service.intake.upload_files import UploadFiles

FIELD_LIMIT_BYTES: Final = 2_048
BATCH_BYTES: Final = 1_048_576
_DICOM: Final = b"application/dicom"


@dataclass(frozen=True, slots=True)
class Pace:
    """How slowly an upload may come.

    :ivar batch_s: longest time for one batch (1 MiB), or for the rest of the body.
    :ivar grace_s: time that every upload has, however little it sends.
    :ivar least_bytes_per_s: least speed over the whole upload, beyond the grace.
    """

    batch_s: float = 60.0
    grace_s: float = 60.0
    least_bytes_per_s: float = 65_536.0

    def allowed_s(self, received: int) -> float:
        """Seconds in which this many bytes must have come."""
        return self.grace_s + received / self.least_bytes_per_s


PACE: Final = Pace()
"""A slow sender occupies a place that others wait for: at the least speed a planning CT of 100 MB takes 26 minutes."""


def announced_bytes(request: Request) -> int:
    """How long a request says that its body is.

    0 if it does not say.
    """
    return int(request.headers.get("content-length", 0))


async def receive(
    request: Request,
    incoming: Incoming,
    settings: Settings,
    threads: CapacityLimiter,
    form: Form = JOB,
    *,
    has_body: bool = True,
) -> Upload:
    """Write the body of a post into a folder.

    :param threads: limits how many posts use the disk at once.
    :param form: what the body may hold.
    :param has_body: whether the request has a body at all.
    :raises UploadError: if it is too large, too slow, not well-formed, or of another type.
    :raises StorageFull: if the disk runs short while it is written.
    """
    files = UploadFiles(incoming, settings, form)
    try:
        body = _body(request, files, form, settings, has_body=has_body)
        async for batch in _batches(request, settings.max_upload_bytes):
            await anyio.to_thread.run_sync(body.write, batch, limiter=threads)
        return await anyio.to_thread.run_sync(body.finish, limiter=threads)
    finally:
        files.close()


def _body(request: Request, files: UploadFiles, form: Form, settings: Settings, *, has_body: bool) -> "_Body":
    if not has_body:
        raise form.missing()
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise UnsupportedMediaType(accepted="the body without Content-Encoding; a zip archive is compressed already")
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    if kind in form.media_types:
        return _FileBody(files, form.names[0], zipped=kind in ZIP_TYPES)
    wanted = b"multipart/related" if form.related else b"multipart/form-data"
    if kind == wanted and options.get(b"boundary"):
        body = _RelatedBody if form.related else _MultipartBody
        if form.related and options.get(b"type", _DICOM).lower() != _DICOM:
            raise UnsupportedMediaType(accepted=form.accepted)
        return body(files, options[b"boundary"], form, max_parts=settings.max_upload_files)
    if kind == wanted:
        raise UploadMalformed(reason="its Content-Type names no boundary")
    raise UnsupportedMediaType(accepted=form.accepted)


async def _batches(request: Request, limit: int) -> AsyncIterator[bytes]:
    """The body in pieces of about one batch.

    :raises UploadTooLarge: at once if the headers announce too much, else as soon as too much has come.
    :raises UploadStalled: if it comes too slowly.
    """
    if announced_bytes(request) > limit:
        raise UploadTooLarge(limit=limit, unit="bytes")
    batch, total = bytearray(), 0
    async for chunk in _in_time(request.stream(), PACE):
        batch += chunk
        total += len(chunk)
        if total > limit:
            raise UploadTooLarge(limit=limit, unit="bytes")
        if len(batch) >= BATCH_BYTES:
            yield bytes(batch)
            batch.clear()
    if batch:
        yield bytes(batch)


async def _in_time(chunks: AsyncIterator[bytes], pace: Pace) -> AsyncIterator[bytes]:
    """The chunks, as long as they keep the pace. Time that our own disk takes counts for nobody.

    :raises UploadStalled: if a batch takes too long, or the whole upload is slower than the least speed.
    """
    total, in_batch, waited_s, waited_for_batch_s = 0, 0, 0.0, 0.0
    while True:
        left_s = min(pace.batch_s - waited_for_batch_s, pace.allowed_s(total) - waited_s)
        began = anyio.current_time()
        try:
            with anyio.fail_after(left_s):
                chunk = await anext(chunks, None)
        except TimeoutError:
            raise UploadStalled(received=total) from None
        took_s = anyio.current_time() - began
        waited_s, waited_for_batch_s = waited_s + took_s, waited_for_batch_s + took_s
        if chunk is None:
            return
        yield chunk
        total += len(chunk)
        in_batch += len(chunk)
        if in_batch >= BATCH_BYTES:
            in_batch, waited_for_batch_s = 0, 0.0


# ── bodies ────────────────────────────────────────────────────────────────────────────────────────────────────────────


class _Body(Protocol):
    def write(self, batch: bytes) -> None: ...
    def finish(self) -> Upload: ...


class _FileBody:
    """One file as the whole body."""

    def __init__(self, files: UploadFiles, name: str, *, zipped: bool) -> None:
        self._files, self._name, self._zipped = files, name, zipped
        self._begun = False

    def write(self, batch: bytes) -> None:
        if not self._begun:
            if self._zipped:
                check_is_zip(batch)
            self._files.begin(self._name)
            self._begun = True
        self._files.write(batch)

    def finish(self) -> Upload:
        if self._begun:
            self._files.end()
        return self._files.upload({})


class _MultipartBody:
    """``multipart/form-data`` (RFC 7578), driven by python-multipart's parser."""

    _told_by = b"content-disposition"
    """The header that says what a part is."""

    def __init__(self, files: UploadFiles, boundary: bytes, form: Form, *, max_parts: int) -> None:
        self._files, self._form = files, form
        self._most_parts, self._parts = max_parts + len(form.fields) + len(form.parts), 0
        self._max_files = max_parts
        self._fields: dict[str, str] = {}
        self._header, self._value = bytearray(), bytearray()
        self._what = b""
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
            raise UploadMalformed(reason="a boundary or a header of a part is misplaced or too long") from error

    def finish(self) -> Upload:
        if self._any and not self._ended:
            raise UploadMalformed(reason="its closing boundary is missing, so it was cut off")
        return self._files.upload(self._fields)

    def _part_begins(self) -> None:
        self._parts += 1
        if self._parts > self._most_parts:  # empty parts are no files, and cost time all the same
            raise UploadTooLarge(limit=self._max_files, unit="files")
        self._what = b""

    def _header_ends(self) -> None:
        if self._header.lower() == self._told_by:
            self._what = bytes(self._value)
        self._header.clear()
        self._value.clear()

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._what)
        name = options.get(b"name", b"").decode("utf-8", "replace")
        if self._files.takes(name):
            self._field = None
            self._files.begin(name, unnamed=not options.get(b"filename"))
        elif name in self._form.fields and name not in self._fields:
            self._field = (name, bytearray())
        else:
            known = ", ".join(f"'{part}'" for part in self._form.names)
            raise UploadMalformed(
                reason=f"a part has a name that this call does not take, or a field comes twice; name the files {known}"
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


class _RelatedBody(_MultipartBody):
    """``multipart/related`` (RFC 2387) of DICOM files, as STOW-RS has it."""

    _told_by = b"content-type"

    def _headers_finished(self) -> None:
        kind, _ = parse_options_header(self._what)
        if kind.lower() not in {b"", _DICOM}:
            raise UnsupportedMediaType(accepted=self._form.accepted)
        self._field = None
        self._files.begin(FILES)

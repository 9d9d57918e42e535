"""Archives: what is inside a zip file, one member at a time, within bounds and without trusting a byte of it.

Everything that an archive claims is checked before anything of it is unpacked; unpacking then stops at what was claimed.
"""

import errno
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from oarlock.errors import StorageFull
from service.errors import ArchiveInvalid, UploadTooLarge

SIGNATURES: Final = (b"PK\x03\x04", b"PK\x05\x06")
"""How a zip file begins; the second is an empty one."""

RATIO_COUNTS_FROM_BYTES: Final = 128_000_000
"""A phantom compresses very well and does no harm; the ratio counts where the content could fill a disk."""

_DIRECTORY_BYTES_PER_MEMBER: Final = 1_024
_DAMAGED: Final = "it is damaged or incomplete; send it again"
_END = struct.Struct("<4s4H2LH")
_END_64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR_64 = struct.Struct("<4sLQL")
_ENCRYPTED = 0x1
_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}


@dataclass(frozen=True, slots=True)
class ArchiveLimits:
    """How much an archive may hold: members, bytes of content (by rule, by the disk), and bytes of content per packed byte."""

    members: int
    content_bytes: int
    disk_bytes: int
    ratio: float


@contextmanager
def open_archive(path: Path, limits: ArchiveLimits) -> Iterator[Iterator[IO[bytes]]]:
    """The members of an archive as streams, in the order of its directory; folders are left out.

    :raises ArchiveInvalid: if it is damaged, or holds what no export of a CT series holds.
    :raises UploadTooLarge: if it holds more than the limits allow.
    :raises StorageFull: if it holds more than the disk takes.
    """
    try:
        _check_directory_size(path, limits)
        with zipfile.ZipFile(path) as archive:
            members = [member for member in archive.infolist() if not member.filename.endswith("/")]
            _check_members(members, limits, path.stat().st_size)
            yield (_open(archive, member) for member in members)
    except (zipfile.BadZipFile, zlib.error, EOFError, struct.error, OverflowError, ValueError) as error:
        raise ArchiveInvalid(reason=_DAMAGED) from error
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        raise ArchiveInvalid(reason=_DAMAGED) from error  # it names a place that no file has
    except (NotImplementedError, RuntimeError) as error:  # zipfile's words for what it cannot unpack
        raise ArchiveInvalid(reason="it is packed in a way that this server does not read") from error


def _open(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> IO[bytes]:
    stream = archive.open(member)
    assert isinstance(stream, zipfile.ZipExtFile)  # opened for reading
    if stream.peek(4)[:4] in SIGNATURES:
        raise ArchiveInvalid(reason="it holds another archive; put the DICOM files into one archive")
    return stream


def _check_members(members: list[zipfile.ZipInfo], limits: ArchiveLimits, archive_bytes: int) -> None:
    if len(members) > limits.members:
        raise UploadTooLarge(limit=limits.members, unit="files")
    for member in members:
        _check_member(member)
    content = sum(member.file_size for member in members)
    packed = sum(member.compress_size for member in members)
    if packed > archive_bytes:
        raise ArchiveInvalid(reason="its members overlap")
    if content > RATIO_COUNTS_FROM_BYTES and content > limits.ratio * packed:
        raise ArchiveInvalid(reason=f"it would unpack to more than {limits.ratio:.0f} times its size")
    if content > limits.content_bytes:
        raise UploadTooLarge(limit=limits.content_bytes, unit="bytes")
    if content > limits.disk_bytes:
        raise StorageFull


def _check_member(member: zipfile.ZipInfo) -> None:
    if not _stays_inside(member.orig_filename):
        raise ArchiveInvalid(reason="a member's name leads out of the archive")
    if stat.S_ISLNK(member.external_attr >> 16):
        raise ArchiveInvalid(reason="a member is a symbolic link")
    if member.flag_bits & _ENCRYPTED:
        raise ArchiveInvalid(reason="it is encrypted; send it without a password")
    if member.compress_type not in _METHODS:
        raise ArchiveInvalid(reason="it is packed in a way that this server does not read; use the usual 'deflate'")


def _stays_inside(name: str) -> bool:
    """Whether a member's name is a plain relative path. It is never used as one: this tells honest archives from others."""
    parts = name.replace("\\", "/").split("/")
    return ".." not in parts and parts[0] != "" and ":" not in parts[0] and "\0" not in name


def _check_directory_size(path: Path, limits: ArchiveLimits) -> None:
    """Refuse a directory that could not be of an allowed number of members, before zipfile reads all of it into memory."""
    with path.open("rb") as file:
        size = _directory_size(file, path.stat().st_size)
    if size > max(limits.members, 1) * _DIRECTORY_BYTES_PER_MEMBER:
        raise UploadTooLarge(limit=limits.members, unit="files")


def _directory_size(file: IO[bytes], length: int) -> int:
    """What the end record says of the directory's size in bytes (APPNOTE 4.3.14 to 4.3.16), found as zipfile finds it."""
    start = max(0, length - 65_557 - _LOCATOR_64.size)
    file.seek(start)
    tail = file.read()
    last = len(tail) - _END.size
    at = last if tail[last : last + 4] == b"PK\x05\x06" and tail.endswith(b"\0\0") else tail.rfind(b"PK\x05\x06")
    if at < 0 or last < 0:
        raise zipfile.BadZipFile
    size = int(_END.unpack_from(tail, at)[5])
    if at >= _LOCATOR_64.size and tail[at - _LOCATOR_64.size :].startswith(b"PK\x06\x07"):
        file.seek(int(_LOCATOR_64.unpack_from(tail, at - _LOCATOR_64.size)[2]))
        size = max(size, int(_END_64.unpack(file.read(_END_64.size))[8])) if size == 0xFFFFFFFF else size
    return size

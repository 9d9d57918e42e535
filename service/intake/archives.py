"""Archives: the members of a zip file, within limits.

One at a time.

Every claim of an archive is checked before anything is unpacked; unpacking stops at what was claimed. Names of members are
checked and never used.
"""

import errno
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from oarlock.errors import StorageFull
from service.errors import ArchiveInvalid, UploadTooLarge

SIGNATURES: Final = (b"PK\x03\x04", b"PK\x05\x06", b"PK00")
"""First bytes of a zip file; the second is of an empty one, the third of one that was split and joined (APPNOTE 8.5.4)."""

OTHER_ARCHIVES: Final[Mapping[bytes, str]] = {
    b"\x1f\x8b": "gzip",
    b"7z\xbc\xaf": "7z",
    b"\xfd7zX": "xz",
    b"BZh": "bzip2",
    b"Rar!": "RAR",
    b"\x28\xb5\x2f\xfd": "zstd",
}
"""First bytes of archives that are not unpacked."""

RATIO_COUNTS_FROM_BYTES: Final = 128_000_000
"""A phantom compresses very well and does no harm; the ratio counts where the content of a post could fill a disk."""

_DIRECTORY_BYTES_PER_MEMBER: Final = 1_024
_DAMAGED: Final = "it is damaged or incomplete; make it again and send that"
_LEADS_OUT: Final = "a member's name leads out of the archive"
_DRIVE: Final = re.compile(r"[A-Za-z]:")
_END = struct.Struct("<4s4H2LH")
_END_64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR_64 = struct.Struct("<4sLQL")
_LOCAL = struct.Struct("<4s5H3L2H")
_ENCRYPTED = 0x1
_UTF8 = 0x800
_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}


@dataclass(frozen=True, slots=True)
class ArchiveLimits:
    """Limits of one archive, given what the post brought before it.

    :ivar members: most files.
    :ivar content_bytes: most bytes of content, by the settings.
    :ivar disk_bytes: most bytes of content, by the disk.
    :ivar ratio: most bytes of content per packed byte, over all archives of the post.
    :ivar content_before: bytes that earlier archives of the post held.
    :ivar packed_so_far: bytes of those archives and of this one, as sent.
    """

    members: int
    content_bytes: int
    disk_bytes: int
    ratio: float
    content_before: int = 0
    packed_so_far: int = 0


def check_no_other_archive(head: bytes) -> None:
    """Check that a file is no archive of another kind.

    It must not begin like one that is not unpacked.

    :raises ArchiveInvalid: naming the kind.
    """
    for signature, kind in OTHER_ARCHIVES.items():
        if head.startswith(signature):
            raise ArchiveInvalid(reason=f"it is a {kind} file; only zip archives are unpacked, so send one or the DICOM files")


def check_is_zip(head: bytes) -> None:
    """Check that a body begins like a zip archive.

    :raises ArchiveInvalid: if not, naming what it is where that is known.
    """
    check_no_other_archive(head)
    if not head.startswith(SIGNATURES):
        raise ArchiveInvalid(reason="it does not begin like a zip archive")


@contextmanager
def open_archive(path: Path, limits: ArchiveLimits) -> Iterator[Iterator[IO[bytes]]]:
    """The members of an archive as streams, without folders.

    In the order of its directory.

    :raises ArchiveInvalid: if it is damaged, or holds what an export of a CT series does not hold.
    :raises UploadTooLarge: if it holds more than the limits allow.
    :raises StorageFull: if it holds more than the disk takes.
    """
    try:
        _check_directory_size(path, limits)
        with zipfile.ZipFile(path) as archive:
            members = [member for member in archive.infolist() if not member.filename.endswith("/")]
            _check_members(members, limits, path.stat().st_size)
            yield (_open(path, archive, member) for member in members)
    except (zipfile.BadZipFile, zlib.error, EOFError, struct.error, OverflowError, ValueError) as error:
        raise ArchiveInvalid(reason=_DAMAGED) from error
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        raise ArchiveInvalid(reason=_DAMAGED) from error  # it names a place that no file has
    except (NotImplementedError, RuntimeError) as error:  # zipfile's words for what it cannot unpack
        raise ArchiveInvalid(reason="it is packed in a way that this server does not read") from error


def _open(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> IO[bytes]:
    member.orig_filename = _local_name(path, member)
    stream = archive.open(member)
    assert isinstance(stream, zipfile.ZipExtFile)  # opened for reading
    head = stream.peek(4)
    if head[:4] in SIGNATURES:
        raise ArchiveInvalid(reason="it holds another archive; put the DICOM files into one archive")
    check_no_other_archive(head)
    return stream


def _local_name(path: Path, member: zipfile.ZipInfo) -> str:
    """The name in front of a member's content. Some writers spell it otherwise than the directory does, and zipfile compares.

    :raises ArchiveInvalid: if it leads out of the archive.
    """
    with path.open("rb") as file:
        file.seek(member.header_offset)
        fields = _LOCAL.unpack(file.read(_LOCAL.size))
        name = file.read(fields[9]).decode("utf-8" if fields[2] & _UTF8 else "cp437")
    if not _stays_inside(name):
        raise ArchiveInvalid(reason=_LEADS_OUT)
    return name


def _check_members(members: list[zipfile.ZipInfo], limits: ArchiveLimits, archive_bytes: int) -> None:
    if len(members) > limits.members:
        raise UploadTooLarge(limit=limits.members, unit="files")
    for member in members:
        _check_member(member)
    content = sum(member.file_size for member in members)
    packed = sum(member.compress_size for member in members)
    if packed > archive_bytes:
        raise ArchiveInvalid(reason="its members overlap")
    in_all = limits.content_before + content
    if in_all > RATIO_COUNTS_FROM_BYTES and in_all > limits.ratio * (limits.packed_so_far or packed):
        raise ArchiveInvalid(reason=f"the archives of this upload unpack to more than {limits.ratio:.0f} times their size")
    if content > limits.content_bytes:
        raise UploadTooLarge(limit=limits.content_bytes, unit="bytes")
    if content > limits.disk_bytes:
        raise StorageFull


def _check_member(member: zipfile.ZipInfo) -> None:
    if not _stays_inside(member.orig_filename):
        raise ArchiveInvalid(reason=_LEADS_OUT)
    if stat.S_ISLNK(member.external_attr >> 16):
        raise ArchiveInvalid(reason="a member is a symbolic link")
    if member.flag_bits & _ENCRYPTED:
        raise ArchiveInvalid(reason="it is encrypted; send it without a password")
    if member.compress_type not in _METHODS:
        raise ArchiveInvalid(reason="it is packed in a way that this server does not read; use the usual 'deflate'")


def _stays_inside(name: str) -> bool:
    """Whether a member's name is a relative path without a drive. It is never used as a path: this tells honest archives."""
    parts = name.replace("\\", "/").split("/")
    return ".." not in parts and parts[0] != "" and not _DRIVE.match(name) and "\0" not in name


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

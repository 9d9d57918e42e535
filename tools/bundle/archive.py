"""A folder as one archive, with checksums of all its files."""

import hashlib
import tarfile
from pathlib import Path
from typing import Final

CHECKSUMS: Final = "SHA256SUMS"


def write_checksums(folder: Path) -> None:
    """Write the checksums of a folder's files into it.

    ``sha256sum -c`` reads them.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != CHECKSUMS)
    lines = [f"{sha256_of(path)}  {path.relative_to(folder)}\n" for path in files]
    (folder / CHECKSUMS).write_text("".join(lines), encoding="utf-8")


def pack(folder: Path, archive: Path) -> None:
    """Write a folder into an archive, and its checksum beside it.

    The archive tells nothing of who made it.
    """
    with tarfile.open(archive, "w") as tar:
        for path in sorted(folder.rglob("*")):
            tar.add(path, Path(folder.name) / path.relative_to(folder), recursive=False, filter=_anonymous)
    checksum = archive.with_name(f"{archive.name}.sha256")
    checksum.write_text(f"{sha256_of(archive)}  {archive.name}\n", encoding="utf-8")


def sha256_of(file: Path) -> str:
    """As hexadecimal digits."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
    return member

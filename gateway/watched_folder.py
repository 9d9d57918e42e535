"""A watched folder: series that people drop.

By SMB or NFS, in any order and as slowly as their network is.

    FOLDER/…                   what is dropped, in subfolders or not
    FOLDER/done/SERIES_UID/    what was taken in, with the results beside it
    FOLDER/refused/SERIES_UID/ what was not contoured, with reason.txt beside it
    FOLDER/refused/            files that are no CT image or RTSTRUCT, each with FILE.reason.txt

Nothing is asked of the share but listing, reading and renaming: there is no notification on NFS or SMB, and a file that is being
written looks like any other. So it is looked at again and again, and taken when it has stayed the same and has an end.
"""

import errno
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from gateway.configuration import Watch
from gateway.inbox import DiskLow, Inbox
from gateway.instances import check_end, identify
from gateway.places import DONE
from gateway.rules import Sent
from gateway.store import Series, Store
from oarlock.dicom.unusable import Unusable

log = logging.getLogger(__name__)

REFUSED: Final = "refused"
REASON: Final = "reason.txt"
_GIVE_UP_LOOKS: Final = 300
"""Looks after which a file without an end is refused: whoever writes it has stopped."""

_Mark = tuple[int, int]
"""Size and time of a file."""


class WatchedFolder:
    """Takes in what is dropped into one folder."""

    def __init__(self, watch: Watch, store: Store, inbox: Inbox) -> None:
        self._watch, self._store, self._inbox = watch, store, inbox
        self._seen: dict[Path, tuple[_Mark, int]] = {}

    def step(self) -> None:
        """Look once.

        Take what is whole, and put aside what was refused in the meantime.
        """
        try:
            self._look()
            for path, (_, looks) in list(self._seen.items()):
                if looks >= self._watch.looks:
                    self._try(path, looks)
        except (DiskLow, OSError) as error:  # a full disk, a share that is away: looked at again
            log.warning("a watched folder has to wait", extra={"reason": type(error).__name__})
            return
        for series in self._store.series(held=True):
            if series.calling == self._watch.name and (reason := self._why_not(series)):
                self._refuse_series(series, reason)

    def _look(self) -> None:
        """Note how often each file that lies there was seen as it is.

        :raises OSError: the folder cannot be listed.
        """
        before, self._seen = self._seen, {path: (mark, 0) for path, mark in self._dropped()}
        for path, (mark, _) in self._seen.items():
            known, looks = before.get(path, (mark, 0))
            self._seen[path] = (mark, looks + 1 if known == mark else 1)

    def _try(self, path: Path, looks: int) -> None:
        """Take a file; one that cannot be taken keeps no other waiting, and is refused in the end.

        :raises DiskLow: if the disk is too full for another file.
        """
        try:
            self._take(path, looks)
        except (OSError, ValueError, Unusable) as error:  # somebody holds it, or it is not to be read
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise DiskLow from None
            log.warning("a dropped file has to wait", extra={"reason": type(error).__name__})
            if looks >= _GIVE_UP_LOOKS:
                with suppress(OSError):  # it cannot be moved either
                    self._refuse_file(path, f"it cannot be taken ({type(error).__name__})")

    def _dropped(self) -> Iterator[tuple[Path, _Mark]]:
        """The files that lie there, but for hidden ones and those that are still named as parts.

        :raises OSError: the folder itself cannot be listed; a subfolder that cannot is passed over.
        """
        os.scandir(self._watch.path).close()
        for folder, folders, names in os.walk(self._watch.path):
            if Path(folder) == self._watch.path:
                folders[:] = [name for name in folders if name not in (DONE, REFUSED)]
            for name in sorted(names):
                path = Path(folder, name)
                if not name.startswith(".") and path.suffix.lower() not in (".part", ".tmp", ".filepart", ".crdownload"):
                    with suppress(OSError):
                        found = path.stat()
                        yield path, (found.st_size, found.st_mtime_ns)

    def _take(self, path: Path, looks: int) -> None:
        try:
            identity = identify(path)
            check_end(path)
        except Unusable as reason:
            cut_off = path.stat().st_size == 0 or "cut off" in str(reason)
            if not cut_off or looks >= _GIVE_UP_LOOKS:
                self._refuse_file(path, str(reason))
            return
        self._inbox.take(path.read_bytes(), Sent(self._watch.name, self._watch.called), association=None)
        uid = min(identity.names, default=identity.series_uid)
        move(path, self._watch.path / DONE / uid / path.name)
        self._seen.pop(path, None)

    def _refuse_file(self, path: Path, reason: str) -> None:
        moved = move(path, self._watch.path / REFUSED / path.name)
        moved.with_name(f"{moved.name}.{REASON}").write_text(f"{reason}\n", encoding="utf-8")
        self._seen.pop(path, None)
        log.warning("dropped file refused", extra={"reason": reason})

    def _why_not(self, series: Series) -> str:
        """Why a series is not contoured; empty while that is open, and where it is."""
        if series.note:
            return f"It was left alone: {series.note}."
        posts = self._store.posts(series=series.id)
        failed = not series.changed and posts and posts[-1].state in ("refused", "failed")
        return posts[-1].note if failed else ""

    def _refuse_series(self, series: Series, reason: str) -> None:
        done, refused = self._watch.path / DONE / series.uid, self._watch.path / REFUSED / series.uid
        if not done.is_dir():
            return
        for path in sorted(done.iterdir()):
            move(path, refused / path.name)
        (refused / REASON).write_text(f"{reason}\n", encoding="utf-8")
        done.rmdir()


def move(path: Path, to: Path) -> Path:
    """Move a file to a new place; where it is now.

    Under another name if one is there already.

    Across file systems, where a rename fails, it is copied, written through and only then deleted.
    """
    to.parent.mkdir(parents=True, exist_ok=True)
    number = 1
    while to.exists():
        number += 1
        to = to.with_name(f"{to.stem.rsplit('~', 1)[0]}~{number}{to.suffix}")
    try:
        path.rename(to)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        part = to.with_name(f"{to.name}.part")
        with path.open("rb") as source, part.open("wb") as copy:
            shutil.copyfileobj(source, copy)
            copy.flush()
            os.fsync(copy.fileno())
        part.rename(to)
        path.unlink()
    return to

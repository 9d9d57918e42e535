"""Instances that were stored one by one (STOW-RS).

They are not yet a job: collected by series until no more come.

    DATA/received/lock                  locked while instances are added or taken away
    DATA/received/KEY/about.json        who sent them, and of which series they are
    DATA/received/KEY/SHA256            an instance, named after its content
    DATA/received/KEY/refused.json      why no job could be made of them

A folder belongs to one sender and one series. What is in it survives a restart and a power cut. The same bytes are there once.
"""

import hashlib
import os
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

import orjson

from oarlock.store.files import delete, flush

_ABOUT: Final = "about.json"
_REFUSED: Final = "refused.json"
_DIGEST_LENGTH: Final = 64


@dataclass(frozen=True, slots=True)
class Sender:
    """Who stored instances, and how their jobs are made.

    What their key says.
    """

    id: str
    name: str
    address: str | None
    profile: str | None
    keep_input_s: int | None
    keep_results_s: int | None
    site: str = ""


@dataclass(frozen=True, slots=True)
class About:
    """What is known of a folder.

    ``nonce`` is new with each folder: two of the same series are two jobs.
    """

    sender: Sender
    study_instance_uid: str
    series_instance_uid: str
    nonce: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """The error for which no job was made.

    Its code, title and sentence, and when the newest instance had come that it is of.
    """

    code: str
    title: str
    detail: str
    at: float


@dataclass(frozen=True, slots=True)
class Collected:
    """One folder as it was found.

    ``changed_at`` is when the newest instance came, in seconds since 1970.
    """

    key: str
    about: About
    files: tuple[Path, ...]
    changed_at: float
    refusal: Refusal | None

    @property
    def digests(self) -> list[str]:
        """SHA-256 of each file."""
        return [path.name for path in self.files]


class Received:
    """The folders of series that are being received.

    :param data: the data folder, on one file system with the jobs.
    """

    def __init__(self, data: Path) -> None:
        self._folder = data / "received"

    def add(self, sender: Sender, study_uid: str, series_uid: str, files: Sequence[tuple[Path, str]], *, most: int) -> int:
        """Move files into the folder of their series.

        When this returns, they survive a power cut.

        :param files: each with the SHA-256 of its content.
        :param most: how many files a folder may hold.
        :returns: how many files, from the first on, were taken; those that are there already count.
        """
        for path, _ in files:
            flush(path)
        with self._locked():
            folder = self._folder / key_of(sender, series_uid)
            self._begin(folder, About(sender, study_uid, series_uid, secrets.token_hex(16)))
            there = {path.name for path in _instances(folder)}
            taken = 0
            for path, digest in files:
                if digest not in there:
                    if len(there) >= most:
                        break
                    path.rename(folder / digest)
                    there.add(digest)
                os.utime(folder / digest)  # of two with one SOP Instance UID, the one that came last counts
                taken += 1
            os.utime(folder)
            flush(folder)
        return taken

    def all(self, site: str = "") -> list[Collected]:
        """Every folder of a site, the longest waiting first.

        Of one site, or of all sites.
        """
        if not self._folder.is_dir():
            return []
        found = [self._read(folder) for folder in self._folder.iterdir() if folder.is_dir()]
        seen = [one for one in found if one is not None and site in {"", one.about.sender.site}]
        return sorted(seen, key=lambda one: one.changed_at)

    def counts(self) -> tuple[int, int]:
        """How many series of all sites wait to become a job.

        And of how many no job could be made.

        No instance is looked at: thousands may wait.
        """
        waiting = refused = 0
        for folder in self._folder.iterdir() if self._folder.is_dir() else ():
            with suppress(FileNotFoundError, NotADirectoryError):
                if not folder.name.startswith(".") and (folder / _ABOUT).stat():
                    is_refused = _is_refused(folder)
                    refused, waiting = refused + is_refused, waiting + (not is_refused)
        return waiting, refused

    def settle(self, collected: Collected) -> None:
        """Take away what has become a job.

        What came in the meantime stays, and waits as a new folder would.
        """
        with self._locked():
            for path in collected.files:
                path.unlink(missing_ok=True)
            folder = self._folder / collected.key
            if not folder.is_dir():
                return
            (folder / _REFUSED).unlink(missing_ok=True)
            if any(_instances(folder)):
                _write(folder / _ABOUT, asdict(replace(collected.about, nonce=secrets.token_hex(16))))
            else:
                delete(folder)

    def refuse(self, collected: Collected, refusal: Refusal) -> None:
        """Note why no job was made.

        Its instances stay until more of them come, they are deleted, or their time is up. Nothing is noted of a folder that more
        have come into meanwhile.
        """
        with self._locked(), suppress(FileNotFoundError):
            folder = self._folder / collected.key
            changed = folder.stat()
            if changed.st_mtime != collected.changed_at:
                return
            _write(folder / _REFUSED, asdict(refusal))
            os.utime(folder, ns=(changed.st_atime_ns, changed.st_mtime_ns))  # when the newest instance came

    def delete(self, key: str, site: str = "") -> bool:
        """Delete a folder of a site; False if there is none.

        With what is in it.
        """
        with self._locked():
            there = any(one.key == key for one in self.all(site))
            if there:
                delete(self._folder / key)
            return there

    def _begin(self, folder: Path, about: About) -> None:
        """Make a folder that names its sender from the first moment on."""
        if folder.is_dir():
            return
        hidden = self._folder / f".{folder.name}"
        delete(hidden)
        hidden.mkdir()
        _write(hidden / _ABOUT, asdict(about))
        hidden.rename(folder)
        flush(self._folder)

    def _read(self, folder: Path) -> Collected | None:
        """A folder; None if it is gone, or not whole yet."""
        try:
            about = orjson.loads((folder / _ABOUT).read_bytes())
            changed_at, files = folder.stat().st_mtime, tuple(_instances(folder))
            refused = folder / _REFUSED
            refusal = Refusal(**orjson.loads(refused.read_bytes())) if refused.is_file() else None
        except FileNotFoundError:
            return None
        if folder.name.startswith("."):
            return None
        sender = Sender(**about.pop("sender"))
        return Collected(folder.name, About(sender, **about), files, changed_at, refusal)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One process and thread at a time, where the file system has locks."""
        import fcntl  # not on Windows, where no service runs

        self._folder.mkdir(exist_ok=True, mode=0o700)
        descriptor = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            with suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _is_refused(folder: Path) -> bool:
    """Whether no job could be made, and nothing has come since."""
    note = folder / _REFUSED
    return note.is_file() and folder.stat().st_mtime <= Refusal(**orjson.loads(note.read_bytes())).at


def key_of(sender: Sender, series_uid: str) -> str:
    """The name of the folder of a sender's series.

    One key or person may send for one site after another.
    """
    own = f"{sender.id}\0{series_uid}"
    return hashlib.sha256((f"{sender.site}\0{own}" if sender.site else own).encode()).hexdigest()[:32]


def is_quiet(collected: Collected, seconds: float) -> bool:
    """Whether nothing has come for so long."""
    return time.time() - collected.changed_at >= seconds


def _instances(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if len(path.name) == _DIGEST_LENGTH)


def _write(path: Path, document: object) -> None:
    """Put a small file in its place in one step, after it has reached the disk."""
    hidden = path.with_name(f".{path.name}")
    hidden.write_bytes(orjson.dumps(document))
    flush(hidden)
    hidden.rename(path)

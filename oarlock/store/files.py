"""Storage: the files of jobs.

In folders that appear whole or not at all.

    DATA/incoming/RANDOM/input/000001 …      an upload that is still being received
    DATA/incoming/RANDOM/lock                an empty file, locked by who receives it until the post has ended
    DATA/jobs/JOB/input/000001 …             the same folder after one rename: files in the order of the upload
    DATA/jobs/JOB/writing-TOKEN/             results that a worker is still writing
    DATA/jobs/JOB/results-TOKEN/             the same folder after one rename
    DATA/jobs/JOB/returned/                  RTSTRUCTs that were approved for the job, and the comparisons with them
    DATA/jobs/JOB/shadow/                    what a second model is drawing, for the scores alone
    DATA/trash/RANDOM/                       what is being deleted

A file is named by its place in the upload and never by its sender. Results carry the fencing token of the worker that wrote them,
and the highest token counts: a worker that was replaced but wakes up and finishes changes nothing that anyone reads.
"""

import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from oarlock.errors import JobExpired, OarlockError, ResultNotFound, StorageFull, StorageUnavailable
from oarlock.store.jobs import JobId

FLUSHED_AT_ONCE: Final = 8

RTSTRUCT: Final = "rtstruct.dcm"
QA_REPORT: Final = "qa.json"
PREVIEW: Final = "preview.png"
RENDERING: Final = "rendering.npz"
GEOMETRY: Final = "geometry.json"
REVIEW: Final = "review.json"
REVIEW_DATA: Final = "review.bin"
RESULTS: Final = (RTSTRUCT, QA_REPORT, PREVIEW, RENDERING, GEOMETRY, REVIEW, REVIEW_DATA)
"""Every file that a job may have as a result."""

SEGMENTATION: Final = "segmentation.dcm"
"""What the file is called that is made of results when it is asked for."""

_REFERENCE: Final = re.compile(r"reference-\d{3,}\.dcm")


def reference_name(position: int) -> str:
    """Name under which a supplied RTSTRUCT is kept with the results.

    :param position: among those that were supplied, from 1.
    """
    return f"reference-{position:03d}.dcm"


STALE_S: Final = 3_600.0
"""Age in seconds at which an upload whose lock cannot be queried counts as abandoned."""

PRIVATE_UMASK: Final = 0o077
"""With it whatever a process makes is for its own user alone: the data folder holds patients, and the table who saw them."""

SHADOW_RTSTRUCT: Final = "shadow.dcm"
"""What a shadow run drew, among what came back for a job: it is compared with what is approved later, and never fetched."""

_INPUT = "input"
_LOCK = "lock"
_WRITING = "writing-"
_RESULTS = "results-"
_RETURNED = "returned"
_SHADOW = "shadow"


class Incoming:
    """A folder for the files of one upload.

    They are numbered in the order of their arrival.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files: list[Path] = []
        (folder / _INPUT).mkdir(parents=True)

    def next_file(self) -> Path:
        """The path for the next file of the upload.

        The caller writes it.
        """
        path = self.folder / _INPUT / f"{len(self.files) + 1:06d}"
        self.files.append(path)
        return path

    @contextmanager
    def replaced(self) -> Iterator[Callable[[], Path]]:
        """Replace the files of the upload.

        Yields the path of each next one, and deletes the old ones at the end.
        """
        anew = Incoming(self.folder / "anew")
        yield anew.next_file
        shutil.rmtree(self.folder / _INPUT)
        (anew.folder / _INPUT).rename(self.folder / _INPUT)
        anew.folder.rmdir()
        self.files[:] = [self.folder / _INPUT / path.name for path in anew.files]


class Storage:
    """The files of all jobs in one data folder.

    :param data: must lie on one file system, so that a rename is atomic.
    :param create: whether to make missing folders. A worker does not: so it can tell a service's data folder from an empty mount
        point.
    """

    def __init__(self, data: Path, *, create: bool = True) -> None:
        self._jobs, self._incoming, self._trash = data / "jobs", data / "incoming", data / "trash"
        for folder in (self._jobs, self._incoming, self._trash) if create else ():
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    # ── uploads ───────────────────────────────────────────────────────────────────────────────────────────────────────

    @contextmanager
    def incoming(self) -> Iterator[Incoming]:
        """A fresh folder for an upload.

        It is removed at the end of the block unless it was adopted.

        It is locked until then, also after it was adopted: a job whose post has not ended may have no row yet.
        """
        with _locked_folder(self._incoming) as folder:
            incoming = Incoming(folder)
            try:
                yield incoming
            finally:
                (incoming.folder / _LOCK).unlink(missing_ok=True)  # of a job, if it was adopted

    def adopt(self, incoming: Incoming, job_id: JobId) -> None:
        """Make an upload the input of a job.

        When this returns, its files survive a power cut.
        """
        flush_all(incoming.files)
        flush(incoming.folder / _INPUT)
        flush(incoming.folder)
        incoming.folder = incoming.folder.rename(self._job(job_id))
        flush(self._jobs)

    def input_files(self, job_id: JobId) -> list[Path]:
        """The files of a job's upload, in order of arrival.

        :raises JobExpired: if they were deleted.
        :raises StorageUnavailable: if the data folder is not there.
        """
        try:
            return sorted((self._job(job_id) / _INPUT).iterdir())
        except FileNotFoundError as error:
            raise self._gone() from error

    def drop_input(self, job_id: JobId) -> None:
        """Delete the upload of a job and keep its results."""
        self._discard(self._job(job_id) / _INPUT)

    # ── results ───────────────────────────────────────────────────────────────────────────────────────────────────────

    @contextmanager
    def results_writer(self, job_id: JobId, token: int) -> Iterator[Path]:
        """A fresh folder to write results into.

        They appear to readers at the end of the block, all at once.

        If the block raises, nothing appears. What workers with older tokens left is removed.

        :param token: the fencing token of the worker's lease.
        :raises JobExpired: if the job's bytes were deleted, before or in the meantime.
        :raises StorageUnavailable: if the data folder is not there, or no longer.
        """
        folder = self._job(job_id) / f"{_WRITING}{token}"
        self._discard(folder)
        try:
            folder.mkdir()
            yield folder
            self._publish(folder, token)
        except FileNotFoundError as error:
            if self._job(job_id).is_dir():
                raise
            raise self._gone() from error
        finally:
            delete(folder)

    def result(self, job_id: JobId, name: str) -> Path:
        """The path of one result, one of :data:`RESULTS` or a :func:`reference_name`.

        :raises ResultNotFound: if there is none.
        """
        tokens = self._tokens(self._job(job_id), _RESULTS)
        path = self._job(job_id) / f"{_RESULTS}{max(tokens, default=0)}" / name
        if not (name in RESULTS or _REFERENCE.fullmatch(name)) or not path.is_file():
            raise ResultNotFound(what=name)
        return path

    @contextmanager
    def shadow_folder(self, job_id: JobId) -> Iterator[Path]:
        """A fresh folder for a shadow run to write into.

        It is deleted at the end of the block.

        :raises JobExpired: if the job's bytes were deleted, before or in the meantime.
        :raises StorageUnavailable: if the data folder is not there, or no longer.
        """
        folder = self._job(job_id) / _SHADOW
        self._discard(folder)
        try:
            folder.mkdir()
            yield folder
        except FileNotFoundError as error:
            if self._job(job_id).is_dir():
                raise
            raise self._gone() from error
        finally:
            delete(folder)

    # ── what comes back ───────────────────────────────────────────────────────────────────────────────────────────────

    def keep_returned(self, job_id: JobId, name: str, content: bytes) -> None:
        """Keep a file that came back for a job.

        Whole or not at all; it goes with the job.

        :raises JobExpired: if the job's bytes were deleted, before or in the meantime.
        """
        folder = self._job(job_id) / _RETURNED
        writing = folder / f".{secrets.token_hex(16)}"
        try:
            folder.mkdir(exist_ok=True)
            writing.write_bytes(content)
            flush(writing)
            writing.rename(folder / Path(name).name)
            flush(folder)
        except FileNotFoundError as error:
            raise self._gone() from error
        finally:
            writing.unlink(missing_ok=True)

    def returned(self, job_id: JobId, name: str) -> bytes:
        """The content of a file that :meth:`keep_returned` kept.

        :raises ResultNotFound: if there is none.
        """
        return self.returned_path(job_id, name).read_bytes()

    def returned_path(self, job_id: JobId, name: str) -> Path:
        """The path of a file that :meth:`keep_returned` kept.

        :raises ResultNotFound: if there is none.
        """
        path = self._job(job_id) / _RETURNED / Path(name).name
        if not path.is_file():
            raise ResultNotFound(what=name)
        return path

    def _publish(self, folder: Path, token: int) -> None:
        for path in folder.iterdir():
            flush(path)
        flush(folder)
        job = folder.parent
        published = job / f"{_RESULTS}{token}"
        self._discard(published)
        folder.rename(published)
        flush(job)
        for prefix in (_RESULTS, _WRITING):
            for older in (t for t in self._tokens(job, prefix) if t < token):
                self._discard(job / f"{prefix}{older}")

    # ── deleting ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def purge(self, job_id: JobId) -> None:
        """Delete all files of a job.

        A worker that still writes to it finds its folder gone.
        """
        self._discard(self._job(job_id))

    def sweep(self) -> int:
        """Delete abandoned uploads, and what a crash left in the trash.

        :returns: how many uploads were deleted.
        """
        stale = [path for path in self._incoming.iterdir() if not _is_held(path)]
        for path in stale:
            self._discard(path)
        for path in self._trash.iterdir():
            delete(path)
        return len(stale)

    def job_ids(self) -> list[JobId]:
        """The jobs that have files here and whose post has ended."""
        return [JobId(path.name) for path in self._jobs.iterdir() if path.is_dir() and not _is_held(path)]

    def unfinished(self) -> list[tuple[JobId, int]]:
        """Unpublished results, written or abandoned: job and fencing token of each."""
        found = self._jobs.glob(f"*/{_WRITING}*")
        return [(JobId(path.parent.name), int(path.name.removeprefix(_WRITING))) for path in found]

    def drop_unfinished(self, job_id: JobId, token: int) -> None:
        """Delete abandoned results.

        Their worker, if it wakes up, finds its folder gone.
        """
        self._discard(self._job(job_id) / f"{_WRITING}{token}")

    def is_there(self) -> bool:
        """Whether the data folder was made and can be read.

        A service makes it.
        """
        try:
            return self._jobs.is_dir()
        except OSError:  # the other end of a share is away
            return False

    def room_bytes(self, *, keep_bytes: int = 0) -> int:
        """How much may be written to the data folder's disk, see :func:`room_bytes`.

        :raises OSError: if the data folder is not there.
        """
        return room_bytes(self._jobs, keep_bytes=keep_bytes)

    def check_room(self, *, keep_bytes: int, more_bytes: int) -> None:
        """Check that so much more fits on the data folder's disk.

        :raises StorageFull: if not.
        """
        check_room(self._jobs, keep_bytes=keep_bytes, more_bytes=more_bytes)

    def check(self) -> None:
        """Write, flush, rename and delete a file.

        :raises OSError: if the data folder does not take it.
        """
        probe = self._incoming / secrets.token_hex(16)
        probe.write_bytes(b"oarlock")
        flush(probe)
        probe.rename(probe.with_suffix(".renamed")).unlink()

    def _discard(self, path: Path) -> None:
        """Move a folder away in one step, then delete it, so that a writer cannot add files during the deletion."""
        away = self._trash / secrets.token_hex(16)
        with suppress(FileNotFoundError):
            path.rename(away)
            delete(away)

    # ── paths ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _gone(self) -> OarlockError:
        """Why the files of a job are not found."""
        return JobExpired() if self.is_there() else StorageUnavailable()

    def _job(self, job_id: JobId) -> Path:
        if Path(job_id).name != job_id:
            raise ValueError("a job id is one plain file name")
        return self._jobs / job_id

    def _tokens(self, job: Path, prefix: str) -> list[int]:
        return [int(path.name.removeprefix(prefix)) for path in job.glob(f"{prefix}*")]


def make_private(data: Path) -> None:
    """Make the data folder, for this user alone.

    It, the database and the logs are taken away from other users, also where they were there.

    A folder that belongs to somebody else stays as it is: its owner has to do it.
    """
    data.mkdir(parents=True, exist_ok=True, mode=0o700)
    for path in (data, *data.glob("oarlock.sqlite*"), *data.glob("logs/*"), *data.glob("redis/*")):
        with suppress(PermissionError):
            path.chmod(0o700 if path.is_dir() else 0o600)


def room_bytes(folder: Path, *, keep_bytes: int) -> int:
    """How much may be written until only so much is free.

    On the disk of a folder; negative if less is free already.

    The one place that asks how full a disk is. What is free counts for unprivileged users.

    :raises OSError: if the folder is not there.
    """
    return shutil.disk_usage(folder).free - keep_bytes


def check_room(folder: Path, *, keep_bytes: int, more_bytes: int = 0) -> None:
    """Check that so much more fits on a folder's disk.

    :raises StorageFull: if not.
    """
    if room_bytes(folder, keep_bytes=keep_bytes) < more_bytes:
        raise StorageFull


def delete(path: Path) -> None:
    """Remove a folder, or a file.

    What another process already removed is no error.
    """
    if path.is_file():
        path.unlink(missing_ok=True)
    shutil.rmtree(path, ignore_errors=True)


def flush(path: Path) -> None:
    """Wait until a file or a folder's entries are on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def flush_all(paths: Sequence[Path]) -> None:
    """Wait until files are on disk; of many, several at once.

    A disk, or a server of files, writes them together.
    """
    with ThreadPoolExecutor(min(len(paths), FLUSHED_AT_ONCE) or 1, thread_name_prefix="flush") as pool:
        for _ in pool.map(flush, paths):
            pass


@contextmanager
def _locked_folder(parent: Path) -> Iterator[Path]:
    """A new folder that is locked before anybody else sees its name, and deleted at the end of the block unless it was moved.

    The kernel takes the lock off a process that was killed. It is a file within that is locked, and open for writing: NFS and
    other shared file systems tell other machines of a lock on such a file, but keep one on a folder to themselves.
    """
    name = secrets.token_hex(16)
    hidden, folder = parent / f".{name}", parent / name
    try:
        hidden.mkdir()
        with _locked(hidden / _LOCK):
            hidden.rename(folder)
            yield folder
    finally:
        for left in (hidden, folder):
            delete(left)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """A new file that is locked until the end of the block, where the file system has locks."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        _try_to_lock(descriptor)
        yield
    finally:
        os.close(descriptor)


def _is_held(folder: Path) -> bool:
    """Whether a process that lives, on any machine, has this folder locked.

    One whose lock cannot be asked for (it has no name yet, or the file system has no locks) counts as held for an hour.
    """
    try:
        free = not folder.name.startswith(".") and _is_free(folder / _LOCK)
    except BlockingIOError:
        return True
    return not free and _last_change(folder) > time.time() - STALE_S


def _is_free(lock: Path) -> bool:
    """Whether nobody holds a lock; False where the file system has none.

    :raises BlockingIOError: if somebody does.
    """
    try:
        descriptor = os.open(lock, os.O_RDWR)
    except FileNotFoundError:
        return True
    try:
        return _try_to_lock(descriptor)
    finally:
        os.close(descriptor)


def _try_to_lock(descriptor: int) -> bool:
    """Whether it is ours now.

    :raises BlockingIOError: if it is another's.
    """
    import fcntl  # not on Windows, where files and folders work but no service does

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:
        return False
    return True


def _last_change(folder: Path) -> float:
    """When the newest entry of a folder was changed; long ago if the folder is gone."""
    return max((_changed_at(path) for path in [folder, *folder.rglob("*")]), default=0.0)


def _changed_at(path: Path) -> float:
    """When a path was changed; long ago if it is gone, which says nothing about its neighbours."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0

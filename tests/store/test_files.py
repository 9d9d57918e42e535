"""The bytes of a job: whole or not there, and gone when they are purged."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from oarlock.errors import JobExpired, ResultNotFound, StorageUnavailable
from oarlock.store.files import RTSTRUCT, Incoming, Storage
from oarlock.store.jobs import JobId

A = JobId("a")


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(tmp_path / "data")


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def receive(storage: Storage, job_id: JobId = A, contents: tuple[bytes, ...] = (b"one", b"two")) -> None:
    with storage.incoming() as incoming:
        for content in contents:
            incoming.next_file().write_bytes(content)
        storage.adopt(incoming, job_id)


def write_results(storage: Storage, token: int, content: bytes = b"result") -> None:
    with storage.results_writer(A, token) as folder:
        (folder / RTSTRUCT).write_bytes(content)


def age(folder: Path, seconds: float) -> None:
    for path in [folder, *folder.rglob("*")]:
        then = path.stat().st_mtime - seconds
        os.utime(path, (then, then))


def test_an_adopted_upload_is_the_input_of_the_job_in_the_order_of_the_upload(storage: Storage, tmp_path: Path) -> None:
    receive(storage, contents=tuple(bytes([i]) for i in range(12)))
    assert [path.read_bytes() for path in storage.input_files(A)] == [bytes([i]) for i in range(12)]
    assert len(files(tmp_path)) == 12


def test_an_upload_that_is_not_adopted_leaves_nothing_behind(storage: Storage, tmp_path: Path) -> None:
    def interrupted(incoming: Incoming) -> None:
        incoming.next_file().write_bytes(b"half a file")
        raise ConnectionError

    with pytest.raises(ConnectionError), storage.incoming() as incoming:
        interrupted(incoming)
    assert files(tmp_path) == []
    assert list((tmp_path / "data" / "incoming").iterdir()) == []


def test_results_appear_all_at_once_and_only_when_the_writer_is_done(storage: Storage) -> None:
    receive(storage)
    with storage.results_writer(A, 1) as folder:
        (folder / RTSTRUCT).write_bytes(b"result")
        with pytest.raises(ResultNotFound):
            storage.result(A, RTSTRUCT)
    assert storage.result(A, RTSTRUCT).read_bytes() == b"result"


def test_results_of_a_writer_that_fails_do_not_appear(storage: Storage, tmp_path: Path) -> None:
    receive(storage)

    def fail(folder: Path) -> None:
        (folder / RTSTRUCT).write_bytes(b"half a result")
        raise MemoryError

    with pytest.raises(MemoryError), storage.results_writer(A, 1) as folder:
        fail(folder)
    with pytest.raises(ResultNotFound):
        storage.result(A, RTSTRUCT)
    assert files(tmp_path) == ["data/jobs/a/input/000001", "data/jobs/a/input/000002"]


def test_a_worker_that_was_replaced_and_finishes_late_changes_nothing_that_is_read(storage: Storage) -> None:
    receive(storage)
    with storage.results_writer(A, 1) as late:
        (late / RTSTRUCT).write_bytes(b"old")
        write_results(storage, token=2, content=b"new")
        assert storage.result(A, RTSTRUCT).read_bytes() == b"new"
        late.mkdir(exist_ok=True)  # its folder was swept away as an older worker's; it goes on all the same
        (late / RTSTRUCT).write_bytes(b"old")
    assert storage.result(A, RTSTRUCT).read_bytes() == b"new"


def test_only_the_newest_results_and_nothing_half_written_stay_on_the_disk(storage: Storage, tmp_path: Path) -> None:
    receive(storage)
    write_results(storage, token=1)
    crashed = tmp_path / "data" / "jobs" / "a" / "writing-2"
    crashed.mkdir()
    (crashed / RTSTRUCT).write_bytes(b"half")
    write_results(storage, token=3)
    assert files(tmp_path / "data" / "jobs" / "a") == ["input/000001", "input/000002", f"results-3/{RTSTRUCT}"]


def test_a_worker_may_publish_again_what_it_published_before_it_died(storage: Storage) -> None:
    receive(storage)
    write_results(storage, token=1, content=b"before")
    write_results(storage, token=1, content=b"after")
    assert storage.result(A, RTSTRUCT).read_bytes() == b"after"


def test_a_purge_takes_every_byte(storage: Storage, tmp_path: Path) -> None:
    receive(storage)
    write_results(storage, token=1)
    storage.purge(A)
    storage.purge(A)
    assert files(tmp_path) == []
    with pytest.raises(JobExpired):
        storage.input_files(A)
    with pytest.raises(ResultNotFound):
        storage.result(A, RTSTRUCT)


def test_a_worker_that_writes_while_its_job_is_purged_is_told_and_leaves_nothing(storage: Storage, tmp_path: Path) -> None:
    def purged_between_two_files(folder: Path) -> None:
        (folder / RTSTRUCT).write_bytes(b"first file")
        storage.purge(A)
        (folder / "qa.json").write_bytes(b"second file")

    receive(storage)
    with pytest.raises(JobExpired), storage.results_writer(A, 1) as folder:
        purged_between_two_files(folder)
    with pytest.raises(JobExpired), storage.results_writer(A, 1) as folder:
        raise AssertionError
    assert files(tmp_path) == []


def test_the_input_can_go_while_the_results_stay(storage: Storage, tmp_path: Path) -> None:
    receive(storage)
    write_results(storage, token=1)
    storage.drop_input(A)
    assert files(tmp_path) == [f"data/jobs/a/results-1/{RTSTRUCT}"]


def test_what_a_crash_left_is_swept_and_what_is_being_received_or_kept_is_not(storage: Storage, tmp_path: Path) -> None:
    data = tmp_path / "data"
    receive(storage)
    write_results(storage, token=1)
    kept = files(data)
    Incoming(data / "incoming" / "dead").next_file().write_bytes(b"x")
    (data / "trash" / "half-deleted").mkdir()
    with storage.incoming() as alive:
        alive.next_file().write_bytes(b"x")
        age(data, 36_000)
        assert storage.sweep() == 1
        assert files(data) == sorted([*kept, *(f"incoming/{alive.folder.name}/{file}" for file in ("input/000001", "lock"))])
    assert list((data / "trash").iterdir()) == []
    assert files(data) == kept


def test_a_folder_that_has_no_lock_yet_is_given_up_after_an_hour(storage: Storage, tmp_path: Path) -> None:
    (tmp_path / "data" / "incoming" / ".new").mkdir()
    assert storage.sweep() == 0
    age(tmp_path / "data" / "incoming", 3_601)
    assert storage.sweep() == 1


def test_without_locks_an_upload_that_grows_is_held_and_one_that_was_left_alone_for_an_hour_is_not(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("oarlock.store.files._try_to_lock", lambda _: False)
    with storage.incoming() as incoming:
        first, second = incoming.next_file(), incoming.next_file()
        first.write_bytes(b"x")
        age(tmp_path / "data" / "incoming", 3_601)
        second.write_bytes(b"x")
        (incoming.folder / "archive").symlink_to("gone")  # as an unpacked archive goes, in the middle of an upload
        assert storage.sweep() == 0
        (incoming.folder / "archive").unlink()
        age(tmp_path / "data" / "incoming", 3_601)
        assert storage.sweep() == 1


def test_a_job_counts_as_one_when_its_post_has_ended_and_not_before(storage: Storage, tmp_path: Path) -> None:
    receive(storage)
    (tmp_path / "data" / "jobs" / "gone").symlink_to("nowhere")
    with storage.incoming() as incoming:
        incoming.next_file().write_bytes(b"x")
        storage.adopt(incoming, JobId("b"))
        assert storage.job_ids() == [A]
    assert sorted(storage.job_ids()) == [A, JobId("b")]


def test_results_that_nobody_writes_any_more_can_be_named_and_dropped(storage: Storage, tmp_path: Path) -> None:
    receive(storage)
    abandoned = tmp_path / "data" / "jobs" / A / "writing-7"
    abandoned.mkdir()
    with storage.results_writer(A, 8):
        assert sorted(storage.unfinished()) == [(A, 7), (A, 8)]
        storage.drop_unfinished(A, 7)
        assert storage.unfinished() == [(A, 8)]
    assert not abandoned.exists()


def test_a_process_that_is_killed_while_it_receives_leaves_no_job(tmp_path: Path) -> None:
    program = f"""
import os, signal
from pathlib import Path
from oarlock.store.files import Storage
with Storage(Path({str(tmp_path / "data")!r})).incoming() as incoming:
    incoming.next_file().write_bytes(b"x" * 100_000)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -9
    storage = Storage(tmp_path / "data")
    assert list((tmp_path / "data" / "jobs").iterdir()) == []
    storage.sweep()
    assert files(tmp_path) == []


def test_a_result_is_one_of_the_known_names_and_a_job_id_is_no_path(storage: Storage) -> None:
    receive(storage)
    write_results(storage, token=1)
    with pytest.raises(ResultNotFound):
        storage.result(A, "../../input/000001")
    with pytest.raises(ValueError, match="plain file name"):
        storage.input_files(JobId("../incoming"))


def test_the_place_where_a_data_folder_is_to_be_mounted_is_none(tmp_path: Path) -> None:
    """A worker that made the folders itself would find every job expired."""
    at_worker = Storage(tmp_path / "data", create=False)
    assert not at_worker.is_there()
    with pytest.raises(StorageUnavailable):
        at_worker.input_files(A)
    with pytest.raises(StorageUnavailable), at_worker.results_writer(A, 1):
        pass
    assert files(tmp_path) == []
    receive(Storage(tmp_path / "data"))
    assert at_worker.is_there()
    assert len(at_worker.input_files(A)) == 2


def test_the_storage_can_be_asked_whether_it_takes_files(storage: Storage, tmp_path: Path) -> None:
    storage.check()
    assert files(tmp_path) == []
    keep = storage.room_bytes() // 2  # other programs write to the disk meanwhile, but not so much
    assert 0 < storage.room_bytes(keep_bytes=keep) < storage.room_bytes()

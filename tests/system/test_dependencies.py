"""What Oarlock stands on fails: the database is restarted, the disk runs full, a native call never returns."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import pytest
from sqlalchemy import text

from oarlock.store import migrations
from oarlock.store.jobs import JobState
from tests.fixtures import postgresql
from tests.system.department import STUCK, Department, wait_until

pytestmark = pytest.mark.slow

DISK_BYTES = 8_000_000
WAITS = "jobs wait in the queue"


def test_postgresql_is_killed_with_a_job_running_and_others_queued(tmp_path: Path, series: bytes) -> None:
    programs = postgresql.find_programs()
    if programs is None:
        pytest.skip("PostgreSQL's programs are not installed (apt-get install postgresql)")
    with (
        postgresql.running(programs) as server,
        server.database() as url,
        closing(Department(tmp_path / "department", DATABASE_URL=url)) as department,
    ):
        department.start()
        job_ids = [department.post(series) for _ in range(2)]
        department.caught(job_ids[0])
        server.kill()
        assert httpx.get(f"{department.url}/v1/jobs/{job_ids[0]}", timeout=60).status_code == 503
        server.start()
        department.check_all_succeed(*job_ids)


# ── the disk ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def small_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A disk of its own, small enough to be filled."""
    folder = tmp_path_factory.mktemp("disk")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", folder], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip("a small disk cannot be mounted here (it takes root)")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.fixture(scope="module")
def cramped(small_disk: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Department]:
    """A department whose jobs lie on the small disk; its table does not."""
    folder = tmp_path_factory.mktemp("cramped")
    made = Department(
        folder,
        data=small_disk / "data",
        DATABASE_URL=f"sqlite:///{folder / 'table.sqlite'}",
        OARLOCK_MIN_FREE_BYTES=str(DISK_BYTES // 8),
    )
    made.start()
    yield made
    made.close()


@contextmanager
def filled(disk: Path) -> Iterator[None]:
    """Nothing fits on the disk any more."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4_096))
        except OSError:
            pass
    yield
    filler.unlink()


@pytest.mark.long("matrix")
def test_the_disk_runs_full_during_an_upload(cramped: Department, series: bytes) -> None:
    with cramped.client() as client:
        answer = client.post("/v1/jobs", content=series + bytes(DISK_BYTES), headers={"Content-Type": "application/zip"})
    assert (answer.status_code, answer.json()["code"]) == (507, "storage.full")
    assert "Retry-After" in answer.headers
    cramped.check_nothing_is_left()
    cramped.check_all_succeed(cramped.post(series))


@pytest.mark.long("matrix")
def test_the_disk_runs_full_while_results_are_written(cramped: Department, small_disk: Path, series: bytes) -> None:
    running, unwanted, waiting = (cramped.post(series) for _ in range(3))
    cramped.caught(running)
    with filled(small_disk), cramped.client() as client:
        wait_until(cramped.is_in(running, JobState.QUEUED))
        wait_until(lambda: cramped.worker.log.read_text().count(WAITS) == 1)
        cramped.check_nothing_is_left()
        assert client.post("/v1/jobs", content=series, headers={"Content-Type": "application/zip"}).status_code == 507
        assert "what was accepted waits" in client.get("/readyz").json()["storage"]["detail"]
        assert client.post(f"/v1/jobs/{unwanted}/cancel").json()["state"] == "cancelled"
        assert cramped.worker.end() == 0
        cramped.start_worker()
        wait_until(lambda: WAITS in cramped.worker.log.read_text())
        assert cramped.store.counts()[JobState.QUEUED] == 2
    jobs = cramped.check_all_succeed(running, waiting)
    assert [job.attempts for job in jobs] == [1, 1]
    assert cramped.worker.log.read_text().count("jobs are taken") == 1


@pytest.mark.long("matrix")
def test_the_data_folder_is_away_while_a_job_runs(cramped: Department, small_disk: Path, series: bytes) -> None:
    """As when a share is unmounted: nothing of a job is there, and no job is over for that."""
    running, waiting = (cramped.post(series) for _ in range(2))
    cramped.caught(running)
    looked = cramped.worker.log.read_text().count(WAITS)
    cramped.data.rename(small_disk / "away")
    wait_until(cramped.is_in(running, JobState.QUEUED))
    wait_until(lambda: cramped.worker.log.read_text().count(WAITS) > looked)
    (small_disk / "away").rename(cramped.data)
    jobs = cramped.check_all_succeed(running, waiting)
    assert [job.attempts for job in jobs] == [1, 1]


@pytest.mark.long("matrix")
def test_a_worker_whose_data_folder_is_not_mounted_takes_no_job_and_is_missed(cramped: Department, series: bytes) -> None:
    assert cramped.worker.end() == 0
    place = cramped.folder / "mount"
    place.mkdir()
    worker = cramped.program("worker", name="unmounted", OARLOCK_DATA=str(place))
    cramped.start_worker(worker)
    job_id = cramped.post(series)
    wait_until(lambda: "is it mounted?): jobs wait in the queue" in worker.log.read_text())
    with cramped.client() as client:
        assert "1 job(s) wait" in client.get("/readyz").json()["workers"]["detail"]
        place.rmdir()
        place.symlink_to(cramped.data)
        wait_until(lambda: client.get("/readyz").is_success)
    (job,) = cramped.check_all_succeed(job_id)
    assert job.attempts == 1
    assert worker.end() == 0


# ── the schema ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.long("matrix")
def test_a_worker_takes_no_job_while_the_schema_is_not_its_own(department: Department, series: bytes) -> None:
    """As when one was forgotten in an upgrade (tests/worker/test_gate.py: newer and older)."""
    schema = "9999"

    def set_schema(version: str) -> None:
        with department.database.writing() as connection:
            connection.execute(text("UPDATE alembic_version SET version_num = :version"), {"version": version})

    looked = len(department.worker.log.read_text())
    set_schema(schema)
    try:
        wait_until(lambda: WAITS in department.worker.log.read_text()[looked:])
        assert f"the database has schema {schema}" in department.worker.log.read_text()[looked:]
        job_id = department.post(series)
        with department.client() as client:
            wait_until(lambda: schema in str(client.get("/readyz").json()["database"]))
        assert department.store.get(job_id).attempts == 0
    finally:
        set_schema(migrations.NEWEST)
    (job,) = department.check_all_succeed(job_id)
    assert job.attempts == 1


# ── the model ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.long("matrix")
def test_a_native_call_that_never_returns_ends_at_the_hard_limit_and_the_worker_goes_on(
    department: Department, series: bytes
) -> None:
    department.worker.kill()
    limited = department.program("worker", name="limited", OARLOCK_JOB_LIMIT_S="4")
    department.start_worker(limited)
    stuck, next_one = department.post(series, model=STUCK), department.post(series)
    (job,) = department.ended([stuck])
    assert (job.state, job.attempts) == (JobState.FAILED, 3)
    assert job.error is not None
    assert job.error.code == "job.attempts_exhausted"
    department.check_all_succeed(next_one)
    limited.kill()


@pytest.mark.long("matrix")
def test_a_worker_that_stands_still_is_replaced_and_changes_nothing_when_it_wakes_up(
    department: Department, series: bytes
) -> None:
    job_id = department.post(series)
    asleep = department.caught(job_id)
    os.kill(asleep, signal.SIGSTOP)
    other = department.program("worker", name="other")
    department.start_worker(other)
    (job,) = department.check_all_succeed(job_id)
    result = department.storage.result(job_id, "rtstruct.dcm").stat()
    os.kill(asleep, signal.SIGCONT)
    wait_until(lambda: "no longer this worker's" in department.worker.log.read_text())
    department.check_all_succeed(job_id)
    assert department.store.get(job_id) == job
    assert department.storage.result(job_id, "rtstruct.dcm").stat() == result
    assert other.end() == 0

"""Two machines: a service on each, workers on either, PostgreSQL, and one data folder on a shared file system."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from oarlock.store.files import Storage
from oarlock.store.jobs import JobId
from tests.fixtures import postgresql, shared_folder
from tests.system.department import Department, Program, wait_until

pytestmark = pytest.mark.slow


class Machines(Department):
    """The service and the worker on ``here``; what is started ``there`` sees the same files through a client of its own."""

    def __init__(self, folder: Path, here: Path, there: Path, database_url: str) -> None:
        super().__init__(folder, data=here / "data", DATABASE_URL=database_url)
        self.there = there / "data"

    def beside(self, module: str) -> Program:
        """One more component, on the other machine."""
        return self.program(module, name=f"{module} there", OARLOCK_DATA=str(self.there))

    def tidy_up_there(self) -> None:
        """Have a service of the other machine delete what a crash left, as it does when it starts."""
        service = self.beside("service")
        (self.there / "incoming" / "of a service that was killed").mkdir()
        service.start()
        wait_until(lambda: "leftovers deleted" in service.log.read_text())
        service.kill()


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory, postgresql_server: postgresql.Server) -> Iterator[Machines]:
    if missing := shared_folder.why_not():
        pytest.skip(missing)
    folder = tmp_path_factory.mktemp("machines")
    with (
        postgresql_server.database() as url,
        shared_folder.shared(folder / "shared") as (here, there),
        closing(Machines(folder / "department", here, there, url)) as machines,
    ):
        yield machines


@pytest.mark.long("matrix")
def test_a_job_that_one_machine_took_in_is_done_by_another_whose_worker_is_then_killed(machines: Machines, series: bytes) -> None:
    machines.start_redis()
    machines.start_service()
    worker = machines.beside("worker")
    machines.start_worker(worker)
    machines.check_all_succeed(machines.post(series), machines.post(series))
    job_id = machines.post(series)
    machines.caught(job_id)
    worker.kill()
    machines.start_worker()
    (job,) = machines.check_all_succeed(job_id)
    assert job.attempts > 1


@pytest.mark.long("matrix")
def test_a_service_that_tidies_up_leaves_alone_what_one_on_another_machine_takes_in(machines: Machines) -> None:
    machines.start()
    storage, job_id = Storage(machines.data), JobId("a-job-whose-post-has-not-ended")
    with storage.incoming() as upload:
        upload.next_file().write_bytes(b"CT")
        machines.tidy_up_there()
        assert upload.files[0].exists()
        storage.adopt(upload, job_id)
        machines.tidy_up_there()
        assert len(storage.input_files(job_id)) == 1
    machines.tidy_up_there()
    machines.check_nothing_is_left()

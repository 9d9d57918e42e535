"""The service is killed while it takes a series in: what was not accepted leaves nothing, what was accepted is done once."""

import uuid
from http.client import HTTPConnection
from urllib.parse import urlsplit

import httpx
import pytest

from oarlock.store.jobs import JobId
from tests.system.department import Department, wait_until

pytestmark = pytest.mark.slow

STEPS = {
    "before the files are the job's": ("oarlock.store.files:Storage.adopt", "before"),
    "before the row is in the table": ("oarlock.store.job_store:JobStore.create", "before"),
    "before the message is on the queue": ("service.broker:Broker.enqueue", "before"),
    "before the message is noted": ("service.broker:Broker.enqueue", "after"),
    "before the answer": ("oarlock.store.job_store:JobStore.marked_sent", "after"),
}
WORST = "before the message is on the queue"
"""The job is in the table, and neither the sender nor a worker knows of it."""


@pytest.mark.long("matrix")
def test_the_service_is_killed_in_the_middle_of_an_upload(department: Department, series: bytes) -> None:
    address = urlsplit(department.url)
    connection = HTTPConnection(address.hostname or "", address.port)
    connection.putrequest("POST", "/v1/jobs")
    connection.putheader("Content-Type", "application/zip")
    connection.putheader("Content-Length", str(len(series) + 2_000_000))
    connection.endheaders()
    connection.send(series + bytes(1_500_000))
    wait_until(lambda: any(path.stat().st_size for path in (department.data / "incoming").rglob("archive")))
    department.service.kill()
    connection.close()
    assert department.leftovers() != []
    department.start_service()
    department.check_nothing_is_left()
    department.check_all_succeed(department.post(series))


@pytest.mark.parametrize(
    "step", [step if step == WORST else pytest.param(step, marks=pytest.mark.long("matrix")) for step in STEPS]
)
def test_the_service_is_killed_while_it_accepts_and_the_sender_posts_again(
    department: Department, series: bytes, step: str
) -> None:
    department.service.kill()
    falling = department.program("tests.system.falling", name="falling", arguments=STEPS[step])
    department.start_service(falling)
    key = str(uuid.uuid4())
    known = set(department.store.states())
    with pytest.raises(httpx.TransportError):
        department.post(series, key=key)
    wait_until(lambda: not falling.alive)
    department.start_service()
    job_id = department.post(series, key=key)
    department.check_all_succeed(job_id)
    assert set(department.store.states()) - known == {JobId(job_id)}

"""Several services behind the composition's proxy: uploads, events, sweeping and metrics, with a service that is killed."""

import re
from collections.abc import Iterator
from contextlib import closing

import httpx
import pytest
import redis
from ruamel.yaml import YAML

from oarlock.store.jobs import JobState
from tests.system.department import PATIENCE_S, ROOT
from tests.system.group import Group

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def group(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Group]:
    with closing(Group(tmp_path_factory.mktemp("group"), linger=0)) as made:
        made.begin()
        yield made


def own() -> str:
    """Which metrics are each process's own: what Prometheus is told to read from each of them."""
    jobs = YAML(typ="safe").load(ROOT / "docker" / "prometheus" / "prometheus.yml")["scrape_configs"]
    each, table = (job["metric_relabel_configs"][0] for job in jobs)
    assert (each["action"], table["action"], each["regex"]) == ("keep", "drop", table["regex"])
    return str(each["regex"])


@pytest.mark.long("matrix")
def test_uploads_go_to_either_service_and_each_job_is_done_once(group: Group, series: bytes) -> None:
    jobs = [group.post(series) for _ in range(2)]  # nginx asks them in turn
    group.check_all_succeed(*jobs)
    name = "oarlock_request_seconds_count", (("method", "POST"), ("route", "/v1/jobs"), ("status", "202"))
    shares = [group.counted(port).get(name, 0.0) for port in group.ports]
    assert shares == [1, 1]


def test_whoever_follows_a_job_at_one_service_learns_of_its_end_whichever_took_it_in(group: Group, series: bytes) -> None:
    for taken, followed in (group.ports, group.ports[::-1]):
        with httpx.Client(base_url=f"http://127.0.0.1:{taken}", timeout=PATIENCE_S) as client:
            job_id = client.post("/v1/jobs", files=[("files", ("series.zip", series))]).raise_for_status().json()["id"]
        with httpx.stream("GET", f"http://127.0.0.1:{followed}/v1/jobs/{job_id}/events", timeout=PATIENCE_S) as stream:
            assert "event: end" in "".join(stream.iter_text())


@pytest.mark.long("matrix")
def test_what_the_services_share_is_the_same_from_each_and_what_is_their_own_adds_up(group: Group, series: bytes) -> None:
    group.check_all_succeed(*(group.post(series) for _ in range(2)))
    code = "oarlock_refusals_total", (("code", "job.not_found"),)
    before = sum(group.counted(port)[code] for port in group.ports)
    with group.client() as client:
        for _ in range(2):
            assert client.get("/v1/jobs/none").status_code == 404
    one, other = (group.counted(port) for port in group.ports)
    assert one[code] + other[code] == before + 2
    assert min(one[code], other[code]) > 0
    left_out = re.compile(f"{own()}|oarlock_storage_free_bytes")  # the disk moves
    table = [{key: value for key, value in each.items() if not left_out.fullmatch(key[0])} for each in (one, other)]
    assert table[0] == table[1]
    assert table[0]["oarlock_jobs", (("state", "succeeded"),)] >= 2


@pytest.mark.long("matrix")
def test_jobs_whose_messages_are_lost_are_sent_by_two_sweepers_and_done_once(group: Group, series: bytes) -> None:
    group.worker.kill()
    jobs = [group.post(series) for _ in range(2)]
    with redis.Redis.from_url(group.redis.url) as queue:
        queue.flushall()
    group.start_worker()
    group.check_all_succeed(*jobs)


def test_a_service_that_is_killed_takes_no_call_with_it(group: Group, series: bytes) -> None:
    """The proxy asks the other one; the jobs that the dead one took in are drawn."""
    jobs = [group.post(series) for _ in range(2)]  # one of each
    group.services[0].kill()
    jobs += [group.post(series) for _ in range(2)]
    with group.client() as client:
        assert all(client.get(f"/v1/jobs/{job_id}").is_success for job_id in jobs)
    done = group.check_all_succeed(*jobs)
    assert {job.state for job in done} == {JobState.SUCCEEDED}

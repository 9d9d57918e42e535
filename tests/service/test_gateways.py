"""What gateways are asked through the API: who takes it, what came of it, and who may see it."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.fernet import Fernet

from oarlock.errors import IdentityLocked, RequestNotHeld
from oarlock.scopes import Scope
from oarlock.store import audit
from oarlock.store.audit import SYSTEM
from oarlock.store.database import Database
from oarlock.store.gateways import LEASE, PATIENCE, GatewayStore, Outcome, RequestKind, RequestState, Wish
from oarlock.store.jobs import JobId
from oarlock.store.keys import KeyStore
from tests.service.conftest import make_settings
from tests.service.running import Running, parts, serve, write_model

pytestmark = pytest.mark.slow

UID = "1.2.840.99999.4711"
WANTED = {"archive": "pacs", "series_instance_uid": UID, "structure_sets": True, "priors": 2}
WAITS = {
    "id": "ab" * 10,
    "state": "coming_in",
    "calling": "CT1",
    "called": "OARLOCK",
    "images": 40,
    "first_at": "2026-03-05T12:00:00.000Z",
    "last_at": "2026-03-05T12:00:09.000Z",
    "note": "",
}


@pytest.fixture
def gateway(request: pytest.FixtureRequest) -> str:
    """A name of its own for each test: they share a service."""
    return f"gateway {abs(hash(request.node.name)) % 10**9}"


@pytest.fixture
def wanted(gateway: str) -> dict[str, Any]:
    """A retrieval that the gateway of this test alone can do."""
    return WANTED | {"archive": f"pacs of {gateway}"}


def report(client: httpx.Client, gateway: str, *, series: tuple[dict[str, Any], ...] = ()) -> list[dict[str, Any]]:
    """What a gateway is told that it holds."""
    said = {"archives": [f"pacs of {gateway}"], "series": list(series)}
    return list(client.post(f"/v1/gateways/{gateway}", json=said).raise_for_status().json()["tasks"])


def tell(client: httpx.Client, gateway: str, task: dict[str, Any], **outcome: Any) -> httpx.Response:
    return client.post(f"/v1/gateways/{gateway}/requests/{task['request']['id']}", json={"token": task["token"], **outcome})


def ask(client: httpx.Client, wanted: dict[str, Any], **headers: str) -> dict[str, Any]:
    answer = client.post("/v1/retrievals", json=wanted, headers=headers)
    assert answer.status_code == 202, answer.text
    return dict(answer.json())


@pytest.fixture
def job(running: Running, client: httpx.Client, series: list[Path]) -> dict[str, Any]:
    made: dict[str, Any] = client.post("/v1/jobs", files=parts(series)).json()
    running.finish(made, {"rtstruct.dcm": b"", "qa.json": b"{}"})
    return made


# ── retrievals ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_retrieval_is_taken_by_a_gateway_that_knows_the_archive_and_ends_with_its_job(
    running: Running, client: httpx.Client, gateway: str, wanted: dict[str, Any], job: dict[str, Any]
) -> None:
    report(client, gateway)
    answer = client.post("/v1/retrievals", json=wanted)
    asked = answer.json()
    assert (answer.status_code, answer.headers["location"]) == (202, f"/v1/retrievals/{asked['id']}")
    assert (asked["state"], asked["gateway"], asked["series_instance_uid"], asked["priors"]) == ("waiting", None, UID, 2)
    (task,) = report(client, gateway)
    assert task["request"] | {"taken_at": None} == asked | {"state": "running", "gateway": gateway}
    assert tell(client, gateway, task, state="running", detail="The series comes.").status_code == 204
    seen = client.get(f"/v1/retrievals/{asked['id']}").json()
    assert (seen["state"], seen["detail"]) == ("running", "The series comes.")
    for _ in range(2):  # the answer to the first may be lost
        told = tell(client, gateway, task, state="succeeded", job_id=job["id"], prior_jobs=[job["id"]], instances=40)
        assert told.status_code == 204
    done = client.get(f"/v1/retrievals/{asked['id']}").json()
    assert (done["state"], done["job_id"], done["prior_jobs"], done["instances"]) == ("succeeded", job["id"], [job["id"]], 40)
    assert report(client, gateway) == []
    assert asked["id"] in [one["id"] for one in client.get("/v1/retrievals").json()["retrievals"]]
    entries = [entry for entry in audit.read_entries(running.service.database) if asked["id"] in (entry.result or "")]
    assert [(entry.action, entry.result) for entry in entries] == [
        ("gateway.asked", f"retrieve {asked['id']}"),
        ("gateway.ended", f"retrieve {asked['id']} succeeded"),
    ]
    client.delete(f"/v1/jobs/{job['id']}").raise_for_status()
    gone = client.get(f"/v1/retrievals/{asked['id']}")
    assert (gone.status_code, gone.json()["code"]) == (404, "gateway.request_not_found")


def test_an_archive_that_no_gateway_knows_is_refused_with_those_that_are_known(
    client: httpx.Client, gateway: str, wanted: dict[str, Any]
) -> None:
    report(client, gateway)
    answer = client.post("/v1/retrievals", json=wanted | {"archive": "elsewhere"})
    assert (answer.status_code, answer.json()["code"]) == (422, "gateway.unknown_archive")
    assert f"pacs of {gateway} (gateway {gateway})" in answer.json()["detail"]
    assert client.post("/v1/retrievals", json=wanted | {"gateway": "another"}).status_code == 422


def test_asking_again_is_the_same_request_while_it_is_open_and_with_its_key_for_ever(
    client: httpx.Client, gateway: str, wanted: dict[str, Any]
) -> None:
    report(client, gateway)
    key = {"Idempotency-Key": f"fetch {gateway}"}
    asked = ask(client, wanted, **key)
    assert ask(client, wanted)["id"] == ask(client, wanted, **key)["id"] == asked["id"]
    (task,) = report(client, gateway)
    tell(client, gateway, task, state="failed", detail="It has no such series.").raise_for_status()
    assert ask(client, wanted, **key)["id"] == asked["id"]
    assert ask(client, wanted)["id"] != asked["id"]
    other = client.post("/v1/retrievals", json=wanted | {"priors": 0}, headers=key)
    assert (other.status_code, other.json()["code"]) == (409, "job.idempotency_conflict")


def test_a_retrieval_can_be_cancelled_until_a_gateway_takes_it(
    client: httpx.Client, gateway: str, wanted: dict[str, Any]
) -> None:
    report(client, gateway)
    cancelled = client.post(f"/v1/retrievals/{ask(client, wanted)['id']}/cancel")
    assert (cancelled.status_code, cancelled.json()["state"]) == (202, "cancelled")
    assert report(client, gateway) == []
    taken = ask(client, wanted)
    report(client, gateway)
    late = client.post(f"/v1/retrievals/{taken['id']}/cancel")
    assert (late.status_code, late.json()["code"]) == (409, "gateway.request_taken")


WRONG = ({"series_instance_uid": "1.2.x"}, {"priors": 6}, {"priors": True}, {"called": "A" * 17}, {"patient_id": "1"})


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_asked_is_checked(client: httpx.Client, gateway: str, wanted: dict[str, Any], wrong: dict[str, Any]) -> None:
    report(client, gateway)
    answer = client.post("/v1/retrievals", json=wanted | wrong)
    assert (answer.status_code, answer.json()["code"]) == (422, "request.invalid_parameter")


def test_a_gateway_tells_of_jobs_that_there_are_and_of_requests_that_it_holds(
    client: httpx.Client, gateway: str, wanted: dict[str, Any]
) -> None:
    report(client, gateway)
    ask(client, wanted)
    (task,) = report(client, gateway)
    assert tell(client, gateway, task, state="succeeded", job_id="0" * 8 + "-0000" * 3 + "-" + "0" * 12).status_code == 422
    assert tell(client, gateway, task, state="failed").status_code == 422
    assert tell(client, gateway, task, state="failed", detail="no\0").status_code == 422
    stranger = tell(client, "another", task, state="failed", detail="no")
    assert (stranger.status_code, stranger.json()["code"]) == (409, "gateway.request_not_held")


def test_the_metrics_tell_how_long_a_gateway_is_silent_and_what_was_asked(
    client: httpx.Client, gateway: str, wanted: dict[str, Any]
) -> None:
    report(client, gateway)
    waiting = 'oarlock_gateway_requests{kind="retrieve",state="waiting"} '
    before = client.get("/metrics").text
    assert f'oarlock_gateway_silent_seconds{{gateway="{gateway}",site=""}} ' in before
    ask(client, wanted)
    counts = [float(text.split(waiting)[1].split()[0]) for text in (before, client.get("/metrics").text)]
    assert counts[1] == counts[0] + 1


# ── series that wait, results that did not arrive ─────────────────────────────────────────────────────────────────────


def test_a_series_that_waits_is_listed_and_can_be_counted_as_whole(client: httpx.Client, gateway: str) -> None:
    report(client, gateway, series=(WAITS,))
    (listed,) = [one for one in client.get("/v1/gateways").json()["gateways"] if one["name"] == gateway]
    assert (listed["series"], listed["archives"]) == ([WAITS], [f"pacs of {gateway}"])
    asked = client.post(f"/v1/gateways/{gateway}/series/{WAITS['id']}/complete")
    assert (asked.status_code, asked.json()["kind"], asked.json()["gateway"]) == (202, "complete", gateway)
    (task,) = report(client, gateway)
    assert (task["request"]["kind"], task["request"]["series"]) == ("complete", WAITS["id"])
    unknown = client.post(f"/v1/gateways/{gateway}/series/{'cd' * 10}/complete")
    assert (unknown.status_code, unknown.json()["code"]) == (404, "gateway.unknown")
    assert client.get(f"/v1/retrievals/{asked.json()['id']}").status_code == 404


def test_the_gateway_that_told_of_a_delivery_is_asked_to_send_it_again(
    client: httpx.Client, gateway: str, job: dict[str, Any]
) -> None:
    told = {"place": "eclipse", "result": "rtstruct", "state": "dead", "attempts": 150, "note": "it does not answer"}
    client.post(f"/v1/jobs/{job['id']}/deliveries", json=told).raise_for_status()
    nobody = client.post(f"/v1/jobs/{job['id']}/resend")
    assert (nobody.status_code, nobody.json()["code"]) == (409, "gateway.not_delivered")
    client.post(f"/v1/jobs/{job['id']}/deliveries", json=told | {"gateway": gateway}).raise_for_status()
    assert client.get(f"/v1/jobs/{job['id']}").json()["deliveries"][0]["gateway"] == gateway
    assert client.post(f"/v1/jobs/{job['id']}/resend", params={"place": "pinnacle"}).status_code == 409
    assert client.post(f"/v1/jobs/{job['id']}/resend", params={"place": "eclipse"}).status_code == 202
    (task,) = report(client, gateway)
    assert (task["request"]["kind"], task["request"]["job_id"], task["request"]["place"]) == ("resend", job["id"], "eclipse")


# ── whose they are ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> Iterator[Running]:
    """A service of two sites that de-identifies."""
    folder = tmp_path_factory.mktemp("sealed")
    write_model(folder / "models")
    with serve(make_settings(folder, redis_url, deidentify_key=Fernet.generate_key().decode())) as running:
        yield running


def test_another_site_neither_sees_nor_takes_a_request_and_the_database_holds_no_uid(sealed: Running) -> None:
    keys = KeyStore(sealed.service.database)
    scopes = [Scope.JOBS_WRITE, Scope.JOBS_READ]
    tokens = {site: keys.create(site or "all", scopes, site=site)[1] for site in ("north", "south", "")}
    clients = {
        site: httpx.Client(base_url=sealed.url, headers={"Authorization": f"Bearer {token}"}) for site, token in tokens.items()
    }
    north, south, both = clients["north"], clients["south"], clients[""]
    for client in (north, south):
        report(client, "g")
    wanted = WANTED | {"archive": "pacs of g"}
    several = both.post("/v1/retrievals", json=wanted)
    assert (several.status_code, "several sites" in several.json()["detail"]) == (422, True)
    asked = ask(north, wanted)
    assert asked["series_instance_uid"] == UID
    assert report(south, "g") == []
    assert south.get(f"/v1/retrievals/{asked['id']}").status_code == 404
    assert asked["id"] not in south.get("/v1/retrievals").text + south.get("/v1/gateways").text
    (task,) = report(north, "g")
    assert tell(south, "g", task, state="failed", detail="no").status_code == 404
    assert both.get(f"/v1/retrievals/{asked['id']}").json()["series_instance_uid"] == UID
    database = b"".join(path.read_bytes() for path in sealed.settings.data.glob("*.sqlite*"))
    assert database
    assert UID.encode() not in database
    for client in clients.values():
        client.close()


# ── time ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


class Clock:
    now = datetime(2026, 3, 5, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> Iterator[GatewayStore]:
    database = Database(f"sqlite:///{tmp_path / 'jobs.sqlite'}")
    yield GatewayStore(database, clock=clock)
    database.close()


def wish(number: int = 0) -> Wish:
    return Wish("", RequestKind.RETRIEVE, None, "pacs", None, b"{}", f"digest {number}")


def test_what_a_dead_gateway_held_is_taken_by_another_and_its_word_does_not_count_any_more(
    store: GatewayStore, clock: Clock
) -> None:
    asked = store.ask(wish(), key=None, by=SYSTEM)
    (held,) = store.report("", "first", ["pacs"], [])
    clock.now += LEASE
    assert store.report("", "second", ["pacs"], []) == []
    clock.now += timedelta(seconds=1)
    assert store.report("", "third", ["other"], []) == []
    (taken,) = store.report("", "second", ["pacs"], [])
    assert (taken.id, taken.gateway, taken.token) == (asked.id, "second", held.token + 1)
    outcome = Outcome(RequestState.SUCCEEDED, job_id=JobId("x"))
    with pytest.raises(RequestNotHeld):
        store.tell(asked.id, outcome, site="", gateway="first", token=held.token, by=SYSTEM)
    assert store.report("", "first", ["pacs"], []) == []
    store.tell(asked.id, outcome, site="", gateway="second", token=taken.token, by=SYSTEM)
    assert store.get(asked.id, site="").state is RequestState.SUCCEEDED


def test_a_gateway_that_reports_keeps_what_it_holds_and_takes_no_more_than_its_share(store: GatewayStore, clock: Clock) -> None:
    for number in range(10):
        store.ask(wish(number), key=None, by=SYSTEM)
    for _ in range(3):
        clock.now += LEASE
        assert len(store.report("", "busy", ["pacs"], [])) == 8
    assert len(store.report("", "idle", ["pacs"], [])) == 2


def test_a_gateway_that_cannot_be_told_what_is_asked_holds_nothing(store: GatewayStore, clock: Clock) -> None:
    store.ask(wish(), key=None, by=SYSTEM)

    def locked(_: bytes) -> object:
        raise IdentityLocked

    with pytest.raises(IdentityLocked):
        store.report("", "first", ["pacs"], [], read=locked)
    assert [one.token for one in store.report("", "second", ["pacs"], [])] == [1]


def test_a_wish_that_is_open_is_found_with_a_key_too_and_from_then_on_by_that_key(store: GatewayStore) -> None:
    asked = store.ask(wish(), key=None, by=SYSTEM)
    assert store.ask(wish(), key="mine", by=SYSTEM).id == asked.id
    store.cancel(asked.id, site="", by=SYSTEM)
    assert store.ask(wish(), key="mine", by=SYSTEM).id == asked.id
    assert store.ask(wish(), key="new", by=SYSTEM).id != asked.id


def test_a_request_that_no_gateway_takes_for_a_day_fails_and_says_so(store: GatewayStore, clock: Clock) -> None:
    asked = store.ask(wish(), key=None, by=SYSTEM)
    clock.now += PATIENCE
    store.expire()
    assert store.get(asked.id, site="").state is RequestState.WAITING
    clock.now += timedelta(seconds=1)
    store.expire()
    found = store.get(asked.id, site="")
    assert (found.state, found.detail is not None and "has reported for a day" in found.detail) == (RequestState.FAILED, True)


def test_the_same_call_many_times_at_once_is_one_request_and_one_gateway(database: Database) -> None:
    store = GatewayStore(database)
    with ThreadPoolExecutor(8) as pool:
        asked = {one.id for one in pool.map(lambda _: store.ask(wish(), key="once", by=SYSTEM), range(8))}
        held = [one.id for took in pool.map(lambda _: store.report("", "new", ["pacs"], []), range(8)) for one in took]
    assert len(asked) == 1
    assert set(held) == asked
    assert [one.name for one in store.gateways(site="")] == ["new"]

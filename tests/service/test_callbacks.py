"""callback_url: who is told, how he knows that it is us, how often it is tried, and where no request ever goes."""

import base64
import json
import re
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import ValidationError

from oarlock.cli.main import main
from oarlock.errors import InvalidParameter, JobExpired
from oarlock.settings import Settings
from oarlock.store.audit import read_entries
from oarlock.store.callbacks import CLAIM_S, WAITS_S, Callback, CallbackState, CallbackStore
from oarlock.store.database import Database
from oarlock.store.files import RTSTRUCT
from oarlock.store.job_store import JobStore
from oarlock.store.jobs import JobId, JobState
from oarlock.store.retention import Retention
from service.background.webhooks.client import WebhookClient
from service.background.webhooks.delivery import Messenger
from service.background.webhooks.rules import AddressRefused, Rules
from service.background.webhooks.signing import to_headers, to_signer
from tests.fixtures.certificates import Authority
from tests.fixtures.clock import Clock
from tests.fixtures.processes import eventually
from tests.service.conftest import make_settings
from tests.service.running import Running, parts, serve, write_model
from tests.store.test_job_store import claim, create

pytestmark = pytest.mark.slow

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
OLD_SECRET = "whsec_" + base64.b64encode(bytes(range(40, 72))).decode()
DOCS = Path(__file__).parents[2] / "docs" / "api.md"


@dataclass
class Receiver:
    """Somebody else's server: what it was sent, and what it answers next (200 at the end)."""

    url: str
    host: str
    requests: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)


@contextmanager
def receiving(tls: ssl.SSLContext | None = None) -> Iterator[Receiver]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            receiver.requests.append((self.path, {name.lower(): value for name, value in self.headers.items()}, body))
            self.send_response(receiver.answers.pop(0) if receiver.answers else 200)
            self.send_header("Location", f"{receiver.url}/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_POST  # noqa: N815 - the name that http.server looks for

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    port = server.server_address[1]
    receiver = Receiver(f"{'https' if tls else 'http'}://localhost:{port}", f"localhost:{port}")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as made:
        yield made


def rules(*hosts: str, networks: tuple[str, ...] = (), secrets: tuple[str, ...] = (SECRET,)) -> Rules:
    settings = Settings(callback_hosts=list(hosts), callback_networks=list(networks), callback_secrets=list(secrets))  # type: ignore[call-arg]
    return Rules.of(settings)


# ── from a post to a receiver ─────────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def house(folder: Path, redis_url: str, receiver: Receiver) -> Iterator[Running]:
    if not (folder / "models").exists():
        write_model(folder / "models")
    changes = {"callback_hosts": [receiver.host], "callback_networks": ["127.0.0.0/8", "::1/128"], "callback_secrets": [SECRET]}
    with serve(make_settings(folder, redis_url, **changes)) as running:
        yield running


def post(running: Running, series: list[Path], url: str) -> httpx.Response:
    return httpx.post(f"{running.url}/v1/jobs", files=parts(series), data={"callback_url": url}, timeout=30)


def worked_example() -> Any:
    """The function of the documentation that a receiver checks a callback with."""
    (code,) = re.findall(r"```python\n(.*?def verify.*?)```", DOCS.read_text(), re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)
    return names["verify"]


def test_a_receiver_is_told_once_of_the_end_and_the_documented_check_accepts_it_and_nothing_else(
    tmp_path: Path, redis_url: str, receiver: Receiver, series: list[Path]
) -> None:
    verify = worked_example()
    with house(tmp_path, redis_url, receiver) as running:
        answer = post(running, series, f"{receiver.url}/told?plan=7")
        assert answer.status_code == 202, answer.text
        running.finish(answer.json(), {RTSTRUCT: b"contours"})
        assert eventually(lambda: bool(receiver.requests), within_s=30)
        assert eventually(lambda: running.service.callbacks.counts()[CallbackState.DELIVERED] == 1, within_s=30)
    ((path, headers, body),) = receiver.requests
    assert path == "/told?plan=7"
    told = verify(SECRET, headers, body, now=int(headers["webhook-timestamp"]))
    assert told["type"] == "job.succeeded"
    job_id = answer.json()["id"]
    job = {"id": job_id, "state": "succeeded", "error_code": None, "links": {"self": f"/v1/jobs/{job_id}"}}
    assert told["data"] == {"job": job}
    assert "2.25." not in body.decode()
    when = int(headers["webhook-timestamp"])
    for wrong in (
        {"secret": OLD_SECRET},
        {"body": body.replace(b"succeeded", b"cancelled")},
        {"headers": headers | {"webhook-id": "another"}},
        {"headers": headers | {"webhook-timestamp": str(when + 1)}},
        {"headers": headers | {"webhook-signature": "v1,"}},
        {"now": when + 301},
    ):
        given = {"secret": SECRET, "headers": headers, "body": body, "now": when} | wrong
        with pytest.raises(ValueError, match=r"signature|old"):
            verify(**given)


def test_what_was_not_told_before_the_service_stopped_is_told_after_its_next_start(
    tmp_path: Path, redis_url: str, receiver: Receiver, series: list[Path]
) -> None:
    with house(tmp_path, redis_url, receiver) as running:
        job = post(running, series, f"{receiver.url}/").json()
        settings = running.settings
    database = Database(settings.database)
    store = JobStore(database)
    store.request_cancel(JobId(job["id"]))  # while no service runs
    database.close()
    assert receiver.requests == []
    with house(tmp_path, redis_url, receiver):
        assert eventually(lambda: len(receiver.requests) == 1, within_s=30)
    assert json.loads(receiver.requests[0][2])["type"] == "job.cancelled"


@pytest.mark.parametrize(
    "url",
    [
        *("https://elsewhere.example/", "https://{host}.example/", "https://elsewhere.example#{host}", "https://a@{host}/"),
        *("ftp://{host}/", "file:///etc/passwd", "//{host}/", "{host}", "https://", "https://localhost:99999/", "https://[::1"),
        *(
            "https://localhost/",
            "https://localhost:1/",
            "http://{host}/ x",
            "http://{host}/\u00e9",
            "http://{host}/" + "x" * 2_000,
        ),
    ],
)
def test_a_url_that_leads_elsewhere_is_refused_with_the_post_and_is_not_repeated(url: str) -> None:
    with pytest.raises(InvalidParameter, match="callback_url") as caught:
        rules("localhost:8443", networks=("127.0.0.0/8",)).check_url(url.format(host="localhost:8443"))
    assert "example" not in caught.value.detail


@pytest.mark.parametrize(
    ("hosts", "url"),
    [
        (["Planning.example"], "https://planning.example/a?b=c"),
        (["planning.example"], "https://PLANNING.example.:443/"),
        (["planning.example:8443"], "https://planning.example:8443/"),
        (["planning.example:443"], "https://planning.example/"),
    ],
)
def test_a_url_on_a_host_that_may_be_called_is_taken(hosts: list[str], url: str) -> None:
    assert rules(*hosts).check_url(url) == url


def test_plain_http_needs_a_network_that_is_meant() -> None:
    with pytest.raises(InvalidParameter, match="https"):
        rules("planning.example").check_url("http://planning.example/")
    within = rules("planning.example", networks=("10.1.0.0/16",))
    assert within.check_url("http://planning.example/")
    assert within.check_address("10.1.2.3", scheme="http") == "10.1.2.3"
    with pytest.raises(AddressRefused):
        within.check_address("93.184.216.34", scheme="http")


def test_hosts_need_a_secret_and_a_secret_has_its_form() -> None:
    with pytest.raises(ValidationError, match="OARLOCK_CALLBACK_SECRETS"):
        rules("planning.example", secrets=())
    for wrong in ("secret", "whsec_", "whsec_!!!", "whsec_" + base64.b64encode(b"short").decode()):
        with pytest.raises(ValueError, match="must be whsec_"):
            rules("planning.example", secrets=(wrong,))


# ── where no request goes ─────────────────────────────────────────────────────────────────────────────────────────────


def told_to(url: str) -> Callback:
    at = Clock().now
    return Callback("id-1", JobId("job-1"), url, CallbackState.WAITING, JobState.SUCCEEDED, None, at, 0, at, None)


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.9.9.9", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1"),
        *(
            "224.0.0.1",
            "255.255.255.255",
            "192.0.2.1",
            "198.18.0.1",
            "::1",
            "::",
            "fe80::1",
            "fe80::1%eth0",
            "fd00::1",
            "ff02::1",
        ),
        *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::a00:1", "2002:a00:1::", "2001:0:a00:1::"),
        *("fec0::1", "::7f00:1", "::ffff:0:7f00:1", "5f00::1", "3fff::1", "192.88.99.1", "1000::1", "4000::1"),
    ],
)
def test_a_host_whose_name_leads_into_a_private_network_is_not_called(address: str) -> None:
    caller = WebhookClient(rules("planning.example"), resolve=lambda host, port: ["93.184.216.34", address])
    with pytest.raises(AddressRefused):
        caller.call(told_to("https://planning.example/"))


def test_a_name_is_asked_for_once_and_the_address_that_was_judged_is_called(receiver: Receiver) -> None:
    """The second answer would lead elsewhere; there is no second question."""
    asked: list[str] = []

    def resolve(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["169.254.169.254"]

    port = receiver.host.split(":")[1]
    caller = WebhookClient(rules(f"planning.example:{port}", networks=("127.0.0.0/8",)), resolve=resolve)
    assert caller.call(told_to(f"http://planning.example:{port}/")) == 200
    assert asked == ["planning.example"]
    assert receiver.requests[0][1]["host"] == f"planning.example:{port}"


def test_no_redirect_is_followed_and_no_proxy_used(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    receiver.answers = [302]
    caller = WebhookClient(rules(receiver.host, networks=("127.0.0.0/8",)), resolve=lambda host, port: ["127.0.0.1"])
    assert caller.call(told_to(f"{receiver.url}/")) == 302
    assert len(receiver.requests) == 1


def test_a_receiver_must_prove_who_it_is(tmp_path: Path) -> None:
    ours, others = Authority(tmp_path, "ours"), Authority(tmp_path, "others")
    pair = ours.vouch("receiver", server=True)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(pair.certificate, pair.key)
    with receiving(tls) as receiver:
        host = receiver.host.replace("localhost", "127.0.0.1")
        meant = rules(host, f"localhost:{host[10:]}", networks=("127.0.0.0/8",))
        here = {"resolve": lambda host, port: ["127.0.0.1"]}
        assert WebhookClient(meant, tls=ours.trusted_by_client(), **here).call(told_to(f"https://{host}/")) == 200
        for tls, url in ((others.trusted_by_client(), f"https://{host}/"), (ours.trusted_by_client(), receiver.url)):
            with pytest.raises(ssl.SSLCertVerificationError):
                WebhookClient(meant, tls=tls, **here).call(told_to(url))
    assert len(receiver.requests) == 1


def test_each_secret_signs_so_that_one_can_be_replaced(receiver: Receiver) -> None:
    both = rules(receiver.host, networks=("127.0.0.0/8",), secrets=(SECRET, OLD_SECRET))
    WebhookClient(both, resolve=lambda host, port: ["127.0.0.1"]).call(
        told_to(f"{receiver.url}/"), now=datetime.fromtimestamp(1_700_000_000, UTC)
    )
    _, headers, body = receiver.requests[0]
    verify = worked_example()
    for secret in (SECRET, OLD_SECRET):
        assert verify(secret, headers, body, now=1_700_000_000)["type"] == "job.succeeded"


def test_the_signature_is_that_of_the_standard() -> None:
    """The example of Standard Webhooks 1.0.0, from the specification's own libraries."""
    signer = to_signer("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    at = datetime.fromtimestamp(1_614_265_330, UTC)
    assert to_headers([signer], "msg_p5jXN8AQM9LWM0D4loKWxJek", at, b'{"test": 2432232314}') == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


# ── how often it is tried ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def outbox(database: Database, clock: Clock) -> CallbackStore:
    return CallbackStore(database, clock=clock)


URL = "https://planning.example/told"


def end(store: JobStore, job_id: str = "a") -> None:
    store.leases.succeed(claim(store, job_id))


class Deaf(WebhookClient):
    """Counts the attempts and answers with a status."""

    def __init__(self, status: int) -> None:
        super().__init__(rules("planning.example"))
        self.status, self.told = status, 0

    def call(self, callback: Callback, *, now: datetime | None = None) -> int:
        self.told += 1
        return self.status


def test_what_is_not_taken_is_tried_again_after_longer_and_longer_waits_and_given_up(
    store: JobStore, outbox: CallbackStore, clock: Clock
) -> None:
    create(store, callback_url=URL)
    deaf = Deaf(503)
    messenger = Messenger(outbox, deaf)
    messenger.deliver()
    assert deaf.told == 0  # the job has not ended
    end(store)
    messenger.deliver()
    for number, wait_s in enumerate(WAITS_S, start=1):
        clock.advance(wait_s - 1)
        messenger.deliver()
        assert deaf.told == number
        clock.advance(1)
        messenger.deliver()
    clock.advance(10**9)
    messenger.deliver()
    (dead,) = outbox.all(CallbackState.DEAD)
    assert (deaf.told, dead.attempts, dead.outcome) == (len(WAITS_S) + 1, len(WAITS_S) + 1, "http 503")
    assert outbox.counts() == {CallbackState.WAITING: 0, CallbackState.DELIVERED: 0, CallbackState.DEAD: 1}


def test_what_was_given_up_is_seen_and_sent_again(
    store: JobStore,
    outbox: CallbackStore,
    clock: Clock,
    migrated_url: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    database: Database,
) -> None:
    create(store, callback_url=URL)
    end(store)
    for _ in range(len(WAITS_S) + 1):
        Messenger(outbox, Deaf(500)).deliver()
        clock.advance(max(WAITS_S))
    monkeypatch.setenv("DATABASE_URL", migrated_url)
    assert main(["callbacks", "list", "--state", "dead"]) == 0
    listed = capsys.readouterr().out
    (dead,) = outbox.all()
    assert dead.id in listed
    assert "http 500" in listed
    assert "/told" not in listed
    assert main(["callbacks", "resend", dead.id]) == 0
    clock.now += timedelta(days=10_000)  # the command has the real clock
    willing = Deaf(204)
    Messenger(outbox, willing).deliver()
    assert willing.told == 1
    assert outbox.counts()[CallbackState.DELIVERED] == 1
    assert "callback.resent" in {entry.action for entry in read_entries(database)}
    assert main(["callbacks", "resend", "unheard-of"]) == 2


def test_a_delivery_whose_service_was_killed_is_made_again_and_two_services_do_not_both_make_one(
    store: JobStore, outbox: CallbackStore, clock: Clock
) -> None:
    create(store, callback_url=URL)
    end(store)
    assert outbox.collect() == 1
    assert outbox.collect() == 0
    (first,) = outbox.claim()  # and then the service was killed
    assert outbox.claim() == []
    clock.advance(CLAIM_S)
    (second,) = outbox.claim()
    assert second.id == first.id


def test_a_job_that_is_retried_tells_each_of_its_ends(store: JobStore, outbox: CallbackStore, clock: Clock) -> None:
    create(store, callback_url=URL)
    store.leases.fail(claim(store), JobExpired())
    willing = Deaf(200)
    Messenger(outbox, willing).deliver()
    store.retry(JobId("a"))
    clock.advance(1)
    end(store)
    Messenger(outbox, willing).deliver()
    assert [(found.job_state, found.error_code) for found in outbox.all()] == [("failed", "job.expired"), ("succeeded", None)]
    assert willing.told == 2


def test_a_purge_takes_the_callbacks_of_a_job(store: JobStore, outbox: CallbackStore) -> None:
    create(store, callback_url=URL)
    end(store)
    outbox.collect()
    store.purge(JobId("a"))
    assert outbox.all() == []


@pytest.mark.parametrize(("status", "end_state"), [(200, CallbackState.DELIVERED), (503, CallbackState.DEAD)])
def test_a_job_whose_time_is_over_stays_until_its_callback_is_delivered_or_given_up(
    store: JobStore, outbox: CallbackStore, clock: Clock, status: int, end_state: CallbackState
) -> None:
    create(store, callback_url=URL)
    create(store, "untold")
    end(store)
    end(store, "untold")
    assert store.retirement.purge_due(Retention(results_s=0)) == ["untold"]
    messenger = Messenger(outbox, Deaf(status))
    while not outbox.all(end_state):
        assert store.retirement.purge_due(Retention(results_s=0)) == []
        messenger.deliver()
        clock.advance(max(WAITS_S))
    assert store.retirement.purge_due(Retention(results_s=0)) == ["a"]
    assert outbox.all() == []


def test_where_nobody_delivers_callbacks_none_is_waited_for(store: JobStore, outbox: CallbackStore) -> None:
    for job_id in ("collected", "marked"):
        create(store, job_id, callback_url=URL)
    end(store, "collected")
    outbox.collect()
    end(store, "marked")
    assert set(store.retirement.purge_due(Retention(results_s=0), callbacks=False)) == {"collected", "marked"}


def test_the_log_names_neither_url_nor_receiver(store: JobStore, outbox: CallbackStore, caplog: pytest.LogCaptureFixture) -> None:
    create(store, callback_url=URL)
    end(store)
    Messenger(outbox, WebhookClient(rules("planning.example"), resolve=lambda host, port: ["10.0.0.1"])).deliver()
    (record,) = [record for record in caplog.records if record.name == "service.background.webhooks.delivery"]
    assert (record.getMessage(), vars(record)["outcome"]) == ("callback waiting", "address refused")
    assert "planning" not in repr(vars(record))

"""What operators and programs that read contracts see."""

import io
import json
import logging
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from oarlock.errors import OarlockError, leaves
from oarlock.facts import ModelFacts
from oarlock.geometry.masks import OARMasks
from oarlock.logs import JSONFormatter
from oarlock.organs.catalogue import BY_NAME, OARS
from oarlock.qa.interobserver import METRICS, Spread
from oarlock.qa.plausibility import check_masks
from oarlock.qa.report import Making, Source, compare, job_report, tolerance_table
from oarlock.store.files import RTSTRUCT
from oarlock.store.jobs import Stage
from oarlock.store.scores.write import Scored, append
from service.api.examples import QA_REPORT
from service.api.openapi import JOB_ID
from service.api.problems import STATUS_BY_CODE
from service.api.schemas.qa_report import QAReportDocument
from service.broker import Broker
from service.embedded.redis_server import PrivateRedis
from service.monitoring import health
from tests.fixtures.crooked import crooked_grid
from tests.fixtures.scores import compared, score
from tests.service.conftest import make_settings
from tests.service.running import Running, parts, serve, write_model

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def worker(running: Running) -> None:
    running.store.workers.heartbeat("test-worker", {"oarlock-hn": "ab" * 32}, "cpu")


# ── health ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_process_says_that_it_lives(client: httpx.Client) -> None:
    answer = client.get("/livez")
    assert (answer.status_code, answer.json()) == (200, {"status": "alive"})


@pytest.mark.usefixtures("worker")
def test_everything_that_is_ready_is_named(client: httpx.Client) -> None:
    answer = client.get("/readyz")
    ready = {"ready": True, "detail": None}
    assert answer.status_code == 200
    assert answer.json() == {"ready": True, "warnings": []} | dict.fromkeys(
        ("database", "broker", "storage", "workers", "model"), ready
    )


def test_what_is_kept_for_ever_is_a_warning(tmp_path: Path, redis_url: str) -> None:
    write_model(tmp_path / "models")
    with serve(make_settings(tmp_path, redis_url, keep_results=None)) as running:
        (warning,) = httpx.get(f"{running.url}/readyz", timeout=30).json()["warnings"]
    assert warning == "jobs and their results are kept for ever: OARLOCK_KEEP_RESULTS is never"


def unready(answer: httpx.Response) -> set[str]:
    assert (answer.status_code, answer.headers["content-type"]) == (503, "application/problem+json")
    document = answer.json()
    assert (document["code"], document["ready"]) == ("service.not_ready", False)
    found = {name for name, entry in document.items() if isinstance(entry, dict) and not entry["ready"]}
    assert all(name in document["detail"] for name in found)
    return found


def test_a_queue_that_no_worker_listens_to_is_not_ready(tmp_path: Path, redis_url: str) -> None:
    write_model(tmp_path / "models")
    with serve(make_settings(tmp_path, redis_url)) as running:
        assert unready(httpx.get(f"{running.url}/readyz")) == {"workers", "model"}


def test_how_long_nobody_was_heard_of_and_how_many_jobs_wait_is_said(tmp_path: Path, redis_url: str, series: list[Path]) -> None:
    write_model(tmp_path / "models")
    with serve(make_settings(tmp_path, redis_url)) as running:
        httpx.post(f"{running.url}/v1/jobs", files=parts(series[:5]), timeout=30)
        answer = httpx.get(f"{running.url}/readyz", timeout=30)
        why = "no worker reported in the last 30 s, and 1 job(s) wait"
        assert answer.json()["workers"] == {"ready": False, "detail": why}
        assert f"workers: {why}" in answer.json()["detail"]


def test_any_worker_with_another_file_of_a_model_is_not_ready_and_named(tmp_path: Path, redis_url: str) -> None:
    """It would fail the jobs that it takes, however many right ones there are beside it."""
    write_model(tmp_path / "models")
    with serve(make_settings(tmp_path, redis_url)) as running:
        running.store.workers.heartbeat("right-1", {"oarlock-hn": "ab" * 32}, "cpu")
        assert httpx.get(f"{running.url}/readyz", timeout=30).json()["model"]["ready"]
        running.store.workers.heartbeat("wrong-2", {"oarlock-hn": "cd" * 32}, "cpu")
        answer = httpx.get(f"{running.url}/readyz", timeout=30)
        assert unready(answer) == {"model"}
        why = "worker wrong-2 has another file of oarlock-hn (sha256 cdcdcdcdcdcd…, and the service has abababababab…)"
        assert answer.json()["model"]["detail"] == why
        assert why in answer.json()["detail"]
        running.store.workers.sign_off("wrong-2")
        assert httpx.get(f"{running.url}/readyz", timeout=30).json()["ready"]


def test_a_worker_without_the_default_model_is_not_enough(tmp_path: Path, redis_url: str) -> None:
    write_model(tmp_path / "models")
    with serve(make_settings(tmp_path, redis_url)) as running:
        running.store.workers.heartbeat("w", {"another": "ab" * 32}, "cpu")
        answer = httpx.get(f"{running.url}/readyz", timeout=30)
        assert unready(answer) == {"model"}
        assert answer.json()["model"]["detail"] == "no live worker has the default model"


def test_a_service_without_redis_a_valid_model_or_disk_starts_and_says_what_is_missing(tmp_path: Path) -> None:
    write_model(tmp_path / "models", sha256="not a hash")
    settings = make_settings(tmp_path, f"unix://{tmp_path}/none.sock", min_free_bytes=10**18)
    with serve(settings) as running:
        assert unready(httpx.get(f"{running.url}/readyz", timeout=30)) == {"broker", "storage", "workers", "model"}
        assert httpx.get(f"{running.url}/v1/models").json() == {"models": []}
        assert "oarlock_jobs" in httpx.get(f"{running.url}/metrics", timeout=30).text


def test_a_wrong_manifest_does_not_hide_the_results_of_earlier_jobs(tmp_path: Path, redis_url: str) -> None:
    write_model(tmp_path / "models", sha256="not a hash")
    with serve(make_settings(tmp_path, redis_url)) as running:
        assert "model" in unready(httpx.get(f"{running.url}/readyz"))
        assert httpx.get(f"{running.url}/v1/jobs").status_code == 200


# ── metrics ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def metrics(client: httpx.Client) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    families = text_string_to_metric_families(answer.text)
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


def value(found: dict[Any, float], sample: str, **labels: str) -> float:
    return found.get((sample, frozenset(labels.items())), 0.0)


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Running]:
    """A service and a queue that no other test has left jobs in: its sweeper would move those while this test counts."""
    write_model(tmp_path / "models")
    with PrivateRedis(tmp_path / "redis").running() as url, serve(make_settings(tmp_path, url)) as running:
        yield running


def test_metrics_count_jobs_refusals_stages_workers_and_messages(alone: Running, series: list[Path]) -> None:
    alone.store.workers.heartbeat("test-worker", {"oarlock-hn": "ab" * 32}, "cpu")
    with httpx.Client(base_url=alone.url, timeout=30) as client:
        job = client.post("/v1/jobs", files=parts(series[:5])).json()
        client.post("/v1/jobs", files=parts([b"no DICOM file"]))
        lease = alone.claim(job)
        alone.store.leases.progress(lease, stage=Stage.INFERRING, progress=0.5, lease_s=60)
        running = metrics(client)
        alone.store.leases.succeed(lease)
        found = metrics(client)
    assert value(running, "oarlock_jobs", state="running") == 1
    assert value(running, "oarlock_site_jobs", site="", state="running") == 1
    assert value(found, "oarlock_refusals_total", code="series.not_dicom") == 1
    assert value(found, "oarlock_stage_seconds_count", stage="reading") == 1
    assert value(found, "oarlock_stage_seconds_bucket", stage="reading", le="+Inf") == 1
    assert value(found, "oarlock_queue_depth") == 1
    assert value(found, "oarlock_workers", device="cpu") == 1
    assert value(found, "oarlock_model_info", name="oarlock-hn", version="1.2.3", sha256="ab" * 32) == 1


def test_metrics_tell_surface_dsc_by_organ_and_model_and_the_levels_of_the_checks(client: httpx.Client, running: Running) -> None:
    model = ModelFacts("histogram", "1", "ab" * 32)
    checks = [("organ.volume", "Brain", level) for level in ("red", "amber", "red")]
    verdicts = [("Brain", "red"), ("Eye_L", "green")]
    scored = Scored("CT", [compared(score("Brain", value)) for value in (0.93, 0.41, None)], checks, verdicts, "red")
    before = metrics(client)
    with running.service.database.writing() as connection:
        append(connection, datetime.now(UTC), "job", model, scored)
    after = metrics(client)

    def found(sample: str, **labels: str) -> float:
        return value(after, sample, **labels)

    brain = {"model": "histogram", "model_version": "1", "scanner": "CT", "site": "", "origin": "supplied", "oar": "Brain"}
    assert [found("oarlock_surface_dsc_bucket", **brain, le=bound) for bound in ("0.5", "0.925", "0.95", "+Inf")] == [1, 1, 2, 2]
    assert (found("oarlock_surface_dsc_count", **brain), found("oarlock_surface_dsc_sum", **brain)) == (2, pytest.approx(1.34))
    for level, n in (("red", 2), ("amber", 1), ("green", 0)):
        labels = {"oar": "Brain", "check": "organ.volume", "level": level}
        assert found("oarlock_qa_checks_total", **labels) - value(before, "oarlock_qa_checks_total", **labels) == n
    for organ, verdict in verdicts:
        labels = {"oar": organ, "verdict": verdict}
        assert found("oarlock_qa_verdicts_total", **labels) - value(before, "oarlock_qa_verdicts_total", **labels) == 1
    assert 'check="verdict' not in client.get("/metrics").text
    counts = [
        [value(then, "oarlock_qa_set_verdicts_total", verdict=one) for one in ("green", "amber", "red")]
        for then in (before, after)
    ]
    assert [late - early for early, late in zip(*counts, strict=True)] == [0, 0, 1]
    assert "Doe" not in client.get("/metrics").text


def test_strange_methods_and_addresses_do_not_become_labels(client: httpx.Client) -> None:
    client.request("PROPFIND", "/patients/Doe-John")
    text = client.get("/metrics").text
    assert "Doe" not in text
    assert "PROPFIND" not in text


# ── models ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_models_say_what_they_draw_and_what_they_are_not_for(client: httpx.Client) -> None:
    (model,) = client.get("/v1/models").json()["models"]
    assert (model["name"], model["version"], model["sha256"], model["default"]) == ("oarlock-hn", "1.2.3", "ab" * 32, True)
    assert model["oars"] == [oar.name for oar in OARS]
    assert model["spacing_mm"] == [2.5, 2.0, 2.0]
    (part,) = model["parts"]
    assert (part["sha256"], part["looks_at"], part["oars"]) == (model["sha256"], "scan", model["oars"])
    assert (model["training"], model["limits"]) == ({"data": "phantoms"}, ["patients"])


# ── errors ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1", 404, "request.not_found"),
        ("GET", "/v1/jobs/", 404, "job.not_found"),
        ("PUT", "/v1/jobs", 405, "request.method_not_allowed"),
        ("PATCH", "/livez", 405, "request.method_not_allowed"),
        ("POST", "/v1/comparison", 404, "request.not_found"),
    ],
)
def test_what_is_not_there_is_a_problem_document_too(
    client: httpx.Client, method: str, path: str, status: int, code: str
) -> None:
    answer = client.request(method, path)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] in {code, "request.not_found"}
    assert (status != 405) or "allow" in answer.headers


def test_a_wrong_method_is_told_all_the_right_ones(client: httpx.Client) -> None:
    assert client.put("/v1/jobs").headers["allow"] == "GET, HEAD, POST"
    assert client.options("/v1/jobs/x").headers["allow"] == "DELETE, GET, HEAD"


def test_an_unforeseen_error_is_a_problem_with_a_reference_into_the_log_and_nothing_of_its_message(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: Broker) -> int:
        raise RuntimeError("(0010,0010) Doe^John")

    monkeypatch.setattr(Broker, "depth", fail)
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json()["code"]) == (500, "internal.error")
    assert answer.headers["x-request-id"] in answer.json()["detail"]
    assert "Doe" not in answer.text
    record = next(record for record in caplog.records if record.exc_info)
    line = JSONFormatter().format(record)
    assert json.loads(line)["request_id"] == answer.headers["x-request-id"]
    assert json.loads(line)["error"] == "RuntimeError"
    assert "Doe" not in line


def test_every_request_is_one_json_line_without_what_the_sender_chose(
    client: httpx.Client, series: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    client.get("/patients/Doe-John")
    job = client.post("/v1/jobs", files=parts(series[:5]), data={"model": "oarlock-hn", "label": "Doe^Jane"}).json()
    client.get("/v1/jobs", params={"series_instance_uid": job["series"]["series_instance_uid"]})
    client.get(job["links"]["self"])
    stream = io.StringIO()
    for record in caplog.records:
        if record.name.startswith("service"):
            print(JSONFormatter().format(record), file=stream)
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    requests = [(line["route"], line["status"], line["job_id"]) for line in lines if line["event"] == "request"]
    assert requests == [
        ("unknown", 404, None),
        ("/v1/jobs", 202, job["id"]),
        ("/v1/jobs", 200, None),
        ("/v1/jobs/{job_id}", 200, job["id"]),
    ]
    for canary in ("Doe", "Phantom", "2.25.", "IM0"):
        assert canary not in stream.getvalue()


# ── the contract ──────────────────────────────────────────────────────────────────────────────────────────────────────


BINARY = {"application/dicom", "application/pdf", "image/png", "application/octet-stream", "multipart/related"}


def test_the_contract_has_every_call_and_an_example_for_each_answer(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    calls = {(method.upper(), path) for path, operations in document["paths"].items() for method in operations}
    job, study = "/v1/jobs/{job_id}", "/dicom-web/studies/{study}"
    instance = f"{study}/series/{{series}}/instances/{{instance}}"
    assert calls == {
        *(
            (("POST"), path)
            for path in (
                "/v1/jobs",
                "/v1/comparisons",
                "/v1/qa/baselines",
                "/v1/commissionings",
                f"{job}/cancel",
                f"{job}/retry",
                f"{job}/reviews",
                f"{job}/reference",
            )
        ),
        *(("POST", job + path) for path in ("/deliveries", "/resend")),
        *(("POST", f"/v1/retrievals{path}") for path in ("", "/{request_id}/cancel")),
        *(("GET", path) for path in ("/v1/retrievals", "/v1/retrievals/{request_id}", "/v1/gateways")),
        *(("POST", f"/v1/gateways/{{gateway}}{path}") for path in ("", "/series/{series}/complete", "/requests/{request_id}")),
        *(
            ("GET", job + path)
            for path in (
                "",
                "/events",
                "/rtstruct",
                "/seg",
                "/qa",
                "/report.html",
                "/report.pdf",
                "/report.dcm",
                "/preview.png",
                "/review",
                "/patient",
                "/review/data",
                "/review/returned/{position}",
                "/references/{origin}/{position}",
            )
        ),
        ("DELETE", job),
        *(("POST", path) for path in ("/dicom-web/studies", study)),
        *(("GET", path) for path in ("/dicom-web/studies", "/dicom-web/series", "/dicom-web/instances")),
        *(("GET", study + path) for path in ("", "/series", "/instances", "/metadata")),
        *(("GET", f"{study}/series/{{series}}{path}") for path in ("", "/instances", "/metadata")),
        *(("GET", instance + path) for path in ("", "/metadata", "/frames/{numbers}", "/bulkdata/{tag}")),
        ("GET", "/v1/received"),
        ("DELETE", "/v1/received/{received_id}"),
        *(
            ("GET", path)
            for path in (
                "/v1/qa/scores",
                "/v1/qa/summary",
                "/v1/qa/checks",
                "/v1/qa/drift",
                "/v1/qa/baselines",
                "/v1/qa/reviews",
                "/v1/commissionings",
                "/v1/commissionings/{model_sha256}",
                "/v1/jobs",
                "/v1/events",
                "/v1/caller",
                "/v1/models",
                "/v1/profiles",
                "/livez",
                "/readyz",
                "/metrics",
            )
        ),
    }
    for path, operations in document["paths"].items():
        for operation in operations.values():
            for status, answer in operation["responses"].items():
                binary = BINARY & set(answer.get("content", {}))
                for content in answer.get("content", {}).values():
                    assert binary or "example" in content or content.get("examples"), (path, status)
    assert "HTTPValidationError" not in json.dumps(document)


def test_the_examples_in_the_contract_are_of_its_schemas(client: httpx.Client, series: list[Path]) -> None:
    document = client.get("/openapi.json").json()
    example = document["paths"]["/v1/jobs"]["post"]["responses"]["202"]["content"]["application/json"]["example"]
    real = client.post("/v1/jobs", files=parts(series[:5])).json()

    def shape(value: Any) -> Any:
        return {key: shape(inner) for key, inner in value.items()} if isinstance(value, dict) else None

    assert shape(example) == shape(real)


def test_the_schema_of_a_qa_report_names_every_member_of_a_real_one_and_of_its_example() -> None:
    grid = crooked_grid()
    masks = OARMasks.empty(OARS, grid.shape)
    source = Source("2.25.1", "")
    report = compare(masks, masks, grid, matched_rois={}, predicted_source=source, reference_source=source)
    spread = Spread(BY_NAME["Brain"], 2, 1, dict.fromkeys(METRICS), dict.fromkeys(METRICS))
    made = Making("a job", "2026-03-05T00:00:00+00:00", ModelFacts("a model", "1", "ab" * 32), "0.1.0")
    tolerances = tolerance_table(OARS, grid, {})
    checks = check_masks(masks, grid)
    real = job_report("2.25.2", [report], checks, [spread], grid=grid, made=made, site="here", tolerances=tolerances)

    def members(value: Any, at: str = "") -> set[str]:
        if isinstance(value, list):
            return {name for inner in value for name in members(inner, f"{at}[]")}
        if isinstance(value, dict):
            return {f"{at}.{key}" for key in value}.union(*(members(inner, f"{at}.{key}") for key, inner in value.items()))
        return set()

    described = QAReportDocument.model_validate(real).model_dump(mode="json")
    assert members(real) <= members(described)
    assert QAReportDocument.model_validate(QA_REPORT).model_dump(mode="json") == QA_REPORT
    assert members(described) <= members(QA_REPORT)


def test_openapi_names_the_qa_report_and_the_comparison_in_full(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    for path, method, name in (
        ("/v1/jobs/{job_id}/qa", "get", "QAReportDocument"),
        ("/v1/comparisons", "post", "Comparison"),
        ("/v1/jobs/{job_id}/reference", "post", "Comparison"),
    ):
        content = document["paths"][path][method]["responses"]["200"]["content"]["application/json"]
        assert content["schema"] == {"$ref": f"#/components/schemas/{name}"}
    schemas = document["components"]["schemas"]
    assert {"surface_dsc", "added_path_length_mm", "predicted_roi"} <= set(schemas["OrganScore"]["required"])
    assert {"verdict", "organs", "tolerances", "comparisons", "made"} <= set(schemas["QAReportDocument"]["required"])


def test_a_parameter_that_a_call_does_not_take_is_refused_and_not_repeated(client: httpx.Client) -> None:
    for path, wrong in (("/v1/jobs", "stat"), ("/v1/qa/drift", "origin"), ("/v1/models", "x"), ("/v1/qa/scores", "organ")):
        for method in ("GET", "HEAD"):
            answer = client.request(method, path, params={wrong: "supplied"})
            assert answer.status_code == 422, path
        assert client.get(path, params={wrong: "supplied"}).json()["code"] == "request.unknown_parameter"
    detail = client.get("/v1/jobs", params={"stat": "failed"}).json()["detail"]
    assert detail.endswith("It takes state, series_instance_uid, label, limit, cursor.")


def test_every_parameter_is_described_and_every_operation_has_the_name_of_its_call(client: httpx.Client) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    operations = [operation for methods in paths.values() for operation in methods.values()]
    assert all(parameter.get("description") for operation in operations for parameter in operation.get("parameters", ()))
    names = [operation["operationId"] for operation in operations]
    assert len(names) == len(set(names))
    assert {"post_job", "list_jobs", "get_rtstruct", "post_reference", "get_drift"} <= set(names)
    assert all(set(methods) <= {"get", "post", "delete"} for methods in paths.values())


def test_every_answer_tells_browsers_not_to_guess_and_nobody_to_keep_it(client: httpx.Client) -> None:
    for path in ("/v1/jobs", "/v1/jobs/x", "/livez", "/docs", "/openapi.json", "/nothing"):
        headers = client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"


def test_the_address_alone_shows_a_page_that_runs_and_loads_nothing_from_elsewhere(client: httpx.Client) -> None:
    for path in ("/", f"/jobs/{JOB_ID}"):
        answer = client.get(path)
        page = _Addresses()
        page.feed(answer.text)
        assert answer.status_code == 200
        assert all(address.startswith(("/", "#")) for address in page.found)
        assert "style" not in page.tags
        assert answer.headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'; style-src 'self';")
        assert all(client.get(address).status_code == 200 for address in page.found if address.startswith("/static/"))
    assert client.get("/static/nothing.js").status_code == 404


def test_health_is_looked_at_once_a_second_however_often_it_is_asked_for(
    client: httpx.Client, running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[None] = []
    monkeypatch.setattr(health, "FRESH_S", 60.0)
    monkeypatch.setattr(Broker, "depth", lambda _: asked.append(None) or 0)
    monkeypatch.setattr(running.service.health, "_looked_at", float("-inf"))
    for _ in range(10):
        client.get("/readyz")
    assert len(asked) == 1
    monkeypatch.setattr(running.service.health, "_looked_at", float("-inf"))


def test_head_answers_wherever_get_does(client: httpx.Client) -> None:
    for path in ("/livez", "/openapi.json", "/docs", "/v1/models", "/v1/jobs", "/metrics"):
        head, get = client.head(path), client.get(path)
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-type"] == get.headers["content-type"]


class _Addresses(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.found += [value for name, value in attributes if name in {"src", "href"} and value]


def test_the_documentation_needs_nothing_from_outside_and_leads_to_every_error(client: httpx.Client) -> None:
    answer = client.get("/docs")
    page = _Addresses()
    page.feed(answer.text)
    assert all(address.startswith(("/", "#")) for address in page.found)
    assert not page.tags & {"script", "link", "img", "iframe"}
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert all(f'id="{leaf.code}"' in answer.text for leaf in leaves())
    assert "/v1/jobs/{job_id}/preview.png" in answer.text


def test_the_documentation_leads_to_every_call_and_says_who_may_make_it_and_how(client: httpx.Client) -> None:
    text, paths = client.get("/docs").text, client.get("/openapi.json").json()["paths"]
    for operation in (one for operations in paths.values() for one in operations.values()):
        assert f'href="#{operation["operationId"]}"' in text
        assert f'id="{operation["operationId"]}"' in text
    post, keep, cancel = (text.split(f'id="{name}"')[1] for name in ("post_job", "post_baseline", "cancel_job"))
    assert "Needs a key with <code>jobs:write</code>." in post
    assert "-F files=@series.zip &quot;$S/v1/jobs&quot;</pre>" in post
    assert "Needs a key with <code>qa:write</code>." in keep
    assert "-X POST &quot;$S/v1/jobs/$JOB_ID/cancel&quot;</pre>" in cancel


def test_every_error_has_a_status_and_the_documents_list_them_all() -> None:
    text = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([a-z_.]+)` \| (\d{3}) \| ([^|]+) \|", text, flags=re.MULTILINE)
    assert {(code, int(status), title.strip()) for code, status, title in rows} == {
        (leaf.code, STATUS_BY_CODE[leaf.code], leaf.title) for leaf in leaves(OarlockError)
    }


def test_the_documents_list_every_warning() -> None:
    sources = [
        path.read_text(encoding="utf-8") for face in ("oarlock", "service", "worker") for path in (ROOT / face).rglob("*.py")
    ]
    codes = {
        code
        for text in sources
        for code in re.findall(
            r'"((?:series|structure_set|rtstruct|contours|comparison|picture)\.[a-z_]+|job\.model_replaced)"', text
        )
    }
    given = codes - {leaf.code for leaf in leaves(OarlockError)} - {RTSTRUCT}
    section = (ROOT / "docs" / "api.md").read_text(encoding="utf-8").partition("\n## Warnings")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| `([a-z_.]+)` \|", section, flags=re.MULTILINE)) == given

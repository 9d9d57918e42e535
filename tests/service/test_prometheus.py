"""The dashboard's and the alerts' queries, asked of a real Prometheus that scrapes a real service in which things happen."""

import json
import math
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import promql_parser as promql
import pytest
from ruamel.yaml import YAML

from oarlock.errors import InferenceFailed
from oarlock.facts import ModelFacts
from oarlock.qa.control_chart import Rule
from oarlock.store.jobs import Stage
from oarlock.store.leases import Lease
from oarlock.store.scores.write import Scored, append
from tests.fixtures.processes import eventually, free_port
from tests.fixtures.scores import compared, score
from tests.service.conftest import make_settings
from tests.service.running import Running, parts, serve, write_model
from tests.service.test_monitoring import ALERTS, ROOT, rules, say_of_brain, shown

pytestmark = pytest.mark.slow

QUERIES = shown()
PATIENCE_S = 60.0
SOMETHING = 1e-9
FIRST = (
    "Deliveries by state A",
    "Verdicts on sets a day A",
    "Verdicts on organs a week A",
    "Organs beyond the site’s action levels a week A",
    "Asked of gateways, by state A",
    "Instances stored by DICOMweb an hour A",
    "Series stored by DICOMweb that are not a job A",
    "Shadow runs by state A",
    "What people said of organs a week A",
)
LEAST = dict.fromkeys(FIRST, 0.0) | {
    "Callbacks by state A": 0.0,
    "Red and amber findings a day A": 0.0,
    "Findings by check A": 0.0,
}
"""Nobody asked to be called back; and the first finding of its kind ever is no increase."""

BEFORE = {
    'oarlock_jobs{state="failed"}': 0.0,
    "count(oarlock_surface_dsc_count) > bool 0": 1.0,
    "count(oarlock_stage_seconds_count) > bool 0": 1.0,
}

BRAIN = replace(score("Brain", 0.93), action_levels={"surface_dsc": 0.9})
MODEL = ModelFacts("oarlock-hn", "1.2.3", "ab" * 32)


class Prometheus:
    """One that answers at ``url`` and scrapes every second."""

    def __init__(self, url: str) -> None:
        self._url = url

    def ask(self, path: str, **parameters: str) -> Any:
        return httpx.get(f"{self._url}/api/v1/{path}", params=parameters, timeout=30).raise_for_status().json()["data"]

    def values(self, query: str) -> list[float]:
        return [float(found["value"][1]) for found in self.ask("query", query=query)["result"]]

    def has(self, query: str, value: float) -> bool:
        try:
            return value in self.values(query)
        except httpx.HTTPError:
            return False


def configured(folder: Path, target: str) -> Path:
    """The project's own configuration, for this service, which is open, and with less patience."""
    configuration = YAML(typ="safe").load(ROOT / "docker" / "prometheus" / "prometheus.yml")
    for job in configuration["scrape_configs"]:
        del job["authorization"]
        job.pop("dns_sd_configs", None)
        job["static_configs"] = [{"targets": [target]}]
    configuration["global"] = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
    configuration["rule_files"] = [str(ALERTS)]
    file = folder / "prometheus.yml"
    file.write_text(json.dumps(configuration))
    return file


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("watched")
    write_model(folder / "models")
    with serve(make_settings(folder, redis_url, min_free_bytes=1)) as running:
        yield running


def begun(running: Running, client: httpx.Client, series: list[Path]) -> Lease:
    """The lease of a new job whose network runs."""
    lease = running.claim(client.post("/v1/jobs", files=parts(series)).json())
    running.store.leases.progress(lease, stage=Stage.INFERRING, progress=0.5, lease_s=60)
    return lease


def live_before(running: Running, series: list[Path]) -> None:
    """A job that ended well, and one that was scored: from then on their kinds are counted."""
    with httpx.Client(base_url=running.url, timeout=30) as client:
        running.store.leases.succeed(begun(running, client, series))
    with running.service.database.writing() as connection:
        append(connection, datetime.now(UTC), "an-earlier-job", MODEL, Scored("CT"))


def live_a_little(running: Running, series: list[Path]) -> None:
    """One of everything that the dashboard shows."""
    with httpx.Client(base_url=running.url, timeout=30) as client:
        running.store.workers.heartbeat("watched", {}, "cpu")
        lease = begun(running, client, series)
        client.get("/v1/jobs/none")
        client.post("/v1/gateways/ward", json={}).raise_for_status()
        scored = Scored(
            "CT",
            [compared(BRAIN)],
            [("organ.volume", "Brain", "red")],
            verdicts=[("Brain", "red")],
        )
        with running.service.database.writing() as connection:
            append(connection, datetime.now(UTC), lease.job_id, MODEL, scored)
        say_of_brain(running, lease)
        running.service.metrics.drift_alarms.labels(MODEL.name, "Brain", Rule.RUN, "lower").inc()
        running.store.leases.fail(lease, InferenceFailed(reason="it was only a test"))
        running.claim(client.post("/v1/jobs", files=parts(series)).json())
        client.post("/v1/jobs", files=parts(series)).raise_for_status()


@pytest.fixture(scope="module")
def scraped(watched: Running, series: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("Prometheus is not installed (apt-get install prometheus)")
    folder = tmp_path_factory.mktemp("prometheus")
    address = f"127.0.0.1:{free_port()}"
    command = [program, f"--config.file={configured(folder, watched.url.removeprefix('http://'))}"]
    command += [f"--storage.tsdb.path={folder / 'tsdb'}", f"--web.listen-address={address}"]
    with (folder / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            asked = Prometheus(f"http://{address}")
            live_before(watched, series)
            assert eventually(lambda: asked.has('up{job="oarlock"}', 1), within_s=PATIENCE_S), (folder / "log").read_text()
            for query, value in BEFORE.items():  # an increase is seen only from what was scraped before it
                assert eventually(lambda query=query, value=value: asked.has(query, value), within_s=PATIENCE_S), query
            live_a_little(watched, series)
            assert eventually(lambda: asked.has('oarlock_jobs{state="failed"}', 1), within_s=PATIENCE_S)
            yield asked
        finally:
            process.terminate()


@pytest.fixture
def prometheus(scraped: Prometheus, watched: Running) -> Prometheus:
    """A worker counts as alive for a minute, and machines can be slow."""
    watched.store.workers.heartbeat("watched", {}, "cpu")
    return scraped


@pytest.mark.parametrize("name", QUERIES)
def test_a_query_of_the_dashboard_finds_something_as_soon_as_it_has_happened(prometheus: Prometheus, name: str) -> None:
    assert eventually(
        lambda: any(value >= LEAST.get(name, SOMETHING) and math.isfinite(value) for value in prometheus.values(QUERIES[name])),
        within_s=PATIENCE_S,
    )


def test_the_rules_of_the_alerts_are_evaluated_without_an_error(prometheus: Prometheus) -> None:
    def evaluated() -> list[dict[str, Any]]:
        return [rule for group in prometheus.ask("rules")["groups"] for rule in group["rules"]]

    assert eventually(lambda: all(rule["health"] != "unknown" for rule in evaluated()), within_s=PATIENCE_S)
    assert {rule["name"]: rule["health"] for rule in evaluated()} == {rule["alert"]: "ok" for rule in rules()}


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_an_alert_watches_something_that_is_there(prometheus: Prometheus, rule: dict[str, Any]) -> None:
    watched: list[str] = []

    def enter(part: Any) -> None:
        if isinstance(part, promql.VectorSelector):
            watched.append(str(part))

    promql.walk(promql.parse(rule["expr"]), enter, lambda part: None)
    assert watched
    for selector in watched:
        assert eventually(lambda asked=selector: bool(prometheus.values(asked)), within_s=PATIENCE_S), selector

"""The dashboard and the alerts: their queries can be read, and ask only for metrics and labels that the service gives."""

import json
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import promql_parser as promql
import pytest
from prometheus_client.parser import text_string_to_metric_families
from ruamel.yaml import YAML

from oarlock.errors import InferenceFailed, leaves
from oarlock.facts import ModelFacts
from oarlock.organs.catalogue import OARS
from oarlock.store.audit import SYSTEM
from oarlock.store.jobs import Stage
from oarlock.store.leases import Lease
from oarlock.store.reviews import ReviewStore
from oarlock.store.scores.write import Scored, append
from tests.fixtures.scores import compared, score
from tests.service.running import Running, parts

ROOT = Path(__file__).parents[2]
DASHBOARD = ROOT / "docker" / "grafana" / "dashboards" / "oarlock.json"
ALERTS = ROOT / "docker" / "prometheus" / "alerts.yml"
SCENES = [Path(__file__).parent / name for name in ("alerts_test.yml", "alerts_of_weeks_test.yml")]

SCRAPED = {"job", "instance"}
"""Labels that Prometheus adds."""

UP = {"up": set[str]()}
"""Prometheus makes this metric itself."""


BRAIN = replace(score("Brain", 0.93), action_levels={"surface_dsc": 0.9})
SCORED = Scored(
    "CT",
    [compared(BRAIN)],
    [("organ.volume", "Brain", "red")],
    [("Brain", "red")],
)


def panels() -> list[dict[str, Any]]:
    return [panel for panel in json.loads(DASHBOARD.read_text())["panels"] if panel["type"] != "row"]


def rules() -> list[dict[str, Any]]:
    return [rule for group in YAML(typ="safe").load(ALERTS)["groups"] for rule in group["rules"]]


def shown() -> dict[str, str]:
    """Each query of the dashboard, with its variables filled in as Grafana does."""
    found = {f"{panel['title']} {target['refId']}": target["expr"] for panel in panels() for target in panel.get("targets", ())}
    values = {"$__range": "24h", "$origin": "supplied"} | dict.fromkeys(("$model_version", "$model", "$scanner", "$oar"), ".*")
    for variable, value in values.items():
        found = {name: query.replace(variable, value) for name, query in found.items()}
    return found


QUERIES = shown() | {rule["alert"]: rule["expr"] for rule in rules()}


def selectors(query: str) -> Iterator[tuple[str, set[str]]]:
    """Each metric that a query asks for, with the labels that it is chosen or grouped by."""
    found: list[tuple[str, set[str]]] = []
    groups: list[set[str]] = []

    def enter(part: Any) -> None:
        if isinstance(part, promql.AggregateExpr) and part.modifier:
            groups.append(set(part.modifier.labels))
        if isinstance(part, promql.VectorSelector):
            chosen = {matcher.name for matcher in part.matchers.matchers}
            found.append((part.name, chosen.union(*groups)))

    def leave(part: Any) -> None:
        if isinstance(part, promql.AggregateExpr) and part.modifier:
            groups.pop()

    promql.walk(promql.parse(query), enter, leave)
    yield from found


def say_of_brain(running: Running, lease: Lease) -> None:
    """Somebody finds the job's brain usable."""
    reviews = ReviewStore(running.service.database)
    reviews.add(running.store.get(lease.job_id), [("Brain", "usable", None)], by=SYSTEM)


@pytest.fixture(scope="module")
def labels(running: Running, series: list[Path]) -> dict[str, set[str]]:
    """The labels of every metric, as seen after a little of everything has happened."""
    with httpx.Client(base_url=running.url, timeout=30) as client:
        running.store.workers.heartbeat("monitored", {}, "cpu")
        lease = running.claim(client.post("/v1/jobs", files=parts(series[:5])).json())
        running.store.leases.progress(lease, stage=Stage.INFERRING, progress=0.5, lease_s=60)
        client.get("/v1/jobs/none")
        client.post("/v1/gateways/ward", json={}).raise_for_status()
        with running.service.database.writing() as connection:
            append(connection, datetime.now(UTC), lease.job_id, ModelFacts("monitored", "1", "ab" * 32), SCORED)
        say_of_brain(running, lease)
        text = client.get("/metrics").text
        running.store.leases.fail(lease, InferenceFailed(reason="it was only a test"))
        running.store.workers.sign_off("monitored")
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found | UP


@pytest.mark.parametrize("name", QUERIES)
def test_a_query_asks_only_for_what_there_is(labels: dict[str, set[str]], name: str) -> None:
    asked = list(selectors(QUERIES[name]))
    assert asked
    for metric, chosen in asked:
        assert metric in labels
        assert chosen <= labels[metric] | SCRAPED, metric


def test_a_query_for_a_metric_that_is_not_there_would_be_found() -> None:
    query = 'sum by (organ) (rate(oarlock_volume_sum{side="left"}[5m])) / on (instance) oarlock_jobs'
    assert list(selectors(query)) == [("oarlock_volume_sum", {"side", "organ"}), ("oarlock_jobs", set())]


def test_everything_that_the_service_counts_is_on_the_dashboard(labels: dict[str, set[str]]) -> None:
    families = {re.sub(r"_(bucket|sum|count|created|total|info)$", "", name) for name in labels}
    asked = {metric for query in shown().values() for metric, _ in selectors(query)}
    assert families == {re.sub(r"_(bucket|sum|count|total|info)$", "", name) for name in asked}


def test_alerts_name_codes_that_exist() -> None:
    named = {code for rule in rules() for value in re.findall(r'code=~?"([^"]+)"', rule["expr"]) for code in value.split("|")}
    assert named
    assert named <= {leaf.code for leaf in leaves()}


def test_the_first_refusal_of_its_kind_is_an_increase_too(client: httpx.Client) -> None:
    counted = set(re.findall(r'^oarlock_refusals_total\{code="([a-z_.]+)"\}', client.get("/metrics").text, flags=re.MULTILINE))
    assert counted == {leaf.code for leaf in leaves()}


def test_the_first_comparison_of_an_organ_after_any_job_of_its_scanner_is_an_increase_too(
    client: httpx.Client, running: Running
) -> None:
    with running.service.database.writing() as connection:
        append(connection, datetime.now(UTC), "a-job", ModelFacts("oarlock-hn", "7", "ab" * 32), Scored("CT9"))
    named = r'model="oarlock-hn",model_version="7",oar="(\w+)",origin="(\w+)",scanner="CT9",site=""'
    pattern = rf"^oarlock_surface_dsc_count\{{{named}\}} 0"
    found = set(re.findall(pattern, client.get("/metrics").text, flags=re.MULTILINE))
    assert found == {(oar.name, origin) for oar in OARS for origin in ("supplied", "approved")}


def test_scrapes_that_wait_for_one_share_the_next(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    metrics, asked, texts = running.service.metrics, count(1), iter([b"first", b"second"])
    collecting, all_asked = threading.Event(), threading.Event()

    def clock() -> float:
        now = next(asked)
        if now == 5:  # the first asked and began, and three more asked
            all_asked.set()
        return now

    def text() -> bytes:
        collecting.set()
        assert all_asked.wait(10)
        return next(texts)

    monkeypatch.setattr(metrics, "_clock", clock)
    monkeypatch.setattr(metrics, "_begun_at", 0)
    monkeypatch.setattr(metrics._table, "text", text)
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(metrics.exposition)
        assert collecting.wait(10)
        others = [pool.submit(metrics.exposition) for _ in range(3)]
        answers = [answer.result()[:5] for answer in (first, *others)]
    assert answers == [b"first", b"secon", b"secon", b"secon"]


def test_every_alert_says_how_bad_it_is_and_the_handbook_what_to_do() -> None:
    handbook = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    for rule in rules():
        assert rule["labels"]["severity"] in {"critical", "warning"}
        assert rule["annotations"]["summary"]
        assert f"| `{rule['alert']}` |" in handbook


def test_the_dashboard_is_found_by_grafana_and_finds_its_source() -> None:
    provisioning = ROOT / "docker" / "grafana" / "provisioning"
    (source,) = YAML(typ="safe").load(provisioning / "datasources" / "prometheus.yml")["datasources"]
    (provider,) = YAML(typ="safe").load(provisioning / "dashboards" / "oarlock.yml")["providers"]
    grafana = YAML(typ="safe").load(ROOT / "docker-compose.yml")["services"]["grafana"]
    assert f"./docker/grafana/dashboards:{provider['options']['path']}:ro" in grafana["volumes"]
    assert (
        grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"] == f"{provider['options']['path']}/{DASHBOARD.name}"
    )
    asked = [target["datasource"] for panel in panels() for target in panel.get("targets", ())]
    assert all(datasource == {"type": source["type"], "uid": source["uid"]} for datasource in asked)


def test_panels_do_not_overlap_and_are_numbered_once() -> None:
    everything = json.loads(DASHBOARD.read_text())["panels"]
    assert len({panel["id"] for panel in everything}) == len(everything)
    cells = [
        (x, y)
        for panel in everything
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24


def promtool(*arguments: str | Path) -> None:
    tool = shutil.which("promtool")
    if tool is None:
        pytest.skip("promtool is not installed (apt-get install prometheus)")
    done = subprocess.run([tool, *arguments], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_takes_its_configuration() -> None:
    promtool("check", "config", "--syntax-only", ROOT / "docker" / "prometheus" / "prometheus.yml")


@pytest.mark.slow
def test_prometheus_takes_the_alerts_and_they_fire_when_they_should() -> None:
    promtool("check", "rules", ALERTS)
    for scenes in SCENES:
        promtool("test", "rules", scenes)


def test_every_alert_has_a_scene_in_which_it_fires_and_one_in_which_it_does_not() -> None:
    scenes = [case for file in SCENES for test in YAML(typ="safe").load(file)["tests"] for case in test["alert_rule_test"]]
    fires = {case["alertname"] for case in scenes if case.get("exp_alerts")}
    silent = {case["alertname"] for case in scenes if not case.get("exp_alerts")}
    assert fires == silent == {rule["alert"] for rule in rules()}

"""Sites: no call of one site shows, counts or changes what is another's; an operator sees all."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from oarlock.errors import InvalidParameter
from oarlock.facts import ComparisonRows
from oarlock.scopes import Scope
from oarlock.store.audit import read_entries
from oarlock.store.jobs import JobId
from oarlock.store.keys import OF_ALL_SITES, KeyStore
from oarlock.store.retention import Retention
from oarlock.store.schema import JOBS
from oarlock.store.scores.write import Scored
from tests.fixtures.processes import eventually
from tests.service.conftest import make_settings
from tests.service.running import Running, parts, serve, write_model

pytestmark = pytest.mark.slow

OF_A_SITE = sorted(set(Scope) - OF_ALL_SITES)

SCORE = {
    "oar": "Parotid_L",
    "presence": "both",
    "tolerance_mm": 2.85,
    **dict.fromkeys(("surface_dsc", "surface_dsc_unrounded", "volumetric_dsc"), 0.9),
    **dict.fromkeys(("hausdorff_95_mm", "mean_surface_distance_mm", "added_path_length_mm", "tolerance_rounded_mm"), 1.0),
    **dict.fromkeys(("predicted_volume_ml", "reference_volume_ml"), 30.0),
    **dict.fromkeys(("undefined_reason", "verdict"), None),
}


WEST = """
profile = "monaco"
keep_input = "1h"
keep_results = "2d"
rate_per_minute = 4
share = 2
"""
"""What a third site sets for itself."""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> Iterator[Running]:
    """A service that two sites and an operator use."""
    folder = tmp_path_factory.mktemp("shared")
    write_model(folder / "models")
    (folder / "sites").mkdir()
    (folder / "sites" / "west.toml").write_text(WEST)
    with serve(make_settings(folder, redis_url, lease_s=3600, sites=folder / "sites")) as running:
        yield running


@pytest.fixture(scope="module")
def callers(shared: Running) -> Iterator[dict[str, httpx.Client]]:
    keys = KeyStore(shared.service.database)
    tokens = {site: keys.create(site, OF_A_SITE, site=site)[1] for site in ("north", "south")}
    tokens["operator"] = keys.create("operator", [Scope.ADMIN])[1]
    clients = {
        name: httpx.Client(base_url=shared.url, headers={"Authorization": f"Bearer {token}"}, timeout=30)
        for name, token in tokens.items()
    }
    yield clients
    for client in clients.values():
        client.close()


@pytest.fixture(scope="module")
def of_north(shared: Running, callers: dict[str, httpx.Client], series: list[Path]) -> dict[str, Any]:
    """A finished job of the site north with a score."""
    posted = callers["north"].post("/v1/jobs", files=parts(series[:5]), headers={"Idempotency-Key": "plan-1"})
    job: dict[str, Any] = posted.raise_for_status().json()
    lease = shared.claim(job)
    with shared.service.storage.results_writer(lease.job_id, lease.token) as folder:
        (folder / "rtstruct.dcm").write_bytes(b"of north")
    scored = Scored("scanner of north", [ComparisonRows("surface-dsc/1", (SCORE,))])
    shared.store.leases.succeed(lease, scored=scored)
    return job


def test_every_call_about_a_job_is_answered_to_another_site_as_if_there_were_no_such_job(
    shared: Running, callers: dict[str, httpx.Client], of_north: dict[str, Any]
) -> None:
    tried = 0
    for path, operations in shared.app.openapi()["paths"].items():
        if "{job_id}" not in path:
            continue
        for method in operations.keys() & {"get", "post", "put", "delete"}:
            address = path.replace("{job_id}", of_north["id"]).replace("{", "").replace("}", "")
            answer = callers["south"].request(method, address)
            assert (answer.status_code, answer.json()["code"]) == (404, "job.not_found"), (method, path)
            tried += 1
    assert tried >= 9
    assert callers["north"].get(f"/v1/jobs/{of_north['id']}/rtstruct").content == b"of north"


def test_no_list_of_one_site_shows_or_counts_what_another_has(
    shared: Running, callers: dict[str, httpx.Client], of_north: dict[str, Any]
) -> None:
    lists = [
        path
        for path, calls in shared.app.openapi()["paths"].items()
        if "get" in calls and "{" not in path and path != "/v1/events"
    ]
    seen = {name: {path: client.get(path).text for path in lists if path != "/metrics"} for name, client in callers.items()}
    for path, text in seen["south"].items():
        assert not any(
            mark in text for mark in (of_north["id"], "scanner of north", of_north["series"]["series_instance_uid"])
        ), path
    for name in ("north", "operator"):
        assert of_north["id"] in seen[name]["/v1/jobs"]
        assert "scanner of north" in seen[name]["/v1/qa/scores"]
    counts = {name: httpx_json(client, "/v1/qa/summary")["oars"] for name, client in callers.items()}
    assert {name: [oar["n"] for oar in oars] for name, oars in counts.items()} == {"north": [1], "south": [], "operator": [1]}


def httpx_json(client: httpx.Client, path: str) -> Any:
    return client.get(path).raise_for_status().json()


def test_two_sites_may_use_the_same_idempotency_key(
    callers: dict[str, httpx.Client], of_north: dict[str, Any], series: list[Path]
) -> None:
    again, of_south = (
        callers[site].post("/v1/jobs", files=parts(series[:count]), headers={"Idempotency-Key": "plan-1"})
        for site, count in (("north", 5), ("south", 6))
    )
    assert again.json()["id"] == of_north["id"]
    assert of_south.status_code == 202
    assert of_south.json()["id"] != of_north["id"]


def test_a_site_keeps_its_own_baseline_and_an_operator_sees_of_which_site_a_chart_is(
    callers: dict[str, httpx.Client], of_north: dict[str, Any]
) -> None:
    drawn_by = {name: of_north["model"][name] for name in ("name", "version", "sha256")}
    told = {"drawn_by": drawn_by, "patients": 5, "organs": [{"oar": "Brain", "surface_dsc_scores": [0.9] * 5}]}
    kept = callers["north"].post("/v1/qa/baselines", json=told).raise_for_status().json()["baselines"]
    assert [one["site"] for one in kept] == ["north"]
    assert httpx_json(callers["south"], "/v1/qa/baselines") == {"baselines": []}
    rows = {site: httpx_json(callers["operator"], f"/v1/qa/scores?site={site}")["scores"] for site in ("north", "south")}
    assert ([row["site"] for row in rows["north"]], rows["south"]) == (["north"], [])
    for path in ("/v1/qa/scores", "/v1/qa/summary", "/v1/qa/checks", "/v1/qa/drift"):
        refused = callers["south"].get(path, params={"site": "north"})
        assert (refused.status_code, refused.json()["code"]) == (422, "request.invalid_parameter")


@pytest.mark.parametrize("scope", sorted(OF_ALL_SITES))
def test_a_key_of_a_site_cannot_have_what_shows_all_sites(shared: Running, scope: Scope) -> None:
    with pytest.raises(InvalidParameter, match=f"{scope} shows what all sites have"):
        KeyStore(shared.service.database).create(f"bad-{scope[:5]}", [scope], site="north")


def test_the_audit_log_and_the_request_log_name_the_site(
    shared: Running, callers: dict[str, httpx.Client], of_north: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    posted = next(entry for entry in read_entries(shared.service.database) if entry.job_id == of_north["id"])
    assert posted.actor_name == "north/north"
    caplog.set_level(logging.INFO)
    callers["south"].get("/metrics")  # forbidden
    callers["operator"].get("/v1/jobs")
    # A request is noted after its answer has left.
    assert eventually(lambda: [record.getMessage() for record in caplog.records].count("request") == 2, within_s=10)
    refused, allowed = (vars(record) for record in caplog.records if record.getMessage() == "request")
    assert (refused["status"], refused["site"]) == (403, "south")
    assert (allowed["status"], allowed["site"]) == (200, None)


def test_a_session_is_written_down_with_its_site(shared: Running, callers: dict[str, httpx.Client]) -> None:
    key = callers["north"].headers["Authorization"].removeprefix("Bearer ")
    httpx.post(f"{shared.url}/sign-in", data={"key": key}, headers={"Origin": shared.url}, timeout=30)
    *_, opened = (entry for entry in read_entries(shared.service.database) if entry.action == "session.opened")
    assert opened.actor_name == "north/north"


def test_by_dicomweb_a_site_finds_and_stores_its_own_alone(
    callers: dict[str, httpx.Client], of_north: dict[str, Any], series: list[Path]
) -> None:
    path = "/dicom-web/studies/{study_instance_uid}/series/{series_instance_uid}".format(**of_north["series"])
    assert {name: callers[name].get(path).status_code for name in callers} == {"north": 200, "south": 404, "operator": 200}
    assert callers["south"].get("/dicom-web/studies").json() == []
    assert callers["south"].get(f"{path}/instances").json() == []
    body = b"--b\r\nContent-Type: application/dicom\r\n\r\n" + series[0].read_bytes() + b"\r\n--b--\r\n"
    headers = {"Content-Type": "multipart/related; boundary=b"}
    assert callers["north"].post("/dicom-web/studies", content=body, headers=headers).status_code == 200
    counts = {name: len(callers[name].get("/v1/received").json()["received"]) for name in callers}
    assert counts == {"north": 1, "south": 0, "operator": 1}
    received_id = callers["north"].get("/v1/received").json()["received"][0]["id"]
    assert callers["south"].delete(f"/v1/received/{received_id}").status_code == 404
    assert callers["north"].delete(f"/v1/received/{received_id}").status_code == 204


def test_a_site_has_the_profile_retention_share_and_rate_of_its_own_file(shared: Running, series: list[Path]) -> None:
    """A key that says something else for itself is heard first; the rate counts all keys of the site together."""
    keys = KeyStore(shared.service.database)
    _, plain = keys.create("west", OF_A_SITE, site="west")
    _, own = keys.create("west-research", OF_A_SITE, site="west", profile="generic", retention=Retention(results_s=60))
    jobs = []
    with httpx.Client(base_url=shared.url, timeout=30) as client:
        for token in (plain, own, plain, plain):
            posted = client.post("/v1/jobs", files=parts(series[:5]), headers={"Authorization": f"Bearer {token}"})
            jobs.append(posted.raise_for_status().json())
        refused = client.get("/v1/jobs", headers={"Authorization": f"Bearer {own}"})
    assert (refused.status_code, refused.json()["code"]) == (429, "access.rate_limited")
    assert [shared.store.get(JobId(job["id"])).profile for job in jobs[:2]] == ["monaco", "generic"]
    with shared.service.database.reading() as connection:
        kept = {row.id: (row.keep_input_s, row.keep_results_s) for row in connection.execute(select(JOBS))}
    assert [kept[job["id"]] for job in jobs[:2]] == [(3_600, 172_800), (3_600, 60)]
    ranks = [shared.store.get(JobId(job["id"])).rank for job in jobs]
    assert ranks == [4, 4, 5, 5]  # two at the first step, where another site has one

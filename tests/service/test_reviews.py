"""What people say of organs: kept, counted, handed on, and silent about patients once the job is purged."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from oarlock.facts import ModelFacts
from oarlock.scopes import Scope
from oarlock.store import audit
from oarlock.store.files import QA_REPORT
from oarlock.store.keys import KeyStore
from oarlock.store.scores.write import Case, Origin, add_case
from tests.fixtures.scores import compared, score
from tests.service.conftest import make_settings
from tests.service.running import Running, parts, serve, write_model

pytestmark = pytest.mark.slow

COMMISSIONED = {
    "model": "oarlock-hn 1.2.3",  # what else commissioning.json has is not read
    "drawn_by": {"name": "oarlock-hn", "version": "1.2.3", "sha256": "ab" * 32},
    "patients": 2,
    "organs": [{"oar": "Brain", "n": 2, "missed": 0, "surface_dsc_scores": [0.9, 0.95]}],
}

CANARY = "Canary Yellow's left gland"


@pytest.fixture(scope="module")
def reviewed(tmp_path_factory: pytest.TempPathFactory, redis_url: str, series: list[Path]) -> Iterator[tuple[Running, Any]]:
    """A service with a finished job, and a client that may do everything."""
    folder = tmp_path_factory.mktemp("reviewed")
    write_model(folder / "models")
    with serve(make_settings(folder, redis_url, lease_s=3600)) as running:
        token = KeyStore(running.service.database).create("marta", [Scope.ADMIN])[1]
        with httpx.Client(base_url=running.url, headers={"Authorization": f"Bearer {token}"}, timeout=30) as client:
            yield running, client


@pytest.fixture
def job(reviewed: tuple[Running, httpx.Client], series: list[Path]) -> dict[str, Any]:
    running, client = reviewed
    posted: dict[str, Any] = client.post("/v1/jobs", files=parts(series)).json()
    running.finish(posted, {QA_REPORT: b"{}"})
    return posted


def say(client: httpx.Client, job: dict[str, Any], *organs: dict[str, Any]) -> httpx.Response:
    return client.post(job["links"]["reviews"], json={"organs": list(organs)})


def test_the_newest_word_on_an_organ_counts_and_every_word_is_kept(
    reviewed: tuple[Running, httpx.Client], job: dict[str, Any]
) -> None:
    running, client = reviewed
    say(client, job, {"oar": "Brain", "verdict": "usable"}, {"oar": "Lens_L", "verdict": "unusable", "comment": CANARY})
    answer = say(client, job, {"oar": "Brain", "verdict": "needs_edits"})
    told = {one["oar"]: (one["verdict"], one["comment"], one["by"]) for one in answer.json()}
    assert told == {"Lens_L": ("unusable", CANARY, "marta"), "Brain": ("needs_edits", None, "marta")}
    assert client.get(job["links"]["self"]).json()["reviews"] == answer.json()
    rows = [row for row in client.get("/v1/qa/reviews").json()["reviews"] if row["job_id"] == job["id"]]
    assert [(row["oar"], row["verdict"]) for row in rows] == [
        ("Brain", "needs_edits"),
        ("Lens_L", "unusable"),
        ("Brain", "usable"),
    ]
    entries = [entry for entry in audit.read_entries(running.service.database) if entry.job_id == job["id"]]
    said = [(entry.actor_name, entry.result) for entry in entries if entry.action == "job.reviewed"]
    assert said == [("marta", "Brain usable"), ("marta", "Lens_L unusable"), ("marta", "Brain needs_edits")]
    assert 'oarlock_reviews_total{organ="Lens_L",verdict="unusable"} 1.0' in client.get("/metrics").text


def test_what_somebody_said_stands_beside_the_scores_and_on_the_charts_of_what_was_delivered(
    reviewed: tuple[Running, httpx.Client], job: dict[str, Any]
) -> None:
    running, client = reviewed
    model = ModelFacts("oarlock-hn", "1.2.3", "ab" * 32)
    for shadow in (False, True):
        case = Case(job["id"], model, "CT of a test", Origin.APPROVED, 1, "aa", shadow=shadow)
        with running.service.database.writing() as connection:
            add_case(connection, datetime(2026, 3, 5, 12, tzinfo=UTC), case, compared(score("Brain", 0.9), score("Lens_L", 0.8)))
    say(client, job, {"oar": "Brain", "verdict": "needs_edits"})
    for asked, brain in (("", "needs_edits"), ("&shadow=true", None)):
        rows = client.get(f"/v1/qa/scores?scanner=CT of a test{asked}").json()["scores"]
        assert {row["oar"]: row["review"] for row in rows} == {"Brain": brain, "Lens_L": None}
        charts = client.get(f"/v1/qa/drift?scanner=CT of a test{asked}").json()["charts"]
        assert {chart["oar"]: chart["baseline"]["points"][0]["review"] for chart in charts} == {"Brain": brain, "Lens_L": None}


def test_a_comment_is_for_those_who_may_see_the_job_and_goes_with_it(
    reviewed: tuple[Running, httpx.Client], job: dict[str, Any]
) -> None:
    running, client = reviewed
    say(client, job, {"oar": "Eye_L", "verdict": "usable", "comment": CANARY})
    elsewhere = client.get("/v1/qa/reviews").text + client.get("/v1/qa/reviews?format=csv").text + client.get("/metrics").text
    assert "Canary" not in elsewhere
    assert "Canary" not in "".join(map(str, audit.read_entries(running.service.database)))
    client.delete(job["links"]["self"]).raise_for_status()
    [left] = [review for review in running.service.reviews.page(site="", oar="Eye_L") if review.job_id == job["id"]]
    assert (left.verdict, left.comment) == ("usable", None)


def test_reviews_come_in_pages_and_as_csv(reviewed: tuple[Running, httpx.Client], job: dict[str, Any]) -> None:
    _, client = reviewed
    say(client, job, *({"oar": oar, "verdict": "usable"} for oar in ("Parotid_L", "Parotid_R", "Parotid_L")))
    first = client.get("/v1/qa/reviews?oar=Parotid_L&limit=1").json()
    then = client.get(f"/v1/qa/reviews?oar=Parotid_L&limit=1&cursor={first['next']}").json()
    assert [page["reviews"][0]["oar"] for page in (first, then)] == ["Parotid_L"] * 2
    assert first["reviews"] != []
    assert then["next"] is None
    head, *rows = client.get("/v1/qa/reviews?oar=Parotid_R&format=csv").text.splitlines()
    assert head == "at,job_id,model,model_version,oar,verdict,by"
    assert rows[0].split(",")[4:] == ["Parotid_R", "usable", "marta"]


@pytest.mark.parametrize(
    "organ",
    [
        {"oar": "Tail", "verdict": "usable"},
        {"oar": "Brain", "verdict": "lovely"},
        {"oar": "Brain", "verdict": "usable", "comment": "x" * 501},
        {"oar": "Brain", "verdict": "usable", "comment": "a\x00b"},
        {"oar": "Brain", "verdict": "usable", "surprise": 1},
    ],
)
def test_what_is_no_review_is_refused(reviewed: tuple[Running, httpx.Client], job: dict[str, Any], organ: dict[str, Any]) -> None:
    answer = say(reviewed[1], job, organ)
    assert (answer.status_code, answer.json()["code"]) == (422, "request.invalid_parameter")
    assert reviewed[1].get(job["links"]["self"]).json()["reviews"] == []


def test_a_baseline_is_kept_as_the_command_leaves_it_and_the_audit_log_says_by_whom(
    reviewed: tuple[Running, httpx.Client],
) -> None:
    running, client = reviewed
    [kept] = client.post("/v1/qa/baselines", json=COMMISSIONED).raise_for_status().json()["baselines"]
    assert (kept["by"], kept["patients"], kept["drawn_by"]) == ("marta", 2, COMMISSIONED["drawn_by"])
    assert kept["organs"] == [{"oar": "Brain", "surface_dsc_scores": [0.9, 0.95], "surface_dsc_by_scanner": {}}]
    assert client.get("/v1/qa/baselines").json()["baselines"] == [kept]
    *_, last = [entry for entry in audit.read_entries(running.service.database) if entry.action == "baseline.kept"]
    assert (last.actor_name, last.result) == ("marta", "2 patients, 1 organs")
    wrong = [{"oar": "Brian", "surface_dsc_scores": [0.9]}]
    assert client.post("/v1/qa/baselines", json=COMMISSIONED | {"organs": wrong}).status_code == 422

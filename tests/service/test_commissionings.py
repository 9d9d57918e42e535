"""What jobs of past patients come to, by the service: the sums of the command, on results that jobs left."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from sqlalchemy import update

from oarlock.commissioning.cases import NOT_APPROVED
from oarlock.commissioning.statistics import statistics_of
from oarlock.errors import InvalidParameter
from oarlock.store.audit import Action, read_entries
from oarlock.store.jobs import JobId
from oarlock.store.schema import JOBS
from service.api.commissionings import _judged
from tests.fixtures.past_patients import LIMIT_S, PastPatients
from tests.service.conftest import make_settings
from tests.service.running import Running, serve, write_model

pytestmark = pytest.mark.slow

SCORES = [0.9, 0.92, 0.85, 0.95, 0.88]
LABEL = "commissioning 1"


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> Iterator[tuple[Running, list[str], str]]:
    """A service with five past patients, and one whose RTSTRUCT is not approved; one job waits."""
    folder = tmp_path_factory.mktemp("past")
    write_model(folder / "models")
    with serve(make_settings(folder, redis_url, lease_s=3600)) as running:
        patients = PastPatients(running, folder)
        ids = [patients.finish(i, {"Brain": value}, label=LABEL) for i, value in enumerate(SCORES)]
        draft = patients.finish(9, {"Brain": 0.2}, "UNAPPROVED", label=LABEL)
        waits = patients.post(10, label=LABEL)["id"]
        yield running, [*ids, waits], draft


def judge(running: Running, ids: list[str], more: str = "", **fields: object) -> httpx.Response:
    return httpx.post(f"{running.url}/v1/commissionings{more}", json={"jobs": ids} | fields, timeout=LIMIT_S)


def reads(running: Running) -> int:
    """How often somebody was given what came of a past patient."""
    entries = read_entries(running.service.database)
    return sum(entry.action == Action.RESULT_READ and (entry.result or "").startswith("commissioning ") for entry in entries)


def test_jobs_come_to_the_statistics_of_their_scores_and_to_a_baseline(past: tuple[Running, list[str], str]) -> None:
    running, ids, draft = past
    found = judge(running, [*ids, draft]).raise_for_status().json()
    assert (found["patients"], found["approved"], found["waiting"]) == (5, 5, 1)
    assert found["left_out"] == [{"job_id": draft, "state": "succeeded", "reason": NOT_APPROVED}]
    [brain] = found["organs"]
    expected = statistics_of(SCORES, is_share=True)
    assert expected is not None
    assert brain["surface_dsc"]["limit"] == pytest.approx(expected.limit, abs=1e-4)
    assert sorted(brain["surface_dsc_scores"]) == sorted(SCORES)
    assert brain["change"] is None
    kept = httpx.post(f"{running.url}/v1/qa/baselines", json=found, timeout=LIMIT_S).raise_for_status().json()
    assert kept["baselines"][0]["drawn_by"] == found["drawn_by"]
    [organ] = kept["baselines"][0]["organs"]
    assert [sorted(scores) for scores in organ["surface_dsc_by_scanner"].values()] == [sorted(SCORES)]


def test_two_sets_of_jobs_are_compared_patient_by_patient(past: tuple[Running, list[str], str]) -> None:
    running, ids, _ = past
    before = reads(running)
    [brain] = judge(running, ids, against=ids[:3]).json()["organs"]
    assert reads(running) == before + len(SCORES) + 3  # the earlier jobs too: their scores are told as differences
    assert (brain["change"]["n"], brain["change"]["mean"]) == (3, 0.0)


def test_jobs_of_one_label_are_a_commissioning_and_a_patient_who_was_sent_twice_counts_once(
    past: tuple[Running, list[str], str], tmp_path: Path
) -> None:
    running, ids, draft = past
    with httpx.Client(base_url=running.url, timeout=LIMIT_S) as client:
        [one] = client.get("/v1/commissionings").json()["commissionings"]
        assert (one["label"], one["jobs"], one["waiting"]) == (LABEL, 7, 1)
        here = f"/v1/commissionings/{one['drawn_by']['sha256']}"
        by_label, by_ids = client.get(here, params={"label": LABEL}).json(), judge(running, [*reversed(ids), draft]).json()
        assert by_label["organs"][0]["surface_dsc"] == by_ids["organs"][0]["surface_dsc"]
        PastPatients(running, tmp_path).finish(0, {"Brain": SCORES[0]}, label=LABEL)
        again = client.get(here, params={"label": LABEL, "against": one["drawn_by"]["sha256"]}).json()
        assert (again["patients"], again["organs"][0]["change"]["n"]) == (len(SCORES), len(SCORES))
        assert any(left["reason"].startswith("It is the same series") for left in again["left_out"])
        assert "Surface DSC 0.850 at" in client.get(here, params={"label": LABEL, "format": "html"}).text
        for other in ({"label": "another"}, {"label": LABEL, "against": "9f" * 32}):
            refused = client.get(here, params=other)
            assert (refused.status_code, refused.json()["detail"]) == (404, "No job has this label and model on this server.")
        assert running.store.labelled(site="south", limit=9) == []


def test_an_operator_sees_the_commissioning_of_each_site_by_itself_though_their_labels_are_the_same(
    past: tuple[Running, list[str], str],
) -> None:
    running, ids, _ = past
    with running.service.database.writing() as connection:
        connection.execute(update(JOBS).where(JOBS.c.id.in_(ids[1:3])).values(site="north"))
    try:
        with httpx.Client(base_url=running.url, timeout=LIMIT_S) as client:
            listed = {one["site"]: one for one in client.get("/v1/commissionings").json()["commissionings"]}
            assert (listed.keys(), listed["north"]["jobs"]) == ({"", "north"}, 2)
            here = f"/v1/commissionings/{listed['north']['drawn_by']['sha256']}"
            asked = [{}, {"site": "north"}, {"site": ""}]
            of_all, north, own = (client.get(here, params=one | {"label": LABEL}).json()["patients"] for one in asked)
            assert (of_all, north, own) == (len(SCORES), 2, len(SCORES) - 2)
    finally:
        with running.service.database.writing() as connection:
            connection.execute(update(JOBS).values(site=""))


def test_the_report_has_a_picture_of_the_worst_patient_and_a_place_to_sign(past: tuple[Running, list[str], str]) -> None:
    running, ids, _ = past
    page = judge(running, ids, "?format=html")
    assert page.headers["content-security-policy"].startswith("default-src 'none'")
    assert "Surface DSC 0.850 at" in page.text
    assert page.text.count("<img") == 1
    assert "5 of 5 are APPROVED" in page.text


def test_a_job_that_nobody_has_is_not_left_out_in_silence(past: tuple[Running, list[str], str]) -> None:
    running, ids, _ = past
    assert judge(running, [*ids, "0e9c1f9a-7a49-4d0c-9f0e-3c1f6a1f2f11"]).json()["code"] == "job.not_found"


def test_a_patient_who_was_purged_is_left_out_with_the_reason(past: tuple[Running, list[str], str], tmp_path: Path) -> None:
    running, ids, _ = past
    gone = PastPatients(running, tmp_path).finish(20, {"Brain": 0.9})
    httpx.delete(f"{running.url}/v1/jobs/{gone}", timeout=LIMIT_S).raise_for_status()
    found = judge(running, [gone, *ids]).raise_for_status().json()
    assert (found["patients"], [one["job_id"] for one in found["left_out"]]) == (5, [gone])
    assert "deleted" in found["left_out"][0]["reason"]
    assert found["drawn_by"]["name"] == "oarlock-hn"
    assert judge(running, [gone]).json()["code"] == "job.expired"


def test_a_refusal_is_a_new_error_each_time() -> None:
    """One that is raised again and again keeps the frames of every call that it ended, and what they held."""
    jobs = {
        JobId(name): SimpleNamespace(is_seen_by=lambda _: True, model=SimpleNamespace(sha256=name), purged_at=None)
        for name in "ab"
    }
    service: Any = SimpleNamespace(store=SimpleNamespace(several=lambda _: jobs))
    refused = []
    for _ in range(2):
        with pytest.raises(InvalidParameter, match="one model") as error:
            _judged(service, ["a", "b"], "", unapproved=False)
        refused.append(error.value)
    assert refused[0] is not refused[1]

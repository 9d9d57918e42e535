"""What jobs of past patients come to, by the service: the sums of the command, on results that jobs left."""

import json
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from types import SimpleNamespace
from typing import Any

import httpx
import pydicom
import pytest

from oarlock.commissioning.cases import NOT_APPROVED
from oarlock.commissioning.statistics import statistics_of
from oarlock.ct.series_geometry import write_series_geometry
from oarlock.errors import InvalidParameter
from oarlock.pictures.slice_archive import save_rendering
from oarlock.qa.report import job_report
from oarlock.rtstruct.writer import write_rtstruct
from oarlock.store.audit import Action, read_entries
from oarlock.store.files import GEOMETRY, QA_REPORT, RENDERING, RTSTRUCT, reference_name
from oarlock.store.jobs import JobId
from service.api.commissionings import _judged
from tests.fixtures.crooked import crooked_hu
from tests.fixtures.organs import AUTHORSHIP, write_series
from tests.fixtures.scores import report, score
from tests.service.conftest import make_settings
from tests.service.running import Running, parts, serve, write_model

SCORES = [0.9, 0.92, 0.85, 0.95, 0.88]
LIMIT_S = 60


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> Iterator[tuple[Running, list[str], str]]:
    """A service with five past patients, and one whose RTSTRUCT is not approved; one job waits."""
    folder = tmp_path_factory.mktemp("past")
    write_model(folder / "models")
    series = write_series(folder / "ct")
    write_series_geometry(folder / GEOMETRY, series.header)
    save_rendering(folder / RENDERING, crooked_hu(), series.header.grid, series.masks, model="oarlock-hn 1.2.3")
    kept = {name: (folder / name).read_bytes() for name in (GEOMETRY, RENDERING)}
    with serve(make_settings(folder, redis_url, lease_s=3600)) as running:

        def finished(number: int, value: float, approval: str) -> str:
            job: dict[str, Any] = httpx.post(f"{running.url}/v1/jobs", files=parts(series.files), timeout=LIMIT_S).json()
            write_rtstruct(folder / RTSTRUCT, series.masks, series.header, replace(AUTHORSHIP, job_id=f"reference {number}"))
            qa = job_report(series.header.series_instance_uid, [report(score("Brain", value))], [])
            reference = retouched((folder / RTSTRUCT).read_bytes(), approval)
            results = {QA_REPORT: json.dumps(qa).encode(), reference_name(1): reference, RTSTRUCT: reference}
            running.finish(job, kept | results)
            return str(job["id"])

        ids = [finished(i, value, "APPROVED") for i, value in enumerate(SCORES)]
        draft = finished(9, 0.2, "UNAPPROVED")
        waits = httpx.post(f"{running.url}/v1/jobs", files=parts(series.files), timeout=LIMIT_S).json()["id"]
        yield running, [*ids, waits], draft


def retouched(rtstruct: bytes, approval: str) -> bytes:
    """The file as a planning system would have written it."""
    dataset, file = pydicom.dcmread(BytesIO(rtstruct)), BytesIO()
    dataset.Manufacturer, dataset.ApprovalStatus = "A planning system", approval
    dataset.save_as(file)
    return file.getvalue()


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


def test_two_sets_of_jobs_are_compared_patient_by_patient(past: tuple[Running, list[str], str]) -> None:
    running, ids, _ = past
    before = reads(running)
    [brain] = judge(running, ids, against=ids[:3]).json()["organs"]
    assert reads(running) == before + len(SCORES) + 3  # the earlier jobs too: their scores are told as differences
    assert (brain["change"]["n"], brain["change"]["mean"]) == (3, 0.0)


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


def test_a_refusal_is_a_new_error_each_time() -> None:
    """One that is raised again and again keeps the frames of every call that it ended, and what they held."""
    jobs = {JobId(name): SimpleNamespace(is_seen_by=lambda _: True, model=SimpleNamespace(sha256=name)) for name in "ab"}
    service: Any = SimpleNamespace(store=SimpleNamespace(several=lambda _: jobs))
    refused = []
    for _ in range(2):
        with pytest.raises(InvalidParameter, match="one model") as error:
            _judged(service, ["a", "b"], "", unapproved=False)
        refused.append(error.value)
    assert refused[0] is not refused[1]

"""Contours that come back: compared, written down, charted, and told to the audit log."""

import json
import math
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pydicom
import pytest
from cryptography.fernet import Fernet
from prometheus_client.parser import text_string_to_metric_families

from oarlock.ct.series import check_headers
from oarlock.ct.series_geometry import read_series_geometry, write_series_geometry
from oarlock.geometry.masks import OARMasks
from oarlock.pictures.slice_archive import save_rendering
from oarlock.qa.control_chart import BASELINE, RUN
from oarlock.qa.report import QAReport
from oarlock.rtstruct.writer import write_rtstruct
from oarlock.store import audit
from oarlock.store.files import GEOMETRY, QA_REPORT, RENDERING, RTSTRUCT
from oarlock.store.job_store import NewJob
from oarlock.store.jobs import JobId
from service.api import reports
from tests.fixtures.crooked import crooked_hu
from tests.fixtures.organs import AUTHORSHIP, Series, write_series
from tests.fixtures.scores import report, score
from tests.service.conftest import make_settings
from tests.service.running import Running, parts, serve, write_model

pytestmark = pytest.mark.slow

BRAIN = b'{"oar": "Brain", "verdict": "amber", "code": "organ.volume", "reason": "r", "other_codes": []}'
QA = b'{"definition": "surface-dsc/1", "organs": [' + BRAIN + b"]}"


@pytest.fixture(scope="module")
def ct(tmp_path_factory: pytest.TempPathFactory) -> Series:
    overrides = {"Manufacturer": "SIEMENS", "ManufacturerModelName": "Definition", "StationName": "CT7"}
    return write_series(tmp_path_factory.mktemp("ct"), patient_name="Canary^Yellow", overrides=overrides)


def written(ct: Series, folder: Path, name: str, *, moved: int = 0) -> bytes:
    masks = OARMasks(ct.masks.oars, np.roll(ct.masks.bits, moved, axis=2))
    write_rtstruct(folder / name, masks, ct.header, replace(AUTHORSHIP, job_id=name))
    return (folder / name).read_bytes()


@pytest.fixture(scope="module")
def ours(ct: Series, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return written(ct, tmp_path_factory.mktemp("ours"), "ours")


@pytest.fixture(scope="module")
def approved(ct: Series, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return written(ct, tmp_path_factory.mktemp("approved"), "approved", moved=4)


@pytest.fixture
def alone(tmp_path: Path, redis_url: str) -> Iterator[Running]:
    write_model(tmp_path / "models")
    with serve(make_settings(tmp_path, redis_url)) as running:
        yield running


@pytest.fixture
def finish(alone: Running, ct: Series, ours: bytes, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Posts a job and gives it the results that a worker would."""

    def finished(*, geometry: bool = True) -> dict[str, Any]:
        job: dict[str, Any] = httpx.post(f"{alone.url}/v1/jobs", files=parts(ct.files), timeout=LIMIT_S).json()
        write_series_geometry(tmp_path / GEOMETRY, ct.header)
        save_rendering(tmp_path / RENDERING, crooked_hu(), ct.header.grid, ct.masks, model="oarlock-hn 1.2.3")
        kept = {GEOMETRY: (tmp_path / GEOMETRY).read_bytes()} if geometry else {}
        kept |= {RENDERING: (tmp_path / RENDERING).read_bytes()}
        alone.finish(job, {RTSTRUCT: ours, QA_REPORT: QA} | kept)
        return job

    return finished


LIMIT_S = 60
DICOM = {"Content-Type": "application/dicom"}


def send(running: Running, job: dict[str, Any], content: bytes, **headers: str) -> httpx.Response:
    return httpx.post(f"{running.url}/v1/jobs/{job['id']}/reference", content=content, headers=DICOM | headers, timeout=LIMIT_S)


def get(running: Running, path: str, **parameters: object) -> Any:
    return httpx.get(f"{running.url}{path}", params=parameters, timeout=LIMIT_S).raise_for_status().json()  # type: ignore[arg-type]


# ── one that comes back ───────────────────────────────────────────────────────────────────────────────────────────────


def test_it_is_compared_with_the_contours_of_the_job(
    alone: Running, finish: Callable[..., dict[str, Any]], ct: Series, ours: bytes, approved: bytes
) -> None:
    job = finish()
    answer = send(alone, job, approved)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    named = parts([ours], "predicted") + parts([approved], "reference")
    same = httpx.post(f"{alone.url}/v1/comparisons", files=[*parts(ct.files), *named], timeout=LIMIT_S)
    assert answer.json() == same.json()
    as_form = httpx.post(f"{alone.url}/v1/jobs/{job['id']}/reference", files=parts([approved], "reference"), timeout=LIMIT_S)
    assert as_form.json() == answer.json()


def test_its_scores_are_rows_and_the_audit_log_tells_who_returned_what(
    alone: Running, finish: Callable[..., dict[str, Any]], approved: bytes
) -> None:
    job = finish()
    answer = send(alone, job, approved).json()
    rows = get(alone, "/v1/qa/scores", origin="approved")["scores"]
    expected = {one["oar"]: one["surface_dsc"] for one in answer["oars"] if one["presence"] != "neither"}
    assert {row["oar"]: row["surface_dsc"] for row in rows} == expected
    assert {(row["job_id"], row["scanner"], row["position"], row["model"]) for row in rows} == {
        (job["id"], "SIEMENS Definition CT7", 1, "oarlock-hn")
    }
    *_, last = audit.read_entries(alone.service.database)
    assert (last.action, last.actor, last.job_id) == ("reference.returned", "anyone", job["id"])
    assert last.result is not None
    assert last.result.startswith("approved 1 sha256:")
    assert audit.verify(audit.read_entries(alone.service.database)).findings == ()


def test_the_same_one_twice_counts_once_and_a_better_one_takes_its_place(
    alone: Running, finish: Callable[..., dict[str, Any]], ct: Series, approved: bytes, tmp_path: Path
) -> None:
    job = finish()
    first = send(alone, job, approved)
    assert send(alone, job, approved).json() == first.json()
    (row,) = get(alone, "/v1/qa/scores", oar="Brain")["scores"]
    assert (row["verdict"], row["undefined_reason"]) == ("amber", None)
    send(alone, job, written(ct, tmp_path, "better", moved=1))
    assert [row["position"] for row in get(alone, "/v1/qa/scores", oar="Brain")["scores"]] == [2, 1]
    (chart,) = get(alone, "/v1/qa/drift", oar="Brain")["charts"]
    assert chart["baseline"]["n"] == 1
    newest, _ = get(alone, "/v1/qa/scores", oar="Brain")["scores"]
    assert [point["value"] for point in chart["baseline"]["points"]] == [newest["surface_dsc"]]
    assert chart["reason"] == f"The baseline has 1 of the {BASELINE} approved cases that it needs."


def test_the_report_of_the_job_tells_of_it_and_its_file_is_kept_until_the_job_is_purged(
    alone: Running, finish: Callable[..., dict[str, Any]], ct: Series, approved: bytes, tmp_path: Path
) -> None:
    job = finish()
    better = written(ct, tmp_path, "better", moved=1)
    answers = [send(alone, job, content).json() for content in (approved, better)]
    found = get(alone, f"/v1/jobs/{job['id']}/qa")["comparisons"]
    assert [(one["origin"], one["position"], one["superseded"]) for one in found] == [
        ("approved", 1, True),
        ("approved", 2, False),
    ]
    assert [{name: one[name] for name in answer} for one, answer in zip(found, answers, strict=True)] == answers
    assert [httpx.get(alone.url + one["file"]).content for one in found] == [approved, better]
    assert httpx.get(alone.url + found[0]["file"].removesuffix("1") + "3").json()["code"] == "job.result_not_found"
    httpx.delete(f"{alone.url}/v1/jobs/{job['id']}")
    assert not [path for path in alone.files() if job["id"] in path]


@pytest.mark.parametrize("geometry", [True, False])
def test_the_images_may_be_gone_if_the_geometry_was_kept(
    alone: Running, finish: Callable[..., dict[str, Any]], approved: bytes, *, geometry: bool
) -> None:
    job = finish(geometry=geometry)
    before = send(alone, job, approved).json()
    alone.service.storage.drop_input(JobId(job["id"]))
    answer = send(alone, job, approved)
    if geometry:
        assert answer.json() == before
    else:  # a job of a version that kept none
        assert (answer.status_code, answer.json()["code"]) == (410, "job.expired")


def test_contours_come_back_to_a_job_whose_series_was_deidentified(
    tmp_path: Path, redis_url: str, ct: Series, approved: bytes
) -> None:
    write_model(tmp_path / "models")
    with serve(make_settings(tmp_path, redis_url, deidentify_key=Fernet.generate_key().decode())) as running:
        job = httpx.post(f"{running.url}/v1/jobs", files=parts(ct.files), timeout=LIMIT_S).json()
        header = check_headers(running.service.storage.input_files(JobId(job["id"])))
        assert header.series_instance_uid != ct.header.series_instance_uid
        write_rtstruct(tmp_path / "stored", ct.masks, header, AUTHORSHIP)
        write_series_geometry(tmp_path / GEOMETRY, header)
        results = {RTSTRUCT: (tmp_path / "stored").read_bytes(), GEOMETRY: (tmp_path / GEOMETRY).read_bytes(), QA_REPORT: QA}
        running.finish(job, results)
        answer = send(running, job, approved)
        assert answer.status_code == 200
        assert answer.json()["series_instance_uid"] == ct.header.series_instance_uid
        brain = next(one for one in answer.json()["oars"] if one["oar"] == "Brain")
        assert brain["centre_distance_mm"] == pytest.approx(4 * 0.9)
        kept = [path for path in running.settings.data.rglob("returned/*") if path.is_file()]
        assert len(kept) == 4
        assert not [path for path in kept if b"Canary" in path.read_bytes() or b"2.25." in path.read_bytes()]
        address = f"{running.url}/v1/jobs/{job['id']}/references/approved/1"
        assert httpx.get(address, timeout=LIMIT_S).content == approved


def test_the_report_shows_it_over_ours_and_is_a_dicom_object_too(
    alone: Running, finish: Callable[..., dict[str, Any]], approved: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = finish()
    send(alone, job, approved)
    page = httpx.get(alone.url + job["links"]["report"], timeout=LIMIT_S)
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert page.headers["content-security-policy"].startswith("default-src 'none'")
    assert "the reference is white" in page.text
    assert "Canary, Yellow" in page.text
    monkeypatch.setattr(reports, "to_pdf", lambda html: b"%PDF" + html.encode()[:4])
    answer = httpx.get(f"{alone.url}/v1/jobs/{job['id']}/report.dcm", timeout=LIMIT_S)
    assert answer.headers["content-type"] == "application/dicom"
    assert pydicom.dcmread(BytesIO(answer.content)).EncapsulatedDocument == b"%PDF<!do"


def test_a_job_without_results_is_refused_before_anything_is_read(alone: Running, ct: Series, approved: bytes) -> None:
    job = httpx.post(f"{alone.url}/v1/jobs", files=parts(ct.files), timeout=LIMIT_S).json()
    answer = send(alone, job, approved)
    assert (answer.status_code, answer.json()["code"]) == (409, "job.not_finished")
    httpx.delete(f"{alone.url}/v1/jobs/{job['id']}", timeout=LIMIT_S)
    assert send(alone, job, approved).status_code == 410


@pytest.mark.parametrize(
    ("content", "media_type", "status", "code"),
    [
        (b"no DICOM file", "application/dicom", 422, "structure_set.unreadable"),
        (b"", "application/dicom", 422, "upload.part_missing"),
        (b"{}", "application/json", 415, "upload.unsupported_media_type"),
    ],
)
def test_what_cannot_be_used_is_refused_and_leaves_no_row(
    alone: Running, finish: Callable[..., dict[str, Any]], content: bytes, media_type: str, status: int, code: str
) -> None:
    answer = send(alone, finish(), content, **{"Content-Type": media_type})
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert get(alone, "/v1/qa/scores")["scores"] == []


def test_contours_of_another_scan_are_refused(
    alone: Running, finish: Callable[..., dict[str, Any]], approved: bytes, tmp_path: Path
) -> None:
    (tmp_path / "other.dcm").write_bytes(approved)
    dataset = pydicom.dcmread(tmp_path / "other.dcm")
    for roi in dataset.ROIContourSequence:
        for contour in roi.get("ContourSequence", []):
            del contour.ContourImageSequence
    del dataset.ReferencedFrameOfReferenceSequence
    for roi in dataset.StructureSetROISequence:
        roi.ReferencedFrameOfReferenceUID = "2.25.99"
    dataset.FrameOfReferenceUID = "2.25.99"
    dataset.save_as(tmp_path / "other.dcm")
    answer = send(alone, finish(), (tmp_path / "other.dcm").read_bytes())
    assert (answer.status_code, answer.json()["code"]) == (422, "structure_set.frame_of_reference_mismatch")


def test_the_kept_geometry_is_that_of_the_series_and_names_nobody(ct: Series, tmp_path: Path) -> None:
    write_series_geometry(tmp_path / "geometry", ct.header)
    read = read_series_geometry(tmp_path / "geometry")
    assert "Canary" not in (tmp_path / "geometry").read_text()
    assert np.array_equal(read.grid.origins_mm, ct.header.grid.origins_mm)
    assert (read.grid.shape, read.grid.spacing_mm) == (ct.header.grid.shape, ct.header.grid.spacing_mm)
    assert (read.frame_of_reference_uid, read.scanner) == (ct.header.frame_of_reference_uid, ct.header.scanner)
    uids = [(one.sop_instance_uid, one.frame, one.frames) for one in ct.header.instances]
    assert [(one.sop_instance_uid, one.frame, one.frames) for one in read.instances] == uids


# ── charts ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def approve(running: Running, found: QAReport, scanner: str = "CT7", job_id: str = "job") -> None:
    template = running.store.page(site="", limit=1)[0][0]
    running.store.create(NewJob(id=JobId(job_id), series=template.series, model=template.model, content_sha256="c"))
    running.service.qa_store.approve(running.store.get(JobId(job_id)), scanner, found.to_rows(), job_id, by=audit.SYSTEM)


def test_a_drift_is_charted_with_its_limits_and_alarms(
    alone: Running, finish: Callable[..., dict[str, Any]], approved: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """Thirty steady cases, then eleven a little lower; the lens is in every third RTSTRUCT only; another scanner stays apart."""
    rng = random.Random(2)
    job = finish()
    for i in range(BASELINE + RUN):
        low = 0.02 if i >= BASELINE else 0.0
        brain = 0.95 + rng.uniform(-0.01, 0.01) - low
        lens = [score("Lens_L", 0.8 + rng.uniform(-0.01, 0.01))] if i % 3 == 0 else [score("Lens_L", None)]
        approve(alone, report(score("Brain", brain), *lens), job_id=f"case-{i:02}")
    approve(alone, report(score("Brain", 0.1)), scanner="CT8", job_id="elsewhere")

    drift = get(alone, "/v1/qa/drift")
    charts = {(chart["oar"], chart["scanner"]): chart for chart in drift["charts"]}
    assert list(charts) == [("Brain", "CT7"), ("Lens_L", "CT7"), ("Brain", "CT8")]
    brain = charts["Brain", "CT7"]
    assert (brain["baseline"]["n"], brain["reason"], brain["metric"]) == (BASELINE, None, "surface_dsc")
    assert brain["model"] == {"name": "oarlock-hn", "version": "1.2.3", "sha256": "ab" * 32}
    assert 0.85 < brain["limits"]["lower"] < brain["centre"] < brain["limits"]["upper"] <= 1
    assert [point["job_id"] for point in brain["points"]] == [f"case-{i:02}" for i in range(BASELINE, BASELINE + RUN)]
    run = [alarm for alarm in brain["alarms"] if alarm["rule"] == "run"]
    assert [(alarm["job_id"], alarm["side"]) for alarm in run] == [(f"case-{BASELINE + RUN - 1}", "lower")]
    assert "run" in brain["points"][-1]["alarms"]
    assert {rule["rule"] for rule in drift["rules"]} == {"beyond_limit", "two_of_three", "run"}
    lens = charts["Lens_L", "CT7"]
    assert (lens["baseline"]["n"], lens["centre"], lens["limits"], lens["points"]) == (
        math.ceil((BASELINE + RUN) / 3),
        None,
        None,
        [],
    )

    (few,) = get(alone, "/v1/qa/drift", oar="Brain", scanner="CT7", points=2)["charts"]
    assert few["points"] == brain["points"][-2:]  # the alarm of a run whose beginning is not shown stands all the same
    (later,) = get(alone, "/v1/qa/drift", oar="Brain", scanner="CT7", **{"from": brain["points"][0]["at"]})["charts"]
    assert later["baseline"]["n"] in {RUN, RUN + 1}  # a time to the millisecond may take in the case before
    assert get(alone, "/v1/qa/drift", model="another")["charts"] == []

    send(alone, job, approved)  # of another scanner name: the chart of its own has one point
    assert "SIEMENS Definition CT7" in {chart["scanner"] for chart in get(alone, "/v1/qa/drift")["charts"]}


def test_an_alarm_that_a_returned_rtstruct_completes_is_logged_and_counted(
    alone: Running, finish: Callable[..., dict[str, Any]], approved: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    rng = random.Random(4)
    job = finish()
    for i in range(BASELINE):
        approve(alone, report(score("Brain", 0.97 + rng.uniform(-0.005, 0.005))), "SIEMENS Definition CT7", f"case-{i:02}")
    answer = send(alone, job, approved).json()
    assert next(one["surface_dsc"] for one in answer["oars"] if one["oar"] == "Brain") < 0.9
    (record,) = [record for record in caplog.records if record.message == "drift alarm"]
    assert {name: vars(record)[name] for name in ("job_id", "oar", "rule", "side")} == {
        "job_id": job["id"],
        "oar": "Brain",
        "rule": "beyond_limit",
        "side": "lower",
    }
    families = text_string_to_metric_families(httpx.get(f"{alone.url}/metrics", timeout=LIMIT_S).text)
    counted = [sample for family in families for sample in family.samples if sample.name == "oarlock_drift_alarms_total"]
    assert {sample.value for sample in counted} == {0, 1}  # those that did not fire are there too: a first one is an increase
    (alarms,) = [sample for sample in counted if sample.value]
    assert (alarms.labels["oar"], alarms.labels["rule"], alarms.value) == ("Brain", "beyond_limit", 1)
    send(alone, job, approved)
    assert len([record for record in caplog.records if record.message == "drift alarm"]) == 1


def test_the_example_of_a_chart_is_of_the_shape_of_a_real_one(
    alone: Running, finish: Callable[..., dict[str, Any]], approved: bytes
) -> None:
    finish()
    rng = random.Random(6)
    for i in range(BASELINE + 1):
        value = 0.5 if i == BASELINE else 0.95 + rng.uniform(-0.01, 0.01)
        approve(alone, report(score("Brain", value)), job_id=f"case-{i:02}")
    paths = get(alone, "/openapi.json")["paths"]
    example = paths["/v1/qa/drift"]["get"]["responses"]["200"]["content"]["application/json"]["example"]
    real = get(alone, "/v1/qa/drift")
    assert json.loads(json.dumps(example["rules"])) == real["rules"]

    def shape(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: shape(inner) for key, inner in value.items()}
        return [shape(value[0])] if isinstance(value, list) and value else type(value)

    assert shape(example["charts"]) == shape(real["charts"])
    assert set(paths["/v1/jobs/{job_id}/reference"]["post"]["requestBody"]["content"]) == {
        "application/dicom",
        "multipart/form-data",
    }

import errno
import hashlib
import io
import json
import logging
import os
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from oarlock.ct.series import check_headers
from oarlock.ct.writer import write_ct_series
from oarlock.errors import DeviceOutOfMemory, NotHounsfield, ResultNotFound
from oarlock.facts import ModelFacts
from oarlock.geometry.grid import Grid
from oarlock.inference.models import load
from oarlock.logs import JSONFormatter
from oarlock.organs.catalogue import BY_NAME
from oarlock.qa.checks.anatomy import Anatomy
from oarlock.qa.site_file import Site
from oarlock.rtstruct.placing import rois_to_masks
from oarlock.rtstruct.profiles import Profile, to_profile
from oarlock.rtstruct.reader import read_structure_set
from oarlock.rtstruct.writer import WrittenRTSTRUCT, write_rtstruct
from oarlock.segmentation.slabs import Volume
from oarlock.store import audit
from oarlock.store.files import PREVIEW, QA_REPORT, RENDERING, RESULTS, REVIEW, REVIEW_DATA, RTSTRUCT, reference_name
from oarlock.store.jobs import MAX_ATTEMPTS, JobId, JobState, Stage
from oarlock.store.leases import Lease, Leases
from oarlock.store.scores.filters import Filters
from oarlock.store.scores.read import ScoreStore
from tests.fixtures.clock import Clock
from tests.inference.tiny_parts import write_parts
from tests.worker.conftest import House, head
from tests.worker.tiny_model import LIMITS_HU, sigmoid_of_means
from worker.jobs import contour

BONE = BY_NAME["Bone_Mandible"]


def run(house: House, job_id: JobId, **options: Any) -> None:
    contour(job_id, store=house.store, storage=house.storage, models=house.model, worker="test", lease_s=60.0, **options)


def results(house: House, job_id: JobId) -> list[str]:
    return [path.name for path in (house.data / "jobs" / job_id).glob("results-*/*")]


@pytest.mark.slow
def test_a_series_goes_in_and_its_contours_come_out_where_the_organ_is(house: House, series: Path, crooked_grid: Grid) -> None:
    job_id = house.post(series)
    run(house, job_id)
    job = house.store.get(job_id)
    assert (job.state, job.progress, job.error) == (JobState.SUCCEEDED, 1.0, None)
    assert sorted(results(house, job_id)) == sorted(RESULTS)

    header = check_headers(sorted(series.iterdir()))
    written = read_structure_set(house.storage.result(job_id, RTSTRUCT))
    assert [roi.name for roi in written.rois] == list(LIMITS_HU)
    masks, notes, *_ = rois_to_masks(written, header, {BONE: 2})
    assert not notes
    true = head(crooked_grid) > 500
    assert np.abs(np.argwhere(masks.mask(BONE)).mean(axis=0) - np.argwhere(true).mean(axis=0)).max() < 0.2
    assert masks.mask(BONE).sum() == pytest.approx(true.sum(), rel=0.1)

    assert house.storage.result(job_id, PREVIEW).read_bytes().startswith(b"\x89PNG")
    assert house.storage.result(job_id, RENDERING).stat().st_size > 1000
    report = json.loads(house.storage.result(job_id, QA_REPORT).read_text())
    assert report["comparisons"] == report["not_compared"] == []
    assert report["checks"]


@pytest.mark.slow
def test_a_composed_model_is_one_model_and_each_roi_names_the_part_that_drew_it(
    series: Path, tmp_path: Path, crooked_grid: Grid
) -> None:
    manifest = write_parts(tmp_path / "models" / "parts")
    house = House(tmp_path / "data", manifest)
    house.model = lambda _: load(manifest, device="cpu", threads=1)  # type: ignore[method-assign]
    job_id = house.post(series)
    run(house, job_id)
    job = house.store.get(job_id)
    assert job.state is JobState.SUCCEEDED
    assert job.model == ModelFacts("two-parts", "3", manifest.sha256)
    *_, last = audit.read_entries(house.database)
    house.database.close()
    assert last.model == f"two-parts 3 {manifest.sha256}"
    assert {w.detail.split(":")[0] for w in job.warnings if w.code == "contours.not_looked_for"} == {"Eye_L", "Lens_L"}
    dataset = pydicom.dcmread(house.storage.result(job_id, RTSTRUCT))
    assert f"two-parts 3 ({manifest.sha256[:12]}), Oarlock" in dataset.StructureSetDescription
    drawn_by = {roi.ROIName: roi.ROIGenerationDescription for roi in dataset.StructureSetROISequence}
    part = {name: f"two-parts 3, part {name} ({manifest.part_named(name).sha256[:12]})" for name in ("whole", "fine")}
    assert drawn_by == {"Brain": part["whole"], "Lens_L": part["fine"], "Eye_L": part["fine"], "Eye_R": part["whole"]}


@pytest.mark.slow
def test_a_model_that_is_not_sure_of_what_it_drew_is_told_in_the_report(
    house: House, series: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Anatomy, "is_tiny", lambda *_: False)  # of organs as small as these nothing else is said
    # Over the threshold of 0.5, and under the stricter one of 0.73, wherever the sure model draws.
    house.predict = lambda hu: (0.2 + 0.4 * sigmoid_of_means(hu)).astype(np.float32)
    job_id = house.post(series)
    run(house, job_id)
    report = json.loads(house.storage.result(job_id, QA_REPORT).read_text())
    unsure = {check["oar"]: check for check in report["checks"] if check["code"] == "organ.certainty"}
    assert {oar: (check["level"], check["value"]) for oar, check in unsure.items()} == {
        "Brain": ("red", 0.0),
        "Bone_Mandible": ("red", 0.0),
    }


@pytest.mark.slow
def test_the_same_job_gives_the_same_rtstruct_whenever_and_however_often_it_runs(
    house: House, series: Path, tmp_path: Path
) -> None:
    other = House(tmp_path / "other", house.manifest)
    files = []
    for place, minutes in ((house, 0), (other, 17)):
        job_id = place.post(series)
        place.clock.advance(60 * minutes)
        if minutes:
            with_failure = place.store.leases.claim(job_id, worker="lost", lease_s=1)
            assert with_failure is not None
            assert place.store.leases.take_back(place.store.leases.signs_of_life()) == [job_id]
        run(place, job_id)
        files.append(place.storage.result(job_id, RTSTRUCT).read_bytes())
    other.database.close()
    assert files[0] == files[1]


@pytest.mark.slow
def test_the_audit_log_names_the_very_file_that_was_drawn_and_the_model_that_drew_it(house: House, series: Path) -> None:
    job_id = house.post(series)
    run(house, job_id)
    *_, last = audit.read_entries(house.database)
    digest = hashlib.sha256(house.storage.result(job_id, RTSTRUCT).read_bytes()).hexdigest()
    assert (last.action, last.actor, last.job_id) == ("job.succeeded", "worker:test", job_id)
    assert last.result == f"rtstruct.dcm sha256:{digest}"
    assert last.model == f"{house.manifest.name} {house.manifest.version} {house.manifest.sha256}"


@pytest.mark.slow
def test_a_job_leaves_the_scores_of_its_report_and_the_levels_of_its_checks(house: House, series: Path, tmp_path: Path) -> None:
    first = house.post(series)
    run(house, first)
    own = tmp_path / "own.dcm"
    own.write_bytes(house.storage.result(first, RTSTRUCT).read_bytes())
    job_id = house.post(series, own, job_id="job-2")
    run(house, job_id)
    rows, _ = ScoreStore(house.database).scores(Filters(site=""), limit=100)
    report = json.loads(house.storage.result(job_id, QA_REPORT).read_text())
    (comparison,) = report["comparisons"]
    scores = {score["oar"]: score for score in comparison["oars"] if score["presence"] != "neither"}
    assert scores
    assert {row["oar"]: row["surface_dsc"] for row in rows} == {oar: score["surface_dsc"] for oar, score in scores.items()}
    assert {(row["job_id"], row["origin"], row["model_sha256"]) for row in rows} == {(job_id, "supplied", house.manifest.sha256)}
    counted = {(oar, code, level): n for oar, code, level, n in ScoreStore(house.database).check_counts()}
    found = Counter((c["oar"] or "", c["code"], c["level"]) for c in report["checks"])
    verdicts = Counter((organ["oar"], "verdict", organ["verdict"]) for organ in report["organs"])
    of_set = Counter({("", "verdict", report["verdict"]): 1})
    assert counted == {key: 2 * n for key, n in (found + verdicts + of_set).items()}
    judged = {organ["oar"]: organ["verdict"] for organ in report["organs"]}
    assert {row["oar"]: (row["verdict"], row["undefined_reason"]) for row in rows} == {
        oar: (judged.get(oar), score["reason"]) for oar, score in scores.items()
    }


@pytest.mark.slow
def test_whatever_is_logged_while_a_job_runs_is_one_json_line_that_names_it(
    house: House, series: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """From whatever depth: a library, a decoder, the predictor; afterwards no line names it any more."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JSONFormatter())
    caplog.set_level(logging.INFO)
    logging.getLogger().addHandler(handler)

    def predict(hu: Volume) -> Volume:
        logging.getLogger("a.library").warning("of two\nlines")
        return sigmoid_of_means(hu).astype(np.float32)

    try:
        house.predict = predict
        for name in ("job-1", "job-2"):
            run(house, house.post(series, job_id=name))
        house.predict = _must_not_be_called
        run(house, house.post(series, job_id="job-3"))
        logging.getLogger("between").info("jobs")
    finally:
        logging.getLogger().removeHandler(handler)
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert all({"time", "level", "logger", "event", "job_id"} <= line.keys() for line in lines)
    assert [line["job_id"] for line in lines if line["event"] == "job started"] == ["job-1", "job-2", "job-3"]
    assert {line["job_id"] for line in lines if line["logger"] == "a.library"} == {"job-1", "job-2"}
    assert [line["job_id"] for line in lines if line["level"] == "error"] == ["job-3"]
    assert lines[-1]["job_id"] is None


@pytest.mark.slow
def test_a_finished_job_is_left_alone(house: House, series: Path) -> None:
    job_id = house.post(series)
    run(house, job_id)
    finished = house.store.get(job_id)
    house.predict = _must_not_be_called
    run(house, job_id)
    assert house.store.get(job_id) == finished


def _must_not_be_called(_: Volume) -> Volume:
    raise AssertionError


@pytest.mark.slow
def test_progress_is_true_and_never_falls(house: House, series: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[Stage, float]] = []
    report = Leases.progress

    def listen(leases: Leases, lease: Lease, *, stage: Stage, progress: float, lease_s: float) -> bool:
        told.append((stage, progress))
        return report(leases, lease, stage=stage, progress=progress, lease_s=lease_s)

    monkeypatch.setattr(Leases, "progress", listen)
    monkeypatch.setattr("oarlock.segmentation.slabs.slab_for", lambda *_: 10)
    monkeypatch.setattr("worker.lease_keeper.LEAST_S", 0.0)
    run(house, house.post(series))
    assert told == sorted(told, key=lambda entry: entry[1])
    assert list(dict.fromkeys(stage for stage, _ in told)) == list(Stage)
    inferring = [progress for stage, progress in told if stage is Stage.INFERRING]
    assert inferring == pytest.approx([0.10 + 0.70 * done / 37 for done in (0, 10, 20, 30, 37)])


def test_a_job_that_is_cancelled_while_it_runs_stops_at_the_next_slab(house: House, series: Path) -> None:
    job_id = house.post(series)

    def cancel(hu: Volume) -> Volume:
        house.store.request_cancel(job_id)
        return _answer(hu)

    house.predict = cancel
    run(house, job_id)
    assert house.store.get(job_id).state is JobState.CANCELLED
    assert not results(house, job_id)
    assert not list((house.data / "jobs" / job_id).glob("writing-*"))


def _answer(hu: Volume) -> Volume:
    return np.asarray(sigmoid_of_means(hu), dtype=np.float32)


def test_a_worker_that_lost_its_lease_writes_nothing(house: House, series: Path) -> None:
    job_id = house.post(series)
    house.clock = house.store._clock  # type: ignore[assignment]

    def be_replaced(hu: Volume) -> Volume:
        assert isinstance(house.clock, Clock)
        house.clock.advance(120)
        assert house.store.leases.take_back(house.store.leases.signs_of_life()) == [job_id]
        assert house.store.leases.claim(job_id, worker="another", lease_s=60) is not None
        return _answer(hu)

    house.predict = be_replaced
    run(house, job_id)
    assert house.store.get(job_id).state is JobState.RUNNING  # the other one's
    assert not results(house, job_id)


def test_a_job_that_is_purged_while_it_runs_leaves_nothing_behind(house: House, series: Path) -> None:
    job_id = house.post(series)

    def purge(hu: Volume) -> Volume:
        house.store.purge(job_id)
        house.storage.purge(job_id)
        return _answer(hu)

    house.predict = purge
    run(house, job_id)
    assert not (house.data / "jobs" / job_id).exists()


@pytest.mark.slow
def test_a_worker_that_is_asked_to_end_hands_its_job_back_as_if_it_had_never_had_it(house: House, series: Path) -> None:
    job_id = house.post(series)
    run(house, job_id, stopping=lambda: True)
    job = house.store.get(job_id)
    assert (job.state, job.attempts) == (JobState.QUEUED, 0)
    run(house, job_id)
    assert house.store.get(job_id).state is JobState.SUCCEEDED


def test_what_the_sender_can_fix_fails_the_job_with_its_code(house: House, series: Path) -> None:
    job_id = house.post(series)
    damaged = house.storage.input_files(job_id)[5]
    damaged.write_bytes(damaged.read_bytes()[:-2000])
    run(house, job_id)
    job = house.store.get(job_id)
    assert job.state is JobState.FAILED
    assert job.error is not None
    assert job.error.code.startswith("series.")
    assert not results(house, job_id)


def test_values_that_are_refused_are_refused_before_anything_is_predicted(
    house: House, series: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their check runs beside the resampling."""

    def refuse(hu: object) -> None:
        raise NotHounsfield(reason="from slice 3 to slice 4 they change by 900 in the median")

    def predict(hu: Volume) -> Volume:
        raise AssertionError("it was predicted")

    monkeypatch.setattr("oarlock.pipeline.contouring.check_steps", refuse)
    house.predict = predict
    job_id = house.post(series)
    run(house, job_id)
    job = house.store.get(job_id)
    assert job.error is not None
    assert job.error.code == "series.not_hounsfield"


def test_a_job_whose_upload_was_deleted_says_so(house: House, series: Path) -> None:
    job_id = house.post(series)
    house.storage.drop_input(job_id)
    run(house, job_id)
    job = house.store.get(job_id)
    assert job.state is JobState.FAILED
    assert job.error is not None
    assert job.error.code == "job.expired"


def test_what_may_pass_is_tried_again_and_then_said(house: House, series: Path) -> None:
    job_id = house.post(series)

    def exhausted(_: Volume) -> Volume:
        raise DeviceOutOfMemory(device="cpu")

    house.predict = exhausted
    for attempt in range(1, MAX_ATTEMPTS):
        run(house, job_id)
        job = house.store.get(job_id)
        assert (job.state, job.attempts) == (JobState.QUEUED, attempt)
    run(house, job_id)
    job = house.store.get(job_id)
    assert job.state is JobState.FAILED
    assert job.error is not None
    assert job.error.code == "device.out_of_memory"


def _no_space(_: Volume) -> Volume:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.slow
def test_a_disk_that_others_filled_is_not_held_against_the_job(house: House, series: Path) -> None:
    job_id = house.post(series)
    house.predict = _no_space
    for _ in range(MAX_ATTEMPTS + 1):
        run(house, job_id, room_is_left=lambda: False)
        job = house.store.get(job_id)
        assert (job.state, job.attempts) == (JobState.QUEUED, 0)
    house.predict = _answer
    run(house, job_id)
    assert house.store.get(job_id).state is JobState.SUCCEEDED


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ENOTCONN])
def test_a_share_that_is_away_is_not_held_against_the_job(house: House, series: Path, number: int) -> None:
    def away(_: Volume) -> Volume:
        raise OSError(number, os.strerror(number))

    job_id = house.post(series)
    house.predict = away
    for _ in range(MAX_ATTEMPTS + 1):
        run(house, job_id, room_is_left=lambda: False)
    assert house.store.get(job_id).state is JobState.QUEUED
    for _ in range(MAX_ATTEMPTS):
        run(house, job_id, room_is_left=lambda: True)
    error = house.store.get(job_id).error
    assert error is not None
    assert error.code == "storage.unavailable"


def test_a_job_whose_own_results_do_not_fit_is_given_up(house: House, series: Path) -> None:
    job_id = house.post(series)
    house.predict = _no_space
    for _ in range(MAX_ATTEMPTS):
        run(house, job_id, room_is_left=lambda: True)
    job = house.store.get(job_id)
    assert job.state is JobState.FAILED
    assert job.error is not None
    assert job.error.code == "storage.full"


def test_an_unforeseen_error_is_found_by_its_reference_and_tells_nothing_of_the_patient(
    house: House, series: Path, caplog: pytest.LogCaptureFixture
) -> None:
    job_id = house.post(series)

    def stumble(_: Volume) -> Volume:
        raise KeyError("Canary^Yellow")

    house.predict = stumble
    with caplog.at_level(logging.DEBUG):
        run(house, job_id)
    job = house.store.get(job_id)
    assert job.state is JobState.FAILED
    assert job.error is not None
    assert job.error.code == "internal.error"
    (record,) = [record for record in caplog.records if hasattr(record, "reference")]
    assert record.reference in job.error.detail
    assert any("stumble" in place for place in record.where)  # type: ignore[attr-defined]
    assert "Canary" not in repr([vars(record) for record in caplog.records])
    assert "Canary" not in repr(job)


@pytest.mark.slow
def test_supplied_contours_are_compared_with_and_unusable_ones_are_named(
    house: House, series: Path, tmp_path: Path, crooked_grid: Grid
) -> None:
    first = house.post(series)
    run(house, first)
    own = house.storage.result(first, RTSTRUCT)

    write_ct_series(tmp_path / "elsewhere", head(crooked_grid), crooked_grid, seed="elsewhere")
    foreign = house.post(tmp_path / "elsewhere", job_id="job-2")
    run(house, foreign)
    cut = tmp_path / "cut"
    cut.write_bytes(own.read_bytes()[:-5000])

    job_id = house.post(series, house.storage.result(foreign, RTSTRUCT), own, cut, job_id="job-3")
    run(house, job_id)
    job = house.store.get(job_id)
    assert job.state is JobState.SUCCEEDED
    report = json.loads(house.storage.result(job_id, QA_REPORT).read_text())
    (comparison,) = report["comparisons"]
    assert {row["oar"]: row["surface_dsc"] for row in comparison["oars"]} == {"Brain": 1.0, "Bone_Mandible": 1.0}
    assert comparison["position"] == 2
    assert house.storage.result(job_id, reference_name(2)).read_bytes() == own.read_bytes()
    assert reference_name(1) not in results(house, job_id)
    assert {entry["oar"]: entry["tolerance_mm"] for entry in report["tolerances"]} == {"Brain": 1.01, BONE.name: 1.01}
    codes = {entry["position"]: entry["code"] for entry in report["not_compared"]}
    assert codes == {1: "structure_set.frame_of_reference_mismatch", 3: "structure_set.unreadable"}
    warned = [warning.detail for warning in job.warnings if warning.code == "structure_set.not_compared"]
    assert [detail.split(".")[0] for detail in warned] == [
        "Supplied RTSTRUCT 1 was not compared with",
        "Supplied RTSTRUCT 3 was not compared with",
    ]


@pytest.mark.slow
def test_several_observers_are_compared_with_each_other_too(house: House, series: Path) -> None:
    observers = [house.post(series, job_id=name) for name in ("job-1", "job-2")]
    for job_id in observers:
        run(house, job_id)
    job_id = house.post(series, *(house.storage.result(job_id, RTSTRUCT) for job_id in observers), job_id="job-3")
    run(house, job_id)
    report = json.loads(house.storage.result(job_id, QA_REPORT).read_text())
    assert len(report["comparisons"]) == 2
    assert {(spread["oar"], spread["pairs"], spread["within_observers"]) for spread in report["observers"]} == {
        ("Brain", 1, True),
        ("Bone_Mandible", 1, True),
    }


@pytest.mark.slow
def test_the_sites_own_tolerance_is_used_and_said(house: House, series: Path) -> None:
    first = house.post(series)
    run(house, first)
    job_id = house.post(series, house.storage.result(first, RTSTRUCT), job_id="job-2")
    own = {"north": Site(tolerances_mm={BONE: 4.4}), "": Site(tolerances_mm={BONE: 3.3})}  # of another site, and of the job's
    run(house, job_id, site_of=own.__getitem__)
    (comparison,) = json.loads(house.storage.result(job_id, QA_REPORT).read_text())["comparisons"]
    (row,) = [row for row in comparison["oars"] if row["oar"] == BONE.name]
    assert (row["tolerance_mm"], row["tolerance_source"]) == (3.3, "the site's own")


# ── profiles ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def profile_of(text: str) -> dict[str, Profile]:
    return {"site": to_profile("site", tomllib.loads(text))}


MYELON = """
[structure_set]
label = "AI {date}"
[[roi]]
oar = "SpinalCord"
[[roi]]
oar = "Bone_Mandible"
name = "Unterkiefer"
"""


@pytest.mark.slow
def test_a_job_is_written_by_its_profile_and_shows_nothing_that_it_does_not_deliver(house: House, series: Path) -> None:
    job_id = house.post(series, profile="site")
    run(house, job_id, profiles=profile_of(MYELON))
    job = house.store.get(job_id)
    assert job.state is JobState.SUCCEEDED, job.error
    dataset = pydicom.dcmread(house.storage.result(job_id, RTSTRUCT))
    assert [roi.ROIName for roi in dataset.StructureSetROISequence] == ["Unterkiefer"]
    assert dataset.StructureSetLabel == "AI 260304"
    report = json.loads(house.storage.result(job_id, QA_REPORT).read_text())
    assert {check["oar"] for check in report["checks"]} == {BONE.name}
    assert [(w.code, "SpinalCord" in w.detail) for w in job.warnings if w.code.startswith("rtstruct")] == [
        ("rtstruct.not_drawn", True)
    ]


@pytest.mark.slow
def test_a_picture_that_cannot_be_drawn_costs_itself_alone(house: House, series: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(head: Path, body: Path, *_: object, **__: object) -> None:
        body.write_bytes(b"half")
        raise ZeroDivisionError

    monkeypatch.setattr("oarlock.pipeline.contouring.write_review", fail)
    job_id = house.post(series)
    run(house, job_id)
    job = house.store.get(job_id)
    assert job.state is JobState.SUCCEEDED, job.error
    assert [warning.detail[:11] for warning in job.warnings if warning.code == "picture.failed"] == ["review.json"]
    assert house.storage.result(job_id, RTSTRUCT).stat().st_size > 1000
    for name in (REVIEW, REVIEW_DATA):
        with pytest.raises(ResultNotFound):
            house.storage.result(job_id, name)


def test_a_file_that_fails_its_check_is_not_delivered_and_the_job_says_why(
    house: House, series: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A writer gone wrong: every contour of the file lies 0.5 mm too far towards the head."""

    def write_shifted(path: Path, *arguments: Any) -> WrittenRTSTRUCT:
        written = write_rtstruct(path, *arguments)
        dataset = pydicom.dcmread(path)
        for roi in dataset.ROIContourSequence:
            for item in roi.get("ContourSequence", []):
                points = np.array(item.ContourData, dtype=float).reshape(-1, 3) + np.array([0, 0, 0.5])
                item.ContourData = [f"{number:.3f}" for number in points.reshape(-1)]
        dataset.save_as(path)
        return written

    monkeypatch.setattr("oarlock.pipeline.contouring.write_rtstruct", write_shifted)
    job_id = house.post(series)
    run(house, job_id)
    job = house.store.get(job_id)
    assert job.error is not None
    assert (job.state, job.error.code) == (JobState.FAILED, "model.result_invalid")
    assert "it lies more than 0.01 mm off the plane of its slice" in job.error.detail
    assert not results(house, job_id)


def test_a_profile_that_the_worker_does_not_have_fails_the_job_with_the_reason(house: House, series: Path) -> None:
    job_id = house.post(series, profile="site")
    run(house, job_id)
    error = house.store.get(job_id).error
    assert error is not None
    assert (error.code, "the worker has none of that name" in error.detail) == ("profile.invalid", True)
    assert not results(house, job_id)


def test_a_contour_with_too_many_points_fails_the_job_and_is_not_delivered(house: House, series: Path) -> None:
    job_id = house.post(series, profile="site")
    run(house, job_id, profiles=profile_of("[contours]\nmax_points = 16\nmax_deviation_mm = 0.01"))
    error = house.store.get(job_id).error
    assert error is not None
    assert error.code == "profile.too_many_points"
    assert not results(house, job_id)

"""Commissioning: which patients are found, what their scores come to, and that a run goes on where it stopped."""

import json
import math
import shutil
import tomllib
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev

import pydicom
import pytest

from oarlock.cli.main import main
from oarlock.commissioning.cases import find_cases
from oarlock.commissioning.statistics import paired, statistics_of, tolerance_factor
from oarlock.commissioning.summary import summarise_cases, to_site_tables
from oarlock.qa.site_file import read_site
from oarlock.rtstruct.writer import write_rtstruct
from oarlock.segmentation.manifest import ModelManifest
from tests.fixtures.organs import AUTHORSHIP, write_series

# ── which patients ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_series_is_judged_by_the_approved_structure_set_that_names_it_wherever_it_lies(tmp_path: Path) -> None:
    folder = tmp_path / "archive"
    series = write_series(folder / "a" / "ct")
    for name, approval in (("newer", "UNAPPROVED"), ("approved", "APPROVED")):
        path = folder / name / "deep" / "rs.bin"
        path.parent.mkdir(parents=True)
        write_rtstruct(path, series.masks, series.header, replace(AUTHORSHIP, job_id=name))
        dataset = pydicom.dcmread(path)
        dataset.ApprovalStatus = approval
        dataset.StructureSetDate = "20260306" if name == "newer" else "20260305"
        dataset.save_as(path)
    (folder / "notes.txt").write_text("no DICOM file")
    found = find_cases(folder)
    (case,) = found.cases
    assert case.structure_set == folder / "approved" / "deep" / "rs.bin"
    assert sorted(case.images) == sorted(series.files)
    shutil.rmtree(folder / "a")
    assert (find_cases(folder).cases, find_cases(folder).without_series) == ([], 2)


# ── what scores come to ───────────────────────────────────────────────────────────────────────────────────────────────


def test_the_tolerance_factor_is_that_of_the_tables() -> None:
    """One-sided, 95 % covered with 95 % confidence: 2.911 for 10 scores and 2.220 for 30."""
    assert [round(tolerance_factor(n), 2) for n in (10, 30)] == [2.91, 2.22]


def test_mean_spread_and_interval_are_those_of_the_textbook_and_the_limit_lies_on_the_bad_side() -> None:
    scores = [0.9, 0.92, 0.85, 0.95, 0.88, 0.91]
    found = statistics_of(scores, is_share=True)
    assert found is not None
    assert (found.mean, found.sd) == (pytest.approx(mean(scores)), pytest.approx(stdev(scores)))
    t = 2.571  # Student's, 5 degrees of freedom, 97.5 %
    assert found.mean_low == pytest.approx(mean(scores) - t * stdev(scores) / math.sqrt(6), abs=1e-4)
    assert found.limit is not None
    assert 0 < found.limit < found.lowest
    lengths = statistics_of([3.0, 3.4, 2.8, 5.0, 3.1], is_share=False)
    assert lengths is not None
    assert lengths.limit is not None
    assert lengths.limit > lengths.highest


def test_few_scores_have_no_limit_and_none_have_no_statistics() -> None:
    few = statistics_of([0.9, 0.8, 0.7, 0.95], is_share=True)
    one = statistics_of([0.9], is_share=True)
    assert few is not None
    assert one is not None
    assert (few.limit, one.sd, one.mean_low, statistics_of([], is_share=True)) == (None, None, None, None)


def test_pairs_are_compared_patient_by_patient() -> None:
    found = paired([0.9, 0.8, 0.7], [0.8, 0.8, 0.8])
    assert found is not None
    assert (found.mean, found.lowest, found.highest) == (pytest.approx(0), pytest.approx(-0.1), pytest.approx(0.1))


def row(score: float | None, presence: str = "both") -> dict[str, object]:
    far = None if score is None else 10 * (1 - score) + 2
    numbers = {"surface_dsc": score, "volumetric_dsc": score, "hausdorff_95_mm": far, "added_path_length_mm": far}
    return {"oar": "Brain", "presence": presence, **numbers}


def test_proposed_levels_can_be_read_as_a_sites_file_and_most_patients_keep_them(tmp_path: Path) -> None:
    scores = [0.9, 0.92, 0.85, 0.95, 0.88, 0.91, 0.93, 0.9]
    cases = [{"key": str(i), "oars": [row(score)], "verdicts": {"Brain": "green"}} for i, score in enumerate(scores)]
    cases.append({"key": "missed", "oars": [row(None, "reference_only")], "verdicts": {"Brain": "red"}})
    (brain,) = summarise_cases(cases)
    assert (brain["n"], brain["missed"], brain["red"]) == (8, 1, 1)
    (tmp_path / "site.toml").write_text(to_site_tables([brain], "a test"))
    assert tomllib.loads((tmp_path / "site.toml").read_text())["action_levels"]["Brain"] == brain["action_levels"]
    levels = next(found for oar, found in read_site(tmp_path / "site.toml").action_levels.items() if oar.name == "Brain")
    assert all(score >= levels["surface_dsc"] for score in scores)


# ── the command ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_run_that_is_started_again_goes_on_and_a_second_model_is_compared_in_pairs(
    series: Path,
    tmp_path: Path,
    tiny_manifest: ModelManifest,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("OARLOCK_MODELS", str(tiny_manifest.parts[0].path.parent.parent))
    monkeypatch.setenv("OARLOCK_MODEL", tiny_manifest.name)
    archive, out = tmp_path / "archive", tmp_path / "out"
    shutil.copytree(series, archive / "ct")
    assert main(["contour", str(series), "--out", str(tmp_path / "drawn")]) == 0
    shutil.copyfile(tmp_path / "drawn" / "rtstruct.dcm", archive / "rs.dcm")
    assert main(["commission", str(archive), "--out", str(out)]) == 0
    summary = json.loads((out / "commissioning.json").read_text())
    bone = next(organ for organ in summary["organs"] if organ["oar"] == "Bone_Mandible")
    assert (summary["patients"], bone["n"], bone["surface_dsc"]["mean"]) == (1, 1, 1.0)
    assert "too few" in (out / "report.html").read_text()
    assert "1 patients with CT and RTSTRUCT" in capsys.readouterr().out
    kept = next((out / "cases").glob("*.json"))
    before = kept.stat().st_mtime_ns
    assert main(["commission", str(archive), "--out", str(out), "--against", str(out)]) == 0
    assert kept.stat().st_mtime_ns == before
    again = json.loads((out / "commissioning.json").read_text())["organs"]
    assert {organ["change"]["mean"] for organ in again} == {0.0}

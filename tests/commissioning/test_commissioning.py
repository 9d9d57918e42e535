"""Commissioning: which patients are found, what their scores come to, and that a run goes on where it stopped."""

import json
import math
import shutil
import tomllib
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev

import pydicom
import pytest

from oarlock.cli import commission
from oarlock.cli.commission import made_with
from oarlock.cli.exit_status import FINDINGS, UNUSABLE
from oarlock.cli.main import main
from oarlock.commissioning.cases import NOT_APPROVED, OUR_OWN, find_cases
from oarlock.commissioning.statistics import paired, statistics_of, tolerance_factor
from oarlock.commissioning.summary import scored, summarise_cases, to_site_tables
from oarlock.organs.catalogue import BY_NAME
from oarlock.qa.site_file import Site, read_site
from oarlock.rtstruct.writer import write_rtstruct
from oarlock.segmentation.manifest import ModelManifest
from oarlock.settings import Settings
from oarlock.store.database import Database
from oarlock.store.scores.read import ScoreStore
from tests.fixtures.organs import AUTHORSHIP, write_series

pytestmark = pytest.mark.slow

# ── which patients ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_series_is_judged_by_the_approved_structure_set_that_names_it_wherever_it_lies(tmp_path: Path) -> None:
    folder = tmp_path / "archive"
    series = write_series(folder / "a" / "ct")
    for name, approval in (("newer", "UNAPPROVED"), ("approved", "APPROVED")):
        path = folder / name / "deep" / "rs.bin"
        path.parent.mkdir(parents=True)
        write_rtstruct(path, series.masks, series.header, replace(AUTHORSHIP, job_id=name))
        dataset = pydicom.dcmread(path)
        dataset.ApprovalStatus, dataset.Manufacturer = approval, "A planning system"
        dataset.StructureSetDate = "20260306" if name == "newer" else "20260305"
        dataset.save_as(path)
    (folder / "notes.txt").write_text("no DICOM file")
    found = find_cases(folder)
    (case,) = found.cases
    assert case.structure_set == folder / "approved" / "deep" / "rs.bin"
    assert sorted(case.images) == sorted(series.files)
    shutil.rmtree(folder / "a")
    assert (find_cases(folder).cases, find_cases(folder).without_series) == ([], 2)


@pytest.mark.parametrize(
    ("maker", "approval", "unapproved", "taken", "reasons"),
    [
        ("Oarlock", "APPROVED", True, [], [OUR_OWN]),
        ("A planning system", "UNAPPROVED", False, [], [NOT_APPROVED]),
        ("A planning system", "UNAPPROVED", True, [False], []),
        ("A planning system", "APPROVED", False, [True], []),
    ],
)
def test_a_model_is_judged_by_others_contours_and_by_unapproved_ones_only_if_asked(
    maker: str, approval: str, unapproved: bool, taken: list[bool], reasons: list[str], tmp_path: Path
) -> None:
    series = write_series(tmp_path / "ct")
    write_rtstruct(tmp_path / "rs.dcm", series.masks, series.header, AUTHORSHIP)
    retouch(tmp_path / "rs.dcm", Manufacturer=maker, ApprovalStatus=approval)
    found = find_cases(tmp_path, unapproved=unapproved)
    assert [case.approved for case in found.cases] == taken
    assert (found.left_out, found.without_structure_set) == (reasons, 0)


def retouch(path: Path, **elements: str) -> None:
    dataset = pydicom.dcmread(path)
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    dataset.save_as(path)


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
    return {"oar": "Brain", "presence": presence, "tolerance_mm": 3.0, "tolerance_rounded_mm": 3.0, **numbers}


def test_proposed_levels_can_be_read_as_a_sites_file_and_most_patients_keep_them(tmp_path: Path) -> None:
    scores = [0.9, 0.92, 0.85, 0.95, 0.88, 0.91, 0.93, 0.9]
    cases = [
        {"key": str(i), "scanner": "CT 1", "oars": [row(score)], "verdicts": {"Brain": "green"}} for i, score in enumerate(scores)
    ]
    cases.append({"key": "missed", "oars": [row(None, "reference_only")], "verdicts": {"Brain": "red"}})
    (brain,) = summarise_cases(cases)
    assert (brain["n"], brain["missed"], brain["red"]) == (8, 1, 1)
    (tmp_path / "site.toml").write_text(to_site_tables([brain], "a test"))
    assert tomllib.loads((tmp_path / "site.toml").read_text())["action_levels"]["Brain"] == brain["action_levels"]
    levels = next(found for oar, found in read_site(tmp_path / "site.toml").action_levels.items() if oar.name == "Brain")
    assert all(score >= levels["surface_dsc"] for score in scores)


def test_only_scores_with_the_same_tolerance_are_paired_and_misses_stand_beside() -> None:
    ours = [row(0.9), row(0.8), row(0.7), row(None, "reference_only")]
    theirs = [row(0.8), row(0.8) | {"tolerance_mm": 2.0}, row(0.7) | {"tolerance_rounded_mm": 2.5}, row(0.6)]
    cases, earlier = (
        [{"key": str(i), "scanner": "CT 1", "oars": [one], "verdicts": {}} for i, one in enumerate(rows)]
        for rows in (ours, theirs)
    )
    (brain,) = summarise_cases(cases, earlier)
    assert (brain["change"]["n"], brain["change"]["mean"]) == (1, 0.1)
    assert brain["missed_by"] == {"ours": 1, "theirs": 0}


def test_the_number_printed_is_that_behind_the_score() -> None:
    rows = [row(0.9), row(None)]  # drawn by both, yet not scored
    (brain,) = summarise_cases([{"key": str(i), "scanner": "CT 1", "oars": [one], "verdicts": {}} for i, one in enumerate(rows)])
    assert scored(brain) == 1
    assert "Brain: 1 patients" in to_site_tables([brain], "a test")


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
    retouch(archive / "rs.dcm", Manufacturer="A planning system", ApprovalStatus="APPROVED")
    assert main(["commission", str(archive), "--out", str(out)]) == 0
    summary = json.loads((out / "commissioning.json").read_text())
    bone = next(organ for organ in summary["organs"] if organ["oar"] == "Bone_Mandible")
    assert (summary["patients"], summary["approved"], bone["n"], bone["surface_dsc"]["mean"]) == (1, 1, 1, 1.0)
    assert "1 of 1 are APPROVED" in (out / "report.html").read_text()
    assert "too few" in (out / "report.html").read_text()
    assert "1 patients with CT and RTSTRUCT" in capsys.readouterr().out
    monkeypatch.setenv("OARLOCK_DATA", str(tmp_path / "data"))
    assert main(["commission", str(archive), "--out", str(out), "--baseline"]) == UNUSABLE  # before anything is drawn
    assert main(["keys", "create", "first", "--scope", "admin", "--first"]) == 0
    assert main(["commission", str(archive), "--out", str(out), "--baseline"]) == 0
    with closing(Database(Settings().database)) as database:
        [baseline] = ScoreStore(database).baselines("")
    assert (baseline.baseline.model.sha256, baseline.baseline.scores["Bone_Mandible"]) == (summary["sha256"], [1.0])
    kept = next((out / "cases").glob("*.json"))
    before = kept.stat().st_mtime_ns
    assert main(["commission", str(archive), "--out", str(out), "--against", str(out)]) == 0
    assert kept.stat().st_mtime_ns == before
    again = json.loads((out / "commissioning.json").read_text())["organs"]
    assert {organ["change"]["mean"] for organ in again} == {0.0}
    shutil.copyfile(kept, kept.with_name("0-another-model.json"))
    assert main(["commission", str(archive), "--out", str(out), "--against", str(out)]) == UNUSABLE
    kept.with_name("0-another-model.json").unlink()
    kept.unlink()
    references = pydicom.dcmread(archive / "rs.dcm")
    for roi in references.StructureSetROISequence:
        roi.ROIName = f"nobody's organ {roi.ROINumber}"
    for roi in references.RTROIObservationsSequence:
        del roi.RTROIIdentificationCodeSequence
    references.save_as(archive / "rs.dcm")
    assert main(["commission", str(archive), "--out", str(out)]) == FINDINGS
    assert list((out / "cases").glob("*.json")) == []


def test_a_case_is_drawn_anew_with_other_choices_of_the_site(monkeypatch: pytest.MonkeyPatch) -> None:
    brain = BY_NAME["Brain"]
    sites = [Site(), Site({"Hirn": "Brain"}), Site(tolerances_mm={brain: 1.0}), Site(action_levels={brain: {"surface_dsc": 0.9}})]
    hashes = [made_with(site) for site in sites]
    monkeypatch.setattr(commission, "__version__", "another")
    assert len({*hashes, made_with(Site())}) == 5
    assert made_with(Site(name="Another name")) == made_with(Site())

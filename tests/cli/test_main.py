"""The command line, from the files to the exit status."""

import csv
import json
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest

from oarlock.cli.judging import exit_status
from oarlock.cli.main import main
from oarlock.geometry.masks import OARMasks, volume_ml
from oarlock.organs.catalogue import BY_NAME
from oarlock.phantom.patient import Phantom
from oarlock.rtstruct.writer import write_rtstruct
from tests.fixtures.organs import AUTHORSHIP, Series, write_series

pytestmark = pytest.mark.slow


@pytest.fixture
def series(tmp_path: Path) -> Series:
    return write_series(tmp_path / "ct" / "deeper")


@pytest.fixture
def rtstruct(series: Series, tmp_path: Path) -> Path:
    path = tmp_path / "rtstruct.dcm"
    write_rtstruct(path, series.masks, series.header, AUTHORSHIP)
    return path


def test_a_good_file_is_fit_to_be_delivered(rtstruct: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(rtstruct), "--ct", str(tmp_path / "ct")]) == 0
    assert capsys.readouterr().out == "fit to be delivered\n"


def test_findings_are_printed_and_make_the_exit_status_1(
    rtstruct: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = pydicom.dcmread(rtstruct)
    dataset.StructureSetLabel = ""
    dataset.save_as(rtstruct)
    assert main(["check", str(rtstruct), "--ct", str(tmp_path / "ct")]) == 1
    assert capsys.readouterr().out == "the Structure Set Label is empty or longer than 16 characters\n"


def test_a_folder_without_a_series_makes_the_exit_status_2(
    rtstruct: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    assert main(["check", str(rtstruct), "--ct", str(tmp_path / "empty")]) == 2
    assert "(series." in capsys.readouterr().err


def test_a_missing_file_is_said_and_not_raised(series: Series, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(tmp_path / "no.dcm"), "--ct", str(tmp_path / "ct")]) == 2
    assert "No such file" in capsys.readouterr().err


def test_a_structure_set_agrees_with_itself(rtstruct: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["qa", str(rtstruct), str(rtstruct), "--ct", str(tmp_path / "ct"), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    scores = {score["oar"]: score for score in report["oars"]}
    assert scores["Brain"]["surface_dsc"] == scores["Parotid_R"]["volumetric_dsc"] == 1.0
    assert scores["Lens_R"]["presence"] == "neither"
    assert scores["Lens_R"]["surface_dsc"] is None


def test_the_table_has_a_line_for_every_organ(
    rtstruct: Path, series: Series, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["qa", str(rtstruct), str(rtstruct), "--ct", str(tmp_path / "ct")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:6]] == ["organ", "Brain", "Cochlea_L", "Lens_R", "OpticNrv_L", "Parotid_R"]
    _, millilitres, slices, verdict, *scores = lines[1].split()
    brain = series.masks.crop(BY_NAME["Brain"])
    assert brain is not None
    assert float(millilitres) == pytest.approx(volume_ml(brain, series.header.grid), abs=0.006)
    assert (int(slices), verdict, scores) == (brain[1].shape[0], "red", ["1.000", "1.000", "0.0"])
    assert lines[3].split()[1:3] == ["not", "found"]


def test_csv_has_a_line_for_each_organ_and_reference(rtstruct: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["qa", str(rtstruct), str(rtstruct), str(rtstruct), "--ct", str(tmp_path / "ct"), "--csv"]) == 0
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert [(row["reference"], row["oar"]) for row in rows if row["oar"] == "Brain"] == [("1", "Brain"), ("2", "Brain")]
    assert {row["surface_dsc"] for row in rows} == {"1.0"}
    assert "Lens_R" not in {row["oar"] for row in rows}


def test_a_threshold_that_is_not_kept_makes_the_exit_status_1(rtstruct: Path, series: Series, tmp_path: Path) -> None:
    """Four columns of 0.9 mm beside the reference, every surface is 3.6 mm off where it faces along the rows."""
    moved = OARMasks(series.masks.oars, np.roll(series.masks.bits, 4, axis=2))
    write_rtstruct(tmp_path / "moved.dcm", moved, series.header, replace(AUTHORSHIP, job_id="job-2"))
    site = tmp_path / "site.toml"
    site.write_text("[action_levels.all]\nsurface_dsc = 0.0\n[action_levels.Brain]\nsurface_dsc = 0.99\n")
    for options, status in (
        ([], 0),
        (["--min-surface-dsc", "0"], 0),
        (["--min-surface-dsc", "0.99"], 1),
        (["--min-dsc", "0.99"], 1),
        (["--max-hd95-mm", "3.5"], 1),
        (["--max-hd95-mm", "3.7"], 0),
        (["--site", str(site)], 1),
        (["--site", str(site), "--min-surface-dsc", "0"], 0),
        (["--fail-on", "red"], 1),
        (["--min-surface-dsc", "80"], 2),
    ):
        call = ["qa", str(tmp_path / "moved.dcm"), str(rtstruct), "--ct", str(tmp_path / "ct"), *options]
        assert main(call) == status, options


def test_several_references_each_get_their_comparison_and_the_spread_between_them(
    rtstruct: Path, series: Series, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = OARMasks(series.masks.oars, np.roll(series.masks.bits, 4, axis=2))
    other = tmp_path / "other.dcm"
    write_rtstruct(other, moved, series.header, replace(AUTHORSHIP, job_id="job-2"))
    pair = [str(rtstruct), str(other), "--ct", str(tmp_path / "ct"), "--json"]
    assert main(["qa", *pair]) == 0
    alone = json.loads(capsys.readouterr().out)
    assert main(["qa", str(rtstruct), *pair]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["comparisons"][1] == {"origin": "supplied", "position": 2} | alone
    brain = next(entry for entry in report["observers"] if entry["oar"] == "Brain")
    between = next(score["surface_dsc"] for score in alone["oars"] if score["oar"] == "Brain")
    assert brain["surface_dsc"]["between"]["median"] == between < 1.0
    assert brain["surface_dsc"]["ours"] == {"lowest": between, "median": (1 + between) / 2, "highest": 1.0}


def test_a_warning_names_the_file_that_it_is_about(rtstruct: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = pydicom.dcmread(rtstruct)
    dataset.ROIContourSequence[0].ContourSequence[0].ContourGeometricType = "POINT"
    dataset.save_as(tmp_path / "other.dcm")
    assert main(["qa", str(rtstruct), str(tmp_path / "other.dcm"), "--ct", str(tmp_path / "ct")]) == 0
    said = [line for line in capsys.readouterr().err.splitlines() if "POINT" in line or "point" in line]
    assert said
    assert all(line.startswith(f"warning: {tmp_path / 'other.dcm'}: ") for line in said)


def test_without_a_reference_the_checks_still_stand(rtstruct: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["qa", str(rtstruct), "--ct", str(tmp_path / "ct"), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["comparisons"] == report["observers"] == []
    assert "Parotid_R" in {check["oar"] for check in report["checks"] if check["code"] == "organ.volume"}
    assert main(["qa", str(rtstruct), "--ct", str(tmp_path / "ct")]) == 0
    assert "Parotid_R: leaves the patient" in capsys.readouterr().out


def test_a_threshold_that_nothing_was_held_against_is_not_kept(capsys: pytest.CaptureFixture[str]) -> None:
    chosen = Namespace(min_surface_dsc=0.8, min_dsc=None, max_hd95_mm=None, fail_on=None)
    assert exit_status({"comparisons": [], "verdict": "green"}, chosen) == 1
    assert "nothing was compared" in capsys.readouterr().err
    assert exit_status({"comparisons": [{"passed": True}], "verdict": "green"}, chosen) == 0


def test_a_site_file_gives_names_and_tolerances(rtstruct: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = pydicom.dcmread(rtstruct)
    for roi, observation in zip(dataset.StructureSetROISequence, dataset.RTROIObservationsSequence, strict=True):
        if roi.ROIName == "Brain":
            roi.ROIName = "Denkorgan"
            del observation.RTROIIdentificationCodeSequence
    dataset.save_as(tmp_path / "own.dcm")
    (tmp_path / "site.toml").write_text('[names]\nDenkorgan = "Brain"\n[tolerances_mm]\nBrain = 2.2\n')
    call = ["qa", str(rtstruct), str(tmp_path / "own.dcm"), "--ct", str(tmp_path / "ct"), "--json"]
    assert main(call) == 0
    plain = json.loads(capsys.readouterr().out)
    assert plain["unmatched_reference_rois"] == ["Denkorgan"]
    assert main([*call, "--site", str(tmp_path / "site.toml")]) == 0
    brain = json.loads(capsys.readouterr().out)["oars"][0]
    assert (brain["matched_roi"], brain["tolerance_mm"], brain["tolerance_source"]) == ("Denkorgan", 2.2, "the site's own")
    (tmp_path / "site.toml").write_text("[names]\nDenkorgan = 3\n")
    assert main([*call, "--site", str(tmp_path / "site.toml")]) == 2
    assert "(site.file_invalid)" in capsys.readouterr().err


def test_the_phantom_passes_the_check(
    phantom: Phantom, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("oarlock.phantom.patient.head_and_neck", lambda: phantom)  # made once for all tests
    assert main(["phantom", str(tmp_path / "phantom")]) == 0
    reference = capsys.readouterr().out.split()[-1]
    assert main(["check", reference, "--ct", str(tmp_path / "phantom")]) == 0

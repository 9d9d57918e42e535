"""The command line, from the files to the exit status."""

import json
from pathlib import Path

import pydicom
import pytest

from oarlock.cli import main
from oarlock.rtstruct import write_rtstruct
from tests.fixtures.organs import AUTHORSHIP, Series, write_series


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


def test_the_table_has_a_line_for_every_organ(rtstruct: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["qa", str(rtstruct), str(rtstruct), "--ct", str(tmp_path / "ct")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["OAR", "Brain", "Cochlea_L", "Lens_R", "OpticNrv_L", "Parotid_R"]
    assert lines[1].split()[1:] == ["1.0000", "1.0000", "0.00"]


@pytest.mark.slow
def test_the_phantom_passes_the_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["phantom", str(tmp_path / "phantom")]) == 0
    reference = capsys.readouterr().out.split()[-1]
    assert main(["check", reference, "--ct", str(tmp_path / "phantom")]) == 0

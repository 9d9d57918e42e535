"""``oarlock contour``: a folder in, a folder out."""

import json
import os
import sys
from pathlib import Path

import pydicom
import pytest

from oarlock.cli.main import main
from oarlock.geometry.grid import Grid
from oarlock.segmentation.manifest import ModelManifest
from oarlock.store.files import PREVIEW, QA_REPORT, RTSTRUCT, SEGMENTATION
from tests.worker.conftest import head
from tests.worker.tiny_model import LIMITS_HU

pytestmark = pytest.mark.slow


@pytest.fixture
def models(tiny_manifest: ModelManifest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("OARLOCK_MODELS", str(tiny_manifest.parts[0].path.parent.parent))
    monkeypatch.setenv("OARLOCK_MODEL", tiny_manifest.name)
    return tiny_manifest.name


@pytest.mark.usefixtures("models")
def test_a_series_is_contoured_by_the_profile_that_is_named(
    series: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "site.toml").write_text('[[roi]]\noar = "Bone_Mandible"\nname = "Unterkiefer"\n', encoding="utf-8")
    monkeypatch.setenv("OARLOCK_PROFILES", str(tmp_path))
    out = tmp_path / "new" / "out"
    assert main(["contour", str(series), "--out", str(out), "--profile", "site"]) == 0
    assert sorted(path.name for path in out.iterdir()) == sorted([RTSTRUCT, QA_REPORT, PREVIEW])
    assert capsys.readouterr().out.splitlines()[-3:] == [str(out / name) for name in (RTSTRUCT, QA_REPORT, PREVIEW)]
    dataset = pydicom.dcmread(out / RTSTRUCT)
    assert [roi.ROIName for roi in dataset.StructureSetROISequence] == ["Unterkiefer"]
    assert "tiny" in dataset.StructureSetDescription
    assert {check["oar"] for check in json.loads((out / QA_REPORT).read_text())["checks"]} <= {"Bone_Mandible", None}


@pytest.mark.usefixtures("models")
def test_without_a_choice_every_organ_of_the_default_model_is_written(series: Path, tmp_path: Path) -> None:
    assert main(["contour", str(series), "--out", str(tmp_path)]) == 0
    assert [roi.ROIName for roi in pydicom.dcmread(tmp_path / RTSTRUCT).StructureSetROISequence] == list(LIMITS_HU)
    assert main(["check", str(tmp_path / RTSTRUCT), "--ct", str(series)]) == 0


@pytest.mark.usefixtures("models")
def test_the_masks_are_written_as_a_segmentation_where_it_is_asked_for(
    series: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["contour", str(series), "--out", str(tmp_path), "--seg"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(tmp_path / SEGMENTATION)
    segmentation, rtstruct = (pydicom.dcmread(tmp_path / name) for name in (SEGMENTATION, RTSTRUCT))
    assert segmentation.StudyInstanceUID == rtstruct.StudyInstanceUID
    labels = [segment.SegmentLabel for segment in segmentation.SegmentSequence]
    assert labels == [roi.ROIName for roi in rtstruct.StructureSetROISequence]


@pytest.mark.usefixtures("models")
@pytest.mark.parametrize(("choice", "code"), [("--profile", "request.unknown_profile"), ("--model", "request.unknown_model")])
def test_what_there_is_not_makes_the_exit_status_2_and_no_file(
    choice: str, code: str, series: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["contour", str(series), "--out", str(tmp_path / "out"), choice, "unheard-of"]) == 2
    assert f"({code})" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("models")
def test_the_files_have_the_mode_of_any_new_file_of_this_user(series: Path, tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        assert main(["contour", str(series), "--out", str(tmp_path)]) == 0
    finally:
        os.umask(before)
    assert {(tmp_path / name).stat().st_mode & 0o777 for name in (RTSTRUCT, QA_REPORT, PREVIEW)} == {0o640}


@pytest.mark.usefixtures("models")
def test_a_table_says_of_each_organ_what_was_drawn(
    series: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], crooked_grid: Grid
) -> None:
    assert main(["contour", str(series), "--out", str(tmp_path)]) == 0
    rows = {words[0]: words[1:] for line in capsys.readouterr().out.splitlines() if (words := line.split())}
    assert rows["organ"] == ["volume,", "ml", "slices", "checks"]
    bone = head(crooked_grid) > 500
    true_ml = (bone * crooked_grid.voxel_volumes_mm3[:, None, None]).sum() / 1000
    assert float(rows["Bone_Mandible"][0]) == pytest.approx(true_ml, rel=0.1)
    assert int(rows["Bone_Mandible"][1]) == pytest.approx(bone.any(axis=(1, 2)).sum(), abs=1)
    assert rows["Bone_Mandible"][2] == "red"  # a ball of 1.4 ml
    assert "Red" in rows


@pytest.mark.usefixtures("models")
def test_without_onnx_runtime_the_command_says_what_to_install(
    series: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in sys.modules if name.startswith(("onnxruntime", "oarlock.inference."))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert main(["contour", str(series), "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err == "oarlock: contour needs ONNX Runtime. Install it: pip install 'oarlock[worker]'\n"
    assert not (tmp_path / "out").exists()


def test_a_fault_in_our_own_code_is_not_taken_for_a_missing_runtime(
    series: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "oarlock.inference.models", raising=False)
    monkeypatch.setitem(sys.modules, "oarlock.inference.network", None)
    with pytest.raises(ModuleNotFoundError, match=r"oarlock\.inference\.network"):
        main(["contour", str(series), "--out", str(tmp_path / "out")])

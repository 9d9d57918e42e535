"""oarlock application: the contract of mercure's modules and of MONAI Application Packages, by their variables and files."""

import json
import shutil
from pathlib import Path

import pytest

from oarlock import __version__
from oarlock.cli.application import INPUTS, OUTPUTS
from oarlock.cli.main import main
from oarlock.store.files import PREVIEW, QA_REPORT, RTSTRUCT
from tests.cli.test_contour import models  # noqa: F401 - a fixture

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folders(series: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A folder as mercure lays it: images under names of its own, with a file of tags each."""
    given, out = tmp_path / "in", tmp_path / "out"
    given.mkdir()
    for number, image in enumerate(sorted(path for path in series.rglob("*") if path.is_file())):
        shutil.copy(image, given / f"1.2.3#1.2.3.{number}.dcm")
        (given / f"1.2.3#1.2.3.{number}.tags").write_text("{}")
    for name in (*INPUTS, *OUTPUTS):
        monkeypatch.delenv(name, raising=False)
    return given, out


@pytest.mark.usefixtures("models")
@pytest.mark.parametrize(("given", "out"), [("MERCURE_IN_DIR", "MERCURE_OUT_DIR"), ("HOLOSCAN_INPUT_PATH", "MONAI_OUTPUTPATH")])
def test_the_folder_of_a_runner_is_contoured_into_its_other_one(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, given: str, out: str
) -> None:
    monkeypatch.setenv(given, str(folders[0]))
    monkeypatch.setenv(out, str(folders[1]))
    assert main(["application"]) == 0
    assert sorted(path.name for path in folders[1].iterdir()) == sorted([RTSTRUCT, QA_REPORT, PREVIEW])


@pytest.mark.usefixtures("models")
def test_the_settings_of_a_mercure_module_choose_the_model(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folders[0] / "task.json").write_text(json.dumps({"process": {"settings": {"model": "nope"}}}))
    monkeypatch.setenv("MERCURE_IN_DIR", str(folders[0]))
    monkeypatch.setenv("MERCURE_OUT_DIR", str(folders[1]))
    assert main(["application"]) == 2
    assert "(request.unknown_model)" in capsys.readouterr().err
    assert not folders[1].exists()


@pytest.mark.parametrize("task", ["no json", "[]", '{"process": {}}', '{"process": {"settings": {"model": 1}}}'])
def test_a_task_that_cannot_be_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], task: str
) -> None:
    (tmp_path / "task.json").write_text(task)
    monkeypatch.setenv("MERCURE_IN_DIR", str(tmp_path))
    monkeypatch.setenv("MERCURE_OUT_DIR", str(tmp_path / "out"))
    assert main(["application"]) == 2
    assert "task.json" in capsys.readouterr().err


def test_without_folders_the_variables_are_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name in INPUTS:
        monkeypatch.delenv(name, raising=False)
    assert main(["application"]) == 2
    assert "MERCURE_IN_DIR" in capsys.readouterr().err


def test_the_manifests_of_the_image_name_its_command_its_paths_and_its_version() -> None:
    app, package = (json.loads((ROOT / "docker" / "application" / f"{name}.json").read_text()) for name in ("app", "pkg"))
    dockerfile = (ROOT / "docker" / "worker.Dockerfile").read_text(encoding="utf-8")
    assert json.loads(app["command"]) == ["oarlock", "application"]
    for side in ("input", "output"):
        assert f"HOLOSCAN_{side.upper()}_PATH={app['workingDirectory']}/{app[side]['path']}" in dockerfile
    assert f"HOLOSCAN_MODEL_PATH={package['modelRoot']}" in dockerfile
    assert (app["version"], package["version"]) == (__version__, __version__)

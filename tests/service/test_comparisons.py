"""Any two RTSTRUCTs on a series, over HTTP: the same report as from the command line, and nothing left behind."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pydicom
import pytest

from oarlock.cli.main import main
from oarlock.geometry.masks import OARMasks
from oarlock.rtstruct.writer import write_rtstruct
from service.intake.forms import COMPARISON
from tests.fixtures.organs import AUTHORSHIP, Series, write_series
from tests.service.running import Running, parts, zipped

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def ct(tmp_path_factory: pytest.TempPathFactory) -> Series:
    return write_series(tmp_path_factory.mktemp("ct"), patient_name="Canary^Yellow")


@pytest.fixture(scope="module")
def rtstructs(ct: Series, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Ours, and another one's whose contours lie four voxels to the left."""
    folder = tmp_path_factory.mktemp("rtstructs")
    moved = OARMasks(ct.masks.oars, np.roll(ct.masks.bits, 4, axis=2))
    write_rtstruct(folder / "predicted", ct.masks, ct.header, AUTHORSHIP)
    write_rtstruct(folder / "reference", moved, ct.header, replace(AUTHORSHIP, job_id="job-2"))
    return {name: folder / name for name in ("predicted", "reference")}


def post(client: httpx.Client, ct: Series, files: dict[str, Path | bytes]) -> httpx.Response:
    named = [part for name, file in files.items() for part in parts([file], name)]
    return client.post("/v1/comparisons", files=[*parts(ct.files[::-1]), *named])


def test_the_report_is_the_one_of_the_command_line(
    client: httpx.Client, ct: Series, rtstructs: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    answer = post(client, ct, rtstructs)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    folder = ct.files[0].parent
    assert main(["qa", str(rtstructs["predicted"]), str(rtstructs["reference"]), "--ct", str(folder), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert answer.json() == report
    brain = next(score for score in report["oars"] if score["oar"] == "Brain")
    assert 0 < brain["surface_dsc"] < 1
    assert brain["centre_distance_mm"] == pytest.approx(4 * 0.9)


def test_the_series_may_come_as_an_archive_and_the_sides_are_not_exchanged(
    client: httpx.Client, ct: Series, rtstructs: dict[str, Path]
) -> None:
    named = parts([rtstructs["predicted"]], "predicted") + parts([rtstructs["reference"]], "reference")
    answer = client.post("/v1/comparisons", files=[*named, *parts([zipped(ct.files)])])
    uids = {name: pydicom.dcmread(path).SOPInstanceUID for name, path in rtstructs.items()}
    assert {name: answer.json()[name]["sop_instance_uid"] for name in uids} == uids


def test_what_is_not_used_of_a_file_is_told(client: httpx.Client, ct: Series, rtstructs: dict[str, Path], tmp_path: Path) -> None:
    dataset = pydicom.dcmread(rtstructs["reference"])
    dataset.ROIContourSequence[0].ContourSequence[0].ContourGeometricType = "OPEN_PLANAR"
    dataset.save_as(tmp_path / "open.dcm")
    (warning,) = [
        warning
        for warning in post(client, ct, rtstructs | {"reference": tmp_path / "open.dcm"}).json()["warnings"]
        if "open line" in warning["detail"]
    ]
    assert warning["code"] == "structure_set.roi_partly_used"
    assert warning["detail"].startswith("Reference RTSTRUCT: ROI number 1:")


def test_nothing_is_kept_and_no_job_comes_of_it(
    client: httpx.Client, running: Running, ct: Series, rtstructs: dict[str, Path]
) -> None:
    before, jobs = running.files(), client.get("/v1/jobs").json()
    answer = post(client, ct, rtstructs)
    assert answer.status_code == 200
    assert "Canary" not in answer.text
    assert (running.files(), client.get("/v1/jobs").json()) == (before, jobs)


@pytest.mark.parametrize("side", ["predicted", "reference"])
@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (lambda path: b"no DICOM file", "structure_set.unreadable"),
        (lambda path: path.read_bytes()[:2000], "structure_set.unreadable"),
        (lambda path: zipped([path]), "structure_set.unreadable"),
    ],
    ids=["not DICOM", "cut off", "archive"],
)
def test_a_file_that_cannot_be_used_is_refused_and_its_part_named(
    client: httpx.Client,
    running: Running,
    ct: Series,
    rtstructs: dict[str, Path],
    side: str,
    spoil: Callable[[Path], bytes],
    code: str,
) -> None:
    before = running.files()
    answer = post(client, ct, rtstructs | {side: spoil(rtstructs[side])})
    assert (answer.status_code, answer.json()["code"]) == (422, code)
    assert answer.json()["detail"].startswith(f"Part '{side}': ")
    assert running.files() == before


def test_contours_of_another_scan_are_refused(
    client: httpx.Client, ct: Series, rtstructs: dict[str, Path], tmp_path: Path
) -> None:
    other = write_series(tmp_path, overrides={"FrameOfReferenceUID": "2.25.99", "SeriesInstanceUID": "2.25.98"})
    write_rtstruct(tmp_path / "other.dcm", other.masks, other.header, AUTHORSHIP)
    dataset = pydicom.dcmread(tmp_path / "other.dcm")
    for roi in dataset.ROIContourSequence:
        for contour in roi.get("ContourSequence", []):
            del contour.ContourImageSequence
    del dataset.ReferencedFrameOfReferenceSequence
    dataset.save_as(tmp_path / "other.dcm")
    answer = post(client, ct, rtstructs | {"reference": tmp_path / "other.dcm"})
    assert (answer.status_code, answer.json()["code"]) == (422, "structure_set.frame_of_reference_mismatch")


@pytest.mark.parametrize("missing", ["predicted", "reference"])
def test_a_part_that_is_missing_is_named(client: httpx.Client, ct: Series, rtstructs: dict[str, Path], missing: str) -> None:
    answer = post(client, ct, {name: path for name, path in rtstructs.items() if name != missing})
    assert (answer.status_code, answer.json()["code"]) == (422, "upload.part_missing")
    assert f"'{missing}'" in answer.json()["detail"]


@pytest.mark.parametrize("name", ["reference", "model", "predicts"])
def test_a_part_that_comes_twice_or_is_unknown_is_refused(
    client: httpx.Client, ct: Series, rtstructs: dict[str, Path], name: str
) -> None:
    named = [part for side, path in rtstructs.items() for part in parts([path], side)]
    answer = client.post("/v1/comparisons", files=[*parts(ct.files), *named, *parts([rtstructs["reference"]], name)])
    assert (answer.status_code, answer.json()["code"]) == (400, "upload.malformed")
    assert "'files', 'predicted', 'reference'" in answer.json()["detail"]


def test_without_a_series_or_as_another_media_type_it_is_refused(client: httpx.Client, rtstructs: dict[str, Path]) -> None:
    named = [part for side, path in rtstructs.items() for part in parts([path], side)]
    assert client.post("/v1/comparisons", files=named).json()["code"] == "upload.empty"
    assert client.post("/v1/comparisons").json()["code"] == "upload.empty"
    zip_: dict[str, Any] = {"content": zipped([b"x"]), "headers": {"Content-Type": "application/zip"}}
    answer = client.post("/v1/comparisons", **zip_)
    assert (answer.status_code, answer.json()["detail"]) == (415, f"Send {COMPARISON.accepted}.")


def test_the_example_in_the_contract_is_of_the_shape_of_a_real_answer(
    client: httpx.Client, ct: Series, rtstructs: dict[str, Path]
) -> None:
    document = client.get("/openapi.json").json()
    call = document["paths"]["/v1/comparisons"]["post"]
    assert set(call["requestBody"]["content"]) == {"multipart/form-data"}
    example = call["responses"]["200"]["content"]["application/json"]["example"]
    real = post(client, ct, rtstructs).json()
    assert set(example) == set(real)
    assert set(example["oars"][0]) == set(real["oars"][0])

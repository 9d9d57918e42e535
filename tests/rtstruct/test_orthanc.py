"""Orthanc, a PACS, takes the CT and our RTSTRUCT over DICOMweb and files them under one study."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from oarlock.rtstruct.writer import write_rtstruct
from tests.fixtures.organs import AUTHORSHIP, Series
from tests.fixtures.orthanc import running

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    with running(tmp_path_factory.mktemp("orthanc")) as client:
        yield client


@pytest.fixture(scope="module")
def rtstruct(series: Series, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rtstruct") / "rtstruct.dcm"
    write_rtstruct(path, series.masks, series.header, AUTHORSHIP)
    return path


def store(client: httpx.Client, paths: list[Path]) -> httpx.Response:
    """STOW-RS (PS3.18 10.5)."""
    parts = [b"--b\r\nContent-Type: application/dicom\r\n\r\n" + path.read_bytes() + b"\r\n" for path in paths]
    kind = 'multipart/related; type="application/dicom"; boundary=b'
    headers = {"Content-Type": kind, "Accept": "application/dicom+json"}
    return client.post("/dicom-web/studies", content=b"".join(parts) + b"--b--\r\n", headers=headers)


def ask(client: httpx.Client, path: str) -> Any:
    return client.get(path, headers={"Accept": "application/dicom+json"}).raise_for_status().json()


def test_the_ct_and_the_rtstruct_are_stored_without_a_failure_and_lie_in_one_study(
    orthanc: httpx.Client, series: Series, rtstruct: Path
) -> None:
    files = [instance.path for instance in series.header.instances]
    for paths in (files, [rtstruct]):
        answer = store(orthanc, paths)
        assert answer.status_code == 200, answer.text
        assert answer.json().get("00081198", {}).get("Value", []) == []  # Failed SOP Sequence
        assert len(answer.json()["00081199"]["Value"]) == len(paths)  # Referenced SOP Sequence
    (study,) = ask(orthanc, "/dicom-web/studies")
    uid = series.header.study_instance_uid
    assert study["0020000D"]["Value"] == [uid]
    found = {entry["00080060"]["Value"][0] for entry in ask(orthanc, f"/dicom-web/studies/{uid}/series")}
    assert found == {"CT", "RTSTRUCT"}
    assert len(orthanc.get("/patients").json()) == 1


def test_what_is_retrieved_is_what_was_stored(orthanc: httpx.Client, series: Series, rtstruct: Path) -> None:
    store(orthanc, [rtstruct])
    (entry,) = ask(orthanc, f"/dicom-web/studies/{series.header.study_instance_uid}/instances?Modality=RTSTRUCT")
    (found,) = orthanc.post("/tools/lookup", content=entry["00080018"]["Value"][0]).json()
    assert orthanc.get(f"/instances/{found['ID']}/file").content == rtstruct.read_bytes()

"""Every file of the collection of odd files, posted to a real service: a clear code at once, and the service goes on."""

from pathlib import Path

import httpx
import pytest

from oarlock import errors
from tests.service.running import Running, parts

pytestmark = pytest.mark.slow

CODES = {leaf.code for leaf in errors.leaves()}


def test_every_odd_file_is_answered_with_a_code_of_the_house_and_leaves_nothing(
    shared: Path, client: httpx.Client, running: Running
) -> None:
    """One of them is a whole series: a multi-frame image."""
    files = sorted(path for path in (shared / "data/dicom/odd").rglob("*") if path.is_file() and path.suffix != ".txt")
    accepted = []
    for path in files:
        before = running.files()
        answer = client.post("/v1/jobs", files=parts([path]))
        if answer.status_code == 202:
            accepted.append(path.name)
            continue
        assert (answer.status_code, answer.json()["code"] in CODES) == (422, True), (path.name, answer.text)
        assert running.files() == before, path.name
        assert client.get("/livez").status_code == 200
    assert accepted == ["mf.dcm"]


def test_odd_files_among_a_good_series_are_set_aside_or_refused(shared: Path, client: httpx.Client, series: list[Path]) -> None:
    files = sorted(path for path in (shared / "data/dicom/odd").rglob("*") if path.is_file() and path.suffix != ".txt")
    for path in files:
        answer = client.post("/v1/jobs", files=parts([*series, path]))
        if answer.status_code == 202:
            codes = {warning["code"] for warning in answer.json()["warnings"]}
            assert codes & {
                f"series.{kind}_set_aside" for kind in ("not_dicom", "other_object", "localizer", "secondary_capture")
            }
        else:
            assert (answer.status_code, answer.json()["code"] in CODES) == (422, True), (path.name, answer.text)

"""A series full of canaries goes through all that can happen; then everything that was written is searched."""

import os
import signal
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from pydicom import dcmread
from pydicom.encaps import encapsulate

from oarlock.store.jobs import JobState
from tests.fixtures import canaries
from tests.fixtures.processes import eventually
from tests.service.running import zipped
from tests.system.installed import PATIENCE_S, Installed, installed

pytestmark = pytest.mark.slow

RESULTS: Final = ("rtstruct", "qa", "preview.png")
TASK_IS_OVER: Final = b"] succeeded in "
"""What Celery says when a task has returned, whatever came of its job."""

FILE_NAME: Final = "Canary^Yellow 19370213 (471147114711).dcm"


@dataclass
class Haunted:
    """What was written on the way, by where: text that people read, and the names and bytes of files."""

    said: dict[str, bytes]
    names: list[str]
    store: dict[str, bytes]
    uids: list[str]
    job_uids: list[str]
    remains: dict[str, bytes]


def parts(files: Sequence[Path], name: str = "files") -> list[tuple[str, tuple[str, bytes, str]]]:
    return [(name, (FILE_NAME, path.read_bytes(), "application/dicom")) for path in files]


class Sender:
    """Posts, and keeps every word of every answer but the results themselves."""

    def __init__(self, url: str, key: str) -> None:
        self._client = httpx.Client(base_url=url, timeout=300, headers={"Authorization": f"Bearer {key}"})
        self.answers: list[bytes] = []

    def call(self, method: str, path: str, *, secret: bool = False, **content: Any) -> httpx.Response:
        answer = self._client.request(method, path, **content)
        headers = "\n".join(f"{name}: {value}" for name, value in answer.headers.items())
        self.answers += [headers.encode(), b"" if secret else answer.content]
        return answer

    def post(self, files: Sequence[Path], *others: Any, **fields: Any) -> httpx.Response:
        return self.call("POST", "/v1/jobs", files=[*parts(files), *others], data=fields)

    def close(self) -> None:
        self._client.close()


def succeed(house: Installed, sender: Sender, files: Sequence[Path], structure_sets: Sequence[Path]) -> None:
    """A job with two structure sets of which one lies elsewhere, whose process is killed once; and its results."""
    answer = sender.call(
        "POST",
        "/v1/jobs",
        files=parts([*files, *structure_sets]),
        headers={"Idempotency-Key": "CANARY-ID-471147114711", "User-Agent": "Canary/471147114711", "X-Patient": "Canary^Yellow"},
    )
    assert answer.status_code == 202
    job_id = answer.json()["id"]
    house.wait(job_id, JobState.RUNNING)
    os.kill(house.busy_process(job_id), signal.SIGKILL)
    assert house.wait(job_id) is JobState.SUCCEEDED
    document = sender.call("GET", f"/v1/jobs/{job_id}").json()
    assert document["attempts"] >= 2
    assert "structure_set.not_compared" in {warning["code"] for warning in document["warnings"]}
    for name in RESULTS:
        assert sender.call("GET", f"/v1/jobs/{job_id}/{name}", secret=True).is_success
    sender.call("GET", "/v1/jobs")
    sender.call("GET", f"/v1/jobs/{job_id}/events")


def fail(house: Installed, sender: Sender, files: Sequence[Path], folder: Path) -> None:
    """A series that passes at the door and cannot be decoded; its post is a zip archive with telling names."""
    folder.mkdir()
    broken = dcmread(files[0])
    broken.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.5"  # RLE, which this is not
    broken.PixelData = encapsulate([b"Canary^Yellow 47" * 8])
    broken.save_as(folder / "broken.dcm")
    archive = zipped([*files[1:], folder / "broken.dcm"], folder="CANARY^YELLOW/19370213/")
    answer = sender.call("POST", "/v1/jobs", content=archive, headers={"Content-Type": "application/zip"})
    assert answer.status_code == 202, answer.text
    job_id = answer.json()["id"]
    assert house.wait(job_id) is JobState.FAILED
    sender.call("GET", f"/v1/jobs/{job_id}")
    assert sender.call("GET", f"/v1/jobs/{job_id}/rtstruct").status_code == 409
    assert sender.call("POST", f"/v1/jobs/{job_id}/retry").status_code == 202
    house.wait(job_id)


def be_refused(sender: Sender, files: Sequence[Path], structure_set: Path, folder: Path) -> None:
    """Whatever a sender can do wrong, with a canary in it."""
    folder.mkdir()
    notes, cut, other = folder / "Canary.txt", folder / "cut.dcm", folder / "other.dcm"
    notes.write_text("Canary^Yellow 19370213")
    cut.write_bytes(files[0].read_bytes()[:700])
    instance = dcmread(files[0])
    instance.PatientID = "CANARY-OTHER-ID"
    instance.save_as(other)
    refused = [
        sender.post([*files[:9], *files[10:]]),
        sender.post([*files[1:], other]),
        sender.post([*files[1:], cut]),
        sender.post([notes]),
        sender.post([structure_set]),
        sender.post(files, model="Canary"),
        sender.post(files, profile="Canary"),
        sender.post(files, priority="Canary"),
        sender.post(files, callback_url="https://canary.example/471147114711"),
        sender.post(files, canary="Canary"),
        sender.post([], *parts(files[:2], name="canary")),
        sender.call("POST", "/v1/jobs", content=b"PK\x03\x04Canary^Yellow", headers={"Content-Type": "application/zip"}),
        sender.call("POST", "/v1/jobs", content=zipped(files, folder="../canary/"), headers={"Content-Type": "application/zip"}),
        sender.call("POST", "/v1/jobs", content=b"Canary", headers={"Content-Type": "text/canary"}),
        sender.call("POST", "/v1/jobs", content=b"Canary", headers={"Content-Type": "multipart/form-data; boundary=canary"}),
        sender.call("POST", "/v1/jobs", headers={"Idempotency-Key": "Canary" * 60}, files=parts(files)),
        sender.call("GET", "/v1/jobs?state=canary"),
        sender.call("GET", "/v1/jobs?cursor=canary"),
        sender.call("GET", "/v1/jobs?limit=canary"),
        sender.call("GET", "/v1/jobs?series_instance_uid=canary"),
        sender.call("GET", "/v1/jobs/canary"),
        sender.call("GET", "/v1/jobs/canary/preview.png?oar=canary&slice=canary"),
        sender.call("GET", "/canary/471147114711"),
        sender.call("PUT", "/v1/jobs/Canary"),
        sender.call("GET", "/v1/jobs", headers={"Authorization": "Bearer Canary"}),
        sender.call("GET", "/v1/jobs", headers={"Authorization": "Canary Yellow"}),
    ]
    sender.call("CANARY", "/v1/jobs")  # refused below the application, and in plain text
    assert [answer.status_code for answer in refused if answer.status_code < 400] == []
    assert all("application/problem+json" in answer.headers["content-type"] for answer in refused)


@pytest.fixture(scope="module")
def haunted(tmp_path_factory: pytest.TempPathFactory) -> Haunted:
    folder = tmp_path_factory.mktemp("haunted")
    files = canaries.write_series(folder / "Canary")
    known = canaries.write_structure_set(folder / "known.dcm", files)
    elsewhere = canaries.write_structure_set(folder / "elsewhere.dcm", files, frame_of_reference_uid="2.25.987654321")
    with installed(folder, linger=1200) as house:
        key = house.oarlock("keys", "create", "watch", "--scope", "admin").strip()
        with closing(Sender(house.url, key)) as sender:
            succeed(house, sender, files, [known, elsewhere])
            fail(house, sender, files, folder / "failing")
            be_refused(sender, files, known, folder / "refused")
            metrics = sender.call("GET", "/metrics").content
        audit = house.oarlock("audit", "export").encode()
        store = contents(house.data)
        names = [f"{path.relative_to(house.data)}" for path in house.data.rglob("*")]
        purge_all(house, key)
        remains = contents(house.data)
        house.stop()
        said = {"service.log": house.log.read_bytes(), "worker.log": (house.data / "logs" / "worker.log").read_bytes()}
    said |= {"metrics": metrics, "audit log": audit, "answers": b"\n".join(sender.answers)}
    return Haunted(
        said,
        names,
        {name: content for name, content in store.items() if not name.startswith("jobs/")},
        [dcmread(file).SOPInstanceUID for file in (*files, known, elsewhere)],
        [dcmread(files[0])[keyword].value for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")],
        remains,
    )


def contents(data: Path) -> dict[str, bytes]:
    """Every file below a folder by its name; what others delete meanwhile may be missing."""
    found = {}
    for path in data.rglob("*"):
        with suppress(FileNotFoundError, IsADirectoryError):
            found[f"{path.relative_to(data)}"] = path.read_bytes()
    return found


def purge_all(house: Installed, key: str) -> None:
    """Purge every job; one of them while a worker is at it."""
    with httpx.Client(base_url=house.url, timeout=300, headers={"Authorization": f"Bearer {key}"}) as client:
        answer = client.post("/v1/jobs", files=parts(sorted((house.data.parent / "Canary").iterdir())))
        house.wait(answer.json()["id"], JobState.RUNNING)
        worker_log = house.data / "logs" / "worker.log"
        done = worker_log.read_bytes().count(TASK_IS_OVER)
        jobs = client.get("/v1/jobs").json()["jobs"]
        assert len(jobs) == 3
        assert [client.delete(f"/v1/jobs/{job['id']}").status_code for job in jobs] == [204] * 3
    assert eventually(lambda: worker_log.read_bytes().count(TASK_IS_OVER) > done, within_s=PATIENCE_S), worker_log.read_text()


def found_in(content: bytes, strings: Sequence[str]) -> list[str]:
    lowered = content.lower()
    escaped = [string for string in strings if string.encode("unicode_escape") in lowered]
    return [string for string in strings if string.encode() in lowered] + escaped


def test_the_haunted_house_was_written_into(haunted: Haunted) -> None:
    """What is searched is there: events of every path in the logs, entries in the audit log, rows in the database."""
    assert all(event in haunted.said["worker.log"] for event in (b"job started", b"job failed", b"job succeeded"))
    assert b'"code": "series.missing_slices"' in haunted.said["service.log"]
    assert b"job taken back from a silent worker" in haunted.said["service.log"]
    assert b"result.read" in haunted.said["audit log"]
    assert b"oarlock_refusals_total" in haunted.said["metrics"]
    assert any(uid.encode() in content for content in haunted.store.values() for uid in haunted.job_uids)
    assert {"oarlock.sqlite", "logs/worker.log"} <= haunted.store.keys()


@pytest.mark.parametrize("where", ["service.log", "worker.log", "metrics", "audit log", "answers"])
def test_no_canary_is_heard_in(where: str, haunted: Haunted) -> None:
    assert found_in(haunted.said[where], canaries.STRINGS) == []
    assert found_in(haunted.said[where], haunted.uids) == []


@pytest.mark.parametrize("where", ["service.log", "worker.log", "metrics", "audit log"])
def test_not_even_the_uids_that_a_job_shows_are_told_by(where: str, haunted: Haunted) -> None:
    assert found_in(haunted.said[where], haunted.job_uids) == []


def test_no_file_is_named_after_a_canary(haunted: Haunted) -> None:
    assert found_in("\n".join(haunted.names).encode(), (*canaries.STRINGS, *haunted.uids, *haunted.job_uids)) == []


def test_nothing_beside_the_folders_of_the_jobs_holds_a_canary(haunted: Haunted) -> None:
    """The database with its write-ahead log, the queue's files, the logs."""
    found = {name: found_in(content, (*canaries.STRINGS, *haunted.uids)) for name, content in haunted.store.items()}
    assert {name: strings for name, strings in found.items() if strings} == {}


def test_after_a_purge_no_byte_of_a_series_is_on_the_disk_or_in_the_database(haunted: Haunted) -> None:
    """Searched while the service still runs, with its database open: the write-ahead log and freed pages hold nothing either."""
    assert any(name.startswith("oarlock.sqlite") for name in haunted.remains)
    assert [name for name in haunted.remains if name.startswith(("jobs/", "incoming/", "trash/"))] == []
    strings = (*canaries.STRINGS, *haunted.uids, *haunted.job_uids)
    found = {name: found_in(content, strings) for name, content in haunted.remains.items()}
    assert {name: strings for name, strings in found.items() if strings} == {}

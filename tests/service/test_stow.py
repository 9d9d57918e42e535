"""Storing (STOW-RS): what is taken, what the sender is told, and how received instances become jobs."""

import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import httpx
import pydicom
import pytest
from cryptography.fernet import Fernet
from dicomweb_client.api import DICOMwebClient

from oarlock.ct.writer import write_ct_series
from oarlock.store import received
from oarlock.store.jobs import JobId
from oarlock.store.received import Received, Sender
from service.dicomweb import collector
from service.dicomweb import store as stow
from service.dicomweb.collector import Collector
from service.dicomweb.store import look_at, look_at_all, take
from tests.fixtures import canaries, costly
from tests.fixtures.crooked import crooked_grid, crooked_hu
from tests.service.conftest import make_settings
from tests.service.running import Running, serve, write_model

pytestmark = pytest.mark.slow

FAR = 1e6
"""A quiet time after which nothing becomes a job by itself in a test."""

ANYONE = Sender("anyone", "anyone", "127.0.0.1", None, None, None)


@pytest.fixture(scope="module")
def receiver(tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("receiver")
    write_model(folder / "models")
    with serve(make_settings(folder, redis_url, stow_quiet_s=FAR, lease_s=3600)) as running:
        yield running


@pytest.fixture
def files(tmp_path: Path, request: pytest.FixtureRequest) -> list[Path]:
    """The files of a series of this test's own, slice by slice."""
    return write_ct_series(tmp_path / "ct", crooked_hu(), crooked_grid(), seed=request.node.name)


def body(contents: list[bytes], boundary: str = "b") -> bytes:
    head = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
    return b"".join(head + content + b"\r\n" for content in contents) + f"--{boundary}--\r\n".encode()


def store(running: Running, files: list[Path | bytes], path: str = "studies", **options: Any) -> httpx.Response:
    contents = [file.read_bytes() if isinstance(file, Path) else file for file in files]
    headers = {"Content-Type": 'multipart/related; type="application/dicom"; boundary=b', **options.pop("headers", {})}
    return httpx.post(f"{running.url}/dicom-web/{path}", content=body(contents), headers=headers, timeout=60, **options)


def collect(running: Running, *, patience_s: float = 0.0) -> None:
    """What the service does by itself when so much quiet time has passed."""
    settings = running.service.settings
    object.__setattr__(settings, "stow_quiet_s", patience_s)
    try:
        Collector(running.service).collect()
    finally:
        object.__setattr__(settings, "stow_quiet_s", FAR)


def jobs_of(running: Running, files: list[Path]) -> list[dict[str, Any]]:
    uid = pydicom.dcmread(files[0], stop_before_pixels=True).SeriesInstanceUID
    found = httpx.get(f"{running.url}/v1/jobs", params={"series_instance_uid": uid}, timeout=60).raise_for_status().json()["jobs"]
    assert isinstance(found, list)
    return found


def waiting(running: Running, files: list[Path]) -> list[dict[str, Any]]:
    uid = pydicom.dcmread(files[0], stop_before_pixels=True).SeriesInstanceUID
    found = httpx.get(f"{running.url}/v1/received", timeout=60).raise_for_status().json()["received"]
    return [one for one in found if one["series_instance_uid"] == uid]


def values(document: dict[str, Any], tag: str) -> list[Any]:
    return list(document.get(tag, {}).get("Value", []))


# ── what the sender is told ───────────────────────────────────────────────────────────────────────────────────────────


def test_dicomweb_client_stores_a_series_in_chunks_and_a_job_comes_of_it(receiver: Running, files: list[Path]) -> None:
    answer = DICOMwebClient(f"{receiver.url}/dicom-web").store_instances([pydicom.dcmread(file) for file in files])
    assert len(answer.ReferencedSOPSequence) == len(files)
    assert "FailedSOPSequence" not in answer
    (entry,) = waiting(receiver, files)
    assert (entry["state"], entry["instances"], entry["error"]) == ("waiting", len(files), None)
    assert jobs_of(receiver, files) == []
    collect(receiver)
    (job,) = jobs_of(receiver, files)
    assert (job["state"], job["series"]["slices"]) == ("queued", len(files))
    assert waiting(receiver, files) == []
    kept = receiver.service.storage.input_files(JobId(job["id"]))
    assert len(kept) == len(files)


def test_each_instance_is_named_with_where_it_will_be_or_why_it_failed(receiver: Running, files: list[Path]) -> None:
    image = pydicom.dcmread(files[0])
    image.SOPClassUID = image.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.4"  # MR
    image.save_as(files[0])
    answer = store(receiver, [files[0], files[1], b"not DICOM"])
    assert answer.status_code == 202
    document = answer.json()
    (stored,) = values(document, "00081199")
    uids = pydicom.dcmread(files[1])
    path = f"studies/{uids.StudyInstanceUID}/series/{uids.SeriesInstanceUID}/instances/{uids.SOPInstanceUID}"
    assert values(stored, "00081190") == [f"{receiver.url}/dicom-web/{path}"]
    assert values(stored, "00081155") == [uids.SOPInstanceUID]
    failed = values(document, "00081198")
    assert [values(one, "00081197") for one in failed] == [[0x0122], [0xC000]]
    assert values(failed[0], "00081155") == [image.SOPInstanceUID]


def test_the_metrics_count_what_became_of_instances_and_which_series_are_not_a_job(receiver: Running, files: list[Path]) -> None:
    def counted() -> dict[str, float]:
        text = httpx.get(f"{receiver.url}/metrics", timeout=30).text
        lines = [line.rpartition(" ") for line in text.splitlines() if line.startswith(("oarlock_stored", "oarlock_received"))]
        return {name: float(value) for name, _, value in lines}

    before = counted()
    store(receiver, [files[0], files[1], b"not DICOM"])
    names = {
        'oarlock_stored_instances_total{outcome="taken"}': 2,
        'oarlock_stored_instances_total{outcome="not understood"}': 1,
        'oarlock_stored_instances_total{outcome="no room"}': 0,
        'oarlock_received_series{state="waiting"}': 1,
    }
    after = counted()
    assert {name: after[name] - before[name] for name in names} == names


@pytest.mark.parametrize(("study", "status"), [("own", 200), ("1.2.3", 409)])
def test_only_instances_of_the_study_in_the_address_are_taken(
    receiver: Running, files: list[Path], study: str, status: int
) -> None:
    uid = pydicom.dcmread(files[0]).StudyInstanceUID if study == "own" else study
    answer = store(receiver, [files[0]], f"studies/{uid}")
    assert answer.status_code == status
    assert [values(one, "00081197") for one in values(answer.json(), "00081198")] == ([] if status == 200 else [[0xA900]])


def test_the_answer_is_xml_where_xml_is_asked_for(receiver: Running, files: list[Path]) -> None:
    answer = store(receiver, [files[0]], headers={"Accept": "application/dicom+xml"})
    assert answer.headers["content-type"] == "application/dicom+xml"
    root = ET.fromstring(answer.content)
    space = "{http://dicom.nema.org/PS3.19/models/NativeDICOM}"
    path = f"{space}DicomAttribute[@tag='00081199']/{space}Item/{space}DicomAttribute[@keyword='ReferencedSOPInstanceUID']/"
    assert [value.text for value in root.findall(f"{path}{space}Value")] == [pydicom.dcmread(files[0]).SOPInstanceUID]


@pytest.mark.parametrize(
    ("content", "kind", "code"),
    [
        (b"--b\r\nContent-Type: application/dicom\r\n\r\nabcd", "multipart/related; boundary=b", "upload.malformed"),
        (body([b"x"]), 'multipart/related; type="application/dicom+json"; boundary=b', "upload.unsupported_media_type"),
        (body([b"x"]), "multipart/form-data; boundary=b", "upload.unsupported_media_type"),
        (body([]), "multipart/related; boundary=b", "upload.empty"),
    ],
)
def test_a_body_that_is_not_one_of_dicom_files_is_refused(receiver: Running, content: bytes, kind: str, code: str) -> None:
    answer = httpx.post(f"{receiver.url}/dicom-web/studies", content=content, headers={"Content-Type": kind})
    assert answer.json()["code"] == code


def test_a_body_of_unknown_length_with_a_quoted_boundary_is_read_as_it_comes(receiver: Running, files: list[Path]) -> None:
    content = body([files[0].read_bytes()], "a b")
    chunks = (content[at : at + 1_000] for at in range(0, len(content), 1_000))
    headers = {"Content-Type": 'multipart/related; boundary="a b"; type=application/dicom'}
    assert httpx.post(f"{receiver.url}/dicom-web/studies", content=chunks, headers=headers).status_code == 200


# ── from instances to jobs ────────────────────────────────────────────────────────────────────────────────────────────


def test_two_series_over_several_requests_are_two_jobs_also_after_a_restart(
    tmp_path: Path, redis_url: str, files: list[Path]
) -> None:
    others = write_ct_series(tmp_path / "others", crooked_hu(), crooked_grid(), seed="others")
    write_model(tmp_path / "models")
    settings = make_settings(tmp_path, redis_url, stow_quiet_s=FAR)
    with serve(settings) as running:
        assert store(running, [*files[:20], *others[:11]]).status_code == 200
    with serve(settings) as running:
        assert store(running, [*others[11:], *files[18:]]).status_code == 200  # two of them twice
        collect(running)
        for series in (files, others):
            (job,) = jobs_of(running, series)
            assert job["series"]["slices"] == len(series)


def test_a_series_that_is_not_whole_waits_longer_is_refused_with_the_reason_and_goes_on_when_more_comes(
    receiver: Running, files: list[Path]
) -> None:
    store(receiver, [*files[:10], *files[20:]])
    made = Collector(receiver.service)
    (found,) = [one for one in receiver.service.received.all() if one.about.series_instance_uid == uid_of(files)]
    made._make(found, last_try=False)
    assert [entry["state"] for entry in waiting(receiver, files)] == ["waiting"]
    collect(receiver)
    (entry,) = waiting(receiver, files)
    assert (entry["state"], entry["error"]["code"]) == ("refused", "series.missing_slices")
    assert "slice" in entry["error"]["detail"]
    collect(receiver)
    assert jobs_of(receiver, files) == []
    store(receiver, files[10:20])
    assert [entry["state"] for entry in waiting(receiver, files)] == ["waiting"]
    collect(receiver)
    assert [job["series"]["slices"] for job in jobs_of(receiver, files)] == [len(files)]


def uid_of(files: list[Path]) -> str:
    return str(pydicom.dcmread(files[0], stop_before_pixels=True).SeriesInstanceUID)


def test_the_same_series_again_makes_no_second_job_and_new_slices_make_one_of_the_whole_stack(
    receiver: Running, files: list[Path]
) -> None:
    store(receiver, files[:30])
    collect(receiver)
    (first,) = jobs_of(receiver, files)
    store(receiver, files[:30])
    collect(receiver)
    assert [job["id"] for job in jobs_of(receiver, files)] == [first["id"]]
    store(receiver, files[30:])
    collect(receiver)
    second, before = jobs_of(receiver, files)
    assert (before["id"], before["superseded_by"]) == (first["id"], second["id"])
    assert (second["series"]["slices"], second["state"]) == (len(files), "queued")
    assert before["state"] == "cancelled"  # it was still in the queue: one RTSTRUCT comes of the series


def test_an_instance_that_comes_again_with_other_bytes_takes_the_place_of_the_first(receiver: Running, files: list[Path]) -> None:
    store(receiver, files)
    collect(receiver)
    contents = [path.read_bytes() for path in files]
    for stored_twice in (1, 2):  # against the earlier job, and within the folder
        for again in range(stored_twice):
            image = pydicom.dcmread(files[3])
            image.SeriesDescription = f"corrected {stored_twice}.{again}"
            image.save_as(files[3])
            store(receiver, [files[3]])
        contents[3] = files[3].read_bytes()
        collect(receiver)
        newest = jobs_of(receiver, files)[0]
        kept = receiver.service.storage.input_files(JobId(newest["id"]))
        assert sorted(path.read_bytes() for path in kept) == sorted(contents)


def test_slices_that_come_before_what_became_a_job_is_cleared_away_are_a_job_of_the_whole_stack(
    receiver: Running, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    store(receiver, files[:30])
    with monkeypatch.context() as patched, suppress(SystemExit):
        patched.setattr(receiver.service.received, "settle", killed)
        collect(receiver)
    store(receiver, files[30:])
    collect(receiver)
    assert [job["series"]["slices"] for job in jobs_of(receiver, files)] == [len(files), 30]
    assert waiting(receiver, files) == []


def test_a_refusal_is_not_noted_of_a_folder_that_changed_meanwhile(receiver: Running, files: list[Path]) -> None:
    store(receiver, files[:2])
    (found,) = [one for one in receiver.service.received.all() if one.about.series_instance_uid == uid_of(files)]
    store(receiver, files[2:])
    Collector(receiver.service)._make(found, last_try=True)
    assert [entry["state"] for entry in waiting(receiver, files)] == ["waiting"]
    collect(receiver)
    assert [job["series"]["slices"] for job in jobs_of(receiver, files)] == [len(files)]


def killed(*_: object) -> None:
    raise SystemExit


def test_an_rtstruct_is_a_reference_of_the_series_that_it_is_drawn_on(
    receiver: Running, files: list[Path], tmp_path: Path
) -> None:
    reference = canaries.write_structure_set(tmp_path / "reference.dcm", files)
    assert store(receiver, [reference]).status_code == 200
    assert store(receiver, files).status_code == 200
    collect(receiver)
    (job,) = jobs_of(receiver, files)
    kept = receiver.service.storage.input_files(JobId(job["id"]))
    assert reference.read_bytes() in [path.read_bytes() for path in kept]
    assert len(kept) == len(files) + 1


def test_a_service_killed_before_it_has_cleared_away_makes_no_second_job(
    receiver: Running, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    store(receiver, files)

    monkeypatch.setattr(receiver.service.received, "settle", killed)
    with pytest.raises(SystemExit):
        collect(receiver)
    monkeypatch.undo()
    receiver.store.leases.claim(JobId(jobs_of(receiver, files)[0]["id"]), worker="w", lease_s=60)
    collect(receiver)
    assert len(jobs_of(receiver, files)) == 1
    assert waiting(receiver, files) == []


def test_what_comes_while_a_job_is_made_is_not_lost(receiver: Running, files: list[Path]) -> None:
    store(receiver, files[:30])
    (found,) = [one for one in receiver.service.received.all() if one.about.series_instance_uid == uid_of(files)]
    store(receiver, files[30:])
    receiver.service.received.settle(found)
    (entry,) = waiting(receiver, files)
    assert entry["instances"] == len(files) - 30


def test_with_a_key_for_it_stored_series_are_de_identified_and_rtstructs_are_not_taken(tmp_path: Path, redis_url: str) -> None:
    files = canaries.write_series(tmp_path / "canaries")
    reference = canaries.write_structure_set(tmp_path / "reference.dcm", files)
    write_model(tmp_path / "models")
    key = Fernet.generate_key().decode()
    with serve(make_settings(tmp_path, redis_url, stow_quiet_s=FAR, deidentify_key=key)) as sealed:
        answer = store(sealed, [*files, reference])
        assert answer.status_code == 202
        assert [values(one, "00081197") for one in values(answer.json(), "00081198")] == [[0x0122]]
        collect(sealed)
        (job,) = jobs_of(sealed, files)
        kept = sealed.service.storage.input_files(JobId(job["id"]))
        assert not any(b"Canary" in path.read_bytes() for path in kept)
        assert list((sealed.settings.data / "received").glob("*/*")) == []


def test_what_is_received_can_be_deleted_and_what_was_refused_goes_after_its_time(
    receiver: Running, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    store(receiver, files[:2])
    (entry,) = waiting(receiver, files)
    assert httpx.delete(f"{receiver.url}/v1/received/{entry['id']}").status_code == 204
    answer = httpx.delete(f"{receiver.url}/v1/received/{entry['id']}")
    assert (answer.status_code, answer.json()["code"]) == (404, "dicomweb.not_kept")
    store(receiver, files[:2])
    collect(receiver)
    assert waiting(receiver, files)[0]["error"]["code"] == "series.too_few_slices"
    monkeypatch.setattr(collector, "KEEP_REFUSED_S", 0.0)
    collect(receiver)
    assert waiting(receiver, files) == []


def test_a_folder_is_full_at_the_limit_of_a_post(tmp_path: Path, files: list[Path]) -> None:
    instances = [look_at(path, str(z) * 64, study_uid=None, structure_sets=True) for z, path in enumerate(files[:7])]
    told = take(instances, Received(tmp_path), ANYONE, most=5)
    assert [one.failure for one in told] == [0, 0, 0, 0, 0, 0xA700, 0xA700]
    same = [replace(one, path=path) for one, path in zip(instances[:5], files[7:12], strict=True)]
    again = take(same, Received(tmp_path), ANYONE, most=5)
    assert [one.failure for one in again] == [0] * 5  # the same bytes need no room


def test_files_behind_too_many_elements_are_refused_unseen(
    tmp_path: Path, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each list is cut short at 100,000 elements, and two of them are more than this request may hold."""
    monkeypatch.setattr(stow, "MAX_UPLOAD_ELEMENTS", 150_000)
    for number in (1, 2):
        (tmp_path / str(number)).write_bytes(costly.structure_set(1_000_000, uid=b"1.2.3.%d" % number))
    asked = [files[0], tmp_path / "1", files[1], tmp_path / "2", files[2]]
    told = look_at_all([(path, "0" * 64) for path in asked], study_uid=None, structure_sets=True)
    assert [one.failure for one in told] == [0, 0xC000, 0, 0xC000, 0xA700]


def test_what_a_full_folder_took_is_on_the_disk_when_the_sender_is_told(
    tmp_path: Path, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[set[str]] = []
    monkeypatch.setattr(received, "flush", lambda path: flushed.append({one.name for one in path.glob("*")}))
    count = Received(tmp_path).add(ANYONE, "1.2", "1.3", [(path, str(z) * 64) for z, path in enumerate(files[:7])], most=5)
    assert count == 5
    assert {str(z) * 64 for z in range(5)} <= flushed[-1]


def test_what_one_sender_stores_for_two_sites_is_two_folders(tmp_path: Path, files: list[Path]) -> None:
    kept = Received(tmp_path)
    for site, path in zip(("north", "south"), files, strict=False):
        kept.add(replace(ANYONE, site=site), "1.2", "1.3", [(path, "0" * 64)], most=5)
    assert [len(kept.all(site)) for site in ("north", "south")] == [1, 1]


def test_a_quiet_series_becomes_a_job_by_itself(tmp_path: Path, redis_url: str, files: list[Path]) -> None:
    write_model(tmp_path / "models")
    with serve(make_settings(tmp_path, redis_url, stow_quiet_s=0.05)) as running:
        store(running, files)
        deadline = time.monotonic() + 30
        while not jobs_of(running, files) and time.monotonic() < deadline:
            time.sleep(0.1)  # the service looks once a second
        assert [job["series"]["slices"] for job in jobs_of(running, files)] == [len(files)]

"""With a key for it, what is queued is without the patient, and what is fetched is his."""

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import httpx
import pydicom
import pytest
from cryptography.fernet import Fernet
from sqlalchemy import select

from oarlock.store.files import RTSTRUCT
from oarlock.store.job_store import JobStore, NewJob
from oarlock.store.jobs import JobId, JobState
from oarlock.store.schema import JOBS
from service.embedded.supervisor import start_worker
from tests.fixtures import canaries
from tests.service.conftest import make_settings
from tests.service.running import Running, parts, serve
from tests.worker.conftest import House
from tests.worker.tiny_model import write_tiny_model
from worker.jobs import contour

pytestmark = pytest.mark.slow

KEY = Fernet.generate_key().decode()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return canaries.write_series(tmp_path_factory.mktemp("canaries"))


@pytest.fixture
def closed(tmp_path: Path, redis_url: str) -> Iterator[Running]:
    write_tiny_model(tmp_path / "models" / "tiny")
    with serve(make_settings(tmp_path, redis_url, model="tiny", deidentify_key=KEY)) as running:
        yield running


def post(running: Running, files: list[Path]) -> httpx.Response:
    return httpx.post(f"{running.url}/v1/jobs", files=parts(files), timeout=60)


def uids_of(files: list[Path]) -> list[str]:
    first = pydicom.dcmread(files[0])
    series = [first.StudyInstanceUID, first.SeriesInstanceUID, first.FrameOfReferenceUID]
    return [*series, *(pydicom.dcmread(file).SOPInstanceUID for file in files)]


def test_a_label_is_refused_since_it_may_name_the_patient(closed: Running, files: list[Path]) -> None:
    answer = httpx.post(f"{closed.url}/v1/jobs", files=parts(files), data={"label": "anything"}, timeout=60)
    assert (answer.status_code, answer.json()["code"]) == (422, "request.invalid_parameter")


def test_a_worker_sees_nothing_of_the_patient_and_the_result_is_that_of_the_true_series(
    closed: Running, files: list[Path], tmp_path: Path
) -> None:
    answer = post(closed, files)
    assert answer.status_code == 202, answer.text
    job_id, uids = JobId(answer.json()["id"]), uids_of(files)
    assert [
        answer.json()["series"][name] for name in ("study_instance_uid", "series_instance_uid", "frame_of_reference_uid")
    ] == uids[:3]

    before = folder_of(closed, job_id)
    assert found_in(before, uids) == []
    with closed.service.database.reading() as connection:
        row = connection.execute(select(JOBS).where(JOBS.c.id == job_id)).one()
    assert found_in(repr(tuple(row)).encode(), uids) == []

    house = House(closed.settings.data, write_tiny_model(tmp_path / "models" / "tiny"))
    house.store = JobStore(closed.service.database)
    contour(job_id, store=house.store, storage=house.storage, models=house.model, worker="w", lease_s=60)
    house.database.close()
    assert closed.store.get(job_id).state is JobState.SUCCEEDED
    assert found_in(folder_of(closed, job_id), uids) == []

    delivered = httpx.get(f"{closed.url}/v1/jobs/{job_id}/rtstruct", timeout=60).content
    assert delivered == undisturbed(closed, job_id, files, tmp_path)
    segmentation = pydicom.dcmread(BytesIO(httpx.get(f"{closed.url}/v1/jobs/{job_id}/seg", timeout=60).content))
    image = pydicom.dcmread(files[0])
    for keyword in ("PatientName", "PatientID", "StudyInstanceUID", "FrameOfReferenceUID"):
        assert segmentation[keyword].value == image[keyword].value, keyword
    (referenced,) = segmentation.ReferencedSeriesSequence
    assert referenced.SeriesInstanceUID == uids[1]
    assert {one.ReferencedSOPInstanceUID for one in referenced.ReferencedInstanceSequence} == set(uids[3:])
    report = httpx.get(f"{closed.url}/v1/jobs/{job_id}/qa", timeout=60)
    assert report.json()["series_instance_uid"] == uids[1]
    (listed,) = httpx.get(f"{closed.url}/v1/jobs", params={"series_instance_uid": uids[1]}).json()["jobs"]
    assert listed["id"] == job_id
    assert httpx.delete(f"{closed.url}/v1/jobs/{job_id}").status_code == 204
    assert httpx.get(f"{closed.url}/v1/jobs/{job_id}").status_code == 410


def folder_of(running: Running, job_id: JobId) -> bytes:
    """Every byte of a job's folder, and the names in it."""
    paths = sorted((running.settings.data / "jobs" / job_id).rglob("*"))
    assert len(paths) >= 37
    return b"".join(str(path).encode() + (path.read_bytes() if path.is_file() else b"") for path in paths)


def found_in(content: bytes, uids: list[str]) -> list[str]:
    return [string for string in (*canaries.STRINGS, *uids) if string.encode() in content.lower()]


def undisturbed(running: Running, job_id: JobId, files: list[Path], tmp_path: Path) -> bytes:
    """The RTSTRUCT of the same job, done on the true series."""
    calm = House(tmp_path / "calm", write_tiny_model(tmp_path / "models" / "tiny"))
    job = running.store.get(job_id)
    calm.clock.now = job.created_at
    calm.store.create(NewJob(id=job_id, series=job.series, model=job.model, profile=job.profile, content_sha256="0" * 64))
    with calm.storage.incoming() as incoming:
        for path in files:
            incoming.next_file().write_bytes(path.read_bytes())
        calm.storage.adopt(incoming, job_id)
    contour(job_id, store=calm.store, storage=calm.storage, models=calm.model, worker="calm", lease_s=60)
    calm.database.close()
    return calm.storage.result(job_id, RTSTRUCT).read_bytes()


def test_a_series_with_an_rtstruct_is_refused_and_the_sender_is_told_where_to_compare(
    closed: Running, files: list[Path], tmp_path: Path
) -> None:
    answer = post(closed, [*files, canaries.write_structure_set(tmp_path / "rtstruct.dcm", files)])
    assert (answer.status_code, answer.json()["code"]) == (422, "series.not_deidentifiable")
    assert "/v1/comparisons" in answer.json()["detail"]


def test_without_the_key_a_patient_stays_locked_away(tmp_path: Path, redis_url: str, files: list[Path]) -> None:
    write_tiny_model(tmp_path / "models" / "tiny")
    with serve(make_settings(tmp_path, redis_url, model="tiny", deidentify_key=KEY)) as running:
        job_id = post(running, files).json()["id"]
    for key in (None, Fernet.generate_key().decode()):
        with serve(make_settings(tmp_path, redis_url, model="tiny", deidentify_key=key)) as running:
            answer = httpx.get(f"{running.url}/v1/jobs/{job_id}")
            assert (answer.status_code, answer.json()["code"]) == (500, "identity.locked")
            assert found_in(answer.content, uids_of(files)) == []


def test_the_worker_that_the_service_starts_is_not_given_the_key(
    tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor a half of what belongs together: its settings would refuse hosts without secrets."""
    given: dict[str, str] = {}
    settings = make_settings(tmp_path, redis_url)
    monkeypatch.setenv("OARLOCK_DEIDENTIFY_KEY", KEY)
    hidden = ["OARLOCK_CALLBACK_SECRETS", "OARLOCK_CALLBACK_HOSTS", "OARLOCK_DEIDENTIFY_KEY_FILE", "REDIS_URL_FILE"]
    for name in (*hidden, "OARLOCK_OIDC_ISSUER"):
        monkeypatch.setenv(name, "set")
    monkeypatch.setattr("service.embedded.supervisor.subprocess.Popen", lambda *_, env, **__: given.update(env))
    start_worker(settings)
    assert "REDIS_URL" in given
    assert KEY not in given.values()
    assert not set(hidden).intersection(given)

"""Searching and retrieving (QIDO-RS, WADO-RS) what finished jobs keep, by dicomweb-client and by plain requests."""

import json
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pydicom
import pytest
from cryptography.fernet import Fernet
from dicomweb_client.api import DICOMwebClient
from pydicom.pixels import compress
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGLSLossless

from oarlock.store import audit
from oarlock.store.jobs import JobId
from service.dicomweb.kept import Archive, Kept
from service.dicomweb.retrieve import in_syntax
from service.errors import NotAcceptable
from tests.fixtures import canaries, costly
from tests.service.conftest import make_settings
from tests.service.running import Running, parts, serve
from tests.worker.conftest import House
from tests.worker.tiny_model import write_tiny_model
from worker.jobs import contour

pytestmark = pytest.mark.slow


@dataclass
class Contoured:
    """A service with one finished job, and the files that were posted."""

    running: Running
    job: dict[str, Any]
    files: list[Path]

    @property
    def url(self) -> str:
        return f"{self.running.url}/dicom-web"

    @property
    def client(self) -> DICOMwebClient:
        return DICOMwebClient(self.url)

    @property
    def study(self) -> str:
        return str(self.job["series"]["study_instance_uid"])

    @property
    def series(self) -> str:
        return str(self.job["series"]["series_instance_uid"])

    def get(self, path: str, accept: str = "*/*") -> httpx.Response:
        return httpx.get(f"{self.url}/{path}", headers={"Accept": accept}, timeout=60)

    def result(self, name: str) -> bytes:
        return httpx.get(f"{self.running.url}{self.job['links'][name]}", timeout=60).raise_for_status().content


def contoured(folder: Path, redis_url: str, files: list[Path], **settings: Any) -> Iterator[Contoured]:
    """Post files and do the job with a model that is a plain function."""
    manifest = write_tiny_model(folder / "models" / "tiny")
    kept = {"keep_input": None, "keep_results": None}  # the worker's clock stands long ago
    with serve(make_settings(folder, redis_url, model="tiny", **kept, **settings)) as running:
        job = httpx.post(f"{running.url}/v1/jobs", files=parts(files), timeout=60).raise_for_status().json()
        house = House(running.settings.data, manifest)
        contour(JobId(job["id"]), store=house.store, storage=house.storage, models=house.model, worker="w", lease_s=60)
        house.database.close()
        yield Contoured(running, job, files)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A series in which the first slice is compressed and the second one in Implicit VR."""
    written = canaries.write_series(tmp_path_factory.mktemp("canaries"), OtherPatientIDs=None)
    first, second = (pydicom.dcmread(path) for path in written[:2])
    compress(first, JPEGLSLossless, generate_instance_uid=False)
    first.save_as(written[0])
    second.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    second.save_as(written[1])
    return written


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory, redis_url: str, files: list[Path]) -> Iterator[Contoured]:
    yield from contoured(tmp_path_factory.mktemp("kept"), redis_url, files)


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory, redis_url: str, files: list[Path]) -> Iterator[Contoured]:
    """The same, with the series de-identified."""
    key = Fernet.generate_key().decode()
    yield from contoured(tmp_path_factory.mktemp("sealed"), redis_url, files, deidentify_key=key)


@pytest.fixture(params=["kept", "sealed"])
def either(request: pytest.FixtureRequest) -> Contoured:
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Contoured)
    return found


def values(entry: dict[str, Any], keyword: str) -> list[Any]:
    return list(entry.get(f"{pydicom.datadict.tag_for_keyword(keyword):08X}", {}).get("Value", []))


# ── searching ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_study_is_found_by_its_patient_whether_or_not_it_was_de_identified(either: Contoured) -> None:
    (study,) = either.client.search_for_studies(search_filters={"PatientID": "CANARY-ID-4711*"})
    assert values(study, "StudyInstanceUID") == [either.study]
    assert values(study, "PatientName") == [{"Alphabetic": "Canary^Yellow", "Ideographic": "黄^金丝雀"}]
    assert values(study, "ModalitiesInStudy") == ["CT", "DOC", "RTSTRUCT", "SEG"]
    assert values(study, "NumberOfStudyRelatedInstances") == [len(either.files) + 3]
    (study,) = either.get("studies").json()  # dicomweb-client sends a Host without its port
    assert values(study, "RetrieveURL") == [f"{either.url}/studies/{either.study}"]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("PatientName=canary*", 1),  # names match in either case
        ("00100010=Someone*", 0),
        ("StudyDate=20190701-20190731", 1),
        ("StudyDate=20190705-", 0),
        ("StudyDate=-20190704", 1),
        ("AccessionNumber=CANARY-S?", 1),
        ("AccessionNumber=CANARY", 0),
        ("StudyInstanceUID=1.2.3", 0),
        ("ModalitiesInStudy=SEG", 1),
        ("ModalitiesInStudy=MR", 0),
        ("PatientSex=*", 1),
        ("limit=0", 0),
        ("offset=1", 0),
        ("fuzzymatching=true", 1),
    ],
)
def test_keys_match_as_the_standard_says(kept: Contoured, query: str, found: int) -> None:
    answer = kept.get(f"studies?{query}")
    assert (answer.status_code, len(answer.json())) == (200, found)
    assert answer.headers["content-type"] == "application/dicom+json"


def test_the_series_and_instances_of_a_study_are_listed_with_their_counts(either: Contoured) -> None:
    series = {values(entry, "Modality")[0]: entry for entry in either.client.search_for_series(either.study)}
    assert sorted(series) == ["CT", "DOC", "RTSTRUCT", "SEG"]
    assert values(series["CT"], "SeriesInstanceUID") == [either.series]
    assert values(series["CT"], "NumberOfSeriesRelatedInstances") == [len(either.files)]
    instances = either.client.search_for_instances(either.study, either.series)
    expected = {pydicom.dcmread(file).SOPInstanceUID for file in either.files}
    assert {values(entry, "SOPInstanceUID")[0] for entry in instances} == expected
    assert {(*values(entry, "Rows"), *values(entry, "Columns")) for entry in instances} == {(61, 53)}
    (one,) = either.client.search_for_instances(search_filters={"SOPInstanceUID": min(expected)})
    assert values(one, "PatientID") == [canaries.OVERRIDES["PatientID"]]


def test_further_fields_are_answered_where_they_are_asked_for(kept: Contoured) -> None:
    assert not values(kept.get("series?Modality=CT").json()[0], "ProtocolName")
    for field in ("ProtocolName", "00181030", "all"):
        (entry,) = kept.get(f"series?Modality=CT&includefield={field}").json()
        assert values(entry, "ProtocolName") == ["Canary protocol"]


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("Patient=x", "request.unknown_parameter"),
        ("SeriesInstanceUID=1.2", "request.unknown_parameter"),  # not a key of studies
        ("limit=-1", "request.invalid_parameter"),
        (f"StudyTime={'0' * 513}", "request.invalid_parameter"),
        ("includefield=Nonsense", "request.invalid_parameter"),
    ],
)
def test_what_cannot_be_asked_is_refused(kept: Contoured, query: str, code: str) -> None:
    answer = kept.get(f"studies?{query}")
    assert (answer.status_code, answer.json()["code"]) == (422, code)


# ── retrieving ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_series_is_retrieved_as_it_was_sent(kept: Contoured) -> None:
    found = {one.SOPInstanceUID: one for one in kept.client.retrieve_series(kept.study, kept.series)}
    assert len(found) == len(kept.files)
    for file in kept.files:
        sent = pydicom.dcmread(file)
        assert found[sent.SOPInstanceUID] == sent
    one = pydicom.dcmread(kept.files[0]).SOPInstanceUID
    answer = kept.get(f"studies/{kept.study}/series/{kept.series}/instances/{one}", "application/dicom")
    assert answer.content == kept.files[0].read_bytes()
    assert answer.headers["content-type"] == f"application/dicom; transfer-syntax={JPEGLSLossless}"


def test_a_de_identified_series_has_its_patient_uids_and_pixels_again(sealed: Contoured) -> None:
    found = {one.SOPInstanceUID: one for one in sealed.client.retrieve_series(sealed.study, sealed.series)}
    for file in sealed.files:
        sent = pydicom.dcmread(file)
        got = found[sent.SOPInstanceUID]
        assert got.file_meta.MediaStorageSOPInstanceUID == sent.SOPInstanceUID
        for keyword in ("PatientName", "PatientID", "StudyDate", "StudyInstanceUID", "FrameOfReferenceUID"):
            assert got[keyword].value == sent[keyword].value, keyword
        hu = sent.pixel_array * int(sent.RescaleSlope) + int(sent.RescaleIntercept)
        np.testing.assert_array_equal(got.pixel_array, hu)


@pytest.mark.parametrize("position", [0, 1, 2])
def test_a_file_is_given_in_explicit_vr_little_endian_where_that_is_asked_for(kept: Contoured, position: int) -> None:
    sent = pydicom.dcmread(kept.files[position])
    (got,) = [
        kept.client.retrieve_instance(
            kept.study, kept.series, sent.SOPInstanceUID, media_types=(("application/dicom", ExplicitVRLittleEndian),)
        )
    ]
    assert got.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    np.testing.assert_array_equal(got.pixel_array, sent.pixel_array)
    assert got.PatientName == sent.PatientName


def test_the_rtstruct_and_the_segmentation_are_those_of_the_job(either: Contoured) -> None:
    for modality, name in (("RTSTRUCT", "rtstruct"), ("SEG", "seg")):
        (entry,) = either.client.search_for_instances(either.study, search_filters={"Modality": modality})
        uids = [values(entry, keyword)[0] for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")]
        path = "studies/{}/series/{}/instances/{}".format(*uids)
        assert either.get(path, "application/dicom").content == either.result(name)
        got = either.client.retrieve_instance(*uids)
        assert (got.SOPInstanceUID, got.SOPClassUID) == (uids[2], values(entry, "SOPClassUID")[0])


def test_metadata_hold_everything_but_the_pixels_which_they_name(either: Contoured) -> None:
    found = {values(one, "SOPInstanceUID")[0]: one for one in either.client.retrieve_series_metadata(either.study, either.series)}
    sent = pydicom.dcmread(either.files[2])
    metadata = found[sent.SOPInstanceUID]
    assert values(metadata, "ImagePositionPatient") == pytest.approx([float(mm) for mm in sent.ImagePositionPatient])
    assert values(metadata, "PatientID") == [sent.PatientID]
    path = metadata["7FE00010"]["BulkDataURI"].partition("/dicom-web/")[2]
    pixels = either.get(path, "application/octet-stream").content
    expected = sent.pixel_array * (1 if either.running.settings.deidentify_key is None else int(sent.RescaleSlope))
    expected = expected + (0 if either.running.settings.deidentify_key is None else int(sent.RescaleIntercept))
    np.testing.assert_array_equal(np.frombuffer(pixels, "<i2").reshape(61, 53), expected)


def test_frames_come_compressed_or_as_pixels_as_the_caller_takes_them(kept: Contoured) -> None:
    sent = pydicom.dcmread(kept.files[0])
    path = f"studies/{kept.study}/series/{kept.series}/instances/{sent.SOPInstanceUID}/frames/1"
    octets = (("application/octet-stream", ExplicitVRLittleEndian),)
    (frame,) = kept.client.retrieve_instance_frames(kept.study, kept.series, sent.SOPInstanceUID, [1], media_types=octets)
    np.testing.assert_array_equal(np.frombuffer(frame, "<i2").reshape(61, 53), sent.pixel_array)
    answer = kept.get(path, 'multipart/related; type="application/octet-stream"; transfer-syntax=*')
    assert f"Content-Type: image/jls; transfer-syntax={JPEGLSLossless}".encode() in answer.content
    assert kept.get(path, 'multipart/related; type="image/png"').json()["code"] == "request.not_acceptable"
    for wrong, status in (("2", 404), ("0", 404), ("1,x", 422), ("1,1", 422)):
        assert kept.get(f"{path[:-1]}{wrong}").status_code == status


def test_the_frames_of_the_segmentation_are_its_masks_slice_by_slice_and_in_the_order_that_is_asked_for(kept: Contoured) -> None:
    segmentation = pydicom.dcmread(BytesIO(kept.result("seg")))
    count = int(segmentation.NumberOfFrames)
    assert count > 2
    uids = segmentation.StudyInstanceUID, segmentation.SeriesInstanceUID, segmentation.SOPInstanceUID
    for numbers in (list(range(1, count + 1)), [count, 1]):
        frames = kept.client.retrieve_instance_frames(*uids, numbers)
        bits = [np.unpackbits(np.frombuffer(one, np.uint8), count=61 * 53, bitorder="little").reshape(61, 53) for one in frames]
        np.testing.assert_array_equal(bits, segmentation.pixel_array[[number - 1 for number in numbers]])
    path = "studies/{}/series/{}/instances/{}".format(*uids)
    assert kept.get(f"{path}/frames/{count + 1}").status_code == 404


def test_a_job_without_an_roi_has_no_segmentation(kept: Contoured) -> None:
    drawn = pydicom.dcmread(BytesIO(kept.result("rtstruct")))
    for keyword in ("StructureSetROISequence", "ROIContourSequence", "RTROIObservationsSequence"):
        setattr(drawn, keyword, [])
    drawn.save_as(nothing := BytesIO())
    with httpx.Client(base_url=kept.running.url, timeout=60) as client:
        job = client.post("/v1/jobs", files=parts(kept.files[:20])).raise_for_status().json()
        kept.running.finish(job, {"rtstruct.dcm": nothing.getvalue()})
        found = [values(one, "Modality")[0] for one in kept.client.search_for_series(kept.study)]
        client.delete(f"/v1/jobs/{job['id']}").raise_for_status()
    assert sorted(found) == ["CT", "DOC", "RTSTRUCT", "RTSTRUCT", "SEG"]


def test_the_report_is_found_and_retrieved_as_the_job_gives_it(kept: Contoured) -> None:
    (entry,) = kept.client.search_for_instances(kept.study, search_filters={"Modality": "DOC"})
    uids = [values(entry, keyword)[0] for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")]
    path = "studies/{}/series/{}/instances/{}".format(*uids)
    got = pydicom.dcmread(BytesIO(kept.get(path, "application/dicom").content))
    theirs = pydicom.dcmread(BytesIO(httpx.get(f"{kept.running.url}{kept.job['links']['self']}/report.dcm", timeout=60).content))
    assert [got.StudyInstanceUID, got.SeriesInstanceUID, got.SOPInstanceUID] == uids
    assert got.SOPInstanceUID == theirs.SOPInstanceUID
    (metadata,) = kept.get(f"{path}/metadata").json()
    pdf = kept.get(metadata["00420011"]["BulkDataURI"].partition("/dicom-web/")[2], "application/octet-stream").content
    assert (pdf, pdf[:5]) == (got.EncapsulatedDocument, b"%PDF-")
    assert got == theirs


def test_nothing_is_under_other_uids_and_only_what_can_be_given_is_promised(kept: Contoured) -> None:
    for path in ("studies/1.2.3", f"studies/{kept.study}/series/1.2", f"studies/{kept.study}/series/{kept.series}/instances/1.2"):
        answer = kept.get(path)
        assert (answer.status_code, answer.json()["code"]) == (404, "dicomweb.not_kept")
    for path in ("studies", f"studies/{kept.study}/metadata", f"studies/{kept.study}"):
        answer = kept.get(path, "text/html")
        assert (answer.status_code, answer.json()["code"]) == (406, "request.not_acceptable")


def test_the_audit_log_says_who_was_given_what_and_one_entry_stands_for_all_slices(kept: Contoured) -> None:
    def entries() -> list[str | None]:
        return [entry.result for entry in audit.read_entries(kept.running.service.database)]

    before = len(entries())
    for file in kept.files[2:5]:
        uid = pydicom.dcmread(file).SOPInstanceUID
        kept.get(f"studies/{kept.study}/series/{kept.series}/instances/{uid}/frames/1").raise_for_status()
    assert [entry for entry in entries()[before:] if entry != "dicomweb frames CT"] == []
    assert entries().count("dicomweb frames CT") == 1
    kept.get(f"studies/{kept.study}").raise_for_status()
    assert f"dicomweb series CT, {len(kept.files)} instance(s)" in entries()


def test_no_answer_is_kept_by_caches_and_json_is_valid(kept: Contoured) -> None:
    answer = kept.get(f"studies/{kept.study}/metadata", "application/dicom+json")
    assert answer.headers["cache-control"] == "no-store"
    assert len(json.loads(answer.content)) == len(kept.files) + 3


# ── images that cost ──────────────────────────────────────────────────────────────────────────────────────────────────


def with_items(content: bytes, count: int) -> bytes:
    """A CT file with so many empty items in a private sequence behind group 0008."""
    at = content.index(b"\x10\x00\x10\x00PN")
    creator = costly.element(0x00090010, b"LO", b"ACME")
    return content[:at] + creator + costly.sequence(0x00091010, costly.item(b"") * count) + content[at:]


def deflated(content: bytes, zeros: int) -> bytes:
    start = content.index(b"\x08\x00")
    return costly.part_10(b"1.2.840.10008.5.1.4.1.1.2", content[start:] + bytes(zeros), deflated=True)


@pytest.mark.parametrize(
    ("change", "is_costly"),
    [
        (lambda content: content, False),
        (lambda content: with_items(content, 19_000), False),
        (lambda content: with_items(content, 21_000), True),
        (lambda content: content + bytes(2**21 + 2), True),
        (lambda content: deflated(content, 0), False),
        (lambda content: deflated(content, 20_000_000), True),
    ],
    ids=["plain", "19,000 items", "21,000 items", "2 MiB behind the pixels", "deflated", "20 MB of zeros deflated"],
)
def test_an_image_that_would_become_gigabytes_is_not_read_in_full(change: Any, is_costly: bool, tmp_path: Path) -> None:
    """What it is is told all the same, and the file is given as it was sent."""
    (path,) = canaries.write_series(tmp_path / "ct")[2:3]
    path.write_bytes(change(path.read_bytes()))
    archive = Archive(SimpleNamespace(vault=SimpleNamespace(image=lambda job, content: content)), None, "")  # type: ignore[arg-type]
    image = Kept(SimpleNamespace(identity=None), "1.2.840.10008.5.1.4.1.1.2", "", path)  # type: ignore[arg-type]
    uid = pydicom.dcmread(path, specific_tags=["SOPInstanceUID"]).SOPInstanceUID if not is_costly else None
    for told in (archive.dataset(image), archive.description(image)):
        assert (len(told) < 12) is is_costly
        assert told.Modality == "CT"
        assert uid in (None, told.SOPInstanceUID)
    content = archive.content(image)
    assert in_syntax(content, "", as_it_is=is_costly)[0] == path.read_bytes()
    with pytest.raises(NotAcceptable) if is_costly and path.read_bytes()[:400].count(b"1.2.1.99") else nullcontext():
        in_syntax(content, ExplicitVRLittleEndian, as_it_is=is_costly)

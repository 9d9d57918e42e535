"""The gateway against programs that no one here wrote: dcmtk and Orthanc, in a network of their own."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import pydicom
import pytest
from pydicom.uid import CTImageStorage, generate_uid

from gateway.check import check
from gateway.configuration import Configuration, Peer
from gateway.dimse.peers import asked, associated
from gateway.dimse.retrieving import Wanted, fetch
from gateway.errors import PeerFailed
from gateway.running import Gateway
from gateway.settings import GatewaySettings
from oarlock.rtstruct.writer import write_rtstruct
from oarlock.store.jobs import JobId
from service.embedded.redis_server import PrivateRedis
from tests.fixtures.certificates import Authority
from tests.fixtures.organs import AUTHORSHIP, Series, write_series
from tests.fixtures.private_network import private_network
from tests.fixtures.processes import eventually, free_port, listens
from tests.service.conftest import make_settings
from tests.service.running import Running, serve, write_model

pytestmark = [
    pytest.mark.slow,
    # pynetdicom leaves the socket of a refused connection to the garbage collector.
    pytest.mark.filterwarnings("ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning"),
]

PATIENCE_S = 120.0
"""Only a test that fails waits so long."""

DCMTK = ("storescu", "storescp", "echoscu", "findscu", "movescu", "dcmcjpls")


def found(program: str) -> str | None:
    """A program of dcmtk; pynetdicom has some of the same names, which an activated environment puts first."""
    folders = [folder for folder in os.environ["PATH"].split(os.pathsep) if Path(folder) != Path(sys.executable).parent]
    return shutil.which(program, path=os.pathsep.join(folders))


@pytest.fixture(scope="module")
def alone() -> Iterator[None]:
    if not all(found(program) for program in DCMTK):
        pytest.skip("dcmtk is not installed (apt-get install dcmtk)")
    with private_network():
        yield


@pytest.fixture(scope="module")
def service(alone: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("service")
    write_model(folder / "models")
    with (
        PrivateRedis(tmp_path_factory.mktemp("redis")).running() as redis_url,
        serve(make_settings(folder, redis_url, lease_s=3600)) as running,
    ):
        yield running


def settings_of(folder: Path, service: Running, **changes: Any) -> GatewaySettings:
    values: dict[str, Any] = {"data": folder / "gateway", "port": 0, "tls_port": 0, "service": service.url, "metrics_port": None}
    values |= {"settled_s": 0.2, "quiet_s": 60.0, "min_free_bytes": 0}
    return GatewaySettings(**values | changes)


@contextmanager
def gateway_on(folder: Path, service: Running, configuration: Configuration | None = None, **changes: Any) -> Iterator[Gateway]:
    gateway = Gateway(settings_of(folder, service, **changes), configuration or Configuration())
    try:
        with gateway.running():
            yield gateway
    finally:
        gateway.close()


def dcmtk(program: str, gateway: Gateway | int, *options: str | Path, called: str = "OARLOCK") -> int:
    """Exit status of a program of dcmtk that calls the gateway."""
    port = gateway if isinstance(gateway, int) else gateway.receiver.ports[0]
    files = [option for option in options if isinstance(option, Path)]
    rest = [option for option in options if not isinstance(option, Path)]
    command = [str(found(program)), "-aec", called, *rest, "127.0.0.1", str(port), *files]
    return subprocess.run(command, check=False, capture_output=True, timeout=PATIENCE_S).returncode


def jobs_of(service: Running, series: Series) -> list[dict[str, Any]]:
    params = {"series_instance_uid": series.header.series_instance_uid}
    return list(httpx.get(f"{service.url}/v1/jobs", params=params, timeout=PATIENCE_S).raise_for_status().json()["jobs"])


def becomes_one_job(service: Running, series: Series) -> dict[str, Any]:
    assert eventually(lambda: bool(jobs_of(service, series)), within_s=PATIENCE_S)
    (job,) = jobs_of(service, series)
    assert job["series"]["slices"] == len(series.files)
    return job


def is_whole(service: Running, series: Series) -> bool:
    """Whether one job of a series is left, of all its slices; those that it took the place of are cancelled."""
    left = [job for job in jobs_of(service, series) if job["state"] != "cancelled"]
    return [job["series"]["slices"] for job in left] == [len(series.files)]


def finish(service: Running, job: dict[str, Any], series: Series, folder: Path) -> bytes:
    """Do what a worker does; its RTSTRUCT."""
    path = folder / "rtstruct.dcm"
    write_rtstruct(path, series.masks, series.header, AUTHORSHIP)
    content = path.read_bytes()
    service.finish(job, {"rtstruct.dcm": content, "qa.json": b"{}", "preview.png": b""})
    return content


# ── receiving ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_series_that_storescu_sends_becomes_one_job_however_often_it_is_sent(service: Running, tmp_path: Path) -> None:
    series = write_series(tmp_path / "ct", seed="at once")
    with gateway_on(tmp_path, service) as gateway:
        assert dcmtk("echoscu", gateway) == 0
        assert dcmtk("storescu", gateway, *series.files) == 0
        becomes_one_job(service, series)
        assert dcmtk("storescu", gateway, *series.files) == 0
    becomes_one_job(service, series)


def test_compressed_images_arrive_as_they_are(service: Running, tmp_path: Path) -> None:
    series = write_series(tmp_path / "ct", seed="compressed")
    squeezed = [tmp_path / f"{i}.jls" for i in range(len(series.files))]
    for path, smaller in zip(series.files, squeezed, strict=True):
        subprocess.run(["dcmcjpls", path, smaller], check=True)
    with gateway_on(tmp_path, service) as gateway:
        assert dcmtk("storescu", gateway, "-xt", *squeezed) == 0
        becomes_one_job(service, series)
        (held,) = gateway.store.series()
        path, _ = next(iter(gateway.store.images(held.id).values()))
        assert pydicom.dcmread(gateway.settings.data / path).file_meta.TransferSyntaxUID.name.startswith("JPEG-LS Lossless")


def answers(gateway: Gateway, calling: str, called: str) -> bool:
    return dcmtk("echoscu", gateway, "-aet", calling, called=called) == 0


def held(stack: ExitStack, peer: Peer) -> bool:
    """Whether an association was accepted, which then is open as long as the stack."""
    try:
        stack.enter_context(associated(peer, "CT1", asked([CTImageStorage])))
    except PeerFailed:
        return False
    return True


def test_strangers_other_titles_and_one_association_too_many_are_turned_away(service: Running, tmp_path: Path) -> None:
    peers = [
        {"name": "ct", "title": "CT1", "addresses": ["127.0.0.1"]},
        {"name": "far", "title": "CT2", "addresses": ["10.0.0.1"]},
    ]
    configuration = Configuration.model_validate({"titles": ["OARLOCK", "OTHER"], "peer": peers})
    with gateway_on(tmp_path, service, configuration, max_associations=1) as gateway, ExitStack() as stack:
        for calling, called, welcome in (
            ("CT1", "OARLOCK", True),
            ("CT1", "OTHER", True),
            ("CT1", "NOBODY", False),
            ("CT2", "OARLOCK", False),
            ("CT3", "OARLOCK", False),
        ):
            answered = partial(answers, gateway, calling, called)
            assert eventually(answered, within_s=PATIENCE_S) if welcome else not answered(), (calling, called)
        us = Peer(name="us", title="OARLOCK", host="127.0.0.1", port=gateway.receiver.ports[0])
        assert eventually(
            lambda: held(stack, us), within_s=PATIENCE_S
        )  # an association that ended leaves its place a moment later
        command = [str(found("echoscu")), "-aet", "CT1", "-aec", "OARLOCK", "127.0.0.1", str(gateway.receiver.ports[0])]
        said = subprocess.run(command, check=False, capture_output=True, text=True)
        assert "Transient" in said.stderr


def test_tls_with_certificates_on_both_sides(service: Running, tmp_path: Path) -> None:
    authority = Authority(tmp_path, "hospital")
    ours, theirs = authority.vouch("gateway", server=True), authority.vouch("planning", server=False)
    files = {"tls_certificate": ours.certificate, "tls_key": ours.key, "tls_client_ca": authority.certificate}
    with gateway_on(tmp_path, service, plain=False, **files) as gateway:
        trusted = ("+tls", str(theirs.key), str(theirs.certificate), "+cf", str(authority.certificate))
        assert dcmtk("echoscu", gateway, *trusted) == 0
        assert dcmtk("echoscu", gateway, "+tla", "-ic") != 0  # nobody vouches for the caller
        assert dcmtk("echoscu", gateway) != 0


def test_a_full_disk_is_said_and_nothing_is_kept(service: Running, tmp_path: Path) -> None:
    series = write_series(tmp_path / "ct", seed="full")
    with gateway_on(tmp_path, service, min_free_bytes=shutil.disk_usage(tmp_path).total) as gateway:
        assert dcmtk("storescu", gateway, *series.files) != 0
        assert gateway.store.series() == []
    with gateway_on(tmp_path, service) as gateway:
        assert dcmtk("storescu", gateway, *series.files) == 0
        becomes_one_job(service, series)


def test_five_senders_at_once_whose_series_are_mixed_up(service: Running, tmp_path: Path) -> None:
    """Every sender holds slices of every series, so each series comes over five associations."""
    series = [write_series(tmp_path / f"ct{i}", seed=f"mixed {i}") for i in range(5)]
    files = [path for z in range(len(series[0].files)) for one in series for path in [one.files[z]]]
    with gateway_on(tmp_path, service, quiet_s=1.0) as gateway, ThreadPoolExecutor(5) as pool:
        sent = [pool.submit(dcmtk, "storescu", gateway, *files[i::4], *files[i::5]) for i in range(5)]
        assert [one.result() for one in sent] == [0] * 5
        for one in series:
            becomes_one_job(service, one)


def test_a_sender_that_is_killed_midway_and_comes_back(service: Running, tmp_path: Path) -> None:
    series = write_series(tmp_path / "ct", seed="killed sender")
    with gateway_on(tmp_path, service, quiet_s=1.0) as gateway:
        take, held, go_on = gateway.inbox.take, threading.Event(), threading.Event()

        def slow(*arguments: Any, **options: Any) -> Any:
            taken = take(*arguments, **options)
            if len(gateway.store.images(gateway.store.series()[0].id)) == 4:
                held.set()
                go_on.wait(10)
            return taken

        gateway.inbox.take = slow  # type: ignore[method-assign]
        command = [
            str(found("storescu")),
            "-aec",
            "OARLOCK",
            "127.0.0.1",
            str(gateway.receiver.ports[0]),
            *map(str, series.files),
        ]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as sender:
            assert held.wait(PATIENCE_S)
            sender.kill()
        gateway.inbox.take = take  # type: ignore[method-assign]
        go_on.set()
        assert dcmtk("storescu", gateway, *series.files) == 0
        becomes_one_job(service, series)


# ── home ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def storescp(folder: Path, port: int) -> Iterator[Path]:
    """A receiver of dcmtk, and the folder that it writes into."""
    folder.mkdir(exist_ok=True)
    with subprocess.Popen([str(found("storescp")), "-od", folder, str(port)], env=os.environ | {"TCP_NODELAY": "1"}) as process:
        try:
            assert eventually(lambda: listens(port), within_s=PATIENCE_S)
            yield folder
        finally:
            process.kill()


def test_the_rtstruct_goes_back_to_the_sender_though_it_was_away_at_first(service: Running, tmp_path: Path) -> None:
    series, port = write_series(tmp_path / "ct", seed="home"), free_port()
    peer = {"name": "planning", "title": "TPS", "host": "127.0.0.1", "port": port}
    with gateway_on(tmp_path, service, Configuration.model_validate({"peer": [peer]})) as gateway:
        assert dcmtk("storescu", gateway, "-aet", "TPS", *series.files) == 0
        finish(service, becomes_one_job(service, series), series, tmp_path)
        assert eventually(lambda: any(one.attempts for one in gateway.store.deliveries()), within_s=PATIENCE_S)
        assert gateway.store.deliveries()[0].note == "it does not answer"
        with storescp(tmp_path / "received", port) as received:
            job = jobs_of(service, series)[0]["id"]
            assert gateway.store.resend(job, gateway.clock()) == 1
            assert eventually(lambda: gateway.store.deliveries()[0].state == "delivered", within_s=PATIENCE_S)
        (path,) = received.iterdir()
        assert pydicom.dcmread(path) == pydicom.dcmread(tmp_path / "rtstruct.dcm")


# ── an archive ────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Orthanc:
    """A running Orthanc, and its ports."""

    client: httpx.Client
    dicom: int


ORTHANCS_PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")


@contextmanager
def orthanc(folder: Path, ours: int) -> Iterator[Orthanc]:
    """A private Orthanc that knows us as OARLOCK at a port."""
    program = shutil.which("Orthanc", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
    if program is None or not ORTHANCS_PLUGIN.is_file():
        pytest.skip("Orthanc with its DICOMweb plug-in is not installed (apt-get install orthanc orthanc-dicomweb)")
    http, dicom = free_port(), free_port()
    known = {"AET": "OARLOCK", "Host": "127.0.0.1", "Port": ours, "AllowGet": True, "AllowMove": True}
    settings = {
        "StorageDirectory": str(folder / "store"),
        "IndexDirectory": str(folder / "store"),
        "HttpPort": http,
        "DicomPort": dicom,
        "DicomAet": "ORTHANC",
        "RemoteAccessAllowed": True,
        "AuthenticationEnabled": False,
        "DicomModalities": {"oarlock": known},
        "Plugins": [str(ORTHANCS_PLUGIN)],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }
    (folder / "orthanc.json").write_text(json.dumps(settings), encoding="utf-8")
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([program, folder / "orthanc.json"], stdout=log, stderr=log)
    try:
        assert eventually(lambda: listens(http) and listens(dicom), within_s=PATIENCE_S)
        with httpx.Client(base_url=f"http://127.0.0.1:{http}", timeout=30) as client:
            yield Orthanc(client, dicom)
    finally:
        process.terminate()
        process.wait(timeout=PATIENCE_S)


def asks_orthanc(program: str, archive: Orthanc, *options: str, **keys: str) -> str:
    """What dcmtk's findscu or movescu says of an Orthanc, asked at the series level."""
    asked = [part for name, value in keys.items() for part in ("-k", f"{name}={value}")]
    command = [program, "-v", "-S", "-aet", "OARLOCK", "-aec", "ORTHANC", *options, "-k", "QueryRetrieveLevel=SERIES", *asked]
    done = subprocess.run([*command, "127.0.0.1", str(archive.dicom)], check=True, capture_output=True, text=True, timeout=60)
    return done.stdout + done.stderr


@pytest.mark.long("matrix")
def test_orthanc_sends_is_asked_gives_and_takes(service: Running, tmp_path: Path) -> None:
    """Its push to us; C-FIND, C-MOVE and C-GET from it, by us and by dcmtk; our push to it; what ``check`` says of it."""
    pushed, moved, got, sent = (
        write_series(tmp_path / name, seed=f"orthanc {name}") for name in ("pushed", "moved", "got", "sent")
    )
    ours = free_port()
    with orthanc(tmp_path, ours) as archive:
        peer = {"title": "ORTHANC", "host": "127.0.0.1", "port": archive.dicom, "archive": True}
        web = {"name": "web", "url": f"{archive.client.base_url}/dicom-web/studies"}
        configuration = Configuration.model_validate(
            {
                "peer": [{"name": "by move", **peer}, {"name": "by get", "retrieve": "get", **peer}],
                "web": [web],
                "rule": [{"name": "all", "send": ["sender", "web"]}],
            }
        )
        for path in (*pushed.files, *moved.files, *got.files, *sent.files):
            archive.client.post("/instances", content=path.read_bytes()).raise_for_status()
        with gateway_on(tmp_path, service, configuration, port=ours) as gateway:
            assert [answer for answer in check(configuration, gateway.service, None) if not answer.fine] == []
            (found,) = archive.client.post("/tools/lookup", content=pushed.header.series_instance_uid).json()
            archive.client.post("/modalities/oarlock/store", json=found["ID"]).raise_for_status()
            job = becomes_one_job(service, pushed)
            by_move, by_get = configuration.peer
            for series, place in ((moved, by_move), (got, by_get)):
                wanted = Wanted(series.header.series_instance_uid)
                assert fetch(place, "OARLOCK", wanted, gateway.store, gateway.inbox).files == len(series.files)
                becomes_one_job(service, series)
            uids = {"StudyInstanceUID": sent.header.study_instance_uid, "SeriesInstanceUID": sent.header.series_instance_uid}
            asks_orthanc("movescu", archive, "-aem", "OARLOCK", **uids)
            becomes_one_job(service, sent)
            content = finish(service, job, pushed, tmp_path)
            assert eventually(lambda: [one.state for one in gateway.store.deliveries()] == ["delivered"] * 2, within_s=PATIENCE_S)
        (study,) = archive.client.post("/tools/lookup", content=pushed.header.study_instance_uid).json()
        files = archive.client.get(f"/studies/{study['ID']}/instances").json()
        (kept,) = [one["ID"] for one in files if one["MainDicomTags"]["SOPInstanceUID"] not in _uids(pushed)]
        found = asks_orthanc(
            "findscu", archive, StudyInstanceUID=pushed.header.study_instance_uid, Modality="RTSTRUCT", SeriesInstanceUID=""
        )
        received = archive.client.get(f"/instances/{kept}/file").content
        assert f"[{pydicom.dcmread(BytesIO(content)).SeriesInstanceUID}" in found
        assert pydicom.dcmread(BytesIO(received)) == pydicom.dcmread(BytesIO(content))


def test_a_retrieval_at_the_service_brings_a_series_its_drafts_and_an_earlier_one_with_approved_contours(
    service: Running, tmp_path: Path
) -> None:
    """Each of the two jobs has one reference: that of the series its draft, that of the earlier one what was approved of it."""
    series = write_series(tmp_path / "ct", seed="retrieved", overrides={"StudyDate": "20260305"})
    prior = write_series(tmp_path / "prior", seed="before", overrides={"StudyDate": "20250305"})
    ours = free_port()
    with orthanc(tmp_path, ours) as archive:
        draft = _structure_set(tmp_path / "draft.dcm", series, "UNAPPROVED")
        approved = [_structure_set(tmp_path / f"{says}.dcm", prior, says) for says in ("APPROVED", "REJECTED")]
        for path in (*series.files, *prior.files, draft, *approved):
            archive.client.post("/instances", content=path.read_bytes()).raise_for_status()
        peer = {"name": "pacs", "title": "ORTHANC", "host": "127.0.0.1", "port": archive.dicom, "archive": True}
        configuration = Configuration.model_validate({"peer": [peer]})
        with (
            gateway_on(tmp_path, service, configuration, port=ours, name="rt", report_s=0.3),
            httpx.Client(base_url=service.url, timeout=PATIENCE_S) as client,
        ):
            wanted: dict[str, Any] = {"archive": "pacs", "series_instance_uid": series.header.series_instance_uid}
            wanted |= {"structure_sets": True, "priors": 2}

            def ask() -> httpx.Response:
                return client.post("/v1/retrievals", json=wanted)

            assert eventually(lambda: ask().status_code == 202, within_s=PATIENCE_S)
            address = ask().headers["Location"]
            assert eventually(lambda: client.get(address).json()["ended_at"] is not None, within_s=PATIENCE_S)
            done = client.get(address).json()
    assert (done["state"], done["instances"]) == ("succeeded", len(series.files) + len(prior.files) + 3), done["detail"]
    assert done["detail"] == "earlier series with approved contours: 1 of 2 are there"
    assert done["job_id"] == becomes_one_job(service, series)["id"]
    assert done["prior_jobs"] == [becomes_one_job(service, prior)["id"]]
    for job, expected in ((done["job_id"], draft), (done["prior_jobs"][0], approved[0])):
        uploaded = {pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID for path in _inputs(service, job)}
        assert pydicom.dcmread(expected).SOPInstanceUID in uploaded
        assert len(uploaded) == len(series.files) + 1


def _inputs(service: Running, job: str) -> list[Path]:
    return list(service.service.storage.input_files(JobId(job)))


def _structure_set(path: Path, series: Series, status: str) -> Path:
    """An RTSTRUCT of a series as a person has left it."""
    write_rtstruct(path, series.masks, series.header, AUTHORSHIP)
    dataset = pydicom.dcmread(path)
    dataset.ApprovalStatus = status
    for keyword in ("SOPInstanceUID", "SeriesInstanceUID"):
        setattr(dataset, keyword, generate_uid(entropy_srcs=[keyword, status, series.header.series_instance_uid]))
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.save_as(path)
    return path


def _uids(series: Series) -> set[str]:
    return {instance.sop_instance_uid for instance in series.header.instances}


# ── the end of the gateway itself ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.long("soak")
def test_a_gateway_that_is_killed_again_and_again_while_series_come_loses_none_and_doubles_none(
    service: Running, tmp_path: Path
) -> None:
    """Each sender repeats until it is told that all was stored, as senders do."""
    named = {"patient_name": "Canary^Yellow"}
    series = [write_series(tmp_path / f"ct{i}", seed=f"killed gateway {i}", **named) for i in range(6)]
    port = free_port()
    variables = {"DATA": str(tmp_path / "gateway"), "PORT": str(port), "SERVICE": service.url, "METRICS_PORT": "0"}
    variables |= {"SETTLED_S": "0.2", "QUIET_S": "2", "MIN_FREE_BYTES": "0"}
    environment = os.environ | {f"OARLOCK_GATEWAY_{name}": value for name, value in variables.items()}

    def start() -> "subprocess.Popen[bytes]":
        with (tmp_path / "log").open("ab") as log:
            process = subprocess.Popen([sys.executable, "-m", "gateway"], env=environment, stderr=log, stdout=log)
        assert eventually(lambda: listens(port), within_s=PATIENCE_S)
        return process

    def send(one: Series) -> bool:
        return eventually(lambda: dcmtk("storescu", port, *one.files) == 0, within_s=PATIENCE_S)

    process = start()
    try:
        with ThreadPoolExecutor(3) as pool:
            sent = [pool.submit(send, one) for one in series]
            for done in (1, 3):
                assert eventually(lambda done=done: sum(one.done() for one in sent) >= done, within_s=PATIENCE_S)  # type: ignore[misc]
                process.send_signal(signal.SIGKILL)
                process.wait()
                process = start()
            assert all(one.result() for one in sent)
        for one in series:
            assert eventually(lambda one=one: is_whole(service, one), within_s=PATIENCE_S)  # type: ignore[misc]
        process.terminate()
        assert process.wait(timeout=PATIENCE_S) == 0
    finally:
        process.kill()
        process.wait()
    text = (tmp_path / "log").read_text(encoding="utf-8")
    assert '"event": "series posted"' in text
    assert [word for word in ("Canary", *(one.header.series_instance_uid for one in series)) if word in text] == []

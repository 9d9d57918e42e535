"""Bad input: each kind is refused with its own code and a sentence that helps, within two seconds, and leaves no file behind."""

import errno
import io
import os
import socket
import stat
import struct
import threading
import zipfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from time import monotonic
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pydicom
import pytest
from pydicom.uid import MRImageStorage

from oarlock.ct.writer import write_ct_series
from service.intake.forms import JOB
from tests.fixtures.crooked import crooked_grid, crooked_hu
from tests.fixtures.processes import eventually
from tests.service.conftest import make_settings
from tests.service.running import Running, parts, serve, write_model, zipped

LIMIT_S = 2.0
BOUNDARY = b"oarlockboundary"
MULTIPART = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY.decode()}"}


def part(content: bytes, headers: bytes = b'Content-Disposition: form-data; name="files"; filename="a"') -> bytes:
    return b"--" + BOUNDARY + b"\r\n" + headers + b"\r\n\r\n" + content + b"\r\n"


END = b"--" + BOUNDARY + b"--\r\n"


@pytest.fixture
def refused(client: httpx.Client, running: Running) -> Iterator[Callable[..., dict[str, Any]]]:
    """Posts something bad, and checks what is true of every refusal."""

    def post(status: int, code: str, **request: Any) -> dict[str, Any]:
        before = running.files()
        began = monotonic()
        answer = client.post("/v1/jobs", **request)
        took = monotonic() - began
        assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
        assert answer.headers["content-type"] == "application/problem+json"
        problem: dict[str, Any] = answer.json()
        assert {"type", "title", "status", "detail", "code", "instance"} <= set(problem)
        assert problem["status"] == status
        assert len(problem["detail"].split()) > 5
        assert problem["detail"][-1] in ".?"
        assert "Phantom" not in answer.text
        assert took < LIMIT_S
        assert running.files() == before
        return problem

    return post


def rewritten(path: Path, **changes: Any) -> bytes:
    dataset = pydicom.dcmread(path)
    for keyword, value in changes.items():
        setattr(dataset, keyword, value)
        if keyword == "SOPClassUID":
            dataset.file_meta.MediaStorageSOPClassUID = value
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


# ── bodies ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "request_",
    [
        {},
        {"content": b"", "headers": MULTIPART},
        {"content": b"", "headers": {"Content-Type": "application/zip"}},
        {"content": END, "headers": MULTIPART},
        {"data": {"priority": "low"}, "files": {}},
        {"files": [("files", ("", b"", "application/octet-stream"))]},
        {"content": zipped([]), "headers": {"Content-Type": "application/zip"}},
    ],
    ids=["nothing", "no part", "no archive", "only the end", "form", "no file chosen", "empty archive"],
)
def test_a_post_without_a_file(refused: Callable[..., Any], request_: dict[str, Any]) -> None:
    if "files" in request_ and not request_["files"]:
        request_ = {"content": part(b"low", b'Content-Disposition: form-data; name="priority"') + END, "headers": MULTIPART}
    assert "files" in refused(422, "upload.empty", **request_)["detail"]


@pytest.mark.parametrize("media_type", ["application/json", "application/dicom", "multipart/related; boundary=x", ""])
def test_another_media_type(refused: Callable[..., Any], media_type: str) -> None:
    refused(415, "upload.unsupported_media_type", content=b"{}", headers={"Content-Type": media_type})


@pytest.mark.parametrize(
    "body",
    [
        part(b"x" * 100_000),
        part(b"x")[:30],
        part(b"x") + b"--" + BOUNDARY,
        b"no boundary here",
        part(b"x", b"X-Padding: " + b"p" * 1_000_000) + END,
        part(b"x", b"X-Padding: p\r\n" * 10_000) + END,
        part(b"x", b'Content-Disposition: form-data; name="file"; filename="wrong name of the part"') + END,
        part(b"x", b"Content-Type: application/dicom") + END,
        part(b"low", b'Content-Disposition: form-data; name="priority"') * 2 + END,
        part(b"m" * 100_000, b'Content-Disposition: form-data; name="model"') + END,
        part(b"\xff\xfe", b'Content-Disposition: form-data; name="model"') + END,
    ],
    ids=[
        *("no end", "cut in a header", "cut in the last boundary", "no boundary", "huge header", "many headers"),
        *("unknown part", "nameless part", "field twice", "huge field", "field not UTF-8"),
    ],
)
def test_a_body_that_is_not_well_formed(refused: Callable[..., Any], body: bytes) -> None:
    refused(400, "upload.malformed", content=body, headers=MULTIPART)


@pytest.mark.parametrize("parameters", ["", "; boundary=", "; boundary=" + "b" * 300])
def test_a_boundary_that_cannot_be_used(refused: Callable[..., Any], parameters: str) -> None:
    refused(400, "upload.malformed", content=b"x", headers={"Content-Type": "multipart/form-data" + parameters})


def test_a_post_without_any_body(running: Running) -> None:
    host, port = running.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(b"POST /v1/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
        answer = connection.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 422 ")
    assert b"upload.empty" in answer


def test_a_disk_that_runs_full_while_it_is_written_is_said_and_nothing_stays(
    refused: Callable[..., Any], series: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("service.intake.upload_files._write_all", full)
    refused(507, "storage.full", files=parts(series))


def test_a_body_that_announces_too_much_is_refused_before_it_is_read(running: Running) -> None:
    began = monotonic()
    with socket.create_connection(running.url.removeprefix("http://").split(":"), timeout=10) as connection:  # type: ignore[arg-type]
        connection.sendall(
            b"POST /v1/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/zip\r\n"
            b"Content-Length: 50000001\r\n\r\nPK\x03\x04"
        )
        answer = connection.recv(65_536)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"upload.too_large" in answer
    assert monotonic() - began < LIMIT_S


@pytest.mark.slow
def test_a_body_without_a_length_is_refused_when_it_becomes_too_much(running: Running) -> None:
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        yield part(b"")[:-2]
        while sent < 200_000_000:
            sent += 1_000_000
            yield b"x" * 1_000_000

    before = running.files()
    with httpx.Client(timeout=30) as client:
        answer = client.post(f"{running.url}/v1/jobs", content=endless(), headers=MULTIPART)
    assert (answer.status_code, answer.json()["code"]) == (413, "upload.too_large")
    assert running.files() == before


def test_too_many_files(refused: Callable[..., Any]) -> None:
    assert "100 files" in refused(413, "upload.too_large", files=parts([b"x"] * 101))["detail"]
    refused(413, "upload.too_large", files=parts([b"x", zipped([b"x"] * 100)]))


def test_a_sender_who_goes_away_in_the_middle_leaves_nothing(running: Running, series: list[Path]) -> None:
    before = running.files()
    request = httpx.Request("POST", f"{running.url}/v1/jobs", files=parts(series))
    body = request.read()
    host, port = running.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        head = f"POST /v1/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n"
        head += f"Content-Type: {request.headers['content-type']}\r\n\r\n"
        connection.sendall(head.encode() + body[: len(body) // 2])
        assert eventually(lambda: running.files() != before, within_s=5 * LIMIT_S)  # the server has begun to take it in
    assert eventually(lambda: running.files() == before, within_s=5 * LIMIT_S)  # and notices in its own time


def test_a_disk_that_is_low_is_said_before_anything_is_read(tmp_path: Path, redis_url: str, series: list[Path]) -> None:
    write_model(tmp_path / "models")
    with serve(make_settings(tmp_path, redis_url, min_free_bytes=10**18)) as running:
        answer = httpx.post(f"{running.url}/v1/jobs", files=parts(series), timeout=30)
        assert (answer.status_code, answer.json()["code"]) == (507, "storage.full")
        assert int(answer.headers["retry-after"]) > 0
        assert running.files() == []


# ── fields ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("field", "value", "code", "hint"),
    [
        ("priority", "asap", "request.invalid_parameter", "urgent, normal, low"),
        ("profile", "unheard-of", "request.unknown_profile", "eclipse, generic, monaco, pinnacle, raystation"),
        ("callback_url", "http://127.0.0.1/", "request.invalid_parameter", "callback_url"),
        ("model", "unheard-of", "request.unknown_model", "oarlock-hn"),
    ],
)
def test_a_field_with_a_value_that_is_not_known(
    refused: Callable[..., Any], series: list[Path], field: str, value: str, code: str, hint: str
) -> None:
    problem = refused(422, code, files=parts(series), data={field: value})
    assert hint in problem["detail"]
    assert "unheard-of" not in problem["detail"]


# ── archives ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def archive(*members: tuple[zipfile.ZipInfo | str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for member, content in members:
            file.writestr(member, content)
    return buffer.getvalue()


def symlink() -> zipfile.ZipInfo:
    member = zipfile.ZipInfo("link")
    member.create_system = 3
    member.external_attr = (stat.S_IFLNK | 0o777) << 16
    return member


def patched(content: bytes, offset_in_directory: int, value: bytes) -> bytes:
    """An archive whose first directory entry says something else at an offset."""
    at = content.index(b"PK\x01\x02") + offset_in_directory
    return content[:at] + value + content[at + len(value) :]


def before_the_file(content: bytes) -> bytes:
    """The end record puts the directory further on than it is, and so the one member in front of the file."""
    end = content.index(b"PK\x05\x06")
    offset = struct.unpack_from("<L", content, end + 16)[0]
    return content[: end + 16] + struct.pack("<L", offset + 1) + content[end + 20 :]


def directory_at(offset: int) -> bytes:
    """The locator of an archive of more than 4 GiB puts the end record where no file reaches (APPNOTE 4.3.15)."""
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 1, 1, 55, 4, 0)
    return b"PK\x03\x04" + bytes(55) + struct.pack("<4sLQL", b"PK\x06\x07", 0, offset, 1) + end


@cache
def bomb(megabytes: int) -> bytes:
    return archive(*((f"IM{i}", bytes(10_000_000)) for i in range(megabytes // 10)))


def overlapping() -> bytes:
    """Every entry of the directory points at the same bytes (as in David Fifield's bomb)."""
    one = archive(("a", os.urandom(50_000)))
    at, end = one.index(b"PK\x01\x02"), one.index(b"PK\x05\x06")
    entry = one[at:end]
    tail = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 50, 50, len(entry) * 50, at, 0)
    return one[:at] + entry * 50 + tail


EVIL_NAMES = ["../a", "x/../../a", "/etc/passwd", "..\\a", "C:\\a", "\\\\host\\a"]


@pytest.mark.parametrize("form", ["body", "part"])
@pytest.mark.parametrize(
    ("content", "hint"),
    [
        *((archive((name, b"x")), "leads out") for name in EVIL_NAMES),
        (patched(archive(("a", b"x")), 46, b"\0"), "leads out"),
        (archive((symlink(), b"/etc/passwd")), "symbolic link"),
        (patched(archive(("a", b"x")), 8, b"\x01\x00"), "encrypted"),
        (patched(archive(("a", b"x" * 99)), 10, b"\x0c\x00"), "packed in a way"),
        (archive(("inner.zip", zipped([b"x"]))), "another archive"),
        (bomb(130), "times their size"),
        (overlapping(), "overlap"),
        (zipped([os.urandom(1000)] * 20)[:-300], "damaged"),
        (zipped([os.urandom(1000)] * 20)[:9000], "damaged"),
        (zipped([b"x" * 999])[:42] + b"??" + zipped([b"x" * 999])[44:], "damaged"),
        (directory_at(2**62), "damaged"),
        (before_the_file(archive(("a", b"x"))), "damaged"),
        (b"PK\x03\x04" + bytes(1000), "damaged"),
        (b"PK\x03\x04" + bytes(1000) + struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 1, 1, 500, 9, 0), "damaged"),
    ],
)
def test_an_archive_that_is_not_an_export(refused: Callable[..., Any], content: bytes, hint: str, form: str) -> None:
    request = (
        {"files": parts([content])} if form == "part" else {"content": content, "headers": {"Content-Type": "application/zip"}}
    )
    assert hint in refused(422, "upload.archive_invalid", **request)["detail"]


def test_the_ratio_counts_over_all_archives_of_a_post(
    refused: Callable[..., Any], running: Running, client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is under the size from which the ratio counts; together they are a bomb."""
    monkeypatch.setattr("service.intake.archives.RATIO_COUNTS_FROM_BYTES", 3_500_000)
    small = archive(("a", bytes(1_000_000)))
    assert len(small) * 200 < 1_000_000
    detail = refused(422, "upload.archive_invalid", files=parts([small] * 4))["detail"]
    assert "the archives of this upload unpack to more than 200 times their size" in detail
    answer = client.post("/v1/jobs", files=parts([small] * 3), timeout=30)
    assert answer.json()["code"] == "series.not_dicom"  # three are taken


@pytest.mark.parametrize(
    ("begins", "kind"), [(b"\x1f\x8b", "gzip"), (b"7z\xbc\xaf", "7z"), (b"\xfd7zXZ\0", "xz"), (b"Rar!", "RAR")]
)
def test_an_archive_of_another_kind_is_named(refused: Callable[..., Any], begins: bytes, kind: str) -> None:
    wanted = f"it is a {kind} file; only zip archives are unpacked"
    assert wanted in refused(422, "upload.archive_invalid", files=parts([begins + bytes(900)]))["detail"]
    assert wanted in refused(422, "upload.archive_invalid", files=parts([zipped([begins + bytes(900)])]))["detail"]
    as_body = {"content": begins + bytes(900), "headers": {"Content-Type": "application/zip"}}
    assert wanted in refused(422, "upload.archive_invalid", **as_body)["detail"]


def test_a_body_that_is_compressed_as_a_whole_is_told_to_come_without(refused: Callable[..., Any]) -> None:
    headers = {"Content-Type": "application/zip", "Content-Encoding": "gzip"}
    detail = refused(415, "upload.unsupported_media_type", content=b"\x1f\x8b" + bytes(99), headers=headers)["detail"]
    assert "without Content-Encoding" in detail


def renamed(content: bytes, old: bytes, new: bytes) -> bytes:
    """The archive with another name in front of a member's content than in the directory."""
    assert len(old) == len(new)
    return content.replace(old, new, 1)


def test_archives_that_honest_programs_write_are_read(client: httpx.Client, series: list[Path]) -> None:
    timed = zipped(series, folder="2019-02-04T14:38/")
    spelt = renamed(zipped(series, folder="DICOM/"), b"DICOM/IM0", b"DICOM\\IM0")
    joined = b"PK00" + zipped(series)
    for content in (timed, spelt, joined):
        answer = client.post("/v1/jobs", files=parts([content]), timeout=30)
        assert answer.status_code == 202, answer.text


@pytest.mark.parametrize("name", [b"../../IM0", b"C:\\xx/IM0", b"/etc/xIM0"])
def test_a_local_name_that_leads_out_is_refused_too(refused: Callable[..., Any], name: bytes) -> None:
    content = renamed(archive(("DICOM/IM0", b"x")), b"DICOM/IM0", name)
    assert "leads out" in refused(422, "upload.archive_invalid", files=parts([content]))["detail"]


def test_parts_that_hold_nothing_are_counted(running: Running, client: httpx.Client) -> None:
    empty = b'--b\r\nContent-Disposition: form-data; name="files"\r\n\r\n\r\n'
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    most = running.settings.max_upload_files
    beyond = most + len(JOB.fields) + len(JOB.parts) + 1
    for parts_sent, code in ((most, "upload.empty"), (beyond, "upload.too_large")):
        answer = client.post("/v1/jobs", content=empty * parts_sent + b"--b--\r\n", headers=headers)
        assert answer.json()["code"] == code


def test_a_directory_too_large_to_be_of_the_allowed_members_is_not_read(refused: Callable[..., Any]) -> None:
    directory = b"PK\x01\x02" + bytes(42)
    content = b"PK\x03\x04" + directory * 40_000
    content += struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 65_535, 65_535, len(directory) * 40_000, 4, 0)
    refused(413, "upload.too_large", content=content, headers={"Content-Type": "application/zip"})


def test_an_archive_that_would_fill_the_disk_is_not_unpacked(
    refused: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("oarlock.store.files.shutil.disk_usage", lambda _: SimpleNamespace(free=10_000))
    refused(507, "storage.full", files=parts([zipped([bytes(6_000)] * 2)]))


def test_an_archive_body_that_is_none(refused: Callable[..., Any]) -> None:
    refused(422, "upload.archive_invalid", content=b"plain text", headers={"Content-Type": "application/zip"})


# ── series ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_text_file(refused: Callable[..., Any]) -> None:
    refused(422, "series.not_dicom", files=parts([b"Dear colleague, please find attached"]))


def test_an_mr_series(refused: Callable[..., Any], series: list[Path]) -> None:
    slices = [rewritten(path, SOPClassUID=MRImageStorage, Modality="MR") for path in series[:5]]
    refused(422, "series.no_ct_images", files=parts(slices))


def test_two_series(refused: Callable[..., Any], series: list[Path], tmp_path: Path) -> None:
    other = write_ct_series(tmp_path, crooked_hu(), crooked_grid(), seed="another")
    refused(422, "series.mixed_series", files=parts([*series, *other]))


def test_one_slice(refused: Callable[..., Any], series: list[Path]) -> None:
    refused(422, "series.too_few_slices", files=parts(series[:1]))


def test_a_missing_slice_is_named_with_its_gap(refused: Callable[..., Any], series: list[Path]) -> None:
    problem = refused(422, "series.missing_slices", files=parts([*series[:20], *series[21:]]))
    assert "5.000 mm where 2.500 mm" in problem["detail"]
    assert "20 and 21" in problem["detail"]


def test_a_scout(refused: Callable[..., Any], series: list[Path]) -> None:
    scout = rewritten(series[0], ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    refused(422, "series.no_ct_images", files=parts([scout]))


def test_a_truncated_file(refused: Callable[..., Any], series: list[Path]) -> None:
    content = series[3].read_bytes()
    in_its_pixels = [*series[:3], content[: len(content) // 2], *series[4:]]
    assert "file 4 " in refused(422, "series.unsupported_pixel_data", files=parts(in_its_pixels))["detail"]
    in_its_header = [*series[:3], content[: content.index(b"Phantom") + 3], *series[4:]]
    assert "File 4 " in refused(422, "series.instance_unreadable", files=parts(in_its_header))["detail"]


def test_wherever_a_file_is_cut_off_the_series_is_refused_and_the_server_does_not_fail(
    client: httpx.Client, running: Running, series: list[Path]
) -> None:
    before = running.files()
    content = series[3].read_bytes()
    for keep in range(0, 1_800, 61):
        answer = client.post("/v1/jobs", files=parts([*series[:3], content[:keep], *series[4:9]]))
        assert answer.status_code == 422, (keep, answer.text)
        assert answer.json()["code"].startswith("series.")
    assert running.files() == before


def test_noise_behind_the_dicom_preamble(refused: Callable[..., Any]) -> None:
    noise = np.random.default_rng(0).bytes(50_000)
    refused(422, "series.instance_unreadable", files=parts([bytes(128) + b"DICM" + noise]))


def test_many_bad_posts_at_once_do_not_disturb_a_good_one(client: httpx.Client, running: Running, series: list[Path]) -> None:
    statuses: list[int] = []

    def bad() -> None:
        answer = httpx.post(f"{running.url}/v1/jobs", files=parts([bomb(130)]), timeout=30)
        statuses.append(answer.status_code)

    threads = [threading.Thread(target=bad) for _ in range(4)]
    for thread in threads:
        thread.start()
    assert client.post("/v1/jobs", files=parts(series)).status_code == 202
    for thread in threads:
        thread.join()
    assert statuses == [422] * 4

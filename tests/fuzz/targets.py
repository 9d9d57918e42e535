"""What is fuzzed: each way by which bytes of somebody else come in, from the bytes to what is made of them.

A target takes any bytes and returns if they were accepted, or refused as the house refuses things. Whatever else happens is a
finding: another exception, an answer that is no JSON, a file left behind. Who runs a target watches its time and its memory.
"""

import asyncio
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import anyio
import numpy as np
import orjson
from cryptography.fernet import Fernet
from starlette.datastructures import Headers

from oarlock.ct.intake import take_in
from oarlock.ct.pixel_header import NATIVE, RLE
from oarlock.ct.series import SeriesHeader, check_headers
from oarlock.dicom.codestreams import whole_codestream
from oarlock.dicom.decoding import Decoder, FrameSpec
from oarlock.dicom.unusable import Unusable
from oarlock.errors import InputError, ManifestInvalid, OarlockError, ProfileInvalid, SiteFileInvalid
from oarlock.organs.catalogue import BY_NAME
from oarlock.organs.roi_names import match_rois
from oarlock.pipeline.comparison import Side, compare_on_grid, read_on_grid
from oarlock.qa.site_file import read_site
from oarlock.rtstruct.profiles import read_profile, read_profiles
from oarlock.rtstruct.reader import Code
from oarlock.segmentation.manifest import read_manifest
from oarlock.settings import Settings
from oarlock.store.files import Incoming, Storage
from oarlock.store.retention import NO_OVERRIDE
from service.api.problems import describe
from service.background.webhooks.rules import Rules
from service.intake import forms, multipart
from service.intake.submission import Available, check_choices, check_writable
from service.intake.vault import Vault
from tests.fuzz import seeds
from tests.service.running import write_model


@dataclass(frozen=True)
class Target:
    """Something that takes bytes.

    :ivar largest: longest input in bytes.
    :ivar words: what a fuzzer can hardly guess.
    """

    run: Callable[[bytes], None]
    seeds: Callable[[], list[bytes]]
    largest: int
    words: tuple[bytes, ...] = ()


# ── where it happens ──────────────────────────────────────────────────────────────────────────────────────────────────


class Ground:
    """A small series, an RTSTRUCT on it, and a storage without a service."""

    def __init__(self) -> None:
        self._temporary = TemporaryDirectory(prefix="oarlock-fuzz-")
        self.folder = Path(self._temporary.name)
        self.files = seeds.write_series(self.folder / "series")
        self.structure_set = self.folder / "rtstruct.dcm"
        seeds.write_structure_set(self.structure_set, self.files)
        self.header: SeriesHeader = check_headers(self.files)
        self.drawing = read_on_grid(self.structure_set, self.header)
        self.storage = Storage(self.folder / "data")
        write_model(self.folder / "models")
        self.settings = Settings(_env_file=None).model_copy(  # type: ignore[call-arg]
            update={
                "min_free_bytes": 0,
                "max_upload_bytes": 1_000_000,
                "max_upload_files": 50,
                "max_slices": 20,
                "callback_hosts": ["pacs.test", "10.0.0.1:8080"],
                "callback_networks": ["10.0.0.0/8"],
                "callback_secrets": ["whsec_" + "A" * 32],
            }
        )
        self.offer = Available(
            {"oarlock-hn": read_manifest(self.folder / "models" / "oarlock-hn")},
            "oarlock-hn",
            read_profiles(None),
            "generic",
            Rules.of(self.settings),
        )
        self.vault = Vault(Fernet.generate_key().decode())
        self.decoder = Decoder()
        self.loop = asyncio.new_event_loop()
        self.threads = anyio.CapacityLimiter(1)

    @contextmanager
    def incoming(self) -> Iterator[Incoming]:
        """A folder for an upload, which leaves nothing."""
        with self.storage.incoming() as incoming:
            yield incoming
        assert not any(os.scandir(self.settings_folder("incoming"))), "the upload left something"

    def settings_folder(self, name: str) -> Path:
        return self.folder / "data" / name


@cache
def ground() -> Ground:
    return Ground()


@contextmanager
def refusals(*kinds: type[OarlockError]) -> Iterator[None]:
    """Lets the house refuse things, with a problem document that can be sent."""
    try:
        yield
    except kinds as error:
        orjson.dumps(describe(error.code, error.title, error.detail))


def check_facts(header: SeriesHeader) -> None:
    """What an accepted series tells about itself can be stored and sent."""
    facts = header.facts()
    texts = [facts.study_instance_uid, facts.series_instance_uid, facts.frame_of_reference_uid, header.scanner]
    texts += [instance.sop_instance_uid for instance in header.instances] + [warning.detail for warning in header.warnings]
    assert all(text.isprintable() for text in texts), "a text holds control characters"
    assert np.isfinite(header.grid.origins_mm).all()
    orjson.dumps([texts, facts.spacing_mm])


# ── uploads ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _receive(incoming: Incoming, content_type: str, body: bytes, form: forms.Form) -> forms.Upload:
    """What the service does with the body of a post; it comes in two pieces."""
    place = ground()
    request = _Request(content_type, body)
    return place.loop.run_until_complete(
        multipart.receive(request, incoming, place.settings, place.threads, form, has_body=bool(body))  # type: ignore[arg-type]
    )


class _Request:
    """As much of a request as an upload looks at."""

    def __init__(self, content_type: str, body: bytes) -> None:
        self.headers = Headers({"content-type": content_type})
        self._body = body

    async def stream(self) -> Any:
        middle = len(self._body) // 2
        for piece in (self._body[:middle], self._body[middle:], b""):
            yield piece


def _post_job(content_type: str, body: bytes) -> None:
    place = ground()
    with refusals(InputError), place.incoming() as incoming:
        upload = _receive(incoming, content_type, body, forms.JOB)
        choices = check_choices(upload.fields, place.offer, NO_OVERRIDE)
        header = take_in(upload.files, place.settings.intake_rules)
        check_writable(choices.profile, header)
        check_facts(header)


def _post_comparison(content_type: str, body: bytes) -> None:
    place = ground()
    with refusals(InputError), place.incoming() as incoming:
        upload = _receive(incoming, content_type, body, forms.COMPARISON)
        header = check_headers(upload.files, max_slices=place.settings.max_slices, refuse_gaps=False)
        sides = [Side(upload.parts[name], header, name).read(place.settings.site) for name in ("predicted", "reference")]
        orjson.dumps(compare_on_grid(*sides, header, place.settings.site).to_json())


def _post_reference(content_type: str, body: bytes) -> None:
    place = ground()
    with refusals(InputError), place.incoming() as incoming:
        upload = _receive(incoming, content_type, body, forms.REFERENCE)
        Side(upload.parts["reference"], place.header, "reference").read(place.settings.site)


def archive(data: bytes) -> None:
    """A zip archive as the body of a post."""
    _post_job("application/zip", data)


def body(data: bytes) -> None:
    """The body of any call that takes files: behind the first letter of its name, and a line with its Content-Type."""
    line, _, content = data.partition(b"\n")
    posts = {b"c": _post_comparison, b"r": _post_reference}
    posts.get(line[:1], _post_job)(line[1:].decode("latin-1").replace("\r", "").replace("\0", ""), content)


# ── DICOM ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def slice_(data: bytes) -> None:
    """One slice of a series: to its header, its pixels, and the series without its patient."""
    place = ground()
    with refusals(InputError), place.incoming() as incoming:
        files = [path.read_bytes() for path in place.files]
        files[len(files) // 2] = data
        for content in files:
            incoming.next_file().write_bytes(content)
        header = take_in(incoming.files, place.settings.intake_rules)
        check_facts(header)
        if all(instance.pixels and instance.pixels.transfer_syntax in NATIVE for instance in header.instances):
            anew, sealed = place.vault.lock_away(incoming, header)
            check_facts(anew)
            assert sealed
            assert anew.grid.shape == header.grid.shape


def multi_frame(data: bytes) -> None:
    """A whole series in one file."""
    place = ground()
    with refusals(InputError), place.incoming() as incoming:
        incoming.next_file().write_bytes(data)
        check_facts(check_headers(incoming.files))


def structure_set(data: bytes) -> None:
    """An RTSTRUCT: to its ROIs, their masks on a series, and the comparison with another one."""
    place = ground()
    path = place.folder / "fuzzed.dcm"
    path.write_bytes(data)
    with refusals(InputError):
        drawing = read_on_grid(path, place.header)
        report = compare_on_grid(place.drawing, drawing, place.header)
        orjson.dumps(report.to_json())


def codestream(data: bytes) -> None:
    """A compressed slice, behind one byte that says how it is compressed."""
    syntax = seeds.COMPRESSED[data[0] % len(seeds.COMPRESSED)] if data else RLE
    rows, columns = seeds.COMPRESSED_SHAPE[1:]
    try:
        whole = data[1:] if syntax == RLE else whole_codestream(data[1:], rows, columns)
        pixels = ground().decoder.decode(whole, FrameSpec(syntax, rows, columns, 16, signed=True))
    except Unusable:
        return
    assert pixels.shape == (rows, columns)


# ── words ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class _Named:
    number: int
    name: str
    codes: tuple[Code, ...]


def names(data: bytes) -> None:
    """Names of ROIs, one a line, with pairs of code and scheme behind tabs; a line with = in front is a site's own spelling."""
    rois, site = [], {}
    for number, line in enumerate(data.decode("utf-8", "replace").split("\n")):
        name, *rest = line.split("\t")
        if name.startswith("=") and name[1:].strip() and rest:
            site[name[1:]] = rest[0] if rest[0] in BY_NAME else ""
            continue
        rois.append(_Named(number, name, tuple(Code(*pair, "") for pair in zip(rest[::2], rest[1::2], strict=False))))
    try:
        found = match_rois(rois, site_names=site)
    except ValueError:
        assert site
        return
    told = sorted([roi.name for roi in found.matched.values()] + [*found.unmatched, *found.ambiguous])
    assert told == sorted(roi.name for roi in rois), "a name is lost or told twice"


def table(data: bytes) -> None:
    """A file that an operator writes, behind a letter that says which one."""
    place = ground()
    kind, content = data[:1], data[1:]
    with refusals(ManifestInvalid, ProfileInvalid, SiteFileInvalid):
        if kind == b"m":
            path = place.folder / "models" / "fuzzed" / "manifest.toml"
            path.parent.mkdir(exist_ok=True)
            (path.parent / "model.onnx").touch()
            path.write_bytes(content)
            found = read_manifest(path.parent)
            for part in found.parts:
                assert np.isfinite([part.input.padding_hu, part.self_check.tolerance, *part.self_check.expected_means]).all()
        else:
            path = place.folder / "fuzzed.toml"
            path.write_bytes(content)
            (read_profile if kind == b"p" else read_site)(path)


_ENCODINGS = (
    b"UL",
    b"OB",
    b"SQ",
    b"UN",
    b"UI",
    b"DS",
    b"US",
    b"\xff\xff\xff\xff",
    b"\xfe\xff\x00\xe0",
    b"\xfe\xff\x0d\xe0",
    b"\xfe\xff\xdd\xe0",
)
_SYNTAXES = tuple(b"1.2.840.10008.1.2" + end for end in (b"", b".1", b".2", b".1.99", b".5", b".4.90", b".4.80"))
_NUMBERS = (b"1e999", b"-0.0", b"nan", b"1e-320", b"\\", b"99999999999999999999")
_ZIP = (b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07", b"\xff\xff\xff\xff", b"\x01\x00")
_FORM = (
    *(
        b"--oar\r\n",
        b"\r\n--oar",
        b"--oar--\r\n",
        b"Content-Disposition: form-data; name=",
        b'"files"',
        b'"predicted"',
        b'"reference"',
    ),
    *(
        b"; filename*=utf-8''a",
        b"multipart/form-data; boundary=",
        b"application/zip\n",
        b"application/dicom\n",
        b'"label"',
        b'"callback_url"',
        b"https://[::1]/",
    ),
)

TARGETS = {
    "archive": Target(archive, lambda: seeds.small(seeds.archives(ground().files, ground().structure_set)), 20_000, _ZIP),
    "body": Target(body, lambda: seeds.small(seeds.bodies(ground().files, ground().structure_set)), 20_000, (*_FORM, *_ZIP)),
    "slice": Target(slice_, lambda: seeds.slices(ground().files), 8_000, (*_ENCODINGS, *_SYNTAXES, *_NUMBERS)),
    "multi_frame": Target(
        multi_frame, lambda: seeds.multi_frames(ground().files, ground().folder), 16_000, (*_ENCODINGS, *_SYNTAXES, *_NUMBERS)
    ),
    "structure_set": Target(
        structure_set, lambda: seeds.structure_sets(ground().structure_set), 16_000, (*_ENCODINGS, *_SYNTAXES, *_NUMBERS)
    ),
    "codestream": Target(
        codestream,
        lambda: seeds.codestreams(ground().folder / "compressed"),
        4_000,
        (b"\xff\x4f\xff\x51", b"\xff\x90", b"\xff\xda"),
    ),
    "names": Target(names, seeds.names, 600),
    "table": Target(table, seeds.tables, 8_000, (b"[[roi]]", b"nan", b"inf", b"[model]", b"{}", b"[]", b"1e999", b"true")),
}

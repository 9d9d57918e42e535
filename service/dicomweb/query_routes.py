"""Routes of QIDO-RS and WADO-RS.

What identifies the patient is among the answers: all of them need ``jobs:read``, as results do.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Final

import orjson
from fastapi import APIRouter, Depends, Path, Request
from starlette.responses import Response, StreamingResponse

from oarlock import errors
from oarlock.scopes import Scope
from oarlock.store import audit
from oarlock.store.audit import Action, Actor, Event
from oarlock.store.jobs import Job
from service import errors as refusals
from service.api.dependencies import PRIVATE, By, Caller, Here, needs
from service.api.openapi import BINARY, Call, problems
from service.api.routing import reads
from service.container import Service
from service.dicomweb import search as qido
from service.dicomweb.documents import JSON, to_json
from service.dicomweb.kept import BULK, Archive, Kept, KeptSeries, Memory
from service.dicomweb.retrieve import (
    DICOM,
    FRAMES,
    MULTIPART,
    OCTETS,
    Parts,
    covers,
    frame_numbers,
    frames,
    in_syntax,
    native_frames,
    to_accepted,
    wanted_syntax,
)
from service.errors import NotAcceptable, NotKept

PREFIX: Final = "/dicom-web"
_READ: Final = [needs(Scope.JOBS_READ)]
_NOT_KEPT: Final = (refusals.NotKept(what="study"), refusals.NotAcceptable(offered=[JSON]), errors.IdentityLocked())

dicomweb = APIRouter(prefix=PREFIX, tags=["dicomweb"])

_UID: Final = r"^[0-9.]{1,64}$"
Study = Annotated[str, Path(pattern=_UID, description="Study Instance UID")]
Series = Annotated[str, Path(pattern=_UID, description="Series Instance UID")]
Instance = Annotated[str, Path(pattern=_UID, description="SOP Instance UID")]


async def _archive(request: Request, service: Here, caller: Caller) -> Archive:
    state = request.app.state
    if getattr(state, "dicomweb_memory", None) is None:
        state.dicomweb_memory = Memory(service)
    return Archive(service, state.dicomweb_memory, caller.site)


TheArchive = Annotated[Archive, Depends(_archive)]


@dataclass(frozen=True)
class Asked:
    """The instance in the address, and who asks for it."""

    archive: Archive
    series: KeptSeries
    kept: Kept
    by: Actor

    def note_read(self, service: Service, what: str) -> None:
        _note_read(service, self.by, self.kept.job, f"{what} {self.kept.sop_instance_uid}")


def _asked(archive: TheArchive, by: By, *, study: Study, series: Series, instance: Instance) -> Asked:
    found = archive.series(study, series)
    return Asked(archive, found, archive.instance_of(found, instance), by)


TheInstance = Annotated[Asked, Depends(_asked)]


def base_of(request: Request) -> str:
    """Address of the DICOMweb service, as the caller reaches it."""
    return f"{str(request.base_url).rstrip('/')}{PREFIX}"


# ── searching ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _parameters(level: str) -> list[dict[str, Any]]:
    """Every query parameter of a search: each attribute by its keyword and by its tag."""
    text = {"type": "string", "maxLength": qido.LONGEST}
    found = [
        {"name": name, "in": "query", "required": False, "schema": text, "description": f"{keyword} that is looked for"}
        for keyword in qido.KEYS[level]
        for name in (keyword, qido.tag_text(keyword))
    ]
    number = {"type": "integer", "minimum": 0, "maximum": 999_999_999}
    boolean = {"type": "string", "enum": ["true", "false"]}
    others = {
        "includefield": (text, "further attributes by keyword or tag, by commas; 'all' for all that there are"),
        "limit": (number, f"most entries; {qido.LIMIT} without it, {qido.MOST} at most"),
        "offset": (number, "how many entries are skipped"),
        "fuzzymatching": (boolean, "has no effect: names match literally"),
    }
    return found + [
        {"name": name, "in": "query", "required": False, "schema": schema, "description": description}
        for name, (schema, description) in others.items()
    ]


_ENTRIES: Final = [
    {
        "0020000D": {"vr": "UI", "Value": ["2.25.1001"]},
        "00080061": {"vr": "CS", "Value": ["CT", "RTSTRUCT", "SEG"]},
        "00201208": {"vr": "IS", "Value": [188]},
    }
]


def _search_call(level: str) -> Call:
    entries = {"schema": {"type": "array", "items": {"type": "object"}}, "example": _ENTRIES}
    headers = {"Warning": {"description": "299, where there may be more entries", "schema": {"type": "string"}}}
    return {
        "responses": {
            200: {"description": f"The {level} that match, in DICOM JSON", "content": {JSON: entries}, "headers": headers},
            **problems(*_NOT_KEPT[1:], errors.InvalidParameter(name="limit", reason="must be a whole number, 0 or more")),
        },
        "openapi_extra": {"parameters": _parameters(level)},
    }


def _search(request: Request, archive: Archive, level: str, *uids: str) -> Response:
    _check_json(request)
    query = qido.to_query(request.query_params.multi_items(), level)
    found = qido.search(archive, query, qido.Within(level, base_of(request), *uids))
    warning = {"Warning": '299 oarlock "There may be more results"'} if found.more else {}
    return Response(orjson.dumps(found.entries), media_type=JSON, headers=PRIVATE | warning)


def _check_json(request: Request) -> None:
    accepted = to_accepted(request.headers.get("accept"))
    if not any(covers(one.media_type, kind) for one in accepted for kind in (JSON, "application/json")):
        raise NotAcceptable(offered=[JSON])


@reads(dicomweb, "/studies", summary="Search for studies", dependencies=_READ, **_search_call("studies"))
def search_studies(request: Request, archive: TheArchive) -> Response:
    """Studies of which something is kept (QIDO-RS), newest job first."""
    return _search(request, archive, "studies")


@reads(dicomweb, "/series", summary="Search for series", dependencies=_READ, **_search_call("series"))
def search_series(request: Request, archive: TheArchive) -> Response:
    """Series of all studies (QIDO-RS)."""
    return _search(request, archive, "series")


@reads(dicomweb, "/instances", summary="Search for instances", dependencies=_READ, **_search_call("instances"))
def search_instances(request: Request, archive: TheArchive) -> Response:
    """Instances of all studies (QIDO-RS)."""
    return _search(request, archive, "instances")


@reads(dicomweb, "/studies/{study}/series", summary="Search a study for series", dependencies=_READ, **_search_call("series"))
def search_series_of_study(request: Request, archive: TheArchive, study: Study) -> Response:
    """Series of one study (QIDO-RS)."""
    return _search(request, archive, "series", study)


@reads(
    dicomweb,
    "/studies/{study}/instances",
    summary="Search a study for instances",
    dependencies=_READ,
    **_search_call("instances"),
)
def search_instances_of_study(request: Request, archive: TheArchive, study: Study) -> Response:
    """Instances of one study (QIDO-RS)."""
    return _search(request, archive, "instances", study)


@reads(
    dicomweb,
    "/studies/{study}/series/{series}/instances",
    summary="Search a series for instances",
    dependencies=_READ,
    **_search_call("instances"),
)
def search_instances_of_series(request: Request, archive: TheArchive, study: Study, series: Series) -> Response:
    """Instances of one series (QIDO-RS)."""
    return _search(request, archive, "instances", study, series)


# ── retrieving ────────────────────────────────────────────────────────────────────────────────────────────────────────

_PARTS: Final = {"schema": {"type": "string", "format": "binary"}}
_FILES: Final[Call] = {
    "responses": {200: {"description": "DICOM files, one a part", "content": {MULTIPART: _PARTS}}, **problems(*_NOT_KEPT)}
}
_FILE: Final[Call] = {
    "responses": {
        200: {"description": "The DICOM file, as a part or as the whole answer", "content": {MULTIPART: _PARTS, DICOM: _PARTS}},
        **problems(*_NOT_KEPT),
    }
}
_METADATA: Final[Call] = {
    "responses": {
        200: {
            "description": "The instances in DICOM JSON, their pixels by address",
            "content": {JSON: {"schema": {"type": "array", "items": {"type": "object"}}, "example": _ENTRIES}},
        },
        **problems(*_NOT_KEPT),
    }
}
_FRAMES: Final[Call] = {
    "responses": {
        200: {"description": "Frames, one a part", "content": {MULTIPART: _PARTS}},
        **problems(*_NOT_KEPT, errors.InvalidParameter(name="frames", reason=FRAMES)),
    }
}
_BULK: Final[Call] = {
    "responses": {
        200: {"description": "The value of the element", "content": {MULTIPART: _PARTS, OCTETS: BINARY}},
        **problems(*_NOT_KEPT),
    }
}


@reads(dicomweb, "/studies/{study}", summary="Retrieve a study", dependencies=_READ, **_FILES)
def retrieve_study(request: Request, archive: TheArchive, by: By, study: Study) -> Response:
    """All files of a study (WADO-RS)."""
    return _files(request, archive, by, archive.study(study))


@reads(dicomweb, "/studies/{study}/series/{series}", summary="Retrieve a series", dependencies=_READ, **_FILES)
def retrieve_series(request: Request, archive: TheArchive, by: By, *, study: Study, series: Series) -> Response:
    """All files of a series (WADO-RS)."""
    return _files(request, archive, by, [archive.series(study, series)])


@reads(
    dicomweb,
    "/studies/{study}/series/{series}/instances/{instance}",
    summary="Retrieve an instance",
    dependencies=_READ,
    **_FILE,
)
def retrieve_instance(request: Request, service: Here, asked: TheInstance) -> Response:
    """One file (WADO-RS)."""
    multipart, syntax = wanted_syntax(to_accepted(request.headers.get("accept")), single=True)
    asked.note_read(service, "instance")
    archive = asked.archive
    content, stored = in_syntax(archive.content(asked.kept), syntax, as_it_is=archive.is_costly(asked.kept))
    kind = f"{DICOM}; transfer-syntax={stored}"
    if not multipart:
        return Response(content, media_type=kind, headers=PRIVATE)
    return _parts(request, DICOM, iter([(kind, content, str(request.url))]))


def _files(request: Request, archive: Archive, by: Actor, found: Sequence[KeptSeries]) -> Response:
    """The files of some series, each in a part, read one after another."""
    _, syntax = wanted_syntax(to_accepted(request.headers.get("accept")), single=False)
    base = base_of(request)
    for series in found:
        _note_read(archive.service, by, series.job, f"series {series.modality}, {len(series.instances)} instance(s)")

    def parts() -> Iterator[tuple[str, bytes, str]]:
        for series in found:
            for kept in series.instances:
                content, stored = in_syntax(archive.content(kept), syntax, as_it_is=archive.is_costly(kept))
                yield f"{DICOM}; transfer-syntax={stored}", content, qido.address(base, series, kept)

    return _parts(request, DICOM, parts())


def _parts(request: Request, media_type: str, parts: Iterator[tuple[str, bytes, str]]) -> Response:
    answer = Parts(media_type)
    if request.method == "HEAD":
        return Response(media_type=answer.content_type, headers=PRIVATE)
    return StreamingResponse(answer.body(parts), media_type=answer.content_type, headers=PRIVATE)


@reads(dicomweb, "/studies/{study}/metadata", summary="Metadata of a study", dependencies=_READ, **_METADATA)
def get_metadata_of_study(request: Request, archive: TheArchive, by: By, study: Study) -> Response:
    """What all instances of a study say, without their bulk data (WADO-RS)."""
    return _metadata(request, archive, by, archive.study(study))


@reads(dicomweb, "/studies/{study}/series/{series}/metadata", summary="Metadata of a series", dependencies=_READ, **_METADATA)
def get_metadata_of_series(request: Request, archive: TheArchive, by: By, *, study: Study, series: Series) -> Response:
    """What all instances of a series say, without their bulk data (WADO-RS)."""
    return _metadata(request, archive, by, [archive.series(study, series)])


@reads(
    dicomweb,
    "/studies/{study}/series/{series}/instances/{instance}/metadata",
    summary="Metadata of an instance",
    dependencies=_READ,
    **_METADATA,
)
def get_metadata_of_instance(request: Request, asked: TheInstance) -> Response:
    """What an instance says, without its bulk data (WADO-RS)."""
    return _metadata(request, asked.archive, asked.by, [replace(asked.series, instances=[asked.kept])])


def _metadata(request: Request, archive: Archive, by: Actor, found: Sequence[KeptSeries]) -> Response:
    _check_json(request)
    base = base_of(request)
    for series in found:
        _note_read(archive.service, by, series.job, f"metadata {series.modality}, {len(series.instances)} instance(s)")

    def texts() -> Iterator[bytes]:
        before = b"["
        for series in found:
            for kept in series.instances:
                address = f"{qido.address(base, series, kept)}/bulkdata"
                yield before + orjson.dumps(to_json(archive.dataset(kept), address))
                before = b","
        yield b"]"

    if request.method == "HEAD":
        return Response(media_type=JSON, headers=PRIVATE)
    return StreamingResponse(texts(), media_type=JSON, headers=PRIVATE)


@reads(
    dicomweb,
    "/studies/{study}/series/{series}/instances/{instance}/frames/{numbers}",
    summary="Retrieve frames",
    dependencies=_READ,
    **_FRAMES,
)
def retrieve_frames(
    request: Request,
    service: Here,
    asked: TheInstance,
    numbers: Annotated[str, Path(description="numbers of frames from 1, by commas, each once")],
) -> Response:
    """Frames of an image (WADO-RS).

    Compressed as they are stored or as pixels in little endian.
    """
    dataset = asked.archive.dataset(asked.kept)
    kind, content = frames(dataset, frame_numbers(numbers, dataset), to_accepted(request.headers.get("accept")))
    if asked.archive.memory.is_first_look(asked.by.id, asked.series):  # a viewer asks for every slice
        _note_read(service, asked.by, asked.kept.job, f"frames {asked.series.modality}")
    return _parts(request, kind.split(";")[0], ((kind, frame, "") for frame in content))


@reads(
    dicomweb,
    "/studies/{study}/series/{series}/instances/{instance}/bulkdata/{tag}",
    summary="Retrieve bulk data",
    dependencies=_READ,
    **_BULK,
)
def retrieve_bulk_data(
    request: Request,
    service: Here,
    asked: TheInstance,
    tag: Annotated[str, Path(pattern=r"^[0-9A-F]{8}$", description="the element, as metadata name it")],
) -> Response:
    """The value of an element that has an address (WADO-RS).

    Metadata give it: of pixels those in little endian.
    """
    content = _bulk(asked.archive, asked.kept, int(tag, 16))
    accepted = to_accepted(request.headers.get("accept"))
    kind = next((one for one in accepted if covers(one.media_type, OCTETS)), None)
    if kind is None:
        raise NotAcceptable(offered=[OCTETS, f'{MULTIPART}; type="{OCTETS}"'])
    asked.note_read(service, "bulk data")
    if kind.multipart:
        return _parts(request, OCTETS, iter([(OCTETS, content, "")]))
    return Response(content, media_type=OCTETS, headers=PRIVATE)


def _bulk(archive: Archive, kept: Kept, tag: int) -> bytes:
    dataset = archive.dataset(kept)
    if tag not in BULK or tag not in dataset:
        raise NotKept(what="bulk data")
    if dataset[tag].keyword != "PixelData":
        return bytes(dataset[tag].value)
    return b"".join(native_frames(dataset))


def _note_read(service: Service, by: Actor, job: Job, what: str) -> None:
    """Write into the audit log who is given what, before it is given."""
    audit.record(service.database, Event(Action.RESULT_READ, by, job.id, audit.to_text(job.model), f"dicomweb {what}"))

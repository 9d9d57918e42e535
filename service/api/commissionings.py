"""Commissionings.

What finished jobs of past patients say of a model, before it draws a new one.

A past patient is an ordinary job: a series posted with its approved RTSTRUCT. So no caller names a folder of this machine, there
is no second door for gigabytes, and queue, progress, retries and retention are those of jobs (ADR 33).
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from io import BytesIO
from typing import Annotated, Any, Final

import anyio.to_thread
import pydicom
from fastapi import APIRouter, Path, Query
from starlette.responses import Response

from oarlock.commissioning.cases import WANTED, choose, is_approved, key_of
from oarlock.commissioning.summary import summarise_cases
from oarlock.errors import InvalidParameter, JobExpired, JobNotFound, OarlockError
from oarlock.facts import ModelFacts
from oarlock.organs.catalogue import BY_NAME
from oarlock.pictures.overlay import overlay, worst_slice
from oarlock.pictures.slice_archive import load_rendering
from oarlock.reporting.commissioning import PICTURES, to_html
from oarlock.reporting.contents import PIXELS, caption_of, data_url
from oarlock.reporting.page import POLICY
from oarlock.scopes import Scope
from oarlock.store import audit
from oarlock.store.audit import Actor
from oarlock.store.files import RENDERING
from oarlock.store.job_rows import PURGED_MODEL
from oarlock.store.jobs import Job, JobId, JobState
from oarlock.store.scores.write import Origin
from service.api.dependencies import PRIVATE, By, Caller, Here, needs
from service.api.openapi import JOB_ID, NO_RESULT, Call, json_answer, problems
from service.api.qa_report import qa_report, reference_file
from service.api.reports import drawn_by_reference
from service.api.results import read_event
from service.api.routing import reads
from service.api.schemas.commissioning import (
    MOST,
    AskedCommissioning,
    Commissioning,
    CommissioningEntry,
    CommissioningPost,
    Commissionings,
)
from service.api.schemas.qa_report import DrawnBy
from service.container import Service
from service.delivery import kept_header

commissionings = APIRouter(prefix="/v1/commissionings", tags=["qa"])

_SPREAD: Final = {"n": 24, "mean": 0.91, "sd": 0.03, "lowest": 0.84, "highest": 0.96, "mean_low": 0.897, "mean_high": 0.923}
_ORGAN: Final = {
    "oar": "Parotid_L",
    "n": 24,
    "missed": 0,
    "red": 1,
    "surface_dsc": _SPREAD | {"limit": 0.8379},
    **dict.fromkeys(("volumetric_dsc", "hausdorff_95_mm", "added_path_length_mm", "change", "missed_by")),
    "surface_dsc_scores": [0.91, 0.94, 0.88],
    "surface_dsc_by_scanner": {"SIEMENS SOMATOM Confidence CT1": [0.91, 0.94, 0.88]},
    "action_levels": {"surface_dsc": 0.83},
}
_EXAMPLE: Final = {
    "model": "oarlock-hn 1.0.0 (9f9f9f9f9f9f)",
    "drawn_by": {"name": "oarlock-hn", "version": "1.0.0", "sha256": "9f" * 32},
    "sha256": "9f" * 32,
    "patients": 24,
    "approved": 24,
    "waiting": 3,
    "left_out": [{"job_id": JOB_ID, "state": "failed", "reason": "The session ran out of memory."}],
    "organs": [_ORGAN],
}


def _several_models() -> InvalidParameter:
    return InvalidParameter(name="jobs", reason="must be jobs of one model; these were drawn by several")


_CALL: Final[Call] = {
    "responses": {
        200: json_answer("What the jobs come to", _EXAMPLE, "Commissioning"),
        **problems(*NO_RESULT, JobNotFound(), _several_models()),
    }
}
_CALL["responses"][200]["content"]["text/html"] = {"schema": {"type": "string"}, "example": "<!doctype html>…"}


_FORMAT: Final = Query(alias="format", pattern="^(json|html)$", description="json, or html for the report with pictures")


@commissionings.post(
    "",
    summary="Judge a model by past patients",
    response_model=Commissioning,
    dependencies=[needs(Scope.JOBS_READ)],
    **_CALL,
)
async def post_commissioning(
    service: Here, caller: Caller, by: By, asked: CommissioningPost, *, format_: Annotated[str, _FORMAT] = "json"
) -> Response:
    """Say what jobs that came with approved RTSTRUCTs come to.

    Scores by organ, their spread, limits and proposed action levels. Jobs that have not ended are counted in `waiting`; what
    cannot be used is named. Nothing is kept.
    """
    answer = partial(_answer, service, asked, format_, site=caller.site, by=by)
    return await anyio.to_thread.run_sync(answer, limiter=service.comparison_threads)


_ENTRY: Final = {
    "label": "commissioning 2026-03",
    "site": "north",
    "drawn_by": {"name": "oarlock-hn", "version": "1.0.0", "sha256": "9f" * 32},
    "jobs": 27,
    "waiting": 3,
    "first_at": "2026-03-05T12:00:00.000Z",
    "last_at": "2026-03-05T12:10:00.000Z",
}
_LIST: Final[Call] = {
    "responses": {200: json_answer("The commissionings", {"commissionings": [_ENTRY]}, "Commissionings"), **problems()}
}


@reads(
    commissionings,
    "",
    summary="List commissionings",
    response_model=Commissionings,
    dependencies=[needs(Scope.JOBS_READ)],
    **_LIST,
)
def list_commissionings(service: Here, caller: Caller) -> Response:
    """Past patients' jobs, by label, site and model.

    A commissioning is jobs of several series with one label, some of which came with an RTSTRUCT.
    """
    entries = [
        CommissioningEntry(
            label=one.label,
            site=one.site,
            drawn_by=DrawnBy.model_validate(asdict(one.model)),
            **{name: getattr(one, name) for name in ("jobs", "waiting", "first_at", "last_at")},
        )
        for one in service.store.labelled(site=caller.site, limit=MOST)
    ]
    content = Commissionings(commissionings=entries).model_dump_json()
    return Response(content, media_type="application/json", headers=PRIVATE)


@reads(
    commissionings,
    "/{model_sha256}",
    summary="Look at a commissioning",
    response_model=Commissioning,
    dependencies=[needs(Scope.JOBS_READ)],
    **_CALL,
)
async def get_commissioning(
    service: Here,
    caller: Caller,
    by: By,
    model_sha256: Annotated[str, Path(description="SHA-256 of the model")],
    asked: Annotated[AskedCommissioning, Query()],
) -> Response:
    """Say what the jobs of a model with one label come to.

    As `POST /v1/commissionings` does of jobs by their ids; with the same report.
    """

    def answer() -> Response:
        sites = {site for site in (caller.site or None, asked.site) if site is not None}
        jobs = _of_label(service, asked.label, model_sha256, sites)
        label = asked.against_label or asked.label
        against = _of_label(service, label, asked.against, sites) if asked.against else []
        found = CommissioningPost(jobs=jobs, against=against, unapproved=asked.unapproved)
        return _answer(service, found, asked.format, site=caller.site, by=by)

    return await anyio.to_thread.run_sync(answer, limiter=service.comparison_threads)


def _of_label(service: Service, label: str, model_sha256: str, sites: Collection[str]) -> list[str]:
    """The ids of the jobs of one commissioning.

    :param sites: the caller's and the one asked for, where there are such; a job must be of all of them.
    :raises JobNotFound: if there are none.
    :raises InvalidParameter: if they are too many to be judged in one go.
    """
    found = service.store.of_label(label, model_sha256, sites=sites, limit=MOST + 1)
    if not found:
        raise JobNotFound(by="label and model")
    if len(found) > MOST:
        raise InvalidParameter(name="label", reason=f"must be the label of at most {MOST} jobs of this model")
    return list(found)


def _answer(service: Service, asked: CommissioningPost, kind: str, *, site: str, by: Actor) -> Response:
    """What some jobs come to, as JSON or as the report."""
    ours = _judged(service, asked.jobs, site, unapproved=asked.unapproved)
    theirs = _judged(service, asked.against, site, unapproved=asked.unapproved)
    read = (read_event(case.job, by, "commissioning", case.key.encode()) for case in (*ours.cases, *theirs.cases))
    audit.record(service.database, *read)
    cases, earlier = ([one.to_json() for one in judged.cases] for judged in (ours, theirs))
    summary = _summary(ours, summarise_cases(cases, earlier))
    if kind == "json":
        content = Commissioning.model_validate(summary).model_dump_json()
        return Response(content, media_type="application/json", headers=PRIVATE)
    html = to_html(summary, list(_pictures(service, ours.cases)), [one["reason"] for one in ours.left_out])
    return Response(html, media_type="text/html; charset=utf-8", headers=PRIVATE | {"Content-Security-Policy": POLICY})


@dataclass(frozen=True, slots=True)
class _Case:
    """A past patient.

    :ivar comparison: with the RTSTRUCT that it is judged by, as in the QA report.
    """

    key: str
    job: Job
    comparison: Mapping[str, Any]
    verdicts: Mapping[str, str]
    approved: bool
    scanner: str

    @property
    def rows(self) -> list[Mapping[str, Any]]:
        return [row for row in self.comparison["oars"] if row["presence"] != "neither"]

    def to_json(self) -> dict[str, Any]:
        """As :func:`oarlock.commissioning.summary.summarise_cases` takes it."""
        return {"key": self.key, "scanner": self.scanner, "oars": self.rows, "verdicts": self.verdicts}


@dataclass(frozen=True, slots=True)
class _Judged:
    """What jobs come to, before it is summed up.

    :ivar model: which drew them.
    """

    cases: Sequence[_Case]
    left_out: Sequence[Mapping[str, str]]
    waiting: int
    model: ModelFacts


def _judged(service: Service, ids: Sequence[str], site: str, *, unapproved: bool) -> _Judged:
    """The jobs, and which of them count.

    :raises JobNotFound: if there is no job of an id that the caller may see.
    :raises JobExpired: if all of them were purged.
    :raises InvalidParameter: if several models drew them.
    """
    found = service.store.several([JobId(one) for one in ids])
    jobs = [found[JobId(one)] for one in dict.fromkeys(ids) if JobId(one) in found and found[JobId(one)].is_seen_by(site)]
    if len(jobs) < len(set(ids)):
        raise JobNotFound
    drawn_by = {job.model.sha256: job.model for job in jobs if job.purged_at is None}  # a purged job does not say by which model
    if len(drawn_by) > 1:
        raise _several_models()
    if jobs and not drawn_by:
        raise JobExpired
    cases: dict[str, _Case] = {}
    left_out: list[dict[str, str]] = []
    for job in jobs:
        if job.state is JobState.SUCCEEDED:
            case = _case_or_reason(service, job, unapproved=unapproved)
            if isinstance(case, _Case) and case.key in cases:
                case = f"It is the same series and RTSTRUCT as job {cases[case.key].job.id}."
            if isinstance(case, _Case):
                cases[case.key] = case
            else:
                left_out.append({"job_id": job.id, "state": job.state, "reason": case})
        elif job.state.ended:
            left_out.append(
                {"job_id": job.id, "state": job.state, "reason": job.error.detail if job.error else "It was cancelled."}
            )
    waiting = sum(not job.state.ended for job in jobs)
    return _Judged(list(cases.values()), left_out, waiting, next(iter(drawn_by.values()), PURGED_MODEL))


def _case_or_reason(service: Service, job: Job, *, unapproved: bool) -> _Case | str:
    """A finished job as a past patient; or why it is none."""
    if job.purged_at is not None:
        return JobExpired().detail
    try:
        return _case(service, job, unapproved=unapproved)
    except OarlockError as error:  # its results are gone
        return error.detail


def _case(service: Service, job: Job, *, unapproved: bool) -> _Case | str:
    report = qa_report(service, job).model_dump(mode="json")
    supplied = [one for one in report["comparisons"] if one["origin"] == Origin.SUPPLIED and one["file"]]
    if not supplied:
        return "No RTSTRUCT came with it that could be compared."
    heads = [_head(reference_file(service, job, Origin.SUPPLIED, one["position"])) for one in supplied]
    place, reason = choose(heads, unapproved=unapproved)
    if place is None:
        return reason
    verdicts = {organ["oar"]: organ["verdict"] for organ in report["organs"]}
    key = key_of(report["series_instance_uid"], heads[place])
    scanner = kept_header(job.id, service.settings, service.storage).scanner
    return _Case(key, job, supplied[place], verdicts, is_approved(heads[place]), scanner)


def _head(content: bytes) -> Any:
    return pydicom.dcmread(BytesIO(content), stop_before_pixels=True, specific_tags=list(WANTED))


def _summary(ours: _Judged, organs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    model = ours.model
    return {
        "model": f"{model.name} {model.version} ({model.sha256[:12]})",
        "drawn_by": asdict(model),
        "sha256": model.sha256,
        "patients": len(ours.cases),
        "approved": sum(case.approved for case in ours.cases),
        "waiting": ours.waiting,
        "left_out": list(ours.left_out),
        "organs": organs,
    }


def _pictures(service: Service, cases: Sequence[_Case]) -> Iterator[dict[str, Any]]:
    """Of each organ the patient with the lowest score, the worst organs first."""
    rows = [(row["surface_dsc"] or 0.0, row["oar"], case, row) for case in cases for row in case.rows]
    shown: set[str] = set()
    for score, oar, case, row in sorted(rows, key=lambda one: one[:2]):
        if oar in shown or len(shown) == PICTURES or row["presence"] == "read_in_part" or score == 1.0:
            continue
        shown.add(oar)
        rendering = load_rendering(service.storage.result(case.job.id, RENDERING))
        reference = drawn_by_reference(service, case.job, case.comparison)
        z = worst_slice(rendering, BY_NAME[oar], reference)
        address = data_url(overlay(rendering, BY_NAME[oar], z, reference, PIXELS), "image/jpeg")
        yield {"oar": oar, "caption": caption_of(row), "address": address, "score": score}

"""Routes of baselines: what models scored on a site's past patients."""

from typing import Final

from fastapi import APIRouter
from starlette.responses import Response

from oarlock import errors
from oarlock.facts import ModelFacts
from oarlock.organs.catalogue import BY_NAME
from oarlock.scopes import Scope
from oarlock.store.scores.baselines import Baseline, KeptBaseline
from service.api.dependencies import PRIVATE, By, Caller, Here, needs
from service.api.openapi import Call, json_answer, problems
from service.api.routing import reads
from service.api.schemas.qa import BaselineEntry, BaselineModel, BaselineOrgan, BaselinePost, Baselines

baselines = APIRouter(prefix="/v1/qa/baselines", tags=["qa"])


def _unknown() -> errors.InvalidParameter:
    return errors.InvalidParameter(
        name="oar", reason="must be the TG-263 name of an organ that this server draws (GET /v1/models)"
    )


_ENTRY: Final = {
    "at": "2026-03-05T12:10:00.000Z",
    "by": "marta",
    "site": "",
    "drawn_by": {"name": "oarlock-hn", "version": "1.0.0", "sha256": "9f" * 32},
    "patients": 3,
    "organs": [
        {
            "oar": "Parotid_L",
            "surface_dsc_scores": [0.91, 0.94, 0.88],
            "surface_dsc_by_scanner": {"SIEMENS SOMATOM Confidence CT1": [0.91, 0.94, 0.88]},
        }
    ],
}
_KEPT: Final[Call] = {
    "responses": {200: json_answer("The baselines that count now", {"baselines": [_ENTRY]}, "Baselines"), **problems(_unknown())}
}
_LIST: Final[Call] = {"responses": {200: json_answer("The baselines", {"baselines": [_ENTRY]}, "Baselines"), **problems()}}


@baselines.post("", summary="Keep a baseline", response_model=Baselines, dependencies=[needs(Scope.QA_WRITE)], **_KEPT)
def post_baseline(service: Here, caller: Caller, by: By, told: BaselinePost) -> Response:
    """Begin a model's control charts with its scores on past patients.

    The body is the `commissioning.json` of `oarlock commission`, or the answer of `POST /v1/commissionings`. The newest of a
    model and site counts: a site's own for that site, an operator's for each site that has none.
    """
    if not all(organ.oar in BY_NAME for organ in told.organs):
        raise _unknown()
    model = ModelFacts(told.drawn_by.name, told.drawn_by.version, told.drawn_by.sha256)
    scores = {organ.oar: organ.surface_dsc_scores for organ in told.organs}
    by_scanner = {organ.oar: organ.surface_dsc_by_scanner for organ in told.organs}
    service.qa_store.keep_baseline(Baseline(model, told.patients, scores, caller.site, by_scanner), by=by)
    return _answer(service.qa_store.baselines(caller.site))


@reads(baselines, "", summary="List baselines", response_model=Baselines, dependencies=[needs(Scope.QA_READ)], **_LIST)
def list_baselines(service: Here, caller: Caller) -> Response:
    """What models scored on past patients.

    The newest of each model and site.
    """
    return _answer(service.qa_store.baselines(caller.site))


def _answer(found: list[KeptBaseline]) -> Response:
    entries = [
        BaselineEntry(
            at=one.at,
            by=one.by,
            site=one.baseline.site,
            drawn_by=BaselineModel.model_validate(one.baseline.model, from_attributes=True),
            patients=one.baseline.patients,
            organs=[_organ(one.baseline, oar) for oar in one.baseline.scores],
        )
        for one in found
    ]
    return Response(Baselines(baselines=entries).model_dump_json(), media_type="application/json", headers=PRIVATE)


def _organ(baseline: Baseline, oar: str) -> BaselineOrgan:
    by_scanner = {scanner: list(scores) for scanner, scores in baseline.of_scanners.get(oar, {}).items()}
    return BaselineOrgan(oar=oar, surface_dsc_scores=list(baseline.scores[oar]), surface_dsc_by_scanner=by_scanner)

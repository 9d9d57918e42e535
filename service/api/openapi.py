"""The OpenAPI side of every call: what it takes and answers, with an example of each answer.

The examples of problems are made from the errors themselves, so that they cannot differ from what is sent.
"""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute

from oarlock import errors
from oarlock.errors import OarlockError
from oarlock.qa.control_chart import MEANING
from service import errors as refusals
from service.api.problems import MEDIA_TYPE, describe
from service.api.schemas import Problem
from service.intake import multipart as uploads

_JOB_ID: Final = "0e9c1f9a-7a49-4d0c-9f0e-3c1f6a1f2f11"
_HERE: Final = f"/v1/jobs/{_JOB_ID}"
_REQUEST: Final = "urn:uuid:4b1f0a52-5e0e-4c57-8a39-0f4f7a0b9a55"

_QUEUED: Final[dict[str, Any]] = {
    "id": _JOB_ID,
    "state": "queued",
    "stage": None,
    "progress": 0.0,
    "queue_position": 3,
    "priority": "normal",
    "attempts": 0,
    "series": {
        "study_instance_uid": "2.25.1001",
        "series_instance_uid": "2.25.1002",
        "frame_of_reference_uid": "2.25.1003",
        "slices": 156,
        "spacing_mm": [2.5, 0.977, 0.977],
    },
    "model": {"name": "oarlock-hn", "version": "1.0.0", "sha256": "9f" * 32},
    "created_at": "2026-03-05T12:00:00.000Z",
    "started_at": None,
    "finished_at": None,
    "warnings": [],
    "error": None,
    "links": {
        "self": _HERE,
        "rtstruct": f"{_HERE}/rtstruct",
        "qa": f"{_HERE}/qa",
        "preview": f"{_HERE}/preview.png",
        "cancel": f"{_HERE}/cancel",
    },
}
_RUNNING: Final = _QUEUED | {
    "state": "running",
    "stage": "inferring",
    "progress": 0.42,
    "queue_position": None,
    "attempts": 1,
    "started_at": "2026-03-05T12:00:01.000Z",
}
_SUCCEEDED: Final = _RUNNING | {
    "state": "succeeded",
    "stage": None,
    "progress": 1.0,
    "finished_at": "2026-03-05T12:00:31.000Z",
}
_CANCELLED: Final = _SUCCEEDED | {"state": "cancelled", "progress": 0.42}
_QA: Final[dict[str, Any]] = {
    "definition": "surface-dsc/1",
    "series_instance_uid": "2.25.1002",
    "comparisons": [
        {
            "definition": "surface-dsc/1",
            "series_instance_uid": "2.25.1002",
            "predicted": {"sop_instance_uid": "2.25.2001", "label": "OARLOCK"},
            "reference": {"sop_instance_uid": "2.25.2002", "label": "CLINICAL"},
            "oars": [
                {
                    "oar": "Parotid_L",
                    "matched_roi": "LT PAROTID",
                    "presence": "both",
                    "tolerance_mm": 2.85,
                    "tolerance_rounded_mm": 2.856,
                    "surface_dsc": 0.94,
                    "surface_dsc_unrounded": 0.94,
                    "volumetric_dsc": 0.87,
                    "hausdorff_95_mm": 3.3,
                    "hausdorff_mm": 6.1,
                    "mean_surface_distance_mm": 0.8,
                    "mean_distance_predicted_to_reference_mm": 0.7,
                    "mean_distance_reference_to_predicted_mm": 0.9,
                    "added_path_length_mm": 120.0,
                    "predicted_volume_ml": 30.1,
                    "reference_volume_ml": 29.4,
                    "volume_ratio": 1.024,
                    "centre_distance_mm": 1.2,
                    "predicted_slices": 18,
                    "reference_slices": 17,
                    "one_sided_slice_share": 0.056,
                    "reason": None,
                    "tolerance_source": "paper",
                    "predicted_cut_by_scan": False,
                    "reference_cut_by_scan": False,
                }
            ],
            "unmatched_reference_rois": ["PTV70"],
            "ambiguous_reference_rois": [],
            "unmatched_predicted_rois": [],
            "ambiguous_predicted_rois": [],
            "warnings": [
                {"code": "structure_set.roi_partly_used", "detail": "Reference RTSTRUCT: ROI number 7: it has no contours."}
            ],
        }
    ],
    "checks": [
        {
            "code": "organ.volume",
            "oar": "Brain",
            "level": "red",
            "reason": "Brain: too small. 33.8 ml drawn; experts drew 1140 ml to 1700 ml.",
            "value": 33.8,
            "low": 1138.0,
            "high": 1697.7,
            "unit": "ml",
        }
    ],
    "observers": [
        {
            "oar": "Parotid_L",
            "observers": 2,
            "pairs": 1,
            "surface_dsc": {
                "ours": {"lowest": 0.91, "median": 0.925, "highest": 0.94},
                "between": {"lowest": 0.9, "median": 0.9, "highest": 0.9},
            },
            "volumetric_dsc": {
                "ours": {"lowest": 0.85, "median": 0.86, "highest": 0.87},
                "between": {"lowest": 0.84, "median": 0.84, "highest": 0.84},
            },
            "hausdorff_95_mm": {
                "ours": {"lowest": 3.3, "median": 3.6, "highest": 3.9},
                "between": {"lowest": 4.1, "median": 4.1, "highest": 4.1},
            },
            "mean_surface_distance_mm": {
                "ours": {"lowest": 0.8, "median": 0.85, "highest": 0.9},
                "between": {"lowest": 1.0, "median": 1.0, "highest": 1.0},
            },
            "within_observers": True,
            "reason": None,
        }
    ],
    "not_compared": [
        {
            "position": 2,
            "code": errors.FrameOfReferenceMismatch.code,
            "detail": errors.FrameOfReferenceMismatch().detail,
        }
    ],
}
_MODEL: Final[dict[str, Any]] = {
    "name": "oarlock-hn",
    "version": "1.0.0",
    "sha256": "9f" * 32,
    "licence": "Apache-2.0",
    "description": "21 organs at risk of the head and neck on planning CT",
    "default": True,
    "oars": ["Brain", "Brainstem"],
    "spacing_mm": [2.5, 2.0, 2.0],
    "training": {"data": "where the training series came from"},
    "results": {},
    "limits": ["children"],
}
_PROFILE: Final[dict[str, Any]] = {
    "name": "eclipse",
    "description": "Varian Eclipse",
    "default": False,
    "label": "OARLOCK {date}",
    "series_description": "Oarlock contours (UNAPPROVED)",
    "empty_rois": "keep",
    "max_name_length": 16,
    "max_points": None,
    "max_deviation_mm": 0.3,
    "ordered": False,
    "rois": [{"oar": "Parotid_L", "name": "Parotid_L", "colour": [255, 160, 60]}],
}
_READY: Final = {"ready": True, "detail": None}
_NO_WORKER: Final = "no worker was heard of in the last 30 s, and 3 job(s) wait"
_DEPENDENCIES: Final = dict.fromkeys(("database", "broker", "storage", "workers", "model"), _READY)

_ACCESS: Final = (
    refusals.Unauthenticated(),
    refusals.InvalidToken(),
    refusals.Forbidden(scopes=["jobs:read"]),
    refusals.RateLimited(retry_after_s=3),
    refusals.IssuerUnavailable(),
)
_NOT_FOUND: Final = (errors.JobNotFound(), errors.JobExpired())
_NO_RESULT: Final = (*_NOT_FOUND, errors.JobNotFinished(state="running"), errors.ResultNotFound(what="rendering.npz"))
_DATABASE: Final = errors.DatabaseUnavailable()
_INTERNAL: Final = errors.InternalError(reference="4b1f0a52-5e0e-4c57-8a39-0f4f7a0b9a55")

Call = dict[str, Any]


def _problem(error: OarlockError) -> dict[str, Any]:
    return describe(error.code, error.title, error.detail) | {"instance": _REQUEST}


def _problems(*found: OarlockError) -> dict[int | str, dict[str, Any]]:
    """One entry a status, one example an error."""
    examples: defaultdict[int, dict[str, Any]] = defaultdict(dict)
    for error in (*found, *_ACCESS, _DATABASE, _INTERNAL):
        document = _problem(error)
        examples[document["status"]][error.code] = {"summary": error.title, "value": document}
    schema = {"$ref": "#/components/schemas/Problem"}
    return {
        status: {
            "description": HTTPStatus(status).phrase,
            "content": {MEDIA_TYPE: {"schema": schema, "examples": by_code}},
        }
        for status, by_code in sorted(examples.items())
    }


def _json(description: str, example: object, model: str, headers: Mapping[str, str] | None = None) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "description": description,
        "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{model}"}, "example": example}},
    }
    if headers:
        answer["headers"] = {name: {"description": text, "schema": {"type": "string"}} for name, text in headers.items()}
    return answer


def _accepted(description: str, example: object) -> dict[str, Any]:
    headers = {"Location": "address of the job", "Retry-After": "seconds after which to look at it"}
    return _json(description, example, "JobDocument", headers)


def _bytes(description: str, media_type: str, example: object = None) -> dict[str, Any]:
    content: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
    if example is not None:
        content = {"schema": {"type": "object" if isinstance(example, dict) else "string"}, "example": example}
    return {"description": description, "content": {media_type: content}}


def _scores(row: Mapping[str, Any]) -> dict[str, Any]:
    """A page of scores, as JSON or as CSV."""
    values = ("" if value is None else str(value) for value in row.values())
    lines = {"schema": {"type": "string"}, "example": f"{','.join(row)}\r\n{','.join(values)}\r\n"}
    answer = _json("A page of rows", {"scores": [row], "next": None}, "ScorePage", {"Link": "the next page, where there is one"})
    answer["content"]["text/csv"] = lines
    return answer


_NOT_MODIFIED: Final = {"description": "The result is the one whose ETag was sent as If-None-Match"}

_FORM: Final = {
    "type": "object",
    "required": ["files"],
    "additionalProperties": False,
    "properties": {
        "files": {
            "type": "array",
            "minItems": 1,
            "items": {"type": "string", "format": "binary"},
            "description": "DICOM Part 10 files and zip archives of them, in any order: one CT series, RTSTRUCTs to compare with",
        },
        "model": {"type": "string", "description": "name of a model (GET /v1/models)"},
        "profile": {"type": "string", "description": "name of a site profile (GET /v1/profiles)"},
        "priority": {"type": "string", "enum": ["urgent", "normal", "low"], "default": "normal"},
        "callback_url": {"type": "string", "description": "refused unless the operator allows its host"},
    },
}
_RTSTRUCT: Final = {"type": "string", "format": "binary", "description": "one RTSTRUCT"}
_COMPARISON_FORM: Final = {
    "type": "object",
    "required": ["files", "predicted", "reference"],
    "additionalProperties": False,
    "properties": {
        "files": {
            "type": "array",
            "minItems": 1,
            "items": {"type": "string", "format": "binary"},
            "description": "DICOM Part 10 files and zip archives of them, in any order: one CT series",
        },
        "predicted": _RTSTRUCT,
        "reference": _RTSTRUCT,
    },
}
_ARCHIVE: Final = {"schema": {"type": "string", "format": "binary"}}

_REFUSALS: Final = (
    refusals.UploadMalformed(reason="its closing boundary is missing, so it was cut off"),
    errors.IdempotencyConflict(),
    refusals.UploadTooLarge(limit=4_000_000_000, unit="bytes"),
    refusals.UnsupportedMediaType(accepted=uploads.JOB.accepted),
    refusals.UploadEmpty(),
    refusals.ArchiveInvalid(reason="a member's name leads out of the archive"),
    errors.InvalidParameter(name="priority", reason="must be one of urgent, normal, low"),
    errors.UnknownModel(available=["oarlock-hn"]),
    errors.UnknownProfile(available=["eclipse", "generic"]),
    errors.ProfileNotWritable(profile="site", oar="Parotid_L"),
    errors.NotDicom(files=1),
    errors.InstanceUnreadable(position=7, reason="it ends in the middle of an element"),
    errors.NoCTImages(found=["MR Image Storage"]),
    errors.MixedSeries(images=[120, 36]),
    errors.TooFewSlices(found=1, needed=3),
    errors.MissingSlices(expected_mm=2.5, found_mm=5.0, at_slice=37),
    refusals.UploadStalled(limit_s=60),
    refusals.ServiceBusy(),
    refusals.BrokerUnavailable(),
    errors.StorageFull(),
)

_OF_JOBS_ALONE: Final = (errors.RequestError, errors.JobError, refusals.BrokerUnavailable, refusals.UnsupportedMediaType)

POST_JOB: Final[Call] = {
    "responses": {202: _accepted("The series was taken in and will be contoured", _QUEUED), **_problems(*_REFUSALS)},
    "openapi_extra": {
        "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": _FORM}, "application/zip": _ARCHIVE}}
    },
}
LIST_JOBS: Final[Call] = {
    "responses": {
        200: _json("A page of jobs", {"jobs": [_SUCCEEDED], "next": None}, "JobPage"),
        **_problems(errors.InvalidParameter(name="cursor", reason="is not a cursor that this server gave")),
    }
}
GET_JOB: Final[Call] = {"responses": {200: _json("The job", _RUNNING, "JobDocument"), **_problems(*_NOT_FOUND)}}
EVENTS: Final[Call] = {
    "responses": {
        200: {
            "description": "Events until the job ends, each of which this schema describes",
            "content": {
                "text/event-stream": {
                    "schema": {
                        "type": "object",
                        "required": ["event", "id", "data"],
                        "properties": {
                            "event": {"type": "string", "enum": ["progress", "end"]},
                            "id": {"type": "string", "description": "to be sent as Last-Event-ID"},
                            "data": {
                                "type": "string",
                                "contentMediaType": "application/json",
                                "contentSchema": {"$ref": "#/components/schemas/JobDocument"},
                            },
                        },
                    },
                    "example": {"event": "progress", "id": "1", "data": json.dumps(_RUNNING, separators=(",", ":"))},
                }
            },
        },
        204: {"description": "The job has ended, and the caller knows (Last-Event-ID: end)"},
        **_problems(*_NOT_FOUND),
    }
}
CANCEL: Final[Call] = {
    "responses": {
        202: _accepted("The job is cancelled, or will be at its next step", _CANCELLED),
        **_problems(*_NOT_FOUND, errors.JobAlreadyEnded(state="succeeded")),
    }
}
RETRY: Final[Call] = {
    "responses": {
        202: _accepted("The job is queued again", _QUEUED),
        **_problems(*_NOT_FOUND, errors.JobNotRetryable(state="succeeded")),
    }
}
PURGE: Final[Call] = {"responses": {204: {"description": "Nothing of the series is left"}, **_problems(*_NOT_FOUND)}}
RTSTRUCT: Final[Call] = {
    "responses": {200: _bytes("The RTSTRUCT", "application/dicom"), 304: _NOT_MODIFIED, **_problems(*_NO_RESULT)}
}
QA: Final[Call] = {
    "responses": {200: _bytes("The QA report", "application/json", _QA), 304: _NOT_MODIFIED, **_problems(*_NO_RESULT)}
}
COMPARISON: Final[Call] = {
    "responses": {
        200: _bytes("The comparison", "application/json", _QA["comparisons"][0]),
        **_problems(
            *(error for error in _REFUSALS if not isinstance(error, _OF_JOBS_ALONE)),
            refusals.UnsupportedMediaType(accepted=uploads.COMPARISON.accepted),
            refusals.PartMissing(name="reference"),
            errors.StructureSetUnreadable(reason="it is not an RT Structure Set"),
            errors.FrameOfReferenceMismatch(),
        ),
    },
    "openapi_extra": {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": _COMPARISON_FORM}}}},
}
_SCORE: Final[dict[str, Any]] = {
    "at": "2026-03-05T12:00:31.000Z",
    "job_id": _JOB_ID,
    "origin": "supplied",
    "position": 1,
    "model": "oarlock-hn",
    "model_version": "1.0.0",
    "model_sha256": "9f" * 32,
    "scanner": "SIEMENS SOMATOM Confidence CT1",
    "oar": "Parotid_L",
    "presence": "both",
    "definition": "surface-dsc/1",
    "tolerance_mm": 2.85,
    "surface_dsc": 0.94,
    "surface_dsc_unrounded": 0.94,
    "volumetric_dsc": 0.87,
    "hausdorff_95_mm": 3.3,
    "mean_surface_distance_mm": 0.8,
    "added_path_length_mm": 120.0,
    "predicted_volume_ml": 30.1,
    "reference_volume_ml": 29.4,
    "tolerance_rounded_mm": 2.856,
}
_DISTRIBUTION: Final = {
    "n": 2,
    "mean": 0.92,
    "lower_quartile": 0.91,
    "median": 0.92,
    "upper_quartile": 0.93,
    "below_alert": 0.0,
}
_OAR_SUMMARY: Final = {"n": 2, "one_sided": 0, "surface_dsc": _DISTRIBUTION, "volumetric_dsc": _DISTRIBUTION}
_BAD_FILTERS: Final = (
    errors.InvalidParameter(name="from", reason="is neither a day (2026-03-05) nor an RFC 3339 time (2026-03-05T12:00:00Z)"),
)
SCORES: Final[Call] = {
    "responses": {
        200: _scores(_SCORE),
        **_problems(*_BAD_FILTERS, errors.InvalidParameter(name="cursor", reason="is not a cursor that this server gave")),
    }
}
SUMMARY: Final[Call] = {
    "responses": {
        200: _json(
            "The summary",
            {
                "from": "2026-03-01",
                "to": "2026-03-31",
                "bucket": "day",
                "alert_level": 0.8,
                "oars": [
                    {"oar": "Parotid_L"} | _OAR_SUMMARY | {"over_time": [{"start": "2026-03-05"} | _OAR_SUMMARY]},
                ],
            },
            "QASummary",
        ),
        **_problems(*_BAD_FILTERS),
    }
}
REFERENCE: Final[Call] = {
    "responses": {
        200: _bytes("The comparison", "application/json", _QA["comparisons"][0]),
        **_problems(
            *_NO_RESULT,
            refusals.UploadMalformed(reason="its closing boundary is missing, so it was cut off"),
            refusals.UploadTooLarge(limit=4_000_000_000, unit="bytes"),
            refusals.UnsupportedMediaType(accepted=uploads.REFERENCE.accepted),
            refusals.PartMissing(name="reference"),
            errors.StructureSetUnreadable(reason="it is not an RT Structure Set"),
            errors.FrameOfReferenceMismatch(),
            errors.StorageFull(),
        ),
    },
    "openapi_extra": {
        "requestBody": {
            "required": True,
            "content": {
                "application/dicom": _ARCHIVE,
                "multipart/form-data": {
                    "schema": {
                        "type": "object",
                        "required": ["reference"],
                        "additionalProperties": False,
                        "properties": {"reference": _RTSTRUCT},
                    }
                },
            },
        }
    },
}
_DRIFT: Final[dict[str, Any]] = {
    "rules": [{"rule": rule.value, "meaning": meaning} for rule, meaning in MEANING.items()],
    "charts": [
        {
            "oar": "Parotid_L",
            "model": {"name": "oarlock-hn", "version": "1.0.0", "sha256": "9f" * 32},
            "scanner": "SIEMENS SOMATOM Confidence CT1",
            "metric": "surface_dsc",
            "baseline": {"n": 30, "needed": 30, "from": "2026-01-07T09:12:00.000Z", "to": "2026-03-04T16:40:00.000Z"},
            "centre": 0.962,
            "limits": {"lower": 0.871, "upper": 0.999},
            "reason": None,
            "points": [{"at": "2026-03-05T12:00:31.000Z", "job_id": _JOB_ID, "value": 0.84, "alarms": ["beyond_limit"]}],
            "alarms": [{"at": "2026-03-05T12:00:31.000Z", "job_id": _JOB_ID, "rule": "beyond_limit", "side": "lower"}],
        }
    ],
}
DRIFT: Final[Call] = {"responses": {200: _json("The charts", _DRIFT, "Drift"), **_problems(*_BAD_FILTERS)}}
PREVIEW: Final[Call] = {
    "responses": {
        200: _bytes("The picture", "image/png"),
        304: _NOT_MODIFIED,
        **_problems(
            *_NO_RESULT, errors.InvalidParameter(name="slice", reason="is beyond the last slice of the series, which is 156")
        ),
    }
}
MODELS: Final[Call] = {"responses": {200: _json("The models", {"models": [_MODEL]}, "ModelList"), **_problems()}}
PROFILES: Final[Call] = {"responses": {200: _json("The profiles", {"profiles": [_PROFILE]}, "ProfileList"), **_problems()}}
LIVEZ: Final[Call] = {"responses": {200: _json("The process is up", {"status": "alive"}, "Liveness")}}
READYZ: Final[Call] = {
    "responses": {
        200: _json("Everything is ready", {"ready": True} | _DEPENDENCIES, "Readiness"),
        503: {
            "description": "Something is not ready: a problem document that also has the members of the other answer",
            "content": {
                MEDIA_TYPE: {
                    "schema": {"allOf": [{"$ref": f"#/components/schemas/{name}"} for name in ("Problem", "Readiness")]},
                    "example": _problem(refusals.NotReady(reasons={"workers": _NO_WORKER}))
                    | {"ready": False}
                    | _DEPENDENCIES
                    | {"workers": {"ready": False, "detail": _NO_WORKER}},
                }
            },
        },
    }
}
METRICS: Final[Call] = {
    "responses": {200: _bytes("Prometheus text format", "text/plain", 'oarlock_jobs{state="queued"} 3.0\n'), **_problems()}
}


def install(app: FastAPI, routes: Sequence[APIRoute]) -> None:
    """Serve this contract as the application's OpenAPI document."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app, routes)
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]  # the way that FastAPI documents


def _document(app: FastAPI, routes: Sequence[APIRoute]) -> dict[str, Any]:
    found = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    schemas = found["components"]["schemas"]
    schemas["Problem"] = Problem.model_json_schema()
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    for route in routes:
        if route.include_in_schema:
            _replace_answers(route, found["paths"][route.path_format])
    return found


def _replace_answers(route: APIRoute, operations: dict[str, Any]) -> None:
    """FastAPI leaves nulls out of examples and adds answers that this service never gives; what is written here stands."""
    for method in route.methods or ():
        operation = operations[method.lower()]
        operation["responses"] = {str(status): answer for status, answer in route.responses.items()}
        if "security" in operation:
            operation["security"] = _alternatives(operation["security"])


def _alternatives(required: list[dict[str, list[str]]]) -> list[dict[str, list[str]]]:
    """One of the scopes of a call is enough; a list inside one requirement would mean that all are needed."""
    return [{scheme: [scope]} for entry in required for scheme, scopes in entry.items() for scope in scopes] or required

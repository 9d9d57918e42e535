"""The OpenAPI document: builders of answers with examples.

They stand beside each route.

Examples of problems are made from the errors themselves, so they cannot differ from what is sent.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute

from oarlock import errors
from oarlock.errors import OarlockError
from service import errors as refusals
from service.access.bodies import LARGEST_BYTES, LONGEST_S
from service.api.problems import MEDIA_TYPE, describe
from service.api.schemas.base import Problem

JOB_ID: Final = "0e9c1f9a-7a49-4d0c-9f0e-3c1f6a1f2f11"
REQUEST: Final = "urn:uuid:4b1f0a52-5e0e-4c57-8a39-0f4f7a0b9a55"

BINARY: Final = {"schema": {"type": "string", "format": "binary"}}
NOT_MODIFIED: Final = {"description": "The result is the one whose ETag was sent as If-None-Match"}

NOT_FOUND: Final = (errors.JobNotFound(), errors.JobExpired())
NO_RESULT: Final = (*NOT_FOUND, errors.JobNotFinished(state="running"), errors.ResultNotFound(what="rendering.npz"))
_ANYWHERE: Final = (
    refusals.UnknownParameter(known=[]),
    refusals.HostNotAllowed(),
    refusals.CrossSite(),
    refusals.Unauthenticated(),
    refusals.InvalidToken(),
    refusals.Forbidden(scopes=["jobs:read"]),
    refusals.RateLimited(retry_after_s=3),
    refusals.IssuerUnavailable(),
    errors.DatabaseUnavailable(),
    errors.InternalError(reference="4b1f0a52-5e0e-4c57-8a39-0f4f7a0b9a55"),
)

Call = dict[str, Any]
"""What a route is registered with: ``responses``, and ``openapi_extra`` where FastAPI cannot know the body."""


def to_problem(error: OarlockError) -> dict[str, Any]:
    """The problem document of an error, as an example."""
    return describe(error.code, error.title, error.detail) | {"instance": REQUEST}


def problems(*found: OarlockError) -> dict[int | str, dict[str, Any]]:
    """Answers of these errors and of those of every call.

    One entry a status, one example an error.
    """
    examples: defaultdict[int, dict[str, Any]] = defaultdict(dict)
    for error in (*found, *_ANYWHERE):
        document = to_problem(error)
        examples[document["status"]][error.code] = {"summary": error.title, "value": document}
    schema = {"$ref": "#/components/schemas/Problem"}
    return {
        status: {
            "description": HTTPStatus(status).phrase,
            "content": {MEDIA_TYPE: {"schema": schema, "examples": by_code}},
        }
        for status, by_code in sorted(examples.items())
    }


def json_answer(description: str, example: object, model: str, headers: Mapping[str, str] | None = None) -> dict[str, Any]:
    """An answer that is a document.

    :param headers: their names and descriptions.
    """
    answer: dict[str, Any] = {
        "description": description,
        "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{model}"}, "example": example}},
    }
    if headers:
        answer["headers"] = {name: {"description": text, "schema": {"type": "string"}} for name, text in headers.items()}
    return answer


def with_csv(answer: dict[str, Any], example: str) -> dict[str, Any]:
    """A document's answer that can also be had as CSV."""
    answer["content"]["text/csv"] = {"schema": {"type": "string"}, "example": example}
    return answer


def bytes_answer(description: str, media_type: str, example: object = None) -> dict[str, Any]:
    """An answer that is a file."""
    content: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
    if example is not None:
        content = {"schema": {"type": "object" if isinstance(example, dict) else "string"}, "example": example}
    return {"description": description, "content": {media_type: content}}


def form(required: Sequence[str], properties: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of a ``multipart/form-data`` body."""
    return {"type": "object", "required": list(required), "additionalProperties": False, "properties": dict(properties)}


def files_of(description: str) -> dict[str, Any]:
    """The schema of the parts named ``files``."""
    item = {"type": "string", "format": "binary"}
    return {"type": "array", "minItems": 1, "items": item, "description": description}


def file_of(description: str) -> dict[str, Any]:
    """The schema of a part that is one file."""
    return {"type": "string", "format": "binary", "description": description}


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
    """Replace FastAPI's answers: it leaves nulls out of examples, and adds answers that this service never gives."""
    for method in route.methods or ():
        operation = operations[method.lower()]
        operation["responses"] = {str(status): answer for status, answer in route.responses.items()}
        if route.body_field is not None:
            operation["responses"] |= {status: _SMALL_BODY[int(status)] for status in ("408", "413")}
        if "security" in operation:
            operation["security"] = _alternatives(operation["security"])


_SMALL_BODY: Final = problems(refusals.BodyStalled(seconds=LONGEST_S), refusals.BodyTooLarge(limit=LARGEST_BYTES))
"""Answers of calls that take a document; their bodies are read before the caller is known."""


def _alternatives(required: list[dict[str, list[str]]]) -> list[dict[str, list[str]]]:
    """One of the scopes of a call is enough; a list in one requirement would mean that all of them are needed."""
    return [{scheme: [scope]} for entry in required for scheme, scopes in entry.items() for scope in scopes] or required

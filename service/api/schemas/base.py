"""What all documents of the HTTP contract have in common.

Every field is always present; one without a value is null.
"""

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer

from service.times import rfc3339

Time = Annotated[datetime, PlainSerializer(rfc3339, return_type=str)]


class Schema(BaseModel):
    """A document, or a part of one."""

    model_config = ConfigDict(frozen=True, protected_namespaces=(), json_schema_serialization_defaults_required=True)


class Problem(Schema):
    """An RFC 9457 problem document."""

    type: str = Field(description="where this kind of problem is explained")
    title: str
    status: int
    code: str = Field(description="stable code of the error, see docs/api.md")
    detail: str = Field(description="what is wrong, where, and what to do; never patient data")
    instance: str | None = Field(None, description="the request, as the server's log names it")

"""Deliveries of results, as documents."""

import re
from datetime import datetime
from typing import Annotated, Final, Literal, Self

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field

from oarlock.store.deliveries import Delivery, DeliveryState
from service.api.schemas.base import Schema, Time

Place = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._ -]{0,62}$", description="what its operator calls it")]
PLAIN: Final = r"^[^\x00-\x08\x0b-\x1f\x7f]*$"
"""Text without control characters: PostgreSQL keeps no NUL."""

_Result = Literal["rtstruct", "seg", "report"]


_DATE: Final = r"^\d{4}-\d{2}-\d{2}[Tt ]"


def _written_out(value: object) -> object:
    """A time as RFC 3339 writes it: pydantic takes a bare number, too, for seconds since 1970."""
    if isinstance(value, datetime) or (isinstance(value, str) and re.match(_DATE, value)):
        return value
    msg = "must be an RFC 3339 time"
    raise ValueError(msg)


Moment = Annotated[AwareDatetime, BeforeValidator(_written_out)]


class DeliveryEntry(Schema):
    """When and where a result arrived, or why not.

    A result of a job.
    """

    place: str = Field(description="what the operator of the gateway calls it")
    result: _Result
    state: DeliveryState = Field(description="dead: it was given up")
    attempts: int
    note: str | None = Field(description="why it has not arrived")
    at: Time | None = Field(description="when it arrived or was given up")
    gateway: str | None = Field(description="the gateway that carries it; null if who carries it did not say")

    @classmethod
    def of(cls, delivery: Delivery) -> Self:
        return cls.model_validate(delivery, from_attributes=True)


class DeliveryNote(BaseModel):
    """What a carrier of results tells about one of them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    place: Place
    result: _Result
    state: DeliveryState
    attempts: int = Field(ge=0, le=1_000_000, strict=True)
    note: str | None = Field(None, max_length=300, pattern=PLAIN, description="why it has not arrived, without patient data")
    at: Moment | None = Field(None, description="when it arrived or was given up", json_schema_extra={"pattern": _DATE})
    gateway: Place | None = Field(None, description="the gateway that carries it, so that it can be asked to send it again")

    def to_delivery(self) -> Delivery:
        at: datetime | None = self.at
        return Delivery(self.place, self.result, self.state, self.attempts, self.note, at, self.gateway)

"""Health, as documents."""

from collections.abc import Mapping, Sequence
from typing import Literal, Self

from pydantic import Field

from oarlock.scopes import Scope
from service.api.schemas.base import Schema


class Liveness(Schema):
    """The process is up."""

    status: Literal["alive"]


class Dependency(Schema):
    """One thing that a job needs."""

    ready: bool
    detail: str | None = Field(description="what is wrong with it; null if nothing is")


class CallerDocument(Schema):
    """Who calls, and what they may do."""

    id: str = Field(description="as the audit log names them")
    name: str
    site: str | None = Field(description="whose jobs and scores they see; null: those of all sites")
    scopes: list[Scope]
    open: bool = Field(description="whether this server asks programs of its own machine for no key")


class Readiness(Schema):
    """Whether series can be processed, and what is missing if not."""

    ready: bool
    database: Dependency
    broker: Dependency
    storage: Dependency
    workers: Dependency
    model: Dependency
    warnings: list[str] = Field(description="what stops nothing and an operator may not have meant")

    @classmethod
    def of(cls, found: Mapping[str, str | None], warnings: Sequence[str]) -> Self:
        """The document of what :class:`service.monitoring.health.Health` found."""
        entries = {name: Dependency(ready=reason is None, detail=reason) for name, reason in found.items()}
        return cls(ready=not any(found.values()), **entries, warnings=list(warnings))

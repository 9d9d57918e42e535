"""Rows of the job table, to and from values.

And the one conditional UPDATE behind every change of a job.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, RowMapping, select, update

from oarlock.errors import JobExpired, OarlockError
from oarlock.facts import ModelFacts, Notice, SeriesFacts
from oarlock.store import audit
from oarlock.store.audit import Action, Actor, Event
from oarlock.store.jobs import Job, JobFailure, JobId, JobState, Priority, Stage
from oarlock.store.schema import JOBS

PURGED_SERIES: Final = SeriesFacts("", "", "", 0, (0.0, 0.0, 0.0))
PURGED_MODEL: Final = ModelFacts("", "", "")
"""What a purged job still says of its series and its model: nothing."""

IDLE: Final[dict[str, Any]] = {"stage": None, "stage_since": None, "worker": None, "lease_until": None}
"""A job that no worker holds."""

AGAIN: Final[dict[str, Any]] = IDLE | {
    "state": JobState.QUEUED,
    "sent_at": None,
    "finished_at": None,
    "error_code": None,
    "error_title": None,
    "error_detail": None,
}
"""A job that goes back into the queue."""

FRESH: Final[dict[str, Any]] = AGAIN | {
    "progress": 0.0,
    "attempts": 0,
    "lease_token": 0,
    "cancel_requested": False,
    "result_warnings": "[]",
}
"""A new job."""


def change(connection: Connection, job_id: JobId, condition: ColumnElement[bool], values: Mapping[str, Any]) -> bool:
    """Change a job if a condition holds; whether it did.

    In this very moment.
    """
    return connection.execute(update(JOBS).where(JOBS.c.id == job_id, condition).values(**values)).rowcount == 1


def check_alive(connection: Connection, job_id: JobId) -> None:
    """See that a job was not purged.

    It stays so until the transaction ends.

    :raises JobExpired: if it was.
    """
    alive = select(JOBS.c.id).where(JOBS.c.id == job_id, JOBS.c.purged_at.is_(None)).with_for_update()
    if connection.scalar(alive) is None:
        raise JobExpired


def event(action: Action, actor: Actor, row: Mapping[str, Any] | RowMapping, result: str | None = None) -> Event:
    """What the audit log says of a job, with its model."""
    return Event(action, actor, row["id"], audit.to_text(model_of(row)), result)


def sealed(idempotency_key: str | None, site: str) -> str | None:
    """What is stored of an idempotency key.

    A sender may build it from a patient's number, and each site has keys of its own: a key is printable ASCII, so none holds what
    stands between the two.
    """
    if idempotency_key is None:
        return None
    return hashlib.sha256(f"{site}\0{idempotency_key}".encode() if site else idempotency_key.encode()).hexdigest()


def dump(warnings: Sequence[Notice]) -> str:
    """Warnings as the table keeps them."""
    return json.dumps([asdict(warning) for warning in warnings])


def with_notice(dumped: str, notice: Notice) -> str:
    """Warnings as the table keeps them, with one more."""
    return json.dumps([*json.loads(dumped), asdict(notice)])


def series_columns(series: SeriesFacts) -> dict[str, Any]:
    """The columns that describe a series."""
    z, y, x = series.spacing_mm
    return {
        "study_instance_uid": series.study_instance_uid,
        "series_instance_uid": series.series_instance_uid,
        "frame_of_reference_uid": series.frame_of_reference_uid,
        "slices": series.slices,
        "spacing_z_mm": z,
        "spacing_y_mm": y,
        "spacing_x_mm": x,
    }


def model_columns(model: ModelFacts) -> dict[str, Any]:
    """The columns that name a model."""
    return {"model_name": model.name, "model_version": model.version, "model_sha256": model.sha256}


def error_columns(error: OarlockError) -> dict[str, Any]:
    """The columns that say why a job failed."""
    return {"error_code": error.code, "error_title": error.title, "error_detail": error.detail}


TOMBSTONE: Final[dict[str, Any]] = {
    **series_columns(PURGED_SERIES),
    **model_columns(PURGED_MODEL),
    **IDLE,
    "profile": None,
    "idempotency_key": None,
    "content_sha256": "",
    "callback_url": None,
    "callback_pending": None,
    "identity": None,
    "label": None,
    "superseded_by": None,
    "intake_warnings": "[]",
    "result_warnings": "[]",
    "error_code": None,
    "error_title": None,
    "error_detail": None,
}
"""What a purge leaves of a job beside its id, its state and its times."""


def job_of(row: RowMapping) -> Job:
    """A job from its row."""
    warnings = json.loads(row["intake_warnings"]) + json.loads(row["result_warnings"])
    return Job(
        id=JobId(row["id"]),
        state=JobState(row["state"]),
        stage=None if row["stage"] is None else Stage(row["stage"]),
        progress=row["progress"],
        priority=Priority(row["priority"]),
        attempts=row["attempts"],
        series=SeriesFacts(
            row["study_instance_uid"],
            row["series_instance_uid"],
            row["frame_of_reference_uid"],
            row["slices"],
            (row["spacing_z_mm"], row["spacing_y_mm"], row["spacing_x_mm"]),
        ),
        model=model_of(row),
        profile=row["profile"],
        created_at=row["created_at"],
        started_at=row["started_at"],
        finished_at=row["finished_at"],
        purged_at=row["purged_at"],
        input_purged_at=row["input_purged_at"],
        cancel_requested=row["cancel_requested"],
        warnings=tuple(Notice(**warning) for warning in warnings),
        error=_failure(row),
        identity=row["identity"],
        superseded_by=row["superseded_by"],
        site=row["site"],
        rank=row["rank"],
        label=row["label"],
    )


def model_of(row: Mapping[str, Any] | RowMapping) -> ModelFacts:
    """The model of a job from its row."""
    return ModelFacts(row["model_name"], row["model_version"], row["model_sha256"])


def _failure(row: RowMapping) -> JobFailure | None:
    return None if row["error_code"] is None else JobFailure(row["error_code"], row["error_title"], row["error_detail"])

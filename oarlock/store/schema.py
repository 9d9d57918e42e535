"""Schema: every table of the database (ADR 0010).

As this version of the code reads and writes it.

What is here and what the steps in ``oarlock/store/migrations/versions`` build are the same; a test compares the two on
SQLite and on PostgreSQL. So a change here comes with a step there.
"""

from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    false,
    literal,
    type_coerce,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeDecorator

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Time(TypeDecorator[datetime]):
    """An aware UTC time, as whole microseconds since 1970.

    Exact, and sorted alike in every database.
    """

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:
        del dialect
        return None if value is None else (value - EPOCH) // timedelta(microseconds=1)

    def process_result_value(self, value: int | None, dialect: Dialect) -> datetime | None:
        del dialect
        return None if value is None else EPOCH + timedelta(microseconds=value)


class DatabaseNow(FunctionElement[int]):
    """The present by the database's clock.

    As whole microseconds since 1970: the same for all who write and read.
    """

    type = BigInteger()
    inherit_cache = True


@compiles(DatabaseNow, "postgresql")
def _now_of_postgresql(*_: Any, **__: Any) -> str:
    return "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000 AS BIGINT)"


@compiles(DatabaseNow, "sqlite")
def _now_of_sqlite(*_: Any, **__: Any) -> str:
    return "CAST((julianday('now') - 2440587.5) * 86400000000 AS INTEGER)"


METADATA: Final = MetaData()

JOBS: Final = Table(
    "jobs",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("state", Text, nullable=False),
    Column("stage", Text),
    Column("stage_since", Time),
    Column("progress", Float, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("study_instance_uid", Text, nullable=False),
    Column("series_instance_uid", Text, nullable=False),
    Column("frame_of_reference_uid", Text, nullable=False),
    Column("slices", Integer, nullable=False),
    Column("spacing_z_mm", Float, nullable=False),
    Column("spacing_y_mm", Float, nullable=False),
    Column("spacing_x_mm", Float, nullable=False),
    Column("model_name", Text, nullable=False),
    Column("model_version", Text, nullable=False),
    Column("model_sha256", Text, nullable=False),
    Column("profile", Text),
    Column("idempotency_key", Text, unique=True),
    Column("content_sha256", Text, nullable=False),
    Column("intake_warnings", Text, nullable=False),
    Column("result_warnings", Text, nullable=False),
    Column("error_code", Text),
    Column("error_title", Text),
    Column("error_detail", Text),
    Column("cancel_requested", Boolean, nullable=False),
    Column("worker", Text),
    Column("lease_token", Integer, nullable=False),
    Column("lease_until", Time),
    Column("created_at", Time, nullable=False),
    Column("queued_at", Time, nullable=False),
    Column("sent_at", Time),
    Column("started_at", Time),
    Column("finished_at", Time),
    Column("purged_at", Time),
    Column("keep_input_s", BigInteger),
    Column("keep_results_s", BigInteger),
    Column("input_purged_at", Time),
    Column("callback_url", Text),
    Column("callback_pending", Boolean),
    Column("identity", LargeBinary),
    Column("superseded_by", Text),
    Column("site", Text, nullable=False, server_default=""),
    Column("rank", Integer, nullable=False, server_default="0"),
    Column("label", Text),
    Index("jobs_by_age", "created_at", "id"),
    Index("jobs_by_state", "state", "created_at", "id", "purged_at"),
    Index("jobs_by_study", "study_instance_uid", "created_at", "id"),
    Index("jobs_by_series", "series_instance_uid", "created_at", "id"),
    Index("jobs_by_callback", "callback_pending", "state"),
    Index("jobs_by_site", "site", "created_at", "id"),
    Index("jobs_by_place", "state", "site", "rank", "queued_at", "id"),
)

CALLBACKS: Final = Table(
    "callbacks",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("job_id", Text, nullable=False),
    Column("url", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("job_state", Text, nullable=False),
    Column("error_code", Text),
    Column("ended_at", Time, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("next_at", Time, nullable=False),
    Column("outcome", Text),
    Index("callbacks_by_time", "state", "next_at"),
    Index("callbacks_by_job", "job_id"),
)

DELIVERIES: Final = Table(
    "deliveries",
    METADATA,
    Column("job_id", Text, primary_key=True),
    Column("place", Text, primary_key=True),
    Column("result", Text, primary_key=True),
    Column("state", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("note", Text),
    Column("at", Time),
    Column("gateway", Text),
    Index("deliveries_by_state", "state"),
)

GATEWAYS: Final = Table(
    "gateways",
    METADATA,
    Column("site", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("seen_at", Time, nullable=False),
    Column("archives", Text, nullable=False),
    Column("series", Text, nullable=False),
)
"""What each gateway last said of itself: which archives it knows, and which series it has that are not a job."""

GATEWAY_REQUESTS: Final = Table(
    "gateway_requests",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("site", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("gateway", Text),
    Column("archive", Text),
    Column("wanted", LargeBinary, nullable=False),
    Column("digest", Text, nullable=False),
    Column("idempotency_key", Text, unique=True),
    Column("holder", Text),
    Column("lease_token", Integer, nullable=False),
    Column("lease_until", Time),
    Column("job_id", Text),
    Column("prior_jobs", Text, nullable=False),
    Column("instances", Integer),
    Column("detail", Text),
    Column("created_at", Time, nullable=False),
    Column("taken_at", Time),
    Column("ended_at", Time),
    Column("actor_name", Text, nullable=False),
    Index("gateway_requests_by_age", "created_at", "id"),
    Index("gateway_requests_by_state", "state", "created_at"),
    Index("gateway_requests_by_job", "job_id"),
)
"""What gateways are asked to do. A service that de-identifies keeps ``wanted`` sealed: it has UIDs."""

SHADOWS: Final = Table(
    "shadows",
    METADATA,
    Column("job_id", Text, primary_key=True),
    Column("site", Text, nullable=False),
    Column("model_name", Text, nullable=False),
    Column("model_version", Text, nullable=False),
    Column("model_sha256", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("since", Time, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("token", Integer, nullable=False),
    Column("worker", Text),
    Column("note", Text),
    Index("shadows_by_state", "state", "since", "job_id"),
)
"""Models that draw jobs without delivering; a row goes with its job."""

OF_A_JOB: Final = (CALLBACKS, DELIVERIES, GATEWAY_REQUESTS, SHADOWS)
"""Rows that are deleted when their job is purged."""

WORKERS: Final = Table(
    "workers",
    METADATA,
    Column("name", Text, primary_key=True),
    Column("models", Text, nullable=False),
    Column("device", Text, nullable=False),
    Column("seen_at", Time, nullable=False),
)

STAGES: Final = Table(
    "stage_durations",
    METADATA,
    Column("stage", Text, primary_key=True),
    Column("bucket", Integer, primary_key=True),
    Column("jobs", BigInteger, nullable=False),
    Column("total_s", Float, nullable=False),
)


def lately(seconds: float) -> ColumnElement[bool]:
    """Whether a worker gave a sign of life in the last seconds.

    By the database's clock.
    """
    silent_us = DatabaseNow() - type_coerce(WORKERS.c.seen_at, BigInteger())
    return silent_us <= literal(int(seconds * 1_000_000), BigInteger())


KEYS: Final = Table(
    "keys",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("digest", Text, nullable=False),
    Column("scopes", Text, nullable=False),
    Column("profile", Text),
    Column("created_at", Time, nullable=False),
    Column("expires_at", Time),
    Column("revoked_at", Time),
    Column("keep_input_s", BigInteger),
    Column("keep_results_s", BigInteger),
    Column("site", Text, nullable=False, server_default=""),
)

REVIEWS: Final = Table(
    "reviews",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("job_id", Text, nullable=False),
    Column("site", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("model_version", Text, nullable=False),
    Column("oar", Text, nullable=False),
    Column("verdict", Text, nullable=False),
    Column("comment", Text),
    Column("at", Time, nullable=False),
    Column("actor", Text, nullable=False),
    Column("actor_name", Text, nullable=False),
    Index("reviews_by_job", "job_id", "oar", "id"),
    Index("reviews_by_organ", "oar", "verdict"),
)
"""What people said of organs of jobs. A comment is deleted with its job; the rest has no patient data, and stays."""

SESSIONS: Final = Table(
    "sessions",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("sealed", LargeBinary, nullable=False),
    Column("ends_at", Time, nullable=False),
    Index("sessions_by_end", "ends_at"),
)
"""Who has signed in to the pages: the hash of a cookie, and their key or token sealed with it. What is here opens nothing."""

AUDIT: Final = Table(
    "audit",
    METADATA,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("at", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("actor_name", Text, nullable=False),
    Column("address", Text),
    Column("action", Text, nullable=False),
    Column("job_id", Text),
    Column("model", Text),
    Column("result", Text),
    Column("hash", Text, nullable=False),
)
"""Triggers refuse to change or delete a row (step 0003)."""

AUDIT_HEAD: Final = Table(
    "audit_head",
    METADATA,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("hash", Text, nullable=False),
)
"""One row: the last entry of the audit log."""

QA_OARS: Final = Table(
    "qa_oars",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("name", Text, nullable=False, unique=True),
)
"""Which organ an id in packed scores stands for. An id never changes, whatever order the code lists organs in."""

QA_STREAMS: Final = Table(
    "qa_streams",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("model", Text, nullable=False),
    Column("model_version", Text, nullable=False),
    Column("model_sha256", Text, nullable=False),
    Column("scanner", Text, nullable=False),
    Column("site", Text, nullable=False, server_default=""),
    Column("shadow", Boolean, nullable=False, server_default=false()),
    UniqueConstraint("model", "model_version", "model_sha256", "scanner", "site", "shadow", name="qa_streams_once"),
)
"""What a score depends on beside the organ and the patient: the model that drew, whether it delivered, the scanner, the site."""

QA_CASES: Final = Table(
    "qa_cases",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("at", Time, nullable=False),
    Column("job_id", Text, nullable=False),
    Column("origin", Text, nullable=False),
    Column("position", Integer, nullable=False),
    Column("stream_id", Integer, ForeignKey("qa_streams.id"), nullable=False),
    Column("definition", Text, nullable=False),
    Column("content_sha256", Text),
    Column("superseded", Boolean, nullable=False),
    Index("qa_cases_by_age", "at", "id"),
    Index("qa_cases_by_stream", "stream_id", "at", "id"),
    Index("qa_cases_by_origin", "origin", "at", "id"),
    Index("qa_cases_by_job", "job_id"),
)
"""One comparison of a job's contours with an RTSTRUCT. No patient data, so that it may stay when its job is purged.

Of an approved RTSTRUCT there is the digest of its content; it is superseded when another one is approved for the same job.
"""

QA_SCORES: Final = Table(
    "qa_scores",
    METADATA,
    Column("case_id", Integer, ForeignKey("qa_cases.id"), primary_key=True),
    Column("oar", Text, primary_key=True),
    Column("presence", Text, nullable=False),
    Column("tolerance_mm", Float, nullable=False),
    Column("tolerance_rounded_mm", Float),
    Column("surface_dsc", Float),
    Column("surface_dsc_unrounded", Float),
    Column("volumetric_dsc", Float),
    Column("hausdorff_95_mm", Float),
    Column("mean_surface_distance_mm", Float),
    Column("added_path_length_mm", Float),
    Column("predicted_volume_ml", Float, nullable=False),
    Column("reference_volume_ml", Float, nullable=False),
    Column("undefined_reason", Text),
    Column("verdict", Text),
    sqlite_with_rowid=False,
)
"""The numbers of one organ in a case, why some are missing, and the verdict on what was drawn."""

QA_DAYS: Final = Table(
    "qa_days",
    METADATA,
    Column("day", Integer, primary_key=True, autoincrement=False),
    Column("stream_id", Integer, ForeignKey("qa_streams.id"), primary_key=True),
    Column("origin", Text, primary_key=True),
    Column("scores", LargeBinary, nullable=False),
)
"""The same scores by day (since 1970, UTC), for summaries: records of :data:`oarlock.store.scores.write.PACKED`."""

QA_HISTOGRAM: Final = Table(
    "qa_histogram",
    METADATA,
    Column("stream_id", Integer, ForeignKey("qa_streams.id"), primary_key=True),
    Column("origin", Text, primary_key=True),
    Column("oar", Text, primary_key=True),
    Column("bucket", Integer, primary_key=True, autoincrement=False),
    Column("cases", BigInteger, nullable=False),
    Column("total", Float, nullable=False),
)
"""Surface DSC of all cases ever, as Prometheus counts."""

BASELINES: Final = Table(
    "baselines",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("at", Time, nullable=False),
    Column("site", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("model_version", Text, nullable=False),
    Column("model_sha256", Text, nullable=False),
    Column("patients", Integer, nullable=False),
    Column("scores", Text, nullable=False),
    Column("of_scanners", Text, nullable=False, server_default="{}"),
    Column("actor", Text, nullable=False),
    Column("actor_name", Text, nullable=False),
)
"""What models scored on past patients (commissioning): surface DSC by organ, and by scanner too, as JSON. No patient data."""

QA_CHECKS: Final = Table(
    "qa_checks",
    METADATA,
    Column("oar", Text, primary_key=True),
    Column("code", Text, primary_key=True),
    Column("level", Text, primary_key=True),
    Column("findings", BigInteger, nullable=False),
)
"""How often a check gave a level for an organ, over all jobs ever; the organ is empty for a whole set."""

QA_FINDINGS: Final = Table(
    "qa_findings",
    METADATA,
    Column("day", Integer, primary_key=True, autoincrement=False),
    Column("stream_id", Integer, ForeignKey("qa_streams.id"), primary_key=True),
    Column("oar", Text, primary_key=True),
    Column("code", Text, primary_key=True),
    Column("level", Text, primary_key=True),
    Column("findings", BigInteger, nullable=False),
)
"""The same by day (since 1970, UTC), model, scanner and site."""

QA_UNCOUNTED: Final = Table(
    "qa_uncounted",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("day", Integer, nullable=False),
    Column("stream_id", Integer, ForeignKey("qa_streams.id"), nullable=False),
    Column("shadow", Boolean, nullable=False),
    Column("findings", Text, nullable=False),
)
"""What jobs left for the two tables before: the sweeper counts a row, and deletes it; until then readers add it."""
